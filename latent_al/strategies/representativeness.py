"""Uncertainty weighed with representativeness: Tonnaer (2017), section 3.4.2."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from latent_al import kernels
from latent_al.strategies.uncertainty import MEASURES, PICKS, measured
from latent_al.types import BadInput, Encoded, Scalar, Spec, Strategy, build, check_name, is_traced


class Representativeness(NamedTuple):
    """A measure of how typical each row is of the whole set.

    Attributes:
        measure: from an encoded training set to the value of each row, in [0, 1].
        needs: as in `Strategy.needs`.
    """

    measure: Callable[[Encoded], Float[Array, " n"]]
    needs: Mapping[str, str] = {}


def cosine_density(*, unit_cube: bool = False) -> Representativeness:
    """Measures the mean cosine similarity to all rows, scaled to [0, 1].

    Args:
        unit_cube: whether coordinates are in [0, 1], as pixels are.
    """
    needs = {"nonzero": "cosine_density"} | _cube("cosine_density", unit_cube)
    return Representativeness(lambda encoded: kernels.cosine_density(encoded.latents, unit_cube=unit_cube), needs)


def euclidean_density(*, unit_cube: bool = False) -> Representativeness:
    """Measures one minus the mean Euclidean distance to all rows, over the largest; quadratic in the number of rows.

    Args:
        unit_cube: whether coordinates are in [0, 1], as pixels are.
    """
    needs = {"distinct": "euclidean_density"} | _cube("euclidean_density", unit_cube)
    return Representativeness(lambda encoded: kernels.euclidean_density(encoded.latents, unit_cube=unit_cube), needs)


def euclidean_density_estimate(*, seed: int, fraction: float, unit_cube: bool = False) -> Representativeness:
    """Estimates `euclidean_density` from a random share of the rows.

    Args:
        seed: random seed of the share.
        fraction: fraction of the rows, in (0, 1].
        unit_cube: whether coordinates are in [0, 1], as pixels are.
    """
    key = jax.random.key(seed)

    def measure(encoded):
        return kernels.euclidean_density_estimate(key, encoded.latents, fraction=fraction, unit_cube=unit_cube)

    needs = {"distinct": "euclidean_density_estimate"} | _cube("euclidean_density_estimate", unit_cube)
    return Representativeness(measure, needs)


def squared_euclidean_density(*, unit_cube: bool = False) -> Representativeness:
    """Measures one minus the mean squared Euclidean distance to all rows, over the largest.

    Args:
        unit_cube: whether coordinates are in [0, 1], as pixels are.
    """
    needs = {"distinct": "squared_euclidean_density"} | _cube("squared_euclidean_density", unit_cube)

    def measure(encoded):
        return kernels.squared_euclidean_density(encoded.latents, unit_cube=unit_cube)

    return Representativeness(measure, needs)


def jeffreys_density() -> Representativeness:
    """Measures one minus the mean Jeffreys divergence to the Gaussians of all rows, over the largest."""

    def measure(encoded):
        return kernels.jeffreys_density(encoded.latents, encoded.log_sigma)

    return Representativeness(measure, {"log_sigma": "jeffreys_density", "distinct": "jeffreys_density"})


def kl_to_prior() -> Representativeness:
    """Measures one minus the divergence of each row's Gaussian from the standard normal prior, over the largest."""

    def measure(encoded):
        return kernels.kl_to_prior(encoded.latents, encoded.log_sigma)

    return Representativeness(measure, {"log_sigma": "kl_to_prior"})


def closeness_to_origin() -> Representativeness:
    """Measures one minus the distance from the origin, over the largest."""
    return Representativeness(lambda encoded: kernels.closeness_to_origin(encoded.latents))


def squared_closeness_to_origin() -> Representativeness:
    """Measures one minus the squared distance from the origin, over the largest."""
    return Representativeness(lambda encoded: kernels.squared_closeness_to_origin(encoded.latents))


REPRESENTATIVENESS: dict[str, Callable] = {
    "closeness_to_origin": closeness_to_origin,
    "cosine_density": cosine_density,
    "euclidean_density": euclidean_density,
    "euclidean_density_estimate": euclidean_density_estimate,
    "jeffreys_density": jeffreys_density,
    "kl_to_prior": kl_to_prior,
    "squared_closeness_to_origin": squared_closeness_to_origin,
    "squared_euclidean_density": squared_euclidean_density,
}
"""Measures by name, each a factory that returns a `Representativeness`."""


def informativeness(*, measure: str, representativeness: Spec, gamma: Scalar, pick: str) -> Strategy:
    """Selects rows with the largest gamma * uncertainty + (1 - gamma) * representativeness.

    A round takes O(n c) time and O(n) memory. Representativeness is measured once, in O(n d) time except for the exact
    Euclidean density, which takes O(n^2 d).

    Args:
        measure: the uncertainty measure: `least_confident`, `margin` or `entropy`.
        representativeness: a spec from the table; each row is compared with the whole training set.
        gamma: weight of uncertainty, in [0, 1].
        pick: `top_k` or `random_partitions`.

    Raises:
        BadInput: an unknown name, gamma outside [0, 1], a pool without predictions.
    """
    check_name(measure, MEASURES, "uncertainty measure")
    check_name(pick, PICKS, "pick")
    if not is_traced(gamma) and not 0 <= gamma <= 1:
        raise BadInput(f"gamma is {gamma}; expected a weight in [0, 1].")

    def query(key, pool, num):
        score = gamma * measured(measure, pool) + (1 - gamma) * pool.gather(pool.prepared)
        return PICKS[pick](key, score, pool.taken, num)

    represent = build(REPRESENTATIVENESS, representativeness, "representativeness measure")
    return Strategy(query, represent.measure, needs=represent.needs)


def information_density(*, measure: str, representativeness: Spec, beta: Scalar, pick: str) -> Strategy:
    """Selects rows with the largest uncertainty * representativeness ** beta: a row needs both.

    Time and memory are those of `informativeness`, which adds the two.

    Args:
        measure: the uncertainty measure: `least_confident`, `margin` or `entropy`.
        representativeness: a spec from the table; each row is compared with the whole training set.
        beta: weight of representativeness, 0 or more; 0 leaves it out.
        pick: `top_k` or `random_partitions`.

    Raises:
        BadInput: an unknown name, beta negative or not finite, a pool without predictions.

    Source: Settles and Craven (2008); Tonnaer (2017), section 2.1.2.
    """
    check_name(measure, MEASURES, "uncertainty measure")
    check_name(pick, PICKS, "pick")
    if not is_traced(beta) and not 0 <= beta < float("inf"):
        raise BadInput(f"beta is {beta}; expected a weight of 0 or more, such as 1.")

    def query(key, pool, num):
        score = measured(measure, pool) * pool.gather(pool.prepared) ** beta
        return PICKS[pick](key, score, pool.taken, num)

    represent = build(REPRESENTATIVENESS, representativeness, "representativeness measure")
    return Strategy(query, represent.measure, needs=represent.needs)


def _cube(name, unit_cube):
    return {"unit_cube": name} if unit_cube else {}
