"""One NumPy archive, or a folder of NumPy files, with the array names that Keras uses."""

import zipfile

import numpy as np

from latent_al.data.arrays import assemble, to_labels, to_split, with_channels
from latent_al.data.depth import find_bits
from latent_al.data.images import Mapped
from latent_al.runtime.files import expand
from latent_al.types import BadInput, Data, Split


def npz(*, root: str, num_validation: int, depth: int | None = None) -> Data:
    """Reads `x_train` [n h w] or [n h w c], and where present `y_train`, and `x_` and `y_` of validation and test.

    Labels [n] are classes where they are whole numbers, and angles in degrees in [0, 360) where they are floats.

    If the root is a folder with `x_train.npy` and so on, the training images stay on disk: with several processes, each
    reads the rows of its own devices.

    Args:
        root: the `.npz` file, or the folder.
        num_validation: rows held out of `x_train`; 0 where the file has `x_validation`.
        depth: bits of integers that are stored with more than eight; by default as many as the highest of all images
            takes.

    Raises:
        BadInput: no such file, not a whole archive, no `x_train`, pickled objects, labels of the wrong length.
    """
    path = expand(root, "config.data.root")
    arrays = _read_folder(path) if path.is_dir() else _read_archive(path)
    if "x_train" not in arrays:
        raise BadInput(f"{path} has arrays {sorted(arrays)} but no x_train; name the training images x_train.")
    images = [array for name, array in arrays.items() if name in ("x_train", "x_test", "x_validation")]
    bits = find_bits(images, depth)
    return assemble(
        _split(arrays, "train", bits, stays=path.is_dir()),
        _split(arrays, "test", bits),
        validation=_split(arrays, "validation", bits),
        num_validation=num_validation,
    )


def _read_folder(folder):
    arrays = {}
    for path in sorted(folder.glob("[xy]_*.npy")):
        try:
            arrays[path.stem] = np.lib.format.open_memmap(path, mode="r")
        except (EOFError, OSError, ValueError) as error:
            raise BadInput(f"{path} is not a whole .npy file of plain numbers ({error}); write it again.") from error
    return arrays


def _read_archive(path):
    if not path.is_file():
        raise BadInput(f"{path} is not a file; set config.data.root to an .npz file, or a folder of .npy files.")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except TypeError as error:  # An .npy file is loaded as an array, which `with` does not take.
        raise BadInput(
            f"{path} holds one array; set config.data.root to an .npz file, or to the folder of x_train.npy."
        ) from error
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise BadInput(f"{path} is not a whole .npz file of plain arrays ({error}); write it again.") from error


def _split(arrays, name, bits, *, stays=False):
    if f"x_{name}" not in arrays:
        return None
    images = with_channels(arrays[f"x_{name}"])
    labels = arrays.get(f"y_{name}")
    if labels is not None and labels.shape != images.shape[:1]:
        raise BadInput(
            f"y_{name} has shape {labels.shape} but x_{name} holds {len(images)} images; give one label per image."
        )
    if stays:
        return Split(Mapped(images, bits), None if labels is None else to_labels(labels))
    return to_split(images, labels, bits)
