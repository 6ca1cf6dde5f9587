"""BAIT: rows whose Fisher information about the last layer of a softmax classifier resembles that of the whole pool."""

from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from latent_al.kernels._conditions import PROBABILITIES, ROWS_LEFT, check_classes, check_num, positive
from latent_al.kernels._kernel import kernel
from latent_al.kernels._loops import fori_loop
from latent_al.kernels._sharding import gather, map_shards, marked_rows, take_row, top_k
from latent_al.kernels.distances import finite_rows

TILE = 1024
"""Rows whose matrices are updated at a time."""

LABELLED = 256
"""Labelled rows whose information is added at a time."""

PANEL = 128
"""Features in a panel: for products that are symmetric in two features, panels below the diagonal are left out."""


class _Rows(NamedTuple):
    """Rows as x and B, where the information of a row is B B^T kron x x^T, in t tiles of w rows; k = c - 1.

    The last tile of a shard overlaps the one before.

    Attributes:
        features: x [n f].
        factors: B [t k k w].
    """

    features: Array
    factors: Array


class _Quadratic(NamedTuple):
    """Quadratic forms of M^-1 and M^-1 F M^-1 in V = B kron x, for each row: [t k k w], or [k k w] in a tile."""

    inverse: Array
    covered: Array


class _Matrices(NamedTuple):
    """M^-1 and M^-1 F M^-1 [k f, k f], where M is the information of the labelled rows, and F that of the pool."""

    inverse: Array
    covered: Array


class _Change(NamedTuple):
    """Terms by which the rows selected change `_Matrices`: by -u^T u and -(u^T w + w^T u), k terms per row.

    Attributes:
        u: [num k, k f]; zeros for rows to come.
        w: [num k, k f].
    """

    u: Array
    w: Array


class _State(NamedTuple):
    """The state of a selection; `quadratic` and `change` lack the terms [k, k f] of the last row selected."""

    quadratic: _Quadratic
    change: _Change
    terms: _Change
    blocked: Array
    rows: Array


class _Column(NamedTuple):
    """V^T u and V^T w [k w] of a change by one column of V, as in `_Change`, and the gain [w] that it brings."""

    u: Array
    w: Array
    gain: Array


class _Gained(NamedTuple):
    quadratic: _Quadratic
    column: _Column
    gain: Array


@kernel(probs=PROBABILITIES, taken=ROWS_LEFT, l2=positive("a ridge above 0, such as 1."))
def bait(
    features: Float[Array, "n f"],
    taken: Bool[Array, " n"],
    num: int,
    *,
    probs: Float[Array, "n c"],
    l2: Float[Array, ""] | float,
    labelled: Bool[Array, " n"] | None = None,
) -> Int[Array, " num"]:
    """Selects row by row the one that makes tr(M^-1 F) smallest: BAIT's forward greedy selection.

    F is the mean Fisher information over all rows, and M is l2 I plus its sum over the rows labelled or selected. The
    information of a row is (diag(p) - p p^T) kron x x^T: that about the logits' weights, in expectation over the
    predicted classes, so no label is read. A bias of the last layer is left out, as in the authors' code; a column of
    ones in `features` adds it. That code also weights a selected row by the size of the batch, and selects twice as
    many rows before it removes half of them again; neither is done here.

    The selection is exact: M^-1 V and all gains are updated after each selection by a Woodbury update of rank c - 1,
    where V V^T is the information of a row. Ties go to the lowest row, and rows without a gain come last, by row. In
    float32 the picks are those of float64 while |x|^2 / l2 is below some 1e3. Beyond that, they diverge once the rows
    selected span the features: what is left of the gains is then rounding error, and `jax_enable_x64` helps. A ridge
    below the rounding error of the labelled rows' information is raised to it.

    Time: O(n f^2 c^2 + f^3 c^3) once, and O(n f c^2 + n c^3 + f^2 c^3 + num f c^3) per selection. Memory: O(n f + n c^2
    + f^2 c^2 + num f c^2); no matrix [f c, c] per row is ever formed. Inside a caller's `jit` rows that are not finite
    carry no information and come last, and n stands for each missing row.

    Source: Ash, Goel, Krishnamurthy and Kakade, Gone Fishing: Neural Active Learning with Fisher Embeddings (2021).

    Args:
        features: what the last layer reads.
        taken: rows that may not be selected.
        num: rows to select.
        probs: class probabilities, in [0, 1].
        l2: ridge, above 0; may be traced. It is added to a sum over rows: 1 is little where many are labelled.
        labelled: rows whose information M has from the start, by default those taken.

    Raises:
        ValueError: `num` is not in [1, rows left], the shapes differ, a row does not hold probabilities, there is only
            one class, l2 is not above 0, or features are NaN, infinite or too large to square.
    """
    check_num(num, len(taken))
    check_classes(probs)
    features, probs = jax.lax.stop_gradient((features, probs))
    finite = finite_rows(features) & jnp.isfinite(probs).all(axis=1)
    features = jnp.where(finite[:, None], features, 0)
    probs = jnp.where(finite[:, None], jnp.clip(probs, 0, 1), 0)
    rows = _Rows(features, _merged(map_shards(_tiled_factors, probs)))
    matrices = _matrices(rows, probs, finite & (taken if labelled is None else labelled), finite.sum(), l2)
    quadratic = jax.tree.map(_merged, map_shards(_quadratic_of_shard, rows, matrices))
    k, size = probs.shape[1] - 1, len(matrices.inverse)
    change, terms = (_Change(*[jnp.zeros((length, size), features.dtype)] * 2) for length in (num * k, k))
    start = _State(quadratic, change, terms, taken, jnp.full(num, len(taken), jnp.int32))
    return fori_loop(0, num, partial(_pick, rows, probs, finite, matrices), start).rows


def _pick(rows, probs, finite, matrices, step, state):
    """Returns the state with one more row selected."""
    # The terms of the previous row are written first: written to a change that has been read, they would copy it.
    place = (step - 1) * len(state.terms.u), 0
    change = jax.tree.map(partial(jax.lax.dynamic_update_slice, start_indices=place), state.change, state.terms)
    quadratic, gains = map_shards(_updated_shard, (rows, state.quadratic), state.terms)
    gains = gather(gains, len(finite))
    # Products that have overflowed are NaN, and carry no information.
    gains = jnp.where(finite, jnp.where(gains > 0, gains, 0), -1)
    gain, row = (leaf[0] for leaf in top_k(jnp.where(state.blocked, -jnp.inf, gains), 1))
    factor = _factors(take_row(probs, row)[:, None])[..., 0]
    return _State(
        jax.tree.map(_merged, quadratic),
        change,
        _terms(matrices, change, take_row(rows.features, row), factor),
        state.blocked.at[row].set(True),
        state.rows.at[step].set(jnp.where(gain > -jnp.inf, row, len(finite)).astype(jnp.int32)),
    )


def _terms(matrices, change, x, factor):
    """Returns the terms of `_Change` for a row with V = B kron x.

    By Woodbury M^-1 changes by -M^-1 V (I + V^T M^-1 V)^-1 V^T M^-1 = -u^T u.
    """
    v = (factor[:, None, :] * x[None, :, None]).reshape(-1, len(factor))
    of_u, of_w = _matmul(change.u, v), _matmul(change.w, v)
    inverse = _matmul(matrices.inverse, v) - _matmul(change.u.T, of_u)
    covered = _matmul(matrices.covered, v) - _matmul(change.u.T, of_w) - _matmul(change.w.T, of_u)
    identity = jnp.eye(len(factor), dtype=x.dtype)
    root = jnp.linalg.cholesky(identity + _matmul(v.T, inverse))
    scale = jax.scipy.linalg.solve_triangular(root, identity, lower=True)
    u, w = _matmul(scale, inverse.T), _matmul(scale, covered.T)
    between = _matmul(w, _matmul(v, scale.T))
    return _Change(u, w - _matmul(between.T, u) / 2)


def _updated_shard(tiles, terms):
    """Returns the quadratic forms of a shard after a change of the matrices, and the gain of each row."""
    rows, quadratic = tiles
    num_tiles, k, _, width = rows.factors.shape
    # From two of [k, k f] to k of [2 k, f].
    directions = jnp.stack(terms).reshape(2, k, k, -1).transpose(2, 0, 1, 3).reshape(2 * k * k, -1)

    def tile(args):
        index, factors, quadratic = args
        x = _slice(rows.features, index, width)
        products = _matmul(directions, x.T).reshape(k, 2 * k, width)
        of_u, of_w = _contracted(products, factors).reshape(2, k, k, width)
        squares, cross = jnp.split(_contracted(of_u, jnp.concatenate([of_u, of_w], axis=1)), 2, axis=1)
        updated = _Quadratic(quadratic.inverse - squares, quadratic.covered - cross - cross.swapaxes(0, 1))
        return updated, _gains(updated)

    updated, gains = jax.lax.map(tile, (jnp.arange(num_tiles), rows.factors, quadratic))
    # The last tile overlaps the one before.
    num_before = num_tiles * width - len(rows.features)
    return updated, jnp.concatenate([gains[:-1].reshape(-1), gains[-1, num_before:]])


def _gains(quadratic):
    """Returns the gain [w] of each row of a tile: by how much the row lowers the trace of M^-1 F."""

    def select(index, gained):
        # The next column is carried with the forms: reading it from them in the next step would copy them in each.
        u, w, gain = gained.column
        product = u[:, None] * w[None]
        inverse = gained.quadratic.inverse - u[:, None] * u[None]
        covered = gained.quadratic.covered - product - product.swapaxes(0, 1)
        forms = _Quadratic(inverse, covered)
        return _Gained(forms, _column(forms, index + 1), gained.gain + gain)

    column = _column(quadratic, 0)
    end = fori_loop(0, len(quadratic.inverse) - 1, select, _Gained(quadratic, column, jnp.zeros_like(column.gain)))
    return end.gain + end.column.gain


def _column(quadratic, index):
    inverse, covered = quadratic.inverse[index], quadratic.covered[index]
    scale = 1 / (1 + inverse[index])
    gain, root = covered[index] * scale, jnp.sqrt(scale)[None]
    return _Column(root * inverse, root * (covered - inverse * gain[None] / 2), gain)


def _matrices(rows, probs, labelled, num_rows, l2):
    num_pairs = len(_pairs(rows.factors.shape[1])[0])
    zero = jnp.zeros((num_pairs, rows.features.shape[1], rows.features.shape[1]), rows.features.dtype)
    marked = marked_rows(labelled)

    def add_block(index, total):
        places = index * LABELLED + jnp.arange(LABELLED)
        is_there = places < marked.num_marked
        block = marked.at(jnp.where(is_there, places, 0))
        factors = _factors(jnp.where(is_there[:, None], probs[block], 0).T)
        return total + _information(rows.features[block], factors)

    of_labelled = _assembled(fori_loop(0, -(-marked.num_marked // LABELLED), add_block, zero))
    of_pool = _assembled(map_shards(_information_of_shard, rows).sum(axis=0) / num_rows)
    # A ridge below the matrix's rounding would not make it positive definite.
    ridge = jnp.maximum(l2, jnp.finfo(zero.dtype).eps * jnp.trace(of_labelled)).astype(zero.dtype)
    identity = jnp.eye(len(of_labelled), dtype=zero.dtype)
    root = jnp.linalg.cholesky(of_labelled + ridge * identity)
    inverse = _symmetric(jax.scipy.linalg.cho_solve((root, True), identity))
    covered = _symmetric(_matmul(inverse, _matmul(of_pool, inverse)))
    return _Matrices(inverse, covered)


def _information_of_shard(rows):
    """Returns the sum of the information of the rows of a shard."""
    width = rows.factors.shape[-1]
    num_rows, size = rows.features.shape

    def add_tile(index, total):
        # The last tile overlaps the one before.
        is_new = _start(num_rows, index, width) + jnp.arange(width) >= index * width
        factors = jnp.where(is_new, rows.factors[index], 0)
        return total + _information(_slice(rows.features, index, width), factors)

    num_pairs = len(_pairs(rows.factors.shape[1])[0])
    return fori_loop(0, len(rows.factors), add_tile, jnp.zeros((num_pairs, size, size), rows.features.dtype))


def _information(x, factors):
    """Returns the sum of B B^T kron x x^T over rows x [w f] and B [k k w], for each pair of classes: [p f f].

    Each matrix is symmetric in two features: the part above the diagonal is to be used.
    """
    left, right = _pairs(len(factors))
    weights = (factors[left] * factors[right]).sum(axis=1)

    def of_pair(weight):
        weighted = x * weight[:, None]
        panels = [_matmul(x[:, :high].T, weighted[:, low:high]) for low, high in _panels(x.shape[1])]
        panels = [jnp.pad(panel, ((0, x.shape[1] - len(panel)), (0, 0))) for panel in panels]
        return jnp.concatenate(panels, axis=1)

    return jax.lax.map(of_pair, weights)


def _assembled(pairs):
    """Returns the symmetric matrix [k f, k f] of its blocks [p f f] above the diagonal."""
    k, size = int((2 * len(pairs)) ** 0.5), pairs.shape[1]
    blocks = jnp.triu(pairs) + jnp.triu(pairs, 1).swapaxes(1, 2)
    return blocks[_places(k)].transpose(0, 2, 1, 3).reshape(k * size, k * size)


def _quadratic_of_shard(rows, matrices):
    """Returns the quadratic forms of the matrices for the rows of a shard."""
    k, width = rows.factors.shape[-2:]
    size = rows.features.shape[1]
    blocks = jnp.concatenate([_blocks_above(matrix, k) for matrix in matrices])

    def tile(args):
        index, factors = args
        x = _slice(rows.features, index, width)

        def of_pair(block):
            panels = [(_matmul(x[:, :high], block[:high, low:high]), x[:, low:high]) for low, high in _panels(size)]
            return jnp.stack([(product * part).sum(axis=1) for product, part in panels]).sum(axis=0)

        forms = jax.lax.map(of_pair, blocks).reshape(2, -1, width)[:, _places(k)]
        for _ in range(2):
            forms = _contracted(forms.swapaxes(0, 1).reshape(k, 2 * k, width), factors)
            forms = forms.reshape(2, k, k, width)
        return _Quadratic(*forms)

    return jax.lax.map(tile, (jnp.arange(len(rows.factors)), rows.factors))


def _blocks_above(matrix, k):
    """Returns the blocks [p f f] of a matrix [k f, k f] whose parts above the diagonal have its quadratic forms."""
    left, right = _pairs(k)
    blocks = matrix.reshape(k, len(matrix) // k, k, -1)[left, :, right]
    return jnp.triu(blocks) + jnp.triu(blocks.swapaxes(1, 2), 1)


def _tiled_factors(probs):
    num_tiles = -(-len(probs) // TILE)
    width = -(-len(probs) // num_tiles)
    return jax.lax.map(lambda index: _factors(_slice(probs, index, width).T), jnp.arange(num_tiles))


def _factors(probs):
    """Returns B [k k w] of probabilities [c w], where B B^T = diag(p) - p p^T in a basis of the vectors that sum to 0.

    The Cholesky factor of diag(p) - p p^T has a closed form (Tanabe and Sagae 1992).
    """
    num_classes = len(probs)
    tail = jax.lax.cumsum(probs, reverse=True)
    before, after = tail[:-1], tail[1:]
    # Where no class is left in a tail, its terms are 0.
    share = jnp.sqrt(jnp.where(before > 0, probs[:-1] / jnp.where(before > 0, before, 1), 0))
    root = jnp.sqrt(jnp.where(after > 0, after, 1))
    row, column = np.arange(num_classes)[:, None, None], np.arange(num_classes - 1)[None, :, None]
    below = -probs[:, None] * (share / root)[None]
    lower = jnp.where(row > column, below, jnp.where(row == column, (share * jnp.sqrt(after))[None], 0))
    basis = jnp.asarray(_basis(num_classes), probs.dtype)
    return jnp.einsum("ci,cjw->ijw", basis, lower, precision="highest")


def _basis(num_classes):
    """Returns an orthonormal basis [c, c - 1] of the vectors that sum to 0 over the classes: the Helmert matrix."""
    row, column = np.arange(num_classes)[:, None], np.arange(1, num_classes)[None]
    return np.where(row < column, 1, np.where(row == column, -column, 0)) / np.sqrt(column * (column + 1))


def _pairs(k):
    """Returns all pairs of two of k: the first of each, and the second, which is not below the first."""
    return np.triu_indices(k)


def _places(k):
    """Returns the place [k k] of each pair among `_pairs`."""
    places = np.zeros((k, k), int)
    places[_pairs(k)] = np.arange(k * (k + 1) // 2)
    return np.maximum(places, places.T)


def _panels(size):
    """Returns where each panel of features begins and ends."""
    return list(pairwise([*range(0, size, PANEL), size]))


def _contracted(left, right):
    """Returns the sums over i of left [i a w] times right [i b w]: [a b w]."""

    def add(index, total):
        return total + left[index][:, None] * right[index][None]

    return fori_loop(0, len(left), add, jnp.zeros((left.shape[1], *right.shape[1:]), left.dtype))


def _matmul(left, right):
    # Without the rounding to ten bits that is the default on some accelerators.
    return jnp.matmul(left, right, precision="highest")


def _symmetric(matrix):
    return (matrix + matrix.T) / 2


def _slice(values, index, width):
    return jax.lax.dynamic_slice_in_dim(values, _start(len(values), index, width), width)


def _start(size, index, width):
    return jnp.minimum(index * width, size - width)


def _merged(leaf):
    """Returns tiles of all shards, one after the other."""
    return leaf.reshape(-1, *leaf.shape[2:])
