"""Layers for CPUs beside the plain layers of other backends: the same params, numbers and distributions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_al.models import AUTOENCODERS, convolutions, cpu
from latent_al.models.classifiers import cnn, mlp
from latent_al.models.layers import drop, max_pool_2x
from latent_al.models.resnet import ResNet18

KERNELS = {
    "conv": (3, 3, 5, 4),
    "patch_conv": (2, 2, 5, 4),
    "conv_2x": (3, 3, 5, 4),
    "pixel_conv_2x": (1, 1, 5, 4),
    "narrow_conv": (2, 2, 5, 1),
    "conv_transpose_2x": (3, 3, 5, 4),
    "patch_conv_transpose": (2, 2, 5, 4),
}
LEVELS = dict(filters=(4, 3, 2), depth=2, hidden=(8, 6), dropout=0.2, activation="linear", latent_dim=2)
VAE = dict(latent_dim=2, kl_weight=1.0, dtype="float32")
GAN = dict(filters=(4, 3), hidden=8, latent_dim=2, gamma=1.0)
AUTO = {
    "conv_vae": (VAE, (8, 8, 1)),
    "conv_ae": (LEVELS, (8, 8, 3)),
    "vae_gan": (GAN, (8, 8, 1)),
}


@pytest.fixture
def on_both(monkeypatch):
    """Calls a function as a CPU would, and as a GPU would have it done by the plain layers."""

    def call(function, *args):
        results = []
        for backend in ("cpu", "gpu"):
            with monkeypatch.context() as patch:
                patch.setattr(jax, "default_backend", lambda backend=backend: backend)
                results.append(function(*args))
        return results

    return call


def assert_close(results):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), *results)


@pytest.mark.parametrize("name", KERNELS)
def test_convolutions_of_no_images_are_none(name, on_both):
    results = on_both(getattr(convolutions, name), jnp.zeros((0, 8, 6, 5)), jnp.zeros(KERNELS[name]))
    assert results[0].shape == results[1].shape
    assert not len(results[0])


@pytest.mark.parametrize("name", KERNELS)
def test_convolutions_and_their_gradients_are_the_same(name, on_both):
    key_x, key_kernel = jax.random.split(jax.random.key(0))
    x, kernel = jax.random.normal(key_x, (3, 8, 6, 5)), jax.random.normal(key_kernel, KERNELS[name])

    def value_and_gradients(x, kernel):
        function = getattr(convolutions, name)
        return function(x, kernel), jax.grad(lambda *args: jnp.sin(function(*args)).sum(), argnums=(0, 1))(x, kernel)

    assert_close(on_both(value_and_gradients, x, kernel))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "conv_vae" else pytest.mark.slow) for name in AUTO]
)
def test_autoencoders_have_the_same_params_and_losses(name, on_both):
    settings, image_shape = AUTO[name]
    images = jax.random.uniform(jax.random.key(1), (6, *image_shape))

    def params_and_loss():
        module, _, loss, _ = AUTOENCODERS[name](image_shape=image_shape, **settings)
        params = module.init(jax.random.key(0), images, jax.random.key(2))
        return params, loss(params, jax.random.key(3), images)

    assert_close(on_both(params_and_loss))


def test_resnets_have_the_same_params_and_outputs(on_both):
    images = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3))
    assert_close(on_both(lambda: ResNet18(4, 3).init_with_output(jax.random.key(0), images)))


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_learners_train_to_the_same_predictions(name, on_both):
    keys = jax.random.split(jax.random.key(0), 3)
    images, labels = jax.random.uniform(jax.random.key(1), (20, 4, 4, 1)), jnp.arange(20) % 3
    sizes = dict(num_classes=3, dropout=0.0, learning_rate=1e-2, batch_size=5)

    def predictions():
        if name == "mlp":
            learner, inputs = mlp(hidden=(8,), epochs=2, **sizes), images.reshape(20, 16)
        else:
            learner = cnn(image_shape=(4, 4, 1), filters=(4, 3), depth=1, units=8, num_steps=10, **sizes)
            inputs = images

        def one(key):
            params, _ = learner.fit(key, inputs, labels, jnp.arange(20), 20)
            return learner.predict(params, inputs)

        return jax.vmap(one)(keys)

    assert_close(on_both(predictions))


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.99])
def test_dropout_has_the_same_distribution(rate, on_both):
    num = 200_000
    results = on_both(lambda: drop(jax.random.key(0), jnp.ones((num // 10, 10)), jnp.float32(rate)))
    assert (rate == 0) == np.array_equal(*results)
    for dropped in results:
        kept = np.asarray(dropped) > 0
        # Eight bits meet the rate to 1/512.
        assert abs(kept.mean() - (1 - rate)) < 1 / 512 + 5 * np.sqrt(rate * (1 - rate) / num)
        np.testing.assert_allclose(dropped[kept], 1 / (1 - rate), rtol=0.2 if rate == 0.99 else 0.01)
        assert abs(dropped.mean() - 1) <= 6 * np.sqrt(rate / (1 - rate) / num)
        # Neither units nor rows are dropped together.
        centred = kept - kept.mean()
        assert abs((centred[:, 1:] * centred[:, :-1]).mean()) < 6 / np.sqrt(num)
        assert abs((centred[1:] * centred[:-1]).mean()) < 6 / np.sqrt(num)


@pytest.mark.parametrize("reach", [1, 30, 1000, 10_000])
def test_cosines_are_the_same(reach):
    angles = np.random.default_rng(0).uniform(-reach, reach, size=(300, 50)).astype(np.float32)
    np.testing.assert_allclose(cpu.cos(jnp.asarray(angles)), np.cos(angles.astype(np.float64)), atol=1e-6)


def test_pools_are_the_same(on_both):
    images = jax.random.normal(jax.random.key(0), (3, 6, 8, 2))
    assert_close(on_both(lambda: jax.value_and_grad(lambda x: (max_pool_2x(x) ** 2).sum())(images)))
