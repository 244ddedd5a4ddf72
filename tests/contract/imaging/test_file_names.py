"""Hidden files are recognized, and names that look equal are equal."""

import unicodedata

import pytest

from contract.imaging.file_names import is_hidden, is_image_file, normalized_stem


@pytest.mark.parametrize("key", ["._a.png", "images/._a.png", "__MACOSX/a.png", ".git/a.png"])
def test_hidden_files(key: str) -> None:
    assert is_hidden(key)


@pytest.mark.parametrize("key", ["a.png", "images/a.b.png", "MACOSX/a.png"])
def test_visible_files(key: str) -> None:
    assert not is_hidden(key)


def test_image_files_are_recognized_by_suffix() -> None:
    names = ["a.PNG", "a.webp", "a.tiff", "a.gif", "a.dcm", "png", "a.png.txt"]
    assert [is_image_file(name) for name in names] == [True] * 4 + [False] * 3


def test_stems_are_composed() -> None:
    decomposed = unicodedata.normalize("NFD", "ct/Zoé-1.png")
    assert normalized_stem(decomposed) == "ct/Zoé-1"
    assert normalized_stem("a.b.png") == "a.b"
