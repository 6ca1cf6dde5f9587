"""Farthest-first traversal beside a float64 NumPy scan, on pools that are scanned and on pools passed over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_al.kernels import cover, farthest_first
from latent_al.kernels.k_center import CANDIDATES, SMALL

LARGE = SMALL + 300


def scan(points, taken, num, first=0):
    """Rows and squared distances, in float64."""
    points = np.asarray(points, np.float64)
    nearest, rows, sq_distances = np.full(len(points), np.inf), [], []
    for row in np.flatnonzero(taken):
        nearest = np.minimum(nearest, ((points - points[row]) ** 2).sum(axis=1))
    nearest[taken] = -np.inf
    for index in range(num):
        row = first if index == 0 and not taken.any() else nearest.argmax()
        rows.append(row)
        sq_distances.append(nearest[row])
        nearest = np.minimum(nearest, ((points - points[row]) ** 2).sum(axis=1))
        nearest[rows] = -np.inf
    return rows, np.array(sq_distances)


def cloud(kind, size, width=5):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(size, width))
    if kind == "clusters":
        points = points + 20 * rng.normal(size=(40, width))[rng.integers(40, size=size)]
    elif kind == "duplicates":
        points = points[rng.integers(size // 3, size=size)]
    elif kind == "far off":
        points = points + 1e3
    elif kind == "tiny spread":
        points = 5 + 1e-4 * points
    elif kind == "near-duplicates":
        points = 100 * rng.normal(size=(20, width))[rng.integers(20, size=size)] + 1e-3 * points
    elif kind == "lattice":
        points = np.round(2 * points)
    elif kind == "equal":
        points = np.ones((size, width))
    return np.float32(points)


def mark(size, num_taken):
    taken = np.zeros(size, bool)
    taken[np.random.default_rng(1).permutation(size)[:num_taken]] = True
    return taken


KINDS = ["gaussian", "clusters", "duplicates", "far off", "tiny spread", "near-duplicates", "lattice", "equal"]


class TestRows:
    @pytest.mark.parametrize("num_taken", [0, 1, 300])
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("size", [500, LARGE])
    def test_equal_the_scan(self, size, kind, num_taken):
        points, taken = cloud(kind, size), mark(size, num_taken)
        num = 200 if size > SMALL else 150
        expected, _ = scan(points, taken, num, first=7)
        assert farthest_first(jnp.array(points), jnp.array(taken), num, first=7).tolist() == expected

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["gaussian", "near-duplicates"])
    def test_order_a_whole_pool(self, kind):
        points, nothing = cloud(kind, LARGE, 3), np.zeros(LARGE, bool)
        rows = farthest_first(jnp.array(points), jnp.array(nothing), LARGE).tolist()
        assert sorted(rows) == list(range(LARGE))
        nearest, points = np.full(LARGE, np.inf), np.float64(points)
        for row in rows:
            # Among so many picks some are equally far but for float32's rounding.
            assert nearest[row] >= (1 - 1e-6) * nearest.max()
            nearest = np.minimum(nearest, ((points - points[row]) ** 2).sum(axis=1))
            nearest[row] = -np.inf

    @pytest.mark.parametrize("size, num_taken", [(1, 0), (2, 0), (2, 1), (7, 3), (SMALL + 1, SMALL - 4)])
    def test_take_all_that_is_left(self, size, num_taken):
        points, taken = cloud("gaussian", size), mark(size, num_taken)
        rows = farthest_first(jnp.array(points), jnp.array(taken), size - num_taken).tolist()
        assert rows == scan(points, taken, size - num_taken)[0]

    def test_equal_the_scan_where_one_pass_serves_few_picks(self):
        """More near copies of each outlier than there are candidates."""
        rng = np.random.default_rng(0)
        points = 30 * np.eye(8)[rng.integers(8, size=9 * CANDIDATES)] + 0.1 * rng.normal(size=(9 * CANDIDATES, 8))
        points, nothing = np.float32(points), np.zeros(len(points), bool)
        rows = farthest_first(jnp.array(points), jnp.array(nothing), 60).tolist()
        assert rows == scan(points, nothing, 60)[0]

    @pytest.mark.parametrize("dtype", [np.uint8, np.float16])
    def test_of_narrow_numbers(self, dtype):
        points = np.random.default_rng(0).integers(0, 200, (LARGE, 3)).astype(dtype)
        nothing = np.zeros(LARGE, bool)
        rows = farthest_first(jnp.array(points), jnp.array(nothing), 20).tolist()
        assert rows == scan(points, nothing, 20)[0]

    @pytest.mark.parametrize("size", [400, LARGE])
    def test_of_several_starts_at_once_are_those_of_each(self, size):
        points = jnp.array(cloud("clusters", size))
        taken = jnp.array([mark(size, num) for num in (0, 40, 0)])
        firsts = jnp.array([3, 0, 11])
        run = jax.jit(jax.vmap(lambda taken, first: farthest_first(points, taken, 150, first=first)))
        alone = [farthest_first(points, taken[i], 150, first=firsts[i]).tolist() for i in range(3)]
        assert run(taken, firsts).tolist() == alone

    @pytest.mark.parametrize("size", [400, LARGE])
    def test_are_included(self, size):
        points, taken = cloud("gaussian", size), mark(size, 30)
        included = np.random.default_rng(2).uniform(size=size) < 0.3
        kept = np.flatnonzero(included | taken)
        expected, _ = scan(points[kept], taken[kept], 50)
        rows = farthest_first(jnp.array(points), jnp.array(taken), 50, included=jnp.array(included))
        assert rows.tolist() == kept[expected].tolist()

    @pytest.mark.parametrize("size", [400, LARGE])
    def test_that_are_not_finite_come_last_inside_jit(self, size):
        points = cloud("gaussian", size)
        bad = [4, 9, 30]
        points[bad, 1] = np.nan, np.inf, -np.inf
        kept = np.setdiff1d(np.arange(size), bad)
        taken = jnp.zeros(size, bool).at[40:].set(True)
        rows = jax.jit(lambda points: farthest_first(points, taken, 40))(jnp.array(points)).tolist()
        expected, _ = scan(points[kept], np.asarray(taken)[kept], 37)
        assert rows == [*kept[expected], *bad]


class TestCover:
    @pytest.mark.parametrize("num_taken", [0, 25])
    @pytest.mark.parametrize("size", [300, LARGE])
    def test_equals_the_scan(self, size, num_taken):
        points, taken = cloud("gaussian", size), mark(size, num_taken)
        result = cover(jnp.array(points), jnp.array(taken), 120)
        rows, sq_distances = scan(points, taken, 120)
        assert result.rows.tolist() == rows
        np.testing.assert_allclose(result.distances, np.sqrt(sq_distances), rtol=1e-6)
        gaps = points[:, None].astype(float) - points[None, rows]
        assert result.nearest.tolist() == (gaps**2).sum(axis=2).argmin(axis=1).tolist()

    def test_has_a_radius_that_never_grows(self):
        distances = cover(jnp.array(cloud("clusters", LARGE)), jnp.zeros(LARGE, bool), 400).distances
        assert distances[0] == np.inf
        assert (np.diff(distances[1:]) <= 0).all()


@pytest.mark.parametrize(
    "points, taken, num, first, message",
    [
        (np.ones((4, 2)), np.zeros(4, bool), 5, 0, "num is 5; expected at least 1 and at most the 4"),
        (np.ones((4, 2)), np.zeros(4, bool), 0, 0, "num is 0"),
        (np.ones((4, 2)), np.array([True, True, False, False]), 3, 0, "3 rows asked for but only 2 of 4 are left"),
        (np.ones((4, 2)), np.zeros(4, bool), 1, 4, "first is 4; expected a row of the pool, 0 to 3"),
        (np.ones((4, 0)), np.zeros(4, bool), 1, 0, r"points has shape \(4, 0\); expected \[n d\], and d > 0"),
        (np.array([[1.0], [np.nan], [np.inf]]), np.zeros(3, bool), 1, 0, "2 of 3 rows of points are NaN, .* is row 1"),
        (np.array([[1.0], [2e19]]), np.zeros(2, bool), 1, 0, "1 of 2 rows of points are .* too large to square"),
    ],
)
@pytest.mark.parametrize("function", [farthest_first, cover])
def test_bad_input_is_refused(function, points, taken, num, first, message):
    with pytest.raises(ValueError, match=message):
        function(jnp.array(points, jnp.float32), jnp.array(taken), num, first=first)


def test_a_first_that_is_no_row_is_refused_inside_jit_where_it_is_a_number():
    with pytest.raises(ValueError, match="first is 4; expected a row of the pool, 0 to 3"):
        jax.jit(lambda points: farthest_first(points, jnp.zeros(4, bool), 1, first=4))(jnp.ones((4, 2)))


def test_one_program_serves_any_pool_of_one_shape():
    points = jnp.array(cloud("gaussian", LARGE))
    traced = []

    @jax.jit
    def run(points, taken, first):
        traced.append(True)
        return farthest_first(points, taken, 10, first=first)

    for num_taken in (0, 1, 50):
        run(points + num_taken, jnp.array(mark(LARGE, num_taken)), num_taken)
    assert len(traced) == 1
