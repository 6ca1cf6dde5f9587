"""The log of answers only grows, and each image's label is derived from it."""

import pandas as pd
import pytest

from latent_al.labelling import ledger
from latent_al.labelling.answers import Answer, Refusal
from latent_al.labelling.classes import ClassNames
from latent_al.labelling.ledger import LOG, accept, num_answered, read_log, write_refused
from latent_al.runtime.files import read_csv
from latent_al.types import BadInput

NAMES = ["=1\r2.png", "photos/b.jpg", "c,d.png"]
TABLE = pd.DataFrame(dict(id=["a", "b", "c"], file_name=NAMES, status="present"))


def at(hour):
    return f"2026-11-20T{hour:02d}:00:00.000000+00:00"


def resolve(log):
    return ledger.resolve(log, ClassNames((), {}, is_fixed=False))


def answer(label, id="b", annotator="", time="", source="labels/x.csv", row=2):
    return Answer(id, label, annotator, time, source, row)


@pytest.fixture
def hear(tmp_path):
    """Accepts these answers; what was logged before must stay as it is."""
    path = tmp_path / "labels.csv"

    def hear(*answers, table=TABLE):
        before = path.read_bytes() if path.exists() else b""
        accepted = accept(tmp_path, read_log(tmp_path), answers, table, ClassNames((), {}, is_fixed=False))
        assert (path.read_bytes() if path.exists() else b"").startswith(before)
        return accepted

    return hear


def test_a_log_begins_grows_and_is_read_back(tmp_path, hear):
    assert hear().num_new == 0
    assert not (tmp_path / "labels.csv").exists()
    first = [answer("NA", annotator="é 猫"), answer(None, "c", time=at(1), row=7)]
    accepted = hear(*first)
    assert (accepted.num_new, accepted.changes, accepted.refused) == (2, [], [])
    assert tuple(accepted.log.columns) == LOG
    assert accepted.log["label"].tolist() == ["NA", ""]
    assert hear(*first).num_new == 0
    accepted = hear(*first, answer("=x", "a"), answer("1", "c", annotator="x", source='two\n"lines"'))
    assert accepted.num_new == 2
    pd.testing.assert_frame_equal(accepted.log, read_csv(tmp_path / "labels.csv"))
    assert accepted.log.iloc[1].tolist() == ["c", NAMES[2], "", "", at(1), "labels/x.csv", "7", "", at(1), ""]


def test_a_newer_label_replaces_and_is_told(hear):
    hear(answer("cat"))
    accepted = hear(answer("dog", source="labels/y.json", row=3))
    assert accepted.changes == ["photos/b.jpg: cat -> dog (labels/y.json, row 3)"]
    assert accepted.log["was"].tolist() == ["", "cat"]
    # The first file still says what it said.
    assert hear(answer("cat"), answer("dog", source="labels/y.json", row=3)).num_new == 0
    assert resolve(accepted.log).labels == {"b": "dog"}
    accepted = hear(answer(None))
    assert accepted.changes == ["photos/b.jpg: dog -> skipped (labels/x.csv, row 2)"]
    assert resolve(accepted.log) == ({}, {"b"}, {})
    assert hear(answer("cat")).changes == []
    assert resolve(hear().log).labels == {"b": "cat"}


def test_an_old_file_overrules_nothing(hear):
    hear(answer("dog", time=at(2)))
    accepted = hear(answer("cat", time=at(1)), answer("cow", time=at(1), source="labels/y.csv"))
    assert (accepted.num_new, accepted.changes) == (2, [])
    assert resolve(accepted.log).labels == {"b": "dog"}
    # Said again, and later than another file said otherwise.
    assert resolve(hear(answer("cow", time=at(3), source="labels/y.csv")).log).labels == {"b": "cow"}
    assert resolve(hear(answer("dog", time=at(4))).log).labels == {"b": "dog"}


def test_the_same_export_under_another_name_says_nothing_new(hear):
    hear(answer("dog", time=at(2), annotator="anna"))
    again = answer("dog", time=at(2), source="labels/again.json", annotator="anna")
    assert hear(again).num_new == 0
    assert hear(again._replace(annotator="bob")).num_new == 1
    assert len(hear(again._replace(time=at(3))).log) == 3


def test_a_copy_of_a_file_is_logged_but_says_nothing_new(hear):
    hear(answer("dog"))
    accepted = hear(answer("dog"), answer("dog", source="labels/copy.csv"))
    assert (accepted.num_new, len(accepted.log), num_answered(accepted.log)) == (0, 2, 1)
    assert hear(answer("cat"), answer("dog", source="labels/copy.csv")).num_new == 1
    accepted = hear(answer("cat"), answer("dog", source="labels/copy.csv"))
    assert (accepted.num_new, resolve(accepted.log).labels) == (0, {"b": "cat"})


def test_a_name_means_what_it_meant_when_it_was_first_read(hear):
    """The images b and c have swapped names since a file labelled them by name."""
    said = [answer("cat")._replace(file_name=NAMES[1]), answer("dog", "c", row=3)._replace(file_name=NAMES[2])]
    hear(*said)
    swapped = TABLE.assign(file_name=[NAMES[0], NAMES[2], NAMES[1]])
    again = [said[0]._replace(id="c"), said[1]._replace(id="b")]
    accepted = hear(*again, table=swapped)
    assert (accepted.num_new, accepted.changes) == (0, [])
    assert resolve(accepted.log).labels == {"b": "cat", "c": "dog"}


def test_a_name_means_what_it_meant_after_a_correction_and_where_it_was_a_duplicate(hear):
    """The images b and c have swapped names; of the row of b the label is corrected. A copy of a has new content."""
    first, second, copy = (
        answer("cat", image, row=row)._replace(file_name=name)
        for row, (image, name) in enumerate([("b", NAMES[1]), ("c", NAMES[2]), ("a", "copy.png")], 2)
    )
    hear(first, second, copy)
    table = pd.concat([TABLE, pd.DataFrame(dict(id=["d"], file_name="copy.png", status="present"))])
    table["file_name"] = [NAMES[0], NAMES[2], NAMES[1], "copy.png"]
    again = [first._replace(id="c", label="dog"), second._replace(id="b"), copy._replace(id="d")]
    accepted = hear(*again, table=table)
    assert (accepted.num_new, resolve(accepted.log).labels) == (1, {"a": "cat", "b": "dog", "c": "cat"})
    assert hear(*again, table=table).num_new == 0


def test_a_log_may_have_images_that_the_pool_has_not(hear):
    """As in a new workdir, where the file of b has other content; its row is corrected."""
    hear(answer("cat")._replace(file_name=NAMES[1]))
    accepted = hear(answer("dog", "d")._replace(file_name=NAMES[1]), table=TABLE.assign(id=["a", "d", "c"]))
    assert accepted.changes == ["photos/b.jpg: cat -> dog (labels/x.csv, row 2)"]
    assert resolve(accepted.log).labels == {"b": "dog"}


def test_an_image_moved_between_class_folders_and_back(hear):
    folders = ["labels/cat/b.jpg", "labels/dog/b.jpg", "labels/cat/b.jpg"]
    accepted = [hear(answer(folder.split("/")[1], source=folder, row=0)) for folder in folders]
    assert [more.num_new for more in accepted] == [1, 1, 1]
    assert accepted[2].changes == ["photos/b.jpg: dog -> cat (labels/cat/b.jpg)"]
    assert resolve(accepted[2].log).labels == {"b": "cat"}


def test_a_file_with_other_content_takes_no_new_answer_but_keeps_the_old(hear):
    changed = TABLE.assign(status=["present", "changed", "removed"])
    old = answer("cat")
    hear(old)
    accepted = hear(old, answer("dog", source="labels/y.csv"), answer("cow", "c"), table=changed)
    assert accepted.log["label"].tolist() == ["cat", "cow"]
    (refusal,) = accepted.refused
    assert (refusal.source, refusal.row) == ("labels/y.csv", 2)
    assert refusal.reason.startswith("photos/b.jpg has changed since it was asked for")


@pytest.mark.parametrize(
    "said, label, tied",
    [
        ([("x", "cat", 1), ("y", "cat", 2), ("z", "dog", 3)], "cat", None),
        ([("x", "cat", 1), ("y", "dog", 2)], None, "cat 1, dog 1"),
        (
            [("x", "dog", 1), ("y", "cat", 2), ("z", "dog", 3), ("u", "cat", 4), ("v", "=1", 5)],
            None,
            "cat 2, dog 2, =1 1",
        ),
        ([("x", "cat", 1), ("y", "dog", 2), ("x", "dog", 3)], "dog", None),
        ([("x", "cat", 1), ("y", "dog", 2), ("z", "dog", 3)], "dog", None),
        ([("x", "cat", 1), ("y", None, 2)], "cat", None),
        ([("x", "cat", 1), ("x", None, 2), ("y", "dog", 3)], "dog", None),
        ([("x", None, 1), ("x", "cat", 2)], "cat", None),
        ([("x", "cat", 2), ("x", "dog", 1)], "cat", None),
        ([("x", "cat", 1), ("x", "dog", 1)], "dog", None),
        ([("x", None, 1), ("y", None, 2)], None, None),
    ],
)
def test_what_several_annotators_said(said, label, tied):
    rows = [("b", "", name or "", who, at(hour), "", "", "", "", "") for who, name, hour in said]
    log = pd.DataFrame(rows, columns=LOG)
    found = resolve(log)
    assert found.labels == ({"b": label} if label else {})
    assert found.tied == ({"b": tied} if tied else {})
    assert found.skipped == ({"b"} if not label and not tied else set())


def test_times_without_a_zone_come_after_what_the_log_holds(hear):
    hear(answer("cat", time="2999-01-01T00:00:00.000000"))
    accepted = hear(answer("dog", source="labels/y.csv"))
    assert accepted.changes == ["photos/b.jpg: cat -> dog (labels/y.csv, row 2)"]
    # An old export under another name says nothing new.
    again = answer("cat", time="2999-01-01T00:00:00.000000", source="labels/z.csv")
    assert hear(again).num_new == 0
    accepted = hear(answer("cow", time="2026-11-20T01:00:00.000000", source="labels/z.csv"))
    assert accepted.changes == ["photos/b.jpg: dog -> cow (labels/z.csv, row 2)"]
    assert resolve(accepted.log).labels == {"b": "cow"}


def test_a_clock_that_was_ahead_beats_no_correction(tmp_path, hear):
    accepted = hear(answer("cat", time="2999-01-01T00:00:00.000000+00:00"))
    assert accepted.notes == [
        "1 answers have times ahead of this computer's clock, the first 2999-01-01T00:00:00.000000+00:00 in "
        "labels/x.csv: they count as given now; correct the clock that is wrong."
    ]
    assert hear(answer("cat", time="2999-01-01T00:00:00.000000+00:00")).num_new == 0
    # This computer's clock was ahead when the log was written.
    path = tmp_path / "labels.csv"
    time = accepted.log["time"][0]
    path.write_text(path.read_text().replace(time, "2998" + time[4:]))
    assert hear(answer(None)).changes == ["photos/b.jpg: cat -> skipped (labels/x.csv, row 2)"]
    accepted = hear(answer("dog", time=at(5)))
    assert accepted.log["time"].is_monotonic_increasing
    assert resolve(accepted.log).labels == {"b": "dog"}


def test_an_answer_that_loses_is_told_with_both_times(hear):
    hear(answer("dog", time=at(2)))
    (note,) = hear(answer("cat", time=at(1), source="labels/y.csv")).notes
    assert note == f"photos/b.jpg: cat (labels/y.csv, row 2) from {at(1)} is older than dog from {at(2)}, which stays."


def test_a_lone_annotator_corrects_without_a_name(hear):
    hear(answer("cat", annotator="anna", time=at(1)))
    accepted = hear(answer("dog", source="rounds/000/queries.csv"))
    assert accepted.changes == ["photos/b.jpg: cat -> dog (rounds/000/queries.csv, row 2)"]
    assert (resolve(accepted.log).labels, num_answered(accepted.log)) == ({"b": "dog"}, 1)
    accepted = hear(answer("cat", annotator="bob", time=at(3)))
    assert accepted.notes == [
        "answers without a name now count as those of one more annotator, besides anna, bob: write your name into a "
        "column annotator to say whose they are."
    ]
    assert (resolve(accepted.log).labels, num_answered(accepted.log)) == ({"b": "cat"}, 3)
    assert hear(answer("cow", "c", annotator="bob", time=at(4))).notes == []


def test_one_annotator_in_other_letters_votes_once(hear):
    hear(answer("cat", annotator="José"), answer("dog", annotator="Bob"))
    again = [answer("cat", annotator=name, source=f"labels/{name}.csv") for name in ("jose\u0301", "JOSÉ")]
    accepted = hear(*again)
    assert (accepted.num_new, resolve(accepted.log).tied) == (0, {"b": "cat 1, dog 1"})
    assert num_answered(accepted.log) == 2
    assert len(hear(*again).log) == len(accepted.log)


def test_ground_truth_wins_over_all(hear):
    said = [answer("cat", annotator=name, time=at(1)) for name in ("anna", "bob", "carl")]
    accepted = hear(*said, answer("dog", annotator="ground truth", time=at(0)))
    assert accepted.notes == ["1 new labels are marked as ground truth, and win over all others."]
    assert resolve(accepted.log) == ({"b": "dog"}, set(), {})


@pytest.mark.parametrize("columns", [["lead_time"], ["stated", "lead_time"]])
def test_a_log_of_an_earlier_version_goes_on(columns, tmp_path, hear):
    accepted = hear(answer("cat", time=at(1)), answer("dog", "c"))
    log = accepted.log.drop(columns=columns)
    path = tmp_path / "labels.csv"
    log.to_csv(path, index=False)
    answers = [answer("cat", time=at(1)[:-6]), answer("dog", "c"), answer("cow", "a")]
    accepted = accept(tmp_path, read_log(tmp_path), answers, TABLE, ClassNames((), {}, is_fixed=False))
    assert accepted.num_new == 1
    assert accepted.log["label"].tolist() == ["cat", "dog", "cow"]
    assert tuple(accepted.log.columns) == LOG


def test_labels_come_sorted_by_id(hear):
    accepted = hear(*(answer("cat", id) for id in "cab"))
    assert list(resolve(accepted.log).labels) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "spoil, named",
    [
        (lambda text: text[:-1], "row 3: its end is cut off"),
        (lambda text: text[:-60], "row 3: found [5-8] cells"),
        (lambda text: text.replace(",", ";"), "row 1: found 'id;file_name"),
        (lambda text: text.replace("11-20T", "11-20 "), "row 2: found the time"),
        (lambda text: text.replace("cat", '"cat'), "cannot be read"),
        (lambda text: text.replace("cat", "\udc80"), "cannot be read"),
        (lambda text: "", "row 1: found ''"),
    ],
)
def test_a_spoilt_log_is_refused_and_left_as_it_is(tmp_path, hear, spoil, named):
    hear(answer("cat", time=at(1)), answer("cat", "c", time=at(1)))
    path = tmp_path / "labels.csv"
    spoilt = spoil(path.read_text()).encode("utf-8", "surrogateescape")
    path.write_bytes(spoilt)
    with pytest.raises(BadInput, match=named):
        hear(answer("dog"))
    assert path.read_bytes() == spoilt


def test_a_write_that_fails_leaves_the_old_log(tmp_path, hear):
    hear(answer("cat"))
    before = (tmp_path / "labels.csv").read_bytes()
    (tmp_path / "labels.csv.partial").mkdir()
    with pytest.raises(OSError, match="directory"):
        hear(answer("dog"))
    assert (tmp_path / "labels.csv").read_bytes() == before
    (tmp_path / "labels.csv.partial").rmdir()
    assert hear(answer("dog")).changes == ["photos/b.jpg: cat -> dog (labels/x.csv, row 2)"]


def test_refusals_are_written_anew(tmp_path):
    write_refused(tmp_path, [Refusal("labels/x", None, "=why"), Refusal("labels/y", 3, "two\nlines")])
    assert read_csv(tmp_path / "refused.csv").values.tolist() == [
        ["labels/x", "", "=why"],
        ["labels/y", "3", "two\nlines"],
    ]
    write_refused(tmp_path, [])
    assert (tmp_path / "refused.csv").read_text("utf-8-sig") == "source,row,reason\n"
