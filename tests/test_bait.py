"""BAIT beside a greedy selection with dense matrices, in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_al import kernels
from latent_al.kernels import fisher
from latent_al.strategies import STRATEGIES
from latent_al.types import UNLABELLED, Pool

NUM = 12


def make_rows(kind, size=40):
    """Makes features [n 5], taken [n], probs [n c] and labelled [n]."""
    rng = np.random.default_rng(3)
    features, logits = rng.normal(size=(size, 5)), 2 * rng.normal(size=(size, 2 if kind == "two classes" else 3))
    if kind == "one class labelled":
        logits[:, 0] += 9
    taken = np.arange(size) % 5 == 0
    return jnp.float32(features), taken, jax.nn.softmax(jnp.float32(logits)), taken & (np.arange(size) > 4)


def gradients(features, probs):
    """Returns V [n c f, c], whose column of class y is the gradient at that label times the root of p_y."""
    features, probs = np.float64(features), np.float64(probs)
    errors = np.sqrt(probs)[:, None] * (np.eye(probs.shape[1])[None] - probs[:, :, None])
    return np.einsum("ncy,nf->ncfy", errors, features).reshape(len(probs), -1, probs.shape[1])


def loop_bait(features, taken, num, probs, labelled, l2):
    embedded = gradients(features, probs)
    information = embedded @ embedded.transpose(0, 2, 1)
    matrix = l2 * np.eye(embedded.shape[1]) + information[labelled].sum(axis=0)
    rows = []
    for _ in range(num):
        traces = [np.trace(np.linalg.solve(matrix + added, information.mean(axis=0))) for added in information]
        traces = np.where(taken, np.inf, traces)
        traces[rows] = np.inf
        rows.append(int(traces.argmin()))
        matrix += information[rows[-1]]
    return rows


@pytest.mark.parametrize("kind", ["unsure", "two classes", "one class labelled"])
def test_equals_the_dense_loop(kind):
    features, taken, probs, labelled = make_rows(kind)
    rows = kernels.bait(features, taken, NUM, probs=probs, l2=0.1, labelled=labelled)
    assert rows.tolist() == loop_bait(features, taken, NUM, probs, labelled, 0.1)


def test_tiles_and_panels_that_are_not_full(monkeypatch):
    """Six tiles of seven of 40 rows, the last of which begins among those of the one before."""
    monkeypatch.setattr(fisher, "TILE", 7)
    monkeypatch.setattr(fisher, "PANEL", 2)
    monkeypatch.setattr(fisher, "LABELLED", 4)
    features, taken, probs, labelled = make_rows("unsure")
    select = jax.jit(partial(kernels.bait.__wrapped__, num=6, l2=0.1))
    rows = select(features, jnp.array(taken), probs=probs, labelled=jnp.array(labelled))
    assert rows.tolist() == loop_bait(features, taken, 6, probs, labelled, 0.1)


def test_slots_without_a_row_weigh_no_row():
    features, _, probs, _ = make_rows("unsure")
    rows = jnp.concatenate([jnp.arange(8), jnp.zeros(100, int), jnp.arange(8, 40)])
    slots = jnp.arange(len(rows))
    labels = jnp.where(slots < 8, 0, UNLABELLED)
    pool = Pool(features[rows], None, features[rows], probs[rows], slots < 108, labels, rows, None)
    selected = rows[STRATEGIES["bait"](l2=0.1).query(jax.random.key(0), pool, NUM)]
    taken = np.arange(40) < 8
    assert selected.tolist() == loop_bait(features, taken, NUM, probs, taken, 0.1)


def test_of_duplicates_the_lowest_row_comes_first():
    features, taken, probs, labelled = make_rows("unsure")
    features, probs = (array.at[20:].set(array[:20]) for array in (features, probs))
    rows = np.asarray(kernels.bait(features, taken, NUM, probs=probs, l2=0.1, labelled=labelled))
    assert (rows % 20).tolist() == [row % 20 for row in loop_bait(features, taken, NUM, probs, labelled, 0.1)]
    first = [row for place, row in enumerate(rows) if row % 20 not in rows[:place] % 20]
    assert max(first) < 20


def test_rows_that_tell_nothing_come_last_by_row():
    """The classifier is sure of all but two rows, and one of these is zero."""
    features, taken, probs, labelled = make_rows("unsure")
    probs = jnp.eye(3)[probs.argmax(axis=1)].at[13].set(probs[13]).at[17].set(probs[17])
    rows = kernels.bait(features.at[17].set(0), taken, NUM, probs=probs, l2=0.1, labelled=labelled)
    assert rows.tolist() == [13, 1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 14]


def test_a_ridge_below_the_rounding_is_raised_to_it():
    features, taken, probs, labelled = make_rows("unsure")
    raised = np.finfo(np.float32).eps * (gradients(features, probs)[labelled] ** 2).sum()
    rows = kernels.bait(features, taken, NUM, probs=probs, l2=1e-30, labelled=labelled)
    assert rows[:3].tolist() == loop_bait(features, taken, 3, probs, labelled, raised)


def test_rows_that_are_not_finite_are_no_part_of_the_pool():
    """Two of 14 rows left are not finite, and so is the one that is labelled."""
    features, _, probs, _ = make_rows("unsure")
    rows = np.arange(40)
    finite = ~np.isin(rows, [3, 5, 30])
    taken, labelled = (rows > 3) & (rows < 30), rows == 5
    bad = features.at[5].set(jnp.nan).at[3, 2].set(jnp.inf).at[30].set(1e30)
    chosen = jax.jit(lambda features: kernels.bait(features, taken, 14, probs=probs, l2=0.1, labelled=labelled))(bad)
    left = [array[finite] for array in (features, taken, probs, labelled)]
    expected = loop_bait(*left[:2], 12, *left[2:], 0.1)
    assert chosen.tolist() == [*rows[finite][expected].tolist(), 3, 30]


@pytest.mark.slow
def test_no_gradient_is_made():
    features, taken, probs, _ = make_rows("unsure", 4000)
    program = jax.jit(partial(kernels.bait, num=3, l2=1.0)).lower(features, taken, probs=probs).compile()
    assert program.memory_analysis().temp_size_in_bytes < gradients(features, probs).size * 4


def test_refusals():
    features, taken, probs, labelled = make_rows("unsure")
    for l2 in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"l2 is {l2}; expected a ridge above 0"):
            kernels.bait(features, taken, NUM, probs=probs, l2=l2, labelled=labelled)
    with pytest.raises(ValueError, match=r"probs has shape \(40, 1\); expected .* 2 classes or more"):
        kernels.bait(features, taken, NUM, probs=jnp.ones((40, 1)), l2=1.0, labelled=labelled)
