"""The sections of the page: its tables, charts and figures, their headings, and the texts that explain them."""

from pathlib import Path

import pandas as pd

from latent_al.results import balance, comparisons, formatting, tables
from latent_al.results.charts import gap_chart, learning_charts
from latent_al.results.diagnostics import Diagnostic
from latent_al.results.metrics import METRICS
from latent_al.results.report import Section
from latent_al.results.tables import TUNED_BY
from latent_al.types import BALANCED

CHARTED = {"learning_curves", "balanced_learning_curves", "gaps"}
"""Figures of `figures/` that the page draws as charts instead."""


def make_sections(
    summary: dict,
    compared: dict[str, pd.DataFrame],
    diagnostics: dict[str, tuple[Diagnostic, pd.DataFrame]],
    drawn: dict[str, list[tuple[str, Path]]],
) -> list[Section]:
    """Returns the sections that have something to show.

    Args:
        summary: of the run.
        compared: its tables by name, of the arms that are compared.
        diagnostics: name -> the diagnostic with its table.
        drawn: heading -> (caption, PNG) of each figure; that of a diagnostic under its name.
    """
    sections = [*_comparisons(summary, compared), *_tables(summary, compared)]
    pictures = dict(drawn)
    for name, (diagnostic, table) in diagnostics.items():
        summed_up = diagnostic.summarise(table) if diagnostic.summarise else None
        heading = f"{diagnostic.heading} ({name})"
        sections.append(Section(heading, diagnostic.text, table=summed_up, pictures=pictures.pop(name, ())))
    for heading, of_heading in pictures.items():
        kept = [(caption, png) for caption, png in of_heading if png.stem not in CHARTED]
        sections.append(Section(heading, pictures=kept))
    return [section for section in sections if section.charts or section.pictures or _has_rows(section.table)]


def _has_rows(table):
    return table is not None and len(table) > 0


def _comparisons(summary, compared):
    """Returns the sections that compare arms; none without labels."""
    if not summary["arms"]:
        return []
    metric, baseline = METRICS[summary["metric"]].name, summary["baseline"]
    bands = "The bands are 95 % intervals over seeds; with many arms, point at one to see its own. "
    bands = bands if summary["num_seeds"] > 1 else ""
    point = f"{bands}Point at a mark to read its numbers; the table below each chart has them too."
    gaps = [
        gap_chart(compared[name], compared["metrics"], baseline, split)
        for name, split in (("gaps", "validation"), ("test_gaps", "test"))
        if name in compared
    ]
    return [
        Section(
            "Learning curves",
            f"Means over seeds after each batch. {point}",
            charts=learning_charts(compared["metrics"]),
        ),
        Section(
            f"Difference from {baseline}",
            f"Difference in {metric}, paired by seed; an arm differs where its band excludes zero. {point}",
            charts=gaps,
        ),
        Section("Results", _results_text(summary, summary["metric"]), table=formatting.arms_table(summary)),
        Section(
            "Balanced results",
            _results_text(summary, BALANCED),
            table=formatting.arms_table(summary, balanced=True),
        ),
        Section(
            "Labels to reach a score",
            f"The number of labels with which the mean over seeds first reaches a validation {metric}; in brackets the "
            "median over seeds of the number that each needs.",
            table=comparisons.reach_table(summary),
        ),
        Section(
            "Pairwise comparison",
            "The share of rounds in which the row's arm is ahead of the column's arm on validation, and the share of "
            "ties. Paired t-tests over seeds, Holm-corrected over all pairs and rounds, at 5 %.",
            table=comparisons.pairs_table(summary),
        ),
    ]


def _results_text(summary, metric):
    note = formatting.note(summary, balanced=metric == BALANCED)
    return f"Mean ± sample standard deviation over seeds, in {note}. p-values are Wilcoxon's, Holm-corrected over arms."


def _tables(summary, compared):
    sections = []
    if "tuned" in summary:
        text = f"The setting with the best mean {TUNED_BY} on validation is compared with the other arms."
        sections.append(Section("Settings", text, table=tables.tuned_table(summary)))
    if "balance" in compared:
        text = "Of the labels at the end, as means over seeds. Class entropy is 1 where all classes have equally many."
        sections.append(Section("Classes of the queries", text, table=balance.balance_summary(compared["balance"])))
    text = (
        "Losses of the last epoch; on validation without dropout and without the terms that compare images of a batch. "
        "The sharpness of reconstructions is 1 where they are as sharp as the images."
    )
    return [*sections, Section("Encoders", text, table=formatting.encoders_table(summary))]
