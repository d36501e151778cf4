"""A linear probe that was validated by folds is judged by them: each fold's head answers for images new to it.

One graph has the heads of all folds. It is written and quantised as that of the model itself, but for the heads. Ranges
of int8 are measured on training images of all folds, without their labels.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from classifier import models
from classifier.bundle import bundle as bundles
from classifier.bundle.engine import Engine
from classifier.compress.graph_engine import GraphEngine
from classifier.compress.judge import predict_split
from classifier.compress.quantize import Scheme, choose_images, prepare, quantize
from classifier.data.dataset import Dataset, Split
from classifier.evaluation.calibrate import fit_folds, select_held_out
from classifier.export.formats import write_graph
from classifier.export.graph import Graph
from classifier.inference.logistic_regression import FoldHead
from classifier.models.head import replace_module
from classifier.models.ordinal_head import log_probabilities


class FoldNetwork(nn.Module):
    """A network whose head is replaced by those of the folds; gives the logits of each image by all of them, F x K."""

    def __init__(self, model: nn.Module, folds: Sequence[FoldHead]) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float()
        heads = [fold.head for fold in folds]
        weight, bias = torch.cat([head.weight_KF for head in heads]), torch.cat([head.bias_K for head in heads])
        self._shape = len(folds), len(heads[0].bias_K)
        gaps = [head.gaps for head in heads if head.gaps is not None]
        self.gaps = nn.Parameter(torch.stack(gaps)) if gaps else None
        (name,) = models.head_modules(self.model)
        layer = nn.Linear(weight.shape[1], len(weight))
        layer.load_state_dict({"weight": weight, "bias": bias})
        replace_module(self.model, name, layer)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return logits_LK with L = N x F: the answers of all heads for an image, one after the other."""
        logits_NFK = self.model(images_NCHW).unflatten(1, self._shape)
        if self.gaps is not None:
            logits_NFK = log_probabilities(logits_NFK, self.gaps)
        return logits_NFK.flatten(0, 1)


class FoldJudge:
    """Asks models about their training images, each by the head of the fold that held it out.

    find_bundle: of a step. folder: for its graphs.
    """

    def __init__(self, find_bundle: Callable[[str], Path], step: str, dataset: Dataset, folder: Path, threads: int):
        self._find_bundle, self._dataset, self._folder, self._threads = find_bundle, dataset, folder, threads
        self._folds = fit_folds(bundles.load(find_bundle(step)), dataset)
        self.split: Split = select_held_out(dataset)
        index_M = torch.cat([fold.index_M for fold in self._folds])
        fold_M = torch.cat([torch.full_like(fold.index_M, number) for number, fold in enumerate(self._folds)])
        self._fold_M = fold_M[index_M.argsort()].numpy()

    def predict(self, step: str, _engine: Engine, scheme: Scheme | None) -> np.ndarray:
        """Return probabilities_NK of the split by a step's model, in int8 by a scheme."""
        graph = self._write(step)
        if scheme is not None:
            prepared, graph = graph.with_suffix(".prepared.onnx"), graph.with_suffix(".int8.onnx")
            prepare(self._write(step), prepared)
            quantize(prepared, graph, choose_images(self._dataset.train.images_NCHW), scheme)
        engine = GraphEngine(graph, self._threads)
        by_head_LK = predict_split(engine, self.split)
        by_head_NFK = by_head_LK.reshape(len(self.split), len(self._folds), -1)
        return by_head_NFK[np.arange(len(self.split)), self._fold_M]

    def _write(self, step: str) -> Path:
        """Return the graph of a step in fp32 with the heads of the folds."""
        path = self._folder / f"{step}-folds.onnx"
        if not path.is_file():
            folder = self._find_bundle(step)
            loaded, detector = bundles.load(folder), bundles.load_ood_detector(folder)
            layers = [f"model.{layer}" for layer in detector.layers] if detector else []
            scorer = dataclasses.replace(loaded.scorer(), precision="fp32", channels_last=False)
            example_NCHW = torch.from_numpy(choose_images(self.split.images_NCHW, 2))
            graph = Graph(FoldNetwork(loaded.model, self._folds), scorer, layers)
            path.parent.mkdir(exist_ok=True)
            write_graph(graph, "onnx", path.parent, example_NCHW, loaded.bundle.class_names)
            (path.parent / "model.onnx").replace(path)
        return path
