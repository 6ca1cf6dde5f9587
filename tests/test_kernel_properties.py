"""Selection for any type, mask, tie and NaN: the right rows, or a refusal with its reason."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latent_al import kernels
from latent_al.kernels import distances

TYPES = [np.dtype(name) for name in ("bool", "int8", "uint8", "int32", "float16", "float32", "float64")]
TYPES.append(np.dtype(ml_dtypes.bfloat16))
FEW_SIZES, MORE_SIZES = st.sampled_from((1, 3, 8)), st.sampled_from((1, 2, 5, 13))
LEVELS = (0.0, -0.0, 1.0, 2.0, 3.0, -1.0)
SPECIAL = (np.nan, np.inf, -np.inf)


def select_top(scores, points, taken, num):
    return kernels.top_k(scores, taken, num)


def select_from_partitions(scores, points, taken, num):
    return kernels.random_partitions(jax.random.key(0), scores, taken, num)


def select_diverse(scores, points, taken, num):
    return kernels.greedy_diverse(scores, points, taken, num, distance=distances.euclidean_to_point, weight=0.5)


def select_farthest(scores, points, taken, num):
    return kernels.farthest_first(points, taken, num)


def select_cover(scores, points, taken, num):
    return kernels.cover(points, taken, num).rows


def select_nearest(scores, points, taken, num):
    return kernels.nearest_to(points, taken, targets=np.zeros((num, 2), np.float32))


def select_by_badge(scores, points, taken, num):
    return kernels.badge(jax.random.key(0), np.full((len(taken), 2), 0.5), points, taken, num)


def select_typical(scores, points, taken, num):
    settings = dict(clusters=np.arange(len(taken)) % 2, included=np.ones(len(taken), bool))
    return kernels.most_typical(points, taken, num, num_clusters=2, num_neighbours=2, **settings)


def select_matched(scores, points, taken, num):
    distribution = kernels.sampling.Distribution(np.zeros((2, 2)), np.stack([np.eye(2)] * 2), True)
    settings = dict(clusters=np.arange(len(taken)) % 2, distribution=distribution, threshold=1.0, all_within=False)
    return kernels.draw_and_match(jax.random.key(0), points, taken, num, **settings).rows


def select_supporting(scores, points, taken, num):
    return kernels.explain(scores, jnp.where(jnp.asarray(taken), -1, 0), num).supporting


BY_SCORES = (select_top, select_from_partitions, select_supporting)
BY_POINTS = (select_farthest, select_cover, select_nearest, select_by_badge, select_typical)
SELECTIONS = (*BY_SCORES, select_diverse, *BY_POINTS)


def expected_rows(select, scores, points, taken, num):
    """Returns the rows in float64, or None where they are random."""
    left = np.flatnonzero(~taken)
    scores, points = scores.astype(float), points.astype(float)
    if select in (select_top, select_supporting):
        return left[np.argsort(-scores[left], kind="stable")][:num].tolist()
    if select is select_nearest:
        return left[np.argsort((points[left] ** 2).sum(axis=1), kind="stable")][:num].tolist()
    if select in (select_farthest, select_cover):
        return _farthest(points, taken, num)
    return None


def _farthest(points, taken, num):
    centres, rows = np.flatnonzero(taken).tolist(), []
    for _ in range(num):
        gaps = ((points[:, None] - points[None, centres]) ** 2).sum(axis=2).min(axis=1, initial=np.inf)
        gaps[taken] = -1
        gaps[rows] = -1
        rows.append(int(gaps.argmax()))
        centres.append(rows[-1])
    return rows


@st.composite
def pools(draw, sizes):
    size = draw(sizes)
    dtype = draw(st.sampled_from(TYPES))
    levels = LEVELS[:4] if dtype.kind in "bu" else LEVELS
    levels = levels if dtype.kind in "biu" or draw(st.integers(0, 3)) else levels + SPECIAL
    scores = draw(st.lists(st.sampled_from(levels), min_size=size, max_size=size))
    points = draw(st.lists(st.sampled_from(levels), min_size=2 * size, max_size=2 * size))
    taken = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    num = draw(st.integers(1, size))
    arrays = np.array(scores).astype(dtype), np.array(points).astype(dtype).reshape(size, 2), np.array(taken)
    return *arrays, num, draw(st.sampled_from([np.asarray, jnp.asarray]))


def check(select, pool):
    scores, points, taken, num, convert = pool
    read = scores if select in BY_SCORES else points
    is_read = [read, scores] if select is select_diverse else [read]
    values = np.concatenate([array.astype(float).ravel() for array in is_read])
    has_nan = np.isnan(values).any()
    has_infinite = select not in BY_SCORES and np.isinf(points.astype(float)).any()
    if has_nan or has_infinite or num > (~taken).sum():
        with pytest.raises(ValueError, match="are NaN|NaN, infinite|asked for but only"):
            select(convert(scores), convert(points), convert(taken), num)
    else:
        rows = np.asarray(select(convert(scores), convert(points), convert(taken), num)).tolist()
        assert len(set(rows)) == num
        assert not taken[rows].any()
        assert expected_rows(select, scores, points, taken, num) in (None, rows)
    rows = np.asarray(jax.jit(select, static_argnums=3)(scores, points, taken, num)).tolist()
    there = [row for row in rows if row < len(taken)]
    assert len(set(there)) == len(there) == min(num, (~taken).sum())
    assert rows[len(there) :] == [len(taken)] * (num - len(there))
    assert not taken[there].any()


@pytest.mark.parametrize("select", SELECTIONS, ids=lambda select: select.__name__)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(pools(FEW_SIZES))
def test_right_rows_or_a_refusal(select, pool):
    check(select, pool)


@pytest.fixture
def no_programs():
    """Without the programs of earlier tests, of which one process holds some thousands."""
    jax.clear_caches()


@pytest.mark.slow
@pytest.mark.parametrize("select", [*SELECTIONS, select_matched], ids=lambda select: select.__name__)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pools(MORE_SIZES))
def test_right_rows_or_a_refusal_at_random(no_programs, select, pool):
    check(select, pool)


@pytest.mark.parametrize("measure", [kernels.least_confident, kernels.margin, kernels.entropy])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0, 2.0, np.nan]), min_size=6, max_size=6))
def test_probabilities_or_a_refusal(measure, values):
    probs = np.array(values).reshape(2, 3)
    if (probs >= 0).all() and (abs(probs.sum(axis=1) - 1) <= 1e-3).all():
        assert ((measure(probs) >= 0) & (measure(probs) <= 1)).all()
    else:
        with pytest.raises(ValueError, match=r"rows of probs are not probabilities, the first is row [01]"):
            measure(probs)
