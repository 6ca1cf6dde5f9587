"""Writes the results of a run: tables, the summary, the figures and the page."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from latent_al.encoders import Encodings
from latent_al.encoders.quality import describe
from latent_al.results import balance, comparisons, figures, statistics, tables
from latent_al.results.answers import answer
from latent_al.results.diagnostics import Diagnostic, Drawing
from latent_al.results.report import write_report
from latent_al.results.sections import make_sections
from latent_al.results.tables import History
from latent_al.runtime.files import write_csv, write_json
from latent_al.types import Data


class Outcome(NamedTuple):
    """The outcome of the rounds of an experiment.

    Attributes:
        encodings: encoder -> what it has made from the images.
        spaces: arm -> the latents that it selected in.
        histories: (arm, seeds, history), arm by arm and seed by seed.
        tuned: name -> the arms that are its settings; only the best on validation data is compared with the rest.
        diagnostics: name -> the diagnostic with its table, which is empty where it computes nothing.
    """

    encodings: dict[str, Encodings]
    spaces: dict[str, figures.Space]
    histories: list[tuple[str, list[int], History]]
    tuned: dict[str, list[str]]
    diagnostics: dict[str, tuple[Diagnostic, pd.DataFrame]]


def write_results(folder: Path, config: Any, data: Data, outcome: Outcome, command: str) -> dict:
    """Writes all there is to see of a run into `folder`, and returns what `summary.json` holds.

    Args:
        folder: that of the run, with its `config.json`.
        config: of the run, an `experiment.config.Experiment`.
        data: the images and their labels.
        outcome: of the run.
        command: what the report says was run.
    """
    measured = _tables(config, data, outcome.histories)
    for name, table in measured.items():
        write_csv(folder / f"{name}.csv", table)
    for name, (_, table) in outcome.diagnostics.items():
        if len(table):
            path = folder / "diagnostics" / f"{name}.csv"
            # A name may have a slash.
            path.parent.mkdir(parents=True, exist_ok=True)
            write_csv(path, table)
    chosen = tables.choose(measured["metrics"], outcome.tuned) if outcome.tuned else {}
    worse = {arm for choice in chosen.values() for arm in choice["areas"] if arm != choice["arm"]}
    compared = {name: table[~table.arm.isin(worse)] for name, table in measured.items()}
    outcome = outcome._replace(diagnostics=_without(outcome.diagnostics, worse))
    for name, split in (("gaps", "validation"), ("test_gaps", "test")):
        if "metrics" in compared and _has_curves(compared["metrics"], split):
            compared[name] = statistics.gaps_table(compared["metrics"], config.baseline, split)
            write_csv(folder / f"{name}.csv", compared[name])
    summary = _summary(config, data, outcome.encodings, compared) | ({"tuned": chosen} if chosen else {})
    write_json(folder / "summary.json", summary)
    drawn = _draw(folder / "figures", data, outcome, compared)
    write_report(
        folder / "report.html",
        title=f"latent_al: {folder.name}",
        answer=answer(summary),
        command=command,
        config=(folder / "config.json").read_text(encoding="utf-8"),
        sections=make_sections(summary, compared, outcome.diagnostics, drawn),
    )
    return summary


def _without(diagnostics, arms):
    return {
        name: (diagnostic, table[~table.arm.isin(arms)] if len(table) else table)
        for name, (diagnostic, table) in diagnostics.items()
    }


def _tables(config, data, histories):
    num_labels = config.num_initial + config.query_size * np.arange(config.num_rounds + 1)
    # Where the initial labelled set is all there is, nothing is selected: 18 classifiers on MNIST would list 12 million
    # rows.
    selected = histories if config.num_initial < len(data.train.images) else []
    queries = [tables.queries_table(arm, seeds, num_labels, history, data.ids) for arm, seeds, history in selected]
    measured = {"queries": pd.concat(queries) if queries else pd.DataFrame(columns=tables.QUERY_COLUMNS)}
    if data.train.labels is None:
        return measured
    measured["metrics"] = pd.concat(
        tables.metrics_table(arm, seeds, num_labels, history) for arm, seeds, history in histories
    )
    measured["timings"] = pd.concat(tables.timings_table(arm, seeds, history) for arm, seeds, history in histories)
    if selected and data.num_classes is not None:
        measured["balance"] = balance.balance_table(measured["queries"], data.train.labels, data.num_classes)
    return measured


def _has_curves(metrics, split):
    return metrics.arm.nunique() > 1 and metrics["round"][metrics.split == split].nunique() > 1


def _summary(config, data, encodings, compared):
    if data.train.labels is None:
        summary = {"num_seeds": config.num_seeds, "arms": {}, "differences": {}}
    else:
        metrics = compared["metrics"]
        summary = statistics.summarise(metrics, config.baseline) | comparisons.compare_pairs(metrics)
        reach = config.reach
        summary["labels_to_reach"] = comparisons.labels_to_reach(metrics, config.baseline, reach)
        summary["labels_to_match"] = comparisons.labels_to_match(metrics, config.baseline)
        summary["final_differences"] = statistics.final_differences(metrics, config.baseline)
    if "balance" in compared:
        summary["balance"] = balance.balance_means(compared["balance"])
    summary["encoders"] = {
        name: describe(encoding, data) for name, encoding in encodings.items() if encoding.losses is not None
    }
    return summary


def _draw(folder, data, outcome, compared):
    """Draws all figures into `folder` and returns heading -> (caption, PNG); a diagnostic's heading is its name."""
    synthesising = [arm for arm, space in outcome.spaces.items() if space.points is not None]
    queries = compared["queries"]
    of_rows = compared | dict(queries=queries[~queries.arm.isin(synthesising)])
    drawn = {
        "Seeds and queries": figures.draw_arms(of_rows, data, folder),
        "Initial labelled sets": figures.draw_initial_sets(outcome.spaces, queries, data, folder),
    }
    for name, (diagnostic, table) in outcome.diagnostics.items():
        # Separate folders, since a diagnostic or an encoder may have the name of another figure.
        drawing = Drawing(name, table, outcome.spaces, queries, data, folder / "diagnostics")
        drawn[name] = diagnostic.draw(drawing)
    for name, encodings in outcome.encodings.items():
        drawn[f"Encoder {name}"] = figures.draw_encoder(name, encodings, data, folder / "encoders")
    return drawn
