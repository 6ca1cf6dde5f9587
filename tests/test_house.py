"""Each floor imports only downward, and configs import ml_collections alone."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"types", "kernels"},
    {"runtime"},
    {"data", "models", "strategies"},
    {"encoders", "loop", "streaming"},
    {"results"},
    {"experiment", "labelling"},
]
MODULES = sorted((ROOT / "latent_al").rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(dotted):
    return dotted.split(".")[1] if dotted.startswith("latent_al.") else None


def floor(name):
    return next(index for index, rooms in enumerate(FLOORS) if name in rooms)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_downward(path):
    here = path.relative_to(ROOT).with_suffix("").parts
    if here[1] == "__init__":
        return
    for name in filter(None, map(room, imports(path))):
        assert floor(name) <= floor(here[1]), f"{path} imports {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "latent_al/kernels").glob("*.py")), ids=lambda path: path.name)
def test_kernels_import_jax_and_what_comes_with_it(path):
    foreign = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names
    assert foreign <= {"jax", "jaxtyping", "latent_al", "numpy"}
    assert {room(name) for name in imports(path)} <= {None, "kernels"}


def test_the_loop_knows_no_tables():
    allowed = {None, "types", "kernels"}
    assert {room(name) for name in imports(ROOT / "latent_al/loop.py")} <= allowed


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.name)
def test_configs_import_ml_collections_only(path):
    assert {name.split(".")[0] for name in imports(path)} == {"ml_collections"}
