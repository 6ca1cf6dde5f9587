"""Layers that the models share."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from latent_al.models import cpu
from latent_al.models.cpu import on_cpu
from latent_al.types import BadInput, Key

FLOAT = jnp.dtype("float32")


def dense(units: int, dtype: jnp.dtype = FLOAT) -> nn.Dense:
    """Returns a dense layer with Keras's initial weights; the weights are float32, the arithmetic is `dtype`."""
    return nn.Dense(units, kernel_init=nn.initializers.glorot_uniform(), dtype=dtype)


@on_cpu(cpu.drop)
def drop(key: Key, x: Float[Array, "b ..."], rate: Float[Array, ""] | float) -> Float[Array, "b ..."]:
    """Returns `x` after inverted dropout: a unit is 0 with probability `rate`, in [0, 0.99], otherwise x / (1 - rate).

    Unlike `nn.Dropout` it takes a traced rate.
    """
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


@on_cpu(cpu.max_pool_2x)
def max_pool_2x(x: Float[Array, "n h w c"]) -> Float[Array, "n h//2 w//2 c"]:
    """Returns the largest of each 2x2 block of pixels, for even sides."""
    return nn.max_pool(x, (2, 2), strides=(2, 2))


def check_halves(what: str, image_shape: tuple[int, int, int], levels: int) -> None:
    """Raises BadInput where the sides do not halve evenly between `levels` levels."""
    by = 2 ** (levels - 1)
    if image_shape[0] % by or image_shape[1] % by:
        raise BadInput(
            f"{what} has {levels} levels and images of {image_shape[0]} x {image_shape[1]}; expected sides that are "
            f"multiples of {by}: resize the images, or choose fewer levels."
        )
