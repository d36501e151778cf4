"""From values to labels, and from labels to class names."""

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from classifier.data.labels import decode_text, describe_repeated, name_classes, parse_label, sort_class_names
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


@pytest.mark.parametrize("value", [[0, 3], ["cat"], (1,), {"cat"}, {"id": 1}, np.array([0, 1]), frozenset((1, 2))])
def test_several_labels_are_refused(value: Any) -> None:
    with pytest.raises(DataError, match=r"row 1 has several labels .* not supported yet"):
        parse_label("row 1", value)


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


@pytest.mark.parametrize(
    ("labels", "class_names", "finding"),
    [
        (["b", "a"], ("a", "b"), None),
        (["10", "9", "-1", "0.5"], ("-1", "0.5", "9", "10"), None),
        (["01", "02", "10"], ("01", "02", "10"), None),
        (["1", "01", "1.0", "2"], ("1", "2"), "'1', '01', '1.0' are the same number: one class, '1'"),
        ([CAFE, CAFE_OF_A_MAC], (CAFE,), "differ only in how Unicode spells the same letters"),
        ([CAFE_OF_A_MAC], (CAFE,), None),
        (["cat", " cat", "dog"], ("cat", "dog"), "'cat', ' cat' differ only by blanks at the ends: one class, 'cat'"),
        (["cat", "None"], ("None", "cat"), "'None' were read as names of classes"),
        (["AC|DC", "cat; wild", "cat; tame", "[none]", "a, b"], None, None),
        (["Washington, D.C.", "Washington"], None, None),
    ],
)
def test_spellings_of_one_label_are_one_class(
    labels: list[str], class_names: tuple[str, ...] | None, finding: str | None
) -> None:
    class_of, findings, refusals = name_classes("set", labels)
    assert not refusals
    assert sort_class_names(set(class_of.values())) == (class_names or tuple(sorted(labels)))
    assert len(findings) == (finding is not None)
    assert finding is None or finding in findings[0]


@pytest.mark.parametrize(
    ("labels", "how"),
    [
        (["Cat", "cat"], "case"),
        (["Stra\u00dfe", "STRASSE"], "case"),
        (["big cat", "bigcat"], "blanks"),
        (["cat", "c\u200bat"], "invisible characters"),
        (["x2", "x\u00b2"], "Unicode variants of the same characters"),
    ],
)
def test_labels_that_may_be_one_class_are_refused(labels: list[str], how: str) -> None:
    refusals = name_classes("set", ["dog", *labels]).refusals
    assert len(refusals) == 1
    assert refusals[0].startswith("set: the labels ")
    assert f" differ only by {how}: use one name" in refusals[0]


@pytest.mark.parametrize(
    "labels",
    [
        ["cat", "dog", "cat;dog"],
        ["cat|dog", "dog|owl", "cat|owl"],
        ["0,1", "1,0"],
        ["0 1 0", "1 0 0"],
        ["[0, 3]", "1"],
        ["['cat' 'dog']", "cat"],
        ["{'cat'}", "dog"],
        ["(0, 1)", "(1, 0)"],
    ],
)
def test_text_with_several_labels_is_refused_unless_it_is_known_to_be_a_name(labels: list[str]) -> None:
    with pytest.raises(DataError, match=r"set: .* has several labels"):
        name_classes("set", labels)
    assert len(set(name_classes("set", labels, trusted=labels).class_of.values())) == len(labels)


def test_blank_names() -> None:
    with pytest.raises(DataError, match="the label '  ' is blank"):
        name_classes("photos", ["cat", "  "])


def test_text() -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert decode_text("a.txt", CAFE.encode(encoding)) == CAFE
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8 text"):
        decode_text("a.txt", CAFE.encode("latin-1"))
    assert decode_text("a.txt", CAFE.encode()[:-1], is_whole=False) == "caf"


def test_class_names_that_are_listed_twice() -> None:
    assert describe_repeated("classes.txt", ["cat", "cat ", "dog"]) == [
        "classes.txt has 'cat' more than once: each name is one class."
    ]
    assert describe_repeated("classes.txt", ["cat", "dog"]) == []
