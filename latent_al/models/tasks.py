"""What classifiers and regressors learn, and the functions of a `Learner` made of a module and its task.

Such a module maps (inputs, dropout) to (features, outputs), and drops none where `dropout` is None.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from latent_al.models.train import Loss, in_blocks

CNN_BLOCK = 256
"""Images that a CNN is applied to at a time."""


class Task(NamedTuple):
    """What is learned.

    num_outputs: of the network's last layer.
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
    """To which of `num_classes` an input belongs: softmax, cross-entropy and accuracy in [0, 1]."""
    return Task(
        num_classes,
        optax.softmax_cross_entropy_with_integer_labels,
        jax.nn.softmax,
        lambda probs, labels: (probs.argmax(axis=1) == labels).astype(probs.dtype),
        "accuracy",
    )


def angles() -> Task:
    """An angle in degrees, by way of its cosine and sine, which have no jump at 360: their squared error.

    The error of an angle, in [0, 180], is that of the shorter way round.
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
    """What `fit` trains the model with; the context of the loss is the dropout."""

    def loss(params, key, examples, rate):
        inputs, labels = examples
        _, outputs = model.apply(params, inputs, rate, rngs={"dropout": key})
        return task.loss(outputs, labels)

    return loss


def draws(model: nn.Module, task: Task, *block, **settings) -> Callable:
    """`Learner.draw`, in blocks: predictions with dropout; each block of rows drops the same units."""

    def apply(drawn, inputs):
        params, key, rate = drawn
        features, outputs = model.apply(params, inputs, rate, rngs={"dropout": key})
        return features, task.read(outputs)

    blocked = in_blocks(apply, *block, **settings, aligned=True)
    return lambda params, key, rate, inputs: blocked((params, key, rate), inputs)


def predictions(model: nn.Module, task: Task) -> Callable:
    """(params, inputs) -> (features, predictions), of one block."""

    def apply(params, inputs):
        features, outputs = model.apply(params, inputs)
        return features, task.read(outputs)

    return apply
