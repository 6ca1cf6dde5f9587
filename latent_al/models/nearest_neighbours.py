"""The classifier of the k nearest labelled neighbours, on latents."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from latent_al.kernels._checks import as_real
from latent_al.models.train import in_blocks, labelled_slots
from latent_al.types import BadInput, Learner

BLOCK = 1024
"""Rows that are predicted at a time."""


class Neighbours(NamedTuple):
    """The params: the latents and classes of the labelled rows; empty slots are `UNLABELLED`."""

    latents: Float[Array, "capacity d"]
    labels: Int[Array, " capacity"]


def nearest_neighbours(*, num_classes: int, num_neighbours: int = 5) -> Learner:
    """Returns the classifier whose class probabilities are the shares of classes among the nearest labelled rows.

    The distance is Euclidean; among rows at the same distance, those labelled earlier count. While fewer rows than
    `num_neighbours` are labelled, all of them vote. There is nothing to train; the features are the latents.

    It takes O(n m d) time to predict n rows by m labelled ones, and O(m) memory per row of a block of 1,024.

    Args:
        num_classes: two or more.
        num_neighbours: neighbours that vote, one or more.

    Raises:
        BadInput: num_neighbours is below 1, or more than will ever be labelled.

    Source: Cover and Hart (1967).
    """
    if num_neighbours < 1:
        raise BadInput(f"num_neighbours is {num_neighbours}; expected one or more, such as 5.")

    def fit(key, inputs, labels, rows, count):
        del key
        if num_neighbours > rows.shape[0]:
            raise BadInput(
                f"num_neighbours is {num_neighbours}, but at most {rows.shape[0]} rows will be labelled; set fewer."
            )
        slots, labelled = labelled_slots(rows, labels, count)
        return Neighbours(as_real(inputs[slots]), labelled), {}

    def predict(params, inputs):
        centre = params.latents[0]
        labelled, points = params.latents - centre[None, :], inputs - centre[None, :]
        products = jnp.matmul(points, labelled.T, precision="highest")
        squares = (labelled**2).sum(axis=1)[None, :] - 2 * products
        closeness, nearest = jax.lax.top_k(jnp.where(params.labels[None, :] < 0, -jnp.inf, -squares), num_neighbours)
        votes = jnp.where((closeness > -jnp.inf)[:, :, None], jax.nn.one_hot(params.labels[nearest], num_classes), 0)
        return inputs, votes.sum(axis=1) / jnp.maximum(votes.sum(axis=(1, 2)), 1)[:, None]

    return Learner(fit, in_blocks(predict, BLOCK))
