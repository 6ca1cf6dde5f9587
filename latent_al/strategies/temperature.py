"""The temperature of predictions, from held-out parts of few labelled rows, inside `jit`."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from latent_al.kernels._loops import fori_loop
from latent_al.kernels._sharding import marked_rows

MAX_LABELLED = 1024
"""The maximum number of labelled rows that are used: the first in the pool."""

FOLDS = 3
STEPS, L2 = 200, 1e-3
"""Accelerated gradient steps of a softmax regression, and the weight of its squared coefficients."""

BINS = 15
NUM_TEMPERATURES = 49
"""From 0.1 to 10, evenly spaced on a log scale."""


class _Labelled(NamedTuple):
    inputs: Array
    targets: Array
    folds: Array
    is_there: Array


class _Step(NamedTuple):
    weights: Array
    ahead: Array


@partial(jax.jit, static_argnames="num_classes")
def held_out_temperature(
    features: Float[Array, "n f"], labels: Num[Array, " n"], labelled: Bool[Array, " n"], num_classes: int
) -> Float[Array, ""]:
    """Returns the temperature with the smallest expected calibration error on held-out thirds of the labelled rows.

    Predictions for each third are those of a softmax regression on the features of the rest, centred and scaled to unit
    length. The temperature is 1 where fewer than two classes, or no more than `FOLDS` rows, are labelled. If more than
    `MAX_LABELLED` rows are labelled, the first in the pool are used, so that time and memory are bounded.

    Source: Guo, Pleiss, Sun and Weinberger (2017), by expected calibration error as in Bae, Oliveira and Sutherland
    (2025).
    """
    marked = marked_rows(labelled)
    places = jnp.arange(min(MAX_LABELLED, len(labelled)))
    is_there = places < marked.num_marked
    rows = marked.at(jnp.where(is_there, places, 0))
    inputs = jnp.where(is_there[:, None], features[rows], 0)
    inputs = jnp.where(is_there[:, None], inputs - inputs.sum(axis=0)[None] / jnp.maximum(is_there.sum(), 1), 0)
    inputs = inputs / jnp.maximum(jnp.linalg.norm(inputs, axis=1, keepdims=True), jnp.finfo(inputs.dtype).tiny)
    inputs = jnp.concatenate([inputs, jnp.ones_like(inputs[:, :1])], axis=1)
    targets = jax.nn.one_hot(labels[rows].astype(jnp.int32), num_classes, dtype=inputs.dtype)
    part = _Labelled(inputs, targets, jnp.arange(len(rows)) % FOLDS, is_there)
    logits = jax.vmap(lambda fold: _regress(part, fold))(jnp.arange(FOLDS))
    logits = jnp.take_along_axis(logits, part.folds[None, :, None], axis=0)[0]
    temperatures = jnp.logspace(-1, 1, NUM_TEMPERATURES, dtype=logits.dtype)
    errors = jax.vmap(lambda temperature: _calibration_error(logits / temperature, part))(temperatures)
    num_seen = (targets * is_there[:, None]).any(axis=0).sum()
    is_known = (num_seen > 1) & (is_there.sum() > FOLDS)
    return jnp.where(is_known, temperatures[errors.argmin()], 1.0)


def _regress(part, fold):
    """Returns logits [m c] of a softmax regression on all rows except those of the fold."""
    is_used = part.is_there & (part.folds != fold)
    count = jnp.maximum(is_used.sum(), 1)

    def gradient(weights):
        errors = jax.nn.softmax(part.inputs @ weights, axis=1) - part.targets
        return part.inputs.T @ jnp.where(is_used[:, None], errors, 0) / count + L2 * weights

    def step(index, state):
        # Inputs of length sqrt(2) make the curvature at most 1.
        weights = state.ahead - gradient(state.ahead)
        return _Step(weights, weights + index / (index + 3) * (weights - state.weights))

    zeros = jnp.zeros((part.inputs.shape[1], part.targets.shape[1]), part.inputs.dtype)
    return part.inputs @ fori_loop(0, STEPS, step, _Step(zeros, zeros)).weights


def _calibration_error(logits, part):
    """Returns the mean over rows of the gap between confidence and accuracy in the row's bin of confidence."""
    confidence = jax.nn.softmax(logits, axis=1).max(axis=1)
    is_right = jnp.take_along_axis(part.targets, logits.argmax(axis=1)[:, None], axis=1)[:, 0]
    bins = jnp.minimum((BINS * confidence).astype(jnp.int32), BINS - 1)
    gaps = jax.ops.segment_sum(jnp.where(part.is_there, is_right - confidence, 0), bins, BINS)
    return jnp.abs(gaps).sum() / jnp.maximum(part.is_there.sum(), 1)
