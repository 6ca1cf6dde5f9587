"""Logistic regression on latents, the linear probe, whose weight decay is chosen by cross-validation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from latent_al.kernels._checks import as_real
from latent_al.models.last_layer import minimise
from latent_al.models.train import as_members, in_blocks, labelled_slots
from latent_al.types import UNLABELLED, BadInput, Key, Learner, Scalar, is_traced

FOLDS = 5
"""The number of folds of the cross-validation."""
DECAYS = tuple(10.0 ** (exponent / 2) for exponent in range(4, -6, -1))
"""Weight decays to choose from, the strongest first: 100 to 0.003, two per decade."""
INTERCEPT = 0.1
"""The constant feature that is added to latents whose mean squared norm is 1."""
PRECISE = 1e-3
"""Relative residual at which a training on folds ends."""
NEGLIGIBLE = 1e-6
"""The share of the largest variance along an axis at which another axis is no more than rounding error."""


class Linear(NamedTuple):
    """The params: logits are `inputs @ kernel + bias`."""

    kernel: Float[Array, "d c"]
    bias: Float[Array, " c"]


class Projected(NamedTuple):
    """Rows along the principal axes of the labelled ones, of which there are no more than rows.

    features: 0 in the rows without a label.
    basis: orthonormal columns, or columns of 0 where there is no such axis.
    squares: the sums of the squared features.
    """

    features: Float[Array, "n r"]
    basis: Float[Array, "d r"]
    squares: Float[Array, " r"]


def logistic_regression(*, num_classes: int, dropout: Scalar = 0.0) -> Learner:
    """Returns multinomial logistic regression, the linear probe, whose weight decay is chosen by cross-validation.

    It minimises the sum of the cross-entropy over labelled rows and half the weight decay times the squared weights.
    The latents are centred and divided by the root of their mean squared norm, over labelled rows. The intercept is the
    weight of one more feature, `INTERCEPT`, so small that it hardly learns the class shares of the labelled rows: these
    were selected, and their shares are not those of the pool. Of `DECAYS` the one with the largest log-likelihood of
    held-out rows is taken. The features are the latents, and `info` also has the `weight_decay`.

    Args:
        num_classes: two or more.
        dropout: share of the latent dimensions that an MC-dropout prediction drops, in [0, 1); training drops none.

    Raises:
        BadInput: dropout is outside [0, 1).
    """
    if not is_traced(dropout) and not 0 <= dropout < 1:
        raise BadInput(f"dropout is {dropout}; expected a share of the latent dimensions in [0, 1), such as 0.75.")

    def fit(key, inputs, labels, rows, count):
        slots, labelled = labelled_slots(rows, labels, count)
        return fit_linear(key, inputs[slots], labelled, num_classes)

    def fit_members(key, inputs, labels, rows, count):
        # On a CPU one seed after the other: side by side all would wait for the slowest line search.
        return as_members(fit, inputs, 0)(key, inputs, labels, rows, count)

    def predict(params, inputs):
        return inputs, jax.nn.softmax(inputs @ params.kernel + params.bias[None, :])

    if not is_traced(dropout) and not dropout:
        return Learner(fit_members, in_blocks(predict))

    def mc_dropout(params, key, inputs):
        # One network for all rows: within a prediction they all drop the same dimensions.
        is_kept = jax.random.bernoulli(key, 1 - dropout, params.kernel.shape[:1])
        kernel = jnp.where(is_kept[:, None], params.kernel / (1 - dropout), 0)
        _, probs = in_blocks(predict)(Linear(kernel, params.bias), inputs)
        return jnp.where(is_kept[None, :], inputs / (1 - dropout), 0), probs

    return Learner(fit_members, in_blocks(predict), mc_dropout)


def fit_linear(
    key: Key, inputs: Float[Array, "n d"], labels: Int[Array, " n"], num_classes: int
) -> tuple[Linear, dict[str, Float[Array, ""]]]:
    """Returns the params of `logistic_regression` and what it reports; `labels` are negative where there is none."""
    inputs, is_labelled = as_real(inputs), labels >= 0
    count = jnp.maximum(is_labelled.sum(), 1)
    centre = jnp.where(is_labelled[:, None], inputs, 0).sum(axis=0) / count
    centred = jnp.where(is_labelled[:, None], inputs - centre[None, :], 0)
    norm = jnp.sqrt((centred**2).sum() / count)
    scale = jnp.where(norm > 0, norm, 1)
    projected = project(jnp.column_stack([centred / scale, jnp.where(is_labelled, INTERCEPT, 0)]))
    scores = held_out_scores(projected, labels, folds(key, labels), num_classes)
    decay = jnp.array(DECAYS, inputs.dtype)[scores.argmax()]
    start = jnp.zeros((projected.features.shape[1], num_classes), inputs.dtype)
    weights = _minimise(projected, labels, decay, start)
    loss = -jnp.where(is_labelled, _log_likelihood(projected.features @ weights, labels), 0).sum() / count
    weights = projected.basis @ weights
    kernel = weights[:-1] / scale
    return Linear(kernel, INTERCEPT * weights[-1] - centre @ kernel), {"loss": loss, "weight_decay": decay}


def project(used: Float[Array, "n d"]) -> Projected:
    """Returns the rows along their principal axes."""
    if used.shape[1] <= used.shape[0]:
        squares, basis = jnp.linalg.eigh(jnp.matmul(used.T, used, precision="highest"))
        squares = jnp.maximum(squares, 0)
    else:
        # With fewer rows than dimensions the axes lie in the span of the rows.
        squares, combinations = jnp.linalg.eigh(jnp.matmul(used, used.T, precision="highest"))
        squares = jnp.where(squares > NEGLIGIBLE * squares.max(), squares, 0)
        inverse = jnp.where(squares > 0, jax.lax.rsqrt(jnp.where(squares > 0, squares, 1)), 0)
        basis = jnp.matmul(used.T, combinations, precision="highest") * inverse[None, :]
    return Projected(jnp.matmul(used, basis, precision="highest"), basis, squares)


def folds(key: Key, labels: Int[Array, " n"]) -> Int[Array, " n"]:
    """Returns the fold of each row, in [0, FOLDS): the rows are dealt out class by class, each in random order."""
    last = jnp.iinfo(labels.dtype).max
    order = jnp.lexsort((jax.random.uniform(key, labels.shape), jnp.where(labels < 0, last, labels)))
    return jnp.zeros_like(labels).at[order].set(jnp.arange(labels.shape[0], dtype=labels.dtype) % FOLDS)


def held_out_scores(
    projected: Projected, labels: Int[Array, " n"], fold: Int[Array, " n"], num_classes: int
) -> Float[Array, " decays"]:
    """Returns, for each decay, the summed log-likelihood of labelled rows under the weights from the other folds.

    Each training begins with the weights of the next stronger decay, which are close.
    """
    is_held_out = fold[None, :] == jnp.arange(FOLDS)[:, None]

    def train(weights, is_held_out, decay, projected, labels):
        return _minimise(projected, jnp.where(is_held_out, UNLABELLED, labels), decay, weights, PRECISE)

    train_folds = jax.vmap(as_members(train, projected, 0), in_axes=(0, 0, None, None, None))

    def score(weights, decay):
        weights = train_folds(weights, is_held_out, decay, projected, labels)
        likelihoods = jax.vmap(lambda weights: _log_likelihood(projected.features @ weights, labels))(weights)
        return weights, jnp.where(is_held_out & (labels >= 0)[None, :], likelihoods, 0).sum()

    start = jnp.zeros((FOLDS, projected.features.shape[1], num_classes), projected.features.dtype)
    return jax.lax.scan(score, start, jnp.array(DECAYS, start.dtype))[1]


def _minimise(projected, labels, decay, weights, *precise):
    count = jnp.maximum((labels >= 0).sum(), 1)
    return minimise(projected.features, labels, projected.squares / count, decay / (2 * count), weights, *precise)[0]


def _log_likelihood(logits, labels):
    return -optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
