"""Information that the classes of rows give about a model, and about the classes of other rows.

`probs [k n c]` are the class probabilities of n rows under k draws of the model, such as MC-dropout predictions. Given
the model, the classes of two rows are independent: their joint probability is the mean over draws of the product.

Outside `jit`, values that are not probabilities, such as logits, are refused.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latent_al.kernels._conditions import PROBABILITIES, ROWS_LEFT, check_draws, check_num
from latent_al.kernels._kernel import kernel
from latent_al.kernels._loops import fori_loop, one_by_one, scan, while_loop
from latent_al.kernels._sharding import gather, map_shards, take_row
from latent_al.kernels._sharding import top_k as largest
from latent_al.kernels.selection import top_k
from latent_al.kernels.uncertainty import entropy_terms

COLUMNS = 1024
"""Classes of rows, c for each row, whose joint probabilities are computed at a time."""

POOL_COLUMNS = 4096
"""The same in a pass over the pool, which is given few joint classes."""

STATES = 256
"""Joint classes of the rows selected that are paired with those columns at a time."""


class _Rows(NamedTuple):
    """Predictions with rows as the first axis, and each row's mean entropy over draws in nats."""

    probs: Float[Array, "n k c"]
    entropies: Float[Array, " n"]


class _Joint(NamedTuple):
    """Logarithms of the probabilities of joint classes of the rows selected, under each draw.

    every: those of all joint classes, the class of the last row running fastest, while there are at most s.
    sampled: those of s sampled joint classes, the i-th from draw i modulo k.
    """

    every: Float[Array, "s k"]
    sampled: Float[Array, "s k"]


class _States(NamedTuple):
    """Joint classes of the rows selected, in b blocks.

    posterior: probabilities of the draws given the joint classes.
    weights: probabilities of the joint classes.
    num_blocks: number of blocks with weights above 0.
    """

    posterior: Float[Array, "b s k"]
    weights: Float[Array, "b s"]
    num_blocks: Int[Array, ""]


class _Carry(NamedTuple):
    joint: _Joint
    blocked: Bool[Array, " n"]


class _Search(NamedTuple):
    """The search for the largest gain.

    upper: gains of rows that are measured, bounds of all other rows; -inf of blocked rows.
    top: rows with the largest of these, in order.
    """

    upper: Float[Array, " n"]
    is_measured: Bool[Array, " n"]
    top: Int[Array, " t"]


class _Deviations(NamedTuple):
    """The mean p of the probabilities over draws, and the draws' relative deviations from it, (p_k - p) / p."""

    probs: Float[Array, "n c"]
    of_draws: Float[Array, "n k c"]


@kernel(probs=PROBABILITIES, taken=ROWS_LEFT)
def batch_bald(
    key: PRNGKeyArray, probs: Float[Array, "k n c"], taken: Bool[Array, " n"], num: int, *, num_samples: int
) -> Int[Array, " num"]:
    """Selects row by row to maximise the mutual information between the classes of all rows selected and the model.

    A row whose class follows from that of another adds little once the other is selected. The information is exact
    while the rows selected have at most `num_samples` joint classes, c^b for b rows. Beyond that, it is estimated from
    `num_samples` of them, equally many from each draw of the model: `num_samples` is rounded up to a multiple of the
    draws. The samples are kept, and extended by the class of each further row; the classes of candidates are summed
    over.

    A row adds the mean over joint classes of the entropy of its class given them, minus that given the model. The
    source samples the first term and adds it to the entropy of the joint classes, which is the same for all candidates.

    Ties go to the lowest row, up to rounding. Inside a caller's `jit` rows that are not finite come last, and n stands
    for each missing row.

    Each exact row takes O(n c k m) time, for m joint classes. Beyond that, samples with the same most probable draw are
    merged, which bounds the gains of all rows from above in O(n c k^2) time, since entropy is concave. Only rows whose
    bounds may win are measured, in O(c k m) time each. Memory for another copy of the predictions and O(m (k + c)).

    Source: Kirsch, van Amersfoort and Gal, BatchBALD: Efficient and Diverse Batch Acquisition for Deep Bayesian Active
    Learning (2019).

    Args:
        probs: class probabilities of the rows under k draws of the model.
        taken: rows that may not be selected.
        num: rows to select.
        num_samples: number of joint classes, 1 or more.

    Raises:
        ValueError: `num` is not in [1, rows left], there are fewer than two draws or classes, or no samples, the shapes
            differ, or a row does not hold probabilities.
    """
    check_draws(probs)
    check_num(num, len(taken))
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; expected 1 or more.")
    return one_by_one(partial(_batch_bald, num=num, num_samples=num_samples))(key, jax.lax.stop_gradient(probs), taken)


def _batch_bald(key, probs, taken, *, num, num_samples):
    num_draws, size, num_classes = probs.shape
    num_states = -(-num_samples // num_draws) * num_draws
    entropies = entropy_terms(probs).sum(axis=2).mean(axis=0)
    rows = _Rows(jnp.moveaxis(probs, 1, 0), entropies)
    tiles = map_shards(partial(_tiled, size=max(1, POOL_COLUMNS // num_classes)), rows)
    width = -(-size // len(tiles.entropies))

    def gains_of_all(states):
        return gather(map_shards(_gains_of_shard, tiles, states)[:, :width], size)

    def select(carry, step, find):
        key, index = step
        row = find(carry, index)
        joint = _with_row(key, carry.joint, probs.at[:, row].get(mode="fill"))
        return _Carry(joint, carry.blocked.at[row].set(True, mode="drop")), row

    def find_exactly(carry, index):
        return top_k(gains_of_all(_every_state(carry.joint, index, num_classes)), carry.blocked, 1)[0]

    def find_by_samples(carry, index):
        del index
        states = _samples(carry.joint)

        def measure(places):
            return _gains(probs[:, places].reshape(num_draws, -1), entropies[places], states)

        bounds = gains_of_all(_merged(states))
        return _row_of_largest(bounds, carry.blocked, measure, max(1, COLUMNS // num_classes))

    nothing = jnp.zeros((num_states, num_draws), probs.dtype)
    keys, steps = jax.random.split(key, num), jnp.arange(num)
    split = min(num, _num_exact(num_states, num_classes))
    start = _Carry(_Joint(nothing, nothing), taken)
    carry, first = scan(partial(select, find=find_exactly), start, (keys[:split], steps[:split]))
    _, last = scan(partial(select, find=find_by_samples), carry, (keys[split:], steps[split:]))
    return jnp.concatenate([first, last])


@kernel(probs=PROBABILITIES, target_probs=PROBABILITIES)
def epig(probs: Float[Array, "k n c"], target_probs: Float[Array, "k m c"]) -> Float[Array, " n"]:
    """Returns the mean over targets of the mutual information between a row's class and theirs, over log(c), in [0, 1].

    It is the information that a label is expected to give about predictions, whereas `mutual_information` is about the
    model. It is computed from deviations between draws, so that a small value is not a difference of large entropies.
    O(n m c^2 k) time, in matrix products, and memory for another copy of the predictions and O(c^2).

    Source: Bickford Smith, Kirsch, Farquhar, Gal, Foster and Rainforth, Prediction-Oriented Bayesian Active Learning
    (2023).

    Args:
        probs: class probabilities of the rows under k draws of the model.
        target_probs: the same for m rows that are to be predicted, such as a random part of the pool, under the same
            draws.

    Raises:
        ValueError: there are fewer than two draws or classes, the shapes differ, or a row does not hold probabilities.
    """
    check_draws(probs)
    num_classes = probs.shape[2]
    targets = _deviations(jnp.moveaxis(target_probs, 1, 0))
    targets = _tiled(targets, max(1, COLUMNS // num_classes))
    nats = gather(map_shards(_epig_of_shard, jnp.moveaxis(probs, 1, 0), targets), probs.shape[1])
    return jnp.clip(nats / (target_probs.shape[1] * jnp.log(num_classes)), 0, 1)


def _num_exact(num_states, num_classes):
    """Returns the number of rows that are selected without samples."""
    num_rows = 0
    while num_classes**num_rows <= num_states:
        num_rows += 1
    return num_rows


def _every_state(joint, num_selected, num_classes):
    """Returns all joint classes of the rows selected, while there are no more than `num_samples`."""
    num_states, num_draws = joint.every.shape
    weights = jnp.exp(jax.nn.logsumexp(joint.every, axis=1)) / num_draws
    size = num_classes**num_selected
    weights = jnp.where(jnp.arange(num_states) < size, weights, 0)
    posterior, weights = _tiled((jax.nn.softmax(joint.every, axis=1), weights), STATES)
    return _States(posterior, weights, -(-size // weights.shape[1]))


def _samples(joint):
    """Returns the samples of the joint classes of the rows selected."""
    weights = jnp.full_like(joint.sampled[:, 0], 1 / len(joint.sampled))
    posterior, weights = _tiled((jax.nn.softmax(joint.sampled, axis=1), weights), STATES)
    return _States(posterior, weights, jnp.int32(len(weights)))


def _merged(states):
    """Returns the states with those of the same likeliest draw merged into one.

    Entropy is concave, so no gain given the merged states is below the one given all of them.
    """
    num_draws = states.posterior.shape[2]
    posterior, weights = states.posterior.reshape(-1, num_draws), states.weights.reshape(-1)
    is_likeliest = posterior.argmax(axis=1)[:, None] == jnp.arange(num_draws)[None, :]
    shares = jnp.where(is_likeliest, weights[:, None], 0)
    totals = shares.sum(axis=0)
    means = jnp.matmul(shares.T, posterior, precision="highest") / jnp.where(totals > 0, totals, 1)[:, None]
    return _States(means[None], totals[None], jnp.int32(1))


def _row_of_largest(bounds, blocked, measure, num):
    """Returns the row with the largest gain, of which `bounds` are bounds; `measure` returns the gains of some rows.

    Rows that are not finite come last, and n stands for a row where all are blocked.
    """
    is_measured = blocked | ~jnp.isfinite(bounds)
    upper = jnp.where(blocked, -jnp.inf, jnp.where(is_measured, -1, bounds))

    def search(upper, is_measured):
        return _Search(upper, is_measured, largest(upper, min(num, len(upper)))[1])

    def refine(state):
        gains = jnp.where(state.is_measured[state.top], state.upper[state.top], measure(state.top))
        return search(state.upper.at[state.top].set(gains), state.is_measured.at[state.top].set(True))

    def is_open(state):
        return ~take_row(state.is_measured, state.top[0])

    end = while_loop(is_open, refine, search(upper, is_measured))
    return jnp.where(take_row(end.upper, end.top[0]) > -jnp.inf, end.top[0], len(upper)).astype(jnp.int32)


def _with_row(key, joint, probs):
    """Returns the joint classes with those of one more row, of probabilities [k c]."""
    places = jnp.arange(len(joint.every))
    logs = jnp.log(jnp.maximum(probs, jnp.finfo(probs.dtype).tiny))
    num_draws, num_classes = logs.shape
    every = joint.every[places // num_classes] + logs[:, places % num_classes].T
    classes = jax.random.categorical(key, logs[places % num_draws], axis=1)
    return _Joint(every, joint.sampled + logs[:, classes].T)


def _gains_of_shard(tiles, states):
    """Returns the information in nats that the classes of rows add, one by one, to those of the rows selected."""

    def of_tile(tile):
        return _gains(jnp.moveaxis(tile.probs, 1, 0).reshape(tile.probs.shape[1], -1), tile.entropies, states)

    return jax.lax.map(of_tile, jax.tree.map(lambda leaf: leaf[0], tiles)).reshape(-1)


def _gains(columns, entropies, states):
    """Returns the gains of rows whose class probabilities under k draws are the `columns` [k n*c]."""

    def add(block, sums):
        probs = jnp.matmul(states.posterior[block], columns, precision="highest")
        return sums + jnp.matmul(states.weights[block], entropy_terms(probs), precision="highest")

    sums = fori_loop(0, states.num_blocks, add, jnp.zeros_like(columns[0]))
    return sums.reshape(len(entropies), -1).sum(axis=1) - entropies


def _epig_of_shard(probs, targets):
    """Returns the sums over targets [n] of the mutual information in nats."""

    def of_tile(probs):
        rows = _deviations(probs)

        @partial(jax.checkpoint, prevent_cse=False)
        def add(sums, targets):
            # The joint probability of two classes is (1 + excess) times the product of theirs.
            excess = jnp.einsum("nkc,mkd->ncmd", rows.of_draws, targets.of_draws, precision="highest") / probs.shape[1]
            nats = jnp.einsum("ncmd,md->nc", _divergence(excess), targets.probs, precision="highest")
            return sums + nats, None

        sums = scan(add, jnp.zeros_like(rows.probs), targets)[0]
        return (rows.probs * sums).sum(axis=1)

    tiles = _tiled(probs, max(1, COLUMNS // probs.shape[2]))
    return jax.lax.map(of_tile, tiles).reshape(-1)[: len(probs)]


def _deviations(probs):
    mean = probs.mean(axis=1)
    eps = float(jnp.finfo(probs.dtype).eps)
    # Where the mean is smaller, the class adds nothing measurable, and its gradient would overflow.
    scale = jnp.where(mean > eps**2, mean, 1)
    return _Deviations(mean, (probs - mean[:, None, :]) / scale[:, None, :])


def _divergence(excess):
    """Returns (1 + x) log(1 + x) - x, which is not below 0, with a finite gradient at -1.

    Its mean, in which the last term is 0, is the divergence of (1 + x) p from p.
    """
    lowest = -1 + float(jnp.finfo(excess.dtype).eps)
    return (1 + excess) * jnp.log1p(jnp.maximum(excess, lowest)) - excess


def _tiled(rows, size):
    """Returns rows cut into the fewest equal tiles of at most `size` rows; zeros follow the last row."""

    def tile(leaf):
        num_tiles = -(-len(leaf) // size)
        missing = -len(leaf) % num_tiles
        padded = jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1))
        return padded.reshape(num_tiles, -1, *leaf.shape[1:])

    return jax.tree.map(tile, rows)
