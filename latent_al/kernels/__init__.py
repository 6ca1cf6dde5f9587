"""Arrays and static sizes in, arrays out: for use inside anyone's `jit` and `vmap`. Imports jax only."""

from latent_al.kernels import (
    cluster,
    distances,
    draws,
    farthest,
    picks,
    representativeness,
    representer,
    sampling,
    tsne,
    uncertainty,
)
from latent_al.kernels.badge import badge
from latent_al.kernels.cluster import KMeans, kmeans, kmeans_plus_plus, lloyd
from latent_al.kernels.distances import jeffreys_divergences, kl_divergences, nearest, squared_distances
from latent_al.kernels.farthest import Cover, cover, farthest_first
from latent_al.kernels.picks import greedy_diverse, nearest_to, random_partitions, subsample, top_k
from latent_al.kernels.representativeness import (
    closeness_to_origin,
    cosine_density,
    euclidean_density,
    euclidean_density_estimate,
    jeffreys_density,
    kl_to_prior,
    squared_closeness_to_origin,
    squared_euclidean_density,
)
from latent_al.kernels.representer import Explanation, alphas, explain, importance, values
from latent_al.kernels.sampling import draw_and_match, largest_remainder
from latent_al.kernels.tsne import conditional_probabilities, joint_probabilities, student_t, tsne_divergence
from latent_al.kernels.typicality import most_typical, typicality
from latent_al.kernels.uncertainty import entropy, least_confident, margin, mutual_information

__all__ = [
    "Cover",
    "Explanation",
    "KMeans",
    "alphas",
    "badge",
    "closeness_to_origin",
    "cluster",
    "conditional_probabilities",
    "cosine_density",
    "cover",
    "distances",
    "draw_and_match",
    "draws",
    "entropy",
    "euclidean_density",
    "euclidean_density_estimate",
    "explain",
    "farthest",
    "farthest_first",
    "greedy_diverse",
    "importance",
    "jeffreys_density",
    "jeffreys_divergences",
    "joint_probabilities",
    "kl_divergences",
    "kl_to_prior",
    "kmeans",
    "kmeans_plus_plus",
    "largest_remainder",
    "least_confident",
    "lloyd",
    "margin",
    "most_typical",
    "mutual_information",
    "nearest",
    "nearest_to",
    "picks",
    "random_partitions",
    "representativeness",
    "representer",
    "sampling",
    "squared_closeness_to_origin",
    "squared_distances",
    "squared_euclidean_density",
    "student_t",
    "subsample",
    "top_k",
    "tsne",
    "tsne_divergence",
    "typicality",
    "uncertainty",
    "values",
]
