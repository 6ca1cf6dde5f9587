"""Rounds of labelling on real photographs as the benchmark plays them, with the command itself and with kills."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_launch import ROOT


@pytest.fixture
def photographs(tmp_path):
    """12 photographs of each of ten classes."""
    root = Path(os.environ.get("LATENT_AL_TEST_DATA", "")) / "cifar10_sample/train"
    if "LATENT_AL_TEST_DATA" not in os.environ or not root.is_dir():
        pytest.skip("LATENT_AL_TEST_DATA is not set to a folder that has cifar10_sample/train/")
    for path in root.iterdir():
        (tmp_path / "classes" / path.name).mkdir(parents=True)
        for image in sorted(path.iterdir())[:12]:
            shutil.copy(image, tmp_path / "classes" / path.name)
    return tmp_path / "classes"


@pytest.mark.slow
def test_kills_change_nothing(photographs, tmp_path):
    program = [sys.executable, "benchmarks/folder_rounds.py", "--config=configs/folder.py:smoke"]
    flags = [f"--classes={photographs}", f"--workdir={tmp_path / 'run'}", "--rounds=3", "--kills=3"]
    # What is killed leaves `conftest.compiled` alone, where half a program would stay.
    env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run([*program, *flags], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(
        r"[1-3] kills: all labels and every file of every round are the same, to the byte.\n$", done.stdout
    )
    assert "Round 003: 10 images to label" in done.stdout
    assert sorted(path.name for path in (tmp_path / "run/killed/rounds").iterdir()) == ["000", "001", "002", "003"]
