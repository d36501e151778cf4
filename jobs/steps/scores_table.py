"""The scores of a test as lines and a table."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from classifier.metrics.calibration import judge_calibration
from classifier.report.sentences import format_interval

# With more classes than this, the table lists only the worst.
MAX_TABLE_CLASSES = 20


def describe_scores(scores: dict[str, Any]) -> Iterator[Any]:
    """Four lines with the overall scores, and a table with one row per class."""
    area, mcc = ("-" if scores[name] is None else f"{scores[name]:.3f}" for name in ("roc_auc", "mcc"))
    yield f"test accuracy {_with_interval(scores, 'accuracy')} on {scores['count']:,} images"
    yield f"  balanced {scores['balanced_accuracy']:.2%}, top-5 {scores['top5']:.2%}, ROC AUC {area}, MCC {mcc}"
    yield (
        f"  macro F1 {_with_interval(scores, 'macro_f1')}, precision {scores['macro_precision']:.2%}, "
        f"recall {scores['macro_recall']:.2%}"
    )
    too_few = "ece_by_chance" in scores and judge_calibration(scores) is None
    ece = "too few images to judge calibration" if too_few else f"expected calibration error {scores['ece']:.1%}"
    yield f"  loss {scores['loss']:.4f}, {ece}"
    rows, title = scores["per_class"], "per class"
    if len(rows) > MAX_TABLE_CLASSES:
        rows, title = (
            sorted(rows, key=lambda row: row["f1"])[:MAX_TABLE_CLASSES],
            f"the {MAX_TABLE_CLASSES} classes with the lowest F1",
        )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("class")
    for name in ("precision", "recall", "F1", "95 %", "images"):
        table.add_column(name, justify="right")
    for row in rows:
        values = (f"{row[name]:.2%}" for name in ("precision", "recall", "f1"))
        interval = format_interval(row["intervals"]["f1"])
        table.add_row(row["name"], *values, interval, f"{row['support']:,}")
    yield table


def _with_interval(scores: dict[str, Any], name: str) -> str:
    interval = format_interval(scores["intervals"][name])
    return f"{scores[name]:.2%}" + (f" ({interval})" if interval else "")
