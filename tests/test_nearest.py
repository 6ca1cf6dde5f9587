"""The nearest row of a set beside the slow obvious loop, in and out of `jit` and `vmap`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_al import kernels
from latent_al.kernels import distances


def loop_nearest(x, y, included):
    """Squared distances [n m] in float64, inf where a row is not included, and the first of the smallest."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    sq_distance = np.array([((row[None, :] - y) ** 2).sum(axis=1) for row in x])
    sq_distance[:, ~included] = np.inf
    return sq_distance, sq_distance.argmin(axis=1)


def scattered(kind, size, width, seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(size, width))
    if kind == "far off":
        points = points + 1e3
    elif kind == "tiny spread":
        points = 5 + 1e-3 * points
    elif kind == "duplicates":
        points = np.random.default_rng(2).normal(size=(5, width))[rng.integers(5, size=size)]
    return np.float32(points)


def marks(size, share, seed=3):
    """Of which at least one is True."""
    rng = np.random.default_rng(seed)
    included = rng.uniform(size=size) < share
    included[rng.integers(size)] = True
    return included


class TestNearest:
    @pytest.mark.parametrize(
        "n, m, width",
        [(1, 1, 2), (700, 33, 1), (33, 700, 2), (33, 5, 16), (33, 700, 17), (1, 700, 30)],
    )
    @pytest.mark.parametrize("kind", ["typical", "far off", "tiny spread", "duplicates"])
    def test_equals_the_loop(self, kind, width, n, m):
        """Where products choose, up to a rounding of the set's squared radius."""
        x, y, included = scattered(kind, n, width, seed=0), scattered(kind, m, width, seed=1), marks(m, 0.7)
        expected, _ = loop_nearest(x, y, included)
        radius = max(((each - y[:1].astype(np.float64)) ** 2).sum(axis=1).max() for each in (x, y))
        sq_distance, row = map(np.asarray, kernels.nearest(jnp.array(x), jnp.array(y), jnp.array(included)))
        assert row.dtype == np.int32
        assert included[row].all()
        np.testing.assert_allclose(sq_distance, expected[np.arange(n), row], rtol=1e-5)
        allowed = 1e-6 * radius if width > distances.FEW_DIMENSIONS else 1e-6 * expected.min(axis=1)
        assert (expected[np.arange(n), row] - expected.min(axis=1) <= allowed).all()

    @pytest.mark.parametrize("n, m", [(20, 40), (3, 5000)])
    @pytest.mark.parametrize("width", [2, 30])
    def test_ties_go_to_the_lowest_row(self, width, n, m):
        """On a grid of whole numbers, where every distance is exact."""
        rng = np.random.default_rng(0)
        x, y = rng.integers(-2, 3, size=(n, width)), rng.integers(-2, 3, size=(m, width))
        y[m // 2 :] = y[: m // 2]
        expected, row = loop_nearest(x, y, marks(m, 0.5))
        result = kernels.nearest(jnp.float32(x), jnp.float32(y), jnp.array(marks(m, 0.5)))
        assert result[0].tolist() == expected.min(axis=1).tolist()
        assert result[1].tolist() == row.tolist()

    @pytest.mark.parametrize("size", [29, 3000])
    @pytest.mark.parametrize("width", [2, 30])
    def test_each_row_is_its_own_nearest(self, width, size):
        x = jnp.array(scattered("far off", size, width, seed=0))
        sq_distance, row = kernels.nearest(x, x, jnp.ones(size, bool))
        assert row.tolist() == list(range(size))
        assert not sq_distance.any()

    @pytest.mark.parametrize("width", [2, 30])
    def test_no_valid_row_is_at_infinity(self, width):
        sq_distance, row = kernels.nearest(jnp.ones((3, width)), jnp.ones((40, width)), jnp.zeros(40, bool))
        assert sq_distance.tolist() == [np.inf] * 3
        assert row.tolist() == [0] * 3

    @pytest.mark.parametrize("broken", [jnp.nan, jnp.inf, -jnp.inf])
    @pytest.mark.parametrize("width", [2, 30])
    def test_what_is_not_finite_is_refused_outside_jit_and_inside_shows_in_x_and_is_passed_over_in_y(
        self, width, broken
    ):
        """Also in the first row of `x`, about which products are taken, and in one that is not included."""
        x = jnp.zeros((3, width)).at[:2, 0].set(broken)
        y = jnp.ones((40, width)).at[jnp.array([0, 1, 7]), 0].set(broken)
        args = x, y.at[9].set(0.5), jnp.arange(40) > 0
        with pytest.raises(ValueError, match="2 of 3 rows of x are NaN, infinite .* the first is row 0;"):
            kernels.nearest(*args)
        with pytest.raises(ValueError, match="3 of 40 rows of y are NaN, infinite .* the first is row 0;"):
            kernels.nearest(jnp.zeros_like(x), *args[1:])
        sq_distance, row = jax.jit(kernels.nearest)(*args)
        assert not jnp.isfinite(sq_distance[:2]).any()
        np.testing.assert_allclose(sq_distance[2], width / 4, rtol=1e-6)
        assert row[2] == 9

    @pytest.mark.parametrize("width", [2, 30])
    def test_jit_and_vmap_equal_singles(self, width):
        x = jnp.array(scattered("typical", 60, width, seed=0).reshape(3, 20, width))
        y = jnp.array(scattered("typical", 300, width, seed=1).reshape(3, 100, width))
        included = jnp.array(marks(300, 0.5).reshape(3, 100))
        singles = jax.tree.map(
            lambda *each: jnp.stack(each), *[kernels.nearest(x[i], y[i], included[i]) for i in range(3)]
        )
        (sq_distance, row), expected = jax.jit(jax.vmap(kernels.nearest))(x, y, included), singles
        chex.assert_trees_all_close(sq_distance, expected[0], rtol=1e-6)
        chex.assert_trees_all_equal(row, expected[1])

    @pytest.mark.parametrize("width", [2, 30])
    def test_memory_is_far_from_that_of_all_pairs(self, width):
        points = jnp.zeros((20_000, width))
        program = jax.jit(kernels.nearest).lower(points, points, jnp.ones(20_000, bool)).compile()
        assert program.memory_analysis().temp_size_in_bytes < 4 * 20_000**2 / 100
