"""Estimates of each class from an audit slice that holds larger shares of some strata of the pool than of the rest."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from latent_al.labelling import estimates

DRAWS = 4000
PRIOR = 1 / 3
"""Images of each kind that a stratum is taken to hold besides those seen, for the interval (Kerman, 2011)."""


class Sample(NamedTuple):
    """The labelled images of a stratum, a random sample of it.

    truth, predicted: their classes.
    size: images of the stratum, at least as many as are labelled.
    """

    truth: Int[np.ndarray, " m"]
    predicted: Int[np.ndarray, " m"]
    size: float


def by_class(strata: list[Sample], num_classes: int) -> dict:
    """Returns recall and precision of each class in the pool, and balanced accuracy, as `estimates.by_class` does.

    A mean weighs each image by the images of its stratum that it stands for. Its 95 % interval is that of draws from
    the Dirichlet posterior of each stratum, so that a stratum in which no image of a class was seen may still hold
    some. `confusion` counts the labelled images, whatever they stand for.

    Source: Horvitz and Thompson (1952) for the weights.
    """
    confusion = np.zeros((num_classes, num_classes), int)
    recall, precision = [], []
    for sample in strata:
        np.add.at(confusion, (sample.truth, sample.predicted), 1)
    for number in range(num_classes):
        are_of_class = [sample.truth == number for sample in strata]
        are_predicted = [sample.predicted == number for sample in strata]
        sizes = [sample.size for sample in strata]
        recall.append(share_among(are_of_class, are_predicted, sizes))
        precision.append(share_among(are_predicted, are_of_class, sizes))
    balanced = estimates.mean_share([share for share in recall if share])
    return dict(confusion=confusion.tolist(), recall=recall, precision=precision, balanced=balanced)


def share_among(
    inside: list[Bool[np.ndarray, "_"]], hits: list[Bool[np.ndarray, "_"]], sizes: list[float]
) -> dict | None:
    """Returns the share of hits among the images of the pool that are inside a set; None where none is seen inside.

    Args:
        inside: for each stratum, which of its labelled images are in the set.
        hits: which are hits.
        sizes: images of each stratum.
    """
    rng = np.random.default_rng(0)
    mean, drawn, num = np.zeros(2), np.zeros((DRAWS, 2)), 0
    for is_inside, is_hit, size in zip(inside, hits, sizes, strict=True):
        counts = np.array([(is_inside & is_hit).sum(), (is_inside & ~is_hit).sum(), (~is_inside).sum()])
        mean += counts[:2] * size / counts.sum()
        drawn += counts[:2] + (size - counts.sum()) * rng.dirichlet(counts + PRIOR, DRAWS)[:, :2]
        num += int(is_inside.sum())
    if not num:
        return None
    low, high = np.quantile(drawn[:, 0] / drawn.sum(axis=1), [0.025, 0.975])
    value = mean[0] / mean.sum()
    return dict(mean=float(value), low=float(min(low, value)), high=float(max(high, value)), num=num)
