"""Disagreement of a classifier with itself, by MC dropout: Gal, Islam and Ghahramani (2017)."""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from latent_al import kernels
from latent_al.kernels._loops import scan
from latent_al.strategies.uncertainty import PICKS
from latent_al.types import BadInput, Key, Pool, Strategy, check_name


def bald(*, num_draws: int, pick: str) -> Strategy:
    """Selects rows with the largest mutual information between class and model, by MC dropout.

    A round takes num_draws predictions and O(n c) memory for n rows of c classes.

    Args:
        num_draws: MC-dropout predictions, 2 or more.
        pick: `top_k`, or `random_partitions` for a batch with less redundancy.

    Raises:
        BadInput: an unknown pick, too few predictions, a pool without a classifier that has dropout.
    """
    check_name(pick, PICKS, "pick")
    _check_draws("bald", num_draws)

    def query(key, pool, num):
        key_dropout, key_pick = jax.random.split(key)
        score = kernels.mutual_information(key_dropout, _mc_dropout("bald", pool), num_draws=num_draws)
        return PICKS[pick](key_pick, score, pool.taken, num)

    return Strategy(query)


def query_by_committee(*, num_draws: int, pick: str) -> Strategy:
    """Selects rows about whose class a committee disagrees most, by the entropy of its votes.

    The committee consists of MC-dropout predictions, so that one network is trained instead of `num_draws`. In a small
    committee many rows tie. A round takes num_draws predictions and O(n c) memory for n rows of c classes.

    Args:
        num_draws: members of the committee, 2 or more.
        pick: `top_k`, or `random_partitions` for a batch with less redundancy.

    Raises:
        BadInput: an unknown pick, too few predictions, a pool without a classifier that has dropout.

    Source: Seung, Opper and Sompolinsky (1992); the entropy of votes: Argamon-Engelson and Dagan (1999).
    """
    check_name(pick, PICKS, "pick")
    _check_draws("query_by_committee", num_draws)

    def query(key, pool, num):
        key_dropout, key_pick = jax.random.split(key)
        predict = _mc_dropout("query_by_committee", pool)

        def add(votes, key):
            is_voted = predict(key).argmax(axis=1)[:, None] == jnp.arange(votes.shape[1])[None, :]
            return votes + is_voted.astype(votes.dtype), None

        votes, _ = scan(add, jnp.zeros_like(pool.probs), jax.random.split(key_dropout, num_draws))
        return PICKS[pick](key_pick, kernels.entropy(votes / num_draws), pool.taken, num)

    return Strategy(query)


def batch_bald(*, num_draws: int, num_samples: int) -> Strategy:
    """Selects, row by row, for the largest mutual information between the batch's classes and the model, by MC dropout.

    Unlike `bald` it does not query rows that are redundant. Source: Kirsch, van Amersfoort and Gal, BatchBALD (2019).

    A batch of b of n rows of c classes takes O(b n c num_draws^2) time, and for each row measured O(c num_draws
    num_samples), often for one row in a hundred. Memory for two copies of the num_draws predictions, each n c numbers;
    the arm's `subsample` lowers both. No batch has more information than log(num_draws), so a batch of many rows needs
    many predictions.

    Args:
        num_draws: MC-dropout predictions, 2 or more.
        num_samples: joint classes of the batch to sample, 1 or more; the result is exact while there are no more than
            that, c^(b - 1) for a batch of b.

    Raises:
        BadInput: too few predictions or samples, a pool without a classifier that has dropout.
    """
    _check_draws("batch_bald", num_draws)
    if num_samples < 1:
        raise BadInput(f"batch_bald has num_samples {num_samples}; expected 1 or more.")

    def query(key, pool, num):
        key_dropout, key_samples = jax.random.split(key)
        probs = _predictions("batch_bald", key_dropout, pool, num_draws)
        return kernels.batch_bald(key_samples, probs, pool.taken, num, num_samples=num_samples)

    return Strategy(query)


def epig(*, num_draws: int, num_targets: int) -> Strategy:
    """Selects rows whose class tells most about the classes of random rows of the pool, by MC dropout.

    Unlike `bald` it leaves out rows that are informative about the model but not about the rest of the pool, such as
    outliers. Redundant rows may be queried together. Source: Bickford Smith, Kirsch, Farquhar, Gal, Foster and
    Rainforth, Prediction-Oriented Bayesian Active Learning (2023).

    A round of n rows of c classes takes O(n num_targets c^2 num_draws) time, and memory for two copies of the num_draws
    predictions, each n c numbers.

    Args:
        num_draws: MC-dropout predictions, 2 or more.
        num_targets: rows of the pool to be predicted, 1 or more; redrawn each round, first from those that may be
            queried; all rows where the pool has fewer.

    Raises:
        BadInput: too few predictions or targets, a pool without a classifier that has dropout.
    """
    _check_draws("epig", num_draws)
    if num_targets < 1:
        raise BadInput(f"epig has num_targets {num_targets}; expected 1 or more.")

    def query(key, pool, num):
        key_dropout, key_targets = jax.random.split(key)
        probs = _predictions("epig", key_dropout, pool, num_draws)
        ranks = jax.random.uniform(key_targets, pool.taken.shape) - jnp.where(pool.taken, 1.0, 0.0)
        targets = kernels.top_k(ranks, jnp.zeros_like(pool.taken), min(num_targets, len(ranks)))
        return kernels.top_k(kernels.epig(probs, probs[:, targets]), pool.taken, num)

    return Strategy(query)


def _check_draws(name: str, num_draws: int) -> None:
    if num_draws < 2:
        raise BadInput(f"{name} has num_draws {num_draws}; expected 2 or more.")


def _predictions(name: str, key: Key, pool: Pool, num_draws: int) -> Float[Array, "num_draws n c"]:
    return jax.lax.map(_mc_dropout(name, pool), jax.random.split(key, num_draws))


def _mc_dropout(name: str, pool: Pool) -> Partial:
    """Returns the MC-dropout predictions of the pool, by key, which the strategy `name` needs.

    Raises:
        BadInput: there are none.
    """
    if pool.mc_dropout is None or pool.probs is None:
        raise BadInput(
            f"{name} needs the MC-dropout predictions of a classifier: give the classifier a dropout above 0, an mlp a "
            "hidden layer, a cnn two levels of filters, and config.initial a strategy that reads latents only, such as "
            "random."
        )
    return pool.mc_dropout
