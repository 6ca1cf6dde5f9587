"""Configs that cannot be run are refused before any long work, with what to change."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from test_launch import ROOT, run_demo

from latent_al.experiment.rounds import Arm, Block, Setting, _Run, _warn_of_residual
from latent_al.experiment.run import run_experiment
from latent_al.types import BadInput


def refuse(workdir, message, **changes):
    """The run ends with the message before anything is trained."""
    with pytest.raises(BadInput, match=re.escape(message)):
        run_demo(workdir, **changes)
    assert not list(Path(workdir).glob("encoders/*"))


@pytest.mark.parametrize(
    "change, message",
    [
        (
            dict(num_rounds=200),
            "200 rounds of 10 after 20 need 2020 rows but the pool has 1297; lower num_rounds, query_size or",
        ),
        (dict(num_seeds=0), "config.num_seeds: 0; expected an int, 1 or more: runs"),
        (dict(query_size=-1), "config.query_size: -1; expected an int, 1 or more: labels"),
        (dict(baseline="best"), "unknown baseline arm 'best'; known: margin, random"),
        (dict(arms__margin__encoder="pixels"), "config.arms.margin.encoder: unknown encoder 'pixels'; known: vae"),
        (dict(arms__margin__subsample=0.001), "arm 'margin' subsamples 0.001 of 1297 rows"),
        (
            dict(arms__margin__strategy__measure="doubt"),
            "config.arms.margin.strategy.measure: unknown uncertainty measure 'doubt'; known: entropy",
        ),
        (
            dict(arms__random__strategy__name="best"),
            "config.arms.random.strategy.name: unknown strategy 'best'; known: ae_error, badge, bait",
        ),
        (
            dict(encoders__vae__name="pca"),
            "config.encoders.vae.name: unknown encoder 'pca'; known: conv_ae, conv_vae, conv_vae_latens, dense_vae, id",
        ),
        (dict(encoders__vae__name="gan"), "unknown encoder 'gan'; did you mean vae_gan?"),
        (dict(encoders__vae__latent_dim=0), "latent_dim 0"),
        (
            dict(classifiers__mlp__name="svm"),
            "config.classifiers.mlp.name: unknown classifier 'svm'; known: angle_cnn, angle_mlp, cnn",
        ),
        (
            dict(classifiers__mlp__name="angle_mlp"),
            "angle_mlp cannot learn the labels of this data, which are 10 classes; choose one of cnn, gaussian_process",
        ),
        (dict(data__name="imagenet"), "config.data.name: unknown data source 'imagenet'; "),
        (dict(data__num_validation=2000), "num_validation is 2000 of 1497 training images"),
    ],
)
def test_bad_configs_are_refused_before_any_work(change, message, tmp_path):
    refuse(tmp_path, message, **change)


@pytest.mark.parametrize(
    "strategy, message",
    [
        (dict(name="greedy_diverse", alpha=0.5, beta=0.0, distance="jeffreys"), "jeffreys needs the spread"),
        (dict(name="greedy_diverse", alpha=0.5, beta=0.0, distance="half_cosine"), "1 of 60 latents are zero"),
        (dict(name="informativeness", representativeness=dict(name="kl_to_prior")), "kl_to_prior needs the spread"),
        (
            dict(name="informativeness", representativeness=dict(name="cosine_density")),
            "cosine_density needs latents .*, but 1 of 60",
        ),
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
        run_experiment(ConfigDict(config), str(tmp_path / "run"))
    assert not list(tmp_path.glob("run/encoders/dense_vae*"))


def test_latents_that_are_equal_blame_images_of_one_colour(tmp_path):
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "root" / split / label).mkdir(parents=True)
            for index in range(60):
                Image.new("L", (4, 4), 9).save(tmp_path / "root" / split / label / f"{index}.png")
    config = runpy.run_path(str(ROOT / "configs/digits_vae.py"))["get_config"]("smoke").to_dict()
    config["data"] = dict(name="image_folder", root=str(tmp_path / "root"), size=None, channels=1)
    config["data"] |= dict(num_validation=20, num_test=0, skip_broken=False)
    config["encoders"]["vae"] = dict(name="identity")
    message = r"all 100 latents of encoder 'vae' are equal; 100 of 100 training images have one colour, the first is"
    with pytest.raises(BadInput, match=message):
        run_experiment(ConfigDict(config), str(tmp_path / "run"))


def test_settings_that_a_kernel_refuses_name_the_arm(tmp_path):
    config = runpy.run_path(str(ROOT / "configs/digits_vae.py"))["get_config"]("smoke").to_dict()
    estimate = dict(name="euclidean_density_estimate", fraction=2.0, seed=0, unit_cube=False)
    strategy = dict(name="informativeness", measure="margin", representativeness=estimate, gamma=0.5, pick="top_k")
    config["arms"]["margin"]["strategy"] = strategy
    with pytest.raises(BadInput, match="arm 'margin': fraction is 2.0 of 1297 rows"):
        run_experiment(ConfigDict(config), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_classifier_of_angles_is_refused(tmp_path):
    config = runpy.run_path(str(ROOT / "configs/orientation_farthest_point.py"))["get_config"]("smoke").to_dict()
    config["classifiers"]["mlp"]["name"] = "mlp"
    with pytest.raises(BadInput, match="mlp cannot learn .* which are angles; choose one of angle_cnn, angle_mlp"):
        run_experiment(ConfigDict(config), str(tmp_path))


@pytest.mark.parametrize(
    "config_file, change, message",
    [
        ("orientation_farthest_point.py", {}, "keeps the best of 2 settings by balanced accuracy, but the labels are"),
        ("digits_vae.py", dict(num_rounds=0), "keeps the best of 2 settings by the validation curve, but num_rounds"),
    ],
)
def test_a_sweep_without_what_its_best_setting_is_chosen_by_is_refused(config_file, change, message, tmp_path):
    config = runpy.run_path(str(ROOT / "configs" / config_file))["get_config"]("smoke").to_dict() | change
    config["arms"]["random"] |= dict(sweep=dict(dropout=(0.1, 0.5)), keep="best")
    with pytest.raises(BadInput, match=f"arm 'random' {message}"):
        run_experiment(ConfigDict(config), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name, values", [("margin_dropout_0", (0.0, 0.5)), ("other", (1e-9, 1e-9 + 1e-16))])
def test_arms_of_one_name_are_refused(name, values, tmp_path):
    config = runpy.run_path(str(ROOT / "configs/digits_vae.py"))["get_config"]("smoke").to_dict()
    config["arms"][name] = dict(config["arms"]["margin"])
    config["arms"]["margin"] |= dict(sweep=dict(dropout=values))
    with pytest.raises(BadInput, match="several arms, or settings of sweeps, are named 'margin_dropout_.*'; rename"):
        run_experiment(ConfigDict(config), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_unknown_test_poses_are_refused(tmp_path):
    config = runpy.run_path(str(ROOT / "configs/orientation_farthest_point.py"))["get_config"]("smoke")
    config.data.test_poses = "pol"
    with pytest.raises(BadInput, match=r"config.data.test_poses: unknown test_poses 'pol'; did you mean pool\?"):
        run_experiment(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_uncertainty_of_angles_is_refused(tmp_path):
    config = runpy.run_path(str(ROOT / "configs/orientation_farthest_point.py"))["get_config"]("smoke").to_dict()
    config["arms"]["random"]["strategy"] = dict(name="uncertainty", measure="margin", pick="top_k")
    with pytest.raises(BadInput, match="arm 'random': uncertainty needs a classifier's predictions: .* regressor"):
        run_experiment(ConfigDict(config), str(tmp_path))


@pytest.mark.parametrize(
    "config, reach, message",
    [
        (
            "digits_vae",
            (0.8, 90),
            "reach is (0.8, 90.0); expected a tuple of validation scores (accuracy), each in [0, 1]",
        ),
        ("digits_vae", 0.8, "config.reach: 0.8 is a float; expected a tuple of floats"),
        ("digits_vae", ("90 %",), "config.reach: ('90 %',); expected a tuple of floats: validation scores"),
        ("orientation_farthest_point", (-1.0,), "validation scores (mean absolute angular error), each in [0, 180]"),
    ],
)
def test_scores_that_cannot_be_reached_are_refused(config, reach, message, tmp_path):
    config = ConfigDict(runpy.run_path(str(ROOT / f"configs/{config}.py"))["get_config"]("smoke").to_dict())
    config.reach = reach
    with pytest.raises(BadInput, match=re.escape(message)):
        run_experiment(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_scores_to_reach_need_validation(tmp_path):
    config = ConfigDict(runpy.run_path(str(ROOT / "configs/digits_vae.py"))["get_config"]("smoke").to_dict())
    config.reach, config.data.num_validation = (0.5,), 0
    with pytest.raises(BadInput, match="reach is .* but no validation image has a label; leave reach out"):
        run_experiment(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(sweep=dict(dropout=(0.2, 0.2))), "sweep.dropout is (0.2, 0.2); give each value once"),
        (dict(sweep=dict(dropout=(0.2, 1.5))), "arm 'margin': the perceptron has hidden (128, 128), epochs 2, "),
        (dict(sweep=dict(drop=(0.2, 0.5))), "config.arms.margin.sweep.drop: unknown; did you mean dropout?"),
        (dict(sweep=dict(hidden=(8, 16))), "config.arms.margin.sweep.hidden: cannot be swept; give each of its values"),
        (dict(sweep=dict(dropout=())), "config.arms.margin.sweep"),
        (dict(sweep=dict(dropout=(0.2, 0.5)), keep="some"), "config.arms.margin.keep"),
        (
            dict(sweep=dict(dropout=(0.0, 0.5)), strategy=dict(name="bald", num_draws=2, pick="top_k")),
            "arm 'margin': bald needs the MC-dropout predictions of a classifier: give the classifier a",
        ),
    ],
)
def test_sweeps_that_cannot_be_are_refused(change, message, tmp_path):
    config = runpy.run_path(str(ROOT / "configs/digits_vae.py"))["get_config"]("smoke").to_dict()
    config["arms"]["margin"] |= change
    with pytest.raises(BadInput, match=re.escape(message)):
        run_experiment(ConfigDict(config), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_neighbours_count_by_the_labels_in_the_end(tmp_path):
    """Five vote: of five rows in the end, though one round has three of them; the arms pass, and the baseline fails."""
    config = runpy.run_path(str(ROOT / "configs/digits_vae.py"))["get_config"]("smoke").to_dict()
    config |= dict(num_initial=2, query_size=1, num_rounds=3, baseline="best")
    config["classifiers"] = dict(mlp=dict(name="nearest_neighbours"))
    with pytest.raises(BadInput, match="unknown baseline arm 'best'"):
        run_experiment(ConfigDict(config), str(tmp_path / "run"))
    with pytest.raises(BadInput, match="num_neighbours is 5, but at most 4 rows will be labelled; set fewer"):
        run_experiment(ConfigDict(config | dict(num_rounds=2)), str(tmp_path / "run"))


def test_an_unwritable_workdir_is_refused(tmp_path):
    (tmp_path / "file").touch()
    refuse(tmp_path / "file" / "run", "cannot be written")


def test_a_nan_in_the_classifier_names_arm_seed_and_round(tmp_path):
    cure = "in arm 'margin', seed 0, round 0; lower its learning_rate in config.classifiers"
    with pytest.raises(BadInput, match=cure):
        run_demo(tmp_path, classifiers__mlp__learning_rate=1e38)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            dict(data=dict(name="digits", num_validation=0, num_test=300)),
            "arm 'entropy_d' keeps the best of 2 settings on validation images, but none of these has a",
        ),
        (dict(baseline="ibal_d_gamma_1"), "unknown baseline arm 'ibal_d_gamma_1'; known: badge, bald"),
        (dict(dropout=0.0), "arm 'bald': bald needs .* give the classifier a dropout above 0"),
        (dict(hidden=()), "arm 'bald': bald needs .* an mlp a hidden layer"),
        (dict(l2=0.0), "refitted has l2 0.0; expected above 0"),
    ],
)
def test_importance_and_its_peers_are_refused_what_they_cannot_use(change, message, tmp_path):
    config = runpy.run_path(str(ROOT / "configs/synthetic_ibal.py"))["get_config"]("smoke").to_dict()
    net = config["classifiers"]["net"]
    net["l2"] = change.get("l2", net["l2"])
    net["classifier"] |= {name: change[name] for name in change.keys() & {"dropout", "hidden"}}
    config |= {name: change[name] for name in change.keys() & {"data", "baseline"}} | {"reach": ()}
    with pytest.raises(BadInput, match=message):
        run_experiment(ConfigDict(config), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_last_layer_that_has_not_converged_is_warned_of(caplog):
    setting = Setting({}, {})
    arm = Arm("ibal", "points", False, (setting,), "all", None, None, None, None, None)
    run = _Run(arm, Block([4, 5], np.array([10])), setting, None, False)
    residual = np.array([1e-6, 0.25], np.float32)
    _warn_of_residual(run, residual, 3)
    assert "not converged in arm 'ibal', seed 5, round 3: its residual is 2.5e-01" in caplog.text
    caplog.clear()
    _warn_of_residual(run, residual[:1], 3)
    assert not caplog.text
