"""Convolutions written so that a CPU trains them several times as fast as XLA's own, with the same numbers.

Inside a loop XLA's CPU compiler gives the gradients of a convolution a code path that is tens of times slower; a
strided transposed convolution is slow anywhere. As matrix products they are not.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float


def conv(x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]) -> Float[Array, "n h w o"]:
    """A convolution with strides 1 and padding SAME, for an odd kernel size."""
    size, _, channels, features = kernel.shape
    if channels > 1 or features > 16:
        return _conv(x, kernel)
    # From one channel to few XLA's own takes three times as long as a product of the patches.
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
    taps = [view.reshape(-1, channels).T @ flat for view in _views(padded, size)]
    return x_gradient, jnp.stack(taps).reshape(kernel.shape)


_conv.defvjp(_conv_forward, _conv_backward)


def patch_conv(x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]) -> Float[Array, "n h_out w_out o"]:
    """A convolution whose strides are its kernel size, which divides the sides: one product of the patches."""
    n, h, w, channels = x.shape
    size, _, _, features = kernel.shape
    patches = x.reshape(n, h // size, size, w // size, size, channels).swapaxes(2, 3)
    return patches.reshape(n, h // size, w // size, size * size * channels) @ kernel.reshape(-1, features)


def conv_2x(x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"]) -> Float[Array, "n h//2 w//2 o"]:
    """A convolution with strides 2 and a border of one zero on each side, for even sides: one product of the patches.

    Padding SAME would put the border at the lower right only, where PyTorch has it on all sides.
    """
    n, h, w, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # Views of a grid of 2x2 cells have gradients without the strides that are slow on a CPU.
    cells = padded.reshape(n, h // 2 + 1, 2, w // 2 + 1, 2, channels)
    taps = [(*divmod(row, 2), *divmod(column, 2)) for row in range(3) for column in range(3)]
    views = [cells[:, down : down + h // 2, row, right : right + w // 2, column] for down, row, right, column in taps]
    return jnp.concatenate(views, axis=3) @ kernel.reshape(-1, kernel.shape[3])


def pixel_conv_2x(x: Float[Array, "n h w i"], kernel: Float[Array, "1 1 i o"]) -> Float[Array, "n h//2 w//2 o"]:
    """A 1x1 convolution with strides 2, for even sides."""
    return x[:, ::2, ::2] @ kernel[0, 0]


def narrow_conv(x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]) -> Float[Array, "n h_out w_out o"]:
    """A convolution with strides 1 and padding VALID to a few channels: one product, then a sum of shifted views."""
    size = kernel.shape[0]
    views = _views(_taps(x, kernel), size)
    return sum(view[:, :, :, tap // size, tap % size] for tap, view in enumerate(views))


def conv_transpose_2x(x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"]) -> Float[Array, "n 2*h+1 2*w+1 o"]:
    """What `lax.conv_transpose` gives with strides 2 and padding VALID.

    One product makes what each input pixel adds to each of the nine taps. An even output row gathers taps from two
    input rows, an odd one from a single row; so do the columns.
    """
    n, h, w, _ = x.shape
    taps = _taps(x, kernel[::-1, ::-1])

    def shifted(row, column, down=0, right=0):
        """One tap on the grid of (h+1) x (w+1) output pixels of a phase, from `down` rows and `right` columns on."""
        return jnp.pad(taps[:, :, :, row, column], ((0, 0), (down, 1 - down), (right, 1 - right), (0, 0)))

    even_even = shifted(0, 0) + shifted(2, 0, down=1) + shifted(0, 2, right=1) + shifted(2, 2, down=1, right=1)
    even_odd = shifted(0, 1) + shifted(2, 1, down=1)
    odd_even = shifted(1, 0) + shifted(1, 2, right=1)
    even = jnp.stack([even_even, even_odd], axis=3)
    odd = jnp.stack([odd_even, shifted(1, 1)], axis=3)
    return jnp.stack([even, odd], axis=2).reshape(n, 2 * h + 2, 2 * w + 2, kernel.shape[3])[:, :-1, :-1]


def patch_conv_transpose(x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]) -> Float[Array, "n k*h k*w o"]:
    """What `lax.conv_transpose` gives with strides of its kernel size: each pixel becomes a patch, in one product."""
    n, h, w, _ = x.shape
    size, _, _, features = kernel.shape
    taps = _taps(x, kernel[::-1, ::-1])
    return taps.swapaxes(2, 3).reshape(n, size * h, size * w, features)


class Convolution(nn.Module):
    """One of the functions above, with a square kernel.

    Attributes:
        convolve: the function.
        features: output channels.
        size: side of the kernel.
        dtype: of the arithmetic; the weights are float32.
        use_bias: whether it adds one.
    """

    convolve: Callable
    features: int
    size: int
    dtype: jnp.dtype = jnp.dtype("float32")
    use_bias: bool = True

    @nn.compact
    def __call__(self, x):
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape).astype(self.dtype)
        outputs = self.convolve(x.astype(self.dtype), kernel)
        if not self.use_bias:
            return outputs
        bias = self.param("bias", nn.initializers.zeros_init(), shape[-1:]).astype(self.dtype)
        return outputs + bias[None, None, None, :]


def _taps(x, kernel):
    """What each pixel contributes through each tap of the kernel: [n h w k k o]."""
    size, _, channels, features = kernel.shape
    product = x.reshape(-1, channels) @ kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
    return product.reshape(*x.shape[:3], size, size, features)


def _views(x, size):
    """The `size` x `size` shifted views that a kernel of that size sees without padding, row by row."""
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    return [x[:, row : row + height, column : column + width] for row in range(size) for column in range(size)]
