"""Representativeness beside the slow obvious loop, in and out of `jit` and `vmap`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_al import kernels
from latent_al.kernels import representativeness


def loop_density(similarity):
    """The mean similarity of each row to all rows, itself among them."""
    return lambda rows: np.array([sum(similarity(x, u) for u in rows) / len(rows) for x in rows])


def loop_reversed(distance, bound=None):
    """1 - mean / bound, the bound being the largest mean unless one is known."""

    def density(rows):
        means = loop_density(distance)(rows)
        return 1 - means / (means.max() if bound is None else bound(len(rows[0][0])))

    return density


def loop_prior(distance):
    def density(rows):
        values = np.array([distance(x, np.zeros_like(x)) for x in rows])
        return 1 - values / values.max()

    return density


def squared(x, y):
    return sum((a - b) ** 2 for a, b in zip(x[0], y[0], strict=True))


def euclidean(x, y):
    return np.sqrt(squared(x, y))


def cosine(x, y):
    return (x[0] / np.linalg.norm(x[0])) @ (y[0] / np.linalg.norm(y[0]))


def kl(x, y):
    """Tonnaer's (2017) sum over dimensions, its logarithm and the ratio of variances joined so as not to cancel."""
    total = 0
    for mu_x, log_x, mu_y, log_y in zip(*x, *y, strict=True):
        gap = 2 * (log_x - log_y)
        total += 0.5 * (np.expm1(gap) - gap + (mu_x - mu_y) ** 2 * np.exp(-2 * log_y))
    return total


KEY = jax.random.key(3)
EXACT, TILED = 3e-6, 5e-4
"""Tolerances: the root of a distance's rounding is what a tile may add to a pair that lies close."""
CUBE = {"unit_cube": True}

KERNELS = {
    "cosine_density": (
        lambda mu, _: kernels.cosine_density(mu),
        loop_density(lambda x, u: (1 + cosine(x, u)) / 2),
        EXACT,
    ),
    "squared_euclidean_density": (
        lambda mu, _: kernels.squared_euclidean_density(mu),
        loop_reversed(squared),
        EXACT,
    ),
    "euclidean_density": (lambda mu, _: kernels.euclidean_density(mu), loop_reversed(euclidean), TILED),
    "estimate_of_all": (
        lambda mu, _: kernels.euclidean_density_estimate(KEY, mu, fraction=1.0),
        loop_reversed(euclidean),
        TILED,
    ),
    "jeffreys_density": (kernels.jeffreys_density, loop_reversed(lambda x, u: kl(x, u) + kl(u, x)), EXACT),
    "kl_to_prior": (kernels.kl_to_prior, loop_prior(kl), EXACT),
    "closeness_to_origin": (lambda mu, _: kernels.closeness_to_origin(mu), loop_prior(euclidean), EXACT),
    "squared_closeness_to_origin": (lambda mu, _: kernels.squared_closeness_to_origin(mu), loop_prior(squared), EXACT),
}
CUBE_KERNELS = {
    "cosine_density_cube": (lambda mu, _: kernels.cosine_density(mu, **CUBE), loop_density(cosine), EXACT),
    "squared_euclidean_density_cube": (
        lambda mu, _: kernels.squared_euclidean_density(mu, **CUBE),
        loop_reversed(squared, bound=lambda d: d),
        EXACT,
    ),
    "euclidean_density_cube": (
        lambda mu, _: kernels.euclidean_density(mu, **CUBE),
        loop_reversed(euclidean, bound=np.sqrt),
        TILED,
    ),
    "estimate_of_all_cube": (
        lambda mu, _: kernels.euclidean_density_estimate(KEY, mu, fraction=1.0, **CUBE),
        loop_reversed(euclidean, bound=np.sqrt),
        TILED,
    ),
}
ALL = KERNELS | CUBE_KERNELS


def gaussians(kind, size=31):
    rng = np.random.default_rng(0)
    mu, log_sigma = rng.normal(size=(size, 4)), rng.uniform(-3, 0, size=(size, 4))
    if kind == "far off":
        mu = mu + 1e3
    elif kind == "tiny spread":
        mu, log_sigma = 5 + 1e-3 * mu, -2 + 1e-3 * log_sigma
    elif kind == "tiny":
        mu, log_sigma = 1e-3 * mu, 1e-3 * log_sigma
    elif kind == "extreme sigma":
        log_sigma = 3 * log_sigma + 3
    elif kind == "duplicates":
        mu, log_sigma = mu[np.arange(size) // 3], log_sigma[np.arange(size) // 3]
    elif kind == "outlier":
        mu[0] = 1e4
    elif kind == "grey":
        mu = rng.uniform(size=(size, 4))
    elif kind == "black and white":
        mu = np.maximum(rng.integers(0, 2, size=(size, 4)), [0, 0, 0, 1])
    return np.float32(mu), np.float32(log_sigma)


IN_CUBE = ["grey", "black and white"]
KINDS = ["typical", "far off", "tiny spread", "tiny", "extreme sigma", "duplicates", "outlier", *IN_CUBE]
CASES = [(name, kind) for name in ALL for kind in (IN_CUBE if name in CUBE_KERNELS else KINDS)]
CASES.remove(("kl_to_prior", "tiny"))


def expected_of(name, mu, log_sigma):
    return ALL[name][1](np.stack([mu, log_sigma], axis=1).astype(np.float64))


@pytest.mark.parametrize("name, kind", CASES)
def test_equals_the_loop(name, kind):
    kernel, _, tolerance = ALL[name]
    given = gaussians(kind)
    expected = expected_of(name, *given)
    for run in (kernel, jax.jit(kernel)):
        values = run(*map(jnp.array, given))
        np.testing.assert_allclose(values, expected, atol=tolerance, rtol=0)
        assert (values >= 0).all()
        assert (values <= 1).all()


def test_kl_to_prior_of_a_collapsed_posterior():
    """Where exp(2 log_sigma) - 1 all but equals 2 log_sigma, and a float32 keeps four digits of what is left."""
    given = gaussians("tiny")
    values = kernels.kl_to_prior(*map(jnp.array, given))
    np.testing.assert_allclose(values, expected_of("kl_to_prior", *given), atol=3e-4, rtol=0)


@pytest.mark.parametrize("name", [name for name in KERNELS if KERNELS[name][2] == EXACT])
def test_equal_rows_are_equally_typical(name):
    """To the last bit: else their ties would not go to the lowest row."""
    rng = np.random.default_rng(29)
    equal, other = np.tile(rng.normal(size=(2, 1, 38)), (1, 29, 1)), rng.normal(size=(2, 1, 38))
    mu, log_sigma = jnp.float32(np.concatenate([equal, other], axis=1))
    assert len(set(KERNELS[name][0](mu, log_sigma)[:-1].tolist())) == 1


@pytest.mark.parametrize("name", ALL)
def test_vmap_equals_singles(name):
    kernel, _, tolerance = ALL[name]
    given = [jnp.array(each.reshape(3, 5, 4)) for each in gaussians("grey", 15)]
    singles = jnp.stack([kernel(*each) for each in zip(*given, strict=True)])
    chex.assert_trees_all_close(jax.vmap(kernel)(*given), singles, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_inside_jit_over_known_arrays(name):
    kernel, _, tolerance = ALL[name]
    given = [jnp.array(each) for each in gaussians("grey")]
    chex.assert_trees_all_close(jax.jit(lambda: kernel(*given))(), kernel(*given), atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", [name for name in KERNELS if name != "cosine_density"])
def test_farthest_row_is_at_zero(name):
    values = KERNELS[name][0](*map(jnp.array, gaussians("outlier")))
    assert values[0] < 1e-7
    assert (values[1:] > 1e-7).all()


@pytest.mark.parametrize("name", ["kl_to_prior", "closeness_to_origin", "squared_closeness_to_origin"])
def test_prior_itself_is_at_one(name):
    mu, log_sigma = gaussians("typical")
    mu[4], log_sigma[4] = 0, 0
    assert KERNELS[name][0](jnp.array(mu), jnp.array(log_sigma))[4] == 1


@pytest.mark.parametrize(
    "name", ["cosine_density", "kl_to_prior", "closeness_to_origin", "squared_closeness_to_origin"]
)
def test_one_row(name):
    given = gaussians("typical", 1)
    np.testing.assert_allclose(KERNELS[name][0](*map(jnp.array, given)), expected_of(name, *given), atol=EXACT)


@pytest.mark.parametrize("size", [1, 6])
@pytest.mark.parametrize("name", ["cosine_density", "squared_euclidean_density", "euclidean_density"])
def test_equal_images_are_as_typical_as_can_be(name, size):
    """In the unit cube the bound is known, and a set of equal rows has a value."""
    values = CUBE_KERNELS[f"{name}_cube"][0](jnp.full((size, 3), 0.1), None)
    np.testing.assert_allclose(values, np.ones(size), atol=1e-6)


def refused(kernel, given, match):
    """Outside `jit` the kernel raises; inside it gives NaN."""
    with pytest.raises(ValueError, match=match):
        kernel(*given)
    assert jnp.isnan(jax.jit(kernel)(*given)).any()


BROKEN = "1 of 31 rows of {} are NaN, infinite or too large to square, the first is row 2;"


class TestRefusals:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("name", KERNELS)
    def test_nan_and_infinity(self, name, bad):
        mu, log_sigma = map(jnp.array, gaussians("grey"))
        refused(KERNELS[name][0], (mu.at[2, 1].set(bad), log_sigma), BROKEN.format("(points|mu)"))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("name", ["jeffreys_density", "kl_to_prior"])
    def test_nan_and_infinite_log_sigma(self, name, bad):
        mu, log_sigma = map(jnp.array, gaussians("grey"))
        refused(KERNELS[name][0], (mu, log_sigma.at[2, 1].set(bad)), BROKEN.format("log_sigma"))

    @pytest.mark.parametrize("name", CUBE_KERNELS)
    def test_nan_in_the_unit_cube(self, name):
        mu, log_sigma = map(jnp.array, gaussians("grey"))
        refused(CUBE_KERNELS[name][0], (mu.at[2, 1].set(jnp.nan), log_sigma), BROKEN.format("points"))

    @pytest.mark.parametrize(
        "bad, match",
        [
            (-0.01, r"points run from -0.01 to .*; expected \[0, 1\] where unit_cube is set"),
            (1.01, r"points run from .* to 1.01; expected \[0, 1\] where unit_cube is set"),
            (np.inf, BROKEN.format("points")),
            (-np.inf, BROKEN.format("points")),
        ],
    )
    @pytest.mark.parametrize("name", CUBE_KERNELS)
    def test_coordinates_outside_the_unit_cube(self, name, bad, match):
        mu, log_sigma = map(jnp.array, gaussians("grey"))
        with pytest.raises(ValueError, match=match):
            CUBE_KERNELS[name][0](mu.at[2, 1].set(bad), log_sigma)

    @pytest.mark.parametrize("kernel", [KERNELS["cosine_density"][0], CUBE_KERNELS["cosine_density_cube"][0]])
    def test_zero_row_has_no_direction(self, kernel):
        mu, log_sigma = map(jnp.array, gaussians("grey"))
        refused(kernel, (mu.at[2].set(0), log_sigma), "1 of 31 rows have no .*: a row is zero")

    @pytest.mark.parametrize(
        "coordinate, match",
        [
            (
                1e-25,
                "1 of 31 rows have no representativeness, the first is row 2: .* too large or small for its square",
            ),
            (1e25, BROKEN.format("points")),
        ],
    )
    def test_row_whose_length_is_not_a_float32_has_no_direction(self, coordinate, match):
        mu, log_sigma = map(jnp.array, gaussians("grey"))
        refused(KERNELS["cosine_density"][0], (mu.at[2].set(coordinate), log_sigma), match)

    @pytest.mark.parametrize("mu, log_sigma", [(0, 0), (0.1, -0.1), (1e3 + 0.1, 2.9), (1e6 + 0.3, -6.1), (-7.77, 0.3)])
    @pytest.mark.parametrize(
        "name", ["squared_euclidean_density", "euclidean_density", "estimate_of_all", "jeffreys_density"]
    )
    def test_equal_rows(self, name, mu, log_sigma):
        given = jnp.full((31, 4), mu, jnp.float32), jnp.full((31, 4), log_sigma, jnp.float32)
        refused(
            KERNELS[name][0], given, "31 of 31 rows have no representativeness, the first is row 0: all rows .*equal"
        )

    @pytest.mark.parametrize("name", ["squared_euclidean_density", "euclidean_density", "jeffreys_density"])
    def test_one_row_is_no_set_to_be_typical_of(self, name):
        refused(
            KERNELS[name][0],
            (jnp.full((1, 3), 0.1), jnp.full((1, 3), -0.1)),
            "1 of 1 rows have no .* all rows are equal",
        )

    @pytest.mark.parametrize(
        "name, match",
        [
            ("kl_to_prior", r"all rows are N\(0, I\)"),
            ("closeness_to_origin", "all rows are zero"),
            ("squared_closeness_to_origin", "all rows are zero"),
        ],
    )
    def test_all_rows_at_the_prior(self, name, match):
        refused(KERNELS[name][0], (jnp.zeros((31, 4)), jnp.zeros((31, 4))), match)

    @pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("inf"), float("nan")])
    def test_impossible_fraction(self, fraction):
        with pytest.raises(ValueError, match=f"fraction is {fraction}"):
            kernels.euclidean_density_estimate(KEY, jnp.eye(4), fraction=fraction)

    def test_estimate_of_a_single_row(self):
        with pytest.raises(ValueError, match="fraction is 0.5 of 1 rows; expected .* of 2 rows or more"):
            kernels.euclidean_density_estimate(KEY, jnp.ones((1, 3)), fraction=0.5)


@pytest.fixture
def small_tile(monkeypatch):
    """Tiles of 8 rows. What is compiled for one size of tile would be kept for the next."""
    monkeypatch.setattr(representativeness, "TILE", 8)
    jax.clear_caches()
    yield 8
    jax.clear_caches()


@pytest.mark.parametrize("size", [2, 7, 8, 9, 17])
@pytest.mark.parametrize("name", [name for name in ALL if name.startswith(("euclidean", "estimate"))])
def test_any_number_of_tiles_equals_the_loop(name, size, small_tile):
    given = gaussians("grey", size)
    np.testing.assert_allclose(
        ALL[name][0](*map(jnp.array, given)), expected_of(name, *given), atol=ALL[name][2], rtol=0
    )


class TestEstimate:
    @pytest.mark.parametrize("size, fraction", [(2, 0.01), (8, 0.5), (21, 0.01), (21, 0.3), (21, 1.0)])
    def test_does_not_depend_on_the_tile(self, size, fraction, request):
        x = jnp.array(gaussians("grey", size)[0])
        one_tile = kernels.euclidean_density_estimate(KEY, x, fraction=fraction, unit_cube=True)
        request.getfixturevalue("small_tile")
        tiles = kernels.euclidean_density_estimate(KEY, x, fraction=fraction, unit_cube=True)
        np.testing.assert_allclose(tiles, one_tile, atol=TILED)

    def test_same_key_same_values(self):
        x = jnp.array(gaussians("typical")[0])
        first, again, other = (
            kernels.euclidean_density_estimate(jax.random.key(seed), x, fraction=0.2) for seed in (0, 0, 1)
        )
        chex.assert_trees_all_equal(first, again)
        assert (first != other).any()

    def test_equal_rows_get_another_sample_each(self):
        x = jnp.repeat(jnp.array(gaussians("typical")[0]), 2, axis=0)
        first, second = kernels.euclidean_density_estimate(KEY, x, fraction=0.1).reshape(-1, 2).T
        assert (abs(first - second) > 1e-3).mean() > 0.9

    @pytest.mark.parametrize("fraction", [0.02, 0.1, 0.4])
    def test_is_unbiased_and_errs_as_a_sample_without_replacement(self, fraction, small_tile):
        """Over keys, where the bound is known: the mean of num of the other rows has its textbook variance."""
        size, num_keys = 61, 1000
        num = max(1, round(fraction * (size - 1)))
        given = gaussians("grey", size)
        exact = expected_of("euclidean_density_cube", *given)
        rows = given[0].astype(np.float64)
        to_others = [[euclidean((x,), (u,)) / 2 for j, u in enumerate(rows) if j != i] for i, x in enumerate(rows)]
        variance = np.var(to_others, axis=1, ddof=1) / num * (1 - num / (size - 1)) * ((size - 1) / size) ** 2
        estimate = jax.vmap(
            lambda key: kernels.euclidean_density_estimate(key, jnp.array(given[0]), fraction=fraction, unit_cube=True)
        )
        errors = np.asarray(estimate(jax.random.split(jax.random.key(0), num_keys))) - exact
        assert (abs(errors.mean(axis=0)) < 4.5 * np.sqrt(variance / num_keys)).all()
        np.testing.assert_allclose((errors**2).mean(axis=0), variance, rtol=0.35)
        np.testing.assert_allclose((errors**2).mean(), variance.mean(), rtol=0.06)
