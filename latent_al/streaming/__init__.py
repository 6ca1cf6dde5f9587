"""Latents larger than memory: kept on disk, or generated, and read block by block.

The functions select the same rows as those of `kernels`. Row numbers are int64, since there may be more rows than
int32 can number. That is the limit of the kernels, and of `random_partitions`, whose draws are made by a kernel.
"""

from latent_al.types import require

require(__name__, "experiments", "psutil", "tensorstore")

from latent_al.streaming.k_center import farthest_first
from latent_al.streaming.representativeness import (
    closeness_to_origin,
    cosine_density,
    jeffreys_density,
    kl_to_prior,
    squared_closeness_to_origin,
    squared_euclidean_density,
)
from latent_al.streaming.selection import random_partitions, top_k
from latent_al.streaming.store import Latents, open_latents, write_latents
from latent_al.streaming.stream import Block, Source, blocks

__all__ = [
    "Block",
    "Latents",
    "Source",
    "blocks",
    "closeness_to_origin",
    "cosine_density",
    "farthest_first",
    "jeffreys_density",
    "kl_to_prior",
    "open_latents",
    "random_partitions",
    "squared_closeness_to_origin",
    "squared_euclidean_density",
    "top_k",
    "write_latents",
]
