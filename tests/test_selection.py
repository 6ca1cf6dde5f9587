"""Each strategy within the labelling job: beside what is open, closed, tied or set aside, it chooses what is left."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_strategies import SETTINGS

from latent_al.labelling import selection
from latent_al.strategies import STRATEGIES
from latent_al.types import UNLABELLED, Encoded, Learner, build

NUM_CLASSES = 3
SPECS = {name: dict(name=name, **many[0]) for name, many in SETTINGS.items()}
# A labelling job refuses it.
del SPECS["query_synthesis"]
# Clusters take seconds to compile, and are found alike in any pool.
SPECS |= {name: SPECS["uniform"] | dict(name=name) for name in ("multi_normal", "normal")}


def fit(key, inputs, labels, rows, count):
    """The mean of each class."""
    masks = jnp.where(jnp.arange(len(rows)) < count, labels[rows], NUM_CLASSES)
    means = jax.ops.segment_sum(inputs[rows], masks, NUM_CLASSES + 1)[:-1]
    means /= jax.ops.segment_sum(jnp.ones(len(rows)), masks, NUM_CLASSES + 1)[:-1, None]
    return means, {"loss": jnp.float32(0)}


def predict(means, inputs):
    sq_distance = ((inputs[:, None, :] - means[None, :, :]) ** 2).sum(axis=-1)
    return inputs, jax.nn.softmax(-sq_distance)


def mc_dropout(means, key, inputs):
    return predict(means + 0.1 * jax.random.normal(key, means.shape), inputs)


LEARNER = Learner(fit, predict, mc_dropout)
IN_CI = ("badge", "bald", "cluster_margin", "ibal_d", "informativeness", "typiclust", "uncertainty_herding", "uniform")
"""Strategies that together read all that a pool has."""


@pytest.fixture(scope="module")
def pool():
    """40 images, of which 14 can be chosen; the latents of what cannot be are far out, where every strategy looks."""
    names = np.repeat(
        ["labelled", "gone", "open", "skipped", "tied", "audit", "audited", "left"], [9, 3, 4, 2, 1, 4, 3, 14]
    )
    names = np.random.default_rng(0).permutation(names)
    is_known = np.isin(names, ["labelled", "gone", "audited"])
    classes = np.where(is_known, np.cumsum(is_known) % NUM_CLASSES, UNLABELLED)
    latents = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    latents[names != "left"] *= 3
    encoded = Encoded(latents, np.full_like(latents, -1), np.abs(latents).sum(axis=1))
    is_audit = np.isin(names, ["audit", "audited"])
    masks = selection.Masks(classes, is_audit, *(names == name for name in ("open", "skipped", "gone", "tied")))
    assert masks.labelled.sum() == 12
    return encoded, masks


def check(rows, masks, num):
    assert len(set(rows.tolist())) == len(rows) == num
    assert masks.candidates[rows].all()


@pytest.mark.parametrize(
    "name", [name if name in IN_CI else pytest.param(name, marks=pytest.mark.slow) for name in SPECS]
)
def test_a_later_round(name, pool):
    strategy = build(STRATEGIES, SPECS[name], "strategy")
    chosen = selection.choose_next(jax.random.key(0), LEARNER, strategy, *pool, 3)
    check(chosen.rows, pool[1], 3)
    means = [pool[0].latents[pool[1].labelled & (pool[1].classes == each)].mean(axis=0) for each in range(3)]
    np.testing.assert_allclose(chosen.probs, predict(np.stack(means), pool[0].latents)[1], rtol=1e-4)


@pytest.mark.parametrize("name", ["ae_error", "farthest_first", "random"])
def test_a_round_without_a_classifier(name, pool):
    strategy = build(STRATEGIES, SPECS[name], "strategy")
    check(selection.choose_first(jax.random.key(0), strategy, *pool, 3), pool[1], 3)


def shapes_compiled(caplog, run):
    caplog.clear()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run()
    return {message for message in caplog.messages if message.startswith("Compiling")}


def test_a_round_with_more_answers_compiles_no_other_programs(pool, caplog):
    """Of four images that wait for an answer in one round, two are labelled in the next and one is skipped."""
    encoded, masks = pool
    waiting = np.flatnonzero(masks.open)
    classes, is_open, is_skipped = masks.classes.copy(), masks.open.copy(), masks.skipped.copy()
    classes[waiting[:2]] = [0, 1]
    is_open[waiting[:3]] = False
    is_skipped[waiting[2]] = True
    later = masks._replace(classes=classes, open=is_open, skipped=is_skipped)
    strategy = build(STRATEGIES, SPECS["uncertainty"], "strategy")

    def play(masks):
        chosen = selection.choose_next(jax.random.key(0), LEARNER, strategy, encoded, masks, 3)
        asked = masks.labelled | masks.unanswered
        selection.stands_for(encoded.latents, ~masks.closed, asked, chosen.rows)

    first = shapes_compiled(caplog, lambda: play(masks))
    assert any("jit(fit)" in message for message in first)
    assert shapes_compiled(caplog, lambda: play(later)) <= first


@pytest.mark.parametrize("num", [14, 99])
def test_fewer_than_asked_for_are_all_chosen(num, pool):
    random = build(STRATEGIES, dict(name="random"), "strategy")
    check(selection.choose_first(jax.random.key(0), random, *pool, num), pool[1], 14)
    check(selection.choose_next(jax.random.key(0), LEARNER, random, *pool, num).rows, pool[1], 14)


def test_nothing_left_to_choose(pool):
    encoded, masks = pool
    random = build(STRATEGIES, dict(name="random"), "strategy")
    done = masks._replace(closed=np.ones(40, bool))
    assert not len(selection.choose_first(jax.random.key(0), random, encoded, done, 3))
    chosen = selection.choose_next(jax.random.key(0), LEARNER, random, encoded, done, 3)
    assert not len(chosen.rows)
    assert chosen.probs.shape == (40, NUM_CLASSES)


def test_stands_for():
    latents = np.array([[0.0], [1.0], [4.0], [5.0], [6.0]], np.float32)
    present, asked = np.array([True, True, True, True, False]), np.array([True, False, False, False, False])
    assert selection.stands_for(latents, present, asked, np.array([3])).tolist() == [2]
    assert selection.stands_for(latents, present, asked, np.array([], int)).tolist() == []
