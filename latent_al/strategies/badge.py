"""Batches of large and diverse gradients: Ash et al., Deep Batch Active Learning by Diverse, Uncertain Gradient Lower
Bounds (2020).
"""

from latent_al import kernels
from latent_al.strategies.uncertainty import features_of, probs_of
from latent_al.types import Strategy


def badge() -> Strategy:
    """Selects rows whose labels would move the classifier's last layer much, in different directions: `kernels.badge`.

    A round takes O(b n (c + f)) time and O(n) memory for a batch of b of n rows, c classes and f features.

    Raises:
        BadInput: a pool without predictions or features.
    """

    def query(key, pool, num):
        return kernels.badge(key, probs_of("badge", pool), features_of("badge", pool), pool.taken, num)

    return Strategy(query)
