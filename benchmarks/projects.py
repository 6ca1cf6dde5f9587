"""Simulated labelling projects: the labels in the ledger beside those that people gave, over rounds and files.

    python benchmarks/projects.py [--projects=20] [--rounds=6]

In each project one or two people label images through what the job reads: `queries.csv` in place, tables of their own,
JSON lines, cumulative exports of Label Studio and class folders. They skip, correct themselves, spell names of files
and classes in other ways, leave out time zones, and their clocks are ahead at times. After each call the label of every
image has to be the one that most people last gave it.
"""

import argparse
import hashlib
import json
import random
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pandas as pd

from latent_al.labelling import ledger
from latent_al.labelling.answers import read_answers
from latent_al.labelling.classes import ClassNames
from latent_al.runtime.files import write_csv

CLASSES = ("cat", "Dog", "snow leopard", "caf\u00e9")
SKIP = "?"
IMAGES_A_ROUND = 12
START = datetime(2026, 1, 1, tzinfo=UTC)
WAYS = ("queries", "table", "lines", "export", "folders")


class Project:
    """A workdir, what people have said so far, and a clock that only they and the job move."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.rng = folder, random.Random(seed)
        self.people = ["anna", "bob"][: 1 + seed % 2]
        self.now = START
        self.said: dict[str, dict[str, str]] = {name: {} for name in self.people}
        self.annotated: dict[tuple[str, str], tuple[str, str]] = {}
        self.standing: dict[tuple[str, str], str] = {}
        self.rows: list[dict[str, str]] = []
        self.num_files = 0

    def add_round(self, index: int) -> list[str]:
        """Asks about new images, and returns their ids."""
        names = [f"r{index}/{number} \u00e4.png" for number in range(IMAGES_A_ROUND)]
        new = [dict(id=image_id(name), file_name=name, status="present") for name in names]
        self.rows += new
        folder = self.folder / f"rounds/{index:03d}"
        folder.mkdir(parents=True)
        write_csv(folder / "queries.csv", pd.DataFrame(new).drop(columns="status").assign(label=""))
        return [row["id"] for row in new]

    def say(self, person: str, way: str, images: list[str], index: int) -> None:
        """Lets a person answer, by a file or a change of one."""
        self.now += timedelta(minutes=self.rng.randint(1, 90))
        for image in images:
            # Who corrects in a place that is kept changes what stands there.
            before = self.standing.get((way, image))
            label = self.rng.choice([label for label in [*CLASSES, *CLASSES, SKIP] if label != before])
            self.said[person][image] = label
            if way in ("queries", "folders"):
                self.standing[way, image] = label
        labels = {image: self.spell(self.said[person][image]) for image in images}
        name_of = {row["id"]: row["file_name"] for row in self.rows}
        self.num_files += 1
        stem = self.folder / f"labels/{self.num_files:03d}"
        if way == "queries":
            path = self.folder / f"rounds/{index:03d}/queries.csv"
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            table["label"] = [labels.get(image, label) for image, label in zip(table.id, table.label, strict=True)]
            write_csv(path, table)
        elif way == "table":
            rows = [dict(FileName=self.path(name_of[image]), Class=label) for image, label in labels.items()]
            table = pd.DataFrame(rows).rename(columns={"FileName": self.rng.choice(["filename", "Image", "path"])})
            table = table.assign(annotator=person)
            table.to_csv(stem.with_suffix(".csv"), index=False, sep=self.rng.choice(",;\t"), encoding="utf-16")
        elif way == "lines":
            lines = [json.dumps(dict(id=image, label=label, annotator=person)) for image, label in labels.items()]
            stem.with_suffix(".jsonl").write_text("\n".join(lines))
        elif way == "folders":
            for image, label in labels.items():
                for path in (self.folder / "labels").glob(f"*/{image[-8:]}.png"):
                    path.unlink()
                target = self.folder / f"labels/{label.strip()}/{image[-8:]}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(name_of[image])
        else:
            self.export(person, labels, stem.with_suffix(".json"))

    def export(self, person: str, labels: dict[str, str], path: Path) -> None:
        """Writes all that the person has annotated in Label Studio so far, as an export under a new name."""
        ahead = timedelta(hours=self.rng.choice([0, 0, 0, 30]))
        time = (self.now + ahead).isoformat()
        time = time.removesuffix("+00:00") if self.rng.random() < 0.3 else time
        self.annotated |= {(person, image): (label, time) for image, label in labels.items()}
        tasks = []
        for (name, image), (label, stated) in self.annotated.items():
            result = dict(from_name="choice", to_name="image", type="choices", value=dict(choices=[label]))
            annotation = dict(completed_by=name, updated_at=stated, was_cancelled=label == SKIP)
            annotation["result"] = [] if label == SKIP else [result]
            tasks.append(dict(data=dict(latent_al_id=image), annotations=[annotation]))
        path.write_text(json.dumps(tasks))

    def path(self, name: str) -> str:
        """Spells the name of a file as another program may."""
        return self.rng.choice([name, f"photos/{name}", f"C:\\data\\photos\\{name}".replace("/", "\\"), f"./{name} "])

    def spell(self, label: str) -> str:
        """Spells a class as a person may."""
        return self.rng.choice([label, label, label.upper(), f" {label} ", label.replace(" ", "\u00a0")])

    def call(self) -> list[str]:
        """Reads all files as the job does, and returns the images whose label is not what most people last gave."""
        self.now += timedelta(minutes=1)
        table = pd.DataFrame(self.rows)
        log = ledger.read_log(self.folder)
        classes = ClassNames([*CLASSES, *(label for label in log["label"] if label)], {}, is_fixed=False)
        answers, refusals = read_answers(self.folder, table, classes, root_name="photos")
        with mock.patch.object(ledger, "datetime", wraps=datetime) as clock:
            clock.now.return_value = self.now
            accepted = ledger.accept(self.folder, log, answers, table, classes)
        resolved = ledger.resolve(accepted.log, classes)
        wrong = [refusal.reason for refusal in [*refusals, *accepted.refused]]
        for image in table["id"]:
            votes = Counter(said[image] for said in self.said.values() if said.get(image, SKIP) != SKIP)
            top = [label for label, num in votes.items() if num == max(votes.values())]
            expected = top[0] if len(top) == 1 else None
            if resolved.labels.get(image) != expected:
                wrong.append(f"{image}: {resolved.labels.get(image)} in place of {expected}")
        return wrong


def image_id(name: str) -> str:
    """Returns the id of the image whose file holds its own name."""
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()[:32]


def play(folder: Path, seed: int, rounds: int) -> tuple[int, list[str]]:
    """Plays a project; returns how many labels were compared, and what differs."""
    (folder / "labels").mkdir()
    project = Project(folder, seed)
    compared, wrong = 0, []
    # Only files that name the annotator tell two people apart.
    ways = WAYS if len(project.people) == 1 else ("table", "lines", "export")
    for index in range(rounds):
        images = project.add_round(index)
        for person in project.people:
            num = project.rng.randint(1, len(images))
            project.say(person, "export" if index == 0 else project.rng.choice(ways), images[:num], index)
        wrong += project.call()
        for _ in range(2):
            person = project.rng.choice(project.people)
            again = [image for image in images if image in project.said[person]]
            project.say(person, project.rng.choice(ways), project.rng.sample(again, min(3, len(again))), index)
            wrong += project.call()
        wrong += project.call()
        compared += 4 * len(project.rows)
    return compared, wrong


def main() -> None:
    """Prints how many labels were compared over all projects, and what differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--projects", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=6)
    flags = parser.parse_args()
    total, num_wrong = 0, 0
    for seed in range(flags.projects):
        with tempfile.TemporaryDirectory() as folder:
            compared, wrong = play(Path(folder), seed, flags.rounds)
        total, num_wrong = total + compared, num_wrong + len(wrong)
        for line in wrong[:3]:
            print(f"project {seed}: {line}")
    print(f"{flags.projects} projects, {total:,} labels compared, {num_wrong} differ")


if __name__ == "__main__":
    main()
