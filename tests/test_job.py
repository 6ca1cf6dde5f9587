"""Calls of the labelling job that train no encoder: on embeddings that people have, and what no job can use."""

import shutil

import filelock
import numpy as np
import pytest
from PIL import Image
from test_labelling import ROOT, answer, call, configure, draw, queries_of, record_of

from latent_al.experiment.command_line import load_config, recall
from latent_al.experiment.command_line import run as run_command
from latent_al.labelling import run
from latent_al.runtime.files import read_csv
from latent_al.types import BadInput


@pytest.fixture
def plain(tmp_path):
    """Calls on 6 images with embeddings of 9, of which only one class is known: nothing is compiled at length."""
    images, workdir = tmp_path / "images", tmp_path / "job"
    draw(images, range(6))
    (tmp_path / "index.csv").write_text("file_name\n" + "".join(f"{number:02d}.png\n" for number in range(9)))
    np.save(tmp_path / "latents.npy", np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32))
    encoder = dict(name="precomputed", latents=str(tmp_path / "latents.npy"), index=str(tmp_path / "index.csv"))

    def plain(root=images, **changes):
        settings = dict(audit=0, num_initial=3, query_size=3, initial=dict(name="random")) | changes
        return workdir, call(root, workdir, encoder=encoder, **settings)

    return plain


def test_images_that_a_decoder_makes_are_not_asked_about(plain):
    ascent = dict(measure="margin", prior_weight=0.0, num_restarts=1, num_steps=2, step_size=0.5)
    with pytest.raises(BadInput, match="query_synthesis asks about images that a decoder makes.*nearest_to"):
        plain(strategy=dict(name="query_synthesis", radius=1.0, **ascent))


def by(person, label):
    return f"id,label,annotator\n{{}},{label},{person}\n"


def test_changes_skips_and_ties(plain):
    workdir, _ = plain()
    skipped, tied, changed = queries_of(workdir, 0).id
    answers = dict(a=by("ann", "red"), b=by("bob", "green"), c=by("ann", "red"), d=by("ann", "?"))
    for name, image in dict(a=tied, b=tied, c=changed, d=skipped).items():
        (workdir / f"labels/{name}.csv").write_text(answers[name].format(image))
    _, said = plain()
    assert "4 new answers: 1 labelled, 0 of 0 of the audit slice, 0 open, 1 tied, 1 skipped." in said
    assert "no classifier yet: the labels show fewer than two classes" in said
    queries = queries_of(workdir, 1)
    assert queries.id[0] == tied
    assert queries.reason.tolist() == ["annotators disagree: green 1, red 1", *["chosen by random"] * 2]
    assert not {changed, skipped} & set(queries.id)
    (workdir / "labels/b.csv").write_text(by("bob", "red").format(tied))
    (workdir / "labels/c.csv").write_text(by("ann", " red ").format(changed))
    _, said = plain()
    name = queries.file_name[0]
    assert f"Changed: {name}: green -> red (labels/b.csv, row 2)" in said
    assert said.count("Changed:") == 1
    assert "1 new answer: 2 labelled, 0 of 0 of the audit slice, 2 open, 0 tied, 1 skipped." in said
    assert "Only corrections since round 001." in said
    (workdir / "labels/e.csv").write_text(by("ann", "red").format(queries.id[1]))
    _, said = plain()
    assert "1 new answer: 3 labelled, 0 of 0 of the audit slice, 1 open, 0 tied, 1 skipped." in said
    assert len(queries_of(workdir, 2)) == 1
    assert "rounds/002/queries.csv, and those still open in 001, whichever way" in said
    _, said = plain()
    assert "No new labels since round 002." in said
    assert "rounds/002/queries.csv, and those still open in 001, whichever way" in said


def test_a_tie_of_an_image_that_was_never_asked_is_asked_where_nothing_is_open(plain):
    workdir, _ = plain(num_initial=1)
    for person in ("ann", "bob"):
        rows = "".join(f"{number:02d}.png,cat,{person}\n" for number in range(6))
        (workdir / f"labels/{person}.csv").write_text("file_name,label,annotator\n" + rows)
    _, said = plain()
    assert "Nothing is left to ask" in said
    tied = "00.png" if queries_of(workdir, 0).file_name[0] != "00.png" else "01.png"
    (workdir / "labels/again.csv").write_text(f"file_name,label,annotator\n{tied},dog,bob\n")
    _, said = plain()
    assert "0 open, 1 tied" in said
    assert queries_of(workdir, 2).file_name.tolist() == [tied]
    assert "No new labels since round 002." in plain()[1]


def test_a_name_that_has_tied_votes_alone_may_be_renamed(plain):
    workdir, _ = plain()
    image = queries_of(workdir, 0).id[0]
    for person, label in dict(ann="cat", bob="caat").items():
        (workdir / f"labels/{person}.csv").write_text(by(person, label).format(image))
    _, said = plain()
    assert "2 open, 1 tied" in said
    _, said = plain(rename={"caat": "cat"})
    assert "caat is merged into cat: 0 images." in said
    assert "1 labelled, 0 of 0 of the audit slice, 4 open, 0 tied, 0 skipped." in said


def test_a_renamed_image_is_found_by_the_name_that_it_was_labelled_under(plain, tmp_path):
    latents = np.load(tmp_path / "latents.npy")
    latents[7] = latents[0]
    np.save(tmp_path / "latents.npy", latents)
    workdir, _ = plain()
    (workdir / "labels/a.csv").write_text("file_name,label\n00.png,red\n")
    plain()
    (tmp_path / "images/00.png").rename(tmp_path / "images/07.png")
    (workdir / "labels/a.csv").write_text("file_name,label\n00.png,blue\n")
    _, said = plain()
    assert "Changed: 07.png: red -> blue (labels/a.csv, row 2)" in said
    assert "Refused" not in said


def test_images_that_join_a_finished_pool_are_asked(plain, tmp_path):
    workdir, _ = plain(num_initial=6)
    answer(workdir, 0, lambda query: "red")
    _, said = plain()
    assert said.endswith("Nothing is left to ask about: every image is labelled or skipped.\n")
    _, said = plain()
    assert "No new labels since round 001." in said
    assert said.endswith("Nothing is left to ask about: every image is labelled or skipped.\n")
    draw(tmp_path / "images", range(6, 9))
    _, said = plain()
    assert "9 images, 3 new since the last scan" in said
    # None joins an audit slice of 0.
    assert sorted(queries_of(workdir, 2).file_name) == ["06.png", "07.png", "08.png"]
    assert record_of(workdir, 2)["num_labels"] == 6
    assert "queries.csv, whichever way" in said
    draw(tmp_path / "images", range(9, 10))
    with pytest.raises(BadInput, match=r"1 of 10 images have no row in .*index.csv, the first is '09.png'"):
        plain()


def test_new_classes_are_told_at_once_and_renamed_for_good(plain):
    workdir, _ = plain()
    answer(workdir, 0, lambda query: ["red", "Red ", "rad"][int(query.rank)])
    _, said = plain()
    assert "New classes: rad, red.\n" in said
    assert "Note: rad has only one image" in said
    assert record_of(workdir, 1)["counts"] == {"rad": 1, "red": 2}
    answer(workdir, 1, lambda query: ["rad", "blue", "blue"][int(query.rank)])
    _, said = plain(rename={"rad": "red"})
    assert "Changed: rad is merged into red: 1 image.\n" in said
    assert record_of(workdir, 2)["counts"] == {"blue": 2, "red": 4}
    _, said = plain()
    assert "rad" not in said


def test_settings_of_the_first_call_need_not_be_given_again(plain, tmp_path, capsys):
    workdir, _ = plain()
    shutil.rmtree(workdir)
    encoder = dict(name="precomputed", latents=str(tmp_path / "latents.npy"), index=str(tmp_path / "index.csv"))
    first = {"data.root": str(tmp_path / "images"), "encoder": repr(encoder), "audit": "0", "num_initial": "3"}
    config = str(ROOT / "configs/folder.py:smoke")
    settings = dict(encoders_dir=None, command="")
    assert recall(str(workdir), {}) == {}
    run_command(load_config(config, first), str(workdir), **settings, overrides=first | {"rename": "{}"})
    assert recall(str(workdir), {}) == first
    assert "Settings of earlier calls: --config.data.root=" in capsys.readouterr().out
    again = recall(str(workdir), {"query_size": "2"})
    run_command(load_config(config, again), str(workdir), **settings, overrides=again)
    assert "No new labels since round 000." in capsys.readouterr().out
    assert recall(str(workdir), {}) == again
    # Of a dict and a key of it the one that is set last counts.
    (workdir / "settings.json").write_text('{"strategy.share": "0.1", "strategy": "{}"}')
    assert list(recall(str(workdir), {"strategy.share": "0.3"})) == ["strategy", "strategy.share"]
    (workdir / "settings.json").write_text("[")
    with pytest.raises(BadInput, match="settings.json cannot be read .* give all settings again"):
        recall(str(workdir), {})


def test_a_classifier_that_diverges_names_the_cure_and_loses_nothing(plain):
    workdir, _ = plain()
    answer(workdir, 0, lambda query: ["red", "blue", "red"][int(query.rank)])
    with pytest.raises(BadInput, match="the classifier has diverged: .* lower its learning_rate in config.classifier"):
        plain(classifier__learning_rate=1e30)
    assert len(read_csv(workdir / "labels.csv")) == 3
    assert not (workdir / "rounds/001").exists()
    plain()
    assert record_of(workdir, 1)["num_labels"] == 3


def test_more_neighbours_may_vote_than_are_labelled_yet(plain):
    workdir, _ = plain(classifier=dict(name="nearest_neighbours"))
    answer(workdir, 0, lambda query: ["red", "blue", "red"][int(query.rank)])
    plain(classifier=dict(name="nearest_neighbours"))
    assert record_of(workdir, 1)["num_labels"] == 3


def test_clusters_are_counted_against_the_rows_that_are_asked_for(plain, caplog):
    kmeans = dict(name="kmeans", num_clusters=3, iterations=5, seed=0)
    plain(initial=dict(name="uniform", clustering=kmeans, threshold=9.0, match="nearest"))
    assert "for 3 clusters" not in caplog.text


def test_queries_that_are_gone_are_written_again(plain):
    workdir, _ = plain()
    answer(workdir, 0, lambda query: "red" if query.rank == "0" else "")
    before = queries_of(workdir, 0)
    path = workdir / "rounds/000/queries.csv"
    plain()
    path.unlink()
    _, said = plain()
    assert f"Note: {path} was missing and has been written again" in said
    assert path.read_bytes().startswith(b"\xef\xbb\xbfid,file_name,rank,reason,label\n")
    again = queries_of(workdir, 0)
    assert again[["id", "file_name", "rank", "reason"]].equals(before[["id", "file_name", "rank", "reason"]])
    assert record_of(workdir, 1)["num_labels"] == 1


def test_names_below_a_folder_that_a_variable_gives(plain, tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOS", str(tmp_path / "images"))
    workdir, _ = plain(root="$PHOTOS")
    (workdir / "labels/mine.csv").write_text("file_name,label\nimages/00.png,red\n")
    assert "1 new answer: 1 labelled" in plain(root="$PHOTOS")[1]


@pytest.mark.parametrize("damaged", ["[", "1", '[{"data": {}}]'])
def test_queries_that_cannot_be_written_again(plain, damaged):
    workdir, _ = plain()
    (workdir / "rounds/000/queries.csv").unlink()
    (workdir / "rounds/000/label_studio.json").write_text(damaged)
    with pytest.raises(
        BadInput, match="queries.csv is missing, and .*label_studio.json, .* restore either from a copy"
    ):
        plain()


def test_a_copy_of_a_round_by_another_program_is_named(plain):
    workdir, _ = plain()
    copy = workdir / "rounds/000 (conflicted copy)"
    copy.mkdir()
    with pytest.raises(
        BadInput, match="a copy made by a program that synchronises folders; put any answers in it into"
    ):
        plain()


def test_embeddings_are_known_by_their_content(plain, tmp_path):
    workdir, _ = plain()
    (tmp_path / "moved").mkdir()
    for name in ("latents.npy", "index.csv"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    encoder = dict(name="precomputed", latents=str(tmp_path / "moved/latents.npy"))
    encoder["index"] = str(tmp_path / "moved/index.csv")
    settings = dict(audit=0, num_initial=3, query_size=3, initial=dict(name="random"), encoder=encoder)
    assert "No new labels since round 000." in call(tmp_path / "images", workdir, **settings)
    latents = np.load(tmp_path / "moved/latents.npy")
    np.save(tmp_path / "moved/latents.npy", latents[::-1])
    with pytest.raises(BadInput, match=r"moved/latents.npy has another embedding than before for 5 of 6 images"):
        call(tmp_path / "images", workdir, **settings)


def test_latents_that_are_equal_blame_images_of_one_colour(plain, tmp_path):
    plain()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "images/06.png")
    np.save(tmp_path / "latents.npy", np.ones((9, 3), np.float32))
    (tmp_path / "job/encoder/embeddings.csv").unlink()
    with pytest.raises(BadInput, match=r"all 7 latents are equal; 1 of 7 images have one colour, the first is 06.png"):
        plain()


def test_a_class_that_is_not_in_the_list(plain):
    classes = ("red", "green")
    workdir, _ = plain(classes=classes)
    answer(workdir, 0, lambda query: ["red", "rad", "red"][int(query.rank)])
    _, said = plain(classes=classes)
    assert "Refused: rounds/000/queries.csv, row 3: label 'rad' is not a class; the nearest is 'red'" in said
    refused = read_csv(workdir / "refused.csv")
    assert refused[["source", "row"]].values.tolist() == [["rounds/000/queries.csv", "3"]]
    assert record_of(workdir, 1)["counts"] == {"red": 2, "green": 0}
    assert "2 labelled, 0 of 0 of the audit slice, 1 open" in said
    with pytest.raises(
        BadInput, match=r"config.classes leaves out classes that have been labelled: red \(2 images\); add them"
    ):
        plain(classes=("green", "blue"))


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            dict(classifier__name="mpl"),
            "config.classifier.name: unknown .* that reads latents 'mpl'; did you mean mlp",
        ),
        (dict(classifier__name="cnn"), "unknown classifier that reads latents 'cnn'"),
        (dict(classifier__dropout=(0.1, 0.2)), r"config.classifier.dropout: \(0.1, 0.2\); expected a float"),
        (dict(encoder__name="pca"), "config.encoder.name: unknown encoder 'pca'; "),
        (dict(strategy=dict(name="smart")), "config.strategy.name: unknown strategy 'smart'; "),
        (dict(initial=dict(name="badge")), "a strategy does not fit the encoder and the classifier: "),
        (
            dict(strategy=dict(name="ibal_d", gamma=(0.1, 0.5))),
            r"config.strategy.gamma: \(0.1, 0.5\); expected a float",
        ),
        (dict(classes=("a", "a ")), r"classes is \('a', 'a '\); expected \(\) .* each once"),
        (dict(classes=("a", "b\uffff")), "another control character, .*; remove it"),
        (
            dict(target=90.0),
            r"config.target: 90.0; expected a float, above 0 and below 1, or None: the accuracy at",
        ),
        (dict(query_size=0), "config.query_size: 0; expected an int, 1 or more: images asked for in a round"),
        (dict(data__size=(0, 8)), r"size is \(0, 8\); expected \(height, width\), both 1 or more"),
        (dict(data__size=None), "config.data.size: not set; expected a tuple of 2 ints: height and width"),
    ],
    ids=lambda each: "-".join(map(str, each)) if isinstance(each, dict) else "",
)
def test_what_no_job_can_use(changes, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        call(tmp_path, tmp_path / "job", **changes)
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize("size", ["smoke", "full"])
def test_a_folder_without_images(size, tmp_path):
    """The entries that a config names are built before the folder is looked at."""
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(BadInput, match=r"no image files in .* \(1 others"):
        run(configure(tmp_path, size), str(tmp_path / "job"))
    (tmp_path / "broken.png").write_text("no image either")
    with pytest.raises(BadInput, match=r"none of the 1 image files in .* can be used; the first is 'broken.png'"):
        run(configure(tmp_path, size), str(tmp_path / "job"))
    assert read_csv(tmp_path / "job/rejected.csv").file_name.tolist() == ["broken.png"]


def test_an_audit_slice_that_is_too_large_can_be_lowered(plain):
    with pytest.raises(BadInput, match="audit slice of 4 images and an initial labelled set of 3 need more than the 6"):
        plain(audit=4)
    workdir, _ = plain(audit=3)
    assert len(queries_of(workdir, 0)) == 6
    with pytest.raises(BadInput, match=r"audit is 2, but .*audit.json was made with 3"):
        plain(audit=2)


def test_another_process_in_the_workdir(plain):
    workdir, _ = plain()
    with filelock.FileLock(workdir / ".lock"), pytest.raises(BadInput, match="in use by another process; wait for it"):
        plain()
    plain()


def test_damage_is_refused_and_left_as_it_is(plain):
    workdir, _ = plain()
    answer(workdir, 0, lambda query: "red")
    plain()
    whole_but = {"labels.csv": b"", "rounds/001/round.json": b'{"round": 1}', "audit.json": b"{}"}
    for name, other in whole_but.items():
        path = workdir / name
        whole = path.read_bytes()
        for damaged in (whole[:-9], b"[]", other):
            path.write_bytes(damaged)
            with pytest.raises(BadInput, match=path.name):
                plain()
            assert path.read_bytes() == damaged
        path.write_bytes(whole)
    _, said = plain()
    assert "No new labels since round 001." in said
