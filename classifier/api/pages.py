"""The pages and charts of a run, all made from its saved files."""

from pathlib import Path
from typing import Any

from classifier.api.missing import Missing
from classifier.bundle import bundle
from classifier.errors import RunError
from classifier.report import png, run_page, search_page
from classifier.runs.folder import read_history, read_result

CURVES, CONFUSION = "curves.png", "confusion.png"


def write_pages(folder: Path, missing: Missing) -> Path:
    """Write report.html and what else is not there yet and the run has results for; return the path of the report.

    That is search.html, curves.png or confusion.png. missing: notes what cannot be written. RunError if it is not a run
    folder.
    """
    if not (folder / "experiment.yaml").is_file():
        raise RunError(f"{folder} is not a run folder (no experiment.yaml): give OUT/NAME of a training or a search")
    remedy = f"classifier report {folder}"
    with missing.note(run_page.NAME, remedy):
        run_page.write(folder)
    if (folder / "result.json").is_file() and "trials" in read_result(folder):
        with missing.note(search_page.NAME, remedy):
            search_page.write(folder)
    elif (history := read_history(folder)) and not (folder / CURVES).exists():
        with missing.note(CURVES, remedy):
            png.draw_learning_curves(history, folder / CURVES)
    if not (folder / CONFUSION).exists() and (test := _read_test_scores(folder)):
        with missing.note(CONFUSION, remedy):
            png.draw_confusion_matrix(test[0]["confusion"], test[1], folder / CONFUSION)
    missing.save(folder)
    return folder / run_page.NAME


def _read_test_scores(folder: Path) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """The test scores in the run's bundle and its classes' names; None without a bundle, or a confusion matrix of its
    test."""
    try:
        about = bundle.read(folder)
    except RunError:
        return None
    return (about.scores["test"], about.class_names) if "confusion" in (about.scores["test"] or {}) else None
