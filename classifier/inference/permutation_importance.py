"""Permutation importance of the image and of each column: what a model loses if one of them belongs to other images.

L. Breiman, "Random Forests", 2001, as scikit-learn's permutation_importance. The image's features stand for the image,
so that its backbone runs once. Of inputs that say the same, each seems unimportant, as the others are still there: so
all columns are shuffled together, too.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classifier.config.sections import Task
from classifier.data.columns.schema import IMAGE, ColumnSchema
from classifier.inference.logistic_regression import HeldOut
from classifier.metrics.bootstrap import compute_ranking_scores, to_json_number
from classifier.metrics.ordinal import compute_ordinal_scores

# Of so many images; of shuffled images in all, by a head and by trees, which answer some 1,000 a second.
MAX_IMAGES, MIN_IMAGES, MAX_SHUFFLED, MAX_SHUFFLED_TREES = 2000, 200, 200_000, 15_000
MAX_REPEATS, MIN_REPEATS = 10, 3
SCORES = {"multilabel": "map", "ordinal": "quadratic_kappa"}
"""Whose drop is measured, by task; else that of accuracy."""


def choose_images(count: int, columns: int, *, has_trees: bool) -> Tensor:
    """Return index_M, int64: of many images those, at equal distances, that importance is measured on."""
    most = _limit(has_trees) // (MIN_REPEATS * (columns + 2))
    return torch.arange(0, count, max(1, math.ceil(count / min(MAX_IMAGES, max(MIN_IMAGES, most)))))


def measure_importance(
    answer: Callable[[Tensor, Tensor], Tensor],
    features_NB: Tensor,
    columns_NF: Tensor,
    targets: Tensor,
    schema: ColumnSchema,
    task: Task,
    *,
    has_trees: bool,
) -> dict[str, Any]:
    """Return an ImportanceDocument (bundle/schema.py): plain data. Deterministic.

    answer: features_NB and columns_NF of all these images, in this order, to logits_NK on the CPU. targets: labels_N,
    or targets_NK of several labels. has_trees: whether the answers take long.
    """
    count, parts = len(columns_NF), list(_list_inputs(schema))
    repeats = min(MAX_REPEATS, max(MIN_REPEATS, _limit(has_trees) // (count * len(parts))))
    draw = torch.Generator().manual_seed(0)
    orders_RN = [torch.randperm(count, generator=draw) for _ in range(repeats)]  # the same of every input
    value, loss = _score(answer(features_NB, columns_NF), targets, task)
    rows = []
    for kind, name, within in parts:
        drops, rises = [], []
        for order_N in orders_RN:
            shuffled_NF = columns_NF.clone()
            shuffled_NF[:, within] = columns_NF[order_N, within]
            images_NB = features_NB[order_N] if kind == "image" else features_NB
            shuffled_value, shuffled_loss = _score(answer(images_NB, shuffled_NF), targets, task)
            drops.append(value - shuffled_value)
            rises.append(shuffled_loss - loss)
        row: dict[str, Any] = {"kind": kind, "name": name}
        for key, values in (("drop", drops), ("rise", rises)):
            row |= {
                key: to_json_number(float(np.mean(values))),
                f"{key}_deviation": to_json_number(float(np.std(values))),
            }
        rows.append(row)
    about = {"score": SCORES.get(task, "accuracy"), "value": to_json_number(value), "loss": loss}
    return {"images": count, "repeats": repeats, **about, "inputs": rows}


def _limit(has_trees: bool) -> int:
    return MAX_SHUFFLED_TREES if has_trees else MAX_SHUFFLED


def _list_inputs(schema: ColumnSchema) -> Iterator[tuple[str, str, slice]]:
    """Yield the kind, the name and the place in the vector of all that is shuffled as one."""
    yield "image", "image", slice(IMAGE, IMAGE + 1)
    if len(schema.names) > 1:
        yield "columns", "all columns", slice(IMAGE + 1, schema.width)
    for name, within in schema.slices.items():
        yield "column", name, within


def _score(logits_NK: Tensor, targets: Tensor, task: Task) -> tuple[float, float]:
    """Return the score of this task, NaN where it is undefined, and the mean log loss."""
    answers = HeldOut(logits_NK, targets)
    if task == "multilabel":
        score = compute_ranking_scores(logits_NK.double().numpy(), targets.numpy() > 0.5, np.ones((1, len(targets))))
        value = float(score["average_precision"][0])
    elif task == "ordinal":
        labels_N, predicted_N = targets.numpy(), logits_NK.argmax(1).numpy()
        value = float(compute_ordinal_scores(labels_N, predicted_N, np.ones((1, len(targets))))["quadratic_kappa"][0])
    else:
        value = answers.accuracy
    return value, answers.loss
