"""The folds of a cross-validation, the mean of their scores, and the predictions for all images."""

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from classifier.bundle.predictions import expand_labels, read_probabilities, save_predictions
from classifier.evaluation.split_scores import score_predictions
from classifier.metrics.multilabel_scores import compute_multilabel_scores
from classifier.report.numbers import format_share
from classifier.runs.folder import SCORES
from classifier.storage.atomic import write_atomically

from .parallel_runs import StudyRun

SCORES_SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "loss")
LABEL_SCORES_SHOWN = ("map", "micro_f1", "macro_f1", "subset_accuracy", "loss")


def plan_runs(folds: int, repeats: int, seed: int) -> list[StudyRun]:
    """One training per fold of each repeat; every repeat draws other folds."""
    return [
        StudyRun(
            f"repeat{repeat}-fold{fold}" if repeats > 1 else f"fold{fold}",
            {"data.folds": folds, "data.fold": fold, "data.split_seed": seed + repeat},
            is_tested=True,
        )
        for repeat in range(repeats)
        for fold in range(folds)
    ]


def summarize(folder: Path, runs: list[StudyRun]) -> dict[str, Any]:
    """Mean, standard deviation and values per fold of each score; saves the predictions and scores of all images.

    In each repeat every image is predicted once, by the model of the fold that held it out. The scores of all images
    are those of the first repeat: counted once per repeat, the images would seem more than they are.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from classifier.bundle import bundle

    about = bundle.read(folder / "folds" / runs[0].name)
    is_multilabel = about.task == "multilabel"
    tables, by_name = [], {name: [] for name in (LABEL_SCORES_SHOWN if is_multilabel else SCORES_SHOWN)}
    for run in runs:
        table = pq.read_table(folder / "folds" / run.name / "predictions.parquet")
        fold = pa.array([run.name] * len(table), pa.string())
        tables.append(table.append_column("fold", fold))
        scores = bundle.read(folder / "folds" / run.name).scores["test"]
        for name in by_name:
            by_name[name].append(scores[name])
    save_predictions(pa.concat_tables(tables), folder / "predictions.parquet")
    probabilities_NK, targets = read_probabilities(folder / "predictions.parquet")
    if is_multilabel:  # each fold has its own thresholds
        columns = [expand_labels(table["predicted_labels"], len(about.class_names)) for table in tables]
        said_NK = np.concatenate(columns)[: len(targets)]
        scores = compute_multilabel_scores(probabilities_NK, targets, about.class_names, said_NK=said_NK)
    else:
        scores = score_predictions(about.task, probabilities_NK, targets, about.class_names)
    write_atomically(folder / SCORES, json.dumps(scores, allow_nan=False) + "\n")
    summary = {}
    for name, values in by_name.items():
        defined = [value for value in values if value is not None]
        if defined:
            deviation = statistics.stdev(defined) if len(defined) > 1 else 0.0
            summary[name] = {"mean": float(np.mean(defined)), "deviation": deviation, "folds": values}
    return summary


def make_table(summary: dict[str, Any], runs: list[StudyRun]) -> Table:
    """One row per fold, their mean, and their standard deviation."""
    table = Table(box=None, pad_edge=False)
    table.add_column("fold")
    for name in summary:
        table.add_column(name.replace("_", " "), justify="right")
    for n, run in enumerate(runs):
        table.add_row(run.name, *(_format_score(name, score["folds"][n]) for name, score in summary.items()))
    for key in ("mean", "deviation"):
        known = {name: score[key] if _is_known(score, key) else None for name, score in summary.items()}
        table.add_row(key, *(_format_score(name, value) for name, value in known.items()), style="bold")
    return table


def _is_known(score: dict[str, Any], key: str) -> bool:
    """Whether so many folds have the score: a deviation takes two."""
    return sum(value is not None for value in score["folds"]) >= (2 if key == "deviation" else 1)


def _format_score(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if name in ("loss", "roc_auc") else format_share(value, 2)
