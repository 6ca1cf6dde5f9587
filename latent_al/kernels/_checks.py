"""Checks of arguments outside `jit`, once for all kernels.

A check looks at values only where they are concrete. Under a caller's `jit` or `vmap` they are not, and there the
caller makes sure of what is asked for. Values are looked at in NumPy, since a `jnp` sum of a concrete array is traced
inside a caller's `jit`.
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Bool, Float, Int, Shaped


def is_concrete(*arrays: Any) -> bool:
    """Returns whether the values of all arrays can be looked at."""
    return not any(isinstance(array, jax.core.Tracer) for array in arrays)


def check_num(num: int, num_rows: int) -> None:
    """Raises ValueError where `num` is not in [1, num_rows]."""
    if not 1 <= num <= num_rows:
        raise ValueError(f"num is {num}; expected at least 1 and at most the {num_rows} rows of the pool.")


def check_rows_left(taken: Bool[Array, " n"], num: int, included: Bool[Array, " n"] | None = None) -> None:
    """Raises ValueError where `num` is not in [1, rows left], or [1, rows left that are `included`]."""
    check_num(num, len(taken))
    if not is_concrete(taken, included):
        return
    is_left = ~jax.device_get(taken)
    left = (is_left if included is None else is_left & jax.device_get(included)).sum()
    if num > left:
        raise ValueError(f"{num} rows asked for but only {left} of {len(taken)} are left; ask for fewer.")


def check_scores(scores: Float[Array, " n"], taken: Bool[Array, " n"], num: int) -> None:
    """Raises ValueError where `num` rows cannot be selected by these scores: of other lengths, or NaN."""
    if scores.shape != taken.shape or taken.ndim != 1:
        raise ValueError(f"scores have shape {scores.shape} and taken {taken.shape}; expected one of each a row.")
    check_rows_left(taken, num)
    if is_concrete(scores):
        values = jax.device_get(scores)
        if num_nan := (values != values).sum():
            raise ValueError(f"{num_nan} of {len(values)} scores are NaN; look for NaN in what they were made from.")


def check_finite(is_finite: Callable[..., Bool[Array, " n"]], *arrays: Array, kind: str, cure: str) -> None:
    """Raises ValueError where `is_finite(*arrays)` is not True of all rows.

    Args:
        is_finite: tells of each row whether its square can be computed.
        arrays: what `is_finite` takes.
        kind: what a row is, in the plural.
        cure: what to look at.
    """
    if not is_concrete(*arrays):
        return
    with jax.ensure_compile_time_eval():
        bad = jax.device_get(~is_finite(*arrays))
    if bad.any():
        raise ValueError(
            f"{bad.sum()} of {len(bad)} {kind} are NaN, infinite or too large to square, the first is row "
            f"{bad.argmax()}; look for that in {cure}."
        )


def check_positive(name: str, value: Float[Array, ""] | float, expected: str) -> None:
    """Raises ValueError where a scalar is not above 0; `expected` ends the message."""
    if is_concrete(value) and not jax.device_get(value) > 0:
        raise ValueError(f"{name} is {value}; expected {expected}")


def check_weight(weight: Float[Array, ""] | float) -> None:
    """Raises ValueError where the weight of a distance is negative or not finite."""
    if is_concrete(weight) and not 0 <= float(jax.device_get(weight)) < float("inf"):
        raise ValueError(f"weight is {weight}; expected 0 or more, and finite: look for a scale of 0 or NaN.")


def check_lengths(**arrays: Shaped[Array, "..."]) -> None:
    """Raises ValueError where the arrays, by their names, have different numbers of rows."""
    if len({len(array) for array in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"the shapes are {shapes}; expected as many rows of each.")


def check_clusters(clusters: Int[Array, " n"], num_clusters: int) -> None:
    """Raises ValueError where cluster assignments are not in [0, num_clusters)."""
    if is_concrete(clusters):
        values = jax.device_get(clusters)
        if values.min() < 0 or values.max() >= num_clusters:
            raise ValueError(
                f"clusters run from {values.min()} to {values.max()} but the distribution has {num_clusters}, from 0; "
                "fit it to as many."
            )


def check_classes(probs: Float[Array, "n c"] | jax.ShapeDtypeStruct) -> None:
    """Raises ValueError where class probabilities are not of two classes or more."""
    if probs.ndim != 2 or probs.shape[1] < 2:
        raise ValueError(f"probs has shape {probs.shape}; expected [rows, classes] with 2 classes or more.")


def check_unit_cube(points: Float[Array, "n d"], unit_cube: bool) -> None:
    """Raises ValueError where `unit_cube` says that coordinates lie in [0, 1], and one does not."""
    if unit_cube and is_concrete(points):
        values = jax.device_get(points)
        if values.min() < 0 or values.max() > 1:
            raise ValueError(
                f"coordinates run from {values.min():g} to {values.max():g}; expected [0, 1] where unit_cube is set: "
                "it is for pixels."
            )


def check_representativeness(values: Float[Array, " n"], cause: str) -> None:
    """Raises ValueError where a row has no representativeness; `cause` is a likely reason."""
    if is_concrete(values):
        values = jax.device_get(values)
        if num_nan := (values != values).sum():
            raise ValueError(
                f"{num_nan} of {len(values)} rows have no representativeness: {cause}, or NaN or infinite; "
                "look at what the rows were made from, or choose another measure."
            )
