"""Arrays whose rows may be spread over several devices: the one module of the kernels that knows about devices.

Where the axes of a mesh are Explicit, the types of the arrays say along which axis the rows lie, whatever its name.
Where they are Auto, the type of a traced array does not: the rows are to lie along the axis `POOL` of the mesh that the
caller has set with `jax.set_mesh`. The compiler partitions operations on all rows at once. Operations for which it
would gather the rows, such as a sort or a loop over tiles, are applied shard by shard through `map_shards`. Under an
Auto axis of another name there is one shard, and the compiler gathers the rows: results are the same, and more moves.

Inside a caller's own `shard_map` each device selects among its own rows. Where that leaves some axes of the mesh to the
compiler, rows along these are gathered first.

A `vmap` over an Auto axis that is itself sharded must name it: `jax.vmap(..., spmd_axis_name="seeds")`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Num, PyTree, Shaped

from latent_al.kernels import _loops

POOL = "pool"
"""The axis along which the rows of the pool lie, unless the types of the arrays name another."""

NUM_BLOCKS = 64
"""Blocks of rows that are summed one by one: each shard has whole blocks where the number of shards is a power of 2."""

NO_MESH = AbstractMesh((), ())

_axis = ContextVar[str | tuple[str, ...]]("axis", default=POOL)


def over_devices(
    function: Callable[[PyTree], PyTree],
    arrays: PyTree,
    dims: Sequence[tuple[Shaped[Array | np.ndarray, "..."], tuple[str, ...]]],
    dims_returned: PyTree,
) -> PyTree:
    """Calls `function(arrays)`; where the axes of a mesh are Explicit, the compiler may shard inside it as it likes.

    Args:
        function: of all arrays.
        arrays: what it takes.
        dims: the arrays, with the names of their dimensions.
        dims_returned: lists of names of dimensions, in the structure of the result. A dimension with the name of an
            argument's dimension is sharded like it, and the rest is replicated.
    """
    context = jax.sharding.get_abstract_mesh()
    mesh = _mesh_of([array for array, _ in dims])
    axes = _axes_of_dims(dims)
    out_specs = jax.tree.map(partial(_spec_of, axes), dims_returned, is_leaf=lambda value: isinstance(value, list))
    if 0 < len(context.manual_axes) < len(context.axis_names):
        return _on_whole_rows(function, arrays, out_specs)
    if not mesh.explicit_axes:
        return function(arrays)
    run = jax.sharding.auto_axes(function, axes=mesh.explicit_axes, out_sharding=out_specs)
    token = _axis.set(axes.get("n", POOL))
    try:
        if context.empty:
            with jax.sharding.use_abstract_mesh(mesh):
                return run(arrays)
        return run(arrays)
    finally:
        _axis.reset(token)


@contextmanager
def at_once() -> Iterator[None]:
    """Executes what is called on concrete arrays, even inside a caller's `jit` or `shard_map`, which would trace it."""
    with jax.ensure_compile_time_eval(), jax.sharding.use_abstract_mesh(NO_MESH):
        yield


def num_shards() -> int:
    """Returns the number of shards, one for each device or group of devices: 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    names = _names(_axis.get())
    return 1 if set(names) & set(mesh.manual_axes) else prod(mesh.shape.get(name, 1) for name in names)


def map_shards(
    function: Callable[..., PyTree], rows: PyTree[Shaped[Array, "_ ..."]], *shared: PyTree, fill: float = 0
) -> PyTree:
    """Applies `function(rows of the shard, *shared)` to each shard and stacks the results: [s ...].

    Each shard has ceil(n / s) rows, in order.

    Args:
        function: of the rows of one shard and of what all shards share.
        rows: arrays with a leading axis, of rows or of as many tiles in each shard.
        shared: arrays that each shard receives whole.
        fill: value of the rows that pad the last shards.
    """
    shards = num_shards()

    def stacked(rows, *shared):
        return jax.tree.map(lambda leaf: leaf[None], function(rows, *shared))

    if shards == 1:
        return stacked(rows, *shared)
    along = PartitionSpec(_axis.get())
    in_specs = along, *[PartitionSpec()] * len(shared)
    rows = jax.tree.map(lambda leaf: _padded(leaf, shards, fill), rows)
    # Without the check a loop may begin with values that all shards share and continue with those of one shard.
    mapped = jax.shard_map(stacked, in_specs=in_specs, out_specs=along, check_vma=False)
    return mapped(rows, *shared)


def gather(parts: Shaped[Array, "s w ..."], size: int) -> Shaped[Array, "n ..."]:
    """Returns the values of all rows in one array, from the values of the rows of each shard."""
    return parts.reshape(-1, *parts.shape[2:])[:size]


def top_k(values: Num[Array, " n"], num: int) -> tuple[Num[Array, " num"], Int[Array, " num"]]:
    """Returns the same as `jax.lax.top_k`; only `num` candidates from each shard move.

    Slices of the result are cheap: a barrier keeps XLA from sorting all rows for them.
    """
    if num_shards() == 1:
        largest, rows = jax.lax.top_k(values, num)
    else:
        size = -(-len(values) // num_shards())
        candidates, rows = map_shards(lambda part: tuple(jax.lax.top_k(part, min(num, size))), values, fill=-jnp.inf)
        places = jax.lax.top_k(candidates.reshape(-1), num)[1]
        largest = candidates.reshape(-1)[places]
        rows = global_rows(rows, size).reshape(-1)[places]
    # One by one: the compiler cannot partition a barrier around both.
    return jax.lax.optimization_barrier(largest), jax.lax.optimization_barrier(rows)


def top_k_mask(values: Float[Array, " n"], num: int | Int[Array, ""]) -> Bool[Array, " n"]:
    """Marks the rows that `jax.lax.top_k` returns; only counts move: `num` may be a share of all rows, and traced."""
    # Floats that are read as integers keep their order; those below zero are in reverse order.
    kind = jnp.dtype(f"int{8 * values.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(values, kind)
    bits = jnp.where(bits < 0, bits ^ jnp.iinfo(kind).max, bits)
    limits = jnp.iinfo(kind)
    low = jnp.array(limits.min, kind)
    threshold = _loops.bisect(lambda middle: (bits > middle).sum() < num, low, jnp.array(limits.max, kind))
    above = bits > threshold
    tied = bits == threshold
    return above | (tied & (cumsum(tied.astype(jnp.int32)) <= num - above.sum()))


def take_row(rows: Shaped[Array, "n ..."], row: Int[Array, ""]) -> Shaped[Array, "..."]:
    """Returns `rows[row]` by a gather, which moves that row only; `rows[row]` itself is a slice, and moves all rows."""
    return rows.at[row].get(mode="fill")


def blockwise_sum(
    function: Callable[[PyTree[Shaped[Array, "l b ..."]]], PyTree[Num[Array, "l ..."]]],
    rows: PyTree[Shaped[Array, "n ..."]],
    num_blocks: int = NUM_BLOCKS,
) -> PyTree[Num[Array, "..."]]:
    """Returns the sum of `function` over blocks of rows; zeros follow the last row.

    Blocks are cut from all rows, and their values are added pairwise. The rounding of the sum does not depend on the
    number of shards where the numbers of shards and blocks are powers of two, a shard has two blocks or more, and
    `function` rounds a block in the same way whatever other blocks it receives, as it does by `jax.lax.map`. The sums
    of shards move, and so do rows, fewer than there are blocks, between neighbours whose rows do not end where a block
    does.

    Args:
        function: maps the rows of l blocks [l b ...] to the value of each of them [l ...].
        rows: arrays with one leading axis.
        num_blocks: number of blocks that the rows are cut into.
    """
    blocks = jax.tree.map(lambda leaf: _padded(leaf, num_blocks, 0).reshape(num_blocks, -1, *leaf.shape[1:]), rows)
    return _pairwise_sum(map_shards(lambda part: _pairwise_sum(function(part)), blocks))


def column_sums(values: Float[Array, "n d"]) -> Float[Array, " d"]:
    """Returns `values.sum(axis=0)` by `blockwise_sum`, the same up to rounding for any number of shards.

    For most shapes, such as 200,000 x 32, the compiler sums few blocks in the same way as many, and the result is the
    same to the last bit. For ranking rows a rounding does no harm. Where roundings grow, as in k-means, sum the blocks
    one by one.
    """
    return blockwise_sum(lambda blocks: blocks.sum(axis=1), values)


def replicate(values: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """Returns `values` with a copy on each device, so that a loop need not fetch them."""
    return jax.lax.with_sharding_constraint(values, PartitionSpec())


def segment_sum(values: Num[Array, "n ..."], segments: Int[Array, " n"], num: int) -> Num[Array, "num ..."]:
    """Returns `jax.ops.segment_sum`, rounded as by `blockwise_sum`.

    It uses fewer blocks where the sums of all of them would outnumber the rows.
    """
    num_blocks = min(NUM_BLOCKS, 1 << max(1, len(values) // num).bit_length() - 1)
    # Sums of integers do not round, and need no blocks.
    num_blocks = 1 if jnp.issubdtype(values.dtype, jnp.integer) else num_blocks

    def sums(blocks):
        values, segments = blocks
        first = num * jnp.arange(len(segments), dtype=segments.dtype)[:, None]
        # One sum for all blocks: a CPU takes several times as long for a batch of sums.
        places = jnp.where((segments >= 0) & (segments < num), segments + first, -1)
        rows = values.reshape(-1, *values.shape[2:])
        flat = jax.ops.segment_sum(rows, places.reshape(-1), num * len(segments))
        return flat.reshape(-1, num, *flat.shape[1:])

    return blockwise_sum(sums, (values, segments), max(num_blocks, num_shards()))


def cumsum(values: Int[Array, " n"]) -> Int[Array, " n"]:
    """Returns `jnp.cumsum`; one number from each shard moves."""
    sums = map_shards(jnp.cumsum, values)
    before = jnp.cumsum(sums[:, -1]) - sums[:, -1]
    return gather(sums + before[:, None], len(values))


def nearest_of_shards(
    search: Callable[..., tuple[Float[Array, " q"], Int[Array, " q"]]],
    rows: PyTree[Shaped[Array, "n ..."]],
    *shared: PyTree,
) -> tuple[Float[Array, " q"], Int[Array, " q"]]:
    """Returns the smallest value, and its row, of q searches through the rows; ties go to the lowest row.

    Args:
        search: `search(rows, *shared)` returns the smallest values, and the rows that have them.
        rows: arrays with one leading axis.
        shared: what else `search` takes.
    """
    values, places = map_shards(search, rows, *shared)
    places = global_rows(places, -(-len(jax.tree.leaves(rows)[0]) // len(places)))
    shard = values.argmin(axis=0)[None, :]
    return jnp.take_along_axis(values, shard, axis=0)[0], jnp.take_along_axis(places, shard, axis=0)[0]


class MarkedRows(NamedTuple):
    """The rows that a mask marks, in order.

    Attributes:
        rows: the marked rows of each shard, from its first place on.
        starts: number of marked rows that precede those of each shard.
        num_marked: number of marked rows.
    """

    rows: Int[Array, "s w"]
    starts: Int[Array, " s"]
    num_marked: Int[Array, ""]

    def at(self, places: Int[Array, " k"]) -> Int[Array, " k"]:
        """Returns the marked rows at these places of all of them."""
        shard = (self.starts[None, :] <= places[:, None]).sum(axis=1) - 1
        return self.rows[shard, places - self.starts[shard]]


def marked_rows(mask: Bool[Array, " n"]) -> MarkedRows:
    """Returns the rows that the mask marks."""
    rows = map_shards(lambda part: jnp.nonzero(part, size=len(part), fill_value=0)[0].astype(jnp.int32), mask)
    ends = map_shards(jnp.sum, mask).cumsum()
    starts = jnp.concatenate([jnp.zeros_like(ends[:1]), ends[:-1]])
    return MarkedRows(global_rows(rows, rows.shape[1]), starts, ends[-1])


def pairwise_row_sums(
    function: Callable[[Float[Array, "p d"], Float[Array, "q d"]], tuple[Float[Array, " p"], Float[Array, " q"]]],
    left: Float[Array, "n d"],
    right: Float[Array, "n d"],
    tile: int,
) -> Float[Array, " m"]:
    """Returns each row's sum over all pairs that it is in, tile by tile; the m - n last sums are to be left out.

    Pairs within one shard are computed once for both rows. Between shards both halves are computed, and added in
    another order, so sums differ by a rounding of some 1e-6.

    Args:
        function: maps two tiles to the sums of the rows of each over those of the other; a row of zeros adds nothing.
        left: the rows as the first argument of `function` needs them.
        right: the same rows as the second argument needs them.
        tile: rows of a tile, at most.
    """
    return (_sums_of_pairs if num_shards() == 1 else _sums_around)(function, left, right, tile)


def global_rows(rows: Int[Array, "s k"], size: int) -> Int[Array, "s k"]:
    """Returns rows [s k], numbered within shards of `size` rows, as rows of the whole."""
    return rows + size * jnp.arange(len(rows), dtype=rows.dtype)[:, None]


def _sums_of_pairs(function, left, right, tile):
    num_tiles = -(-len(left) // tile)
    left, right = (_tiled(side, num_tiles, -(-len(side) // num_tiles)) for side in (left, right))

    def add_tile(sums, pair):
        """Adds a tile off the diagonal for itself and for its mirror image."""
        i, j = pair
        of_left, of_right = function(left[i], right[j])
        return sums.at[i].add(of_left).at[j].add(jnp.where(i == j, 0, of_right)), None

    return _loops.scan(add_tile, jnp.zeros(left.shape[:2], left.dtype), jnp.triu_indices(num_tiles))[0].reshape(-1)


def _sums_around(function, left, right, tile):
    """Returns sums as `_sums_of_pairs` does: each shard hands its tiles on until all shards have seen them."""
    shards = num_shards()
    following = [(shard, (shard + 1) % shards) for shard in range(shards)]

    def sums_of_shard(sides):
        size = len(sides[0])
        num_tiles = -(-size // tile)
        left, right = (_tiled(side, num_tiles, -(-size // num_tiles)) for side in sides)

        def compare(_, carry):
            sums, visiting = carry
            sums += jax.lax.map(lambda rows: function(rows, visiting)[0], left)
            return sums, jax.lax.ppermute(visiting, _axis.get(), following)

        def add_tile(sums, visiting):
            return _loops.fori_loop(0, shards, compare, (sums, visiting))[0], None

        return _loops.scan(add_tile, jnp.zeros(left.shape[:2], left.dtype), right)[0].reshape(-1)[:size]

    return gather(map_shards(sums_of_shard, (left, right)), len(left))


def _tiled(rows, num_tiles, size):
    return jnp.pad(rows, ((0, num_tiles * size - len(rows)), (0, 0))).reshape(num_tiles, size, -1)


def _mesh_of(arrays):
    """Returns the mesh with Explicit axes where there is one, otherwise that of the context."""
    context = jax.sharding.get_abstract_mesh()
    meshes = [mesh for mesh in (context, *(jax.typeof(array).sharding.mesh for array in arrays)) if not mesh.empty]
    explicit = [mesh for mesh in meshes if mesh.explicit_axes]
    if explicit and len(set(meshes)) > 1:
        raise ValueError(
            f"the arrays, or the program around them, are on several meshes, {_described(meshes)}; expected one: place "
            "the arrays on the mesh of `jax.set_mesh`, and pass those that a `shard_map` needs to it as arguments."
        )
    return explicit[0] if explicit else context


def _described(meshes):
    descriptions = (
        ", ".join(
            f"{name}={size} {kind.name}" for (name, size), kind in zip(mesh.shape.items(), mesh.axis_types, strict=True)
        )
        for mesh in meshes
    )
    return " and ".join(f"({description})" for description in dict.fromkeys(descriptions))


def _axes_of_dims(dims):
    """Returns the axis along which each dimension is sharded, by its name."""
    axes: dict[str, str | tuple[str, ...]] = {}
    for array, names in dims:
        for name, axis in zip(names, jax.typeof(array).sharding.spec, strict=True):
            if axis is not None:
                axes.setdefault(name, axis)
    return axes


def _on_whole_rows(function, arrays, out_specs):
    """Calls the function where a caller's `shard_map` has left some axes of the mesh to the compiler.

    A loop may end sooner in one shard than in another, and an exchange inside it would wait for all devices.
    """
    mesh = jax.sharding.get_abstract_mesh()
    whole = jax.sharding.reshard(arrays, PartitionSpec()) if mesh.explicit_axes else arrays
    values = jax.shard_map(function, in_specs=PartitionSpec(), out_specs=PartitionSpec())(whole)
    return jax.sharding.reshard(values, out_specs) if mesh.explicit_axes else values


def _spec_of(axes, names):
    """Returns the sharding of an array whose dimensions have these names; an axis shards one dimension at most."""
    spec = []
    used: set[str] = set()
    for name in names:
        axis = axes.get(name)
        is_free = axis is not None and not used & set(_names(axis))
        spec.append(axis if is_free else None)
        used |= set(_names(axis)) if is_free else set()
    return PartitionSpec(*spec)


def _names(axis):
    return axis if isinstance(axis, tuple) else (axis,)


def _padded(rows, multiple, fill):
    missing = -len(rows) % multiple
    return jnp.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1), constant_values=fill) if missing else rows


def _pairwise_sum(parts):
    while len(jax.tree.leaves(parts)[0]) > 1:
        parts = jax.tree.map(lambda leaf: _padded(leaf, 2, 0), parts)
        parts = jax.tree.map(lambda leaf: leaf[::2] + leaf[1::2], parts)
    return jax.tree.map(lambda leaf: leaf[0], parts)
