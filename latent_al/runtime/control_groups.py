"""The memory that Linux's control groups leave to a process: they limit containers and cluster jobs."""

from math import inf
from pathlib import Path
from typing import NamedTuple

GROUPS = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")


class _Files(NamedTuple):
    """The files of a control group that give its memory, and the line of `memory.stat` with what can be reclaimed."""

    limit: str
    used: str
    reclaimable: str


VERSIONS = {
    "": _Files("memory.max", "memory.current", "inactive_file"),
    "memory": _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Controllers as named in the list of groups: none in version 2, where they share a tree, `memory` in version 1."""


def memory_left(groups: Path = GROUPS, root: Path = ROOT) -> float:
    """Returns the bytes that the control groups of this process leave it; infinite without a limit, or without Linux.

    Args:
        groups: the list of the process's groups.
        root: of the trees of groups.
    """
    lines = groups.read_text().splitlines() if groups.is_file() else []
    left = inf
    for _, controllers, path in (line.split(":", 2) for line in lines):
        for controller in VERSIONS.keys() & controllers.split(","):
            tree = root / controller
            # A container may see its own group as the root of the tree, and yet be told the group's path outside.
            group = tree / path.lstrip("/")
            left = min(left, *(_left(folder, VERSIONS[controller]) for folder in (group, *group.parents)))
    return left


def _left(folder, files):
    try:
        limit = (folder / files.limit).read_text().strip()
        used = int((folder / files.used).read_text())
        stats = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return inf
    return inf if limit == "max" else max(float(limit) - used + float(stats[files.reclaimable]), 0.0)
