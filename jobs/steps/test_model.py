"""A model's test: the scores go into the run that is tested, its predictions and confusion beside them."""

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

# More classes than this are told as the worst ones alone.
TABLE_CLASSES = 20


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
    """The run folder that a bundle lies in; None for a bundle that stands alone."""
    folder = bundle.find(path)
    return folder.parent if (folder.parent / "result.json").is_file() else None


def save_test_scores(owner: Path, reading: TestResult) -> int:
    """Write the test scores into the result.json of the run that was tested; how often its test split was read."""
    result = read_result(owner)
    result["test"] = summary_scores(reading.scores)
    result["test_reads"] = result.get("test_reads", 0) + (reading.predictions is not None)
    write_atomically(owner / "result.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result["test_reads"]


def describe_scores(scores: dict[str, Any]) -> Iterator[Any]:
    """The figures for people: two lines for all, one row a class."""
    yield (
        f"test accuracy {_with_interval(scores, 'accuracy')}, balanced {scores['balanced_accuracy']:.2%}, top-5 "
        f"{scores['top5']:.2%}, macro F1 {_with_interval(scores, 'macro_f1')}, {scores['count']:,} images"
    )
    area, mcc = ("-" if scores[name] is None else f"{scores[name]:.3f}" for name in ("roc_auc", "mcc"))
    yield (
        f"macro precision {scores['macro_precision']:.2%}, recall {scores['macro_recall']:.2%}, ROC AUC {area}, "
        f"MCC {mcc}, loss {scores['loss']:.4f}, confidence and accuracy {scores['ece']:.1%} apart"
    )
    rows, title = scores["per_class"], "by class"
    if len(rows) > TABLE_CLASSES:
        rows, title = sorted(rows, key=lambda row: row["f1"])[:TABLE_CLASSES], f"the {TABLE_CLASSES} worst classes"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("class")
    for name in ("precision", "recall", "F1", "95 %", "images"):
        table.add_column(name, justify="right")
    for row in rows:
        figures = (f"{row[name]:.2%}" for name in ("precision", "recall", "f1"))
        ends = row["intervals"]["f1"]
        between = f"{ends[0]:.1%} to {ends[1]:.1%}" if ends else ""
        table.add_row(row["name"], *figures, between, f"{row['support']:,}")
    yield table


def _with_interval(scores: dict[str, Any], name: str) -> str:
    ends = scores["intervals"][name]
    return f"{scores[name]:.2%}" + (f" ({ends[0]:.1%} to {ends[1]:.1%})" if ends else "")
