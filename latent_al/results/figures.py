"""What a run shows: which pictures are drawn of which data, encoders and arms, and their captions."""

from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
from absl import logging
from sklearn.decomposition import PCA

from latent_al import kernels
from latent_al.encoders.base import Encodings
from latent_al.results import mosaics, plots
from latent_al.results.tables import METRICS, balance_table, main_metric
from latent_al.types import BALANCED, Data, Encoded

SAMPLE = 10_000
"""Training images whose representativeness is drawn."""

DENSITIES = {
    "Density (cosine)": kernels.cosine_density,
    "Density (Euclidean)": kernels.euclidean_density,
    "Density (squared Euclidean)": kernels.squared_euclidean_density,
}
DISTANCES = {
    "Distance to origin": kernels.closeness_to_origin,
    "Squared distance to origin": kernels.squared_closeness_to_origin,
}
DIVERGENCES = {"Density (Jeffreys divergence)": kernels.jeffreys_density, "KL to prior": kernels.kl_to_prior}


class Album:
    """Draws pictures into a folder and keeps (caption, PNG) of each."""

    def __init__(self, folder: Path, prefix: str = ""):
        self.folder, self.prefix, self.pictures = folder, prefix, []

    def add(self, name, caption, draw, *arrays):
        path = self.folder / f"{self.prefix}{name}.png"
        try:
            draw(*arrays, path)
        except Exception as error:  # The run is done: a picture must not cost the report.
            logging.warning("%s is not drawn: %s: %s", path, type(error).__name__, error)
        else:
            self.pictures.append((caption, path))


def draw_encoder(name: str, encodings: Encodings, data: Data, folder: Path) -> list[tuple[str, Path]]:
    """The pictures of one encoder, (caption, PNG in `folder`) of each.

    All show how representative the training images are; a trained one also what it decodes and how far its dimensions
    reach, and one with two dimensions how classes and representativeness lie in the plane.
    """
    album = Album(folder, f"{name}_")
    shown = next(split for split in ("test", "validation", "train") if len(getattr(data, split).images))
    if encodings.decode is not None:
        _draw_decoder(album, encodings, shown, getattr(data, shown).images)
    sample = np.random.default_rng(0).permutation(len(data.train.images))[:SAMPLE]
    latents = np.asarray(encodings.train.latents[sample])
    drawn = Encoded(*(each if each is None else jnp.asarray(each[sample]) for each in encodings.train))
    measures = measure(drawn, encodings)
    if measures:
        caption = f"Representativeness among {len(sample):,} training images"
        album.add("representativeness", caption, plots.representativeness_histograms, measures)
    if latents.shape[1] == 2:
        labels = getattr(data, shown).labels
        where = np.asarray(getattr(encodings, shown).latents)
        if data.num_classes is not None and labels is not None:
            album.add("classes", f"Classes of the {shown} images", plots.latent_classes, where, labels, "class")
        elif labels is not None:
            album.add("angles", f"Angles of the {shown} images", plots.latent_angles, where, labels)
        if measures:
            caption = "Representativeness over the latent space"
            album.add("representativeness_map", caption, plots.representativeness_maps, latents, measures)
    return album.pictures


def draw_arms(tables: dict[str, pd.DataFrame], data: Data, folder: Path) -> list[tuple[str, Path]]:
    """The pictures of the comparison, (caption, PNG in `folder`) of each.

    `tables` are those of the run by name; without labels there are only `queries`.
    """
    album = Album(folder)
    metrics, gaps, training, queries = (tables.get(name) for name in ("metrics", "gaps", "training", "queries"))
    metric = None if metrics is None else main_metric(metrics)
    if metrics is not None and metrics["round"].max() > 0:
        _draw_curves(album, metrics, metric)
    if gaps is not None:
        baseline = next(arm for arm in metrics.arm.unique() if arm not in set(gaps.arm))
        caption = f"Difference from {baseline} over the labels queried"
        album.add("gaps", caption, plots.gap_curves, gaps, metric, baseline)
    if training is not None:
        last = training[training["round"] == training["round"].max()]
        caption = f"Validation {METRICS[metric].name} while the network trains"
        album.add("training", caption, plots.training_curves, last, metric)
    if len(queries):
        _draw_queries(album, _distinct(queries), data)
    return album.pictures


def _draw_curves(album, metrics, metric):
    """The curves of the main metric, and those of the balanced one where it was measured on validation."""
    main, balanced = (metrics[metrics.metric == name] for name in (metric, BALANCED))
    name = METRICS[metric].name
    album.add("learning_curves", f"{name.capitalize()} over the labels queried", plots.learning_curves, main)
    if (balanced.split == "validation").any():
        caption = "Balanced accuracy, the mean recall over classes, over the labels queried"
        album.add("balanced_learning_curves", caption, plots.learning_curves, balanced)
    if (main.split == "validation").any():
        album.add("single_runs", f"Validation {name} of every seed", plots.single_runs, main)


def draw_orders(spaces: dict, queries: pd.DataFrame, folder: Path) -> list[tuple[str, Path]]:
    """What comes first and last where arms go on until they have queried the whole pool, (caption, PNG) of each.

    Takes the arguments of `draw_first_batches`.
    """
    album = Album(folder)
    seed = queries.seed.min()
    names = _alike(queries)
    orders = {arm: rows.row.to_numpy() for arm, rows in queries[queries.seed == seed].groupby("arm", sort=False)}
    orders = {arm: rows for arm, rows in orders.items() if arm in names and len(rows) == len(spaces[arm][0])}
    planes = {arm: spaces[arm][0] for arm in orders if spaces[arm][0].shape[1] > 1}
    if planes:
        points = {
            names[arm]: PCA(2, random_state=0).fit_transform(np.asarray(latents)) for arm, latents in planes.items()
        }
        caption = f"The first and the last quarter of the order of seed {seed}, on two principal components"
        album.add("orders", caption, plots.orders, points, {names[arm]: orders[arm] for arm in planes})
    return album.pictures


def draw_importance(tables: dict[str, pd.DataFrame], data: Data, folder: Path) -> list[tuple[str, Path]]:
    """Importance beside entropy and confidence, and the examples that explain predictions, (caption, PNG) of each."""
    album = Album(folder)
    if "measures" in tables:
        measures = tables["measures"]
        first = measures[measures.seed == measures.seed.min()]
        caption = "Normalised importance of the rows left at the end, beside entropy and confidence"
        album.add("importance", caption, plots.importance, first)
    if "explanations" in tables and min(data.train.images.shape[1:3]) > 2:
        table = tables["explanations"]
        own = table[(table.arm == table.arm.iloc[0]) & (table.seed == table.seed.iloc[0])]
        caption = f"Labelled examples for and against four predictions of {own.arm.iloc[0]}, seed {own.seed.iloc[0]}"
        album.add("explanations", caption, mosaics.explanations, own, data.train.images, data.validation.images)
    return album.pictures


def draw_first_batches(spaces: dict, queries: pd.DataFrame, data: Data, folder: Path) -> list[tuple[str, Path]]:
    """The first batches side by side, where they differ, (caption, PNG in `folder`) of each.

    Args:
        spaces: arm -> the latents [n d] that it chose in, and the clusters [n] that it drew from, or None.
        queries: the table of the run.
        data: the images and their labels.
        folder: for the PNGs.
    """
    album = Album(folder)
    first = queries[queries["round"] == 0]
    names = _alike(first)
    if len(names) < 2:
        return album.pictures
    flat = {arm: space for arm, space in spaces.items() if arm in names and space[0].shape[1] == 2}
    labels = _classes(data)
    if flat:
        _draw_spaces(album, flat, names, first[first.seed == first.seed.min()], labels)
    if labels is not None:
        counts = _count_first(first[first.arm.isin(names)], labels, data.num_classes)
        counts = counts.assign(arm=counts.arm.map(names))
        album.add("first_batch_classes", "Classes of the first batch", plots.class_distributions, counts)
    return album.pictures


def _draw_spaces(album, spaces, names, first, labels):
    """What each arm has chosen in its plane, and the clusters that it drew from, each clustering once."""
    num_shown = SAMPLE // min(len(spaces), 5)
    sample = np.random.default_rng(0).permutation(len(next(iter(spaces.values()))[0]))[:num_shown]
    latents = {names[arm]: space[0][sample] for arm, space in spaces.items()}
    queried = {names[arm]: space[0][first.row[first.arm == arm].to_numpy()] for arm, space in spaces.items()}
    classes = dict.fromkeys(latents, labels if labels is None else labels[sample])
    caption = f"The first batch of seed {first.seed.min()} in latent space, by class"
    album.add("first_batches", caption, plots.queried_latents, latents, classes, queried)
    drawn = set()
    for arm, (points, clusters) in spaces.items():
        if clusters is not None and clusters.tobytes() not in drawn:
            drawn.add(clusters.tobytes())
            caption = f"The clusters that {names[arm]} drew from"
            album.add(f"clusters_{arm}", caption, plots.latent_classes, points[sample], clusters[sample], "cluster")


def _draw_queries(album, queries, data):
    last = queries["round"].max()
    for index in sorted({min(1, last), last}):
        captions, images = _first_queries(queries[queries["round"] == index], data)
        name = f"queries_round_{index}"
        caption = f"First queries of batch {index}, seed 0"
        album.add(name, caption, mosaics.queried_images, images, captions)
    labels = _classes(data)
    if labels is not None:
        counts = _count_classes(queries[queries["round"] >= min(1, last)], labels)
        album.add("queried_classes", "Classes queried in each batch", plots.queried_classes, counts)


def measure(train: Encoded, encodings: Encodings) -> dict[str, np.ndarray]:
    """Each measure that the encoder allows, [n] in [0, 1]; one that the data does not allow is left out and logged."""
    if encodings.unit_cube:
        table = {name: partial(kernel, train.latents, unit_cube=True) for name, kernel in DENSITIES.items()}
    else:
        table = {name: partial(kernel, train.latents) for name, kernel in (DENSITIES | DISTANCES).items()}
    if train.log_sigma is not None:
        table |= {name: partial(kernel, train.latents, train.log_sigma) for name, kernel in DIVERGENCES.items()}
    measured = {}
    for name, compute in table.items():
        try:
            measured[name] = np.asarray(compute())
        except ValueError as error:
            logging.warning("%s is not drawn: %s", name, error)
    return measured


def _draw_decoder(album, encodings, shown, images):
    rng = np.random.default_rng(0)
    latents = getattr(encodings, shown).latents
    rows = rng.permutation(len(images))[:10]
    reconstructed = np.asarray(encodings.decode(latents[rows]))
    caption = f"Random {shown} images and their reconstructions"
    album.add("reconstructions", caption, mosaics.reconstructions, images[rows], reconstructed)
    ends = latents[rng.integers(len(images), size=(5, 2))]
    share = jnp.linspace(0, 1, 10)[None, :, None]
    between = (1 - share) * ends[:, :1] + share * ends[:, 1:]
    decoded = np.asarray(encodings.decode(between.reshape(50, -1)))
    decoded = decoded.reshape(5, 10, *images.shape[1:])
    album.add("interpolations", "From one image to another in latent space", mosaics.interpolations, decoded)
    train = np.asarray(encodings.train.latents)
    album.add("ranges", "Minimum and maximum of each latent dimension", plots.latent_ranges, train)
    if train.shape[1] == 2:
        side = 15
        decoded = np.asarray(encodings.decode(jnp.asarray(mosaics.manifold_latents(side))))
        decoded = decoded.reshape(side, side, *images.shape[1:])
        album.add("manifold", "Images decoded from percentiles of N(0, I)", mosaics.manifold, decoded)


def _classes(data):
    """The classes of the training images, where they have some."""
    return None if data.num_classes is None else data.train.labels


def _alike(queries):
    """The first arm of those that have queried the same, such as one first batch for several classifiers -> a name."""
    same = {}
    for arm, own in queries.groupby("arm", sort=False):
        same.setdefault(own.row.to_numpy().tobytes(), []).append(arm)
    return {first: f"{first} and {len(rest)} more" if rest else first for first, *rest in same.values()}


def _distinct(queries):
    """The queries of one arm of those that have queried the same."""
    names = _alike(queries)
    kept = queries[queries.arm.isin(names)]
    return kept.assign(arm=kept.arm.map(names))


def _first_queries(queries, data):
    """The names of the arms, and images [arms k h w c] of the first rows that each queries with seed 0."""
    own = queries[queries.seed == queries.seed.min()].sort_values("rank", kind="stable").groupby("arm", sort=False)
    rows = {arm: each.row.to_numpy()[:10] for arm, each in own}
    return list(rows), np.stack([data.train.images[each] for each in rows.values()])


def _count_first(queries, labels, num_classes):
    """Queries of each class, mean and deviation over seeds, beside what the pool's own shares would give."""
    by = ["arm", "seed"]
    counted = balance_table(queries, labels, num_classes).melt(
        by, [f"class_{label}" for label in range(num_classes)], "label", "count"
    )
    counted["label"] = counted.label.str.removeprefix("class_").astype(int)
    counts = counted.groupby(["arm", "label"], sort=False)["count"].agg(["mean", "std"]).reset_index()
    num = len(queries) / len(queries[by].drop_duplicates())
    shares = np.bincount(labels, minlength=num_classes) / len(labels)
    return counts.rename(columns={"mean": "count"}).assign(pool=num * shares[counts.label])


def _count_classes(queries, labels):
    """Queries of each class in each round, the mean over seeds."""
    by = ["arm", "round", "label"]
    counted = queries.assign(label=labels[queries.row]).groupby(by, sort=False).size() / queries.seed.nunique()
    return counted.rename("count").reset_index()
