"""The figures on record: verdicts by interval, pairs by seed or by encoder, and the command that runs all again."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy
from test_data import write_idx

from latent_al.data.idx import read_idx
from latent_al.experiment.command_line import load_config
from latent_al.experiment.config import parse_experiment

ROOT = Path(__file__).parents[1]


@pytest.fixture
def results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import results

    return results


@pytest.fixture
def claim(results):
    return results.Claim("source", "text", "where", "above", "test_accuracy", "dense/a", "dense/b")


def write_run(folder, scores, split="test"):
    """Writes a run of one round, arm -> accuracy of each seed."""
    folder.mkdir(parents=True)
    rows = [
        (arm, seed, 0, 100, split, "accuracy", value) for arm, row in scores.items() for seed, value in enumerate(row)
    ]
    columns = ["arm", "seed", "round", "num_labels", "split", "metric", "value"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "metrics.csv", index=False)
    (folder / "summary.json").write_text(
        json.dumps({"tuned": {"a": {"arm": "a_gamma_1"}}} if "a_gamma_1" in scores else {})
    )


def test_the_page_has_the_claims_on_record(results):
    record = json.loads(results.RECORD.read_text())
    assert results.table(record) in (ROOT / "docs" / "results.md").read_text()
    assert record["claims"].keys() <= {claim.key for claim in results.CLAIMS}


@pytest.mark.parametrize(
    ("expected", "low", "high", "verdict"),
    [
        ("above", 0.1, 2, "confirmed"),
        ("above", -0.1, 2, "not confirmed"),
        ("above", -2, -0.1, "the reverse"),
        ("below", -2, -0.1, "confirmed"),
        ("below", 0.1, 2, "the reverse"),
        ("level", -0.9, 0.9, "confirmed"),
        ("level", -0.9, 1.1, "not confirmed"),
        ("no gain", -3, 0.9, "confirmed"),
        ("no gain", -0.9, 1.1, "not confirmed"),
    ],
)
def test_the_interval_decides(results, claim, expected, low, high, verdict):
    gap = dict(mean=(low + high) / 2, low=low, high=high)
    assert results.verdict(claim._replace(expected=expected), gap) == verdict
    assert results.verdict(claim, None) == "not on record"


def test_seeds_pair(results, claim, tmp_path):
    write_run(tmp_path / "dense", dict(b=[0.5, 0.6, 0.7], a=[0.6, 0.7, 0.9]))
    gap = results.Measured(tmp_path).gap(claim)
    np.testing.assert_allclose(gap["mean"], 40 / 3)
    assert gap["pairs"] == 3


def test_a_tuned_arm_is_the_setting_that_validation_chose(results, claim, tmp_path):
    write_run(tmp_path / "dense", dict(b=[0.5, 0.6], a_gamma_0=[0.1, 0.1], a_gamma_1=[0.6, 0.6]))
    np.testing.assert_allclose(results.Measured(tmp_path).gap(claim)["mean"], 5)


def test_of_encoders_and_seeds_those_with_the_wider_interval_are_the_pairs(results, claim, tmp_path):
    write_run(tmp_path / "dense", dict(b=[0.5, 0.6], a_0=[0.6, 0.7], a_1=[0.7, 0.81], a_2=[0.6, 0.7]))
    gap = results.Measured(tmp_path).gap(claim._replace(arm="dense/a_*"))
    np.testing.assert_allclose(gap["mean"], (10 + 20.5 + 10) / 3)
    assert gap["pairs"] == 3
    write_run(tmp_path / "conv", dict(b_0=[0.5, 0.4], b_1=[0.6, 0.51], b_2=[0.5, 0.4]))
    gap = results.Measured(tmp_path).gap(claim._replace(arm="dense/a_*", other="conv/b_*"))
    np.testing.assert_allclose(gap["mean"], (20 + 20 + 20) / 3)
    assert gap["pairs"] == 2


def test_scores_at_a_number_of_labels(results, claim, tmp_path):
    write_run(tmp_path / "dense", dict(b=[0.5, 0.6], a=[0.7, 0.7]), split="validation")
    measured = results.Measured(tmp_path)
    np.testing.assert_allclose(measured.gap(claim._replace(quantity="validation at 100"))["mean"], 15)
    assert measured.gap(claim._replace(quantity="validation at 200")) is None
    assert measured.gap(claim._replace(arm="conv/a")) is None


def test_means_apart_from_the_record_are_named(results, tmp_path):
    write_run(tmp_path / "dense", dict(a=[0.5, 0.52], b=[0.6, 0.62]))
    measured = results.Measured(tmp_path)
    record = {"launches": {"dense": dict(seeds=2, arms=json.loads(json.dumps(measured.arms("dense"))))}}
    assert results.compare(measured, record) == []
    record["launches"]["dense"]["arms"]["b"]["test_accuracy"]["mean"] = 70.0
    assert results.compare(measured, record) == ["dense, b, test_accuracy: 61.00, on record 70.00"]


def test_the_study_runs_in_the_folder_that_it_reads(tmp_path, monkeypatch, capsys):
    """From any folder: launch.py runs in that of the project."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import study

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["study.py", "--workdir=runs", "--mnist=images"])
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **settings: commands.append(command))
    with pytest.raises(SystemExit):
        study.main()
    assert f"{tmp_path / 'runs'} holds no complete run" in capsys.readouterr().err
    assert f"--workdir={tmp_path / 'runs/mnist-tail'}" in commands[-4]
    assert f"--config.data.source.root={tmp_path / 'images'}" in commands[-4]


def test_the_same_figures_keep_their_date(results, claim, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RECORD", tmp_path / "recorded.json")
    monkeypatch.setattr(results, "CLAIMS", [claim])
    write_run(tmp_path / "dense", dict(a=[0.5, 0.52, 1 / 3], b=[0.6, 0.62, 0.6]))
    record = {"launches": {}, "claims": {}}
    for day, date in ((0, "1970-01-01"), (86_400, "1970-01-01")):
        os.utime(tmp_path / "dense" / "summary.json", (day, day))
        results.put_on_record(results.Measured(tmp_path), record)
        record = json.loads(results.RECORD.read_text())
        assert {entry[name]["date"] for entry in record.values() for name in entry} == {date}
    record["launches"]["dense"]["arms"]["a"]["test_accuracy"]["mean"] = 40.0
    record["claims"][claim.key]["mean"] = 3.0
    results.put_on_record(results.Measured(tmp_path), record)
    assert {entry[name]["date"] for entry in record.values() for name in entry} == {"1970-01-02"}


def test_gaps_that_are_equal_but_for_rounding_tie(results, claim, tmp_path):
    """In points as in shares."""
    gaps = [0.011, 0.011 + 2e-7, -0.011 + 1e-7, 0.024, 0.031, -0.002]
    write_run(tmp_path / "dense", dict(b=[0.5] * 6, a=[0.5 + gap for gap in gaps]))
    expected = scipy.stats.wilcoxon([2, 2, -2, 3, 4, -1]).pvalue
    np.testing.assert_allclose(results.Measured(tmp_path).gap(claim)["p"], expected)


def test_all_launches_are_of_configs_that_parse(results):
    for launch in results.LAUNCHES.values():
        for added in ((), launch.small):
            path, settings = f"configs/{launch.config}", {}
            for flag in (*launch.flags, *added):
                key, value = flag.removeprefix("--config.").split("=", 1)
                settings[key] = value
            path = settings.pop("--config", path)
            parse_experiment(load_config(str(ROOT / path), settings))


@pytest.mark.slow
def test_launches_at_their_small_size(results, tmp_path):
    rng = np.random.default_rng(0)
    for part, size in (("train", 3_100), ("t10k", 600)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (size, 28, 28), dtype=np.uint8))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(size, dtype=np.uint8) % 10)
    command = [sys.executable, "benchmarks/results.py", f"--out={tmp_path / 'out'}", f"--mnist={tmp_path}"]
    command.append("--size=smoke")
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not finished.returncode, finished.stdout[-3000:] + finished.stderr[-3000:]
    for name in results.LAUNCHES:
        left_out = name in ("cifar10", "pretrained")
        ends = "left out: its images or its network are not given" if left_out else "complete"
        assert f"{name}: {ends}" in finished.stdout
    assert len(read_idx(tmp_path / "out/mnist/train-images-idx3-ubyte")) == 3000
    assert "CIFAR-10, linear layer on a pretrained network): not on record" in finished.stdout
    assert "IBAL-D is ahead of random (three classes in the plane): " in finished.stdout
    assert re.search(r"KL weight 1/64\): [+-]\d", finished.stdout)
