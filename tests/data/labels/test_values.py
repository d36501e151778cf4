"""From values to labels."""

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from classifier.data.labels.values import decode_text, parse_label, parse_labels
from classifier.errors import DataError

CAFE, CAFE_OF_A_MAC = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("cat", "cat"),
        (b"cat", "cat"),
        (memoryview(b"cat"), "cat"),
        (b"\xef\xbb\xbfcat", "cat"),
        (CAFE.encode("utf-16"), CAFE),
        (CAFE.encode("utf-32"), CAFE),
        ("01", "01"),
        ("nan", "nan"),  # text may be the name of a class
        (3, "3"),
        (-1, "-1"),
        (True, "True"),
        (np.bool_(False), "False"),
        (np.int64(3), "3"),
        (np.array(3), "3"),
        (3.0, "3"),
        (-0.0, "0"),
        (np.float32(3), "3"),
        (Decimal("3.00"), "3"),
        (0.5, "0.5"),
        (np.float32(0.1), "0.1"),
        (Decimal("0.50"), "0.5"),
        (datetime.date(2024, 5, 1), "2024-05-01"),
        *((missing, None) for missing in (None, "", " \t", b"", b"\xff\xfe", float("nan"), np.float32("nan"))),
        *((missing, None) for missing in (Decimal("NaN"), np.datetime64("NaT"))),
    ],
)
def test_one_value_is_one_label(value: Any, label: str | None) -> None:
    assert parse_label("row 1", value) == label


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        ([0, 3], ("0", "3")),
        ([1, 0], ("1", "0")),
        (["cat"], ("cat",)),
        ([], ()),
        ((1.0,), ("1",)),
        ({"dog", "cat"}, ("cat", "dog")),
        (np.array([0, 1]), ("0", "1")),
        (np.array(3), "3"),
        ("cat;dog", "cat;dog"),  # whether it is a list is seen among all labels
        (None, None),
    ],
)
def test_labels_of_one_image(value: Any, labels: Any) -> None:
    assert parse_labels("row 1", value) == labels


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (["cat", None], "row 1 has a list with a missing label"),
        (
            [0, 1, 0],
            r"row 1 has the list \[0, 1, 0\], which names a label twice: .* a column of 0 and 1",
        ),
        ([["cat"]], "row 1 has a label of type list"),
        ({"id": 1}, "row 1 has a label of type dict"),
    ],
)
def test_lists_that_are_refused(value: Any, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        parse_labels("row 1", value)


def test_lists_of_indices_into_class_names() -> None:
    assert parse_labels("row 1", [1, 0], ["cat", "dog"]) == ("dog", "cat")
    assert parse_labels("row 1", "0,1", ["cat", "0,1"]) == "0,1"
    with pytest.raises(DataError, match=r"several numbers \(0,1\): write them as a JSON list"):
        parse_labels("row 1", "0,1", ["cat", "dog"])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"caf\xe9", "row 1: the label is not UTF-8 text"),
        ("cat".encode("utf-16-le"), "row 1: the label is not UTF-8 text"),
        (float("inf"), "the label inf, which is no class"),
        (Decimal("1e99999999"), "which is no class"),
        ("x" * 2000, "a label of 2,000 characters"),
        (object(), "a label of type object"),
    ],
)
def test_values_that_are_no_labels(value: Any, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        parse_label("row 1", value)


@pytest.mark.parametrize(
    ("value", "label"),
    [(1, "dog"), (1.0, "dog"), ("1", "dog"), (b"1", "dog"), ("owl", "owl"), (-1, None), ("-1", None)],
)
def test_integers_are_indices_into_class_names(value: Any, label: str | None) -> None:
    assert parse_label("row 1", value, ["cat", "dog"]) == label
    with pytest.raises(DataError, match="row 1: the label 2 is none of the 2 classes"):
        parse_label("row 1", 2, ["cat", "dog"])


def test_text() -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert decode_text("a.txt", CAFE.encode(encoding)) == CAFE
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8 text"):
        decode_text("a.txt", CAFE.encode("latin-1"))
    assert decode_text("a.txt", CAFE.encode()[:-1], is_whole=False) == "caf"
