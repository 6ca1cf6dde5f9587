"""Representer values: what each labelled example contributes to a prediction.

A last layer without bias, trained to a stationary point of the mean cross-entropy plus l2 times its squared weights,
gives the logits sum_i alpha_i (f_i . f), with f the features below it and alpha_i = (e_i - p_i) / (2 l2 n) of each of n
labelled examples, e_i its class as a unit vector and p_i its predicted probabilities. A bias is one more feature, 1.

Source: Yeh, Kim, Yen and Ravikumar, Representer Point Selection for Explaining Deep Neural Networks (2018).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from latent_al.kernels._checks import check_lengths, check_positive, is_concrete


class Explanation(NamedTuple):
    """The labelled examples that say most for, and most against, one class of one prediction.

    Attributes:
        supporting: int32, rows of the largest values, from the largest on.
        supporting_values: what they add to the logit of the class.
        opposing: int32, rows of the smallest values, from the smallest on.
        opposing_values: what they add to the logit of the class.
    """

    supporting: Int[Array, " num"]
    supporting_values: Float[Array, " num"]
    opposing: Int[Array, " num"]
    opposing_values: Float[Array, " num"]


def representer_alphas(
    probs: Float[Array, "n c"], labels: Int[Array, " n"], *, l2: Float[Array, ""] | float
) -> Float[Array, "n c"]:
    """Returns the weight of each labelled example in the logit of each class; zeros where there is no label.

    Args:
        probs: class probabilities as the last layer predicts them; each row sums to 1.
        labels: in [0, c), or negative where there is none.
        l2: weight of the squared weights of the last layer, beside the mean loss; above 0; may be traced.

    Raises:
        ValueError: l2 is not above 0, or the shapes differ.
    """
    _check_l2(l2)
    check_lengths(probs=probs, labels=labels)
    is_labelled = labels >= 0
    errors = jax.nn.one_hot(labels, probs.shape[1], dtype=probs.dtype) - probs
    return jnp.where(is_labelled[:, None], errors, 0) / (2 * l2 * jnp.maximum(is_labelled.sum(), 1))


def representer_values(
    alphas: Float[Array, "n c"], features: Float[Array, "n f"], target: Float[Array, " f"]
) -> Float[Array, "n c"]:
    """Returns the part of each labelled example in each logit of one target; over examples they sum to the logits.

    Args:
        alphas: of the labelled examples, from `representer_alphas`.
        features: of the labelled examples.
        target: features of the prediction.

    Raises:
        ValueError: the shapes differ.
    """
    if alphas.shape[0] != features.shape[0] or features.shape[1:] != target.shape:
        raise ValueError(
            f"alphas have shape {alphas.shape}, features {features.shape} and target {target.shape}; expected [n c], "
            "[n f] and [f]."
        )
    return alphas * (features @ target)[:, None]


def explain(values: Float[Array, " n"], labels: Int[Array, " n"], num: int) -> Explanation:
    """Selects the labelled examples of the largest and of the smallest values; ties go to the lowest row.

    Args:
        values: of one class of one prediction, from `representer_values`.
        labels: negative where there is none: such a row explains nothing.
        num: examples of each kind.

    Raises:
        ValueError: num is not in [1, labelled rows], or the shapes differ.
    """
    if values.shape != labels.shape:
        raise ValueError(f"values have shape {values.shape} and labels {labels.shape}; expected one of each a row.")
    if not 1 <= num <= len(values):
        raise ValueError(f"num is {num}; expected at least 1 and at most the {len(values)} rows.")
    if is_concrete(labels) and num > (num_labelled := (jax.device_get(labels) >= 0).sum()):
        raise ValueError(f"{num} examples asked for but only {num_labelled} are labelled; ask for fewer.")
    supporting_values, supporting = jax.lax.top_k(jnp.where(labels >= 0, values, -jnp.inf), num)
    opposing_values, opposing = jax.lax.top_k(jnp.where(labels >= 0, -values, -jnp.inf), num)
    return Explanation(supporting, supporting_values, opposing, -opposing_values)


def importance(
    probs: Float[Array, "n c"],
    features: Float[Array, "n f"],
    *,
    labelled_sum: Float[Array, " f"],
    num_labelled: Int[Array, ""] | int,
    l2: Float[Array, ""] | float,
) -> Float[Array, " n"]:
    """Returns the part that each row, if labelled, is expected to have in the logits of all labelled examples.

    IBAL(x_i) = sum_y p_iy alpha_iy|y (f_i . sum_t f_t), with alpha_iy|y = (1 - p_iy) / (2 l2 n): O(n (c + f)) time. The
    rows of the smallest values are those whose label would disagree most with the labelled examples.

    Source: Pezeshkpour, Zhao and Singh (2020), equation 2.

    Args:
        probs: class probabilities; each row sums to 1.
        features: below the last layer.
        labelled_sum: sum of the features of all labelled examples.
        num_labelled: the number of labelled examples, 1 or more.
        l2: as in `representer_alphas`.

    Raises:
        ValueError: l2 is not above 0, or the shapes differ.
    """
    _check_l2(l2)
    check_lengths(probs=probs, features=features)
    if features.shape[1:] != labelled_sum.shape:
        raise ValueError(
            f"features have {features.shape[1]} columns and labelled_sum {labelled_sum.shape}; expected one width."
        )
    return (probs * (1 - probs)).sum(axis=1) / (2 * l2 * num_labelled) * (features @ labelled_sum)


def _check_l2(l2):
    check_positive("l2", l2, "above 0: without it the last layer has no such decomposition.")
