"""Learners without training: nearest neighbours beside scikit-learn's, the Gaussian process beside dense algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from sklearn.neighbors import KNeighborsClassifier

from latent_al.models.classifiers import CLASSIFIERS
from latent_al.models.gaussian_process import LENGTH_SCALES, NOISES, largest
from latent_al.types import BadInput

SIZE, CAPACITY, COUNT, FEATURES = 120, 30, 25, 40
ROWS = np.concatenate([np.random.default_rng(1).permutation(SIZE)[:COUNT], np.full(CAPACITY - COUNT, SIZE)])
LEARNERS = {
    "nearest_neighbours": CLASSIFIERS["nearest_neighbours"](num_classes=3),
    "gaussian_process": CLASSIFIERS["gaussian_process"](num_classes=3, num_features=FEATURES),
}


@pytest.fixture(scope="module")
def blobs():
    """Latents [n 4] of three unequal, overlapping classes, far from the origin, and their labels."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, SIZE, p=[0.6, 0.3, 0.1])
    latents = rng.normal(size=(SIZE, 4)) + rng.normal(size=(3, 4))[labels] * 2
    return jnp.float32(latents + 20), jnp.int32(labels)


def play(name, key, latents, labels, rows=ROWS, count=COUNT):
    params, info = LEARNERS[name].fit(key, latents, labels, jnp.asarray(rows), count)
    return params, info, LEARNERS[name].predict(params, latents)[1]


compiled = jax.jit(play, static_argnums=0)


def test_votes_equal_scikit_learns(blobs):
    latents, labels = map(np.asarray, blobs)
    *_, probs = compiled("nearest_neighbours", jax.random.key(0), latents, labels)
    queried = ROWS[:COUNT]
    model = KNeighborsClassifier(5, algorithm="brute").fit(np.float64(latents[queried]), labels[queried])
    expected = np.zeros((SIZE, 3))
    expected[:, model.classes_] = model.predict_proba(np.float64(latents))
    np.testing.assert_allclose(probs, expected, atol=1e-6)


def test_all_vote_while_fewer_are_labelled(blobs):
    *_, probs = compiled("nearest_neighbours", jax.random.key(0), *blobs, ROWS, 3)
    shares = np.bincount(np.asarray(blobs[1])[ROWS[:3]], minlength=3) / 3
    np.testing.assert_allclose(probs, np.tile(shares, (SIZE, 1)), atol=1e-6)


def test_the_gaussian_process_equals_the_dense_one(blobs):
    latents, labels = blobs
    params, info, probs = compiled("gaussian_process", jax.random.key(0), latents, labels)
    latents, labels, queried = np.float64(latents), np.asarray(labels), ROWS[:COUNT]
    targets = np.eye(3)[labels[queried]] - 1 / 3
    pairs = ((latents[queried][:, None] - latents[queried][None]) ** 2).sum(axis=2)
    distance = np.sqrt(pairs.mean())
    directions = np.float64(params.frequencies) * float(info["length_scale"])

    def kernel(length_scale):
        waves = np.cos(latents @ (directions / length_scale) + np.float64(params.phases))
        return 2 / FEATURES * waves @ waves.T

    def misfit_and_evidence(length_scale, noise):
        covariance = kernel(length_scale)[np.ix_(queried, queried)] + noise * np.eye(COUNT)
        misfit = np.trace(targets.T @ np.linalg.solve(covariance, targets))
        variance = misfit / targets.size
        normal = scipy.stats.multivariate_normal(np.zeros(COUNT), variance * covariance)
        return variance, sum(normal.logpdf(column) for column in targets.T)

    choices = [(share * distance, noise) for share in LENGTH_SCALES for noise in NOISES]
    best = max(choices, key=lambda choice: misfit_and_evidence(*choice)[1])
    variance, _ = misfit_and_evidence(*best)
    assert (info["length_scale"], info["noise"]) == (
        pytest.approx(best[0], rel=1e-4),
        pytest.approx(best[1] * variance, rel=1e-3),
    )
    whole = kernel(best[0])
    gain = np.linalg.solve(whole[np.ix_(queried, queried)] + best[1] * np.eye(COUNT), whole[queried]).T
    means = gain @ targets
    deviations = np.sqrt(variance * (np.diagonal(whole) - (gain * whole[:, queried]).sum(axis=1) + best[1]))
    draws = means + deviations[:, None] * np.random.default_rng(0).normal(size=(20_000, 1, 3))
    shares = (draws.argmax(axis=2)[:, :, None] == np.arange(3)).mean(axis=0)
    np.testing.assert_allclose(probs, shares, atol=0.015)


def test_which_gaussian_is_the_largest():
    means, deviations = np.array([[0.0, 1.0, 1.2], [5.0, -5.0, 0.0], [2.0, 2.0, 2.0]]), np.array([0.5, 0.3, 1e-3])

    def probability(row, column):
        def density(value):
            below = scipy.stats.norm.cdf(value, np.delete(means[row], column), deviations[row]).prod()
            return scipy.stats.norm.pdf(value, means[row, column], deviations[row]) * below

        around = means[row, column] + 10 * deviations[row] * np.array([-1, 1])
        return scipy.integrate.quad(density, *around, limit=200)[0]

    expected = [[probability(row, column) for column in range(3)] for row in range(3)]
    np.testing.assert_allclose(largest(jnp.float32(means), jnp.float32(deviations)), expected, atol=1e-4)


@pytest.mark.parametrize("name", LEARNERS)
def test_vmap_equals_singles_with_a_count_that_is_traced(blobs, name):
    keys = jax.random.split(jax.random.key(0), 2)
    rows = jnp.stack([jnp.asarray(ROWS), jnp.roll(jnp.asarray(ROWS[:CAPACITY]), 1).at[0].set(ROWS[3])])
    batched = jax.jit(jax.vmap(lambda *args: play(name, *args), in_axes=(0, None, None, 0, None)))
    together = batched(keys, *blobs, rows, jnp.int32(20))[2]
    singles = [compiled(name, key, *blobs, some, jnp.int32(20))[2] for key, some in zip(keys, rows, strict=True)]
    np.testing.assert_allclose(together, jnp.stack(singles), atol=1e-3)


@pytest.mark.parametrize("name", ["gaussian_process", "label_spreading", "logistic_regression", "nearest_neighbours"])
def test_a_row_in_several_slots_counts_once(blobs, name):
    """As where synthesised queries are spent: else folds would hold out what they train on."""
    learner = LEARNERS.get(name) or CLASSIFIERS[name](num_classes=3)
    once, often = ROWS[np.arange(CAPACITY)], ROWS[np.arange(CAPACITY) % 9]
    fit = jax.jit(lambda rows, count: learner.fit(jax.random.key(0), *blobs, rows, count)[0])
    expected = learner.predict(fit(once, 9), blobs[0])[1]
    np.testing.assert_allclose(learner.predict(fit(often, COUNT), blobs[0])[1], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["gaussian_process", "label_spreading", "logistic_regression", "nearest_neighbours"])
@pytest.mark.parametrize("kind", ["float16", "float32 beside 64 bits"])
def test_latents_of_other_types_are_learned_from_in_float32(blobs, name, kind):
    learner = LEARNERS.get(name) or CLASSIFIERS[name](num_classes=3)
    latents, labels = 200 * blobs[0].astype(jnp.float16), blobs[1]

    @jax.jit
    def play(key, latents, labels):
        params, _ = learner.fit(key, latents, labels, jnp.int32(ROWS), jnp.int32(COUNT))
        return learner.predict(params, latents)[1]

    expected = play(jax.random.key(0), jnp.float32(latents), labels)
    with jax.enable_x64("64" in kind):
        latents = latents.astype(kind.split()[0])
        np.testing.assert_allclose(play(jax.random.key(0), latents, labels), expected, atol=2e-3)


@pytest.mark.parametrize("name", LEARNERS)
def test_one_labelled_row_and_equal_rows(blobs, name):
    latents, labels = blobs
    for points, count in ((latents, 1), (jnp.ones_like(latents), COUNT)):
        *_, probs = compiled(name, jax.random.key(0), points, labels, ROWS, count)
        np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)
        most = jnp.bincount(labels[ROWS[:count]], length=3).argmax()
        assert (probs[ROWS[:count]].argmax(axis=1) == most).all()


def test_what_cannot_be_is_refused(blobs):
    with pytest.raises(BadInput, match=r"num_neighbours is 0; expected one or more"):
        CLASSIFIERS["nearest_neighbours"](num_classes=3, num_neighbours=0)
    learner = CLASSIFIERS["nearest_neighbours"](num_classes=3, num_neighbours=31)
    with pytest.raises(BadInput, match=r"num_neighbours is 31, but at most 30 rows will be labelled"):
        learner.fit(jax.random.key(0), *blobs, jnp.asarray(ROWS), COUNT)
    with pytest.raises(BadInput, match=r"num_features is 0; expected one or more"):
        CLASSIFIERS["gaussian_process"](num_classes=3, num_features=0)
