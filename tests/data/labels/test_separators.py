"""Which texts are lists of labels, and of which."""

from typing import Any

import numpy as np
import pytest

from classifier.data.labels.separators import SplitLabels, split_labels
from classifier.errors import DataError

A, B = "a", "b"


def split(*spellings: Any, task: str = "auto", images: list[int] | None = None, **more: Any) -> SplitLabels:
    return split_labels("set", spellings, np.array(images or [1] * len(spellings)), task=task, **more)


@pytest.mark.parametrize(
    ("spellings", "labels", "how"),
    [
        (("cat", "dog", "cat;dog"), [("cat",), ("dog",), ("cat", "dog")], "separated by ';'"),
        (("cat|dog", "dog|owl", "cat|owl"), [("cat", "dog"), ("dog", "owl"), ("cat", "owl")], "separated by '|'"),
        (("cat, dog", "dog", "cat,dog,", "[]"), [("cat", "dog"), ("dog",), ("cat", "dog"), ()], "separated by ','"),
        (("0,1", "1,2", "2"), [("0", "1"), ("1", "2"), ("2",)], "separated by ','"),
        (("3 7 12", "7"), [("3", "7", "12"), ("7",)], "separated by blanks"),
        (("5\t7", "5"), [("5", "7"), ("5",)], "separated by tabs"),
        (("5;7", "5;8"), [("5", "7"), ("5", "8")], "separated by ';'"),
        (('["cat", "dog"]', "[]"), [("cat", "dog"), ()], "in lists"),
        (("[0, 3]", "[3]"), [("0", "3"), ("3",)], "in lists"),
        (("['cat' 'big dog']", "{'cat'}"), [("cat", "big dog"), ("cat",)], "in lists"),
        (("(0, 3)", "(3, 0)"), [("0", "3"), ("3", "0")], "in lists"),
        (("[cat, dog]", "[cat,owl]"), [("cat", "dog"), ("cat", "owl")], "in lists"),
        (("cat", "dog", "[]"), [("cat",), ("dog",), ()], "in lists"),
        ((("cat", "dog"), ()), [("cat", "dog"), ()], "in lists"),
        (("cat;cat;dog", "cat", "dog"), [("cat", "dog"), ("cat",), ("dog",)], "separated by ';'"),
    ],
)
def test_images_have_several_labels(spellings: tuple[Any, ...], labels: list[tuple[str, ...]], how: str) -> None:
    assert split(*spellings) == SplitLabels(labels, how, True)
    for task in ("multiclass", "ordinal", "nested"):
        with pytest.raises(DataError, match=rf"set: .* has .*, but one class under data\.task {task}: keep one, or"):
            split(*spellings, task=task)
    texts = [one for one in spellings if isinstance(one, str)]
    if len(texts) == len(spellings):  # names of class folders
        assert split(*texts, trusted=texts) == SplitLabels([(text,) for text in texts], "", False)


@pytest.mark.parametrize(
    "spellings",
    [
        ("AC|DC", "cat; wild", "cat; tame", "[none]", "a, b"),
        ("Washington, D.C.", "Washington"),
        ("golden retriever", "golden", "retriever"),
        (("cat",), ("dog",)),
        ("['cat']", "['dog']"),
    ],
)
def test_each_image_has_one_label(spellings: tuple[Any, ...]) -> None:
    for task in ("auto", "multiclass"):
        found = split(*spellings, task=task)
        assert not found.is_multilabel
        assert all(len(labels) == 1 for labels in found.labels)


def test_multilabel_by_the_setting() -> None:
    assert split("cat", "dog", task="multilabel") == SplitLabels([("cat",), ("dog",)], "", True)
    assert split("cat; wild", "cat; tame", task="multilabel").labels == [("cat", "wild"), ("cat", "tame")]
    assert split(("cat",), ("dog",), task="multilabel").is_multilabel


@pytest.mark.parametrize(
    ("spellings", "reason"),
    [
        ((("cat", "dog"), "owl"), "set: owl has the label 'owl', which is no list, while other images have lists"),
        (('["cat", "dog"]', "owl"), "'owl', which is no list"),
        (("[0, 3]", "1"), "'1', which is no list"),
        (("{'cat': 1}", "{'dog': 2}"), "is no list: write it as"),
        (
            ("cat;dog", "cat", "dog", "dog|owl", "owl"),
            r"separated by ';' \(cat;dog\) and by '\|' \(dog\|owl\): use one",
        ),
        (("0 1 0", "1 0 0"), "names a label twice: list the labels of each image, or give each class a column of 0"),
        (('[["cat", "owl"]]', '["dog", "cat"]'), "a label of type list"),
        (('["cat", null]', "[]"), "a list with a missing label"),
    ],
)
def test_contradictions_are_refused(spellings: tuple[Any, ...], reason: str) -> None:
    for task in ("auto", "multilabel"):
        with pytest.raises(DataError, match=reason):
            split(*spellings, task=task)


def test_a_few_images_with_several_labels_are_a_mistake_unless_the_setting_says_so() -> None:
    counts = [500, 500, 3]
    with pytest.raises(DataError, match=r"set: cat;dog has several labels \(cat, dog\), and only 3 of 1,003 images"):
        split("cat", "dog", "cat;dog", images=counts)
    assert split("cat", "dog", "cat;dog", images=counts, task="multilabel").is_multilabel
    assert split("cat", "dog", "cat;dog", images=[500, 500, 30]).is_multilabel
