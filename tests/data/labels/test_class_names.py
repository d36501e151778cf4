"""From spellings of labels to names of classes."""

import pytest

from classifier.data.labels.class_names import describe_repeated, name_classes, sort_class_names
from classifier.errors import DataError

CAFE, CAFE_OF_A_MAC = "caf\u00e9", "cafe\u0301"


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


def test_blank_names() -> None:
    with pytest.raises(DataError, match="the label '  ' is blank"):
        name_classes("photos", ["cat", "  "])
    with pytest.raises(DataError, match="a label of 2,000 characters"):
        name_classes("photos", ["cat", "a," * 1000])


def test_class_names_that_are_listed_twice() -> None:
    assert describe_repeated("classes.txt", ["cat", "cat ", "dog"]) == [
        "classes.txt has 'cat' more than once: each name is one class."
    ]
    assert describe_repeated("classes.txt", ["cat", "dog"]) == []
