"""Diagnostics: named entries of a config that run on the state after the last fit, or on the queries.

Each entry of `DIAGNOSTICS` is a factory that returns a `Diagnostic`. The rounds contain nothing of them.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.tree_util import Partial

from latent_al import loop
from latent_al.kernels import representer
from latent_al.models.classifiers import reads_images
from latent_al.results import judged, mosaics, plots
from latent_al.results.figures import Album, Space, distinct_arms
from latent_al.results.metrics import METRICS
from latent_al.results.tables import NO_ANSWER
from latent_al.strategies.importance import TARGETS, normalised_importance
from latent_al.strategies.uncertainty import measured
from latent_al.types import UNLABELLED, BadInput, Data, Spec, check_name


class Drawing(NamedTuple):
    """The inputs of the figures of a diagnostic.

    Attributes:
        name: of the entry, to name the PNGs: the same diagnostic may run twice.
        table: of the diagnostic, all arms and seeds; empty without `compute`.
        spaces: arm -> where it selected.
        queries: the table of the run.
        data: the images and their labels.
        folder: for the PNGs.
    """

    name: str
    table: pd.DataFrame
    spaces: dict[str, Space]
    queries: pd.DataFrame
    data: Data
    folder: Path


class Diagnostic(NamedTuple):
    """An analysis that runs after the rounds.

    Attributes:
        heading: on the page.
        text: the explanation below it.
        arms: whose state `compute` reads, as in the config; none without `compute`.
        check: (classifier spec, data, num_labels) -> None: raises BadInput for an arm that it does not apply to.
        compute: (key of the last fit, state, problem, validation examples, *, learner, classifier) -> arrays, by name,
            of one seed; pure, for `jit` and `vmap`. None where the queries are enough.
        make_judge: (data, decode) -> what `compute` also takes as `judge`, made once per encoder, as a
            `jax.tree_util.Partial`; None for one that needs no decoder.
        tabulate: (arrays with a leading axis of seeds, seeds) -> one row per measurement.
        draw: -> (caption, PNG) of each figure.
        summarise: the table -> the table of the page; None without one.
    """

    heading: str
    text: str
    arms: tuple[str, ...] = ()
    check: Callable[[Spec, Data, int], None] = lambda classifier, data, num_labels: None
    compute: Callable[..., dict[str, jax.Array]] | None = None
    make_judge: Callable[[Data, Callable], Partial] | None = None
    tabulate: Callable[[Mapping[str, np.ndarray], Sequence[int]], pd.DataFrame] | None = None
    draw: Callable[[Drawing], list[tuple[str, Path]]] = lambda drawing: []
    summarise: Callable[[pd.DataFrame], pd.DataFrame] | None = None


def importance(*, arms: Sequence[str], num_rows: int = 1000, targets: str = "all", centred: bool = False) -> Diagnostic:
    """Compares the importance of unlabelled rows with their entropy and their confidence.

    Source: Pezeshkpour, Zhao and Singh (2020), Figure 4.

    Args:
        arms: names of arms.
        num_rows: training images, drawn at random; those that are queried are left out.
        targets: as in the strategy `ibal`.
        centred: as in the strategy `ibal`.

    Raises:
        BadInput: num_rows below 1, or unknown targets.
    """
    check_name(targets, TARGETS, "targets of importance")
    if num_rows < 1:
        raise BadInput(f"importance has num_rows {num_rows}; expected 1 or more.")

    def check(classifier, data, num_labels):
        if data.num_classes is None:
            raise BadInput("importance compares class probabilities, but the labels are angles; leave it out.")

    def compute(key, state, problem, validation, *, learner, classifier):
        size = problem.labels.shape[0]
        sample = jnp.asarray(np.random.default_rng(0).permutation(size)[:num_rows], jnp.int32)
        pool = loop.pool_of_rows(state, problem, learner, sample)
        is_queried = loop.mark_rows(size, state.queried)[pool.rows]
        pool = pool._replace(taken=is_queried)
        measures = {
            "importance": normalised_importance(pool, targets, centred),
            "entropy": measured("entropy", pool),
            "confidence": pool.probs.max(axis=1),
        }
        first = state.queried.shape[0]
        return {name: jnp.where(is_queried, jnp.nan, values)[first:] for name, values in measures.items()}

    def tabulate(values, seeds):
        is_left = ~np.isnan(values["importance"])
        seed, _ = np.nonzero(is_left)
        columns = {name: measure[is_left] for name, measure in values.items()}
        return pd.DataFrame({"seed": np.array(seeds, int)[seed]} | columns)

    def draw(drawing):
        album, table = Album(drawing.folder), drawing.table
        # The arms may have queried all of the rows.
        if len(table):
            seed = table.seed.min()
            caption = f"Normalised importance of the rows left at the end of seed {seed}, with entropy and confidence"
            album.add(drawing.name, caption, plots.importance, table[table.seed == seed])
        return album.pictures

    text = "Spearman's, over the rows left at the end, as means over seeds."
    heading = "Rank correlation with importance"
    return Diagnostic(heading, text, tuple(arms), check, compute, None, tabulate, draw, correlations)


def explanations(*, arms: Sequence[str], num_images: int = 4, num_examples: int = 4) -> Diagnostic:
    """Finds the labelled examples that speak most for, and against, the class predicted for some validation images.

    Source: Yeh, Kim, Yen and Ravikumar, Representer Point Selection for Explaining Deep Neural Networks (2018).

    Args:
        arms: names of arms whose classifier is `refitted`.
        num_images: validation images, the first ones.
        num_examples: labelled examples of each kind.

    Raises:
        BadInput: num_images or num_examples below 1.
    """
    if min(num_images, num_examples) < 1:
        raise BadInput(f"explanations has num_images {num_images} and num_examples {num_examples}; expected 1 or more.")

    def check(classifier, data, num_labels):
        if classifier["name"] != "refitted":
            raise BadInput(
                f"explanations needs a classifier whose last layer is refitted, not {classifier['name']}; choose other "
                "arms, or wrap the classifier in refitted."
            )
        if len(data.validation.images) < num_images or num_labels < num_examples:
            raise BadInput(
                f"explanations asks for {num_images} validation images and {num_examples} examples, but there are "
                f"{len(data.validation.images)} and {num_labels}; lower num_images or num_examples."
            )

    def compute(key, state, problem, validation, *, learner, classifier):
        size, queried = problem.labels.shape[0], state.queried
        rows = jnp.where(queried < size, queried, queried[0])
        labels = jnp.where(queried < size, problem.labels[rows], UNLABELLED)
        labelled_features, labelled_probs = learner.predict(state.params, problem.inputs[rows])
        alphas = representer.representer_alphas(labelled_probs, labels, l2=classifier["l2"])
        features, probs = learner.predict(state.params, validation.inputs[:num_images])

        def explain(target, predicted):
            values = representer.representer_values(alphas, labelled_features, target)[:, predicted]
            return representer.explain(values, labels, num_examples)

        predicted = probs.argmax(axis=1).astype(jnp.int32)
        explanation = jax.vmap(explain)(features, predicted)
        rows_of = {kind: queried[getattr(explanation, kind)] for kind in ("supporting", "opposing")}
        return explanation._asdict() | rows_of | {"predicted": predicted}

    def draw(drawing):
        album, table = Album(drawing.folder), drawing.table
        if min(drawing.data.train.images.shape[1:3]) > 2:
            arm, seed = table.arm.iloc[0], table.seed.iloc[0]
            rows = table[(table.arm == arm) & (table.seed == seed)]
            caption = f"Labelled examples for and against predictions of {arm}, seed {seed}"
            images = drawing.data.train.images, drawing.data.validation.images
            album.add(drawing.name, caption, mosaics.explanations, rows, *images)
        return album.pictures

    text = "The labelled examples that speak most for, and against, the class predicted for validation images."
    return Diagnostic("Explanations", text, tuple(arms), check, compute, None, _tabulate_explanations, draw)


def training_curves(*, arms: Sequence[str], num_images: int = 500) -> Diagnostic:
    """Trains once more on the final labelled set, and scores the network on a held-out monitoring set meanwhile.

    Args:
        arms: names of arms whose classifier is `cnn` or `angle_cnn`.
        num_images: validation images of the monitoring set, the first ones.

    Raises:
        BadInput: num_images below 1.
    """
    if num_images < 1:
        raise BadInput(f"training_curves has num_images {num_images}; expected 1 or more.")

    def check(classifier, data, num_labels):
        if classifier["name"] not in ("cnn", "angle_cnn"):
            raise BadInput(
                f"training_curves needs the classifier cnn or angle_cnn, not {classifier['name']}; choose other arms."
            )
        if not data.validation.is_labelled:
            raise BadInput("training_curves needs validation images with labels; raise num_validation.")

    def compute(key, state, problem, validation, *, learner, classifier):
        inputs, labels = validation.inputs[:num_images], validation.labels[:num_images]

        def monitor(params):
            _, predictions = learner.predict(params, inputs)
            return learner.score(predictions, labels).mean()

        def fit(*args):
            return learner.fit(*args, monitor=monitor)

        _, info = loop.fit(key, state, problem, learner=learner._replace(fit=fit))
        num_parts = info["monitored"].shape[0]
        steps = classifier["num_steps"] // num_parts * jnp.arange(1, num_parts + 1)
        return {"step": steps, "value": info["monitored"]}

    def tabulate(values, seeds):
        num_steps = values["step"].shape[1]
        columns = {name: array.ravel() for name, array in values.items()}
        return pd.DataFrame({"seed": np.repeat(np.array(seeds, int), num_steps)} | columns)

    def draw(drawing):
        album = Album(drawing.folder)
        metric = "angular_error" if drawing.data.num_classes is None else "accuracy"
        caption = f"Validation {METRICS[metric].name} while the network trains"
        album.add(drawing.name, caption, plots.training_curves, drawing.table, metric)
        return album.pictures

    text = "The network is trained once more on the final labelled set."
    return Diagnostic("Training curves", text, tuple(arms), check, compute, None, tabulate, draw)


def query_order() -> Diagnostic:
    """Draws what comes first and last where arms continue until they have queried the whole pool."""

    def draw(drawing):
        from sklearn.decomposition import PCA

        album, queries = Album(drawing.folder), drawing.queries
        seed, names = queries.seed.min(), distinct_arms(queries)
        points, orders = {}, {}
        for arm, rows in queries[queries.seed == seed].groupby("arm", sort=False):
            latents = np.asarray(drawing.spaces[arm].latents)
            goes_on = len(rows) == len(latents) and drawing.spaces[arm].points is None
            if arm in names and goes_on and latents.shape[1] > 1:
                points[names[arm]] = PCA(2, random_state=0).fit_transform(latents)
                orders[names[arm]] = rows.row.to_numpy()
        if points:
            caption = f"The first and the last quarter of the order of seed {seed}, on two principal components"
            album.add(drawing.name, caption, plots.orders, points, orders)
        return album.pictures

    text = "What comes first and last where an arm queries the whole pool."
    return Diagnostic("Orders", text, draw=draw)


def decoded_queries(*, arms: Sequence[str], num_initial: int, threshold: float = 0.9, epochs: int = 5) -> Diagnostic:
    """Judges what the decoder makes of each query by a classifier of images that is trained on all labels.

    The judge is the perceptron of Tonnaer (2017) on pixels. A decoded query is a valid image of a class where the
    judge gives one class at least the threshold.

    Args:
        arms: names of arms whose encoder has a decoder and whose classifier reads latents.
        num_initial: number of queries left out at the beginning, those of the initial labelled set.
        threshold: threshold of the judge's largest probability, in (0, 1).
        epochs: epochs of the judge's training.

    Raises:
        BadInput: a setting outside its range.
    """
    if num_initial < 0 or epochs < 1 or not 0 < threshold < 1:
        raise BadInput(
            f"decoded_queries has num_initial {num_initial}, epochs {epochs} and threshold {threshold}; expected 0 or "
            "more, 1 or more, and a probability in (0, 1)."
        )

    def check(classifier, data, num_labels):
        if data.num_classes is None or reads_images(classifier):
            raise BadInput("decoded_queries judges classes of latents; choose arms whose classifier reads latents.")
        if num_initial >= num_labels:
            raise BadInput(f"num_initial is {num_initial}; expected fewer than the {num_labels} queries of a run.")

    def compute(key, state, problem, validation, *, learner, classifier, judge):
        size = problem.labels.shape[0]
        rows = jnp.minimum(state.queried, size - 1)
        probs = judge(problem.inputs[rows] if state.points is None else state.points)
        is_answered = state.queried < size
        values = {
            "slot": jnp.arange(len(rows)),
            "row": jnp.where(is_answered, rows, NO_ANSWER),
            "label": jnp.where(is_answered, problem.labels[rows], UNLABELLED),
            "judged": probs.argmax(axis=1),
            "confidence": probs.max(axis=1),
        }
        return {name: column[num_initial:] for name, column in values.items()}

    def tabulate(values, seeds):
        seed = np.repeat(np.array(seeds, int), values["slot"].shape[1])
        return pd.DataFrame({"seed": seed} | {name: column.ravel() for name, column in values.items()})

    def draw(drawing):
        album = Album(drawing.folder)
        for arm, of_arm in drawing.table.groupby("arm", sort=False):
            seed = of_arm.seed.min()
            if drawing.spaces[arm].points is not None:
                asked = drawing.queries[(drawing.queries.arm == arm) & (drawing.queries.seed == seed)]
                picked = judged.pick(asked.assign(slot=np.arange(len(asked))), of_arm[of_arm.seed == seed])
                images = np.asarray(drawing.spaces[arm].decode(drawing.spaces[arm].points[picked.slot]))
                caption = f"What {arm} asks about, seed {seed}: the judge's class and confidence, the oracle's answer"
                album.add(f"{drawing.name}_{arm}", caption, mosaics.judged_queries, picked, images)
        return album.pictures

    text = (
        f"Means ± sample standard deviations over seeds, in percent of the queries. Valid: a judge, trained on all "
        f"labels, gives the decoded image one class with a probability of {threshold:g} or more. Answered: a training "
        "image is near enough. Of these, agreed: the judge's class is that of the answer."
    )
    return Diagnostic(
        "Decoded queries",
        text,
        tuple(arms),
        check,
        compute,
        partial(judged.train_judge, epochs=epochs),
        tabulate,
        draw,
        partial(judged.shares, threshold=threshold),
    )


DIAGNOSTICS = {
    "decoded_queries": decoded_queries,
    "explanations": explanations,
    "importance": importance,
    "query_order": query_order,
    "training_curves": training_curves,
}
"""Diagnostics by name, each a factory that returns a `Diagnostic`."""


def correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Returns Spearman's rank correlation of each measure with importance, one row per arm.

    A cell is the mean over seeds, with the sample standard deviation (ddof 1) where there are several. Seeds in which
    one of the two is equal in all rows have no correlation; if all seeds are like that, the cell is empty.
    """
    lines = []
    for arm, rows in table.groupby("arm", sort=False):
        measures = rows.drop(columns="arm").groupby("seed").corr(method="spearman").importance.unstack()
        line: dict[str, Any] = {"arm": arm}
        for name in rows.columns.difference(["arm", "seed", "importance"], sort=False):
            line[name] = _with_spread(measures[name].dropna())
        lines.append(line)
    return pd.DataFrame(lines)


def _with_spread(correlations):
    if correlations.empty:
        return ""
    spread = f" ± {correlations.std():.2f}" if len(correlations) > 1 else ""
    return f"{correlations.mean():+.2f}{spread}"


def _tabulate_explanations(values, seeds):
    """Returns one row per example: seed, image (its row in the validation split), predicted, kind, rank, row, value."""
    frames = []
    for kind in ("supporting", "opposing"):
        rows = values[kind]
        seed, image, rank = (index.ravel() for index in np.indices(rows.shape))
        frame = pd.DataFrame({"seed": np.array(seeds)[seed], "image": image})
        frame["predicted"] = values["predicted"][seed, image]
        frames.append(frame.assign(kind=kind, rank=rank, row=rows.ravel(), value=values[f"{kind}_values"].ravel()))
    return pd.concat(frames).sort_values(["seed", "image"], kind="stable")
