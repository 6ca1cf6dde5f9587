"""The answer of a run in words: which arms need fewer labels than the baseline, and how sure that is."""

from typing import NamedTuple

import numpy as np

from latent_al.results.metrics import METRICS


class Answer(NamedTuple):
    """The answer of a run.

    lead: the answer in one or two sentences.
    lines: arm -> what there is to say about it, those that need the fewest labels first; empty with a single arm.
    notes: sentences on how the numbers were made, and how far they reach.
    """

    lead: str
    lines: dict[str, str]
    notes: list[str]


def answer(summary: dict) -> Answer | None:
    """Returns the answer that a summary gives; None without labels.

    An arm is said to be ahead of the baseline, or behind, only where the 95 % interval excludes zero.
    """
    if not summary["arms"]:
        return None
    if len(summary["arms"]) == 1:
        return Answer(f"{summary['baseline']} is the only arm, so nothing is compared.", {}, [])
    if not summary["final_differences"]:
        return Answer("No held-out image has a label, so nothing is compared.", {}, [])
    match = summary["labels_to_match"]
    arms = sorted(summary["differences"], key=lambda arm: _order(match, arm))
    ends = {arm: _of_end(summary, arm) for arm in arms}
    if len(arms) == 1 and match and (summary["num_seeds"] == 1 or _is_ahead(match, arms[0])):
        lead, lines = [_fewest(summary, arms[0]), f"Its {ends[arms[0]]}" if ends[arms[0]] else ""], {}
    else:
        lead = [_lead_of_labels(summary, arms), _lead_of_end(summary, arms)]
        lines = {arm: _join([_of_labels(summary, arm), f"The {ends[arm]}" if ends[arm] else ""]) for arm in arms}
    if summary["num_seeds"] == 1:
        lead.append("This is a single seed, which says nothing about chance.")
    return Answer(_join(lead), {arm: line for arm, line in lines.items() if line}, _notes(summary))


def _join(sentences):
    """Returns the sentences that are not empty as one text."""
    return " ".join(sentence for sentence in sentences if sentence)


def _order(match, arm):
    """Returns the key that sorts those surely ahead first, then by the labels that an arm needs."""
    if not match:
        return (0, 0)
    labels = match["arms"][arm]["labels"]
    return (not _is_ahead(match, arm), np.inf if labels is None else labels)


def _is_ahead(match, arm):
    interval = match["arms"][arm]["interval"]
    return interval is not None and interval[1] is not None and interval[1] < match["baseline_labels"]


def _lead_of_labels(summary, arms):
    """Returns how many arms need fewer labels than the baseline, and which needs the fewest; empty without curves."""
    match, baseline = summary["labels_to_match"], summary["baseline"]
    if not match:
        return ""
    if summary["num_seeds"] == 1:
        return _fewest(summary, arms[0])
    num_ahead = sum(_is_ahead(match, arm) for arm in arms)
    if not num_ahead:
        who = f"{arms[0]} is not" if len(arms) == 1 else f"None of the {len(arms)} arms is"
        return f"{who} shown to reach {_target(summary)} with fewer labels than {baseline}."
    need = "needs" if num_ahead == 1 else "need"
    how_many = f"{num_ahead} of {len(arms)} arms {need} fewer labels than {baseline}."
    return f"{how_many} The fewest: {_fewest(summary, arms[0])}"


def _lead_of_end(summary, arms):
    """Returns how many arms are ahead of the baseline at the end; empty for one seed, and where no split was scored."""
    final, metric, baseline = summary["final_differences"], METRICS[summary["metric"]], summary["baseline"]
    gaps = [final["arms"][arm] for arm in arms] if final else []
    if not gaps or any(gap["low"] is None for gap in gaps):
        return ""
    side = "lower" if metric.is_error else "higher"
    score = f"a {side} {final['split']} {metric.name} than {baseline}"
    num_ahead = sum(gap["high"] < 0 if metric.is_error else gap["low"] > 0 for gap in gaps)
    if not num_ahead:
        who = f"{arms[0]} is not" if len(arms) == 1 else "None is"
        return f"{who} shown to end with {score}."
    if len(arms) == 1:
        return f"{arms[0]} ends with {score}."
    end_with = "ends with" if num_ahead == 1 else "end with"
    return f"{num_ahead} of {len(arms)} arms {end_with} {score}, each by its own interval."


def _target(summary):
    metric, target = METRICS[summary["metric"]], summary["labels_to_match"]["target"]
    return f"{summary['baseline']}'s final validation {metric.name} of {metric.scale * target:.1f} {metric.sign}"


def _fewest(summary, arm):
    needed, last = summary["labels_to_match"]["arms"][arm], summary["labels_to_match"]["last"]
    if needed["labels"] is None:
        return f"{arm} does not reach {_target(summary)} with {last:,} labels."
    return f"{arm} reaches {_target(summary)} with {_saving(summary, arm)}."


def _saving(summary, arm):
    """Returns "120 labels in place of 210: 43 % fewer (95 % interval 30 to 52 %)"; the share only where it is sure."""
    match = summary["labels_to_match"]
    needed, base = match["arms"][arm], match["baseline_labels"]
    if needed["labels"] == base:
        return f"{base:,} labels, as many as {summary['baseline']}"
    text = f"{needed['labels']:,} labels in place of {base:,}"
    if not _is_ahead(match, arm):
        return text
    low, high = needed["interval"]
    least, share, most = (100 * (1 - labels / base) for labels in (high, needed["labels"], low))
    return f"{text}: {share:.0f} % fewer (95 % interval {least:.0f} to {most:.0f} %)"


def _of_labels(summary, arm):
    """Returns the sentence about the labels that an arm needs to match the baseline; empty without curves."""
    match = summary["labels_to_match"]
    if not match:
        return ""
    needed, base, last = match["arms"][arm], match["baseline_labels"], match["last"]
    text = f"Not reached with {last:,} labels" if needed["labels"] is None else _saving(summary, arm)
    if needed["interval"] is None or _is_ahead(match, arm):
        return f"{text}."
    low, high = needed["interval"]
    if low is None:
        return f"{text}, and behind with every number of labels by the 95 % interval."
    ends = f"95 % interval {low:,} to {f'more than {last:,}' if high is None else f'{high:,}'} labels"
    differs = low > base or needed["labels"] == base
    return f"{text} ({ends})." if differs else f"{text}, not shown to differ ({ends})."


def _of_end(summary, arm):
    """Returns the scores of an arm and the baseline at the end, "test accuracy at the end is ..."; or nothing."""
    final, metric = summary["final_differences"], METRICS[summary["metric"]]
    gap = final["arms"][arm] if final else {"mean": None}
    if gap["mean"] is None:
        return ""
    what = f"{final['split']} {metric.name} at the end is"
    change = f"{metric.scale * abs(gap['mean']):.1f} {metric.gap_unit} {'higher' if gap['mean'] > 0 else 'lower'}"
    if gap["low"] is None:
        return f"{what} {change if gap['mean'] else 'that of ' + summary['baseline']}."
    p = "p < 0.001" if gap["p_holm"] < 0.001 else f"p = {gap['p_holm']:.2g}"
    low, high = metric.scale * gap["low"], metric.scale * gap["high"]
    if low <= 0 <= high:
        mean = f"{metric.scale * gap['mean']:+.1f} {metric.gap_unit}"
        return f"{what} not shown to differ: {mean} (95 % interval {low:+.1f} to {high:+.1f}; {p})."
    low, high = sorted([abs(low), abs(high)])
    return f"{what} {change} (95 % interval {low:.1f} to {high:.1f}; {p})."


def _notes(summary):
    match, num_seeds, baseline = summary["labels_to_match"], summary["num_seeds"], summary["baseline"]
    num_arms = len(summary["differences"])
    notes = []
    if match and num_seeds > 1:
        notes.append(
            "An interval of labels begins with the first batch after which an arm is no longer clearly behind "
            f"{baseline}'s final score, and ends with the first after which it is clearly not behind it. Clearly: by "
            f"the interval of the difference, paired over {num_seeds} seeds ({summary['interval']})."
        )
    if num_seeds > 1 and summary["final_differences"]:
        corrected = ", Holm-corrected over the arms" if num_arms > 1 else ""
        notes.append(f"The p-values are those of Wilcoxon's signed-rank test{corrected}.")
    if num_seeds > 1 and num_arms > 1:
        notes.append(
            f"{num_arms} arms are compared, and the intervals are not corrected for that: of 20 arms as good as "
            f"{baseline}, about one has an interval that excludes zero by chance."
        )
    if "tuned" in summary:
        notes.append("Settings were chosen on the same validation data, which favours the arms that were tuned there.")
    return notes
