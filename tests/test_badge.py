"""BADGE beside k-means++ on gradients that are made in full, in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from latent_al import kernels
from latent_al.kernels._random import draw_row


def make_rows(kind, size=60):
    """Makes probs [n 4], features [n 5] and taken [n]."""
    rng = np.random.default_rng(3)
    logits, features = rng.normal(size=(size, 4)), rng.normal(size=(size, 5))
    if kind == "duplicates":
        logits, features = logits[np.arange(size) % 3], features[np.arange(size) % 3]
    probs = jax.nn.softmax(jnp.float32({"sure": 8, "one-hot": 1e6}.get(kind, 1) * logits))
    return probs, jnp.float32(features), jnp.arange(size) % 5 == 0


def gradients(probs, features):
    probs, features = np.float64(probs), np.float64(features)
    residuals = probs - np.eye(probs.shape[1])[probs.argmax(axis=1)]
    return np.einsum("nc,nf->ncf", residuals, features).reshape(len(probs), -1)


def loop_draw(weights, uniform):
    side = 1 + int(len(weights) ** 0.5)
    square = np.append(weights, np.zeros(side**2 - len(weights))).reshape(side, side)
    column = np.searchsorted(square.sum(axis=0).cumsum(), uniform[0] * weights.sum(), side="right")
    totals = square[:, column].cumsum()
    return int(side * np.searchsorted(totals, uniform[1] * totals[-1], side="right") + column)


def loop_badge(key, probs, features, taken, num):
    embedded = gradients(probs, features)
    rows = [int(np.where(taken, -1, (embedded**2).sum(axis=1)).argmax())]
    for uniform in np.float64(jax.random.uniform(key, (num - 1, 2))):
        nearest = ((embedded[:, None] - embedded[rows]) ** 2).sum(axis=2).min(axis=1)
        rows.append(loop_draw(np.where(taken, 0, nearest), uniform))
    return rows


@pytest.mark.parametrize("kind", ["unsure", "sure"])
def test_equals_the_loop(kind):
    for seed in range(3):
        key = jax.random.key(seed)
        assert kernels.badge(key, *make_rows(kind), 48).tolist() == loop_badge(key, *make_rows(kind), 48)


def test_rows_are_drawn_in_proportion_to_their_squared_distances():
    probs, features, taken = make_rows("unsure", 12)
    keys = jax.random.split(jax.random.key(0), 10_000)
    first, second = np.asarray(jax.vmap(lambda key: kernels.badge(key, probs, features, taken, 2))(keys)).T
    embedded = gradients(probs, features)
    assert (first == np.where(taken, -1, (embedded**2).sum(axis=1)).argmax()).all()
    sq_distances = np.where(taken, 0, ((embedded - embedded[first[0]]) ** 2).sum(axis=1))
    shares = np.bincount(second, minlength=12) / len(keys)
    np.testing.assert_allclose(shares, sq_distances / sq_distances.sum(), atol=0.018)
    assert not shares[sq_distances == 0].any()


@pytest.mark.parametrize("kind", ["duplicates", "one-hot"])
def test_fewer_distinct_gradients_than_rows_asked_for(kind):
    probs, features, taken = make_rows(kind)
    rows = np.asarray(kernels.badge(jax.random.key(0), probs, features, taken, 48))
    assert sorted(rows) == np.flatnonzero(~taken).tolist()
    if kind == "duplicates":
        assert sorted(rows[:3] % 3) == [0, 1, 2]
    else:
        assert rows[0] == 1
        assert (np.diff(rows) < 0).any()


def test_inside_jit_no_gradient_is_made_and_those_not_finite_come_last():
    probs, features, taken = make_rows("unsure", 1000)
    features = features.at[7].set(jnp.nan).at[2].set(jnp.inf).at[5].set(jnp.nan)
    with pytest.raises(ValueError, match="3 of 1000 rows of features are NaN, infinite .* the first is row 2;"):
        kernels.badge(jax.random.key(0), probs, features, taken, 800)
    given = jax.random.key(0), probs, features, taken
    program = jax.jit(partial(kernels.badge, num=800)).lower(*given).compile()
    rows = program(*given)
    assert sorted(rows.tolist()) == np.flatnonzero(~taken).tolist()
    assert sorted(rows[-2:].tolist()) == [2, 7]
    assert program.memory_analysis().temp_size_in_bytes < gradients(probs, features).size * 4


def test_rows_that_are_not_finite_come_after_equal_ones():
    probs, features = jnp.full((6, 2), 0.5), jnp.ones((6, 1)).at[jnp.array([1, 4])].set(jnp.nan)
    select = jax.jit(jax.vmap(partial(kernels.badge, num=6), (0, None, None, None)))
    rows = np.asarray(select(jax.random.split(jax.random.key(0), 20), probs, features, jnp.zeros(6, bool)))
    assert (np.sort(rows) == np.arange(6)).all()
    assert np.isin(rows[:, -2:], [1, 4]).all()


def test_one_row_and_impossible_sizes():
    key, rows = jax.random.key(0), (jnp.ones((1, 2)) / 2, jnp.ones((1, 3)), jnp.array([False]))
    assert kernels.badge(key, *rows, 1).tolist() == [0]
    for num in (0, 2):
        with pytest.raises(ValueError, match=f"num is {num}; expected at least 1 and at most the 1 rows"):
            kernels.badge(key, *rows, num)
    with pytest.raises(ValueError, match="1 rows asked for but only 0 of 1 are left"):
        kernels.badge(key, *rows[:2], jnp.array([True]), 1)


def test_shapes_that_differ_are_refused(monkeypatch):
    probs, features, taken = make_rows("unsure")
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(
        ValueError, match=r"probs has shape \(60, 4\) and features \(59, 5\); expected \[n c\] and \[n f\]"
    ):
        kernels.badge(jax.random.key(0), probs, features[1:], taken, 3)


def test_no_row_of_weight_0_is_drawn():
    weights = np.tile([0.1, 0.7, 0, 0, 1e-3], 41)
    one = np.append(np.linspace(0, 0.999, 50), 1 - 2**-24)
    uniforms = np.float32(np.stack(np.meshgrid(one, one), axis=-1).reshape(-1, 2))
    draw = jax.jit(jax.vmap(draw_row, (None, 0)))
    for each in (weights, np.where(weights > 0, np.inf, 0), np.eye(205)[3] * 1e-30):
        each = np.float32(each)
        assert (each[draw(each, uniforms)] > 0).all()
