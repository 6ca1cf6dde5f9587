"""Batches of large and diverse gradients: Ash et al., Deep Batch Active Learning by Diverse, Uncertain Gradient Lower
Bounds (2020).
"""

from latent_al import kernels
from latent_al.strategies.uncertainty import check_predicted
from latent_al.types import Strategy


def badge() -> Strategy:
    """Selects rows whose labels would move the classifier's last layer much, in different directions: `kernels.badge`.

    Raises:
        BadInput: a pool without predictions or features.
    """

    def query(key, pool, num):
        check_predicted("badge", pool, with_features=True)
        return kernels.badge(key, pool.probs, pool.features, pool.taken, num)

    return Strategy(query)
