"""Each config: its smoke size is launched, and all its sizes name what exists."""

import importlib.util
import itertools
import json
import re
import runpy

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat
from test_data import write_idx
from test_launch import ROOT, succeed
from test_svhn import make_fields

from latent_al.encoders import build_encoder
from latent_al.experiment.command_line import load_config
from latent_al.experiment.config import parse_experiment
from latent_al.experiment.run import run_experiment
from latent_al.models.classifiers import REGRESSORS, build_learner
from latent_al.strategies import STRATEGIES
from latent_al.types import build


@pytest.fixture(scope="module")
def tiny_mnist(tmp_path_factory):
    """MNIST-style files with 300 images of noise."""
    root = tmp_path_factory.mktemp("idx")
    rng = np.random.default_rng(0)
    for part, size in dict(train=300, t10k=50).items():
        write_idx(root / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (size, 28, 28), dtype=np.uint8))
        write_idx(root / f"{part}-labels-idx1-ubyte.gz", np.arange(size, dtype=np.uint8) % 10)
    return root


def test_every_config_has_a_launch():
    assert {path.stem for path in (ROOT / "configs").glob("*.py")} == {
        "cifar100_ibal",
        "cifar10_vae",
        "digits_vae",
        "folder",  # in test_labelling.py
        "mnist_latent_sampling",
        "mnist_vae",
        "orientation_farthest_point",
        "photos",
        "pretrained_ibal",
        "study",
        "synthetic_ibal",
    }


MORE = {
    "mnist_latent_sampling": [
        "cpu-unbalanced-100-mlp",
        "cpu-readings",
        "cpu-unbalanced-100-trainings",
        "cpu-unbalanced-100-shares",
        "cpu-100-starts-mlp",
    ],
    "orientation_farthest_point": ["poses-cnn", "poses-gan", "poses_1000-conv_ae", "poses_4000-conv_vae"],
    "study": ["digits-tail", "mnist-large", "cifar10-tail-large-posterior"],
}
"""Sizes with something changed in them."""
KINDS = {"mnist_vae": ("", "dense-", "conv-", "gan-", "svhn-", "svhn-dense-", "svhn-conv-")}
"""Sets and encoders that stand before a size."""
FEW = ["--config.num_seeds=1", "--config.classifiers.mlp.epochs=1", "--config.encoders.vae.epochs=1"]
BATCHES = ["--config.num_initial=50", "--config.query_size=10"] + [
    f"--config.arms.{arm}.subsample=0.2" for arm in ("latents_margin", "latents_greedy")
]


@pytest.mark.slow
@pytest.mark.parametrize("size", ["smoke", "all_labels"])
def test_mnist_vae(size, tiny_mnist, tmp_path):
    small = (
        ["--config.num_initial=200"]
        if size == "all_labels"
        else [*BATCHES, "--config.arms.pixels_margin.subsample=0.2"]
    )
    flags = [f"--config.data.root={tiny_mnist}", "--config.data.num_validation=100", *FEW, *small]
    assert "latents_random" in succeed(f"--config=configs/mnist_vae.py:{size}", *flags, f"--workdir={tmp_path}")


@pytest.mark.slow
def test_mnist_vae_synthesis(tiny_mnist, tmp_path):
    flags = [f"--config.data.root={tiny_mnist}", "--config.data.num_validation=100", *FEW]
    flags += ["--config.num_initial=50", "--config.query_size=10", "--config.arms.latents_margin.subsample=0.2"]
    flags += ["--config.diagnostics.decoded.num_initial=50", f"--workdir={tmp_path}"]
    assert "nearest_with_prior" in succeed("--config=configs/mnist_vae.py:smoke_synthesis", *flags)
    judged = pd.read_csv(tmp_path / "diagnostics/decoded.csv")
    assert (judged.groupby("arm").slot.agg(list).map(lambda slots: slots == list(range(50, 70)))).all()
    assert judged.confidence.between(0.1, 1).all()


@pytest.mark.slow
def test_svhn_vae(tmp_path):
    savemat(tmp_path / "train_32x32.mat", make_fields(300, 0))
    savemat(tmp_path / "test_32x32.mat", make_fields(50, 1))
    flags = [f"--config.data.root={tmp_path}", "--config.data.num_validation=100", *FEW, *BATCHES]
    flags += [f"--workdir={tmp_path / 'run'}", f"--encoders={tmp_path / 'encoders'}"]
    assert "latents_greedy" in succeed("--config=configs/mnist_vae.py:svhn-smoke", *flags)
    assert len(list((tmp_path / "encoders").glob("conv_vae-*"))) == 1


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    """Three classes of noise in colour."""
    root = tmp_path_factory.mktemp("folder")
    rng = np.random.default_rng(0)
    for split, name in itertools.product(("train", "test"), ("cat", "dog", "ship")):
        (root / split / name).mkdir(parents=True)
        for index in range(20):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


@pytest.mark.slow
def test_cifar10_vae(tiny_folder, tmp_path):
    smoke = "--config=configs/cifar10_vae.py:smoke"
    assert "greedy" in succeed(smoke, f"--config.data.root={tiny_folder}", f"--workdir={tmp_path}")


@pytest.mark.slow
def test_cifar100_ibal(tiny_folder, tmp_path):
    smoke = "--config=configs/cifar100_ibal.py:smoke"
    assert "ibal_d" in succeed(smoke, f"--config.data.root={tiny_folder}", f"--workdir={tmp_path}")
    explained = pd.read_csv(tmp_path / "diagnostics/explanations.csv")
    queries = pd.read_csv(tmp_path / "queries.csv")
    assert len(explained.merge(queries, on=["arm", "seed", "row"])) == len(explained) == 3 * 2 * 4 * 2 * 4
    assert {"importance", "explanations"} <= {path.stem for path in (tmp_path / "figures").rglob("*.png")}


@pytest.mark.slow
def test_pretrained_ibal(tiny_folder, tmp_path):
    smoke = "--config=configs/pretrained_ibal.py:smoke"
    succeed(smoke, f"--config.data.root={tiny_folder}", f"--workdir={tmp_path}")
    arms = json.loads((tmp_path / "summary.json").read_text())["arms"]
    assert {"random", "entropy", "margin", "distance", "ibal", "ibal_same_class", "ibal_centred"} < arms.keys()
    assert {"importance.csv", "same_class.csv"} == {path.name for path in (tmp_path / "diagnostics").iterdir()}


@pytest.mark.slow
def test_a_draw_of_the_points_is_played_as_by_a_run(tmp_path):
    """`benchmarks/data_seeds.py` plays each draw in one program; the run of that data seed has the same scores."""
    spec = importlib.util.spec_from_file_location("data_seeds", ROOT / "benchmarks/data_seeds.py")
    data_seeds = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(data_seeds)
    overrides = {"data.seed": "3", "diagnostics": "{}"}
    config = load_config(f"{ROOT}/configs/synthetic_ibal.py:smoke", overrides)
    config.arms = {name: config.arms[name] for name in ("random", "ibal_centred", "ibal_d")}
    run_experiment(config, str(tmp_path / "run"))
    parsed = parse_experiment(config)
    arms = data_seeds.make_arms(parsed)
    metrics = data_seeds.measure(parsed, arms, 3, tmp_path / "draw").reset_index(drop=True)
    expected = pd.read_csv(tmp_path / "run" / "metrics.csv")
    key = ["arm", "seed", "round", "split", "metric"]
    pd.testing.assert_frame_equal(
        metrics.sort_values(key).reset_index(drop=True),
        expected.sort_values(key).reset_index(drop=True),
        check_dtype=False,
        atol=1e-6,
    )
    values, best = data_seeds.by_draw(expected, arms)
    assert sorted(values.index) == ["ibal_centred", "ibal_d", "random"]
    areas = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert best == {"ibal_d": areas["tuned"]["ibal_d"]["arm"]}
    expected_area = areas["arms"][best["ibal_d"]]["balanced_test_area"]["mean"]
    np.testing.assert_allclose(values.balanced_test_area["ibal_d"], expected_area, atol=1e-6)


@pytest.mark.slow
def test_photos(tiny_folder, tmp_path):
    """All strategies are compared with random; those that need no classifier select their own initial labelled set."""
    smoke = "--config=configs/photos.py:smoke"
    succeed(smoke, f"--config.data.root={tiny_folder}", f"--workdir={tmp_path}")
    arms = {"typical", "typiclust", "core_set", "margin", "badge", "greedy_diverse", "uncertain_farthest_first"}
    without_classifier = {"core_set", "typical", "typiclust"}
    assert json.loads((tmp_path / "summary.json").read_text())["differences"].keys() == arms
    queries = pd.read_csv(tmp_path / "queries.csv")
    assert (queries.groupby(["arm", "seed"]).row.nunique() == 20).all()
    first = queries[queries["round"] == 0].groupby(["arm", "seed"]).row.agg(set).unstack("arm")
    assert {arm for arm in first if (first[arm] == first.random).all()} == (arms | {"random"}) - without_classifier


@pytest.mark.slow
@pytest.mark.parametrize("size", ["smoke", "smoke-posterior"])
def test_study(size, tmp_path):
    """All arms are compared with random from as many labels as there are classes on."""
    succeed(f"--config=configs/study.py:{size}", f"--workdir={tmp_path}")
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    assert set(metrics.num_labels) == {10, 50}
    assert json.loads((tmp_path / "summary.json").read_text())["differences"].keys() == set(metrics.arm) - {"random"}


@pytest.mark.slow
def test_synthetic_ibal(tmp_path):
    """Of two gammas one is kept, and the test split that did not choose it has a curve."""
    succeed("--config=configs/synthetic_ibal.py:smoke", f"--workdir={tmp_path}")
    summary, metrics = json.loads((tmp_path / "summary.json").read_text()), pd.read_csv(tmp_path / "metrics.csv")
    kept = summary["tuned"]["ibal_d"]
    assert kept["areas"].keys() == {f"ibal_d_gamma_{gamma:g}" for gamma in (0.3, 1)}
    assert kept["areas"][kept["arm"]] == max(kept["areas"].values())
    assert not (kept["areas"].keys() - {kept["arm"]}) & summary["arms"].keys()
    assert set(metrics[metrics.split == "test"]["round"]) == {0, 1, 2}
    assert "balanced_test_area" in summary["arms"]["badge"]
    measures = pd.read_csv(tmp_path / "diagnostics/importance.csv").dropna()
    assert measures.importance.abs().max() <= 1 + 1e-6
    assert "Rank correlation with importance" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_mnist_latent_sampling(tiny_mnist, tmp_path):
    """Each arm has its own initial labelled set; the classifiers that judge it find the encoder trained."""
    flags = [f"--config.data.source.root={tiny_mnist}", "--config.data.source.num_validation=100"]
    flags += ["--config.data.num_copies=5", "--config.num_initial=30"]
    flags += [f"--workdir={tmp_path / 'run'}"]
    succeed("--config=configs/mnist_latent_sampling.py:smoke-unbalanced", *flags)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    arms = summary["arms"].keys()
    assert {"random", "ae_error", "vae_clustered_normal", "vae_uniform", "vae_typical"} <= arms
    queries, balance, training = (
        pd.read_csv(tmp_path / "run" / f"{name}.csv") for name in ("queries", "balance", "diagnostics/training")
    )
    assert (queries.groupby(["arm", "seed"]).row.nunique() == 30).all()
    assert (balance.filter(regex=r"class_\d").sum(axis=1) == 30).all()
    assert summary["balance"].keys() == arms
    assert training.groupby(["arm", "seed"]).step.agg(list).map(lambda steps: steps == list(range(1, 11))).all()
    drawn = {path.stem for path in (tmp_path / "run" / "figures").rglob("*.png")}
    assert {"initial_sets", "initial_classes", "clusters_vae_clustered_normal", "training"} <= drawn


@pytest.mark.slow
@pytest.mark.parametrize("size", ["smoke", "smoke-cnn", "smoke-gan", "smoke-conv_ae", "smoke-conv_vae"])
def test_orientation_farthest_point(size, tmp_path):
    """Angles are learned until the whole pool is queried; both kinds of held-out poses are scored in every round."""
    assert "degrees" in succeed(f"--config=configs/orientation_farthest_point.py:{size}", f"--workdir={tmp_path}")
    metrics, queries, gaps = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("metrics", "queries", "gaps"))
    test_gaps = pd.read_csv(tmp_path / "test_gaps.csv")
    assert set(metrics.metric) == {"angular_error"}
    means = metrics.pivot_table(index=["arm", "round"], columns="split", values="value")
    for split, table in (("validation", gaps), ("test", test_gaps)):
        expected = (means[split]["farthest_first"] - means[split]["random"]).to_numpy()
        np.testing.assert_allclose(table[table.arm == "farthest_first"]["mean"], expected, atol=1e-4)
    assert metrics.value.between(0, 180).all()
    assert (queries.groupby(["arm", "seed"]).row.nunique() == 60).all()
    arms = ["farthest_first"] if "-" in size else ["farthest_first", "coreset"]
    assert gaps.arm.unique().tolist() == sorted(arms)
    assert gaps.num_labels.tolist() == len(arms) * [20, 40, 60]
    assert not (tmp_path / "balance.csv").exists()
    assert {"orders", "gaps", "learning_curves"} <= {path.stem for path in (tmp_path / "figures").rglob("*.png")}


def distinct(specs):
    """Returns specs without those that are equal: sizes share most, and building an encoder traces its training."""
    return {repr(spec): spec for spec in specs}.values()


EXPERIMENTS = sorted(path for path in (ROOT / "configs").glob("*.py") if path.stem != "folder")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_size_names_what_exists(path):
    """Each size has the keys of the schema, and its encoders, classifiers and strategies can be built.

    The smoke sizes are run above.
    """
    module = runpy.run_path(str(path))
    kinds = KINDS.get(path.stem, ("",))
    names = [*module["SIZES"], *MORE.get(path.stem, ())] if "SIZES" in module else ("full", "smoke")
    sizes = [kind + name for kind in kinds for name in module.get("ARMS", names)]
    configs = [parse_experiment(module["get_config"](size)) for size in sizes]
    for spec in distinct(spec for config in configs for spec in config.encoders.values()):
        build_encoder(spec, (32, 32, 1))
    for spec in distinct(spec for config in configs for spec in config.classifiers.values()):
        num_classes = None if spec.name in REGRESSORS else 10
        build_learner(spec, num_classes=num_classes, image_shape=(32, 32, 1))
    for config in configs:
        for arm in config.arms.values():
            build(STRATEGIES, arm.strategy, "strategy")
            build(STRATEGIES, arm.initial or config.initial, "strategy")
            assert arm.encoder in config.encoders
            assert arm.classifier in config.classifiers
        assert re.split("_dropout_|_l2_", config.baseline)[0] in config.arms
    assert len(sizes) > 1
