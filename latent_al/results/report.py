"""One HTML page of a run that needs no other file."""

from base64 import b64encode
from pathlib import Path

import jinja2
import pandas as pd
from pandas.api.types import is_numeric_dtype

from latent_al.runtime.files import write_atomically

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; background: white; color: #222;
       font: 1rem/1.5 system-ui, sans-serif; }
p, li, figcaption { max-width: 42rem; }
h2 { margin-top: 3rem; }
pre, .wide { overflow-x: auto; }
pre { padding: 0.5rem; background: #f4f4f4; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
table.dataframe :is(th, td) { padding: 0.2rem 0.8rem; border-bottom: 1px solid #ccc; text-align: right; }
table.named :is(th, td):first-child { text-align: left; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<pre>{{ command }}</pre>
<details>
<summary>Config</summary>
<pre>{{ config }}</pre>
</details>
<nav aria-label="Contents">
<ul>
{%- for heading in (tables | list) + (figures | list) %}
<li><a href="#section-{{ loop.index }}">{{ heading }}</a></li>
{%- endfor %}
</ul>
</nav>
{%- for heading, table in tables.items() %}
<section id="section-{{ loop.index }}">
<h2>{{ heading }}</h2>
<div class="wide">
{{ table | safe }}
</div>
</section>
{%- endfor %}
{%- for heading, pictures in figures.items() %}
<section id="section-{{ tables | length + loop.index }}">
<h2>{{ heading }}</h2>
{%- for caption, source in pictures %}
<figure>
<img src="{{ source }}" alt="{{ caption }}">
<figcaption>{{ caption }}</figcaption>
</figure>
{%- endfor %}
</section>
{%- endfor %}
</body>
</html>
"""


def write_report(
    path: Path,
    *,
    title: str,
    command: str,
    config: str,
    tables: dict[str, pd.DataFrame],
    figures: dict[str, list[tuple[str, Path]]],
) -> None:
    """Writes the page of a run into one HTML file; the same arguments give the same bytes.

    Args:
        path: the file to write, replaced as a whole.
        title: of the page.
        command: what was run.
        config: the config as JSON text.
        tables: heading -> table; a missing value leaves its cell empty.
        figures: heading -> (caption, PNG file) of each figure.
    """
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(PAGE)
    text = page.render(
        title=title,
        command=command,
        config=config,
        tables={heading: _table(table) for heading, table in tables.items()},
        figures={
            heading: [(caption, _embed(png)) for caption, png in pictures] for heading, pictures in figures.items()
        },
    )
    write_atomically(path, text + "\n")


def _table(table):
    """Returns a table as HTML: names in a first column go left, numbers right, and so do texts as "97.0 ± 0.2"."""
    kind = "numbers" if is_numeric_dtype(table.dtypes.iloc[0]) else "named"
    # Among objects None would be written as such; NaN is not.
    return table.where(table.notna()).to_html(index=False, na_rep="", border=0, classes=kind)


def _embed(png):
    return "data:image/png;base64," + b64encode(png.read_bytes()).decode()
