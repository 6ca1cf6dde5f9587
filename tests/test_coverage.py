"""Coverage beside a dense float64 loop, on pools of several tiles, and the strategies that read it."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_references import gaps, purity, unit_gaps, verify_coverage
from test_strategies import make_pool

from latent_al.kernels import (
    _coverage,
    facility_location,
    margin,
    max_herding,
    prob_cover,
    purity_radius,
    stochastic_facility_location,
)
from latent_al.strategies import STRATEGIES
from latent_al.strategies.coverage import smallest_distance
from latent_al.strategies.temperature import held_out_temperature
from latent_al.types import UNLABELLED, Encoded

SIZE, WIDTH, NUM, TILE = 702, 5, 40, 512
"""Rows in two tiles, the last of which begins in the first; more than twice as many as are bounded at a time."""

KINDS = ["gaussian", "duplicates", "near-duplicates", "equal"]
KINDS += [pytest.param(kind, marks=pytest.mark.slow) for kind in ("clusters", "lattice", "far off", "tiny spread")]


def cloud(kind):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(SIZE, WIDTH))
    if kind == "clusters":
        points += 6 * rng.normal(size=(12, WIDTH))[rng.integers(12, size=SIZE)]
    elif kind == "duplicates":
        points = points[rng.integers(SIZE // 3, size=SIZE)]
    elif kind == "lattice":
        points = np.round(points) + 0.5
    elif kind == "far off":
        points += 1e3
    elif kind == "tiny spread":
        points = 5 + 1e-3 * points
    elif kind == "near-duplicates":
        points = 2 * rng.normal(size=(20, WIDTH))[rng.integers(20, size=SIZE)] + 1e-3 * points
    elif kind == "equal":
        points = np.ones((SIZE, WIDTH))
    return np.float32(points)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    for name in ("TILE", "ROWS"):
        monkeypatch.setattr(_coverage, name, TILE)
    monkeypatch.setattr(_coverage, "NEAR", 1)
    monkeypatch.setattr(_coverage, "MANY", 0.5)


def masks(num_taken, num_labelled):
    order = np.random.default_rng(1).permutation(SIZE)
    taken, labelled = np.zeros((2, SIZE), bool)
    taken[order[:num_taken]] = True
    labelled[order[:num_labelled]] = True
    return taken, labelled


POOLS = [masks(0, 0), masks(120, 70)]
WEIGHTS = np.random.default_rng(2).uniform(size=SIZE).astype(np.float32) * (np.arange(SIZE) % 4 > 0)


def similarity_of(kernel, points, scale):
    if kernel is facility_location:
        return np.maximum(1 - unit_gaps(points) / 2, 0)
    squares = gaps(points, points) / scale**2
    return np.exp(-squares) if kernel is max_herding else (squares < 1).astype(float)


def select(kernel, points, taken, num=NUM, scale=1.0, **settings):
    name = {max_herding: "sigma", prob_cover: "radius"}.get(kernel)
    return kernel(points, taken, num, **settings, **({name: scale} if name else {}))


@pytest.mark.parametrize("kernel", [max_herding, prob_cover, facility_location])
class TestRows:
    @pytest.mark.parametrize("kind", KINDS)
    def test_have_the_largest_gains(self, kernel, kind):
        points = cloud(kind)
        # Not at a distance that pairs of the lattice have.
        scale = 2e-3 if kind == "tiny spread" else 1.25
        similarity = similarity_of(kernel, points, scale)
        for taken, labelled in POOLS:
            result = select(kernel, points, taken, scale=scale, labelled=labelled)
            verify_coverage(result, similarity, taken=taken, labelled=labelled, num=NUM)

    def test_taken_rows_are_labelled_unless_said(self, kernel):
        taken, _ = POOLS[1]
        points = cloud("gaussian")
        expected = select(kernel, points, taken, labelled=taken)
        assert select(kernel, points, taken).rows.tolist() == expected.rows.tolist()

    def test_the_last_rows_are_selected(self, kernel):
        points = 9 * np.eye(WIDTH, dtype=np.float32)[np.zeros(SIZE, int)] + 1e-2 * cloud("gaussian")
        points[-10:] -= 18 * np.eye(WIDTH, dtype=np.float32)[0]
        first, second = select(kernel, points, np.zeros(SIZE, bool), 2).rows
        assert first < SIZE - 10 <= second


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_weighted_rows_are_those_of_the_dense_loop(scale):
    """Weights break the ties between two rows that are near to each other only."""
    points, (taken, labelled) = cloud("gaussian"), POOLS[1]
    similarity = similarity_of(max_herding, points, scale)
    covered, blocked, expected = similarity[:, labelled].max(axis=1), taken.copy(), []
    for _ in range(NUM):
        gains = (np.float64(WEIGHTS)[:, None] * np.maximum(similarity - covered[:, None], 0)).sum(axis=0)
        expected.append(int(np.where(blocked, -1, gains).argmax()))
        blocked[expected[-1]] = True
        covered = np.maximum(covered, similarity[:, expected[-1]])
    result = max_herding(points, taken, NUM, sigma=scale, labelled=labelled, weights=WEIGHTS)
    assert result.rows.tolist() == expected


def test_a_radius_about_all_leaves_the_lowest_rows():
    taken, _ = masks(3, 0)
    result = prob_cover(cloud("gaussian"), taken, 5, radius=100.0, labelled=np.zeros(SIZE, bool))
    assert result.rows.tolist() == np.flatnonzero(~taken)[:5].tolist()
    assert result.gains.tolist() == [1, 0, 0, 0, 0]
    again = prob_cover(cloud("gaussian"), taken, 5, radius=100.0)
    assert again.rows.tolist() == result.rows.tolist()
    assert not again.gains.any()


def test_a_radius_about_nothing_covers_the_rows_themselves():
    result = prob_cover(cloud("gaussian"), np.zeros(SIZE, bool), _coverage.NEXT + 1, radius=1e-6)
    assert result.rows.tolist() == list(range(_coverage.NEXT + 1))
    np.testing.assert_allclose(result.gains, 1 / SIZE, rtol=1e-6)


def test_a_row_at_the_radius_lies_outside():
    points, taken = np.float32([[0.0], [3.0], [6.0], [50.0]]), np.zeros(4, bool)
    assert prob_cover(points, taken, 1, radius=3.0).gains.tolist() == [0.25]
    assert prob_cover(points, taken, 1, radius=3.001).rows.tolist() == [1]


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.nan, np.inf])
def test_length_scales_are_refused(sigma):
    points, taken = cloud("gaussian"), np.zeros(SIZE, bool)
    with pytest.raises(ValueError, match=r"sigma is .*; expected a length scale above 0"):
        max_herding(points, taken, 3, sigma=sigma)
    with pytest.raises(ValueError, match=r"radius is .*; expected a distance above 0"):
        prob_cover(points, taken, 3, radius=sigma)
    inside = jax.jit(lambda sigma: max_herding(points, taken, 3, sigma=sigma).rows)(sigma)
    assert len(set(inside.tolist())) == 3


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_weights_are_refused(weight):
    points, taken = cloud("gaussian"), np.zeros(SIZE, bool)
    bad = WEIGHTS.copy()
    bad[[7, 9]] = weight
    message = f"2 of {SIZE} rows of weights are negative, NaN or infinite, the first is row 7; expected weights of 0"
    with pytest.raises(ValueError, match=message):
        max_herding(points, taken, 3, sigma=1.0, weights=bad)
    inside = jax.jit(lambda weights: max_herding(points, taken, 3, sigma=1.0, weights=weights).rows)
    zeros = WEIGHTS.copy()
    zeros[[7, 9]] = 0
    assert inside(bad).tolist() == inside(zeros).tolist()


def test_other_refusals():
    points, taken = cloud("gaussian"), np.zeros(SIZE, bool)
    with pytest.raises(ValueError, match=r"weights \(700,\); expected \[n d\] and \[n\], with the same size n"):
        max_herding(points, taken, 3, sigma=1.0, weights=np.ones(700))
    for value in (0, 1e-30):
        points[4] = value
        with pytest.raises(ValueError, match="1 of 702 rows of points are zero, or too short .*, the first is row 4:"):
            facility_location(points, taken, 3)


@pytest.mark.parametrize("name", ["points", "sigma", "weights"])
def test_gains_have_no_gradient(name):
    points = jnp.asarray(cloud("gaussian"), jnp.float32)
    arguments = dict(points=points, sigma=jnp.float32(1), weights=jnp.ones(SIZE))

    def gain(value):
        return max_herding(taken=jnp.zeros(SIZE, bool), num=3, **arguments | {name: value}).gains.sum()

    with pytest.raises(TypeError, match="no gradient of the gains of coverage"):
        jax.grad(gain)(arguments[name])


class TestPurity:
    @pytest.mark.parametrize("share", [1.0, 0.95, 0.5])
    def test_equals_its_definition(self, share):
        points, clusters = cloud("gaussian"), np.random.default_rng(3).integers(4, size=SIZE)
        np.testing.assert_allclose(
            purity_radius(points, clusters=clusters, share=share), purity(points, clusters, share), rtol=1e-5
        )

    def test_refuses_where_it_fails(self):
        points = cloud("duplicates")
        with pytest.raises(ValueError, match="the radius is inf, since there is one cluster; choose another number"):
            purity_radius(points, clusters=np.ones(SIZE, int))
        with pytest.raises(ValueError, match="the radius is 0, since rows of different clusters coincide"):
            purity_radius(points, clusters=np.arange(SIZE) % 2)
        with pytest.raises(ValueError, match=r"share is 1.5; expected a share of the rows in \(0, 1\]"):
            purity_radius(points, clusters=np.arange(SIZE) % 2, share=1.5)


def test_prob_cover_says_when_all_is_covered(caplog):
    strategy = STRATEGIES["prob_cover"](num_clusters=2, share=0.9, iterations=10, seed=0, normalize=False)
    latents = jnp.concatenate([jnp.zeros((9, 3)), 9 + jnp.zeros((9, 3))])
    pool = make_pool(strategy, size=18)._replace(
        latents=latents, prepared=strategy.prepare(Encoded(latents)), labels=jnp.full(18, UNLABELLED)
    )
    np.testing.assert_allclose(pool.prepared, 9 * 3**0.5, rtol=1e-6)
    with caplog.at_level(logging.WARNING):
        rows = jax.jit(jax.vmap(lambda key: strategy.query(key, pool._replace(taken=jnp.zeros(18, bool)), 4)))(
            jax.random.split(jax.random.key(0), 3)
        )
        jax.effects_barrier()
    assert rows.tolist() == 3 * [[0, 9, 1, 2]]
    assert caplog.text.count("2 of 4 rows cover nothing new: balls of radius 15.6") == 1


def test_the_scale_is_the_smallest_distance_of_labelled_rows():
    points, included = jnp.asarray(cloud("duplicates")), jnp.arange(SIZE) < 150
    squares = gaps(np.asarray(points[:150]), np.asarray(points[:150]))
    expected = np.sqrt(squares[squares > 0].min())
    np.testing.assert_allclose(smallest_distance(points, included), expected, rtol=1e-6)
    assert smallest_distance(points, jnp.arange(SIZE) == 3) == jnp.inf


def test_uncertainty_herding_weighs_by_the_margin():
    """One class is labelled: the temperature is 1."""
    strategy = STRATEGIES["uncertainty_herding"](sigma=1.0, normalize=False)
    pool = make_pool(strategy)
    labelled = pool.labels != UNLABELLED
    sigma = smallest_distance(pool.latents, labelled)
    expected = max_herding(pool.latents, pool.taken, 6, sigma=sigma, weights=margin(pool.probs)).rows
    assert strategy.query(jax.random.key(0), pool, 6).tolist() == expected.tolist()
    sure = pool._replace(probs=jnp.eye(4)[jnp.zeros(50, int)])
    plain = max_herding(pool.latents, pool.taken, 6, sigma=sigma).rows
    assert strategy.query(jax.random.key(0), sure, 6).tolist() == plain.tolist()


def test_temperatures_of_clear_and_of_noisy_labels():
    key_points, key_noise = jax.random.split(jax.random.key(0))
    points = jax.random.normal(key_points, (400, 2))
    clear = (points[:, 0] > 0).astype(jnp.int32)
    noisy = jnp.where(jax.random.uniform(key_noise, (400,)) < 0.4, 1 - clear, clear)
    labelled = jnp.arange(400) < 300
    temperatures = [float(held_out_temperature(points, labels, labelled, 2)) for labels in (clear, noisy)]
    assert 0.1 <= temperatures[0] < 1 < temperatures[1]
    assert held_out_temperature(points, clear, jnp.arange(400) < 3, 2) == 1
    assert held_out_temperature(points, jnp.zeros(400, int), labelled, 2) == 1


class TestSamples:
    SIMILARITY = np.maximum(1 - unit_gaps(cloud("gaussian")) / 2, 0)

    def coverage(self, rows):
        return self.SIMILARITY[:, rows].max(axis=1).mean()

    def test_lie_between_random_and_all_rows(self):
        points, (taken, _) = cloud("gaussian"), POOLS[1]
        nothing = np.zeros(SIZE, bool)
        best = self.coverage(facility_location(points, taken, NUM, labelled=nothing).rows)
        keys = jax.random.split(jax.random.key(0), 20)
        of_samples = jax.vmap(
            lambda key: stochastic_facility_location(key, points, taken, NUM, epsilon=0.5, labelled=nothing).rows
        )(keys)
        assert len({tuple(rows) for rows in of_samples.tolist()}) > 1
        assert not taken[of_samples].any()
        assert all(len(set(rows)) == NUM for rows in of_samples.tolist())
        at_random = np.random.default_rng(3).choice(np.flatnonzero(~taken), (20, NUM))
        chance, mean = (np.mean([self.coverage(rows) for rows in many]) for many in (at_random, of_samples))
        assert chance < mean < best
        assert mean > (1 - 1 / np.e - 0.5) * best

    def test_rows_without_a_gain_and_those_that_are_left_are_selected(self):
        points = np.ones((9, 2), np.float32)
        taken = np.arange(9) < 4
        rows = stochastic_facility_location(jax.random.key(0), points, taken, 5, epsilon=0.9).rows
        assert sorted(rows.tolist()) == [4, 5, 6, 7, 8]

    @pytest.mark.parametrize("epsilon", [0.0, 1.0, float("nan")])
    def test_no_share_is_refused(self, epsilon):
        with pytest.raises(ValueError, match=f"epsilon is {epsilon}; expected a share of the best coverage"):
            stochastic_facility_location(jax.random.key(0), cloud("gaussian"), POOLS[0][0], 2, epsilon=epsilon)
