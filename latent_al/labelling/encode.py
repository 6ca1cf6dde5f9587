"""Images on disk to latents on disk: an auto-encoder trained on a stream of them, or embeddings that people have.

Only a chunk of images is in memory at a time, and the latents. What is done stays done when the run is stopped.
"""

import io
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from tqdm import tqdm

from latent_al.data.store import Store, shard_rows
from latent_al.encoders.base import Training, block_of, encode_images, first_params, has_spread, make_autoencoder
from latent_al.models import AUTOENCODERS
from latent_al.models.autoencoders import AutoEncoder
from latent_al.models.train import epoch, in_blocks, start
from latent_al.runtime.checkpoints import Checkpoints
from latent_al.runtime.files import read_csv, write_atomically, write_json
from latent_al.types import BadInput, Encoded, Params

CHUNK, BATCHES = 2**26, 32
"""Bytes of images, as floats, that are on the device at a time, and batches, at most."""
SECONDS = 30
"""Between checkpoints of the training."""
READING = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)


class Streamed(NamedTuple):
    """An auto-encoder with the functions that take images as bytes, `chunk` of them to train and `piece` to encode.

    train: (key, state, pixels [chunk h w c], count) -> (state, mean loss), of the first `count` images.
    encode: (params, pixels [piece h w c]) -> Encoded.
    """

    autoencoder: AutoEncoder
    training: Training
    image_shape: tuple[int, int, int]
    has_spread: bool
    chunk: int
    piece: int
    train: Any
    encode: Any


class Forecast(NamedTuple):
    """Seconds of training and of encoding, and the bytes of memory that the larger of the two needs."""

    training: float
    encoding: float
    memory: int


def build_streamed(spec: Mapping, image_shape: tuple[int, int, int]) -> Streamed:
    """The auto-encoder of `spec`, a row of `AUTOENCODERS` with the settings of `Training`.

    Raises:
        BadInput: an unknown name, what the auto-encoder or its training refuses.
    """
    sizes = dict(spec)
    training = Training(*(sizes.pop(name) for name in Training._fields))
    autoencoder = make_autoencoder(AUTOENCODERS[sizes.pop("name")], training, image_shape, **sizes)
    batch_size = training.batch_size
    chunk = batch_size * max(1, min(BATCHES, CHUNK // (4 * batch_size * math.prod(image_shape))))
    settings = dict(
        loss=autoencoder.loss, optimizer=autoencoder.optimizer(training.learning_rate), batch_size=batch_size
    )
    blocked = in_blocks(encode_images(autoencoder), block_of(image_shape))

    def train(key, state, pixels, count):
        return epoch(key, state, _as_floats(pixels), jnp.arange(chunk), count, **settings)

    def encode(params, pixels):
        return blocked(params, _as_floats(pixels))

    piece = min(chunk, shard_rows(image_shape))
    known = (autoencoder, training, image_shape, has_spread(autoencoder, image_shape))
    return Streamed(*known, chunk, piece, jax.jit(train), jax.jit(encode))


def forecast(streamed: Streamed, store: Store, folder: Path) -> tuple[Forecast, Streamed]:
    """What is left to be done, from one step and one piece, measured; and `streamed` with its functions compiled."""
    training, missing = streamed.training, missing_shards(store, folder)
    key, state = jax.random.key(0), _start(streamed, store)
    pixels = _fill(store[: streamed.chunk], streamed.chunk)
    piece = pixels[: streamed.piece]
    encode = streamed.encode.lower(state.params, piece).compile()
    encoding = _seconds(encode, state.params, piece) * sum(-(-(stop - low) // len(piece)) for low, stop in missing)
    memory = encode.memory_analysis().temp_size_in_bytes + sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    if len(missing) < len(store.shards):
        return Forecast(0.0, encoding, memory + 5 * piece.nbytes), streamed._replace(encode=encode)
    train = streamed.train.lower(key, state, pixels, 1).compile()
    whole = _seconds(train, key, state, pixels, streamed.chunk)
    num_images = training.epochs * _training_rows(store, folder)
    seconds = whole * num_images / streamed.chunk
    memory = max(memory, train.memory_analysis().temp_size_in_bytes) + 5 * pixels.nbytes
    return Forecast(seconds, encoding, memory), streamed._replace(train=train, encode=encode)


def train(streamed: Streamed, store: Store, folder: Path) -> Params:
    """The weights, trained on the images that were there when the training began, from where `folder` stopped.

    Raises:
        BadInput: a loss that is NaN, or at the end above that of no training; the checkpoint before stays in `folder`.
    """
    training, chunk = streamed.training, streamed.chunk
    num_rows = _training_rows(store, folder)
    images = grain.MapDataset.source(store).slice(slice(num_rows)).seed(training.seed).shuffle()
    images = images.repeat(training.epochs)
    num_chunks = -(-len(images) // chunk)
    checkpoints = Checkpoints(folder / "training", seconds_between=SECONDS)
    state = _start(streamed, store)
    highest = _loss_at_start(streamed, store, state)
    done, (state, losses) = checkpoints.restore((state, np.full(num_chunks, np.nan)))
    if done == num_chunks:
        return state.params
    key = jax.random.fold_in(jax.random.key(training.seed), 1)
    chunks = images.slice(slice(done * chunk, None)).batch(chunk).to_iter_dataset(READING)
    with tqdm(chunks, "training the encoder", num_chunks, initial=done, unit="chunk") as bar:
        for index, pixels in enumerate(bar, done):
            known = (jax.random.fold_in(key, index), state, _fill(pixels, chunk), len(pixels))
            state, losses[index] = streamed.train(*known)
            # The first steps may overshoot by far, and be made good.
            if not losses[index] <= (highest if index + 1 == num_chunks else np.finfo(np.float32).max):
                raise BadInput(
                    f"the training loss is {losses[index]:g} in chunk {index + 1} of {num_chunks}, where {highest:g} "
                    f"was that of no training; lower the encoder's learning_rate ({training.learning_rate:g}), in "
                    "another --workdir: nothing is labelled in this one."
                )
            bar.set_postfix(loss=f"{losses[index]:.4g}")
            checkpoints.save(index + 1, (state, losses), last=index + 1 == num_chunks)
    return state.params


def encode(streamed: Streamed, store: Store, folder: Path) -> Encoded:
    """The latents of every row of the store, as NumPy arrays; those of a shard are made once and kept in `folder`."""
    missing = missing_shards(store, folder)
    params = train(streamed, store, folder) if missing else None
    for first, stop in tqdm(missing, "encoding", unit="shard", disable=not missing):
        parts = []
        for low in range(first, stop, streamed.piece):
            pixels = store[low : min(low + streamed.piece, stop)]
            encoded = jax.device_get(streamed.encode(params, _fill(pixels, streamed.piece)))
            parts.append(Encoded(*(None if each is None else each[: len(pixels)] for each in encoded)))
        _save(_latents_file(folder, first), _join(parts))
    return _join([_load(_latents_file(folder, first), stop - first) for first, stop in store.shards])


def missing_shards(store: Store, folder: Path) -> list[tuple[int, int]]:
    """The shards, (first, stop), that have not been encoded yet."""
    return [(first, stop) for first, stop in store.shards if not _latents_file(folder, first).exists()]


def precomputed(spec, table: pd.DataFrame) -> Encoded:
    """Embeddings that people have: `latents`, a `.npy` file [m d], and `index`, a CSV with a row for each of its rows.

    Args:
        spec: `latents` and `index` are the two files; the CSV has a column `id`, or else `file_name`, the path below
            the folder.
        table: of the scanned images, `id` and `file_name`, in the order of the result.

    Raises:
        BadInput: a file that cannot be read, of another shape or length, images without an embedding, values that are
            NaN or infinite.
    """
    latents, names, column = read_embeddings(spec)
    changed = table.file_name[table.status == "changed"]
    if column == "file_name" and len(changed):
        raise BadInput(
            f"{changed.iloc[0]!r} has other content than it had, so that its name means two images; give "
            f"{spec['index']} a column id, as in manifest.csv, in place of file_name."
        )
    where = {name: row for row, name in enumerate(names)}
    missing = [name for name in table[column] if name not in where]
    if missing:
        raise BadInput(
            f"{len(missing)} of {len(table)} images have no row in {spec['index']}, the first is {missing[0]!r}; embed "
            f"them too, under their {column}."
        )
    found = np.asarray(latents[[where[name] for name in table[column]]], np.float32)
    bad = ~np.isfinite(found).all(axis=1)
    if bad.any():
        raise BadInput(
            f"{spec['latents']} has NaN or infinite values for {bad.sum()} images, the first is "
            f"{table.file_name.iloc[bad.argmax()]!r}; embed those again."
        )
    return Encoded(found, None)


def read_embeddings(spec: Mapping) -> tuple[np.ndarray, list[str], str]:
    """The embeddings [m d], as they lie on disk, what names their rows, and the column that does.

    Raises:
        BadInput: a setting missing or unknown, a file that cannot be read, of another shape or length.
    """
    if spec.keys() != {"name", "latents", "index"}:
        raise BadInput(f"precomputed has the settings {', '.join(spec)}; expected name, latents and index.")
    path, index = Path(spec["latents"]), Path(spec["index"])
    try:
        latents, names = np.load(path, mmap_mode="r", allow_pickle=False), read_csv(index)
    except (OSError, EOFError, ValueError) as error:
        raise BadInput(
            f"the embeddings {path} with {index} cannot be read ({error}); give a .npy file and a CSV whose column id, "
            "as in manifest.csv, or file_name says which image each of its rows is of."
        ) from error
    column = next((name for name in ("id", "file_name") if name in names.columns), None)
    if column is None:
        raise BadInput(f"{index} has the columns {', '.join(names.columns)}; expected one named id or file_name.")
    if latents.ndim != 2 or latents.dtype.kind not in "fiu" or len(latents) != len(names):
        raise BadInput(
            f"{path} holds {latents.dtype} of shape {latents.shape}; expected numbers of shape [{len(names)} d], a row "
            f"for each of {index}."
        )
    repeated = names[column][names[column].duplicated()]
    if len(repeated):
        raise BadInput(f"{index} has {repeated.iloc[0]!r} more than once; keep one row for each image.")
    return latents, names[column].tolist(), column


def _training_rows(store, folder):
    """How many images the encoder is trained on: those scanned before its training began, whatever joins later."""
    path = folder / "trained_on.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, dict(num_images=len(store)))
    return json.loads(path.read_text())["num_images"]


def _start(streamed, store):
    autoencoder, training = streamed.autoencoder, streamed.training
    key_init, key_noise = jax.random.split(jax.random.key(training.seed))
    some = _as_floats(jnp.asarray(store[: block_of(streamed.image_shape)]))
    params = first_params(autoencoder, key_init, key_noise, some)
    return start(params, autoencoder.optimizer(training.learning_rate))


def _loss_at_start(streamed, store, state):
    some = _as_floats(jnp.asarray(store[: streamed.training.batch_size]))
    return float(streamed.autoencoder.loss(state.params, jax.random.key(0), some).mean())


def _seconds(program, *args):
    begun = time.perf_counter()
    jax.block_until_ready(program(*args))
    return time.perf_counter() - begun


def _as_floats(pixels):
    return pixels.astype(jnp.float32) / 255


def _fill(pixels, chunk):
    """Zeros behind the last images, so that one compiled program serves every chunk."""
    return np.pad(pixels, [(0, chunk - len(pixels)), (0, 0), (0, 0), (0, 0)])


def _join(parts):
    return Encoded(*(None if each[0] is None else np.concatenate(each) for each in zip(*parts, strict=True)))


def _latents_file(folder, first):
    return folder / "latents" / f"{first:09d}.npz"


def _save(path, part):
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **{name: each for name, each in part._asdict().items() if each is not None})
    write_atomically(path, buffer.getvalue())


def _load(path, size):
    try:
        with np.load(path, allow_pickle=False) as arrays:
            part = Encoded(**{name: arrays.get(name) for name in Encoded._fields})
        if len(part.latents) != size:
            raise ValueError(f"{len(part.latents)} rows where {size} were scanned")
    except Exception as error:  # zipfile, zlib and NumPy each raise their own.
        raise BadInput(f"{path} cannot be read ({error}); delete it and run again: it is encoded again.") from error
    return part
