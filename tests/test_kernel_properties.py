"""Selection for any type, mask, tie and NaN: the right rows, or a refusal with its reason."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_al import kernels
from latent_al.kernels import distances

TYPES = [np.dtype(name) for name in ("bool", "int8", "uint8", "int32", "float16", "float32", "float64")]
TYPES.append(np.dtype(ml_dtypes.bfloat16))
SIZES = (1, 3, 8)
LEVELS = (0.0, -0.0, 1.0, 2.0, 3.0, -1.0)
SPECIAL = (np.nan, np.inf, -np.inf)


def select_top(scores, points, taken, num):
    return kernels.top_k(scores, taken, num)


def select_from_partitions(scores, points, taken, num):
    return kernels.random_partitions(jax.random.key(0), scores, taken, num)


def select_diverse(scores, points, taken, num):
    return kernels.greedy_diverse(scores, points, taken, num, distance=distances.euclidean_to_point, weight=0.5)


def select_farthest(scores, points, taken, num):
    return kernels.farthest_first(points, taken, num, first=int(np.argmin(taken)))


def select_nearest(scores, points, taken, num):
    return kernels.nearest_to(points, taken, targets=np.zeros((num, 2), np.float32))


SELECTIONS = (select_top, select_from_partitions, select_diverse, select_farthest, select_nearest)


def expected_rows(select, scores, points, taken, num):
    """Returns the rows in float64, or None where they are random."""
    left = np.flatnonzero(~taken)
    scores, points = scores.astype(float), points.astype(float)
    if select is select_top:
        return left[np.argsort(-scores[left], kind="stable")][:num].tolist()
    if select is select_nearest:
        return left[np.argsort((points[left] ** 2).sum(axis=1), kind="stable")][:num].tolist()
    if select is select_farthest:
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
def pools(draw):
    size = draw(st.sampled_from(SIZES))
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
    read = scores if select in (select_top, select_from_partitions) else points
    is_read = [read, scores] if select is select_diverse else [read]
    values = np.concatenate([array.astype(float).ravel() for array in is_read])
    has_nan = np.isnan(values).any()
    has_infinite = select not in (select_top, select_from_partitions) and np.isinf(points.astype(float)).any()
    if has_nan or has_infinite or num > (~taken).sum():
        with pytest.raises(ValueError, match="are NaN|NaN, infinite|rows asked for but only"):
            select(convert(scores), convert(points), convert(taken), num)
    else:
        rows = np.asarray(select(convert(scores), convert(points), convert(taken), num)).tolist()
        assert len(set(rows)) == num
        assert not taken[rows].any()
        assert expected_rows(select, scores, points, taken, num) in (None, rows)
    if select is not select_farthest:
        rows = np.asarray(jax.jit(select, static_argnums=3)(scores, points, taken, num)).tolist()
        there = [row for row in rows if row < len(taken)]
        assert len(set(there)) == len(there) == min(num, (~taken).sum())
        assert rows[len(there) :] == [len(taken)] * (num - len(there))
        assert not taken[there].any()


@pytest.mark.parametrize("select", SELECTIONS, ids=lambda select: select.__name__)
class TestSelections:
    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(pools())
    def test_right_rows_or_a_refusal(self, select, pool):
        check(select, pool)

    @pytest.mark.slow
    @settings(max_examples=4000, deadline=None)
    @given(pools())
    def test_right_rows_or_a_refusal_at_random(self, select, pool):
        check(select, pool)


@pytest.mark.parametrize("measure", [kernels.least_confident, kernels.margin, kernels.entropy])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0, 2.0, np.nan]), min_size=6, max_size=6))
def test_probabilities_or_a_refusal(measure, values):
    probs = np.array(values).reshape(2, 3)
    if (probs >= 0).all() and (abs(probs.sum(axis=1) - 1) <= 1e-3).all():
        assert ((measure(probs) >= 0) & (measure(probs) <= 1)).all()
    else:
        with pytest.raises(ValueError, match=r"rows of probs are no probabilities, the first is row [01]"):
            measure(probs)
