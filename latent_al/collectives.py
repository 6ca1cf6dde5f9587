"""What a compiled program moves between devices.

The text of a module is that of `as_text` of what `jax.jit(...).lower(...).compile()` gives.
"""

import re
from math import prod

_OPERATIONS = "all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute|reduce-scatter"
# Of one that is started and awaited, what awaits it has the result.
_COLLECTIVE = re.compile(rf"= (.*?) (?:ragged-)?(?:{_OPERATIONS})(?:-done)?\(")


def largest_collective(text: str) -> int:
    """Bytes of the largest thing that moves at a time; 0 where nothing moves."""
    return max(_sizes(text), default=0)


def bytes_moved(text: str) -> int:
    """What all collectives together give to one device, each as if it ran once."""
    return sum(_sizes(text))


def _sizes(text):
    shapes = (re.findall(r"([a-z]+)(\d*)\w*\[([\d,]*)\]", each) for each in _COLLECTIVE.findall(text))
    return [sum(_bytes(*shape) for shape in each) for each in shapes]


def _bytes(kind, bits, sizes):
    width = 1 if kind == "pred" else int(bits) // 8
    return width * prod(map(int, filter(None, sizes.split(","))))
