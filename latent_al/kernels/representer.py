"""Representer values: what each labelled example contributes to a prediction.

A last layer without bias, trained to a stationary point of the mean cross-entropy plus l2 times its squared weights,
gives the logits sum_i alpha_i (f_i . f), where f are the features that it reads. For each of n labelled examples,
alpha_i = (e_i - p_i) / (2 l2 n), where e_i is its class as a unit vector and p_i its predicted probabilities. A bias is
one more feature, 1.

Source: Yeh, Kim, Yen and Ravikumar, Representer Point Selection for Explaining Deep Neural Networks (2018).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from latent_al.kernels._checks import NOT_NAN
from latent_al.kernels._conditions import LABELLED, LABELS, PROBABILITIES, check_num, positive
from latent_al.kernels._kernel import kernel
from latent_al.kernels.selection import top_k

L2 = positive("above 0: without it the last layer has no such decomposition.")


class Explanation(NamedTuple):
    """The labelled examples that speak most for, and most against, one class of one prediction.

    Attributes:
        supporting: int32, rows of the largest values, the largest first.
        supporting_values: what they add to the logit of the class.
        opposing: int32, rows of the smallest values, the smallest first.
        opposing_values: what they add to the logit of the class.
    """

    supporting: Int[Array, " num"]
    supporting_values: Float[Array, " num"]
    opposing: Int[Array, " num"]
    opposing_values: Float[Array, " num"]


@kernel(probs=PROBABILITIES, labels=LABELS, l2=L2)
def representer_alphas(
    probs: Float[Array, "n c"], labels: Int[Array, " n"], *, l2: Float[Array, ""] | float
) -> Float[Array, "n c"]:
    """Returns the weight of each labelled example in the logit of each class; zeros where there is no label.

    With n labelled examples, the weights lie in [-b, b], where b = 1 / (2 l2 n).

    Args:
        probs: class probabilities as the last layer predicts them; each row sums to 1.
        labels: in [0, c), or negative where there is none.
        l2: weight of the squared weights of the last layer, relative to the mean loss; above 0; may be traced.

    Raises:
        ValueError: l2 is not above 0, the shapes differ, a row does not hold probabilities, or a label is c or more.
    """
    is_labelled = (labels >= 0) & (labels < probs.shape[1])
    errors = jax.nn.one_hot(labels, probs.shape[1], dtype=probs.dtype) - probs
    return jnp.where(is_labelled[:, None], errors, 0) / (2 * l2 * jnp.maximum(is_labelled.sum(), 1))


@kernel()
def representer_values(
    alphas: Float[Array, "n c"], features: Float[Array, "n f"], target: Float[Array, " f"]
) -> Float[Array, "n c"]:
    """Returns the contribution of each labelled example to each logit of one target: they sum to the logits.

    Args:
        alphas: of the labelled examples, from `representer_alphas`.
        features: of the labelled examples.
        target: features of the prediction.

    Raises:
        ValueError: the shapes differ, or a number is NaN or infinite.
    """
    return alphas * jnp.matmul(features, target, precision="highest")[:, None]


@kernel(values=NOT_NAN, labels=LABELLED)
def explain(values: Float[Array, " n"], labels: Int[Array, " n"], num: int) -> Explanation:
    """Selects the labelled examples with the largest and with the smallest values; ties go to the lowest row.

    Inside a caller's `jit` NaN comes last in both kinds, and n stands for each missing row.

    Args:
        values: of one class of one prediction, from `representer_values`.
        labels: negative where there is none: such a row explains nothing.
        num: examples of each kind.

    Raises:
        ValueError: num is not in [1, labelled rows], the shapes differ, or a value is NaN.
    """
    check_num(num, len(values))
    supporting, opposing = (top_k(sign * values, labels < 0, num) for sign in (1, -1))
    return Explanation(
        supporting,
        values.at[supporting].get(mode="fill"),
        opposing,
        values.at[opposing].get(mode="fill"),
    )


@kernel(probs=PROBABILITIES, l2=L2, num_labelled=positive("a count above 0."))
def importance(
    probs: Float[Array, "n c"],
    features: Float[Array, "n f"],
    *,
    labelled_sum: Float[Array, " f"],
    num_labelled: Int[Array, ""] | int,
    l2: Float[Array, ""] | float,
) -> Float[Array, " n"]:
    """Returns the contribution that each row, if labelled, is expected to make to the logits of all labelled examples.

    IBAL(x_i) = sum_y p_iy alpha_iy|y (f_i . sum_t f_t), with alpha_iy|y = (1 - p_iy) / (2 l2 n): O(n (c + f)) time. It
    is a sum of logits, in (-inf, inf). The paper queries the rows with the smallest values: maximise `ibal`, not this.

    Source: Pezeshkpour, Zhao and Singh (2020), equation 2.

    Args:
        probs: class probabilities; each row sums to 1.
        features: below the last layer.
        labelled_sum: sum of the features of all labelled examples.
        num_labelled: the number of labelled examples, 1 or more.
        l2: as in `representer_alphas`.

    Raises:
        ValueError: l2 or the number of labelled examples is not above 0, the shapes differ, a row does not hold
            probabilities, or a number is NaN or infinite.
    """
    return _importance(probs, features, labelled_sum) / (2 * l2 * num_labelled)


@kernel(probs=PROBABILITIES)
def ibal(
    probs: Float[Array, "n c"], features: Float[Array, "n f"], *, labelled_sum: Float[Array, " f"]
) -> Float[Array, " n"]:
    """Returns the score that IBAL maximises: minus `importance`, without the factor 1 / (2 l2 n), which ranks no row.

    It lies in (-inf, inf). It is positive where features point away from those of the labelled examples, and larger the
    less sure the classifier is. Features of at least 0, such as those of a ReLU, never point away: the score is then at
    most 0, and largest for the rows that the classifier is surest about. Such a batch can be worse than a random one;
    use features of both signs, or combine the score with the distance to the labelled rows, as the paper does.

    Source: Pezeshkpour, Zhao and Singh (2020), equation 2.

    Args:
        probs: class probabilities; each row sums to 1.
        features: below the last layer.
        labelled_sum: sum of the features of all labelled examples.

    Raises:
        ValueError: the shapes differ, a row does not hold probabilities, or a number is NaN or infinite.
    """
    return -_importance(probs, features, labelled_sum)


def _importance(probs, features, labelled_sum):
    return (probs * (1 - probs)).sum(axis=1) * jnp.matmul(features, labelled_sum, precision="highest")
