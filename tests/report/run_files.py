"""Writes the folder of a run with every kind of result that a page shows, of random images with given names."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import nn

from classifier.bundle import bundle
from classifier.bundle.bundle import Bundle
from classifier.config.experiment import Experiment
from classifier.config.files import dump_experiment
from classifier.config.sections import Task
from classifier.data.columns.column import Column
from classifier.data.columns.schema import ColumnSchema
from classifier.evaluation.corruptions import GROUPS, SEVERITIES
from classifier.evaluation.split_scores import score_predictions
from classifier.metrics.calibration import calibrate
from classifier.metrics.hierarchy import Hierarchy
from classifier.runs.folder import HARD_EXAMPLES, PREDICTIONS, ROBUSTNESS
from classifier.text import escape_all

IMAGES = 60


def jpeg(colour: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(stream, "JPEG")
    return stream.getvalue()


def history_row(epoch: int, *, validated: bool = True, best: bool = True) -> dict:
    accuracy = 1 - 0.5 / epoch
    score = {"loss": 1 / epoch, "accuracy": accuracy, "macro_f1": accuracy}
    score = score if validated else dict.fromkeys(score)
    row = {"epoch": epoch, "step": epoch, "seconds": 1.0, "lr": 0.1, "images_per_second": 100.0, "best": best}
    row |= {"train_loss": 0.9 / epoch, "train_accuracy": 1 - 0.4 / epoch}
    return row | {f"validation_{name}": value for name, value in score.items()}


def write_run(
    folder: Path,
    class_names: Sequence[str],
    *,
    data_path: str = "photos",
    finding: str = "",
    by_folds: bool = False,
    task: Task = "multiclass",
    columns: Sequence[str] = (),
) -> Path:
    """Write the run and return its folder. Class names are also the names of images, and of whatever else has one.

    by_folds: it is a linear probe without validation images. columns: names of numbers that join the image."""
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.randint(len(class_names), (IMAGES,), generator=generator)
    logits_NK = torch.randn(IMAGES, len(class_names), generator=generator)
    logits_NK[torch.arange(IMAGES), labels_N] += 2
    probabilities_NK = logits_NK.softmax(1)
    experiment = Experiment().override_all({"data.path": data_path, "model.name": "cnn"})
    counts = {"train": IMAGES, "validation": IMAGES, "test": 9}
    if by_folds:
        experiment = experiment.override_all({"model.probe": True, "train.epochs": 1})
        counts["validation"] = 0
    dataset = {"name": class_names[0], "counts": counts, "fingerprint": "0123"}
    dataset |= {"class_names": list(class_names), "findings": [finding] if finding else []}
    hierarchy = Hierarchy(class_names) if task == "nested" else None
    model = Bundle(
        model=experiment.as_dict()["model"] | {"name": class_names[0]},
        class_names=tuple(class_names),
        channels=3,
        size=16,
        fit="crop",
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        test_flip=False,
        scores={"validation": score_predictions(task, probabilities_NK, labels_N, class_names), "test": None},
        experiment=experiment.as_dict(),
        dataset=dataset,
        provenance={"made": "2026-01-01", "epoch": 3, "versions": {}},
        calibration=calibrate(probabilities_NK, labels_N, hierarchy=hierarchy).as_dict(),
        task=task,
        columns=ColumnSchema(tuple(Column(name=one, kind="number", width=1) for one in columns)) if columns else None,
        fusion=fusion_of(columns) if columns else None,
    )
    folder.mkdir(parents=True)
    bundle.save(model, nn.Linear(2, 2), folder / "bundle")
    (folder / "experiment.yaml").write_text(dump_experiment(experiment))
    rows = [history_row(epoch) for epoch in (1, 2, 3)]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    predictions = {"label": labels_N.numpy(), "probabilities": list(probabilities_NK.numpy().astype(np.float32))}
    pq.write_table(pa.table(predictions), folder / PREDICTIONS["validation"])
    name = class_names[0]
    example = {"kind": "wrong", "image_id": name, "label": name, "predicted": class_names[-1], "probability": 0.9}
    example |= {"picture": jpeg(), "map": jpeg("orange")}
    example |= {"like_ids": [name], "like_labels": [name], "like_pictures": [jpeg("green")]}
    pq.write_table(pa.Table.from_pylist([escape_all(example)]), folder / HARD_EXAMPLES["validation"])
    (folder / ROBUSTNESS).write_text(json.dumps(robustness_of(name)))
    result = {"format_version": 1, "kind": "train", "status": class_names[0], "dataset": dataset, "test_reads": 0}
    result |= {"versions": {name: name}, "winner": name, "trials": {name: 12}, "seconds": 60.0}
    result |= {"importance": {name: 0.8}, "objective": ["accuracy"]}
    result["selection"] = {"accuracy": 0.9, "macro_f1": 0.9, "loss": 0.3, "count": 10}
    point = {"images": 100, "train": 0.9, "validation": 0.8}
    result["curve"] = {"points": [point, point | {"images": 200}], "predicted": {"400": 0.95}, "says": [name]}
    result["folds"] = {"accuracy": {"folds": [0.8, 0.9], "mean": 0.85, "deviation": 0.05}}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def fusion_of(columns: Sequence[str]) -> dict:
    ways = {"image": (0.5, 1.0), "columns": (0.6, 0.8), "mlp": (0.9, 0.3), "trees": (0.8, 0.4), "average": (0.9, 0.4)}
    inputs = [("image", "image"), ("columns", "all columns"), *(("column", name) for name in columns)]
    rows = [{"kind": kind, "name": name, "drop": 0.3 - 0.1 * n} for n, (kind, name) in enumerate(inputs)]
    rows = [row | {"drop_deviation": 0.02, "rise": 0.1, "rise_deviation": 0.01} for row in rows]
    importance = {"images": IMAGES, "repeats": 10, "score": "accuracy", "value": 0.9, "loss": 0.3, "inputs": rows}
    scores = {name: {"accuracy": accuracy, "loss": loss} for name, (accuracy, loss) in ways.items()}
    return {"chosen": "mlp", "images": IMAGES, **scores, "importance": {"validation": importance}}


def robustness_of(name: str) -> dict:
    kinds = {kind: [0.5] * SEVERITIES for of_group in GROUPS.values() for kind in of_group}
    shift = {"name": name, "accuracy": 0.5, "intervals": {"accuracy": [0.4, 0.6]}}
    attacks = {"epsilons": [1, 2], "fgsm": [0.5, 0.4], "pgd": [0.3, 0.2], "auroc": {name: 0.9}}
    corruptions = {"images": IMAGES, "clean": 0.9, "mean": 0.5, "kinds": kinds}
    return {
        "corruptions": corruptions,
        "attacks": attacks,
        "shift": shift,
        "unlike": {"name": name, "auroc": {name: 0.9}},
    }
