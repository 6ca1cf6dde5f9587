"""Keeps two processes from working in one folder at the same time."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from latent_al.runtime.processes import is_first
from latent_al.types import BadInput

LOGGER = logging.getLogger(__name__)
NAME = ".lock"


@contextmanager
def only_process_in(folder: Path, *, wait: bool) -> Iterator[None]:
    """Holds the lock of a folder inside a `with` block, where its file system has locks and it can be written.

    Of the processes of one run only the first holds it.

    Args:
        folder: made where absent.
        wait: whether to wait until another process has released the lock.

    Raises:
        BadInput: another process holds the lock, and `wait` is False.
    """
    if not is_first():
        yield
        return
    lock = filelock.FileLock(folder / NAME)
    # What cannot be locked may still be read, and a failing write reports its own reason.
    with suppress(OSError, NotImplementedError):
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock, folder, wait)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock, folder, wait):
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        if not wait:
            raise BadInput(f"workdir {folder} is in use by another process; wait for it, or end it.") from error
        LOGGER.warning("waiting for another process that works in %s.", folder)
        lock.acquire()
