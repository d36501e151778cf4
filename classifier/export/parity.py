"""The parity gate: an export answers as its model does, on images of the user's own, or it is refused."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from classifier.bundle.engine import Answer, Engine
from classifier.bundle.exported import TOLERANCES, Parity
from classifier.config.sections import Task
from classifier.errors import RunError, in_short
from classifier.inference.ood_detector import OODDetector
from classifier.metrics.decisions import DEFAULT_THRESHOLD

# Images per batch, in turns: a graph may be frozen at that of its example, or go wrong at odd ones.
BATCHES = (1, 2, 7, 33)
# By how much the scores of the out-of-distribution detector may differ, in standard deviations. They are logarithms: of
# an image in the midst of the training images, far below the threshold, rounding alone moves them by 0.02.
OOD_TOLERANCE = 0.05


class StatisticsError(RunError):
    """The layers' statistics are not those of the model."""


class Difference(NamedTuple):
    """How far answers are from those of the model."""

    probabilities_N: np.ndarray
    """Per image, the largest difference of a probability."""
    labels_N: np.ndarray
    """Per image, whether the label is another one, or one of its labels; ties within the tolerance aside."""
    ood_scores_N: np.ndarray


def predict_in_batches(engine: Engine, images_NCHW: np.ndarray, columns_NF: np.ndarray | None = None) -> Answer:
    """Answer all images, in batches of BATCHES; the images are repeated if they are too few for one of each.

    columns_NF: of a model that takes columns. RunError if the graph takes no such batch.
    """
    count = max(len(images_NCHW), sum(BATCHES))
    answers, start = [], 0
    for number in range(count):
        if start >= count:
            break
        batch = BATCHES[number % len(BATCHES)]
        rows = np.arange(start, min(start + batch, count)) % len(images_NCHW)
        try:
            answer = engine.predict(images_NCHW[rows], None if columns_NF is None else columns_NF[rows])
        except Exception as error:  # of many kinds, by runtime
            raise RunError(f"the graph takes no batches of {len(rows)} images ({in_short(error, 160)})") from None
        if len(answer.probabilities_NK) != len(rows):
            raise RunError(f"the graph answers {len(answer.probabilities_NK)} of {len(rows)} images in a batch")
        answers.append(answer)
        start += batch
    probabilities_NK = np.concatenate([answer.probabilities_NK for answer in answers])
    layers = answers[0].statistics
    statistics = {layer: np.concatenate([answer.statistics[layer] for answer in answers]) for layer in layers}
    return Answer(probabilities_NK, statistics)


def compare(
    expected: Answer, found: Answer, detector: OODDetector | None, tolerance: float, task: Task = "multiclass"
) -> Difference:
    """Compare answers to the same images; `found` may repeat them."""
    rows_M = np.arange(len(found.probabilities_NK)) % len(expected.probabilities_NK)
    expected_MK, found_MK = expected.probabilities_NK[rows_M], found.probabilities_NK
    if task == "multilabel":
        is_said_MK, margin_MK = expected_MK >= DEFAULT_THRESHOLD, np.abs(expected_MK - DEFAULT_THRESHOLD)
        is_other_M = ((is_said_MK != (found_MK >= DEFAULT_THRESHOLD)) & (margin_MK > tolerance)).any(1)
    else:
        labels_M, found_M = expected_MK.argmax(1), found_MK.argmax(1)
        margin_M = expected_MK[range(len(rows_M)), labels_M] - expected_MK[range(len(rows_M)), found_M]
        is_other_M = (labels_M != found_M) & (margin_M > 2 * tolerance)
    scores_M = np.zeros(len(rows_M))
    if detector:
        scores_M = np.abs(detector.score(found.statistics) - detector.score(expected.statistics)[rows_M])
    return Difference(
        np.nan_to_num(np.abs(found_MK - expected_MK), nan=np.inf).max(1),
        is_other_M,
        np.nan_to_num(scores_M, nan=np.inf),
    )


def check_parity(
    engine: Engine,
    images_NCHW: np.ndarray,
    columns_NF: np.ndarray | None,
    expected: Answer,
    *,
    ids: Sequence[str],
    split: str,
    class_names: Sequence[str],
    detector: OODDetector | None,
    task: Task,
) -> Parity:
    """Compare an fp32 export with the answers of its model. RunError names the image that differs most, with both."""
    tolerance = TOLERANCES["fp32"]
    found = predict_in_batches(engine, images_NCHW, columns_NF)
    difference = compare(expected, found, detector, tolerance, task)
    worst = int(difference.probabilities_N.argmax())
    row = worst % len(images_NCHW)
    largest = float(difference.probabilities_N[worst])
    if largest > tolerance or difference.labels_N.any():
        answers = (("by the model", expected.probabilities_NK[row]), ("exported", found.probabilities_NK[worst]))
        pair = ", ".join(f"{class_names[int(row_K.argmax())]} {float(row_K.max()):.4%} {by}" for by, row_K in answers)
        raise RunError(
            f"the export does not agree with the model: {ids[row]} differs most, {pair}; probabilities differ by up to "
            f"{largest:.2g} ({tolerance:g} is allowed), the label of {int(difference.labels_N.sum()):,} of "
            f"{len(found.probabilities_NK):,} images"
        )
    if difference.ood_scores_N.max() > OOD_TOLERANCE:
        row = int(difference.ood_scores_N.argmax()) % len(images_NCHW)
        raise StatisticsError(
            f"the export does not agree with the model: the out-of-distribution score of {ids[row]} differs by "
            f"{difference.ood_scores_N.max():.2g} standard deviations ({OOD_TOLERANCE:g} is allowed)"
        )
    return Parity(
        split=split,
        images=len(images_NCHW),
        batches=list(BATCHES),
        max_difference=largest,
        farthest=ids[row],
    )
