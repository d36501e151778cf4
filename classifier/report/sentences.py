"""Sentences that summarise a model's scores for people; each follows from the numbers it is given, and says no more
than their counts can bear."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from classifier.errors import list_few
from classifier.metrics.calibration import MIN_IMAGES, judge_calibration
from classifier.metrics.decisions import Calibration
from classifier.metrics.intervals import (
    CONFIDENCE_LEVEL,
    Interval,
    difference_interval,
    f1_interval,
    paired_difference_interval,
    sum_interval,
)
from classifier.report.numbers import (
    count_images,
    format_interval,
    format_proportion,
    format_share,
    format_with_interval,
)

# Differences of accuracy from which on a training is said to overfit, to underfit, or to be still improving.
OVERFIT_GAP, UNDERFIT_GAP, LATE_GAIN = 0.1, -0.05, 0.01
# With fewer trials, or fewer for each setting, importance would only describe noise. The shares have a sum of 1, so a
# setting always wins: of random scores and 2 to 6 settings, the largest share is twice the second in 30 to 60 % of
# searches of 6 to 24 trials, and with one numeric and one categorical setting in 97 % of those of 64. So no number of
# trials is enough by itself: jobs/search/importance.py tests, of 12 and more, if the settings predict the scores.
MIN_TRIALS, MIN_TRIALS_PER_SETTING = 12, 3


def summarize(scores: dict[str, Any], *, is_test: bool, by_folds: str = "") -> str:
    """Return the accuracy with its confidence interval, and the images that it was measured on.

    by_folds: by which folds the validation accuracy was measured, if it was.
    """
    accuracy, count, interval = format_share(scores["accuracy"]), scores["count"], scores["intervals"]["accuracy"]
    how = f", {by_folds}" if by_folds else ""
    text = f" (95 % confidence interval {format_interval(interval)})" if interval else ""
    if is_test:
        return f"Accuracy {accuracy} on {count:,} held-out image{'' if count == 1 else 's'}{text}."
    return (
        f"Validation accuracy {accuracy} on {count_images(count)}{text}{how}. These images may have been used for "
        "model selection, so expect a lower accuracy on new ones. There are no test scores of this model."
    )


def describe_scores(scores: dict[str, Any]) -> Iterator[str]:
    """Yield sentences on the baseline, the weakest and best class, the most frequent confusion and the calibration."""
    yield _describe_baseline(scores)
    yield from _describe_grades(scores)
    yield from _describe_levels(scores)
    yield from _describe_classes(scores)
    yield from _describe_confusion(scores)
    yield describe_calibration_error(scores)


def _describe_baseline(scores: dict[str, Any]) -> str:
    supports = [row["support"] for row in scores["per_class"]]
    most, images = max(supports), sum(supports)
    k = supports.index(most)
    name = scores["per_class"][k]["name"]
    which = f"{name}, the most frequent class," if supports.count(most) == 1 else "one of the most frequent classes"
    text = f"Baseline: always predicting {which} has an accuracy of {format_share(most / images)}"
    hits_K = [row[n] for n, row in enumerate(scores["confusion"])]
    low, high = paired_difference_interval(most - hits_K[k], sum(hits_K) - hits_K[k], images)
    if low <= 0 <= high:
        text += f"; on {'this' if images == 1 else 'these'} {count_images(images)} the model cannot be told from it"
    elif high < 0:
        text += ", which is better than the model"
    return text + "."


def _describe_grades(scores: dict[str, Any]) -> Iterator[str]:
    """How far predictions of ordered grades are off."""
    if "quadratic_kappa" in scores:
        kappa, interval = format_with_interval(scores, "quadratic_kappa")
        near = sum(images for i, row in enumerate(scores["confusion"]) for images in row[max(0, i - 1) : i + 2])
        yield (
            f"Quadratic weighted kappa {kappa}{f' ({interval})' if interval else ''}. Predictions are "
            f"{scores['mean_absolute_error']:.2f} grades off on average, and at most one grade for "
            f"{format_proportion(near, scores['count'])}."
        )


def _describe_levels(scores: dict[str, Any]) -> Iterator[str]:
    """The accuracy of nested classes at each level above the leaves."""
    for row in scores.get("levels", ()):
        interval = format_interval(row["intervals"].get("accuracy"))
        level = f"Level {row['depth']}, of {row['classes']:,} classes"
        yield f"{level}: accuracy {format_share(row['accuracy'])}{f' ({interval})' if interval else ''}."


def _describe_classes(scores: dict[str, Any]) -> Iterator[str]:
    """The classes with the lowest and the highest F1 score, if they can be told from each other class."""
    rows, confusion = scores["per_class"], scores["confusion"]
    hits = [confusion[k][k] for k in range(len(rows))]
    predicted = [sum(row[k] for row in confusion) for k in range(len(rows))]
    intervals = {
        row["name"]: f1_interval(hits[k], row["support"], predicted[k]) for k, row in enumerate(rows) if row["support"]
    }
    judged = [row for row in rows if row["support"]]
    if missing := [row["name"] for row in rows if not row["support"]]:
        yield f"Not judged, as there are no images: {list_few(missing)}."
    if len(judged) < 2:
        return
    weakest, best = (pick(judged, key=lambda row: row["f1"]) for pick in (min, max))
    if weakest["f1"] == best["f1"]:
        yield f"All classes have the same F1 score on these images, {format_share(best['f1'])}."
        return
    is_predicted = predicted[rows.index(weakest)] > 0
    precision = f"precision {format_share(weakest['precision'], 0)}, " if is_predicted else "never predicted, "
    rivals = [row for row in judged if row is not weakest and not _is_surely_lower(weakest, row, intervals)]
    text = (
        f"Lowest F1 score: {format_share(weakest['f1'])} for {weakest['name']} (recall "
        f"{format_share(weakest['recall'], 0)}, {precision}{count_images(weakest['support'])})"
    )
    if rivals:
        rivals.sort(key=lambda row: row["support"])
        names = list_few([f"{row['name']} ({count_images(row['support'])})" for row in rivals])
        yield f"{text}, but there are too few images to tell whether it is the weakest class, or one of: {names}."
        return
    is_best = all(_is_surely_lower(row, best, intervals) for row in judged if row is not best)
    yield f"{text}." + (f" Highest: {format_share(best['f1'])} for {best['name']}." if is_best else "")


def _is_surely_lower(row: dict[str, Any], other: dict[str, Any], intervals: Mapping[str, Interval]) -> bool:
    """Return whether the F1 score of a class is lower than the other's, by the interval of their difference."""
    ends = [intervals[row["name"]], intervals[other["name"]]]
    return sum_interval((row["f1"], other["f1"]), ends, (1, -1))[1] < 0


def _describe_confusion(scores: dict[str, Any]) -> Iterator[str]:
    confusions = top_confusions(scores, len(scores["confusion"]) ** 2)
    errors = sum(images for *_, images in confusions)
    if not confusions:
        return
    label, predicted, images = confusions[0]
    second = confusions[1][2] if len(confusions) > 1 else 0
    if errors == 1:
        yield f"The only error: {label} predicted as {predicted}."
    elif second == images:
        yield f"No confusion is the most frequent: {errors:,} errors, at most {images:,} of a kind."
    else:
        text = f"Most frequent confusion: {label} predicted as {predicted}, {images:,} of {errors:,} errors"
        from scipy.stats import binomtest  # takes half a second

        is_chance = binomtest(images, images + second).pvalue >= 1 - CONFIDENCE_LEVEL
        yield f"{text}{', too few to tell whether others are as frequent' if is_chance else ''}."


def describe_calibration_error(scores: dict[str, Any]) -> str:
    """Return how well the model is calibrated, or that its images are too few to tell."""
    ece, judgement = scores["ece"], judge_calibration(scores)
    if judgement is not None:
        return f"{judgement.capitalize()} calibrated: expected calibration error {format_share(ece)}."
    if "ece_by_chance" not in scores:
        return f"Expected calibration error {format_share(ece)}."
    return f"Too few images to judge calibration ({scores['count']:,})."


def describe_fit(calibration: Calibration, by_folds: str, split: str) -> Iterator[str]:
    """Say on what a calibration was fitted. by_folds: by which folds, if any; split: of the images that are shown."""
    images = f"{calibration.images:,} {'' if by_folds else 'validation '}image{'' if calibration.images == 1 else 's'}"
    if calibration.images < MIN_IMAGES:
        yield f"Not calibrated: {images} are too few to fit a temperature (it takes {MIN_IMAGES})."
    else:
        how = f", {by_folds}" if by_folds else ""
        yield f"Temperature {calibration.temperature:.2f}, fitted on {images}{how}."
    if split == "validation":
        yield "All of this was fitted on the images that it is measured on here: expect less on new ones."


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


def diagnose_fit(history: Sequence[dict[str, Any]], counts: Mapping[str, int]) -> str | None:
    """Return whether a training overfits, underfits or ended too early, by its history; None if it shows neither.

    counts: images of the splits, by name, without which nothing can be told.
    """
    rows = [row for row in history if row["validation_accuracy"] is not None and row["train_accuracy"] is not None]
    train_images, validation_images = counts.get("train", 0), counts.get("validation", 0)
    if len(rows) < 2 or not train_images or not validation_images:
        return None
    train_accuracy, validation_accuracy = rows[-1]["train_accuracy"], rows[-1]["validation_accuracy"]
    gap = train_accuracy - validation_accuracy
    low, high = difference_interval(train_accuracy, train_images, validation_accuracy, validation_images)
    if gap > OVERFIT_GAP:
        accuracies = f"training accuracy {format_share(train_accuracy)}, validation accuracy "
        accuracies += format_share(validation_accuracy)
        if low > 0:
            return f"Overfitting: {accuracies}. More images or stronger augmentation would probably help most."
        return f"Cannot tell whether it overfits: {accuracies}, but on only {count_images(validation_images)}."
    earlier_accuracy = rows[-max(2, len(rows) // 4)]["validation_accuracy"]
    gain_low, _ = difference_interval(validation_accuracy, validation_images, earlier_accuracy, validation_images)
    if validation_accuracy - earlier_accuracy > LATE_GAIN and gain_low > 0:
        return "Validation accuracy was still rising when training ended: more epochs would probably help."
    if gap < UNDERFIT_GAP and high < 0:
        return (
            f"Training accuracy {format_share(train_accuracy)}, with augmentation, is below validation accuracy "
            f"{format_share(validation_accuracy)}: a larger model or weaker augmentation may help."
        )
    return None


def doubt_importance(importance: Mapping[str, float], trials: int) -> str | None:
    """Return that it cannot be told which settings mattered in a search; None if their importance can be shown.

    importance: of each setting, empty where the search could not tell.
    """
    if importance and trials >= max(MIN_TRIALS, MIN_TRIALS_PER_SETTING * len(importance)):
        return None
    return f"{trials:,} trial{'s are' if trials > 1 else ' is'} too few to tell which settings mattered."


def compare_with_recipe(best: float, recipe: float, images: int, trials: int) -> str:
    """Return how the best trial's validation accuracy compares with the unchanged recipe's, on so many images.

    The best of many equal trials is better than the recipe by luck: the interval is that of all `trials` together
    (Bonferroni).
    """
    confidence = 1 - (1 - CONFIDENCE_LEVEL) / max(1, trials)
    low, high = difference_interval(best, images, recipe, images, confidence=confidence)
    text = f"{100 * (best - recipe):+.2f} percentage points relative to the unchanged recipe"
    if low <= 0 <= high:
        text += f", which may be chance on {count_images(images)}"
    return text
