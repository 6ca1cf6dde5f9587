"""Several processes on this machine, which run one experiment together."""

import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from latent_al.data import load
from latent_al.experiment.run import run_experiment
from latent_al.runtime.mesh import gather, make_mesh, place_rows
from latent_al.runtime.processes import join
from latent_al.types import BadInput

ROOT = Path(__file__).parents[1]
TINY = """
from ml_collections import ConfigDict

def get_config():
    mlp = dict(name="mlp", hidden=(8,), dropout=0.0, learning_rate=1e-3, epochs=1, batch_size=10)
    vae = dict(name="dense_vae", hidden=(8,), latent_dim=2, learning_rate=1e-3, epochs=1, batch_size=100, seed=0)
    arm = dict(encoder="vae", classifier="mlp", subsample=1.0, strategy=dict(name="distance"))
    config = dict(data=dict(name="npz", root=FOLDER, num_validation=0), num_seeds=2, seeds_at_once=2)
    initial = dict(name="normal", clustering=None, threshold=0.25, match="nearest")
    config |= dict(encoders=dict(vae=vae), classifiers=dict(mlp=mlp), initial=initial, arms=dict(far=arm))
    config |= dict(diagnostics=dict(importance=dict(name="importance", arms=("far",), num_rows=50)))
    return ConfigDict(config | dict(num_initial=20, query_size=10, num_rounds=8, baseline="far"))
"""
TWO_DEVICES = "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count=2"


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.fixture
def tiny(tmp_path):
    """The flag of a config whose programs are soon compiled, on images that stay on disk."""
    digits = load(dict(name="digits", num_validation=200, num_test=300))
    for split in ("train", "validation", "test"):
        for axis, array in zip("xy", getattr(digits, split)[:2], strict=True):
            np.save(tmp_path / f"{axis}_{split}.npy", array)
    (tmp_path / "tiny.py").write_text(TINY.replace("FOLDER", repr(str(tmp_path))))
    return f"--config={tmp_path / 'tiny.py'}"


@pytest.fixture
def start_python():
    """Starts Python with arguments, and packages of `path` first; what still runs in the end is killed."""
    started = []

    def begin(*arguments, path=""):
        command = [sys.executable, *map(str, arguments)]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        env = os.environ | {"XLA_FLAGS": TWO_DEVICES, "PYTHONPATH": str(path)}
        started.append(subprocess.Popen(command, cwd=ROOT, env=env, **pipes))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def start(start_python):
    """Starts `launch.py` with flags, as `start_python` does."""
    return lambda *flags, path="": start_python("launch.py", *flags, path=path)


def start_both(start, port, *flags, others=(), path=""):
    """Two processes of two devices each, the second with flags and packages of its own."""
    together = [f"--coordinator=localhost:{port}", "--num_processes=2", *flags]
    return [start(*together, "--process_id=0"), start(*together, *others, "--process_id=1", path=path)]


def ends(process):
    """The exit status, and all that was said."""
    said, _ = process.communicate(timeout=240)
    return process.returncode, said


def same_rows_as_one(tmp_path, processes):
    """Whether the processes end well, with the rows of a run in this one."""
    for process in processes:
        status, said = ends(process)
        assert status == 0, said
    run_experiment(runpy.run_path(str(tmp_path / "tiny.py"))["get_config"](), str(tmp_path / "one"))
    return (tmp_path / "two/queries.csv").read_bytes() == (tmp_path / "one/queries.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(), ("--config.mesh.seeds=2", "--config.mesh.pool=2")], ids=["rows", "seeds"])
def test_two_processes_query_the_rows_of_one(tmp_path, port, start, tiny, mesh):
    """They share the rows, or each has a seed; the distribution of the initial set and a diagnostic are gathered."""
    assert same_rows_as_one(tmp_path, start_both(start, port, tiny, *mesh, f"--workdir={tmp_path / 'two'}"))


@pytest.mark.slow
def test_a_lost_process_ends_the_run_and_a_restart_ends_with_the_rows_of_one(tmp_path, port, start, tiny):
    flags = (tiny, f"--workdir={tmp_path / 'two'}")
    first, second = start_both(start, port, *flags)
    while not list((tmp_path / "two").glob("checkpoints/far/seeds-0/2")):
        assert first.poll() is None, ends(first)
        time.sleep(0.05)
    second.send_signal(signal.SIGKILL)
    status, said = ends(first)
    # A collective fails at once, or JAX aborts where one hangs until the heartbeats are missed.
    assert (status, said.count("or has lost another one")) == (1, 1) or (
        status == -signal.SIGABRT and "This most likely indicates that another task died" in said
    )
    assert "The same commands, run again, continue from the last complete round." in said
    assert not (tmp_path / "two/queries.csv").exists()
    # The service of the process that has ended may hold the port for a while.
    assert same_rows_as_one(tmp_path, start_both(start, port + 1, *flags))


ALONE = """
import sys, time
from latent_al.runtime.processes import after_the_first, is_first, join, leave

join("localhost:PORT", 2, int(sys.argv[1]), seconds=60)
if sys.argv[1] == "LEAVES":
    leave("launch.py: latents.npy cannot be read; restore it.")
with after_the_first():
    time.sleep(120 if is_first() else 0)
"""


@pytest.mark.parametrize("leaves", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_one_that_leaves_ends_the_others_with_its_message(leaves, port, start_python):
    program = ALONE.replace("PORT", str(port)).replace("LEAVES", str(leaves))
    begun = time.monotonic()
    processes = [start_python("-c", program, str(index)) for index in range(2)]
    said = [ends(process) for process in processes]
    assert [status for status, _ in said] == [1, 1]
    message = "launch.py: latents.npy cannot be read; restore it."
    assert f"launch.py: process {leaves} has ended the run: {message}" in said[1 - leaves][1]
    assert said[leaves][1].count(message) == 1
    assert time.monotonic() - begun < 60


def test_processes_that_differ_say_in_what(tmp_path, port, start, tiny):
    older = tmp_path / "optax-0.0.1.dist-info"
    older.mkdir()
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: optax\nVersion: 0.0.1\n")
    own = dict(others=["--config.query_size=11"], path=tmp_path)
    for process in start_both(start, port, tiny, f"--workdir={tmp_path / 'run'}", **own):
        status, said = ends(process)
        assert status == 1
        assert "the processes differ (config.query_size: process 0 10, process 1 11; packages.optax: process 0 " in said
        assert ", process 1 0.0.1); start all with the same config" in said
        assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--coordinator=localhost:PORT", "--process_id=1", "--num_processes=2"], "not all processes have joined at"),
        (["--cluster"], "no other process was found"),
    ],
)
def test_processes_that_do_not_meet_say_so(tmp_path, port, start, tiny, flags, message):
    flags = [flag.replace("PORT", str(port)) for flag in flags]
    status, said = ends(start(tiny, f"--workdir={tmp_path}", "--join_seconds=1", *flags))
    assert status == 1
    assert message in said
    assert "Traceback" not in said


def test_a_port_in_use_is_refused(port):
    with socket.socket() as taken:
        taken.bind(("", port))
        taken.listen()
        with pytest.raises(BadInput, match=f"port {port} cannot be used .*; give --coordinator another"):
            join(f"localhost:{port}", 2, 0, seconds=1)


@pytest.mark.parametrize(
    "given, message",
    [
        (("localhost", 2, 1), "'localhost'; expected HOST:PORT"),
        (("localhost:0", 2, 1), "expected HOST:PORT"),
        (("localhost:12345", 2, 2), "process_id is 2 of 2; expected 0 to 1"),
        (("localhost:12345", None, 1), "give coordinator, num_processes and process_id"),
    ],
)
def test_numbers_that_cannot_be_are_refused(given, message):
    with pytest.raises(BadInput, match=message):
        join(*given, seconds=1)


class Recording:
    """An array that notes which rows are read of it."""

    def __init__(self, array):
        self.array, self.dtype, self.shape, self.read = array, array.dtype, array.shape, []

    def __len__(self):
        return len(self.array)

    def __getitem__(self, index):
        self.read.append(index[0])
        return self.array[index]


def test_only_the_rows_of_a_device_are_read_for_it():
    recording = Recording(np.arange(20, dtype=np.float32).reshape(10, 2))
    placed = place_rows(recording, make_mesh(dict(pool=4), [[0]]))
    np.testing.assert_array_equal(gather(placed), recording.array)
    assert sorted(rows.start or 0 for rows in recording.read) == [0, 3, 6, 9]
    assert all(rows.stop - (rows.start or 0) == 3 for rows in recording.read)
