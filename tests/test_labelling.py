"""The labelling job as a person uses it: called again and again, with whatever happens to folder and labels between."""

import contextlib
import importlib.util
import io
import json
import re
import resource
import runpy
import shutil
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_launch import ROOT, succeed

from latent_al.labelling import rounds, run
from latent_al.runtime.files import read_csv, write_csv
from latent_al.types import BadInput

COLOURS = ("red", "green", "blue")
WRITTEN = ("contact_sheet.png", "label_studio.json", "labelling_config.xml", "map.png", "queries.csv", "round.json")
SMALL = {
    "audit": 20,
    "encoder.hidden": (16,),
    "encoder.epochs": 20,
    "encoder.learning_rate": 1e-2,
    "classifier.epochs": 100,
    "classifier.learning_rate": 1e-2,
}
"""Settings for what the smoke size does not learn in its few epochs."""


def draw(folder, numbers):
    """Images 00.png, 01.png ... of noise, red, green and blue by turns; the colour of each name."""
    folder.mkdir(exist_ok=True)
    truth = {}
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 80, (8, 8, 3), dtype=np.uint8)
        pixels[..., number % 3] += 150
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        truth[f"{number:02d}.png"] = COLOURS[number % 3]
    return truth


def configure(images, size="smoke", **changes):
    """The config of `configs/folder.py`; `__` in a name stands for a dot."""
    config = runpy.run_path(str(ROOT / "configs/folder.py"))["get_config"](size)
    changes = SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    with config.ignore_type():
        config.update_from_flattened_dict(changes | {"data.root": str(images)})
    return config


def call(images, workdir, **changes):
    """Returns the output of one call."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run(configure(images, **changes), str(workdir))
    return printed.getvalue()


def queries_of(workdir, index):
    return read_csv(workdir / f"rounds/{index:03d}/queries.csv")


def record_of(workdir, index):
    return json.loads((workdir / f"rounds/{index:03d}/round.json").read_text())


def is_audit(queries):
    return queries.reason.str.startswith("audit")


def answer(workdir, index, label, to=None):
    """Fills the column of a round's queries with `label(query)`, in place or in a copy in `labels/`."""
    queries = queries_of(workdir, index)
    queries["label"] = [label(query) for query in queries.itertuples()]
    write_csv(workdir / f"labels/{to}" if to else workdir / f"rounds/{index:03d}/queries.csv", queries)


def export(workdir, index, truth, num):
    """Answers the first `num` of a round as Label Studio does."""
    spec = importlib.util.spec_from_file_location("folder_rounds", ROOT / "benchmarks/folder_rounds.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tasks = json.loads((workdir / f"rounds/{index:03d}/label_studio.json").read_text())
    (workdir / f"labels/export-{index}.json").write_text(json.dumps(module.export(tasks[:num], truth, index)))


def read_bytes(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Played(NamedTuple):
    """A job of four rounds; `said` by each call, and copies of its workdir before some of them."""

    images: Path
    workdir: Path
    truth: dict[str, str]
    said: list[str]
    asked: Path
    answered: Path


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """60 images; blue is known from round 2 on, in the slice from round 3; answers come in each of the ways."""
    folder = tmp_path_factory.mktemp("played")
    images, workdir, asked, answered = (folder / name for name in ("images", "job", "asked", "answered"))
    truth = draw(images, range(60))
    said = [call(images, workdir)]
    shutil.copytree(workdir, asked)
    said.append(call(images, workdir))
    answer(workdir, 0, lambda query: truth[query.file_name].replace("blue", ""))
    shutil.copytree(workdir, answered)
    said.append(call(images, workdir, query_size=18))
    blue = [name for name in queries_of(workdir, 0).file_name[:10] if truth[name] == "blue"]
    answer(workdir, 0, lambda query: " blue\t" if query.file_name in blue else "", to="late.csv")
    answer(workdir, 1, lambda query: "?" if query.rank == "0" else truth[query.file_name], to="copy.csv")
    said.append(call(images, workdir, query_size=18))
    export(workdir, 0, truth, 30)
    export(workdir, 2, truth, 6)
    for name in queries_of(workdir, 2).file_name[6:]:
        (workdir / "labels" / truth[name]).mkdir(exist_ok=True)
        shutil.copy(images / name, workdir / "labels" / truth[name] / f"of {name}")
    said.append(call(images, workdir, query_size=18, target=0.5))
    return Played(images, workdir, truth, said, asked, answered)


class TestRounds:
    def test_the_first_asks_a_batch_and_an_audit_slice(self, played):
        queries = queries_of(played.asked, 0)
        columns = ["id", "file_name", "rank", "score", "reason", "stands_for", "prediction", "label"]
        assert list(queries) == columns
        assert (len(queries), is_audit(queries).sum(), queries.id.nunique()) == (30, 20, 30)
        assert set(queries.reason) == {"chosen by typical", "audit: drawn at random, to measure accuracy"}
        assert 0 < queries.stands_for[:10].astype(int).sum() <= 60
        assert sorted(path.name for path in (played.asked / "rounds/000").iterdir()) == list(WRITTEN)
        assert "Round 000: 10 images to label" in played.said[0]
        assert "20 for the audit slice" in played.said[0]

    def test_nothing_is_asked_before_something_is_answered(self, played):
        assert "No new labels since round 000." in played.said[1]
        assert f"{played.workdir}/rounds/000/queries.csv, whichever way" in played.said[1]
        again = read_bytes(played.answered / "rounds")
        del again["000/queries.csv"]
        assert again.items() <= read_bytes(played.asked / "rounds").items()

    def test_answers_arrive_in_each_way(self, played):
        log = read_csv(played.workdir / "labels.csv")
        sources = {"rounds/000/queries.csv", "labels/late.csv", "labels/copy.csv"}
        sources |= {"labels/export-0.json", "labels/export-2.json"}
        assert sources < set(log.source)
        assert {f"labels/{colour}/of {name}" for name, colour in played.truth.items()} > set(log.source) - sources
        answered = log[log.label != ""]
        assert set(answered.file_name) == set(played.truth) - {queries_of(played.workdir, 1).file_name[0]}
        assert (answered.label == answered.file_name.map(played.truth)).all()
        assert not len(read_csv(played.workdir / "refused.csv"))

    def test_no_image_is_asked_twice_and_the_slice_stays(self, played):
        asked = [queries_of(played.workdir, index) for index in range(4)]
        assert [len(each) for each in asked] == [30, 18, 12, 0]
        every = pd.concat(asked)
        assert every.id.is_unique
        assert is_audit(every).sum() == 20
        audit = set(every.id[is_audit(every)])
        for index in range(1, 4):
            predictions = read_csv(played.workdir / f"rounds/{index:03d}/predictions.csv")
            assert set(predictions.id[predictions.audit == "yes"]) == audit

    def test_the_slice_is_never_trained_on(self, played):
        queries = queries_of(played.workdir, 0)
        known = queries.file_name[~is_audit(queries)].map(played.truth)
        assert record_of(played.workdir, 1)["counts"] == {each: (known == each).sum() for each in ("green", "red")}
        # One of those that round 1 asked is skipped.
        assert [record_of(played.workdir, index)["num_labels"] for index in (2, 3)] == [27, 39]

    def test_predictions_of_all_images(self, played):
        assert not (played.workdir / "rounds/000/predictions.csv").exists()
        for index in range(1, 4):
            predictions = read_csv(played.workdir / f"rounds/{index:03d}/predictions.csv")
            assert set(predictions.file_name) == set(played.truth)
            assert predictions.confidence.astype(float).between(1 / 3, 1).all()
        assert (predictions.prediction == predictions.file_name.map(played.truth)).mean() > 0.9
        assert (predictions.label != "").sum() == 59

    def test_confusion(self, played):
        """The slice's images by their colours, and those of each colour that were predicted as it."""
        confusion = read_csv(played.workdir / "rounds/003/confusion.csv").set_index("label")
        assert confusion.index.tolist() == sorted(COLOURS)
        counts = confusion[[f"predicted {colour}" for colour in sorted(COLOURS)]].astype(int)
        audit = queries_of(played.workdir, 0)
        expected = Counter(audit.file_name[is_audit(audit)].map(played.truth))
        assert counts.sum(axis=1).to_dict() == expected
        predictions = read_csv(played.workdir / "rounds/003/predictions.csv")
        is_blue = (predictions.audit == "yes") & (predictions.label == "blue")
        hits = (predictions.prediction[is_blue] == "blue").mean()
        assert float(confusion.recall["blue"]) == pytest.approx(hits, abs=1e-6)
        assert (confusion.loc[:, "recall_low"].astype(float) <= confusion.recall.astype(float)).all()
        assert not (played.workdir / "rounds/000/confusion.csv").exists()

    def test_tasks_carry_predictions_but_not_of_the_slice(self, played):
        first, second = (
            json.loads((played.workdir / f"rounds/{index:03d}/label_studio.json").read_text()) for index in (0, 1)
        )
        assert not any(task["predictions"] for task in first)
        assert all(task["predictions"] for task in second)
        assert [task["data"]["latent_al_id"] for task in first] == queries_of(played.workdir, 0).id.tolist()
        assert [task["data"]["file_name"] for task in second] == queries_of(played.workdir, 1).file_name.tolist()

    def test_what_is_said(self, played):
        _, _, one, two, three = played.said
        assert "New classes: blue." in two
        assert "1 skipped" in two
        for said in (one, two):
            assert re.search(
                r"accuracy     unknown: [0-9] of 20 audit images are labelled in the order of the slice", said
            )
        assert re.search(r"accuracy     [0-9.]+ % \[[0-9.]+, [0-9.]+\] on 20 of 20 audit images\n", three)
        first = queries_of(played.workdir, 0)
        not_trained_on = {*first.file_name[is_audit(first)], queries_of(played.workdir, 1).file_name[0]}
        counts = Counter(colour for name, colour in played.truth.items() if name not in not_trained_on)
        by_class = ", ".join(f"{colour} {counts[colour]}" for colour in sorted(counts))
        assert f"trained on   39 labels: {by_class}\n" in three
        assert re.search(r"confidence   in predictions.csv is calibrated, off by [0-9.]+ points \[.*\]\n", three)
        assert "next batch   would add" in three
        assert re.search(r"strategy     the first 16 chosen are .* ahead of random", three)
        # 14 of 20 would show it.
        assert "  target       50 % reached with 95 % confidence\n" in three
        assert three.endswith("Nothing is left to ask about: every image is labelled or skipped.\n")

    def test_progress(self, played):
        progress = pd.read_csv(played.workdir / "progress.csv")
        assert progress["round"].tolist() == [0, 1, 2, 3]
        assert progress.num_queries.tolist() == [10, 18, 12, 0]
        assert progress.accuracy.iloc[-1] > 0.9
        # The answers before left blue out.
        assert progress.accuracy[:3].isna().all()
        assert progress.low.iloc[-1] < progress.accuracy.iloc[-1]


@pytest.mark.slow
def test_the_slice_is_enlarged_by_a_class(played, tmp_path):
    workdir = shutil.copytree(played.asked, tmp_path / "job")
    answer(workdir, 0, lambda query: played.truth[query.file_name])
    call(played.images, workdir, query_size=2)
    settings = dict(query_size=2, audit_by_class={"green": 16})
    said = call(played.images, workdir, **settings)
    assert "Audit slice: 16 of the " in said
    assert "the images that the slice was enlarged by do not count yet: " in said
    strata = read_csv(workdir / "audit_strata.csv")
    before, after = (read_csv(workdir / f"rounds/00{index}/predictions.csv").set_index("id") for index in (1, 2))
    assert set(strata.id) == set(before.index[before.prediction == "green"])
    assert (after.audit[strata.id] == "yes").sum() == 16
    assert "audit: drawn at random of those predicted as green, to measure accuracy" in set(
        queries_of(workdir, 2).reason
    )
    # What moves into the slice leaves the training set.
    assert ((before.label != "") & (before.audit == "") & (after.audit == "yes")).any()
    assert record_of(workdir, 2)["num_labels"] == ((after.label != "") & (after.audit == "")).sum()
    for index in (1, 2):
        answer(workdir, index, lambda query: played.truth[query.file_name], to=f"{index}.csv")
    said = call(played.images, workdir, **settings)
    assert "Audit slice" not in said
    num = (read_csv(workdir / "rounds/003/predictions.csv").query("audit == 'yes'").label != "").sum()
    assert record_of(workdir, 3)["slice"]["enlarged"] == dict(num=num, reason="")
    assert f"weighted, on {num} audit images\n" in said
    # Of the whole pool the random slice alone is a sample.
    assert "on 20 of 20 audit images" in said
    with pytest.raises(BadInput, match="no image is predicted as 'pink' in .*; choose among blue, green"):
        call(played.images, workdir, audit_by_class={"pink": 3})
    with pytest.raises(BadInput, match="audit_by_class is {'blue': 0}; expected 1 or more images of each class"):
        call(played.images, workdir, audit_by_class={"blue": 0})


def test_a_slice_cannot_be_enlarged_before_there_are_predictions(played, tmp_path):
    workdir = shutil.copytree(played.asked, tmp_path / "job")
    with pytest.raises(BadInput, match="predicted as 'red', but no round has predictions yet; label images of two"):
        call(played.images, workdir, audit_by_class={"red": 3})


def test_a_round_that_is_cut_off_is_made_again(played, tmp_path, monkeypatch):
    """Once the disk is full before the answers are taken in, once it is while the round is written."""
    workdir = tmp_path / "job"
    shutil.copytree(played.answered, workdir)
    before = read_bytes(played.answered / "rounds")
    with full_disk(1000), pytest.raises(BadInput, match=r"cannot be read or written \(File too large\); make room"):
        call(played.images, workdir, query_size=18)
    assert not (workdir / "labels.csv").exists()
    assert read_bytes(workdir / "rounds") == before

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rounds.sheets, "latent_map", interrupt)
        with pytest.raises(KeyboardInterrupt):
            call(played.images, workdir, query_size=18)
    assert (workdir / "rounds/.001.partial/queries.csv").exists()
    assert not (workdir / "rounds/001").exists()
    log = (workdir / "labels.csv").read_bytes()
    with full_disk(60_000), pytest.raises(BadInput, match=r"cannot be read or written \(File too large\); make room"):
        call(played.images, workdir, query_size=18)
    assert (workdir / "labels.csv").read_bytes() == log
    assert "Round 001" in call(played.images, workdir, query_size=18)
    assert (workdir / "labels.csv").read_bytes() == log
    assert not (workdir / "rounds/.001.partial").exists()
    made = read_bytes(workdir / "rounds")
    assert made.items() <= read_bytes(played.workdir / "rounds").items()
    assert "001/predictions.csv" in made


@contextlib.contextmanager
def full_disk(size):
    """No file grows beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with warnings.catch_warnings():
            # The compiled programs find no room either, which is no error.
            warnings.filterwarnings("ignore", "Error writing persistent compilation cache")
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_images_come_go_and_change(played, tmp_path):
    """On the encoder that was trained before they did; with one class known, nothing is trained."""
    images, workdir = tmp_path / "images", tmp_path / "job"
    shutil.copytree(played.images, images)
    shutil.copytree(played.asked, workdir)
    latents = read_bytes(workdir / "encoder/latents")
    queries, before = queries_of(workdir, 0), read_csv(workdir / "manifest.csv")
    labelled, unlabelled, changed = queries.file_name[:3]
    unasked = next(name for name in played.truth if name not in set(queries.file_name))
    answer(workdir, 0, lambda query: "" if query.file_name == unlabelled else "red")
    for name in (labelled, unlabelled, unasked):
        (images / name).unlink()
    draw(images, range(60, 90))
    (images / changed).write_bytes((images / "89.png").read_bytes() + b" ")
    said = call(images, workdir, initial=dict(name="random"), query_size=100)
    assert "87 images, 31 new since the last scan, 3 removed, 1 changed" in said
    assert f"{changed} has changed since it was asked for" in said
    assert "28 new answers: 8 labelled, 20 of " in said
    assert " 0 open, 0 tied, 0 skipped." in said
    table = read_csv(workdir / "manifest.csv").set_index("file_name", drop=False)
    assert table.id[:60].tolist() == before.id.tolist()
    assert table.status[[labelled, unlabelled, unasked]].tolist() == ["removed"] * 3
    now = read_bytes(workdir / "encoder/latents")
    assert len(now) == 2
    assert latents.items() < now.items()
    asked = queries_of(workdir, 1)
    assert set(asked.file_name) == set(table.file_name[table.status == "present"]) - set(queries.file_name) | {changed}
    assert asked.id[asked.file_name == changed].item() not in set(queries.id)
    joined = asked[asked.file_name > "59.png"]
    assert 0 < is_audit(joined).sum() < 30
    old = asked[asked.file_name < "60.png"]
    assert set(old.file_name[is_audit(old)]) <= {changed}
    record = record_of(workdir, 1)
    assert record["num_labels"] == 8
    assert set(record["audit"]) == set(asked.id[is_audit(asked)])


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(encoder__latent_dim=5), r"encoder.latent_dim: there 4, now 5\); choose another --workdir"),
        (dict(seed=1), r"holds another experiment \(seed: there 0, now 1\)"),
        (dict(data__size=(16, 16)), "config.data.size or config.data.channels was changed"),
        (dict(audit=19), "audit is 19, but .* was made with 20"),
    ],
)
def test_what_a_job_keeps(changes, message, played):
    before = read_bytes(played.asked)
    with pytest.raises(BadInput, match=message):
        call(played.images, played.asked, **changes)
    assert read_bytes(played.asked) == before


def test_what_a_job_may_change(played):
    said = call(played.images, played.asked, query_size=3, num_initial=7, strategy=dict(name="random"))
    assert "No new labels since round 000." in said


@pytest.mark.slow
def test_the_command(played, tmp_path):
    flags = ["--config=configs/folder.py:smoke", f"--config.data.root={played.images}", f"--workdir={tmp_path}"]
    assert "To train the encoder" in succeed(*flags)
    assert "No new labels since round 000." in succeed(*flags)


def test_a_job_of_another_format_is_refused(played, tmp_path):
    shutil.copytree(played.asked, tmp_path / "job")
    kept = json.loads((tmp_path / "job/config.json").read_text())
    del kept["format"]
    (tmp_path / "job/config.json").write_text(json.dumps(kept))
    with pytest.raises(BadInput, match="was begun by another version of latent_al, with format None"):
        call(played.images, tmp_path / "job")
