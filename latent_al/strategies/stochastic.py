"""Batches drawn at random by score: Kirsch, Farquhar, Atighehchian, Jesson, Branchaud-Charron and Gal, Stochastic Batch
Acquisition (2021).
"""

from collections.abc import Callable

from latent_al import kernels
from latent_al.strategies.uncertainty import MEASURES, measured
from latent_al.types import BadInput, Scalar, Strategy, check_name, is_traced


def power(*, measure: str, beta: Scalar) -> Strategy:
    """Draws rows without replacement in proportion to uncertainty ** beta, so that not all rows drawn are alike.

    A round takes O(n c) time and O(n) memory for n rows of c classes, whatever the batch. The source recommends it
    where sure rows should not be labelled: those with an uncertainty of 0 are drawn last.

    Args:
        measure: the uncertainty measure: `least_confident`, `margin` or `entropy`.
        beta: 0 or more; 1 in the source, 0 draws uniformly, and larger values keep closer to the least sure rows.

    Raises:
        BadInput: an unknown measure, beta outside its range, or a pool without predictions.
    """
    return _drawn(kernels.power_top_k, measure, beta)


def softmax(*, measure: str, beta: Scalar) -> Strategy:
    """Draws rows without replacement in proportion to exp(beta * uncertainty), so that not all rows drawn are alike.

    A round takes O(n c) time and O(n) memory for n rows of c classes, whatever the batch. Uncertainty is in [0, 1]:
    with a beta of 1 the least sure row is at most e times as likely as the surest.

    Args:
        measure: the uncertainty measure: `least_confident`, `margin` or `entropy`.
        beta: 0 or more; 1 in the source, 0 draws uniformly, and larger values keep closer to the least sure rows.

    Raises:
        BadInput: an unknown measure, beta outside its range, or a pool without predictions.
    """
    return _drawn(kernels.softmax_top_k, measure, beta)


def _drawn(draw: Callable, measure: str, beta: Scalar) -> Strategy:
    check_name(measure, MEASURES, "uncertainty measure")
    if not is_traced(beta) and not 0 <= beta < float("inf"):
        raise BadInput(f"beta is {beta}; expected 0 or more, and finite.")

    def query(key, pool, num):
        return draw(key, measured(measure, pool), pool.taken, num, beta=beta)

    return Strategy(query)
