"""The program as a user runs it: each config's smoke size, kills and resumes, and what it refuses."""

import itertools
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

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict
from PIL import Image
from scipy.io import savemat
from test_data import write_idx
from test_svhn import make_fields

from latent_al.base import BadInput, build
from latent_al.encoders import ENCODERS, TRAINED
from latent_al.experiment import run
from latent_al.models.classifiers import CLASSIFIERS, ON_IMAGES
from latent_al.strategies import STRATEGIES

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


def run_demo(workdir, **changes):
    """The demo's smoke size in this process; `__` in a name stands for a dot."""
    config = runpy.run_path(str(ROOT / "configs/digits_vae.py"))["get_config"]("smoke")
    with config.ignore_type():
        config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return run(config, str(workdir))


def refuse(workdir, message, **changes):
    """The run ends with the message before anything is trained."""
    with pytest.raises(BadInput, match=re.escape(message)):
        run_demo(workdir, **changes)
    assert not list(Path(workdir).glob("encoders/*"))


@pytest.fixture(scope="module")
def tiny_mnist(tmp_path_factory):
    """MNIST-style files with 300 images of noise."""
    root = tmp_path_factory.mktemp("idx")
    rng = np.random.default_rng(0)
    for part, size in dict(train=300, t10k=50).items():
        write_idx(root / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (size, 28, 28), dtype=np.uint8))
        write_idx(root / f"{part}-labels-idx1-ubyte.gz", np.arange(size, dtype=np.uint8) % 10)
    return root


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of one whole smoke run of the demo, six rounds long."""
    workdir = tmp_path_factory.mktemp("finished")
    stdout = succeed(SMOKE, "--config.rounds=6", f"--workdir={workdir}")
    (workdir / "stdout").write_text(stdout)
    return workdir


def same_results(one, other):
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in ("metrics.csv", "queries.csv"))


def test_every_config_has_a_launch():
    assert {path.stem for path in (ROOT / "configs").glob("*.py")} == {
        "cifar10_vae",
        "digits_vae",
        "mnist_latent_sampling",
        "mnist_vae",
        "svhn_vae",
    }


def test_digits_vae(finished):
    metrics, queries = (pd.read_csv(finished / f"{name}.csv") for name in ("metrics", "queries"))
    assert list(metrics) == ["arm", "seed", "round", "num_labels", "split", "metric", "value"]
    assert metrics.groupby("split", sort=True).size().to_dict() == dict(labelled=28, test=4, validation=28)
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
    assert summary["encoders"]["vae"]["validation_loss"] > 0
    assert (finished / "figures" / "learning_curves.png").stat().st_size > 10_000
    timings = pd.read_csv(finished / "timings.csv")
    assert (timings.fit_seconds > 0).all()
    assert timings.select_seconds.isna().sum() == 2
    stdout = (finished / "stdout").read_text()
    assert "margin" in stdout
    assert f"{finished}/report.html" in stdout


TWICE = dict(classifiers__mlp__dropout=(0.2, 0.2))
FEW = ["--config.num_seeds=1", "--config.classifiers.mlp.epochs=1", "--config.encoders.vae.epochs=1"]
BATCHES = ["--config.first_batch=50", "--config.batch=10"] + [
    f"--config.arms.{arm}.subsample=0.2" for arm in ("latents_margin", "latents_greedy")
]


@pytest.mark.parametrize("size", ["smoke", "all_labels"])
def test_mnist_vae(size, tiny_mnist, tmp_path):
    small = (
        ["--config.first_batch=200"]
        if size == "all_labels"
        else [*BATCHES, "--config.arms.pixels_margin.subsample=0.2"]
    )
    flags = [f"--config.data.root={tiny_mnist}", "--config.data.num_validation=100", *FEW, *small]
    assert "latents_random" in succeed(f"--config=configs/mnist_vae.py:{size}", *flags, f"--workdir={tmp_path}")


def test_svhn_vae(tmp_path):
    savemat(tmp_path / "train_32x32.mat", make_fields(300, 0))
    savemat(tmp_path / "test_32x32.mat", make_fields(50, 1))
    flags = [f"--config.data.root={tmp_path}", "--config.data.num_validation=100", *FEW, *BATCHES]
    encoders = tmp_path / "encoders"
    smoke = "--config=configs/svhn_vae.py:smoke"
    assert "latents_greedy" in succeed(smoke, *flags, f"--workdir={tmp_path / 'one'}", f"--encoders={encoders}")
    [trained] = encoders.glob("conv_vae-*")
    before = sorted(path.stat().st_mtime_ns for path in trained.rglob("*"))
    # Another experiment finds the encoder trained.
    succeed(smoke, *flags, "--config.rounds=1", f"--workdir={tmp_path / 'two'}", f"--encoders={encoders}")
    assert sorted(path.stat().st_mtime_ns for path in trained.rglob("*")) == before


def test_cifar10_vae(tmp_path):
    rng = np.random.default_rng(0)
    for split, name in itertools.product(("train", "test"), ("cat", "dog", "ship")):
        (tmp_path / split / name).mkdir(parents=True)
        for index in range(20):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / name / f"{index}.png")
    flags = ["--config=configs/cifar10_vae.py:smoke", f"--config.data.root={tmp_path}", f"--workdir={tmp_path / 'run'}"]
    assert "greedy" in succeed(*flags)


def test_mnist_latent_sampling(tiny_mnist, tmp_path):
    """Each arm has a first batch of its own; the judges find the encoder trained."""
    flags = [f"--config.data.source.root={tiny_mnist}", "--config.data.source.num_validation=100"]
    flags += ["--config.data.num_copies=5", "--config.first_batch=30"]
    flags += [f"--workdir={tmp_path / 'run'}"]
    succeed("--config=configs/mnist_latent_sampling.py:smoke-unbalanced", *flags)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    arms = summary["arms"].keys()
    assert {"random", "ae_error", "vae_clustered_normal", "vae_uniform", "vae_typical"} <= arms
    queries, balance, training = (
        pd.read_csv(tmp_path / "run" / f"{n}.csv") for n in ("queries", "balance", "training")
    )
    assert (queries.groupby(["arm", "seed"]).row.nunique() == 30).all()
    assert (balance.filter(regex=r"class_\d").sum(axis=1) == 30).all()
    assert summary["balance"].keys() == arms
    assert training.groupby(["arm", "seed"])["update"].agg(list).map(lambda each: each == list(range(1, 11))).all()
    drawn = {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")}
    assert {"first_batches", "first_batch_classes", "clusters_vae_clustered_normal", "training"} <= drawn


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_every_size_names_what_exists(path):
    """Each size's encoders, classifiers and strategies can be built; the smoke sizes are run above."""
    module = runpy.run_path(str(path))
    kinds = ("", "dense-", "conv-") if "vae" in module else ("",)
    names = (
        [*module.get("SIZES", ()), "cpu-unbalanced-100-mlp", "cpu-readings"] if "SIZES" in module else ("full", "smoke")
    )
    sizes = [kind + name for kind in kinds for name in module.get("ARMS", names)]
    for config in map(module["get_config"], sizes):
        for spec in config.encoders.values():
            extra = dict(image_shape=(32, 32, 1)) if spec.name in TRAINED else {}
            build(ENCODERS, dict(spec, **extra), "encoder")
        for spec in config.classifiers.values():
            extra = dict(image_shape=(32, 32, 1)) if spec.name in ON_IMAGES else {}
            build(CLASSIFIERS, dict(spec, num_classes=10, **extra), "classifier")
        for arm in config.arms.values():
            build(STRATEGIES, arm.strategy, "strategy")
            build(STRATEGIES, arm.get("initial", config.initial), "strategy")
            assert arm.encoder in config.encoders
            assert arm.classifier in config.classifiers
        assert config.baseline.split("_dropout_")[0] in config.arms
    assert len(sizes) > 1


def test_several_dropouts_share_a_program_and_stay_apart(tmp_path):
    few = dict(rounds=1, num_seeds=2, arms__margin__subsample=0.5)
    both = run_demo(tmp_path / "both", classifiers__mlp__dropout=(0.2, 0.5), baseline="random_dropout_0.5", **few)
    assert list(both["arms"]) == [f"{arm}_dropout_{rate}" for arm in ("margin", "random") for rate in (0.2, 0.5)]
    run_demo(tmp_path / "one", classifiers__mlp__dropout=(0.5,), **few)
    found, alone = (pd.read_csv(tmp_path / name / "queries.csv") for name in ("both", "one"))
    for arm in ("margin", "random"):
        own = found[found.arm == f"{arm}_dropout_0.5"]
        np.testing.assert_array_equal(own[own.columns[1:]], alone[alone.arm == arm][alone.columns[1:]])


def test_the_report_holds_every_picture(finished):
    page = (finished / "report.html").read_text()
    pictures = sorted(path.stem for path in (finished / "figures").glob("*.png"))
    assert page.count("data:image/png;base64,") == len(pictures)
    assert {"learning_curves", "single_runs", "queried_classes", "queries_round_1", "queries_round_6"} <= set(pictures)
    assert {"vae_reconstructions", "vae_interpolations", "vae_ranges", "vae_representativeness"} <= set(pictures)
    assert "launch.py --config=configs/digits_vae.py:smoke" in page
    assert "&#34;num_seeds&#34;: 2" in page


def test_two_dimensions_are_mapped(tmp_path):
    run_demo(tmp_path, encoders__vae__latent=2, rounds=0)
    pictures = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert {"vae_manifold", "vae_classes", "vae_representativeness_map", "queries_round_0"} <= pictures
    assert "learning_curves" not in pictures


def test_killed_at_random_rounds_ends_with_the_same_bytes(finished, tmp_path):
    flags = [SMOKE, "--config.rounds=6", f"--workdir={tmp_path}"]
    seed = random.SystemRandom().randrange(1000)
    print("kill seed", seed)
    for wanted in random.Random(seed).sample(range(1, 13), 2):
        process = subprocess.Popen(command(*flags), cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and num_rounds(tmp_path) < wanted:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    succeed(*flags)
    assert same_results(finished, tmp_path)
    run_demo(tmp_path, rounds=6)
    assert same_results(finished, tmp_path)


def num_rounds(workdir):
    """Rounds done over both arms: the newest checkpoint of each carries its number."""
    arms = workdir.glob("checkpoints/*/*")
    return sum(max((int(p.name) for p in arm.iterdir() if p.name.isdigit()), default=0) for arm in arms)


def test_interrupt_says_how_to_resume(tmp_path):
    flags = ["--config=configs/digits_vae.py", "--config.num_seeds=1", f"--workdir={tmp_path}"]
    process = subprocess.Popen(command(*flags), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not num_rounds(tmp_path):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert "The same command goes on where it stopped" in process.communicate()[1]
    assert process.returncode == 1


def test_blocks_of_seeds_have_the_same_first_batches(finished, tmp_path):
    run_demo(tmp_path, rounds=1, seeds_at_once=1)
    queries = [pd.read_csv(folder / "queries.csv").query("round == 0") for folder in (finished, tmp_path)]
    pd.testing.assert_frame_equal(*(table.reset_index(drop=True) for table in queries))


def test_without_labels_it_chooses_a_first_batch(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "pool.npz", x_train=images)
    data = ConfigDict(dict(name="npz", root=str(tmp_path / "pool.npz"), num_validation=0))
    config = runpy.run_path(str(ROOT / "configs/digits_vae.py"))["get_config"]("smoke")
    config.data = data
    with pytest.raises(BadInput, match="need the labels of the training images and the data has none; set rounds=0"):
        run(config, str(tmp_path / "run"))
    config.rounds = 0
    run(config, str(tmp_path / "run"))
    queries = pd.read_csv(tmp_path / "run" / "queries.csv")
    assert queries.groupby(["arm", "seed"]).row.nunique().tolist() == [20] * 4
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_another_config_in_the_workdir_is_refused_without_a_traceback(finished):
    done = launch(SMOKE, "--config.rounds=5", f"--workdir={finished}")
    assert done.returncode == 1
    assert "holds another experiment (config.rounds: there 6, now 5)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_corrupt_checkpoint_is_named_and_the_one_before_it_serves(finished, tmp_path):
    workdir = shutil.copytree(finished, tmp_path / "run")
    newest = workdir / "checkpoints" / "margin" / "seeds-0" / "7"
    for path in newest.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    cure = f"checkpoint {newest} cannot be read .*; delete that folder and run again"
    with pytest.raises(BadInput, match=cure):
        run_demo(workdir, rounds=6)
    shutil.rmtree(newest)
    run_demo(workdir, rounds=6)
    assert same_results(finished, workdir)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(rounds=200), "200 rounds of 10 after 20 need 2020 rows but the pool has 1297; lower rounds, batch or"),
        (dict(num_seeds=0), "num_seeds is 0; expected 1 or more"),
        (dict(batch=-1), "batch -1; expected rounds >= 0 and batch >= 1"),
        (dict(baseline="best"), "unknown baseline arm 'best'; known: margin, random"),
        (dict(arms__margin__encoder="pixels"), "arm 'margin': unknown encoder 'pixels'; known: vae"),
        (dict(arms__margin__subsample=0.001), "arm 'margin' subsamples 0.001 of 1297 rows"),
        (dict(arms__margin__strategy__measure="doubt"), "unknown uncertainty measure 'doubt'; known: entropy"),
        (
            dict(arms__random__strategy__name="best"),
            "unknown strategy 'best'; known: ae_error, farthest_first, greedy_diverse",
        ),
        (
            dict(encoders__vae__name="gan"),
            "unknown encoder 'gan'; known: conv_ae, conv_vae, conv_vae_latens, dense_vae, identity, precomputed",
        ),
        (dict(encoders__vae__latent=0), "latent 0"),
        (dict(classifiers__mlp__name="svm"), "unknown classifier 'svm'; known: cnn, mlp"),
        (dict(data__name="imagenet"), "unknown data source 'imagenet'; known: digits"),
        (dict(data__num_validation=2000), "num_validation is 2000 of 1497 training images"),
    ],
)
def test_bad_configs_are_refused_before_any_work(change, message, tmp_path):
    refuse(tmp_path, message, **change)


@pytest.mark.parametrize(
    "strategy, message",
    [
        (dict(name="greedy_diverse", alpha=0.5, beta=0.0, distance="j_divergence"), "j_divergence needs the spread"),
        (dict(name="greedy_diverse", alpha=0.5, beta=0.0, distance="reversed_cosine"), "1 of 60 latents are zero"),
        (dict(name="informativeness", representativeness=dict(name="kl_to_prior")), "kl_to_prior needs the spread"),
        (dict(name="informativeness", representativeness=dict(name="cosine_density")), "1 of 60 rows have no repres"),
    ],
)
def test_what_the_latents_do_not_allow_is_refused_before_any_training(strategy, message, make_data, tmp_path):
    """The strategy's encoder has no spread, and an image is blank; the other encoder would be trained."""
    train, test = make_data(num_train=60, num_validation=0).train, make_data().test
    train.images[7] = 0
    arrays = dict(x_train=train.images, y_train=train.labels, x_test=test.images, y_test=test.labels)
    np.savez(tmp_path / "noise.npz", **arrays)
    rest = dict(representativeness=None) if "beta" in strategy else dict(gamma=0.5, pick="top_k")
    config = runpy.run_path(str(ROOT / "configs/digits_vae.py"))["get_config"]("smoke").to_dict()
    config["data"] = dict(name="npz", root=str(tmp_path / "noise.npz"), num_validation=0)
    config["encoders"]["given"] = dict(name="identity")
    config["arms"]["margin"] |= dict(encoder="given", strategy=dict(measure="margin", **rest) | strategy)
    with pytest.raises(BadInput, match=message):
        run(ConfigDict(config), str(tmp_path / "run"))
    assert not list(tmp_path.glob("run/encoders/dense_vae*"))


def test_settings_that_a_kernel_refuses_name_the_arm(tmp_path):
    config = runpy.run_path(str(ROOT / "configs/digits_vae.py"))["get_config"]("smoke").to_dict()
    estimate = dict(name="euclidean_density_estimate", fraction=2.0, seed=0, unit_cube=False)
    strategy = dict(name="informativeness", measure="margin", representativeness=estimate, gamma=0.5, pick="top_k")
    config["arms"]["margin"]["strategy"] = strategy
    with pytest.raises(BadInput, match="arm 'margin': fraction is 2.0 of 1297 rows"):
        run(ConfigDict(config), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_equal_dropouts_are_refused(tmp_path):
    refuse(tmp_path, "two arms have one name among margin_dropout_0.2, margin_dropout_0.2", **TWICE)


def test_another_training_of_the_encoder_is_refused(tmp_path):
    """A workdir goes on with the latents that it was begun with, wherever its encoders are kept."""
    few = dict(rounds=1, num_seeds=1)
    run_demo(tmp_path / "run", **few)
    run_demo(tmp_path / "run", **few)
    shutil.rmtree(tmp_path / "run" / "encoders", ignore_errors=True)
    pinned = tmp_path / "run" / "encoders" / "vae.sha256"
    pinned.parent.mkdir()
    pinned.write_text("of another training")
    with pytest.raises(BadInput, match="what encoder 'vae' has learned or was given has changed since this workdir"):
        run_demo(tmp_path / "run", **few)


def test_changed_embeddings_are_refused(tmp_path):
    config = runpy.run_path(str(ROOT / "configs/digits_vae.py"))["get_config"]("smoke")
    config.rounds = 0
    config.num_seeds = 1
    embeddings = dict(name="precomputed", train=str(tmp_path / "train.npy"), validation=None, test=None)
    config.encoders = ConfigDict(dict(vae=embeddings))
    config.data = ConfigDict(dict(name="digits", num_validation=0, num_test=0))
    for scale in (1, 1, 2):
        np.save(tmp_path / "train.npy", scale * np.random.default_rng(0).normal(size=(1797, 3)))
        if scale == 1:
            run(config, str(tmp_path / "run"))
    with pytest.raises(BadInput, match="what encoder 'vae' has learned or was given has changed since this workdir"):
        run(config, str(tmp_path / "run"))


def test_an_unwritable_workdir_is_refused(tmp_path):
    (tmp_path / "file").touch()
    refuse(tmp_path / "file" / "run", "cannot be written")


def test_a_nan_in_the_classifier_names_arm_seed_and_round(tmp_path):
    cure = "in arm 'margin', seed 0, round 0; lower its learning_rate in config.classifiers"
    with pytest.raises(BadInput, match=cure):
        run_demo(tmp_path, classifiers__mlp__learning_rate=1e38)


def test_margin_beats_random_as_the_demo_claims(tmp_path):
    """The demo with 8 of its 20 seeds, 9 of its 19 rounds and a shorter training of its VAE."""
    short = ["--config.num_seeds=8", "--config.encoders.vae.epochs=40", "--config.rounds=9"]
    succeed("--config=configs/digits_vae.py", *short, f"--workdir={tmp_path}")
    gap = json.loads((tmp_path / "summary.json").read_text())["differences"]["margin"]["area"]
    assert gap["low"] > 0


def test_importing_the_package_needs_no_tensorflow():
    code = "import sys, latent_al.experiment; sys.exit(any(name.startswith('tensorflow') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, check=False).returncode == 0
