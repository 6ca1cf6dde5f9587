"""The program as a user runs it: the files of a run, kills and resumes, and refused workdirs."""

import io
import json
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import jax
import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict

from latent_al.experiment import run as experiment_run
from latent_al.experiment.run import run_experiment
from latent_al.runtime.workdir import keep_compiled
from latent_al.types import BadInput

ROOT = Path(__file__).parents[1]
SMOKE = "--config=configs/digits_vae.py:smoke"


def command(*flags):
    return [sys.executable, "launch.py", *map(str, flags)]


def launch(*flags):
    return subprocess.run(command(*flags), cwd=ROOT, capture_output=True, text=True, check=False)


def succeed(*flags):
    done = launch(*flags)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_demo(workdir, encoders_dir=None, **changes):
    """The demo's smoke size in this process; `__` in a name stands for a dot."""
    config = runpy.run_path(str(ROOT / "configs/digits_vae.py"))["get_config"]("smoke")
    with config.ignore_type():
        config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return run_experiment(config, str(workdir), encoders_dir=encoders_dir)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of one whole smoke run of the demo, six rounds long."""
    workdir = tmp_path_factory.mktemp("finished")
    done = launch(SMOKE, "--config.num_rounds=6", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    (workdir / "stdout").write_text(done.stdout)
    (workdir / "stderr").write_text(done.stderr)
    return workdir


HEARING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
"""A shell starts what runs in the background with SIGINT ignored, and so would the launch."""


def start(*flags, **streams):
    """A launch that a signal will end: it leaves `conftest.compiled` alone, where half a program would stay."""
    env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return subprocess.Popen([sys.executable, "-c", HEARING, *command(*flags)], cwd=ROOT, env=env, **streams)


def same_results(one, other):
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in ("metrics.csv", "queries.csv"))


def test_digits_vae(finished):
    metrics, queries = (pd.read_csv(finished / f"{name}.csv") for name in ("metrics", "queries"))
    assert list(metrics) == ["arm", "seed", "round", "num_labels", "split", "metric", "value"]
    assert metrics.groupby("split", sort=True).size().to_dict() == dict(labelled=28, test=8, validation=56)
    assert (metrics[metrics.split != "labelled"].groupby(["split", "metric"]).size() == [4, 4, 28, 28]).all()
    assert metrics.query("split == 'test'").num_labels.unique().tolist() == [80]
    assert metrics.value.between(0, 1).all()
    assert list(queries) == ["arm", "seed", "round", "rank", "row", "id"]
    assert not queries.duplicated(["arm", "seed", "row"]).any()
    assert queries.groupby(["arm", "seed"]).size().tolist() == [80] * 4
    first = queries[queries["round"] == 0]
    by_arm = [first[first.arm == arm][["seed", "rank", "row"]].to_numpy() for arm in ("random", "margin")]
    np.testing.assert_array_equal(*by_arm)
    assert not np.array_equal(*(first[first.seed == seed].row for seed in (0, 1)))
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["arms"].keys() == {"margin", "random"}
    assert summary["penalties"].keys() == summary["ties"].keys() == {"margin", "random"}
    assert [reached["source"] for reached in summary["labels_to_reach"]] == ["baseline"]
    assert summary["encoders"]["vae"]["validation_loss"] > 0
    assert (finished / "figures" / "learning_curves.png").stat().st_size > 10_000
    timings = pd.read_csv(finished / "timings.csv")
    assert (timings.fit_seconds > 0).all()
    assert timings.select_seconds.isna().sum() == 2
    stdout = (finished / "stdout").read_text()
    assert "margin" in stdout
    assert f"{finished}/report.html" in stdout


@pytest.mark.slow
def test_several_dropouts_share_a_program_and_stay_apart(tmp_path):
    few = dict(num_rounds=1, num_seeds=2, arms__margin__subsample=0.5)
    swept = {f"arms__{arm}__sweep": dict(dropout=(0.2, 0.5)) for arm in ("margin", "random")}
    both = run_demo(tmp_path / "both", baseline="random_dropout_0.5", **swept, **few)
    assert list(both["arms"]) == [f"{arm}_dropout_{rate}" for arm in ("margin", "random") for rate in (0.2, 0.5)]
    run_demo(tmp_path / "one", classifiers__mlp__dropout=0.5, **few)
    found, alone = (pd.read_csv(tmp_path / name / "queries.csv") for name in ("both", "one"))
    for arm in ("margin", "random"):
        own = found[found.arm == f"{arm}_dropout_0.5"]
        np.testing.assert_array_equal(own[own.columns[1:]], alone[alone.arm == arm][alone.columns[1:]])


def test_the_report_holds_every_picture(finished):
    page = (finished / "report.html").read_text()
    pictures = sorted(path.stem for path in (finished / "figures").rglob("*.png"))
    charted = {"learning_curves", "balanced_learning_curves", "gaps"}
    assert page.count("data:image/webp;base64,") == len(set(pictures) - charted)
    assert page.count("<svg") == 4
    assert {"learning_curves", "balanced_learning_curves", "single_runs"} <= set(pictures)
    for heading in ("Learning curves", "Difference from random", "Balanced results", "Pairwise comparison"):
        assert f"<h2>{heading}</h2>" in page
    assert "random&#39;s final validation accuracy of" in page
    assert {"queried_classes", "queries_round_1", "queries_round_6"} <= set(pictures)
    of_encoders = {path.stem for path in (finished / "figures/encoders").iterdir()}
    assert of_encoders == {"vae_reconstructions", "vae_interpolations", "vae_ranges", "vae_representativeness"}
    assert "launch.py --config=configs/digits_vae.py:smoke" in page
    assert "&#34;num_seeds&#34;: 2" in page


@pytest.mark.slow
def test_two_dimensions_are_mapped(tmp_path):
    run_demo(tmp_path, encoders__vae__latent_dim=2, num_rounds=0)
    pictures = {path.stem for path in (tmp_path / "figures").rglob("*.png")}
    assert {"vae_manifold", "vae_classes", "vae_representativeness_map", "queries_round_0"} <= pictures
    assert "learning_curves" not in pictures


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        return True


def test_killed_at_a_random_round_ends_with_the_same_bytes(finished, tmp_path, monkeypatch):
    flags = [SMOKE, "--config.num_rounds=6", f"--workdir={tmp_path}"]
    seed = random.SystemRandom().randrange(1000)
    print("kill seed", seed)
    wanted = random.Random(seed).randrange(1, 13)
    process = start(*flags, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and num_rounds(tmp_path) < wanted:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    succeed(*flags)
    assert same_results(finished, tmp_path)
    monkeypatch.setattr(sys, "stderr", Terminal())
    run_demo(tmp_path, num_rounds=6)
    assert same_results(finished, tmp_path)
    assert re.search(r"margin, seeds 0 to 1: 100%.*7/7 \[\d\d:\d\d<", sys.stderr.getvalue())


def test_progress_is_not_shown_where_there_is_no_terminal(finished):
    assert (finished / "stderr").read_text() == ""


def num_rounds(workdir):
    """Rounds done over both arms: the newest checkpoint of each carries its number."""
    arms = workdir.glob("checkpoints/*/*")
    return sum(max((int(p.name) for p in arm.iterdir() if p.name.isdigit()), default=0) for arm in arms)


def test_interrupt_says_how_to_resume(tmp_path):
    process = start(SMOKE, "--config.num_rounds=100", f"--workdir={tmp_path}", stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not num_rounds(tmp_path):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert "The same command continues where it stopped" in process.communicate()[1]
    assert process.returncode == 1


@pytest.mark.slow
def test_blocks_of_seeds_have_the_same_initial_labelled_sets(finished, tmp_path):
    run_demo(tmp_path, num_rounds=1, seeds_at_once=1)
    queries = [pd.read_csv(folder / "queries.csv").query("round == 0") for folder in (finished, tmp_path)]
    pd.testing.assert_frame_equal(*(table.reset_index(drop=True) for table in queries))


def test_without_labels_it_chooses_an_initial_set(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "pool.npz", x_train=images)
    data = ConfigDict(dict(name="npz", root=str(tmp_path / "pool.npz"), num_validation=0))
    config = runpy.run_path(str(ROOT / "configs/digits_vae.py"))["get_config"]("smoke")
    config.data = data
    with pytest.raises(
        BadInput, match="need the labels of the training images but the data has none; set num_rounds=0"
    ):
        run_experiment(config, str(tmp_path / "run"))
    config.num_rounds = 0
    run_experiment(config, str(tmp_path / "run"))
    queries = pd.read_csv(tmp_path / "run" / "queries.csv")
    assert queries.groupby(["arm", "seed"]).row.nunique().tolist() == [20] * 4
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_help_begins_with_examples_and_all_configs():
    head = launch("--help").stdout.split("\nflags:")[0]
    assert "python launch.py --config=configs/digits_vae.py\n" in head
    assert {path.stem for path in (ROOT / "configs").glob("*.py")} <= set(head.split())
    assert max(map(len, head.splitlines())) <= 80


@pytest.mark.parametrize("flag", ["--workdir", "--encoders"])
def test_a_folder_that_is_a_file_is_refused(tmp_path, monkeypatch, flag):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    done = launch(SMOKE, f"{flag}=~/file")
    assert done.stderr.endswith(
        f"{flag}={tmp_path}/file is a file; give a folder, which is created if it does not exist.\n"
    )


def test_another_config_in_the_workdir_is_refused_without_a_traceback(finished):
    done = launch(SMOKE, "--config.num_rounds=5", f"--workdir={finished}")
    assert done.returncode == 1
    assert "holds another experiment (config.num_rounds: there 6, now 5)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_workdir_in_which_another_process_runs_is_refused(finished):
    with filelock.FileLock(finished / ".lock"), pytest.raises(BadInput, match="in use by another process; wait for it"):
        run_demo(finished, num_rounds=6)


def test_a_folder_of_encoders_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"encoder 'vae': .*file.* cannot be read or written \(Not a directory\)"):
        run_demo(tmp_path / "run", encoders_dir=str(tmp_path / "file" / "encoders"))


@pytest.mark.slow
def test_a_corrupt_checkpoint_is_named_and_the_one_before_it_serves(finished, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    newest = workdir / "checkpoints" / "margin" / "seeds-0" / "7"
    for path in newest.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    cure = f"checkpoint {newest} cannot be read .*; delete that folder and run again"
    with pytest.raises(BadInput, match=cure):
        run_demo(workdir, num_rounds=6)
    shutil.rmtree(newest)
    run_demo(workdir, num_rounds=6)
    assert same_results(finished, workdir)


@pytest.mark.slow
def test_another_training_of_the_encoder_is_refused(tmp_path):
    """A workdir goes on with the latents that it was begun with, wherever its encoders are kept."""
    few = dict(num_rounds=1, num_seeds=1)
    run_demo(tmp_path / "run", **few)
    run_demo(tmp_path / "run", **few)
    shutil.rmtree(tmp_path / "run" / "encoders", ignore_errors=True)
    pinned = tmp_path / "run" / "encoders" / "vae.digest"
    pinned.parent.mkdir()
    pinned.write_text("of another training")
    with pytest.raises(BadInput, match="what encoder 'vae' learned or was given has changed since this workdir"):
        run_demo(tmp_path / "run", **few)


@pytest.mark.slow
def test_an_encoder_is_not_shared_by_experiments_of_another_precision(tmp_path, monkeypatch):
    precisions, load = [], experiment_run.load

    def load_and_note(spec):
        precisions.append(jax.config.jax_default_matmul_precision)
        return load(spec)

    monkeypatch.setattr(experiment_run, "load", load_and_note)
    for precision, num_encoders in (("float32", 1), ("bfloat16", 2)):
        config = runpy.run_path(str(ROOT / "configs/digits_vae.py"))["get_config"]("smoke")
        config.num_rounds, config.num_seeds, config.precision = 0, 1, precision
        run_experiment(config, str(tmp_path / precision), encoders_dir=str(tmp_path / "encoders"))
        assert len(list((tmp_path / "encoders").iterdir())) == num_encoders
    assert precisions == ["float32", "bfloat16"]


@pytest.mark.slow
def test_changed_embeddings_are_refused(tmp_path):
    config = runpy.run_path(str(ROOT / "configs/digits_vae.py"))["get_config"]("smoke")
    config.num_rounds = 0
    config.num_seeds = 1
    embeddings = dict(name="precomputed", latents=str(tmp_path / "train.npy"))
    config.encoders = ConfigDict(dict(vae=embeddings))
    config.data = ConfigDict(dict(name="digits", num_validation=0, num_test=0))
    for scale, name in ((1, "train.npy"), (1, "moved.npy"), (2, "moved.npy")):
        np.save(tmp_path / name, scale * np.random.default_rng(0).normal(size=(1797, 3)))
        config.encoders.vae.latents = str(tmp_path / name)
        if scale == 1:
            run_experiment(config, str(tmp_path / "run"))
    with pytest.raises(BadInput, match="what encoder 'vae' learned or was given has changed since this workdir"):
        run_experiment(config, str(tmp_path / "run"))


@pytest.mark.slow
def test_test_scores_are_compared_without_validation_images(tmp_path):
    config = runpy.run_path(str(ROOT / "configs/digits_vae.py"))["get_config"]("smoke")
    config.num_rounds, config.num_seeds = 1, 1
    config.encoders = ConfigDict(dict(vae=dict(name="identity")))
    config.data = ConfigDict(dict(name="digits", num_validation=0, num_test=300))
    run_experiment(ConfigDict(config.to_dict() | dict(test_every_round=True)), str(tmp_path))
    assert pd.read_csv(tmp_path / "test_gaps.csv").num_labels.tolist() == [20, 30]
    assert "Test accuracy, difference from random" in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "gaps.csv").exists()


@pytest.mark.slow
def test_margin_beats_random_as_the_demo_claims(tmp_path):
    """The demo with 8 of its 20 seeds, 9 of its 19 rounds and a shorter training of its VAE."""
    short = ["--config.num_seeds=8", "--config.encoders.vae.epochs=40", "--config.num_rounds=9"]
    succeed("--config=configs/digits_vae.py", *short, f"--workdir={tmp_path}")
    gap = json.loads((tmp_path / "summary.json").read_text())["differences"]["margin"]["area"]
    assert gap["low"] > 0


def test_importing_the_package_needs_no_tensorflow():
    code = "import sys, latent_al.experiment.run; sys.exit(any(name.startswith('tensorflow') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, check=False).returncode == 0


def test_compiled_programs_are_kept_unless_told_where(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    try:
        keep_compiled(tmp_path / "other")
        assert jax.config.jax_compilation_cache_dir == before
        jax.config.update("jax_compilation_cache_dir", None)
        keep_compiled(tmp_path)
        assert jax.config.jax_compilation_cache_dir == str(tmp_path)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
