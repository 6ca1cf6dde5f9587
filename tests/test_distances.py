"""Distances, divergences and the greedy batch beside the slow obvious loop, in and out of `jit` and `vmap`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_al import kernels
from latent_al.kernels import distances


def loop_squared(x, y):
    return sum((a - b) ** 2 for a, b in zip(x[0], y[0], strict=True))


def loop_euclidean(x, y):
    return np.sqrt(loop_squared(x, y))


def loop_cosine(x, y):
    return (1 - (x[0] / np.linalg.norm(x[0])) @ (y[0] / np.linalg.norm(y[0]))) / 2


def loop_kl(x, y):
    """Tonnaer's (2017) sum over dimensions, its logarithm and the ratio of variances joined so as not to cancel."""
    total = 0
    for mu_x, log_x, mu_y, log_y in zip(*x, *y, strict=True):
        gap = 2 * (log_x - log_y)
        total += 0.5 * (np.expm1(gap) - gap + (mu_x - mu_y) ** 2 * np.exp(-2 * log_y))
    return total


def loop_j(x, y):
    return loop_kl(x, y) + loop_kl(y, x)


def pairs(loop, x, y):
    """The loop over each row of x and of y, both (mu, log_sigma), in float64."""
    x, y = ([each.astype(np.float64) for each in side] for side in (x, y))
    return np.array([[loop(a, b) for b in zip(*y, strict=True)] for a in zip(*x, strict=True)])


def gaussians(kind, size, seed=0):
    rng = np.random.default_rng(seed)
    mu, log_sigma = rng.normal(size=(size, 4)), rng.uniform(-3, 0, size=(size, 4))
    if kind == "far off":
        mu = mu + 1e3
    elif kind == "tiny spread":
        mu, log_sigma = 5 + 1e-3 * mu, -2 + 1e-3 * log_sigma
    elif kind == "extreme sigma":
        log_sigma = 3 * log_sigma + 3
    elif kind == "duplicates":
        mu, log_sigma = mu[np.arange(size) // 3], log_sigma[np.arange(size) // 3]
    elif kind == "unit cube":
        mu = rng.uniform(size=(size, 4))
    return np.float32(mu), np.float32(log_sigma)


KINDS = ["typical", "far off", "tiny spread", "extreme sigma", "duplicates", "unit cube"]
MATRICES = {
    "squared_distances": (lambda x, y: kernels.squared_distances(x[0], y[0]), loop_squared),
    "kl_divergences": (lambda x, y: kernels.kl_divergences(*x, *y), loop_kl),
    "jeffreys_divergences": (lambda x, y: kernels.jeffreys_divergences(*x, *y), loop_j),
}
COLUMNS = {
    "squared_euclidean_to_point": (lambda x, y: distances.squared_euclidean_to_point(x[0], y[0]), loop_squared),
    "euclidean_to_point": (lambda x, y: distances.euclidean_to_point(x[0], y[0]), loop_euclidean),
    "half_cosine_to_point": (lambda x, y: distances.half_cosine_to_point(x[0], y[0]), loop_cosine),
    "jeffreys_to_point": (distances.jeffreys_to_point, loop_j),
}


def row(gaussian, index):
    return jax.tree.map(lambda each: each[index], gaussian)


@pytest.mark.parametrize("kernel, loop", MATRICES.values(), ids=MATRICES.keys())
class TestMatrices:
    @pytest.mark.parametrize("kind", KINDS)
    def test_equals_the_loop(self, kernel, loop, kind):
        """To a rounding of the largest divergence that shares a row or a column."""
        x, y = gaussians(kind, 17), gaussians(kind, 11, seed=1)
        expected = pairs(loop, x, y)
        allowed = 1e-5 + 3e-6 * (expected.max(axis=0, keepdims=True) + expected.max(axis=1, keepdims=True))
        for run in (kernel, jax.jit(kernel)):
            result = np.asarray(run(*jax.tree.map(jnp.array, (x, y))))
            assert result.shape == (17, 11)
            assert (result >= 0).all()
            assert (abs(result - expected) <= allowed).all()

    def test_one_row_each(self, kernel, loop):
        x, y = gaussians("typical", 1), gaussians("typical", 1, seed=1)
        np.testing.assert_allclose(kernel(*jax.tree.map(jnp.array, (x, y))), pairs(loop, x, y), rtol=1e-5)

    @pytest.mark.parametrize("log_sigma", [-6, 0, 3])
    @pytest.mark.parametrize("mu", [0, 0.1, 1e3 + 0.1])
    def test_identical_gaussians_are_at_zero(self, kernel, loop, mu, log_sigma):
        same = jnp.full((5, 3), mu, jnp.float32), jnp.full((5, 3), log_sigma, jnp.float32)
        np.testing.assert_allclose(kernel(same, same), 0, atol=1e-5)

    def test_vmap_equals_singles(self, kernel, loop):
        x, y = (
            jax.tree.map(lambda each: jnp.array(each.reshape(3, 5, 4)), gaussians("typical", 15, s)) for s in (0, 1)
        )
        singles = jnp.stack([kernel(row(x, index), row(y, index)) for index in range(3)])
        chex.assert_trees_all_close(jax.vmap(kernel)(x, y), singles, rtol=1e-5, atol=1e-4)

    @pytest.mark.parametrize("size", [5, 300])
    def test_nan_is_refused_outside_jit_and_shows_inside_also_through_a_sum(self, kernel, loop, size):
        """At 300 rows XLA vectorizes the sum over what it is fused with."""
        x = jax.tree.map(jnp.array, gaussians("typical", size))
        broken = x[0].at[2, 1].set(jnp.nan), x[1]
        with pytest.raises(ValueError, match=f"1 of {size} rows of (x|mu_x) are NaN, .* the first is row 2;"):
            kernel(broken, x)
        assert jnp.isnan(jax.jit(kernel)(broken, x)[2]).all()
        assert jnp.isnan(jax.jit(lambda *each: kernel(*each).sum(axis=1))(broken, x)[2])


@pytest.mark.parametrize("kernel, loop", COLUMNS.values(), ids=COLUMNS.keys())
class TestColumns:
    @pytest.mark.parametrize("kind", KINDS)
    def test_equals_the_loop(self, kernel, loop, kind):
        """Each distance to a rounding of itself: none of them cancels, but the cosine's."""
        x = gaussians(kind, 17)
        expected = pairs(loop, x, row(x, slice(4, 5)))[:, 0]
        for run in (kernel, jax.jit(kernel)):
            result = run(*jax.tree.map(jnp.array, (x, row(x, 4))))
            np.testing.assert_allclose(result, expected, rtol=2e-5, atol=3e-7 if loop is loop_cosine else 0)

    def test_one_row_is_at_zero_from_itself(self, kernel, loop):
        x = jax.tree.map(jnp.array, gaussians("typical", 1))
        np.testing.assert_allclose(kernel(x, row(x, 0)), [0], atol=3e-7)

    @pytest.mark.parametrize("size, width", [(29, 38), (66, 17)])
    def test_equal_rows_are_equally_far(self, kernel, loop, size, width):
        """To the last bit: else their ties would not go to the lowest row."""
        rng = np.random.default_rng(size)
        mu, log_sigma, to_mu, to_log_sigma = jnp.float32(rng.normal(size=(4, width)))
        equal = (jnp.tile(mu[None, :], (size, 1)), jnp.tile(log_sigma[None, :], (size, 1)))
        for run in (kernel, jax.jit(kernel)):
            assert len(set(run(equal, (to_mu, to_log_sigma)).tolist())) == 1

    def test_vmap_equals_singles(self, kernel, loop):
        x = jax.tree.map(lambda each: jnp.array(each.reshape(3, 5, 4)), gaussians("typical", 15))
        to = row(x, (slice(None), 2))
        singles = jnp.stack([kernel(row(x, index), row(to, index)) for index in range(3)])
        chex.assert_trees_all_close(jax.vmap(kernel)(x, to), singles, rtol=1e-5, atol=3e-7)


@pytest.mark.parametrize("scale", [1e-15, 1e-10, 1e-5, 1e5, 1e10, 1e15])
def test_cosine_does_not_depend_on_the_scale(scale):
    points = np.float32(gaussians("typical", 12)[0] * scale)
    expected = pairs(loop_cosine, (points,), (points[:1],))[:, 0]
    np.testing.assert_allclose(
        distances.half_cosine_to_point(jnp.array(points), jnp.array(points[0])), expected, atol=1e-6
    )


def test_cosine_runs_from_zero_to_one_and_is_nan_at_a_zero_row():
    points = jnp.array([[3.0, 4.0], [6.0, 8.0], [-4.0, 3.0], [-0.3, -0.4], [0.0, 0.0]])
    np.testing.assert_allclose(
        distances.half_cosine_to_point(points, points[0]), [0, 0, 0.5, 1, np.nan], atol=1e-7, equal_nan=True
    )
    assert jnp.isnan(distances.half_cosine_to_point(points, points[4])).all()
    short = jnp.array([[1e-30, 1e-30], [1.0, 1.0]])
    np.testing.assert_array_equal(distances.half_cosine_to_point(short, short[1]), [np.nan, 0])
    assert jnp.isnan(distances.half_cosine_to_point(short, short[0])).all()


@pytest.mark.parametrize("kind", KINDS)
def test_diameter_is_twice_the_largest_distance_from_the_origin_and_bounds_a_metric(kind):
    x = gaussians(kind, 17)
    given = jax.tree.map(jnp.array, x)
    zero = (np.zeros((1, 4)), np.zeros((1, 4)))
    euclidean = distances.diameter(given[0], distance=distances.euclidean_to_point)
    np.testing.assert_allclose(euclidean, 2 * pairs(loop_euclidean, x, zero).max(), rtol=1e-6)
    assert euclidean >= pairs(loop_euclidean, x, x).max()
    np.testing.assert_allclose(
        distances.diameter(given[0], distance=distances.squared_euclidean_to_point),
        2 * pairs(loop_squared, x, zero).max(),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        distances.diameter(given, distance=distances.jeffreys_to_point), 2 * pairs(loop_j, x, zero).max(), rtol=2e-5
    )


def loop_greedy(score, distance, taken, num, weight):
    """Over a matrix of distances: at each step every open row is tried, and the first of the best is kept."""
    rows = []
    for _ in range(num):
        best = None
        for index in range(len(score)):
            if taken[index] or index in rows:
                continue
            gain = score[index] + (weight * min(distance[index, picked] for picked in rows) if rows else 0)
            if best is None or gain > best[0]:
                best = gain, index
        rows.append(best[1])
    return rows


def greedy(to):
    return lambda score, points, taken, num, weight: kernels.greedy_diverse(
        score, points, taken, num, distance=to, weight=weight
    )


def pool(size, seed):
    rng = np.random.default_rng(seed)
    taken = rng.uniform(size=size) < 0.3
    taken[rng.integers(size)] = False
    return np.float32(rng.uniform(size=size)), taken


EUCLIDEAN = greedy(distances.euclidean_to_point)
SQUARED = greedy(distances.squared_euclidean_to_point)


class TestGreedyDiverse:
    @pytest.mark.parametrize("weight", [0.03, 2.0])
    @pytest.mark.parametrize("kernel, loop", COLUMNS.values(), ids=COLUMNS.keys())
    def test_equals_the_loop(self, kernel, loop, weight):
        x = gaussians("typical", 33)
        (score, taken), distance = pool(33, seed=2), pairs(loop, x, x)
        expected = loop_greedy(score.astype(np.float64), distance, taken, 9, weight)
        given = jnp.array(score), jax.tree.map(jnp.array, x), jnp.array(taken)
        pick = greedy(kernel)
        for run in (pick, jax.jit(pick, static_argnums=3)):
            assert run(*given, 9, weight).tolist() == expected

    @pytest.mark.parametrize("seed", range(4))
    def test_ties_and_duplicates_go_to_the_lowest_row(self, seed):
        """On a grid of whole numbers, where every gain is exact, ties abound and rows repeat."""
        rng = np.random.default_rng(seed)
        points, score = rng.integers(0, 3, size=(40, 2)), rng.integers(0, 3, size=40) / 4
        taken = rng.uniform(size=40) < 0.3
        distance = pairs(loop_squared, (points,), (points,))
        expected = loop_greedy(score, distance, taken, 20, 0.25)
        rows = SQUARED(jnp.float32(score), jnp.float32(points), jnp.array(taken), 20, 0.25)
        assert rows.tolist() == expected

    def test_equal_rows_come_in_order(self):
        taken = jnp.array([True, False, False, True, False, False])
        rows = EUCLIDEAN(jnp.zeros(6), jnp.full((6, 3), 0.1), taken, 3, 1.0)
        assert rows.tolist() == [1, 2, 4]

    @pytest.mark.parametrize("size", [1, 2, 31])
    def test_takes_every_open_row_once_where_num_is_what_is_left(self, size):
        score, taken = pool(size, seed=size)
        rows = EUCLIDEAN(
            jnp.array(score), jnp.array(gaussians("duplicates", size)[0]), jnp.array(taken), int((~taken).sum()), 0.1
        )
        assert sorted(rows.tolist()) == np.flatnonzero(~taken).tolist()
        assert rows[0] == np.where(taken, -1, score).argmax()

    def test_last_rows_of_a_nearly_empty_pool(self):
        taken = jnp.ones(1000, bool).at[jnp.array([3, 998])].set(False)
        assert EUCLIDEAN(jnp.linspace(0, 1, 1000), jnp.ones((1000, 2)), taken, 2, 5.0).tolist() == [998, 3]

    @pytest.mark.parametrize("weight", [0.0, 1e30, 3e38])
    def test_taken_rows_are_never_picked_whatever_the_score(self, weight):
        levels = jnp.array([-jnp.inf, -3e38, 0.0, 3e38, jnp.inf])
        score = jnp.tile(levels, 8)
        taken = jnp.arange(40) % 3 == 0
        num = int((~taken).sum())
        rows = EUCLIDEAN(score, jnp.array(gaussians("far off", 40)[0]), taken, num, weight)
        assert sorted(rows.tolist()) == jnp.flatnonzero(~taken).tolist()

    def test_weight_zero_is_top_k(self):
        score, taken = map(jnp.array, pool(33, seed=4))
        rows = EUCLIDEAN(score, jnp.array(gaussians("typical", 33)[0]), taken, 9, 0.0)
        chex.assert_trees_all_equal(rows, kernels.top_k(score, taken, 9))

    def test_equal_scores_are_farthest_first(self):
        line = jnp.array([[0.0], [1.0], [4.0], [10.0], [16.0]])
        assert EUCLIDEAN(jnp.zeros(5), line, jnp.zeros(5, bool), 5, 1.0).tolist() == [0, 4, 3, 2, 1]

    def test_jit_and_vmap_equal_singles_with_a_weight_each(self):
        score, taken = (jnp.stack(each) for each in zip(*(map(jnp.array, pool(33, s)) for s in range(3)), strict=True))
        points = jnp.array(gaussians("typical", 99)[0].reshape(3, 33, 4))
        weight = jnp.array([0.0, 0.1, 5.0])
        batched = jax.jit(jax.vmap(lambda *each: EUCLIDEAN(*each[:3], 7, each[3])))(score, points, taken, weight)
        singles = [EUCLIDEAN(score[i], points[i], taken[i], 7, weight[i]) for i in range(3)]
        chex.assert_trees_all_equal(batched, jnp.stack(singles))

    def test_inside_jit_over_known_arrays(self):
        score, taken = map(jnp.array, pool(33, seed=5))
        points, weight = jnp.array(gaussians("typical", 33)[0]), jnp.float32(0.1)
        rows = jax.jit(lambda: EUCLIDEAN(score, points, taken, 5, weight))()
        chex.assert_trees_all_equal(rows, EUCLIDEAN(score, points, taken, 5, weight))

    @pytest.mark.parametrize("weight", [-1.0, -1e-6, np.inf, -np.inf, np.nan])
    def test_impossible_weight_is_refused(self, weight):
        given = jnp.zeros(5), jnp.ones((5, 2)), jnp.zeros(5, bool), 2
        for each in (float(weight), jnp.float32(weight)):
            with pytest.raises(ValueError, match=r"weight is .*; expected 0 or more"):
                EUCLIDEAN(*given, each)
            with pytest.raises(ValueError, match=r"weight is .*; expected 0 or more"):
                jax.jit(lambda each=each: EUCLIDEAN(*given, each))()

    @pytest.mark.parametrize("num", [0, -1, 6])
    def test_impossible_num_is_refused(self, num):
        with pytest.raises(ValueError, match=f"num is {num}"):
            EUCLIDEAN(jnp.zeros(5), jnp.ones((5, 2)), jnp.zeros(5, bool), num, 1.0)

    def test_too_few_left_is_refused_with_both_numbers(self):
        with pytest.raises(ValueError, match="3 rows asked for but only 2 of 5"):
            EUCLIDEAN(jnp.zeros(5), jnp.ones((5, 2)), jnp.arange(5) < 3, 3, 1.0)

    def test_nan_score_is_refused_outside_jit_and_picked_last_inside(self):
        score, points, taken = (
            jnp.array([0.0, jnp.nan, 1.0, 0.5]),
            jnp.array([[0.0], [9.0], [1.0], [2.0]]),
            jnp.arange(4) < 1,
        )
        with pytest.raises(ValueError, match="1 of 4 scores are NaN"):
            EUCLIDEAN(score, points, taken, 2, 1.0)
        rows = jax.jit(lambda *each: EUCLIDEAN(*each, 3, 1.0))(score, points, taken)
        assert rows.tolist() == [2, 3, 1]

    def test_row_without_a_distance_is_refused_outside_jit_and_picked_last_inside(self):
        """A zero row has no direction."""
        points = jnp.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [-1.0, 0.0]])
        select = greedy(distances.half_cosine_to_point)
        args = jnp.array([0.3, 0.2, 0.1, 0.0]), points, jnp.zeros(4, bool)
        with pytest.raises(ValueError, match="the distance from row 1 to a selected one is NaN; .* zero vectors"):
            select(*args, 4, 1.0)
        assert jax.jit(lambda *args: select(*args, 4, 1.0))(*args).tolist() == [0, 3, 2, 1]
