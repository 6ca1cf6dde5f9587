"""The one protocol of encoders: from images, an array or a stream, to latents."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from latent_al.types import Data, Encoded


class Encodings(NamedTuple):
    """The splits in latent space, and what else a trained encoder gives.

    Attributes:
        train: the training images.
        validation: the validation images.
        test: the test images.
        losses: [parts 2], the training and validation loss of each epoch; of a stream, of each chunk.
        decode: latents [n d] to images [n h w c] in [0, 1], a `jax.tree_util.Partial`; None for an encoder that is not
            trained.
        unit_cube: whether the latents are pixels, in [0, 1].
    """

    train: Encoded
    validation: Encoded
    test: Encoded
    losses: np.ndarray | None = None
    decode: Callable | None = None
    unit_cube: bool = False


class Forecast(NamedTuple):
    """The cost of encoding a pool.

    Attributes:
        training: seconds.
        encoding: seconds.
        memory: bytes that the larger of the two needs.
    """

    training: float
    encoding: float
    memory: int


class Encoder(NamedTuple):
    """An encoder, by the functions that make latents of images.

    The training images of `Data` are an array or a `Stream`. What is learned from them is kept in the folder, and so
    are the latents of a stream, shard by shard: an interrupted call continues where it stopped, and only rows added
    since then are encoded.

    Attributes:
        encode: (data, folder, mesh=None) -> Encodings. Training runs on one device; the training images are
            encoded there too, or by all devices that share their rows.
        shapes: (data) -> what the training images are encoded to, as `Encoded` of `jax.ShapeDtypeStruct`; refuses what
            cannot work, without doing any work.
        forecast: (data, folder) -> Forecast of the work left on a stream, measured on a part of it; None where nothing
            is left.
    """

    encode: Callable[..., Encodings]
    shapes: Callable[[Data], Encoded]
    forecast: Callable[[Data, Path], Forecast | None] = lambda data, folder: None
