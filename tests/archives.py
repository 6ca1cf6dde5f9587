"""Checks the files of the wheel and of the source archive in dist/. `make light` runs it."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHEEL_METADATA = ".dist-info"
SOURCE_METADATA = ("PKG-INFO", "setup.cfg", "latent_al.egg-info")


def listed(*options: str) -> set[str]:
    """Returns the files of the working tree that `git ls-files` lists, but for deleted ones."""
    command = ["git", "ls-files", "-z", *options]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return {name for name in names if (ROOT / name).is_file()}


def check(archive: Path, names: set[str], inside: str) -> None:
    """Checks that an archive has all tracked files whose names begin with `inside`, and no ignored ones."""
    tracked, untracked = listed(), listed("--others", "--exclude-standard")
    missing = {name for name in tracked if name.startswith(inside)} - names
    foreign = (names - tracked - untracked) | {name for name in names if not name.startswith(inside)}
    if missing or foreign:
        sys.exit(f"{archive.name} lacks {sorted(missing)} and should not have {sorted(foreign)}.")
    print(f"{archive.name}: {len(names)} files, all of {inside or 'the tree'}.")


def main() -> None:
    """Checks the one wheel and the one source archive."""
    (wheel,) = (ROOT / "dist").glob("*.whl")
    (source,) = (ROOT / "dist").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.split("/")[0].endswith(WHEEL_METADATA)}
    check(wheel, names, "latent_al/")
    with tarfile.open(source) as archive:
        files = [member.name.split("/", 1)[1] for member in archive if member.isfile()]
    check(source, {name for name in files if name.split("/")[0] not in SOURCE_METADATA}, "")


if __name__ == "__main__":
    main()
