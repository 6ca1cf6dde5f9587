"""A classifier whose last layer is trained to a stationary point, as representer values need it."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from latent_al.base import UNLABELLED, BadInput, Learner

ITERATIONS = 500
TOLERANCE = 1e-3
"""Relative residual above which a last layer has not converged."""


@partial(jax.jit, static_argnums=(2, 3))
def refit(
    features: Float[Array, "n f"], labels: Int[Array, " n"], num_classes: int, l2: float
) -> tuple[Float[Array, "f c"], Float[Array, ""]]:
    """The weights of the last layer, without bias, that minimise the mean cross-entropy plus l2 times their square sum.

    A convex problem, solved by L-BFGS.

    Args:
        features: [n f].
        labels: in [0, num_classes), or negative where there is none.
        num_classes: c.
        l2: above 0.

    Returns:
        The weights, and the residual: the norm of the gradient over that of its two parts together, in [0, 1]; what
        float32 allows is about 1e-6.
    """
    known = labels >= 0
    count = jnp.maximum(known.sum(), 1)

    def objective(weights):
        losses = optax.softmax_cross_entropy_with_integer_labels(features @ weights, jnp.maximum(labels, 0))
        return jnp.where(known, losses, 0).sum() / count + l2 * (weights**2).sum()

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(objective)

    def residual(weights, gradient):
        parts = jnp.linalg.norm(gradient - 2 * l2 * weights) + jnp.linalg.norm(2 * l2 * weights)
        return jnp.linalg.norm(gradient) / jnp.maximum(parts, jnp.finfo(parts.dtype).tiny)

    def step(carry):
        weights, state, index, _ = carry
        value, gradient = value_and_grad(weights, state=state)
        moves, state = solver.update(gradient, state, weights, value=value, grad=gradient, value_fn=objective)
        return optax.apply_updates(weights, moves), state, index + 1, residual(weights, gradient)

    weights = jnp.zeros((features.shape[1], num_classes), features.dtype)
    start = weights, solver.init(weights), jnp.int32(0), jnp.ones((), features.dtype)
    precise = 10 * jnp.finfo(features.dtype).eps
    weights, *_ = jax.lax.while_loop(lambda carry: (carry[2] < ITERATIONS) & (carry[3] > precise), step, start)
    return weights, residual(weights, jax.grad(objective)(weights))


def refitted(*, num_classes: int, l2: float, classifier: Learner) -> Learner:
    """`classifier` with its last layer trained anew, to a stationary point and without bias, on the features below it.

    `progress` has the `residual` of `refit` besides.

    Args:
        num_classes: two or more.
        l2: weight of the last layer's squared weights beside the mean loss, above 0.
        classifier: what learns the features.

    Raises:
        BadInput: l2 is not above 0.
    """
    if not l2 > 0:
        raise BadInput(f"refitted has l2 {l2}; expected above 0: without it no stationary point need exist.")

    def fit(key, dropout, inputs, labels, rows, count, watched):
        params, progress = classifier.fit(key, dropout, inputs, labels, rows, count, watched)
        filled = jnp.where(rows < labels.shape[0], rows, rows[0])
        features, _ = classifier.predict(params, inputs[filled])
        known = jnp.where(jnp.arange(rows.shape[0]) < count, labels[filled], UNLABELLED)
        weights, residual = refit(features, known, num_classes, l2)
        return (params, weights), progress | {"residual": residual}

    def predict(params, inputs):
        return _refitted(params[1], classifier.predict(params[0], inputs)[0])

    def draw(params, key, dropout, inputs):
        return _refitted(params[1], classifier.draw(params[0], key, dropout, inputs)[0])

    return classifier._replace(fit=fit, predict=predict, draw=classifier.draw and draw, l2=l2)


def _refitted(weights, features):
    return features, jax.nn.softmax(features @ weights)
