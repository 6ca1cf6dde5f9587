"""What the job says: what was found, what it makes of it, and what to do next."""

from pathlib import Path

from latent_al.labelling import encode, scan
from latent_al.labelling.state import State, Taken

GIB = 2**30
PAYS = 0.02
"""What a batch has to add to accuracy to be worth its labels, where it may add nothing."""


def duration(seconds: float) -> str:
    """As people say it, from seconds to hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(num_bytes: int) -> str:
    """In GiB, or in MiB below a tenth of one."""
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB / 10 else f"{max(num_bytes / 2**20, 1):.0f} MiB"


def to_scan(expected: scan.Forecast) -> str:
    """How long reading the new files will take, and the room that it needs."""
    num, disk = expected.num_images, size(expected.disk_bytes)
    return f"To read: {num:,} file{'s' * (num != 1)}, {duration(expected.seconds)}, {disk} of disk."


def forecast(expected: encode.Forecast) -> str:
    """How long the encoder will take, and the memory that it needs."""
    training = f"train the encoder: {duration(expected.training)}; to " if expected.training else ""
    memory = size(expected.memory)
    return f"To {training}encode: {duration(expected.encoding)}; memory: {memory} beside the program's own."


def taken_in(workdir: Path, state: State, taken: Taken, *, is_fixed: bool) -> list[str]:
    """What the label files brought, and what is labelled, waiting, skipped and tied by now.

    `is_fixed`: whether the classes are those of the config.
    """
    lines = [f"Changed: {line}" for line in taken.changes]
    lines += [f"Refused: {_where(each)}: {each.reason}" for each in taken.refused[:5]]
    if len(taken.refused) > 5:
        lines.append(f"Refused: {len(taken.refused) - 5} more, listed in {workdir / 'refused.csv'}.")
    if state.past:
        known = state.known
        audit = f"{(known.audit & (known.classes >= 0)).sum()} of {known.audit.sum()} of the audit slice"
        counts = [f"{known.labelled.sum()} labelled", audit, f"{known.open.sum()} open", f"{known.tied.sum()} tied"]
        lines.append(f"{taken.num_new} new answers: {', '.join(counts)}, {len(state.labels.skipped)} skipped.")
        before = {name for record in state.past for name in record["classes"]}
        new = [name for name in state.classes if name not in before]
        lines += [f"New classes: {', '.join(new)}."] if new and before and not is_fixed else []
    return lines


def report(record: dict, folder: Path) -> str:
    """What the round found, and where it is."""
    lines = [f"\nRound {record['round']:03d}: {len(record['queries'])} images to label in {folder}"]
    if record["audit"]:
        lines[0] += f", and {len(record['audit'])} for the audit slice, which is never trained on"
    if record["num_labels"]:
        counts = ", ".join(f"{name} {count}" for name, count in record["counts"].items())
        lines.append(f"  trained on   {record['num_labels']} labels: {counts}")
    if "predicted" in record:
        lines += _quality(record)
    elif record["num_labels"]:
        lines.append("  no classifier yet: the labels show fewer than two classes")
    return "\n".join(lines)


def next_steps(workdir: Path, state: State) -> str:
    """How to answer what is open."""
    asked_in = {each: record["round"] for record in state.past for each in (*record["queries"], *record["audit"])}
    ids = state.table.id[state.known.open | state.known.tied]
    numbers = sorted({f"{asked_in[each]:03d}" for each in ids if each in asked_in})
    if not numbers:
        return "Nothing is left to ask: every image is labelled or skipped."
    folder = workdir / "rounds" / numbers[-1]
    earlier = f", and what is open of {', '.join(numbers[:-1])}" if len(numbers) > 1 else ""
    return (
        f"Next, label the images of {folder / 'queries.csv'}{earlier}, whichever way suits:\n"
        f"  fill its column label, with ? for an image to skip, there or in a copy in {workdir / 'labels'}; or\n"
        f"  import {folder / 'label_studio.json'} into Label Studio, and put its export into {workdir / 'labels'}; or\n"
        f"  copy the images into {workdir / 'labels'}/CLASS/.\n"
        "Then give the same command again."
    )


def _where(refusal):
    return refusal.source if refusal.row is None else f"{refusal.source}, row {refusal.row}"


def _quality(record):
    accuracy, gain, against = record["accuracy"], record["gain"], record["against_random"]
    if accuracy is None:
        return ["  accuracy     unknown: no image of the audit slice is labelled yet"]
    of = f"{accuracy['num']} of {len(record['predicted'])} audit images"
    lines = [f"  accuracy     {_percent(accuracy)} on {of}"]
    if record["temperature"] is not None:
        lines.append(
            f"  confidence   in predictions.csv is calibrated, off by {100 * record['calibration_error']:.1f} points"
        )
    else:
        lines.append("  confidence   in predictions.csv is not calibrated: the audit slice has too few labels")
    if gain is not None:
        lines.append(f"  next batch   would add {_points(gain)}{_verdict(gain)}")
    if against is not None:
        better = "" if against["low"] > 0 else ": no better than random labels would be, as far as it can tell"
        lines.append(f"  strategy     the first {against['num']} chosen are {_points(against)} ahead of random{better}")
    return lines


def _verdict(gain):
    if gain["low"] > 0:
        return ""
    if gain["high"] < PAYS:
        return ": more labels no longer pay"
    return ": whether more labels pay, this audit slice is too small to tell"


def _percent(estimate):
    return f"{100 * estimate['mean']:.1f} % [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"


def _points(estimate):
    return f"{100 * estimate['mean']:+.1f} points [{100 * estimate['low']:+.1f}, {100 * estimate['high']:+.1f}]"
