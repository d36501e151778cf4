"""Summary sentences say what the numbers say, and no more."""

from typing import Any

import pytest

from classifier.report import sentences


def scores(**changes: Any) -> dict[str, Any]:
    """Scores of two classes: 30 cats, of which 20 are found, and 70 dogs."""
    per_class = [
        {"name": "cat", "support": 30, "f1": 0.8, "recall": 20 / 30, "precision": 1.0},
        {"name": "dog", "support": 70, "f1": 0.933, "recall": 1.0, "precision": 70 / 80},
    ]
    values = {"accuracy": 0.9, "count": 100, "intervals": {"accuracy": [0.84, 0.95]}, "ece": 0.02}
    return values | {"per_class": per_class, "confusion": [[20, 10], [0, 70]]} | changes


def history(*accuracies: tuple[float, float | None]) -> list[dict[str, Any]]:
    return [{"train_accuracy": train, "validation_accuracy": validation} for train, validation in accuracies]


def test_test_accuracy_has_its_confidence_interval():
    sentence = sentences.summarize(scores(), is_test=True)
    assert sentence == "Accuracy 90.0% on 100 held-out images (95 % confidence interval 84.0% to 95.0%)."


def test_accuracy_without_an_interval():
    assert sentences.summarize(scores(intervals={"accuracy": None}), is_test=True) == (
        "Accuracy 90.0% on 100 held-out images."
    )


def test_validation_accuracy_is_called_optimistic():
    sentence = sentences.summarize(scores(), is_test=False)
    assert "Validation accuracy 90.0%" in sentence
    assert "model selection" in sentence
    assert "not been tested" in sentence


def test_description_names_baseline_classes_confusion_and_calibration():
    baseline, classes, confusion, calibration = sentences.describe_scores(scores())
    assert "always predicting dog" in baseline
    assert "70.0%" in baseline
    assert classes.startswith("Lowest F1 score: 80.0% for cat (recall 67%, precision 100%)")
    assert confusion == "Most frequent confusion: cat predicted as dog, 10 images."
    assert calibration == "Well calibrated: expected calibration error 2.0%."


def test_poor_calibration_and_a_single_error():
    *_, confusion, calibration = sentences.describe_scores(scores(ece=0.12, confusion=[[29, 1], [0, 70]]))
    assert confusion.endswith("1 image.")
    assert calibration == "Poorly calibrated: expected calibration error 12.0%."


def test_classes_with_few_images_are_not_called_weak():
    few = scores()
    few["per_class"][0]["support"] = sentences.MIN_CLASS_IMAGES - 1
    assert not any("F1" in sentence for sentence in sentences.describe_scores(few))


def test_confusions_are_sorted_by_count():
    confusion = [[5, 2, 0], [7, 5, 1], [0, 0, 5]]
    rows = {"per_class": [{"name": name} for name in "abc"], "confusion": confusion}
    assert sentences.top_confusions(rows, 2) == [("b", "a", 7), ("a", "b", 2)]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (history((0.6, 0.6)), None),
        (history((0.6, None), (0.7, None)), None),
        (history((0.9, 0.8), (0.99, 0.8)), "Overfitting"),
        (history((0.7, 0.7), (0.8, 0.8)), "still rising"),
        (history((0.7, 0.9), (0.7, 0.9)), "larger model or weaker augmentation"),
        (history((0.9, 0.9), (0.9, 0.9)), None),
    ],
)
def test_fit_is_diagnosed_from_the_history(rows, text):
    diagnosis = sentences.diagnose_fit(rows)
    assert diagnosis is None if text is None else text in str(diagnosis)
