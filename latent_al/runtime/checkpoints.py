"""Checkpoints with Orbax: written whole or not at all, and refused with a cure where they cannot be read."""

import time
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from latent_al.runtime.processes import is_first
from latent_al.types import BadInput

Tree = TypeVar("Tree")


class Checkpoints:
    """Keeps the last two states of one job in `folder`, under the number of steps done.

    Of several processes the first saves, and all can restore.

    Args:
        folder: made where absent.
        seconds_between: a save sooner than this after the previous one is skipped, unless it is the last.
    """

    def __init__(self, folder: Path, seconds_between: int = 0):
        self._folder = Path(folder).absolute()
        # Otherwise Orbax would have all processes save together.
        this_process = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(),
            active_processes={jax.process_index()},
            barrier_sync_key_prefix=f"process_{jax.process_index()}",
        )
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, enable_async_checkpointing=False, multiprocessing_options=this_process, create=False
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        self._seconds_between = seconds_between
        self._saved_at = time.monotonic()

    @property
    def steps_done(self) -> int:
        """Returns the steps of the newest state; 0 where there is none."""
        return self._manager.latest_step() or 0

    def restore(self, tree: Tree) -> tuple[int, Tree]:
        """Returns (steps done, the newest state), or (0, `tree`) where there is none.

        Args:
            tree: gives structure and shapes.

        Raises:
            BadInput: the newest state cannot be read, or is of another structure or other shapes.
        """
        tree = jax.device_get(tree)
        # Of several processes the first has saved, which the managers of the others do not notice by themselves.
        self._manager.reload()
        step = self._manager.latest_step()
        if step is None:
            return 0, tree
        leaves, structure = jax.tree.flatten(tree)
        try:
            restored = self._manager.restore(step, args=ocp.args.StandardRestore(leaves))
        except Exception as error:  # Orbax raises whatever its storage layers raise.
            raise BadInput(
                f"checkpoint {self._folder / str(step)} cannot be read ({type(error).__name__}: {str(error)[:200]}); "
                "delete that folder and run again: the work continues from the checkpoint before it, or from the start."
            ) from error
        for old, new in zip(restored, leaves, strict=True):
            if np.shape(old) != np.shape(new):
                raise BadInput(
                    f"checkpoint {self._folder / str(step)} holds an array of shape {np.shape(old)}, expected "
                    f"{np.shape(new)}: it belongs to other settings or another version; delete {self._folder} to start "
                    "again, or run in another folder."
                )
        return step, jax.tree.unflatten(structure, restored)

    def save(self, step: int, tree: Tree, last: bool = True) -> None:
        """Writes the state after `step` steps.

        Raises:
            BadInput: it cannot be written.
        """
        if is_first() and (last or time.monotonic() - self._saved_at >= self._seconds_between):
            try:
                self._manager.save(step, args=ocp.args.StandardSave(jax.tree.leaves(jax.device_get(tree))))
            except Exception as error:  # Orbax raises whatever its storage layers raise.
                raise BadInput(
                    f"checkpoint {self._folder / str(step)} cannot be written ({type(error).__name__}: "
                    f"{str(error)[:200]}); make room on the disk, or wait for another run that writes there, and run "
                    "again: the work continues from the one before."
                ) from error
            self._saved_at = time.monotonic()
