"""Estimates from the audit slice: accuracy, calibrated confidence, the gain of more labels, and of random labels.

The audit slice is drawn at random and never trained on, so that a share of it is an unbiased estimate for the pool.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize_scalar
from sklearn.model_selection import KFold
from statsmodels.stats.proportion import proportion_confint

from latent_al import loop
from latent_al.results.statistics import paired_difference
from latent_al.runtime.mesh import over_seeds
from latent_al.types import ROUND_AXES, SCORE_AXES, STATE_AXES, Key, Learner, Problem, RoundState

CALIBRATING = 20
"""Audit labels below which confidence is not calibrated, and strategies are not compared."""
ROUNDS = 5
"""Last rounds through which the trend of accuracy is drawn."""
FOLDS, REPEATS = 5, 3


def accuracy(correct: Bool[np.ndarray, " m"]) -> dict | None:
    """Returns the share of the audit slice that is predicted correctly; None without labels.

    The bounds `low` and `high` are those of Wilson's interval of 95 %.

    Source: Brown, Cai and DasGupta (2001).
    """
    if not len(correct):
        return None
    low, high = proportion_confint(correct.sum(), len(correct), method="wilson")
    return dict(mean=float(correct.mean()), low=float(low), high=float(high), num=len(correct))


def temperature(probs: Float[np.ndarray, "m c"], labels: Int[np.ndarray, " m"]) -> float | None:
    """Returns the temperature that calibrates confidence, in [0.05, 20]; None with few labels.

    Source: Guo et al. (2017), section 4.2.
    """
    if len(labels) < CALIBRATING:
        return None

    def loss(log_temperature):
        of_labels = soften(probs, np.exp(log_temperature))[np.arange(len(labels)), labels]
        return -np.log(np.maximum(of_labels, 1e-12)).mean()

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def soften(probs: Float[np.ndarray, "n c"], temperature: float) -> Float[np.ndarray, "n c"]:
    """Returns probabilities whose logits are divided by `temperature`."""
    logits = np.log(np.maximum(probs, 1e-30)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def calibration_error(confidence: Float[np.ndarray, " m"], correct: Bool[np.ndarray, " m"]) -> float | None:
    """Returns the expected calibration error in ten bins of confidence, in [0, 1]; None without labels."""
    if not len(correct):
        return None
    bins = np.minimum((confidence * 10).astype(int), 9)
    gaps = [abs((correct[bins == index] - confidence[bins == index]).sum()) for index in np.unique(bins)]
    return float(np.sum(gaps) / len(correct))


def expected_gain(
    correct: Bool[np.ndarray, "rounds m"], num_labels: Int[np.ndarray, " rounds"], query_size: int
) -> dict | None:
    """Returns the accuracy that the next `query_size` labels would add at the rate of the last rounds, in [-1, 1].

    A line is fitted to accuracy over the logarithm of the labels. The interval of 95 % is a bootstrap over audit
    images, each of which takes part in all rounds. None for fewer than three rounds or two images.
    """
    correct, num_labels = correct[-ROUNDS:], num_labels[-ROUNDS:]
    if len(num_labels) < 3 or correct.shape[1] < 2 or num_labels[0] == num_labels[-1]:
        return None
    x = np.log(num_labels) - np.log(num_labels).mean()
    gains = (x @ correct) / (x @ x) * np.log1p(query_size / num_labels[-1])
    return _interval(paired_difference(gains, np.zeros_like(gains)))


def against_random(
    key: Key,
    learner: Learner,
    chosen: tuple[Float[np.ndarray, "k d"], Int[np.ndarray, " k"]],
    audit: tuple[Float[np.ndarray, "m d"], Int[np.ndarray, " m"]],
) -> dict | None:
    """Returns the accuracy by the first selected labels less that by as many random ones, which the audit slice lends.

    Each part of the audit slice is predicted by what is trained on the other parts, and by what is trained on as many
    of the selected labels. The interval of 95 % is a bootstrap over audit images. None with few labels.

    Args:
        key: of the fits.
        learner: as in the rounds.
        chosen: latents and classes of the images that the strategies selected, in that order.
        audit: those of the audit slice.
    """
    num_chosen, num_audit = len(chosen[1]), len(audit[1])
    num = min(num_chosen, num_audit - -(-num_audit // FOLDS))
    if num_audit < CALIBRATING or num < CALIBRATING // 2:
        return None
    inputs, labels = (jnp.concatenate([jnp.asarray(a), jnp.asarray(b)]) for a, b in zip(chosen, audit, strict=True))
    folds = [fold for seed in range(REPEATS) for fold in KFold(FOLDS, shuffle=True, random_state=seed).split(audit[1])]
    # A fold's rows are sorted, and a folder often runs class by class: its first rows would be no random ones.
    rng = np.random.default_rng(0)
    drawn = [num_chosen + rng.permutation(train)[:num] for train, _ in folds]
    rows = [np.arange(num) for _ in folds] + drawn

    def fit(key, setting, state, problem):
        return loop.fit(key, state, problem, learner=learner)

    def predict(setting, state, inputs):
        _, probs = learner.predict(state.params, inputs)
        return probs.argmax(axis=1)

    state = RoundState(jnp.asarray(np.stack(rows), jnp.int32), jnp.int32(num), None, None, jnp.int32(0))
    keys = jax.random.split(key, len(rows))
    state, _ = over_seeds(fit, ROUND_AXES, (STATE_AXES, 0))(keys, {}, state, Problem(inputs, labels, None))
    predicted = over_seeds(predict, SCORE_AXES)({}, state, inputs[num_chosen:])
    correct = np.asarray(predicted) == audit[1][None, :]
    by_chosen, by_random = correct[: len(folds)].astype(float), correct[len(folds) :]
    gaps = np.zeros(num_audit)
    for (_, held_out), ours, theirs in zip(folds, by_chosen, by_random, strict=True):
        gaps[held_out] += (ours[held_out] - theirs[held_out]) / REPEATS
    return _interval(paired_difference(gaps, np.zeros(num_audit))) | dict(num=num)


def _interval(difference):
    return {name: float(difference[name]) for name in ("mean", "low", "high")}
