"""Selects the images to ask about next, from the latents and the labels of the pool."""

import hashlib
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from latent_al import loop
from latent_al.kernels import margin, nearest
from latent_al.strategies.needs import check_needs, check_prepared, count_nan, latent_stats
from latent_al.types import UNLABELLED, Encoded, Key, Learner, Pool, Problem, Strategy


class Masks(NamedTuple):
    """The state of each row of the pool; True means the thing named.

    classes: [n], the class of the label that people agreed on, UNLABELLED without one.
    audit: set aside to measure accuracy.
    open: asked, not answered yet, and still in the folder.
    skipped: asked, skipped by people, and still in the folder.
    closed: nothing to be asked about: not in the folder any more, or a near-duplicate that is not asked.
    tied: to be asked again, since annotators disagree.
    """

    classes: np.ndarray
    audit: np.ndarray
    open: np.ndarray
    skipped: np.ndarray
    closed: np.ndarray
    tied: np.ndarray

    @property
    def labelled(self) -> np.ndarray:
        """Rows to train on."""
        return (self.classes != UNLABELLED) & ~self.audit

    @property
    def candidates(self) -> np.ndarray:
        """Rows to select from."""
        return self._unasked & ~self.audit

    @property
    def unanswered(self) -> np.ndarray:
        """Rows that were asked about and have no label: strategies treat them as taken, like labelled ones."""
        return (self.open | self.skipped | self.tied) & (self.classes == UNLABELLED) & ~self.audit

    @property
    def unasked_audit(self) -> np.ndarray:
        """Rows of the audit slice that are still to be asked."""
        return self._unasked & self.audit

    @property
    def _unasked(self):
        return (self.classes == UNLABELLED) & ~(self.open | self.skipped | self.closed | self.tied)


class Chosen(NamedTuple):
    """Rows in the order of their ranks, and the class probabilities [n c] of the whole pool, if there are labels."""

    rows: np.ndarray
    probs: np.ndarray | None


def uniform(identity: str, seed: int) -> float:
    """Returns a number in [0, 1) that an image keeps for good, whatever joins the pool or leaves it."""
    return int.from_bytes(hashlib.sha256(f"{seed} {identity}".encode()).digest()[:8]) / 2**64


def choose_first(key: Key, strategy: Strategy, encoded: Encoded, masks: Masks, num: int) -> np.ndarray:
    """Selects a batch without a classifier: `num` candidates, or all where there are fewer.

    Raises:
        ValueError: latents that the strategy cannot use.
    """
    eligible = _eligible(encoded, masks, num)
    if not eligible.num:
        return np.zeros(0, int)
    pool = Pool(
        latents=eligible.encoded.latents,
        log_sigma=eligible.encoded.log_sigma,
        features=None,
        probs=None,
        taken=jnp.asarray(~masks.candidates[eligible.rows]),
        labels=eligible.labels,
        rows=None,
        prepared=_prepare(strategy, eligible.encoded),
    )
    return eligible.rows[np.asarray(strategy.query(key, pool, eligible.num))]


def choose_next(key: Key, learner: Learner, strategy: Strategy, encoded: Encoded, masks: Masks, num: int) -> Chosen:
    """Trains on what is labelled, then selects `num` candidates, or all where there are fewer.

    Raises:
        ValueError: latents that the strategy cannot use.
    """
    key_fit, key_query = jax.random.split(key)
    eligible = _eligible(encoded, masks, num)
    rows = eligible.rows
    labelled, unanswered = np.flatnonzero(masks.labelled[rows]), np.flatnonzero(masks.unanswered[rows])
    queried = np.full(round_up(len(labelled) + eligible.num + len(unanswered)), len(rows), np.int32)
    queried[: len(labelled)] = labelled
    # Rows without an answer fill slots after those to come: taken, and not trained on.
    queried[len(queried) - len(unanswered) :] = unanswered
    prepared = _prepare(strategy, eligible.encoded)
    problem = Problem(eligible.encoded.latents, eligible.labels, eligible.encoded, prepared)
    state = loop.start(jnp.asarray(queried), len(labelled), problem, strategy=strategy)
    state, _ = jax.jit(partial(loop.fit, learner=learner))(key_fit, state, problem)
    _, probs = jax.jit(learner.predict)(state.params, jnp.asarray(encoded.latents))
    if not jnp.isfinite(probs).all():
        raise ValueError(
            "the classifier has diverged: its probabilities are NaN or infinite; lower its learning_rate in "
            "config.classifier, and run the same command again."
        )
    if not eligible.num:
        return Chosen(np.zeros(0, int), np.asarray(probs))
    query = partial(loop.query, learner=learner, strategy=strategy, query_size=eligible.num)
    _, selected = jax.jit(query)(key_query, state, problem)
    return Chosen(rows[np.asarray(selected)], np.asarray(probs))


def uncertainty(probs: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    """Returns how near the two most probable classes are, in [0, 1], 1 = equally probable; NaN without a classifier."""
    if probs is None or not len(rows):
        return np.full(len(rows), np.nan)
    return np.asarray(margin(jnp.asarray(probs[rows])))


def stands_for(latents: np.ndarray, present: np.ndarray, asked: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns to how many of the `present` images each of `rows` is the nearest of all that have been asked about."""
    if not len(rows):
        return np.zeros(0, int)
    sites = np.concatenate([rows, np.setdiff1d(np.flatnonzero(asked), rows)])
    is_site = np.arange(round_up(len(sites))) < len(sites)
    padded = np.resize(sites, len(is_site))
    _, row = jax.jit(nearest)(jnp.asarray(latents[present]), jnp.asarray(latents[padded]), jnp.asarray(is_site))
    return np.bincount(np.asarray(row), minlength=len(sites))[: len(rows)]


def round_up(size: int) -> int:
    """Returns the smallest power of two from `size` on, 256 or more, so that growing rounds share compiled programs."""
    return max(256, 1 << max(size - 1, 0).bit_length())


class _Eligible(NamedTuple):
    """The input of a selection: rows of the pool, their latents and labels, and how many of them to select."""

    rows: np.ndarray
    encoded: Encoded
    labels: Any
    num: int


def _eligible(encoded: Encoded, masks: Masks, num: int) -> _Eligible:
    rows = np.flatnonzero(masks.labelled | masks.candidates | masks.unanswered)
    labels = np.where(masks.labelled, masks.classes, UNLABELLED)[rows]
    part = Encoded(*(None if values is None else jnp.asarray(values[rows]) for values in encoded))
    return _Eligible(rows, part, jnp.asarray(labels, jnp.int32), min(num, int(masks.candidates.sum())))


def _prepare(strategy, encoded):
    """Returns what the strategy prepares, once the latents are what it needs."""
    check_needs(strategy, latent_stats(encoded))
    prepared = strategy.prepare(encoded)
    check_prepared(int(count_nan(prepared, len(encoded.latents))), len(encoded.latents))
    return prepared
