"""The three arms of Tonnaer (2017), Table 5.4, on latents: in latent_al, and as plain loops in PyTorch."""

import numpy as np
from loop import BATCH, uncertainty

from configs.mnist_vae import best
from latent_al.strategies import STRATEGIES
from latent_al.types import build

ARMS = best("svhn")
"""Specs of the arms on latents by name; those of MNIST are the same."""
ALPHA = ARMS["latents_greedy"]["strategy"]["alpha"]


def make_strategy(arm):
    spec = ARMS[arm]
    return build(STRATEGIES, spec["strategy"], "strategy")._replace(subsample=spec["subsample"])


def score_subsample(model, pool, queried, share):
    """Returns rows drawn from the pool, and their uncertainty, -inf where they are queried."""
    import torch

    rows = torch.randperm(len(pool), device=pool.device)[: int(share * len(pool)) // BATCH * BATCH]
    is_queried = torch.zeros(len(pool), dtype=torch.bool, device=pool.device).index_fill_(0, queried, True)
    return rows, uncertainty(model, pool[rows]).masked_fill(is_queried[rows], -np.inf)


def pick_random(model, pool, queried):
    import torch

    score = torch.rand(len(pool), device=pool.device).index_fill_(0, queried, -1.0)
    return score.topk(BATCH).indices


def pick_margin(model, pool, queried):
    """Returns the least sure row of each of `BATCH` random partitions."""
    rows, score = score_subsample(model, pool, queried, ARMS["latents_margin"]["subsample"])
    best_places = score.reshape(BATCH, -1).argmax(1, keepdim=True)
    return rows.reshape(BATCH, -1).gather(1, best_places)[:, 0]


def pick_greedy(model, pool, queried):
    """Returns row by row the largest weighted sum of uncertainty and distance to the rows before it."""
    import torch

    rows, score = score_subsample(model, pool, queried, ARMS["latents_greedy"]["subsample"])
    latents = pool[rows]
    scale = 2 * pool.norm(dim=1).max()
    places, nearest = [], torch.zeros(len(rows), device=pool.device)
    for count in range(BATCH):
        place = (ALPHA * score + (1 - ALPHA) * nearest / scale).argmax()
        places.append(place)
        distances = (latents - latents[place]).norm(dim=1)
        nearest = torch.minimum(nearest, distances) if count else distances
        score = score.index_fill(0, place, -np.inf)
    return rows[torch.stack(places)]


TORCH_PICKS = dict(latents_random=pick_random, latents_margin=pick_margin, latents_greedy=pick_greedy)
