"""Names of image files as other programs spell them, matched to those of a folder."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import unquote

UPLOAD = re.compile(r"(?:^|/)data/upload/\d+/(?:[0-9a-f]{8}-)?([^/]+)$")
"""The path of a file that was uploaded to Label Studio: below the project's number, with a random prefix."""

LOCAL = re.compile(r"(?:^|/)data/local-files/\?d=([^&]*)")
"""The path of a local file in Label Studio, below its document root."""


class FileNames:
    """The paths of image files below a folder, found by whatever names them uniquely.

    A name may have the folder in front, `./`, backslashes, an absolute path, percent signs of a URL, the path of Label
    Studio to a local or an uploaded file, another Unicode form, blanks around it, or no suffix.
    """

    def __init__(self, names: Iterable[str], root_name: str):
        self._names = frozenset(names)
        self._root_name = _form(root_name)
        self._by_form = _unique((_form(name), name) for name in self._names)
        self._by_stem = _unique((_stem(_form(name)), name) for name in self._names)
        self._by_upload = _unique((_uploaded(name), name) for name in self._names)

    def find(self, text: str) -> str | None:
        """Returns the name that a text means, or None where it means none, or several."""
        if text in self._names:
            return text
        for spelling in _spellings(text):
            upload = UPLOAD.search(spelling)
            name = self._by_upload.get(_uploaded(upload[1])) if upload else self._below_root(_form(spelling))
            if name is not None:
                return name
        return None

    def _below_root(self, form):
        parts = form.split("/")
        starts = [0, *(index + 1 for index, part in enumerate(parts[:-1]) if part == self._root_name)]
        paths = ["/".join(parts[start:]) for start in starts]
        for by_path in (self._by_form, self._by_stem):
            for path in paths:
                if by_path.get(path) is not None:
                    return by_path[path]
        return None


def _unique(pairs):
    """Returns a dict of the pairs, in which a key with several names maps to None."""
    unique: dict[str, str | None] = {}
    for key, name in pairs:
        unique[key] = None if key in unique else name
    return unique


def _spellings(text):
    """Returns the text, and its forms without the syntax of a URL."""
    local = LOCAL.search(text)
    if local:
        # Its percent signs are not part of a name, and what comes before it is not a folder.
        return dict.fromkeys([unquote(local[1]), local[1]])
    query = re.search(r"[?&]d=([^&]*)", text)
    path = query[1] if query else re.sub(r"^[a-z]+://[^/]*", "", text)
    return dict.fromkeys([text, path, unquote(path)])


def _form(text):
    """Returns a path in one form: composed letters, slashes, without blanks around it, `.` and leading slashes."""
    text = unicodedata.normalize("NFC", text).strip().replace("\\", "/")
    return "/".join(part for part in text.split("/") if part not in ("", "."))


def _stem(form):
    return PurePosixPath(form).with_suffix("").as_posix() if form else form


def _uploaded(name):
    """Returns the last part of a name as Label Studio keeps it."""
    return re.sub(r"[^-\w.]", "", _form(name).rsplit("/", 1)[-1].replace(" ", "_"))
