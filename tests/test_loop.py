"""The rounds: what is queried, what a selector sees, and how often anything is compiled."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_al.loop import fit_round, initial_rows, score, select_round
from latent_al.models.classifiers import angle_mlp, mlp
from latent_al.runtime.mesh import over_seeds
from latent_al.strategies import STRATEGIES
from latent_al.types import UNLABELLED, Encoded, Strategy

SIZE, CAPACITY, NUM = 80, 50, 10
LEARNER = mlp(hidden=(8,), dropout=0.1, learning_rate=1e-2, epochs=5, batch_size=5, num_classes=3)
MARGIN = STRATEGIES["uncertainty"](measure="margin", pick="random_partitions")
DROPOUT, GAMMA = jnp.float32(0.1), jnp.float32(0)
NOTHING = (jnp.zeros((0, 4)), jnp.zeros(0, jnp.int32))


@pytest.fixture
def train():
    latents = jax.random.normal(jax.random.key(0), (SIZE, 4))
    return Encoded(latents, -jnp.ones_like(latents))


@pytest.fixture
def labels():
    return jnp.arange(SIZE) % 3


def play(key, train, labels, *, fraction=1.0, strategy=MARGIN, rounds=4):
    """All rounds of one seed, as a caller would scan over them in a `jit` of their own."""
    key_first, key_rounds = jax.random.split(key)
    queried = initial_rows(key_first, train, None, select=STRATEGIES["random"]().select, num=NUM, capacity=CAPACITY)

    def one(queried, index):
        key_fit, key_select = jax.random.split(jax.random.fold_in(key_rounds, index))
        count = NUM * (index + 1)
        params, labelled, metrics = fit_round(
            key_fit, DROPOUT, train.latents, labels, queried, count, NOTHING, learner=LEARNER
        )
        settings = dict(learner=LEARNER, strategy=strategy, num=NUM, fraction=fraction)
        known = (train.latents, train, None, labels, queried, NUM * index, count)
        queried, _ = select_round(key_select, DROPOUT, GAMMA, params, labelled, *known, **settings)
        return queried, metrics

    return jax.lax.scan(one, queried, jnp.arange(rounds))


@pytest.mark.parametrize("fraction", [1.0, 0.4])
def test_never_buys_twice(train, labels, fraction):
    keys = jax.random.split(jax.random.key(1), 3)
    queried, metrics = jax.jit(jax.vmap(partial(play, train=train, labels=labels, fraction=fraction)))(keys)
    for rows in np.asarray(queried):
        assert len(set(rows.tolist())) == CAPACITY
        assert rows.min() >= 0
        assert rows.max() < SIZE
    assert (queried[0] != queried[1]).any()
    assert np.isfinite(metrics["loss"]).all()


def test_vmap_equals_singles(train, labels):
    keys = jax.random.split(jax.random.key(1), 3)
    run = partial(play, train=train, labels=labels)
    batched, _ = jax.jit(jax.vmap(run))(keys)
    singles = jnp.stack([jax.jit(run)(key)[0] for key in keys])
    np.testing.assert_array_equal(batched, singles)


def test_one_trace_over_the_rounds_and_no_transfer(train, labels):
    traces = []

    def select(key, pool, num):
        traces.append(1)
        return MARGIN.select(key, pool, num)

    def follow(visits, train, queried, low, high):
        places = jnp.arange(CAPACITY)
        return visits.at[queried].add((places >= low) & (places < high), mode="drop")

    fit = over_seeds(partial(fit_round, learner=LEARNER), 0, None, None, None, 0, None, None)
    choose = partial(select_round, learner=LEARNER, strategy=Strategy(select, follow=follow), num=NUM, fraction=1.0)
    choose = over_seeds(choose, 0, None, None, 0, 0, None, None, 0, None, 0, None, None)
    keys = jax.random.split(jax.random.key(1), 2)
    queried = jnp.full((2, CAPACITY), SIZE).at[:, :NUM].set(jnp.arange(NUM))
    visits = jnp.zeros((2, SIZE), jnp.int32)
    counts = [jnp.int32(NUM * index) for index in range(5)]
    # Nothing passes between host and device, but for what is asked for before and after.
    with jax.transfer_guard("disallow"):
        for followed, count in itertools.pairwise(counts):
            params, labelled, _ = fit(keys, DROPOUT, train.latents, labels, queried, count, NOTHING)
            known = (train.latents, train, visits, labels, queried, followed, count)
            queried, visits = choose(keys, DROPOUT, GAMMA, params, labelled, *known)
    assert visits.sum(axis=1).tolist() == [4 * NUM] * 2
    assert visits.max() == 1
    assert len(traces) == 1
    assert fit._cache_size() == choose._cache_size() == 1


@pytest.mark.parametrize("fraction", [1.0, 0.4])
def test_a_selector_sees_queried_labels_only(train, labels, fraction):
    """Runs outside `jit`, where the pool can be looked at."""
    seen = []

    def look(key, pool, num):
        seen.append(pool)
        return MARGIN.select(key, pool, num)

    queried = jnp.full(CAPACITY, SIZE).at[:15].set(jnp.arange(30, 45))
    params, labelled, _ = fit_round(
        jax.random.key(0), DROPOUT, train.latents, labels, queried, jnp.int32(15), NOTHING, learner=LEARNER
    )
    known = (train.latents, train, None, labels, queried, jnp.int32(0), jnp.int32(15))
    args = (jax.random.key(1), DROPOUT, GAMMA, params, labelled, *known)
    after, _ = select_round(*args, learner=LEARNER, strategy=Strategy(look), num=5, fraction=fraction)
    pool = seen[0]
    np.testing.assert_array_equal(pool.latents, pool.of_pool(train.latents))
    is_labelled = pool.labels != UNLABELLED
    assert is_labelled.sum() == 15
    assert pool.taken[is_labelled].all()
    assert (~pool.taken).sum() == (SIZE - 15 if fraction == 1 else round(fraction * SIZE))
    probs = LEARNER.predict(params, train.latents)[1]
    for row in np.flatnonzero(is_labelled | ~pool.taken):
        source = int(np.flatnonzero((np.asarray(train.latents) == np.asarray(pool.latents[row])).all(axis=1))[0])
        assert (30 <= source < 45) == bool(is_labelled[row])
        assert not is_labelled[row] or pool.labels[row] == labels[source]
        np.testing.assert_allclose(pool.probs[row], probs[source], atol=1e-5)
    np.testing.assert_array_equal(after[:15], queried[:15])
    assert not set(after[15:20].tolist()) & set(range(30, 45))
    assert (after[20:] == SIZE).all()


def test_only_the_subsample_is_predicted(train, labels):
    rows_predicted = []

    def predict(params, inputs):
        rows_predicted.append(len(inputs))
        return LEARNER.predict(params, inputs)

    learner = LEARNER._replace(predict=predict)
    queried = jnp.full(CAPACITY, SIZE).at[:15].set(jnp.arange(15))
    params, labelled, _ = fit_round(
        jax.random.key(0), DROPOUT, train.latents, labels, queried, jnp.int32(15), NOTHING, learner=LEARNER
    )
    known = (train.latents, train, None, labels, queried, jnp.int32(0), jnp.int32(15))
    args = (jax.random.key(1), DROPOUT, GAMMA, params, labelled, *known)
    select_round(*args, learner=learner, strategy=MARGIN, num=5, fraction=0.1)
    assert rows_predicted == [8]


def test_subsample_of_a_nearly_empty_pool(train, labels):
    """Six rows are left where the subsample would hold 32: all six can be queried."""
    queried = jnp.full(80, SIZE).at[:74].set(jnp.arange(74))
    params, labelled, _ = fit_round(
        jax.random.key(0), DROPOUT, train.latents, labels, queried, jnp.int32(74), NOTHING, learner=LEARNER
    )
    known = (train.latents, train, None, labels, queried, jnp.int32(0), jnp.int32(74))
    args = (jax.random.key(1), DROPOUT, GAMMA, params, labelled, *known)
    after, _ = select_round(*args, learner=LEARNER, strategy=MARGIN, num=6, fraction=0.4)
    assert sorted(after.tolist()) == list(range(80))


def test_accuracies(train, labels):
    queried = jnp.full(CAPACITY, SIZE).at[:20].set(jnp.arange(20))
    params, labelled, metrics = fit_round(
        jax.random.key(0), DROPOUT, train.latents, labels, queried, jnp.int32(20), NOTHING, learner=LEARNER
    )
    predicted = LEARNER.predict(params, train.latents)[1].argmax(axis=1)
    assert metrics["score"] == np.mean(predicted[:20] == labels[:20])
    np.testing.assert_allclose(labelled[1][:20].argmax(axis=1), predicted[:20])
    expected = np.mean(predicted[40:] == labels[40:])
    found = score(params, train.latents[40:], labels[40:], learner=LEARNER)
    np.testing.assert_allclose(found["accuracy"], expected, atol=1e-6)


PREDICTED = jax.nn.one_hot(jnp.array([[0, 1, 2, 3, 3, 0, 1], [3, 3, 3, 3, 0, 0, 0]]), 4)
"""Of two members: the params of a learner whose predictions they are."""


@pytest.mark.parametrize("labels", [[0, 0, 0, 0, 0, 3, 1], [1] * 7, [0, 1, 2, 3, 3, 0, 1], [2]])
def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_occur(labels):
    learner = LEARNER._replace(predict=lambda params, inputs: (inputs, params[: len(inputs)]))
    expected = []
    for params in np.asarray(PREDICTED).argmax(axis=2):
        hits = {c: [p == c for p, true in zip(params, labels, strict=False) if true == c] for c in set(labels)}
        expected.append(np.mean([np.mean(each) for each in hits.values()]))
    args = (jnp.zeros((len(labels), 1)), jnp.array(labels))
    run = partial(score, learner=learner)
    singles = [run(params, *args)["balanced_accuracy"] for params in PREDICTED]
    np.testing.assert_allclose(singles, expected, atol=1e-6)
    np.testing.assert_allclose(over_seeds(run, 0, None, None)(PREDICTED, *args)["balanced_accuracy"], singles)


def test_angles_have_no_balanced_accuracy():
    learner = angle_mlp(hidden=(8,), dropout=0.1, learning_rate=1e-2, epochs=5, batch_size=5)
    learner = learner._replace(predict=lambda params, inputs: (inputs, params))
    found = score(jnp.array([350.0, 20.0]), jnp.zeros((2, 1)), jnp.array([10.0, 20.0]), learner=learner)
    assert found == {"angular_error": 10}
