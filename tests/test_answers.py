"""Label files of every form become answers, and what is wrong in them is named while the rest is kept."""

import hashlib
import json
import os
from pathlib import Path

import pandas as pd
import pytest

from latent_al.labelling.answers import Answer, read_answers, to_utc
from latent_al.labelling.classes import ClassNames
from latent_al.runtime.files import write_csv

TIME = "2026-11-20T11:32:49.013519Z"
UTC = "2026-11-20T11:32:49.013519+00:00"
LATER = "2026-11-20T12:00:00Z"
PICTURE = b"\x89PNG\r\n\0 a picture"


def to_id(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()[:32]


IDS = [to_id(PICTURE), *(to_id(bytes([row])) for row in range(3))]
NAMES = ["a b.png", "=b.png", 'sub/"c",1\n.png', "é.png"]
TABLE = pd.DataFrame(dict(id=IDS, file_name=NAMES, status=["present", "changed", "removed", "present"]))
SOURCE = "labels/x"


def choice(*labels, control="choice", kind="choices"):
    return dict(from_name=control, to_name="image", type=kind, value={"choices": list(labels)})


def annotation(*results, by=1, skip=False, time=TIME):
    return dict(completed_by=by, result=list(results), was_cancelled=skip, updated_at=time)


def task(image, *annotations):
    predictions = [dict(result=[choice("predicted")])]
    return dict(data=dict(image="/x", latent_al_id=image), annotations=list(annotations), predictions=predictions)


def short(image, label, **more):
    return dict(latent_al_id=image, choice=label, annotator=1, annotation_id=9, updated_at=TIME) | more


def names(classes=()):
    return ClassNames(classes, {}, is_fixed=bool(classes))


@pytest.fixture
def read(tmp_path):
    """Reads one label file of this content."""

    def read(content, classes=(), name="x", **settings):
        (tmp_path / "labels").mkdir(exist_ok=True)
        if isinstance(content, list | dict):
            content = json.dumps(content)
        (tmp_path / "labels" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_answers(tmp_path, TABLE, names(classes), **settings)

    return read


def labels(found):
    answers, refusals = found
    assert not refusals
    return [(answer.id, answer.label) for answer in answers]


def refused(found, kept=0):
    """The row and the reason of the one refusal, beside which so many answers are kept."""
    answers, (refusal,) = found
    assert len(answers) == kept
    assert refusal.source == SOURCE
    return refusal.row, refusal.reason


def test_our_queries_filled_in_place(tmp_path):
    (tmp_path / "rounds/000").mkdir(parents=True)
    table = pd.DataFrame(dict(id=IDS, file_name=NAMES, rank=range(4), label=["=x", " cat ", "?", ""]))
    write_csv(tmp_path / "rounds/000/queries.csv", table)
    answers, refusals = read_answers(tmp_path, TABLE, names())
    assert not refusals
    assert answers == [
        Answer(IDS[0], "=x", "", "", "rounds/000/queries.csv", 2),
        Answer(IDS[1], "cat", "", "", "rounds/000/queries.csv", 3),
        Answer(IDS[2], None, "", "", "rounds/000/queries.csv", 4),
    ]


def test_a_table_by_file_name_counts_rows_as_a_spreadsheet_does(read):
    table = 'label,file_name\nNaCl,\'=b.png\n\n2,"sub/""c"",1\n.png"\n3,other\n1,a b.png\n'
    found = read(table)
    assert [(answer.id, answer.label, answer.row) for answer in found[0]] == [
        (IDS[1], "NaCl", 2),
        (IDS[2], "2", 4),
        (IDS[0], "1", 6),
    ]
    assert refused(found, kept=3)[0] == 5


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_delimiters_and_encodings(read, mark, encoding):
    text = f"file_name{mark} label {mark}rank\r\n é.png\r\né.png{mark}Löwe, ; |\r\n"
    if mark != "\t":
        text = text.replace("Löwe, ; |", '"Löwe, ; |"')
    assert labels(read(text.encode(encoding), encoding="cp1252")) == [(IDS[3], "Löwe, ; |")]


def test_label_studio_csv(read):
    header = "annotation_id,annotator,choice,id,latent_al_id,updated_at\n"
    answers, refusals = read(f'{header}2,"1","cat",7,{IDS[0]},"{TIME}"\n"","","",8,{IDS[1]},""\n"","","",9,"",""\n')
    assert not refusals
    assert answers == [Answer(IDS[0], "cat", "1", UTC, SOURCE, 2)]
    row, reason = refused(read(f'{header}2,1,"{{""choices"": [""cat"", ""dog""]}}",7,{IDS[0]},{TIME}\n'))
    assert row == 2
    assert '"cat", "dog"' in reason


def test_label_studio_json(read):
    answers, refusals = read(
        [
            task(IDS[0], annotation(choice("cat")), annotation(choice("dog"), by={"email": "a@b", "id": 2})),
            task(IDS[1], annotation(skip=True, by="anna")),
            task(IDS[2], annotation(), annotation(choice())),
            task(IDS[3]),
        ]
    )
    assert not refusals
    assert answers == [
        Answer(IDS[0], "cat", "1", UTC, SOURCE, 1),
        Answer(IDS[0], "dog", "a@b", UTC, SOURCE, 1),
        Answer(IDS[1], None, "anna", UTC, SOURCE, 2),
    ]


def test_the_seconds_that_an_answer_took(read):
    """Label Studio has them in each form of its exports; what is none costs no answer."""
    header = "annotation_id,annotator,choice,id,latent_al_id,updated_at,lead_time\n"
    files = (
        [task(IDS[0], annotation(choice("cat")) | dict(lead_time=2.5))],
        [short(IDS[0], "cat") | dict(lead_time=2.5)],
        f"{header}2,1,cat,7,{IDS[0]},{TIME},2.5\n",
    )
    for file in files:
        assert read(file)[0][0].lead_time == "2.5"
    for wrong in (-1, float("nan"), "soon", None):
        answers, refusals = read([short(IDS[0], "cat") | dict(lead_time=wrong)])
        assert (answers[0].lead_time, refusals) == ("", [])


@pytest.mark.parametrize(
    "results, named",
    [
        ([choice("cat", control="kind")], "'kind'"),
        ([choice("cat", kind="taxonomy")], "'taxonomy'"),
        ([choice("x", control="why", kind="textarea")], "'textarea'"),
        ([choice("cat", "dog")], "'cat', 'dog'"),
        ([choice(1)], "label 1"),
        ([choice("ca\nt")], r"'ca\\nt'"),
        (["cat"], "None"),
    ],
)
def test_an_annotation_that_is_not_one_choice_is_refused_alone(read, results, named):
    row, reason = refused(read([task(IDS[0], annotation(choice("cat"))), task(IDS[1], annotation(*results))]), kept=1)
    assert row == 2
    assert named.replace("\\\\", "\\") in reason


def test_label_studio_json_min(read):
    found = read([short(IDS[0], "cat"), short(IDS[1], {"choices": ["dog"]}), dict(latent_al_id=IDS[2], annotator=None)])
    assert found == (
        [Answer(IDS[0], "cat", "1", UTC, SOURCE, 1), Answer(IDS[1], "dog", "1", UTC, SOURCE, 2)],
        [],
    )
    row, reason = refused(read([short(IDS[0], "cat"), short(IDS[1], {"choices": ["cat", "dog"]})]), kept=1)
    assert row == 2
    assert "'cat', 'dog'" in reason


def test_a_json_min_of_another_control_names_its_keys(read):
    tasks = [dict(latent_al_id=image, kind="cat", annotation_id=1) for image in IDS]
    row, reason = refused(read(tasks))
    assert row is None
    assert "'kind'" in reason
    assert "'choice'" in reason


@pytest.mark.parametrize(
    "content, named",
    [
        ([dict(data=dict(latent_al_id=IDS[0]), predictions=[])], "no annotations"),
        ([task(IDS[0])], "no annotations"),
        ([], "no annotations"),
        ([dict(name="x")], "'name'"),
        ({"a": 1}, "not a list of tasks"),
        ('[{"data": 1},\n {"da', "line 2 column 3"),
        ("[" * 100_000, "export it again"),
        (b"GIF \0 another image", "neither text nor an image of this pool"),
        ("", "first line is ''"),
        ("file_name,kind\na,b\n", "'file_name,kind'"),
        (b"PK\x03\x04 a table", "save the table as CSV UTF-8"),
        ("id,label\n\xe9,1\n".encode("cp1252"), "--config.encoding=cp1252, cp1250, cp1251, gbk"),
        ("id,label,choice\n", "label, choice"),
        ("id,id,label\n", "id, id"),
        (f'id,label\n{IDS[0]},cat\n{IDS[1]},"dog\n', "row 3"),
        (b"id,label\n\x81\n", "not text in UTF-8"),
        ("id,label\nx,cat\ny,dog\n", "labels of other images"),
        ([task("x", annotation(choice("cat")))], "labels of other images"),
        ([short(None, "cat")], "labels of other images"),
    ],
)
def test_a_file_of_no_use_is_refused_as_a_whole(read, content, named):
    row, reason = refused(read(content))
    assert row is None
    assert named in reason


@pytest.mark.parametrize(
    "cells, named",
    [
        ("x,dog,,", "'x' names no image of this pool"),
        (",dog,,", "'' names no image of this pool"),
        (f"{IDS[1]},dgo,,", "nearest is 'dog'; expected one of cat, dog"),
        (f"{IDS[1]},dog,,20/11/2026", "ISO 8601"),
        (f"{IDS[1]},dog,,,more", "more cells"),
    ],
)
def test_a_wrong_row_is_refused_alone(read, cells, named):
    found = read(f"id,label,annotator,updated_at\n\n{cells}\n{IDS[0]},cat,anna,{TIME},\n", classes=["cat", "dog"])
    row, reason = refused(found, kept=1)
    assert row == 3
    assert named in reason


def test_one_file_that_answers_twice(read):
    header = "id,label,annotator,updated_at\n"
    assert labels(read(f"{header}{IDS[0]},cat\n{IDS[0]},cat \n")) == [(IDS[0], "cat")]
    newest = f"{header}{IDS[0]},dog,,{LATER}\n{IDS[0]},cat,,{TIME}\n"
    assert labels(read(newest)) == [(IDS[0], "dog")]
    for times in [("", ""), (TIME, ""), (TIME, TIME)]:
        rows = [f"{IDS[0]},{label},,{time}\n" for label, time in zip(["cat", "dog"], times, strict=True)]
        answers, refusals = read(header + "".join(rows) + f"{IDS[0]},cat,anna,\n")
        assert [answer.annotator for answer in answers] == ["anna"]
        assert [refusal.row for refusal in refusals] == [2, 3]
        assert "cat (labels/x, row 2), dog (labels/x, row 3)" in refusals[0].reason


def test_images_in_class_folders(tmp_path):
    for name in ["1/renamed", "cat/.hidden", "dog/x.json.partial"]:
        (tmp_path / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "labels" / name).write_bytes(PICTURE)
    assert read_answers(tmp_path, TABLE, names()) == ([Answer(IDS[0], "1", "", "", "labels/1/renamed", 0)], [])
    (tmp_path / "labels/dog/copy.png").write_bytes(PICTURE)
    answers, refusals = read_answers(tmp_path, TABLE, names())
    assert not answers
    assert [refusal.source for refusal in refusals] == ["labels/1/renamed", "labels/dog/copy.png"]


def test_an_image_in_a_folder_within_that_of_a_class_is_refused(tmp_path):
    pictures = {"anna/cat/x": b"1", "anna/cat/blurred/y": b"2", "dog/small/z": b"3"}
    for name, content in pictures.items():
        (tmp_path / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "labels" / name).write_bytes(content)
    ids = [to_id(content) for content in (*pictures.values(), PICTURE)]
    answers, (refusal,) = read_answers(tmp_path, TABLE.assign(id=ids), names())
    assert [(answer.id, answer.label) for answer in answers] == [(ids[0], "cat"), (ids[2], "small")]
    assert refusal.source == "labels/anna/cat/blurred/y"
    assert "inside that of class cat; move it to labels/anna/cat/, or move blurred/ to labels/." in refusal.reason


def test_an_image_outside_of_class_folders_or_of_another_class_is_refused(read):
    assert "labels/CLASS/" in refused(read(PICTURE))[1]
    assert "neither text nor an image of this pool" in refused(read(PICTURE + b"edited"))[1]


def test_a_link_to_a_folder_is_refused_and_no_file_beside_it(tmp_path, read):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/x").symlink_to(tmp_path / "images")
    assert "link" in refused(read(f"id,label\n{IDS[0]},cat\n", name="y"), kept=1)[1]


def test_labels_that_look_alike_are_one_class(read):
    assert labels(read("file_name,label\né.png,e\u0301\u00a0\n", classes=["é"])) == [(IDS[3], "é")]


def test_a_name_that_had_two_contents_means_the_old_one(tmp_path, read):
    table = pd.DataFrame(dict(id=["new", "old"], file_name=["a", "a"], status=["present", "changed"]))
    read("file_name,label\na,cat\n")
    assert [answer.id for answer in read_answers(tmp_path, table, names())[0]] == ["old"]


@pytest.mark.parametrize(
    "content",
    [
        "File_Name,Class\na b.png,cat\n",
        "\n \nfilename,label\na b.png,cat\n",
        "sep=;\nimage;label\na b.png;cat\n",
        '{"file_name": "a b.png", "label": "cat"}\n{"file_name": "\u00e9.png", "label": null}\n',
        [dict(file_name="a b.png", label="cat"), dict(file_name="other.png", label="")],
        '{"file_name": "a b.png", "label": "cat"}\n',
        '{"file_name": "a b.png", "label": "cat", "note": "\u2028\u0085"}\r\n{"file_name": "=b.png", "label": ""}\r\n',
        "path,label\nphotos/a%20b.png,cat\n".encode("utf-16-le"),
        [task(None, annotation(choice("cat"))) | dict(data=dict(image="/data/upload/3/0fa12b3c-a_b.png"))],
        [task(None, annotation(choice("cat"))) | dict(data=dict(picture="/data/local-files/?d=photos/a%20b.png"))],
        "annotation_id,annotator,choice,id,image\n1,,cat,7,/data/upload/3/0fa12b3c-a_b.png\n",
        [task(IDS[0], annotation(choice("cat"), choice("why", control="comment", kind="textarea")))],
    ],
)
def test_tables_that_people_have(read, content):
    (answer,), refusals = read(content, root_name="photos")
    assert not refusals
    assert (answer.id, answer.label) == (IDS[0], "cat")


COUNTED = pd.DataFrame(dict(id=IDS, file_name=["1.png", "2.png", "cat.png", "3.png"], status="present"))
LOCAL = "/data/local-files/?d=photos/{}.png"


@pytest.mark.parametrize(
    "content",
    [
        f"annotation_id,annotator,choice,id,image\n9,1,cat,1,{LOCAL.format(2)}\n",
        "id,file_name,label\n1,2.png,cat\n",
        [dict(id="1", file_name="2.png", label="cat")],
        [dict(id=1, annotations=[annotation(choice("cat"))], data=dict(id="1", caption="cat", image=LOCAL.format(2)))],
    ],
)
def test_what_counts_rows_names_no_image(tmp_path, read, content):
    """Though there is a file of that name, as of the caption."""
    read(content)
    answers, refusals = read_answers(tmp_path, COUNTED, names(), root_name="photos")
    assert [(answer.id, answer.label) for answer in answers] == [(IDS[1], "cat")]
    assert not refusals


@pytest.mark.parametrize(
    "content, kept",
    [
        ("id,file_name,label\n1,other.png,cat\n1,2.png,cat\n", 1),
        ("path,file,label\ncat.png,1.png,cat\n,2.png,cat\n", 1),
        ([dict(data=dict(caption="cat", image=LOCAL.format(4)), annotations=[annotation(choice("cat"))])], 0),
        ([dict(data=dict(caption="cat", picture=LOCAL.format(2)), annotations=[annotation(choice("cat"))])], 0),
    ],
)
def test_a_row_that_may_mean_another_image_is_refused(tmp_path, read, content, kept):
    read(content)
    refused(read_answers(tmp_path, COUNTED, names(), root_name="photos"), kept=kept)


def test_an_image_may_be_named_by_its_number_alone(tmp_path, read):
    read("id,label\n1,cat\n")
    assert [answer.id for answer in read_answers(tmp_path, COUNTED, names())[0]] == [IDS[0]]


def test_the_row_is_that_of_the_spreadsheet(read):
    row, reason = refused(read("sep=,\n\nfile_name,label\na b.png,cat\nx,dog\n"), kept=1)
    assert row == 5
    assert reason.startswith("'x' names no image of this pool, or several; an image here is '=b.png'")


def test_what_is_marked_as_ground_truth_stands_alone(read):
    marked = annotation(choice("dog"), by=2) | dict(ground_truth=True)
    (answer,), _ = read([task(IDS[0], annotation(choice("cat")), marked)])
    assert (answer.label, answer.annotator) == ("dog", "ground truth")


def test_lists_of_classes_are_refused(read):
    found = read('file_name,label\na b.png,"cat,dog"\n=b.png,cat\n\u00e9.png,dog\n')
    row, reason = refused(found, kept=2)
    assert (row, reason) == (2, "label 'cat,dog' lists 2 classes; expected one; keep one.")


def test_a_table_beside_the_queries_is_not_passed_over_in_silence(tmp_path):
    (tmp_path / "rounds/000").mkdir(parents=True)
    for name in ("queries.csv", "queries.xlsx", "queries (copy).csv", "queries.csv~"):
        (tmp_path / "rounds/000" / name).write_text("file_name,label\na b.png,cat\n")
    answers, refusals = read_answers(tmp_path, TABLE, names())
    assert [answer.source for answer in answers] == ["rounds/000/queries.csv"]
    assert [refusal.source for refusal in refusals] == ["rounds/000/queries (copy).csv", "rounds/000/queries.xlsx"]
    assert "put it into labels/ as CSV, or remove it" in refusals[0].reason


def test_files_of_other_programs_are_passed_over(read):
    assert read(b"\0", name="Thumbs.db") == read("[x]", name="desktop.ini") == ([], [])


@pytest.mark.parametrize("encoding", ["gbk", "shift_jis", "cp1250", "cp1251"])
def test_other_encodings_are_refused_until_they_are_named(read, encoding):
    name = {"gbk": "\u72d7", "shift_jis": "\u732b", "cp1250": "ko\u010dka", "cp1251": "\u043a\u043e\u0442"}[encoding]
    content = f"file_name,label\na b.png,{name}\n".encode(encoding)
    assert "is not text in UTF-8 or UTF-16" in refused(read(content))[1]
    assert labels(read(content, encoding=encoding)) == [(IDS[0], name)]


def test_times_are_utc_where_they_name_a_zone():
    assert to_utc("2026-11-20T13:32:49+02:00") == "2026-11-20T11:32:49.000000+00:00"
    assert to_utc("2026-11-20 11:32:49") == "2026-11-20T11:32:49.000000"


def test_real_exports_of_label_studio(tmp_path):
    folder = Path(os.environ.get("LATENT_AL_TEST_DATA", "")).parent / "fixtures" / "label_studio"
    if "LATENT_AL_TEST_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("LATENT_AL_TEST_DATA is not set to a folder beside fixtures/label_studio")
    (tmp_path / "labels").symlink_to(folder)
    table = pd.DataFrame(dict(id=["img_0", "img_1"], file_name=["0", "1"], status="present"))
    answers, refusals = read_answers(tmp_path, table, names(["cat", "dog"]))
    assert {(answer.id, answer.label, answer.annotator) for answer in answers} == {
        ("img_0", "cat", "1"),
        ("img_1", None, "1"),
    }
    # One task had been imported without our id.
    assert len(answers) == 4
    assert [Path(refusal.source).suffix for refusal in refusals] == [".csv", ".json", ".json"]
    assert {refusal.row for refusal in refusals} == {2, 3}
