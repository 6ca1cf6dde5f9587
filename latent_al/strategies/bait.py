"""Batches with the information of the pool: Ash, Goel, Krishnamurthy and Kakade, Gone Fishing: Neural Active Learning
with Fisher Embeddings (2021).
"""

import jax.numpy as jnp

from latent_al import kernels
from latent_al.strategies.uncertainty import features_of, probs_of
from latent_al.types import UNLABELLED, BadInput, Scalar, Strategy, is_traced


def bait(*, l2: Scalar) -> Strategy:
    """Selects rows that reveal about the classifier's last layer what the whole pool would: `kernels.bait`.

    Memory and time grow with the square of features times classes, for each seed: 512 features and 10 classes take
    about 0.7 GiB on top of the features. For more of both use `badge`, which makes no such matrix.

    Args:
        l2: ridge added to the summed information of the labelled rows; 1 in the authors' code, added to a mean.

    Raises:
        BadInput: l2 is not above 0, or a pool without predictions or features.
    """
    if not is_traced(l2) and not 0 < l2 < float("inf"):
        raise BadInput(f"l2 is {l2}; expected a ridge above 0, such as 1.")

    def query(key, pool, num):
        del key
        probs, features, labelled = probs_of("bait", pool), features_of("bait", pool), pool.labels != UNLABELLED
        # Slots without a row repeat one, which would then count too much in the information of the pool.
        features = jnp.where((labelled | ~pool.taken)[:, None], features, 0)
        return kernels.bait(features, pool.taken, num, probs=probs, l2=l2, labelled=labelled)

    return Strategy(query)
