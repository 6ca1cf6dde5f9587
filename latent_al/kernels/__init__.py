"""Arrays and static sizes in, arrays out: for use inside anyone's `jit` and `vmap`. Imports jax only."""

from latent_al.kernels import distances, picks, representativeness, uncertainty
from latent_al.kernels.distances import j_divergences, kl_divergences, squared_distances
from latent_al.kernels.picks import greedy_diverse, random_partitions, subsample, top_k
from latent_al.kernels.representativeness import (
    cosine_density,
    distance_to_origin,
    euclidean_density,
    euclidean_density_estimate,
    j_density,
    kl_to_prior,
    squared_distance_to_origin,
    squared_euclidean_density,
)
from latent_al.kernels.uncertainty import entropy, least_confident, margin

__all__ = [
    "cosine_density",
    "distance_to_origin",
    "distances",
    "entropy",
    "euclidean_density",
    "euclidean_density_estimate",
    "greedy_diverse",
    "j_density",
    "j_divergences",
    "kl_divergences",
    "kl_to_prior",
    "least_confident",
    "margin",
    "picks",
    "random_partitions",
    "representativeness",
    "squared_distance_to_origin",
    "squared_distances",
    "squared_euclidean_density",
    "subsample",
    "top_k",
    "uncertainty",
]
