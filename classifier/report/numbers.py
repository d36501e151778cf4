"""Scores, shares and their intervals as text. No rounding turns a few errors into none, or an unknown into a zero."""

import math
from collections.abc import Sequence
from typing import Any

from classifier.metrics.intervals import wilson
from classifier.metrics.scores import TOP_K

SCORE_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "top5": "top-5 accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "quadratic_kappa": "quadratic weighted kappa",
    "mean_absolute_error": "mean absolute error, in grades",
    "kappa": "Cohen's kappa",
    "mcc": "Matthews correlation coefficient",
    "loss": "log loss",
    "brier": "Brier score",
    "ece": "expected calibration error",
}
ORDINAL_SCORES = ("quadratic_kappa", "mean_absolute_error")
# Of several labels an image.
LABEL_SCORE_NAMES = {
    "map": "mean average precision",
    "roc_auc": "ROC AUC",
    "micro_f1": "F1 of all labels together",
    "macro_f1": "macro F1",
    "samples_f1": "mean F1 of images (0 without labels)",
    "subset_accuracy": "images with all labels right",
    "hamming_loss": "Hamming loss",
    "loss": "log loss",
    "ece": "expected calibration error",
}
# Scores that are not shares.
DECIMAL_SCORES = ("roc_auc", "average_precision", "kappa", "mcc", "loss", "brier", *ORDINAL_SCORES)
# In place of a score of a class that its images do not tell.
UNKNOWN = "–"
# Decimal places of a share that would otherwise round to 0 or 100 %.
MAX_DECIMALS = 6


def format_share(share: float, decimals: int = 1) -> str:
    """Return "94.3%"; with as many decimal places as it takes to differ from 0 and 100 %, if it does."""
    text = f"{share:.{decimals}%}"
    if 0 < share < 1 and decimals < MAX_DECIMALS and float(text.rstrip("%")) in (0, 100):
        return format_share(share, decimals + 1)
    return text


def format_interval(interval: Sequence[float] | None) -> str:
    """Return "85.1% to 100.0%"; empty for None."""
    return f"{format_share(interval[0])} to {format_share(interval[1])}" if interval else ""


def format_proportion(hits: int, count: int, decimals: int = 1) -> str:
    """Return "100.0% on 22 images (85.1% to 100.0%)"."""
    return f"{format_share(hits / count, decimals)} on {count_images(count)} ({format_interval(wilson(hits, count))})"


def format_accuracy(scores: dict[str, Any], decimals: int = 1) -> str:
    """Return the accuracy in `scores` as a proportion of its images."""
    return format_proportion(round(scores["accuracy"] * scores["count"]), scores["count"], decimals)


def format_summary(split: str, summary: dict[str, Any], decimals: int = 1) -> str:
    """Return "validation accuracy 94.5% on ...", or, of several labels, mAP and how often all of an image are right."""
    accuracy = format_accuracy(summary, decimals)
    if summary.get("map") is None:
        return f"{split} accuracy {accuracy}"
    return f"{split} mAP {format_share(summary['map'], decimals)}, all labels right: {accuracy}"


def count_images(count: int) -> str:
    """Return "1 image" or "1,234 images"."""
    return f"{count:,} image{'' if count == 1 else 's'}"


def format_score(name: str, value: float | None) -> str:
    """Format a score as a percentage, or as a decimal number where it is no share."""
    if value is None or math.isnan(value):
        return "undefined"
    return f"{value:.3f}" if name in DECIMAL_SCORES else format_share(value, 2)


def format_with_interval(scores: dict[str, Any], name: str) -> tuple[str, str]:
    """Format a score and its confidence interval; empty for a score that is undefined, or fixed by its definition."""
    ends = scores["intervals"].get(name)
    interval = "" if scores[name] is None or is_fixed(scores, name) else "not known"
    interval = f"{format_score(name, ends[0])} to {format_score(name, ends[1])}" if ends else interval
    return format_score(name, scores[name]), interval


def is_fixed(scores: dict[str, Any], name: str) -> bool:
    """Return whether a score says nothing: of few classes, all are among the top 5."""
    return name == "top5" and len(scores["per_class"]) <= TOP_K


def format_classes(scores: dict[str, Any], decimals: int = 1) -> list[dict[str, str]]:
    """Return the scores of each class as text, the lowest F1 first, then classes without images.

    Recall and F1 of a class without images are unknown, and so is the precision of one that was never predicted: they
    are UNKNOWN, though they count as 0 in scores.
    """
    if "confusion" in scores:
        predicted_K = [sum(column) for column in zip(*scores["confusion"], strict=True)]
    else:  # of several labels
        predicted_K = [row["predicted"] for row in scores["per_class"]]
    rows = sorted(
        zip(scores["per_class"], predicted_K, strict=True), key=lambda row: (not row[0]["support"], row[0]["f1"])
    )
    return [
        {
            "name": row["name"],
            "precision": format_share(row["precision"], decimals) if predicted else UNKNOWN,
            "recall": format_share(row["recall"], decimals) if row["support"] else UNKNOWN,
            "f1": format_share(row["f1"], decimals) if row["support"] else UNKNOWN,
            "interval": format_interval(row["intervals"]["f1"]) if row["support"] else UNKNOWN,
            "roc_auc": UNKNOWN if row.get("roc_auc") is None else f"{row['roc_auc']:.3f}",
            "average_precision": UNKNOWN if (area := row.get("average_precision")) is None else format_share(area),
            "threshold": UNKNOWN if (limit := row.get("threshold")) is None else format_share(limit, decimals),
            "images": f"{row['support']:,}",
        }
        for row, predicted in rows
    ]
