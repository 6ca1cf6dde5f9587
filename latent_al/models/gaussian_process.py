"""Gaussian-process classification of latents in closed form, by random Fourier features."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import erf
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float

from latent_al.kernels._checks import as_real
from latent_al.models import cpu
from latent_al.models.cpu import on_cpu
from latent_al.models.train import as_members, in_blocks, labelled_slots
from latent_al.types import UNLABELLED, BadInput, Key, Learner

LENGTH_SCALES = (0.2, 0.4, 0.8)
"""Length scales of the kernel to choose from, in units of the root mean squared distance between labelled rows."""
NOISES = tuple(10.0 ** (exponent / 2) for exponent in range(-4, 2))
"""Variances of the noise to choose from, in units of the function's variance: 0.01 to 3, two per decade."""
TRIANGLE = 128
"""Rows of a triangular matrix that are multiplied at a time."""
REACH, STEP = 4.5, 0.5
"""Range and step of the quadrature, in standard deviations."""


class Posterior(NamedTuple):
    """The params: a linear model in `cos(inputs @ frequencies + phases)`, whose weights are Gaussian.

    weights: the mean.
    root: a lower triangular matrix R with R.T @ R = the covariance over the variance of the noise.
    noise: the variance of the noise.
    """

    frequencies: Float[Array, "d f"]
    phases: Float[Array, " f"]
    weights: Float[Array, "f c"]
    root: Float[Array, "f f"]
    noise: Float[Array, ""]


def gaussian_process(*, num_classes: int, num_features: int = 512) -> Learner:
    """Returns a Gaussian process with a Gaussian kernel that regresses the classes, in closed form.

    The target of a class is 1 - 1/c on its own rows and -1/c on all other rows. The functions of all classes have the
    same prior, a Gaussian process. Its kernel is approximated by random Fourier features. Length scale and noise are
    those with the largest marginal likelihood, over `LENGTH_SCALES` and `NOISES`, with the best variance of the
    function for each. The probability of a class is that of its target being the largest, under the predictive
    distribution with its noise: far from what is labelled, all classes are about equally likely. The features are those
    of the linear model, and `info` also has the `length_scale` and the `noise`.

    It takes O(m f^2 + f^3) time for m labelled rows and f features, and O(n (f^2 + f d)) to predict n rows.

    Args:
        num_classes: two or more.
        num_features: number of random features, one or more; more come closer to the kernel.

    Raises:
        BadInput: num_features is below 1.

    Source: Rasmussen and Williams (2006), section 6.5; the features: Rahimi and Recht (2007).
    """
    if num_features < 1:
        raise BadInput(f"num_features is {num_features}; expected one or more, such as 512.")

    def fit(key, inputs, labels, rows, count):
        slots, labelled = labelled_slots(rows, labels, count)
        points = as_real(inputs[slots])
        targets = jax.nn.one_hot(labelled, num_classes, dtype=points.dtype) - 1 / num_classes
        return fit_posterior(key, points, targets, labelled != UNLABELLED, num_features)

    def fit_members(key, inputs, labels, rows, count):
        return as_members(fit, inputs, 0)(key, inputs, labels, rows, count)

    def predict(params, inputs):
        features = _features(inputs, params.frequencies, params.phases)
        # Blocks of the root's rows, without what lies above the diagonal.
        blocks = [slice(start, start + TRIANGLE) for start in range(0, num_features, TRIANGLE)]
        parts = [features[:, : rows.stop] @ params.root[rows, : rows.stop].T for rows in blocks]
        covariance = sum((part**2).sum(axis=1) for part in parts)
        return features, largest(features @ params.weights, jnp.sqrt(params.noise * (1 + covariance)))

    return Learner(fit_members, in_blocks(predict))


def fit_posterior(
    key: Key,
    inputs: Float[Array, "m d"],
    targets: Float[Array, "m c"],
    is_labelled: Bool[Array, " m"],
    num_features: int,
) -> tuple[Posterior, dict[str, Float[Array, ""]]]:
    """Returns the posterior for the length scale and noise with the largest marginal likelihood, and what to report."""
    key_frequencies, key_phases = jax.random.split(key)
    directions = jax.random.normal(key_frequencies, (inputs.shape[1], num_features), inputs.dtype)
    phases = jax.random.uniform(key_phases, (num_features,), inputs.dtype, maxval=2 * math.pi)
    targets = jnp.where(is_labelled[:, None], targets, 0)
    distance = _root_mean_squared_distance(inputs, is_labelled)

    def design(frequencies):
        return jnp.where(is_labelled[:, None], _features(inputs, frequencies, phases), 0)

    def of_length_scale(length_scale):
        features = design(directions / (length_scale * distance))
        gram = jnp.matmul(features.T, features, precision="highest")
        log_evidence = partial(_log_evidence, features, gram, targets, is_labelled.sum())
        return jax.lax.map(log_evidence, noises), gram

    length_scales, noises = jnp.array(LENGTH_SCALES, inputs.dtype), jnp.array(NOISES, inputs.dtype)
    evidence, grams = jax.lax.map(of_length_scale, length_scales)
    best = jnp.unravel_index(evidence.argmax(), evidence.shape)
    length_scale, noise = length_scales[best[0]], noises[best[1]]
    frequencies = directions / (length_scale * distance)
    factor, weights, misfit = _solve(design(frequencies), grams[best[0]], targets, noise)
    variance = misfit / (jnp.maximum(is_labelled.sum(), 1) * targets.shape[1])
    root = solve_triangular(factor, jnp.eye(num_features, dtype=inputs.dtype), lower=True)
    posterior = Posterior(frequencies, phases, weights, root, noise * variance)
    loss = -evidence.max() / (jnp.maximum(is_labelled.sum(), 1) * targets.shape[1])
    return posterior, {"loss": loss, "length_scale": length_scale * distance, "noise": noise * variance}


def largest(means: Float[Array, "n c"], deviations: Float[Array, " n"]) -> Float[Array, "n c"]:
    """Returns the probability that each of a row's independent Gaussians, of equal standard deviation, is the largest.

    It uses the trapezoidal rule around the largest mean, accurate to about 1e-4; each row sums to 1.
    """
    grid = jnp.arange(-REACH, REACH + STEP, STEP, dtype=means.dtype)
    offsets = (means.max(axis=1, keepdims=True) - means) / deviations[:, None]
    points = offsets[:, :, None] + grid[None, None, :]
    # Faster than `norm.cdf`, which is exact further out than any point matters.
    below = jnp.maximum((1 + erf(points / math.sqrt(2))) / 2, jnp.finfo(means.dtype).tiny)
    all_below = below.prod(axis=1, keepdims=True)
    mass = (norm.pdf(points) * all_below / below).sum(axis=2)
    return mass / mass.sum(axis=1, keepdims=True)


def _features(inputs, frequencies, phases):
    return math.sqrt(2 / phases.shape[0]) * cos(inputs @ frequencies + phases[None, :])


@on_cpu(cpu.cos)
def cos(x: Float[Array, "n f"]) -> Float[Array, "n f"]:
    """Returns the cosine of each angle."""
    return jnp.cos(x)


def _root_mean_squared_distance(inputs, is_labelled):
    count = jnp.maximum(is_labelled.sum(), 1)
    centre = jnp.where(is_labelled[:, None], inputs, 0).sum(axis=0) / count
    squares = jnp.where(is_labelled[:, None], (inputs - centre[None, :]) ** 2, 0).sum()
    return jnp.where(squares > 0, jnp.sqrt(2 * squares / count), 1)


def _solve(features, gram, targets, noise):
    """Returns the Cholesky factor of gram + noise, the weights, and the targets' squared norm in the inverse kernel."""
    factor = jnp.linalg.cholesky(gram + noise * jnp.eye(gram.shape[0], dtype=gram.dtype))
    products = jnp.matmul(features.T, targets, precision="highest")
    weights = solve_triangular(factor.T, solve_triangular(factor, products, lower=True))
    residuals = targets - jnp.matmul(features, weights, precision="highest")
    return factor, weights, (residuals**2).sum() / noise + (weights**2).sum()


def _log_evidence(features, gram, targets, count, noise):
    """Returns the log marginal likelihood with the best variance of the function, up to a constant."""
    num_classes = targets.shape[1]
    factor, _, misfit = _solve(features, gram, targets, noise)
    log_determinant = 2 * jnp.log(jnp.diagonal(factor)).sum() + (count - gram.shape[0]) * jnp.log(noise)
    variance = misfit / jnp.maximum(count * num_classes, 1)
    return -num_classes / 2 * (count * jnp.log(variance) + log_determinant)
