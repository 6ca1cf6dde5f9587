"""Keeps what libraries print off the terminal: warnings from Python and C code about damaged files."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def noise_to_file(path: Path) -> Iterator[TextIO]:
    """Adds all that is written to the standard error stream in the block, by C code too, to the end of a file.

    Args:
        path: of the file, which is made only if there is something to write.

    Yields:
        The stream itself, for progress that should be seen.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as noise, open(terminal, "w", buffering=1, encoding="utf-8") as shown:
        os.dup2(noise.fileno(), 2)
        try:
            with contextlib.redirect_stderr(open(2, "w", buffering=1, closefd=False, errors="backslashreplace")):
                yield shown
        finally:
            shown.flush()
            os.dup2(terminal, 2)
            noise.seek(0)
            text = noise.read()
            if text:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    file.write(text)
