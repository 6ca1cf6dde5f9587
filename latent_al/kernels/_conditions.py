"""Conditions on the values and shapes of arguments that some kernels set in addition to those of all kernels."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from latent_al.kernels._checks import FINITE, NOT_NAN, SQUARABLE, Check, as_real, of_rows

TOLERANCE = 1e-3
"""The largest amount by which the sum of a row's probabilities may differ from 1."""
ROUNDING = 1e-5
"""The largest amount by which a probability may be below 0."""


def check_num(num: int, num_rows: int) -> None:
    """Raises ValueError where `num` is not in [1, num_rows]."""
    if not 1 <= num <= num_rows:
        raise ValueError(_no_num(num, num_rows))


def _no_num(num, num_rows):
    return f"num is {num}; expected at least 1 and at most the {num_rows} rows of the pool."


def check_classes(probs: Array) -> None:
    """Raises ValueError where probabilities are not those of rows over two classes or more."""
    if probs.ndim != 2 or probs.shape[1] < 2:
        raise ValueError(f"probs has shape {probs.shape}; expected [rows, classes] with 2 classes or more.")


def check_draws(probs: Array) -> None:
    """Raises ValueError where class probabilities have fewer than two draws or fewer than two classes."""
    if probs.shape[0] < 2 or probs.shape[2] < 2:
        raise ValueError(
            f"probs has shape {probs.shape}; expected [draws, rows, classes] with 2 draws or more, since one model "
            "agrees with itself, and 2 classes or more."
        )


def _is_not_negative(value, beside):
    del beside
    return (value >= 0).all()


def _negative(name, value, beside):
    if np.isnan(value).any():
        return NOT_NAN.refusal(name, value, beside)
    is_bad = value < 0
    return (
        f"{is_bad.sum()} of {len(value)} {name} are negative, the first is row {is_bad.argmax()} with "
        f"{value[is_bad.argmax()]}; expected 0 or more, since powers of negative numbers cannot be weights; or "
        "use softmax."
    )


NOT_NEGATIVE = Check(_is_not_negative, _negative)
"""No value is NaN or below 0."""


def _probability_tolerance(dtype):
    """Returns a tolerance that suits types narrower than float32, whose probabilities are rounded before their sum."""
    return max(TOLERANCE, float(jnp.finfo(dtype).eps)) if jnp.issubdtype(dtype, jnp.floating) else TOLERANCE


def _are_probabilities(value, beside):
    del beside
    probs = as_real(value)
    return (probs.min() >= -ROUNDING) & (jnp.abs(probs.sum(axis=-1) - 1).max() <= _probability_tolerance(value.dtype))


def _of_distributions(probs, dtype):
    """Marks the distributions along the last axis: values in [0, 1] that sum to 1."""
    return (probs >= -ROUNDING).all(axis=-1) & (np.abs(probs.sum(axis=-1) - 1) <= _probability_tolerance(dtype))


def _no_probabilities(name, value, beside):
    del beside
    probs = value.astype(np.float64)
    if probs.ndim == 3:
        # The first bad draw of each row.
        probs = probs[_of_distributions(probs, value.dtype).argmin(axis=0), np.arange(probs.shape[1])]
    is_good = _of_distributions(probs, value.dtype)
    row = int(is_good.argmin())
    rows = of_rows(name, ~is_good, "not probabilities")
    return (
        f"{rows}: it runs from {probs[row].min():g} to {probs[row].max():g} and "
        f"sums to {probs[row].sum():g}; expected values in [0, 1] that sum to 1: for logits, use jax.nn.softmax."
    )


PROBABILITIES = Check(_are_probabilities, _no_probabilities)
"""The values of each row, or of each draw [k n c] of it, are in [0, 1] and sum to 1."""


def _left(taken, beside):
    included = beside.get("included")
    left = taken == 0
    return (left if included is None else left & (included != 0)).sum()


def _num_asked(beside):
    return beside["targets"][0] if "targets" in beside else beside["num"]


def _has_rows_left(taken, beside):
    return _left(taken, beside) >= _num_asked(beside)


def _too_few_left(name, taken, beside):
    del name
    left, num = _left(taken, beside), _num_asked(beside)
    if num > len(taken):
        return _no_num(num, len(taken))
    return f"{num} rows asked for but only {left} of {len(taken)} are left; ask for fewer."


ROWS_LEFT = Check(_has_rows_left, _too_few_left, ("num", "included"), shapes=("targets",))
"""At least as many rows are left as are asked for."""


def _wide(value):
    """Returns integers in a type that holds any size; `ROW_NUMBERS` refuses values that wrap in it."""
    return value.astype(jnp.int32)


def _is_row(value, beside):
    return (value >= 0) & (_wide(value) < beside["points"][0])


def _no_row(name, value, beside):
    return f"{name} is {value}; expected a row of the pool, 0 to {beside['points'][0] - 1}."


ROW = Check(_is_row, _no_row, shapes=("points",))
"""A row of `points`."""


def _num_clusters(beside):
    return beside["num_clusters"] if "num_clusters" in beside else beside["distribution"].centre[0]


def _are_clusters(value, beside):
    return (value.min() >= 0) & (_wide(value.max()) < _num_clusters(beside))


def _no_clusters(name, value, beside):
    is_bad = (value < 0) | (value >= _num_clusters(beside))
    return (
        f"{name} run from {value.min()} to {value.max()}, first out of range in row {is_bad.argmax()}; expected 0 to "
        f"{_num_clusters(beside) - 1}: assign rows without a cluster to an additional one, or raise the number of "
        "clusters."
    )


CLUSTERS = Check(_are_clusters, _no_clusters, ("num_clusters",), shapes=("distribution",))
"""Cluster assignments below the number of clusters."""


def _num_in_use(beside):
    included = beside.get("included")
    return beside["num_clusters"] if included is None else (included != 0).sum()


def _has_members(clustered, beside):
    return (clustered != 0).sum() >= _num_in_use(beside)


def _too_few_members(name, clustered, beside):
    return (
        f"{name} marks {(clustered != 0).sum()} of {len(clustered)} points, but {_num_in_use(beside)} clusters are "
        "asked for; expected at least one point for each: mark more points, or ask for fewer clusters."
    )


MEMBERS = Check(_has_members, _too_few_members, ("num_clusters", "included"))
"""There are at least as many points to cluster as clusters."""


def _are_labels(value, beside):
    return _wide(value.max()) < beside["probs"][1]


def _no_labels(name, value, beside):
    classes = beside["probs"][1]
    return (
        f"{name} run up to {value.max()}, first out of range in row {(value >= classes).argmax()}, but probs has "
        f"{classes} classes; expected labels below {classes}, and negative values where there is no label."
    )


LABELS = Check(_are_labels, _no_labels, shapes=("probs",))
"""Classes that `probs` has, or negative values."""


def _has_labelled(value, beside):
    return (value >= 0).sum() >= beside["num"]


def _too_few_labelled(name, value, beside):
    del name
    return f"{beside['num']} examples asked for but only {(value >= 0).sum()} are labelled; ask for fewer."


LABELLED = Check(_has_labelled, _too_few_labelled, ("num",))
"""At least as many rows have a label as are asked for."""


def positive(expected: str) -> Check:
    """Returns the check that a scalar is above 0 and finite; `expected` ends the message."""

    def is_positive(value, beside):
        del beside
        return (value > 0) & (as_real(value) < jnp.inf)

    return Check(is_positive, lambda name, value, beside: f"{name} is {value!s}; expected {expected}")


def _is_weight(value, beside):
    del beside
    return (value >= 0) & (as_real(value) < jnp.inf)


def _no_weight(name, value, beside):
    del beside
    return f"{name} is {value!s}; expected 0 or more, and finite: look for a scale of 0 or NaN."


WEIGHT = Check(_is_weight, _no_weight)
"""A scalar in [0, inf)."""


def _are_weights(value, beside):
    del beside
    return (value.min() >= 0) & (as_real(value).max() < jnp.inf)


def _no_weights(name, value, beside):
    del beside
    rows = of_rows(name, ~((value >= 0) & np.isfinite(value)), "negative, NaN or infinite")
    return f"{rows}; expected weights of 0 or more: look for logits, or a logarithm."


WEIGHTS = Check(_are_weights, _no_weights)
"""Values in [0, inf)."""


def _has_direction(value, beside):
    real = as_real(value)
    squares = jnp.einsum("nd,nd->n", real, real)
    return SQUARABLE.holds(value, beside) & (squares >= jnp.finfo(real.dtype).tiny).all()


def _no_direction(name, value, beside):
    dtype = np.float64 if value.dtype == np.float64 else np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.square(value.astype(dtype)).sum(axis=1, dtype=dtype)
    is_short = squares < np.finfo(dtype).tiny
    if is_short.any():
        rows = of_rows(name, is_short, "zero, or too short to square")
        return f"{rows}: such a vector has no direction; leave it out, scale all rows, or choose max_herding."
    return SQUARABLE.refusal(name, value, beside)


WITH_DIRECTION = Check(_has_direction, _no_direction)
"""No row is zero, too short to square, NaN or infinite, or so long that a squared distance overflows."""


def _num_rows(beside):
    return next(iter(beside.values()))[0]


def _is_perplexity(value, beside):
    return (value >= 1) & (value < _num_rows(beside))


def _no_perplexity(name, value, beside):
    size = _num_rows(beside)
    return (
        f"{name} is {value!s} for {size} rows; expected [1, {size}), since it counts the neighbours of a row; lower "
        "it, or pass more rows."
    )


PERPLEXITY = Check(_is_perplexity, _no_perplexity, shapes=("points", "sq_distances"))
"""A number of neighbours that the rows can have."""


def _is_off_diagonal_finite(value, beside):
    del beside
    value = as_real(value)
    return jnp.abs(jnp.where(jnp.eye(len(value), dtype=bool), 0, value)).max() < jnp.inf


def _off_diagonal_not_finite(name, value, beside):
    return FINITE.refusal(name, np.where(np.eye(len(value), dtype=bool), 0, value), beside)


OFF_DIAGONAL = Check(_is_off_diagonal_finite, _off_diagonal_not_finite)
"""No value of a square matrix is NaN or infinite, except on its diagonal."""


def _is_in_cube(value, beside):
    is_outside = (value.min() < 0) | (value.max() > 1)
    return SQUARABLE.holds(value, {}) & ~(beside["unit_cube"] & is_outside)


def _not_in_cube(name, value, beside):
    if beside["unit_cube"] and np.isfinite(value).all():
        return (
            f"{name} run from {value.min():g} to {value.max():g}; expected [0, 1] where unit_cube is set: it is for "
            "pixels."
        )
    return SQUARABLE.refusal(name, value, beside)


UNIT_CUBE = Check(_is_in_cube, _not_in_cube, ("unit_cube",))
"""Values that can be squared, and that lie in [0, 1] where `unit_cube` is set."""


def representative(cause: str) -> Check:
    """Returns the check that each row has a representativeness; `cause` is a likely reason for a row without one."""

    def refusal(name, values, beside):
        del name, beside
        return (
            f"{np.isnan(values).sum()} of {len(values)} rows have no representativeness, the first is row "
            f"{np.isnan(values).argmax()}: {cause}, or too large or small for its square; check what the rows were "
            "computed from, or choose another measure."
        )

    return Check(NOT_NAN.holds, refusal)
