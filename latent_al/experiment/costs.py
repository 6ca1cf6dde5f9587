"""What a program computes, counted before it runs, and how long this device takes for that."""

import math
import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


class Cost(NamedTuple):
    """What one device computes.

    products: multiplications and additions of matrix products and convolutions.
    elements: of all other arrays that are computed, an addition's counting once.
    calls: operations that start one after the other.
    """

    products: float = 0.0
    elements: float = 0.0
    calls: float = 0.0

    def plus(self, other: "Cost") -> "Cost":
        return Cost(*[one + another for one, another in zip(self, other, strict=True)])

    def times(self, number: int) -> "Cost":
        return Cost(*[number * each for each in self])


SHAPES_ONLY = {
    *("bitcast_convert_type", "broadcast_in_dim", "convert_element_type", "copy", "iota", "random_unwrap"),
    *("random_wrap", "reshape", "sharding_constraint", "squeeze", "stop_gradient", "transpose"),
}
"""Operations that the compiler merges into those which read their outputs."""

TRANSCENDENTAL = "cos", "erf", "erf_inv", "exp", "expm1", "log", "log1p", "logistic", "pow", "sin", "tanh"
WEIGHTS = dict.fromkeys(TRANSCENDENTAL, 10) | {
    "gather": 5,
    "random_bits": 30,
    "scatter": 5,
    "scatter-add": 5,
    "threefry2x32": 30,
}
"""What an element costs beside an addition, about."""

SCALARS: dict[str, Callable] = {
    "add": np.add,
    "add_any": np.add,
    "and": np.bitwise_and,
    "div": lambda x, y: int(x / y) if y else 0,
    "eq": np.equal,
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "rem": lambda x, y: int(math.fmod(x, y)) if y else 0,
    "sign": np.sign,
    "sub": np.subtract,
}
"""Of known numbers, by which loops tell how often they run, what operations make of them."""


def count(program: ClosedJaxpr, args: Any, devices: int = 1) -> Cost:
    """What each of `devices` computes in `program`, called with `args`.

    A loop counts as often as it runs where numbers among `args` tell it, and once where only its data do: until what it
    looks for is found, or has converged.

    Args:
        args: arrays or shapes; a number that is given tells how often loops run.
    """
    known = [_number(each) for each in jax.tree.leaves(args)]
    cost, _ = _count(program.jaxpr, known)
    return cost._replace(products=cost.products / devices, elements=cost.elements / devices)


def seconds(cost: Cost) -> float:
    """How long this device takes, about: as long as for the like of it when it is asked first."""
    return sum(each * rate for each, rate in zip(cost, _rates(), strict=True))


def _count(jaxpr: Jaxpr, known: list[int | None]) -> tuple[Cost, list[int | None]]:
    """The cost, and of the outputs those that are known numbers; `known` are those of the inputs."""
    numbers = dict(zip(jaxpr.invars, known, strict=True))
    total = Cost()

    def number(atom):
        if isinstance(atom, Literal):
            return _number(atom.val)
        return numbers.get(atom)

    for eqn in _needed(jaxpr):
        given = [number(each) for each in eqn.invars]
        cost, outputs = RULES.get(eqn.primitive.name, _call_or_leaf)(eqn, given)
        total = total.plus(cost)
        numbers.update(zip(eqn.outvars, outputs, strict=True))
    return total, [number(each) for each in jaxpr.outvars]


def _needed(jaxpr):
    """The operations of which an output is read, as the compiler keeps them."""
    kept = []
    wanted = {each for each in jaxpr.outvars if not isinstance(each, Literal)}
    for eqn in reversed(jaxpr.eqns):
        if not wanted.isdisjoint(eqn.outvars):
            kept.append(eqn)
            wanted.update(each for each in eqn.invars if not isinstance(each, Literal))
    return kept[::-1]


def _while(eqn, given):
    """Runs as `jax.lax.fori_loop` does, from its first number up to its second, or else once."""
    body, condition = eqn.params["body_jaxpr"].jaxpr, eqn.params["cond_jaxpr"].jaxpr
    skipped, own = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    constants, carry = given[skipped : skipped + own], given[skipped + own :]
    steady = [before is after for before, after in zip(body.invars[own:], body.outvars, strict=True)]
    times, counter = 1, None
    tests = [each for each in condition.eqns if each.outvars == condition.outvars and each.primitive.name == "lt"]
    if tests and all(each in condition.invars for each in tests[0].invars):
        counter, bound = (condition.invars.index(each) - skipped for each in tests[0].invars)
        if counter >= 0 and bound >= 0 and steady[bound] and None not in (carry[counter], carry[bound]):
            times = max(0, carry[bound] - carry[counter])
    first = [each if steady[place] or place == counter else None for place, each in enumerate(carry)]
    cost, _ = _count(body, constants + first)
    return cost.times(times), [each if steady[place] else None for place, each in enumerate(carry)]


def _scan(eqn, given):
    constants = given[: eqn.params["num_consts"]]
    unknown = [None] * (len(given) - len(constants))
    cost, _ = _count(eqn.params["jaxpr"].jaxpr, constants + unknown)
    return cost.times(eqn.params["length"]), [None] * len(eqn.outvars)


def _cond(eqn, given):
    """The branch that is known to be taken, or else the one that computes most."""
    which, *rest = given
    branches = [_count(each.jaxpr, rest) for each in eqn.params["branches"]]
    return branches[which] if which is not None else (max(branches, key=lambda each: sum(each[0]))[0], _nothing(eqn))


def _shard_map(eqn, given):
    inner = eqn.params["jaxpr"]
    cost, _ = _count(inner, given)
    pairs = zip([*eqn.invars, *eqn.outvars], [*inner.invars, *inner.outvars], strict=True)
    devices = max(whole.aval.size / max(1, own.aval.size) for whole, own in pairs)
    return Cost(devices * cost.products, devices * cost.elements, cost.calls), _nothing(eqn)


def _products(eqn, given):
    left, right = (each.aval for each in eqn.invars)
    size = eqn.outvars[0].aval.size
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        depth = math.prod(left.shape[axis] for axis in contracted)
    else:
        depth = right.size // right.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
    return Cost(products=2.0 * size * depth, calls=1), _nothing(eqn)


def _sort(eqn, given):
    size, length = eqn.invars[0].aval.size, eqn.invars[0].aval.shape[-1]
    return Cost(elements=5 * size * math.log2(max(2, length)), calls=1), _nothing(eqn)


RULES = {
    "cond": _cond,
    "conv_general_dilated": _products,
    "dot_general": _products,
    "scan": _scan,
    "shard_map": _shard_map,
    "sort": _sort,
    "top_k": _sort,
    "while": _while,
}


def _call_or_leaf(eqn, given):
    name = eqn.primitive.name
    inner = next((eqn.params[key] for key in ("jaxpr", "call_jaxpr", "call") if key in eqn.params), None)
    if inner is not None and name != "reduce":
        return _count(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner, given)
    if len(eqn.outvars) == 1 and all(each.aval.ndim == 0 for each in [*eqn.invars, *eqn.outvars]):
        return Cost(), [_scalar(name, given)]
    if name in SHAPES_ONLY:
        return Cost(), _nothing(eqn)
    reduces = name.startswith(("reduce", "arg", "cum"))
    aval = eqn.invars[0 if reduces or not name.startswith("scatter") else 2].aval
    size = aval.size if reduces or name.startswith("scatter") else max(each.aval.size for each in eqn.outvars)
    merged = not reduces and (name not in WEIGHTS or name in TRANSCENDENTAL)
    return Cost(elements=size * WEIGHTS.get(name, 1), calls=not merged), _nothing(eqn)


def _number(value):
    # A program's own numbers may be arrays without axes.
    is_one = isinstance(value, int | np.ndarray | np.generic) and np.ndim(value) == 0
    return int(value) if is_one and np.asarray(value).dtype.kind in "biu" else None


def _scalar(name, given):
    if any(each is None for each in given):
        return None
    if name == "select_n":
        return given[1 + int(given[0])]
    if name in SHAPES_ONLY:
        return given[0]
    return int(SCALARS[name](*given)) if name in SCALARS else None


def _nothing(eqn):
    return [None] * len(eqn.outvars)


@cache
def _rates():
    """Seconds of one product, one element and one call."""
    # More numbers than a cache holds: arrays that a program makes pass through memory.
    side, size, steps = 1024, 2**24, 4
    matrix, numbers, small = jnp.ones((side, side)), jnp.full(size, 0.5), jnp.full((8, 8), 0.1)
    product = _time(lambda x: x @ x, matrix)
    element = _time(lambda x: jax.lax.fori_loop(0, steps, lambda _, y: (y * y + x) * y - x, x), numbers)
    call = _time(lambda x: jax.lax.fori_loop(0, 250 * steps, lambda _, y: x @ y, x), small)
    return product / (2 * side**3), element / (4 * size * steps), call / (250 * steps)


def _time(function, arg):
    run = jax.jit(function)
    run(arg).block_until_ready()
    spans = []
    for _ in range(3):
        begun = time.perf_counter()
        run(arg).block_until_ready()
        spans.append(time.perf_counter() - begun)
    return min(spans)
