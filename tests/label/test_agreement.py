"""Several annotators: kappas as scikit-learn and Fleiss have them, agreed labels, and disagreements."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from classifier.label.agreement import Agreed, agree, measure_agreement
from classifier.label.answers import Answer

# Fleiss 1971 as it is worked out on Wikipedia: 10 subjects, 14 raters, 5 categories, kappa 0.210.
FLEISS = (
    """0 0 0 0 14  0 2 6 4 2  0 0 3 5 6  0 3 9 2 0  2 2 8 1 1  7 7 0 0 0  3 2 6 3 0  2 5 3 2 2  6 5 2 1 0  0 2 2 3 7"""
)


def say(labels: str) -> list[Answer]:
    """One answer an image, a letter each; a dot is none, a dash a skipped image."""
    return [Answer(f"{n}.png", None if one == "-" else (one,)) for n, one in enumerate(labels) if one != "."]


def test_kappa_of_two_is_cohens():
    [kappa] = measure_agreement({"anna": say("aabbccab-."), "ben": say("aabbcbaba.")})
    assert (kappa.annotators, kappa.images, kappa.same) == (("anna", "ben"), 8, 7)
    assert kappa.value == pytest.approx(cohen_kappa_score([*"aabbccab"], [*"aabbcbab"]))
    [alike] = measure_agreement({"anna": say("aaa"), "ben": say("aaa")})
    assert (alike.same, alike.value) == (3, None)
    assert measure_agreement({"anna": say("a."), "ben": say(".a")}) == []


def test_kappa_of_many_is_fleiss():
    counts = np.array(FLEISS.split(), int).reshape(10, 5)
    rows = ["".join("abcde"[k] * count for k, count in enumerate(row)) for row in counts]
    raters = {f"rater{n:02d}": say("".join(row[n] for row in rows)) for n in range(14)}
    *pairs, of_all = measure_agreement(raters)
    assert len(pairs) == 14 * 13 / 2
    assert len(of_all.annotators) == 14
    assert of_all.value == pytest.approx(0.210, abs=5e-4)


def test_kappa_of_several_labels_is_the_mean_over_labels():
    anna = [Answer("1", ("x", "y")), Answer("2", ("y",)), Answer("3", ()), Answer("4", ("x",))]
    ben = [Answer("1", ("y", "x")), Answer("2", ("y",)), Answer("3", ("y",)), Answer("4", ("x",))]
    [kappa] = measure_agreement({"anna": anna, "ben": ben}, is_multilabel=True)
    of_y = cohen_kappa_score([1, 1, 0, 0], [1, 1, 1, 0])
    assert (kappa.same, kappa.value) == (3, pytest.approx((1 + of_y) / 2))


def test_a_label_counts_where_more_than_half_agree_or_somebody_resolved_it():
    answers = {"anna": say("aabb"), "ben": say("abb-"), "cleo": say(".cbc")}
    agreed, open_ = agree(answers)
    assert agreed == {"0.png": Agreed(("a",), ("anna", "ben")), "2.png": Agreed(("b",), ("anna", "ben", "cleo"))}
    assert open_ == {
        "1.png": {"anna": ("a",), "ben": ("b",), "cleo": ("c",)},
        "3.png": {"anna": ("b",), "cleo": ("c",)},
    }
    answers["ben"].append(Answer("1.png", ("c",), is_resolution=True))
    answers["anna"].append(Answer("3.png", ("c",)))
    agreed, open_ = agree(answers)
    assert agreed["1.png"] == Agreed(("c",), ("ben",))
    assert agreed["3.png"].labels == ("c",)
    assert open_ == {}
