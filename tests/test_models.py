"""Convolutions against XLA's own, and the convolutional VAE against Table 4.1 of Tonnaer (2017)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from latent_al.kernels import tsne
from latent_al.models import AUTOENCODERS
from latent_al.models.autoencoders import conv_vae
from latent_al.models.classifiers import angle_cnn, angle_mlp, cnn
from latent_al.models.classifiers import angles as angles_task
from latent_al.models.convolutions import (
    conv,
    conv_2x,
    conv_transpose_2x,
    narrow_conv,
    patch_conv,
    patch_conv_transpose,
    pixel_conv_2x,
)
from latent_al.models.layers import max_pool_2x
from latent_al.types import BadInput, build

LAYOUT = ("NHWC", "HWIO", "NHWC")


def plain_transpose(x, kernel):
    return lax.conv_transpose(x, kernel, (2, 2), "VALID", dimension_numbers=LAYOUT)


def plain_conv(x, kernel, strides=1, padding="VALID"):
    return lax.conv_general_dilated(x, kernel, (strides, strides), padding, dimension_numbers=LAYOUT)


@pytest.mark.parametrize("height, width", [(14, 14), (16, 16), (2, 4)])
@pytest.mark.parametrize(
    "ours, plain, kernel_shape",
    [
        (conv, partial(plain_conv, padding="SAME"), (3, 3, 5, 4)),
        (patch_conv, partial(plain_conv, strides=2), (2, 2, 5, 4)),
        (narrow_conv, plain_conv, (2, 2, 5, 1)),
        (conv_transpose_2x, plain_transpose, (3, 3, 5, 4)),
        (patch_conv_transpose, plain_transpose, (2, 2, 5, 4)),
        (conv, partial(plain_conv, padding="SAME"), (3, 3, 1, 4)),
        (conv_2x, partial(plain_conv, strides=2, padding=((1, 1), (1, 1))), (3, 3, 5, 4)),
        (pixel_conv_2x, partial(plain_conv, strides=2), (1, 1, 5, 4)),
    ],
    ids=["conv", "patch", "narrow", "transpose", "patch transpose", "conv of one channel", "strided", "strided 1x1"],
)
def test_values_and_gradients_equal_xlas(ours, plain, kernel_shape, height, width):
    key_x, key_kernel, key_out = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(key_x, (3, height, width, kernel_shape[2]))
    kernel = jax.random.normal(key_kernel, kernel_shape)
    weights = jax.random.normal(key_out, plain(x, kernel).shape)

    def value_and_gradients(function):
        total = lambda x, kernel: (jnp.sin(function(x, kernel)) * weights).sum()  # noqa: E731
        return function(x, kernel), jax.jit(jax.grad(total, argnums=(0, 1)))(x, kernel)

    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)  # noqa: E731
    jax.tree.map(close, value_and_gradients(ours), value_and_gradients(plain))


@pytest.mark.parametrize("side", [28, 32])
@pytest.mark.parametrize("latent", [2, 30, 50])
def test_conv_vae_is_table_4_1(side, latent):
    model = conv_vae(image_shape=(side, side, 1), latent_dim=latent, kl_weight=1.0, dtype="float32").module
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, side, side, 1)), method="encode"))
    flat = (side // 2) ** 2 * 64
    encoder = [(2, 2, 1, 1), (2, 2, 1, 64), (3, 3, 64, 64), (3, 3, 64, 64), (flat, 128), (128, latent), (128, latent)]
    assert kernel_shapes(shapes) == sorted(encoder)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, latent)), method="decode"))
    decoder = [(latent, 128), (128, flat), (3, 3, 64, 64), (3, 3, 64, 64), (3, 3, 64, 64), (2, 2, 64, 1)]
    assert kernel_shapes(shapes) == sorted(decoder)
    params = model.init(jax.random.key(0), jnp.zeros((1, latent)), method="decode")
    out, inner = model.apply(params, jnp.zeros((3, latent)), method="decode", capture_intermediates=True)
    assert out.shape == (3, side, side, 1)
    assert inner["intermediates"]["deconvolutions_2"]["__call__"][0].shape == (3, side + 1, side + 1, 64)


@pytest.mark.parametrize("side", [8, 28])
def test_conv_vae_equals_plain_convolutions(side):
    """Table 4.1 word for word with XLA's own layers; every hidden layer a ReLU."""
    model = conv_vae(image_shape=(side, side, 1), latent_dim=3, kl_weight=1.0, dtype="float32").module
    images = jax.random.uniform(jax.random.key(1), (5, side, side, 1))
    params = model.init(jax.random.key(0), images, jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.01, params)
    layers, relu = params["params"], jax.nn.relu

    def dense(name, x):
        return x @ layers[name]["kernel"] + layers[name]["bias"][None, :]

    def bias(name):
        return layers[name]["bias"][None, None, None, :]

    x = images
    for index, strides in enumerate((1, 2, 1, 1)):
        name = f"convolutions_{index}"
        x = relu(plain_conv(x, layers[name]["kernel"], strides, "SAME") + bias(name))
    x = relu(dense("hidden", x.reshape(5, -1)))
    mu, log_sigma = dense("mu", x), dense("log_sigma", x)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, model.apply(params, images, method="encode"), (mu, log_sigma))
    x = relu(dense("decoder_1", relu(dense("decoder_0", mu)))).reshape(5, side // 2, side // 2, 64)
    for index in range(2):
        x = relu(
            plain_conv(x, layers[f"deconvolutions_{index}"]["kernel"], padding="SAME") + bias(f"deconvolutions_{index}")
        )
    x = relu(plain_transpose(x, layers["deconvolutions_2"]["kernel"]) + bias("deconvolutions_2"))
    logits = plain_conv(x, layers["pixels"]["kernel"]) + bias("pixels")
    close(model.apply(params, mu, method="decode"), logits)


@pytest.mark.slow
def test_bfloat16_is_near_float32():
    images = jax.random.uniform(jax.random.key(1), (4, 8, 8, 1))
    losses = []
    for dtype in ("float32", "bfloat16"):
        model, loss = conv_vae(image_shape=(8, 8, 1), latent_dim=2, kl_weight=1.0, dtype=dtype)[:2]
        params = model.init(jax.random.key(0), images, jax.random.key(1))
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
        losses.append(loss(params, jax.random.key(2), images))
    assert losses[1].dtype == jnp.float32
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)
    assert not np.array_equal(*losses)


def kernel_shapes(params):
    return sorted(leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim > 1)


def test_max_pool_is_linens():
    images = jax.random.normal(jax.random.key(0), (3, 6, 8, 2))
    plain = lambda x: nn.max_pool(x, (2, 2), (2, 2))  # noqa: E731
    np.testing.assert_array_equal(max_pool_2x(images), plain(images))
    gradients = [jax.grad(lambda x, pool=pool: (pool(x) ** 2).sum())(images) for pool in (max_pool_2x, plain)]
    np.testing.assert_allclose(*gradients, rtol=1e-6)


PAPER = dict(filters=(64, 32, 32), depth=3, hidden=(1024, 1024), dropout=0.2, activation="linear", latent_dim=2)
SMALL = dict(filters=(4, 3, 2), depth=2, hidden=(8, 6), dropout=0.2, activation="linear", latent_dim=2)
TSNE = dict(perplexity=3.0, tsne_weight=10.0)
OWN = dict(conv_ae={}, conv_vae_latens=dict(kl_weight=0.25), tsne_ae=TSNE, vae_tsne_ae=TSNE)


def make(name, **sizes):
    return build(AUTOENCODERS, dict(name=name, **OWN[name], **sizes), "auto-encoder")


def shapes_of(name):
    model = make(name, image_shape=(28, 28, 1), **PAPER).module
    init = partial(model.init, jax.random.key(0))
    params = jax.eval_shape(init, jnp.zeros((1, 28, 28, 1)), jax.random.key(1))["params"]
    return {layer: each["kernel"].shape for layer, each in params.items()}


def test_the_levels_are_the_papers():
    """Three convolutions a level, 28 to 14 to 7, two dense layers, and the mirror of it."""
    encoder = [(3, 3, a, b) for a, b in [(1, 64), (64, 64), (64, 64), (64, 32)] + [(32, 32)] * 5]
    decoder = [(3, 3, 32, 32)] * 6 + [(3, 3, 64, 64)] * 2
    expected = {f"encoder_{i // 3}_{i % 3}": shape for i, shape in enumerate(encoder)}
    expected |= {f"decoder_{i // 3}_{i % 3}": shape for i, shape in enumerate(decoder)}
    expected |= dict(up_0=(2, 2, 32, 32), up_1=(2, 2, 32, 64), pixels=(3, 3, 64, 1), mu=(1024, 2))
    expected |= dict(hidden_encoder_0=(1568, 1024), hidden_encoder_1=(1024, 1024))
    expected |= dict(hidden_decoder_0=(2, 1024), hidden_decoder_1=(1024, 1024), hidden_decoder_2=(1024, 1568))
    assert shapes_of("conv_ae") == expected
    assert shapes_of("vae_tsne_ae") == expected | dict(log_sigma=(1024, 2))


@pytest.mark.parametrize("name", OWN)
def test_losses_are_what_the_paper_adds_up(name):
    ours = make(name, image_shape=(8, 12, 2), **SMALL | dict(dropout=0.0))
    key, images = jax.random.key(0), jax.random.uniform(jax.random.key(1), (9, 8, 12, 2))
    params = jax.jit(ours.module.init)(key, images[:1], key)
    outputs = jax.jit(ours.module.apply)(params, images, key)
    logits, mu, log_sigma = (None if x is None else np.float64(x) for x in outputs)
    pixels, guess = np.float64(images), 1 / (1 + np.exp(-logits))
    expected = ((guess - pixels) ** 2).mean(axis=(1, 2, 3))
    if "vae" in name:
        entropy = -(pixels * np.log(guess) + (1 - pixels) * np.log(1 - guess)).sum(axis=(1, 2, 3))
        divergence = 0.5 * (mu**2 + np.exp(2 * log_sigma) - 1 - 2 * log_sigma).sum(axis=1)
        expected = entropy + OWN[name].get("kl_weight", 1) * divergence
    np.testing.assert_allclose(jax.jit(ours.validation_loss)(params, key, images), expected, rtol=1e-4)
    if "tsne" in name:
        p = np.float64(tsne.joint_probabilities(images.reshape(9, -1), perplexity=3.0))
        student = 1 / (1 + ((mu[:, None] - mu) ** 2).sum(axis=2))
        others = ~np.eye(9, dtype=bool)
        q = student / student[others].sum()
        expected += 10 * (p[others] * np.log(p[others] / q[others])).sum()
    np.testing.assert_allclose(jax.jit(ours.loss)(params, key, images), expected, rtol=1e-4)


def test_dropout_in_training_only_and_the_clipped_representation():
    ours = make("conv_ae", image_shape=(8, 8, 1), **SMALL | dict(activation="clipped", dropout=0.5))
    images = jax.random.uniform(jax.random.key(1), (5, 8, 8, 1))
    params = jax.jit(ours.module.init)(jax.random.key(2), images[:1], jax.random.key(2))
    one, other = (jax.jit(ours.loss)(params, jax.random.key(seed), images) for seed in (0, 1))
    assert (one != other).any()
    one, other = (jax.jit(ours.validation_loss)(params, jax.random.key(seed), images) for seed in (0, 1))
    np.testing.assert_array_equal(one, other)
    latents, _ = ours.module.apply(jax.tree.map(lambda leaf: 20 * leaf, params), images, method="encode")
    assert set(np.asarray(latents).ravel().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    "name, change, message",
    [
        (
            "conv_ae",
            dict(image_shape=(30, 28, 1)),
            "3 levels and images of 30 x 28; expected sides that are multiples of 4",
        ),
        ("conv_ae", dict(latent_dim=0), "latent_dim 0 and dropout 0.2; expected sizes of 1 or more"),
        ("conv_vae_latens", dict(filters=(4, 0)), r"filters \(4, 0\)"),
        ("conv_ae", dict(filters=()), r"filters \(\), .* expected .* at least one level of filters"),
        ("conv_vae_latens", dict(dropout=1.0), "dropout 1.0"),
        ("conv_vae_latens", dict(kl_weight=-1.0), "conv_vae_latens has kl_weight -1.0; expected 0 or more"),
        ("tsne_ae", dict(activation="relu"), "unknown activation 'relu'; known: clipped, linear"),
        ("tsne_ae", dict(perplexity=0.5), "perplexity 0.5 and tsne_weight 10.0; expected 1 or more"),
        ("vae_tsne_ae", dict(tsne_weight=-1.0), "tsne_weight -1.0"),
    ],
)
def test_what_the_auto_encoders_refuse(name, change, message):
    with pytest.raises(BadInput, match=message):
        build(AUTOENCODERS, dict(name=name, image_shape=(28, 28, 1), **SMALL, **OWN[name]) | change, "auto-encoder")


class TestCNN:
    SETTINGS = dict(image_shape=(8, 8, 1), filters=(4, 4), depth=1, units=16, dropout=0.2, learning_rate=1.0)
    SETTINGS |= dict(num_steps=100, batch_size=8, num_classes=3)

    def problem(self, size=60):
        """A bar, whose place is the class, on noise."""
        labels = jnp.arange(size) % 3
        noise = jax.random.uniform(jax.random.key(9), (size, 8, 8, 1))
        bar = (jnp.arange(8)[None, :] // 2 == labels[:, None])[:, :, None, None]
        return 0.5 * noise + 0.5 * bar, labels

    def test_learns_from_the_rows_it_is_given_and_may_be_monitored(self):
        images, labels = self.problem()
        learner = cnn(**self.SETTINGS)

        def accuracy(params):
            return (learner.predict(params, images[30:])[1].argmax(axis=1) == labels[30:]).mean()

        rows = jnp.arange(60)
        params, info = learner.fit(jax.random.key(0), images, labels, rows, 30, monitor=accuracy)
        assert accuracy(params) > 0.9
        assert info["monitored"].shape == (10,)
        assert info["monitored"][-1] == accuracy(params)
        assert info["monitored"][0] < 0.9
        unmonitored, info = learner.fit(jax.random.key(0), images, labels, rows, 30)
        assert info.keys() == {"loss"}
        jax.tree.map(np.testing.assert_array_equal, unmonitored, params)

    def test_vmap_equals_singles_and_the_count_may_be_traced(self):
        images, labels = self.problem()
        learner = cnn(**self.SETTINGS | dict(num_steps=10))
        play = lambda key, count: learner.fit(key, images, labels, jnp.arange(60), count)[1]["loss"]  # noqa: E731
        keys = jax.random.split(jax.random.key(0), 2)
        losses = jax.jit(jax.vmap(play, in_axes=(0, None)))(keys, jnp.int32(20))
        np.testing.assert_allclose(losses, [play(key, 20) for key in keys], rtol=1e-5)

    @pytest.mark.parametrize(
        "change, message",
        [
            (dict(units=0), "units 0"),
            (dict(dropout=-0.1), "dropout -0.1"),
            (dict(learning_rate=0.0), "learning_rate 0.0"),
            (dict(num_steps=15), "num_steps 15; expected a multiple of 10"),
            (
                dict(image_shape=(9, 8, 1)),
                "the convolutional network has 2 levels and images of 9 x 8; expected sides that are multiples of 2",
            ),
        ],
    )
    def test_what_it_refuses(self, change, message):
        with pytest.raises(BadInput, match=message):
            cnn(**self.SETTINGS | change)


class TestAngles:
    MLP = dict(hidden=(64,), dropout=0.0, learning_rate=1e-3, epochs=60, batch_size=10)
    CNN = dict(image_shape=(8, 8, 1), filters=(8, 8), depth=1, units=32, dropout=0.0, learning_rate=1.0)
    CNN |= dict(num_steps=300, batch_size=16)

    def problem(self, size=240):
        """A ramp of grey in a direction that is the label; with a seam at 360 degrees if angles were numbers."""
        angles = jax.random.uniform(jax.random.key(3), (size,), maxval=360.0)
        rows, columns = jnp.meshgrid(jnp.linspace(-1, 1, 8), jnp.linspace(-1, 1, 8), indexing="ij")
        cos, sin = (turn(jnp.radians(angles))[:, None, None] for turn in (jnp.cos, jnp.sin))
        return (0.5 + 0.3 * (cos * columns[None] - sin * rows[None]))[..., None], angles

    @pytest.mark.parametrize("make, settings", [(angle_mlp, MLP), pytest.param(angle_cnn, CNN, marks=pytest.mark.slow)])
    def test_are_learned_all_round(self, make, settings):
        images, angles = self.problem()
        inputs = images if make is angle_cnn else images.reshape(len(images), 64)
        learner = make(**settings)
        params, _ = learner.fit(jax.random.key(0), inputs, angles, jnp.arange(240), 200)
        features, predicted = learner.predict(params, inputs[200:])
        assert features.shape == (40, settings.get("units", 64))
        assert ((predicted >= 0) & (predicted < 360)).all()
        errors = learner.score(predicted, angles[200:])
        assert errors.max() < 15
        assert learner.probs(predicted) is None
        assert learner.metric == "angular_error"

    def test_errors_go_the_shorter_way_round(self):
        predicted, labels = jnp.array([359.0, 1.0, 90.0, 270.0, 10.0]), jnp.array([1.0, 359.0, 270.0, 90.0, 10.0])
        assert angle_mlp(**self.MLP).score(predicted, labels).tolist() == [2, 2, 180, 180, 0]

    def test_loss_is_that_of_cosine_and_sine(self):
        outputs, labels = np.float32([[1, 0], [0, 2], [0.5, 0.5]]), np.float32([0, 90, 300])
        target = np.stack([np.cos(np.radians(labels)), np.sin(np.radians(labels))], axis=1)
        np.testing.assert_allclose(
            angles_task().loss(outputs, labels), ((outputs - target) ** 2).sum(axis=1), atol=1e-6
        )
