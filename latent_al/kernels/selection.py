"""From scores to rows: each pick returns exactly `num` distinct rows, none of them taken.

`taken [n]` is True for rows that may not be picked. Outside `jit` a pick refuses a pool with fewer than `num` rows left
and a score that is not a number. Inside a caller's `jit` neither can be seen: there the caller makes sure that enough
rows remain, and NaN counts as the lowest score.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from latent_al.kernels import _sharding
from latent_al.kernels.distances import squared_euclidean_to_point


def top_k(score: Float[Array, " n"], taken: Bool[Array, " n"], num: int) -> Int[Array, " num"]:
    """The `num` rows of the highest score, best first; ties go to the lowest row.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, or a score is NaN.
    """
    _check(score, taken, num)
    return _sharding.top_k(_open_scores(score, taken), num)[1]


def random_partitions(
    key: PRNGKeyArray, score: Float[Array, " n"], taken: Bool[Array, " n"], num: int
) -> Int[Array, " num"]:
    """The best row of each of `num` random partitions of the rows left; part sizes differ by at most one.

    Ties within a part are broken at random. Source: the thesis on active learning in VAE latent space, section 3.4.3.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, or a score is NaN.
    """
    _check(score, taken, num)
    base, longer = jnp.divmod(taken.shape[0] - taken.sum(), num)
    part = jnp.arange(num)
    # Below zero, so that what fills up the last shard comes last, as does what is taken.
    draws = jnp.where(taken, -jnp.inf, -jax.random.uniform(key, taken.shape))
    return _sharding.best_of_parts(_open_scores(score, taken), draws, part * base + jnp.minimum(part, longer))


def greedy_diverse(
    score: Float[Array, " n"],
    points: PyTree[Float[Array, "n d"]],
    taken: Bool[Array, " n"],
    num: int,
    *,
    distance: Callable[[PyTree, PyTree], Float[Array, " n"]],
    weight: Float[Array, ""] | float,
) -> Int[Array, " num"]:
    """The best row by `score`, then row by row the largest `score + weight * distance to the rows picked so far`.

    The distance to a set is that to its nearest member. Ties go to the lowest row. O(num n d) time, O(n d) memory.
    Source: the thesis on active learning in VAE latent space, section 3.4.3, where `score` is
    alpha * uncertainty + beta * representativeness and `weight` (1 - alpha - beta) over the largest distance.

    Args:
        points: what `distance` takes, such as an array [n d], or a pair (mu, log_sigma).
        distance: distances [n] from all rows to one point, such as `distances.euclidean_to_point`.
        weight: of the distance, 0 or more.

    Raises:
        ValueError: `num` is not in [1, rows left], score, taken and points differ in length, a score is NaN, the weight
            is negative or not finite.
    """
    _check(score, taken, num)
    if {len(each) for each in jax.tree.leaves(points)} != {len(score)}:
        raise ValueError(f"points have {[len(each) for each in jax.tree.leaves(points)]} rows but score {len(score)}.")
    if not isinstance(weight, jax.core.Tracer) and not 0 <= (known := float(jax.device_get(weight))) < float("inf"):
        raise ValueError(f"weight is {known}; expected 0 or more, and finite: look for a scale of 0 or NaN.")
    return _greedy_diverse(score, points, taken, num, distance, weight)


@partial(jax.jit, static_argnums=(3, 4))
def _greedy_diverse(score, points, taken, num, distance, weight):
    def pick(index, carry):
        rows, blocked, nearest = carry
        gain = jnp.where(index == 0, score, score + weight * nearest)
        row = _open_scores(gain, blocked).argmax()
        to_row = distance(points, jax.tree.map(lambda each: _sharding.take_row(each, row), points))
        return rows.at[index].set(row), blocked.at[row].set(True), jnp.minimum(nearest, to_row)

    nearest = jnp.full_like(score, jnp.finfo(score.dtype).max)
    return jax.lax.fori_loop(0, num, pick, (jnp.zeros(num, jnp.int32), taken, nearest))[0]


def nearest_to(
    targets: Float[Array, "num d"], points: Float[Array, "n d"], taken: Bool[Array, " n"]
) -> Int[Array, " num"]:
    """For one target after the other the nearest row left, by Euclidean distance; ties go to the lowest row.

    Raises:
        ValueError: there are more targets than rows left, the shapes differ, a coordinate is NaN.
    """
    _check(points.sum(axis=1), taken, len(targets))
    return _nearest_to(targets, points, taken)


@jax.jit
def _nearest_to(targets, points, taken):
    def pick(blocked, target):
        row = _open_scores(-squared_euclidean_to_point(points, target), blocked).argmax().astype(jnp.int32)
        return blocked.at[row].set(True), row

    return jax.lax.scan(pick, taken, targets)[1]


def subsample(key: PRNGKeyArray, taken: Bool[Array, " n"], fraction: float) -> Bool[Array, " n"]:
    """Marks all rows but a random `fraction` of the pool as taken, so that a pick sees the subsample only.

    The subsample has `subsample_size(n, fraction)` rows, or all that are left where fewer are.

    Args:
        fraction: share of all n rows, in (0, 1].

    Raises:
        ValueError: `fraction` is outside (0, 1].
    """
    draw = jnp.where(taken, -1.0, jax.random.uniform(key, taken.shape))
    return taken | ~_sharding.top_k_mask(draw, subsample_size(taken.shape[0], fraction))


def subsample_size(size: int, fraction: float) -> int:
    """The number of rows that `subsample` leaves open in a pool of `size` rows: at least one.

    Raises:
        ValueError: `fraction` is outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}; expected a share of the pool in (0, 1].")
    return max(1, round(fraction * size))


def check_left(taken: Bool[Array, " n"], num: int) -> None:
    """Raises ValueError where `num` is not in [1, rows left]."""
    if not 1 <= num <= taken.shape[0]:
        raise ValueError(f"num is {num}; expected at least 1 and at most the {taken.shape[0]} rows of the pool.")
    # What is known is looked at in NumPy, since a `jnp` sum of a known array is unknown inside a caller's `jit`.
    if not isinstance(taken, jax.core.Tracer) and num > (left := (~jax.device_get(taken)).sum()):
        raise ValueError(f"{num} rows asked for but only {left} of {taken.shape[0]} are left; ask for fewer.")


def _open_scores(score, taken):
    lowest = jnp.finfo(score.dtype).min
    return jnp.where(taken, -jnp.inf, jnp.nan_to_num(score, nan=lowest, neginf=lowest, posinf=jnp.inf))


def _check(score, taken, num):
    if score.shape != taken.shape or taken.ndim != 1:
        raise ValueError(f"score has shape {score.shape} and taken {taken.shape}; expected one of each a row.")
    check_left(taken, num)
    if not isinstance(score, jax.core.Tracer):
        known = jax.device_get(score)
        if num_nan := (known != known).sum():
            raise ValueError(f"{num_nan} of {score.shape[0]} scores are NaN; look for NaN in what they were made from.")
