"""What drift of a model's images is measured against: its outputs for images that it was not trained on.

Collected at the end of a training, in the same pass over the images that the out-of-distribution detector needs, so
that drift can be found on a machine without these images.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import LoadedBundle
from classifier.bundle.engine import Engine
from classifier.data.dataset import Dataset, Split
from classifier.evaluation.split_predictions import SplitPredictions
from classifier.inference.features import capture_features
from classifier.inference.logistic_regression import FOLDS, assign_folds, find_held_out
from classifier.inference.ood_detector import OODDetector
from classifier.inference.out_of_distribution import (
    capture_activations,
    fit_to_statistics,
    sample_indices,
    select_layers,
)
from classifier.inference.reference import SOURCES, Reference
from classifier.training import head_probe


class _Seen(NamedTuple):
    """What a model computes for images besides its answers: statistics of the detector's layers, features_NF."""

    statistics: Mapping[str, Tensor]
    features_NF: Tensor | None


def fit_detector_and_reference(
    loaded: LoadedBundle, dataset: Dataset, probabilities_NK: Tensor | None
) -> tuple[OODDetector, Reference | None]:
    """Fit the out-of-distribution detector to training images, its limit to validation images, which are the reference.

    probabilities_NK: calibrated, of all validation images; None if the model was trained on them, and there is no
    reference.
    """
    layers, validation = select_layers(loaded.model), dataset.validation
    train = _compute(loaded, dataset.train.take(sample_indices(len(dataset.train))), layers)
    if not len(validation):
        return fit_to_statistics(train.statistics, {}), None
    rows_N = sample_indices(len(validation))
    held_out = validation.take(rows_N)
    seen = _compute(loaded, held_out, layers)
    detector = fit_to_statistics(train.statistics, seen.statistics)
    if probabilities_NK is None:
        return detector, None
    scores_N = detector.score({layer: stats_NF.numpy() for layer, stats_NF in seen.statistics.items()})
    return detector, _build(dataset, held_out, probabilities_NK[rows_N], seen, detector.layers, scores_N, "validation")


def fit_detector_and_reference_by_folds(
    loaded: LoadedBundle, dataset: Dataset, probabilities_MK: Tensor | None
) -> tuple[OODDetector, Reference | None]:
    """The same of a linear probe without validation images: its reference are training images, by folds.

    probabilities_MK: of calibrate.select_held_out(dataset), by the heads of their folds. The backbone has not learned
    from them, so their features are as good as new; their out-of-distribution scores are those of detectors fitted to
    the other folds.
    """
    layers, train = select_layers(loaded.model), dataset.train
    folds_N = assign_folds(dataset.strata, FOLDS, train.units_N)  # what looks typical does not depend on labels
    rows_N = torch.nonzero(folds_N != 0)[:, 0]
    held_N = torch.nonzero(folds_N == 0)[:, 0]
    rows_N, held_N = rows_N[sample_indices(len(rows_N))], held_N[sample_indices(len(held_N))]
    known = torch.cat([rows_N, held_N]).sort().values
    seen = _compute(loaded, train.take(known), layers)

    def gather(index_M: Tensor) -> dict[str, Tensor]:
        positions_M = torch.searchsorted(known, index_M)
        return {layer: stats_NF[positions_M] for layer, stats_NF in seen.statistics.items()}

    detector = fit_to_statistics(gather(rows_N), gather(held_N) if len(held_N) else {})
    if probabilities_MK is None or len(head_probe.select_images(dataset)) != len(train):
        return detector, None
    held_out_M = find_held_out(dataset.strata, train.units_N)
    is_known_M = torch.isin(held_out_M, known)
    index_M = held_out_M[is_known_M]
    scores_M = np.zeros(len(index_M), np.float32)
    for fold in folds_N[index_M].unique().tolist():
        others = fit_to_statistics(gather(known[folds_N[known] != fold]), {})
        is_own_M = folds_N[index_M] == fold
        own = {layer: stats_NF.numpy() for layer, stats_NF in gather(index_M[is_own_M]).items()}
        scores_M[is_own_M.numpy()] = others.score(own)
    positions_M = torch.searchsorted(known, index_M)
    own_seen = _Seen(gather(index_M), None if seen.features_NF is None else seen.features_NF[positions_M])
    outputs_MK = probabilities_MK[is_known_M]
    return detector, _build(dataset, train.take(index_M), outputs_MK, own_seen, detector.layers, scores_M, "folds")


def collect_reference(
    loaded: LoadedBundle, dataset: Dataset, split: str, detector: OODDetector | None, probabilities_NK: Tensor
) -> Reference:
    """Collect the reference from a split of the data set, "validation" or "test", with images.

    probabilities_NK: calibrated, of all its images.
    """
    part = getattr(dataset, split)
    rows_N, layers = sample_indices(len(part)), detector.layers if detector else []
    images = part.take(rows_N)
    seen = _compute(loaded, images, layers)
    scores_N = (
        detector.score({layer: stats_NF.numpy() for layer, stats_NF in seen.statistics.items()}) if detector else None
    )
    return _build(dataset, images, probabilities_NK[rows_N], seen, layers, scores_N, split)


def collect_reference_by_engine(engine: Engine, detector: OODDetector | None, dataset: Dataset) -> Reference | None:
    """Collect the reference of an engine in int8, which answers otherwise than the weights; None without validation
    images.
    """
    images = dataset.validation.take(sample_indices(len(dataset.validation)))
    if not len(images):
        return None
    answers = []
    for start in range(0, len(images), engine.batch_size):
        own = slice(start, start + engine.batch_size)
        columns_NF = None if images.columns_NF is None else images.columns_NF[own].numpy()
        answers.append(engine.predict(np.asarray(images.images_NCHW[own]), columns_NF))
    layers = detector.layers if detector else []
    statistics = {layer: np.concatenate([answer.statistics[layer] for answer in answers]) for layer in layers}
    seen = _Seen({layer: torch.from_numpy(stats_NF) for layer, stats_NF in statistics.items()}, None)
    outputs_NK = torch.from_numpy(np.concatenate([answer.probabilities_NK for answer in answers]))
    scores_N = detector.score(statistics) if detector else None
    return _build(dataset, images, outputs_NK, seen, layers, scores_N, "validation")


def keep_test_reference(path: str | Path, predictions: SplitPredictions) -> None:
    """Store the test images' outputs as the reference of a model that was trained on all other images."""
    if predictions.loaded.bundle.scores["validation"] is not None or bundles.load_reference(path) is not None:
        return
    detector = bundles.load_ood_detector(path)
    reference = collect_reference(
        predictions.loaded, predictions.dataset, "test", detector, predictions.probabilities_NK
    )
    bundles.update_reference(path, reference)


def _compute(loaded: LoadedBundle, split: Split, layers: Sequence[str]) -> _Seen:
    """Compute statistics and features of all images of a split, batch by batch, without mirrored views."""
    model, scorer = loaded.model.eval(), loaded.scorer()
    with (
        torch.inference_mode(),
        capture_activations(model, list(layers)) as statistics,
        capture_features(model) as captured,
    ):
        for start in range(0, len(split), scorer.batch_size):
            scorer.forward(model, split.images_NCHW[start : start + scorer.batch_size].to(scorer.device))
    return _Seen(statistics, torch.cat([features.cpu() for features in captured]))


def _build(
    dataset: Dataset,
    split: Split,
    probabilities_NK: Tensor,
    seen: _Seen,
    layers: Sequence[str],
    scores_N: np.ndarray | None,
    source: str,
) -> Reference:
    """Put the reference together, of a split's images."""
    labels_N, table_MK, classes = split.labels_N, dataset.label_sets_MK, len(dataset.class_names)
    labelled_N = torch.cat([dataset.train.labels_N, dataset.validation.labels_N])
    if table_MK is None:
        targets_NK = labels_N[:, None] == torch.arange(classes)
        counts_K = labelled_N.bincount(minlength=classes)
    else:
        targets_NK = table_MK[labels_N] > 0
        counts_K = (table_MK > 0).long().T @ labelled_N.bincount(minlength=len(table_MK))
    arrays = {
        "probabilities": probabilities_NK.float().numpy(),
        "targets": targets_NK.numpy(),
        "label_counts": np.append(counts_K.numpy(), len(labelled_N)).astype(np.int64),
        "source": np.array(SOURCES.index(source), np.uint8),
    }
    if seen.features_NF is not None:
        arrays["features"] = _to_half(seen.features_NF)
    if scores_N is not None:
        arrays["ood_scores"] = scores_N.astype(np.float32)
        arrays["statistics"] = _to_half(seen.statistics[layers[-1]])
    if split.columns_NF is not None:
        arrays["columns"] = split.columns_NF.numpy().astype(np.float32)
    return Reference({name: np.array(array, order="C") for name, array in arrays.items()})


def _to_half(values_NF: Tensor) -> np.ndarray:
    largest = torch.finfo(torch.float16).max
    return values_NF.float().clamp(-largest, largest).half().numpy()
