"""Which devices a run uses: seeds over one axis of a mesh, the rows of the pool over the other."""

from collections.abc import Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from latent_al.base import BadInput
from latent_al.loop import SEEDS

AXES = (SEEDS, "pool")
Tree = TypeVar("Tree")


def make_mesh(spec: Mapping[str, int] | None, blocks: list[list[int]]) -> Mesh | None:
    """The mesh that `config.mesh` asks for, such as `dict(seeds=2, pool=4)`; None, for one device, where it does not.

    Args:
        spec: devices along each axis.
        blocks: the seeds that run side by side.

    Raises:
        BadInput: other axes, sizes below 1, more devices than there are, a block that its axis does not divide.
    """
    if spec is None:
        return None
    sizes, devices = dict(spec), jax.devices()
    if sizes.keys() != set(AXES) or min(sizes.values()) < 1:
        raise BadInput(f"mesh is {sizes}; expected the axes {' and '.join(AXES)}, both 1 or more.")
    shape = tuple(sizes[name] for name in AXES)
    if np.prod(shape) > len(devices):
        raise BadInput(
            f"mesh {sizes} needs {np.prod(shape)} devices but there are {len(devices)} of {devices[0].platform}; make "
            "the mesh smaller."
        )
    uneven = next((len(block) for block in blocks if len(block) % sizes[SEEDS]), None)
    if uneven:
        raise BadInput(
            f"{uneven} seeds run side by side, which {sizes[SEEDS]} devices do not share evenly; make num_seeds and "
            f"seeds_at_once multiples of {sizes[SEEDS]}, or change mesh.seeds."
        )
    return Mesh(np.reshape(devices[: np.prod(shape)], shape), AXES)


def place(tree: Tree, mesh: Mesh | None) -> Tree:
    """The arrays of `tree` on every device of the mesh, or on the one device, so that no round has to bring them."""
    return jax.device_put(tree, mesh and NamedSharding(mesh, PartitionSpec()))
