"""k-means beside the slow obvious loop, in and out of `jit` and `vmap`."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_al import kernels
from latent_al.kernels import clustering


def sq_distances(points, centres):
    return np.array([[((point - centre) ** 2).sum() for centre in centres] for point in points])


def loop_lloyd(points, centres, iterations):
    """Centres, clusters, inertia and the steps made, in float64."""
    points, centres = points.astype(np.float64), centres.astype(np.float64)
    clusters = sq_distances(points, centres).argmin(axis=1)
    step, before = 0, np.full(len(points), -1)
    while step < iterations and (before != clusters).any():
        step, before = step + 1, clusters
        members = clusters.copy()
        for empty in sorted(set(range(len(centres))) - set(clusters)):
            own = ((points - centres[members]) ** 2).sum(axis=1)
            shared = np.array([(members == member).sum() > 1 for member in members])
            row = np.where(shared, own, -1).argmax()
            members[row], centres[empty] = empty, points[row]
        centres = np.array([points[members == each].mean(axis=0) for each in range(len(centres))])
        clusters = sq_distances(points, centres).argmin(axis=1)
    return centres, clusters, sq_distances(points, centres).min(axis=1).sum(), step


def blobs(kind, size, width, seed=0):
    rng = np.random.default_rng(seed)
    points = 3 * rng.normal(size=(5, width))[rng.integers(5, size=size)] + rng.normal(size=(size, width))
    if kind == "far off":
        points = points + 1e3
    elif kind == "tiny spread":
        points = 5 + 1e-3 * points
    elif kind == "duplicates":
        points = points[np.arange(size) // 3]
    return np.float32(points)


KINDS = ["typical", "far off", "tiny spread", "duplicates"]


class TestLloyd:
    @pytest.mark.parametrize(
        "num, iterations, width", [(1, 5, 2), (4, 1, 20), (4, 2, 20), (13, 100, 2), (13, 100, 20), (60, 3, 2)]
    )
    @pytest.mark.parametrize("kind", KINDS)
    def test_equals_the_loop(self, kind, num, iterations, width):
        """From distinct rows, as long as there are enough."""
        points = blobs(kind, 60, width)
        start = points[:: 60 // num][:num]
        centres, clusters, inertia, _ = loop_lloyd(points, start, iterations=iterations)
        result, scale = clustering.lloyd(jnp.array(points), jnp.array(start), iterations=iterations), points.std()
        np.testing.assert_allclose(result.centres, centres, rtol=3e-7, atol=1e-5 * scale)
        assert result.clusters.tolist() == clusters.tolist()
        assert result.clusters.dtype == jnp.int32
        np.testing.assert_allclose(result.inertia, inertia, rtol=1e-4, atol=1e-6 * scale**2)

    @pytest.mark.parametrize("num_empty", [1, 7])
    @pytest.mark.parametrize("iterations", [1, 50])
    def test_empty_clusters_go_to_the_farthest_rows(self, num_empty, iterations):
        points = blobs("typical", 60, 2)
        start = points[:8].copy()
        start[8 - num_empty :] = 1e4
        centres, clusters, inertia, _ = loop_lloyd(points, start, iterations=iterations)
        result = clustering.lloyd(jnp.array(points), jnp.array(start), iterations=iterations)
        np.testing.assert_allclose(result.centres, centres, rtol=1e-5, atol=1e-5)
        assert result.clusters.tolist() == clusters.tolist()
        np.testing.assert_allclose(result.inertia, inertia, rtol=1e-5)

    def test_an_empty_cluster_leaves_alone_a_row_that_has_its_own(self):
        """The last row is the farthest from its centre, but is that cluster's only one."""
        points, start = jnp.array([[0.0], [1.0], [2.0], [50.0]]), jnp.array([[0.0], [30.0], [-1e6]])
        result = clustering.lloyd(points, start, iterations=1)
        assert result.centres.tolist() == [[0.5], [50.0], [2.0]]
        assert result.clusters.tolist() == [0, 0, 2, 1]
        assert result.inertia == 0.5

    def test_centres_that_are_not_included_are_as_if_not_there(self):
        points = blobs("typical", 60, 2)
        start = points.copy()
        start[12] = 1e3  # The last of those in use begins empty.
        centres, clusters, inertia, _ = loop_lloyd(points, start[:13], 3)
        result = clustering.lloyd(jnp.array(points), jnp.array(start), iterations=3, included=jnp.arange(60) < 13)
        assert result.clusters.tolist() == clusters.tolist()
        np.testing.assert_allclose(result.centres[:13], centres, rtol=1e-5)
        np.testing.assert_allclose(result.inertia, inertia, rtol=1e-5)

    def test_stops_where_no_row_changes_its_cluster(self):
        points = blobs("typical", 60, 2)
        *_, steps = loop_lloyd(points, points[:8], iterations=100)
        settled, further = (
            clustering.lloyd(jnp.array(points), jnp.array(points[:8]), iterations=num) for num in (steps, 10**9)
        )
        assert 2 < steps < 20
        chex.assert_trees_all_equal(settled, further)
        before = clustering.lloyd(jnp.array(points), jnp.array(points[:8]), iterations=steps - 2)
        assert (before.clusters != settled.clusters).any()

    @pytest.mark.parametrize("width", [2, 20])
    def test_what_it_returns_agrees(self, width):
        """Also where it stops before it settles, and above a thousand rows, of which many have one cluster."""
        points = jnp.array(blobs("far off", 1500, width))
        result = clustering.lloyd(points, points[:40], iterations=2)
        sq_distance, row = kernels.nearest(points, result.centres, jnp.ones(40, bool))
        assert result.clusters.tolist() == row.tolist()
        np.testing.assert_allclose(result.inertia, sq_distance.sum(), rtol=1e-5)

    def test_equal_rows_settle_at_once(self):
        points = jnp.full((60, 2), 0.1)
        result = clustering.lloyd(points, points[:8], iterations=10)
        assert result.centres.tolist() == points[:8].tolist()
        assert result.clusters.tolist() == [0] * 60
        assert result.inertia == 0

    def test_vmap_over_starts_equals_singles(self):
        """Of which the second has empty clusters, and each settles after other steps."""
        points = jnp.array(blobs("typical", 60, 2))
        starts = jnp.stack([points[:8], points[:8].at[2:].set(1e4), points[20:28]])
        batched = jax.jit(jax.vmap(lambda start: clustering.lloyd(points, start, iterations=50)))(starts)
        singles = jax.tree.map(
            lambda *each: jnp.stack(each), *[clustering.lloyd(points, start, iterations=50) for start in starts]
        )
        chex.assert_trees_all_close(batched, singles, rtol=1e-5)

    @pytest.mark.parametrize("iterations", [0, -3])
    def test_impossible_iterations_are_refused(self, iterations):
        with pytest.raises(ValueError, match=f"iterations is {iterations}; expected 1 or more"):
            clustering.lloyd(jnp.ones((5, 2)), jnp.ones((2, 2)), iterations=iterations)

    def test_more_centres_than_rows_are_refused(self):
        with pytest.raises(ValueError, match="6 clusters of 5 points"):
            clustering.lloyd(jnp.ones((5, 2)), jnp.ones((6, 2)), iterations=3)


class TestPlusPlus:
    def test_each_row_is_drawn_in_proportion_to_its_squared_distance(self):
        """First and second, then the third given those; of 100,000 draws within 5 standard deviations."""
        points, num_draws = blobs("typical", 5, 3).astype(np.float64), 100_000
        draw = jax.jit(jax.vmap(lambda key: clustering.kmeans_plus_plus(key, jnp.float32(points), 3)))
        drawn = np.asarray(draw(jax.random.split(jax.random.key(0), num_draws)))
        rows = (drawn[:, :, None] == np.float32(points)[None, None]).all(axis=3).argmax(axis=2)
        seen = np.zeros((5, 5, 5))
        np.add.at(seen, tuple(rows.T), 1 / num_draws)
        distance = sq_distances(points, points)
        for i, j in np.ndindex(5, 5):
            if i == j:
                assert not seen[i, j].any()
                continue
            pair = distance[i, j] / distance[i].sum() / 5
            nearest = np.minimum(distance[i], distance[j])
            expected = pair * nearest / nearest.sum()
            assert (abs(seen[i, j] - expected) <= 5 * np.sqrt(expected / num_draws)).all()

    def test_draws_from_every_row_of_a_long_set(self):
        """Each as far from every other as the rest: 2,000 draws of 90 rows leave none out."""
        points = jnp.eye(90)
        draw = jax.jit(jax.vmap(lambda key: clustering.kmeans_plus_plus(key, points, 2)))
        rows = np.asarray(draw(jax.random.split(jax.random.key(0), 2000)).argmax(axis=2))
        for drawn in rows.T:
            assert set(drawn.tolist()) == set(range(90))
        assert (rows[:, 0] != rows[:, 1]).all()

    @pytest.mark.parametrize("size", [1, 5, 40])
    def test_as_many_as_there_are_rows_takes_each_once(self, size):
        points = blobs("far off", size, 3)
        rows = clustering.kmeans_plus_plus(jax.random.key(1), jnp.array(points), size)
        assert sorted(rows.tolist()) == sorted(points.tolist())

    @pytest.mark.parametrize("num", [4, 40])
    def test_fewer_distinct_rows_than_asked_for_are_all_drawn_and_then_drawn_again(self, num):
        points = jnp.array(np.repeat(blobs("typical", 4, 3), [1, 2, 3, 34], axis=0))
        rows = clustering.kmeans_plus_plus(jax.random.key(2), points, num)
        assert len(rows) == num
        assert set(map(tuple, rows.tolist())) == set(map(tuple, points.tolist()))

    def test_rows_drawn_again_are_drawn_uniformly(self):
        points = jnp.array([[0.0], [0.0], [0.0], [1.0]])
        draw = jax.vmap(lambda key: clustering.kmeans_plus_plus(key, points, 3)[2, 0])
        assert abs(draw(jax.random.split(jax.random.key(0), 10_000)).mean() - 0.25) < 0.025

    def test_jit_and_vmap_over_keys_equal_singles(self):
        points, keys = jnp.array(blobs("typical", 60, 3)), jax.random.split(jax.random.key(3), 4)
        batched = jax.jit(jax.vmap(lambda key: clustering.kmeans_plus_plus(key, points, 7)))(keys)
        singles = jnp.stack([clustering.kmeans_plus_plus(key, points, 7) for key in keys])
        chex.assert_trees_all_equal(batched, singles)
        assert len(np.unique(np.asarray(batched), axis=0)) == 4

    @pytest.mark.parametrize("num", [0, -1, 6])
    def test_impossible_num_is_refused(self, num):
        with pytest.raises(ValueError, match=f"{num} clusters of 5 points"):
            clustering.kmeans_plus_plus(jax.random.key(0), jnp.ones((5, 2)), num)


class TestKMeans:
    @pytest.mark.parametrize("num", [7, 20, 24])
    def test_points_that_are_not_clustered_are_as_if_not_there(self, num):
        """They lie far out, where they would draw centres; with as many clusters as points each has its own."""
        points, clustered = blobs("typical", 60, 3), np.arange(60) % 5 < 2
        points[~clustered] *= 100
        result = kernels.kmeans(jax.random.key(0), points, num, clustered=clustered)
        assert (np.asarray(result.clusters)[~clustered] == -1).all()
        centres, clusters, inertia, _ = loop_lloyd(points[clustered], np.asarray(result.centres), 1)
        assert np.asarray(result.clusters)[clustered].tolist() == clusters.tolist()
        np.testing.assert_allclose(result.centres, centres, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(result.inertia, inertia, rtol=1e-4, atol=1e-5)
        assert len(set(clusters)) == num

    def test_fewer_points_than_clusters(self):
        """They are refused; inside jit some clusters stay empty."""
        points, clustered = blobs("typical", 60, 3), np.arange(60) < 4
        with pytest.raises(ValueError, match="clustered marks 4 of 60 points, but 7 clusters are asked for"):
            kernels.kmeans(jax.random.key(0), points, 7, clustered=clustered)
        result = jax.jit(lambda mask: kernels.kmeans(jax.random.key(0), points, 7, clustered=mask))(clustered)
        assert len(set(result.clusters[:4].tolist())) == 4
        np.testing.assert_allclose(result.centres[result.clusters[:4]], points[:4], rtol=1e-5)

    def test_clusters_in_use_are_as_if_there_were_no_others(self):
        points, clustered = blobs("typical", 60, 3), np.arange(60) < 30
        points[~clustered] *= 100

        def kmeans(count):
            settings = dict(included=jnp.arange(20) < count, clustered=clustered)
            return kernels.kmeans(jax.random.key(0), points, 20, **settings)

        result, jitted = kmeans(7), jax.jit(kmeans)(7)
        chex.assert_trees_all_equal(jitted.clusters, result.clusters)
        assert set(result.clusters[clustered].tolist()) == set(range(7))
        centres, clusters, inertia, _ = loop_lloyd(points[clustered], np.asarray(result.centres[:7]), 1)
        assert np.asarray(result.clusters)[clustered].tolist() == clusters.tolist()
        np.testing.assert_allclose(result.centres[:7], centres, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(result.inertia, inertia, rtol=1e-4, atol=1e-5)
        with pytest.raises(ValueError, match="clustered marks 6 of 60 points, but 7 clusters are asked for"):
            kernels.kmeans(jax.random.key(0), points, 9, included=jnp.arange(9) < 7, clustered=np.arange(60) < 6)
        with pytest.raises(ValueError, match="included marks 1 clusters; expected num_clusters, 7"):
            kernels.kmeans(jax.random.key(0), points, 7, included=jnp.ones(1, bool))

    def test_is_both_together(self):
        key, points = jax.random.key(4), jnp.array(blobs("typical", 60, 3))
        expected = clustering.lloyd(points, clustering.kmeans_plus_plus(key, points, 7), iterations=3)
        chex.assert_trees_all_equal(kernels.kmeans(key, points, 7, iterations=3), expected)
        jitted = jax.jit(kernels.kmeans, static_argnums=2, static_argnames="iterations")
        chex.assert_trees_all_close(jitted(key, points, 7, iterations=3), expected)

    def test_finds_clusters_far_apart(self):
        rng = np.random.default_rng(0)
        labels = rng.integers(7, size=60)
        points = np.float32(100 * rng.normal(size=(7, 3))[labels] + rng.normal(size=(60, 3)))
        result = kernels.kmeans(jax.random.key(0), jnp.array(points), 7)
        found = np.asarray(result.clusters)
        assert len(set(zip(labels.tolist(), found.tolist(), strict=True))) == 7
        means = np.stack([points[found == each].mean(axis=0) for each in range(7)])
        np.testing.assert_allclose(result.centres, means, atol=1e-4)

    @pytest.mark.parametrize("size", [1, 40])
    def test_as_many_clusters_as_rows_have_no_inertia(self, size):
        result = kernels.kmeans(jax.random.key(0), jnp.array(blobs("far off", size, 3)), size)
        assert sorted(result.clusters.tolist()) == list(range(size))
        assert result.inertia == 0

    @pytest.mark.parametrize("num", [4, 40])
    def test_as_many_clusters_as_distinct_rows_have_no_inertia(self, num):
        points = jnp.array(np.repeat(blobs("far off", 4, 3), 10, axis=0))
        result = kernels.kmeans(jax.random.key(0), points, num)
        assert len(set(result.clusters.tolist())) == 4
        assert result.inertia == 0

    def test_vmap_over_keys_equals_singles(self):
        points, keys = jnp.array(blobs("typical", 60, 3)), jax.random.split(jax.random.key(5), 3)
        batched = jax.jit(jax.vmap(partial(kernels.kmeans, num_clusters=7), in_axes=(0, None)))(keys, points)
        singles = jax.tree.map(lambda *each: jnp.stack(each), *[kernels.kmeans(key, points, 7) for key in keys])
        chex.assert_trees_all_close(batched, singles, rtol=1e-5)

    def test_memory_is_far_from_that_of_all_distances(self):
        run = jax.jit(partial(kernels.kmeans, num_clusters=1000))
        program = run.lower(jax.random.key(0), jnp.zeros((20_000, 30))).compile()
        assert program.memory_analysis().temp_size_in_bytes < 4 * 20_000 * 1000 / 5

    @pytest.mark.parametrize("num, iterations", [(0, 5), (6, 5), (2, 0)])
    def test_impossible_sizes_are_refused(self, num, iterations):
        with pytest.raises(ValueError, match="expected"):
            kernels.kmeans(jax.random.key(0), jnp.ones((5, 2)), num, iterations=iterations)
