"""The modules that an import loads, each in a process of its own, and the message for a missing extra."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXTRAS = {
    "latent_al.data": ("experiments", "sklearn"),
    "latent_al.encoders": ("experiments", "tqdm"),
    "latent_al.experiment": ("experiments", "ml_collections"),
    "latent_al.labelling": ("labelling", "grain"),
    "latent_al.models": ("experiments", "flax"),
    "latent_al.results": ("experiments", "statsmodels"),
    "latent_al.streaming": ("experiments", "tensorstore"),
}
BLOCKED = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == {!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def run(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)


def loaded(modules):
    """The packages that an import leaves loaded, and the modules of latent_al."""
    process = run(f"import {modules}, sys; print(*sys.modules)")
    assert process.returncode == 0, process.stderr
    names = process.stdout.split()
    return {name.split(".")[0] for name in names}, {name for name in names if name.startswith("latent_al.")}


@pytest.fixture(scope="module")
def with_jax():
    """The packages that jax, jaxtyping and numpy load, with all that they need.

    `jaxtyping.PyTree` imports wadler_lindig when it is first asked for.
    """
    return loaded("jax, jaxtyping, numpy, wadler_lindig")[0]


@pytest.mark.parametrize(
    "module", ["latent_al", "latent_al.kernels", "latent_al.types", "latent_al.loop", "latent_al.strategies"]
)
def test_jax_and_jaxtyping_are_enough(module, with_jax):
    packages, _ = loaded(module)
    assert packages - with_jax - set(sys.stdlib_module_names) == {"latent_al"}


@pytest.mark.parametrize("module", ["latent_al", "latent_al.kernels"])
def test_kernels_and_types_come_alone(module):
    _, rooms = loaded(module)
    assert {name.split(".")[1] for name in rooms} == {"kernels", "types"}


def test_streaming_loads_no_package_of_experiments():
    packages, _ = loaded("latent_al.streaming")
    assert "tensorstore" in packages
    assert not packages & {"absl", "flax", "optax", "orbax", "pandas", "sklearn", "statsmodels"}


def test_rooms_are_imported_on_first_use():
    code = "import latent_al; print(latent_al.loop.__name__, 'random' in latent_al.STRATEGIES, dir(latent_al))"
    process = run(code)
    assert process.stdout.startswith("latent_al.loop True "), process.stderr
    assert "'streaming'" in process.stdout


def test_what_is_not_there_is_an_attribute_error():
    process = run("import latent_al; latent_al.kernel")
    assert "AttributeError: module 'latent_al' has no attribute 'kernel'" in process.stderr


@pytest.mark.parametrize("module", EXTRAS)
def test_a_room_requires_what_its_files_import(module, with_jax):
    folder = ROOT / module.replace(".", "/")
    imported = {name for path in folder.glob("*.py") for name in top_imports(ast.parse(path.read_text()))}
    (call,) = [
        node.value
        for node in ast.parse((folder / "__init__.py").read_text()).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and node.value.func.id == "require"
    ]
    required = {argument.value for argument in call.args[2:]}
    assert imported - with_jax - set(sys.stdlib_module_names) - {"latent_al"} <= required


def top_imports(tree):
    """The packages that a module imports as it is imported itself."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


@pytest.mark.parametrize("module", EXTRAS)
def test_a_missing_extra_is_named(module):
    extra, missing = EXTRAS[module]
    process = run(BLOCKED.format(missing) + f"import {module}")
    assert process.stderr.splitlines()[-1] == (
        f"ModuleNotFoundError: {module} needs {missing}, which is not installed: pip install 'latent_al[{extra}]'"
    )


@pytest.mark.parametrize(("clustering", "missing"), [("ward", "fastcluster"), ("gaussian_mixture", "sklearn")])
def test_a_clustering_names_the_extra_that_it_needs(clustering, missing):
    code = "from latent_al.strategies.clusterings import CLUSTERINGS\n"
    settings = "num_clusters=2" if clustering == "ward" else "num_clusters=2, seed=0"
    process = run(BLOCKED.format(missing) + code + f"CLUSTERINGS[{clustering!r}]({settings})")
    assert process.stderr.splitlines()[-1] == (
        f"ModuleNotFoundError: {clustering} needs {missing}, which is not installed: "
        "pip install 'latent_al[experiments]'"
    )


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("flax", "launch.py: latent_al.experiment needs flax, which is not installed: pip install "),
        ("absl", "launch.py: latent_al.experiment needs absl, which is not installed: pip install "),
    ],
)
def test_the_launcher_names_the_extra_in_one_line(missing, said):
    code = "import runpy; sys.argv = ['launch.py']; runpy.run_path('launch.py', run_name='__main__')"
    process = run(BLOCKED.format(missing) + code)
    assert process.returncode == 1
    assert process.stderr == said + "'latent_al[experiments]'\n"


def test_the_launcher_names_the_extra_of_the_labelling_job(tmp_path):
    arguments = ["launch.py", "--config=configs/folder.py", f"--workdir={tmp_path}"]
    code = f"import runpy; sys.argv = {arguments}; runpy.run_path('launch.py', run_name='__main__')"
    process = run(BLOCKED.format("grain") + code)
    assert process.returncode == 1
    assert process.stderr == (
        "launch.py: latent_al.labelling needs grain, which is not installed: pip install 'latent_al[labelling]'\n"
    )


def test_an_experiment_needs_no_package_of_the_labelling_job():
    code = "import runpy; sys.argv = ['launch.py', '--help']; runpy.run_path('launch.py', run_name='__main__')"
    process = run(BLOCKED.format("grain") + code)
    assert "--config" in process.stdout + process.stderr
    assert "grain" not in process.stdout + process.stderr
