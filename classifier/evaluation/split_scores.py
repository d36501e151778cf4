"""The scores of predictions with their 95 % intervals, by the task."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from classifier.config.sections import Task
from classifier.metrics.hierarchy import Hierarchy
from classifier.metrics.level_scores import compute_level_scores
from classifier.metrics.multilabel_scores import compute_multilabel_scores
from classifier.metrics.scores import compute_scores


def score_predictions(
    task: Task,
    probabilities_NK: Tensor,
    targets: Tensor,
    class_names: Sequence[str],
    thresholds: Sequence[float | None] | None = None,
) -> dict[str, Any]:
    """Return what compute_scores does, plain data for JSON; of nested classes also `levels` (compute_level_scores).

    targets: labels_N. Of several labels: targets_NK, and what compute_multilabel_scores returns; thresholds: from which
    on each is said.
    """
    if task == "multilabel":
        return compute_multilabel_scores(probabilities_NK, targets, class_names, thresholds)
    scores = compute_scores(probabilities_NK, targets, class_names, is_ordinal=task == "ordinal")
    if task == "nested":
        scores["levels"] = compute_level_scores(probabilities_NK, targets, Hierarchy(class_names))
    return scores
