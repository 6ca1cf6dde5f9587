"""Estimates from the audit slice: accuracy, that of each class, confidence, and the gain of more or of random labels.

The audit slice is drawn at random and never trained on, so that a share of it is an unbiased estimate for the pool.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special, stats
from scipy.optimize import minimize, minimize_scalar
from sklearn.model_selection import KFold
from statsmodels.stats.proportion import proportion_confint

from latent_al import loop
from latent_al.labelling import selection
from latent_al.runtime.mesh import over_seeds
from latent_al.types import ROUND_AXES, SCORE_AXES, STATE_AXES, Key, Learner, Problem, RoundState

CALIBRATING = 20
"""Audit labels below which confidence is not calibrated, and strategies are not compared."""
ROUNDS = 5
"""Last rounds through which the trend of accuracy is drawn."""
PAYS = 0.02
"""The accuracy that a batch, or a strategy, has to add to be worth having."""
FOLDS, REPEATS = 5, 3


def accuracy(correct: Bool[np.ndarray, " m"]) -> dict | None:
    """Returns the share of the audit images that is predicted correctly; None without labels."""
    return _share(int(correct.sum()), len(correct)) if len(correct) else None


def by_class(truth: Int[np.ndarray, " m"], predicted: Int[np.ndarray, " m"], num_classes: int) -> dict:
    """Returns recall and precision of each class, and balanced accuracy.

    Returns:
        `confusion` counts audit images, [true class][predicted class]. `recall` and `precision` are lists of shares,
        None for a class that no audit image has, or is predicted as. `balanced` is the mean recall of the classes that
        the audit images hold, None without any; its interval combines those of the recalls.

    Source: Zou and Donner (2008) for the interval of the mean.
    """
    confusion = np.zeros((num_classes, num_classes), int)
    np.add.at(confusion, (truth, predicted), 1)
    recall, precision = (_shares(np.diag(confusion), confusion.sum(axis=axis)) for axis in (1, 0))
    balanced = mean_share([share for share in recall if share])
    return dict(confusion=confusion.tolist(), recall=recall, precision=precision, balanced=balanced)


def mean_share(shares: list[dict]) -> dict | None:
    """Returns the mean of shares, with an interval that combines theirs; None without any (Zou and Donner, 2008)."""
    if not shares:
        return None
    mean, low, high = (np.array([share[name] for share in shares]) for name in ("mean", "low", "high"))
    below, above = (np.sqrt(((mean - bound) ** 2).sum()) / len(shares) for bound in (low, high))
    return dict(mean=float(mean.mean()), low=float(mean.mean() - below), high=float(mean.mean() + above))


def most_of_unseen(num: int) -> float:
    """Returns the share of the pool below which, with 95 % confidence, a class stays that `num` images do not hold."""
    return float(1 - 0.05 ** (1 / num))


def temperature(probs: Float[np.ndarray, "m c"], labels: Int[np.ndarray, " m"]) -> float | None:
    """Returns the temperature that calibrates confidence, in [0.05, 20]; None with few labels.

    Source: Guo et al. (2017), section 4.2.
    """
    return _temperature(probs, labels) if len(labels) >= CALIBRATING else None


def soften(probs: Float[np.ndarray, "n c"], temperature: float) -> Float[np.ndarray, "n c"]:
    """Returns probabilities whose logits are divided by `temperature`."""
    logits = np.log(np.maximum(probs, 1e-30)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def calibration_error(probs: Float[np.ndarray, "m c"], labels: Int[np.ndarray, " m"]) -> dict | None:
    """Returns how far calibrated confidence is from the share that is correct, on average, in [0, 1].

    Each part of the audit images is calibrated with the temperature of the other parts. The share that is correct is a
    logistic curve over the logit of confidence: bins would be noise on so few images. The mean gap is shrunk by what
    noise alone adds to it. The 95 % interval reaches as far to both sides as noise does, and to the lowest accuracy in
    Wilson's interval. Returns None with few labels.

    Args:
        probs: as predicted, not calibrated.
        labels: their classes.

    Source: Kumar, Liang and Ma (2019) for taking noise away.
    """
    if len(labels) < CALIBRATING:
        return None
    confidence, correct = np.empty(len(labels)), np.empty(len(labels), bool)
    for train, held_out in KFold(FOLDS, shuffle=True, random_state=0).split(labels):
        softened = soften(probs[held_out], _temperature(probs[train], labels[train]))
        confidence[held_out] = softened.max(axis=1)
        correct[held_out] = softened.argmax(axis=1) == labels[held_out]
    logits = special.logit(np.clip(confidence, 1e-6, 1 - 1e-6))
    features = np.stack([np.ones(len(logits)), logits - logits.mean()], axis=1)
    curve = _logistic(features, logits, correct)
    drawn = np.random.default_rng(0).multivariate_normal(curve.mean, curve.covariance, 2000)
    gaps = special.expit(logits + features @ curve.mean) - special.expit(logits)
    noise = special.expit(logits + drawn @ features.T) - special.expit(logits) - gaps
    size, reach = np.abs(gaps).mean(), np.quantile(np.abs(noise).mean(axis=1), 0.95)
    kept = 1 - (noise**2).mean() / max((gaps**2).mean(), 1e-12)
    mean = size * np.sqrt(max(kept, 0.0))
    # Where all are correct, no curve has noise, and yet a few in a hundred may be wrong.
    high = max(size + reach, confidence.mean() - accuracy(correct)["low"])
    return dict(mean=float(mean), low=float(max(size - reach, 0.0)), high=float(high))


def expected_gain(
    correct: Bool[np.ndarray, "rounds m"], num_labels: Int[np.ndarray, " rounds"], query_size: int
) -> dict | None:
    """Returns the accuracy that the next `query_size` labels would add at the rate of the last rounds, in [-1, 1].

    A line is fitted to accuracy over the logarithm of the labels. The 95 % interval, from `low` to `high`, includes the
    noise of the audit images, each of which takes part in all rounds, and that of the rounds about the line. Learning
    curves bend: where a parabola through the rounds adds less than the line, `low` is lower by the difference. `power`
    is the chance that `high` would be below `PAYS` if labels added nothing. Returns None for fewer than three rounds,
    or two images.
    """
    correct, num_labels = correct[-ROUNDS:], num_labels[-ROUNDS:]
    num_rounds, num_images = correct.shape
    if num_rounds < 3 or num_images < 2 or num_labels[0] == num_labels[-1]:
        return None
    x = np.log(num_labels) - np.log(num_labels).mean()
    weights = x / (x @ x) * np.log1p(query_size / num_labels[-1])
    mean = weights @ correct.mean(axis=1)
    # Adds an image that is learned and one that is forgotten, lest images that all stay as they are seem certain.
    gains = np.append(weights @ correct, np.array([1, -1]) * weights[x > 0].sum())
    of_images = gains.var(ddof=1) / len(gains)
    residuals = correct.mean(axis=1) - correct.mean() - x * (x @ correct.mean(axis=1)) / (x @ x)
    of_rounds = residuals @ residuals / (num_rounds - 2) * (weights @ weights)
    error = np.sqrt(of_images + of_rounds)
    # Welch and Satterthwaite's degrees of freedom, for a variance of which a part is known.
    freedom = (num_rounds - 2) * (1 + of_images / max(of_rounds, 1e-12)) ** 2
    quantile = stats.t.ppf(0.975, freedom)
    power = stats.t.cdf(PAYS / error - quantile, freedom)
    degree = min(2, len(np.unique(num_labels)) - 1)
    parabola = np.poly1d(np.polyfit(np.log(num_labels), correct.mean(axis=1), degree))
    bent = parabola(np.log(num_labels[-1] + query_size)) - parabola(np.log(num_labels[-1]))
    bounds = dict(low=float(min(mean, bent) - quantile * error), high=float(mean + quantile * error))
    return dict(mean=float(mean), power=float(power)) | bounds


def against_random(
    key: Key,
    learner: Learner,
    chosen: tuple[Float[np.ndarray, "k d"], Int[np.ndarray, " k"]],
    audit: tuple[Float[np.ndarray, "m d"], Int[np.ndarray, " m"]],
) -> dict | None:
    """Returns the accuracy with the first selected labels minus that with as many random ones, from the audit slice.

    Each part of the audit slice is predicted by a learner trained on the other parts, and by one trained on as many of
    the selected labels. The 95 % interval is that of the corrected resampled t-test, since the fits share most of their
    labels. Returns None with few labels.

    Args:
        key: of the fits.
        learner: as in the rounds.
        chosen: latents and classes of the images that the strategies selected, in that order.
        audit: those of the audit slice.

    Source: Nadeau and Bengio (2003).
    """
    num_audit = len(audit[1])
    num = min(len(chosen[1]), num_audit - -(-num_audit // FOLDS))
    if num_audit < CALIBRATING or num < CALIBRATING // 2:
        return None
    # Sizes that rounds share; the extra rows are copies.
    size = selection.round_up(num + num_audit)
    both = (np.concatenate([first[:num], second]) for first, second in zip(chosen, audit, strict=True))
    inputs, labels = (jnp.asarray(np.resize(rows, (size, *rows.shape[1:]))) for rows in both)
    folds = [fold for seed in range(REPEATS) for fold in KFold(FOLDS, shuffle=True, random_state=seed).split(audit[1])]
    # A fold's rows are sorted, and a folder often goes class by class: its first rows would not be random.
    rng = np.random.default_rng(0)
    drawn = [num + rng.permutation(train)[:num] for train, _ in folds]
    rows = np.full((2 * len(folds), selection.round_up(num)), size, np.int32)
    rows[:, :num] = [np.arange(num) for _ in folds] + drawn

    def fit(key, setting, state, problem):
        return loop.fit(key, state, problem, learner=learner)

    def predict(setting, state, inputs):
        _, probs = learner.predict(state.params, inputs)
        return probs.argmax(axis=1)

    state = RoundState(jnp.asarray(rows), jnp.int32(num), None, None, jnp.int32(0))
    keys = jax.random.split(key, len(rows))
    state, _ = over_seeds(fit, ROUND_AXES, (STATE_AXES, 0))(keys, {}, state, Problem(inputs, labels, None))
    predicted = np.asarray(over_seeds(predict, SCORE_AXES)({}, state, inputs))
    correct = predicted[:, num : num + num_audit] == audit[1][None, :]
    gaps = correct[: len(folds)].astype(float) - correct[len(folds) :]
    of_folds = np.array([gap[held_out].mean() for (_, held_out), gap in zip(folds, gaps, strict=True)])
    error = of_folds.std(ddof=1) * np.sqrt(1 / len(folds) + len(folds[0][1]) / num)
    reach = stats.t.ppf(0.975, len(folds) - 1) * error
    mean = of_folds.mean()
    return dict(mean=float(mean), low=float(mean - reach), high=float(mean + reach), num=num)


def _share(num, total):
    """Returns `num` of `total` with Wilson's interval of 95 % (Brown, Cai and DasGupta, 2001)."""
    low, high = proportion_confint(num, total, method="wilson")
    return dict(mean=num / total, low=float(low), high=float(high), num=total)


def _shares(nums, totals):
    return [_share(int(num), int(total)) if total else None for num, total in zip(nums, totals, strict=True)]


def _temperature(probs, labels):
    def loss(log_temperature):
        of_labels = soften(probs, np.exp(log_temperature))[np.arange(len(labels)), labels]
        # A normal prior over the logarithm: otherwise images that are all correct would make all confidence certain.
        return -np.log(np.maximum(of_labels, 1e-12)).sum() + log_temperature**2 / 2

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


class _Normal(NamedTuple):
    mean: np.ndarray
    covariance: np.ndarray


def _logistic(features, logits, correct) -> _Normal:
    """Returns what is added to `logits`, as a posterior over weights of `features` with a standard normal prior."""

    def loss(weights):
        shifted = logits + features @ weights
        value = (np.logaddexp(0, shifted) - correct * shifted).sum() + weights @ weights / 2
        return value, features.T @ (special.expit(shifted) - correct) + weights

    mean = minimize(loss, np.zeros(features.shape[1]), jac=True).x
    variance = special.expit(logits + features @ mean) * special.expit(-logits - features @ mean)
    return _Normal(mean, np.linalg.inv((features.T * variance) @ features + np.eye(features.shape[1])))
