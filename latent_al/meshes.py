"""Which devices a run uses: its seeds are spread over those of a mesh."""

from collections.abc import Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from latent_al.base import BadInput
from latent_al.loop import SEEDS

Tree = TypeVar("Tree")


def make_mesh(spec: Mapping[str, int] | None, blocks: list[list[int]]) -> Mesh | None:
    """The mesh that `config.mesh` asks for, such as `dict(seeds=4)`; None, for one device, where it does not.

    Args:
        spec: devices along the one axis, `seeds`.
        blocks: the seeds that run side by side.

    Raises:
        BadInput: another axis, a size below 1, more devices than there are, a block that they do not share evenly.
    """
    if spec is None:
        return None
    sizes, devices = dict(spec), jax.devices()
    if sizes.keys() != {SEEDS} or sizes[SEEDS] < 1:
        raise BadInput(f"mesh is {sizes}; expected {SEEDS} alone, 1 or more, as in dict({SEEDS}=4).")
    num = sizes[SEEDS]
    if num > len(devices):
        raise BadInput(
            f"mesh {sizes} needs {num} devices but there are {len(devices)} of {devices[0].platform}; make the mesh "
            "smaller."
        )
    uneven = next((len(block) for block in blocks if len(block) % num), None)
    if uneven:
        raise BadInput(
            f"{uneven} seeds run side by side, which {num} devices do not share evenly; make num_seeds and "
            f"seeds_at_once multiples of {num}, or change mesh.seeds."
        )
    return Mesh(np.array(devices[:num]), (SEEDS,))


def place(tree: Tree, mesh: Mesh | None) -> Tree:
    """The arrays of `tree` on every device of the mesh, or on the one device, so that no round has to bring them."""
    return jax.device_put(tree, mesh and NamedSharding(mesh, PartitionSpec()))
