"""Classifiers, each a factory that returns a `Learner`."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from latent_al.base import BadInput, Learner
from latent_al.fit import fit, in_blocks, keras_adadelta, keras_rmsprop, num_batches, start
from latent_al.models.convolutions import Convolution, conv
from latent_al.models.layers import check_halves, dense, drop, max_pool_2x

MARKS = 10
"""Points in a CNN's training at which its accuracy is noted."""

CNN_BLOCK = 256
"""Images that a CNN is applied to at a time."""


class MLP(nn.Module):
    """Hidden ReLU layers, with dropout after each where a rate is given, and a linear layer of logits."""

    hidden: Sequence[int]
    num_classes: int

    @nn.compact
    def __call__(self, inputs, dropout=None):
        x = inputs
        for units in self.hidden:
            x = nn.relu(dense(units)(x))
            if dropout is not None:
                x = drop(self.make_rng("dropout"), x, dropout)
        return x, dense(self.num_classes)(x)


class CNN(nn.Module):
    """Levels of 3x3 ReLU convolutions with max-pooling and dropout between them, a dense ReLU layer, then logits.

    Attributes:
        filters: of each level's convolutions.
        depth: convolutions a level.
        units: of the dense layer.
        num_classes: outputs.
    """

    filters: Sequence[int]
    depth: int
    units: int
    num_classes: int

    @nn.compact
    def __call__(self, images, dropout=None):
        x = images
        for level, features in enumerate(self.filters):
            if level:
                x = max_pool_2x(x)
                x = x if dropout is None else drop(self.make_rng("dropout"), x, dropout)
            for _ in range(self.depth):
                x = nn.relu(Convolution(conv, features, 3)(x))
        x = nn.relu(dense(self.units)(x.reshape(x.shape[0], math.prod(x.shape[1:]))))
        return x, dense(self.num_classes)(x)


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
    model, optimizer = MLP(tuple(hidden), num_classes), keras_rmsprop(learning_rate)

    def fit_mlp(key, rate, inputs, labels, rows, count, watched):
        del watched
        key_init, key_fit = jax.random.split(key)
        state = start(model.init(key_init, inputs[:1]), optimizer)
        # A single rate is a constant of the program, which then trains faster.
        rate = dropouts[0] if len(dropouts) == 1 else rate
        settings = dict(loss=_cross_entropy(model), optimizer=optimizer, batch=batch)
        settings["updates"] = epochs * num_batches(count, batch)
        state, loss = fit(key_fit, state, (inputs, labels), rows, count, rate, **settings)
        return state.params, {"loss": loss, "by_update": jnp.zeros(0)}

    return Learner(fit_mlp, in_blocks(_predictions(model)), dropouts)


def cnn(
    *,
    image_shape: tuple[int, int, int],
    filters: Sequence[int],
    depth: int,
    units: int,
    dropout: float,
    learning_rate: float,
    updates: int,
    batch: int,
    num_classes: int,
) -> Learner:
    """The convolutional judge of query selection by latent-space sampling, trained from scratch with Keras's Adadelta.

    It takes the same number of steps however many rows are labelled. There: filters (64, 32, 32), depth 2, 1,024 units,
    dropout 0.2, learning rate 0.1, batches of 64 and about 8,000 updates.

    Args:
        image_shape: (h, w, c), sides that halve evenly between levels.
        filters: of each level's convolutions.
        depth: convolutions a level.
        units: of the dense layer.
        dropout: share of units dropped between levels in training, in [0, 0.99].
        learning_rate: of Adadelta.
        updates: training steps, a multiple of 10.
        batch: images a step.
        num_classes: outputs of the softmax.

    Raises:
        BadInput: a size below 1, sides that do not halve, updates that are not a multiple of 10, a dropout or
            learning_rate outside its range.
    """
    if min(*filters, depth, units, batch) < 1 or not 0 <= dropout <= 0.99 or not learning_rate > 0:
        raise BadInput(
            f"cnn has filters {tuple(filters)}, depth {depth}, units {units}, batch {batch}, dropout {dropout} and "
            f"learning_rate {learning_rate}; expected sizes of 1 or more, dropout in [0, 0.99] and a positive "
            "learning_rate."
        )
    if updates < MARKS or updates % MARKS:
        raise BadInput(f"cnn has updates {updates}; expected a multiple of {MARKS}.")
    check_halves("cnn", image_shape, len(filters))
    model, optimizer = CNN(tuple(filters), depth, units, num_classes), keras_adadelta(learning_rate)
    predict = in_blocks(_predictions(model), CNN_BLOCK, alone=True)

    def fit_cnn(key, rate, inputs, labels, rows, count, watched):
        del rate
        key_init, key_fit = jax.random.split(key)
        settings = dict(loss=_cross_entropy(model), optimizer=optimizer, batch=batch, updates=updates // MARKS)

        def part(state, key):
            state, loss = fit(key, state, (inputs, labels), rows, count, dropout, alone=True, **settings)
            return state, (loss, (predict(state.params, watched[0])[1].argmax(axis=1) == watched[1]).mean())

        state = start(model.init(key_init, inputs[:1]), optimizer)
        state, (losses, accuracies) = jax.lax.scan(part, state, jax.random.split(key_fit, MARKS))
        return state.params, {"loss": losses[-1], "by_update": accuracies}

    marks = tuple(updates // MARKS * (mark + 1) for mark in range(MARKS))
    return Learner(fit_cnn, predict, (dropout,), marks)


ON_LATENTS = {"mlp": mlp}
ON_IMAGES = {"cnn": cnn}
CLASSIFIERS = ON_LATENTS | ON_IMAGES
"""Those on images take `image_shape` besides."""


def _cross_entropy(model):
    def loss(params, key, examples, rate):
        inputs, labels = examples
        _, logits = model.apply(params, inputs, rate, rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    return loss


def _predictions(model):
    def apply(params, inputs):
        features, logits = model.apply(params, inputs)
        return features, jax.nn.softmax(logits)

    return apply
