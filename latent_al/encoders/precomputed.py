"""The encoder that reads embeddings made elsewhere, by the order of their rows or by an index of names."""

import hashlib
import posixpath
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from latent_al.data.file_names import FileNames
from latent_al.data.images import Stream
from latent_al.encoders.protocol import Encoder, Encodings
from latent_al.models.train import BLOCK
from latent_al.runtime.files import expand, read_csv, write_csv
from latent_al.runtime.processes import share
from latent_al.types import BadInput, Data, Encoded

COLUMNS = ("id", "file_name")
"""Either names the rows of an index."""
FINGERPRINTS = "embeddings.csv"
"""The file with a fingerprint of each image's embedding."""
SAVES = {
    ".csv": "pandas.read_csv({0!r}).to_numpy()",
    ".parquet": "pandas.read_parquet({0!r}).to_numpy()",
    ".pt": "torch.load({0!r}).numpy()",
    ".pth": "torch.load({0!r}).numpy()",
}
"""Suffix of a file of another kind -> the Python code for the array that it holds."""


class Index(NamedTuple):
    """The column of an index file that names images, and the name of each row of the embeddings."""

    column: str
    names: list[str]


def precomputed(
    *, latents: str, index: str | None = None, validation: str | None = None, test: str | None = None
) -> Encoder:
    """Returns the encoder that reads embeddings [n d] from `.npy` files, one row per image.

    Rows are in the order of the data source, which is random for an `image_folder`; or an index names them, and extra
    rows do no harm. The files may move: they are identified by their content. A float32 file in the order of the source
    is read on demand: with several processes, each reads the rows of its devices.

    Args:
        latents: the file for the training images, without those held out; in a labelling job, for all its images.
        index: a CSV with a row for each row of `latents`, whose column `id`, or else `file_name`, the path below the
            folder, names the image; None where rows are in the order of the source.
        validation: the file for the validation images, in their order; None where there are none.
        test: the file for the test images, in their order; None where there are none.

    Raises:
        BadInput: a missing or broken file, one that is not `.npy`, a wrong shape or length, images without an
            embedding, or with another one than before, values that are NaN or infinite; no index for a pool that may
            grow.
    """
    latents, index, validation, test = (
        path if path is None else str(expand(path, f"the encoder's {name}"))
        for name, path in (("latents", latents), ("index", index), ("validation", validation), ("test", test))
    )

    def read_train(data):
        embeddings = _open(latents, "training", data.train.images, has_index=index is not None)
        return embeddings, None if index is None else read_index(index, latents, len(embeddings))

    def encode(data, folder, mesh=None):
        del mesh
        embeddings, index_read = read_train(data)
        held_out = [
            Encoded(_checked(path, _open_held_out(path, name, split.images, embeddings.shape[1])), None)
            for path, name, split in ((validation, "validation", data.validation), (test, "test", data.test))
        ]
        if index_read is None:
            return Encodings(Encoded(_checked(latents, embeddings), None), *held_out)
        rows = find_rows(index_read, data, index)
        rows_read = _checked(latents, embeddings[rows], rows, data.ids)
        if isinstance(data.train.images, Stream):
            check_fingerprints(folder / FINGERPRINTS, data.ids, rows_read, latents)
        return Encodings(Encoded(rows_read, None), *held_out)

    def shapes(data):
        embeddings, _ = read_train(data)
        for path, name, split in ((validation, "validation", data.validation), (test, "test", data.test)):
            _open_held_out(path, name, split.images, embeddings.shape[1])
        size = data.train.images.shape[0]
        return Encoded(jax.ShapeDtypeStruct((size, embeddings.shape[1]), jnp.float32), None)

    return Encoder(encode, shapes)


def read_index(path: str, latents: str, size: int) -> Index:
    """Reads the CSV that names the `size` rows of the file `latents`.

    Raises:
        BadInput: it cannot be read, has neither column, the wrong length, no rows, or a name twice.
    """
    try:
        table = read_csv(Path(path))
    except (OSError, EOFError, ValueError) as error:
        raise BadInput(
            f"the index {path} cannot be read ({error}); give a CSV whose column id, as in manifest.csv, or file_name "
            f"says which image each row of {latents} belongs to."
        ) from error
    column = next((name for name in COLUMNS if name in table.columns), None)
    if column is None:
        raise BadInput(f"{path} has the columns {', '.join(table.columns)}; expected one named id or file_name.")
    if len(table) != size or not size:
        raise BadInput(f"{path} has {len(table)} rows and {latents} has {size}; give a row for each image in both.")
    repeated = table[column][table[column].duplicated()]
    if len(repeated):
        raise BadInput(f"{path} has {repeated.iloc[0]!r} more than once; keep one row for each image.")
    return Index(column, table[column].tolist())


def find_rows(index: Index, data: Data, path: str) -> np.ndarray:
    """Returns the row [n] of the embeddings for each training image; `path` is where the index was read.

    Raises:
        BadInput: an image has no row, or two, or only a file name that by now means another image.
    """
    names, row_of = data.ids, {name: row for row, name in enumerate(index.names)}
    if index.column == "file_name" and data.file_names is not None:
        names = data.file_names
        if not all(names):
            image = data.ids[[bool(name) for name in names].index(False)]
            raise BadInput(
                f"the file of image {image} has other content than before, so that its name means two images; give "
                f"{path} a column id, as in manifest.csv, instead of file_name."
            )
        row_of = _rows_by_name(index.names, names, path)
    missing = [name for name in names if name not in row_of]
    if missing:
        raise BadInput(
            f"{len(missing)} of {len(names)} images have no row in {path}, the first is {str(missing[0])!r}, and the "
            f"first row there is for {index.names[0]!r}; embed them too, under their {index.column}."
        )
    return np.array([row_of[name] for name in names], int)


def _rows_by_name(index_names, file_names, path):
    """Returns the row of each file that the names of an index mean, however they are spelt."""
    # An index may put the folder of the images before all names.
    folders = [posixpath.dirname(name.replace("\\", "/").lstrip("/")) for name in index_names]
    files = FileNames(map(str, file_names), posixpath.basename(posixpath.commonpath(folders)))
    row_of: dict[str, int] = {}
    for row, name in enumerate(index_names):
        file_name = files.find(name) or name
        if file_name in row_of:
            first = row_of[file_name]
            raise BadInput(f"{path} names {file_name!r} twice, as {index_names[first]!r} and {name!r}; keep one.")
        row_of[file_name] = row
    return row_of


def check_fingerprints(path: Path, ids: np.ndarray, embeddings: np.ndarray, source: str) -> None:
    """Saves a fingerprint of each image's embedding, or checks that it is the one saved, wherever the file has moved.

    Args:
        path: of the table of fingerprints; images that it lacks are added.
        ids: of the images.
        embeddings: [n d], float32.
        source: the file of the embeddings, for the message.

    Raises:
        BadInput: an image has another embedding than before; the table cannot be read.
    """
    prints = [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in embeddings]
    table = pd.DataFrame(dict(id=ids, fingerprint=prints))
    try:
        kept = read_csv(path).set_index("id").fingerprint if path.exists() else pd.Series(dtype=str)
    except (AttributeError, KeyError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}); restore it from a copy.") from error
    before = table.id.map(kept)
    differing = before.notna() & (before != table.fingerprint)
    if differing.any():
        raise BadInput(
            f"{source} has another embedding than before for {differing.sum():,} of {before.notna().sum():,} images, "
            f"the first is {table.id[differing].iloc[0]}; give the embeddings that this job was begun with, or choose "
            "another --workdir."
        )
    if before.isna().any():
        path.parent.mkdir(parents=True, exist_ok=True)
        gone = kept[~kept.index.isin(table.id)].rename_axis("id").reset_index(name="fingerprint")
        write_csv(path, pd.concat([gone, table], ignore_index=True))


def _open(path, name, images, *, has_index=False, width=None):
    if not has_index and isinstance(images, Stream):
        raise BadInput(
            f"{path} has no index, but the images are a pool that may grow and has no order of its own; set "
            "the encoder's index to a CSV whose column id, as in manifest.csv, or file_name says which image each row "
            "belongs to."
        )
    try:
        embeddings = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        cure = f"{_to_save(path)}, " if Path(path).suffix in SAVES and Path(path).exists() else ""
        raise BadInput(f"{path} cannot be read as .npy ({error}); {cure}give the {name} embeddings [n d].") from error
    if not isinstance(embeddings, np.ndarray):
        raise BadInput(f"{path} is an archive; expected a .npy file: {_to_save(path, embeddings)}.")
    wanted = "n" if has_index else len(images)
    if embeddings.ndim != 2 or embeddings.dtype.kind not in "fiu" or wanted not in ("n", len(embeddings)):
        raise BadInput(
            f"{path} holds {embeddings.dtype} of shape {embeddings.shape}; expected numbers of shape [{wanted} d], "
            f"one row for each {name} image."
        )
    if width not in (None, embeddings.shape[1]):
        raise BadInput(f"{path} has {embeddings.shape[1]} columns but latents has {width}; embed all splits alike.")
    return embeddings


def _to_save(path, archive=None):
    """Returns the call that saves the contents of a file of another kind as `.npy`."""
    names = [] if archive is None else [name for name in archive.files if f"{name}.npy" in archive.zip.namelist()]
    array = f"numpy.load({path!r})[{names[0]!r}]" if names else SAVES.get(Path(path).suffix, SAVES[".pt"]).format(path)
    also = f", or another of its arrays {names}" if len(names) > 1 else ""
    return f"numpy.save({str(Path(path).with_suffix('.npy'))!r}, {array}){also}"


def _open_held_out(path, name, images, width):
    if path is not None:
        return _open(path, name, images, width=width)
    if len(images):
        raise BadInput(
            f"there are {len(images)} {name} images but no embeddings of them; set the encoder's {name} file."
        )
    return np.zeros((0, width), np.float32)


def _checked(path, embeddings, rows=None, names=()):
    """Returns the embeddings as float32, after a check for NaN that several processes share among them.

    `rows` are the embeddings' rows in the file, and `names` those of their images, where there is an index.
    """
    embeddings = embeddings.astype(np.float32, copy=False)
    size = len(embeddings)
    first, end = share(size)
    finite = [np.isfinite(embeddings[i : min(i + BLOCK, end)]).all(axis=1) for i in range(first, end, BLOCK)]
    bad = first + np.flatnonzero(~np.concatenate([np.ones(0, bool), *finite]))
    if len(bad):
        row = f"row {bad[0]}" if rows is None else f"row {rows[bad[0]]}, of image {names[bad[0]]}"
        raise BadInput(
            f"{path} has NaN or infinite values in {len(bad)} of {size} rows, the first is {row}; embed those images "
            "again."
        )
    return embeddings
