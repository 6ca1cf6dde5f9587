"""Names of classes that look alike are one class, words for nothing are none, and renaming is logged."""

import pandas as pd
import pytest

from latent_al.labelling.classes import RENAMES, ClassNames, of_several, read_renames, rename, warnings
from latent_al.runtime.files import read_csv
from latent_al.types import BadInput


def free(*names, renames=None):
    return ClassNames(names, renames or {}, is_fixed=False)


@pytest.mark.parametrize(
    "label",
    ["Dog", "dog ", "d\u200bog", "\ufeffdog", "\uff24og", "dog\u00a0", "DOG"],
    ids=["case", "blank", "zero width", "mark", "full width", "no-break blank", "capitals"],
)
def test_what_looks_alike_is_one_class(label):
    assert free("dog").read(label) == "dog"
    assert ClassNames(("dog", "cat"), {}, is_fixed=True).read(label) == "dog"


def test_blanks_and_composed_letters_are_one():
    names = free()
    assert names.read("snow  leopard") == names.read("Snow\u3000leopard") == "snow leopard"
    assert names.read("cafe\u0301") == names.read("caf\u00e9") == "caf\u00e9"
    assert names.read("stra\u00dfe") == names.read("STRASSE") == "stra\u00dfe"


@pytest.mark.parametrize("label", ["n/a", "NaN", "null", "None", "-", "..", "#N/A", "--", "NA", "x" * 5000])
def test_what_is_no_name_is_asked_back(label):
    with pytest.raises(BadInput, match=r"write \? to skip the image|expected a name of at most 100"):
        free().read(label)


def test_a_class_of_the_config_may_be_named_as_nothing():
    assert ClassNames(("None", "crack"), {}, is_fixed=True).read("none") == "None"


@pytest.mark.parametrize("label", ["ca\nt", "ca\x07t", "ca\ufffet", "ca\udc80t"])
def test_what_no_name_holds_is_refused(label):
    with pytest.raises(BadInput, match="control character"):
        free().read(label)


def test_names_of_all_scripts_and_symbols_are_names():
    for name in ("\u732b", "\u0e41\u0e21\u0e27", "\u05d7\u05ea\u05d5\u05dc", "\U0001f408", "1", "C++", "=x"):
        assert free().read(name) == name


def test_the_nearest_class_is_named_where_one_is_near():
    names = ClassNames(("cat", "truck"), {}, is_fixed=True)
    with pytest.raises(BadInput, match="'cta' is not a class; the nearest is 'cat'; expected one of cat, truck"):
        names.read("cta")
    with pytest.raises(BadInput, match="'zebra' is not a class; expected one of cat, truck"):
        names.read("zebra")


def test_lists_of_classes_are_told_from_names_with_commas():
    assert of_several("cat,Dog", ["cat", "dog", "cat,Dog"]) == ["cat", "Dog"]
    assert of_several("tench, Tinca tinca", ["tench"]) == []
    assert of_several("cat", ["cat"]) == []


def test_near_twins_and_classes_of_one_image_are_told():
    assert warnings({"cat": 30, "cax": 1, "dog": 20, "ferry": 1, "class 1": 40, "class 2": 1}) == [
        "cax (1) is spelt nearly like cat (30): if it is a slip, add --config.rename=\"{'cax': 'cat'}\".",
        "ferry has only one image, from which a classifier learns little.",
        "class 2 has only one image, from which a classifier learns little.",
    ]
    assert warnings({"cat": 30, "bat": 25}) == []


class TestRenaming:
    def test_merges_and_is_logged_once(self, tmp_path):
        counts = {"cat": 30, "cax": 1}
        assert rename(tmp_path, {"CAX": "cat"}, counts) == ["cax is merged into cat: 1 image."]
        log = read_csv(tmp_path / "classes.csv")
        assert tuple(log.columns) == RENAMES
        assert log[["name", "now"]].values.tolist() == [["cax", "cat"]]
        assert rename(tmp_path, {"cax": "cat"}, {"cat": 31}) == []
        names = free("cat", "cax", renames=read_renames(tmp_path))
        assert (names.spell("cax"), names.read("Cax"), names.spell("cat")) == ("cat", "cat", "cat")

    def test_goes_on_through_later_ones_and_back(self, tmp_path):
        rename(tmp_path, {"cax": "cat"}, {"cat": 1, "cax": 1})
        assert rename(tmp_path, {"cat": "Feline"}, {"cat": 2}) == ["cat is renamed to Feline: 2 images."]
        names = free("cat", "cax", renames=read_renames(tmp_path))
        assert names.read("cax") == names.read("cat") == names.read("feline") == "Feline"
        rename(tmp_path, {"Feline": "cat"}, {"Feline": 2})
        names = free("cat", "cax", renames=read_renames(tmp_path))
        assert names.read("cax") == names.read("cat") == names.read("Feline") == "cat"

    def test_changes_the_spelling(self, tmp_path):
        rename(tmp_path, {"dog": "Dog"}, {"dog": 2})
        assert free("dog", renames=read_renames(tmp_path)).spell("dog") == "Dog"

    def test_refuses_what_no_class_is_called(self, tmp_path):
        with pytest.raises(BadInput, match="config.rename names 'cow'; expected one of cat, dog"):
            rename(tmp_path, {"cow": "cat"}, {"cat": 1, "dog": 1})
        with pytest.raises(BadInput, match="write . to skip the image"):
            rename(tmp_path, {"cat": "n/a"}, {"cat": 1})
        assert not (tmp_path / "classes.csv").exists()

    def test_refuses_a_new_name_that_answers_of_another_class_have(self, tmp_path):
        for wanted in ({"left": "right", "right": "left"}, {"left": "mid", "right": "LEFT"}):
            with pytest.raises(
                BadInput, match="as both an old and a new name; choose another name, or rename in two calls"
            ):
                rename(tmp_path, wanted, {"left": 4, "right": 6})
        rename(tmp_path, {"left": "mid"}, {"left": 4, "right": 6})
        with pytest.raises(BadInput, match="'left' was renamed to 'mid', which its answers still mean"):
            rename(tmp_path, {"right": "left"}, {"mid": 4, "right": 6})
        assert free("left", renames=read_renames(tmp_path)).spell("left") == "mid"
        rename(tmp_path, {"right": "Right"}, {"mid": 4, "right": 6})
        assert rename(tmp_path, {"mid": "right"}, {"mid": 4, "Right": 6}) == ["mid is merged into right: 4 images."]

    def test_a_spoilt_log_is_refused(self, tmp_path):
        pd.DataFrame([["a", "b"]], columns=["name", "now"]).to_csv(tmp_path / "classes.csv", index=False)
        with pytest.raises(BadInput, match="not as it was written"):
            read_renames(tmp_path)
