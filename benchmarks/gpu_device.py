"""The device that `gpu.py` measures, its ceilings, and the rows of the table."""

import os
import subprocess
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from importlib.util import find_spec
from resource import RUSAGE_SELF, getrusage
from shutil import which
from typing import NamedTuple

import jax
from timing import seconds

REPEATS = 3


class Row(NamedTuple):
    """A figure, None where it was not measured; then the remark says why."""

    what: str
    figure: float | None
    unit: str
    remark: str = ""


def environment() -> dict:
    """Returns the device, the versions and the date."""
    driver = ""
    if which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        [driver, *_] = subprocess.check_output(query, text=True).splitlines()
    packages = ("jax", "jaxlib", "flax", "torch")
    return dict(
        platform=jax.default_backend(),
        device=jax.devices()[0].device_kind,
        driver=driver,
        cores=os.cpu_count(),
        date=datetime.now().isoformat(timespec="seconds"),
        **{name: version(name) if find_spec(name) else None for name in packages},
    )


def no_torch() -> str | None:
    """Returns why PyTorch cannot run on the device of JAX; None where it can."""
    if find_spec("torch") is None:
        return "not run: PyTorch is not installed"
    import torch

    if jax.default_backend() != "cpu" and not torch.cuda.is_available():
        return "not run: PyTorch sees no GPU"
    return None


def torch_device():
    return "cpu" if jax.default_backend() == "cpu" else "cuda"


def player(function, *args):
    """Returns a function that plays the compiled `function`."""
    compiled = jax.jit(function).lower(*args).compile()
    return lambda: jax.block_until_ready(compiled(*args))


def peak_memory() -> tuple[float, str]:
    """Returns the peak of memory in bytes, and whose it is."""
    if stats := jax.devices()[0].memory_stats():
        return stats["peak_bytes_in_use"], "the device's arrays"
    return 1024 * getrusage(RUSAGE_SELF).ru_maxrss, "the whole process, since this device does not tell"


class Ceilings(NamedTuple):
    """Bytes a second of a copy, and floating-point operations a second of a float32 product."""

    bandwidth: float
    rate: float

    def floor(self, num_bytes=0.0, operations=0.0):
        """Returns the seconds that no program stays below."""
        return max(num_bytes / self.bandwidth, operations / self.rate)


def measure_ceilings(small: bool) -> Ceilings:
    size, side = (2**24, 1024) if small else (2**30, 16_384)
    key_array, key_square = jax.random.split(jax.random.key(0))
    array, square = jax.random.normal(key_array, (size,)), jax.random.normal(key_square, (side, side))
    copy, product = seconds(REPEATS, player(lambda array: array + 1, array), player(lambda a: a @ a, square))
    return Ceilings(2 * array.nbytes / copy, 2 * side**3 / product)


def rows_of_ceilings(ceilings: Ceilings) -> Iterator[Row]:
    yield Row("memory bandwidth, a copy", ceilings.bandwidth / 1e9, "GB/s")
    yield Row("a square product in float32", ceilings.rate / 1e12, "TFLOP/s")
