"""Last layers trained to a stationary point, and the classifier that has one, as representer values require."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from latent_al.kernels._checks import as_real
from latent_al.models.train import labelled_slots
from latent_al.types import BadInput, Learner, Scalar, is_traced

ITERATIONS = 100
PRECISE = 3e-5
"""Relative residual at which the training of the last layer ends."""
CURVATURE = 0.1
"""The curvature of the cross-entropy in a logit, p (1 - p), that is taken as typical."""
TOLERANCE = 1e-3
"""Relative residual above which a last layer has not converged."""


@partial(jax.jit, static_argnums=2)
def refit(
    features: Float[Array, "n f"], labels: Int[Array, " n"], num_classes: int, l2: Scalar
) -> tuple[Float[Array, "f c"], Float[Array, ""]]:
    """Returns the weights of the last layer, without bias, that minimise the regularised cross-entropy.

    The objective is the mean over labelled rows plus l2 times the sum of squared weights: a convex problem, solved by
    L-BFGS.

    Args:
        features: [n f].
        labels: in [0, num_classes), or negative where there is none.
        num_classes: c.
        l2: above 0.

    Returns:
        The weights, and the residual in [0, 1]: the norm of the gradient over that of its two parts together.
    """
    features, is_labelled = as_real(features), labels >= 0
    used = jnp.where(is_labelled[:, None], features, 0)
    curvatures, basis = jnp.linalg.eigh(
        jnp.matmul(used.T, used, precision="highest") / jnp.maximum(is_labelled.sum(), 1)
    )
    weights = jnp.zeros((features.shape[1], num_classes), features.dtype)
    weights, residual = minimise(used @ basis, labels, jnp.maximum(curvatures, 0), l2, weights)
    return basis @ weights, residual


def minimise(
    features: Float[Array, "n f"],
    labels: Int[Array, " n"],
    curvatures: Float[Array, " f"],
    l2: Scalar,
    weights: Float[Array, "f c"],
    precise: float = PRECISE,
) -> tuple[Float[Array, "f c"], Float[Array, ""]]:
    """Returns the weights that minimise the objective of `refit`, and the residual.

    Args:
        features: along the principal axes of the labelled rows; 0 in the rows without a label.
        labels: as in `refit`.
        curvatures: the approximate mean squares of the features over labelled rows.
        l2: as in `refit`.
        weights: to start from.
        precise: the residual at which to end.
    """
    is_labelled = labels >= 0
    count = jnp.maximum(is_labelled.sum(), 1)
    # In coordinates where the problem is about equally curved in all directions, a quarter of the steps suffice.
    scale = jax.lax.rsqrt(CURVATURE * curvatures + 2 * l2)
    scaled = features * scale[None, :]

    def objective(z):
        losses = optax.softmax_cross_entropy_with_integer_labels(scaled @ z, jnp.maximum(labels, 0))
        return jnp.where(is_labelled, losses, 0).sum() / count + l2 * ((scale[:, None] * z) ** 2).sum()

    def residual(z, gradient):
        whole = gradient / scale[:, None]
        penalty = 2 * l2 * scale[:, None] * z
        parts = jnp.linalg.norm(whole - penalty) + jnp.linalg.norm(penalty)
        return jnp.linalg.norm(whole) / jnp.maximum(parts, jnp.finfo(parts.dtype).tiny)

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(objective)

    def step(carry):
        z, state, index, _ = carry
        value, gradient = value_and_grad(z, state=state)
        moves, state = solver.update(gradient, state, z, value=value, grad=gradient, value_fn=objective)
        return optax.apply_updates(z, moves), state, index + 1, residual(z, gradient)

    z = weights / scale[:, None]
    start = z, solver.init(z), jnp.int32(0), jnp.ones((), features.dtype)
    z, *_ = jax.lax.while_loop(lambda carry: (carry[2] < ITERATIONS) & (carry[3] > precise), step, start)
    return scale[:, None] * z, residual(z, jax.grad(objective)(z))


def refitted(*, num_classes: int, l2: Scalar, classifier: Learner) -> Learner:
    """Returns `classifier` with its last layer retrained, to a stationary point and without bias, on its features.

    `info` also has the `residual` of `refit`.

    Args:
        num_classes: two or more.
        l2: weight of the last layer's squared weights against the mean loss, above 0.
        classifier: what learns the features.

    Raises:
        BadInput: l2 is not above 0.
    """
    if not is_traced(l2) and not l2 > 0:
        raise BadInput(f"refitted has l2 {l2}; expected above 0: otherwise a stationary point need not exist.")

    def fit(key, inputs, labels, rows, count):
        params, info = classifier.fit(key, inputs, labels, rows, count)
        slots, labelled = labelled_slots(rows, labels, count)
        features, _ = classifier.predict(params, inputs[slots])
        weights, residual = refit(features, labelled, num_classes, l2)
        return (params, weights), info | {"residual": residual}

    def predict(params, inputs):
        return _refitted(params[1], classifier.predict(params[0], inputs)[0])

    def mc_dropout(params, key, inputs):
        return _refitted(params[1], classifier.mc_dropout(params[0], key, inputs)[0])

    return classifier._replace(fit=fit, predict=predict, mc_dropout=classifier.mc_dropout and mc_dropout)


def _refitted(weights, features):
    return features, jax.nn.softmax(features @ weights)
