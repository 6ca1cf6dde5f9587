"""What all exported kernels refuse outside `jit`, and what they return inside it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import CASES, CLUSTERED, POINTS, ROWS, ROWS_AND_COVER, TAKEN, in_float32, rows_of, run
from kernel_references import NUM, C, D, N

from latent_al import kernels

over_cases = pytest.mark.parametrize("name", CASES)


class TestDegenerate:
    @over_cases
    def test_empty_arrays_are_refused(self, name):
        arrays = in_float32(name)
        for each, array in arrays.items():
            if array.ndim:
                with pytest.raises(
                    ValueError, match=r"has shape \(.*0.*\); expected|expected at least 1|the same size|sum"
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
        with pytest.raises(ValueError, match="clusters has dtype int64 .* number rows, clusters and classes from 0"):
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

    def test_negative_scores_have_no_powers(self):
        scores, taken = jnp.array([1.0, -2.0, 0.0, 3.0, -1.0]), jnp.zeros(5, bool)
        with pytest.raises(ValueError, match="2 of 5 scores are negative, the first is row 1 with -2.0; expected 0 or"):
            kernels.power_top_k(jax.random.key(0), scores, taken, 2, beta=1.0)
        rows = jax.jit(lambda scores: kernels.power_top_k(jax.random.key(0), scores, taken, 5, beta=1.0))(scores)
        assert set(rows[:2].tolist()) == {0, 3}
        assert rows[2:].tolist() == [1, 2, 4]

    def test_infinite_scores_of_no_weight_are_drawn_uniformly(self):
        scores, taken = jnp.array([jnp.inf, -jnp.inf, 0.0, jnp.inf]), jnp.zeros(4, bool)
        keys = jax.random.split(jax.random.key(0), 400)
        first = jax.vmap(lambda key: kernels.softmax_top_k(key, scores, taken, 1, beta=0.0)[0])(keys)
        assert np.bincount(first, minlength=4).min() > 60

    def test_fewer_candidates_than_rows(self):
        arrays = in_float32("cluster_margin")
        with pytest.raises(ValueError, match="num_candidates is 4; expected at least the 5 rows asked for"):
            kernels.cluster_margin(jax.random.key(0), **arrays, num=NUM, num_clusters=3, num_candidates=4)


class TestIndices:
    @pytest.mark.parametrize("cluster", [-1, 3, 2**20])
    @pytest.mark.parametrize("name", CLUSTERED)
    def test_clusters_out_of_range(self, name, cluster):
        arrays = in_float32(name)
        arrays["clusters"] = arrays["clusters"].at[jnp.array([1, 2, 8])].set(cluster)
        with pytest.raises(ValueError, match=r"clusters run from .*, first out of range in row 1; expected 0 to 2"):
            run(name, arrays)
        if name in ROWS:
            rows = np.asarray(rows_of(jax.jit(partial(run, name))(arrays)))
            assert len(set(rows.tolist())) == NUM
            assert not TAKEN[rows].any()
            assert not set(rows.tolist()) & {1, 2, 8}

    def test_labels_beyond_the_classes(self):
        arrays = in_float32("representer_alphas")
        arrays["labels"] = arrays["labels"].at[4].set(C)
        with pytest.raises(ValueError, match=f"labels run up to {C}, first out of range in row 4, but probs has {C} "):
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
            bad = arrays | dict(probs=arrays["probs"].at[..., 3, :].set(jnp.array(row + [0.0] * (C - 3))))
            with pytest.raises(ValueError, match=r"row 3: .*for logits, use jax.nn.softmax"):
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


def test_weights_and_scalars_out_of_range():
    arrays = in_float32("greedy_diverse")
    for weight in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"weight is .*; expected 0 or more"):
            run("greedy_diverse", arrays | dict(weight=weight))
    for name in ("power_top_k", "softmax_top_k"):
        for beta in (-1.0, np.nan, np.inf):
            with pytest.raises(ValueError, match=r"beta is .*; expected 0 or more"):
                run(name, in_float32(name) | dict(beta=beta))
    for name, scalar in (("representer_alphas", "l2"), ("importance", "num_labelled"), ("draw_and_match", "threshold")):
        with pytest.raises(ValueError, match=f"{scalar} is 0"):
            run(name, in_float32(name) | {scalar: 0})
    for value in (0.5, N, np.nan):
        with pytest.raises(ValueError, match=f"perplexity is {value}"):
            run("joint_probabilities", in_float32("joint_probabilities") | dict(perplexity=value))
