"""Sources of images, and the kind of images that class names imply."""

from pathlib import Path

import numpy as np
import pytest

from classifier.data.readers.source import SourceBuilder, from_arrays, from_files, guess_image_kind
from classifier.errors import DataError, list_few


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


def build(rows: list[tuple[str | None, int]]):
    builder = SourceBuilder()
    for n, (label, split) in enumerate(rows):
        builder.add(str(n), Path(f"{n}.png"), label, split)
    return builder.build("set")


def test_images_without_a_label_are_left_out_and_counted() -> None:
    source = build([("a", -1), (None, -1), ("b", -1), (None, -1)])
    assert list(source.ids) == ["0", "2"]
    assert source.findings == ("2 images have no label and were left out: 1, 3.",)


@pytest.mark.parametrize(
    ("rows", "class_names", "images", "finding"),
    [
        ([("-1", -1), ("1", -1)] * 3, ("-1", "1"), 6, None),
        ([("-1", -1), ("0", -1), ("1", -1)], ("-1", "0", "1"), 3, "-1 is the class of 1 images"),
        ([("0", 0), ("1", 0), ("-1", 2), ("-1", 2)], ("0", "1"), 2, "2 images have no label (-1, like all of their"),
        ([("-1", 0), ("1", 0), ("-1", 2), ("1", 2)], ("-1", "1"), 4, None),
        ([("-1", -1)] * 3, ("-1",), 3, None),
    ],
)
def test_minus_one_is_a_class_unless_a_split_has_nothing_else(rows, class_names, images, finding) -> None:
    source = build(rows)
    assert source.class_names == class_names
    assert len(source.ids) == len(source.labels_N) == len(source.images) == images
    assert len(source.findings) == (finding is not None)
    assert finding is None or source.findings[0].startswith(finding)


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
