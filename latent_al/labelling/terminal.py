"""Texts of the job for the terminal: what it has read, how good the predictions are, and what to do next."""

from collections import Counter
from pathlib import Path

import numpy as np

from latent_al.data.listing import counted
from latent_al.encoders import Forecast
from latent_al.labelling import estimates, scan
from latent_al.labelling.classes import warnings
from latent_al.labelling.near_duplicates import NearDuplicates
from latent_al.labelling.state import State, Taken

GIB = 2**30
LISTED = 10
"""Classes of which recall and precision are printed; those of the rest are in `confusion.csv`."""


def duration(seconds: float) -> str:
    """Returns a time as people say it, from seconds to hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(num_bytes: int) -> str:
    """Returns a size in GiB, or in MiB below a tenth of one."""
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB / 10 else f"{max(num_bytes / 2**20, 1):.0f} MiB"


def to_scan(expected: scan.Forecast) -> str:
    """Says how long reading the new files will take, and the disk space that it needs."""
    disk = size(expected.disk_bytes)
    return f"To read: {counted(expected.num_images, 'file')}, {duration(expected.seconds)}, {disk} of disk."


def forecast(expected: Forecast) -> str:
    """Says how long the encoder will take, and the memory that it needs."""
    training = f"train the encoder: {duration(expected.training)}; to " if expected.training else ""
    memory = size(expected.memory)
    return f"To {training}encode: {duration(expected.encoding)}; memory: {memory} on top of the program's own."


def taken_in(workdir: Path, state: State, taken: Taken, *, is_fixed: bool) -> list[str]:
    """Says what the label files brought, and how many images are labelled, open, tied and skipped by now.

    `is_fixed`: whether the classes are those of the config.
    """
    lines = [f"Changed: {line}" for line in taken.changes]
    lines += [f"Note: {line}" for line in taken.notes]
    lines += [f"Refused: {_where(refusal)}: {refusal.reason}" for refusal in taken.refused[:5]]
    if len(taken.refused) > 5:
        lines.append(f"Refused: {len(taken.refused) - 5} more, listed in {workdir / 'refused.csv'}.")
    if state.past:
        lines.append(f"{counted(taken.num_new, 'new answer')}: {_counts(state)}.")
    before = {name for record in state.past for name in record["classes"]}
    new = [name for name in state.classes if name not in before]
    if new and not is_fixed:
        lines.append(f"New classes: {', '.join(new)}.")
    if taken.num_new:
        lines += [f"Note: {line}" for line in warnings(Counter(state.labels.labels.values()))]
    return lines


def near_duplicates(workdir: Path, near: NearDuplicates, *, is_once: bool) -> str:
    """Says how many images are nearly the same as another one, and what can be done, or is done, about it."""
    num, num_groups = len(near.rows), len(np.unique(near.groups))
    what = f"{num:,} {'image is' if num == 1 else 'images are'} nearly the same as {num_groups:,} others"
    cure = "--config.label_near_duplicates_once=True labels them once"
    if is_once:
        cure = "asked about once, with one label"
    return f"near-duplicates: {what} ({workdir / 'near_duplicates.csv'}, near_duplicates.png); {cure}"


def waiting(state: State, taken: Taken) -> str:
    """Says why no new round is asked."""
    what = "Only corrections" if taken.num_new else "No new labels"
    return f"{what} since round {len(state.past) - 1:03d}."


def report(record: dict, folder: Path) -> str:
    """Says what the round asks, how good its predictions are, and where it is."""
    lines = [f"\nRound {record['round']:03d}: {counted(len(record['queries']), 'image')} to label in {folder}"]
    if record["audit"]:
        lines[0] += f", and {len(record['audit'])} for the audit slice, which is never trained on"
    if record["num_labels"]:
        counts = ", ".join(f"{name} {count}" for name, count in record["counts"].items())
        lines.append(f"  trained on   {counted(record['num_labels'], 'label')}: {counts}")
    if "predicted" in record:
        lines += _quality(record)
    elif record["num_labels"]:
        lines.append("  no classifier yet: the labels show fewer than two classes")
    return "\n".join(lines)


def next_steps(workdir: Path, state: State) -> str:
    """Says how to answer what is open."""
    asked_in = {image: record["round"] for record in state.past for image in (*record["queries"], *record["audit"])}
    ids = state.table.id[state.masks.open | state.masks.tied]
    numbers = sorted({f"{asked_in[image]:03d}" for image in ids if image in asked_in})
    if not numbers:
        is_once = (state.label_rows != np.arange(len(state.label_rows))).any()
        near = ", or a near-duplicate of one that is" if is_once else ""
        return f"Nothing is left to ask about: every image is labelled or skipped{near}."
    folder = workdir / "rounds" / numbers[-1]
    earlier = f", and those still open in {', '.join(numbers[:-1])}" if len(numbers) > 1 else ""
    return (
        f"Next, label the images of {folder / 'queries.csv'}{earlier}, whichever way suits:\n"
        f"  fill in its column label, with ? for an image to skip, there or in a copy in {workdir / 'labels'}; or\n"
        f"  import {folder / 'label_studio.json'} into Label Studio, and put its export into {workdir / 'labels'}; or\n"
        f"  copy the images into {workdir / 'labels'}/CLASS/.\n"
        "Then run the same command again."
    )


def _counts(state):
    status = state.masks
    num_audit = (status.audit & (status.classes >= 0)).sum()
    return (
        f"{status.labelled.sum()} labelled, {num_audit} of {status.audit.sum()} of the audit slice, "
        f"{status.open.sum()} open, {status.tied.sum()} tied, {len(state.labels.skipped)} skipped"
    )


def _where(refusal):
    return refusal.source if refusal.row is None else f"{refusal.source}, row {refusal.row}"


def _quality(record):
    if record["accuracy"] is None:
        return [f"  accuracy     unknown: {record['slice']['reason']}"]
    lines = [_accuracy(record), *_by_class(record), _confidence(record)]
    if record["gain"] is not None:
        lines.append(f"  next batch   would add {_points(record['gain'])}{_verdict(record['gain'])}")
    if record["against_random"] is not None:
        lines.append(_strategy(record["against_random"]))
    if record["target"] is not None:
        lines.append(f"  target       {_target(record['target'], record['accuracy']['num'])}")
    return lines


def _accuracy(record):
    audit = f"{record['accuracy']['num']} of {record['slice']['size']} audit images"
    return f"  accuracy     {_percent(record['accuracy'])} on {audit}"


def _by_class(record):
    names, by_class = record["classes"], record["by_class"]
    classes = list(zip(names, by_class["recall"], by_class["precision"], strict=True))
    held = sorted((line for line in classes if line[1]), key=lambda line: line[1]["mean"])
    enlarged = record["slice"]["enlarged"]
    missing = ", ".join(name for name, recall, _ in classes if not recall)
    over = f" over the {len(held)} of {len(names)} classes that the slice holds" if missing else ""
    weighted = f", weighted, on {enlarged['num']} audit images" if enlarged and enlarged["num"] else ""
    lines = [f"  by class     balanced accuracy {_percent(by_class['balanced'])}{over}{weighted}"]
    lines += [
        f"    {name}: {_of(recall, 'recall')}, {_of(precision, 'precision')}"
        for name, recall, precision in held[:LISTED]
    ]
    if len(held) > LISTED:
        lines.append(f"    the other {len(held) - LISTED} have a higher recall: see confusion.csv")
    if missing:
        most = 100 * estimates.most_of_unseen(record["accuracy"]["num"])
        lines.append(
            f"    the slice holds no {missing}: recall is unknown; under {most:.1f} % of images are of such a class"
        )
    if enlarged and enlarged["reason"]:
        lines.append(f"    the images that the slice was enlarged by do not count yet: {enlarged['reason']}")
    return lines


def _of(share, name):
    return f"{name} {_percent(share)} of {share['num']}" if share else f"{name} unknown, never predicted"


def _confidence(record):
    error = record["calibration_error"]
    if error is None:
        return "  confidence   in predictions.csv is not calibrated: the audit slice has too few labels"
    bounds = f"[{100 * error['low']:.1f}, {100 * error['high']:.1f}]"
    return f"  confidence   in predictions.csv is calibrated, off by {100 * error['mean']:.1f} points {bounds}"


def _strategy(against):
    verdict = ": cannot tell whether they are better than random labels"
    if against["low"] > 0:
        verdict = ""
    elif against["high"] < estimates.PAYS:
        verdict = ": no better than random labels would be"
    return f"  strategy     the first {against['num']} chosen are {_points(against)} ahead of random{verdict}"


def _verdict(gain):
    in_hundred = f"{100 * gain['power']:.0f} of 100 cases"
    if gain["high"] < estimates.PAYS:
        return f": more labels no longer pay; if they add nothing, this slice shows it in {in_hundred}"
    if gain["low"] > 0:
        return ""
    return f": cannot tell whether more labels pay; if they added nothing, this slice would show it in {in_hundred}"


def _target(target, num):
    wanted = f"{100 * target['accuracy']:g} %"
    if target["is_reached"]:
        return f"{wanted} reached with 95 % confidence"
    needed = target["fewest_correct"]
    shown_by = f"{needed} correct of {num}" if needed else f"more than {num} audit images"
    if target["more_labels"] is None:
        return f"{wanted} would be shown by {shown_by}; how far off it is can be estimated from the third classifier on"
    return f"{wanted} would be shown by {shown_by}; {_more(target['more_labels'], target['seconds_a_label'])}"


def _more(labels, seconds):
    if labels["low"] is None:
        return "cannot tell how far off it is: the learning curve levels off before"
    if labels["median"] is None:
        more = f"{labels['low']:,} more labels, or never if the learning curve levels off"
        return f"cannot tell how far off it is: {more}"
    high = "never" if labels["high"] is None else f"{labels['high']:,}"
    bounds = f"[{labels['low']:,}, {high}]"
    if not labels["median"]:
        return f"the learning curve may be there already, with 0 more labels {bounds}"
    pace = f", {duration(seconds * labels['median'])} at your pace of {seconds:.0f} s a label" if seconds else ""
    return f"about {labels['median']:,} more labels {bounds}{pace}"


def _percent(estimate):
    return f"{100 * estimate['mean']:.1f} % [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"


def _points(estimate):
    return f"{100 * estimate['mean']:+.1f} points [{100 * estimate['low']:+.1f}, {100 * estimate['high']:+.1f}]"
