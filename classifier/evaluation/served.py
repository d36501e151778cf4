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
from classifier.metrics.confusion import ConfusionMatrix


def predict_served(path: str | Path, loaded: LoadedBundle, split: Split) -> tuple[ConfusionMatrix, Tensor]:
    """Return a split's confusion matrix and probabilities_NK, float32. loaded: the bundle at `path`.

    Exports in fp32 answer as the weights do; those in int8 do not, and are what predicts on a CPU. RunError if the
    export is damaged, or differs on this machine.
    """
    if loaded.device.type != "cpu" or not _answers_in_int8(find(path)):
        return loaded.scorer().predict_split(loaded.model, split)
    engine = open_engine(Path(path), "onnx", "cpu", None, lambda: loaded).engine
    confusion, parts = ConfusionMatrix(len(loaded.bundle.class_names)), []
    for start in range(0, len(split), engine.batch_size):
        probabilities_NK = _predict(engine, split, start)
        confusion.update(probabilities_NK.log(), split.labels_N[start : start + engine.batch_size])
        parts.append(probabilities_NK)
    return confusion, torch.cat(parts)


def _answers_in_int8(folder: Path) -> bool:
    if not is_exported(folder, "onnx"):
        return False
    bundle = read_document(folder)
    if explain_stale(folder, "onnx", bundle):
        return False
    return open_export(folder, "onnx", bundle).document["precision"] == "int8"


def _predict(engine: Engine, split: Split, start: int) -> Tensor:
    images_NCHW = np.asarray(split.images_NCHW[start : start + engine.batch_size])
    tiny = torch.finfo(torch.float32).tiny  # the loss of a label that has no probability at all is finite
    return torch.from_numpy(engine.predict(images_NCHW).probabilities_NK).clamp(min=tiny)
