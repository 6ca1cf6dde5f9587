"""Label spreading: semi-supervised classification of latents on a graph of the whole pool, in closed form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float, Int

from latent_al.kernels._checks import as_real
from latent_al.kernels._sharding import num_shards, replicate, segment_sum
from latent_al.kernels.clustering import kmeans
from latent_al.models.train import in_blocks, labelled_slots
from latent_al.types import BadInput, Learner

BLOCK = 1024
"""Rows whose nearest anchors are searched at a time."""
SAMPLE = 10
"""Evenly spaced rows of the pool for each anchor, from which k-means places the anchors."""
ITERATIONS = 10
"""The maximum number of k-means iterations."""


class Spread(NamedTuple):
    """The params: the anchors, and the mass of each class that reaches them."""

    anchors: Float[Array, "m d"]
    masses: Float[Array, "m c"]


class Links(NamedTuple):
    """The nearest anchors of each row, and the weights of the links to them, which sum to 1."""

    anchors: Int[Array, "n k"]
    weights: Float[Array, "n k"]


def label_spreading(
    *, num_classes: int, num_anchors: int = 1000, num_neighbours: int = 3, alpha: float = 0.99
) -> Learner:
    """Returns label spreading over the whole pool, whose unlabelled rows show where the classes lie.

    Each row is linked to its `num_neighbours` nearest anchors, which are the centres of k-means on the pool. A link
    weighs exp(-d^2 / s^2) for the distance d to the anchor and the distance s to the farthest of them, divided by the
    sum over the row's links. Two rows are as similar as their links through common anchors: with the links Z [n m] and
    their column sums on the diagonal of L, the similarities are S = Z L^-1 Z', whose rows sum to 1. The labels Y spread
    to (I - alpha S)^-1 Y; what a row receives of this from S, divided by the sum, is its probability of each class. The
    same links predict rows outside the pool. Where no label reaches, all classes are equally probable.

    S has rank m, so that the solution takes one m x m system, O(n m d + m^3) time and O(n + m^2) memory. The graph does
    not depend on the labels: it is rebuilt in each round, but once for all seeds. Nothing in it is random. The features
    are the latents.

    The mass of a class over the pool is as large as its share of the labels. If a strategy selects more rows of one
    class than of another, the former is predicted too often.

    Args:
        num_classes: two or more.
        num_anchors: number of anchors in the graph; a smaller pool has an anchor for each row.
        num_neighbours: anchors that a row is linked to, from 1 to num_anchors.
        alpha: share that a row takes from similar rows, in (0, 1); the rest is its label.

    Raises:
        BadInput: num_neighbours is below 1, or above num_anchors or the rows of the pool; alpha is outside (0, 1).

    Source: Zhou, Bousquet, Lal, Weston and Schölkopf (2004); the anchors: Liu, He and Chang (2010).
    """
    if not 1 <= num_neighbours <= num_anchors:
        raise BadInput(
            f"num_neighbours is {num_neighbours}; expected 1 to num_anchors, which is {num_anchors}: set fewer, or "
            "more anchors."
        )
    if not 0 < alpha < 1:
        raise BadInput(f"alpha is {alpha}; expected a share in (0, 1), such as 0.99.")

    def fit(key, inputs, labels, rows, count):
        del key
        inputs, size = as_real(inputs), labels.shape[0]
        if num_neighbours > size:
            raise BadInput(f"num_neighbours is {num_neighbours}, but the pool has {size} rows; set fewer.")
        anchors = place_anchors(inputs, min(num_anchors, size))
        links = link(inputs, anchors, num_neighbours)
        slots, labelled = labelled_slots(rows, labels, count)
        targets = jax.nn.one_hot(labelled, num_classes, dtype=inputs.dtype)  # Zeros without a label.
        shares = links.weights[slots][:, :, None] * targets[:, None, :]
        sources = jnp.zeros((len(anchors), num_classes), inputs.dtype).at[links.anchors[slots]].add(shares)
        return Spread(anchors, spread(links, sources, alpha)), {}

    def predict(params, inputs):
        links = _link(inputs, params.anchors, num_neighbours)
        received = (links.weights[:, :, None] * params.masses[links.anchors]).sum(axis=1)
        total = received.sum(axis=1, keepdims=True)
        return inputs, jnp.where(total > 0, received / jnp.where(total > 0, total, 1), 1 / num_classes)

    return Learner(fit, in_blocks(predict, BLOCK), reads_pool=True)


def place_anchors(inputs: Float[Array, "n d"], num: int) -> Float[Array, "num d"]:
    """Returns the centres of k-means on `SAMPLE` rows for each of them."""
    size = inputs.shape[0]
    num_sampled = min(size, SAMPLE * num)
    sample = inputs[np.arange(num_sampled) * size // num_sampled]
    if num_shards() > 1:
        sample = replicate(sample)
    return kmeans(jax.random.key(0), sample, num, iterations=ITERATIONS).centres


def link(inputs: Float[Array, "n d"], anchors: Float[Array, "m d"], num_neighbours: int) -> Links:
    """Returns the links of all rows to their nearest anchors."""
    search = in_blocks(lambda anchors, some: _link(some, anchors, num_neighbours), BLOCK)
    return search(anchors, inputs)


def spread(links: Links, sources: Float[Array, "m c"], alpha: float) -> Float[Array, "m c"]:
    """Returns the mass of each class at the anchors, for the labels' links to them, `sources`.

    By Woodbury's identity (I - alpha Z L^-1 Z')^-1 Y = Y + alpha Z (L - alpha Z'Z)^-1 Z'Y.
    """
    num = len(sources)
    sums = segment_sum(links.weights.reshape(-1), links.anchors.reshape(-1), num)
    products = links.weights[:, :, None] * links.weights[:, None, :]
    pairs = links.anchors[:, :, None] * num + links.anchors[:, None, :]
    common = segment_sum(products.reshape(-1), pairs.reshape(-1), num * num).reshape(num, num)
    # With this scaling the eigenvalues lie in [1 - alpha, 1].
    scale = jnp.where(sums > 0, jax.lax.rsqrt(jnp.where(sums > 0, sums, 1)), 0)
    system = jnp.eye(num, dtype=sources.dtype) - alpha * scale[:, None] * common * scale[None, :]
    return scale[:, None] * cho_solve(cho_factor(system, lower=True), scale[:, None] * sources)


def _link(inputs, anchors, num_neighbours):
    centre = anchors[0]
    points, anchors = inputs - centre[None, :], anchors - centre[None, :]
    products = jnp.matmul(points, anchors.T, precision="highest")
    closeness, nearest = jax.lax.top_k(2 * products - (anchors**2).sum(axis=1)[None, :], num_neighbours)
    squares = jnp.maximum((points**2).sum(axis=1)[:, None] - closeness, 0)
    widest = squares[:, -1:]
    weights = jnp.exp(-squares / jnp.where(widest > 0, widest, 1))
    return Links(nearest, weights / weights.sum(axis=1, keepdims=True))
