"""The encoder that is a pretrained network in an ONNX file, on images at the size that it was trained with."""

import functools
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jaxtyping import Float

from latent_al.data.image_files import UnusableImage
from latent_al.data.images import Stream
from latent_al.data.listing import read_in_threads
from latent_al.data.originals import Original
from latent_al.data.preprocessing import preprocess, read_preprocessing
from latent_al.encoders.network import (
    Network,
    check_fit,
    digest_model,
    find_model,
    input_of,
    open_network,
    open_session,
)
from latent_al.encoders.protocol import Encoder, Encodings, Forecast
from latent_al.encoders.shards import Shards, encode_shards, missing_shards, num_rows
from latent_al.runtime.files import expand, replacing, write_json
from latent_al.runtime.noise import noise_to_file
from latent_al.runtime.processes import after_the_first, is_first
from latent_al.types import BadInput, Data, Encoded, Split, differences, require

SHARD = 256
"""Rows in a shard of images that are not a stream."""
AHEAD = 64
"""Images that are read and preprocessed ahead of their turn."""
KEPT, COMPONENTS, NOISE = "network.json", "components.npz", "warnings.log"
"""The files of an encoder's folder: which network it is, the principal components, what libraries print."""


def onnx(
    *,
    root: str,
    output: str | None = None,
    normalize: bool = False,
    latent_dim: int | None = None,
    batch_size: int = 32,
    size: int | tuple[int, int] | None = None,
    crop: int | None = None,
    mean: Sequence[float | int] | None = None,
    std: Sequence[float | int] | None = None,
    resample: str | None = None,
) -> Encoder:
    """Returns the encoder that is a pretrained network in an ONNX file, which ONNX Runtime runs.

    Images are read from their files where there are some, at the size that the network was trained with. They are
    prepared as `preprocessor_config.json` next to the network says, unless settings say otherwise.

    Args:
        root: the folder of the network as model hubs lay it out, or its .onnx file.
        output: the output that latents are taken from; by default the first that exists of image_embeds, a pooled
            output, the class token of last_hidden_state, and the average over a feature map.
        normalize: whether latents are scaled to length 1.
        latent_dim: number of principal components, of the first pool, to keep; by default latents are left as they are.
        batch_size: images that the network takes at a time, unless it has a fixed number of its own.
        size: size of resized images, (height, width) or the shorter side; by default that in the file.
        crop: side of the central square that is kept; by default that in the file.
        mean: values to subtract from red, green and blue; by default those in the file.
        std: values to divide red, green and blue by; by default those in the file.
        resample: bicubic, bilinear, lanczos or another resampling of Pillow; by default that in the file.

    Raises:
        BadInput: no network, or one that is not of images; no preprocessing; ONNX Runtime is not installed; an image
            whose latents are not finite; a different network than before in a pool that grows.
    """
    if batch_size < 1 or (latent_dim is not None and latent_dim < 1):
        raise BadInput(f"the encoder has batch_size {batch_size} and latent_dim {latent_dim}; expected 1 or more.")
    settings = dict(size=size, crop=crop, mean=mean, std=std, resample=resample)
    load = functools.cache(lambda: _load(expand(root, "config.encoder.root"), output, settings))

    def encode(data, folder, mesh=None):
        del mesh
        network, fingerprint = load()
        is_stream = isinstance(data.train.images, Stream)
        folder = folder if is_stream else folder / hashlib.sha256(json.dumps(fingerprint).encode()).hexdigest()[:16]
        _check_rows(latent_dim, len(data.train.images))
        with after_the_first():
            _check_network(folder, fingerprint)
            encoded = {}
            for name in ("train", "validation", "test"):
                encoder = _SplitEncoder(network, batch_size, getattr(data, name), _names(data, name))
                encoded[name] = _scaled(encoder.encode(folder if is_stream else folder / name), normalize)
            if latent_dim is not None:
                components = _components(folder / COMPONENTS, encoded["train"], latent_dim)
                encoded = {name: components.apply(latents) for name, latents in encoded.items()}
        return Encodings(*(Encoded(latents) for latents in encoded.values()))

    def shapes(data):
        network, _ = load()
        size, *_, channels = data.train.images.shape
        if channels not in (1, 3):
            raise BadInput(f"images have {channels} channels; expected 1 or 3 for the network {network.path}.")
        if size:
            _check_rows(latent_dim, size)
        if latent_dim is not None and latent_dim > network.latent_dim:
            raise BadInput(
                f"latent_dim is {latent_dim}, but {network.path} gives {network.latent_dim} numbers per image; lower "
                "it, or leave it out."
            )
        return Encoded(jax.ShapeDtypeStruct((size, latent_dim or network.latent_dim), jnp.float32))

    def forecast(data, folder):
        _check_rows(latent_dim, len(data.train.images))
        return _SplitEncoder(load()[0], batch_size, data.train, _names(data, "train")).forecast(folder)

    return Encoder(encode, shapes, forecast)


class _Prepared(NamedTuple):
    """An image as the network reads it, or None; and the `reason` why it is None, or is the scanned image."""

    pixels: np.ndarray | None
    reason: str | None


class _Components(NamedTuple):
    """Principal components [k d] of latents, and their mean [d]."""

    mean: Float[np.ndarray, " d"]
    components: Float[np.ndarray, "k d"]

    def apply(self, latents: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Returns the coordinates of latents along the components."""
        return (latents - self.mean) @ self.components.T


class _SplitEncoder(NamedTuple):
    """The encoding of one split; `names` gives the name of a row for messages."""

    network: Network
    batch_size: int
    split: Split
    names: Callable[[int], str]

    def encode(self, folder: Path) -> Float[np.ndarray, "n d"]:
        """Returns the latents of all rows; those that `folder` has are read, and all others added to it."""
        if not len(self.split.images):
            return np.zeros((0, self.network.latent_dim), np.float32)
        replaced: list[tuple[str, str]] = []
        with noise_to_file(folder / NOISE) as terminal:
            encoded = encode_shards(self._shards, folder, partial(self._rows, replaced), terminal)
        if replaced:
            name, reason = replaced[0]
            _say(
                f"encoded as they were scanned, perhaps at a smaller size: {len(replaced):,} of "
                f"{len(self.split.images):,} images, the first is {name}: {reason}"
            )
        return encoded.latents

    def forecast(self, folder: Path) -> Forecast | None:
        """Forecasts what is left of a stream by encoding one batch."""
        missing = missing_shards(self._shards, folder)
        if not missing:
            return None
        start, stop = missing[0]
        size = min(self._batch, stop - start)
        process = psutil.Process()
        before, begun = process.memory_info().rss, time.perf_counter()
        with noise_to_file(folder / NOISE):
            _consume(self._rows([], start, start + size))
        seconds = (time.perf_counter() - begun) * num_rows(missing) / size
        memory = max(process.memory_info().rss - before, 0) + 2 * self.network.path.stat().st_size
        return Forecast(0.0, seconds, memory + 8 * self.network.latent_dim * len(self.split.images))

    @property
    def _shards(self) -> Shards:
        images = self.split.images
        if isinstance(images, Stream):
            return images.shards
        return [(start, min(start + SHARD, len(images))) for start in range(0, len(images), SHARD)]

    @property
    def _batch(self) -> int:
        return self.network.input.batch or self.batch_size

    def _rows(self, replaced: list, start: int, stop: int) -> Iterator[Encoded]:
        # Threads, not processes: Pillow and ONNX Runtime release Python's lock. On two cores, photographs of 12
        # megapixels were prepared 1.8 times as fast as one after the other, and small ones, at 500 a second, wait for
        # the network anyway.
        prepared = read_in_threads(self._prepare, range(start, stop), ahead=AHEAD)
        for low in range(start, stop, self._batch):
            images = list(itertools.islice(prepared, min(self._batch, stop - low)))
            for row, image in enumerate(images, low):
                if image.pixels is None:
                    raise BadInput(
                        f"{self.names(row)} can no longer be read ({image.reason}); fix it, and run the same "
                        "command again: what has been encoded is kept."
                    )
                if image.reason is not None:
                    replaced.append((self.names(row), image.reason))
            latents = self.network.embed([image.pixels for image in images])
            finite = np.isfinite(latents).all(axis=1)
            if not finite.all():
                raise BadInput(
                    f"output {self.network.output.name} of {self.network.path} has NaN or infinite values for "
                    f"{self.names(low + int(finite.argmin()))}; leave that image out, or use the network in float32."
                )
            yield Encoded(latents)

    def _prepare(self, row: int) -> _Prepared:
        try:
            original = self._original(row)
        except UnusableImage as error:
            return _Prepared(None, str(error))
        return _Prepared(self.network.prepare(preprocess(original.image, self.network.steps)), original.reason)

    def _original(self, row) -> Original:
        if self.split.originals is not None:
            return self.split.originals.read(row)
        image = np.asarray(self.split.images[row])
        # The processors of networks resize bytes.
        levels = image if image.dtype == np.uint8 else np.round(image * 255).astype(np.uint8)
        return Original(np.broadcast_to(levels, (*levels.shape[:2], 3)), None)


def _load(root: Path, output: str | None, settings: dict[str, Any]) -> tuple[Network, dict[str, Any]]:
    """Opens the network, says what was chosen, and returns it with what distinguishes it from others."""
    try:
        require("the encoder onnx", "pretrained", "onnxruntime")
    except ModuleNotFoundError as error:
        raise BadInput(str(error)) from error
    path = find_model(root)
    digest = digest_model(path)
    session = open_session(path)
    entry = input_of(path, session)
    folders = [path.parent, path.parent.parent] if path.parent.name == "onnx" else [path.parent]
    steps = read_preprocessing(folders, settings, takes_bytes=entry.dtype is np.uint8)
    check_fit(path, entry, steps)
    network = open_network(path, session, entry, steps, output)
    _say(network.describe())
    return network, dict(model=digest, output=network.output.name, preprocessing=steps._asdict())


def _names(data: Data, name: str) -> Callable[[int], str]:
    split = getattr(data, name)
    if split.originals is not None:
        return lambda row: split.originals.name(row) or f"image {data.ids[row]}"
    return (lambda row: str(data.ids[row])) if name == "train" else (lambda row: f"{name} image {row}")


def _check_rows(latent_dim, size):
    if latent_dim is not None and size < latent_dim:
        raise BadInput(
            f"latent_dim is {latent_dim}, but there are {size} training images, which have no more principal "
            "components than that; lower it, or leave it out."
        )


def _check_network(folder, fingerprint):
    """Records which network encodes into the folder, or checks that it is the recorded one."""
    path, wanted = folder / KEPT, json.loads(json.dumps(fingerprint))
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, wanted)
        return
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} cannot be read ({error}); delete {folder}: it is made again.") from error
    differing = differences(kept, wanted, "then", "now")
    if differing:
        raise BadInput(
            f"{folder} was begun with another network ({'; '.join(differing)}); put that one back, or choose another "
            "--workdir."
        )


def _scaled(latents, normalize):
    if not normalize:
        return latents
    return latents / np.maximum(np.linalg.norm(latents, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _components(path: Path, latents: Float[np.ndarray, "n d"], latent_dim: int) -> _Components:
    """Reads the principal components at `path`, or fits them to the latents and keeps them there."""
    if path.exists():
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return _Components(**arrays)
        except Exception as error:  # As in `shards`.
            raise BadInput(f"{path} cannot be read ({error}); restore it from a copy.") from error
    from sklearn.decomposition import PCA

    mean = latents.mean(axis=0, dtype=np.float64).astype(np.float32)
    fitted = PCA(latent_dim, svd_solver="covariance_eigh").fit(latents - mean)
    components = _Components(mean + fitted.mean_, fitted.components_)
    with replacing(path) as file:
        np.savez(file, **components._asdict())
    return components


def _consume(parts):
    for _ in parts:
        pass


def _say(line):
    if is_first():
        print(line, flush=True)
