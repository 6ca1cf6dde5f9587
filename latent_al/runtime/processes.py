"""Several processes that run one experiment, through `jax.distributed`: how they join, agree, take turns and leave."""

import hashlib
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from latent_al.types import BadInput, differences

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
"""Packages whose versions decide what a round computes."""
PATIENCE = 30 * 24 * 3600
"""Seconds to wait for what the first process does alone, such as training. Its death is noticed sooner."""
SILENCE = 30
"""Seconds without a heartbeat after which JAX considers a process lost, and ends all of them."""
FAREWELL = 3
"""Seconds for the others to hear why a process ends, before its connections break."""
BLOCK_BYTES = 2**26
"""Bytes that are hashed at a time."""

AGAIN = "The same commands, run again, continue from the last complete round."

OVER = "latent_al/over"
"""The key under which the first process to end the run tells why."""

_turns = count()
"""All processes take turns in the same order, so that a number names a turn."""


def join(coordinator: str | None, num_processes: int | None, process_id: int | None, *, seconds: int) -> None:
    """Joins the other processes; to be called before any other use of JAX.

    Args:
        coordinator: HOST:PORT at which process 0 is to listen; None where the cluster provides it (SLURM, Kubernetes,
            Cloud TPU), as `jax.distributed.initialize` detects.
        num_processes: all of them; None as above.
        process_id: of this one, from 0; None as above.
        seconds: to wait for the others. If they do not come, the process ends with a message.

    Raises:
        BadInput: a port in use, a number outside its range, no address and no cluster that provides it, processes with
            unequal numbers of devices.
    """
    address = dict(coordinator_address=coordinator, num_processes=num_processes, process_id=process_id)
    if all(value is None for value in address.values()):
        address = {}
    elif None in address.values():
        raise BadInput("give coordinator, num_processes and process_id, or none of them if the cluster provides them.")
    else:
        _check_address(coordinator, num_processes, process_id)
    # This service would swallow the signal by which schedulers end a process.
    jax.config.update("jax_enable_preemption_service", False)
    # Left to itself JAX would abort without saying what to do.
    at = f" at {coordinator}" if coordinator else ""
    late = threading.Timer(seconds, _give_up, (f"{at} within {seconds} seconds",))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(**address, initialization_timeout=seconds + 60, heartbeat_timeout_seconds=SILENCE)
    except (ValueError, RuntimeError) as error:
        raise BadInput(
            f"no other process was found ({error}); give --coordinator=HOST:PORT, --num_processes and --process_id."
        ) from error
    finally:
        late.cancel()
    threading.Thread(target=_end_with_others, args=(jax.process_index(),), daemon=True).start()
    if jax.local_device_count() * jax.process_count() != jax.device_count():
        raise BadInput(
            f"process {jax.process_index()} has {jax.local_device_count()} of the {jax.device_count()} devices of "
            f"{jax.process_count()} processes; start all with equally many devices."
        )
    # JAX's own message, when it ends a process because another is lost, names no cure.
    print(
        f"Process {jax.process_index()} of {jax.process_count()} has joined. If one is lost, all end. {AGAIN}",
        file=sys.stderr,
        flush=True,
    )


def agree(**what: Any) -> None:
    """Checks that all processes have the same `what`, which is JSON, and the same packages and code.

    Raises:
        BadInput: in each process, where one differs from the first; the message says how.
    """
    if jax.process_count() == 1:
        return
    packages = {name: version(name) for name in PACKAGES} | {"latent_al": _digest_of_code()}
    facts = [json.loads(text) for text in _exchange(json.dumps(what | {"packages": packages}))]
    for index in range(1, len(facts)):
        differing = differences(facts[0], facts[index], "process 0", f"process {index}")
        if differing:
            raise BadInput(
                f"the processes differ ({'; '.join(differing)}); start all with the same config, code and environment."
            )


def leave(message: str) -> NoReturn:
    """Ends this process, and the others if there are any, with `message` and the exit status 1."""
    print(message, file=sys.stderr, flush=True)
    if not jax.distributed.is_initialized():
        sys.exit(1)
    index = jax.process_index()
    # Another process may have been first, or the service may be gone.
    with suppress(jax.errors.JaxRuntimeError):
        _store().key_value_set(OVER, f"process {index} has ended the run: {message}")
    _exit()


@contextmanager
def end_together(workdir: str) -> Iterator[None]:
    """Ends this process, and the others if there are any, when the body fails or is interrupted.

    A single process shows the traceback of an error without a cure; with several, each says which one has failed.

    Args:
        workdir: named in the message after an interruption.
    """
    try:
        yield
    except BadInput as error:
        leave(f"launch.py: {error}")
    except KeyboardInterrupt:
        leave(f"\nInterrupted. The same command continues where it stopped, in {workdir}.")
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        if not isinstance(error, jax.errors.JaxRuntimeError):
            traceback.print_exc()
        leave(
            f"launch.py: process {jax.process_index()} has failed, or has lost another one ({str(error)[:200]}); see "
            f"what the others print. {AGAIN}"
        )


def share(size: int) -> tuple[int, int]:
    """Returns the first row of this process's part of `size` rows, and the row after its last."""
    index = jax.process_index()
    num = jax.process_count()
    return index * size // num, (index + 1) * size // num


def digest_by_share(array: np.ndarray) -> str:
    """Returns a hash of an array on disk, the same for any number of processes, each of which reads a part."""
    rows = max(1, BLOCK_BYTES * len(array) // max(1, array.nbytes))
    starts = range(0, len(array), rows)
    first, end = share(len(starts))
    parts = [hashlib.sha256(np.ascontiguousarray(array[start : start + rows])) for start in starts[first:end]]
    text = " ".join(part.hexdigest() for part in parts)
    texts = [text] if jax.process_count() == 1 else _exchange(text)
    whole = " ".join([str(array.dtype), str(array.shape), *filter(None, texts)])
    return hashlib.sha256(whole.encode()).hexdigest()


def highest_of_all(number: int) -> int:
    """Returns the highest of the whole numbers that the processes have."""
    return number if jax.process_count() == 1 else max(map(int, _exchange(str(number))))


def is_first() -> bool:
    """Returns whether this process, of those that run together, is the one that writes."""
    return jax.process_index() == 0


@contextmanager
def after_the_first() -> Iterator[None]:
    """Runs the body in the first process, and then in the others, which find what it has left on disk.

    The body must do nothing that takes all processes, such as `mesh.gather`: the others are not there yet.
    They wait in the key-value store of the coordination service for as long as it takes: `sync_global_devices`, a
    collective, was measured on CPUs to fail after `xla_cpu_collective_timeout_seconds`, 30 minutes by default.
    """
    key = f"latent_al/turn {next(_turns)}"
    if not is_first():
        _store().blocking_key_value_get(key, 1000 * PATIENCE)
    yield
    if is_first() and jax.process_count() > 1:
        _store().key_value_set(key, "done")


def _store():
    """Returns the client of JAX's coordination service, to whose key-value store JAX itself gives no public access."""
    # A single process does not load Orbax.
    from orbax.checkpoint import multihost

    return multihost.get_jax_distributed_client()


def _exchange(text):
    """Returns the text of every process, in order."""
    encoded = np.frombuffer(text.encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(encoded)))
    gathered = multihost_utils.process_allgather(np.pad(encoded, (0, lengths.max() - len(encoded))))
    return [row[:length].tobytes().decode() for row, length in zip(gathered, lengths, strict=True)]


def _end_with_others(index):
    """Ends this process with the message of the first one that leaves; to be run in a thread.

    JAX ends all processes when one is lost, but passes on no message: a collective would wait, or fail without a
    reason. The thread polls once a second, as Python aborts if a thread that waits in the store outlives the program.
    """
    while True:
        time.sleep(1)
        # There is no message yet, or the service is gone, and soon this thread will be too.
        with suppress(jax.errors.JaxRuntimeError):
            message = _store().key_value_try_get(OVER)
            if not message.startswith(f"process {index} "):
                print(f"launch.py: {message}", file=sys.stderr, flush=True)
                _exit()


def _exit() -> NoReturn:
    # The service by which the others hear ends with the first process, so this one ends last.
    time.sleep(2 * FAREWELL if is_first() else FAREWELL)
    # On a normal exit JAX would wait for the others.
    os._exit(1)


def _check_address(coordinator, num_processes, process_id):
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise BadInput(f"coordinator is {coordinator!r}; expected HOST:PORT, such as localhost:12345.")
    if not 0 <= process_id < num_processes:
        raise BadInput(f"process_id is {process_id} of {num_processes}; expected 0 to {num_processes - 1}.")
    if process_id == 0:
        # JAX would crash.
        with socket.socket(socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", int(port)))
            except OSError as error:
                raise BadInput(f"port {port} cannot be used ({error.strerror}); give --coordinator another.") from error


def _give_up(where):
    print(
        f"launch.py: not all processes have joined{where}; start as many as --num_processes says, each with its own "
        "--process_id and the same --coordinator, which all machines must reach.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def _digest_of_code():
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
