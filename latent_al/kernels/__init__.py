"""Kernels: arrays and static sizes in, arrays out, for use inside your own `jit` and `vmap`.

They import only jax and jaxtyping, and NumPy, which comes with them.
"""

from latent_al.kernels import (
    clustering,
    coverage,
    distances,
    fisher,
    gradient_embedding,
    information,
    k_center,
    purity,
    representativeness,
    representer,
    sampling,
    selection,
    tsne,
    typiclust,
    uncertainty,
)
from latent_al.kernels.clustering import KMeans, kmeans, kmeans_plus_plus, lloyd
from latent_al.kernels.coverage import (
    Coverage,
    facility_location,
    max_herding,
    prob_cover,
    stochastic_facility_location,
)
from latent_al.kernels.distances import Nearest, jeffreys_divergences, kl_divergences, nearest, squared_distances
from latent_al.kernels.fisher import bait
from latent_al.kernels.gradient_embedding import badge
from latent_al.kernels.information import batch_bald, epig
from latent_al.kernels.k_center import Cover, cover, farthest_first
from latent_al.kernels.purity import purity_radius
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
from latent_al.kernels.representer import Explanation, explain, ibal, importance, representer_alphas, representer_values
from latent_al.kernels.sampling import Matches, draw_and_match, largest_remainder
from latent_al.kernels.selection import (
    cluster_margin,
    greedy_diverse,
    nearest_to,
    power_top_k,
    random_partitions,
    softmax_top_k,
    subsample,
    top_k,
)
from latent_al.kernels.tsne import conditional_probabilities, joint_probabilities, student_t, tsne_divergence
from latent_al.kernels.typiclust import most_typical, typicality
from latent_al.kernels.uncertainty import entropy, least_confident, margin, mutual_information

__all__ = [
    "Cover",
    "Coverage",
    "Explanation",
    "KMeans",
    "Matches",
    "Nearest",
    "badge",
    "bait",
    "batch_bald",
    "closeness_to_origin",
    "cluster_margin",
    "clustering",
    "conditional_probabilities",
    "cosine_density",
    "cover",
    "coverage",
    "distances",
    "draw_and_match",
    "entropy",
    "epig",
    "euclidean_density",
    "euclidean_density_estimate",
    "explain",
    "facility_location",
    "farthest_first",
    "fisher",
    "gradient_embedding",
    "greedy_diverse",
    "ibal",
    "importance",
    "information",
    "jeffreys_density",
    "jeffreys_divergences",
    "joint_probabilities",
    "k_center",
    "kl_divergences",
    "kl_to_prior",
    "kmeans",
    "kmeans_plus_plus",
    "largest_remainder",
    "least_confident",
    "lloyd",
    "margin",
    "max_herding",
    "most_typical",
    "mutual_information",
    "nearest",
    "nearest_to",
    "power_top_k",
    "prob_cover",
    "purity",
    "purity_radius",
    "random_partitions",
    "representativeness",
    "representer",
    "representer_alphas",
    "representer_values",
    "sampling",
    "selection",
    "softmax_top_k",
    "squared_closeness_to_origin",
    "squared_distances",
    "squared_euclidean_density",
    "stochastic_facility_location",
    "student_t",
    "subsample",
    "top_k",
    "tsne",
    "tsne_divergence",
    "typicality",
    "typiclust",
    "uncertainty",
]
