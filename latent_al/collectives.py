"""What a compiled program moves between devices."""

import re
from math import prod

OPERATIONS = "all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute|reduce-scatter"


def largest_collective(text: str) -> int:
    """Bytes of the largest thing that a compiled module moves between devices at a time; 0 where nothing moves.

    Args:
        text: of the module, from `as_text` of what `jax.jit(...).lower(...).compile()` gives.
    """
    found = re.findall(rf"= (.*?) (?:{OPERATIONS})", text)
    shapes = (re.findall(r"([a-z]+)(\d*)\w*\[([\d,]*)\]", each) for each in found)
    return max((sum(_bytes(*shape) for shape in each) for each in shapes), default=0)


def _bytes(kind, bits, sizes):
    width = 1 if kind == "pred" else int(bits) // 8
    return width * prod(map(int, filter(None, sizes.split(","))))
