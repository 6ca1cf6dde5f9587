"""Files of labels as they may be damaged: each row is an answer, a refusal or empty, and nothing else happens."""

import json

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latent_al.labelling import ledger
from latent_al.labelling.answers import read_answers
from latent_al.labelling.classes import ClassNames, clean

IDS = [f"sha256:{number:032x}" for number in range(4)]
NAMES = ["a.png", "sub/b.jpg", "caf\u00e9.png", "=d.png"]
TABLE = pd.DataFrame(dict(id=IDS, file_name=NAMES, status="present"))
TIME = "2026-11-20T11:32:49Z"


def task(image, label):
    result = [dict(from_name="choice", to_name="image", type="choices", value={"choices": [label]})]
    return dict(data=dict(latent_al_id=image), annotations=[dict(completed_by=1, result=result, updated_at=TIME)])


FILES = (
    "file_name,label\n" + "".join(f"'{name},cat\n" for name in NAMES),
    "\ufeffid;label;annotator;updated_at\n" + "".join(f"{image};Dog;anna;{TIME}\n" for image in IDS),
    json.dumps([task(image, "cat") for image in IDS]),
    json.dumps([dict(latent_al_id=image, choice="cat", annotator=1, annotation_id=2) for image in IDS]),
    "\n".join(json.dumps(dict(file_name=name, label="cat")) for name in NAMES),
)
PIECES = [text.encode() for text in ("\u200b", "\u00a0", "\ufffe", "cat,dog", "latent_al_id", "1e999", "n/a", "null")]
PIECES += [
    b",",
    b";",
    b'"',
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xe9",
    b"{",
    b"]",
    b"?",
    b"=",
    b"'",
    b"sep=;\n",
    b"\\ud800",
]
ENCODINGS = ("utf-8", "utf-8", "utf-16", "cp1252")


@st.composite
def damaged(draw):
    content = draw(st.sampled_from(FILES)).encode(
        draw(st.sampled_from(["utf-8", "utf-8", "utf-16", "cp1252"])), "replace"
    )
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from([0, 0, 1, 5, 60]))
        content = content[:place] + draw(st.sampled_from([b"", *PIECES])) + content[place + length :]
    return content


def check(folder, content):
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels/x").write_bytes(content)
    (folder / "labels.csv").unlink(missing_ok=True)
    classes = ClassNames((), {}, is_fixed=False)
    answers, refusals = read_answers(folder, TABLE, classes, root_name="photos")
    assert {answer.id for answer in answers} <= set(IDS)
    assert all(answer.label is None or answer.label == clean(answer.label) != "" for answer in answers)
    assert all(refusal.reason and refusal.reason.isprintable() for refusal in refusals)
    log = ledger.read_log(folder)
    accepted = ledger.accept(folder, log, answers, TABLE, classes)
    said = {(answer.id, answer.annotator): answer.label or "" for answer in answers}
    logged = ledger.read_log(folder)
    assert dict(zip(zip(logged.id, logged.annotator, strict=True), logged.label, strict=True)) == said
    assert ledger.resolve(logged, classes) == ledger.resolve(accepted.log, classes)
    again = ledger.accept(folder, logged, answers, TABLE, classes)
    assert (again.num_new, len(again.log)) == (0, len(logged))


QUIET = dict(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(max_examples=150, derandomize=True, **QUIET)
@given(damaged())
def test_damaged_files_of_labels(tmp_path, content):
    check(tmp_path, content)


@pytest.mark.slow
@settings(max_examples=20_000, **QUIET)
@given(damaged())
def test_damaged_files_of_labels_at_random(tmp_path, content):
    check(tmp_path, content)
