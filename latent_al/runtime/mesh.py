"""The mesh of devices of a run: its seeds lie along one axis, the rows of its pool along another."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import joblib
import numpy as np
import psutil
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree
from threadpoolctl import threadpool_limits

from latent_al.kernels._sharding import POOL
from latent_al.runtime import control_groups
from latent_al.runtime.processes import is_first
from latent_al.types import BadInput

SEEDS = "seeds"
"""The axis of a mesh that seeds are spread over."""

BLOCK = 2**16
"""Rows that are replicated at a time on their way to the first process."""

Tree = TypeVar("Tree")


@partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["size"])
@dataclass(frozen=True)
class Rows:
    """Values of the rows of the pool, spread over the devices of a mesh in equal shares.

    values: [m ...]: the first `size` are those of the rows, and the rest is padding to equal shares.
    """

    values: Any
    size: int

    def __len__(self):
        return self.size


def split_cpu() -> None:
    """Has JAX make a device of each core that this process may use, if it computes on a CPU and was not told otherwise.

    If JAX has already computed something, such as for a config file, its devices stay as they are.

    On one device, the small networks of many seeds leave cores idle. BLAS then gets one thread: with several, devices
    would wait for each other. The thread pool gets two threads per device: LAPACK on a batch of matrices holds one
    until others have done the work (as in jaxlib 0.10.2), and with one per device all would wait for ever.
    """
    told = re.search(r"host_platform_device_count=(\d+)", os.environ.get("XLA_FLAGS", ""))
    num_told = max(int(told[1]) if told else 0, jax.config.jax_num_cpu_devices)
    os.environ.setdefault("PJRT_NPROC", str(2 * max(num_told, joblib.cpu_count())))
    if num_told > 0:
        return
    try:
        jax.config.update("jax_num_cpu_devices", joblib.cpu_count())
    except RuntimeError:
        return
    if jax.default_backend() == "cpu":
        # The limit applies only to libraries that are loaded; JAX calls this one's LAPACK.
        import scipy.linalg  # noqa: F401

        threadpool_limits(1, user_api="blas")


def make_mesh(spec: Mapping[str, int] | None, blocks: list[list[int]]) -> Mesh | None:
    """Returns the mesh that `config.mesh` asks for, such as `dict(seeds=2, pool=4)`; None for one device.

    Without a spec one process spreads its seeds over as many devices as share them evenly.

    Args:
        spec: devices along each of the axes `seeds` and `pool`; 1 along an axis not named. Several processes use
            all devices, by default all along `pool`.
        blocks: the seeds that run side by side.

    Raises:
        BadInput: another axis, a size below 1, more devices than there are or, with several processes, fewer; a block
            that they do not share evenly.
    """
    devices = jax.devices()
    is_one_of_several = jax.process_count() > 1
    if spec is None:
        spec = {POOL: len(devices)} if is_one_of_several else {SEEDS: _sharing(len(devices), blocks)}
        if spec == {SEEDS: 1}:
            return None
    sizes = dict(spec)
    has_axes = bool(sizes) and sizes.keys() <= {SEEDS, POOL}
    if not has_axes or any(not isinstance(size, int) or size < 1 for size in sizes.values()):
        raise BadInput(
            f"mesh is {sizes}; expected {SEEDS}, {POOL} or both, 1 or more each, as in dict({SEEDS}=2, {POOL}=4)."
        )
    shape = (sizes.get(SEEDS, 1), sizes.get(POOL, 1))
    num = shape[0] * shape[1]
    if num > len(devices):
        raise BadInput(
            f"mesh {sizes} needs {num} devices but there are {len(devices)} of {devices[0].platform}; make the mesh "
            "smaller."
        )
    if is_one_of_several and num < len(devices):
        raise BadInput(
            f"mesh {sizes} has {num} devices but the {jax.process_count()} processes have {len(devices)}, and each "
            "takes part with all of its own; make the mesh larger, or leave it out."
        )
    uneven = next((len(block) for block in blocks if len(block) % shape[0]), None)
    if uneven:
        raise BadInput(
            f"{uneven} seeds run side by side, which {shape[0]} devices do not share evenly; make num_seeds and "
            f"seeds_at_once multiples of {shape[0]}, or change mesh.seeds."
        )
    mesh = Mesh(np.array(devices[:num]).reshape(shape), (SEEDS, POOL))
    if is_one_of_several:
        _connect(mesh)
    return mesh


def _sharing(num_devices, blocks):
    """Returns the most devices that share the seeds of each block evenly."""
    return max(num for num in range(1, num_devices + 1) if all(len(block) % num == 0 for block in blocks))


def over_seeds(
    function: Callable,
    in_axes: Any,
    out_axes: Any = 0,
    *,
    mesh: Mesh | None = None,
    stays: Callable = lambda output: output,
) -> Callable:
    """Returns `function` compiled, and batched over seeds.

    On a mesh each device has its share of the seeds, and none of their data moves to another. `Rows` among the
    arguments reach `function` without their padding.

    Args:
        function: of one seed.
        in_axes: a tuple with an entry for each argument, as `jax.vmap` takes it; see `types.ROUND_AXES`.
        out_axes: as `jax.vmap` takes them.
        mesh: of the run.
        stays: applied to the output of `function` where the rows of the pool lie on several devices, so that values of
            rows stay there.
    """
    batched = jax.vmap(function, in_axes=in_axes, out_axes=out_axes)
    if mesh is None:
        return jax.jit(batched)
    if has_pool(mesh):
        return jax.jit(_over_seeds_and_rows(function, in_axes, out_axes, mesh, stays))
    # Left to itself the compiler would gather all seeds for the loops that process them one after the other.
    specs = {"in_specs": _specs(in_axes), "out_specs": _specs(out_axes)}
    return jax.jit(jax.shard_map(batched, mesh=mesh, check_vma=False, **specs))


def over_rows(function: Callable, size: int, mesh: Mesh | None) -> Callable:
    """Returns `function` compiled; where the pool's rows lie on several devices, outputs of `size` rows stay there."""
    if not has_pool(mesh):
        return jax.jit(function)

    def run(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return with_padding(function(*map(without_padding, args)), size, mesh)

    return jax.jit(run)


def available_memory(device: jax.Device) -> float:
    """Returns the available bytes: the process's if the device is its CPU, infinite if it does not report them."""
    if device.platform == "cpu":
        return min(float(psutil.virtual_memory().available), control_groups.memory_left())
    stats = device.memory_stats()
    return float(stats["bytes_limit"] - stats["bytes_in_use"]) if stats else inf


def place(tree: Tree, mesh: Mesh | None) -> Tree:
    """Returns the arrays of `tree` replicated on the mesh, or on the one device, so that no round has to move them.

    A `jax.ShapeDtypeStruct` in their place is given its sharding, here and in `place_rows` and `repeat`.
    """
    if mesh is None:
        return jax.tree.map(lambda leaf: leaf if _is_shape(leaf) else jax.device_put(_in_memory(leaf)), tree)
    return jax.tree.map(lambda leaf: _put(leaf, leaf.shape, mesh, PartitionSpec()), tree)


def place_rows(tree: Tree, mesh: Mesh | None) -> Tree:
    """Returns the arrays of `tree` as `Rows`, sharded by their leading axis; `place(tree)` where nothing shards rows.

    From an array that is read when sliced, such as a `numpy.memmap`, a process reads the shares of its own devices.
    """
    if not has_pool(mesh):
        return place(tree, mesh)

    def shard(leaf):
        padded = len(leaf) + -len(leaf) % mesh.shape[POOL]
        return Rows(_put(leaf, (padded, *leaf.shape[1:]), mesh, PartitionSpec(POOL)), len(leaf))

    return jax.tree.map(shard, tree)


def on_one_device(tree: Tree, mesh: Mesh | None) -> Tree:
    """Returns the replicated arrays of `tree` on one of their devices, so that what follows is computed once."""
    return tree if mesh is None else jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def has_pool(mesh: Mesh | None) -> bool:
    """Returns whether the rows of the pool lie on several devices."""
    return mesh is not None and mesh.shape[POOL] > 1


def without_padding(tree: PyTree) -> PyTree:
    """Returns `tree`, inside jit, with the rows themselves in place of each `Rows`."""
    return jax.tree.map(lambda leaf: leaf.values[: leaf.size] if _is_rows(leaf) else leaf, tree, is_leaf=_is_rows)


def with_padding(tree: PyTree, size: int, mesh: Mesh) -> PyTree:
    """Returns `tree`, inside jit, with `Rows` in place of each array of `size` rows."""
    missing = -size % mesh.shape[POOL]

    def pad(leaf):
        if leaf.shape[:1] != (size,):
            # Otherwise a constant would lie on one device.
            return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, PartitionSpec()))
        padded = jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1))
        return Rows(jax.lax.with_sharding_constraint(padded, NamedSharding(mesh, PartitionSpec(POOL))), size)

    return jax.tree.map(pad, tree)


def gather(tree: Tree) -> Tree:
    """Returns the arrays of `tree` in the memory of every process, whatever devices hold them; `Rows` unpadded."""

    def gather_leaf(leaf):
        if _is_rows(leaf):
            return gather_leaf(leaf.values)[: leaf.size]
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
            return jax.device_get(leaf)
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(gather_leaf, tree, is_leaf=_is_rows)


def gather_on_first(tree: Tree) -> Tree:
    """Returns `gather(tree)`, but `Rows` only in the memory of the first process, block by block; None in the others.

    Arrays on no device, but in memory or on disk, stay as they are.
    """

    def gather_leaf(leaf):
        if not _is_rows(leaf):
            return gather(leaf) if isinstance(leaf, jax.Array) else leaf
        if leaf.values.is_fully_addressable:
            return gather(leaf)
        return _gather_blocks(leaf)

    return jax.tree.map(gather_leaf, tree, is_leaf=_is_rows)


def _gather_blocks(rows):
    block = min(BLOCK, len(rows))
    replicated = NamedSharding(rows.values.sharding.mesh, PartitionSpec())
    cut = jax.jit(lambda values, start: jax.lax.dynamic_slice_in_dim(values, start, block), out_shardings=replicated)
    whole = np.empty((len(rows), *rows.values.shape[1:]), rows.values.dtype) if is_first() else None
    for start in range(0, len(rows), block):
        # The last block begins early enough to be as long as those before.
        start = min(start, len(rows) - block)
        part = cut(rows.values, start)
        if whole is not None:
            whole[start : start + block] = part
    return whole


def _over_seeds_and_rows(function, in_axes, out_axes, mesh, stays):
    def of_seed(*args):
        return stays(function(*map(without_padding, args)))

    batched = jax.vmap(of_seed, in_axes=in_axes, out_axes=out_axes, spmd_axis_name=SEEDS)

    def of_all(*args):
        args = _where_batched(partial(_by_seed, mesh=mesh), in_axes, args)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return batched(*args)

    return of_all


def _specs(axes):
    """Returns the partition specs of what `jax.vmap` batches along `axes`."""
    if isinstance(axes, tuple):
        return _rebuild(axes, [_specs(axis) for axis in axes])
    return PartitionSpec() if axes is None else PartitionSpec(SEEDS)


def _where_batched(function, axes, tree):
    """Returns `tree` with `function` applied to the subtrees that `jax.vmap` batches along `axes`."""
    if isinstance(axes, tuple):
        return _rebuild(tree, [_where_batched(function, axis, part) for axis, part in zip(axes, tree, strict=True)])
    return tree if axes is None else function(tree)


def _rebuild(like, parts):
    return type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)


def _by_seed(tree, mesh):
    """Returns the arrays of `tree` over the devices along `seeds`, their other axes as they are."""

    def constrain(leaf):
        spec = PartitionSpec(SEEDS, *[PartitionSpec.UNCONSTRAINED] * (leaf.ndim - 1))
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(constrain, tree)


def _connect(mesh):
    """Has the devices of each axis connect now, while all processes are at this line.

    Later, one process may compile for longer than another, and some CPU collectives wait no longer than half a minute.
    """
    for axes in ((SEEDS, POOL), (SEEDS,), (POOL,)):
        total = jax.shard_map(
            partial(jax.lax.psum, axis_name=axes), mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec()
        )
        jax.block_until_ready(jax.jit(total)(np.zeros(1)))


def _is_rows(leaf):
    return isinstance(leaf, Rows)


def _is_shape(leaf):
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _in_memory(leaf):
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def _put(array, shape, mesh, spec):
    """Returns `array` with zeros up to `shape`; a process reads only the part that its own devices are to hold."""
    sharding = NamedSharding(mesh, spec)
    if _is_shape(array):
        return jax.ShapeDtypeStruct(shape, array.dtype, sharding=sharding)
    if isinstance(array, jax.Array) and array.sharding == sharding:
        return array

    def part(index):
        values = np.asarray(array[index])
        wanted = tuple(len(range(*cut.indices(size))) for cut, size in zip(index, shape, strict=True))
        if values.shape == wanted:  # np.pad refuses a scalar.
            return values
        return np.pad(values, [(0, size - have) for size, have in zip(wanted, values.shape, strict=True)])

    # One by one, so that no more than one device's part is in memory twice.
    parts = [
        jax.block_until_ready(jax.device_put(part(index), device))
        for device, index in sharding.addressable_devices_indices_map(shape).items()
    ]
    return jax.make_array_from_single_device_arrays(shape, sharding, parts)
