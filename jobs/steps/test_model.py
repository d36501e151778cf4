"""Test a model: scores, predictions and confusion matrix are saved in the run that is tested."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from classifier.bundle import bundle
from classifier.bundle.bundle import LoadedBundle
from classifier.data.dataset import Dataset
from classifier.evaluation.test_split import TestResult, evaluate_test_split
from classifier.report import png
from classifier.runs.folder import read_result
from classifier.runs.recorder import summary_scores
from classifier.runtime.distributed import pick_device
from classifier.storage.atomic import write_atomically

# With more classes than this, the table lists only the worst.
MAX_TABLE_CLASSES = 20


def run_test(
    path: str | Path,
    into: list[Path],
    *,
    device: str,
    again: bool = False,
    data_path: str | None = None,
    dataset: Dataset | None = None,
    loaded: LoadedBundle | None = None,
) -> TestResult:
    """Evaluate the test split, or read its saved scores; save predictions, hard examples and confusion.png in `into`.

    dataset, loaded: see evaluate_test_split.
    """
    result = evaluate_test_split(
        path, device=pick_device(device), again=again, data_path=data_path, dataset=dataset, loaded=loaded
    )
    for folder in into:
        png.draw_confusion_matrix(result.scores["confusion"], result.bundle.class_names, folder / "confusion.png")
    if result.predictions is not None:
        result.predictions.save(into)
    return result


def owner_of(path: str | Path) -> Path | None:
    """The run folder that contains a bundle; None for a bundle on its own."""
    folder = bundle.find(path)
    return folder.parent if (folder.parent / "result.json").is_file() else None


def save_test_scores(owner: Path, test: TestResult) -> int:
    """Write the test scores into result.json of the run that was tested; how often its test split has been read."""
    result = read_result(owner)
    result["test"] = summary_scores(test.scores)
    result["test_reads"] = result.get("test_reads", 0) + (test.predictions is not None)
    write_atomically(owner / "result.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result["test_reads"]


def describe_scores(scores: dict[str, Any]) -> Iterator[Any]:
    """Two lines with the overall scores, and a table with one row per class."""
    yield (
        f"test accuracy {_with_interval(scores, 'accuracy')}, balanced {scores['balanced_accuracy']:.2%}, top-5 "
        f"{scores['top5']:.2%}, macro F1 {_with_interval(scores, 'macro_f1')}, {scores['count']:,} images"
    )
    area, mcc = ("-" if scores[name] is None else f"{scores[name]:.3f}" for name in ("roc_auc", "mcc"))
    yield (
        f"macro precision {scores['macro_precision']:.2%}, recall {scores['macro_recall']:.2%}, ROC AUC {area}, "
        f"MCC {mcc}, loss {scores['loss']:.4f}, expected calibration error {scores['ece']:.1%}"
    )
    rows, title = scores["per_class"], "per class"
    if len(rows) > MAX_TABLE_CLASSES:
        rows, title = (
            sorted(rows, key=lambda row: row["f1"])[:MAX_TABLE_CLASSES],
            f"the {MAX_TABLE_CLASSES} worst classes",
        )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("class")
    for name in ("precision", "recall", "F1", "95 %", "images"):
        table.add_column(name, justify="right")
    for row in rows:
        values = (f"{row[name]:.2%}" for name in ("precision", "recall", "f1"))
        bounds = row["intervals"]["f1"]
        interval = f"{bounds[0]:.1%} to {bounds[1]:.1%}" if bounds else ""
        table.add_row(row["name"], *values, interval, f"{row['support']:,}")
    yield table


def _with_interval(scores: dict[str, Any], name: str) -> str:
    bounds = scores["intervals"][name]
    return f"{scores[name]:.2%}" + (f" ({bounds[0]:.1%} to {bounds[1]:.1%})" if bounds else "")
