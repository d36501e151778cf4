"""Sentences that summarise a model's scores for people; each follows from the numbers it is given."""

from collections.abc import Iterator, Sequence
from typing import Any

# A model with a lower expected calibration error is called well calibrated.
WELL_CALIBRATED_ECE = 0.05
# Classes with fewer images are not named as the weakest or the best.
MIN_CLASS_IMAGES = 10
# Differences of accuracy from which on a training is said to overfit, to underfit, or to be still improving.
OVERFIT_GAP, UNDERFIT_GAP, LATE_GAIN = 0.1, -0.05, 0.01


def summarize(scores: dict[str, Any], *, is_test: bool) -> str:
    """Return the accuracy with its confidence interval, and the images that it was measured on."""
    accuracy, count, interval = scores["accuracy"], scores["count"], scores["intervals"]["accuracy"]
    text = f" (95 % confidence interval {interval[0]:.1%} to {interval[1]:.1%})" if interval else ""
    if is_test:
        return f"Accuracy {accuracy:.1%} on {count:,} held-out images{text}."
    return (
        f"Validation accuracy {accuracy:.1%} on {count:,} images{text}. These images were used for model selection, "
        "so expect a slightly lower accuracy on new ones. The model has not been tested yet."
    )


def describe_scores(scores: dict[str, Any]) -> Iterator[str]:
    """Yield sentences on the baseline, the weakest and best class, the most frequent confusion and the calibration."""
    supports = [row["support"] for row in scores["per_class"]]
    largest = max(range(len(supports)), key=supports.__getitem__)
    name = scores["per_class"][largest]["name"]
    share = supports[largest] / sum(supports)
    yield f"Baseline: always predicting {name}, the most frequent class, has an accuracy of {share:.1%}."
    rows = [row for row in scores["per_class"] if row["support"] >= MIN_CLASS_IMAGES]
    if len(rows) > 1:
        weakest, best = (pick(rows, key=lambda row: row["f1"]) for pick in (min, max))
        yield (
            f"Lowest F1 score: {weakest['f1']:.1%} for {weakest['name']} (recall {weakest['recall']:.0%}, precision "
            f"{weakest['precision']:.0%}). Highest: {best['f1']:.1%} for {best['name']}."
        )
    confusions = top_confusions(scores, 1)
    if confusions:
        label, predicted, count = confusions[0]
        yield f"Most frequent confusion: {label} predicted as {predicted}, {count:,} image{'s' if count > 1 else ''}."
    ece = scores["ece"]
    yield f"{'Well' if ece < WELL_CALIBRATED_ECE else 'Poorly'} calibrated: expected calibration error {ece:.1%}."


def top_confusions(scores: dict[str, Any], count: int) -> list[tuple[str, str, int]]:
    """Return (label, predicted class, images) of the `count` most frequent confusions."""
    names = [row["name"] for row in scores["per_class"]]
    cells = [
        (names[i], names[j], images)
        for i, row in enumerate(scores["confusion"])
        for j, images in enumerate(row)
        if i != j and images
    ]
    return sorted(cells, key=lambda cell: -cell[2])[:count]


def diagnose_fit(history: Sequence[dict[str, Any]]) -> str | None:
    """Return whether a training overfits, underfits or ended too early, by its history; None if it shows neither."""
    rows = [row for row in history if row["validation_accuracy"] is not None and row["train_accuracy"] is not None]
    if len(rows) < 2:
        return None
    train_accuracy, validation_accuracy = rows[-1]["train_accuracy"], rows[-1]["validation_accuracy"]
    gap = train_accuracy - validation_accuracy
    if gap > OVERFIT_GAP:
        return (
            f"Overfitting: training accuracy {train_accuracy:.1%}, validation accuracy {validation_accuracy:.1%}. More "
            "images or stronger augmentation would probably help most."
        )
    gain = validation_accuracy - rows[-max(2, len(rows) // 4)]["validation_accuracy"]
    if gain > LATE_GAIN:
        return "Validation accuracy was still rising when training ended: more epochs would probably help."
    if gap < UNDERFIT_GAP:
        return (
            f"Training accuracy {train_accuracy:.1%}, with augmentation, is below validation accuracy "
            f"{validation_accuracy:.1%}: a larger model or weaker augmentation may help."
        )
    return None
