"""What latents say before the first label: clusters, dimension, coverage, the verdict, and the job that tells it."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from test_labelling import answer, call, draw, queries_of

from latent_al.labelling import advice
from latent_al.labelling.advice import Clusters


def mixture(num_clusters, num=200, width=64, seed=0):
    """Points of well separated Gaussians, and the cluster of each."""
    rng = np.random.default_rng(seed)
    clusters = np.arange(num) % num_clusters
    return np.float32(2 * rng.normal(size=(num_clusters, width))[clusters] + rng.normal(size=(num, width))), clusters


def blob(num=200, width=64, seed=0):
    return np.float32(np.random.default_rng(seed).normal(size=(num, width)))


def of(num_clusters, gap=1.0):
    shares = np.full(num_clusters, 1 / num_clusters)
    return Clusters((1, num_clusters, 40), np.array([0.0, gap, 0.0]), num_clusters, shares)


class TestClusters:
    @pytest.mark.parametrize("num", [3, 5, 10])
    def test_as_many_as_there_are(self, num):
        points, _ = mixture(num)
        clusters = advice.cluster(points, 0)
        assert clusters.num == num
        assert clusters.stand_out
        np.testing.assert_allclose(clusters.shares, np.full(num, 1 / num), atol=0.01)

    @pytest.mark.parametrize("points", [blob(), blob() * np.float32(0.9) ** np.arange(64, dtype=np.float32)])
    def test_none_in_one_cloud(self, points):
        """Nor in one that is longer in some directions than in others."""
        clusters = advice.cluster(points, 0)
        assert not clusters.stand_out
        assert clusters.gaps.max() < 0.03

    def test_fewer_different_rows_than_numbers(self):
        points = np.repeat(np.float32([[0, 0], [1, 0], [0, 1]]), 30, axis=0)
        clusters = advice.cluster(points, 0)
        assert clusters.tried == (1, 2, 3)
        assert clusters.num == 3

    def test_none_where_all_rows_of_the_sample_coincide(self):
        points = np.ones((60, 3), np.float32)
        assert advice.cluster(points, 0).num == 1
        said = advice.advise(points, points[:5], num_near=59, seed=0)
        assert "clusters     none: k-means leaves 0 % less spread" in said
        assert "cannot be expected" in said

    def test_what_a_random_batch_misses(self):
        clusters = of(2)._replace(shares=np.array([0.75, 0.25]))
        assert clusters.missed(2) == pytest.approx(0.75 * 0.25**2 + 0.25 * 0.75**2)


class TestDimension:
    def test_of_a_curved_manifold(self):
        """Three angles, each a circle, turned in 50 dimensions."""
        rng = np.random.default_rng(0)
        angles = rng.uniform(0, 2 * np.pi, (1500, 3))
        turn = np.linalg.qr(rng.normal(size=(50, 50)))[0][:6]
        points = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) @ turn
        assert advice.intrinsic_dimension(points) == pytest.approx(3, rel=0.2)

    def test_of_rows_that_coincide(self):
        assert np.isnan(advice.intrinsic_dimension(np.repeat(np.eye(3), 20, axis=0)))


class TestReach:
    def test_equals_the_dense_one(self):
        points = blob(120, 5).astype(np.float64)
        distances = cdist(points, points)
        reach = advice.reach(points, points[:12], 0)
        assert reach.num_neighbours == 10
        # The row itself comes first.
        assert reach.radius == pytest.approx(np.median(np.sort(distances, axis=1)[:, 10]))
        assert reach.of_batch == (distances[:, :12].min(axis=1) < reach.radius).mean()
        assert reach.at_random == pytest.approx(1 - np.exp(-1), abs=0.1)

    def test_where_half_of_the_rows_coincide(self):
        points = np.concatenate([np.zeros((70, 4)), blob(50, 4)])
        reach = advice.reach(points, points[:12], 0)
        assert reach.radius == 0
        assert reach.ratio == 1


class TestVerdict:
    @pytest.mark.parametrize(
        ("clusters", "num_picks", "ratio", "pays", "why"),
        [
            (
                of(10),
                20,
                1.5,
                True,
                "there are about 10 clusters, and 20 random images miss those that hold 12.2 % of all images",
            ),
            (of(10, gap=0.09), 20, 1.5, False, "no clusters stand out"),
            (
                of(10),
                100,
                1.5,
                False,
                "there are about 10 clusters, and 100 random images include some from nearly all",
            ),
            (of(10), 20, 1.05, False, "it covers 1.05 times as many images as a random one"),
            (of(40)._replace(tried=(1, 28, 40)), 100, 1.5, True, "there are more than 28 clusters"),
        ],
    )
    def test_needs_clusters_that_chance_misses_and_the_batch_does_not(self, clusters, num_picks, ratio, pays, why):
        verdict = advice.judge(clusters, num_picks, ratio)
        assert verdict.pays == pays
        assert verdict.why.startswith(why)


class TestAdvise:
    def test_that_choosing_pays_in_clusters(self):
        points, clusters = mixture(5, 60)
        picked = points[np.unique(clusters, return_index=True)[1]]
        said = advice.advise(points, picked, num_near=7, seed=0)
        assert "60 of the 60 images" in said
        assert "about 5: k-means leaves" in said
        assert "duplicates   7 near-duplicates" in said
        assert "The first batch can be expected to beat a random one: there are about 5 clusters" in said
        assert said == advice.advise(points, picked, num_near=7, seed=0)
        best, at_random = ([float(cell) for cell in line.split()[1::2]] for line in said.splitlines()[6:8])
        assert len(best) == 3
        assert best[0] > at_random[0] + 10
        assert best == sorted(best)

    def test_that_it_does_not_in_one_cloud(self):
        verdict = advice.judge(advice.cluster(blob(), 0), 10, 1.5)
        assert verdict == (False, "no clusters stand out from one Gaussian cloud")

    def test_what_cannot_be_told(self):
        assert "Without labels, 49 images say nothing" in advice.advise(blob(49), blob(3), num_near=0, seed=0)
        points = np.concatenate([np.zeros((70, 4), np.float32), blob(24, 4)])
        said = advice.advise(points, points[:12], num_near=69, seed=0)
        assert "coverage" not in said
        assert "unknown, since too few latents differ" in said


@pytest.fixture
def job(tmp_path):
    """Calls on images with embeddings of three clusters; the first batch is random."""
    images, workdir = tmp_path / "images", tmp_path / "job"
    np.save(tmp_path / "latents.npy", mixture(3, 60)[0])
    (tmp_path / "index.csv").write_text("file_name\n" + "".join(f"{number:02d}.png\n" for number in range(60)))
    encoder = dict(name="precomputed", latents=str(tmp_path / "latents.npy"), index=str(tmp_path / "index.csv"))

    def job(num):
        draw(images, range(num))
        settings = dict(audit=0, num_initial=2, query_size=1, initial=dict(name="random"))
        return workdir, call(images, workdir, encoder=encoder, **settings)

    return job


class TestJob:
    def test_tells_it_once(self, job):
        workdir, said = job(60)
        told = (workdir / "advice.txt").read_text()
        assert f"\n\n{told}" in said
        assert "60 of the 60 images" in told
        assert said.index(told) < said.index("Round 000")
        assert "  clusters     about 3: k-means" in told
        assert told.splitlines()[-1].startswith("The first batch can")
        answer(workdir, 0, lambda query: "red")
        _, again = job(60)
        assert "Round 001" in again
        assert "expected to beat" not in again
        assert (workdir / "advice.txt").read_text() == told

    def test_says_nothing_beside_labels(self, job, tmp_path):
        workdir = tmp_path / "job"
        (workdir / "labels").mkdir(parents=True)
        (workdir / "labels/mine.csv").write_text("file_name,label\n00.png,red\n")
        _, said = job(6)
        assert len(queries_of(workdir, 0)) == 2
        assert "Without labels" not in said
        assert not (workdir / "advice.txt").exists()
