"""Find probable label errors by confident learning: high out-of-sample confidence in another class.

C. Northcutt, L. Jiang, I. Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021. Each image's
probabilities come from a linear classifier on a model's features, trained on the other folds. Of several labels each is
judged for itself, and images are ranked as by A. Thyagarajan, E. Snorrason, C. Northcutt, J. Mueller, "Identifying
incorrect annotations in multi-label classification data", 2022.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from classifier.bundle.predictor import Predictor
from classifier.config.experiment import Experiment
from classifier.data import decode_all
from classifier.data.audit.finding import Finding
from classifier.data.audit.scan import ScanResult
from classifier.data.images.arrays import select
from classifier.data.labels.label_sets import encode_label_sets
from classifier.data.split_units import number_contents
from classifier.errors import DataError, list_few
from classifier.inference.features import extract_features
from classifier.inference.logistic_regression import fit_logistic_regression

FOLDS = 5
# Weight of the worst label of an image in its quality; the next has this share of the rest, and so on.
WORST_WEIGHT = 0.8


def compute_features(scan: ScanResult, model: Path, experiment: Experiment) -> Tensor:
    """Return features_KF of the usable images, from the model of a bundle or run.

    DataError if it does not know all classes; RunError if there is no model.
    """
    predictor = Predictor(model, device=experiment.train.device)
    source, size = scan.source, predictor.scorer.size
    if unknown := sorted(set(source.class_names) - set(predictor.class_names)):
        raise DataError(
            f"{model} was trained without the classes {list_few([repr(name) for name in unknown])} of {source.name}: "
            "give a model that knows them"
        )
    channels = predictor.bundle.dataset["channels"]
    config = experiment.override("data.size", size).override("data.channels", channels).data
    images_NCHW = decode_all.decode_source(source, config).images_NCHW
    usable_N = torch.from_numpy(scan.usable_N)
    return extract_features(predictor.model, predictor.scorer, select(images_NCHW, usable_N))


@dataclass(frozen=True)
class LabelError:
    """An image whose label is probably wrong. image: its index in the source; own, suggested: indices of classes."""

    image: int
    own: tuple[int, ...]
    suggested: tuple[int, ...]
    doubts: tuple[tuple[int, float], ...]
    """Classes in question, with the confidence that they are the image's or, if it has them, that they are not."""

    @property
    def confidence(self) -> float:
        return max(confidence for _, confidence in self.doubts)


def check_labels(scan: ScanResult, features_KF: Tensor) -> list[Finding]:
    """Return findings, the most confident first. features_KF: see compute_features."""
    names, ids = scan.source.class_names, scan.source.ids
    has_sets = scan.source.label_sets is not None
    findings = []
    for error in find_errors(scan, features_KF):
        id_ = ids[error.image]
        doubts = []
        for k, confidence in error.doubts:
            doubt = "does not look like" if k in error.own else "looks like"
            doubts.append(f"{doubt} {names[k]!r} ({confidence:.0%} confidence)")
        own = " + ".join(repr(names[k]) for k in error.own)
        labelled = f"labelled {own}" if own or not has_sets else "without labels"
        text = f"{id_}: {labelled}, {' and '.join(doubts)}"
        findings.append(Finding(kind="label_error", text=text, ids=(id_,), score=error.confidence))
    return findings


def find_errors(scan: ScanResult, features_KF: Tensor) -> list[LabelError]:
    """Return the images whose labels are probably wrong, the surest first. features_KF: see compute_features."""
    source = scan.source
    labels_N = torch.from_numpy(source.labels_N[scan.usable_N])
    # Duplicates stay in one fold, so that none is in the training data of another.
    folds_N = torch.from_numpy(number_contents(scan.hashes_K)[0] % FOLDS)
    if source.label_sets is not None:
        sets_MK = torch.from_numpy(encode_label_sets(source.label_sets, len(source.class_names)))
        return _find_in_sets(scan.usable_N, features_KF, sets_MK[labels_N], folds_N)
    folds_of = [len(folds_N[labels_N == k].unique()) for k in range(len(source.class_names))]
    if sum(folds > 0 for folds in folds_of) < 2 or max(folds_of) < 2:
        return []  # nothing to compare with
    probabilities_NK = predict_out_of_fold(features_KF, labels_N, folds_N, len(source.class_names))
    errors = []
    for n, k in find_label_errors(probabilities_NK, labels_N):
        own = int(labels_N[n])
        if folds_of[own] >= 2:  # else the classifier that saw the image did not know its class
            doubts = ((k, float(probabilities_NK[n, k])),)
            errors.append(LabelError(int(scan.usable_N[n]), (own,), (k,), doubts))
    return errors


def _find_in_sets(usable_N: np.ndarray, features_NF: Tensor, targets_NK: Tensor, folds_N: Tensor) -> list[LabelError]:
    """Return the errors of images with several labels, the least quality first."""
    in_fold_JN = torch.nn.functional.one_hot(folds_N).T.bool()
    # A label that only one fold has, or lacks, was not known where it was judged.
    is_judged_K = torch.stack(
        [(in_fold_JN[:, :, None] & of_NK).any(1).sum(0) >= 2 for of_NK in (targets_NK, ~targets_NK)]
    ).all(0)
    if not is_judged_K.any():
        return []
    probabilities_NK = predict_out_of_fold(features_NF, targets_NK.float(), folds_N, targets_NK.shape[1])
    is_error_NK = find_wrong_labels(probabilities_NK, targets_NK) & is_judged_K
    confidences_NK = torch.where(targets_NK, 1 - probabilities_NK, probabilities_NK)
    images = is_error_NK.any(1).nonzero()[:, 0]
    errors = []
    for n in images[rate_labels(probabilities_NK, targets_NK)[images].argsort(stable=True)].tolist():
        own, suggested = (
            tuple(row.nonzero()[:, 0].tolist()) for row in (targets_NK[n], targets_NK[n] ^ is_error_NK[n])
        )
        doubts = tuple((k, float(confidences_NK[n, k])) for k in is_error_NK[n].nonzero()[:, 0].tolist())
        errors.append(LabelError(int(usable_N[n]), own, suggested, doubts))
    return errors


def find_wrong_labels(probabilities_NK: Tensor, targets_NK: Tensor) -> Tensor:
    """Return is_error_NK, bool: labels that an image has or lacks with at least the mean confidence that is otherwise.

    That is the mean probability of a label on images that have it, and that of its absence on those that lack it.
    """
    targets_NK, absent_NK = targets_NK.bool(), 1 - probabilities_NK
    present_K = (probabilities_NK * targets_NK).sum(0) / targets_NK.sum(0)
    absent_K = (absent_NK * ~targets_NK).sum(0) / (~targets_NK).sum(0)
    looks_present_NK, looks_absent_NK = probabilities_NK >= present_K, absent_NK >= absent_K
    is_likely_NK = probabilities_NK > 0.5  # decides where both are confident
    is_missing_NK = ~targets_NK & looks_present_NK & (is_likely_NK | ~looks_absent_NK)
    return is_missing_NK | (targets_NK & looks_absent_NK & (~is_likely_NK | ~looks_present_NK))


def rate_labels(probabilities_NK: Tensor, targets_NK: Tensor) -> Tensor:
    """Return quality_N in [0, 1]: the exponential moving average of what speaks for each label, ending at the worst."""
    sorted_NK = torch.where(targets_NK.bool(), probabilities_NK, 1 - probabilities_NK).sort(dim=1).values
    weights_K = WORST_WEIGHT * (1 - WORST_WEIGHT) ** torch.arange(sorted_NK.shape[1])
    weights_K[-1] /= WORST_WEIGHT
    return sorted_NK @ weights_K


def predict_out_of_fold(features_NF: Tensor, targets: Tensor, folds_N: Tensor, classes: int) -> Tensor:
    """Return probabilities_NK, each image's from a linear classifier trained on the other folds.

    targets: labels_N, or targets_NK, float, of several labels.
    """
    probabilities_NK = torch.zeros(len(targets), classes)
    for fold in folds_N.unique().tolist():
        held_out_N = folds_N == fold
        mean_F, std_F = features_NF[~held_out_N].mean(0), features_NF[~held_out_N].std(0).clamp(min=1e-6)
        standard_NF = (features_NF - mean_F) / std_F
        head = fit_logistic_regression(standard_NF[~held_out_N], targets[~held_out_N], classes)
        logits_MK = head(standard_NF[held_out_N])
        probabilities_NK[held_out_N] = logits_MK.sigmoid() if targets.is_floating_point() else logits_MK.softmax(1)
    return probabilities_NK


def find_label_errors(probabilities_NK: Tensor, labels_N: Tensor) -> list[tuple[int, int]]:
    """Return (image, suggested class), the most confident first.

    The probability of the suggested class is at least the average that this class has on its own images.
    """
    confidences_NK = probabilities_NK.numpy()
    labels = labels_N.numpy()
    present_K = np.bincount(labels, minlength=confidences_NK.shape[1]) > 0
    own_N = confidences_NK[np.arange(len(labels)), labels]
    thresholds_K = np.full(confidences_NK.shape[1], np.inf)
    for k in np.flatnonzero(present_K):
        thresholds_K[k] = own_N[labels == k].mean()
    confident_NK = np.where(confidences_NK >= thresholds_K, confidences_NK, -1.0)
    best_N = confident_NK.argmax(1)
    wrong = np.flatnonzero((confident_NK.max(1) > 0) & (best_N != labels))
    margins = confidences_NK[wrong, best_N[wrong]] - own_N[wrong]
    return [(int(n), int(best_N[n])) for n in wrong[np.argsort(-margins, kind="stable")]]
