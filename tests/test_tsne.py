"""t-SNE's probabilities and divergence beside the slow obvious loop and scikit-learn."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.manifold._utils import _binary_search_perplexity

from latent_al import kernels


def loop_squared(points):
    rows = np.asarray(points, np.float64)
    return np.array([[((x - u) ** 2).sum() for u in rows] for x in rows])


def loop_row(sq_distances, perplexity):
    """Bisects the logarithm of the precision of one row, given its distances to the others."""
    gaps = sq_distances - sq_distances.min()
    low, high = -120.0, 120.0
    for _ in range(45):
        middle = (low + high) / 2
        weights = np.exp(-np.minimum(np.exp(middle) * gaps, 700))
        if perplexities(weights[None] / weights.sum()) > perplexity:
            low = middle
        else:
            high = middle
    return weights / weights.sum()


def loop_conditional(sq_distances, perplexity):
    rows = []
    for index, row in enumerate(np.asarray(sq_distances, np.float64)):
        rows.append(np.insert(loop_row(np.delete(row, index), perplexity), index, 0))
    return np.array(rows)


def loop_joint(points, perplexity):
    conditional = loop_conditional(loop_squared(points), perplexity)
    return (conditional + conditional.T) / (2 * len(points))


def loop_student_t(latents):
    weights = 1 / (1 + loop_squared(latents))
    np.fill_diagonal(weights, 0)
    return weights / weights.sum()


def loop_divergence(p, latents):
    q = loop_student_t(latents)
    return sum(a * np.log(a / b) for a, b in zip(p.ravel(), q.ravel(), strict=True) if a > 0)


def loop_gradient(p, latents):
    """Equation 5 of the paper."""
    latents = np.asarray(latents, np.float64)
    q, sq_distances = loop_student_t(latents), loop_squared(latents)
    gradient = np.zeros_like(latents)
    for i, x in enumerate(latents):
        for j, u in enumerate(latents):
            gradient[i] += 4 * (p[i, j] - q[i, j]) * (x - u) / (1 + sq_distances[i, j])
    return gradient


def perplexities(probs):
    probs = np.asarray(probs, np.float64)
    return np.exp(-(probs * np.log(np.where(probs > 0, probs, 1))).sum(axis=1))


def points_of(kind, size=40):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, 5))
    if kind == "far off":
        x = x + 1e3
    elif kind == "tiny":
        x = 1e-6 * x
    elif kind == "huge":
        x = 1e4 * x
    elif kind == "pairs":
        x = x[np.arange(size) // 2]
    elif kind == "tight clusters":
        x = 10 * x[np.arange(size) // 10] + 1e-3 * x
    elif kind == "outlier":
        x[0] = 1e4
    elif kind == "heavy tails":
        x = rng.standard_cauchy(size=(size, 5)) ** 3
    elif kind == "all scales":
        x = 2.0 ** np.linspace(-20, 20, size)[:, None] * np.ones(5)
    elif kind == "pixels":
        x = np.maximum(rng.uniform(-2, 1, size=(size, 784)), 0)
    return np.float32(x)


@cache
def sq_distances_of(kind, size=40):
    return np.float32(loop_squared(points_of(kind, size)))


KINDS = [
    "typical",
    "far off",
    "tiny",
    "huge",
    "pairs",
    "tight clusters",
    "outlier",
    "heavy tails",
    "all scales",
    "pixels",
]


JOINT = kernels.joint_probabilities, jax.jit(kernels.joint_probabilities, static_argnames="perplexity")
STUDENT_T = kernels.student_t, jax.jit(kernels.student_t)
DIVERGENCE = kernels.tsne_divergence, jax.jit(kernels.tsne_divergence)
GRADIENT = jax.grad(kernels.tsne_divergence, argnums=1)
OPTIMISED = dict(xla_backend_optimization_level=3, xla_cpu_use_fusion_emitters=True)
"""As users compile, which rounds less than the quick compilation of the tests."""


class TestProbabilities:
    @pytest.mark.parametrize("perplexity", [1.5, 4.0, 20.0, 38.5])
    @pytest.mark.parametrize("kind", KINDS)
    def test_conditional_equals_the_loop(self, kind, perplexity):
        sq_distances = sq_distances_of(kind)
        expected = loop_conditional(sq_distances, perplexity)
        result = kernels.conditional_probabilities(jnp.array(sq_distances), perplexity=perplexity)
        np.testing.assert_allclose(result, expected, atol=1e-5, rtol=0)
        np.testing.assert_allclose(perplexities(result), perplexities(expected), atol=1e-3)

    @pytest.mark.parametrize("kind", KINDS)
    def test_joint_equals_the_loop(self, kind):
        """To what a rounding of large distances changes small differences of them."""
        points = points_of(kind)
        expected = loop_joint(points, 6.0)
        for run in JOINT:
            result = np.asarray(run(jnp.array(points), perplexity=6.0))
            np.testing.assert_allclose(result, expected, atol=1e-5 if kind == "heavy tails" else 1e-6, rtol=0)
            np.testing.assert_allclose(result, result.T, rtol=1e-6)
            np.testing.assert_allclose(result.sum(), 1, rtol=2e-6)
            assert (result.diagonal() == 0).all()

    @pytest.mark.parametrize("perplexity", [5.0, 30.0, 119.0, 190.0])
    @pytest.mark.parametrize("kind", ["typical", "pixels"])
    def test_equals_scikit_learn(self, kind, perplexity):
        """Which stops at 1e-5 nats from the target, and loses rows all of whose weights underflow."""
        sq_distances = sq_distances_of(kind, 200)
        result = kernels.conditional_probabilities(jnp.array(sq_distances), perplexity=perplexity)
        peer = _binary_search_perplexity(sq_distances, perplexity, 0)
        np.testing.assert_allclose(perplexities(result), perplexity, atol=1e-3)
        np.testing.assert_allclose(perplexities(result), perplexities(peer), atol=max(1e-3, 2e-5 * perplexity))
        np.testing.assert_allclose(result, peer, atol=5e-5)

    @pytest.mark.parametrize("kind", ["outlier", "heavy tails", "all scales", "tight clusters"])
    def test_reaches_the_perplexity_of_many_rows(self, kind):
        sq_distances = sq_distances_of(kind, 200)
        for perplexity in (1.2, 30.0, 190.0):
            result = kernels.conditional_probabilities(jnp.array(sq_distances), perplexity=perplexity)
            np.testing.assert_allclose(perplexities(result), perplexity, atol=1e-3)

    @pytest.mark.parametrize("offset", [0, 1e4 + 0.1])
    def test_copies_beyond_the_perplexity_share_it_evenly(self, offset):
        """The copies among themselves, and the lone row, to which all copies of one group are nearest."""
        first, second = np.float32(offset + 3 * np.random.default_rng(1).normal(size=(2, 5)))
        groups = np.array([0] * 19 + [1] * 20 + [2])
        points = np.array([first, second, 4 * second - 3 * first])[groups]
        is_neighbour = groups[:, None] == groups[None, :]
        is_neighbour[39] = groups == 1
        np.fill_diagonal(is_neighbour, False)
        expected = is_neighbour / is_neighbour.sum(axis=1, keepdims=True)
        joint = kernels.joint_probabilities(jnp.array(points), perplexity=3.0)
        np.testing.assert_allclose(joint, (expected + expected.T) / 80, rtol=1e-6, atol=1e-9)

    @pytest.mark.parametrize("value", [0, 0.1, 1e4, -1e-6])
    @pytest.mark.parametrize("size, perplexity", [(2, 1.0), (2, 1.9), (40, 1.0), (40, 6.0), (40, 39.5)])
    def test_equal_rows_are_equally_likely(self, size, perplexity, value):
        joint = kernels.joint_probabilities(jnp.full((size, 5), value, jnp.float32), perplexity=perplexity)
        np.testing.assert_allclose(joint, (1 - np.eye(size)) / (size * (size - 1)), rtol=1e-6)

    def test_perplexity_of_one_is_the_nearest_row_alone(self):
        sq_distances = sq_distances_of("typical").copy()
        result = kernels.conditional_probabilities(jnp.array(sq_distances), perplexity=1.0)
        np.fill_diagonal(sq_distances, np.inf)
        np.testing.assert_allclose(result, np.eye(40)[sq_distances.argmin(axis=1)], atol=1e-5)

    @pytest.mark.parametrize("perplexity", [39.0, 39.9])
    def test_perplexity_of_all_others_and_more_is_all_of_them_evenly(self, perplexity):
        sq_distances = jnp.array(sq_distances_of("typical"))
        result = kernels.conditional_probabilities(sq_distances, perplexity=perplexity)
        np.testing.assert_allclose(result, (1 - np.eye(40)) / 39, rtol=3e-2)

    def test_diagonal_is_not_read(self):
        sq_distances = jnp.array(sq_distances_of("typical"))
        for value in (jnp.nan, jnp.inf, 5):
            other = jnp.fill_diagonal(sq_distances, value, inplace=False)
            chex.assert_trees_all_equal(
                kernels.conditional_probabilities(other, perplexity=6.0),
                kernels.conditional_probabilities(sq_distances, perplexity=6.0),
            )

    def test_nan_is_refused_outside_jit_and_shows_inside(self):
        points = jnp.array(points_of("typical")).at[3, 1].set(jnp.nan)
        with pytest.raises(ValueError, match="1 of 40 rows of points are NaN, .* the first is row 3;"):
            kernels.joint_probabilities(points, perplexity=6.0)
        joint = jax.jit(lambda points: kernels.joint_probabilities(points, perplexity=6.0))(points)
        assert jnp.isnan(joint[3]).all()

    def test_vmap_equals_singles(self):
        points = jnp.stack([points_of("typical"), points_of("pairs")])
        singles = jnp.stack([kernels.joint_probabilities(each, perplexity=3.0) for each in points])
        batched = jax.jit(jax.vmap(lambda each: kernels.joint_probabilities(each, perplexity=3.0)))(points)
        chex.assert_trees_all_close(batched, singles, atol=1e-7)

    @pytest.mark.parametrize("kind", ["typical", "pairs", "tight clusters"])
    def test_gradient_is_that_of_the_root(self, kind):
        """Beside differences of the loop."""
        points = points_of(kind)
        rng = np.random.default_rng(2)
        weights, way = rng.normal(size=(40, 40)), rng.normal(size=(40, 5)) * points.std()
        step = 1e-4 if kind != "tight clusters" else 1e-7
        ends = [(weights * loop_joint(points + sign * step * way, 3.0)).sum() for sign in (1, -1)]
        gradient = jax.grad(lambda x: (jnp.float32(weights) * kernels.joint_probabilities(x, perplexity=3.0)).sum())
        change = (np.asarray(gradient(jnp.array(points))) * way).sum()
        np.testing.assert_allclose(change, (ends[0] - ends[1]) / (2 * step), rtol=2e-3)

    def test_second_derivative_is_that_of_the_gradient(self):
        rng = np.random.default_rng(3)
        with jax.enable_x64(True):
            points, way, weights = (
                jnp.array(rng.normal(size=(12, 3))),
                rng.normal(size=(12, 3)),
                rng.normal(size=(12, 12)),
            )
            gradient = jax.grad(lambda x: (weights * kernels.joint_probabilities(x, perplexity=4.0)).sum())
            _, change = jax.jvp(gradient, (jnp.array(points),), (jnp.array(way),))
            ends = [gradient(jnp.array(points + sign * 1e-5 * way)) for sign in (1, -1)]
            np.testing.assert_allclose(change, (ends[0] - ends[1]) / 2e-5, atol=1e-6)

    def test_gradient_is_finite_on_copies(self):
        gradient = jax.grad(lambda x: (kernels.joint_probabilities(x, perplexity=3.0) ** 2).sum())
        for points in (np.ones((40, 5)), np.repeat(np.eye(5), 8, axis=0), points_of("all scales")):
            assert jnp.isfinite(gradient(jnp.float32(points))).all()

    @pytest.mark.parametrize("perplexity", [0.99, 0.0, -2.0, float("nan"), 10.0, 30.0, float("inf")])
    def test_impossible_perplexity_is_refused(self, perplexity):
        for refused in (kernels.joint_probabilities, kernels.conditional_probabilities):
            with pytest.raises(
                ValueError, match=rf"perplexity is {perplexity} for 10 rows; expected \[1, 10\).*lower it"
            ):
                refused(jnp.eye(10), perplexity=perplexity)

    def test_impossible_perplexity_is_refused_inside_jit_where_it_is_a_number(self):
        with pytest.raises(ValueError, match=r"perplexity is 10.0 for 10 rows; expected \[1, 10\)"):
            jax.jit(partial(kernels.joint_probabilities, perplexity=10.0))(jnp.eye(10))


LATENTS = {
    "typical": lambda x: x,
    "far off": lambda x: x + 1e4,
    "tiny": lambda x: 1e-6 * x,
    "huge": lambda x: 1e4 * x,
    "far apart": lambda x: 1e10 * x,
    "pairs": lambda x: x[np.arange(len(x)) // 2],
    "pairs far apart": lambda x: 1e4 * x[np.arange(len(x)) // 2] + 1e-2 * x,
    "all equal": lambda x: np.full_like(x, 0.1),
    "one far": lambda x: x + 1e6 * (np.arange(len(x)) == 7)[:, None],
}


def neighbours_and_latents(kind, size=30, width=3):
    x = np.random.default_rng(4).normal(size=(size, width))
    return np.float32(loop_joint(points_of("typical", size), 5.0)), np.float32(LATENTS[kind](x))


class TestDivergence:
    @pytest.mark.parametrize("kind", LATENTS)
    def test_student_t_equals_the_loop(self, kind):
        _, latents = neighbours_and_latents(kind)
        expected = loop_student_t(latents)
        for run in STUDENT_T:
            result = np.asarray(run(jnp.array(latents)))
            np.testing.assert_allclose(result, expected, rtol=5e-6)
            np.testing.assert_allclose(result.sum(), 1, rtol=2e-6)

    @pytest.mark.parametrize("kind", LATENTS)
    def test_divergence_equals_the_loop(self, kind):
        p, latents = neighbours_and_latents(kind)
        for run in DIVERGENCE:
            np.testing.assert_allclose(run(jnp.array(p), jnp.array(latents)), loop_divergence(p, latents), rtol=1e-5)

    @pytest.mark.parametrize("kind", LATENTS)
    def test_gradient_equals_the_paper(self, kind):
        p, latents = neighbours_and_latents(kind)
        expected = loop_gradient(p.astype(np.float64) / p.sum(dtype=np.float64), latents)
        result = GRADIENT(jnp.array(p), jnp.array(latents))
        np.testing.assert_allclose(result, expected, atol=2e-5 * abs(expected).max() + 1e-30, rtol=0)

    def test_is_zero_at_its_own_latents(self):
        _, latents = neighbours_and_latents("typical")
        p = kernels.student_t(jnp.array(latents))
        divergence = jax.jit(kernels.tsne_divergence, compiler_options=OPTIMISED)(p, jnp.array(latents))
        assert abs(divergence) < 2e-6
        np.testing.assert_allclose(GRADIENT(p, jnp.array(latents)), 0, atol=1e-7)

    def test_falls_along_its_gradient(self):
        p, latents = map(jnp.array, neighbours_and_latents("typical"))
        start = kernels.tsne_divergence(p, latents)
        for _ in range(20):
            latents = latents - 10 * GRADIENT(p, latents)
        assert kernels.tsne_divergence(p, latents) < 0.7 * start

    def test_gradient_over_neighbours_is_finite_where_they_are_none(self):
        points = jnp.array(points_of("tight clusters"))

        def divergence(points):
            return kernels.tsne_divergence(kernels.joint_probabilities(points, perplexity=3.0), points[:, :2])

        assert (kernels.joint_probabilities(points, perplexity=3.0) == 0).sum() > 40
        assert jnp.isfinite(jax.grad(divergence)(points)).all()

    def test_nan_is_refused_outside_jit_and_shows_inside(self):
        p, latents = neighbours_and_latents("typical")
        args = jnp.array(p), jnp.array(latents).at[2, 1].set(jnp.nan)
        with pytest.raises(ValueError, match="1 of 30 rows of latents are NaN, .* the first is row 2;"):
            kernels.tsne_divergence(*args)
        assert jnp.isnan(jax.jit(kernels.tsne_divergence)(*args))

    def test_vmap_equals_singles(self):
        p, latents = neighbours_and_latents("typical", width=6)
        p, latents = jnp.array(p), jnp.array(latents).reshape(30, 2, 3).swapaxes(0, 1)
        both = jax.value_and_grad(kernels.tsne_divergence, argnums=1)
        singles = jax.tree.map(lambda *each: jnp.stack(each), *[both(p, each) for each in latents])
        batched = jax.jit(jax.vmap(both, (None, 0)))(p, latents)
        chex.assert_trees_all_close(batched, singles, rtol=1e-5, atol=1e-8)

    def test_gradient_keeps_no_differences(self):
        """Of 200 rows by 100 they would take 16 MB; distances and their like take 0.2 MB each."""
        p, latents = jnp.ones((200, 200)) / 200**2, jnp.ones((200, 100))
        compiled = jax.jit(GRADIENT).lower(p, latents).compile()
        assert compiled.memory_analysis().temp_size_in_bytes < 2e6

    def test_two_rows_have_one_pair(self):
        latents = jnp.array([[0.0, 1.0], [3.0, -5.0]])
        np.testing.assert_allclose(kernels.student_t(latents), [[0, 0.5], [0.5, 0]])
        assert kernels.tsne_divergence(jnp.array([[0, 0.5], [0.5, 0]]), latents) == pytest.approx(0, abs=1e-6)

    def test_single_row_is_refused(self):
        for refused in (kernels.student_t, lambda x: kernels.tsne_divergence(jnp.zeros((1, 1)), x)):
            with pytest.raises(ValueError, match="1 rows have no pairs; expected 2 rows or more"):
                refused(jnp.ones((1, 3)))
