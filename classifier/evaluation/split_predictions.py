"""A model's predictions for one split, saved with its hard examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from classifier.bundle.bundle import LoadedBundle
from classifier.bundle.predictions import predictions_table, save_predictions
from classifier.data.dataset import Dataset
from classifier.evaluation.hard_examples import find_hard_examples
from classifier.runs.folder import HARD_EXAMPLES, PREDICTIONS


@dataclass(frozen=True, eq=False)
class SplitPredictions:
    """probabilities_NK: for each image of `split` ("validation" or "test") of the dataset. train_features: of its
    training images, N x F, if they are known."""

    loaded: LoadedBundle
    dataset: Dataset
    split: str
    probabilities_NK: Tensor
    train_features: Tensor | None = None

    def save(self, folders: Sequence[Path]) -> None:
        """Write the predictions and the hard examples as Parquet files into each folder. RunError if that fails."""
        part = getattr(self.dataset, self.split)
        bundle, model = self.loaded
        predictions = predictions_table(part.ids, part.labels_N, self.probabilities_NK, bundle.class_names)
        scorer, probabilities_NK = self.loaded.scorer(), self.probabilities_NK
        hard_examples = find_hard_examples(model, scorer, self.dataset, part, probabilities_NK, self.train_features)
        for folder in folders:
            save_predictions(predictions, folder / PREDICTIONS[self.split])
            save_predictions(hard_examples, folder / HARD_EXAMPLES[self.split])
