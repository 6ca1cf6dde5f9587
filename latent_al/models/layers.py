"""Layers that the models share."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from latent_al.types import BadInput, Key

FLOAT = jnp.dtype("float32")


def dense(units: int, dtype: jnp.dtype = FLOAT) -> nn.Dense:
    """A dense layer with Keras's initial weights; the weights are float32, the arithmetic is `dtype`."""
    return nn.Dense(units, kernel_init=nn.initializers.glorot_uniform(), dtype=dtype)


def drop(key: Key, x: Float[Array, "b ..."], rate: Float[Array, ""] | float) -> Float[Array, "b ..."]:
    """Inverted dropout that draws 8 random bits a unit: the 32 of `nn.Dropout` are a fifth of a CPU's training step.

    The rate, in [0, 0.99], is met to 1/512, and what is kept is scaled by the rate as met.
    """
    width = math.prod(x.shape[1:])
    words = jax.random.bits(key, (x.shape[0], -(-width // 4)), jnp.uint32)
    bits = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(x.shape[0], -1)[:, :width].reshape(x.shape)
    num_dropped = jnp.round(rate * 256)
    return jnp.where(bits >= num_dropped.astype(jnp.uint8), x * (256 / (256 - num_dropped)), 0)


def max_pool_2x(x: Float[Array, "n h w c"]) -> Float[Array, "n h//2 w//2 c"]:
    """Max-pooling 2x2 for even sides: `nn.max_pool` with a gradient that a CPU takes quickly, shared out among ties."""
    rows = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def check_halves(what: str, image_shape: tuple[int, int, int], levels: int) -> None:
    """Raises BadInput where the sides do not halve evenly between `levels` levels."""
    by = 2 ** (levels - 1)
    if image_shape[0] % by or image_shape[1] % by:
        raise BadInput(
            f"{what} has {levels} levels and images of {image_shape[0]} x {image_shape[1]}; expected sides that are "
            f"multiples of {by}: resize the images, or choose fewer levels."
        )
