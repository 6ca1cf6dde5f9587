"""Executes each notebook in a fresh kernel, and checks what it leaves there. `make notebooks` stores the outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_BYTES = 400_000
CHECKS = {
    "digits": """
two_largest = np.sort(np.asarray(probs), axis=1)[:, -2:]
gaps = two_largest[:, 1] - two_largest[:, 0]
gaps[initial_rows] = np.inf
assert set(rows.tolist()) == set(np.argsort(gaps)[:10].tolist()), rows
assert len(set(state.queried.tolist())) == 30 and state.queried.max() < len(images), state.queried
for name in ("margin", "random"):
    assert queried[name].shape == (NUM_SEEDS, 100), queried[name].shape
    assert all(len(set(order)) == 100 for order in queried[name].tolist()), name
    assert curves[name].shape == (NUM_SEEDS, NUM_ROUNDS), curves[name].shape
assert (queried["margin"][:, :20] == queried["random"][:, :20]).all()
assert gains.mean() > 0, gains
""",
    "own_embeddings": """
expected, x, y = np.zeros((16, 10)), np.float64(embeddings[labelled]), np.eye(10)[labels[labelled]]
for _ in range(200):
    exponentials = np.exp(x @ expected)
    errors = exponentials / exponentials.sum(axis=1, keepdims=True) - y
    expected -= 0.5 * (x.T @ errors / 30 + 2e-3 * expected)
np.testing.assert_allclose(state.params, expected, rtol=1e-3, atol=1e-4)
assert int(state.count) == 40 and not set(next_rows.tolist()) & set(labelled.tolist())
assert len(set(next_rows.tolist())) == 10 and max(next_rows.tolist()) < len(embeddings), next_rows
assert len(set(first_rows.tolist())) == 20 and max(first_rows.tolist()) < len(embeddings), first_rows
for name in strategies:
    assert queried[name].shape == (NUM_SEEDS, 100), queried[name].shape
    assert all(len(set(order)) == 100 for order in queried[name].tolist()), name
    ahead = curves[name][:, -1].mean() - curves["random"][:, -1].mean()
    assert ahead > 0.02 or name == "random", (name, ahead)
    assert num_rare[name].mean() > num_rare["random"].mean() or name == "random", num_rare
""",
}
"""Run in the kernel of each notebook, behind its last cell."""


def execute(notebook):
    """Runs all cells in a kernel of its own, in the notebooks' folder, and keeps their outputs.

    Raises:
        CellExecutionError: a cell raises an error.
    """
    settings = dict(timeout=300, record_timing=False, coalesce_streams=True)
    NotebookClient(notebook, resources={"metadata": {"path": str(FOLDER)}}, **settings).execute()


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def kinds(notebook):
    """Returns the kinds of what each cell puts out: streams by their name, data by their types."""
    return [
        [output.get("name") or sorted(output.data) for output in cell.get("outputs", [])] for cell in notebook.cells
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_and_puts_out_what_is_stored(path):
    stored = nbformat.read(path, as_version=4)
    fresh = nbformat.from_dict(stored)
    fresh.cells.append(nbformat.v4.new_code_cell(CHECKS[path.stem]))
    execute(fresh)
    assert kinds(fresh)[:-1] == kinds(stored)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_small_and_tells_nothing_of_the_machine(path):
    notebook = nbformat.read(path, as_version=4)
    assert path.stat().st_size < MAX_BYTES
    assert sum("image/png" in output.get("data", {}) for output in outputs(notebook)) >= 3
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]
    text = "".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs(notebook)
    )
    assert str(Path.home()) not in text
    assert "site-packages" not in text


def main():
    """Stores the outputs in all notebooks."""
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        execute(notebook)
        notebook.metadata.pop("language_info", None)
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
