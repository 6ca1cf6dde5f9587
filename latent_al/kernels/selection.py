"""Rows selected by their scores: `num` distinct rows, none of them taken.

`taken [n]` is True for rows that may not be selected. Outside `jit` a pool with fewer than `num` rows left and a score
that is NaN are refused. Inside a caller's `jit` neither can be seen: n then stands for each missing row, after all that
are left, and NaN counts as the lowest score. Rows are int32: a pool has fewer than 2**31.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from latent_al.kernels import _sharding
from latent_al.kernels._checks import NOT_NAN, is_concrete
from latent_al.kernels._conditions import CLUSTERS, NOT_NEGATIVE, ROWS_LEFT, WEIGHT, check_num
from latent_al.kernels._kernel import compiled, is_traced_here, kernel
from latent_al.kernels._loops import fori_loop, scan
from latent_al.kernels._partitions import best_of_parts
from latent_al.kernels.distances import squared_euclidean_to_point


class _Carry(NamedTuple):
    rows: Int[Array, " num"]
    blocked: Bool[Array, " n"]
    nearest: Float[Array, " n"]


class _Step(NamedTuple):
    carry: _Carry
    point: PyTree[Float[Array, " d"]]


@kernel(scores=NOT_NAN, taken=ROWS_LEFT)
def top_k(scores: Float[Array, " n"], taken: Bool[Array, " n"], num: int) -> Int[Array, " num"]:
    """Selects the `num` rows with the highest scores, best first; ties go to the lowest row.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, or a score is NaN.
    """
    check_num(num, len(taken))
    values, rows = _sharding.top_k(_open_scores(scores, taken), num)
    return jnp.where(values == -jnp.inf, len(taken), rows)


@kernel(scores=NOT_NAN, taken=ROWS_LEFT)
def random_partitions(
    key: PRNGKeyArray, scores: Float[Array, " n"], taken: Bool[Array, " n"], num: int
) -> Int[Array, " num"]:
    """Selects the best row of each of `num` random partitions of the rows left; part sizes differ by at most one.

    Ties within a part are broken at random. Source: Tonnaer (2017), section 3.4.3.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, or a score is NaN.
    """
    check_num(num, len(taken))
    left = len(taken) - taken.sum()
    base, longer = jnp.divmod(left, num)
    part = jnp.arange(num)
    # Draws are below zero, so that rows of padding come last, as do rows that are taken.
    draws = jnp.where(taken, -jnp.inf, -jax.random.uniform(key, taken.shape))
    rows = best_of_parts(_open_scores(scores, taken), draws, part * base + jnp.minimum(part, longer))
    return jnp.where(part < left, rows, len(taken))


@kernel(scores=NOT_NEGATIVE, taken=ROWS_LEFT, beta=WEIGHT)
def power_top_k(
    key: PRNGKeyArray,
    scores: Float[Array, " n"],
    taken: Bool[Array, " n"],
    num: int,
    *,
    beta: Float[Array, ""] | float,
) -> Int[Array, " num"]:
    """Draws rows without replacement in proportion to score ** beta, in the order in which they are drawn.

    They are the `top_k` of beta * log(score) plus independent standard Gumbel noise. Rows of score 0 come after all
    others, by row; where beta is 0, all rows are equally likely. Inside a caller's `jit` a negative score counts as 0.
    O(n) time and memory. Source: Kirsch, Farquhar, Atighehchian, Jesson, Branchaud-Charron and Gal, Stochastic Batch
    Acquisition, 2021.

    Args:
        beta: 0 or more; larger values come closer to `top_k`; 1 in the source; may be traced.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, a score is NaN or negative, beta is negative or
            not finite.
    """
    return top_k(xlogy(beta, scores) + jax.random.gumbel(key, scores.shape, scores.dtype), taken, num)


@kernel(scores=NOT_NAN, taken=ROWS_LEFT, beta=WEIGHT)
def softmax_top_k(
    key: PRNGKeyArray,
    scores: Float[Array, " n"],
    taken: Bool[Array, " n"],
    num: int,
    *,
    beta: Float[Array, ""] | float,
) -> Int[Array, " num"]:
    """Draws rows without replacement in proportion to exp(beta * score), in the order in which they are drawn.

    They are the `top_k` of beta * score plus independent standard Gumbel noise. O(n) time and memory. Source: Kirsch,
    Farquhar, Atighehchian, Jesson, Branchaud-Charron and Gal, Stochastic Batch Acquisition, 2021.

    Args:
        beta: 0 or more; larger values come closer to `top_k`, and 0 draws uniformly; 1 in the source; may be traced.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, a score is NaN, beta is negative or not finite.
    """
    weighted = jnp.where(beta == 0, 0, beta * scores)
    return top_k(weighted + jax.random.gumbel(key, scores.shape, scores.dtype), taken, num)


@kernel(scores=NOT_NAN, taken=ROWS_LEFT, clusters=CLUSTERS)
def cluster_margin(
    key: PRNGKeyArray,
    scores: Float[Array, " n"],
    taken: Bool[Array, " n"],
    num: int,
    *,
    clusters: Int[Array, " n"],
    num_clusters: int,
    num_candidates: int,
) -> Int[Array, " num"]:
    """Selects among the rows with the highest scores, one row from each of their clusters in turn.

    The candidates are the `top_k` by score. Their clusters take turns, those with the fewest candidates first, then the
    lowest: in its turn a cluster gives one of the candidates that it has left, at random, until `num` are selected.
    Inside a caller's `jit` rows of clusters outside the range are not selected, and n stands for each missing row.
    O(n + m log m + k) time, where m is the number of candidates and k that of clusters, and O(n + k) memory.

    Source: Citovsky, DeSalvo, Gentile, Karydas, Rajagopalan, Rostamizadeh and Kumar, Batch Active Learning at Scale,
    2021.

    Args:
        scores: higher where the classifier is less sure: `margin` in the source.
        clusters: cluster assignments, in [0, num_clusters).
        num_clusters: number of clusters, including empty ones.
        num_candidates: `num` or more; all rows left where there are fewer.

    Raises:
        ValueError: `num` is not in [1, rows left], there are fewer candidates than that, the shapes differ, a cluster
            is outside the range, or a score is NaN.
    """
    check_num(num, len(taken))
    if num_candidates < num:
        raise ValueError(f"num_candidates is {num_candidates}; expected at least the {num} rows asked for.")
    is_in_range = (clusters >= 0) & (clusters < num_clusters)
    rows = top_k(scores, taken | ~is_in_range, min(num_candidates, len(taken)))
    is_row = rows < len(taken)
    of_rows = jnp.where(is_row, clusters.at[rows].get(mode="fill"), num_clusters)
    sizes = jnp.zeros(num_clusters + 1, jnp.int32).at[of_rows].add(1)
    turns = _turns(key, of_rows)
    places = jnp.lexsort((of_rows, sizes[of_rows], turns, ~is_row))[:num]
    return rows[places]


@kernel(is_compiled=False, scores=NOT_NAN, taken=ROWS_LEFT, weight=WEIGHT)
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
    `weight` is (1 - alpha - beta) over the largest distance.

    Args:
        points: what `distance` takes, such as an array [n d], or a pair (mu, log_sigma).
        distance: from all rows to one point, such as `distances.euclidean_to_point`. Outside `jit` a closure is called
            for one row after the other, and so is a function defined in a script or notebook, whose globals may change.
            One that can be imported is compiled with the loop, and reads its module's globals once.
        weight: of the distance, 0 or more; may be traced.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, a score or a distance is NaN, the weight is
            negative or not finite.
    """
    check_num(num, len(taken))
    by_closure = _greedy if is_traced_here() else _greedy_by_steps
    select = _greedy_compiled if _is_importable(distance) else by_closure
    carry = select(scores, points, taken, num, distance, weight)
    if is_concrete(carry.nearest) and (first := _first_without_distance(carry.nearest)) < len(taken):
        raise ValueError(
            f"the distance from row {first} to a selected one is NaN; look for rows for which `distance` has no "
            "value, such as zero vectors, which have no direction."
        )
    return carry.rows


@kernel(taken=ROWS_LEFT)
def nearest_to(
    points: Float[Array, "n d"], taken: Bool[Array, " n"], *, targets: Float[Array, "num d"]
) -> Int[Array, " num"]:
    """Selects the nearest row left to each target in turn, by Euclidean distance; ties go to the lowest row.

    Args:
        targets: points, in the order in which they select.

    Raises:
        ValueError: there are more targets than rows left, the shapes differ, a coordinate is NaN or infinite.
    """
    check_num(len(targets), len(taken))

    def select(blocked, target):
        row = _best_left(-squared_euclidean_to_point(points, target), blocked)
        return blocked.at[row].set(True), row

    return scan(select, taken, targets)[1]


@kernel()
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

    Args:
        num_rows: rows of the pool.
        fraction: share of them, in (0, 1].

    Raises:
        ValueError: `fraction` is outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}; expected a share of the pool in (0, 1].")
    return max(1, round(fraction * num_rows))


def _turns(key, clusters):
    """Returns the place of each row in a random order of the rows of its cluster, from 0 on."""
    order = jnp.lexsort((jax.random.uniform(key, clusters.shape), clusters))
    starts = jnp.searchsorted(clusters[order], clusters[order])
    return jnp.zeros_like(clusters).at[order].set(jnp.arange(len(order), dtype=clusters.dtype) - starts)


def _greedy(
    scores: Float[Array, " n"],
    points: PyTree[Float[Array, "n d"]],
    taken: Bool[Array, " n"],
    num: int,
    distance: Callable[[PyTree, PyTree], Float[Array, " n"]],
    weight: Float[Array, ""] | float,
) -> _Carry:
    """Returns the selection; `distance` is called as the caller would call it, on arrays placed as the caller's are."""

    def select(index, step):
        return _next_step(step.carry, distance(points, step.point), scores, points, weight, index)

    return fori_loop(1, num, select, _first_step(scores, points, taken, num)).carry


_greedy_compiled = compiled(_greedy)


def _greedy_by_steps(scores, points, taken, num, distance, weight):
    """Returns the same as `_greedy`, without a compilation for each new closure `distance`."""
    step = _first_step(scores, points, taken, num)
    for index in range(1, num):
        step = _next_step(step.carry, distance(points, step.point), scores, points, weight, index)
    return step.carry


@compiled
def _first_step(
    scores: Float[Array, " n"], points: PyTree[Float[Array, "n d"]], taken: Bool[Array, " n"], num: int
) -> _Step:
    nearest = jnp.full_like(scores, jnp.finfo(scores.dtype).max)
    return _with_best(_Carry(jnp.full(num, len(taken), jnp.int32), taken, nearest), scores, points, 0)


@compiled
def _next_step(
    carry: _Carry,
    to_row: Float[Array, " n"],
    scores: Float[Array, " n"],
    points: PyTree[Float[Array, "n d"]],
    weight: Float[Array, ""] | float,
    index: Int[Array, ""] | int,
) -> _Step:
    row = carry.rows[index - 1]
    # A row without a distance comes last; a selected one that has none, not even to itself, affects no other.
    has_none = jnp.isnan(_sharding.take_row(to_row, row))
    is_marked = jnp.isnan(to_row) & (~has_none | (jnp.arange(len(to_row)) == row))
    nearest = jnp.where(to_row < carry.nearest, to_row, carry.nearest)
    nearest = jnp.where(is_marked, _lowest(to_row), nearest)
    return _with_best(carry._replace(nearest=nearest), scores + weight * nearest, points, index)


@compiled
def _first_without_distance(nearest: Float[Array, " n"]) -> Int[Array, ""]:
    """Returns the first row that `_next_step` has found to have no distance to one selected, or n."""
    is_marked = nearest == _lowest(nearest)
    return jnp.where(is_marked.any(), is_marked.argmax().astype(jnp.int32), len(nearest))


def _lowest(values):
    return jnp.finfo(values.dtype).min


def _with_best(carry, gains, points, index):
    row = _best_left(gains, carry.blocked)
    carry = carry._replace(rows=carry.rows.at[index].set(row), blocked=carry.blocked.at[row].set(True))
    return _Step(carry, jax.tree.map(lambda leaf: _sharding.take_row(leaf, row), points))


def _is_importable(function):
    """Returns whether a function is the one that its module has under its name, unlike a closure.

    In a notebook it may be the same object and read other globals.
    """
    name = getattr(function, "__module__", None) or ""
    module = None if name == "__main__" else sys.modules.get(name)
    return getattr(module, getattr(function, "__qualname__", ""), None) is function


def _best_left(scores, taken):
    """Returns the row of the highest score, or n where all rows are taken."""
    open_scores = _open_scores(scores, taken)
    row = open_scores.argmax().astype(jnp.int32)
    return jnp.where(taken.all(), len(taken), row)


def _open_scores(scores, taken):
    """Returns finite scores or inf for the rows left, and -inf for those taken; -0.0 sorts below 0, and becomes 0."""
    lowest = _lowest(scores)
    # The lowest finite score is above one of -inf, which takes its place.
    finite = jnp.maximum(scores, np.nextafter(lowest, lowest.dtype.type(0)))
    scores = jnp.where(scores > -jnp.inf, finite, lowest)
    return jnp.where(taken, -jnp.inf, jnp.where(scores == 0, 0, scores))
