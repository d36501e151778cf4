"""The scores of a test, and the importance of the inputs of a model with columns, as lines and tables."""

from collections.abc import Iterator, Mapping
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
from classifier.report.sections.column_section import format_input, head_importance, sort_inputs

# With more classes than this, the table lists only the worst; with more columns, only the most important.
MAX_TABLE_CLASSES, MAX_TABLE_COLUMNS = 20, 10


def describe_scores(scores: dict[str, Any]) -> Iterator[Any]:
    """Lines with the overall scores and their intervals, and a table with one row per class."""
    is_multilabel = "confusion" not in scores
    yield from _describe_labels(scores) if is_multilabel else _describe_classes(scores)
    rows, title = format_classes(scores, 2), "per class"
    if len(rows) <= MAX_TABLE_CLASSES:
        names = [row["name"] for row in scores["per_class"]]
        rows.sort(key=lambda row: names.index(row["name"]))
    else:
        rows, title = rows[:MAX_TABLE_CLASSES], f"the {MAX_TABLE_CLASSES} classes with the lowest F1"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    columns = {"name": "class", "precision": "precision", "recall": "recall", "f1": "F1", "interval": "95 %"}
    columns |= {"average_precision": "AP", "threshold": "threshold"} if is_multilabel else {}
    columns |= {"images": "images"}
    for name, title in columns.items():
        table.add_column(title, justify="left" if name == "name" else "right")
    for row in rows:
        table.add_row(*(row[name] for name in columns))
    yield table


def tabulate_importance(fusion: Mapping[str, Any] | None, split: str) -> Iterator[Table]:
    """A table of what the model loses without each input, on a split: from a FusionDocument that has it."""
    importance = (fusion or {}).get("importance", {}).get(split)
    if importance is None:
        return
    title = f"importance on {split} images, by {importance['repeats']} permutations"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in head_importance(importance):
        table.add_column(name, justify="left" if name == "input" else "right")
    rows = sort_inputs(importance)
    for row in rows[: MAX_TABLE_COLUMNS + 2]:
        table.add_row(*format_input(importance, row))
    yield table


def _describe_classes(scores: dict[str, Any]) -> Iterator[str]:
    yield f"test accuracy {_with_interval(scores, 'accuracy')} on {count_images(scores['count'])}"
    if "quadratic_kappa" in scores:
        error = _with_interval(scores, "mean_absolute_error")
        yield f"  quadratic kappa {_with_interval(scores, 'quadratic_kappa')}, mean absolute error {error}"
    yield f"  balanced accuracy {_with_interval(scores, 'balanced_accuracy')}"
    yield f"  macro F1 {_with_interval(scores, 'macro_f1')}, MCC {_with_interval(scores, 'mcc')}"
    top5 = "" if is_fixed(scores, "top5") else f", top-5 {_with_interval(scores, 'top5')}"
    yield f"  ROC AUC {_with_interval(scores, 'roc_auc')}{top5}"
    too_few = "ece_by_chance" in scores and judge_calibration(scores) is None
    ece = "too few images to judge calibration" if too_few else f"expected calibration error {scores['ece']:.1%}"
    yield f"  loss {_with_interval(scores, 'loss')}, {ece}"
    for row in scores.get("levels", ()):
        level = f"level {row['depth']}, {row['classes']:,} classes"
        yield f"  {level}: accuracy {_with_interval(row, 'accuracy')}, macro F1 {_with_interval(row, 'macro_f1')}"


def _describe_labels(scores: dict[str, Any]) -> Iterator[str]:
    yield f"test mAP {_with_interval(scores, 'map')} on {count_images(scores['count'])}"
    yield f"  F1 of all labels {_with_interval(scores, 'micro_f1')}, macro F1 {_with_interval(scores, 'macro_f1')}"
    yield f"  all labels right {_with_interval(scores, 'subset_accuracy')}, ROC AUC {_with_interval(scores, 'roc_auc')}"
    yield f"  Hamming loss {_with_interval(scores, 'hamming_loss')}"
    yield f"  loss {_with_interval(scores, 'loss')}, expected calibration error {scores['ece']:.1%}"


def _with_interval(scores: dict[str, Any], name: str) -> str:
    score, interval = format_with_interval(scores, name)
    if name not in DECIMAL_SCORES:
        interval = format_interval(scores["intervals"].get(name)) or interval
    return f"{score} ({interval})" if interval else score
