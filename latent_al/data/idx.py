"""A directory of MNIST-style IDX files, plain or gzipped (yann.lecun.com/exdb/mnist gives the format)."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from latent_al.data.arrays import assemble, to_split
from latent_al.runtime.files import expand
from latent_al.types import BadInput, Data


def idx(*, root: str, num_validation: int, validation_rows: str = "first") -> Data:
    """Reads `*train-images*`, `*train-labels*`, `*t10k-images*` (or `*test-images*`) and its labels from `root`.

    Label files, and the test pair, may be absent.

    Args:
        root: the folder of the files.
        num_validation: training images to hold out.
        validation_rows: which training images are held out, `first` or `last`.

    Raises:
        BadInput: no directory, no training images, a truncated or foreign file, two files for one part.
    """
    folder = expand(root, "config.data.root")
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a directory; set config.data.root to the folder of the IDX files.")
    train = _find(folder, "train-images")
    if train is None:
        raise BadInput(
            f"no file *train-images* in {folder}, which holds {sorted(p.name for p in folder.iterdir())[:8]}; "
            "set config.data.root to the folder of the IDX files."
        )
    test = _find(folder, "t10k-images") or _find(folder, "test-images")
    return assemble(
        _read_pair(train, _find(folder, "train-labels")),
        test and _read_pair(test, _find(folder, "t10k-labels") or _find(folder, "test-labels")),
        num_validation=num_validation,
        validation_rows=validation_rows,
    )


def read_idx(path: Path) -> np.ndarray:
    """Reads the array of unsigned bytes in one IDX file.

    Raises:
        BadInput: not an IDX file of unsigned bytes, or not of the length that its header says.
    """
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(f"{path} is not a whole gzip file ({error}); fetch it again.") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise BadInput(f"{path} begins with {content[:4].hex()}; expected 000008, an IDX file of unsigned bytes.")
    header = 4 + 4 * content[3]
    shape = np.frombuffer(content[4:header], ">u4").tolist() if len(content) > header else None
    if shape is None or len(content) - header != math.prod(shape):
        raise BadInput(
            f"{path} holds {max(len(content) - header, 0)} bytes after its header, which says {shape}: "
            "it is truncated; fetch it again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _find(folder, part):
    files = sorted(path for path in folder.glob(f"*{part}*") if path.is_file())
    if len(files) > 1:
        raise BadInput(f"{folder} has {len(files)} files for {part}: {[path.name for path in files]}; keep one.")
    return files[0] if files else None


def _read_pair(image_path, label_path):
    images = read_idx(image_path)
    labels = label_path and read_idx(label_path)
    if labels is not None and len(labels) != len(images):
        raise BadInput(
            f"{label_path} has {len(labels)} labels but {image_path} has {len(images)} images; give both files of "
            "one set."
        )
    return to_split(images, labels)
