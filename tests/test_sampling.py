"""Rows drawn by distributions over the latent space, and the clusterings that they are fitted to."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.exceptions import ConvergenceWarning

from latent_al.kernels import sampling, selection
from latent_al.strategies import STRATEGIES
from latent_al.strategies.clusterings import CLUSTERINGS
from latent_al.strategies.needs import check_needs, latent_stats
from latent_al.types import BadInput, Encoded, Pool, build

POINTS = jax.random.normal(jax.random.key(0), (40, 3)) * jnp.array([[1.0, 2.0, 0.5]]) + 1
CLUSTERS = jnp.array([0] * 20 + [2] * 19 + [3])
"""Cluster 1 is empty and cluster 3 has one point."""


def members(cluster):
    return np.float64(POINTS)[np.asarray(CLUSTERS) == cluster]


def fixed(*centres):
    """A distribution that draws the same point again and again."""
    centre = jnp.array(centres)
    return sampling.Distribution(centre, jnp.zeros((*centre.shape, centre.shape[1])), jnp.array(True))


def draw(points, taken, num, distribution, *, clusters=None, threshold=0.5, all_within=False, seed=0):
    clusters = jnp.zeros(len(points), jnp.int32) if clusters is None else clusters
    settings = dict(clusters=clusters, distribution=distribution, threshold=threshold, all_within=all_within)
    rows, matched = sampling.draw_and_match(jax.random.key(seed), points, taken, num, **settings)
    return np.asarray(rows), np.asarray(matched)


class TestDistributions:
    def test_uniform_spans_the_cluster(self):
        centre, factor, is_normal = sampling.uniform(POINTS, clusters=CLUSTERS, num_clusters=4)
        assert not is_normal
        for cluster in (0, 2, 3):
            low, high = members(cluster).min(axis=0), members(cluster).max(axis=0)
            np.testing.assert_allclose(centre[cluster], (low + high) / 2, rtol=1e-5)
            np.testing.assert_allclose(factor[cluster], np.diag(high - low) / 2, atol=1e-6)

    def test_normal_has_one_mean_and_one_deviation(self):
        centre, factor, is_normal = sampling.normal(POINTS, clusters=CLUSTERS, num_clusters=4)
        assert is_normal
        for cluster in (0, 2, 3):
            np.testing.assert_allclose(centre[cluster], np.full(3, members(cluster).mean()), rtol=1e-5)
            np.testing.assert_allclose(factor[cluster], members(cluster).std() * np.eye(3), rtol=1e-5)

    def test_normal_of_one_row_has_a_gradient(self):
        def total(points):
            return sampling.normal(points, clusters=jnp.array([0, 0, 1]), num_clusters=3).factor.sum()

        np.testing.assert_allclose(jax.grad(total)(jnp.array([[0.0], [1.0], [5.0]])), [[-0.5], [0.5], [0.0]])

    def test_float32_stays_float32_where_x64_is_enabled(self):
        with jax.enable_x64(True):
            for fit in (sampling.uniform, sampling.normal, sampling.multi_normal):
                fitted = fit(jnp.float32(POINTS), clusters=jnp.zeros(len(POINTS), jnp.int32), num_clusters=1)
                assert fitted.centre.dtype == fitted.factor.dtype == jnp.float32

    def test_multi_normal_has_the_covariance(self):
        centre, factor, _ = sampling.multi_normal(POINTS, clusters=CLUSTERS, num_clusters=4)
        for cluster in (0, 2, 3):
            np.testing.assert_allclose(centre[cluster], members(cluster).mean(axis=0), rtol=1e-5)
            covariance = np.cov(members(cluster).T, bias=True)
            np.testing.assert_allclose(factor[cluster] @ factor[cluster].T, covariance, atol=1e-5)

    def test_a_singular_covariance(self):
        line = jnp.linspace(-1, 1, 30)[:, None] * jnp.array([[1.0, 2.0]])
        distribution = sampling.multi_normal(line, clusters=jnp.zeros(30, jnp.int32), num_clusters=1)
        np.testing.assert_allclose(
            distribution.factor[0] @ distribution.factor[0].T, np.cov(line.T, bias=True), atol=1e-6
        )
        rows, matched = draw(line, jnp.zeros(30, bool), 10, distribution, threshold=0.2)
        assert matched.all()
        assert len(set(rows.tolist())) == 10


@pytest.mark.parametrize("num", [0, 1, 7, 40, 99, 100])
@pytest.mark.parametrize("sizes", [(100,), (50, 50), (33, 33, 34), (1, 0, 98, 1), (0, 0, 100), (10,) * 10])
def test_largest_remainder(num, sizes):
    shares = np.asarray(sampling.largest_remainder(jnp.array(sizes), num))
    quotas = [Fraction(num * size, 100) for size in sizes]
    expected = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (int(quotas[i]) - quotas[i], i))
    for index in by_remainder[: num - sum(expected)]:
        expected[index] += 1
    assert shares.tolist() == expected


class TestDrawAndMatch:
    @pytest.mark.parametrize("all_within", [False, True])
    def test_one_point_drawn_again_and_again_gives_the_nearest_rows(self, all_within):
        """Those beyond the threshold too, once the draws have run out."""
        taken = jnp.zeros(40, bool).at[jnp.array([3, 8])].set(True)
        distance = np.linalg.norm(np.float64(POINTS) - [1, 1, 1], axis=1)
        distance[[3, 8]] = np.inf
        expected = np.argsort(distance)[:12]
        threshold = float(np.sort(distance)[4:6].mean())
        settings = dict(threshold=threshold, all_within=all_within)
        rows, matched = draw(POINTS, taken, 12, fixed([1.0, 1.0, 1.0]), **settings)
        assert rows.tolist() == expected.tolist()
        assert matched.tolist() == [True] * 5 + [False] * 7

    def test_each_cluster_gives_its_share_of_its_own_rows(self):
        centres = [list(map(float, np.asarray(POINTS[row]))) for row in (0, 0, 0, 39)]
        rows, _ = draw(POINTS, jnp.zeros(40, bool), 20, fixed(*centres), clusters=CLUSTERS, threshold=100.0)
        assert np.bincount(CLUSTERS[rows], minlength=4).tolist() == [10, 0, 10, 0]
        distance = np.linalg.norm(np.float64(POINTS) - np.float64(POINTS[0]), axis=1)
        for own, first in ((rows[:10], 0), (rows[10:], 20)):
            assert (
                own.tolist()
                == (first + np.argsort(distance[first : first + len(members(CLUSTERS[first]))])[:10]).tolist()
            )

    @pytest.mark.parametrize("all_within", [False, True])
    def test_what_is_taken_counts_in_no_share(self, all_within):
        taken = jnp.arange(40) < 18
        distribution = sampling.multi_normal(POINTS, clusters=CLUSTERS, num_clusters=4)
        rows, _ = draw(POINTS, taken, 22, distribution, clusters=CLUSTERS, all_within=all_within)
        assert sorted(rows.tolist()) == list(range(18, 40))

    @pytest.mark.parametrize("name", ["uniform", "normal", "multi_normal"])
    def test_picks_follow_the_distribution(self, name):
        """From a dense pool the picks have the distribution's own mean and deviation."""
        pool = jax.random.uniform(jax.random.key(1), (20_000, 2), minval=-3, maxval=3)
        shape = jnp.array([[0.5, 0.3]]) * jax.random.normal(jax.random.key(2), (500, 2)) + jnp.array([[1.0, -1.0]])
        distribution = getattr(sampling, name)(shape, clusters=jnp.zeros(500, jnp.int32), num_clusters=1)
        rows, matched = draw(pool, jnp.zeros(20_000, bool), 400, distribution, threshold=0.25)
        centre, factor = np.float64(distribution.centre[0]), np.float64(distribution.factor[0])
        deviation = np.sqrt(np.diag(factor @ factor.T)) / (1 if distribution.is_normal else np.sqrt(3))
        assert matched.all()
        np.testing.assert_allclose(pool[rows].mean(axis=0), centre, atol=0.15 * deviation.max())
        np.testing.assert_allclose(pool[rows].std(axis=0), deviation, rtol=0.1)

    def test_a_single_row_has_a_hundred_draws(self):
        """One draw in ten meets the one row, so that a hundred nearly always do."""
        point, square = jnp.zeros((1, 2)), jnp.array([[-1.0, -1.0], [1.0, 1.0]])
        distribution = sampling.uniform(square, clusters=jnp.zeros(2, jnp.int32), num_clusters=1)
        threshold = float(np.sqrt(0.1 * 4 / np.pi))
        matched = [draw(point, jnp.zeros(1, bool), 1, distribution, threshold=threshold, seed=i)[1] for i in range(50)]
        assert np.mean(matched) > 0.95

    def test_vmap_over_keys_equals_singles(self):
        distribution = sampling.multi_normal(POINTS, clusters=CLUSTERS, num_clusters=4)
        settings = dict(clusters=CLUSTERS, distribution=distribution, threshold=0.3, all_within=False)
        run = lambda key: sampling.draw_and_match(key, POINTS, jnp.zeros(40, bool), 9, **settings)  # noqa: E731
        keys = jax.random.split(jax.random.key(4), 3)
        for batched, single in zip(jax.vmap(run)(keys), zip(*map(run, keys), strict=True), strict=True):
            np.testing.assert_array_equal(batched, jnp.stack(single))

    @pytest.mark.parametrize(
        "change, message",
        [
            (dict(num=41), "num is 41; expected at least 1 and at most the 40 rows"),
            (dict(num=0), "num is 0"),
            (dict(num=31, taken=jnp.arange(40) < 10), "31 rows asked for but only 30 of 40 are left"),
            (dict(threshold=0.0), "threshold is 0.0; expected a distance above 0"),
            (dict(threshold=float("nan")), "threshold is nan"),
            (
                dict(clusters=jnp.arange(40) % 2),
                "clusters run from 0 to 1, first out of range in row 1; expected 0 to 0: .* raise the number",
            ),
        ],
    )
    def test_what_it_refuses(self, change, message):
        settings = dict(points=POINTS, taken=jnp.zeros(40, bool), num=5, distribution=fixed([0.0, 0.0, 0.0]))
        with pytest.raises(ValueError, match=message):
            draw(**settings | change)


def test_clusters_in_bytes_that_are_more_than_a_byte_counts(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    clusters = 6 * jnp.arange(40)
    small = sampling.normal(POINTS, clusters=clusters.astype(jnp.uint8), num_clusters=300)
    np.testing.assert_array_equal(small.centre, sampling.normal(POINTS, clusters=clusters, num_clusters=300).centre)
    with pytest.raises(ValueError, match="clusters run from 0 to 234, first out of range in row 39; expected 0 to 233"):
        sampling.normal(POINTS, clusters=clusters.astype(jnp.uint8), num_clusters=234)


def test_nearest_to_gives_each_target_a_row_of_its_own():
    targets = jnp.concatenate([POINTS[5:7], POINTS[5:6], jnp.zeros((1, 3))])
    taken = jnp.zeros(40, bool).at[6].set(True)
    left, expected = set(range(40)) - {6}, []
    for target in np.float64(targets):
        expected.append(min(left, key=lambda row: np.linalg.norm(np.float64(POINTS[row]) - target)))
        left.remove(expected[-1])
    assert selection.nearest_to(POINTS, taken, targets=targets).tolist() == expected
    with pytest.raises(ValueError, match="4 rows asked for but only 3 of 40"):
        selection.nearest_to(POINTS, jnp.arange(40) < 37, targets=targets)


class TestClusterings:
    def test_ward_is_scipys(self):
        clusters = CLUSTERINGS["ward"](num_clusters=5)(POINTS)
        expected = fcluster(linkage(np.float64(POINTS), "ward"), 5, "maxclust")
        pairs = set(zip(clusters.tolist(), expected.tolist(), strict=True))
        assert len(pairs) == 5
        assert sorted(set(clusters.tolist())) == list(range(5))

    @pytest.mark.parametrize("name, settings", [("ward", {}), ("gaussian_mixture", dict(seed=0))])
    def test_separate_groups_are_found(self, name, settings):
        points = jnp.concatenate([POINTS, POINTS + 50])
        clusters = np.asarray(CLUSTERINGS[name](num_clusters=2, **settings)(points))
        assert clusters[0] != clusters[40]
        assert (clusters == np.repeat(clusters[[0, 40]], 40)).all()

    @pytest.mark.parametrize("name, settings", [("ward", {}), ("gaussian_mixture", dict(seed=0))])
    @pytest.mark.parametrize("dtype", [jnp.float64, jnp.bfloat16])
    def test_other_types_than_float32(self, name, settings, dtype):
        with jax.enable_x64(True):
            points = jnp.concatenate([POINTS, POINTS + 50]).astype(dtype)
            clusters = np.asarray(CLUSTERINGS[name](num_clusters=2, **settings)(points))
        assert (clusters == np.repeat(clusters[[0, 40]], 40)).all()

    def test_one_cluster_and_duplicates(self):
        assert not CLUSTERINGS["ward"](num_clusters=1)(POINTS).any()
        same = jnp.ones((6, 2))
        assert set(CLUSTERINGS["ward"](num_clusters=3)(same).tolist()) == {0}
        assert CLUSTERINGS["kmeans"](num_clusters=3, iterations=5, seed=0)(same).shape == (6,)

    def test_a_gaussian_mixture_of_points_without_area(self):
        line = jnp.stack([jnp.linspace(0, 1, 40), jnp.zeros(40)], axis=1)
        mixture = CLUSTERINGS["gaussian_mixture"](num_clusters=2, seed=0)
        assert sorted(np.bincount(mixture(line)).tolist()) == [20, 20]
        with pytest.warns(ConvergenceWarning, match="distinct clusters .1. found"):
            assert len(set(mixture(jnp.ones((6, 2))).tolist())) == 1

    def test_in_and_out_of_jit(self):
        cluster = CLUSTERINGS["ward"](num_clusters=5)
        np.testing.assert_array_equal(jax.jit(cluster)(POINTS), cluster(POINTS))

    @pytest.mark.parametrize(
        "name, settings", [("ward", {}), ("gaussian_mixture", dict(seed=0)), ("kmeans", dict(seed=0, iterations=5))]
    )
    def test_numbers_of_clusters_that_cannot_be(self, name, settings):
        with pytest.raises(BadInput, match="num_clusters is 0; expected 1 or more"):
            CLUSTERINGS[name](num_clusters=0, **settings)
        with pytest.raises(ValueError, match="(num_clusters is 41|41 clusters of 40 points)"):
            CLUSTERINGS[name](num_clusters=41, **settings)(POINTS)


def make_pool(strategy, errors=None):
    train = Encoded(POINTS, None, errors)
    nothing = jnp.zeros(40, bool)
    return Pool(POINTS, None, None, None, nothing, jnp.full(40, -1), jnp.arange(40), strategy.prepare(train))


def test_ae_error_takes_the_largest():
    strategy = STRATEGIES["ae_error"]()
    errors = jax.random.uniform(jax.random.key(5), (40,))
    rows = strategy.query(jax.random.key(0), make_pool(strategy, errors), 6)
    assert rows.tolist() == np.argsort(-errors)[:6].tolist()
    with pytest.raises(ValueError, match="ae_error needs reconstructions"):
        check_needs(strategy, latent_stats(Encoded(POINTS, None)))


def test_the_log_tells_of_rows_beyond_the_threshold_and_of_few_rows(caplog):
    spec = dict(name="uniform", clustering=dict(name="ward", num_clusters=6), threshold=1e-6, match="nearest")
    strategy = build(STRATEGIES, spec, "strategy")
    for seed in range(2):
        strategy.query(jax.random.key(seed), make_pool(strategy), 5)
    jax.effects_barrier()
    assert "uniform over ward: 5 rows for 6 clusters, the smallest of which get none" in caplog.text
    assert caplog.text.count("uniform over ward: 5 of 5 rows lie farther than 1e-06 from any point drawn") == 1


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(threshold=0.0), "threshold is 0.0"),
        (dict(match="any"), "unknown match 'any'; known: all_within, nearest"),
        (dict(clustering=dict(name="birch")), "unknown clustering 'birch'; known: gaussian_mixture"),
    ],
)
def test_settings_outside_their_range(change, message):
    with pytest.raises(BadInput, match=message):
        build(STRATEGIES, dict(name="normal", clustering=None, threshold=0.25, match="nearest") | change, "strategy")


@pytest.mark.parametrize("name, settings", [("typical", dict(iterations=3)), ("farthest_first", {})])
@pytest.mark.parametrize(
    "latents, message", [(jnp.ones((4, 2)), "all 4 latents are equal"), (jnp.full((4, 2), jnp.nan), "NaN or infinite")]
)
def test_latents_without_distances(name, settings, latents, message):
    with pytest.raises(ValueError, match=message):
        check_needs(STRATEGIES[name](**settings), latent_stats(Encoded(latents, None)))
