"""Auto-encoders, each a factory that returns a linen module with `encode` and `decode`, and its loss for each image."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from latent_al.base import BadInput
from latent_al.fit import Loss
from latent_al.models.convolutions import Convolution, conv, conv_transpose_2x, narrow_conv, patch_conv


class VAE(nn.Module):
    """What variational auto-encoders share: `encode` to a Gaussian, sample it, `decode` the sample."""

    def __call__(self, images, key):
        mu, log_sigma = self.encode(images)
        noise = jax.random.normal(key, mu.shape)
        return self.decode(mu + jnp.exp(log_sigma) * noise), mu, log_sigma


class DenseVAE(VAE):
    """The dense VAE of the thesis, section 4.2.1: the decoder's hidden layers are the encoder's in reverse.

    Attributes:
        hidden: units of the encoder's hidden layers.
        latent: dimensions of the latent space.
        image_shape: (h, w, c).
    """

    hidden: Sequence[int]
    latent: int
    image_shape: tuple[int, int, int]

    def setup(self):
        self.encoder = [_dense(units) for units in self.hidden]
        self.mu = _dense(self.latent)
        self.log_sigma = _dense(self.latent)
        self.decoder = [_dense(units) for units in reversed(self.hidden)]
        self.pixels = _dense(math.prod(self.image_shape))

    def encode(self, images: Float[Array, "n h w c"]) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
        """Mean and log standard deviation of each image's latent."""
        x = images.reshape(images.shape[0], math.prod(self.image_shape))
        for layer in self.encoder:
            x = nn.relu(layer(x))
        return self.mu(x), self.log_sigma(x)

    def decode(self, latents: Float[Array, "n d"]) -> Float[Array, "n h w c"]:
        """Pixel logits."""
        x = latents
        for layer in self.decoder:
            x = nn.relu(layer(x))
        return self.pixels(x).reshape(latents.shape[0], *self.image_shape)


class ConvVAE(VAE):
    """The convolutional VAE of the thesis, Table 4.1; every hidden layer is a ReLU.

    Attributes:
        latent: dimensions of the latent space.
        image_shape: (h, w, 1), both sides even.
        dtype: of the hidden layers' arithmetic; weights, latents and logits are float32.
    """

    latent: int
    image_shape: tuple[int, int, int]
    dtype: jnp.dtype

    def setup(self):
        half = (self.image_shape[0] // 2, self.image_shape[1] // 2, 64)
        self.convolutions = [
            Convolution(narrow_conv, 1, 2, self.dtype),
            Convolution(patch_conv, 64, 2, self.dtype),
            Convolution(conv, 64, 3, self.dtype),
            Convolution(conv, 64, 3, self.dtype),
        ]
        self.hidden = _dense(128, self.dtype)
        self.mu = _dense(self.latent)
        self.log_sigma = _dense(self.latent)
        self.decoder = [_dense(128, self.dtype), _dense(math.prod(half), self.dtype)]
        # With stride 1 a transposed convolution is one with its kernel turned round.
        self.deconvolutions = [
            Convolution(conv, 64, 3, self.dtype),
            Convolution(conv, 64, 3, self.dtype),
            Convolution(conv_transpose_2x, 64, 3, self.dtype),
        ]
        self.pixels = Convolution(narrow_conv, 1, 2, self.dtype)

    def encode(self, images: Float[Array, "n h w c"]) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
        """Mean and log standard deviation of each image's latent."""
        # The first layer's padding SAME.
        x = jnp.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)))
        for layer in self.convolutions:
            x = nn.relu(layer(x))
        x = nn.relu(self.hidden(x.reshape(images.shape[0], math.prod(x.shape[1:])))).astype(jnp.float32)
        return self.mu(x), self.log_sigma(x)

    def decode(self, latents: Float[Array, "n d"]) -> Float[Array, "n h w c"]:
        """Pixel logits."""
        x = latents
        for layer in self.decoder:
            x = nn.relu(layer(x))
        x = x.reshape(latents.shape[0], self.image_shape[0] // 2, self.image_shape[1] // 2, 64)
        for layer in self.deconvolutions:
            x = nn.relu(layer(x))
        return self.pixels(x).astype(jnp.float32)


def dense_vae(*, image_shape: tuple[int, int, int], hidden: Sequence[int], latent: int) -> tuple[nn.Module, Loss]:
    """The thesis's dense VAE: 512 and 256 hidden units there, and 2, 30 or 50 latent dimensions.

    Args:
        image_shape: (h, w, c).
        hidden: units of the encoder's hidden layers.
        latent: dimensions of the latent space.

    Raises:
        BadInput: a size below 1.
    """
    if min(*hidden, latent) < 1:
        raise BadInput(f"dense_vae has hidden {tuple(hidden)} and latent {latent}; expected sizes of 1 or more.")
    model = DenseVAE(tuple(hidden), latent, image_shape)
    return model, vae_loss(model, 1.0)


def conv_vae(*, image_shape: tuple[int, int, int], latent: int, kl_weight: float, dtype: str) -> tuple[nn.Module, Loss]:
    """The thesis's convolutional VAE: 2, 30 or 50 latent dimensions there.

    Args:
        image_shape: (h, w, 1), both sides even.
        latent: dimensions of the latent space.
        kl_weight: of the divergence to the prior; 1 for the evidence lower bound. The thesis's losses, 58.7 with 30
            dimensions on MNIST, and its 30 used ones come from 1 / latent: the Keras example that it builds on takes
            the mean over dimensions where its dense one takes the sum.
        dtype: `float32`, or `bfloat16` for accelerators whose matrix units want it.

    Raises:
        BadInput: an odd side, colour images, a size below 1, a negative kl_weight, an unknown dtype.
    """
    if image_shape[0] % 2 or image_shape[1] % 2 or image_shape[2] != 1:
        raise BadInput(
            f"conv_vae was given images of shape {image_shape}; expected even sides and one channel (h, w, 1): "
            "resize the images, or take dense_vae."
        )
    if latent < 1 or not kl_weight >= 0 or dtype not in ("float32", "bfloat16"):
        raise BadInput(
            f"conv_vae has latent {latent}, kl_weight {kl_weight} and dtype {dtype!r}; "
            "expected 1 or more, 0 or more, and float32 or bfloat16."
        )
    model = ConvVAE(latent, image_shape, jnp.dtype(dtype))
    return model, vae_loss(model, kl_weight)


AUTOENCODERS = {"conv_vae": conv_vae, "dense_vae": dense_vae}


def vae_loss(model: nn.Module, kl_weight: float) -> Loss:
    """The negative evidence lower bound of each image, in nats: equation 2.2 of the thesis with one sample.

    Binary cross-entropy summed over pixels, plus `kl_weight`, 1 for the bound, times the KL divergence to N(0, I)
    summed over latent dimensions.
    """

    def loss(params, key, images):
        logits, mu, log_sigma = model.apply(params, images, key)
        reconstruction = optax.sigmoid_binary_cross_entropy(logits, images).sum(axis=(1, 2, 3))
        divergence = -0.5 * (1 + 2 * log_sigma - mu**2 - jnp.exp(2 * log_sigma)).sum(axis=1)
        return reconstruction + kl_weight * divergence

    return loss


def _dense(units, dtype=jnp.float32):
    return nn.Dense(units, kernel_init=nn.initializers.glorot_uniform(), dtype=dtype)
