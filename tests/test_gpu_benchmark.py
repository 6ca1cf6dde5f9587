"""The benchmark for GPUs at its small size, which a CPU plays."""

import json
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu():
    spec = spec_from_file_location("gpu", SCRIPT)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_small(out):
    command = [sys.executable, SCRIPT, "--small", f"--out={out}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_part_has_figures_and_runs_once(gpu, tmp_path):
    finished = run_small(tmp_path)
    assert not finished.returncode, finished.stdout + finished.stderr
    parts = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert parts.keys() == set(gpu.PARTS)
    for part, result in parts.items():
        assert result["small"] is True
        assert {"device", "driver", "jax", "torch", "date"} <= result.keys()
        assert result["rows"]
        for row in result["rows"]:
            assert row["remark"].startswith("not run") if row["figure"] is None else row["figure"] > 0, row
        assert part == "paper" or any(row["figure"] for row in result["rows"])
        assert all(f"| {part} | {row['what']} |" in finished.stdout for row in result["rows"])
    assert all("0 failed" in parts[part]["rows"][0]["remark"] for part in ("types", "contract", "refusals"))
    [shares] = [row["remark"] for row in parts["farthest"]["rows"] if row["what"].startswith("the plain scan, ")]
    assert shares == "100.0% of rows the same"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    again = run_small(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")} == before
    assert all(f"{part}: done before" in again.stdout for part in parts)


def test_a_part_that_raises_is_reported_and_the_rest_runs(gpu, tmp_path):
    failures = gpu.run_parts(["raises", "pool"], tmp_path, small=True)
    assert failures == {"raises": "ended with 1: KeyError: 'raises'"}
    assert {path.name for path in tmp_path.glob("*.json")} == {"pool.json"}
    device = dict(device="cpu", driver="", jax="1", torch=None, date="2026-11-29T12:00:00")
    text = gpu.table(["raises", "pool"], tmp_path, failures, device)
    assert "| raises | failed | | ended with 1: KeyError: 'raises' |" in text
    assert "| pool | farthest first, 20,000 x 64, 100 rows |" in text


def test_a_part_that_hangs_is_stopped(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "SMALL_LIMIT", 0.1)
    assert gpu.run_part("pool", tmp_path, small=True) == "stopped after 0.1 s"
    assert not (tmp_path / "pool.json").exists()


def test_small_figures_do_not_stand_for_large_ones(gpu, tmp_path):
    (tmp_path / "pool.json").write_text(json.dumps(dict(small=True, rows=[])))
    assert gpu.is_done("pool", tmp_path, small=True)
    assert not gpu.is_done("pool", tmp_path, small=False)


def test_tests_of_kernels_are_counted(gpu, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from gpu_parts import summarise

    names = [f"tests/test_contract.py::test[{index}]" for index in range(4)]
    printed = f"{names[0]} PASSED [ 10%]\n[gw1] [ 20%] PASSED {names[1]} \n[gw0] [ 30%] FAILED {names[2]} \n"
    row = summarise("test_contract.py", f"{printed}{names[3]} SKIPPED (takes no key)\n", "all ran")
    assert row.figure == 2
    assert row.remark == f"1 failed, 1 skipped, all ran; {names[2]}"
