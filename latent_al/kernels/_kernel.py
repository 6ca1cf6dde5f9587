"""The entry to all kernels: their arguments, how they are compiled, and where they run.

A kernel is a function of arrays whose signature says what each argument is:

- `Float[Array, ...]` takes any real type and is computed in float32, or in float64 where an argument has 64 bits, which
  needs `jax_enable_x64`. `Int[Array, ...]` takes integers, and `Bool[Array, ...]` masks.
- Dimensions of the same name have the same size. None may be empty, or 2**31 or larger: rows are numbered in int32.
- Arguments that are not arrays are static: the function is compiled once for their values and the arrays' shapes.
- Where the axes of a mesh are Explicit, a dimension of the result is sharded like an argument's dimension of its name.

Values are checked where they are concrete. Under a caller's `jit` or `vmap` they are not, and the caller has to make
sure that they meet the conditions.
"""

import collections.abc
import functools
import inspect
import operator
import typing
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
from jaxtyping import Array, PyTree

from latent_al.kernels import _sharding
from latent_al.kernels._checks import (
    MAX_ROWS,
    Check,
    Checked,
    check_values,
    checks_of_type,
    default_checks,
    is_concrete,
)

P = ParamSpec("P")
R = TypeVar("R")

KINDS = {jaxtyping.Float: "real", jaxtyping.Num: "real", jaxtyping.Int: "integer", jaxtyping.Bool: "mask"}

_is_inside = ContextVar("is_inside", default=False)


class _Spec(NamedTuple):
    """An array as a signature describes it: "real", "integer", "mask" or "key", and the names of its dimensions."""

    kind: str
    dims: tuple[str, ...]


class _Named(NamedTuple):
    """An array, the name of its argument, and what the signature says about it."""

    name: str
    value: Array
    spec: _Spec


def kernel(
    *, is_compiled: bool = True, result: Check | None = None, **checks: Check
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Turns a function into a kernel; inside another kernel the function itself is called.

    Args:
        is_compiled: whether the function is compiled as a whole. One that calls a function of the caller's is not: it
            would be recompiled for each closure.
        result: check of what the function returns, if it is compiled.
        checks: checks of arguments, by name, in place of the one that numbers are finite.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        types = {name: parameter.annotation for name, parameter in signature.parameters.items()}
        specs = {name: _specs(annotation) for name, annotation in types.items()}
        run = _compiled(function, signature, result) if is_compiled else _typed(function, specs)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if _is_inside.get():
                return function(*args, **kwargs)
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            arguments = {name: _received(name, value, types[name], specs) for name, value in bound.arguments.items()}
            named = _named(arguments, specs)
            _check_shapes(named)
            # The caller's setting is for the caller's code.
            with jax.numpy_dtype_promotion("standard"):
                check_values([check for item in named for check in _checked(item, checks.get(item.name))], arguments)
                values = run(**arguments)
            if result is None:
                return values
            values, is_good = values
            if is_concrete(is_good) and not is_good:
                raise ValueError(result.refusal("result", np.asarray(values), {}))
            return values

        return call

    return decorate


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def without_gradient(values: Array, arrays: PyTree[Array], what: str) -> Array:
    """Returns the values, whose gradient for `arrays` is refused; `what` names them."""
    del arrays, what
    return values


@without_gradient.defjvp
def _refuse_gradient(what, primals, tangents):
    raise TypeError(
        f"there is no gradient of {what}: apply jax.lax.stop_gradient to the arguments of the kernel, whichever part "
        "of its result you use; distances between the rows have a gradient."
    )


def is_traced_here() -> bool:
    """Returns whether operations are traced, by a caller's `jit` or the like, rather than executed."""
    return isinstance(jnp.zeros(()), jax.core.Tracer)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Turns a function into a part of a kernel: it is compiled and placed like a kernel, but trusts its arguments."""
    signature = inspect.signature(function)
    run = _compiled(function, signature)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs) if _is_inside.get() else run(**signature.bind(*args, **kwargs).arguments)

    return call


def _compiled(function, signature, result=None):
    """Returns the compiled function, whose program also returns whether a check `result` holds."""
    specs = {name: _specs(parameter.annotation) for name, parameter in signature.parameters.items()}
    returned = _specs(signature.return_annotation)
    static = [name for name, spec in specs.items() if spec is None]
    has_gradient = any(spec.kind == "real" for spec in jax.tree.leaves(returned, is_leaf=_is_spec))
    typed = _typed(function, specs)

    def run(**arguments):
        arrays = {name: value for name, value in arguments.items() if name not in static}

        def inside(arrays):
            token = _is_inside.set(True)
            try:
                values = typed(**arguments | (arrays if has_gradient else jax.lax.stop_gradient(arrays)))
            finally:
                _is_inside.reset(token)
            return values if result is None else (values, result.holds(values, {}))

        dims = [(item.value, item.spec.dims) for item in _named(arrays, specs) if item.spec.kind != "key"]
        dims_returned = jax.tree.map(lambda spec: list(spec.dims), returned, is_leaf=_is_spec)
        dims_returned = dims_returned if result is None else (dims_returned, [])
        return _sharding.over_devices(inside, arrays, dims, dims_returned)

    run.__name__ = run.__qualname__ = function.__name__
    return jax.jit(run, static_argnames=static)


def _typed(function, specs):
    """Returns the function with arguments converted to the types that it computes in."""

    def call(**arguments):
        reals = [item.value for item in _named(arguments, specs) if item.spec.kind == "real"]
        is_wide = any(value.dtype.itemsize == 8 and value.ndim for value in reals)
        types = dict(real=jnp.float64 if is_wide else jnp.float32, integer=jnp.int32, mask=jnp.bool_)

        def convert(spec, value):
            return (
                value if spec.kind == "key" else jax.tree.map(lambda leaf: jnp.asarray(leaf, types[spec.kind]), value)
            )

        return function(**{name: _map(convert, specs[name], value) for name, value in arguments.items()})

    return call


def _specs(annotation):
    """Returns the pytree of `_Spec` that an annotation describes, or None where it is not of arrays.

    One `_Spec` describes all leaves of a `PyTree`.
    """
    if annotation == jaxtyping.PRNGKeyArray:
        return _Spec("key", ())
    if hasattr(annotation, "dim_str"):
        return _Spec(KINDS[annotation.dtype], tuple(annotation.dim_str.split()))
    if hasattr(annotation, "leaftype"):
        return _specs(annotation.leaftype)
    if hasattr(annotation, "_fields"):
        return annotation(*map(_specs, typing.get_type_hints(annotation).values()))
    origin = typing.get_origin(annotation)
    if origin is tuple:
        return tuple(map(_specs, typing.get_args(annotation)))
    if origin is collections.abc.Callable:
        return None
    # An array that may be left out, or a scalar that may be a Python number.
    return next((specs for specs in map(_specs, typing.get_args(annotation)) if specs is not None), None)


def _is_spec(value):
    return isinstance(value, _Spec)


def _map(function, specs, value):
    """Maps `function(spec, value)` over an argument; a static one, and None, stay as they are."""
    if isinstance(specs, _Spec) and value is not None:
        return function(specs, value)
    return value if specs is None or value is None else jax.tree.map(function, specs, value, is_leaf=_is_spec)


def _named(arguments: Mapping[str, Any], specs: Mapping[str, Any]) -> list[_Named]:
    """Returns all arrays of the arguments."""
    named: list[_Named] = []
    for name, value in arguments.items():

        def collect(spec, part, name=name):
            named.extend(_Named(name, leaf, spec) for leaf in jax.tree.leaves(part))

        _map(collect, specs[name], value)
    return named


def _received(name, value, annotation, specs):
    """Returns an argument as arrays of JAX, or as the static value that it stands for."""
    if specs[name] is None:
        return _static(name, value, annotation)
    if hasattr(annotation, "leaftype"):
        return jax.tree.map(functools.partial(_array, name, specs[name]), value)
    if value is None and _is_spec(specs[name]) and type(None) not in typing.get_args(annotation):
        raise TypeError(f"{name} is None; expected an array [{' '.join(specs[name].dims)}].")
    return _map(lambda spec, part: _array(name, spec, part), specs[name], value)


def _static(name, value, annotation):
    if annotation not in (int, float, bool):
        return value
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{name} is traced; expected a Python {annotation.__name__}, since shapes depend on it: close over it, or "
            "name it in the static_argnames of `jit`."
        )
    if annotation is not int:
        return annotation(value)
    if not -MAX_ROWS <= operator.index(value) <= MAX_ROWS:
        raise ValueError(f"{name} is {value}; expected an integer of at most {MAX_ROWS}, to fit in int32.")
    return operator.index(value)


def _array(name, spec, value):
    if spec.kind == "key":
        return _one_key(name, value)
    if isinstance(value, jax.Array) and _is_of_kind(value.dtype, spec.kind):
        return value
    if np.ma.isMaskedArray(value):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; pass its data, and mark rows as taken.")
    values = np.asarray(value)
    if not _is_of_kind(values.dtype, spec.kind):
        expected = dict(real="real numbers", integer="integers", mask="a mask, of True and False")[spec.kind]
        raise TypeError(f"{name} has dtype {values.dtype}; expected {expected}.")
    # JAX supports neither other byte orders nor floats of more than 64 bits.
    native = np.dtype(np.float64) if values.dtype.itemsize > 8 else values.dtype.newbyteorder("=")
    dtype = jax.dtypes.canonicalize_dtype(native)
    if dtype == values.dtype:
        return _concrete(values)
    with np.errstate(over="ignore"):
        narrowed = values.astype(dtype)
    same = np.isfinite(narrowed) == np.isfinite(values) if dtype.kind == "f" else narrowed == values
    if not same.all():
        cure = "scale the values, or set jax_enable_x64"
        if spec.kind == "integer":
            cure = "number rows, clusters and classes from 0, and keep other ids outside the kernel"
        raise ValueError(
            f"{name} has dtype {values.dtype} and values from {values.min()} to {values.max()}, which {dtype} cannot "
            f"represent; {cure}."
        )
    return _concrete(narrowed)


def _one_key(name, value):
    is_typed = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    dtype = getattr(value, "dtype", type(value).__name__)
    if not is_typed and dtype != np.uint32:
        raise TypeError(f"{name} is of type {dtype}; expected one key, such as jax.random.key(0).")
    if jnp.ndim(value) != (0 if is_typed else 1):
        raise ValueError(f"{name} has shape {jnp.shape(value)}; expected one key, such as jax.random.key(0).")
    return value


def _concrete(values):
    if not values.ndim or jax.sharding.get_abstract_mesh().manual_axes:
        # JAX passes scalars to a program fastest as they are. An array would lie on the mesh outside the caller's
        # `shard_map`, and be refused inside.
        return np.asarray(values)
    # Otherwise this would be traced inside a caller's `jit`.
    with jax.ensure_compile_time_eval():
        return jnp.asarray(values)


@functools.cache
def _is_of_kind(dtype, kind):
    is_float = jnp.issubdtype(dtype, jnp.floating) and kind != "integer"
    return is_float or dtype == jnp.bool_ or jnp.issubdtype(dtype, jnp.integer)


def _checked(item, check):
    kind, dtype = item.spec.kind, item.value.dtype
    of_values = default_checks(kind, dtype, item.value.ndim) if check is None else (check,)
    return [Checked(item.name, item.value, condition) for condition in checks_of_type(kind, dtype) + of_values]


def _check_shapes(named):
    """Raises ValueError where arrays do not have the dimensions of the signature."""
    first: dict[str, _Named] = {}
    for item in named:
        if item.spec.kind == "key":
            continue
        shape = item.value.shape
        if len(shape) != len(item.spec.dims):
            raise ValueError(f"{item.name} has shape {shape}; expected [{' '.join(item.spec.dims)}].")
        if 0 in shape:
            empty = item.spec.dims[shape.index(0)]
            raise ValueError(f"{item.name} has shape {shape}; expected [{' '.join(item.spec.dims)}], and {empty} > 0.")
        if max(shape, default=0) > MAX_ROWS:
            raise ValueError(
                f"{item.name} has shape {shape}; expected at most {MAX_ROWS} rows, whose numbers fit in int32: "
                "pass fewer, or use latent_al.streaming."
            )
        for dim, size in zip(item.spec.dims, shape, strict=True):
            other = first.setdefault(dim, item)
            if other.value.shape[other.spec.dims.index(dim)] != size:
                raise ValueError(
                    f"{other.name} has shape {other.value.shape} and {item.name} {shape}; expected "
                    f"[{' '.join(other.spec.dims)}] and [{' '.join(item.spec.dims)}], with the same size {dim}."
                )
