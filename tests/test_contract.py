"""The contract of all exported kernels: types, transformations, degenerate arrays, and what is compiled when.

`python tests/test_contract.py > docs/contract.md` writes the table of the docs.
"""

import logging
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from kernel_cases import CASES, NUM, POINTS, PROBS, TAKEN, C, D, N, cast, in_float64

from latent_al import kernels

TYPES = ("uint8", "float64")
MORE_TYPES = ("bool", "bfloat16", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32")
ROWS = {name: case for name, case in CASES.items() if not case.gradient and "taken" in case.arrays and case.reals}
"""Kernels that select rows."""
ROWS_AND_COVER = ROWS | {"cover": CASES["cover"]}
INFINITE = {"nearest", "cover", "typicality"}
"""Kernels whose documented results may be infinite."""
over_cases = pytest.mark.parametrize("name", CASES)


def dtype_of(name):
    return np.dtype(getattr(ml_dtypes, name, name))


def run(name, arrays, key=None):
    case = CASES[name]
    key = jax.random.key(0) if key is None else key
    return case.call(*([key] if case.is_random else []), **arrays)


def rows_of(result):
    return getattr(result, "rows", result)


def verify(name, result, arrays):
    rest = dict(key=jax.random.key(0)) if name == "mutual_information" else {}
    CASES[name].verify(jax.tree.map(np.asarray, result), **in_float64(arrays), **rest)


def in_float32(name):
    """Returns the arrays as a caller has them: of JAX, in float32."""
    return jax.tree.map(jnp.asarray, cast(CASES[name], np.float32))


def same(actual, expected):
    chex.assert_trees_all_close(actual, expected, rtol=2e-5, atol=2e-5)


PAGE = """# What the tests check of every kernel

`python tests/test_contract.py > docs/contract.md` writes this page from the cases of the tests. Every kernel passes:

- values beside a float64 reference, for arrays of NumPy and of JAX of the types {types};
- `jit`, `vmap`, `scan`, donated buffers, raw and typed keys, and the same without `jit` (`disable_jit`);
- strict promotion of types, `debug_nans`, and `debug_infs`, but for documented infinite results ({infinite});
- gradients beside forward derivatives and central differences, for the arguments named in the table;
- refusals outside `jit` of empty arrays, of NaN and infinite numbers by row, of logits, of indices out of range and of
  more rows than are left; inside `jit` rows are distinct and open, and n stands for each that is missing;
- no compilation in a second eager call of the same shapes;
- eight devices with Explicit and Auto axes of any name, and a caller's `shard_map` with its default checks.

| Kernel | Gradient for | Traced scalars | Sharded |
| --- | --- | --- | --- |
"""


def table():
    """Returns the page of the docs."""
    infinite = ", ".join(f"`{name}`" for name in sorted(INFINITE))
    page = PAGE.format(types=", ".join((*TYPES, *MORE_TYPES)), infinite=infinite)
    for name, case in sorted(CASES.items()):
        gradient = ", ".join(f"`{argument}`" for argument in case.gradient) or "none, rows are constants"
        gradient = "refused" if case.refusal else gradient if case.reals else "none"
        page += f"| `{name}` | {gradient} | {', '.join(f'`{scalar}`' for scalar in case.scalars)} | yes |\n"
    return page


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
        with pytest.raises(ValueError, match="taken has int64 from 0 to 2; expected a mask|int32 from 0 to 2"):
            kernels.top_k(scores, np.array([2, 1, 0, 0, 0]), 2)

    def test_integers_that_floats_do_not_hold(self):
        taken = np.zeros(2, bool)
        with pytest.raises(
            ValueError, match=r"scores has int32 from 16777217 .*; expected integers of at most 16777216"
        ):
            kernels.top_k(np.array([2**24 + 1, 2**24 + 2], np.int32), taken, 1)
        with pytest.raises(ValueError, match="scores has int64 .* int32 does not hold"):
            kernels.top_k(np.array([2**40, 1]), taken, 1)
        with pytest.raises(ValueError, match="points has float64 .* float32 does not hold"):
            kernels.farthest_first(np.array([[1e300], [1.0]]), taken, 1)

    @pytest.mark.parametrize("values", [np.array([1j, 2]), np.array(["a", "b"]), np.array([None, 1])])
    def test_what_is_no_number_is_refused(self, values):
        with pytest.raises(TypeError, match=f"scores has {values.dtype}; expected real numbers"):
            kernels.top_k(values, np.zeros(2, bool), 1)

    def test_labels_are_integers(self):
        with pytest.raises(TypeError, match="labels has float32; expected integers"):
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

    @pytest.mark.parametrize("mode", ["strict", "debug", "disable_jit"])
    def test_modes_of_jax(self, name, mode):
        arrays = in_float32(name)
        expected = run(name, arrays)
        with ExitStack() as stack:
            if mode == "strict":
                stack.enter_context(jax.numpy_dtype_promotion("strict"))
            elif mode == "disable_jit":
                stack.enter_context(jax.disable_jit())
            else:
                stack.enter_context(jax.debug_nans(True))
                stack.enter_context(jax.debug_infs(name not in INFINITE))
            same(run(name, arrays), expected)

    def test_gradient(self, name):
        case = CASES[name]
        arrays = in_float32(name)
        reals = {each: arrays[each] for each in case.gradient or case.reals}

        def total(reals):
            leaves = jax.tree.leaves(run(name, arrays | reals))
            floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
            sums = [(leaf * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)).sum() for leaf in floats]
            return sum(sums, jnp.sum(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(reals)) * 0))

        if not reals:
            pytest.skip("takes no real numbers")
        if case.refusal:
            with pytest.raises(TypeError, match=case.refusal):
                jax.grad(total)(reals)
            return
        gradient = jax.grad(total)(reals)
        if not case.gradient:
            assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))
            return
        chex.assert_trees_all_close(gradient, jax.jacfwd(total)(reals), rtol=1e-4, atol=1e-4)
        with jax.enable_x64(True):
            self.check_differences(name, cast(case, np.float64), reals)

    @staticmethod
    def wide_total(name, wide, reals):
        leaves = jax.tree.leaves(run(name, wide | reals))
        floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return sum((leaf * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)).sum() for leaf in floats)

    def check_differences(self, name, wide, names):
        """Compares with central differences in a direction in which no tie is broken."""
        rng = np.random.default_rng(3)
        smooth = {each: value + 1e-2 * rng.normal(size=value.shape) for each, value in wide.items() if each in names}
        if "probs" in smooth:
            smooth["probs"] = wide["probs"]
        if name == "explain":
            smooth = {each: wide[each] + 1e-3 * np.arange(wide[each].size) for each in names}
        total = jax.jit(partial(self.wide_total, name, wide))
        gradient = jax.grad(partial(self.wide_total, name, wide))(smooth)
        changes = {each: rng.normal(size=value.shape) for each, value in smooth.items()}
        if "probs" in changes:
            changes["probs"] -= changes["probs"].mean(axis=1, keepdims=True)
            changes["probs"] *= 0.1
        step = 1e-5
        ends = [total({each: smooth[each] + sign * step * changes[each] for each in smooth}) for sign in (1, -1)]
        slope = sum(float((gradient[each] * changes[each]).sum()) for each in smooth)
        np.testing.assert_allclose(slope, float(ends[0] - ends[1]) / (2 * step), rtol=2e-4, atol=2e-4)


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


class TestDegenerate:
    @over_cases
    def test_empty_arrays_are_refused(self, name):
        arrays = in_float32(name)
        for each, array in arrays.items():
            if array.ndim:
                with pytest.raises(
                    ValueError, match=r"has shape \(.*0.*\); expected|expected at least 1|one size of|sum"
                ):
                    run(name, arrays | {each: array[:0]})

    @pytest.mark.parametrize("value", [np.nan, pytest.param(np.inf, marks=pytest.mark.slow)])
    @over_cases
    def test_numbers_that_are_not_finite(self, name, value):
        """They are refused by row outside jit; inside, rows are distinct and open."""
        case = CASES[name]
        arrays = in_float32(name)
        for each in case.reals:
            if each in ("scores", "values") and np.isinf(value):
                continue
            place = (5, *[1] * (arrays[each].ndim - 1)) if arrays[each].shape[0] > 5 else (2,) * arrays[each].ndim
            bad = arrays | {each: arrays[each].at[place].set(value)}
            with pytest.raises(ValueError, match=f"(row {place[0]}|{each} are NaN)"):
                run(name, bad)
            if name in ROWS_AND_COVER:
                case_rows = np.asarray(rows_of(jax.jit(partial(run, name))(bad)))
                assert len(set(case_rows.tolist())) == NUM
                assert not TAKEN[case_rows].any()

    @pytest.mark.parametrize("left", [0, 1, 3])
    @pytest.mark.parametrize("name", ROWS_AND_COVER)
    def test_too_few_rows_left(self, name, left):
        """Refused outside jit; inside, and under a bare vmap, n stands for what is missing."""
        arrays = in_float32(name)
        arrays["taken"] = jnp.ones(N, bool).at[jnp.arange(left) * 3 + 2].set(False)
        with pytest.raises(ValueError, match=f"{NUM} rows asked for but only {left} of {N} are left"):
            run(name, arrays)
        batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), arrays)
        for rows in (
            rows_of(jax.jit(partial(run, name))(arrays)),
            *rows_of(jax.vmap(partial(run, name))(batch)),
        ):
            assert sorted(rows.tolist()) == [*(np.arange(left) * 3 + 2), *[N] * (NUM - left)]
            assert rows[left:].tolist() == [N] * (NUM - left)

    @pytest.mark.parametrize("name", ROWS_AND_COVER)
    def test_duplicates_and_ties(self, name):
        arrays = in_float32(name)
        arrays |= {each: jnp.ones_like(arrays[each]) for each in ("points", "scores", "features") if each in arrays}
        if "probs" in arrays:
            arrays["probs"] = jnp.full_like(arrays["probs"], 1 / C)
        rows = np.asarray(rows_of(run(name, arrays)))
        assert len(set(rows.tolist())) == NUM
        assert not TAKEN[rows].any()
        if not CASES[name].is_random and name != "most_typical":
            assert rows.tolist() == np.flatnonzero(~TAKEN)[:NUM].tolist()

    def test_signs_of_zero_tie(self):
        for taken in (np.zeros(3, bool), jnp.zeros(3, bool)):
            assert kernels.top_k(jnp.array([0.0, -0.0, 0.0]), taken, 3).tolist() == [0, 1, 2]
            assert kernels.top_k(jnp.array([-0.0, 0.0, -0.0]), taken, 3).tolist() == [0, 1, 2]

    def test_lowest_finite_score_is_above_minus_infinity(self):
        lowest = np.finfo(np.float32).min
        scores, taken = np.array([-np.inf, lowest, 1.0], np.float32), np.zeros(3, bool)
        assert kernels.top_k(scores, taken, 3).tolist() == [2, 1, 0]

    def test_shares_up_to_the_largest_sum(self):
        largest = 2**31 - 1
        assert kernels.largest_remainder(np.array([largest - 1, 1]), largest - 1).tolist() == [largest - 2, 1]
        for sizes, num in (([largest, 1], 2), ([3, 4], -1), ([3, 4], 8)):
            with pytest.raises(ValueError, match=f"sum to {sum(sizes)}, but num is {num}; expected"):
                kernels.largest_remainder(np.array(sizes), num)
        with pytest.raises(ValueError, match="num is -1; expected 0 or more"):
            jax.jit(lambda sizes: kernels.largest_remainder(sizes, -1))(np.array([3, 4]))

    def test_numbers_beyond_int32(self):
        with pytest.raises(ValueError, match="num is 2147483648; expected an integer of at most 2147483647"):
            kernels.top_k(np.zeros(3), np.zeros(3, bool), 2**31)
        with pytest.raises(ValueError, match="clusters has int64 .* number rows, clusters and classes from 0"):
            kernels.sampling.normal(POINTS, clusters=np.full(N, 2**40), num_clusters=2)

    def test_one_row(self):
        point, open_row = jnp.ones((1, D)), jnp.zeros(1, bool)
        probs = jnp.full((1, C), 1 / C)
        assert kernels.farthest_first(point, open_row, 1).tolist() == [0]
        assert kernels.cover(point, open_row, 1).nearest.tolist() == [0]
        assert kernels.top_k(jnp.ones(1), open_row, 1).tolist() == [0]
        assert kernels.badge(jax.random.key(0), probs, point, open_row, 1).tolist() == [0]
        assert kernels.nearest_to(point, open_row, targets=point).tolist() == [0]
        assert kernels.kmeans(jax.random.key(0), point, 1).inertia == 0
        assert kernels.nearest(point, point, jnp.ones(1, bool)).rows.tolist() == [0]
        one = dict(clusters=jnp.zeros(1, jnp.int32), included=jnp.ones(1, bool), num_neighbours=3)
        assert kernels.typicality(point, **one).tolist() == [0]
        assert kernels.most_typical(point, open_row, 1, num_clusters=1, **one).tolist() == [0]
        with pytest.raises(ValueError, match="1 of 1 rows have no representativeness"):
            kernels.euclidean_density(point)
        with pytest.raises(ValueError, match="1 rows have no pairs"):
            kernels.student_t(point)


class TestIndices:
    @pytest.mark.parametrize("cluster", [-1, 3, 2**20])
    @pytest.mark.parametrize("name", ["most_typical", "draw_and_match"])
    def test_clusters_out_of_range(self, name, cluster):
        arrays = in_float32(name)
        arrays["clusters"] = arrays["clusters"].at[jnp.array([1, 2, 8])].set(cluster)
        with pytest.raises(ValueError, match=r"clusters run from .*, the first outside is row 1; expected 0 to 2"):
            run(name, arrays)
        fitted = kernels.sampling.normal(jnp.float32(POINTS), clusters=jnp.arange(N) % 3, num_clusters=3)

        def inside(arrays):
            if name == "most_typical":
                return run(name, arrays)
            return kernels.draw_and_match(
                jax.random.key(0), num=NUM, distribution=fitted, all_within=False, **arrays
            ).rows

        rows = np.asarray(jax.jit(inside)(arrays))
        assert len(set(rows.tolist())) == NUM
        assert not TAKEN[rows].any()
        assert not set(rows.tolist()) & {1, 2, 8}

    def test_labels_beyond_the_classes(self):
        arrays = in_float32("representer_alphas")
        arrays["labels"] = arrays["labels"].at[4].set(C)
        with pytest.raises(ValueError, match=f"labels run up to {C}, first in row 4, but probs has {C} classes"):
            run("representer_alphas", arrays)
        assert not jax.jit(partial(run, "representer_alphas"))(arrays)[4].any()

    @pytest.mark.parametrize("first", [-5, N, 2**30])
    def test_a_first_row_beyond_the_pool(self, first):
        points, taken = jnp.float32(POINTS), jnp.zeros(N, bool)
        with pytest.raises(ValueError, match=f"first is {first}; expected a row of the pool, 0 to {N - 1}"):
            kernels.farthest_first(points, taken, NUM, first=first)
        rows = jax.jit(lambda first: kernels.farthest_first(points, taken, NUM, first=first))(first)
        assert rows[0] == np.clip(first, 0, N - 1)
        assert len(set(rows.tolist())) == NUM

    def test_unlabelled_rows_explain_nothing(self):
        values, labels = jnp.array([3.0, jnp.nan, 1.0]), jnp.array([0, 1, -1])
        with pytest.raises(ValueError, match="1 of 3 values are NaN"):
            kernels.explain(values, labels, 2)
        result = jax.jit(lambda *arrays: kernels.explain(*arrays, 3))(values, labels)
        assert result.supporting.tolist() == [0, 1, 3]
        assert result.opposing.tolist() == [0, 1, 3]


class TestProbabilities:
    @pytest.mark.parametrize("name", [name for name, case in CASES.items() if "probs" in case.reals])
    def test_logits_are_refused(self, name):
        arrays = in_float32(name)
        for row in ([2.0, -1.0, 0.0], [0.5, 0.6, 0.1], [0.2, 0.2, 0.2]):
            bad = arrays | dict(probs=arrays["probs"].at[3].set(jnp.array(row)))
            with pytest.raises(ValueError, match=r"row 3: .*logits\? use jax.nn.softmax"):
                run(name, bad)

    @pytest.mark.parametrize("name", ["least_confident", "margin", "entropy"])
    def test_other_shapes_are_refused(self, name):
        with pytest.raises(ValueError, match=r"probs has shape \(2, 3, 4\); expected \[n c\]"):
            run(name, dict(probs=jnp.full((2, 3, 4), 0.25)))
        with pytest.raises(ValueError, match="2 classes or more"):
            run(name, dict(probs=jnp.ones((4, 1))))

    @pytest.mark.parametrize("name", ["least_confident", "margin", "entropy"])
    def test_gradient_at_saturated_and_tied_rows(self, name):
        logits = jnp.array([[200.0, 0, 0], [0, 0, 0], [1, 1, 0]])
        gradient = jax.grad(lambda logits: run(name, dict(probs=jax.nn.softmax(logits))).sum())(logits)
        assert jnp.isfinite(gradient).all()
        assert not gradient[0].any()


def test_gradient_of_mutual_information_has_no_infinite_parts():
    probs = jnp.float32(PROBS)

    def information(probs):
        def predict(key):
            return jnp.where(jax.random.bernoulli(key), probs, probs[:, ::-1])

        return kernels.mutual_information(jax.random.key(0), predict, num_draws=4).sum()

    with jax.debug_nans(True), jax.debug_infs(True):
        gradient = jax.grad(information)(probs)
    np.testing.assert_allclose(gradient, jax.jacfwd(information)(probs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("density", [kernels.euclidean_density, None])
def test_gradient_of_duplicates(density):
    points = jnp.float32(np.repeat(POINTS[:6], 4, axis=0))
    density = density or partial(kernels.euclidean_density_estimate, jax.random.key(0), fraction=0.5)
    assert jnp.isfinite(jax.grad(lambda points: density(points)[3])(points)).all()


@pytest.mark.parametrize("size", [5, 40])
def test_forward_derivatives_of_student_t(size):
    points = jax.random.normal(jax.random.key(0), (size, 3))
    forward, backward = (change(kernels.student_t)(points) for change in (jax.jacfwd, jax.jacrev))
    np.testing.assert_allclose(forward, backward, atol=1e-7)


def test_rows_are_constants_for_gradients():
    points, taken = jnp.float32(POINTS), jnp.array(TAKEN)

    def total(points):
        return points[kernels.farthest_first(points, taken, NUM)].sum()

    marks = np.zeros(N)
    marks[np.asarray(kernels.farthest_first(points, taken, NUM))] = 1
    np.testing.assert_array_equal(jax.grad(total)(points), np.repeat(marks[:, None], D, axis=1))


def test_weights_and_scalars_out_of_range():
    arrays = in_float32("greedy_diverse")
    for weight in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"weight is .*; expected 0 or more"):
            run("greedy_diverse", arrays | dict(weight=weight))
    for name, scalar in (("representer_alphas", "l2"), ("importance", "num_labelled"), ("draw_and_match", "threshold")):
        with pytest.raises(ValueError, match=f"{scalar} is 0"):
            run(name, in_float32(name) | {scalar: 0})
    for value in (0.5, N, np.nan):
        with pytest.raises(ValueError, match=f"perplexity is {value}"):
            run("joint_probabilities", in_float32("joint_probabilities") | dict(perplexity=value))


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
