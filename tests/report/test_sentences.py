"""Summary sentences say what the numbers say, and no more."""

from typing import Any

import numpy as np
import pytest

from classifier.metrics.intervals import wilson
from classifier.report import sentences


def scores(**changes: Any) -> dict[str, Any]:
    """Scores of two classes: 30 cats, of which 20 are found, and 70 dogs."""
    return scores_of([[20, 10], [0, 70]], "cat", "dog") | {"intervals": {"accuracy": [0.84, 0.95]}} | changes


def scores_of(confusion: list[list[int]], *names: str) -> dict[str, Any]:
    """The scores that follow from a confusion matrix."""
    per_class, hits, images = [], sum(row[k] for k, row in enumerate(confusion)), sum(map(sum, confusion))
    for k, name in enumerate(names):
        right, support, predicted = confusion[k][k], sum(confusion[k]), sum(row[k] for row in confusion)
        row = {"name": name, "support": support, "recall": right / max(1, support)}
        row |= {"precision": right / max(1, predicted), "f1": 2 * right / max(1, support + predicted)}
        per_class.append(row)
    fields = {"accuracy": hits / images, "count": images, "intervals": {"accuracy": list(wilson(hits, images))}}
    return fields | {
        "per_class": per_class,
        "confusion": confusion,
        "ece": 0.02,
        "ece_by_chance": 0.04,
        "confidence": hits / images,
    }


def history(*accuracies: tuple[float, float | None]) -> list[dict[str, Any]]:
    return [{"train_accuracy": train, "validation_accuracy": validation} for train, validation in accuracies]


def test_test_accuracy_has_its_confidence_interval():
    sentence = sentences.summarize(scores(), is_test=True)
    assert sentence == "Accuracy 90.0% on 100 held-out images (95 % confidence interval 84.0% to 95.0%)."


def test_22_of_22_images_are_85_to_100_percent():
    sentence = sentences.summarize(scores_of([[12, 0], [0, 10]], "a", "b"), is_test=True)
    assert sentence == "Accuracy 100.0% on 22 held-out images (95 % confidence interval 85.1% to 100.0%)."


def test_accuracy_without_an_interval():
    assert sentences.summarize(scores(intervals={"accuracy": None}), is_test=True) == (
        "Accuracy 90.0% on 100 held-out images."
    )


def test_validation_accuracy_is_called_optimistic():
    sentence = sentences.summarize(scores(), is_test=False)
    assert sentence == (
        "Validation accuracy 90.0% on 100 images (95 % confidence interval 84.0% to 95.0%). These images may have been "
        "used for model selection, so expect a lower accuracy on new ones. There are no test scores of this model."
    )


def test_description_names_baseline_classes_confusion_and_calibration():
    baseline, classes, confusion, calibration = sentences.describe_scores(scores())
    assert baseline == "Baseline: always predicting dog, the most frequent class, has an accuracy of 70.0%."
    assert classes == (
        "Lowest F1 score: 80.0% for cat (recall 67%, precision 100%, 30 images). Highest: 93.3% for dog."
    )
    assert confusion == "Most frequent confusion: cat predicted as dog, 10 of 10 errors."
    assert calibration == "Too few images to judge calibration (100)."


@pytest.mark.parametrize(
    ("confusion", "sentence"),
    [
        ([[40, 0], [10, 50]], "Baseline: always predicting b, the most frequent class, has an accuracy of 60.0%."),
        (
            [[45, 5], [5, 45]],
            "Baseline: always predicting one of the most frequent classes has an accuracy of 50.0%.",
        ),
        (
            [[3, 5], [2, 10]],  # 13 of 20 are right: 43 to 82 %
            "Baseline: always predicting b, the most frequent class, has an accuracy of 60.0%; on these 20 images the "
            "model cannot be told from it.",
        ),
        (
            [[7, 3], [2, 8]],  # 15 of 20 are 53 to 89 %; but only 8 of the 11 that they differ on speak for the model
            "Baseline: always predicting one of the most frequent classes has an accuracy of 50.0%; on these 20 images "
            "the model cannot be told from it.",
        ),
        (
            [[9, 1], [1, 9]],
            "Baseline: always predicting one of the most frequent classes has an accuracy of 50.0%.",
        ),
        (
            [[5, 5], [2, 8]],
            "Baseline: always predicting one of the most frequent classes has an accuracy of 50.0%; on these 20 images "
            "the model cannot be told from it.",
        ),
        (
            [[1]],
            "Baseline: always predicting a, the most frequent class, has an accuracy of 100.0%; on this 1 image the "
            "model cannot be told from it.",
        ),
        (
            [[1, 0], [60, 30]],
            "Baseline: always predicting b, the most frequent class, has an accuracy of 98.9%, which is better than "
            "the model.",
        ),
    ],
)
def test_baseline(confusion, sentence):
    assert next(sentences.describe_scores(scores_of(confusion, *"ab"[: len(confusion)]))) == sentence


@pytest.mark.parametrize(
    ("confusion", "said"),
    [
        # 22 images without an error: no class is the weakest.
        ([[11, 0, 0], [0, 7, 0], [0, 0, 4]], ["All classes have the same F1 score on these images, 100.0%."]),
        # c, with 2 images and no error, may be weaker than b.
        (
            [[90, 2, 0], [14, 76, 0], [0, 0, 2]],
            [
                "Lowest F1 score: 90.5% for b (recall 84%, precision 97%, 90 images), but there are too few images to "
                "tell whether it is the weakest class, or one of: c (2 images), a (92 images)."
            ],
        ),
        # Neither of 3 images is found: c is the weakest, few as they are.
        (
            [[99, 1, 0], [2, 98, 0], [2, 1, 0]],
            ["Lowest F1 score: 0.0% for c (recall 0%, never predicted, 3 images)."],
        ),
        # Nearly all is not all.
        (
            [[999, 1, 0], [300, 700, 0], [0, 0, 1000]],
            ["Lowest F1 score: 82.3% for b (recall 70%, precision 99.9%, 1,000 images). Highest: 100.0% for c."],
        ),
        ([[3, 0, 0], [0, 0, 0], [0, 0, 0]], ["Not judged, as there are no images: b, c."]),
        # c is never seen, and predicted by mistake.
        (
            [[95, 3, 2], [50, 50, 0], [0, 0, 0]],
            [
                "Not judged, as there are no images: c.",
                "Lowest F1 score: 65.4% for b (recall 50%, precision 94%, 100 images). Highest: 77.6% for a.",
            ],
        ),
        # Enough images of all: the weakest is known; of the others, none is the best.
        (
            [[950, 50, 0], [300, 700, 0], [30, 20, 950]],
            ["Lowest F1 score: 79.1% for b (recall 70%, precision 91%, 1,000 images). Highest: 97.4% for c."],
        ),
    ],
)
def test_weakest_class_is_named_where_it_can_be_told(confusion, said):
    classes = [
        sentence
        for sentence in sentences.describe_scores(scores_of(confusion, *"abc"))
        if "F1" in sentence or "Not judged" in sentence
    ]
    assert classes == said


def test_equal_classes_of_few_images_rarely_have_a_weakest():
    """5 classes of 12 images each, all recognised equally well."""
    rng, claims = np.random.default_rng(0), 0
    for _ in range(200):
        confusion = [rng.multinomial(12, [0.8 if j == k else 0.05 for j in range(5)]).tolist() for k in range(5)]
        claims += not any(
            "too few" in one or "same" in one for one in sentences.describe_scores(scores_of(confusion, *"abcde"))
        )
    assert claims <= 10


@pytest.mark.parametrize(
    ("confusion", "sentence"),
    [
        ([[29, 1, 0], [0, 30, 0], [0, 0, 30]], "The only error: a predicted as b."),
        ([[29, 1, 0], [0, 29, 1], [0, 0, 30]], "No confusion is the most frequent: 2 errors, at most 1 of a kind."),
        (
            [[28, 2, 0], [0, 29, 1], [0, 0, 30]],
            "Most frequent confusion: a predicted as b, 2 of 3 errors, too few to tell whether others are as frequent.",
        ),
        (
            [[28, 2, 0], [0, 30, 0], [0, 0, 30]],
            "Most frequent confusion: a predicted as b, 2 of 2 errors, too few to tell whether others are as frequent.",
        ),
        ([[20, 10, 0], [0, 29, 1], [0, 0, 30]], "Most frequent confusion: a predicted as b, 10 of 11 errors."),
    ],
)
def test_most_frequent_confusion(confusion, sentence):
    assert sentence in sentences.describe_scores(scores_of(confusion, *"abc"))


def test_without_errors_no_confusion_is_named():
    assert not any(
        "onfusion" in one or "error:" in one for one in sentences.describe_scores(scores_of([[9, 0], [0, 9]], "a", "b"))
    )


@pytest.mark.parametrize(
    ("ece", "by_chance", "count", "sentence"),
    [
        (0.02, 0.03, 1000, "Well calibrated: expected calibration error 2.0%."),
        (0.12, 0.03, 1000, "Poorly calibrated: expected calibration error 12.0%."),
        (0.02, 0.15, 27, "Too few images to judge calibration (27)."),
        (0.0, 0.0, 27, "Too few images to judge calibration (27)."),
        (0.12, 0.15, 27, "Too few images to judge calibration (27)."),
        (0.40, 0.15, 27, "Poorly calibrated: expected calibration error 40.0%."),
        (0.12, None, 1000, "Expected calibration error 12.0%."),  # of an older run
    ],
)
def test_calibration_is_judged_on_enough_images(ece, by_chance, count, sentence):
    measured = {"ece": ece, "count": count, "accuracy": 0.9, "confidence": 0.9 + ece}
    measured |= {} if by_chance is None else {"ece_by_chance": by_chance}
    assert sentences.describe_calibration_error(measured) == sentence


def test_confusions_are_sorted_by_count():
    confusion = [[5, 2, 0], [7, 5, 1], [0, 0, 5]]
    rows = {"per_class": [{"name": name} for name in "abc"], "confusion": confusion}
    assert sentences.top_confusions(rows, 2) == [("b", "a", 7), ("a", "b", 2)]


@pytest.mark.parametrize(
    ("rows", "validation_images", "text"),
    [
        (history((0.6, 0.6)), 1000, None),
        (history((0.6, None), (0.7, None)), 1000, None),
        (history((0.9, 0.8), (0.99, 0.8)), 1000, "Overfitting: training accuracy 99.0%, validation accuracy 80.0%"),
        (history((0.9, 0.8), (0.93, 0.8)), 10, "Cannot tell whether it overfits"),
        (history((0.9, 0.8), (0.99, 0.875)), 200, "Overfitting"),
        (history((0.7, 0.7), (0.8, 0.8)), 1000, "still rising"),
        (history((0.7, 0.7), (0.8, 0.8)), 60, None),  # six images more, of perhaps twenty that changed
        (history((0.7, 0.75), (0.8, 0.8)), 20, None),  # one image
        (history((0.7, 0.9), (0.7, 0.9)), 1000, "larger model or weaker augmentation"),
        (history((0.85, 0.92), (0.85, 0.92)), 25, None),
        (history((0.9, 0.9), (0.9, 0.9)), 1000, None),
    ],
)
def test_fit_is_diagnosed_from_the_history(rows, validation_images, text):
    diagnosis = sentences.diagnose_fit(rows, {"train": 2000, "validation": validation_images})
    assert diagnosis is None if text is None else text in str(diagnosis)


def test_fit_is_not_diagnosed_without_the_number_of_images():
    assert sentences.diagnose_fit(history((0.9, 0.8), (0.99, 0.8)), {}) is None


def test_equal_accuracies_are_rarely_called_overfitting():
    """The model is right on 90 % of training and of 16 validation images alike."""
    rng, counts = np.random.default_rng(0), {"train": 80, "validation": 16}
    claims = sum(
        "Overfitting" in (sentences.diagnose_fit(history((0.9, 0.9), (train / 80, found / 16)), counts) or "")
        for train, found in zip(rng.binomial(80, 0.9, 400), rng.binomial(16, 0.9, 400), strict=True)
    )
    assert claims <= 20


@pytest.mark.parametrize(
    ("importance", "trials", "sentence"),
    [
        ({"optimizer.lr": 0.8, "data.batch": 0.2}, 8, "8 trials are too few to tell which settings mattered."),
        ({"optimizer.lr": 0.8, "data.batch": 0.2}, 12, None),
        (dict.fromkeys("abcdef", 1 / 6), 16, "16 trials are too few to tell which settings mattered."),
        ({}, 1, "1 trial is too few to tell which settings mattered."),
        ({}, 100, "100 trials are too few to tell which settings mattered."),  # settings did not predict scores
    ],
)
def test_importance_is_shown_only_of_enough_trials(importance, trials, sentence):
    assert sentences.doubt_importance(importance, trials) == sentence


@pytest.mark.parametrize(
    ("best", "recipe", "images", "trials", "is_chance"),
    [
        (0.95, 0.90, 20, 2, True),
        (0.95, 0.90, 5000, 2, False),
        (0.95, 0.90, 300, 1, False),
        (0.95, 0.90, 300, 20, True),  # one of 20 trials is as much better by luck
        (1.0, 1.0, 1, 2, True),
    ],
)
def test_gain_over_the_recipe_may_be_chance(best, recipe, images, trials, is_chance):
    sentence = sentences.compare_with_recipe(best, recipe, images, trials)
    assert sentence.startswith(f"{100 * (best - recipe):+.2f} percentage points relative to the unchanged recipe")
    assert ("which may be chance" in sentence) == is_chance


def test_best_of_equal_trials_is_rarely_called_better_than_the_recipe():
    """20 trials and the recipe are right on 90 % of images alike."""
    rng, claims = np.random.default_rng(0), 0
    for _ in range(300):
        best, recipe = rng.binomial(500, 0.9, 20).max() / 500, rng.binomial(500, 0.9) / 500
        claims += "chance" not in sentences.compare_with_recipe(best, recipe, 500, 20)
    assert claims <= 15


def test_equal_epochs_are_rarely_called_rising():
    """Validation accuracy only fluctuates around 80 %, on 50 images."""
    rng, counts = np.random.default_rng(0), {"train": 500, "validation": 50}
    claims = sum(
        "rising" in (sentences.diagnose_fit(history((0.8, first / 50), (0.8, last / 50)), counts) or "")
        for first, last in rng.binomial(50, 0.8, (400, 2))
    )
    assert claims <= 20
