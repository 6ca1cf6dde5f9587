"""The pictures of a round: what is to be labelled, and where it lies in the latent space."""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from sklearn.decomposition import PCA

from latent_al.results.plots import COLOURS, DPI, MARKERS
from latent_al.runtime.files import write_atomically

SIDE = 128
"""Pixels of the longer side of an image on a contact sheet."""
COLUMNS = 12
MARGIN = 4
CAPTION = 20
"""Pixels of a caption's line."""
FITTED = 10_000
"""Images that the principal components are found from."""
CLOUD = 20_000
"""Images that are drawn as the background of the map."""


def contact_sheet(images: Iterable[UInt8[np.ndarray, "_ _ c"]], captions: Sequence[str], path: Path) -> None:
    """Writes the images in rows of up to 12, each with its caption below, as one PNG.

    Args:
        images: at least one, of any sizes, taken one by one; grey where c = 1, colour where c = 3.
        captions: one an image; what does not fit below the image is cut.
        path: of the PNG, replaced as a whole.
    """
    cell, columns = SIDE + MARGIN, min(len(captions), COLUMNS)
    size = (columns * cell + MARGIN, math.ceil(len(captions) / columns) * (cell + CAPTION) + MARGIN)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    # DejaVu, which comes with matplotlib, has more scripts than Pillow's own font.
    font = ImageFont.truetype(findfont("DejaVu Sans"), 12)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = MARGIN + index % columns * cell, MARGIN + index // columns * (cell + CAPTION)
        shown = _scaled(image)
        sheet.paste(shown, (left + (SIDE - shown.width) // 2, top + (SIDE - shown.height) // 2))
        draw.text((left, top + SIDE + 2), _cut(caption, font), "black", font)
    _save(sheet.save, path)


def latent_map(latents: Float[np.ndarray, "n d"], groups: Mapping[str, Int[np.ndarray, " _"]], path: Path) -> None:
    """Writes a map of the latent space with groups of images marked, later groups above earlier ones, as a PNG.

    Two dimensions are shown as they are, more as their first two principal components. Equal input gives equal bytes.

    Args:
        latents: finite; of very many, a fixed random choice is drawn.
        groups: name -> rows of `latents`, all of which are drawn.
        path: of the PNG, replaced as a whole.
    """
    rng = np.random.default_rng(0)
    place, labels = _plane(latents, rng)
    cloud = rng.permutation(len(latents))[:CLOUD]
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    drawn = "" if len(cloud) == len(latents) else f", {len(cloud):,} of them drawn"
    axes.scatter(*place(cloud).T, s=4, color="0.75", linewidths=0, label=f"all images: {len(latents):,}{drawn}")
    for index, (name, rows) in enumerate(groups.items(), start=1):
        marks = dict(marker=MARKERS[index % len(MARKERS)], color=COLOURS[index % len(COLOURS)])
        axes.scatter(*place(rows).T, s=24, edgecolors="white", linewidths=0.4, label=f"{name}: {len(rows):,}", **marks)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    figure.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    _save(lambda file, format: figure.savefig(file, format=format, dpi=DPI, bbox_inches="tight"), path)


def _scaled(image):
    """Up or down to `SIDE`, smoothly, for people know small photographs better without sharp pixels."""
    height, width, channels = image.shape
    scale = SIDE / max(height, width)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    return picture.resize(size, Image.Resampling.BICUBIC)


def _cut(caption, font):
    """The caption on one line, cut to the width of an image."""
    # No wider text fits, and a name that is no valid Unicode could not be drawn.
    line = " ".join(caption.split()).encode(errors="replace").decode()
    if font.getlength(line[:SIDE]) <= SIDE:
        return line
    return next(cut for end in range(SIDE, -1, -1) if font.getlength(cut := line[:end] + "…") <= SIDE)


def _plane(latents, rng):
    """A function of rows to their places [k 2], and what the two axes are."""
    if latents.shape[1] == 1:
        height = rng.uniform(size=len(latents))
        return lambda rows: np.column_stack([latents[rows, 0], height[rows]]), ("latent", "spread at random")
    if latents.shape[1] == 2:
        return lambda rows: latents[rows], ("first latent", "second latent")
    if len(latents) == 1:
        return lambda rows: latents[rows, :2], ("first latent", "second latent")
    pca = PCA(2, random_state=0)
    # Latents that are all equal have no variance to share.
    with np.errstate(invalid="ignore"):
        pca.fit(latents[rng.permutation(len(latents))[:FITTED]])
    shares = np.nan_to_num(pca.explained_variance_ratio_)
    names = [f"{name} principal component" for name in ("first", "second")]
    labels = [f"{name} ({100 * share:.0f} % of the variance)" for name, share in zip(names, shares, strict=True)]
    # As `pca.transform`, which refuses a group without rows.
    return lambda rows: (latents[rows] - pca.mean_) @ pca.components_.T, labels


def _save(save, path):
    buffer = io.BytesIO()
    save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())
