"""Classifiers, each a factory that returns a `Learner`."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from latent_al.base import BadInput, Learner
from latent_al.fit import fit, in_blocks, keras_rmsprop


class Dropout(nn.Module):
    """Inverted dropout that draws 8 random bits a unit: the 32 of `nn.Dropout` are a fifth of a CPU's training step.

    The rate is met to 1/512, and what is kept is scaled by the rate as met.
    """

    rate: float

    @nn.compact
    def __call__(self, x):
        words = jax.random.bits(self.make_rng("dropout"), (*x.shape[:-1], -(-x.shape[-1] // 4)), jnp.uint32)
        bits = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]
        num_dropped = round(self.rate * 256)
        return jnp.where(bits >= num_dropped, x * (256 / (256 - num_dropped)), 0)


class MLP(nn.Module):
    """Hidden ReLU layers with dropout after each, and a linear layer of logits."""

    hidden: Sequence[int]
    dropout: float
    num_classes: int

    @nn.compact
    def __call__(self, inputs, train):
        x = inputs
        for units in self.hidden:
            x = nn.relu(nn.Dense(units, kernel_init=nn.initializers.glorot_uniform())(x))
            if train and self.dropout:
                x = Dropout(self.dropout)(x)
        return x, nn.Dense(self.num_classes, kernel_init=nn.initializers.glorot_uniform())(x)


def mlp(
    *, hidden: Sequence[int], dropout: float, learning_rate: float, epochs: int, batch: int, num_classes: int
) -> Learner:
    """The thesis's multilayer perceptron, section 4.2.2, trained from scratch at each fit with Keras's RMSprop.

    Args:
        hidden: units of each hidden layer.
        dropout: share of units dropped in training, in [0, 0.99].
        learning_rate: step size of RMSprop.
        epochs: passes over the labelled rows.
        batch: rows a step.
        num_classes: outputs of the softmax.

    Raises:
        BadInput: a size below 1, or dropout outside [0, 0.99].
    """
    if min(*hidden, epochs, batch) < 1 or not 0 <= dropout <= 0.99 or learning_rate <= 0:
        raise BadInput(
            f"mlp has hidden {tuple(hidden)}, epochs {epochs}, batch {batch}, dropout {dropout} and learning_rate "
            f"{learning_rate}; expected sizes of 1 or more, dropout in [0, 0.99] and a positive learning_rate."
        )
    model = MLP(tuple(hidden), dropout, num_classes)

    def loss(params, key, examples):
        inputs, labels = examples
        _, logits = model.apply(params, inputs, train=True, rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    def fit_mlp(key, inputs, labels, rows, count):
        key_init, key_fit = jax.random.split(key)
        params = model.init(key_init, inputs[:1], train=False)
        optimizer = keras_rmsprop(learning_rate)
        examples = (inputs, labels)
        return fit(key_fit, params, examples, rows, count, loss=loss, optimizer=optimizer, batch=batch, epochs=epochs)

    def apply(params, inputs):
        features, logits = model.apply(params, inputs, train=False)
        return features, jax.nn.softmax(logits)

    return Learner(fit_mlp, in_blocks(apply))


CLASSIFIERS = {"mlp": mlp}
