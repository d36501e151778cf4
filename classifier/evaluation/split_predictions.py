"""A model's predictions for one split, saved with its hard examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from classifier.bundle.bundle import LoadedBundle
from classifier.bundle.predictions import label_predictions_table, predictions_table, save_predictions
from classifier.data.dataset import Dataset
from classifier.evaluation.hard_examples import find_hard_examples
from classifier.metrics.decisions import Calibration
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
        scorer, probabilities_NK, said_NK = self.loaded.scorer(), self.probabilities_NK, None
        if self.dataset.label_sets_MK is None:
            predictions = predictions_table(part.ids, part.labels_N, probabilities_NK, bundle.class_names)
        else:
            said_NK = Calibration.from_dict(bundle.calibration or {"images": 0}).decide_labels(probabilities_NK)
            targets_NK = self.dataset.label_sets_MK[part.labels_N].numpy()
            predictions = label_predictions_table(part.ids, targets_NK, said_NK, probabilities_NK, bundle.class_names)
        hard_examples = find_hard_examples(
            model, scorer, self.dataset, part, probabilities_NK, self.train_features, said_NK
        )
        for folder in folders:
            save_predictions(predictions, folder / PREDICTIONS[self.split])
            save_predictions(hard_examples, folder / HARD_EXAMPLES[self.split])
