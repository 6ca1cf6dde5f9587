"""Classifiers, each a factory that returns a `Learner`."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from latent_al.base import BadInput, Key, Learner
from latent_al.fit import fit, in_blocks, keras_rmsprop


def drop(key: Key, x: Float[Array, "b f"], rate: Float[Array, ""] | float) -> Float[Array, "b f"]:
    """Inverted dropout that draws 8 random bits a unit: the 32 of `nn.Dropout` are a fifth of a CPU's training step.

    The rate, in [0, 0.99], is met to 1/512, and what is kept is scaled by the rate as met.
    """
    words = jax.random.bits(key, (x.shape[0], -(-x.shape[1] // 4)), jnp.uint32)
    bits = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(x.shape[0], -1)[:, : x.shape[1]]
    num_dropped = jnp.round(rate * 256)
    return jnp.where(bits >= num_dropped.astype(jnp.uint8), x * (256 / (256 - num_dropped)), 0)


class MLP(nn.Module):
    """Hidden ReLU layers, with dropout after each where a rate is given, and a linear layer of logits."""

    hidden: Sequence[int]
    num_classes: int

    @nn.compact
    def __call__(self, inputs, dropout=None):
        x = inputs
        for units in self.hidden:
            x = nn.relu(nn.Dense(units, kernel_init=nn.initializers.glorot_uniform())(x))
            if dropout is not None:
                x = drop(self.make_rng("dropout"), x, dropout)
        return x, nn.Dense(self.num_classes, kernel_init=nn.initializers.glorot_uniform())(x)


def mlp(
    *,
    hidden: Sequence[int],
    dropout: float | Sequence[float],
    learning_rate: float,
    epochs: int,
    batch: int,
    num_classes: int,
) -> Learner:
    """The thesis's multilayer perceptron, section 4.2.2, trained from scratch at each fit with Keras's RMSprop.

    Args:
        hidden: units of each hidden layer.
        dropout: share of units dropped in training, in [0, 0.99]; of several rates each becomes an arm of its own.
        learning_rate: step size of RMSprop.
        epochs: passes over the labelled rows.
        batch: rows a step.
        num_classes: outputs of the softmax.

    Raises:
        BadInput: a size below 1, or dropout outside [0, 0.99].
    """
    dropouts = (dropout,) if isinstance(dropout, (int, float)) else tuple(dropout)
    rates_fit = dropouts and all(0 <= rate <= 0.99 for rate in dropouts)
    if min(*hidden, epochs, batch) < 1 or not rates_fit or learning_rate <= 0:
        raise BadInput(
            f"mlp has hidden {tuple(hidden)}, epochs {epochs}, batch {batch}, dropout {dropout} and learning_rate "
            f"{learning_rate}; expected sizes of 1 or more, dropout in [0, 0.99] and a positive learning_rate."
        )
    model = MLP(tuple(hidden), num_classes)

    def loss(params, key, examples, rate):
        inputs, labels = examples
        _, logits = model.apply(params, inputs, rate, rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    def fit_mlp(key, rate, inputs, labels, rows, count):
        key_init, key_fit = jax.random.split(key)
        params = model.init(key_init, inputs[:1])
        # A single rate is a constant of the program, which then trains faster.
        rate = dropouts[0] if len(dropouts) == 1 else rate
        settings = dict(loss=loss, optimizer=keras_rmsprop(learning_rate), batch=batch, epochs=epochs)
        return fit(key_fit, params, (inputs, labels), rows, count, rate, **settings)

    def apply(params, inputs):
        features, logits = model.apply(params, inputs)
        return features, jax.nn.softmax(logits)

    return Learner(fit_mlp, in_blocks(apply), dropouts)


CLASSIFIERS = {"mlp": mlp}
