"""The information of classes beyond the contract: dense joint probabilities, samples beside them, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_references import entropy_terms, reference_epig

from latent_al import kernels
from latent_al.kernels import information

KEYS = jax.random.split(jax.random.key(0), 3)


def draw_probs(seed, num_draws, num_rows, num_classes, disagreement=1.0):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(num_rows, num_classes))
    logits = logits + disagreement * rng.normal(size=(num_draws, num_rows, num_classes))
    probs = np.exp(logits)
    return np.float32(probs / probs.sum(axis=2, keepdims=True))


def in_float64(probs):
    """Returns the values of float32, scaled so that they sum to 1 in float64 too."""
    return probs.astype(float) / probs.astype(float).sum(axis=2, keepdims=True)


def with_row(joint, probs):
    """Returns the probabilities [k s] of joint classes with those of one more row of probabilities [k c]."""
    return (joint[:, :, None] * probs[:, None, :]).reshape(len(joint), -1)


def greedy(probs, num):
    """Returns the rows of the largest I(classes; model), by its definition, and by how much one is ahead at least."""
    probs = in_float64(probs)
    given_model = entropy_terms(probs).sum(axis=2).mean(axis=0)
    joint, rows, leads = np.ones((len(probs), 1)), [], []
    for _ in range(num):
        joints = [with_row(joint, probs[:, row]) for row in range(probs.shape[1])]
        gains = np.array([entropy_terms(candidate.mean(axis=0)).sum() for candidate in joints]) - given_model
        gains[rows] = -np.inf
        rows.append(int(gains.argmax()))
        leads.append(np.diff(np.sort(gains)[-2:])[0])
        joint = joints[rows[-1]]
    return rows, min(leads)


def test_batch_bald_is_exact_while_joint_classes_are_few(monkeypatch):
    """Over two tiles of rows and four blocks of joint classes: no key changes a row."""
    probs = draw_probs(1, num_draws=4, num_rows=260, num_classes=4)
    monkeypatch.setattr(information, "POOL_COLUMNS", 4 * 256)
    assert information.STATES == 256
    rows, lead = greedy(probs, 6)
    assert lead > 1e-4
    for key in KEYS:
        assert kernels.batch_bald(key, probs, np.zeros(260, bool), 6, num_samples=4**5).tolist() == rows


def test_batch_bald_samples_where_joint_classes_are_many():
    """Of 27 joint classes all are exact where 27 are allowed; where 26 are, the last row is a matter of the key."""
    probs = draw_probs(2, num_draws=2, num_rows=40, num_classes=3)
    taken = np.zeros(40, bool)
    exact, _ = greedy(probs, 4)
    # 27 samples are one more for each of two draws.
    assert kernels.batch_bald(KEYS[0], probs, taken, 4, num_samples=27).tolist() == exact
    keys = jax.random.split(jax.random.key(1), 8)
    rows = np.array([kernels.batch_bald(key, probs, taken, 4, num_samples=26) for key in keys])
    assert (rows[:, :3] == exact[:3]).all()
    assert len(set(rows[:, 3])) > 1


@pytest.mark.parametrize("num_samples", [1_000, 64_000])
def test_sampled_gains_converge(num_samples):
    """Within 5 standard errors, known from all 64 joint classes; as many samples of each draw make them smaller."""
    probs = draw_probs(3, num_draws=5, num_rows=20, num_classes=4)
    wide, start = in_float64(probs), jnp.zeros((num_samples, 5))
    joint, sampled = np.ones((5, 1)), information._Joint(start, start)
    for key, row in zip(KEYS, (4, 9, 1), strict=True):
        joint = with_row(joint, wide[:, row])
        sampled = information._with_row(key, sampled, jnp.asarray(probs[:, row]))
    weights = joint.mean(axis=0)
    given_classes = entropy_terms(np.einsum("ks,knc->snc", joint / joint.sum(axis=0), wide)).sum(axis=2)
    given_model = entropy_terms(wide).sum(axis=2).mean(axis=0)
    exact = weights @ given_classes
    errors = np.sqrt(weights @ (given_classes - exact) ** 2 / num_samples)
    rows = information._Rows(jnp.moveaxis(probs, 1, 0), jnp.float32(given_model))
    states = information._samples(sampled)
    gains = information._gains_of_shard(jax.tree.map(lambda leaf: leaf[None, None], rows), states)
    assert (np.abs(gains - (exact - given_model)) < 5 * errors + 1e-6).all()


@pytest.mark.parametrize("disagreement", [0.1, 1.0, 3.0])
def test_batch_bald_finds_the_largest_sampled_gain(monkeypatch, disagreement):
    """Compares with all gains in float64, where eight rows are measured at a time and three tiles are bounded."""
    probs = draw_probs(4, 6, 171, 3, disagreement)
    monkeypatch.setattr(information, "COLUMNS", 3 * 8)
    monkeypatch.setattr(information, "POOL_COLUMNS", 3 * 60)
    taken = np.arange(171) % 7 == 0
    rows = kernels.batch_bald(KEYS[0], probs, taken, 30, num_samples=48)
    wide = in_float64(probs)
    given_model = entropy_terms(wide).sum(axis=2).mean(axis=0)
    joint = information._Joint(*jnp.zeros((2, 48, 6)))
    for step, key in enumerate(jax.random.split(KEYS[0], 30)):
        if step >= 4:
            posterior = np.exp(np.float64(joint.sampled) - np.float64(joint.sampled).max(axis=1, keepdims=True))
            posterior /= posterior.sum(axis=1, keepdims=True)
            gains = entropy_terms(np.einsum("sk,knc->snc", posterior, wide)).sum(axis=2).mean(axis=0) - given_model
            assert not taken[rows[step]]
            np.testing.assert_allclose(gains[rows[step]], gains[~taken].max(), atol=2e-6)
        taken = taken | (np.arange(171) == rows[step])
        joint = information._with_row(key, joint, jnp.asarray(probs[:, rows[step]]))


def test_merged_samples_bound_gains_from_above():
    probs = jnp.asarray(draw_probs(5, num_draws=8, num_rows=50, num_classes=4))
    joint = information._Joint(*jnp.zeros((2, 400, 8)))
    columns, entropies = probs.reshape(8, -1), jnp.zeros(50)
    for row, key in enumerate(jax.random.split(KEYS[1], 12)):
        joint = information._with_row(key, joint, probs[:, row])
        states = information._samples(joint)
        gains = information._gains(columns, entropies, states)
        bounds = information._gains(columns, entropies, information._merged(states))
        assert (bounds > gains - 1e-6).all()
        assert (bounds - gains).max() < 0.2 * gains.max()


def test_batch_bald_does_not_select_what_tells_the_same():
    """Four draws, of two bits: two rows tell the first surely, and one the second, with a doubt."""
    first, second = np.array([1, 1, 0, 0]), np.array([0.9, 0.1, 0.9, 0.1])
    ones = np.stack([first, first, second, np.full(4, 0.5)], axis=1)
    probs, taken = np.stack([ones, 1 - ones], axis=2), np.zeros(4, bool)
    bald = entropy_terms(probs.mean(axis=0)).sum(axis=1) - entropy_terms(probs).sum(axis=2).mean(axis=0)
    assert kernels.top_k(bald, taken, 2).tolist() == [0, 1]
    for num_samples in (1, 100):
        assert kernels.batch_bald(KEYS[0], probs, taken, 2, num_samples=num_samples).tolist() == [0, 2]


@pytest.mark.parametrize("num_samples", [2, 100])
def test_ties_go_to_the_lowest_row(num_samples):
    probs = np.repeat(draw_probs(0, num_draws=3, num_rows=1, num_classes=4), 9, axis=1)
    rows = kernels.batch_bald(KEYS[0], probs, np.arange(9) == 1, 4, num_samples=num_samples)
    assert rows.tolist() == [0, 2, 3, 4]


def test_one_row_left():
    probs = draw_probs(0, num_draws=3, num_rows=5, num_classes=4)
    assert kernels.batch_bald(KEYS[0], probs, np.arange(5) != 3, 1, num_samples=9).tolist() == [3]
    assert kernels.batch_bald(KEYS[0], probs[:, :1], np.zeros(1, bool), 1, num_samples=9).tolist() == [0]
    np.testing.assert_allclose(kernels.epig(probs[:, :1], probs), reference_epig(probs[:, :1], probs), rtol=1e-4)


def test_rows_that_are_not_finite_come_last_inside_jit():
    probs = draw_probs(0, num_draws=3, num_rows=6, num_classes=4)
    probs[1, 2] = np.nan
    select = jax.jit(lambda probs: kernels.batch_bald(KEYS[0], probs, jnp.arange(6) == 0, 6, num_samples=5))
    rows = select(probs).tolist()
    assert sorted(rows[:4]) == [1, 3, 4, 5]
    assert rows[4:] == [2, 6]


@pytest.mark.parametrize("disagreement", [1.0, 0.03])
def test_epig_over_several_tiles(disagreement):
    """Small ones too: in float32, entropies of which they are the difference round by as much."""
    probs = draw_probs(4, num_draws=5, num_rows=200, num_classes=6, disagreement=disagreement)
    target_probs = draw_probs(5, num_draws=5, num_rows=190, num_classes=6, disagreement=disagreement)
    exact = reference_epig(in_float64(probs), in_float64(target_probs))
    np.testing.assert_allclose(kernels.epig(probs, target_probs), exact, rtol=1e-4)


def test_epig_is_of_what_targets_and_rows_share():
    """Of two bits of the draws, one is the class of the only target: a row tells it, the other bit, or nothing."""
    first, second = np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])
    ones = np.stack([second, first, np.full(4, 0.5)], axis=1)
    probs = np.stack([ones, 1 - ones], axis=2)
    np.testing.assert_allclose(kernels.epig(probs, probs[:, 1:2]), [0, 1, 0], atol=1e-6)


def test_gradient_of_epig_at_saturated_rows():
    logits = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    logits[:, 0, 0], logits[1, 1, 2], logits[:, 2, 3] = 200, 90, -70
    gradient = jax.grad(lambda logits: kernels.epig(*[jax.nn.softmax(logits)] * 2).sum())(jnp.array(logits))
    assert jnp.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[:, 0], 0, atol=1e-6)


PROBS = draw_probs(0, num_draws=3, num_rows=6, num_classes=4)


@pytest.mark.parametrize(
    "probs, target_probs, message",
    [
        (PROBS[:1], PROBS[:1], r"probs has shape \(1, 6, 4\); expected .* 2 draws or more, since one model agrees"),
        (np.ones((3, 6, 1)), np.ones((3, 6, 1)), r"shape \(3, 6, 1\); expected .* and 2 classes or more"),
        (
            PROBS,
            draw_probs(0, 3, 6, 5),
            r"probs has shape \(3, 6, 4\) and target_probs \(3, 6, 5\); .* the same size c",
        ),
        (PROBS, PROBS[:2], r"target_probs \(2, 6, 4\); .* the same size k"),
        (PROBS[0], PROBS, r"probs has shape \(6, 4\); expected \[k n c\]"),
    ],
)
def test_shapes_that_do_not_go_together(probs, target_probs, message):
    with pytest.raises(ValueError, match=message):
        kernels.epig(probs, target_probs)


def test_what_is_refused_names_the_row():
    """Of one draw only; the row of the lowest number comes first, whatever its draw."""
    logits, taken = PROBS.copy(), np.zeros(6, bool)
    logits[2, 3], logits[0, 4] = [2, -1, 0, 0], [0.5, 0.6, 0, 0]
    message = (
        "2 of 6 rows of {} are not probabilities, the first is row 3: it runs from -1 to 2 and sums to 1; .*for logits"
    )
    with pytest.raises(ValueError, match=message.format("probs")):
        kernels.batch_bald(KEYS[0], logits, taken, 2, num_samples=9)
    with pytest.raises(ValueError, match=message.format("target_probs")):
        kernels.epig(PROBS, logits)
    with pytest.raises(ValueError, match=r"probs has shape \(1, 6, 4\); expected .* 2 draws or more"):
        kernels.batch_bald(KEYS[0], PROBS[:1], taken, 2, num_samples=9)
    with pytest.raises(ValueError, match="num_samples is 0; expected 1 or more"):
        kernels.batch_bald(KEYS[0], PROBS, taken, 2, num_samples=0)
