"""Decoded queries, and the classifier of images, trained on all labels, that judges them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.tree_util import Partial

from latent_al.models.classifiers import mlp
from latent_al.types import Data

DRAWN = 10
"""Queries of a batch that are drawn."""


def train_judge(data: Data, decode: Callable, *, epochs: int) -> Partial:
    """Returns latents [m d] -> class probabilities [m c] of their decoded images.

    The judge is the perceptron of Tonnaer (2017), section 4.2.2, on pixels: two layers of 512, dropout 0.2.

    Args:
        data: the judge is trained on all of its training images, with their labels.
        decode: latents to images.
        epochs: passes over the training images.
    """
    settings = dict(hidden=(512, 512), dropout=0.2, learning_rate=1e-3, batch_size=100)
    learner = mlp(num_classes=data.num_classes, epochs=epochs, **settings)
    images, size = np.asarray(data.train.images), len(data.train.images)
    fit = jax.jit(learner.fit)
    params, _ = fit(jax.random.key(0), images.reshape(size, -1), data.train.labels, jnp.arange(size), jnp.int32(size))

    def judge(decode, params, latents):
        _, probs = learner.predict(params, decode(latents).reshape(len(latents), -1))
        return probs

    return Partial(judge, decode, params)


def pick(queries: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Returns the first judged queries of the first, the middle and the last batch, with their `round`.

    Args:
        queries: of one arm and seed, with `round`, `rank` and `slot`.
        table: of the same, with `slot` and the verdicts.
    """
    both = queries[["round", "rank", "slot"]].merge(table, on="slot")
    rounds = np.unique(both["round"])
    wanted = rounds[[0, len(rounds) // 2, -1]]
    return both[both["round"].isin(wanted) & (both["rank"] < DRAWN)]


def shares(table: pd.DataFrame, *, threshold: float) -> pd.DataFrame:
    """Returns the queries that are valid, answered and agreed, in percent, one row per arm.

    A cell is the mean over seeds, with the sample standard deviation (ddof 1) where there are several. Seeds without an
    answer have no share that agrees; if all are without one, the cell is empty.

    Args:
        table: has `arm`, `seed`, `row`, `label`, `judged` and `confidence`.
        threshold: of the confidence of a valid query.
    """
    is_answered = table.row >= 0
    marks = pd.DataFrame(
        {
            "valid": table.confidence >= threshold,
            "answered": is_answered,
            "agreed, of the answered": (table.judged == table.label).where(is_answered),
        }
    )
    by_seed = 100 * marks.astype(float).groupby([table.arm, table.seed], sort=False).mean()
    by_arm = by_seed.groupby("arm", sort=False)
    return by_arm.agg(_with_spread).reset_index()


def _with_spread(values):
    values = values.dropna()
    if values.empty:
        return ""
    spread = f" ± {values.std():.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread}"
