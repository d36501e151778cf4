"""Test a model: scores, predictions and confusion matrix are saved in the run that is tested."""

import json
from collections.abc import Sequence
from pathlib import Path

from classifier.bundle import bundle
from classifier.bundle.bundle import LoadedBundle
from classifier.data.dataset import Dataset
from classifier.evaluation.test_split import TestResult, evaluate_test_split
from classifier.report import png
from classifier.runs.folder import read_result
from classifier.runs.recorder import summary_scores
from classifier.runtime.distributed import pick_device
from classifier.storage.atomic import write_atomically


def run_test(
    path: str | Path,
    into: Sequence[Path],
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
