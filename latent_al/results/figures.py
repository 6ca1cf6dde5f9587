"""The figures of a run: which are drawn of its data, encoders and arms, and their captions."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pandas as pd
from absl import logging

from latent_al import kernels
from latent_al.encoders import Encodings
from latent_al.results import mosaics, plots
from latent_al.results.balance import balance_table
from latent_al.results.metrics import METRICS, main_metric
from latent_al.types import BALANCED, Data, Encoded

SAMPLE = 10_000
"""Training images whose representativeness is drawn."""

DENSITIES = {
    "Density (cosine)": kernels.cosine_density,
    "Density (Euclidean)": kernels.euclidean_density,
    "Density (squared Euclidean)": kernels.squared_euclidean_density,
}
CLOSENESSES = {
    "Closeness to origin": kernels.closeness_to_origin,
    "Squared closeness to origin": kernels.squared_closeness_to_origin,
}
DIVERGENCES = {"Density (Jeffreys divergence)": kernels.jeffreys_density, "KL to prior": kernels.kl_to_prior}


class Space(NamedTuple):
    """Where an arm selected.

    latents: [n d] of the training images.
    clusters: [n], the cluster assignments that its initial labelled set was drawn from; None where it was not.
    decode: latents to images; None where the encoder has no decoder.
    points: [capacity d], what the first seed asked about; None for an arm that queries rows.
    """

    latents: np.ndarray
    clusters: np.ndarray | None
    decode: Callable | None = None
    points: np.ndarray | None = None


class Album:
    """Draws figures into a folder and keeps (caption, PNG) of each as `pictures`."""

    def __init__(self, folder: Path, prefix: str = ""):
        self.folder, self.prefix, self.pictures = folder, prefix, []

    def add(self, name, caption, draw, *arrays):
        """Draws one figure; an error is logged, and the figure left out."""
        path = self.folder / f"{self.prefix}{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # A dollar in a name is just a dollar.
            with matplotlib.rc_context({"text.parse_math": False}):
                draw(*arrays, path)
        except Exception as error:  # The run is done: a figure must not cost the page.
            logging.warning("%s is not drawn: %s: %s", path, type(error).__name__, error)
        else:
            self.pictures.append((caption, path))


def draw_encoder(name: str, encodings: Encodings, data: Data, folder: Path) -> list[tuple[str, Path]]:
    """Draws the figures of one encoder and returns (caption, PNG in `folder`) of each.

    The figures show how representative the training images are; for a trained encoder, also what it decodes and how far
    its dimensions reach; for one with two dimensions, how classes and representativeness lie in the plane.
    """
    album = Album(folder, f"{name}_")
    split = next(split for split in ("test", "validation", "train") if len(getattr(data, split).images))
    if encodings.decode is not None:
        _draw_decoder(album, encodings, split, getattr(data, split).images)
    sample = np.random.default_rng(0).permutation(len(data.train.images))[:SAMPLE]
    measures = measure(jax.tree.map(lambda values: jnp.asarray(values[sample]), encodings.train), encodings)
    if measures:
        caption = f"Representativeness among {len(sample):,} training images"
        album.add("representativeness", caption, plots.representativeness_histograms, measures)
    latents = np.asarray(encodings.train.latents[sample])
    if latents.shape[1] == 2:
        _draw_plane(album, encodings, split, data)
        if measures:
            caption = "Representativeness over the latent space"
            album.add("representativeness_map", caption, plots.representativeness_maps, latents, measures)
    return album.pictures


def draw_arms(tables: dict[str, pd.DataFrame], data: Data, folder: Path) -> list[tuple[str, Path]]:
    """Draws the figures of the comparison and returns (caption, PNG in `folder`) of each.

    `tables` are those of the run by name; without labels there are only `queries`.
    """
    album = Album(folder)
    if "metrics" in tables:
        _draw_scores(album, tables)
    if len(tables["queries"]):
        _draw_queries(album, _distinct(tables["queries"]), data)
    return album.pictures


def _draw_scores(album, tables):
    metrics = tables["metrics"]
    metric = main_metric(metrics)
    if metrics["round"].max() > 0:
        _draw_curves(album, metrics, metric)
    if "gaps" in tables:
        caption = "Difference from the baseline over the labels queried"
        album.add("gaps", caption, plots.gap_curves, tables["gaps"], metric, list(metrics.arm.unique()))


def _draw_curves(album, metrics, metric):
    """Draws the curves of the main metric, and those of the balanced one where it was measured on validation."""
    main = metrics[metrics.metric == metric]
    balanced = metrics[metrics.metric == BALANCED]
    name = METRICS[metric].name
    album.add("learning_curves", f"{name.capitalize()} over the labels queried", plots.learning_curves, main)
    if (balanced.split == "validation").any():
        caption = "Balanced accuracy, the mean recall over classes, over the labels queried"
        album.add("balanced_learning_curves", caption, plots.learning_curves, balanced)
    if (main.split == "validation").any():
        album.add("single_runs", f"Validation {name} of every seed", plots.single_runs, main)


def draw_initial_sets(
    spaces: dict[str, Space], queries: pd.DataFrame, data: Data, folder: Path
) -> list[tuple[str, Path]]:
    """Draws the initial labelled sets side by side, where they differ, and returns (caption, PNG) of each.

    Args:
        spaces: arm -> where it selected.
        queries: the table of the run.
        data: the images and their labels.
        folder: for the PNGs.
    """
    album = Album(folder)
    first = queries[queries["round"] == 0]
    names = distinct_arms(first)
    if len(names) < 2:
        return album.pictures
    planes = {arm: space for arm, space in spaces.items() if arm in names and space.latents.shape[1] == 2}
    labels = _classes(data)
    if planes:
        num_drawn = SAMPLE // min(len(planes), 5)
        sample = np.random.default_rng(0).permutation(len(data.ids))[:num_drawn]
        _draw_spaces(album, planes, names, first[first.seed == first.seed.min()], sample, labels)
        _draw_clusters(album, planes, names, sample)
    if labels is not None:
        counts = _count_first(first[first.arm.isin(names)], labels, data.num_classes)
        counts = counts.assign(arm=counts.arm.map(names))
        caption = "Classes of the initial labelled set"
        album.add("initial_classes", caption, plots.class_distributions, counts)
    return album.pictures


def _draw_spaces(album, planes, names, first, sample, labels):
    """Draws what each arm has selected in its plane, among the images of `sample`."""
    latents = {names[arm]: space.latents[sample] for arm, space in planes.items()}
    queried = {names[arm]: space.latents[first.row[first.arm == arm].to_numpy()] for arm, space in planes.items()}
    classes = dict.fromkeys(latents, labels if labels is None else labels[sample])
    caption = f"The initial labelled set of seed {first.seed.min()} in latent space, by class"
    album.add("initial_sets", caption, plots.queried_latents, latents, classes, queried)


def _draw_clusters(album, planes, names, sample):
    """Draws the cluster assignments that arms drew from, equal ones only once."""
    drawn = set()
    for arm, space in planes.items():
        if space.clusters is not None and space.clusters.tobytes() not in drawn:
            drawn.add(space.clusters.tobytes())
            latents = space.latents[sample]
            caption = f"The cluster assignments that {names[arm]} drew from"
            album.add(f"clusters_{arm}", caption, plots.latent_classes, latents, space.clusters[sample], "cluster")


def _draw_queries(album, queries, data):
    last = queries["round"].max()
    for index in sorted({min(1, last), last}):
        images = _first_queries(queries[queries["round"] == index], data)
        caption = f"First queries of batch {index}, seed {queries.seed.min()}"
        stacked = np.stack(list(images.values()))
        album.add(f"queries_round_{index}", caption, mosaics.queried_images, stacked, list(images))
    labels = _classes(data)
    if labels is not None:
        counts = _count_classes(queries[queries["round"] >= min(1, last)], labels)
        album.add("queried_classes", "Classes queried in each batch", plots.queried_classes, counts)


def measure(train: Encoded, encodings: Encodings) -> dict[str, np.ndarray]:
    """Returns the representativeness of the images by every measure that the encoder allows, each [n] in [0, 1].

    A measure that is not defined for these latents is left out, and logged.
    """
    if encodings.unit_cube:
        table = {name: partial(kernel, train.latents, unit_cube=True) for name, kernel in DENSITIES.items()}
    else:
        table = {name: partial(kernel, train.latents) for name, kernel in (DENSITIES | CLOSENESSES).items()}
    if train.log_sigma is not None:
        table |= {name: partial(kernel, train.latents, train.log_sigma) for name, kernel in DIVERGENCES.items()}
    measured = {}
    for name, compute in table.items():
        try:
            measured[name] = np.asarray(compute())
        except ValueError as error:
            logging.warning("%s is not drawn: %s", name, error)
    return measured


def _draw_plane(album, encodings, split, data):
    """Draws the classes or the angles of the images of `split` in the plane, where they have some."""
    labels = getattr(data, split).labels
    latents = np.asarray(getattr(encodings, split).latents)
    if labels is not None and data.num_classes is not None:
        album.add("classes", f"Classes of the {split} images", plots.latent_classes, latents, labels, "class")
    elif labels is not None:
        album.add("angles", f"Angles of the {split} images", plots.latent_angles, latents, labels)


def _draw_decoder(album, encodings, split, images):
    rng = np.random.default_rng(0)
    latents = getattr(encodings, split).latents
    rows = rng.permutation(len(images))[:10]
    reconstructed = np.asarray(encodings.decode(latents[rows]))
    caption = f"Random {split} images and their reconstructions"
    album.add("reconstructions", caption, mosaics.reconstructions, images[rows], reconstructed)
    ends = latents[rng.integers(len(images), size=(5, 2))]
    share = jnp.linspace(0, 1, 10)[None, :, None]
    between = (1 - share) * ends[:, :1] + share * ends[:, 1:]
    decoded = np.asarray(encodings.decode(between.reshape(50, -1))).reshape(5, 10, *images.shape[1:])
    album.add("interpolations", "From one image to another in latent space", mosaics.interpolations, decoded)
    train = np.asarray(encodings.train.latents)
    album.add("ranges", "Minimum and maximum of each latent dimension", plots.latent_ranges, train)
    if train.shape[1] == 2:
        side = 15
        decoded = np.asarray(encodings.decode(jnp.asarray(mosaics.manifold_latents(side))))
        decoded = decoded.reshape(side, side, *images.shape[1:])
        album.add("manifold", "Images decoded from percentiles of N(0, I)", mosaics.manifold, decoded)


def _classes(data):
    """Returns the classes of the training images, where they have some."""
    return None if data.num_classes is None else data.train.labels


def distinct_arms(queries: pd.DataFrame) -> dict[str, str]:
    """Returns the first arm of each group that queried the same rows -> the name of the group.

    Several classifiers share an initial labelled set, for example.
    """
    same = {}
    for arm, rows in queries.groupby("arm", sort=False).row:
        same.setdefault(rows.to_numpy().tobytes(), []).append(arm)
    return {arms[0]: f"{arms[0]} and {len(arms) - 1} more" if len(arms) > 1 else arms[0] for arms in same.values()}


def _distinct(queries):
    """Returns the queries of one arm of each group that queried the same rows."""
    names = distinct_arms(queries)
    kept = queries[queries.arm.isin(names)]
    return kept.assign(arm=kept.arm.map(names))


def _first_queries(queries, data):
    """Returns arm -> images [k h w c] of the first rows that it queries with the first seed."""
    first = queries[queries.seed == queries.seed.min()].sort_values("rank", kind="stable")
    rows = {arm: of_arm.to_numpy()[:10] for arm, of_arm in first.groupby("arm", sort=False).row}
    return {arm: data.train.images[queried] for arm, queried in rows.items()}


def _count_first(queries, labels, num_classes):
    """Returns the queries of each class, mean and deviation over seeds, and what the pool's own shares would give."""
    by = ["arm", "seed"]
    columns = [f"class_{label}" for label in range(num_classes)]
    counted = balance_table(queries, labels, num_classes).melt(by, columns, "label", "count")
    counted["label"] = counted.label.str.removeprefix("class_").astype(int)
    counts = counted.groupby(["arm", "label"], sort=False)["count"].agg(["mean", "std"]).reset_index()
    num = len(queries) / len(queries[by].drop_duplicates())
    shares = np.bincount(labels, minlength=num_classes) / len(labels)
    return counts.rename(columns={"mean": "count"}).assign(pool=num * shares[counts.label])


def _count_classes(queries, labels):
    """Returns the queries of each class in each round, the mean over seeds."""
    by = ["arm", "round", "label"]
    counted = queries.assign(label=labels[queries.row]).groupby(by, sort=False).size() / queries.seed.nunique()
    return counted.rename("count").reset_index()
