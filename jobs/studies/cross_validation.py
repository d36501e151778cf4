"""What a cross-validation found: the mean over its folds, and what was said of each image by a model new to it."""

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from classifier.bundle.predictions import save_predictions
from classifier.metrics.scores import compute_scores
from classifier.runs.folder import SCORES
from classifier.storage.atomic import write_atomically
from jobs.studies.parallel_runs import StudyRun

SCORES_SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "loss")


def plan_runs(folds: int, repeats: int, seed: int) -> list[StudyRun]:
    """A training for each fold of each repeat, which draws other folds."""
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
    """Mean, deviation and the value of each fold, by figure; writes predictions.parquet and the scores of all images.

    Each image of a repeat is predicted once, by the model of the fold that left it out.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from classifier.bundle import bundle

    tables, by_name = [], {name: [] for name in SCORES_SHOWN}
    for member in runs:
        table = pq.read_table(folder / "folds" / member.name / "predictions.parquet")
        fold = pa.array([member.name] * len(table), pa.string())
        tables.append(table.append_column("fold", fold))
        scores = bundle.read(folder / "folds" / member.name).scores["test"]
        for name in SCORES_SHOWN:
            by_name[name].append(scores[name])
    together = pa.concat_tables(tables)
    save_predictions(together, folder / "predictions.parquet")
    names = bundle.read(folder / "folds" / runs[0].name).class_names
    flat = together["probabilities"].combine_chunks().flatten().to_numpy()
    probabilities_NK = torch.from_numpy(flat.reshape(len(together), len(names)).copy())
    scores = compute_scores(probabilities_NK, torch.from_numpy(together["label"].to_numpy().copy()), names)
    write_atomically(folder / SCORES, json.dumps(scores, allow_nan=False) + "\n")
    found = {}
    for name, values in by_name.items():
        told = [value for value in values if value is not None]
        if told:
            spread = statistics.stdev(told) if len(told) > 1 else 0.0
            found[name] = {"mean": float(np.mean(told)), "deviation": spread, "folds": values}
    return found


def make_table(found: dict[str, Any], runs: list[StudyRun]) -> Table:
    """A row a fold, and the mean."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("fold")
    for name in found:
        shown.add_column(name.replace("_", " "), justify="right")
    for n, member in enumerate(runs):
        shown.add_row(member.name, *(_format_score(name, figure["folds"][n]) for name, figure in found.items()))
    means = (f"{_format_score(n, f['mean'])} ± {_format_score(n, f['deviation'])}" for n, f in found.items())
    shown.add_row("mean ± deviation", *means, style="bold")
    return shown


def _format_score(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if name in ("loss", "roc_auc") else f"{value:.2%}"
