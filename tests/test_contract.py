"""The contract of all exported kernels: types, transformations, degenerate arrays, and what is compiled when.

`python tests/test_contract.py > docs/contract.md` writes the table of the docs.
"""

import logging
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import ModuleType

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from kernel_cases import (
    CASES,
    CLUSTERED,
    INFINITE,
    KEYED,
    POINTS,
    PROBS,
    ROWS_AND_COVER,
    TAKEN,
    cast,
    in_float32,
    in_float64,
    run,
)
from kernel_references import NUM, D, N

from latent_al import kernels

TYPES = ("uint8",)
MORE_TYPES = (
    "float64",
    "bool",
    "bfloat16",
    "int8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
)
WITH_LOOPS = ("farthest_first", "greedy_diverse")
"""Kernels that differ most without `jit`; the rest are slow."""
over_cases = pytest.mark.parametrize("name", CASES)


def dtype_of(name):
    return np.dtype(getattr(ml_dtypes, name, name))


def verify(name, result, arrays):
    rest = dict(key=jax.random.key(0)) if name in KEYED else {}
    CASES[name].verify(jax.tree.map(np.asarray, result), **in_float64(arrays), **rest)


def same(actual, expected):
    chex.assert_trees_all_close(actual, expected, rtol=2e-5, atol=2e-5)


PAGE = """# What the tests check of every kernel

`python tests/test_contract.py > docs/contract.md` writes this page from the cases of `tests/kernel_cases.py`, which
`tests/test_contract.py` runs, and those that end in `_gradients.py`, `_refusals.py` and `_devices.py`.

- **Types**: values beside a float64 reference, for arrays of NumPy and of JAX of the types {types}; and arguments that
  take them.
- **Transformed**: `jit`, `vmap`, `scan` and donated buffers give what a plain call gives, and a second plain call
  compiles nothing.
- **Modes**: `disable_jit`, strict promotion of types, `debug_nans` and, but where infinite results are documented,
  `debug_infs`.
- **Keys**: raw and typed.
- **Differentiable**: arguments with a gradient, beside `jacfwd` and central differences.
- **Traced scalars**: may be traced and batched.
- **Refused**: outside `jit`, with the row: NaN and infinite numbers; logits; indices out of range; more rows than are
  left; and empty arrays, inside `jit` too.
- **Inside `jit`**: what of those refusals a caller's `jit` returns.
- **Sharded**: on eight devices with Explicit and Auto axes of any name, and in a caller's `shard_map` with its default
  checks; and how the result lies.

| Kernel | Types | Transformed | Modes | Keys | Differentiable | Traced scalars | Refused | Inside `jit` | Sharded |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def names_of(names, otherwise):
    return ", ".join(f"`{name}`" for name in names) or otherwise


def _inside(case, selects_rows):
    if selects_rows:
        return "distinct open rows, then n"
    return "NaN where there is no value" if case.reals else "-"


def row_of_table(name):
    """Returns the cells of a kernel: what is checked of it, "-" where there is nothing to check."""
    case = CASES[name]
    is_of_rows = not case.gradient and bool(case.reals)
    refused = ["empty"] + ["not finite"] * bool(case.reals) + ["logits"] * ("probs" in case.reals)
    refused += ["indices"] * (name in CLUSTERED or name in ("farthest_first", "representer_alphas"))
    refused += ["too few rows"] * (name in ROWS_AND_COVER or name == "explain")
    results = jax.eval_shape(lambda arrays: run(name, arrays), in_float32(name))
    lies = {"along the rows" if leaf.shape[:1] == (N,) else "replicated" for leaf in jax.tree.leaves(results)}
    return (
        f"`{name}`",
        names_of(case.reals, "-"),
        "yes",
        "all but `debug_infs`" if name in INFINITE else "all",
        "both" if case.is_random else "-",
        "refused" if case.refusal else names_of(case.gradient, "rows are constants" if is_of_rows else "-"),
        names_of(case.scalars, "-"),
        ", ".join(refused),
        _inside(case, name in ROWS_AND_COVER or name == "explain"),
        " or ".join(sorted(lies)),
    )


def table():
    """Returns the page of the docs."""
    rows = [f"| {' | '.join(row_of_table(name))} |\n" for name in sorted(CASES)]
    return PAGE.format(types=", ".join((*TYPES, *MORE_TYPES))) + "".join(rows)


def test_the_page_of_the_docs_is_up_to_date():
    assert (Path(__file__).parent.parent / "docs" / "contract.md").read_text() == table()


def test_each_export_has_a_case():
    exported = {name for name in kernels.__all__ if callable(getattr(kernels, name))}
    assert {name for name in exported if not isinstance(getattr(kernels, name), type)} <= CASES.keys()


class TestTypes:
    @pytest.mark.parametrize("kind", [*TYPES, *(pytest.param(kind, marks=pytest.mark.slow) for kind in MORE_TYPES)])
    @over_cases
    def test_equals_the_reference(self, name, kind):
        arrays = cast(CASES[name], dtype_of(kind))
        if (name, kind) == ("purity_radius", "bool"):
            with pytest.raises(ValueError, match="the radius is 0, since rows of different clusters coincide"):
                run(name, arrays)
            return
        verify(name, run(name, arrays), arrays)
        is_wide = dtype_of(kind).itemsize == 8
        with jax.enable_x64(is_wide):
            result = run(name, jax.tree.map(jnp.asarray, arrays))
            verify(name, result, arrays)
            wide = jnp.float64 if is_wide and CASES[name].reals else jnp.float32
            floats = [leaf for leaf in jax.tree.leaves(result) if jnp.issubdtype(leaf.dtype, jnp.floating)]
            assert all(leaf.dtype == wide for leaf in floats) or name == "mutual_information"

    def test_masks_of_zeros_and_ones(self):
        scores, taken = np.array([0.2, 0.9, -np.inf, -np.inf, -np.inf]), [1, 1, 0, 0, 0]
        assert kernels.top_k(scores, np.array(taken), 2).tolist() == [2, 3]
        assert kernels.top_k(scores, np.array(taken, np.float16), 2).tolist() == [2, 3]
        with pytest.raises(ValueError, match=r"taken has dtype int(64|32) and values from 0 to 2; expected a mask"):
            kernels.top_k(scores, np.array([2, 1, 0, 0, 0]), 2)

    def test_integers_that_floats_do_not_hold(self):
        taken = np.zeros(2, bool)
        with pytest.raises(
            ValueError, match=r"scores has dtype int32 and values from 16777217 .*; expected integers of at most"
        ):
            kernels.top_k(np.array([2**24 + 1, 2**24 + 2], np.int32), taken, 1)
        with pytest.raises(ValueError, match="scores has dtype int64 .* int32 cannot represent"):
            kernels.top_k(np.array([2**40, 1]), taken, 1)
        with pytest.raises(ValueError, match="points has dtype float64 .* float32 cannot represent"):
            kernels.farthest_first(np.array([[1e300], [1.0]]), taken, 1)

    @pytest.mark.parametrize("kind", [">f2", ">f4", ">f8", ">i2", ">i8", "longdouble"])
    def test_what_numpy_alone_holds_is_converted(self, kind):
        scores, clusters = np.array([3, 9, 1]), np.array([0, 1, 0])
        cast = scores.astype(kind)
        assert kernels.top_k(cast, np.zeros(3, bool), 2).tolist() == [1, 0]
        assert jax.jit(partial(kernels.top_k, cast, num=2))(jnp.zeros(3, bool)).tolist() == [1, 0]
        with jax.enable_x64(True):
            assert kernels.top_k(cast, np.zeros(3, bool), 2).tolist() == [1, 0]
            assert kernels.entropy(np.array([[1, 0]], kind)).tolist() == [0]
        if ">i" in kind:
            radius = kernels.purity_radius(scores[:, None], clusters=clusters.astype(kind), share=0.5)
            assert radius == kernels.purity_radius(scores[:, None], clusters=clusters, share=0.5)

    def test_what_is_no_array_is_refused(self):
        scores, taken = np.ma.array([3.0, 9.0, 1.0], mask=[False, True, False]), np.zeros(3, bool)
        with pytest.raises(TypeError, match="scores is a masked array, whose mask .* mark rows as taken"):
            kernels.top_k(scores, taken, 2)
        with pytest.raises(TypeError, match=r"scores is None; expected an array \[n\]"):
            kernels.top_k(None, taken, 2)

    @pytest.mark.parametrize("key", [0, [0, 1], np.array([0, 1]), jnp.array([0.0, 1.0])])
    def test_what_is_no_key_is_refused(self, key):
        with pytest.raises(TypeError, match=r"key (has shape|is of type) .*; expected one key, such as jax.random.key"):
            kernels.random_partitions(key, np.arange(3.0), np.zeros(3, bool), 2)

    @pytest.mark.parametrize("values", [np.array([1j, 2]), np.array(["a", "b"]), np.array([None, 1])])
    def test_what_is_no_number_is_refused(self, values):
        with pytest.raises(TypeError, match=f"scores has dtype {values.dtype}; expected real numbers"):
            kernels.top_k(values, np.zeros(2, bool), 1)

    def test_labels_are_integers(self):
        with pytest.raises(TypeError, match="labels has dtype float32; expected integers"):
            kernels.representer_alphas(jnp.float32(PROBS), jnp.zeros(N), l2=1.0)

    def test_traced_sizes_are_refused(self):
        with pytest.raises(TypeError, match="num is traced; expected a Python int"):
            jax.jit(kernels.top_k)(jnp.zeros(3), jnp.zeros(3, bool), 2)


@over_cases
class TestTransformations:
    def test_jit_vmap_scan_and_donation(self, name):
        arrays = in_float32(name)
        single = run(name, arrays)
        batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf, leaf]), arrays)
        keys = jax.random.split(jax.random.key(7), 3)
        apply = jax.jit(lambda arrays, key: run(name, arrays, key))
        same(apply(arrays, jax.random.key(0)), single)
        singles = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(apply(arrays, key) for key in keys))
        same(jax.jit(jax.vmap(apply))(batch, keys), singles)
        scanned = jax.lax.scan(lambda none, slices: (none, apply(*slices)), None, (batch, keys))[1]
        same(scanned, singles)
        donated = jax.jit(lambda arrays: (run(name, arrays), arrays), donate_argnums=0)
        same(donated(jax.tree.map(jnp.copy, arrays))[0], single)

    def test_keys_raw_and_typed(self, name):
        if not CASES[name].is_random:
            pytest.skip("takes no key")
        arrays = in_float32(name)
        same(run(name, arrays, jax.random.PRNGKey(3)), run(name, arrays, jax.random.key(3)))

    def test_scalars_are_traced_and_vmapped(self, name):
        arrays = in_float32(name)
        for scalar in CASES[name].scalars:
            values = jnp.array([1, 2, 4]).astype(arrays[scalar].dtype)
            batched = jax.jit(jax.vmap(lambda value, scalar=scalar: run(name, arrays | {scalar: value})))(values)
            singles = [run(name, arrays | {scalar: value}) for value in values]
            same(batched, jax.tree.map(lambda *leaves: jnp.stack(leaves), *singles))

    @pytest.mark.parametrize("mode", ["strict", "debug"])
    def test_modes_of_jax(self, name, mode):
        arrays = in_float32(name)
        expected = run(name, arrays)
        with ExitStack() as stack:
            if mode == "strict":
                stack.enter_context(jax.numpy_dtype_promotion("strict"))
            else:
                stack.enter_context(jax.debug_nans(True))
                stack.enter_context(jax.debug_infs(name not in INFINITE))
            same(run(name, arrays), expected)


def products(jaxpr):
    """Yields the products of matrices in a program, and in those it calls."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for program in jax.tree.leaves(equation.params, is_leaf=lambda value: hasattr(value, "eqns")):
            if hasattr(program, "eqns"):
                yield from products(program)


@over_cases
def test_products_are_not_rounded_to_ten_bits(name):
    program = jax.make_jaxpr(lambda arrays: run(name, arrays))(in_float32(name))
    highest = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
    assert {equation.params["precision"] for equation in products(program)} <= {highest}


@pytest.mark.parametrize(
    "name", [name if name in WITH_LOOPS else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_without_jit(name):
    arrays = in_float32(name)
    expected = run(name, arrays)
    with jax.disable_jit():
        same(run(name, arrays), expected)


@over_cases
def test_a_second_eager_call_compiles_nothing(name, caplog):
    run(name, in_float32(name), jax.random.key(1))
    arrays, key = in_float32(name), jax.random.key(2)
    with jax.log_compiles(True), caplog.at_level(logging.WARNING):
        jax.block_until_ready(run(name, arrays, key))
    assert not [record.getMessage() for record in caplog.records if "ompil" in record.getMessage()]


def test_a_fresh_closure_compiles_nothing(caplog):
    scores, points, taken = jnp.arange(N, dtype=jnp.float32), jnp.float32(POINTS), jnp.array(TAKEN)

    def select(scale):
        return kernels.greedy_diverse(
            scores, points, taken, NUM, distance=lambda rows, row: scale * abs(rows - row[None]).sum(axis=1), weight=1.0
        )

    first = select(2.0)
    with jax.log_compiles(True), caplog.at_level(logging.WARNING):
        again = select(2.0)
    assert not [record.getMessage() for record in caplog.records if "ompil" in record.getMessage()]
    chex.assert_trees_all_equal(first, again)
    chex.assert_trees_all_equal(jax.jit(select)(2.0), first)


def test_a_function_of_a_notebook_reads_its_globals_anew(monkeypatch):
    notebook = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    exec("def distance(points, point): return abs((points - point[None]) @ direction)", notebook.__dict__)
    points, rows = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), []
    for notebook.direction in jnp.eye(2):
        settings = dict(distance=notebook.distance, weight=1.0)
        rows.append(kernels.greedy_diverse(jnp.zeros(3), points, jnp.zeros(3, bool), 2, **settings).tolist())
    assert rows == [[0, 1], [0, 2]]


def test_least_importance_of_positive_features_is_that_of_sure_rows():
    sureness = jnp.linspace(0.4, 0.99, N)
    probs = jnp.stack([sureness, (1 - sureness) / 2, (1 - sureness) / 2], axis=1)
    features = jnp.ones((N, D))
    values = kernels.ibal(probs, features, labelled_sum=features.sum(axis=0))
    assert kernels.top_k(values, jnp.zeros(N, bool), NUM).tolist() == list(range(N - 1, N - 1 - NUM, -1))
    importance = kernels.importance(probs, features, labelled_sum=features.sum(axis=0), num_labelled=N, l2=0.5)
    np.testing.assert_allclose(values, -importance * N, rtol=1e-6)


if __name__ == "__main__":
    print(table(), end="")
