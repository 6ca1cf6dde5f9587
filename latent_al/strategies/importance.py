"""Importance-based active learning (IBAL), with the distance to what is labelled.

Importance is divided by its largest absolute value over the rows left, and the distance of each row to the nearest
labelled one, in latent space, by its largest: only then does a weight between them mean anything. The weight l2 of the
last layer and the number of labels are factors of importance alone, and cancel.

Equation 2 can be read in more than one way, and two settings choose between the readings. With p_iy the probability of
class y and f_i the features of row i, its importance is sum_y p_iy (1 - p_iy) (f_i . F_y). As `targets` says, F_y sums
the features of all labelled rows, or only of those of class y. With `centred` the mean features of the rows left are
first subtracted from all features, so that their products have both signs even where a ReLU gives the features.

Source: Pezeshkpour, Zhao and Singh (2020).
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_al import kernels
from latent_al.kernels._checks import as_real
from latent_al.kernels._sharding import blockwise_sum, take_row
from latent_al.kernels.distances import squared_euclidean_to_point
from latent_al.strategies.uncertainty import features_of, measured, probs_of
from latent_al.types import UNLABELLED, BadInput, Pool, Scalar, Strategy, check_name, is_traced

TARGETS = ("all", "same_class")
"""The labelled rows that count in the value of a row for class y: all, or those of class y."""


def ibal(*, targets: str = "all", centred: bool = False) -> Strategy:
    """Selects rows with the smallest importance: their labels would disagree most with what is labelled.

    Meant for a classifier whose last layer is `refitted`. A round takes O(n (c + f)) time and O(n f) memory for n rows,
    c classes and f features; with same_class O(n c f) and O(n (c + f)).

    Args:
        targets: `all`, or `same_class`, so that only labelled rows of class y count in the value for class y.
        centred: whether the mean features of the rows left are subtracted from all features.

    Raises:
        BadInput: other targets, or a pool without predictions.
    """
    check_name(targets, TARGETS, "targets of importance")

    def query(key, pool, num):
        del key
        return kernels.top_k(-normalised_importance(pool, targets, centred), pool.taken, num)

    return Strategy(query)


def ibal_d(*, gamma: Scalar, targets: str = "all", centred: bool = False) -> Strategy:
    """Selects rows with the smallest importance - gamma * distance.

    A round takes the time and the memory of `ibal`, and O(n d) time for each new label.

    Args:
        gamma: weight of the distance, 0 or more.
        targets: as in `ibal`.
        centred: as in `ibal`.

    Raises:
        BadInput: a negative gamma, other targets, or a pool without predictions.
    """
    check_name(targets, TARGETS, "targets of importance")
    return _with_distance("ibal_d", gamma, lambda pool: -normalised_importance(pool, targets, centred))


def entropy_d(*, gamma: Scalar) -> Strategy:
    """Selects rows with the largest entropy + gamma * distance.

    A round takes O(n c) time, O(n d) for each new label, and O(n) memory.

    Args:
        gamma: weight of the distance, 0 or more.

    Raises:
        BadInput: a negative gamma, a pool without predictions.
    """
    return _with_distance("entropy_d", gamma, lambda pool: measured("entropy", pool))


def distance() -> Strategy:
    """Selects the rows farthest, in latent space, from all labelled rows; the rows of one batch may lie together.

    A round takes O(n) time, O(n d) for each new label, and O(n) memory.

    Raises:
        BadInput: an initial labelled set, as there is nothing labelled to be distant from.
    """

    def query(key, pool, num):
        del key
        return kernels.top_k(_normalised_distance(pool), pool.taken, num)

    return Strategy(query, _infinite_distances, _add_row, {"distinct": "distance"})


def normalised_importance(pool: Pool, targets: str = "all", centred: bool = False) -> Float[Array, " n"]:
    """Returns importance divided by its largest absolute value among the rows left, for which it is in [-1, 1].

    Args:
        pool: with predictions.
        targets: as in `ibal`.
        centred: as in `ibal`.

    Raises:
        BadInput: a pool without predictions.
    """
    probs, features = probs_of("importance", pool), features_of("importance", pool)
    if centred:
        features = features - _mean_of_rows_left(features, pool)[None, :]
    if targets == "all":
        is_labelled = (pool.labels != UNLABELLED).astype(features.dtype)
        labelled_sum = blockwise_sum(lambda block: jnp.einsum("lb,lbf->lf", *block), (is_labelled, features))
        values = kernels.importance(probs, features, labelled_sum=labelled_sum, num_labelled=1, l2=0.5)
    else:
        is_of_class = jax.nn.one_hot(pool.labels, probs.shape[1], dtype=features.dtype)
        class_sums = blockwise_sum(lambda block: jnp.einsum("lbc,lbf->lcf", *block), (is_of_class, features))
        values = (probs * (1 - probs) * (features @ class_sums.T)).sum(axis=1)
    return _over_largest(values, pool)


def _mean_of_rows_left(features, pool):
    is_left = (~pool.taken).astype(features.dtype)
    total = blockwise_sum(lambda block: jnp.einsum("lb,lbf->lf", *block), (is_left, features))
    return total / jnp.maximum(is_left.sum(), 1)


def _with_distance(name, gamma, score):
    if not is_traced(gamma) and not 0 <= gamma < math.inf:
        raise BadInput(f"{name} has gamma {gamma}; expected a weight of 0 or more.")

    def query(key, pool, num):
        del key
        return kernels.top_k(score(pool) + gamma * _normalised_distance(pool), pool.taken, num)

    return Strategy(query, _infinite_distances, _add_row, {"distinct": name})


def _infinite_distances(encoded):
    """Returns the squared distances to what is labelled as long as nothing is: all infinite."""
    return jnp.full_like(as_real(encoded.latents[:, 0]), jnp.inf)


def _add_row(sq_distances, encoded, row):
    return jnp.minimum(sq_distances, squared_euclidean_to_point(encoded.latents, take_row(encoded.latents, row)))


def _normalised_distance(pool):
    if pool.features is None and pool.probs is None:
        raise BadInput(
            "there is nothing labelled to be distant from when the initial labelled set is queried; set config.initial "
            "to another strategy, such as farthest_first."
        )
    sq_distances = pool.gather(pool.prepared)
    return _over_largest(jnp.sqrt(jnp.where(jnp.isinf(sq_distances), 0, sq_distances)), pool)


def _over_largest(values, pool):
    largest = jnp.where(pool.taken, 0, jnp.abs(values)).max()
    return values / jnp.where(largest > 0, largest, 1)
