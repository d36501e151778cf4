"""What a model of images and columns would lose without each of them, on the images of a split."""

from typing import Any

import torch
from torch import Tensor

from classifier.bundle.bundle import LoadedBundle
from classifier.data.dataset import Split
from classifier.inference.features import extract_features
from classifier.inference.permutation_importance import choose_images, measure_importance
from classifier.inference.scorer import gather_targets
from classifier.models.fusion.fusion_net import FusionNet

# Images whose answers are computed at once.
BATCH = 256


def measure_split_importance(
    loaded: LoadedBundle, split: Split, label_sets_MK: Tensor | None = None
) -> dict[str, Any] | None:
    """Return an ImportanceDocument of a split, or of some of its images if they are many; None without columns.

    label_sets_MK: those of the data set, where images have several labels. The backbone runs once, on images that are
    not mirrored; the loss is that after calibration.
    """
    bundle, model = loaded
    if bundle.columns is None or split.columns_NF is None or not isinstance(model, FusionNet) or not len(split):
        return None
    fusion, scorer = model.fusion, loaded.scorer()
    has_trees = fusion.candidate is not None
    chosen = split.take(choose_images(len(split), len(bundle.columns.names), has_trees=has_trees))
    assert chosen.columns_NF is not None
    features_NB = extract_features(model, scorer, chosen.images_NCHW)

    def answer(features_NB: Tensor, columns_NF: Tensor) -> Tensor:
        parts = []
        with torch.inference_mode(), scorer.autocast():
            for batch in zip(features_NB.split(BATCH), columns_NF.split(BATCH), strict=True):
                parts.append(fusion(*(part.to(scorer.device) for part in batch)).float().cpu())
        return torch.cat(parts) / scorer.temperature

    targets = gather_targets(chosen.labels_N, label_sets_MK)
    return measure_importance(
        answer, features_NB, chosen.columns_NF, targets, bundle.columns, bundle.task, has_trees=has_trees
    )
