"""Figures of a round: the images to label, and where they lie in the latent space."""

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, findSystemFonts, get_font
from PIL import Image, ImageDraw, ImageFont
from sklearn.decomposition import PCA

from latent_al.results.plots import COLOURS, DPI, MARKERS
from latent_al.runtime.files import write_atomically

SIDE = 128
"""Pixels of the longer side of an image on a contact sheet."""
COLUMNS = 12
MARGIN = 4
LINE, LINES = 16, 2
"""Pixels of a line of a caption, and the number of its lines."""
CAPTION = LINE * LINES + 4
FITTED = 10_000
"""Images that the principal components are computed from."""
CLOUD = 20_000
"""Images that are drawn as the background of the map."""


class Marked(NamedTuple):
    """Latents [n d] with groups of rows to mark on a map: name -> rows."""

    latents: np.ndarray
    groups: dict[str, np.ndarray]


class _Plane(NamedTuple):
    """Where images lie on a map: `place` gives the points [k 2] of rows, and the labels say what the axes are."""

    place: Callable[[np.ndarray], np.ndarray]
    xlabel: str
    ylabel: str


def contact_sheet(images: Iterable[UInt8[np.ndarray, "_ _ c"]], captions: Sequence[str], path: Path) -> None:
    """Writes the images in rows of up to 12, with their captions below, as one PNG.

    Args:
        images: at least one, of any sizes, taken one by one; grey where c = 1, colour where c = 3.
        captions: one per image, of up to two lines; each is cut in the middle where it does not fit below the image.
        path: of the PNG, replaced as a whole.
    """
    cell = SIDE + MARGIN
    columns = min(len(captions), COLUMNS)
    size = (columns * cell + MARGIN, math.ceil(len(captions) / columns) * (cell + CAPTION) + MARGIN)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left = MARGIN + index % columns * cell
        top = MARGIN + index // columns * (cell + CAPTION)
        scaled = _scaled(image)
        sheet.paste(scaled, (left + (SIDE - scaled.width) // 2, top + (SIDE - scaled.height) // 2))
        for number, line in enumerate(caption.split("\n")[:LINES]):
            # No wider text fits, and a name that is not valid Unicode could not be drawn.
            text = " ".join(line.split()).encode(errors="replace").decode()
            font, text = _with_font(text)
            draw.text((left, top + SIDE + 2 + LINE * number), _cut(text, font), "black", font)
    _save(sheet.save, path)


def latent_map(latents: Float[np.ndarray, "n d"], groups: Mapping[str, Int[np.ndarray, " _"]], path: Path) -> None:
    """Writes a map of the latent space with groups of images marked, later groups above earlier ones, as a PNG.

    Two dimensions are drawn as they are, more as their first two principal components. Equal input gives equal bytes.

    Args:
        latents: finite; if there are very many, a fixed random choice is drawn.
        groups: name -> rows of `latents`, all of which are drawn; the order of the names sets their colours.
        path: of the PNG, replaced as a whole.
    """
    rng = np.random.default_rng(0)
    plane = _plane(latents, rng)
    cloud = rng.permutation(len(latents))[:CLOUD]
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    drawn = "" if len(cloud) == len(latents) else f", {len(cloud):,} of them drawn"
    points = plane.place(cloud)
    label = f"all images: {len(latents):,}{drawn}"
    axes.scatter(points[:, 0], points[:, 1], s=4, color="0.75", linewidths=0, label=label)
    for index, (name, rows) in enumerate(groups.items(), start=1):
        points = plane.place(rows)
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=24,
            marker=MARKERS[index % len(MARKERS)],
            color=COLOURS[index % len(COLOURS)],
            edgecolors="white",
            linewidths=0.4,
            label=f"{name}: {len(rows):,}",
        )
    axes.set(xlabel=plane.xlabel, ylabel=plane.ylabel)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    _save(lambda file, format: figure.savefig(file, format=format, dpi=DPI, bbox_inches="tight"), path)


def _scaled(image):
    """Scales up or down to `SIDE`, smoothly: people recognise small photographs better without sharp pixels."""
    height, width, channels = image.shape
    scale = SIDE / max(height, width)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    return picture.resize(size, Image.Resampling.BICUBIC)


def _with_font(text):
    """Returns a font that has all letters of a text, and the text; without one, code points stand for letters."""
    letters = frozenset(map(ord, text)) - {ord(" ")}
    path = next((path for path in _fonts() if letters <= _letters(path)), None)
    if path is not None:
        return ImageFont.truetype(path, 12), text
    plain = _letters(_fonts()[0])
    spelt = "".join(letter if ord(letter) in plain or letter == " " else f"U+{ord(letter):04X} " for letter in text)
    return ImageFont.truetype(_fonts()[0], 12), spelt.strip()


@cache
def _fonts():
    """Returns the fonts of this machine that can be drawn at any size; DejaVu comes first, and with matplotlib."""
    return [findfont("DejaVu Sans"), *filter(_is_scalable, sorted(findSystemFonts()))]


def _is_scalable(path):
    try:
        return bool(get_font(path).scalable)
    except (OSError, RuntimeError):
        return False


@cache
def _letters(path):
    return frozenset(get_font(path).get_charmap())


def _cut(line, font):
    """Returns a line cut in the middle to the width of an image: names differ at their ends."""
    if font.getlength(line[: 2 * SIDE]) <= SIDE:
        return line
    halves = ((line[: size - size // 2], line[len(line) - size // 2 :]) for size in range(SIDE, -1, -1))
    return next(cut for start, end in halves if font.getlength(cut := f"{start}…{end}") <= SIDE)


def _plane(latents, rng):
    if latents.shape[1] == 1:
        height = rng.uniform(size=len(latents))
        return _Plane(lambda rows: np.column_stack([latents[rows, 0], height[rows]]), "latent", "spread at random")
    if latents.shape[1] == 2 or len(latents) == 1:
        return _Plane(lambda rows: latents[rows, :2], "first latent", "second latent")
    pca = PCA(2, random_state=0)
    # Latents that are all equal have no variance to share.
    with np.errstate(invalid="ignore"):
        pca.fit(latents[rng.permutation(len(latents))[:FITTED]])
    shares = [f"({100 * share:.0f} % of the variance)" for share in np.nan_to_num(pca.explained_variance_ratio_)]
    # As `pca.transform`, which refuses a group without rows.
    return _Plane(
        lambda rows: (latents[rows] - pca.mean_) @ pca.components_.T,
        f"first principal component {shares[0]}",
        f"second principal component {shares[1]}",
    )


def _save(save, path):
    buffer = io.BytesIO()
    save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())
