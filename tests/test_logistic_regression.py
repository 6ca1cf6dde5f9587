"""Logistic regression beside scikit-learn's, in float64 and on the latents themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from latent_al.models.classifiers import CLASSIFIERS
from latent_al.models.logistic_regression import DECAYS, FOLDS, Linear, folds
from latent_al.types import UNLABELLED, BadInput

SIZE, CAPACITY, NARROW, WIDE = 120, 40, 6, 200
LEARNER = CLASSIFIERS["logistic_regression"](num_classes=3)


@pytest.fixture(scope="module")
def blobs():
    """A function of d that makes latents [n d] of three unequal, overlapping classes, far from the origin."""

    def make(width):
        rng = np.random.default_rng(0)
        labels = rng.choice(3, SIZE, p=[0.6, 0.3, 0.1])
        latents = rng.normal(size=(SIZE, width)) * np.geomspace(5, 0.5, width) + rng.normal(size=(3, width))[labels] * 3
        return jnp.float32(latents + 20), jnp.int32(labels)

    return make


@jax.jit
def play(key, latents, labels, rows, count):
    params, info = LEARNER.fit(key, latents, labels, rows, count)
    return *LEARNER.predict(params, latents), info


def fit(latents, labels, rows, count, key=0):
    return play(jax.random.key(key), latents, labels, rows, jnp.int32(count))


def design(latents, rows):
    """Returns the latents as they are learned from, with the constant feature."""
    latents = np.float64(latents)
    centred = latents - latents[rows].mean(axis=0)
    centred /= np.sqrt((centred[rows] ** 2).sum(axis=1).mean())
    return np.column_stack([centred, np.full(len(centred), 0.1)])


def expected(x, labels, rows, decay):
    """Returns scikit-learn's probabilities of all rows, 0 for classes that it has not seen."""
    model = LogisticRegression(C=1 / decay, fit_intercept=False, tol=1e-8, max_iter=10_000).fit(x[rows], labels[rows])
    probs = np.zeros((len(x), 3))
    probs[:, model.classes_] = model.predict_proba(x)
    return probs


@pytest.mark.parametrize("width", [NARROW, WIDE], ids=["more rows", "more dimensions"])
@pytest.mark.parametrize("count", [25, CAPACITY])
def test_probabilities_and_decay_equal_scikit_learns(blobs, width, count):
    """The weight decay of the best log-likelihood over the same folds, and the probabilities with it."""
    latents, labels = blobs(width)
    rows = jnp.arange(SIZE, SIZE - CAPACITY, -1) - 1
    features, probs, info = fit(latents, labels, rows, count, key=3)
    used, classes = np.asarray(rows)[:count], np.asarray(labels)
    x = design(latents, used)
    fold = np.asarray(folds(jax.random.key(3), jnp.where(jnp.arange(CAPACITY) < count, labels[rows], UNLABELLED)))
    losses = np.zeros(len(DECAYS))
    for index, decay in enumerate(DECAYS):
        for held_out in (fold[:count] == number for number in range(FOLDS)):
            predicted = expected(x, classes, used[~held_out], decay)[used[held_out]]
            losses[index] += log_loss(classes[used[held_out]], predicted, labels=range(3), normalize=False)
    best = DECAYS[losses.argmin()]
    np.testing.assert_allclose(info["weight_decay"], best, rtol=1e-6)
    wanted = expected(x, classes, used, best)
    np.testing.assert_allclose(probs, wanted, atol=1e-3)
    np.testing.assert_allclose(info["loss"], log_loss(classes[used], wanted[used], labels=range(3)), atol=1e-3)
    np.testing.assert_array_equal(features, latents)


def test_folds_hold_a_share_of_each_class():
    labels = jnp.array([2, 0, 0, 2, 1, 0, 2, 0, 0, 2, 2, UNLABELLED, 0, 0, 0, 0, UNLABELLED])
    for key in (0, 1):
        fold = np.asarray(folds(jax.random.key(key), labels))
        for label, most, least in ((0, 2, 1), (2, 1, 1), (1, 1, 0)):
            counts = np.bincount(fold[np.asarray(labels) == label], minlength=FOLDS)
            assert (counts.max(), counts.min()) == (most, least)
    assert (folds(jax.random.key(0), labels) != folds(jax.random.key(1), labels)).any()


@pytest.mark.parametrize("count, classes", [(1, (2,)), (2, (2, 2)), (3, (0, 2, 0))])
def test_few_labels(blobs, count, classes):
    """Fewer labels than folds, of one class or two: no class that was not seen is predicted, and nothing is NaN."""
    latents, labels = blobs(NARROW)
    labels = labels.at[jnp.arange(count)].set(jnp.array(classes))
    rows = jnp.full(CAPACITY, SIZE).at[jnp.arange(count)].set(jnp.arange(count))
    _, probs, info = fit(latents, labels, rows, count)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)
    assert np.isfinite([info["loss"], info["weight_decay"]]).all()
    assert set(probs[:count].argmax(axis=1).tolist()) == set(classes)


def test_equal_latents_are_no_obstacle():
    _, probs, _ = fit(jnp.ones((SIZE, NARROW)), jnp.arange(SIZE, dtype=jnp.int32) % 3, jnp.arange(CAPACITY), 9)
    np.testing.assert_allclose(probs, 1 / 3, rtol=1e-4)


def test_slots_beyond_the_count_are_not_read(blobs):
    latents, labels = blobs(WIDE)
    one = fit(latents, labels, jnp.arange(CAPACITY), 20)
    other = fit(latents, labels, jnp.arange(CAPACITY).at[20:].set(jnp.arange(SIZE)[-20:]), 20)
    np.testing.assert_array_equal(one[1], other[1])


def test_vmap_equals_singles(blobs):
    """Over seeds that differ in their rows, with one count for all; units of the latents do not matter."""
    latents, labels = blobs(WIDE)
    rows = jnp.stack([jnp.arange(CAPACITY), jnp.arange(SIZE)[-CAPACITY:]])
    keys = jax.random.split(jax.random.key(0), 2)
    batched = jax.vmap(play, in_axes=(0, None, None, 0, None))(keys, latents, labels, rows, jnp.int32(30))
    for seed in range(2):
        _, probs, info = play(keys[seed], 1000 * latents, labels, rows[seed], jnp.int32(30))
        np.testing.assert_allclose(batched[1][seed], probs, atol=1e-3)
        np.testing.assert_allclose(batched[2]["weight_decay"][seed], info["weight_decay"])


def test_mc_dropout_drops_dimensions_of_all_rows_alike():
    learner = CLASSIFIERS["logistic_regression"](num_classes=3, dropout=0.75)
    rng = np.random.default_rng(0)
    params = Linear(jnp.float32(rng.normal(size=(400, 3))), jnp.float32(rng.normal(size=3)))
    inputs = jnp.eye(400)
    _, probs = learner.mc_dropout(params, jax.random.key(0), inputs)
    dropped = np.abs(probs - jax.nn.softmax(params.bias)[None]).max(axis=1) < 1e-6
    kept = jax.nn.softmax(4 * params.kernel + params.bias[None], axis=1)
    np.testing.assert_allclose(probs[~dropped], kept[~dropped], atol=1e-6)
    assert 270 < dropped.sum() < 330
    _, together = learner.mc_dropout(params, jax.random.key(0), inputs.sum(axis=0, keepdims=True))
    expected = jax.nn.softmax(4 * params.kernel[~dropped].sum(axis=0) + params.bias)
    np.testing.assert_allclose(together[0], expected, atol=1e-4)
    assert (learner.mc_dropout(params, jax.random.key(1), inputs)[1] != probs).any()


def test_a_last_layer_trained_anew_sees_the_dimensions_dropped(blobs):
    latents, labels = blobs(NARROW)
    learner = CLASSIFIERS["logistic_regression"](num_classes=3, dropout=0.5)
    learner = CLASSIFIERS["refitted"](num_classes=3, l2=0.1, classifier=learner)
    params, _ = learner.fit(jax.random.key(0), latents, labels, jnp.arange(CAPACITY), CAPACITY)
    features, probs = learner.mc_dropout(params, jax.random.key(0), latents)
    is_kept = np.asarray(features != 0).all(axis=0)
    assert 0 < is_kept.sum() < NARROW
    np.testing.assert_allclose(features, np.where(is_kept, 2 * latents, 0))
    np.testing.assert_allclose(probs, jax.nn.softmax(features @ params[1]), atol=1e-6)


def test_dropout_outside_its_range_is_refused():
    with pytest.raises(BadInput, match="dropout is 1.0; expected a share of the latent dimensions in"):
        CLASSIFIERS["logistic_regression"](num_classes=3, dropout=1.0)
