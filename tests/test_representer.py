"""Representer values beside double sums in float64, and the theorem itself on features that were learned."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from latent_al.data import load
from latent_al.kernels import explain, importance, representer_alphas, representer_values
from latent_al.models.classifiers import CLASSIFIERS
from latent_al.models.last_layer import TOLERANCE, refit
from latent_al.types import UNLABELLED, BadInput

L2 = 0.01


def make(size=12, width=5, num_classes=3):
    rng = np.random.default_rng(0)
    probs, features = rng.dirichlet(np.ones(num_classes), size), rng.normal(size=(size, width))
    return jnp.float32(probs), jnp.float32(features), jnp.array(rng.integers(num_classes, size=size))


class TestKernels:
    def test_alphas_and_values_equal_the_loop(self):
        probs, features, labels = make()
        labels = labels.at[jnp.array([3, 7])].set(UNLABELLED)
        found = representer_values(representer_alphas(probs, labels, l2=L2), features, features[5])
        expected = np.zeros((12, 3))
        for row in range(12):
            if labels[row] >= 0:
                alpha = (np.eye(3)[labels[row]] - np.float64(probs[row])) / (2 * L2 * 10)
                expected[row] = alpha * (np.float64(features[row]) @ features[5])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    def test_importance_equals_the_double_sum(self):
        probs, features, _ = make()
        labelled = np.array([0, 4, 9])
        expected = np.zeros(12)
        for row in range(12):
            for target in labelled:
                for p in np.float64(probs[row]):
                    expected[row] += p * (1 - p) / (2 * L2 * 3) * (np.float64(features[row]) @ features[target])
        for run in (importance, jax.jit(importance)):
            found = run(probs, features, labelled_sum=features[labelled].sum(axis=0), num_labelled=3, l2=L2)
            np.testing.assert_allclose(found, expected, rtol=1e-4)

    def test_explain_names_the_extremes_of_what_is_labelled(self):
        labels = jnp.array([0, 1, -1, 2, 0, -1])
        found = explain(jnp.array([0.5, -2.0, 9.0, 0.5, -0.1, -9.0]), labels, 2)
        assert found.supporting.tolist() == [0, 3]
        assert found.opposing.tolist() == [1, 4]
        np.testing.assert_allclose(found.opposing_values, [-2.0, -0.1])

    @pytest.mark.parametrize("l2", [0.0, -1.0, float("nan")])
    def test_l2_is_above_zero(self, l2):
        probs, features, labels = make()
        with pytest.raises(ValueError, match="l2 is .*; expected above 0"):
            representer_alphas(probs, labels, l2=l2)
        with pytest.raises(ValueError, match="l2 is .*; expected above 0"):
            importance(probs, features, labelled_sum=features[0], num_labelled=1, l2=l2)
        settings = dict(hidden=(3,), dropout=0.1, learning_rate=1e-3, epochs=1, batch_size=1, num_classes=3)
        with pytest.raises(BadInput, match="l2 .*; expected above 0"):
            CLASSIFIERS["refitted"](num_classes=3, l2=l2, classifier=CLASSIFIERS["mlp"](**settings))

    def test_widths_and_rows_that_do_not_fit(self, monkeypatch):
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        probs, features, labels = make()
        with pytest.raises(
            ValueError, match=r"features has shape \(12, 5\) and labelled_sum \(4,\); .* the same size f"
        ):
            importance(probs, features, labelled_sum=features[0, :4], num_labelled=1, l2=L2)
        with pytest.raises(ValueError, match=r"probs has shape \(11, \d\) and labels \(12,\); .* the same size n"):
            representer_alphas(probs[1:], labels, l2=L2)
        with pytest.raises(ValueError, match="3 examples asked for but only 2 are labelled"):
            explain(jnp.zeros(4), jnp.array([0, -1, -1, 1]), 3)


@pytest.fixture(scope="module")
def fitted():
    """Three seeds on 150 digits, 120 of them labelled."""
    data = load(dict(name="digits", num_validation=0, num_test=300))
    images = jnp.asarray(data.train.images.reshape(len(data.train.images), -1))
    settings = dict(hidden=(32,), dropout=0.1, learning_rate=1e-3, epochs=20, batch_size=20, num_classes=10)
    learner = CLASSIFIERS["refitted"](num_classes=10, l2=L2, classifier=CLASSIFIERS["mlp"](**settings))
    labels, rows = jnp.asarray(data.train.labels), jnp.arange(150).at[120:].set(len(images))

    def fit(key):
        return learner.fit(key, images, labels, rows, jnp.int32(120))

    params, progress = jax.jit(jax.vmap(fit))(jax.random.split(jax.random.key(0), 3))
    features, probs = jax.jit(jax.vmap(learner.predict, in_axes=(0, None)))(params, images)
    return params[1], progress["residual"], features, probs, labels


def test_values_add_up_to_the_logits(fitted):
    weights, residual, features, probs, labels = fitted
    assert (residual < TOLERANCE / 10).all()
    for seed in range(3):
        alpha, targets = representer_alphas(probs[seed, :120], labels[:120], l2=L2), features[seed, 200:260]
        added = jax.vmap(partial(representer_values, alpha, features[seed, :120]))(targets).sum(axis=1)
        logits = targets @ weights[seed]
        assert jnp.abs(logits).max() > 1
        np.testing.assert_allclose(added, logits, atol=1e-3)


def test_values_add_up_on_a_linear_layer_of_the_latents():
    """A perceptron without a hidden layer hands its inputs on, and so the values explain all of the classifier."""
    latents = jax.random.normal(jax.random.key(0), (60, 6))
    labels = latents[:, :3].argmax(axis=1)
    linear = dict(hidden=(), dropout=0.0, learning_rate=1e-3, epochs=1, batch_size=10, num_classes=3)
    learner = CLASSIFIERS["refitted"](num_classes=3, l2=0.1, classifier=CLASSIFIERS["mlp"](**linear))
    params, _ = learner.fit(jax.random.key(1), latents, labels, jnp.arange(40), jnp.int32(40))
    features, probs = learner.predict(params, latents)
    chex.assert_trees_all_equal(features, latents)
    alphas = representer_alphas(probs[:40], labels[:40], l2=0.1)
    added = jax.vmap(partial(representer_values, alphas, features[:40]))(features[40:]).sum(axis=1)
    chex.assert_trees_all_close(jax.nn.softmax(added), probs[40:], atol=1e-4)
    assert (probs.argmax(axis=1) == labels).mean() > 0.7


def test_a_refitted_classifier_still_classifies(fitted):
    *_, probs, labels = fitted
    assert ((probs.argmax(axis=2) == labels[None])[:, 150:].mean(axis=1) > 0.75).all()


def test_refit_takes_labelled_rows_only(fitted):
    weights, _, features, _, labels = fitted
    known = jnp.where(jnp.arange(150) < 120, labels[:150], UNLABELLED)
    chex.assert_trees_all_close(refit(features[0, :150], known, 10, L2)[0], weights[0], atol=1e-4)


def test_one_class_is_learned_too(fitted):
    _, _, features, _, labels = fitted
    weights, residual = refit(features[0, :150], jnp.where(labels[:150] == 3, 3, UNLABELLED), 10, L2)
    assert residual < TOLERANCE
    assert ((features[0, :150] @ weights).argmax(axis=1) == 3).all()
