"""A training step of Tonnaer's (2017) convolutional VAE beside the plain one in linen and PyTorch, in one process.

    make bench

28 x 28 images, 30 latent dimensions, batches of 100, RMSprop. Ours runs as it is trained here, an epoch of ten batches;
the plain one as a jitted step outside any loop, its best case, and once more inside a loop. Seconds a step are medians
of five runs after one that compiles; ours and the plain ones take turns, PyTorch follows, since its threads go on
spinning.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app
from flax import linen as nn
from timing import seconds
from torch_steps import make_steps

from latent_al.models.autoencoders import conv_vae, vae_loss
from latent_al.models.train import Objective, State, Subset, epoch, keras_rmsprop, start

SIDE, LATENT, BATCH, STEPS, LOOPED, REPEATS = 28, 30, 100, 10, 2, 5
HALF, LEARNING_RATE, REQUIRED = SIDE // 2, 1e-3, 0.45


class PlainVAE(nn.Module):
    """Table 4.1 in linen's own layers."""

    @nn.compact
    def __call__(self, images, key):
        x = images
        for features, size, stride in ((1, 2, 1), (64, 2, 2), (64, 3, 1), (64, 3, 1)):
            x = nn.relu(nn.Conv(features, (size, size), stride)(x))
        x = nn.relu(nn.Dense(128)(x.reshape(len(images), -1)))
        mu, log_sigma = nn.Dense(LATENT)(x), nn.Dense(LATENT)(x)
        x = mu + jnp.exp(log_sigma) * jax.random.normal(key, mu.shape)
        for units in (128, HALF * HALF * 64):
            x = nn.relu(nn.Dense(units)(x))
        x = x.reshape(len(images), HALF, HALF, 64)
        for stride, padding in ((1, "SAME"), (1, "SAME"), (2, "VALID")):
            x = nn.relu(nn.ConvTranspose(64, (3, 3), (stride, stride), padding)(x))
        return nn.Conv(1, (2, 2), padding="VALID")(x), mu, log_sigma


def begin(model, images, optimizer):
    key = jax.random.key(0)
    return key, start(model.init(key, images[:BATCH], key), optimizer)


def make_images(num_steps):
    return np.random.default_rng(0).random((num_steps * BATCH, SIDE, SIDE, 1), np.float32)


def make_ours(images, dtype="float32"):
    optimizer = keras_rmsprop(LEARNING_RATE)
    ours = conv_vae(image_shape=(SIDE, SIDE, 1), latent_dim=LATENT, kl_weight=1.0, dtype=dtype)
    key, state = begin(ours.module, images, optimizer)
    subset = Subset(images, jnp.arange(len(images)), len(images))
    train = jax.jit(partial(epoch, objective=Objective(ours.loss, optimizer, BATCH)))
    return lambda: jax.block_until_ready(train(key, state, subset))


def make_plain(images):
    """Returns functions that run single steps, and a loop of them."""
    optimizer, model = keras_rmsprop(LEARNING_RATE), PlainVAE()
    loss = vae_loss(model, 1.0)
    key, state = begin(model, images, optimizer)

    @jax.jit
    def step(key, state, batch):
        value, gradients = jax.value_and_grad(lambda params: loss(params, key, batch).mean())(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state)
        return State(optax.apply_updates(state.params, updates), opt_state), value

    @jax.jit
    def loop(key, state, batch):
        return jax.lax.fori_loop(0, LOOPED, lambda _, carry: step(key, carry[0], batch), (state, jnp.zeros(())))

    def play():
        carry = state, None
        for batch in images.reshape(STEPS, BATCH, *images.shape[1:]):
            carry = step(key, carry[0], batch)
        return jax.block_until_ready(carry)

    return play, lambda: jax.block_until_ready(loop(key, state, images[:BATCH]))


def torch_layers():
    """Returns the encoder, its two heads and the decoder."""
    from torch import nn

    encoder = [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(1, 1, 2), nn.ReLU(), nn.Conv2d(1, 64, 2, stride=2), nn.ReLU()]
    for _ in range(2):
        encoder += [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
    encoder += [nn.Flatten(), nn.Linear(HALF * HALF * 64, 128), nn.ReLU()]
    decoder = [nn.Linear(LATENT, 128), nn.ReLU(), nn.Linear(128, HALF * HALF * 64), nn.ReLU()]
    decoder += [nn.Unflatten(1, (64, HALF, HALF))]
    for stride, padding in ((1, 1), (1, 1), (2, 0)):
        decoder += [nn.ConvTranspose2d(64, 64, 3, stride, padding), nn.ReLU()]
    decoder += [nn.Conv2d(64, 1, 2)]
    return nn.ModuleList([nn.Sequential(*encoder), *(nn.Linear(128, LATENT) for _ in "ms"), nn.Sequential(*decoder)])


def make_torch(images, **settings):
    """Returns a function that takes a step for each batch, with the `settings` of `make_steps`."""
    import torch

    layers = torch_layers()
    encoder, to_mu, to_log_sigma, decoder = layers

    def loss_of(batch):
        hidden = encoder(batch)
        mu, log_sigma = to_mu(hidden), to_log_sigma(hidden)
        logits = decoder(mu + log_sigma.exp() * torch.randn_like(mu))
        divergence = -0.5 * (1 + 2 * log_sigma - mu**2 - (2 * log_sigma).exp()).sum()
        fit = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch, reduction="sum")
        return (fit + divergence) / len(batch)

    optimizer = torch.optim.RMSprop(layers.parameters(), lr=LEARNING_RATE, alpha=0.9, eps=1e-7)
    batches = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().split(BATCH)
    return make_steps(layers, loss_of, optimizer, [(batch,) for batch in batches], **settings)


def main(_):
    images = make_images(STEPS)
    ours, plain, looped = seconds(REPEATS, make_ours(jnp.asarray(images)), *make_plain(jnp.asarray(images)))
    [torch] = seconds(REPEATS, make_torch(images))
    ours, plain, looped, torch = ours / STEPS, plain / STEPS, looped / LOOPED, torch / STEPS
    print(f"latent_al, in a loop        {ours:7.3f} s a step")
    print(f"plain linen, single steps   {plain:7.3f} s   ours / plain {ours / plain:.2f}, required {REQUIRED} at most")
    print(f"plain linen, in a loop      {looped:7.3f} s   {looped / ours:.1f} x latent_al")
    print(f"PyTorch                     {torch:7.3f} s   {torch / ours:.2f} x latent_al")


if __name__ == "__main__":
    app.run(main)
