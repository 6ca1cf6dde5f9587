"""One HTML page of a run that needs no other file; `templates/` holds its markup and its style."""

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from PIL import Image

from latent_al.results.answers import Answer
from latent_al.results.charts import Chart
from latent_al.runtime.files import write_atomically

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
)
QUALITY = 90
"""The quality of the embedded WebP; at 90 the lines of a plot stay clean, and photographs take a tenth of their PNG."""


class Section(NamedTuple):
    """A part of the page.

    heading: a few words.
    text: the explanation below it; may be empty.
    charts: line charts, drawn as SVG.
    table: a missing value leaves its cell empty; None for no table.
    pictures: (caption, PNG file) of each figure.
    """

    heading: str
    text: str = ""
    charts: Sequence[Chart] = ()
    table: pd.DataFrame | None = None
    pictures: Sequence[tuple[str, Path]] = ()


class Cells(NamedTuple):
    """A table as texts; `is_numeric` says whether its first column holds numbers."""

    head: list[str]
    rows: list[list[str]]
    is_numeric: bool


def write_report(
    path: Path, *, title: str, answer: Answer | None, command: str, config: str, sections: Sequence[Section]
) -> None:
    """Writes the page of a run into one HTML file; the same arguments give the same bytes.

    Args:
        path: the file to write, replaced as a whole.
        title: of the page.
        answer: the text that comes first; None for none.
        command: what was run.
        config: the config as JSON text.
        sections: the parts of the page, in order.
    """
    page = TEMPLATES.get_template("page.html")
    text = page.render(title=title, answer=answer, command=command, config=config, sections=sections)
    write_atomically(path, text + "\n")


def _cells(table):
    columns = [[_text(value) for value in column] for _, column in table.items()]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Cells([str(name) for name in table], rows, is_numeric_dtype(table.dtypes.iloc[0]))


def _text(value):
    """Returns a cell: four significant digits of a number with a point, nothing for a missing value."""
    if pd.isna(value):
        return ""
    if isinstance(value, float):
        return np.format_float_positional(value, precision=4, fractional=False, trim="-")
    return str(value)


def _embed(png):
    """Returns a picture as a data URL: WebP takes a fraction of the bytes of a PNG, and the PNG is in the workdir."""
    packed = BytesIO()
    with Image.open(png) as image:
        image.convert("RGB").save(packed, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + b64encode(packed.getvalue()).decode()


def _unbroken(text):
    """Returns a text whose lines do not break between a number and its unit, or a p and its value."""
    space = "\N{NO-BREAK SPACE}"
    return text.replace(" %", f"{space}%").replace("p = ", f"p{space}={space}")


TEMPLATES.filters |= {"cells": _cells, "embed": _embed, "px": "{:.1f}".format, "unbroken": _unbroken}
