"""Checks of the values of arguments, for all kernels.

A check is applied where the values are concrete. The device decides whether it holds, in one program for all arguments;
the host looks at the values only to word an error message.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from latent_al.kernels._sharding import at_once, over_devices

MAX_ROWS = 2**31 - 1
"""The largest number of rows of a pool: row numbers are int32, and so is the one that stands for a missing row."""


class Check(NamedTuple):
    """A condition on the values of one argument.

    Attributes:
        holds: maps the array, and the arguments named in `beside` and `shapes`, to whether the condition holds.
        refusal: maps the name of the argument, its values and those arguments to the message.
        beside: names of the other arguments that the condition reads.
        shapes: names of those whose shapes it reads, which are passed in their place: they may be traced.
    """

    holds: Callable[[Array, Mapping[str, Any]], Bool[Array, ""]]
    refusal: Callable[[str, np.ndarray, Mapping[str, Any]], str]
    beside: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()


class Checked(NamedTuple):
    """An array with the name of its argument, and a check of it."""

    name: str
    value: Array | np.ndarray
    check: Check


class _Condition(NamedTuple):
    checked: Checked
    beside: dict[str, Any]

    def holds(self) -> bool:
        return bool(_all_hold((self.checked.check,), [(self.checked.value, self.beside)]))


def is_concrete(*values: Any) -> bool:
    """Returns whether the values of all arrays can be looked at."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def check_values(checked: Sequence[Checked], arguments: Mapping[str, Any]) -> None:
    """Raises ValueError where a check does not hold; checks that read a traced value are skipped."""
    conditions = [_Condition(item, _beside(item.check, arguments)) for item in checked]
    conditions = [condition for condition in conditions if is_concrete(condition.checked.value, condition.beside)]
    if not conditions:
        return
    with at_once():
        checks = tuple(condition.checked.check for condition in conditions)
        if _all_hold(checks, [(condition.checked.value, condition.beside) for condition in conditions]):
            return
        broken = next(condition for condition in conditions if not condition.holds())
    value, beside = jax.device_get((broken.checked.value, broken.beside))
    raise ValueError(broken.checked.check.refusal(broken.checked.name, np.asarray(value), beside))


def _beside(check, arguments):
    values = {name: arguments[name] for name in check.beside if name in arguments}
    return values | {name: jax.tree.map(jnp.shape, arguments[name]) for name in check.shapes if name in arguments}


@cache
def checks_of_type(kind: str, dtype: Any) -> tuple[Check, ...]:
    """Returns the checks that the conversion of an argument to the type of its `kind` needs."""
    is_integer = jnp.issubdtype(dtype, jnp.integer)
    if kind == "real" and is_integer and dtype.itemsize >= 4:
        return (EXACT,)
    if kind == "mask" and dtype != jnp.bool_:
        return (MASK,)
    if kind == "integer" and is_integer and jnp.iinfo(dtype).max > jnp.iinfo(jnp.int32).max:
        return (ROW_NUMBERS,)
    return ()


@cache
def default_checks(kind: str, dtype: Any, num_dims: int) -> tuple[Check, ...]:
    """Returns the checks of an argument for which the kernel names none."""
    if kind != "real" or not jnp.issubdtype(dtype, jnp.floating):
        return ()
    return (SQUARABLE if num_dims == 2 else FINITE,)


@partial(jax.jit, static_argnums=0)
def _all_hold(checks, values):
    def hold(values):
        holds = [check.holds(value, beside) for check, (value, beside) in zip(checks, values, strict=True)]
        return jnp.stack([jnp.asarray(verdict) for verdict in holds]).all()

    arrays = [leaf for leaf in jax.tree.leaves(values) if isinstance(leaf, jax.Array)]
    return over_devices(hold, values, [(array, ("",) * array.ndim) for array in arrays], [])


def as_real(value: Array) -> Array:
    """Returns the array in the type in which a kernel computes with it: float64 stays, all else becomes float32."""
    return value if value.dtype in (jnp.float32, jnp.float64) else value.astype(jnp.float32)


def of_rows(name: str, is_bad: np.ndarray, what: str) -> str:
    """Returns the beginning of a message that says which rows of an argument are `what`."""
    if not is_bad.ndim:
        return f"{name} is {what}"
    bad_rows = np.asarray(is_bad.reshape(len(is_bad), -1).any(axis=1))
    return f"{bad_rows.sum()} of {len(bad_rows)} rows of {name} are {what}, the first is row {bad_rows.argmax()}"


def _largest_exact(dtype):
    return 2**53 if dtype.itemsize == 8 else 2**24


def _is_exact(value, beside):
    del beside
    limit = _largest_exact(value.dtype)
    return (value.max() <= limit) & (jnp.issubdtype(value.dtype, jnp.unsignedinteger) | (value.min() >= -limit))


def _inexact(name, value, beside):
    del beside
    return (
        f"{name} has dtype {value.dtype} and values from {value.min()} to {value.max()}; expected integers of at most "
        f"{_largest_exact(value.dtype)}, which floats represent exactly: scale them, or pass floats."
    )


EXACT = Check(_is_exact, _inexact)


def _is_mask(value, beside):
    del beside
    return ((value == 0) | (value == 1)).all()


def _no_mask(name, value, beside):
    del beside
    return (
        f"{name} has dtype {value.dtype} and values from {value.min()} to {value.max()}; expected a mask, of True and "
        "False."
    )


MASK = Check(_is_mask, _no_mask)


def _has_row_numbers(value, beside):
    del beside
    limits = jnp.iinfo(jnp.int32)
    is_signed = jnp.issubdtype(value.dtype, jnp.signedinteger)
    return (value.max() <= limits.max) & (not is_signed or value.min() >= limits.min)


def _no_row_numbers(name, value, beside):
    del beside
    return (
        f"{name} runs from {value.min()} to {value.max()}; expected integers that fit in int32: number rows, clusters "
        "and classes from 0, and keep other ids outside the kernel."
    )


ROW_NUMBERS = Check(_has_row_numbers, _no_row_numbers)


def _is_finite(value, beside):
    del beside
    return jnp.abs(as_real(value)).max() < jnp.inf


def _not_finite(name, value, beside):
    del beside
    return f"{of_rows(name, ~np.isfinite(value), 'NaN or infinite')}; check where the values come from."


FINITE = Check(_is_finite, _not_finite)
"""No value is NaN or infinite."""


def _is_squarable(value, beside):
    del beside
    value = as_real(value)
    return jnp.isfinite(16 * jnp.einsum("nd,nd->n", value, value)).all()


def _not_squarable(name, value, beside):
    del beside
    dtype = np.float64 if value.dtype == np.float64 else np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        is_bad = ~np.isfinite(16 * np.square(value.astype(dtype)).sum(axis=1, dtype=dtype))
    return f"{of_rows(name, is_bad, 'NaN, infinite or too large to square')}; check where the values come from."


SQUARABLE = Check(_is_squarable, _not_squarable)
"""No row is NaN or infinite, or so long that a squared distance overflows."""


def _is_number(value, beside):
    del beside
    return ~jnp.isnan(as_real(value)).any()


def _not_number(name, value, beside):
    del beside
    return f"{np.isnan(value).sum()} of {len(value)} {name} are NaN; look for NaN in what they were computed from."


NOT_NAN = Check(_is_number, _not_number)
"""No value is NaN; infinite ones rank first or last."""
