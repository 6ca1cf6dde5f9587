"""The VAE/GAN: which network learns from which loss, the losses themselves, and what training does."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_al.data import load
from latent_al.encoders import ENCODERS
from latent_al.encoders.training import Training, make_trainer, train
from latent_al.models.vae_gan import vae_gan
from latent_al.types import BadInput, build

SIZES = dict(image_shape=(8, 12, 2), filters=(3, 4), hidden=6, latent_dim=2, gamma=0.3)
TRAINING = dict(learning_rate=1e-3, epochs=10, batch_size=32, seed=0)
DIGITS = dict(image_shape=(8, 8, 1), filters=(32,), hidden=32, latent_dim=8, gamma=1.0)
TRAINER = make_trainer(vae_gan, Training(**TRAINING), **DIGITS)


@pytest.fixture(scope="module")
def setting():
    """An auto-encoder, weights of which no bias is zero, a key and images."""
    ours = vae_gan(**SIZES)
    key, images = jax.random.key(0), jax.random.uniform(jax.random.key(1), (5, 8, 12, 2))
    params = jax.jit(ours.module.init)(key, images[:1], key)
    return ours, jax.tree.map(lambda leaf: leaf + 0.01, params), key, images


@pytest.fixture(scope="module")
def ours_losses(setting):
    """(params) -> the loss of each image, and the gradient of their weighted sum."""
    ours, _, key, images = setting

    def weighted(params):
        losses = ours.loss(params, key, images)
        return losses @ jnp.arange(5.0), losses

    return jax.jit(jax.grad(weighted, has_aux=True))


@pytest.fixture(scope="module")
def published(setting):
    """The outputs of the networks, and by network the gradient of the loss the paper gives it; nothing is stopped."""
    ours, params, key, images = setting
    noise, drawn = (jax.random.normal(each, (5, 2)) for each in jax.random.split(key))

    def outputs(params):
        apply = partial(ours.module.apply, params)
        mu, log_sigma = apply(images, method="encode")
        fakes = [jax.nn.sigmoid(apply(z, method="decode")) for z in (mu + jnp.exp(log_sigma) * noise, drawn)]
        return mu, log_sigma, [apply(x, method="discriminate") for x in (images, *fakes)]

    def losses(params):
        mu, log_sigma, ((features, real), (guess, guess_logit), (_, drawn_logit)) = outputs(params)
        prior = 0.5 * (mu**2 + jnp.exp(2 * log_sigma) - 1 - 2 * log_sigma).sum(axis=1)
        llike = 0.5 * ((features - guess) ** 2).sum(axis=1)
        dis = [jax.nn.sigmoid(logit) for logit in (real, guess_logit, drawn_logit)]
        gan = jnp.log(dis[0]) + jnp.log(1 - dis[1]) + jnp.log(1 - dis[2])
        fool = -jnp.log(dis[1]) - jnp.log(dis[2])
        return dict(encoder=prior + llike, decoder=0.3 * llike + fool, discriminator=-gan)

    def run(params):
        values, pull_back = jax.vjp(losses, params)
        weights = jnp.arange(5.0)
        gradients = {
            name: pull_back({other: weights * (other == name) for other in values})[0]["params"][name]
            for name in values
        }
        return outputs(params), gradients

    return jax.jit(run)(params)


@pytest.mark.parametrize("network", ["encoder", "decoder", "discriminator"])
def test_each_network_learns_from_its_own_loss(setting, ours_losses, published, network):
    found, expected = ours_losses(setting[1])[0]["params"][network], published[1][network]
    assert all((np.abs(leaf) > 1e-3).any() for leaf in jax.tree.leaves(expected))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), found, expected)


def test_the_loss_is_what_the_paper_adds_up(setting, ours_losses, published):
    mu, log_sigma, ((real, real_logit), (guess, guess_logit), (_, drawn_logit)) = jax.tree.map(np.float64, published[0])
    expected = 0.5 * (mu**2 + np.exp(2 * log_sigma) - 1 - 2 * log_sigma).sum(axis=1)
    expected += 0.5 * ((real - guess) ** 2).sum(axis=1)
    expected += np.log(1 + np.exp(-real_logit)) + np.log(1 + np.exp(guess_logit)) + np.log(1 + np.exp(drawn_logit))
    np.testing.assert_allclose(ours_losses(setting[1])[1], expected, rtol=1e-4)


def test_the_features_have_one_scale_in_each_image(setting):
    """Else the discriminator could turn up the likeness as it likes."""
    ours, params, _, images = setting
    features, logits = ours.module.apply(params, images, method="discriminate")
    assert features.shape == (5, 2 * 3 * 4)
    assert logits.shape == (5,)
    np.testing.assert_allclose(features.mean(axis=1), np.zeros(5), atol=1e-5)
    np.testing.assert_allclose(features.var(axis=1), np.ones(5), rtol=0.02)


def test_the_validation_loss_is_the_pixels_of_the_mean(setting):
    ours, params, key, images = setting
    mu, log_sigma = ours.module.apply(params, images, method="encode")
    assert mu.shape == log_sigma.shape == (5, 2)
    logits = ours.module.apply(params, mu, method="decode")
    assert logits.shape == images.shape
    error = 1 / (1 + np.exp(-np.float64(logits))) - images
    found = ours.validation_loss(params, key, images)
    np.testing.assert_allclose(found, (error**2).sum(axis=(1, 2, 3)), rtol=1e-4)
    np.testing.assert_array_equal(found, ours.validation_loss(params, jax.random.key(7), images))


def test_a_sure_discriminator_gives_finite_gradients(setting, ours_losses):
    """Logits in the hundreds, where log(1 - sigmoid) would be minus infinity."""
    ours, params, _, images = setting
    nets = params["params"]
    sure = {"params": nets | {"discriminator": jax.tree.map(lambda leaf: 100 * leaf, nets["discriminator"])}}
    _, logits = jax.jit(partial(ours.module.apply, method="discriminate"))(sure, images)
    assert np.abs(logits).max() > 100
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ours_losses(sure)))


@pytest.fixture(scope="module")
def digits():
    return load(dict(name="digits", num_validation=600, num_test=500))


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """The encodings, and the auto-encoder with the params that it left in its folder."""
    folder, ours = tmp_path_factory.mktemp("vae_gan"), vae_gan(**DIGITS)
    encoder = build(ENCODERS, dict(name="vae_gan", **DIGITS, **TRAINING), "encoder")
    encodings = encoder.encode(digits, folder)
    assert jax.tree.map(jnp.shape, encodings.train) == jax.tree.map(jnp.shape, encoder.shapes(digits))
    return encodings, ours, train(TRAINER, digits, folder)[0]


@pytest.mark.slow
def test_reconstructions_get_better_than_a_collapsed_decoders(trained, digits):
    """Which at best gives the mean image."""
    encodings, _, _ = trained
    images = digits.validation.images
    collapsed = ((images - images.mean(axis=0)[None]) ** 2).sum(axis=(1, 2, 3)).mean()
    assert encodings.losses.shape == (TRAINING["epochs"], 2)
    assert encodings.losses[-1, 1] < min(0.5 * encodings.losses[0, 1], 0.8 * collapsed)
    guess = np.asarray(encodings.decode(encodings.validation.latents))
    np.testing.assert_allclose(encodings.losses[-1, 1], ((guess - images) ** 2).sum() / 600, rtol=1e-4)


def test_the_discriminator_is_better_than_chance(trained, digits):
    encodings, ours, params = trained
    drawn = encodings.decode(jax.random.normal(jax.random.key(5), (500, 8)))
    discriminate = jax.jit(partial(ours.module.apply, method="discriminate"))
    real, fake = (discriminate(params, jnp.asarray(images))[1] for images in (digits.test.images, drawn))
    assert (real[:, None] > fake[None, :]).mean() > 0.6


def test_the_same_seed_gives_the_same_bytes(trained, digits, tmp_path):
    encodings, _, params = trained
    again = train(TRAINER, digits, tmp_path / "again")
    assert jax.tree.all(jax.tree.map(np.array_equal, (params, encodings.losses), again))


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(image_shape=(8, 10, 1)), "3 levels and images of 8 x 10; expected sides that are multiples of 4"),
        (dict(filters=(4, 0)), r"filters \(4, 0\)"),
        (dict(filters=()), r"filters \(\).*expected sizes of 1 or more"),
        (dict(hidden=0), "hidden 0"),
        (dict(latent_dim=0), "latent_dim 0 and gamma 0.3; expected sizes of 1 or more"),
        (dict(gamma=-0.1), "gamma -0.1; expected .* a gamma of 0 or more"),
        (dict(gamma=float("nan")), "gamma nan"),
        (dict(gamma=float("inf")), "gamma inf"),
    ],
)
def test_what_it_refuses(change, message):
    with pytest.raises(BadInput, match=message):
        vae_gan(**SIZES | change)
