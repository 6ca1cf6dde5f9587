"""Layers that a CPU runs several times as fast as XLA's own, with the same numbers or the same distribution.

Inside a loop XLA's CPU compiler gives the gradients of a convolution a code path that is tens of times slower; a
strided transposed convolution is slow anywhere. As matrix products they are not. By `on_cpu`, and nowhere else, each
function here stands in for the plain one of the same name in `convolutions`, `layers` or `train`.
"""

import math
from collections.abc import Callable
from functools import wraps

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from latent_al.types import Key, Params

CACHE = 3 * 2**20
"""Bytes of params that are trained side by side."""


def on_cpu(trick: Callable) -> Callable:
    """Returns a decorator that calls `trick` in place of a plain function where the default backend is a CPU."""

    def decorate(plain):
        @wraps(plain)
        def switched(*args, **settings):
            return (trick if jax.default_backend() == "cpu" else plain)(*args, **settings)

        return switched

    return decorate


def conv(x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]) -> Float[Array, "n h w o"]:
    """Returns `convolutions.conv`, for an odd kernel size."""
    size, _, channels, features = kernel.shape
    if channels > 1 or features > 16:
        return _conv(x, kernel)
    # From one channel to few, XLA's own convolution takes three times as long as a product of the patches.
    border = (size // 2, size // 2)
    views = _views(jnp.pad(x, ((0, 0), border, border, (0, 0))), size)
    return jnp.concatenate(views, axis=3) @ kernel.reshape(-1, features)


@jax.custom_vjp
def _conv(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _conv_forward(x, kernel):
    return _conv(x, kernel), (x, kernel)


def _conv_backward(saved, out_gradient):
    x, kernel = saved
    size, _, channels, features = kernel.shape
    x_gradient = _conv(out_gradient, kernel[::-1, ::-1].swapaxes(2, 3))
    border = (size // 2, size // 2)
    padded = jnp.pad(x, ((0, 0), border, border, (0, 0)))
    flat = out_gradient.reshape(-1, features)
    patches = jnp.concatenate(_views(padded, size), axis=3).reshape(-1, size * size * channels)
    # With the wide matrix on the left the product takes twice as long.
    taps = (flat.T @ patches).reshape(features, size, size, channels)
    return x_gradient, taps.transpose(1, 2, 3, 0)


_conv.defvjp(_conv_forward, _conv_backward)


def patch_conv(x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]) -> Float[Array, "n h_out w_out o"]:
    """Returns `convolutions.patch_conv` by one product of the patches."""
    n, h, w, channels = x.shape
    size, _, _, features = kernel.shape
    patches = x.reshape(n, h // size, size, w // size, size, channels).swapaxes(2, 3)
    return patches.reshape(n, h // size, w // size, size * size * channels) @ kernel.reshape(-1, features)


def conv_2x(x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"]) -> Float[Array, "n h//2 w//2 o"]:
    """Returns `convolutions.conv_2x` by one product of the patches."""
    n, h, w, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # Views of a grid of 2x2 cells have gradients without the strides that are slow on a CPU.
    cells = padded.reshape(n, h // 2 + 1, 2, w // 2 + 1, 2, channels)
    taps = [(*divmod(row, 2), *divmod(column, 2)) for row in range(3) for column in range(3)]
    views = [cells[:, down : down + h // 2, row, right : right + w // 2, column] for down, row, right, column in taps]
    return jnp.concatenate(views, axis=3) @ kernel.reshape(-1, kernel.shape[3])


def pixel_conv_2x(x: Float[Array, "n h w i"], kernel: Float[Array, "1 1 i o"]) -> Float[Array, "n h//2 w//2 o"]:
    """Returns `convolutions.pixel_conv_2x` by one product of the pixels."""
    return x[:, ::2, ::2] @ kernel[0, 0]


def narrow_conv(x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]) -> Float[Array, "n h_out w_out o"]:
    """Returns `convolutions.narrow_conv` by one product, then a sum of shifted views."""
    size = kernel.shape[0]
    return sum(_views(tap, size)[index] for index, tap in enumerate(_taps(x, kernel)))


def conv_transpose_2x(x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"]) -> Float[Array, "n 2*h+1 2*w+1 o"]:
    """Returns `convolutions.conv_transpose_2x`.

    One product makes what each input pixel adds to each of the nine taps. An even output row gathers taps from two
    input rows, an odd one from a single row; so do the columns.
    """
    n, h, w, _ = x.shape
    taps = _taps(x, kernel[::-1, ::-1])

    def shifted(row, column, down=0, right=0):
        """Returns a tap on the (h+1) x (w+1) output pixels of a phase, from `down` rows and `right` columns on."""
        return jnp.pad(taps[3 * row + column], ((0, 0), (down, 1 - down), (right, 1 - right), (0, 0)))

    even_even = shifted(0, 0) + shifted(2, 0, down=1) + shifted(0, 2, right=1) + shifted(2, 2, down=1, right=1)
    even_odd = shifted(0, 1) + shifted(2, 1, down=1)
    odd_even = shifted(1, 0) + shifted(1, 2, right=1)
    even = jnp.stack([even_even, even_odd], axis=3)
    odd = jnp.stack([odd_even, shifted(1, 1)], axis=3)
    return jnp.stack([even, odd], axis=2).reshape(n, 2 * h + 2, 2 * w + 2, kernel.shape[3])[:, :-1, :-1]


def patch_conv_transpose(x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]) -> Float[Array, "n k*h k*w o"]:
    """Returns `convolutions.patch_conv_transpose` by one product."""
    n, h, w, _ = x.shape
    size, _, _, features = kernel.shape
    taps = _contributions(x, kernel[::-1, ::-1]).reshape(n, h, w, size, size, features)
    return taps.swapaxes(2, 3).reshape(n, size * h, size * w, features)


def drop(key: Key, x: Float[Array, "b ..."], rate: Float[Array, ""] | float) -> Float[Array, "b ..."]:
    """Returns `layers.drop` from 8 random bits per unit: the 32 of a plain dropout take a fifth of a training step.

    The rate, in [0, 0.99], is met to within 1/512, and kept units are scaled by the rate as met.
    """
    width = math.prod(x.shape[1:])
    words = jax.random.bits(key, (x.shape[0], -(-width // 4)), jnp.uint32)
    bits = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(x.shape[0], -1)[:, :width].reshape(x.shape)
    num_dropped = jnp.round(rate * 256)
    return jnp.where(bits >= num_dropped.astype(jnp.uint8), x * (256 / (256 - num_dropped)), 0)


def cos(x: Float[Array, "n f"]) -> Float[Array, "n f"]:
    """Returns the cosine of each angle, to 1e-6 up to 10,000 radians: XLA's own calls a function for every angle."""
    turns = jnp.round(x / (2 * math.pi))
    # Two steps, of which the first is exact.
    half = (x - turns * 6.28125 - turns * (2 * math.pi - 6.28125)) / 2
    square = half**2
    sine = half * (1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72 * (1 - square / 110)))))
    return 1 - 2 * sine**2


def max_pool_2x(x: Float[Array, "n h w c"]) -> Float[Array, "n h//2 w//2 c"]:
    """Returns `layers.max_pool_2x` with a faster gradient, which is shared among ties."""
    rows = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def in_groups(function: Callable, params: Params, cache: int) -> Callable:
    """Returns `function` with a `vmap` that takes only as many members at a time as have `cache` bytes of params.

    More members evict each other from the cache: ten 512-512 networks side by side take longer than ten times one; in
    pairs they take less.
    """
    group = max(1, cache // sum(jnp.size(leaf) * jnp.result_type(leaf).itemsize for leaf in jax.tree.leaves(params)))
    member = jax.custom_batching.custom_vmap(function)

    @member.def_vmap
    def batched(axis_size, in_batched, *args):
        leaves, structure = jax.tree.flatten(args)
        is_batched = jax.tree.leaves(in_batched)

        def call(batched_leaves):
            rest = iter(batched_leaves)
            merged = [next(rest) if flag else leaf for leaf, flag in zip(leaves, is_batched, strict=True)]
            return function(*structure.unflatten(merged))

        batched_leaves = [leaf for leaf, flag in zip(leaves, is_batched, strict=True) if flag]
        # A member alone runs without the extra axis, with which XLA's layouts are slower by a third.
        at_a_time = min(group, axis_size)
        outputs = jax.lax.map(call, batched_leaves, batch_size=at_a_time if at_a_time > 1 else None)
        return outputs, jax.tree.map(lambda _: True, outputs)

    return member


def in_groups_with_gradient(function: Callable, params: Params, cache: int) -> Callable:
    """Returns `in_groups`, with a gradient in reverse mode, which `custom_vmap` alone does not have."""
    grouped = in_groups(function, params, cache)

    def change(args, changes):
        return jax.vjp(function, *args)[1](changes)

    differentiable = jax.custom_vjp(grouped)
    differentiable.defvjp(lambda *args: (grouped(*args), args), in_groups(change, params, cache))
    return differentiable


def _contributions(x, kernel):
    """Returns what each pixel contributes through the taps of the kernel, one after the other: [n h w k*k*o]."""
    channels = kernel.shape[2]
    product = x.reshape(-1, channels) @ kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
    return product.reshape(*x.shape[:3], product.shape[1])


def _taps(x, kernel):
    """Returns what each pixel contributes through each tap of the kernel, row by row: k * k arrays [n h w o].

    The gradient of a split is one concatenation; that of as many slices would be the sum of as many padded arrays.
    """
    return jnp.split(_contributions(x, kernel), kernel.shape[0] * kernel.shape[1], axis=3)


def _views(x, size):
    """Returns the `size` x `size` shifted views that a kernel of that size sees without padding, row by row."""
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    return [x[:, row : row + height, column : column + width] for row in range(size) for column in range(size)]
