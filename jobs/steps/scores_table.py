"""The scores of a test as lines and a table."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from classifier.metrics.calibration import judge_calibration
from classifier.report.numbers import (
    DECIMAL_SCORES,
    count_images,
    format_classes,
    format_interval,
    format_with_interval,
    is_fixed,
)

# With more classes than this, the table lists only the worst.
MAX_TABLE_CLASSES = 20


def describe_scores(scores: dict[str, Any]) -> Iterator[Any]:
    """Lines with the overall scores and their intervals, and a table with one row per class."""
    yield f"test accuracy {_with_interval(scores, 'accuracy')} on {count_images(scores['count'])}"
    yield f"  balanced accuracy {_with_interval(scores, 'balanced_accuracy')}"
    yield f"  macro F1 {_with_interval(scores, 'macro_f1')}, MCC {_with_interval(scores, 'mcc')}"
    top5 = "" if is_fixed(scores, "top5") else f", top-5 {_with_interval(scores, 'top5')}"
    yield f"  ROC AUC {_with_interval(scores, 'roc_auc')}{top5}"
    too_few = "ece_by_chance" in scores and judge_calibration(scores) is None
    ece = "too few images to judge calibration" if too_few else f"expected calibration error {scores['ece']:.1%}"
    yield f"  loss {_with_interval(scores, 'loss')}, {ece}"
    rows, title = format_classes(scores, 2), "per class"
    if len(rows) <= MAX_TABLE_CLASSES:
        names = [row["name"] for row in scores["per_class"]]
        rows.sort(key=lambda row: names.index(row["name"]))
    else:
        rows, title = rows[:MAX_TABLE_CLASSES], f"the {MAX_TABLE_CLASSES} classes with the lowest F1"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("class")
    for name in ("precision", "recall", "F1", "95 %", "images"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(row[name] for name in ("name", "precision", "recall", "f1", "interval", "images")))
    yield table


def _with_interval(scores: dict[str, Any], name: str) -> str:
    score, interval = format_with_interval(scores, name)
    if name not in DECIMAL_SCORES:
        interval = format_interval(scores["intervals"].get(name)) or interval
    return f"{score} ({interval})" if interval else score
