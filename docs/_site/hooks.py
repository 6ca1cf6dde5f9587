"""Hooks of the site: the files above docs/ that pages link to, and formulas as MathML."""

import html
import os
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
"""Files of the repository, which become pages of the site."""
LINK = re.compile(r"(\]\()([^()\s#]+)(?=[)#])")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)


def on_files(files, config):
    """Adds the pages that lie above docs/."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links that hold in the repository into those that hold in the site, with what they lead to above docs/."""
    above = {target: path for path, target in PAGES.items()}
    uri = page.file.src_uri
    source = Path(above.get(uri, f"docs/{uri}"))

    def moved(match):
        path = os.path.normpath(source.parent / match[2])
        if path.startswith("..") or not (ROOT / path).is_file():
            return match[0]
        target = PAGES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}")
        if files.get_file_from_path(target) is None:
            files.append(File.generated(config, target, abs_src_path=str(ROOT / path)))
        return match[1] + os.path.relpath(target, Path(uri).parent)

    return LINK.sub(moved, markdown)


def on_page_content(content, page, config, files):
    """Writes formulas as MathML, which browsers show without a script, and marks what may be wider than the page."""
    del config, files

    def formula(match):
        is_block = match[1] == "div"
        markup = convert(html.unescape(match[3]), display="block" if is_block else "inline")
        if ">\\" in markup:
            raise PluginError(f"{page.file.src_uri}: no MathML for {match[3]}")
        return wide(markup) if is_block else markup

    return TABLE.sub(lambda match: wide(match[0]), FORMULA.sub(formula, content))


def on_post_page(output, page, config):
    """Names the search dialog, which the theme leaves without a name."""
    del page, config
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def wide(markup):
    """Returns what may be wider than the page in a part that scrolls, also by the keyboard."""
    return f'<div class="wide" tabindex="0">{markup}</div>'
