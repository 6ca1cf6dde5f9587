"""Classifiers, and regressors of an angle, each a factory that returns a `Learner`."""

import math
from collections.abc import Callable, Sequence

import jax
from flax import linen as nn

from latent_al.models.convolutions import Convolution, conv
from latent_al.models.gaussian_process import gaussian_process
from latent_al.models.label_spreading import label_spreading
from latent_al.models.last_layer import refitted
from latent_al.models.layers import check_halves, dense, drop, max_pool_2x
from latent_al.models.logistic_regression import logistic_regression
from latent_al.models.nearest_neighbours import nearest_neighbours
from latent_al.models.resnet import resnet18
from latent_al.models.tasks import CNN_BLOCK, Task, angles, classes, loss_of, mc_dropout_of, predictions
from latent_al.models.train import (
    BLOCK,
    Objective,
    Subset,
    fit,
    in_blocks,
    keras_adadelta,
    keras_rmsprop,
    num_batches,
    start,
)
from latent_al.types import BadInput, Learner, Scalar, Spec, build, check_name, is_traced

NUM_PARTS = 10
"""The number of parts of a CNN's training; a monitor may look at it after each."""


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
        filters: number of filters in each level's convolutions.
        depth: convolutions per level.
        units: number of units in the dense layer.
        num_outputs: number of outputs of the last layer.
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
    """Returns the multilayer perceptron of Tonnaer (2017), section 4.2.2, as a classifier.

    Args:
        num_classes: two or more.
    """
    return perceptron(classes(num_classes), **settings)


def angle_mlp(**settings) -> Learner:
    """Returns the perceptron of `mlp` as a regressor of angles. Takes the settings of `perceptron`."""
    return perceptron(angles(), **settings)


def cnn(*, num_classes: int, **settings) -> Learner:
    """Returns the judge of Killeen (2019), a classifier. Takes the settings of `convolutional`.

    Args:
        num_classes: two or more.
    """
    return convolutional(classes(num_classes), **settings)


def angle_cnn(**settings) -> Learner:
    """Returns the network of `cnn` as a regressor of angles. Takes the settings of `convolutional`."""
    return convolutional(angles(), **settings)


def perceptron(
    task: Task,
    *,
    hidden: Sequence[int],
    dropout: Scalar,
    learning_rate: float,
    epochs: int,
    batch_size: int,
) -> Learner:
    """Returns the perceptron of Tonnaer (2017), section 4.2.2, trained from scratch at each fit with Keras's RMSprop.

    Args:
        task: what is learned.
        hidden: units of each hidden layer.
        dropout: share of units dropped in training, in [0, 0.99].
        learning_rate: step size of RMSprop.
        epochs: passes over the labelled rows.
        batch_size: rows per step.

    Raises:
        BadInput: a size below 1, or dropout outside [0, 0.99].
    """
    is_rate = is_traced(dropout) or 0 <= dropout <= 0.99
    if min(*hidden, epochs, batch_size) < 1 or not is_rate or learning_rate <= 0:
        raise BadInput(
            f"the perceptron has hidden {tuple(hidden)}, epochs {epochs}, batch_size {batch_size}, dropout {dropout} "
            f"and learning_rate {learning_rate}; expected sizes of 1 or more, dropout in [0, 0.99] and a positive "
            "learning_rate."
        )
    model, optimizer = MLP(tuple(hidden), task.num_outputs), keras_rmsprop(learning_rate)
    objective = Objective(loss_of(model, task), optimizer, batch_size)

    def fit_mlp(key, inputs, labels, rows, count):
        key_init, key_fit = jax.random.split(key)
        state = start(model.init(key_init, inputs[:1]), optimizer)
        num_steps = epochs * num_batches(count, batch_size)
        subset = Subset((inputs, labels), rows, count)
        state, loss = fit(key_fit, state, subset, dropout, objective=objective, num_steps=num_steps)
        return state.params, {"loss": loss}

    predict = in_blocks(predictions(model, task))
    mc_dropout = mc_dropout_of(model, task, dropout, BLOCK) if hidden else None
    return Learner(fit_mlp, predict, mc_dropout, task.score, task.metric)


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

    It takes the same number of steps however many rows are labelled. As published: filters (64, 32, 32), depth 2, 1,024
    units, dropout 0.2, learning rate 0.1, batches of 64 and 800 steps.

    Args:
        task: what is learned.
        image_shape: (h, w, c), sides that halve evenly between levels.
        filters: number of filters in each level's convolutions.
        depth: convolutions per level.
        units: number of units in the dense layer.
        dropout: share of units dropped between levels in training, in [0, 0.99].
        learning_rate: learning rate of Adadelta.
        num_steps: training steps, a multiple of 10.
        batch_size: images per step.

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
    if num_steps < NUM_PARTS or num_steps % NUM_PARTS:
        raise BadInput(f"the convolutional network has num_steps {num_steps}; expected a multiple of {NUM_PARTS}.")
    check_halves("the convolutional network", image_shape, len(filters))
    model, optimizer = CNN(tuple(filters), depth, units, task.num_outputs), keras_adadelta(learning_rate)
    objective = Objective(loss_of(model, task), optimizer, batch_size)
    fit_cnn = _fit_in_parts(model, objective, dropout, num_steps // NUM_PARTS)
    predict = in_blocks(predictions(model, task), CNN_BLOCK, alone=True)
    mc_dropout = mc_dropout_of(model, task, dropout, CNN_BLOCK, alone=True) if len(filters) > 1 else None
    return Learner(fit_cnn, predict, mc_dropout, task.score, task.metric)


def _fit_in_parts(model, objective, dropout, steps_in_part):
    def fit_cnn(key, inputs, labels, rows, count, monitor: Callable | None = None):
        """Trains; calls `monitor`, params -> values, after each of `NUM_PARTS` parts for `monitored`."""
        key_init, key_fit = jax.random.split(key)
        subset = Subset((inputs, labels), rows, count)

        def train_part(state, key):
            state, loss = fit(key, state, subset, dropout, objective=objective, num_steps=steps_in_part, alone=True)
            return state, (loss, monitor(state.params) if monitor else None)

        state = start(model.init(key_init, inputs[:1]), objective.optimizer)
        state, (losses, monitored) = jax.lax.scan(train_part, state, jax.random.split(key_fit, NUM_PARTS))
        return state.params, {"loss": losses[-1]} | ({"monitored": monitored} if monitor else {})

    return fit_cnn


CLASSIFIERS = {
    "cnn": cnn,
    "gaussian_process": gaussian_process,
    "label_spreading": label_spreading,
    "logistic_regression": logistic_regression,
    "mlp": mlp,
    "nearest_neighbours": nearest_neighbours,
    "refitted": refitted,
    "resnet18": resnet18,
}
"""Classifiers by name, each a factory that returns a `Learner`; they also take `num_classes`."""
REGRESSORS = {"angle_cnn": angle_cnn, "angle_mlp": angle_mlp}
"""Regressors of angles by name, each a factory that returns a `Learner`."""
ON_IMAGES = ("angle_cnn", "cnn", "resnet18")
"""Names of those that also take `image_shape`."""


def build_learner(spec: Spec, *, num_classes: int | None, image_shape: tuple[int, int, int] | None = None) -> Learner:
    """Builds the classifier or regressor that `spec` names, and the one within it.

    Args:
        spec: of an entry of `CLASSIFIERS` or `REGRESSORS`; a `classifier` in it is a spec too.
        num_classes: of the labels; None where these are angles.
        image_shape: (h, w, c) of the images; None where there are only latents to learn from.

    Raises:
        BadInput: an unknown name, one that cannot learn such labels or needs images, what the factory refuses.
    """
    name, has_angles = spec.get("name"), num_classes is None
    if name in (CLASSIFIERS if has_angles else REGRESSORS):
        labels, wanted = ("angles", REGRESSORS) if has_angles else (f"{num_classes} classes", CLASSIFIERS)
        raise BadInput(
            f"{name} cannot learn the labels of this data, which are {labels}; choose one of {', '.join(wanted)}, or "
            "other data."
        )
    table = CLASSIFIERS | REGRESSORS
    if image_shape is None:
        table = {name: make for name, make in CLASSIFIERS.items() if name not in ON_IMAGES}
        check_name(name, table, "classifier that reads latents")
    settings = dict(spec)
    if not has_angles:
        settings["num_classes"] = num_classes
    if name in ON_IMAGES:
        settings["image_shape"] = image_shape
    if "classifier" in spec:
        settings["classifier"] = build_learner(spec["classifier"], num_classes=num_classes, image_shape=image_shape)
    return build(table, settings, "classifier")


def reads_images(spec: Spec) -> bool:
    """Returns whether what `spec` names, or the one within it, learns from images rather than latents."""
    return reads_images(spec["classifier"]) if "classifier" in spec else spec.get("name") in ON_IMAGES
