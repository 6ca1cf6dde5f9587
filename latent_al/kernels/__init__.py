"""Arrays and static sizes in, arrays out: for use inside anyone's `jit` and `vmap`. Imports jax only."""

from latent_al.kernels import picks, uncertainty
from latent_al.kernels.picks import random_partitions, subsample, top_k
from latent_al.kernels.uncertainty import entropy, least_confident, margin

__all__ = [
    "entropy",
    "least_confident",
    "margin",
    "picks",
    "random_partitions",
    "subsample",
    "top_k",
    "uncertainty",
]
