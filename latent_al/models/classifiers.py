"""Classifiers, and regressors of an angle, each a factory that returns a `Learner`."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from latent_al.models.convolutions import Convolution, conv
from latent_al.models.last_layer import refitted
from latent_al.models.layers import check_halves, dense, drop, max_pool_2x
from latent_al.models.resnet import resnet18
from latent_al.models.tasks import CNN_BLOCK, Task, angles, classes, draws, loss_of, predictions
from latent_al.models.train import fit, in_blocks, keras_adadelta, keras_rmsprop, num_batches, start
from latent_al.types import BadInput, Learner

MARKS = 10
"""Points in a CNN's training at which its accuracy is noted."""


class MLP(nn.Module):
    """Hidden ReLU layers, with dropout after each where a rate is given, and a linear layer of outputs."""

    hidden: Sequence[int]
    num_outputs: int

    @nn.compact
    def __call__(self, inputs, dropout=None):
        x = inputs
        for units in self.hidden:
            x = nn.relu(dense(units)(x))
            if dropout is not None:
                x = drop(self.make_rng("dropout"), x, dropout)
        return x, dense(self.num_outputs)(x)


class CNN(nn.Module):
    """Levels of 3x3 ReLU convolutions with max-pooling and dropout between them, a dense ReLU layer, then outputs.

    Attributes:
        filters: of each level's convolutions.
        depth: convolutions a level.
        units: of the dense layer.
        num_outputs: of the last layer.
    """

    filters: Sequence[int]
    depth: int
    units: int
    num_outputs: int

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
        return x, dense(self.num_outputs)(x)


def mlp(*, num_classes: int, **settings) -> Learner:
    """Returns the perceptron of Tonnaer (2017), section 4.2.2, as a classifier. Takes the settings of `perceptron`."""
    return perceptron(classes(num_classes), **settings)


def angle_mlp(**settings) -> Learner:
    """The perceptron of `mlp` as a regressor of angles. Takes the settings of `perceptron`."""
    return perceptron(angles(), **settings)


def cnn(*, num_classes: int, **settings) -> Learner:
    """Returns the judge of Killeen (2019), a classifier. Takes the settings of `convolutional`."""
    return convolutional(classes(num_classes), **settings)


def angle_cnn(**settings) -> Learner:
    """The network of `cnn` as a regressor of angles. Takes the settings of `convolutional`."""
    return convolutional(angles(), **settings)


def perceptron(
    task: Task,
    *,
    hidden: Sequence[int],
    dropout: float | Sequence[float],
    learning_rate: float,
    epochs: int,
    batch_size: int,
) -> Learner:
    """Returns the perceptron of Tonnaer (2017), section 4.2.2, trained from scratch at each fit with Keras's RMSprop.

    Args:
        task: what is learned.
        hidden: units of each hidden layer.
        dropout: share of units dropped in training, in [0, 0.99]; of several rates each becomes an arm of its own.
        learning_rate: step size of RMSprop.
        epochs: passes over the labelled rows.
        batch_size: rows a step.

    Raises:
        BadInput: a size below 1, or dropout outside [0, 0.99].
    """
    dropouts = (dropout,) if isinstance(dropout, (int, float)) else tuple(dropout)
    rates_fit = dropouts and all(0 <= rate <= 0.99 for rate in dropouts)
    if min(*hidden, epochs, batch_size) < 1 or not rates_fit or learning_rate <= 0:
        raise BadInput(
            f"the perceptron has hidden {tuple(hidden)}, epochs {epochs}, batch_size {batch_size}, dropout {dropout} "
            f"and learning_rate {learning_rate}; expected sizes of 1 or more, dropout in [0, 0.99] and a positive "
            "learning_rate."
        )
    model, optimizer = MLP(tuple(hidden), task.num_outputs), keras_rmsprop(learning_rate)

    def fit_mlp(key, rate, inputs, labels, rows, count, watched):
        del watched
        key_init, key_fit = jax.random.split(key)
        state = start(model.init(key_init, inputs[:1]), optimizer)
        # A single rate is a constant of the program, which then trains faster.
        rate = dropouts[0] if len(dropouts) == 1 else rate
        settings = dict(loss=loss_of(model, task), optimizer=optimizer, batch_size=batch_size)
        settings["num_steps"] = epochs * num_batches(count, batch_size)
        state, loss = fit(key_fit, state, (inputs, labels), rows, count, rate, **settings)
        return state.params, {"loss": loss, "by_update": jnp.zeros(0)}

    draw = draws(model, task) if min(dropouts) else None
    return Learner(fit_mlp, in_blocks(predictions(model, task)), draw, task.score, task.metric, dropouts)


def convolutional(
    task: Task,
    *,
    image_shape: tuple[int, int, int],
    filters: Sequence[int],
    depth: int,
    units: int,
    dropout: float,
    learning_rate: float,
    num_steps: int,
    batch_size: int,
) -> Learner:
    """Returns the network of the judge of Killeen (2019), trained from scratch with Keras's Adadelta.

    It takes the same number of steps however many rows are labelled. There: filters (64, 32, 32), depth 2, 1,024 units,
    dropout 0.2, learning rate 0.1, batches of 64 and about 8,000 steps.

    Args:
        task: what is learned.
        image_shape: (h, w, c), sides that halve evenly between levels.
        filters: of each level's convolutions.
        depth: convolutions a level.
        units: of the dense layer.
        dropout: share of units dropped between levels in training, in [0, 0.99].
        learning_rate: of Adadelta.
        num_steps: training steps, a multiple of 10.
        batch_size: images a step.

    Raises:
        BadInput: a size below 1, sides that do not halve, num_steps that are not a multiple of 10, a dropout or
            learning_rate outside its range.
    """
    if min(*filters, depth, units, batch_size) < 1 or not 0 <= dropout <= 0.99 or not learning_rate > 0:
        raise BadInput(
            f"the convolutional network has filters {tuple(filters)}, depth {depth}, units {units}, "
            f"batch_size {batch_size}, dropout {dropout} and learning_rate {learning_rate}; expected sizes "
            "of 1 or more, dropout in [0, 0.99] and a positive learning_rate."
        )
    if num_steps < MARKS or num_steps % MARKS:
        raise BadInput(f"the convolutional network has num_steps {num_steps}; expected a multiple of {MARKS}.")
    check_halves("the convolutional network", image_shape, len(filters))
    model, optimizer = CNN(tuple(filters), depth, units, task.num_outputs), keras_adadelta(learning_rate)
    predict = in_blocks(predictions(model, task), CNN_BLOCK, alone=True)

    def fit_cnn(key, rate, inputs, labels, rows, count, watched):
        del rate
        key_init, key_fit = jax.random.split(key)
        settings = dict(
            loss=loss_of(model, task), optimizer=optimizer, batch_size=batch_size, num_steps=num_steps // MARKS
        )

        def part(state, key):
            state, loss = fit(key, state, (inputs, labels), rows, count, dropout, alone=True, **settings)
            return state, (loss, task.score(predict(state.params, watched[0])[1], watched[1]).mean())

        state = start(model.init(key_init, inputs[:1]), optimizer)
        state, (losses, scores) = jax.lax.scan(part, state, jax.random.split(key_fit, MARKS))
        return state.params, {"loss": losses[-1], "by_update": scores}

    marks = tuple(num_steps // MARKS * (mark + 1) for mark in range(MARKS))
    draw = draws(model, task, CNN_BLOCK, alone=True) if dropout else None
    return Learner(fit_cnn, predict, draw, task.score, task.metric, (dropout,), marks)


CLASSIFIERS = {"cnn": cnn, "mlp": mlp, "refitted": refitted, "resnet18": resnet18}
"""They take `num_classes` besides."""
REGRESSORS = {"angle_cnn": angle_cnn, "angle_mlp": angle_mlp}
ON_IMAGES = ("angle_cnn", "cnn", "resnet18")
"""They take `image_shape` besides."""
