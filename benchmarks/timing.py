"""Times contenders in turn."""

import statistics
import time


def once(play):
    """Returns the seconds of one run."""
    began = time.perf_counter()
    play()
    return time.perf_counter() - began


def seconds(repeats, *plays):
    """Returns the median time of each play after one that compiles; they take turns: a slow spell falls on all."""
    taken = [[once(play) for play in plays] for _ in range(repeats + 1)]
    return [statistics.median(times) for times in zip(*taken[1:], strict=True)]
