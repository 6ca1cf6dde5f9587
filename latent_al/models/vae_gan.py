"""The auto-encoder that learns from a discriminator which images are alike and which look real."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from latent_al.models.autoencoders import AutoEncoder, divergence_to_prior
from latent_al.models.convolutions import Convolution, conv, narrow_conv, patch_conv, patch_conv_transpose
from latent_al.models.layers import check_halves, dense
from latent_al.models.train import keras_rmsprop
from latent_al.types import BadInput, Params

relu = partial(nn.leaky_relu, negative_slope=0.2)


class Levels(nn.Module):
    """Applies a 2x2 convolution with strides 2 and a 3x3 one per level, all leaky ReLUs, and flattens the last one."""

    filters: Sequence[int]

    @nn.compact
    def __call__(self, images):
        x = images
        for features in self.filters:
            x = relu(Convolution(patch_conv, features, 2)(x))
            x = relu(Convolution(conv, features, 3)(x))
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))


class Encoder(nn.Module):
    """Maps images to the mean and the log standard deviation of their latents."""

    filters: Sequence[int]
    hidden: int
    latent_dim: int

    def setup(self):
        self.levels = Levels(self.filters)
        self.units = dense(self.hidden)
        self.mu = dense(self.latent_dim)
        self.log_sigma = dense(self.latent_dim)

    def __call__(self, images):
        x = relu(self.units(self.levels(images)))
        return self.mu(x), self.log_sigma(x)


class Decoder(nn.Module):
    """Maps latents to pixel logits: the encoder in reverse, and a 3x3 convolution that joins the last 2x2 patches."""

    filters: Sequence[int]
    hidden: int
    image_shape: tuple[int, int, int]

    @nn.compact
    def __call__(self, latents):
        height, width, channels = self.image_shape
        by = 2 ** len(self.filters)
        coarse = (height // by, width // by, self.filters[-1])
        x = relu(dense(math.prod(coarse))(relu(dense(self.hidden)(latents))))
        x = x.reshape(latents.shape[0], *coarse)
        finer = (self.filters[0], *self.filters[:-1])
        for features, up in zip(self.filters[::-1], finer[::-1], strict=True):
            x = relu(Convolution(conv, features, 3)(x))
            x = relu(Convolution(patch_conv_transpose, up, 2)(x))
        return Convolution(narrow_conv, channels, 3)(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))


class Discriminator(nn.Module):
    """Maps images to features that compare them, of mean 0 and variance 1 per image, and to the logit of being real."""

    filters: Sequence[int]
    hidden: int

    @nn.compact
    def __call__(self, images):
        features = nn.standardize(Levels(self.filters)(images), axis=1)
        return features, dense(1)(relu(dense(self.hidden)(features)))[:, 0]


class VAEGAN(nn.Module):
    """The three networks of a VAE/GAN, whose params are `encoder`, `decoder` and `discriminator`.

    Attributes:
        filters: number of filters in each level's convolutions.
        hidden: units of the dense layer in each network.
        latent_dim: dimensions of the latent space.
        image_shape: (h, w, c), sides that halve evenly at each level.
    """

    filters: Sequence[int]
    hidden: int
    latent_dim: int
    image_shape: tuple[int, int, int]

    def setup(self):
        self.encoder = Encoder(self.filters, self.hidden, self.latent_dim)
        self.decoder = Decoder(self.filters, self.hidden, self.image_shape)
        self.discriminator = Discriminator(self.filters, self.hidden)

    def encode(self, images: Float[Array, "n h w c"]) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
        """Returns the mean and log standard deviation of each image's latent."""
        return self.encoder(images)

    def decode(self, latents: Float[Array, "n d"]) -> Float[Array, "n h w c"]:
        """Returns pixel logits."""
        return self.decoder(latents)

    def draw(self, latents: Float[Array, "n d"]) -> Float[Array, "n h w c"]:
        """Returns images, in [0, 1]."""
        return nn.sigmoid(self.decoder(latents))

    def discriminate(self, images: Float[Array, "n h w c"]) -> tuple[Float[Array, "n f"], Float[Array, " n"]]:
        """Returns the features that compare images, and the logit of each image's being real."""
        return self.discriminator(images)

    def __call__(self, images, key):
        """Returns the features and the logit of the discriminator for a reconstruction."""
        mu, log_sigma = self.encode(images)
        return self.discriminate(self.draw(mu + jnp.exp(log_sigma) * jax.random.normal(key, mu.shape)))


def vae_gan(
    *, image_shape: tuple[int, int, int], filters: Sequence[int], hidden: int, latent_dim: int, gamma: float
) -> AutoEncoder:
    """Returns the VAE/GAN, in which features of a discriminator of real from generated images judge likeness.

    In each step three networks descend a loss of their own, all of them in nats per image:

        encoder         L_prior + L_llike      the KL divergence to N(0, I), and half the squared distance between image
                                               and reconstruction in the discriminator's last convolution
        decoder         gamma L_llike + fool   fool is -log Dis of the reconstruction and of a draw from the prior
        discriminator   -L_GAN                 the cross-entropy of image against reconstruction and draw

    Three things differ from the paper. Its decoder descends log(1 - Dis), from which it learns nothing once the
    discriminator is sure; -log Dis has the same goal. Its batch norm needs running averages; here the features are
    standardised in each image, which fixes the scale against which L_prior and gamma are weighed. The networks are
    smaller, with leaky ReLUs.

    The training loss is L_prior + L_llike - L_GAN, which moves with the discriminator and may rise while images get
    better. The validation loss is the squared error of the reconstruction from the mean, summed over pixels.

    Source: Larsen et al. (2016), algorithm 1.

    Args:
        image_shape: (h, w, c), sides that halve evenly at each level.
        filters: number of filters in each level's convolutions. L_llike is a sum over the features, the last level's
            units: with tens of them L_prior wins and the latents carry no information; with hundreds to thousands they
            do.
        hidden: units of the dense layer in each network.
        latent_dim: dimensions of the latent space.
        gamma: weight of L_llike, a sum over features, against the GAN loss of the decoder: larger is truer, smaller is
            sharper.

    Raises:
        BadInput: sides that do not halve, a size below 1, a negative gamma.
    """
    if not filters or min(*filters, hidden, latent_dim) < 1 or not 0 <= gamma < math.inf:
        raise BadInput(
            f"vae_gan has filters {tuple(filters)}, hidden {hidden}, latent_dim {latent_dim} and gamma {gamma}; "
            "expected sizes of 1 or more, at least one level of filters, and a gamma of 0 or more."
        )
    check_halves("vae_gan", image_shape, len(filters) + 1)
    model = VAEGAN(tuple(filters), hidden, latent_dim, image_shape)
    return AutoEncoder(model, partial(_loss, model, gamma), partial(_pixel_error, model), keras_rmsprop)


def _loss(model, gamma, params, key, images):
    """Returns one loss per image, whose gradient for each network is that of its own loss alone.

    A network whose params are stopped still passes a gradient on. XLA merges the forward passes that are written twice
    here.
    """
    nets = params["params"]
    key_noise, key_draw = jax.random.split(key)

    def run(method, inputs, **changed):
        return model.apply({"params": nets | changed}, inputs, method=method)

    def discriminate(inputs):
        return run("discriminate", inputs, discriminator=lax.stop_gradient(nets["discriminator"]))

    mu, log_sigma = run("encode", images)
    latents = mu + jnp.exp(log_sigma) * jax.random.normal(key_noise, mu.shape)
    reconstruction = run("draw", latents, decoder=_scale_gradient(gamma, nets["decoder"]))
    llike = 0.5 * ((discriminate(images)[0] - discriminate(reconstruction)[0]) ** 2).sum(axis=1)
    losses = divergence_to_prior(mu, log_sigma) + llike + _surprise(run("discriminate", images)[1], is_real=True)
    for source in (lax.stop_gradient(latents), jax.random.normal(key_draw, mu.shape)):
        fake = run("draw", source)
        fooling = _surprise(discriminate(fake)[1], is_real=True)
        losses += _surprise(run("discriminate", lax.stop_gradient(fake))[1], is_real=False)
        losses += fooling - lax.stop_gradient(fooling)
    return losses


def _pixel_error(model, params, key, images):
    del key
    mu, _ = model.apply(params, images, method="encode")
    return ((model.apply(params, mu, method="draw") - images) ** 2).sum(axis=(1, 2, 3))


def _surprise(logits, is_real):
    return optax.sigmoid_binary_cross_entropy(logits, jnp.full_like(logits, is_real))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scale_gradient(factor: float, params: Params) -> Params:
    """Returns `params`, whose gradient is multiplied by `factor`."""
    return params


def _forward(factor, params):
    return params, None


def _backward(factor, saved, gradient):
    del saved
    return (jax.tree.map(lambda leaf: factor * leaf, gradient),)


_scale_gradient.defvjp(_forward, _backward)
