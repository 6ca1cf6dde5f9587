"""The rounds: the rows queried, the pool that a strategy sees, and the number of compilations."""

from functools import partial

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from latent_al import loop
from latent_al.loop import fit, init, make_problem, query, score, step
from latent_al.models.classifiers import angle_mlp, mlp, nearest_neighbours
from latent_al.runtime.mesh import over_seeds
from latent_al.strategies import STRATEGIES
from latent_al.types import (
    INIT_AXES,
    ROUND_AXES,
    SCORE_AXES,
    STATE_AXES,
    UNLABELLED,
    Encoded,
    Learner,
    Problem,
    RoundState,
    Strategy,
)

SIZE, CAPACITY, NUM = 80, 50, 10
LEARNER = mlp(hidden=(8,), dropout=0.1, learning_rate=1e-2, epochs=5, batch_size=5, num_classes=3)
MARGIN = STRATEGIES["uncertainty"](measure="margin", pick="random_partitions")
RANDOM = STRATEGIES["random"]()
KEY = jax.random.key(0)


@pytest.fixture
def train():
    latents = jax.random.normal(jax.random.key(0), (SIZE, 4))
    return Encoded(latents, -jnp.ones_like(latents))


@pytest.fixture
def labels():
    return jnp.arange(SIZE) % 3


def play(key, train, labels, *, strategy=MARGIN, learner=LEARNER, num_rounds=4):
    """All rounds of one seed, as a caller would scan over them in a `jit` of their own."""
    key_init, key_rounds = jax.random.split(key)
    problem = make_problem(train, labels, strategy=strategy, initial=RANDOM)
    settings = dict(learner=learner, strategy=strategy)
    state = init(key_init, problem, initial=RANDOM, num_initial=NUM, capacity=CAPACITY, **settings)

    def play_round(state, key):
        return step(key, state, problem, query_size=NUM, **settings)

    return jax.lax.scan(play_round, state, jax.random.split(key_rounds, num_rounds))


def labelled_state(train, labels, rows, capacity=CAPACITY, strategy=MARGIN):
    """The problem and the state after a fit to `rows`."""
    problem = make_problem(train, labels, strategy=strategy, initial=RANDOM)
    queried = jnp.full(capacity, SIZE).at[: len(rows)].set(jnp.array(rows))
    state = loop.start(queried, len(rows), problem, strategy=strategy)
    state, info = fit(jax.random.key(0), state, problem, learner=LEARNER)
    return problem, state, info


@pytest.mark.parametrize("sizes", [dict(labels=SIZE - 1), dict(labels=SIZE + 1), dict(inputs=SIZE + 1)])
def test_labels_and_inputs_of_other_rows_are_refused(train, monkeypatch, sizes):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    shapes = dict(labels=SIZE, inputs=SIZE) | sizes
    message = rf"labels have shape \({shapes['labels']},\) and inputs \({shapes['inputs']},\); expected one label "
    with pytest.raises(ValueError, match=message):
        make_problem(train, strategy=RANDOM, initial=RANDOM, **{name: np.zeros(size) for name, size in shapes.items()})


@pytest.mark.parametrize("subsample", [1.0, 0.4])
def test_never_queries_twice(train, labels, subsample):
    keys = jax.random.split(jax.random.key(1), 3)
    run = partial(play, train=train, labels=labels, strategy=MARGIN._replace(subsample=subsample))
    state, info = jax.jit(jax.vmap(run))(keys)
    queried = np.asarray(state.queried)
    for rows in queried:
        assert len(set(rows.tolist())) == CAPACITY
        assert rows.min() >= 0
        assert rows.max() < SIZE
    assert (queried[0] != queried[1]).any()
    assert np.isfinite(info["loss"]).all()
    np.testing.assert_array_equal(np.asarray(info["rows"]).reshape(3, -1), queried[:, NUM:])


def test_vmap_equals_singles(train, labels):
    keys = jax.random.split(jax.random.key(1), 3)
    run = partial(play, train=train, labels=labels)
    batched, _ = jax.jit(jax.vmap(run))(keys)
    singles = jnp.stack([jax.jit(run)(key)[0].queried for key in keys])
    np.testing.assert_array_equal(batched.queried, singles)


def test_the_count_is_one_for_all_seeds(train, labels):
    """Batched, it would make the trip count of the training loop differ between seeds."""
    problem = make_problem(train, labels, strategy=MARGIN, initial=RANDOM)
    settings = dict(learner=LEARNER, strategy=MARGIN)
    start = partial(init, initial=RANDOM, num_initial=NUM, capacity=CAPACITY, **settings)
    keys = jax.random.split(jax.random.key(1), 3)
    state = over_seeds(lambda key, setting, problem: start(key, problem), INIT_AXES, STATE_AXES)(keys, {}, problem)
    assert state.count.shape == ()
    assert state.queried.shape == (3, CAPACITY)


def fit_means(key, inputs, labels, rows, count):
    is_used = jnp.arange(rows.shape[0]) < count
    weights = jnp.where(is_used[:, None], jax.nn.one_hot(labels[rows], 3), 0)
    return weights.T @ inputs[rows] / jnp.maximum(weights.sum(axis=0), 1)[:, None], {}


def predict_by_means(means, inputs):
    return None, jax.nn.softmax(-((inputs[:, None] - means[None]) ** 2).sum(axis=2))


MEANS = Learner(fit_means, predict_by_means)
"""Nearest class means, without any model of this package, and without features."""


def test_a_learner_of_a_plain_function_pair(train, labels):
    distances = STRATEGIES["distance"]()
    for strategy in (MARGIN, distances, MARGIN._replace(subsample=0.3)):
        run = partial(play, train=train, labels=labels, learner=MEANS, strategy=strategy)
        state, info = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(1), 2))
        assert all(len(set(rows.tolist())) == CAPACITY for rows in np.asarray(state.queried))
        assert info["score"].shape == (2, 4)
        means, _ = fit_means(None, train.latents, labels, state.queried[0], 40)
        np.testing.assert_allclose(state.params[0], means, rtol=1e-5, atol=1e-6)


def test_arrays_of_numpy_and_strict_types_in_a_caller_s_program(train, labels):
    settings = dict(learner=MEANS, strategy=STRATEGIES["distance"]())
    expected, _ = jax.jit(partial(play, train=train, labels=labels, **settings))(KEY)
    of_numpy = jax.tree.map(np.asarray, dict(train=train, labels=labels))
    with jax.numpy_dtype_promotion("strict"):
        state, _ = jax.jit(partial(play, **of_numpy, **settings))(KEY)
        assert score(state.params, train.latents, labels, learner=MEANS).keys()
    np.testing.assert_array_equal(state.queried, expected.queried)


def test_one_trace_over_the_rounds_and_no_transfer(train, labels):
    traces = []

    def select(key, pool, num):
        traces.append(1)
        return MARGIN.query(key, pool, num)

    def count_visits(visits, encoded, row):
        return visits.at[row].add(1)

    strategy = Strategy(select, lambda encoded: jnp.zeros(SIZE, jnp.int32), count_visits)
    problem = make_problem(train, labels, strategy=strategy, initial=RANDOM)

    def fit_one(key, setting, state, problem):
        return fit(key, state, problem, learner=LEARNER)

    def query_one(key, setting, state, problem):
        return query(key, state, problem, learner=LEARNER, strategy=strategy, query_size=NUM)

    run_fit = over_seeds(fit_one, ROUND_AXES, (STATE_AXES, 0))
    run_query = over_seeds(query_one, ROUND_AXES, (STATE_AXES, 0))
    keys = jax.random.split(jax.random.key(1), 2)
    init_one = partial(init, learner=LEARNER, strategy=strategy, initial=RANDOM, num_initial=NUM, capacity=CAPACITY)
    run_init = over_seeds(lambda key, setting, problem: init_one(key, problem), INIT_AXES, STATE_AXES)
    state = run_init(keys, {}, problem)
    # Nothing passes between host and device.
    with jax.transfer_guard("disallow"):
        for _ in range(4):
            state, _ = run_fit(keys, {}, state, problem)
            state, _ = run_query(keys, {}, state, problem)
    assert state.prepared.sum(axis=1).tolist() == [4 * NUM] * 2
    assert state.prepared.max() == 1
    assert int(state.num_updated) == 4 * NUM
    assert len(traces) == 1
    assert run_fit._cache_size() == run_query._cache_size() == 1


@pytest.mark.parametrize("subsample", [1.0, 0.4])
def test_a_strategy_sees_queried_labels_only(train, labels, subsample):
    """Runs outside `jit`, where the pool can be looked at."""
    seen = []

    def look(key, pool, num):
        seen.append(pool)
        return MARGIN.query(key, pool, num)

    strategy = Strategy(look, subsample=subsample)
    problem, state, _ = labelled_state(train, labels, range(30, 45), strategy=strategy)
    after, rows = query(jax.random.key(1), state, problem, learner=LEARNER, strategy=strategy, query_size=5)
    pool = seen[0]
    np.testing.assert_array_equal(pool.latents, pool.gather(train.latents))
    is_labelled = pool.labels != UNLABELLED
    assert is_labelled.sum() == 15
    assert pool.taken[is_labelled].all()
    assert (~pool.taken).sum() == (SIZE - 15 if subsample == 1 else round(subsample * SIZE))
    probs = LEARNER.predict(state.params, train.latents)[1]
    for row in np.flatnonzero(is_labelled | ~pool.taken):
        source = int(np.flatnonzero((np.asarray(train.latents) == np.asarray(pool.latents[row])).all(axis=1))[0])
        assert (30 <= source < 45) == bool(is_labelled[row])
        assert not is_labelled[row] or pool.labels[row] == labels[source]
        np.testing.assert_allclose(pool.probs[row], probs[source], atol=1e-5)
    np.testing.assert_array_equal(after.queried[:15], state.queried[:15])
    np.testing.assert_array_equal(after.queried[15:20], rows)
    assert not set(after.queried[15:20].tolist()) & set(range(30, 45))
    assert (after.queried[20:] == SIZE).all()
    assert int(after.count) == 20


def test_only_the_labelled_rows_and_the_subsample_are_predicted(train, labels):
    rows_predicted = []

    def predict(params, inputs):
        rows_predicted.append(len(inputs))
        return LEARNER.predict(params, inputs)

    strategy = MARGIN._replace(subsample=0.1)
    problem, state, _ = labelled_state(train, labels, range(15), strategy=strategy)
    learner = LEARNER._replace(predict=predict)
    query(jax.random.key(1), state, problem, learner=learner, strategy=strategy, query_size=5)
    assert rows_predicted == [CAPACITY + 8]


def test_subsample_of_a_nearly_empty_pool(train, labels):
    """Six rows are left where the subsample would hold 32: all six can be queried."""
    strategy = MARGIN._replace(subsample=0.4)
    problem, state, _ = labelled_state(train, labels, range(74), capacity=80, strategy=strategy)
    after, _ = query(jax.random.key(1), state, problem, learner=LEARNER, strategy=strategy, query_size=6)
    assert sorted(after.queried.tolist()) == list(range(80))


def test_accuracies(train, labels):
    _, state, info = labelled_state(train, labels, range(20))
    predicted = LEARNER.predict(state.params, train.latents)[1].argmax(axis=1)
    assert info["score"] == np.mean(predicted[:20] == labels[:20])
    expected = np.mean(predicted[40:] == labels[40:])
    measured = score(state.params, train.latents[40:], labels[40:], learner=LEARNER)
    np.testing.assert_allclose(measured["accuracy"], expected, atol=1e-6)


def test_shapes_alone_tell_what_cannot_work(train, labels):
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (train, labels))
    problem = Problem(shapes[0].latents, shapes[1], shapes[0])
    check = partial(loop.check_shapes, problem, strategy=MARGIN, num_initial=5)
    check(learner=LEARNER, initial=RANDOM, query_size=5)
    with pytest.raises(ValueError, match="uncertainty needs a classifier's predictions"):
        check(learner=LEARNER, initial=MARGIN, query_size=5)
    with pytest.raises(ValueError, match="num is 90"):
        check(learner=LEARNER, initial=RANDOM, query_size=90)
    voting = nearest_neighbours(num_classes=4, num_neighbours=9)
    check(learner=voting, initial=RANDOM, query_size=2, capacity=9)
    with pytest.raises(ValueError, match="num_neighbours is 9, but at most 8 rows will be labelled"):
        check(learner=voting, initial=RANDOM, query_size=2, capacity=8)


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
    singles = [score(params, *args, learner=learner)["balanced_accuracy"] for params in PREDICTED]
    np.testing.assert_allclose(singles, expected, atol=1e-6)
    state = RoundState(jnp.zeros((2, 1), jnp.int32), jnp.int32(1), PREDICTED, None, jnp.int32(0))

    def score_one(setting, state, examples):
        return score(state.params, *examples, learner=learner)

    batched = over_seeds(score_one, SCORE_AXES)({}, state, args)
    np.testing.assert_allclose(batched["balanced_accuracy"], singles)


def test_angles_have_no_balanced_accuracy():
    learner = angle_mlp(hidden=(8,), dropout=0.1, learning_rate=1e-2, epochs=5, batch_size=5)
    learner = learner._replace(predict=lambda params, inputs: (inputs, params))
    found = score(jnp.array([350.0, 20.0]), jnp.zeros((2, 1)), jnp.array([10.0, 20.0]), learner=learner)
    assert found == {"angular_error": 10}


def play_to_the_end(key, problem, strategy, *, num_initial, capacity, query_size, num_rounds):
    """All rounds of one seed, with the rows and the count of each round."""
    settings = dict(learner=LEARNER, strategy=strategy)
    key_init, key_rounds = jax.random.split(key)
    state = init(key_init, problem, initial=RANDOM, num_initial=num_initial, capacity=capacity, **settings)

    def play_round(state, key):
        state, info = step(key, state, problem, query_size=query_size, **settings)
        return state, (info["rows"], state.count, state.num_updated)

    return jax.lax.scan(play_round, state, jax.random.split(key_rounds, num_rounds))


def visits():
    """A strategy that counts how often it was told of each row."""
    return MARGIN._replace(
        prepare=lambda encoded: jnp.zeros(len(encoded.latents), jnp.int32),
        update=lambda counts, encoded, row: counts.at[row].add(1),
    )


class TestCapacity:
    @pytest.mark.parametrize("subsample", [1.0, 0.5])
    @pytest.mark.parametrize("compile_", [jax.jit, lambda function: function])
    def test_a_full_buffer_keeps_what_is_queried(self, train, labels, subsample, compile_):
        """18 of 20 slots are in use and five rows asked for: two fit."""
        strategy = MARGIN._replace(subsample=subsample)
        problem, state, _ = labelled_state(train, labels, range(30, 48), capacity=20, strategy=strategy)
        run = compile_(partial(query, learner=LEARNER, strategy=strategy, query_size=5))
        after, rows = run(jax.random.key(1), state, problem)
        assert after.queried[:18].tolist() == list(range(30, 48))
        assert after.queried[18:].tolist() == rows[:2].tolist()
        assert rows[2:].tolist() == [SIZE] * 3
        assert not set(rows[:2].tolist()) & {*range(30, 48), SIZE}
        assert int(after.count) == 20
        again, rows = run(jax.random.key(2), after, problem)
        assert again.queried.tolist() == after.queried.tolist()
        assert rows.tolist() == [SIZE] * 5
        assert int(again.count) == 20

    @pytest.mark.parametrize(
        "name, capacity, subsample", [("margin", 12, 0.5), ("distance", 17, 1.0), ("farthest_first", 17, 0.5)]
    )
    def test_a_pool_that_runs_out(self, train, labels, name, capacity, subsample):
        """Twelve rows, one at first: two rounds of five, one row in the third, none in the fourth."""
        strategy = MARGIN if name == "margin" else STRATEGIES[name]()
        strategy = strategy._replace(subsample=subsample)
        train = jax.tree.map(lambda leaf: leaf[:12], train)
        problem = make_problem(train, labels[:12], strategy=strategy, initial=RANDOM)
        sizes = dict(num_initial=1, capacity=capacity, query_size=5, num_rounds=4)
        run = jax.jit(jax.vmap(lambda key: play_to_the_end(key, problem, strategy, **sizes)))
        state, (rows, counts, _) = run(jax.random.split(jax.random.key(3), 3))
        assert counts.tolist() == [[6, 11, 12, 12]] * 3
        for queried, asked in zip(state.queried.tolist(), rows.tolist(), strict=True):
            assert sorted(queried[:12]) == list(range(12))
            assert queried[12:] == [12] * (capacity - 12)
            assert asked[0] + asked[1] == queried[1:11]
            assert asked[2] == [queried[11]] + [12] * 4
            assert asked[3] == [12] * 5

    @pytest.mark.parametrize("subsample", [1.0, 0.5])
    def test_seeds_side_by_side_share_the_count(self, train, labels, subsample):
        strategy = visits()._replace(subsample=subsample)
        train = jax.tree.map(lambda leaf: leaf[:12], train)
        problem = make_problem(train, labels[:12], strategy=strategy, initial=RANDOM)
        settings = dict(learner=LEARNER, strategy=strategy)
        start = partial(init, initial=RANDOM, num_initial=1, capacity=14, **settings)
        state = over_seeds(lambda key, setting, problem: start(key, problem), INIT_AXES, STATE_AXES)(
            jax.random.split(jax.random.key(4), 3), {}, problem
        )
        play_round = over_seeds(
            lambda key, setting, state, problem: step(key, state, problem, query_size=5, **settings),
            ROUND_AXES,
            (STATE_AXES, 0),
        )
        for index, count in enumerate([6, 11, 12, 12, 12]):
            updated = int(state.count)
            state, _ = play_round(jax.random.split(jax.random.key(index), 3), {}, state, problem)
            assert int(state.count) == count
            assert int(state.num_updated) == updated
            assert state.prepared.sum(axis=1).tolist() == [updated] * 3
            assert state.prepared.max() == 1
        assert np.sort(state.queried[:, :12], axis=1).tolist() == [list(range(12))] * 3

    def test_rows_that_a_strategy_does_not_give_are_not_fitted_to(self, train, labels):
        """Inside `jit` a strategy may give fewer rows than asked; the last row of the set is not one of them."""

        def select(key, pool, num):
            return jnp.array([7, SIZE, 9], jnp.int32)

        strategy = visits()._replace(query=select)
        problem, state, _ = labelled_state(train, labels, [3, 4], capacity=8, strategy=strategy)
        run = jax.jit(partial(query, learner=LEARNER, strategy=strategy, query_size=3))
        state, _ = run(jax.random.key(0), state, problem)
        state, _ = run(jax.random.key(0), state, problem)
        assert state.prepared[jnp.array([3, 4, 7, 9, SIZE - 1])].tolist() == [1, 1, 1, 1, 0]
        assert int(state.num_updated) == 5
        fitted_to = []

        def fit_to(key, inputs, labels, rows, count):
            fitted_to.extend(rows[: int(count)].tolist())
            return None, {}

        def predict(params, inputs):
            return None, jax.nn.one_hot((inputs[:, 0] > 0).astype(int), 3)

        state = state._replace(count=jnp.int32(5))
        _, info = fit(jax.random.key(0), state, problem, learner=Learner(fit_to, predict))
        assert fitted_to == [3, 4, 7, 3, 9]
        rows = jnp.array([3, 4, 7, 9])
        assert info["score"] == ((train.latents[rows, 0] > 0) == labels[rows]).mean()

    def test_what_cannot_fit_is_refused(self, train, labels):
        problem, state, _ = labelled_state(train, labels, range(15))
        strategy = MARGIN._replace(subsample=0.1)
        message = "query_size is 9; expected at most the 8 rows that a subsample of 0.1 of 80 rows has"
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(partial(query, learner=LEARNER, strategy=strategy, query_size=9), KEY, state, problem)
        settings = dict(learner=LEARNER, strategy=MARGIN, initial=RANDOM)
        with pytest.raises(
            ValueError, match="num_initial is 6; expected at most the capacity of 5: raise the capacity"
        ):
            init(KEY, problem, num_initial=6, capacity=5, **settings)
