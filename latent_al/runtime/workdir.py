"""Opens and checks the folder of one run."""

import json
from pathlib import Path
from typing import Any

import jax

from latent_al.runtime.files import write_atomically, write_json
from latent_al.runtime.processes import is_first
from latent_al.types import BadInput, differences

FORMAT = 2
"""The format of a workdir. It rises with each change after which an existing workdir cannot be continued."""
MOVING = {"onnx": ("root",), "precomputed": ("latents", "index", "validation", "test")}
"""Name of a spec -> those of its settings that are paths of files identified by their content."""
SEEDS_AT_ONCE = "seeds_at_once.json"


def open_workdir(folder: Path, config: dict[str, Any], data_digest: str, at_once: int) -> Path:
    """Makes the workdir with its `config.json`, or checks that it holds this very experiment.

    The workdir also keeps how many seeds run side by side, as with less memory their blocks would differ.

    Raises:
        BadInput: the workdir is of another format, holds another config or other data, cannot be written, or is not
            that of process 0.
    """
    if not is_first() and not (folder / "config.json").exists():
        raise BadInput(
            f"process {jax.process_index()} does not see the workdir {folder} of process 0; choose a --workdir on a "
            "disk that all machines share."
        )
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        check_identity(folder, {"config": config, "data": data_digest})
        if is_first():
            write_atomically(folder / SEEDS_AT_ONCE, f"{at_once}\n")
    except OSError as error:
        raise BadInput(f"workdir {folder} cannot be written ({error}); choose another --workdir.") from error
    return folder


def begun_with(folder: Path) -> int | None:
    """Returns how many seeds run side by side in a workdir that was begun; None where it was not.

    Raises:
        BadInput: the file that keeps it holds something else.
    """
    path = folder / SEEDS_AT_ONCE
    if not path.exists():
        return None
    kept = path.read_text().strip()
    if not kept.isdecimal() or int(kept) < 1:
        raise BadInput(f"{path} holds {kept[:20]!r}; expected a number of seeds; choose another --workdir.")
    return int(kept)


def check_format(folder: Path) -> None:
    """Checks that a workdir that was begun has the format of this version; does nothing for a new one.

    Raises:
        BadInput: it has none or another; its `config.json` is not JSON.
    """
    path = folder / "config.json"
    if path.exists():
        _check_format(_read_kept(path), folder)


def check_begun(folder: Path, config: dict[str, Any], data_digest: str) -> None:
    """Checks that a workdir that was begun holds this very experiment; does nothing for a new one.

    Raises:
        BadInput: it is of another format, or holds another config or other data.
    """
    if (folder / "config.json").exists():
        check_identity(folder, {"config": config, "data": data_digest})


def check_identity(folder: Path, identity: dict[str, Any]) -> None:
    """Saves `identity` and the format in the workdir's `config.json`, or checks that they match what is saved there.

    Files that are identified by their content may move: their paths are not compared.

    Raises:
        BadInput: they do not; the file is not JSON.
    """
    path = folder / "config.json"
    wanted = json.loads(json.dumps({"format": FORMAT} | identity))
    if not path.exists():
        write_json(path, wanted)
        return
    kept = _read_kept(path)
    _check_format(kept, folder)
    differing = differences(_without_paths(kept), _without_paths(wanted), "there", "now")
    if differing:
        raise BadInput(
            f"workdir {folder} holds another experiment ({'; '.join(differing)}); "
            "choose another --workdir, or undo the difference to continue there."
        )


def keep_compiled(folder: Path) -> None:
    """Has JAX keep compiled programs in `folder`, unless it was told where, so that the next run starts sooner."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
        # Otherwise each process would recompile some fifty small programs, which takes more than a second.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pin(path: Path, digest: str, what: str) -> None:
    """Saves a hash at `path`, or checks that it is the one saved there.

    Raises:
        BadInput: `what` has changed since the workdir was begun.
    """
    if path.exists() and path.read_text() != digest:
        raise BadInput(f"{what} has changed since this workdir was begun; restore it or choose another --workdir.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, digest)


def _without_paths(tree):
    if not isinstance(tree, dict):
        return tree
    moving = MOVING.get(str(tree.get("name")), ())
    return {key: _without_paths(value) for key, value in tree.items() if key not in moving}


def _read_kept(path):
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(kept, dict):
            raise ValueError(f"it holds {kept!r:.20}")
    except ValueError as error:
        raise BadInput(f"{path} is not JSON of a config ({error}); choose another --workdir, or delete it.") from error
    return kept


def _check_format(kept, folder):
    if kept.get("format") != FORMAT:
        raise BadInput(
            f"workdir {folder} was begun by another version of latent_al, with format {kept.get('format')}, while this "
            f"one has {FORMAT}; finish it with that version, or choose another --workdir."
        )
