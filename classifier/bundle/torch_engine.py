"""Answers by torch: on any device, and with the model at hand for heatmaps."""

from collections.abc import Sequence

import numpy as np
import torch

from classifier.bundle.bundle import LoadedBundle
from classifier.bundle.engine import Answer
from classifier.inference.out_of_distribution import capture_activations
from classifier.inference.scorer import Scorer


class TorchEngine:
    """The model of a loaded bundle, computed as it was evaluated, unless a scorer is given.

    layers: those of its out-of-distribution detector.
    """

    def __init__(self, loaded: LoadedBundle, layers: Sequence[str], scorer: Scorer | None = None) -> None:
        self.model, self.scorer, self.layers = loaded.model, scorer or loaded.scorer(), list(layers)

    @property
    def description(self) -> str:
        return f"torch {self.scorer.precision} on {self.scorer.device.type}"

    @property
    def batch_size(self) -> int:
        return self.scorer.batch_size

    def predict(self, images_NCHW: np.ndarray, columns_NF: np.ndarray | None = None) -> Answer:
        views = 2 if self.scorer.test_flip else 1
        columns = None if columns_NF is None else torch.from_numpy(columns_NF)
        with capture_activations(self.model, self.layers, views) as statistics:
            probabilities_NK = self.scorer.predict_probabilities(self.model, torch.from_numpy(images_NCHW), columns)
        return Answer(probabilities_NK.numpy(), {layer: stats_NF.numpy() for layer, stats_NF in statistics.items()})
