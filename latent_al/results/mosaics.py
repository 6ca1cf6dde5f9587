"""Figures of images, one function each: arrays in, a PNG at `path` out.

Images are in [0, 1], colour where c = 3; for any other number of channels the mean is drawn.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import scipy
from matplotlib.figure import Figure

from latent_al.results.plots import save
from latent_al.results.tables import NO_ANSWER


def manifold_latents(side: int) -> np.ndarray:
    """Returns the latents [side*side 2], float32, whose decoded images `manifold` draws, 5th to 95th percentile.

    Percentiles of N(0, 1) are linearly spaced. Reshaped to [side side 2], the second latent grows along axis 0 and the
    first along axis 1.
    """
    values = scipy.stats.norm.ppf(np.linspace(0.05, 0.95, side))
    first, second = np.meshgrid(values, values)
    return np.stack([first, second], axis=-1).reshape(side * side, 2).astype(np.float32)


def manifold(images: np.ndarray, path: Path) -> None:
    """Draws a mosaic of `images` [k k h w c], k > 1, decoded from `manifold_latents(k)`.

    Axis 0 of `images` goes upwards along the second latent, axis 1 to the right along the first.
    """
    side, _, height, width, _ = images.shape
    figure = Figure(figsize=(7, 7 * height / width), layout="constrained")
    axes = figure.subplots()
    margin = 45 / (side - 1)
    _mosaic(axes, images[::-1], extent=(5 - margin, 95 + margin, 5 - margin, 95 + margin))
    ticks = range(5, 100, 15)
    axes.set(xticks=ticks, yticks=ticks, xlabel="first latent (percentile of N(0, 1))")
    axes.set_ylabel("second latent (percentile of N(0, 1))")
    save(figure, path)


def reconstructions(images: np.ndarray, reconstructed: np.ndarray, path: Path) -> None:
    """Draws images [k h w c] above what the auto-encoder makes of them, [k h w c]."""
    axes = _image_rows(np.stack([images, reconstructed]), ["image", "reconstruction"])
    axes.set_xticks([])
    save(axes.figure, path)


def interpolations(images: np.ndarray, path: Path) -> None:
    """Draws images [pairs steps h w c], decoded at equal steps on the line between the latents of two images."""
    axes = _image_rows(images, [f"pair {index + 1}" for index in range(len(images))])
    shares = [f"{share:.2g}" for share in np.linspace(0, 1, images.shape[1])]
    shares[0] = "0\nfirst image"
    shares[-1] = "1\nsecond image"
    axes.set_xticks(range(len(shares)), shares)
    axes.set_xlabel("share of the way in latent space")
    save(axes.figure, path)


def queried_images(images: np.ndarray, captions: list[str], path: Path) -> None:
    """Draws the first queries of each arm in order: `images` [arms k h w c], one caption per arm."""
    axes = _image_rows(images, captions)
    axes.set_xticks(range(images.shape[1]), range(1, images.shape[1] + 1))
    axes.set_xlabel("query, in order")
    save(axes.figure, path)


def explanations(table: pd.DataFrame, train: np.ndarray, images: np.ndarray, path: Path) -> None:
    """Draws a row for each explained image: the image, the examples most for its class, and those most against it.

    Args:
        table: of one arm and seed, as `diagnostics.explanations` tabulates.
        train: the training images [n h w c].
        images: the images that are explained [m h w c].
    """
    explained = list(table.groupby("image"))
    num = table["rank"].max() + 1
    figure = Figure(figsize=(1.1 * (2 * num + 1), 1.4 * len(explained)), layout="constrained")
    grid = figure.subplots(len(explained), 2 * num + 1, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for panels, (row, examples) in zip(grid, explained, strict=True):
        _show_image(panels[0], images[row], f"predicted {examples.predicted.iloc[0]}")
        for axes, example in zip(panels[1:], examples.itertuples(), strict=True):
            _show_image(axes, train[example.row], f"{example.value:+.2f}")
    save(figure, path)


def judged_queries(table: pd.DataFrame, images: np.ndarray, path: Path) -> None:
    """Draws decoded queries, one line per batch: above each the judge's class and confidence, below it the answer.

    Args:
        table: one row per image, as `judged.pick` returns it.
        images: [k h w c].
    """
    batches = list(table.reset_index(drop=True).groupby("round"))
    columns = max(len(rows) for _, rows in batches)
    figure = Figure(figsize=(0.8 * columns + 0.6, 1.2 * len(batches)), layout="constrained")
    grid = figure.subplots(len(batches), columns, squeeze=False)
    for panels, (index, rows) in zip(grid, batches, strict=True):
        for axes in panels[len(rows) :]:
            axes.set_axis_off()
        for axes, (place, row) in zip(panels, rows.iterrows(), strict=False):
            _show_image(axes, images[place], f"{row.judged}, {100 * row.confidence:.0f} %")
            answer = "no answer" if row.row == NO_ANSWER else f"{row.label}"
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(answer, fontsize="x-small")
        panels[0].set_ylabel(f"batch {index}")
    save(figure, path)


def _show_image(axes, image, title):
    axes.imshow(image if image.shape[2] == 3 else image.mean(axis=2), cmap="gray_r", vmin=0, vmax=1)
    axes.set_title(title, fontsize="x-small")


def _image_rows(images, names):
    """Returns axes with `images` [rows columns h w c] in cells with centres 0, 1, ..., and a name next to each row."""
    rows, columns, height, width, _ = images.shape
    size = (0.5 * columns + 0.09 * max(map(len, names)) + 0.3, 0.5 * rows * height / width + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    _mosaic(axes, images, extent=(-0.5, columns - 0.5, rows - 0.5, -0.5))
    axes.set_yticks(range(rows), names)
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    return axes


def _mosaic(axes, images, *, extent):
    """Shows `images` [rows columns h w c] without gaps, the first row on top."""
    rows, columns, height, width, channels = images.shape
    tiled = images.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
    flat = tiled if channels == 3 else tiled.mean(axis=-1)
    axes.imshow(flat, cmap="gray", vmin=0, vmax=1, extent=extent, aspect=height / width)
