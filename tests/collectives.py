"""Bounds on what a compiled program moves between devices, read from its text.

The text of a module is that of `as_text` of what `jax.jit(...).lower(...).compile()` gives.
"""

import re
from math import prod

_OPERATIONS = "all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute|reduce-scatter"
# Of one that is started and awaited, what awaits it has the result.
_COLLECTIVE = re.compile(rf"= (.*?) (?:ragged-)?(?:{_OPERATIONS})(?:-done)?\(")


def largest_collective(text: str) -> int:
    """Returns the bytes of the largest array, or arrays, that one collective moves; 0 where nothing moves."""
    return max(_sizes(text), default=0)


def _sizes(text):
    results = (re.findall(r"([a-z]+)(\d*)\w*\[([\d,]*)\]", result) for result in _COLLECTIVE.findall(text))
    return [sum(_bytes(kind, bits, sizes) for kind, bits, sizes in arrays) for arrays in results]


def _bytes(kind, bits, sizes):
    width = 1 if kind == "pred" else int(bits) // 8
    return width * prod(map(int, filter(None, sizes.split(","))))
