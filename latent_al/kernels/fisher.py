"""BAIT: rows whose Fisher information about the last layer of a softmax classifier resembles that of the whole pool."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from latent_al.kernels._checks import PROBABILITIES, ROWS_LEFT, check_classes, check_num, positive
from latent_al.kernels._kernel import kernel
from latent_al.kernels._loops import fori_loop
from latent_al.kernels._sharding import gather, map_shards, marked_rows, take_row, top_k
from latent_al.kernels.distances import finite_rows

TILE = 1024
"""Rows whose matrices are updated at a time."""

LABELLED = 256
"""Labelled rows whose information is added at a time."""

PANELS = 4
"""Parts of the features: of products that are symmetric in two features, those below the diagonal are left out."""


class _Rows(NamedTuple):
    """Rows as x and B, where the information of a row is B B^T kron x x^T, in t tiles of w rows; k = c - 1.

    The last tile of a shard begins among the rows of the one before.

    Attributes:
        features: x [n f].
        factors: B [t k k w].
    """

    features: Array
    factors: Array


class _Quadratic(NamedTuple):
    """Quadratic forms of V = B kron x, for each row, of M^-1 and of M^-1 F M^-1: [t k k w], or [k k w] in a tile."""

    inverse: Array
    covered: Array


class _Matrices(NamedTuple):
    """M^-1 and M^-1 F M^-1 [k f, k f], where M is the information of the labelled rows, and F that of the pool."""

    inverse: Array
    covered: Array


class _Change(NamedTuple):
    """Terms by which the rows selected change `_Matrices`: by -u u^T and -(u w^T + w u^T), k columns a row.

    Attributes:
        u: [k f, num k]; zeros for rows to come.
        w: [k f, num k].
    """

    u: Array
    w: Array


class _State(NamedTuple):
    quadratic: _Quadratic
    change: _Change
    blocked: Array
    rows: Array


class _Gained(NamedTuple):
    quadratic: _Quadratic
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
    check_num(num, len(taken))
    check_classes(probs)
    features, probs = jax.lax.stop_gradient((features, probs))
    finite = finite_rows(features) & jnp.isfinite(probs).all(axis=1)
    features = jnp.where(finite[:, None], features, 0)
    probs = jnp.where(finite[:, None], jnp.clip(probs, 0, 1), 0)
    rows = _Rows(features, _merged(map_shards(_tiled_factors, probs)))
    matrices = _matrices(rows, probs, finite & (taken if labelled is None else labelled), finite.sum(), l2)
    size = features.shape[1] * (probs.shape[1] - 1), num * (probs.shape[1] - 1)
    none = _Change(jnp.zeros(size, features.dtype), jnp.zeros(size, features.dtype))
    quadratic = jax.tree.map(_merged, map_shards(_quadratic_of_shard, rows, matrices))
    start = _State(quadratic, none, taken, jnp.full(num, len(taken), jnp.int32))
    return fori_loop(0, num, partial(_pick, rows, probs, finite, matrices), start).rows


def _pick(rows, probs, finite, matrices, step, state):
    """Returns the state with one more row selected."""
    gains = gather(map_shards(_gains_of_shard, (rows.features, state.quadratic)), len(finite))
    # Products that have overflowed are NaN, and tell nothing.
    gains = jnp.where(finite, jnp.where(gains > 0, gains, 0), -1)
    gain, row = (leaf[0] for leaf in top_k(jnp.where(state.blocked, -jnp.inf, gains), 1))
    terms = _terms(matrices, state.change, take_row(rows.features, row), _factors(take_row(probs, row)[:, None])[..., 0])
    quadratic = map_shards(_updated_shard, (rows, state.quadratic), terms)
    place = 0, step * terms.u.shape[1]
    return _State(
        jax.tree.map(_merged, quadratic),
        jax.tree.map(partial(jax.lax.dynamic_update_slice, start_indices=place), state.change, terms),
        state.blocked.at[row].set(True),
        state.rows.at[step].set(jnp.where(gain > -jnp.inf, row, len(finite)).astype(jnp.int32)),
    )


def _terms(matrices, change, x, factor):
    """Returns the columns of `_Change` for a row with V = B kron x.

    By Woodbury M^-1 changes by -M^-1 V (I + V^T M^-1 V)^-1 V^T M^-1 = -u u^T.
    """
    v = (factor[:, None, :] * x[None, :, None]).reshape(-1, len(factor))
    of_u, of_w = _matmul(change.u.T, v), _matmul(change.w.T, v)
    inverse = _matmul(matrices.inverse, v) - _matmul(change.u, of_u)
    covered = _matmul(matrices.covered, v) - _matmul(change.u, of_w) - _matmul(change.w, of_u)
    inner = jnp.linalg.cholesky(jnp.eye(len(factor), dtype=x.dtype) + _matmul(v.T, inverse))
    u = jax.scipy.linalg.solve_triangular(inner, inverse.T, lower=True).T
    w = jax.scipy.linalg.solve_triangular(inner, covered.T, lower=True).T
    between = jax.scipy.linalg.solve_triangular(inner, _matmul(v.T, w), lower=True)
    return _Change(u, w - _matmul(u, between) / 2)


def _updated_shard(tiles, terms):
    """Returns the quadratic forms of a shard after a change of the matrices."""
    rows, quadratic = tiles
    width, k = rows.factors.shape[-1], rows.factors.shape[1]
    # [k f, k] to [k k f].
    u, w = (leaf.reshape(k, -1, k).transpose(0, 2, 1).reshape(k * k, -1) for leaf in terms)
    directions = jnp.concatenate([u, w])

    def tile(args):
        index, factors, quadratic = args
        x = _slice(rows.features, index, width)
        of_u, of_w = _matmul(directions, x.T).reshape(2, k, k, width)
        of_u, of_w = _contracted(of_u, factors), _contracted(of_w, factors)
        return fori_loop(0, k, lambda column, forms: _less(forms, of_u[column], of_w[column]), quadratic)

    return jax.lax.map(tile, (jnp.arange(len(rows.factors)), rows.factors, quadratic))


def _gains_of_shard(args):
    """Returns the gain of each row: by how much the row lowers the trace of M^-1 F."""
    features, quadratic = args
    width = quadratic.inverse.shape[-1]

    def column(index, gained):
        """Adds the gain of one column of V, and then sees that column as selected."""
        inverse, covered = gained.quadratic
        scale = 1 / (1 + inverse[index, index])
        gain = covered[index, index] * scale
        of_w = covered[index] - inverse[index] * gain[None] / 2
        root = jnp.sqrt(scale)[None]
        return _Gained(_less(gained.quadratic, root * inverse[index], root * of_w), gained.gain + gain)

    def tile(index, gains):
        forms = jax.tree.map(lambda leaf: leaf[index], quadratic)
        start = _Gained(forms, jnp.zeros(width, features.dtype))
        gain = fori_loop(0, forms.inverse.shape[0], column, start).gain
        return jax.lax.dynamic_update_slice_in_dim(gains, gain, _start(len(features), index, width), 0)

    return fori_loop(0, len(quadratic.inverse), tile, jnp.zeros(len(features), features.dtype))


def _less(quadratic, of_u, of_w):
    """Returns the quadratic forms [k k w] after a change by one column each of u and w, of which V^T u is [k w]."""
    product = of_u[:, None] * of_w[None]
    return _Quadratic(
        quadratic.inverse - of_u[:, None] * of_u[None],
        quadratic.covered - product - product.swapaxes(0, 1),
    )


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
    # Below its rounding a ridge would not make the matrix positive.
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
        # The last tile begins among rows of the one before.
        is_new = _start(num_rows, index, width) + jnp.arange(width) >= index * width
        factors = jnp.where(is_new, rows.factors[index], 0)
        return total + _information(_slice(rows.features, index, width), factors)

    num_pairs = len(_pairs(rows.factors.shape[1])[0])
    return fori_loop(0, len(rows.factors), add_tile, jnp.zeros((num_pairs, size, size), rows.features.dtype))


def _information(x, factors):
    """Returns the sum of B B^T kron x x^T over rows x [w f] and B [k k w], for each pair of classes: [p f f].

    Of each symmetric matrix of two features the part above the diagonal is to be used.
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
    size = pairs.shape[1]
    k = int((2 * len(pairs)) ** 0.5)
    left, right = _pairs(k)
    place = np.zeros((k, k), int)
    place[left, right] = place[right, left] = np.arange(len(left))
    upper = jnp.triu(pairs)
    blocks = upper + jnp.triu(pairs, 1).swapaxes(1, 2)
    return blocks[place].transpose(0, 2, 1, 3).reshape(k * size, k * size)


def _quadratic_of_shard(rows, matrices):
    """Returns the quadratic forms of the matrices for the rows of a shard."""
    k, width = rows.factors.shape[-2:]
    size = rows.features.shape[1]
    left, right = _pairs(k)
    place = np.zeros((k, k), int)
    place[left, right] = place[right, left] = np.arange(len(left))

    def halves(matrix):
        blocks = matrix.reshape(k, size, k, size)[left, :, right]
        blocks = (blocks + blocks.swapaxes(1, 2)) / 2
        return jnp.triu(blocks) + jnp.triu(blocks, 1)

    halved = jnp.concatenate([halves(matrix) for matrix in matrices])

    def tile(args):
        index, factors = args
        x = _slice(rows.features, index, width)

        def of_pair(half):
            parts = [
                (_matmul(x[:, :high], half[:high, low:high]) * x[:, low:high]).sum(axis=1)
                for low, high in _panels(size)
            ]
            return sum(parts)

        forms = jax.lax.map(of_pair, halved).reshape(2, -1, width)
        return _Quadratic(*(_contracted(_contracted(form[place], factors), factors) for form in forms))

    return jax.lax.map(tile, (jnp.arange(len(rows.factors)), rows.factors))


def _tiled_factors(probs):
    num_tiles = -(-len(probs) // TILE)
    width = -(-len(probs) // num_tiles)
    return jax.lax.map(lambda index: _factors(_slice(probs, index, width).T), jnp.arange(num_tiles))


def _factors(probs):
    """Returns B [k k w] of probabilities [c w], where B B^T = diag(p) - p p^T in a basis of what sums to 0.

    The Cholesky factor of diag(p) - p p^T is known (Tanabe and Sagae 1992).
    """
    num_classes = len(probs)
    tail = jax.lax.cumsum(probs, reverse=True)
    before, after = tail[:-1], tail[1:]
    share = jnp.sqrt(jnp.where(before > 0, probs[:-1] / jnp.where(before > 0, before, 1), 0))
    root = jnp.sqrt(jnp.where(after > 0, after, 1))
    is_below = np.arange(num_classes)[:, None] > np.arange(num_classes - 1)[None]
    lower = jnp.where(is_below[..., None], -probs[:, None] * (share / root)[None], 0)
    diagonal = jnp.where(np.eye(num_classes, num_classes - 1, dtype=bool)[..., None], (share * jnp.sqrt(after))[None], 0)
    return jnp.einsum("ci,cjw->ijw", jnp.asarray(_basis(num_classes), probs.dtype), lower + diagonal, precision="highest")


def _basis(num_classes):
    """Returns an orthonormal basis [c, c - 1] of what sums to 0 over the classes: the Helmert matrix."""
    row, column = np.arange(num_classes)[:, None], np.arange(1, num_classes)[None]
    return np.where(row < column, 1, np.where(row == column, -column, 0)) / np.sqrt(column * (column + 1))


def _pairs(k):
    return np.triu_indices(k)


def _panels(size):
    edges = [size * index // PANELS for index in range(PANELS + 1)]
    return [(low, high) for low, high in zip(edges[:-1], edges[1:], strict=True) if low < high]


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
