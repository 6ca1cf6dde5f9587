"""Warnings from inside a compiled program, which would otherwise come once for each seed and round."""

from collections.abc import Callable


def until_logged(warn: Callable[..., bool]) -> Callable[..., None]:
    """Returns a function that passes its arguments on to `warn` until that returns True, and then does nothing."""
    is_logged = False

    def call(*args):
        nonlocal is_logged
        is_logged = is_logged or warn(*args)

    return call
