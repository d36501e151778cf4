"""Numbers as text: nothing that is nearly all is called all, and nothing unknown is called zero."""

import pytest
import torch

from classifier.metrics.scores import compute_scores
from classifier.report import numbers


@pytest.mark.parametrize(
    ("share", "decimals", "text"),
    [
        (1.0, 1, "100.0%"),
        (0.0, 1, "0.0%"),
        (0.9994, 1, "99.9%"),
        (0.9999, 1, "99.99%"),  # one error in 10,000
        (0.996, 0, "99.6%"),
        (0.0001, 1, "0.01%"),
        (0.94505, 2, "94.50%"),
        (1 - 1e-12, 1, "100.000000%"),
    ],
)
def test_share_that_is_nearly_all_does_not_round_to_all(share, decimals, text):
    assert numbers.format_share(share, decimals) == text


@pytest.mark.parametrize(
    ("hits", "count", "text"),
    [
        (1, 1, "100.0% on 1 image (20.7% to 100.0%)"),
        (0, 1, "0.0% on 1 image (0.0% to 79.3%)"),
        (22, 22, "100.0% on 22 images (85.1% to 100.0%)"),
        (999_999, 1_000_000, "99.9999% on 1,000,000 images (99.9994% to 99.99998%)"),
        (10**7, 10**7, "100.0% on 10,000,000 images (99.99996% to 100.0%)"),
    ],
)
def test_proportion_has_its_interval(hits, count, text):
    found = numbers.format_proportion(hits, count)
    assert found.split(" (")[0] == text.split(" (")[0]
    low, high = (float(end.rstrip("%)")) for end in found.split(" (")[1].split(" to "))
    assert low < high
    assert (low < 100, high > 0) == (True, True)


def test_what_is_not_known_of_a_class_is_no_number():
    """Nothing is of class c, or predicted as it; nothing is predicted as b."""
    labels_N = torch.tensor([0, 0, 1])
    probabilities_NK = torch.tensor([[0.8, 0.1, 0.1]]).expand(3, 3)
    rows = {row["name"]: row for row in numbers.format_classes(compute_scores(probabilities_NK, labels_N, [*"abc"]))}
    assert [*rows] == ["b", "a", "c"]
    assert (rows["b"]["precision"], rows["b"]["recall"], rows["b"]["f1"]) == ("–", "0.0%", "0.0%")
    assert (rows["a"]["precision"], rows["a"]["recall"]) == ("66.7%", "100.0%")
    assert {rows["c"][name] for name in ("precision", "recall", "f1", "interval", "roc_auc")} == {"–"}
    assert rows["c"]["images"] == "0"


@pytest.mark.parametrize("count", [1, 2, 3, 20])
@pytest.mark.parametrize("classes", [1, 2, 7])
@pytest.mark.parametrize("kind", ["right", "wrong", "equal"])
def test_every_score_has_an_interval_or_says_why_not(count, classes, kind):
    """Models without an error, without a hit, and equally sure of each class."""
    labels_N = torch.arange(count) % classes
    shown_N = labels_N if kind == "right" else (labels_N + 1) % classes
    probabilities_NK = 0.7 * torch.nn.functional.one_hot(shown_N, classes) + 0.3 / classes
    if kind == "equal":
        probabilities_NK = torch.full((count, classes), 1 / classes)
    scores = compute_scores(probabilities_NK, labels_N, [f"c{k}" for k in range(classes)], is_ordinal=True)
    for name in numbers.SCORE_NAMES:
        score, interval = numbers.format_with_interval(scores, name)
        assert interval or score == "undefined" or (name == "top5" and classes <= 5), name
        assert "nan" not in score + interval
