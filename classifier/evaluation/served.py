"""Predictions as a bundle gives them where it is used: by its export in int8, if it has one, else by its weights."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from classifier.bundle.bundle import LoadedBundle
from classifier.bundle.document import find, read_document
from classifier.bundle.engine import Engine
from classifier.bundle.engine_choice import open_engine
from classifier.bundle.exported import explain_stale, is_exported, open_export
from classifier.data.dataset import Split
from classifier.inference.scorer import Counts, gather_targets


def predict_served(
    path: str | Path, loaded: LoadedBundle, split: Split, label_sets_MK: Tensor | None = None
) -> tuple[Counts, Tensor]:
    """Return the counts of a split's predictions and probabilities_NK, float32. loaded: the bundle at `path`.

    label_sets_MK: those of the data set, where images have several labels.

    Exports in fp32 answer as the weights do; those in int8 do not, and are what predicts on a CPU. RunError if the
    export is damaged, or differs on this machine.
    """
    scorer = loaded.scorer()
    if loaded.device.type != "cpu" or not answers_in_int8(path):
        return scorer.predict_split(loaded.model, split, label_sets_MK)
    engine = open_engine(Path(path), "onnx", "cpu", None, lambda: loaded).engine
    counts, parts = scorer.start_counts(), []
    for start in range(0, len(split), engine.batch_size):
        probabilities_NK = _predict(engine, split, start)
        labels_N = split.labels_N[start : start + engine.batch_size]
        counts.update(probabilities_NK.log(), gather_targets(labels_N, label_sets_MK))
        parts.append(probabilities_NK)
    return counts, torch.cat(parts)


def answers_in_int8(path: str | Path) -> bool:
    """Return whether the bundle at `path` has an export in int8, whose answers are not those of its weights."""
    folder = find(path)
    if not is_exported(folder, "onnx"):
        return False
    bundle = read_document(folder)
    if explain_stale(folder, "onnx", bundle):
        return False
    return open_export(folder, "onnx", bundle).document["precision"] == "int8"


def _predict(engine: Engine, split: Split, start: int) -> Tensor:
    own = slice(start, start + engine.batch_size)
    images_NCHW = np.asarray(split.images_NCHW[own])
    columns_NF = None if split.columns_NF is None else split.columns_NF[own].numpy()
    tiny = torch.finfo(torch.float32).tiny  # the loss of a label that has no probability at all is finite
    return torch.from_numpy(engine.predict(images_NCHW, columns_NF).probabilities_NK).clamp(min=tiny)
