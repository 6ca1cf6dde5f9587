"""The least sure rows of many clusters: Citovsky, DeSalvo, Gentile, Karydas, Rajagopalan, Rostamizadeh and Kumar, Batch
Active Learning at Scale (2021), Cluster-Margin.
"""

import math

from latent_al import kernels
from latent_al.strategies.clusterings import CLUSTERINGS
from latent_al.strategies.uncertainty import measured
from latent_al.types import BadInput, Spec, Strategy, build


def cluster_margin(*, clustering: Spec, candidates: float) -> Strategy:
    """Selects among the rows with the smallest margin, from one cluster after the other: `kernels.cluster_margin`.

    The latents are clustered once, before the first round. The source clusters the features of a first classifier, by
    average linkage up to a distance; here the clustering is one from the table, of latents that do not change.

    A round takes O(n c + m log m) time and O(n) memory for n rows of c classes and m candidates; the cost of the
    clustering, which comes on top, is described there.

    Args:
        clustering: a spec from the table.
        candidates: number of candidates as a multiple of the batch, 1 or more; 10 in the source.

    Raises:
        BadInput: an unknown clustering, candidates below 1, a pool without predictions.
    """
    if not 1 <= candidates < math.inf:
        raise BadInput(f"candidates is {candidates}; expected a multiple of the batch, 1 or more.")
    cluster = build(CLUSTERINGS, clustering, "clustering")

    def query(key, pool, num):
        return kernels.cluster_margin(
            key,
            measured("margin", pool),
            pool.taken,
            num,
            clusters=pool.gather(pool.prepared),
            num_clusters=clustering["num_clusters"],
            num_candidates=math.ceil(candidates * num),
        )

    return Strategy(query, lambda encoded: cluster(encoded.latents), needs={"distinct": "cluster_margin"})
