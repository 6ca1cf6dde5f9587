"""Every kernel on eight devices as users have them: meshes of all kinds, a caller's `shard_map`, and `vmap`.

Results are those of one device: rows to the last one, floats to a rounding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from kernel_cases import CASES, POINTS, SCORES, TAKEN, VARIANTS, cast
from kernel_references import NUM, N

from latent_al import kernels

DEVICES = 8
EXPLICIT, AUTO = AxisType.Explicit, AxisType.Auto
KEY = jax.random.key(3)
ALL = CASES | VARIANTS
SOME = ("badge", "cover", "euclidean_density", "greedy_diverse closure", "random_partitions", "squared_distances")
"""Together they pass through all that is done shard by shard, and take few seconds to compile."""
SLOW_BUT_SOME = [case if case in SOME else pytest.param(case, marks=pytest.mark.slow) for case in ALL]


def bound(name):
    """Returns the kernel as a function of its arrays alone, and these."""
    case = ALL[name]
    arrays = jax.tree.map(jnp.asarray, cast(case, np.float32))
    if not case.is_random:
        return case.call, arrays
    return lambda key, **rest: case.call(key, **rest), arrays | dict(key=KEY)


def anything(leaf):
    return True


def nothing(leaf):
    return False


def is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def is_no_key(leaf):
    return not is_key(leaf)


def shifted(arrays, shift, varies=anything):
    """Returns another pool of the same shapes, and another key, where the `shift` is not 0 and an array `varies`."""

    def shift_leaf(leaf):
        if not shift or not varies(leaf):
            return leaf
        if is_key(leaf):
            return jax.random.fold_in(leaf, shift)
        axes = tuple(axis for axis, size in enumerate(leaf.shape) if size == N)
        return jnp.roll(leaf, (shift,) * len(axes), axes)

    return jax.tree.map(shift_leaf, arrays)


@functools.cache
def compiled(case):
    function, _ = bound(case)
    return jax.jit(lambda arrays: function(**arrays))


@functools.cache
def on_one_device(case, shift=0, varies=anything):
    return jax.tree.map(np.asarray, compiled(case)(shifted(bound(case)[1], shift, varies)))


def mesh_of(kind, **sizes):
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(kind,) * len(sizes))


def place(arrays, mesh, *axes):
    """Places what has rows along the axes, its dimensions from that of the rows on, and leaves the rest where it is."""

    def place_leaf(leaf):
        if is_key(leaf) or N not in leaf.shape:
            return leaf
        before = [None] * leaf.shape.index(N)
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*[*before, *axes][: leaf.ndim])))

    return jax.tree.map(place_leaf, arrays)


def assert_same(result, expected):
    for leaf, reference in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        if reference.dtype.kind == "f":
            np.testing.assert_allclose(leaf, reference, rtol=2e-4, atol=2e-5)
        else:
            np.testing.assert_array_equal(leaf, reference)


def assert_sharded(result, axis):
    """Checks that results lie as the rows do where they are of rows, and are replicated where not."""
    for leaf in jax.tree.leaves(result):
        expected = (axis if leaf.shape[:1] == (N,) else None, *[None] * (leaf.ndim - 1))
        assert tuple(jax.typeof(leaf).sharding.spec) == expected[: leaf.ndim]


@pytest.mark.parametrize(
    "is_set", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["set_mesh and jit", "eager"]
)
@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in VARIANTS)])
def test_explicit_axes_of_any_name(case, is_set):
    mesh = mesh_of(EXPLICIT, examples=DEVICES)
    function, arrays = bound(case)
    arrays = place(arrays, mesh, "examples")
    if is_set:
        with jax.set_mesh(mesh):
            result = jax.jit(lambda arrays: function(**arrays))(arrays)
    else:
        result = function(**arrays)
    assert_same(result, on_one_device(case))
    assert_sharded(result, "examples")


@pytest.mark.parametrize("case", SLOW_BUT_SOME)
def test_auto_axes(case):
    mesh = mesh_of(AUTO, pool=DEVICES)
    function, arrays = bound(case)
    with jax.set_mesh(mesh):
        assert_same(jax.jit(lambda arrays: function(**arrays))(place(arrays, mesh, "pool")), on_one_device(case))


MESHES = {
    "explicit pool": (mesh_of(EXPLICIT, pool=DEVICES), ("pool",)),
    "explicit rows along data": (mesh_of(EXPLICIT, data=4, model=2), ("data",)),
    "explicit rows along both": (mesh_of(EXPLICIT, data=4, model=2), (("data", "model"),)),
    "explicit features": (mesh_of(EXPLICIT, data=4, model=2), ("data", "model")),
    "explicit replicated": (mesh_of(EXPLICIT, pool=DEVICES), (None,)),
    "auto rows": (mesh_of(AUTO, rows=DEVICES), ("rows",)),
    "auto features": (mesh_of(AUTO, pool=4, model=2), ("pool", "model")),
}


# Of eager calls the checks of values differ, and those most where dimensions are sharded too.
WAYS = [(label, True) for label in MESHES] + [("explicit features", False)]
SLOW_WAYS = [(label, False) for label in MESHES if label != "explicit features"]


@pytest.mark.parametrize(
    ("label", "is_compiled"), [*WAYS, *(pytest.param(*way, marks=pytest.mark.slow) for way in SLOW_WAYS)]
)
@pytest.mark.parametrize("case", SOME)
def test_meshes_of_all_kinds(case, label, is_compiled):
    mesh, axes = MESHES[label]
    function, arrays = bound(case)
    arrays = place(arrays, mesh, *axes)
    result = jax.jit(lambda arrays: function(**arrays))(arrays) if is_compiled else function(**arrays)
    assert_same(result, on_one_device(case))
    if label.startswith("explicit"):
        assert_sharded(result, axes[0])


def in_shard_map(case, mesh, axis, varies):
    """Returns the results of a kernel in each shard of a caller's `shard_map` over one axis of the mesh.

    What `varies` is true of is another array in each shard; the rest is the same in all.
    """
    function, arrays = bound(case)
    is_varying = jax.tree.map(varies, arrays)
    specs = jax.tree.map(lambda varying: PartitionSpec(axis) if varying else PartitionSpec(), is_varying)
    shards = [shifted(arrays, shift, varies) for shift in range(mesh.shape[axis])]
    stacked = jax.tree.map(lambda varying, *leaves: jnp.stack(leaves) if varying else leaves[0], is_varying, *shards)
    placed = jax.tree.map(lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec)), stacked, specs)

    def of_shard(arrays):
        result = function(**jax.tree.map(lambda varying, leaf: leaf[0] if varying else leaf, is_varying, arrays))
        return result if varies is nothing else jax.tree.map(lambda leaf: leaf[None], result)

    out_specs = PartitionSpec() if varies is nothing else PartitionSpec(axis)
    mapped = jax.shard_map(of_shard, mesh=mesh, in_specs=(specs,), out_specs=out_specs, axis_names={axis})
    with jax.set_mesh(mesh):
        return jax.tree.map(np.asarray, jax.jit(mapped)(placed))


def assert_same_in_shards(result, case, varies=anything):
    for shard in range(2):
        of_shard = jax.tree.map(lambda leaf, shard=shard: np.asarray(leaf)[shard], result)
        assert_same(of_shard, on_one_device(case, shard, varies))


@pytest.mark.parametrize("case", SLOW_BUT_SOME)
def test_inside_a_shard_map_in_which_all_varies(case):
    mesh = jax.make_mesh((2,), ("parts",))
    assert_same_in_shards(in_shard_map(case, mesh, "parts", anything), case)


@pytest.mark.parametrize("case", SLOW_BUT_SOME)
def test_inside_a_shard_map_in_which_nothing_varies(case):
    """The result does not vary either: `out_specs` may say so."""
    mesh = jax.make_mesh((2,), ("parts",))
    assert_same(in_shard_map(case, mesh, "parts", nothing), on_one_device(case))


@pytest.mark.parametrize("varies", [is_key, pytest.param(is_no_key, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", [name for name, case in CASES.items() if case.is_random])
def test_inside_a_shard_map_in_which_keys_or_pools_vary(case, varies):
    """As in a run of several seeds on one pool, and of one seed on several pools."""
    mesh = jax.make_mesh((2,), ("parts",))
    assert_same_in_shards(in_shard_map(case, mesh, "parts", varies), case, varies)


@pytest.mark.parametrize("kind", [EXPLICIT, AUTO])
@pytest.mark.parametrize("case", [*SOME, pytest.param("draw_and_match", marks=pytest.mark.slow)])
def test_inside_a_shard_map_over_one_axis_of_two(case, kind):
    """Loops end apart in the two parts: one that waited inside its loop for the other would wait for ever."""
    mesh = mesh_of(kind, parts=2, pool=4)
    assert_same_in_shards(in_shard_map(case, mesh, "parts", anything), case)


@pytest.mark.parametrize(("case", "axis"), [("top_k", None), ("entropy", "rows")])
def test_rows_along_the_axis_that_a_shard_map_leaves(case, axis):
    mesh = mesh_of(EXPLICIT, parts=2, rows=4)
    function, arrays = bound(case)
    shardings = []

    def of_shard(arrays):
        result = function(**arrays)
        shardings.append(jax.typeof(result).sharding.spec)
        return result

    specs = dict(in_specs=PartitionSpec(), out_specs=PartitionSpec(), axis_names={"parts"})
    with jax.set_mesh(mesh):
        result = jax.jit(jax.shard_map(of_shard, mesh=mesh, **specs))(place(arrays, mesh, "rows"))
    assert_same(result, on_one_device(case))
    assert set(shardings) == {PartitionSpec(axis)}


@pytest.mark.parametrize("rows", [None, "rows"])
@pytest.mark.parametrize("case", SOME)
def test_vmap_over_an_axis_that_is_sharded(case, rows):
    function, arrays = bound(case)
    mesh = mesh_of(EXPLICIT, seeds=2, rows=4)

    def place_both(*leaves):
        has_rows = not is_key(leaves[0]) and leaves[0].shape[:1] == (N,)
        spec = PartitionSpec("seeds", rows) if has_rows else PartitionSpec("seeds")
        return jax.device_put(jnp.stack(leaves), NamedSharding(mesh, spec))

    batch = jax.tree.map(place_both, shifted(arrays, 0), shifted(arrays, 1))
    with jax.set_mesh(mesh):
        result = jax.jit(jax.vmap(lambda arrays: function(**arrays)))(batch)
    assert {jax.typeof(leaf).sharding.spec[0] for leaf in jax.tree.leaves(result)} == {"seeds"}
    assert_same_in_shards(result, case)


@pytest.mark.parametrize("is_compiled", [True, False], ids=["jit", "eager"])
def test_distances_close_over_arrays_of_the_mesh(is_compiled):
    def select(scores, points, taken, offsets):
        def distance(points, point):
            return jnp.abs(points - point[None, :]).sum(axis=1) + offsets

        return kernels.greedy_diverse(scores, points, taken, NUM, distance=distance, weight=0.5)

    arrays = jnp.float32(SCORES), jnp.float32(POINTS), jnp.array(TAKEN), jnp.exp(jnp.float32(SCORES))
    placed = place(arrays, mesh_of(EXPLICIT, rows=DEVICES), "rows")
    assert_same((jax.jit(select) if is_compiled else select)(*placed), np.asarray(select(*arrays)))


def test_raw_keys_beside_explicit_axes():
    placed = place(dict(scores=jnp.float32(SCORES), taken=jnp.array(TAKEN)), mesh_of(EXPLICIT, rows=DEVICES), "rows")
    rows = kernels.random_partitions(jax.random.key_data(KEY), **placed, num=NUM)
    assert_same(rows, on_one_device("random_partitions"))


@pytest.mark.parametrize("top_k", [kernels.top_k, jax.jit(kernels.top_k, static_argnums=2)], ids=["eager", "jit"])
def test_arrays_of_two_meshes_are_refused(top_k):
    scores = place(jnp.float32(SCORES), mesh_of(EXPLICIT, rows=DEVICES), "rows")
    taken = place(jnp.array(TAKEN), mesh_of(EXPLICIT, examples=DEVICES), "examples")
    with pytest.raises(ValueError, match=r"meshes, \(rows=8 Explicit\) and \(examples=8 Explicit\); expected one"):
        top_k(scores, taken, NUM)


def test_arrays_that_a_shard_map_closes_over_are_refused():
    mesh = mesh_of(EXPLICIT, rows=DEVICES)
    scores = place(jnp.float32(SCORES), mesh, "rows")
    specs = dict(in_specs=PartitionSpec(), out_specs=PartitionSpec())
    mapped = jax.shard_map(lambda taken: kernels.top_k(scores, taken, NUM), mesh=mesh, **specs)
    with pytest.raises(ValueError, match="pass those that a `shard_map` needs to it as arguments"):
        jax.jit(mapped)(place(jnp.array(TAKEN), mesh, None))
