"""Several processes that run one experiment, through `jax.distributed`: how they join, agree, take turns and leave."""

import hashlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np

from latent_al.types import BadInput, differences

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
"""Those whose versions decide what a round computes."""
PATIENCE = 30 * 24 * 3600
"""Seconds to wait for what the first process does alone, such as training. That it has died is noticed sooner."""

SILENCE = 30
"""Seconds after which a process that says nothing is lost."""
BLOCK_BYTES = 2**26
"""What is hashed at a time."""

AGAIN = "The same commands, started anew, go on from the last whole round."

ALIVE, OVER = "latent_al/alive", "latent_al/over"
"""Under which each process tells that it is alive, or why it has ended."""

_meetings = count()
"""All processes meet in the same order, so that a number names a meeting."""


def join(coordinator: str | None, num_processes: int | None, process_id: int | None, *, seconds: int) -> None:
    """Joins the other processes; before any other use of JAX.

    Args:
        coordinator: HOST:PORT at which process 0 is to listen; None where the cluster says it (SLURM, Kubernetes, Cloud
            TPU), as `jax.distributed.initialize` detects.
        num_processes: all of them; None as above.
        process_id: of this one, from 0; None as above.
        seconds: to wait for the others. The process ends, with a message, where they do not come.

    Raises:
        BadInput: a port in use, a number outside its range, no address and no cluster that tells it.
    """
    given = dict(coordinator_address=coordinator, num_processes=num_processes, process_id=process_id)
    given = {name: value for name, value in given.items() if value is not None}
    if given and len(given) < 3:
        raise BadInput("give coordinator, num_processes and process_id, or none of them where the cluster tells them.")
    if given:
        _check(**given)
    # It would swallow the signal by which schedulers end a process.
    jax.config.update("jax_enable_preemption_service", False)
    # Left to itself JAX would abort without a word on what to do.
    at = f" at {coordinator}" if coordinator else ""
    late = threading.Timer(seconds, _give_up, (f"{at} within {seconds} seconds",))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(**given, initialization_timeout=seconds + 60)
    except (ValueError, RuntimeError) as error:
        raise BadInput(
            f"no other process was found ({error}); give --coordinator=HOST:PORT, --num_processes and --process_id."
        ) from error
    finally:
        late.cancel()
    threading.Thread(target=_watch, args=(jax.process_index(),), daemon=True).start()


def agree(**what: Any) -> None:
    """Checks that all processes have the same `what`, of JSON, and the same packages and code.

    Raises:
        BadInput: in each process, where one differs from the first; it says in what.
    """
    if jax.process_count() == 1:
        return
    packages = {name: version(name) for name in PACKAGES} | {"latent_al": _digest_of_code()}
    first, *others = map(json.loads, _exchange(json.dumps(what | {"packages": packages})))
    for index, other in enumerate(others, start=1):
        found = differences(first, other, "process 0", f"process {index}")
        if found:
            raise BadInput(
                f"the processes differ ({'; '.join(found)}); start all with one config, code and environment."
            )


def leave(message: str) -> NoReturn:
    """Ends this process with `message` and the exit status 1, and so do the others, if there are any."""
    print(message, file=sys.stderr, flush=True)
    if not jax.distributed.is_initialized():
        sys.exit(1)
    with suppress(jax.errors.JaxRuntimeError):
        client = _client()
        client.key_value_set(f"{OVER}/{jax.process_index()}", message, allow_overwrite=True)
    if is_first():
        # With it goes the service, without which the others could not hear of it.
        time.sleep(3)
    # At a usual exit JAX would wait for the others.
    os._exit(1)


def share(size: int) -> tuple[int, int]:
    """Of `size` rows, from which on to which this process has its part."""
    index, num = jax.process_index(), jax.process_count()
    return index * size // num, (index + 1) * size // num


def digest_by_share(array: np.ndarray) -> str:
    """A hash of an array on disk of which each process reads a part; the same for any number of processes."""
    rows = max(1, BLOCK_BYTES * len(array) // max(1, array.nbytes))
    starts = range(0, len(array), rows)
    first, end = share(len(starts))
    own = [hashlib.sha256(np.ascontiguousarray(array[start : start + rows])).hexdigest() for start in starts[first:end]]
    parts = [own] if jax.process_count() == 1 else map(json.loads, _exchange(json.dumps(own)))
    return hashlib.sha256(" ".join(chain([str(array.dtype), str(array.shape)], *parts)).encode()).hexdigest()


def is_first() -> bool:
    """Whether this process, of those that run together, is the one that writes."""
    return jax.process_index() == 0


@contextmanager
def after_the_first() -> Iterator[None]:
    """The first process runs the body; when it is done the others do, who then find what it has left on disk."""
    name = f"meeting {next(_meetings)}"
    if not is_first():
        _get(name)
    yield
    if is_first() and jax.process_count() > 1:
        _set(name, "done")


def _exchange(text):
    """The text of each process, in order."""
    name = f"meeting {next(_meetings)}"
    _set(f"{name}/{jax.process_index()}", text)
    return [_get(f"{name}/{index}") for index in range(jax.process_count())]


def _client():
    """The client of JAX's service between processes; Orbax is not loaded for one process alone."""
    from orbax.checkpoint import multihost

    return multihost.get_jax_distributed_client()


def _set(name, text):
    _client().key_value_set(f"latent_al/{name}", text)


def _get(name):
    return _client().blocking_key_value_get(f"latent_al/{name}", 1000 * PATIENCE)


def _watch(index):
    """Ends this process where another one has ended or is lost: JAX may wait for it, or abort without a cure.

    Each process tells each second that it is alive, and the first one listens.
    """
    client, heard = _client(), {}
    for beat in count():
        # A call may fail once; in the end the service is gone, and soon this thread.
        with suppress(jax.errors.JaxRuntimeError):
            client.key_value_set(f"{ALIVE}/{index}", str(beat), allow_overwrite=True)
            if index == 0:
                heard = _listen(client.key_value_dir_get(ALIVE), heard)
                silent = [other for other, (_, since) in heard.items() if time.monotonic() - since > SILENCE]
                if silent:
                    leave(f"launch.py: process {silent[0].split('/')[-1]} is lost; see what it says. {AGAIN}")
            for other, message in client.key_value_dir_get(OVER):
                if other != f"{OVER}/{index}":
                    leave(f"launch.py: process {other.split('/')[-1]} has ended the run: {message}")
        time.sleep(1)


def _listen(beats, heard):
    """The last beat of each process, and when it was new."""
    now = time.monotonic()
    return {each: heard[each] if each in heard and heard[each][0] == beat else (beat, now) for each, beat in beats}


def _check(coordinator_address, num_processes, process_id):
    host, _, port = coordinator_address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise BadInput(f"coordinator is {coordinator_address!r}; expected HOST:PORT, such as localhost:12345.")
    if not 0 <= process_id < num_processes:
        raise BadInput(f"process_id is {process_id} of {num_processes}; expected 0 to {num_processes - 1}.")
    if process_id == 0:
        # JAX would crash.
        with socket.socket(socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", int(port)))
            except OSError as error:
                raise BadInput(f"port {port} cannot be had ({error.strerror}); give --coordinator another.") from error


def _give_up(where):
    print(
        f"launch.py: not all processes have met{where}; start as many as --num_processes says, each with its own "
        "--process_id and the same --coordinator, which all machines must reach.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def _digest_of_code():
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
