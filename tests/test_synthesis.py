"""Synthesised queries: where gradient ascent ends, who answers, and how the loop trains on the answers."""

import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax.tree_util import Partial
from ml_collections import ConfigDict
from test_diagnostics import ARM, make_config
from test_strategies import ASCENT, make_pool

from latent_al import loop
from latent_al.experiment.run import run_experiment
from latent_al.models.classifiers import mlp
from latent_al.results.balance import balance_table
from latent_al.results.judged import pick, shares
from latent_al.results.tables import History, queries_table
from latent_al.strategies import STRATEGIES
from latent_al.strategies.synthesis import SHARE, answers, ascend, best_of_restarts, synthesiser, usual_distance
from latent_al.types import UNLABELLED, BadInput, Encoded, Learner, RoundState, Synthesised

NORMAL, OFFSET = np.array([3.0, 4.0, 0.0]), -5.0
"""Of a boundary between two classes, whose nearest point to the origin is (0.6, 0.8, 0)."""
STARTS = np.random.default_rng(0).normal(size=(4, 5, 3))
FAR = dict(num_steps=400, step_size=0.5)
RANDOM = STRATEGIES["random"]()
SIZE = 40


def logistic(scale, latents):
    """Probabilities of the two classes; one matrix product and one offset."""
    logits = scale * (latents @ jnp.float32(NORMAL) + OFFSET)
    return jax.nn.softmax(jnp.stack([jnp.zeros_like(logits), logits], axis=1))


def two_classes():
    return make_pool(RANDOM)._replace(predict=Partial(logistic, jnp.float32(1)))


def distance_to_boundary(points):
    return np.abs(np.float64(points) @ NORMAL + OFFSET) / np.linalg.norm(NORMAL)


SLOW = [pytest.param(measure, marks=pytest.mark.slow) for measure in ("entropy", "least_confident")]


@pytest.mark.parametrize("measure", ["margin", *SLOW])
def test_without_the_prior_a_point_ends_where_its_normal_meets_the_boundary(measure):
    """The largest uncertainty is known, and so is the way there: along the normal."""
    find = synthesiser(measure=measure, prior_weight=0.0, num_restarts=1, **FAR)
    pool = two_classes()
    points = np.float64(jax.jit(find, static_argnums=2)(jax.random.key(3), pool, 6))
    last_step = FAR["step_size"] / FAR["num_steps"]
    assert distance_to_boundary(points).max() < 2 * last_step
    draw = np.where(pool.taken, -1, jax.random.uniform(jax.random.split(jax.random.key(3), 1)[0], (50,)))
    starts = np.float64(pool.latents)[np.argsort(-draw, kind="stable")[:6]]
    expected = starts - (starts @ NORMAL + OFFSET)[:, None] * NORMAL / (NORMAL @ NORMAL)
    np.testing.assert_allclose(points, expected, atol=3 * last_step)


@pytest.mark.parametrize("prior_weight", [0.5, pytest.param(1.0, marks=pytest.mark.slow)])
def test_the_prior_moves_the_point_along_the_boundary_to_the_nearest_to_the_origin(prior_weight):
    """Closed form: there the margin falls by |normal| / 2 a unit, and the log density gains less."""
    find = synthesiser(measure="margin", prior_weight=prior_weight, num_restarts=2, **FAR)
    points = jax.jit(find, static_argnums=2)(jax.random.key(0), two_classes(), 6)
    nearest = -OFFSET * NORMAL / (NORMAL @ NORMAL)
    np.testing.assert_allclose(points, np.tile(nearest, (6, 1)), atol=0.01)


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_a_prior_beside_a_parabola_has_its_closed_form(weight):
    """The largest of -k/2 |z - c|^2 - w/2 |z|^2 is at k c / (k + w)."""
    centre, curvature = jnp.float32([2.0, -1.0, 0.5]), 2.0

    def score(points):
        uncertainty = -curvature / 2 * ((points - centre[None]) ** 2).sum(axis=1)
        return uncertainty - weight / 2 * (points**2).sum(axis=1)

    points = ascend(score, jnp.float32(STARTS[0]), num_steps=100, step_size=0.5)
    np.testing.assert_allclose(points, np.tile(curvature * centre / (curvature + weight), (5, 1)), atol=0.02)


def hilly(points):
    """A score with a few maxima, whose gradient is known."""
    return jnp.sin(2 * points).sum(axis=1) - 0.1 * (points**2).sum(axis=1)


def climb_slowly(start, num_steps, step_size):
    point = start.astype(np.float64)
    for index in range(num_steps):
        gradient = 2 * np.cos(2 * point) - 0.2 * point
        point = point + step_size * (1 - index / num_steps) * gradient / np.linalg.norm(gradient)
    return point


def test_restarts_side_by_side_equal_the_loop():
    """NumPy climbs from one start after the other, and takes the best of each query's."""
    sizes = dict(num_steps=7, step_size=0.3)
    ends = np.array([[climb_slowly(start, **sizes) for start in restart] for restart in STARTS])
    best = (np.sin(2 * ends).sum(axis=2) - 0.1 * (ends**2).sum(axis=2)).argmax(axis=0)
    assert len(set(best.tolist())) > 1
    run = partial(best_of_restarts, hilly, **sizes)
    np.testing.assert_allclose(run(jnp.float32(STARTS)), ends[best, np.arange(5)], atol=1e-4)
    both = jnp.float32(np.stack([STARTS, STARTS[::-1] + 0.1]))
    singles = jnp.stack([run(starts) for starts in both])
    np.testing.assert_allclose(jax.jit(jax.vmap(run))(both), singles, atol=1e-5)


def test_a_point_without_a_gradient_stays():
    flat = ascend(lambda points: 0 * points.sum(axis=1), jnp.float32(STARTS[0]), num_steps=3, step_size=0.5)
    np.testing.assert_array_equal(flat, jnp.float32(STARTS[0]))


@pytest.mark.slow
def test_a_point_whose_gradient_is_too_short_to_square_moves():
    """As it is where a softmax saturates."""
    starts = jnp.float32(STARTS[0])
    moved, expected = (
        ascend(lambda points, scale=scale: scale * points.sum(axis=1), starts, num_steps=3, step_size=0.5)
        for scale in (1e-30, 1.0)
    )
    np.testing.assert_allclose(moved, expected, rtol=1e-6)


def test_the_gradient_of_predictions_is_the_plain_one_under_vmap():
    """On a CPU members predict in groups; beside central differences."""
    learner = mlp(num_classes=3, hidden=(8,), dropout=0.2, learning_rate=1e-2, epochs=2, batch_size=10)
    inputs, labels = jnp.float32(STARTS.reshape(20, 3)), jnp.arange(20) % 3

    def one(key):
        params, _ = learner.fit(key, inputs, labels, jnp.arange(20), jnp.int32(20))
        return params, jax.grad(lambda points: learner.predict(params, points)[1][:, 0].sum())(inputs)

    params, gradients = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 3))
    for member in range(3):
        of_member = jax.tree.map(lambda leaf, member=member: leaf[member], params)
        for axis in range(3):
            step = jnp.zeros(3).at[axis].set(1e-2)[None]
            up, down = (learner.predict(of_member, inputs + sign * step)[1][:, 0] for sign in (1, -1))
            np.testing.assert_allclose(gradients[member, :, axis], (up - down) / 2e-2, atol=5e-3)


def test_the_oracle_beside_brute_force():
    """A slot that holds no row repeats a labelled one, is marked taken and unlabelled, and does not answer."""
    pool = make_pool(RANDOM)
    no_row = 7
    pool = pool._replace(taken=pool.taken.at[no_row].set(True), labels=pool.labels.at[no_row].set(UNLABELLED))
    points = np.random.default_rng(4).normal(size=(30, 3)).astype(np.float32)
    points[0] = pool.latents[no_row]
    distances = np.linalg.norm(np.float64(points)[:, None] - np.float64(pool.latents), axis=2)
    distances[:, no_row] = np.inf
    for radius in (0.3, 0.8):
        expected = np.where(distances.min(axis=1) <= radius, distances.argmin(axis=1), 50)
        assert 0 < (expected == 50).sum() < 30
        assert answers(jnp.asarray(points), pool, radius=radius).tolist() == expected.tolist()


def test_the_usual_distance_beside_brute_force():
    latents = np.random.default_rng(5).normal(size=(2400, 2)).astype(np.float32)
    sample, rest = np.float64(latents[::2]), np.float64(latents[1::2])
    nearest = [np.linalg.norm(rest - point, axis=1).min() for point in sample]
    np.testing.assert_allclose(usual_distance(Encoded(jnp.asarray(latents))), np.quantile(nearest, SHARE), rtol=1e-5)


def fit_nothing(key, inputs, labels, rows, count):
    """Its params are what it is fitted to."""
    return (inputs[rows], labels[rows]), {}


RECORDING = Learner(fit_nothing, lambda params, inputs: (None, jax.nn.softmax(inputs[:, :2])))


def test_a_spent_query_takes_a_slot_and_gives_no_label():
    """Two of three are answered: the learner trains on these points, in turn for as many as were asked."""
    latents = jnp.arange(SIZE, dtype=jnp.float32)[:, None] * jnp.ones((1, 3))
    points = jnp.float32([[2.4, 2.4, 2.4], [90.0, 90.0, 90.0], [8.0, 8.0, 8.3]])

    def synthesise(key, pool, num):
        return Synthesised(points, answers(points, pool, radius=2.0))

    strategy = STRATEGIES["query_synthesis"](**ASCENT, radius=1.0)._replace(synthesise=synthesise)
    problem = loop.make_problem(Encoded(latents), jnp.arange(SIZE) % 2, strategy=RANDOM, initial=RANDOM)
    state = loop.start(jnp.int32([5, 6, *[SIZE] * 4]), 2, problem, strategy=strategy)
    fit = jax.jit(partial(loop.fit, learner=RECORDING))
    query = jax.jit(partial(loop.query, learner=RECORDING, strategy=strategy, query_size=3))
    state, _ = fit(jax.random.key(0), state, problem)
    assert state.params[0][:2, 0].tolist() == [5, 6]
    state, rows = query(jax.random.key(1), state, problem)
    assert rows.tolist() == [2, SIZE, 8]
    assert state.queried.tolist() == [5, 6, 2, SIZE, 8, SIZE]
    assert int(state.count) == 5
    np.testing.assert_array_equal(state.points[2:5], points)
    state, info = fit(jax.random.key(2), state, problem)
    inputs, labels = (np.asarray(part)[:5] for part in state.params)
    np.testing.assert_array_equal(inputs, np.stack([latents[5], latents[6], points[0], points[2], latents[5]]))
    assert labels.tolist() == [1, 0, 0, 0, 1]
    assert info["score"] == np.mean([0, 1, 1, 1])


@pytest.mark.slow
def test_all_rounds_are_one_program_and_vmap_equals_singles():
    strategy = STRATEGIES["query_synthesis"](**ASCENT, radius=2.0)
    learner = mlp(num_classes=2, hidden=(8,), dropout=0.2, learning_rate=1e-2, epochs=2, batch_size=10)
    latents = jax.random.normal(jax.random.key(0), (SIZE, 3))
    labels = (latents[:, 0] > 0).astype(jnp.int32)
    problem = loop.make_problem(Encoded(latents), labels, strategy=strategy, initial=RANDOM)
    settings = dict(learner=learner, strategy=strategy)
    traces = []

    def play(key, state):
        traces.append(1)
        return loop.step(key, state, problem, query_size=4, **settings)

    start = partial(loop.init, problem=problem, initial=RANDOM, num_initial=4, capacity=12, **settings)
    states = [start(key) for key in jax.random.split(jax.random.key(1), 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    axes = RoundState(queried=0, count=None, params=0, prepared=0, num_updated=None, points=0)
    stacked = stacked._replace(count=jnp.int32(4), num_updated=jnp.int32(0))
    together = jax.jit(jax.vmap(play, in_axes=(0, axes), out_axes=(axes, 0)))
    keys = jax.random.split(jax.random.key(2), (2, 2))
    for index in range(2):
        stacked, _ = together(keys[index], stacked)
        if index == 0:
            num_traces = len(traces)
    assert len(traces) == num_traces
    assert int(stacked.count) == 12
    for member, state in enumerate(states):
        for index in range(2):
            state, _ = jax.jit(play)(keys[index, member], state)
        assert state.queried.tolist() == stacked.queried[member].tolist()
        np.testing.assert_allclose(state.points, stacked.points[member], atol=1e-4)


def test_tables_of_spent_queries():
    queried = np.array([[3, 1, 6, 2], [0, 6, 6, 5]])
    history = History(queried, {}, np.zeros((2, 2)), np.zeros((2, 4, 3)))
    table = queries_table("arm", [0, 1], np.array([2, 4]), history, np.array(list("abcdef")))
    assert table.row.tolist() == [3, 1, -1, 2, 0, -1, -1, 5]
    assert table.id.fillna("").tolist() == ["d", "b", "", "c", "a", "", "", "f"]
    balance = balance_table(table, np.array([0, 1, 0, 1, 0, 1]), 2)
    assert balance.num_labels.tolist() == [2, 3, 1, 2]
    assert balance.class_1.tolist() == [2, 2, 0, 1]


def test_shares_are_means_over_seeds():
    verdicts = pd.DataFrame(
        dict(arm="a", seed=[0, 0, 0, 0, 1, 1, 1, 1], slot=[*range(4)] * 2, row=[5, 5, -1, -1, 1, 2, 3, -1])
    ).assign(label=[1, 2, -1, -1, 1, 1, 1, -1], judged=[1, 1, 1, 0, 1, 1, 0, 0])
    verdicts["confidence"] = [0.95, 0.9, 0.8, 0.99, 0.5, 0.95, 0.2, 0.1]
    line = shares(verdicts, threshold=0.9).iloc[0]
    assert line.valid == f"50.0 ± {np.std([75, 25], ddof=1):.1f}"
    assert line.answered == f"62.5 ± {np.std([50, 75], ddof=1):.1f}"
    assert line["agreed, of the answered"] == f"58.3 ± {np.std([50, 200 / 3], ddof=1):.1f}"
    spent = verdicts.assign(row=verdicts.row.where(verdicts.seed == 0, -1))
    texts = [
        shares(table, threshold=0.9)["agreed, of the answered"].item() for table in (spent, spent[spent.seed == 1])
    ]
    assert texts == ["50.0", ""]
    queries = pd.DataFrame(dict(round=[0, 1, 2, 3], rank=0, slot=range(4)))
    assert pick(queries, verdicts[verdicts.seed == 0]).slot.tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    "name, change, message",
    [
        (
            "query_synthesis",
            dict(radius=0.0),
            "radius is 0.0; expected a number above 0, .*: give 1, or more",
        ),
        ("query_synthesis", dict(radius=-1.0), "radius is -1.0; expected a number above 0"),
        ("query_synthesis", dict(num_restarts=0), "num_restarts 0, num_steps 3 and step_size 0.5; expected 1 or more"),
        ("nearest_to_synthesised", dict(step_size=0.0), "step_size 0.0; expected .* a length above 0, such as 0.5"),
        ("nearest_to_synthesised", dict(prior_weight=-1.0), "prior_weight is -1.0; expected 0 or more"),
    ],
)
def test_settings_outside_their_range_are_refused(name, change, message):
    settings = ASCENT | (dict(radius=1.0) if name == "query_synthesis" else {}) | change
    with pytest.raises(BadInput, match=message):
        STRATEGIES[name](**settings)


def synthesising(**changes):
    """The smoke size of the demo with an arm that synthesises, and the classifier `changes` names."""
    config = make_config().to_dict()
    strategy = dict(ASCENT, name="query_synthesis", radius=3.0)
    arm = dict(encoder="vae", classifier="mlp", strategy=strategy)
    config["encoders"]["vae"] = dict(
        name="dense_vae", hidden=(16,), latent_dim=3, learning_rate=1e-3, epochs=1, batch_size=100, seed=0
    )
    config["classifiers"]["mlp"] = dict(config["classifiers"]["refitted"]["classifier"])
    config["classifiers"]["spreading"] = dict(name="label_spreading")
    config["arms"] = dict(random=dict(arm, strategy=dict(name="random")), synthesised=arm | changes)
    return ConfigDict(config)


@pytest.mark.slow
def test_a_run_that_goes_on_has_the_same_queries_and_verdicts(tmp_path):
    """The points are kept in the checkpoints; a spent query has no id, and the balance counts labels."""
    config = synthesising().to_dict() | dict(diagnostics=decoded())
    config["arms"]["synthesised"]["strategy"]["radius"] = 0.7
    run_experiment(ConfigDict(config), str(tmp_path / "run"))
    paths = [tmp_path / "run" / name for name in ("queries.csv", "metrics.csv", "diagnostics/decoded.csv")]
    before = [path.read_bytes() for path in paths]
    queries, balance = (pd.read_csv(tmp_path / "run" / f"{name}.csv") for name in ("queries", "balance"))
    asked = queries[(queries.arm == "synthesised") & (queries["round"] > 0)]
    assert (asked.row == -1).any()
    assert (asked.id.isna() == (asked.row == -1)).all()
    gained = balance[(balance.arm == "synthesised") & (balance["round"] == 2)].num_labels.sum()
    assert gained == 2 * 20 + (asked.row >= 0).sum()
    assert (tmp_path / "run/figures/diagnostics/decoded_synthesised.png").exists()
    assert "Decoded queries (decoded)" in (tmp_path / "run/report.html").read_text()
    for folder in (tmp_path / "run/checkpoints/synthesised").glob("seeds-*/3"):
        shutil.rmtree(folder)
    run_experiment(ConfigDict(config), str(tmp_path / "run"))
    assert [path.read_bytes() for path in paths] == before


def decoded(**changes):
    return dict(decoded=dict(name="decoded_queries", arms=("random", "synthesised"), num_initial=20) | changes)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            dict(encoder="pixels"),
            "encoder 'pixels' is identity, which has no decoder, .*; choose one of",
        ),
        (dict(subsample=0.5), "subsample is 0.5, but queries are synthesised, not chosen from the pool; leave"),
        (dict(classifier="cnn"), "classifier 'cnn' reads images, but is fitted to synthesised latents; choose one"),
        (
            dict(classifier="spreading"),
            "classifier 'spreading' learns from unlabelled rows of the pool too, .*; cho",
        ),
    ],
)
def test_arms_that_cannot_synthesise_are_refused_before_any_work(change, message, tmp_path):
    with pytest.raises(BadInput, match=f"arm 'synthesised': .*{message}"):
        run_experiment(synthesising(**change), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "diagnostic, message",
    [
        (decoded(arms=("plain",)), "arm 'plain': its images come from a decoder, but identity has none; choose arms"),
        (
            dict(why=dict(name="importance", arms=("synthesised",))),
            "arm 'synthesised': it reads the labelled images, but",
        ),
        (decoded(num_initial=400), "num_initial is 400; expected fewer than the .* queries of a run"),
        (decoded(threshold=1.0), "threshold 1.0; expected .* a probability in"),
    ],
)
def test_diagnostics_that_do_not_fit_the_queries_are_refused_before_any_work(diagnostic, message, tmp_path):
    config = synthesising().to_dict()
    config["arms"]["plain"] = ARM | dict(classifier="mlp")
    with pytest.raises(BadInput, match=message):
        run_experiment(ConfigDict(config | dict(diagnostics=diagnostic)), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
