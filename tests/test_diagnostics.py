"""Diagnostics run on the state after the last fit: the same on a finished workdir, and true to the run."""

import runpy
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict

from latent_al.experiment import diagnose
from latent_al.experiment.run import run_experiment
from latent_al.results import plots
from latent_al.results.diagnostics import Drawing, correlations, importance
from latent_al.types import BadInput

ROOT = Path(__file__).parents[1]
MLP = dict(name="mlp", hidden=(8,), dropout=0.2, learning_rate=1e-2, epochs=5, batch_size=10)
CNN = dict(name="cnn", filters=(2, 2), depth=1, units=8, dropout=0.1, learning_rate=1.0, num_steps=20, batch_size=10)
ARM = dict(encoder="pixels", classifier="refitted", strategy=dict(name="random"))


def make_config(**diagnostics):
    config = runpy.run_path(str(ROOT / "configs/digits_vae.py"))["get_config"]("smoke").to_dict()
    config["encoders"] = dict(pixels=dict(name="identity"))
    config["classifiers"] = dict(refitted=dict(name="refitted", l2=1e-2, classifier=MLP), cnn=CNN)
    sweep = dict(strategy=dict(name="ibal_d", gamma=1.0), sweep=dict(gamma=(0.1, 1.0)))
    config["arms"] = dict(random=ARM, ibal_d=ARM | sweep, judged=ARM | dict(classifier="cnn"))
    return ConfigDict(config | dict(diagnostics=diagnostics))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workdir with every diagnostic, and its config."""
    workdir = tmp_path_factory.mktemp("run")
    config = make_config(
        importance=dict(name="importance", arms=("ibal_d",), num_rows=200),
        why=dict(name="explanations", arms=("random",), num_images=2, num_examples=3),
        single_runs=dict(name="training_curves", arms=("judged",), num_images=1000),
        orders=dict(name="query_order"),
        **{"by/centred": dict(name="importance", arms=("ibal_d",), num_rows=200, targets="same_class", centred=True)},
    )
    run_experiment(config, str(workdir))
    return workdir, config


@pytest.mark.slow
def test_a_finished_run_gives_the_same_diagnostics(finished):
    """They come from the saved state: nothing is fitted or queried again."""
    workdir, config = finished
    tables = {path: path.read_bytes() for path in (workdir / "diagnostics").rglob("*.csv")}
    assert {path.stem for path in tables} == {"importance", "centred", "why", "single_runs"}
    for path in tables:
        path.unlink()
    metrics = (workdir / "metrics.csv").read_bytes()
    run_experiment(config, str(workdir))
    assert {path: path.read_bytes() for path in tables} == tables
    assert (workdir / "metrics.csv").read_bytes() == metrics


def test_arms_with_one_classifier_share_the_program_of_a_diagnostic(tmp_path, monkeypatch):
    traced, compute = [], diagnose._compute

    def counted(*args, **settings):
        traced.append(settings["classifier"]["name"])
        return compute(*args, **settings)

    monkeypatch.setattr(diagnose, "_compute", counted)
    config = make_config(curves=dict(name="training_curves", arms=("judged", "margin"))).to_dict()
    judged = config["arms"]["judged"]
    margin = judged | dict(strategy=dict(name="uncertainty", measure="margin", pick="top_k"))
    config |= dict(arms=dict(judged=judged, margin=margin), baseline="judged", num_rounds=1)
    run_experiment(ConfigDict(config), str(tmp_path))
    curves = pd.read_csv(tmp_path / "diagnostics" / "curves.csv")
    assert set(curves.arm) == {"judged", "margin"}
    assert traced == ["cnn"]


@pytest.mark.slow
def test_a_run_stopped_in_its_last_round_gives_the_same_diagnostics(finished):
    """The final state was saved and the last round was not: it is played again."""
    workdir, config = finished
    paths = [*(workdir / "diagnostics").rglob("*.csv"), workdir / "metrics.csv"]
    tables = {path: path.read_bytes() for path in paths}
    for arm in ("random", "ibal_d", "judged"):
        shutil.rmtree(workdir / f"checkpoints/{arm}/seeds-0/3")
    run_experiment(config, str(workdir))
    assert {path: path.read_bytes() for path in tables} == tables


def test_a_final_state_that_is_gone_is_fitted_again(finished, tmp_path):
    """As after a refusal to read it, whose cure is to delete it."""
    workdir, config = finished
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/judged/seeds-0-final")
    run_experiment(config, str(tmp_path / "run"))
    for path in (*(workdir / "diagnostics").rglob("*.csv"), workdir / "metrics.csv"):
        assert (tmp_path / "run" / path.relative_to(workdir)).read_bytes() == path.read_bytes()


def test_importance_is_of_rows_that_are_left(finished):
    workdir, _ = finished
    table = pd.read_csv(workdir / "diagnostics/importance.csv")
    assert set(table.arm) == {"ibal_d_gamma_0.1", "ibal_d_gamma_1"}
    assert table.importance.abs().max() <= 1 + 1e-6
    assert table[["entropy", "confidence"]].min().min() >= 0
    queries = pd.read_csv(workdir / "queries.csv")
    sample = np.random.default_rng(0).permutation(1297)[:200]
    for (arm, seed), rows in table.groupby(["arm", "seed"]):
        queried = queries[(queries.arm == arm) & (queries.seed == seed)].row
        assert len(rows) == 200 - np.isin(sample, queried).sum()


def test_a_reading_of_importance_is_of_the_same_rows(finished):
    """Features of a ReLU give importance one sign, and centred ones both."""
    workdir, _ = finished
    default, centred = (pd.read_csv(workdir / f"diagnostics/{name}.csv") for name in ("importance", "by/centred"))
    same = ["arm", "seed", "entropy", "confidence"]
    pd.testing.assert_frame_equal(default[same], centred[same])
    assert default.importance.min() >= 0 > centred.importance.min()
    folder = workdir / "figures/diagnostics"
    names = {path.name for path in folder.glob("importance*")}
    assert names == {"importance.png"}
    assert (folder / "by/centred.png").read_bytes() != (folder / "importance.png").read_bytes()


def test_a_diagnostic_may_be_called_as_another_figure(finished):
    """It does not take that one's place on the page."""
    figures = finished[0] / "figures"
    assert (figures / "single_runs.png").read_bytes() != (figures / "diagnostics/single_runs.png").read_bytes()


def test_correlations_spread_by_the_sample_deviation():
    """One seed has the order of importance, one the reverse; a single seed has no spread."""
    table = pd.DataFrame(
        dict(arm=["a"] * 6 + ["b"] * 3, seed=[0, 0, 0, 1, 1, 1, 0, 0, 0], importance=[1.0, 2, 3] * 3)
    ).assign(entropy=[2.0, 4, 9, 3, 2, 1, 5, 6, 7])
    spread = np.std([1, -1], ddof=1)
    assert correlations(table).entropy.tolist() == [f"+0.00 ± {spread:.2f}", "+1.00"]


def test_a_seed_without_a_correlation_takes_no_other_with_it(tmp_path):
    """Entropy is equal in all rows of a seed, or there is one row; of confidence it is so in every seed."""
    table = pd.DataFrame(dict(arm="a", seed=[0, 0, 0, 1, 1, 1, 2], importance=[1.0, 2, 3, 1, 2, 3, 1]))
    table = table.assign(entropy=[5.0, 5, 5, 1, 2, 3, 1], confidence=0.5)
    assert correlations(table).to_dict("records") == [dict(arm="a", entropy="+1.00", confidence="")]
    plots.importance(table[table.seed == 0], tmp_path / "importance.png")


def test_there_is_no_picture_of_importance_where_no_row_is_left(tmp_path, caplog):
    table = pd.DataFrame(columns=["arm", "seed", "importance", "entropy", "confidence"])
    assert importance(arms=("a",)).draw(Drawing("why", table, {}, table, None, tmp_path)) == []
    assert correlations(table).empty
    assert caplog.text == ""


def test_explanations_are_labelled_examples_in_order(finished):
    workdir, _ = finished
    why = pd.read_csv(workdir / "diagnostics/why.csv")
    queries = pd.read_csv(workdir / "queries.csv")
    assert len(why) == len(why.merge(queries, on=["arm", "seed", "row"])) == 2 * 2 * 2 * 3
    for (_, _, kind), rows in why.groupby(["seed", "image", "kind"]):
        values = rows.sort_values("rank").value.to_numpy()
        assert (np.diff(values) <= 0).all() if kind == "supporting" else (np.diff(values) >= 0).all()


def test_a_training_curve_ends_where_the_run_did(finished):
    """It trains with the keys and on the rows of the last round, so that its last score is that of the run."""
    workdir, _ = finished
    curve, metrics = (pd.read_csv(workdir / path) for path in ("diagnostics/single_runs.csv", "metrics.csv"))
    assert curve.groupby("seed").step.apply(list).tolist() == [list(range(2, 21, 2))] * 2
    last = metrics[(metrics.arm == "judged") & (metrics["round"] == 2) & (metrics.metric == "accuracy")]
    scores = last[last.split == "validation"].sort_values("seed").value
    np.testing.assert_allclose(curve[curve.step == 20].sort_values("seed").value, scores, atol=1e-6)


@pytest.mark.parametrize(
    "diagnostic, message",
    [
        (dict(name="explanations", arms=("judged",)), "arm 'judged': explanations needs a classifier whose last layer"),
        (dict(name="explanations", arms=("random",), num_images=900), "asks for 900 validation images .* are 200"),
        (dict(name="training_curves", arms=("random",)), "arm 'random': training_curves needs the classifier cnn"),
        (dict(name="importance", arms=("best",)), "unknown arm in config.diagnostics.why.arms 'best'; known: ibal_d"),
        (dict(name="importance", arms=("random",), num_rows=0), "num_rows 0; expected 1 or more"),
        (dict(name="importance", arms=("random",), targets="own"), "unknown targets of importance 'own'; known: all"),
    ],
)
def test_diagnostics_that_cannot_be_are_refused_before_any_work(diagnostic, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        run_experiment(make_config(why=diagnostic), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
