"""Factories of auto-encoders, which return an `AutoEncoder`.

Those of Tonnaer (2017) and of Killeen (2019) are as published unless stated otherwise.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from latent_al.kernels import tsne
from latent_al.models.convolutions import (
    Convolution,
    conv,
    conv_transpose_2x,
    narrow_conv,
    patch_conv,
    patch_conv_transpose,
)
from latent_al.models.layers import check_halves, dense, drop, max_pool_2x
from latent_al.models.train import Loss, keras_adadelta, keras_rmsprop
from latent_al.types import BadInput, check_name

ACTIVATIONS = {"linear": lambda x: x, "clipped": lambda x: jnp.clip(x, 0, 1)}


class AutoEncoder(NamedTuple):
    """An auto-encoder as published.

    Attributes:
        module: has `encode`, images to (mean, log standard deviation or None) of the latents; `decode`, latents to
            pixel logits; and `__call__(images, key)`, which calls all of it.
        loss: of each image in training.
        validation_loss: of each image, without dropout and without terms that only a whole batch has.
        optimizer: from a learning rate.
    """

    module: nn.Module
    loss: Loss
    validation_loss: Loss
    optimizer: Callable[[float], optax.GradientTransformation]


class VAE(nn.Module):
    """Encodes to a Gaussian, samples it and decodes the sample, as all variational auto-encoders do."""

    def __call__(self, images, key):
        mu, log_sigma = self.encode(images)
        noise = jax.random.normal(key, mu.shape)
        return self.decode(mu + jnp.exp(log_sigma) * noise), mu, log_sigma


class DenseVAE(VAE):
    """The dense VAE of Tonnaer (2017), section 4.2.1: the decoder's hidden layers are the encoder's in reverse.

    Attributes:
        hidden: units of the encoder's hidden layers.
        latent_dim: dimensions of the latent space.
        image_shape: (h, w, c).
    """

    hidden: Sequence[int]
    latent_dim: int
    image_shape: tuple[int, int, int]

    def setup(self):
        self.encoder = [dense(units) for units in self.hidden]
        self.mu = dense(self.latent_dim)
        self.log_sigma = dense(self.latent_dim)
        self.decoder = [dense(units) for units in reversed(self.hidden)]
        self.pixels = dense(math.prod(self.image_shape))

    def encode(self, images: Float[Array, "n h w c"]) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
        """Returns the mean and log standard deviation of each image's latent."""
        x = images.reshape(images.shape[0], math.prod(self.image_shape))
        for layer in self.encoder:
            x = nn.relu(layer(x))
        return self.mu(x), self.log_sigma(x)

    def decode(self, latents: Float[Array, "n d"]) -> Float[Array, "n h w c"]:
        """Returns pixel logits."""
        x = latents
        for layer in self.decoder:
            x = nn.relu(layer(x))
        return self.pixels(x).reshape(latents.shape[0], *self.image_shape)


class LevelAutoEncoder(nn.Module):
    """The convolutional auto-encoders of Killeen (2019); every hidden layer is a ReLU.

    The encoder's levels are 3x3 convolutions, with max-pooling and dropout between levels, then dense layers and the
    representation layer. The decoder mirrors it, with 2x2 transposed convolutions in place of the pooling.

    Attributes:
        filters: number of filters in each level's convolutions.
        depth: convolutions per level.
        hidden: units of the encoder's dense layers.
        dropout: share of units dropped between the encoder's levels in training.
        activation: activation of the representation, a name from `ACTIVATIONS`.
        latent_dim: dimensions of the latent space.
        variational: whether the encoder gives a spread and the decoder sees a sample.
        image_shape: (h, w, c), sides that halve evenly between levels.
    """

    filters: Sequence[int]
    depth: int
    hidden: Sequence[int]
    dropout: float
    activation: str
    latent_dim: int
    variational: bool
    image_shape: tuple[int, int, int]

    def setup(self):
        height, width, channels = self.image_shape
        by = 2 ** (len(self.filters) - 1)
        self.coarse = (height // by, width // by, self.filters[-1])
        self.encoder = [_level([features] * self.depth) for features in self.filters]
        self.hidden_encoder = [dense(units) for units in self.hidden]
        self.mu = dense(self.latent_dim)
        self.log_sigma = dense(self.latent_dim) if self.variational else None
        self.hidden_decoder = [dense(units) for units in (*reversed(self.hidden), math.prod(self.coarse))]
        upwards = self.filters[::-1]
        self.up = [Convolution(patch_conv_transpose, features, 2) for features in upwards[1:]]
        depths = [self.depth] * (len(upwards) - 1) + [self.depth - 1]
        self.decoder = [_level([features] * depth) for features, depth in zip(upwards, depths, strict=True)]
        self.pixels = Convolution(narrow_conv, channels, 3)

    def encode(self, images: Float[Array, "n h w c"]) -> tuple[Float[Array, "n d"], Float[Array, "n d"] | None]:
        """Returns the mean and, if variational, the log standard deviation of each image's latent."""
        return self._encode(images, None)

    def decode(self, latents: Float[Array, "n d"]) -> Float[Array, "n h w c"]:
        """Returns pixel logits."""
        x = latents
        for layer in self.hidden_decoder:
            x = nn.relu(layer(x))
        x = x.reshape(latents.shape[0], *self.coarse)
        for level, layers in enumerate(self.decoder):
            x = nn.relu(self.up[level - 1](x)) if level else x
            for layer in layers:
                x = nn.relu(layer(x))
        # Padding SAME for the last layer.
        return self.pixels(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))

    def __call__(self, images, key, is_training=True):
        """Returns pixel logits, mean and log standard deviation; a variational one decodes a sample."""
        key_drop, key_noise = jax.random.split(key)
        mu, log_sigma = self._encode(images, key_drop if is_training else None)
        latents = mu + jnp.exp(log_sigma) * jax.random.normal(key_noise, mu.shape) if self.variational else mu
        return self.decode(latents), mu, log_sigma

    def _encode(self, images, key):
        x = images
        for level, layers in enumerate(self.encoder):
            if level:
                x = max_pool_2x(x)
                x = x if key is None else drop(jax.random.fold_in(key, level), x, self.dropout)
            for layer in layers:
                x = nn.relu(layer(x))
        x = x.reshape(images.shape[0], math.prod(self.coarse))
        for layer in self.hidden_encoder:
            x = nn.relu(layer(x))
        return ACTIVATIONS[self.activation](self.mu(x)), self.log_sigma(x) if self.variational else None


class ConvVAE(VAE):
    """The convolutional VAE of Tonnaer (2017), Table 4.1; every hidden layer is a ReLU.

    Attributes:
        latent_dim: dimensions of the latent space.
        image_shape: (h, w, 1), both sides even.
        dtype: of the hidden layers' arithmetic; weights, latents and logits are float32.
    """

    latent_dim: int
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
        self.hidden = dense(128, self.dtype)
        self.mu = dense(self.latent_dim)
        self.log_sigma = dense(self.latent_dim)
        self.decoder = [dense(128, self.dtype), dense(math.prod(half), self.dtype)]
        # With stride 1 a transposed convolution is a convolution with a flipped kernel.
        self.deconvolutions = [
            Convolution(conv, 64, 3, self.dtype),
            Convolution(conv, 64, 3, self.dtype),
            Convolution(conv_transpose_2x, 64, 3, self.dtype),
        ]
        self.pixels = Convolution(narrow_conv, 1, 2, self.dtype)

    def encode(self, images: Float[Array, "n h w c"]) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
        """Returns the mean and log standard deviation of each image's latent."""
        # Padding SAME for the first layer.
        x = jnp.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)))
        for layer in self.convolutions:
            x = nn.relu(layer(x))
        x = nn.relu(self.hidden(x.reshape(images.shape[0], math.prod(x.shape[1:])))).astype(jnp.float32)
        return self.mu(x), self.log_sigma(x)

    def decode(self, latents: Float[Array, "n d"]) -> Float[Array, "n h w c"]:
        """Returns pixel logits."""
        x = latents
        for layer in self.decoder:
            x = nn.relu(layer(x))
        x = x.reshape(latents.shape[0], self.image_shape[0] // 2, self.image_shape[1] // 2, 64)
        for layer in self.deconvolutions:
            x = nn.relu(layer(x))
        return self.pixels(x).astype(jnp.float32)


def dense_vae(*, image_shape: tuple[int, int, int], hidden: Sequence[int], latent_dim: int) -> AutoEncoder:
    """Returns the dense VAE of Tonnaer (2017), which has 512 and 256 hidden units and 2, 30 or 50 latent dimensions.

    Args:
        image_shape: (h, w, c).
        hidden: units of the encoder's hidden layers.
        latent_dim: dimensions of the latent space.

    Raises:
        BadInput: a size below 1.
    """
    if min([*hidden, latent_dim]) < 1:
        raise BadInput(
            f"dense_vae has hidden {tuple(hidden)} and latent_dim {latent_dim}; expected sizes of 1 or more."
        )
    model = DenseVAE(tuple(hidden), latent_dim, image_shape)
    return _published_vae(model, 1.0)


def conv_vae(*, image_shape: tuple[int, int, int], latent_dim: int, kl_weight: float, dtype: str) -> AutoEncoder:
    """Returns the convolutional VAE of Tonnaer (2017), which has 2, 30 or 50 latent dimensions.

    Args:
        image_shape: (h, w, 1), both sides even.
        latent_dim: dimensions of the latent space.
        kl_weight: weight of the divergence to the prior; 1 for the evidence lower bound. The published losses, 58.7
            with 30 dimensions on MNIST, and its 30 used dimensions come from 1 / latent_dim: the Keras example that it
            builds on takes the mean over dimensions where the dense one takes the sum.
        dtype: `float32`, or `bfloat16` for accelerators whose matrix units prefer it.

    Raises:
        BadInput: an odd side, colour images, a size below 1, a kl_weight that is negative or not finite, an unknown
            dtype.
    """
    if image_shape[0] % 2 or image_shape[1] % 2 or image_shape[2] != 1:
        raise BadInput(
            f"conv_vae was given images of shape {image_shape}; expected even sides and one channel (h, w, 1): "
            "resize the images, or choose dense_vae."
        )
    if latent_dim < 1 or not 0 <= kl_weight < math.inf or dtype not in ("float32", "bfloat16"):
        raise BadInput(
            f"conv_vae has latent_dim {latent_dim}, kl_weight {kl_weight} and dtype {dtype!r}; "
            "expected 1 or more, 0 or more, and float32 or bfloat16."
        )
    model = ConvVAE(latent_dim, image_shape, jnp.dtype(dtype))
    return _published_vae(model, kl_weight)


def conv_ae(**sizes: Any) -> AutoEncoder:
    """Returns the convolutional auto-encoder for the mean squared error. Takes the sizes of `levels`."""
    return _adadelta(levels("conv_ae", variational=False, **sizes))


def conv_vae_latens(*, kl_weight: float = 1.0, **sizes: Any) -> AutoEncoder:
    """Returns the convolutional VAE of Killeen (2019), for the negative evidence lower bound.

    Args:
        kl_weight: weight of the divergence to the prior; 1 for the bound. About 1/64 in the published experiments,
            which sum the reconstruction over a batch of 64 and average the divergence.
        sizes: settings of `levels`.

    Raises:
        BadInput: a kl_weight that is negative or not finite, what `levels` refuses.
    """
    if not 0 <= kl_weight < math.inf:
        raise BadInput(f"conv_vae_latens has kl_weight {kl_weight}; expected 0 or more, 1 for the bound.")
    return _adadelta(levels("conv_vae_latens", variational=True, **sizes), kl_weight=kl_weight)


def tsne_ae(*, perplexity: float, tsne_weight: float, **sizes: Any) -> AutoEncoder:
    """Returns `conv_ae`, "t-SNE style": its loss adds the t-SNE divergence from a batch's pixels to its latents.

    Args:
        perplexity: perplexity of the pixels' joint probabilities, 30 as published; below the images in a batch.
        tsne_weight: weight of the divergence, 1e4 as published.
        sizes: settings of `levels`.

    Raises:
        BadInput: a perplexity below 1, a negative weight, what `levels` refuses.
    """
    _check_tsne("tsne_ae", perplexity, tsne_weight)
    return _adadelta(levels("tsne_ae", variational=False, **sizes), perplexity, tsne_weight)


def vae_tsne_ae(*, perplexity: float, tsne_weight: float, **sizes: Any) -> AutoEncoder:
    """Returns `conv_vae_latens` with the divergence of `tsne_ae`, taken between the pixels and the means.

    Args:
        perplexity: perplexity of the pixels' joint probabilities, 30 as published; below the images in a batch.
        tsne_weight: weight of the divergence, 1e4 as published.
        sizes: settings of `levels`.

    Raises:
        BadInput: a perplexity below 1, a negative weight, what `levels` refuses.
    """
    _check_tsne("vae_tsne_ae", perplexity, tsne_weight)
    return _adadelta(levels("vae_tsne_ae", variational=True, **sizes), perplexity, tsne_weight)


def levels(
    name: str,
    *,
    image_shape: tuple[int, int, int],
    filters: Sequence[int],
    depth: int,
    hidden: Sequence[int],
    dropout: float,
    activation: str,
    latent_dim: int,
    variational: bool,
) -> LevelAutoEncoder:
    """Returns the network of Killeen (2019).

    As published: filters (64, 32, 32), depth 3, hidden (1024, 1024), dropout 0.2, linear representation, 2 dimensions.

    Args:
        name: for error messages.
        image_shape: (h, w, c), sides that halve evenly between levels.
        filters: number of filters in each level's convolutions.
        depth: convolutions per level.
        hidden: units of the encoder's dense layers.
        dropout: share of units dropped between the encoder's levels in training, in [0, 0.99].
        activation: activation of the representation: `linear`, or `clipped` to [0, 1].
        latent_dim: dimensions of the latent space.
        variational: whether the encoder gives a spread.

    Raises:
        BadInput: sides that do not halve, a size below 1, dropout outside its range, an unknown activation.
    """
    if not filters or min(*filters, depth, *hidden, latent_dim) < 1 or not 0 <= dropout <= 0.99:
        raise BadInput(
            f"{name} has filters {tuple(filters)}, depth {depth}, hidden {tuple(hidden)}, latent_dim {latent_dim} and "
            f"dropout {dropout}; expected sizes of 1 or more, at least one level of filters and dropout in [0, 0.99]."
        )
    check_name(activation, ACTIVATIONS, "activation")
    check_halves(name, image_shape, len(filters))
    return LevelAutoEncoder(
        filters=tuple(filters),
        depth=depth,
        hidden=tuple(hidden),
        dropout=dropout,
        activation=activation,
        latent_dim=latent_dim,
        variational=variational,
        image_shape=image_shape,
    )


def vae_loss(model: nn.Module, kl_weight: float) -> Loss:
    """Returns the loss of the negative evidence lower bound, in nats per image.

    It is the binary cross-entropy summed over pixels, plus `kl_weight`, 1 for the bound, times the KL divergence to
    N(0, I) summed over latent dimensions.

    Source: Tonnaer (2017), equation 2.2, with one sample.
    """

    def loss(params, key, images):
        logits, mu, log_sigma = model.apply(params, images, key)
        return _negative_bound(images, logits, mu, log_sigma, kl_weight)

    return loss


def divergence_to_prior(mu: Float[Array, "n d"], log_sigma: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Returns the KL divergence of each Gaussian to N(0, I), in nats, summed over dimensions."""
    return -0.5 * (1 + 2 * log_sigma - mu**2 - jnp.exp(2 * log_sigma)).sum(axis=1)


def _published_vae(model, kl_weight):
    loss = vae_loss(model, kl_weight)
    return AutoEncoder(model, loss, loss, keras_rmsprop)


def _adadelta(model, perplexity=None, tsne_weight=0.0, kl_weight=1.0):
    def loss(params, key, images, is_training=True):
        logits, mu, log_sigma = model.apply(params, images, key, is_training)
        if model.variational:
            losses = _negative_bound(images, logits, mu, log_sigma, kl_weight)
        else:
            losses = ((jax.nn.sigmoid(logits) - images) ** 2).mean(axis=(1, 2, 3))
        if perplexity is None or not is_training:
            return losses
        pixels = images.reshape(images.shape[0], math.prod(images.shape[1:]))
        return losses + tsne_weight * tsne.tsne_divergence(tsne.joint_probabilities(pixels, perplexity=perplexity), mu)

    return AutoEncoder(model, loss, partial(loss, is_training=False), keras_adadelta)


def _negative_bound(images, logits, mu, log_sigma, kl_weight):
    reconstruction = optax.sigmoid_binary_cross_entropy(logits, images).sum(axis=(1, 2, 3))
    return reconstruction + kl_weight * divergence_to_prior(mu, log_sigma)


def _check_tsne(name, perplexity, tsne_weight):
    if not perplexity >= 1 or not tsne_weight >= 0:
        raise BadInput(
            f"{name} has perplexity {perplexity} and tsne_weight {tsne_weight}; expected 1 or more, and 0 or more."
        )


def _level(filters):
    return [Convolution(conv, features, 3) for features in filters]
