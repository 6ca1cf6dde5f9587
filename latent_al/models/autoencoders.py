"""Auto-encoders: linen modules with `encode` and `decode`, and their loss for each image."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from latent_al.fit import Loss


class DenseVAE(nn.Module):
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

    def __call__(self, images, key):
        mu, log_sigma = self.encode(images)
        noise = jax.random.normal(key, mu.shape)
        return self.decode(mu + jnp.exp(log_sigma) * noise), mu, log_sigma


def vae_loss(model: nn.Module) -> Loss:
    """The negative evidence lower bound of each image, in nats: equation 2.2 of the thesis with one sample.

    Binary cross-entropy summed over pixels, plus the KL divergence to N(0, I) summed over latent dimensions.
    """

    def loss(params, key, images):
        logits, mu, log_sigma = model.apply(params, images, key)
        reconstruction = optax.sigmoid_binary_cross_entropy(logits, images).sum(axis=(1, 2, 3))
        divergence = -0.5 * (1 + 2 * log_sigma - mu**2 - jnp.exp(2 * log_sigma)).sum(axis=1)
        return reconstruction + divergence

    return loss


def _dense(units):
    return nn.Dense(units, kernel_init=nn.initializers.glorot_uniform())
