"""Rows on which dropout changes the class: Gupte, Aklilu, Nirschl and Yeung-Levy, Revisiting Active Learning in the Era
of Vision Foundation Models (2024), DropQuery.
"""

import jax

from latent_al.kernels import clustering, selection
from latent_al.strategies.uncertainty import probs_of
from latent_al.types import BadInput, Strategy


def dropquery(*, num_draws: int, iterations: int) -> Strategy:
    """Selects the row nearest to each k-means centre of the rows whose class changes under dropout.

    The candidates are the rows for which more than half of the MC-dropout predictions have a different class from the
    prediction without dropout. If there are fewer of them than the batch needs, the rows with the most such predictions
    join them, with ties broken at random. K-means forms as many clusters of their latents as there are rows to select.

    The source has latents of length 1 and a linear classifier, and drops three quarters of the dimensions, redrawn for
    each row; `logistic_regression` with a dropout of 0.75 drops the same dimensions for all rows, and a perceptron
    drops hidden units.

    A round takes num_draws predictions and O(iterations b n d) time for a batch of b of n rows in d dimensions, however
    few candidates there are, and memory for another copy of the latents and of the predictions.

    Args:
        num_draws: MC-dropout predictions, 1 or more; 3 in the source.
        iterations: maximum number of k-means iterations.

    Raises:
        BadInput: a setting below 1, or a pool without a classifier that has dropout.
    """
    for name, value in dict(num_draws=num_draws, iterations=iterations).items():
        if value < 1:
            raise BadInput(f"dropquery has {name} {value}; expected 1 or more.")

    def query(key, pool, num):
        key_dropout, key_ties, key_kmeans = jax.random.split(key, 3)
        included = _candidates(key_dropout, key_ties, pool, num, num_draws)
        clusters = clustering.kmeans(key_kmeans, pool.latents, num, iterations=iterations, clustered=included)
        return selection.nearest_to(pool.latents, ~included, targets=clusters.centres)

    return Strategy(query, needs={"distinct": "dropquery"})


def _candidates(key_dropout, key_ties, pool, num, num_draws):
    """Marks the open rows on whose class most predictions with dropout disagree, `num` rows where there are as many."""
    classes = probs_of("dropquery", pool).argmax(axis=1)
    if pool.mc_dropout is None:
        raise BadInput(
            "dropquery needs MC-dropout predictions: give the classifier a dropout above 0, an mlp a hidden layer, and "
            "a cnn two levels of filters."
        )
    keys = jax.random.split(key_dropout, num_draws)
    dropped = jax.lax.map(lambda key: pool.mc_dropout(key).argmax(axis=1), keys)
    num_changed = (dropped != classes[None, :]).sum(axis=0)
    ranks = num_changed.astype(float) + jax.random.uniform(key_ties, pool.taken.shape)
    is_candidate = ~pool.taken & (2 * num_changed > num_draws)
    return is_candidate.at[selection.top_k(ranks, pool.taken, num)].set(True, mode="drop")
