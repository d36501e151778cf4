"""Class names: their order, ambiguous ones, and the kind of images they imply."""

from pathlib import Path

import numpy as np
import pytest

from classifier.data.readers.source import (
    from_arrays,
    from_files,
    guess_image_kind,
    reject_ambiguous_labels,
    sort_class_names,
)
from classifier.errors import DataError, list_few


def test_numeric_names_are_sorted_by_value() -> None:
    assert sort_class_names(["10", "9", "1"]) == ("1", "9", "10")
    assert sort_class_names(["b", "a", "10", "9"]) == ("10", "9", "a", "b")


@pytest.mark.parametrize(
    ("one", "other"),
    [("Cat", "cat"), ("cat ", "cat"), ("big cat", "bigcat"), ("Stra\u00dfe", "STRASSE"), ("e\u0301", "\u00e9")],
)
def test_labels_that_differ_only_by_case_or_blanks(one: str, other: str) -> None:
    with pytest.raises(DataError, match=r"photos: the labels .* differ only by case or blanks: use one name") as caught:
        reject_ambiguous_labels("photos", [one, "dog", other])
    assert repr(one) in str(caught.value)
    assert repr(other) in str(caught.value)


def test_different_labels_pass_and_blank_ones_do_not() -> None:
    reject_ambiguous_labels("photos", ["cat", "cats", "dog", "dog", "c-at"])
    with pytest.raises(DataError, match="the label '  ' is blank"):
        reject_ambiguous_labels("photos", ["cat", "  "])


def test_image_kind_follows_from_the_class_names() -> None:
    assert guess_image_kind(list("0123456789")) == "symbols"
    assert guess_image_kind(["a", "B", "\u304a"]) == "symbols"
    assert guess_image_kind(["Zero", "one", "two"]) == "symbols"
    assert guess_image_kind(["a", "cat"]) == "photos"
    assert guess_image_kind([str(n) for n in range(102)]) == "photos"


def test_files_get_class_indices() -> None:
    source = from_files("x", [("b/1", Path("b/1"), "b", 0), ("a/1", Path("a/1"), "a", -1)])
    assert source.class_names == ("a", "b")
    assert source.labels_N.tolist() == [1, 0]
    assert source.splits_N.tolist() == [0, -1]


def test_arrays() -> None:
    images = np.arange(2 * 4, dtype=np.uint8).reshape(2, 1, 2, 2)
    source = from_arrays(
        "x", {"train": (images, np.array([3, 0])), "test": (images[:1], np.array([3]))}, tuple("abcd"), kind="photos"
    )
    assert source.class_names == ("a", "d")
    assert source.labels_N.tolist() == [1, 0, 1]
    assert source.splits_N.tolist() == [0, 0, 2]
    assert list(source.ids) == ["train/0", "train/1", "test/0"]
    assert source.findings == ("x has images of only 2 of its 4 classes.",)
    for wrong in (4, -1):
        with pytest.raises(DataError, match=f"x has a label {wrong}, but only 4 classes"):
            from_arrays("x", {"train": (images, np.array([0, wrong]))}, tuple("abcd"), kind="photos")
    other = np.zeros((2, 1, 3, 3), np.uint8)
    parts = {"train": (images, np.array([0, 1])), "test": (other, np.array([0, 1]))}
    with pytest.raises(DataError, match="images of different shapes"):
        from_arrays("x", parts, tuple("abcd"), kind="photos")


def test_list_few() -> None:
    assert list_few(["a", "b", "c"]) == "a, b, c"
    assert list_few(list("abcde")) == "a, b, c and 2 more"
