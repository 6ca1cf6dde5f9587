"""Uncertainty weighed with representativeness: the thesis on active learning in VAE latent space, section 3.4.2."""

from collections.abc import Callable
from functools import partial

import jax
from jaxtyping import Array, Float

from latent_al import kernels
from latent_al.kernels.representativeness import check_cube
from latent_al.strategies.uncertainty import MEASURES, PICKS, measured
from latent_al.types import BadInput, Encoded, Spec, Strategy, build, check_name

Measure = Callable[[Encoded], Float[Array, " n"]]


def _of_points(kernel) -> Measure:
    return lambda train: kernel(train.latents)


def _of_gaussians(kernel) -> Measure:
    def measure(train):
        if train.log_sigma is None:
            raise BadInput(
                f"{kernel.__name__} needs the spread of each latent, which this encoder does not give; "
                "choose a variational auto-encoder, or a measure of points such as closeness_to_origin."
            )
        return kernel(train.latents, train.log_sigma)

    return measure


def _density(kernel, *, unit_cube: bool = False) -> Measure:
    """A density that knows of pixels.

    Args:
        unit_cube: whether every coordinate lies in [0, 1], as pixels do.
    """
    return lambda train: kernel(train.latents, unit_cube=unit_cube)


def _estimate(kernel, *, seed: int, fraction: float, unit_cube: bool) -> Measure:
    """A density by a sample.

    Args:
        seed: of the sample.
        fraction: of the rows that each row is compared with, in (0, 1].
        unit_cube: whether every coordinate lies in [0, 1], as pixels do.
    """
    key = jax.random.key(seed)
    return lambda train: kernel(key, train.latents, fraction=fraction, unit_cube=unit_cube)


REPRESENTATIVENESS = {
    "cosine_density": partial(_density, kernels.cosine_density),
    "euclidean_density": partial(_density, kernels.euclidean_density),
    "euclidean_density_estimate": partial(_estimate, kernels.euclidean_density_estimate),
    "squared_euclidean_density": partial(_density, kernels.squared_euclidean_density),
    "jeffreys_density": partial(_of_gaussians, kernels.jeffreys_density),
    "kl_to_prior": partial(_of_gaussians, kernels.kl_to_prior),
    "closeness_to_origin": partial(_of_points, kernels.closeness_to_origin),
    "squared_closeness_to_origin": partial(_of_points, kernels.squared_closeness_to_origin),
}


def informativeness(*, measure: str, representativeness: Spec, gamma: float, pick: str) -> Strategy:
    """Rows of the largest gamma * uncertainty + (1 - gamma) * representativeness.

    Args:
        measure: of uncertainty: `least_confident`, `margin` or `entropy`.
        representativeness: a spec from the table; what each row is compared with is the whole training set.
        gamma: weight of uncertainty, in [0, 1].
        pick: `top_k` or `random_partitions`.

    Raises:
        BadInput: an unknown name, gamma outside [0, 1], a pool without predictions, a measure of Gaussians over an
            encoder without spread.
    """
    check_name(measure, MEASURES, "uncertainty measure")
    check_name(pick, PICKS, "pick")
    if not 0 <= gamma <= 1:
        raise BadInput(f"gamma is {gamma}; expected a weight in [0, 1].")

    def select(key, pool, num):
        score = gamma * measured(measure, pool) + (1 - gamma) * pool.of_pool(pool.prepared)
        return PICKS[pick](key, score, pool.taken, num)

    prepare = build(REPRESENTATIVENESS, representativeness, "representativeness measure")
    return Strategy(select, prepare, check=partial(check_within, representativeness))


def check_within(spec: Spec, train: Encoded) -> None:
    """Raises ValueError where a measure of pixels, by its spec, gets other coordinates."""
    check_cube(train.latents, dict(spec).get("unit_cube", False))
