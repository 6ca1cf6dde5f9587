"""Convolutions against XLA's own, and the convolutional VAE against Table 4.1 of the thesis."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from latent_al.models.autoencoders import conv_vae
from latent_al.models.convolutions import conv, conv_transpose_2x, narrow_conv, patch_conv

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
    ],
    ids=["conv", "patch", "narrow", "transpose"],
)
def test_values_and_gradients_equal_xlas(ours, plain, kernel_shape, height, width):
    key_x, key_kernel, key_out = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(key_x, (3, height, width, 5))
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
    model, _ = conv_vae(image_shape=(side, side, 1), latent=latent, kl_weight=1.0, dtype="float32")
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
    model, _ = conv_vae(image_shape=(side, side, 1), latent=3, kl_weight=1.0, dtype="float32")
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


def test_bfloat16_is_near_float32():
    images = jax.random.uniform(jax.random.key(1), (4, 8, 8, 1))
    losses = []
    for dtype in ("float32", "bfloat16"):
        model, loss = conv_vae(image_shape=(8, 8, 1), latent=2, kl_weight=1.0, dtype=dtype)
        params = model.init(jax.random.key(0), images, jax.random.key(1))
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
        losses.append(loss(params, jax.random.key(2), images))
    assert losses[1].dtype == jnp.float32
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)
    assert not np.array_equal(*losses)


def kernel_shapes(params):
    return sorted(leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim > 1)
