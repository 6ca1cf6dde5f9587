"""Typical rows beside float64 loops, and the clusters that they are picked from."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from latent_al.kernels import kmeans, most_typical, typicality
from latent_al.kernels.typiclust import FEW_ROWS, TILE
from latent_al.strategies import STRATEGIES
from latent_al.types import UNLABELLED, Pool

SIZE, NUM_CLUSTERS, NEIGHBOURS = 2 * TILE + 90, 13, 6


def make_rows(kind="uneven"):
    """Makes points [n 3], clusters [n] and included [n]; clusters 9 to 12 have four rows, one, five and none."""
    rng = np.random.default_rng(0)
    points = np.float32(rng.normal(size=(SIZE, 3)))
    if kind == "duplicates":
        points = points[np.arange(SIZE) // 10]
    clusters = np.append([9] * 4 + [10] + [11] * 5, rng.choice(9, SIZE - 10, p=np.arange(1, 10) / 45))
    included = rng.random(SIZE) < 0.9
    included[:10] = True
    order = rng.permutation(SIZE)
    return jnp.array(points), jnp.int32(clusters[order]), jnp.array(included[order])


def loop_typicality(points, clusters, included, num_neighbours):
    points, clusters, values = np.float64(points), np.asarray(clusters), np.zeros(len(points))
    for row in np.flatnonzero(included):
        others = np.flatnonzero(included & (clusters == clusters[row]) & (np.arange(len(points)) != row))
        distances = np.sort(np.linalg.norm(points[others] - points[row], axis=1))[:num_neighbours]
        if len(others):
            values[row] = 1 / distances.mean() if distances.any() else np.inf
    return values


def loop_most_typical(values, clusters, taken, included, num):
    """Rows, where `values` are those of all clusters."""
    clusters, taken, rows = np.asarray(clusters), np.array(taken), []
    for _ in range(num):
        ranks = []
        for cluster in set(clusters[~taken]):
            size = included[clusters == cluster].sum()
            covered = (taken & included)[clusters == cluster].sum()
            ranks.append((size < FEW_ROWS, covered, -size, cluster))
        rows.append(int(np.where(taken | (clusters != min(ranks)[-1]), -1, values).argmax()))
        taken[rows[-1]] = True
    return rows


@pytest.mark.parametrize("kind", ["uneven", "duplicates"])
def test_typicality_equals_the_loop(kind):
    rows = make_rows(kind)
    points, clusters, included = rows
    values = typicality(points, clusters=clusters, included=included, num_neighbours=NEIGHBOURS)
    np.testing.assert_allclose(values, loop_typicality(*rows, NEIGHBOURS), rtol=1e-5)


@pytest.mark.parametrize("share_taken", [0.0, 0.1])
def test_rows_are_those_of_the_least_covered_largest_clusters(share_taken):
    points, clusters, included = make_rows()
    taken = ~included | (jnp.arange(SIZE) < share_taken * SIZE)
    num = int((included & (jnp.arange(SIZE) >= 0.1 * SIZE)).sum())
    settings = dict(clusters=clusters, included=included, num_clusters=NUM_CLUSTERS, num_neighbours=NEIGHBOURS)
    values = np.asarray(typicality(points, clusters=clusters, included=included, num_neighbours=NEIGHBOURS))
    expected = loop_most_typical(values, clusters, taken, np.asarray(included), num)
    assert most_typical(points, taken, num, **settings).tolist() == expected


def test_as_many_clusters_as_labels_and_picks():
    """Slots without a row, of which the first three are, repeat a labelled one and count for nothing."""
    points = make_rows()[0].at[:3].set(make_rows()[0][4])
    strategy, key = (
        STRATEGIES["typiclust"](max_clusters=25, num_neighbours=NEIGHBOURS, iterations=10),
        jax.random.key(0),
    )
    for num_labelled in (10, 15, 40):
        taken = jnp.arange(SIZE) < 3 + num_labelled
        labels = jnp.where(taken & (jnp.arange(SIZE) >= 3), 0, UNLABELLED)
        rows = strategy.query(key, Pool(points, None, None, None, taken, labels, jnp.arange(SIZE), None), 4)
        count, included = min(num_labelled + 4, 25), np.arange(SIZE) >= 3
        masks = dict(included=jnp.arange(25) < count, clustered=included)
        clusters = np.asarray(kmeans(key, points, 25, iterations=10, **masks).clusters)
        assert len(set(clusters[included].tolist())) == count
        values = loop_typicality(points, clusters, included, NEIGHBOURS)
        assert rows.tolist() == loop_most_typical(values, clusters, taken, included, 4)


def test_one_row():
    point, no, yes = jnp.ones((1, 2)), jnp.array([False]), jnp.array([True])
    settings = dict(clusters=jnp.array([0]), included=yes, num_clusters=1, num_neighbours=20)
    assert most_typical(point, no, 1, **settings).tolist() == [0]


def test_impossible_sizes_are_refused(monkeypatch):
    points, clusters, included = make_rows()
    with pytest.raises(ValueError, match="num_neighbours is 0; expected 1 or more"):
        typicality(points, clusters=clusters, included=included, num_neighbours=0)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(
        ValueError, match=rf"points has shape \({SIZE}, 3\) and clusters \({SIZE - 1},\); expected .* the same size n"
    ):
        typicality(points, clusters=clusters[1:], included=included, num_neighbours=3)
