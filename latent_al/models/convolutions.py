"""The convolutions of the models: XLA's own, and faster ones on CPUs, with the same params."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from latent_al.models import cpu
from latent_al.models.cpu import on_cpu


@on_cpu(cpu.conv)
def conv(x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]) -> Float[Array, "n h w o"]:
    """Returns the convolution with strides 1 and padding SAME."""
    return _convolve(x, kernel, 1, "SAME")


@on_cpu(cpu.patch_conv)
def patch_conv(x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]) -> Float[Array, "n h_out w_out o"]:
    """Returns the convolution whose strides are its kernel size, which divides the sides."""
    return _convolve(x, kernel, kernel.shape[0], "VALID")


@on_cpu(cpu.conv_2x)
def conv_2x(x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"]) -> Float[Array, "n h//2 w//2 o"]:
    """Returns the convolution with strides 2 and a border of one zero on each side, for even sides.

    Padding SAME would put the border at the lower right only, where PyTorch has it on all sides.
    """
    return _convolve(x, kernel, 2, ((1, 1), (1, 1)))


@on_cpu(cpu.pixel_conv_2x)
def pixel_conv_2x(x: Float[Array, "n h w i"], kernel: Float[Array, "1 1 i o"]) -> Float[Array, "n h//2 w//2 o"]:
    """Returns the 1x1 convolution with strides 2, for even sides."""
    return _convolve(x, kernel, 2, "VALID")


@on_cpu(cpu.narrow_conv)
def narrow_conv(x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]) -> Float[Array, "n h_out w_out o"]:
    """Returns the convolution with strides 1 and padding VALID, for few output channels."""
    return _convolve(x, kernel, 1, "VALID")


@on_cpu(cpu.conv_transpose_2x)
def conv_transpose_2x(x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"]) -> Float[Array, "n 2*h+1 2*w+1 o"]:
    """Returns the transposed convolution with strides 2 and padding VALID."""
    return _transpose(x, kernel, 2)


@on_cpu(cpu.patch_conv_transpose)
def patch_conv_transpose(x: Float[Array, "n h w i"], kernel: Float[Array, "k k i o"]) -> Float[Array, "n k*h k*w o"]:
    """Returns the transposed convolution with strides of its kernel size: each pixel becomes a patch."""
    return _transpose(x, kernel, kernel.shape[0])


class Convolution(nn.Module):
    """A layer of one of the functions above, with a square kernel.

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


def _convolve(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, (strides, strides), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _transpose(x, kernel, strides):
    return lax.conv_transpose(x, kernel, (strides, strides), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
