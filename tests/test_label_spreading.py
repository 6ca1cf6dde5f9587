"""Label spreading beside dense algebra in float64, and beside scikit-learn's iterations on the same graph."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.semi_supervised import LabelSpreading

from latent_al import loop
from latent_al.models.classifiers import CLASSIFIERS
from latent_al.runtime.mesh import make_mesh, over_seeds, place_rows
from latent_al.types import ROUND_AXES, STATE_AXES, BadInput, Problem, RoundState

SIZE, CAPACITY, COUNT, ANCHORS, ALPHA = 150, 20, 12, 30, 0.9
ROWS = np.concatenate([np.random.default_rng(1).permutation(SIZE)[:COUNT], np.full(CAPACITY - COUNT, SIZE)])
LEARNER = CLASSIFIERS["label_spreading"](num_classes=3, num_anchors=ANCHORS, alpha=ALPHA)


@pytest.fixture(scope="module")
def blobs():
    """Latents [n 4] of three unequal, overlapping classes, far from the origin, and their labels."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, SIZE, p=[0.6, 0.3, 0.1])
    latents = rng.normal(size=(SIZE, 4)) + rng.normal(size=(3, 4))[labels] * 2
    return jnp.float32(latents + 20), jnp.int32(labels)


def play(latents, labels, rows, count):
    params, _ = LEARNER.fit(jax.random.key(0), latents, labels, jnp.asarray(rows), count)
    return params, LEARNER.predict(params, latents)[1]


compiled = jax.jit(play)


def predict_all(learner, latents, labels, rows):
    """Returns the probabilities of all rows by the labels of `rows`."""

    def run(latents, labels, rows):
        params, _ = learner.fit(jax.random.key(0), latents, labels, rows, len(rows))
        return learner.predict(params, latents)[1]

    return jax.jit(run)(latents, labels, jnp.asarray(rows))


def links(points, anchors, num=3):
    """Returns the links [n m] of the points to their nearest anchors, row by row."""
    dense = np.zeros((len(points), len(anchors)))
    for row, point in enumerate(np.float64(points)):
        squares = ((np.float64(anchors) - point) ** 2).sum(axis=1)
        nearest = squares.argsort()[:num]
        dense[row, nearest] = np.exp(-squares[nearest] / squares[nearest].max())
    return dense / dense.sum(axis=1, keepdims=True)


def similarities(latents, anchors):
    dense = links(latents, anchors)
    return dense @ np.diag(1 / dense.sum(axis=0)) @ dense.T


def test_probabilities_equal_the_dense_solution_within_the_pool_and_outside(blobs):
    params, probs = compiled(*blobs, ROWS, COUNT)
    graph = similarities(blobs[0], params.anchors)
    np.testing.assert_allclose(graph.sum(axis=1), 1)
    targets, queried = np.zeros((SIZE, 3)), ROWS[:COUNT]
    targets[queried, np.asarray(blobs[1])[queried]] = 1
    solution = np.linalg.solve(np.eye(SIZE) - ALPHA * graph, targets)
    received = graph @ solution
    np.testing.assert_allclose(probs, received / received.sum(axis=1, keepdims=True), atol=1e-5)
    outside = np.float32(np.asarray(blobs[0])[:40] + 0.3)
    pool_links = links(blobs[0], params.anchors)
    received = links(outside, params.anchors) @ np.diag(1 / pool_links.sum(axis=0)) @ pool_links.T @ solution
    expected = received / received.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(LEARNER.predict(params, jnp.asarray(outside))[1], expected, atol=1e-5)


def test_rows_without_a_label_equal_scikit_learns(blobs):
    params, probs = compiled(*blobs, ROWS, COUNT)

    class OnAnchors(LabelSpreading):
        def _build_graph(self):
            return similarities(self.X_, params.anchors)

    labels = np.full(SIZE, -1)
    labels[ROWS[:COUNT]] = np.asarray(blobs[1])[ROWS[:COUNT]]
    model = OnAnchors(alpha=ALPHA, max_iter=2000, tol=1e-12).fit(np.asarray(blobs[0]), labels)
    expected = np.zeros((SIZE, 3))
    expected[:, model.classes_] = model.label_distributions_
    np.testing.assert_allclose(probs[labels < 0], expected[labels < 0], atol=1e-5)


@pytest.mark.slow
def test_rows_without_a_label_carry_labels_along_a_chain():
    """Two arcs with one label each: the nearest label is that of the other arc for a third of the rows."""
    angles = np.linspace(0, np.pi, 200)
    upper = np.column_stack([np.cos(angles), np.sin(angles)])
    lower = np.column_stack([1 - np.cos(angles), 0.3 - np.sin(angles)])
    latents, labels = jnp.float32(np.concatenate([upper, lower])), jnp.repeat(jnp.arange(2), 200)
    shares = {}
    for name, settings in (("label_spreading", dict(num_anchors=80)), ("nearest_neighbours", dict(num_neighbours=1))):
        learner = CLASSIFIERS[name](num_classes=2, **settings)
        shares[name] = (predict_all(learner, latents, labels, [0, 399]).argmax(axis=1) == labels).mean()
    assert shares["label_spreading"] == 1
    assert shares["nearest_neighbours"] < 0.8


def test_labels_of_other_rows_are_not_read(blobs):
    latents, labels = blobs
    hidden = jnp.zeros_like(labels).at[ROWS[:COUNT]].set(labels[ROWS[:COUNT]])
    np.testing.assert_array_equal(compiled(latents, labels, ROWS, COUNT)[1], compiled(latents, hidden, ROWS, COUNT)[1])


def test_vmap_equals_singles_and_one_program_serves_all_rounds(blobs):
    rows = jnp.stack([jnp.asarray(ROWS), jnp.asarray((ROWS + 7) % SIZE)])
    traces = []

    def traced(rows, count):
        traces.append(count)
        return play(*blobs, rows, count)[1]

    batched = jax.jit(jax.vmap(traced, in_axes=(0, None)))
    for count in (1, 5, COUNT):
        together = batched(rows, jnp.int32(count))
        singles = [compiled(*blobs, some, jnp.int32(count))[1] for some in rows]
        np.testing.assert_allclose(together, jnp.stack(singles), atol=1e-5)
    assert len(traces) == 1


@pytest.mark.slow
def test_several_devices_spread_over_the_whole_pool(blobs):
    latents, labels = blobs
    mesh = make_mesh(dict(seeds=2, pool=4), [[0, 1]])
    rows = jnp.stack([jnp.asarray(ROWS), jnp.asarray(ROWS)])
    state = RoundState(rows, jnp.int32(COUNT), None, None, jnp.int32(0))

    def fit(key, setting, state, problem):
        return loop.fit(key, state, problem, learner=LEARNER)

    def masses(mesh):
        problem = Problem(place_rows(latents, mesh), place_rows(labels, mesh), None)
        program = over_seeds(fit, ROUND_AXES, (STATE_AXES, 0), mesh=mesh)
        return np.asarray(program(jax.random.split(jax.random.key(0), 2), {}, state, problem)[0].params.masses)

    np.testing.assert_allclose(masses(mesh), masses(None), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("size", [SIZE, 10])
def test_equal_rows_and_a_pool_below_the_anchors(blobs, size):
    latents, labels = (values[:size] for values in blobs)
    rows = jnp.arange(4)
    for points in (latents, jnp.ones_like(latents)):
        probs = compiled(points, labels, rows, 3)[1]
        np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)
    shares = np.bincount(np.asarray(labels)[:3], minlength=3) / 3
    np.testing.assert_allclose(probs, np.tile(shares, (size, 1)), atol=1e-5)


def test_where_no_label_reaches_all_classes_are_equally_probable():
    latents = jnp.concatenate([jnp.arange(10.0), 1e4 + jnp.arange(10.0)])[:, None]
    learner = CLASSIFIERS["label_spreading"](num_classes=2, num_anchors=10, num_neighbours=2)
    probs = predict_all(learner, latents, jnp.zeros(20, jnp.int32), [0])
    np.testing.assert_allclose(probs[:10, 0], 1, atol=1e-5)
    np.testing.assert_allclose(probs[10:], 0.5, atol=1e-5)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(num_neighbours=0), "num_neighbours is 0; expected 1 to num_anchors, which is 1000"),
        (dict(num_neighbours=6, num_anchors=5), "num_neighbours is 6; expected 1 to num_anchors, which is 5"),
        (dict(alpha=0.0), r"alpha is 0.0; expected a share in \(0, 1\)"),
        (dict(alpha=1.0), r"alpha is 1.0; expected a share in \(0, 1\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(BadInput, match=message):
        CLASSIFIERS["label_spreading"](num_classes=3, **settings)


def test_more_neighbours_than_rows_are_refused(blobs):
    with pytest.raises(BadInput, match="num_neighbours is 3, but the pool has 2 rows; set fewer"):
        play(blobs[0][:2], blobs[1][:2], jnp.arange(2), 1)
