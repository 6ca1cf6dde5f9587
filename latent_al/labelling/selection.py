"""What to ask next, and what is known of the pool: one round, from latents and labels."""

import hashlib
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from latent_al.kernels import margin, nearest
from latent_al.loop import fit_round, select_round
from latent_al.types import UNLABELLED, Encoded, Key, Learner, Pool, Strategy


class Known(NamedTuple):
    """The rows of the pool, by what has become of them; True means the thing named.

    classes: [n], the class of the label that people agreed on, UNLABELLED without one.
    audit: set aside to measure accuracy.
    open: asked, not answered yet, and still in the folder.
    closed: nothing to be asked about: skipped, or not in the folder any more.
    tied: to be asked again, since annotators disagree.
    """

    classes: np.ndarray
    audit: np.ndarray
    open: np.ndarray
    closed: np.ndarray
    tied: np.ndarray

    @property
    def labelled(self) -> np.ndarray:
        """To train on."""
        return (self.classes != UNLABELLED) & ~self.audit

    @property
    def candidates(self) -> np.ndarray:
        """To choose from."""
        return self._unasked & ~self.audit

    @property
    def unasked_audit(self) -> np.ndarray:
        """Of the audit slice, to be asked."""
        return self._unasked & self.audit

    @property
    def _unasked(self):
        return (self.classes == UNLABELLED) & ~(self.open | self.closed | self.tied)


class Chosen(NamedTuple):
    """Rows in the order of their ranks, and the class probabilities [n c] of the whole pool, if there are labels."""

    rows: np.ndarray
    probs: np.ndarray | None


def uniform(identity: str, seed: int) -> float:
    """A number in [0, 1) that an image keeps for good, whatever joins the pool or leaves it."""
    return int.from_bytes(hashlib.sha256(f"{seed} {identity}".encode()).digest()[:8]) / 2**64


def choose_first(key: Key, strategy: Strategy, encoded: Encoded, known: Known, num: int) -> np.ndarray:
    """A batch without a classifier: `num` candidates, or all where there are fewer."""
    rows, pool, num = _eligible(encoded, known, num)
    if not num:
        return np.zeros(0, int)
    taken = jnp.asarray(~known.candidates[rows])
    labels = jnp.asarray(np.where(known.labelled, known.classes, UNLABELLED)[rows], jnp.int32)
    prepared = strategy.prepare(pool)
    seen = Pool(pool.latents, pool.log_sigma, None, None, taken, labels, None, prepared)
    return rows[np.asarray(strategy.select(key, seen, num))]


def choose_next(key: Key, learner: Learner, strategy: Strategy, encoded: Encoded, known: Known, num: int) -> Chosen:
    """Trains on what is labelled, then chooses `num` candidates, or all where there are fewer."""
    key_fit, key_select = jax.random.split(key)
    rows, pool, num = _eligible(encoded, known, num)
    labels = jnp.asarray(np.where(known.labelled, known.classes, UNLABELLED)[rows], jnp.int32)
    trained, waiting = np.flatnonzero(known.labelled[rows]), np.flatnonzero(known.open[rows])
    count, dropout = len(trained), jnp.float32(learner.dropouts[0])
    # Rows that are asked but not answered fill slots behind those to come: taken, and not trained on.
    queried = np.concatenate([trained, np.full(num, len(rows)), waiting]).astype(np.int32)
    fit = jax.jit(partial(fit_round, learner=learner))
    params, labelled, _ = fit(
        key_fit, dropout, pool.latents, labels, jnp.asarray(queried), count, (pool.latents[:1], labels[:1])
    )
    probs = np.asarray(jax.jit(learner.predict)(params, jnp.asarray(encoded.latents))[1])
    if not num:
        return Chosen(np.zeros(0, int), probs)
    select = jax.jit(partial(select_round, learner=learner, strategy=strategy, num=num, fraction=1.0))
    state = (params, labelled, pool.latents, pool, strategy.prepare(pool), labels, jnp.asarray(queried), 0, count)
    after, _ = select(key_select, dropout, jnp.float32(strategy.gammas[0]), *state)
    return Chosen(rows[np.asarray(after[count : count + num])], probs)


def uncertainty(probs: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    """How near the two most probable classes are, in [0, 1], 1 = equally probable; NaN without a classifier."""
    return np.full(len(rows), np.nan) if probs is None else np.asarray(margin(jnp.asarray(probs[rows])))


def stands_for(latents: np.ndarray, present: np.ndarray, asked: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """For each of `rows`, to how many of the `present` images it is the nearest of all those asked so far."""
    sites = np.concatenate([rows, np.setdiff1d(np.flatnonzero(asked), rows)])
    if not len(sites):
        return np.zeros(0, int)
    _, row = jax.jit(nearest)(jnp.asarray(latents[present]), jnp.asarray(latents[sites]), jnp.ones(len(sites), bool))
    return np.bincount(np.asarray(row), minlength=len(sites))[: len(rows)]


def _eligible(encoded: Encoded, known: Known, num: int) -> tuple[np.ndarray, Encoded, Any]:
    """The rows that a selection sees, their latents, and how many of `num` there are to choose."""
    rows = np.flatnonzero(known.labelled | known.candidates | (known.open & ~known.audit))
    pool = Encoded(*(None if each is None else jnp.asarray(each[rows]) for each in encoded))
    return rows, pool, min(num, int(known.candidates.sum()))
