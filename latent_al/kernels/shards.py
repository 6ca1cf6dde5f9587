"""The rows of a pool over several devices: each kernel stays one function, and placement is the caller's.

Where the caller has set a mesh that has an axis `POOL`, by `jax.set_mesh`, rows lie along that axis. The compiler
partitions what is said of all rows at once. What it would gather the rows for, such as a sort or a loop over tiles, is
said of one shard, by `by_shard`. Elsewhere, and inside a caller's own `shard_map`, there is one shard, all rows.

A `vmap` over an axis that is itself sharded names it: `jax.vmap(..., spmd_axis_name="seeds")`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Num, PyTree, Shaped

POOL = "pool"
"""The axis of the mesh along which the rows of the pool lie."""

BLOCKS = 64
"""Parts of the rows that are summed by themselves, whole ones in each shard where shards are a power of two."""


def num_shards() -> int:
    """Parts of which each device, or group of devices, has one: 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if POOL in mesh.manual_axes else mesh.shape.get(POOL, 1)


def by_shard(
    function: Callable[..., PyTree], rows: PyTree[Shaped[Array, "n ..."]], *shared: PyTree, fill: float = 0
) -> PyTree:
    """What `function(rows of the shard, *shared)` gives for each shard: [s ...], stacked.

    Each shard has ceil(n / s) rows, in order.

    Args:
        fill: of rows that the last shards lack.
    """
    shards = num_shards()

    def stacked(rows, *shared):
        return jax.tree.map(lambda each: each[None], function(rows, *shared))

    if shards == 1:
        return stacked(rows, *shared)
    own, whole = PartitionSpec(POOL), PartitionSpec()
    rows = jax.tree.map(lambda each: _padded(each, shards, fill), rows)
    # Without the check a loop may begin with what all shards share and go on with what is the shard's own.
    mapped = jax.shard_map(stacked, in_specs=(own, *[whole] * len(shared)), out_specs=own, check_vma=False)
    return mapped(rows, *shared)


def joined(parts: Shaped[Array, "s w ..."], size: int) -> Shaped[Array, "n ..."]:
    """Values of rows, from those of each shard's."""
    return parts.reshape(-1, *parts.shape[2:])[:size]


def highest(values: Num[Array, " n"], num: int) -> tuple[Num[Array, " num"], Int[Array, " num"]]:
    """`jax.lax.top_k`, of which only `num` candidates of each shard move.

    Slices of it are cheap: a barrier keeps XLA from sorting all rows for them.
    """
    if num_shards() == 1:
        found = jax.lax.top_k(values, num)
    else:
        size = -(-len(values) // num_shards())
        best, rows = by_shard(lambda own: tuple(jax.lax.top_k(own, min(num, size))), values, fill=-jnp.inf)
        rows = rows + size * jnp.arange(num_shards(), dtype=rows.dtype)[:, None]
        place = jax.lax.top_k(best.reshape(-1), num)[1]
        found = best.reshape(-1)[place], rows.reshape(-1)[place]
    # One by one: of a barrier about both the compiler makes something that it cannot partition.
    return tuple(map(jax.lax.optimization_barrier, found))


def is_highest(values: Float[Array, " n"], num: int) -> Bool[Array, " n"]:
    """Marks the rows that `jax.lax.top_k` gives, of which only counts move: `num` may be a share of all rows."""
    # Floats read as integers are in order, those below zero in the reverse one.
    kind = jnp.dtype(f"int{8 * values.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(values, kind)
    bits = jnp.where(bits < 0, bits ^ jnp.iinfo(kind).max, bits)

    def halve(_, bracket):
        low, high = bracket
        middle = (low & high) + ((low ^ high) >> 1)
        enough = (bits >= middle).sum() >= num
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    bracket = jnp.array(jnp.iinfo(kind).min, kind), jnp.array(jnp.iinfo(kind).max, kind)
    lowest, _ = jax.lax.fori_loop(0, jnp.iinfo(kind).bits, halve, bracket)
    above, tied = bits > lowest, bits == lowest
    return above | (tied & (running_sum(tied.astype(jnp.int32)) <= num - above.sum()))


def at_row(rows: Shaped[Array, "n ..."], row: Int[Array, ""]) -> Shaped[Array, "..."]:
    """`rows[row]`, of which that row alone moves: of a slice, which `rows[row]` is, all rows would."""
    return rows.at[row].get(mode="fill")


def added(
    function: Callable[[PyTree[Shaped[Array, "l b ..."]]], PyTree[Num[Array, "l ..."]]],
    rows: PyTree[Shaped[Array, "n ..."]],
    num_blocks: int = BLOCKS,
) -> PyTree[Num[Array, "..."]]:
    """The sum of what `function` gives of each of the blocks of rows; zeros follow the last row.

    Blocks are those of all rows, and two are added at a time: how the sum is rounded does not depend on the number of
    shards, where both are powers of two, a shard has two blocks or more, and `function` rounds a block alike whatever
    others it is given: by `jax.lax.map` it does. What moves are the sums of shards, and rows, fewer than there are
    blocks, between neighbours whose rows do not end where a block does.
    """
    blocks = jax.tree.map(lambda each: _padded(each, num_blocks, 0).reshape(num_blocks, -1, *each.shape[1:]), rows)
    return _added(by_shard(lambda own: _added(function(own)), blocks))


def total(values: Float[Array, "n d"]) -> Float[Array, " d"]:
    """`values.sum(axis=0)`, as `added` rounds it where the compiler sums few blocks as it sums many.

    It does so for most shapes, among them 200,000 x 32; for others a sum may differ by a rounding, which is enough for
    what only ranks rows. Where roundings grow, as in k-means, the order of a sum has to be said.
    """
    return added(lambda own: own.sum(axis=1), values)


def on_each_shard(values: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """`values`, all of which each device is to have, so that a loop need not fetch them."""
    return jax.lax.with_sharding_constraint(values, PartitionSpec())


def segment_sum(values: Num[Array, "n ..."], segments: Int[Array, " n"], num: int) -> Num[Array, "num ..."]:
    """`jax.ops.segment_sum`, as `added` rounds it, of fewer blocks where the sums of all would outnumber the rows."""
    num_blocks = min(BLOCKS, 1 << max(1, len(values) // num).bit_length() - 1)
    # What does not round needs no blocks.
    num_blocks = 1 if jnp.issubdtype(values.dtype, jnp.integer) else num_blocks

    def sums(own):
        values, segments = own
        first = num * jnp.arange(len(segments), dtype=segments.dtype)[:, None]
        # One sum for all blocks: a CPU takes several times as long for a batch of sums.
        places = jnp.where((segments >= 0) & (segments < num), segments + first, -1)
        found = jax.ops.segment_sum(values.reshape(-1, *values.shape[2:]), places.reshape(-1), num * len(segments))
        return found.reshape(-1, num, *found.shape[1:])

    return added(sums, (values, segments), max(num_blocks, num_shards()))


def running_sum(values: Int[Array, " n"]) -> Int[Array, " n"]:
    """`jnp.cumsum`, of which one number of each shard moves."""
    sums = by_shard(jnp.cumsum, values)
    before = jnp.cumsum(sums[:, -1]) - sums[:, -1]
    return joined(sums + before[:, None], len(values))


def _padded(rows, multiple, fill):
    missing = -len(rows) % multiple
    return jnp.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1), constant_values=fill) if missing else rows


def _added(parts):
    while len(jax.tree.leaves(parts)[0]) > 1:
        parts = jax.tree.map(lambda each: _padded(each, 2, 0), parts)
        parts = jax.tree.map(lambda each: each[::2] + each[1::2], parts)
    return jax.tree.map(lambda each: each[0], parts)
