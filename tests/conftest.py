"""Strict settings, and where the real data is."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from latent_al.data.arrays import assemble, to_split

jax.config.update("jax_numpy_rank_promotion", "raise")
# Most of the time of these tests is compilation; the programs that they launch take the flags over. Without the fusion
# emitters XLA compiles in half the time.
# Eight simulated devices are for the tests of meshes; all others use the first.
FLAGS = ("backend_optimization_level=0", "cpu_use_fusion_emitters=false", "force_host_platform_device_count=8")
os.environ.setdefault("XLA_FLAGS", " ".join(f"--xla_{flag}" for flag in FLAGS))


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
    """A folder of compiled programs, for this process and those that it launches: what is run again is not compiled.

    JAX writes into it without a lock, so that no other process of the tests may share it.
    """
    settings = dict(compilation_cache_dir=str(tmp_path_factory.mktemp("compiled")))
    settings |= dict(persistent_cache_min_compile_time_secs=0.1, persistent_cache_min_entry_size_bytes=-1)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            jax.config.update(f"jax_{name}", value)
            patch.setenv(f"JAX_{name.upper()}", str(value))
        yield


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Forgets compiled programs before they take up all the memory maps that Linux lets a process have, 65,530."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > 30_000:
        jax.clear_caches()


@pytest.fixture(scope="session")
def mnist_root():
    """A folder of the four MNIST files."""
    root = Path(os.environ.get("LATENT_AL_TEST_DATA", "")) / "mnist"
    if "LATENT_AL_TEST_DATA" not in os.environ or not root.is_dir():
        pytest.skip("LATENT_AL_TEST_DATA is not set to a folder that has mnist/")
    return root


@pytest.fixture
def make_data():
    """A factory of small image sets with random pixels, in which each class occurs."""

    def make(num_train=60, num_validation=20, num_test=20, num_classes=3, labelled=True):
        rng = np.random.default_rng(0)

        def split(size):
            labels = np.arange(size) % num_classes
            images = rng.uniform(size=(size, 4, 4, 1)) * 0.5 + labels[:, None, None, None] / (2 * num_classes)
            return to_split(images.astype(np.float32), labels if labelled else None)

        train, test = split(num_train + num_validation), split(num_test)
        return assemble(train, test, num_validation=num_validation)

    return make
