"""Typical rows of clusters that hold no label yet: Hacohen, Dekel and Weinshall, Active Learning on a Budget: Opposite
Strategies Suit High and Low Budgets (2022), TPC_RP.
"""

import jax.numpy as jnp

from latent_al.kernels import clustering, most_typical
from latent_al.types import UNLABELLED, BadInput, Strategy


def typiclust(*, max_clusters: int, num_neighbours: int, iterations: int) -> Strategy:
    """Selects the most typical row of each cluster with the fewest labels, the largest first: `kernels.most_typical`.

    K-means forms as many clusters of the latents as there are labels and rows to select; those of fewer than five rows
    come last. A round costs as much as k = `max_clusters` clusters do, however few it uses: O(iterations k n d) time,
    O(n^2 d / k) for the neighbours in clusters of equal size, and O(n d) memory.

    Args:
        max_clusters: maximum number of clusters, 500 in the source.
        num_neighbours: neighbours whose mean distance says how typical a row is, 20 in the source; all other rows of
            the cluster where it has fewer.
        iterations: maximum number of k-means iterations.

    Raises:
        BadInput: a setting below 1.
    """
    settings = dict(max_clusters=max_clusters, num_neighbours=num_neighbours, iterations=iterations)
    for name, value in settings.items():
        if value < 1:
            raise BadInput(f"{name} is {value}; expected 1 or more.")

    def query(key, pool, num):
        most = min(max_clusters, len(pool.latents))
        in_use = jnp.arange(most) < (pool.labels != UNLABELLED).sum() + num
        # Empty slots repeat a row, which they would make typical.
        masks = dict(included=in_use, clustered=pool.holds_row)
        clusters = clustering.kmeans(key, pool.latents, most, iterations=iterations, **masks).clusters
        return most_typical(
            pool.latents,
            pool.taken,
            num,
            clusters=jnp.maximum(clusters, 0),
            included=pool.holds_row,
            num_clusters=most,
            num_neighbours=num_neighbours,
        )

    return Strategy(query, needs={"distinct": "typiclust"})
