"""A name finds its file however another program spells it, and never another file."""

import unicodedata

import pytest

from latent_al.data.file_names import FileNames

NAMES = ("a b.png", "caf\u00e9/\u00fc.jpg", "sub/c.jpg", "d.jpg", "d.png", "e.tar.png", "100%25.jpg", " f .png", "x.y")


def find(text, names=NAMES):
    return FileNames(names, "photos").find(text)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_means_itself(name):
    assert find(name) == name


@pytest.mark.parametrize(
    "text",
    [
        "./sub/c.jpg",
        "photos/sub/c.jpg",
        "/home/me/photos/sub/c.jpg",
        r"C:\Users\me\photos\sub\c.jpg",
        r"sub\c.jpg",
        "file:///home/me/photos/sub/c.jpg",
        "https://files.example.org/photos/sub/c.jpg",
        "/data/local-files/?d=photos/sub/c.jpg",
        "/data/local-files/?d=home%2Fme%2Fphotos%2Fsub%2Fc.jpg",
        "/data/upload/12/0fa12b3c-c.jpg",
        "  sub/c.jpg ",
        "sub/c",
        "photos/sub/c",
    ],
)
def test_other_spellings_find_the_file(text):
    assert find(text) == "sub/c.jpg"


def test_unicode_forms_and_signs_of_urls():
    assert find(unicodedata.normalize("NFD", NAMES[1])) == NAMES[1]
    assert find("a%20b.png") == find("/data/upload/1/0fa12b3c-a_b.png") == "a b.png"
    assert find("f .png") == " f .png"
    assert find("100%2525.jpg") == "100%25.jpg"


@pytest.mark.parametrize("text", ["", "/", "c.jpg", "other/sub/c.jpg", "d", "e", "photos", "sub/c.png", "nan"])
def test_another_file_is_never_meant(text):
    assert find(text) is None


def test_what_means_several_means_none():
    assert find("/data/upload/1/0fa12b3c-a.jpg", ("x/a.jpg", "y/a.jpg")) is None
    assert find("A\u030a.png", ("\u00c5.png", "\u212b.png")) is None
    assert find("A\u030a.png", ("\u00c5.png",)) == "\u00c5.png"


def test_a_folder_of_the_name_of_the_root():
    """As an archive is unpacked that has the folder in it."""
    names = ("c.jpg", "photos/c.jpg")
    assert find("/data/local-files/?d=photos/photos/c.jpg", names) == "photos/c.jpg"
    assert find("/home/me/photos/photos/c.jpg", names) == "photos/c.jpg"
    assert find("/home/me/photos/c.jpg", names) == "c.jpg"


def test_a_name_with_percent_signs_beside_the_one_that_they_stand_for():
    names = ("a b.png", "a%20b.png")
    assert find("/data/local-files/?d=photos/a%20b.png", names) == "a b.png"
    assert find("/data/local-files/?d=photos/a%2520b.png", names) == "a%20b.png"
