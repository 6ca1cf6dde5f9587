"""Tasks of classifiers and regressors, and the functions of a `Learner` made of a module and its task.

Such a module maps (inputs, dropout) to (features, outputs), and drops nothing where `dropout` is None.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from latent_al.models.train import Loss, in_blocks
from latent_al.types import Scalar, accuracy, is_traced

CNN_BLOCK = 256
"""Images that a CNN is applied to at a time."""


class Task(NamedTuple):
    """A prediction task.

    Attributes:
        num_outputs: number of outputs of the network's last layer.
        loss: (outputs [b num_outputs], labels [b]) -> [b].
        read: outputs -> predictions, for `Learner.predict`.
        score: as in `Learner`.
        metric: as in `Learner`.
    """

    num_outputs: int
    loss: Callable
    read: Callable
    score: Callable
    metric: str


def classes(num_classes: int) -> Task:
    """Returns the task of distinguishing `num_classes` classes: softmax, cross-entropy and accuracy in [0, 1].

    Args:
        num_classes: two or more.
    """
    return Task(num_classes, optax.softmax_cross_entropy_with_integer_labels, jax.nn.softmax, accuracy, "accuracy")


def angles() -> Task:
    """Returns the task of predicting an angle in degrees by its cosine and sine, which have no jump at 360.

    The loss is their squared error. The error of an angle, in [0, 180], is that of the shorter way round.
    """

    def loss(outputs, labels):
        radians = jnp.radians(labels)
        return ((outputs - jnp.stack([jnp.cos(radians), jnp.sin(radians)], axis=1)) ** 2).sum(axis=1)

    def read(outputs):
        return jnp.degrees(jnp.arctan2(outputs[:, 1], outputs[:, 0])) % 360

    def error(predicted, labels):
        return jnp.abs((predicted - labels + 180) % 360 - 180)

    return Task(2, loss, read, error, "angular_error")


def loss_of(model: nn.Module, task: Task) -> Loss:
    """Returns the loss that `fit` trains the model with; its context is the dropout rate."""

    def loss(params, key, examples, rate):
        inputs, labels = examples
        _, outputs = model.apply(params, inputs, rate, rngs={"dropout": key})
        return task.loss(outputs, labels)

    return loss


def mc_dropout_of(model: nn.Module, task: Task, rate: Scalar, block: int, alone: bool = False) -> Callable | None:
    """Returns `Learner.mc_dropout`, or None where nothing is dropped; each block of rows drops the same units.

    Args:
        model: with dropout.
        task: what is predicted.
        rate: share of units dropped.
        block: rows that are predicted at a time.
        alone: as in `fit`.
    """
    if not is_traced(rate) and not rate:
        return None

    def apply(sampled, inputs):
        params, key, rate = sampled
        features, outputs = model.apply(params, inputs, rate, rngs={"dropout": key})
        return features, task.read(outputs)

    predict = in_blocks(apply, block, alone=alone, aligned=True)
    return lambda params, key, inputs: predict((params, key, rate), inputs)


def predictions(model: nn.Module, task: Task) -> Callable:
    """Returns a function of (params, inputs) that gives the features and the predictions of one block."""

    def apply(params, inputs):
        features, outputs = model.apply(params, inputs)
        return features, task.read(outputs)

    return apply
