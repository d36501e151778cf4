"""Test a model: scores, predictions and confusion matrix are saved in the run that is tested."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classifier.api.missing import TEST, Missing
from classifier.api.pages import CONFUSION
from classifier.bundle.bundle import LoadedBundle
from classifier.bundle.test_reads import count_test_reads
from classifier.data.dataset import Dataset
from classifier.evaluation.reference import keep_test_reference
from classifier.evaluation.test_split import TestResult, evaluate_test_split
from classifier.report import png
from classifier.runs.folder import PREDICTIONS, update_result
from classifier.runs.recorder import summary_scores
from classifier.runtime.distributed import pick_device


def run_test(
    path: str | Path,
    into: Sequence[Path],
    *,
    device: str,
    again: bool = False,
    data_path: str | None = None,
    data_settings: Mapping[str, Any] | None = None,
    dataset: Dataset | None = None,
    loaded: LoadedBundle | None = None,
    missing: Missing,
) -> TestResult:
    """Evaluate the test split, or read its saved scores; save predictions, hard examples and confusion.png in `into`.

    data_path, data_settings, dataset, loaded: see evaluate_test_split. missing: notes what cannot be saved; the scores
    are in the bundle.
    """
    result = evaluate_test_split(
        path,
        device=pick_device(device),
        again=again,
        data_path=data_path,
        data_settings=data_settings,
        dataset=dataset,
        loaded=loaded,
    )
    missing.mark_made(TEST)
    if result.predictions is not None:
        with missing.note(PREDICTIONS["test"], f"classifier evaluate {path} --again"):
            result.predictions.save(into)
            keep_test_reference(path, result.predictions)
    for folder in into if "confusion" in result.scores else ():  # several labels have none
        with missing.note(CONFUSION, f"classifier evaluate {path}"):
            png.draw_confusion_matrix(result.scores["confusion"], result.bundle.class_names, folder / CONFUSION)
    return result


def save_test_scores(owner: Path, test: TestResult) -> int:
    """Write the test scores into result.json of the run that was tested; how often its test split has been read."""
    reads = count_test_reads(owner)
    fusion = {"fusion": test.bundle.fusion} if test.bundle.fusion else {}
    update_result(owner, test=summary_scores(test.scores), test_reads=reads, **fusion)
    return reads
