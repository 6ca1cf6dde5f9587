"""Every kernel on eight devices as users have them: meshes of all kinds, a caller's `shard_map`, and `vmap`.

Results are those of one device: rows to the last one, floats to a rounding.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from latent_al import kernels
from latent_al.kernels import distances, sampling

# No two dimensions have one size, and eight devices divide the rows.
N, M, D, C, NUM = 24, 8, 4, 6, 5
DEVICES = 8
EXPLICIT, AUTO = AxisType.Explicit, AxisType.Auto

KEY = jax.random.key(3)
NORMAL = np.random.default_rng(0).normal(size=(N + M, 2 * D)).astype(np.float32)
POINTS, LOG_SIGMA = jnp.asarray(NORMAL[:N, :D]), jnp.asarray(NORMAL[:N, D:] / 4)
OTHERS, LOG_SIGMA_OTHERS = jnp.asarray(NORMAL[N:, :D]), jnp.asarray(NORMAL[N:, D:] / 4)
PROBS = jax.nn.softmax(2 * jax.random.normal(KEY, (N, C)))
SCORES = jnp.asarray(NORMAL[:N].sum(axis=1))
TAKEN = jnp.arange(N) % 7 == 3
CLUSTERS = jnp.arange(N) * 5 % 2
LABELS = jnp.where(jnp.arange(N) % 3 == 1, jnp.arange(N) % C, -1)
INCLUDED = jnp.arange(N) % 11 != 5
SQ_DISTANCES = jnp.asarray(((NORMAL[:N, None, :D] - NORMAL[None, :N, :D]) ** 2).sum(axis=2))
JOINT = jnp.where(jnp.eye(N, dtype=bool), 0, 1 / (N * (N - 1)))
DISTRIBUTION = sampling.Distribution(OTHERS[:2], jnp.stack([jnp.eye(D)] * 2), jnp.array(True))
GAUSSIANS = dict(mu_x=POINTS, log_sigma_x=LOG_SIGMA, mu_y=OTHERS, log_sigma_y=LOG_SIGMA_OTHERS)
GAUSSIAN = dict(mu=POINTS, log_sigma=LOG_SIGMA)
TO_POINT = dict(points=POINTS, point=POINTS[2])
BY_CLUSTER = dict(points=POINTS, clusters=CLUSTERS, num_clusters=2)
EXPECTED = dict(probs=PROBS, features=POINTS, labelled_sum=OTHERS[0])
MATCHED = dict(key=KEY, points=POINTS, taken=TAKEN, num=NUM, clusters=CLUSTERS, distribution=DISTRIBUTION)
TYPICAL = dict(points=POINTS, clusters=CLUSTERS, num_neighbours=3)
SELECTED = dict(scores=SCORES, points=POINTS, taken=TAKEN, num=NUM, weight=0.5)

CASES = {
    "badge": dict(key=KEY, probs=PROBS, features=POINTS, taken=TAKEN, num=NUM),
    "closeness_to_origin": dict(points=POINTS),
    "conditional_probabilities": dict(sq_distances=SQ_DISTANCES, perplexity=5.0),
    "cosine_density": dict(points=POINTS),
    "cover": dict(points=POINTS, taken=TAKEN, num=NUM),
    "diameter": dict(points=POINTS, distance=distances.euclidean_to_point),
    "draw_and_match": dict(threshold=0.8, all_within=False, **MATCHED),
    "draw_and_match all within": dict(threshold=1.5, all_within=True, **MATCHED),
    "entropy": dict(probs=PROBS),
    "euclidean_density": dict(points=POINTS),
    "euclidean_density_estimate": dict(key=KEY, points=POINTS, fraction=0.3),
    "euclidean_to_point": TO_POINT,
    "explain": dict(values=SCORES, labels=LABELS, num=3),
    "farthest_first": dict(points=POINTS, taken=TAKEN, num=NUM, included=INCLUDED),
    "greedy_diverse": dict(distance=distances.euclidean_to_point, **SELECTED),
    "greedy_diverse closure": dict(distance=lambda x, y: jnp.abs(x - y[None]).sum(axis=1), **SELECTED),
    "half_cosine_to_point": TO_POINT,
    "ibal": EXPECTED,
    "importance": dict(num_labelled=3, l2=0.1, **EXPECTED),
    "jeffreys_density": GAUSSIAN,
    "jeffreys_divergences": GAUSSIANS,
    "jeffreys_to_point": dict(points=(POINTS, LOG_SIGMA), point=(POINTS[2], LOG_SIGMA[2])),
    "joint_probabilities": dict(points=POINTS, perplexity=5.0),
    "kl_divergences": GAUSSIANS,
    "kl_to_prior": GAUSSIAN,
    "kmeans": dict(key=KEY, points=POINTS, num_clusters=3, iterations=5),
    "kmeans_plus_plus": dict(key=KEY, points=POINTS, num=3),
    "largest_remainder": dict(sizes=jnp.arange(N) % 5, num=NUM),
    "least_confident": dict(probs=PROBS),
    "lloyd": dict(points=POINTS, centres=OTHERS[:3], iterations=5),
    "margin": dict(probs=PROBS),
    "most_typical": dict(taken=TAKEN, num=NUM, included=INCLUDED | ~TAKEN, num_clusters=2, **TYPICAL),
    "multi_normal": BY_CLUSTER,
    "mutual_information": dict(key=KEY, probs=PROBS),
    "nearest": dict(x=POINTS, y=OTHERS, included=jnp.arange(M) != 2),
    "nearest of rows": dict(x=OTHERS, y=POINTS, included=INCLUDED),
    "nearest_to": dict(points=POINTS, taken=TAKEN, targets=OTHERS[:NUM]),
    "normal": BY_CLUSTER,
    "random_partitions": dict(key=KEY, scores=SCORES, taken=TAKEN, num=NUM),
    "representer_alphas": dict(probs=PROBS, labels=LABELS, l2=0.1),
    "representer_values": dict(alphas=PROBS, features=POINTS, target=OTHERS[0]),
    "squared_closeness_to_origin": dict(points=POINTS),
    "squared_distances": dict(x=POINTS, y=OTHERS),
    "squared_euclidean_density": dict(points=POINTS),
    "squared_euclidean_to_point": TO_POINT,
    "student_t": dict(latents=POINTS),
    "subsample": dict(key=KEY, taken=TAKEN, fraction=0.3),
    "top_k": dict(scores=SCORES, taken=TAKEN, num=NUM),
    "tsne_divergence": dict(p=JOINT, latents=POINTS),
    "typicality": dict(included=INCLUDED, **TYPICAL),
    "uniform": BY_CLUSTER,
}
SOME = ("badge", "cover", "euclidean_density", "greedy_diverse closure", "random_partitions", "squared_distances")
"""Together they pass through all that is done shard by shard, and take few seconds to compile."""
SLOW_BUT_SOME = [case if case in SOME else pytest.param(case, marks=pytest.mark.slow) for case in CASES]


def mutual_information(key, probs):
    """Draws models about the probabilities, which the prediction closes over."""

    def predict(key):
        return jax.nn.softmax(jnp.log(probs) + jax.random.normal(key, (C,))[None, :], axis=1)

    return kernels.mutual_information(key, predict, num_draws=3)


def bound(case):
    """Returns the kernel as a function of its arrays alone, and these."""
    name = case.split()[0]
    modules = (kernels, distances, sampling)
    function = next(getattr(module, name) for module in modules if hasattr(module, name))
    function = mutual_information if name == "mutual_information" else function
    arrays = {name: value for name, value in CASES[case].items() if isinstance(jax.tree.leaves(value)[0], jax.Array)}
    settings = {name: value for name, value in CASES[case].items() if name not in arrays}
    return functools.partial(function, **settings), arrays


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
    """Places what has rows with its first dimensions along the axes, and leaves the rest where it is."""

    def place_leaf(leaf):
        if is_key(leaf) or leaf.shape[:1] != (N,):
            return leaf
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*axes[: leaf.ndim])))

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


def test_each_kernel_has_a_case():
    exports = {name for name in kernels.__all__ if isinstance(getattr(kernels, name), types.FunctionType)}
    public = {name for name in vars(distances) if name.endswith("_to_point")} | {"diameter"}
    assert exports | public | {"uniform", "normal", "multi_normal"} == {case.split()[0] for case in CASES}


@pytest.mark.parametrize(
    "is_set", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["set_mesh and jit", "eager"]
)
@pytest.mark.parametrize("case", CASES)
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


@pytest.mark.parametrize("case", CASES)
def test_inside_a_shard_map_in_which_all_varies(case):
    mesh = jax.make_mesh((2,), ("parts",))
    assert_same_in_shards(in_shard_map(case, mesh, "parts", anything), case)


@pytest.mark.parametrize("case", SLOW_BUT_SOME)
def test_inside_a_shard_map_in_which_nothing_varies(case):
    """The result does not vary either: `out_specs` may say so."""
    mesh = jax.make_mesh((2,), ("parts",))
    assert_same(in_shard_map(case, mesh, "parts", nothing), on_one_device(case))


@pytest.mark.parametrize("varies", [is_key, pytest.param(is_no_key, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", [case for case in CASES if "key" in CASES[case]])
def test_inside_a_shard_map_in_which_keys_or_pools_vary(case, varies):
    """As in a run of several seeds on one pool, and of one seed on several pools."""
    mesh = jax.make_mesh((2,), ("parts",))
    assert_same_in_shards(in_shard_map(case, mesh, "parts", varies), case, varies)


@pytest.mark.parametrize("kind", [EXPLICIT, AUTO])
@pytest.mark.parametrize("case", [*SOME, "draw_and_match"])
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

    arrays = (SCORES, POINTS, TAKEN, jnp.exp(SCORES))
    placed = place(arrays, mesh_of(EXPLICIT, rows=DEVICES), "rows")
    assert_same((jax.jit(select) if is_compiled else select)(*placed), np.asarray(select(*arrays)))


def test_raw_keys_beside_explicit_axes():
    placed = place(dict(scores=SCORES, taken=TAKEN), mesh_of(EXPLICIT, rows=DEVICES), "rows")
    rows = kernels.random_partitions(jax.random.key_data(KEY), **placed, num=NUM)
    assert_same(rows, on_one_device("random_partitions"))


@pytest.mark.parametrize("top_k", [kernels.top_k, jax.jit(kernels.top_k, static_argnums=2)], ids=["eager", "jit"])
def test_arrays_of_two_meshes_are_refused(top_k):
    scores = place(SCORES, mesh_of(EXPLICIT, rows=DEVICES), "rows")
    taken = place(TAKEN, mesh_of(EXPLICIT, examples=DEVICES), "examples")
    with pytest.raises(ValueError, match=r"meshes, \(rows=8 Explicit\) and \(examples=8 Explicit\); expected one"):
        top_k(scores, taken, NUM)


def test_arrays_that_a_shard_map_closes_over_are_refused():
    mesh = mesh_of(EXPLICIT, rows=DEVICES)
    scores = place(SCORES, mesh, "rows")
    specs = dict(in_specs=PartitionSpec(), out_specs=PartitionSpec())
    mapped = jax.shard_map(lambda taken: kernels.top_k(scores, taken, NUM), mesh=mesh, **specs)
    with pytest.raises(ValueError, match="hand those that a `shard_map` needs to it as arguments"):
        jax.jit(mapped)(place(TAKEN, mesh, None))
