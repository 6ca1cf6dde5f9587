"""Rows selected by their scores: each function returns exactly `num` distinct rows, none of them taken.

`taken [n]` is True for rows that may not be selected. Outside `jit` a pool with fewer than `num` rows left and a score
that is NaN are refused. Inside a caller's `jit` neither can be seen: there the caller makes sure that enough rows
remain, and NaN counts as the lowest score.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from latent_al.kernels import _sharding
from latent_al.kernels._checks import check_scores, check_weight
from latent_al.kernels.distances import squared_euclidean_to_point


class _Carry(NamedTuple):
    rows: Array
    blocked: Array
    nearest: Array


def top_k(scores: Float[Array, " n"], taken: Bool[Array, " n"], num: int) -> Int[Array, " num"]:
    """Selects the `num` rows of the highest scores, best first; ties go to the lowest row.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, or a score is NaN.
    """
    check_scores(scores, taken, num)
    return _sharding.top_k(_open_scores(scores, taken), num)[1]


def random_partitions(
    key: PRNGKeyArray, scores: Float[Array, " n"], taken: Bool[Array, " n"], num: int
) -> Int[Array, " num"]:
    """Selects the best row of each of `num` random partitions of the rows left; part sizes differ by at most one.

    Ties within a part are broken at random. Source: Tonnaer (2017), section 3.4.3.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, or a score is NaN.
    """
    check_scores(scores, taken, num)
    base, longer = jnp.divmod(taken.shape[0] - taken.sum(), num)
    part = jnp.arange(num)
    # Draws are below zero, so that rows of padding come last, as do rows that are taken.
    draws = jnp.where(taken, -jnp.inf, -jax.random.uniform(key, taken.shape))
    return _sharding.best_of_parts(_open_scores(scores, taken), draws, part * base + jnp.minimum(part, longer))


def greedy_diverse(
    scores: Float[Array, " n"],
    points: PyTree[Float[Array, "n d"]],
    taken: Bool[Array, " n"],
    num: int,
    *,
    distance: Callable[[PyTree, PyTree], Float[Array, " n"]],
    weight: Float[Array, ""] | float,
) -> Int[Array, " num"]:
    """Selects the best row, then row by row the largest `score + weight * distance to the rows selected so far`.

    The distance to a set is that to its nearest member. Ties go to the lowest row. O(num n d) time, O(n d) memory.
    Source: Tonnaer (2017), section 3.4.3, where the score is alpha * uncertainty + beta * representativeness and
    `weight` (1 - alpha - beta) over the largest distance.

    Args:
        points: what `distance` takes, such as an array [n d], or a pair (mu, log_sigma).
        distance: from all rows to one point, such as `distances.euclidean_to_point`.
        weight: of the distance, 0 or more; may be traced.

    Raises:
        ValueError: `num` is not in [1, rows left], scores, taken and points differ in length, a score is NaN, the
            weight is negative or not finite.
    """
    check_scores(scores, taken, num)
    sizes = [len(leaf) for leaf in jax.tree.leaves(points)]
    if set(sizes) != {len(scores)}:
        raise ValueError(f"points have {sizes} rows but scores {len(scores)}.")
    check_weight(weight)
    return _greedy_diverse(scores, points, taken, num, distance, weight)


def nearest_to(
    points: Float[Array, "n d"], taken: Bool[Array, " n"], *, targets: Float[Array, "num d"]
) -> Int[Array, " num"]:
    """Selects for one target after the other the nearest row left, by Euclidean distance; ties go to the lowest row.

    Raises:
        ValueError: there are more targets than rows left, the shapes differ, a coordinate is NaN.
    """
    check_scores(points.sum(axis=1), taken, len(targets))
    return _nearest_to(points, taken, targets)


def subsample(key: PRNGKeyArray, taken: Bool[Array, " n"], *, fraction: float) -> Bool[Array, " n"]:
    """Marks all rows but a random `fraction` of the pool as taken.

    `subsample_size(n, fraction)` rows stay open, or all that are left where fewer are.

    Args:
        fraction: share of all n rows, in (0, 1].

    Raises:
        ValueError: `fraction` is outside (0, 1].
    """
    draws = jnp.where(taken, -1.0, jax.random.uniform(key, taken.shape))
    return taken | ~_sharding.top_k_mask(draws, subsample_size(taken.shape[0], fraction))


def subsample_size(num_rows: int, fraction: float) -> int:
    """Returns the number of rows that `subsample` leaves open in a pool of `num_rows` rows: at least one.

    Raises:
        ValueError: `fraction` is outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}; expected a share of the pool in (0, 1].")
    return max(1, round(fraction * num_rows))


@partial(jax.jit, static_argnums=(3, 4))
def _greedy_diverse(scores, points, taken, num, distance, weight):
    def select(index, carry):
        gains = jnp.where(index == 0, scores, scores + weight * carry.nearest)
        row = _open_scores(gains, carry.blocked).argmax()
        to_row = distance(points, jax.tree.map(lambda leaf: _sharding.take_row(leaf, row), points))
        rows = carry.rows.at[index].set(row)
        return _Carry(rows, carry.blocked.at[row].set(True), jnp.minimum(carry.nearest, to_row))

    nearest = jnp.full_like(scores, jnp.finfo(scores.dtype).max)
    return jax.lax.fori_loop(0, num, select, _Carry(jnp.zeros(num, jnp.int32), taken, nearest)).rows


@jax.jit
def _nearest_to(points, taken, targets):
    def select(blocked, target):
        row = _open_scores(-squared_euclidean_to_point(points, target), blocked).argmax().astype(jnp.int32)
        return blocked.at[row].set(True), row

    return jax.lax.scan(select, taken, targets)[1]


def _open_scores(scores, taken):
    lowest = jnp.finfo(scores.dtype).min
    return jnp.where(taken, -jnp.inf, jnp.nan_to_num(scores, nan=lowest, neginf=lowest, posinf=jnp.inf))
