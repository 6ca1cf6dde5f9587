"""Results on disk: tables, the summary, the pictures and the report of a run."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from latent_al.encoders.base import Encodings, describe
from latent_al.results import comparisons
from latent_al.results import figures as pictures
from latent_al.results import tables as results
from latent_al.results.report import write_report
from latent_al.results.tables import TUNED_BY, History
from latent_al.runtime.files import write_csv, write_json
from latent_al.types import Data


def write_results(
    folder: Path,
    config: Any,
    data: Data,
    encodings: dict[str, Encodings],
    spaces: dict[str, tuple[np.ndarray, np.ndarray | None]],
    ordered: list[tuple[str, list[int], History]],
    tuned: dict[str, list[str]],
    command: str,
) -> dict:
    """Writes all there is to see of a run into `folder`, and returns what `summary.json` holds.

    Args:
        folder: the run's own.
        config: of the run, an `experiment.config.Experiment`.
        data: the images and their labels.
        encodings: encoder -> what it has made of the images.
        spaces: arm -> the latents [n d] that it chose in, and the clusters [n] that its first batch was drawn from, or
            None.
        ordered: (arm, seeds, history), arm by arm and seed by seed.
        tuned: name -> the arms of which only the best on validation data is compared with the others.
        command: what the report says was run.
    """
    tables = _tables(config, data, ordered)
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
    chosen = results.choose(tables["metrics"], tuned) if tuned else {}
    worse = {arm for each in chosen.values() for arm in each["areas"] if arm != each["arm"]}
    tables = {name: table[~table.arm.isin(worse)] for name, table in tables.items()}
    if "metrics" in tables and _has_curves(config, tables["metrics"]):
        tables["gaps"] = results.gaps_table(tables["metrics"], config.baseline)
        write_csv(folder / "gaps.csv", tables["gaps"])
    summary = _summary(config, data, encodings, tables) | ({"tuned": chosen} if chosen else {})
    write_json(folder / "summary.json", summary)
    figures = folder / "figures"
    drawn = {"Arms": pictures.draw_arms(tables, data, figures)}
    drawn["First batches"] = pictures.draw_first_batches(spaces, tables["queries"], data, figures)
    drawn["Importance"] = pictures.draw_importance(tables, data, figures)
    drawn["Orders"] = pictures.draw_orders(spaces, tables["queries"], figures)
    for name, each in encodings.items():
        drawn[f"Encoder {name}"] = pictures.draw_encoder(name, each, data, figures)
    shown = _shown(summary, tables)
    write_report(
        folder / "report.html",
        title=f"latent_al: {folder.name}",
        command=command,
        config=(folder / "config.json").read_text(encoding="utf-8"),
        tables={heading: table for heading, table in shown.items() if len(table)},
        figures={heading: each for heading, each in drawn.items() if each},
    )
    return summary


def _tables(config, data, ordered):
    num_labels = config.num_initial + config.query_size * np.arange(config.num_rounds + 1)
    # Where the first batch is all there is, nothing is chosen: 18 classifiers on MNIST would list 12 million rows.
    chosen = ordered if config.num_initial < len(data.train.images) else []
    queries = [results.queries_table(*each[:2], num_labels, each[2], data.ids) for each in chosen]
    tables = {"queries": pd.concat(queries) if chosen else pd.DataFrame(columns=results.QUERY_COLUMNS)}
    if data.train.labels is None:
        return tables
    metrics = pd.concat([results.metrics_table(*each[:2], num_labels, each[2]) for each in ordered])
    tables |= {"metrics": metrics, "timings": pd.concat([results.timings_table(*each) for each in ordered])}
    watched = [results.training_table(*each[:2], num_labels, each[2]) for each in ordered if each[2].by_update]
    if any(map(len, watched)):
        tables["training"] = pd.concat(watched)
    if any(each[2].measured for each in ordered):
        tables["measures"] = pd.concat([results.measures_table(*each) for each in ordered if each[2].measured])
    if any(each[2].explained for each in ordered):
        tables["explanations"] = pd.concat([results.explanations_table(*each) for each in ordered if each[2].explained])
    if chosen and data.num_classes is not None:
        tables["balance"] = results.balance_table(tables["queries"], data.train.labels, data.num_classes)
    return tables


def _has_curves(config, metrics):
    return config.num_rounds and metrics.arm.nunique() > 1 and (metrics.split == "validation").any()


def _summary(config, data, encodings, tables):
    if data.train.labels is None:
        summary = {"num_seeds": config.num_seeds, "arms": {}, "differences": {}}
    else:
        metrics = tables["metrics"]
        summary = results.summarise(metrics, config.baseline) | comparisons.compare_pairs(metrics)
        reach = config.reach
        summary["labels_to_reach"] = comparisons.labels_to_reach(metrics, config.baseline, reach)
    if "balance" in tables:
        summary["balance"] = results.balance_means(tables["balance"])
    summary["encoders"] = {name: describe(each, data) for name, each in encodings.items() if each.losses is not None}
    return summary


def _shown(summary, tables):
    shown = {}
    if summary["arms"]:
        shown[f"Results ({results.note(summary)})"] = results.arms_table(summary)
        shown[f"Balanced results ({results.note(summary, balanced=True)})"] = results.arms_table(summary, balanced=True)
        shown |= _compared(summary)
    if "tuned" in summary:
        shown[f"Gamma, chosen by the mean {TUNED_BY} on validation"] = results.tuned_table(summary)
    if "measures" in tables:
        shown["Rank correlation with importance, over the rows left at the end (means over seeds)"] = (
            results.correlations(tables["measures"])
        )
    losses = (
        "losses of the last epoch, of which validation leaves out dropout and what compares the images of a batch; "
        "sharpness of reconstructions is 1 where they are as sharp as the images"
    )
    shown[f"Encoders ({losses})"] = results.encoders_table(summary)
    if "balance" in tables:
        shown["Classes of what was queried (means over seeds)"] = results.balance_summary(tables["balance"])
    return shown


def _compared(summary):
    """Tables of arms side by side."""
    tests = "paired t-tests over seeds on validation, Holm-corrected over all pairs and rounds, at 5 %"
    name = results.METRICS[summary["metric"]].name
    needed = f"Labels to reach a validation {name} (of the mean over seeds; in brackets the median over seeds)"
    return {
        f"Who beats whom (the share of rounds at which the row's arm beats the column's, and of ties; {tests})": (
            comparisons.pairs_table(summary)
        ),
        needed: comparisons.reach_table(summary),
    }
