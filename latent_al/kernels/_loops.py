"""Loops of `jax.lax`, and bisection, that also run inside a caller's `shard_map`.

There a value may vary over the axes of the mesh, and a carry has to vary from the start over the same axes as after the
body.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

Carry = TypeVar("Carry")


def while_loop(condition: Callable[[Carry], Array], body: Callable[[Carry], Carry], start: Carry) -> Carry:
    """Returns the result of `jax.lax.while_loop`."""
    return jax.lax.while_loop(condition, body, _as_varying(body, start))


def fori_loop(low: Array | int, high: Array | int, body: Callable[[Array, Carry], Carry], start: Carry) -> Carry:
    """Returns the result of `jax.lax.fori_loop`."""

    def step(index, carry):
        # Without `jit` the index is a Python integer.
        return body(jnp.asarray(index), carry)

    return jax.lax.fori_loop(low, high, step, _as_varying(lambda carry: step(low, carry), start))


def scan(
    body: Callable[[Carry, PyTree], tuple[Carry, PyTree]], start: Carry, rows: PyTree = None, length: int | None = None
) -> tuple[Carry, PyTree]:
    """Returns the result of `jax.lax.scan`."""
    row = jax.tree.map(_first_row, rows)
    return jax.lax.scan(body, _as_varying(lambda carry, row: body(carry, row)[0], start, row), rows, length)


def bisect(is_reached: Callable[[Array], Array], low: Int[Array, "..."], high: Int[Array, "..."]) -> Int[Array, "..."]:
    """Returns the smallest integer in [low, high] for which `is_reached`, False below it and True above, is True."""

    def halve(_, bounds):
        middle = (bounds.low & bounds.high) + ((bounds.low ^ bounds.high) >> 1)
        reached = is_reached(middle)
        return _Bounds(jnp.where(reached, bounds.low, middle + 1), jnp.where(reached, middle, bounds.high))

    return fori_loop(0, jnp.iinfo(low.dtype).bits, halve, _Bounds(low, high)).low


def one_by_one(function: Callable) -> Callable:
    """Returns `function`, of arrays, with a `vmap` that on a CPU calls it for one member after the other.

    Side by side, loops that end early would continue until the last one ends. There is no gradient.
    """
    return jax.custom_batching.sequential_vmap(function) if jax.default_backend() == "cpu" else function


class _Bounds(NamedTuple):
    low: Array
    high: Array


def _first_row(leaf):
    kind = jax.typeof(leaf)
    sharding = kind.sharding.update(spec=kind.sharding.spec[1:])
    return jax.ShapeDtypeStruct(kind.shape[1:], kind.dtype, sharding=sharding, manual_axis_type=kind.manual_axis_type)


def _as_varying(body, start, *rest):
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return start
    before = None
    while before != (before := jax.tree.map(lambda value: _axes(jax.typeof(value)), start)):
        start = jax.tree.map(_cast, start, jax.eval_shape(body, start, *rest))
    return start


def _axes(kind):
    """Returns the axes over which a value varies; a `shard_map` without its check does not record them."""
    return kind.manual_axis_type.varying if kind.manual_axis_type else frozenset()


def _cast(value, after):
    missing = _axes(after) - _axes(jax.typeof(value))
    return jax.lax.pcast(value, tuple(missing), to="varying") if missing else value
