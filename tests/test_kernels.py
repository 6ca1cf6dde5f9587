"""Kernels beside the slow obvious loop, in and out of `jit` and `vmap`."""

import inspect
from functools import partial

import chex
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_al import kernels
from latent_al.kernels.selection import subsample_size


def reference_least_confident(row):
    return 1 - max(row)


def reference_margin(row):
    best, second = sorted(row, reverse=True)[:2]
    return 1 - (best - second)


def reference_entropy(row):
    return -sum(p * np.log(p) for p in row if p > 0) / np.log(len(row))


MEASURES = {
    kernels.least_confident: reference_least_confident,
    kernels.margin: reference_margin,
    kernels.entropy: reference_entropy,
}
PICKS = {
    "top_k": lambda key, score, taken, num: kernels.top_k(score, taken, num),
    "random_partitions": kernels.random_partitions,
}
SPECIAL_ROWS = [[1, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3], [0.2, 0.2, 0.6]]


def test_mutual_information_equals_the_loop():
    def draw(key):
        return jax.random.dirichlet(key, jnp.ones(3), (20,))

    found = kernels.mutual_information(jax.random.key(0), draw, num_draws=4)
    table = np.stack([draw(key) for key in jax.random.split(jax.random.key(0), 4)])
    of_mean = [reference_entropy(row) for row in np.float64(table).mean(axis=0)]
    mean_of = [np.mean([reference_entropy(row) for row in rows]) for rows in np.float64(table).swapaxes(0, 1)]
    np.testing.assert_allclose(found, np.subtract(of_mean, mean_of), atol=1e-6)


def test_mutual_information_of_narrow_predictions_is_the_same_inside_jit():
    def draw(key):
        return jax.random.dirichlet(key, jnp.ones(3), (20,)).astype(jnp.bfloat16)

    inform = partial(kernels.mutual_information, predict=draw, num_draws=4)
    expected = inform(jax.random.key(0))
    assert expected.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(inform)(jax.random.key(0)), expected, atol=1e-6)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.__name__)
class TestMeasures:
    def test_a_sum_above_1_by_a_rounding_is_sure(self, measure):
        probs = jnp.array([[1.0009, 0.0], [1.0, -1e-5]])
        for run in (measure, jax.jit(measure)):
            assert not run(probs).any()

    def test_equals_the_loop(self, measure):
        probs = np.concatenate([np.random.default_rng(0).dirichlet(np.ones(3), 200), SPECIAL_ROWS])
        expected = [MEASURES[measure](row) for row in probs.astype(np.float64)]
        for run in (measure, jax.jit(measure)):
            np.testing.assert_allclose(run(jnp.float32(probs)), expected, atol=1e-6)

    def test_range_and_extremes(self, measure):
        score = measure(jnp.float32(SPECIAL_ROWS))
        assert (score >= 0).all()
        assert (score <= 1).all()
        assert score[0] == 0
        assert score.argmax() in (1, 2)
        assert score[2] == score.max()

    def test_vmap_equals_singles(self, measure):
        probs = jax.random.dirichlet(jax.random.key(0), jnp.ones(4), (5, 30))
        chex.assert_trees_all_equal(jax.vmap(measure)(probs), jnp.stack([measure(each) for each in probs]))


@pytest.mark.parametrize("measure", [kernels.margin, kernels.entropy])
def test_one_class_is_refused(measure):
    with pytest.raises(ValueError, match="2 classes or more"):
        measure(jnp.ones((4, 1)))


@pytest.mark.parametrize("pick", PICKS.values(), ids=PICKS.keys())
class TestPicks:
    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_num_distinct_open_rows(self, pick, data):
        size = data.draw(st.sampled_from([1, 2, 9, 40]))
        taken = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
        taken[data.draw(st.integers(0, size - 1))] = False
        num = data.draw(st.integers(1, int((~taken).sum())))
        levels = st.sampled_from([0.0, 0.5, 1.0, -np.inf, np.inf])
        score = np.float32(data.draw(st.lists(levels, min_size=size, max_size=size)))
        rows = np.asarray(pick(jax.random.key(0), jnp.array(score), jnp.array(taken), num))
        assert rows.shape == (num,)
        assert len(set(rows.tolist())) == num
        assert not taken[rows].any()

    @pytest.mark.parametrize("num", [1, 7, 25])
    def test_jit_and_vmap_equal_eager_singles(self, pick, num):
        keys = jax.random.split(jax.random.key(0), 4)
        score = jax.random.uniform(jax.random.key(1), (4, 50))
        taken = jax.random.bernoulli(jax.random.key(2), 0.4, (4, 50))
        singles = jnp.stack([pick(*each, num) for each in zip(keys, score, taken, strict=True)])
        batched = jax.jit(jax.vmap(lambda *each: pick(*each, num)))
        chex.assert_trees_all_equal(batched(keys, score, taken), singles)

    def test_inside_jit_over_known_arrays(self, pick):
        score, taken = jax.random.uniform(jax.random.key(1), (30,)), jnp.arange(30) < 4
        rows = jax.jit(lambda key: pick(key, score, taken, 5))(jax.random.key(0))
        chex.assert_trees_all_equal(rows, pick(jax.random.key(0), score, taken, 5))

    def test_same_key_same_rows(self, pick):
        score, taken = jnp.zeros(30), jnp.zeros(30, bool)
        first, again = (pick(jax.random.key(3), score, taken, 5) for _ in range(2))
        chex.assert_trees_all_equal(first, again)

    def test_one_row(self, pick):
        assert pick(jax.random.key(0), jnp.zeros(1), jnp.zeros(1, bool), 1).tolist() == [0]

    def test_last_rows_of_a_nearly_empty_pool(self, pick):
        taken = jnp.ones(1000, bool).at[jnp.array([3, 998])].set(False)
        rows = pick(jax.random.key(0), jnp.linspace(1, 0, 1000), taken, 2)
        assert sorted(rows.tolist()) == [3, 998]

    @pytest.mark.parametrize("num", [0, -1, 11])
    def test_impossible_num_is_refused(self, pick, num):
        with pytest.raises(ValueError, match=f"num is {num}"):
            pick(jax.random.key(0), jnp.zeros(10), jnp.zeros(10, bool), num)

    def test_too_few_left_is_refused_with_both_numbers(self, pick):
        with pytest.raises(ValueError, match="3 rows asked for but only 2 of 10"):
            pick(jax.random.key(0), jnp.zeros(10), jnp.arange(10) < 8, 3)

    def test_nan_is_refused_outside_jit_and_picked_last_inside(self, pick):
        score, taken = jnp.array([0.0, jnp.nan, 1.0, 0.5]), jnp.zeros(4, bool)
        with pytest.raises(ValueError, match="1 of 4 scores are NaN"):
            pick(jax.random.key(0), score, taken, 1)
        assert 1 not in jax.jit(lambda *each: pick(jax.random.key(0), *each, 1))(score, taken)

    def test_shapes_that_differ_are_refused(self, pick, monkeypatch):
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        with pytest.raises(ValueError, match=r"scores has shape \(10,\) and taken \(9,\); expected \[n\] and \[n\]"):
            pick(jax.random.key(0), jnp.zeros(10), jnp.zeros(9, bool), 3)


def test_top_k_equals_a_stable_sort():
    score = np.float32([0.5, 1, 0.5, 1, 0, 0.5])
    taken = np.array([False, False, False, True, False, False])
    assert kernels.top_k(jnp.array(score), jnp.array(taken), 4).tolist() == [1, 0, 2, 5]


def test_random_partitions_takes_the_best_of_equal_parts():
    """The best row of all is among them, and over as many parts as rows it is every row."""
    score, taken = jax.random.uniform(jax.random.key(1), (40,)), jnp.arange(40) % 4 == 0
    best = kernels.top_k(score, taken, 1)
    for num in (1, 2, 7, 30):
        rows = kernels.random_partitions(jax.random.key(0), score, taken, num)
        assert best[0] in rows
    assert sorted(rows.tolist()) == np.flatnonzero(~np.asarray(taken)).tolist()


def test_random_partitions_are_uniform():
    """With equal scores each open row is picked about equally often."""
    taken = jnp.arange(12) < 2
    pick = jax.vmap(lambda key: kernels.random_partitions(key, jnp.zeros(12), taken, 3))
    counts = np.bincount(pick(jax.random.split(jax.random.key(0), 4000)).ravel(), minlength=12)
    np.testing.assert_allclose(counts[2:] / 4000, 0.3, atol=0.04)


class TestSubsample:
    @settings(max_examples=40, deadline=None)
    @given(st.sampled_from([1, 2, 9, 40]), st.sampled_from([0.01, 0.1, 0.5, 0.99, 1.0]), st.integers(0, 100))
    def test_leaves_a_share_of_the_open_rows(self, size, fraction, seed):
        taken = np.random.default_rng(seed).uniform(size=size) < 0.5
        marked = np.asarray(kernels.subsample(jax.random.key(seed), jnp.array(taken), fraction=fraction))
        assert marked[taken].all()
        assert (~marked).sum() == min(subsample_size(size, fraction), (~taken).sum())

    def test_every_open_row_can_be_drawn(self):
        taken = jnp.arange(10) < 3
        marked = jax.vmap(lambda key: kernels.subsample(key, taken, fraction=0.2))(
            jax.random.split(jax.random.key(0), 3000)
        )
        np.testing.assert_allclose((~marked).mean(axis=0)[3:], 2 / 7, atol=0.04)

    @pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
    def test_impossible_fraction_is_refused(self, fraction):
        with pytest.raises(ValueError, match=f"fraction is {fraction}"):
            kernels.subsample(jax.random.key(0), jnp.zeros(10, bool), fraction=fraction)


POINTS = jnp.float32(np.random.default_rng(0).normal(size=(30, 3)))
PROBS = jnp.float32(np.random.default_rng(1).dirichlet(np.ones(3), 30))
LABELS = jnp.int32(np.random.default_rng(2).integers(-1, 3, size=30))
SQ_DISTANCES = kernels.squared_distances(POINTS, POINTS)


def matches(threshold):
    clusters = jnp.zeros(30, jnp.int32)
    distribution = kernels.sampling.normal(POINTS, clusters=clusters, num_clusters=1)
    settings = dict(clusters=clusters, distribution=distribution, threshold=threshold, all_within=False)
    return kernels.draw_and_match(jax.random.key(0), POINTS, jnp.arange(30) < 4, 9, **settings)


def diverse(weight):
    distance = kernels.distances.euclidean_to_point
    return kernels.greedy_diverse(PROBS[:, 0], POINTS, jnp.arange(30) < 4, 9, distance=distance, weight=weight)


@pytest.mark.parametrize(
    "run, values",
    [
        (lambda l2: kernels.representer_alphas(PROBS, LABELS, l2=l2), (1e-3, 0.1, 2.0)),
        (
            lambda l2: kernels.importance(PROBS, POINTS, labelled_sum=POINTS.sum(axis=0), num_labelled=30, l2=l2),
            (1e-3, 0.1, 2.0),
        ),
        (matches, (0.05, 0.3, 2.0)),
        (lambda perplexity: kernels.joint_probabilities(POINTS, perplexity=perplexity), (1.5, 5.0, 20.0)),
        (lambda perplexity: kernels.conditional_probabilities(SQ_DISTANCES, perplexity=perplexity), (1.5, 5.0, 20.0)),
        (diverse, (0.0, 0.2, 5.0)),
    ],
    ids=["alphas", "importance", "threshold", "joint", "conditional", "weight"],
)
def test_scalars_are_traced_and_vmapped(run, values):
    batched = jax.jit(jax.vmap(run))(jnp.array(values))
    for index, value in enumerate(values):
        single = jax.tree.map(lambda leaf, index=index: leaf[index], batched)
        chex.assert_trees_all_close(single, run(value), rtol=1e-5, atol=1e-6)


def test_public_kernels_are_documented():
    for name in kernels.__all__:
        assert inspect.getdoc(getattr(kernels, name)), name
