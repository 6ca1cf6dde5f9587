"""The encoder that leaves pixels as they are."""

import math

import jax
import jax.numpy as jnp

from latent_al.data.arrays import scaled
from latent_al.data.images import Stream
from latent_al.encoders.protocol import Encoder, Encodings
from latent_al.types import Encoded


def identity() -> Encoder:
    """Returns the encoder whose latents [n h*w*c] are the flattened pixels, in [0, 1]."""

    def encode(data, folder, mesh=None):
        del folder, mesh
        splits = [Encoded(_flatten(split.images), None) for split in (data.train, data.validation, data.test)]
        return Encodings(*splits, unit_cube=True)

    def shapes(data):
        size, *image_shape = data.train.images.shape
        return Encoded(jax.ShapeDtypeStruct((size, math.prod(image_shape)), jnp.float32), None)

    return Encoder(encode, shapes)


def _flatten(images):
    if isinstance(images, Stream):
        images = scaled(images[:])
    return images.reshape(len(images), math.prod(images.shape[1:]))
