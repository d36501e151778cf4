"""Labels that are probably wrong, by confident learning: out-of-sample confidence in another class.

C. Northcutt, L. Jiang, I. Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021. Probabilities
come from a linear classifier on a model's features, trained on the other folds: what learned an image judges others.
"""

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
from classifier.data.split import number_contents
from classifier.errors import DataError
from classifier.inference.features import extract_features, fit_logistic_regression

FOLDS = 5


def seen(looked: ScanResult, model: Path, experiment: Experiment) -> Tensor:
    """features_KF of the kept pictures, by a bundle or run.

    DataError if its classes are others; RunError if there is no model.
    """
    predictor = Predictor(model, device=experiment.train.device)
    source, size = looked.source, predictor.scorer.size
    if set(predictor.class_names) != set(source.class_names):
        raise DataError(f"{model} was trained on other classes than {source.name} has: give a model of these")
    channels = predictor.bundle.dataset["channels"]
    config = experiment.override("data.size", size).override("data.channels", channels).data
    images_NCHW = decode_all.decode_source(source, config).images_NCHW
    kept_N = torch.from_numpy(looked.usable_N)
    return extract_features(predictor.model, predictor.scorer, select(images_NCHW, kept_N))


def find(looked: ScanResult, features_KF: Tensor) -> list[Finding]:
    """The likeliest first. features_KF: see `seen`."""
    source = looked.source
    labels_N = torch.from_numpy(source.labels_N[looked.usable_N])
    # Copies would vouch for one another: a content lies in one fold.
    folds_N = torch.from_numpy(number_contents(looked.digests_N)[0][looked.usable_N] % FOLDS)
    probabilities_NK = held_out(features_KF, labels_N, folds_N, len(source.class_names))
    found = []
    for n, k in suspects(probabilities_NK, labels_N):
        id_, own = source.ids[int(looked.usable_N[n])], source.class_names[int(labels_N[n])]
        sure = float(probabilities_NK[n, k])
        text = f"{id_}: labelled {own!r}, looks like {source.class_names[k]!r} ({sure:.0%} sure)"
        found.append(Finding(kind="label_error", text=text, ids=(id_,), score=sure))
    return found


def held_out(features_NF: Tensor, labels_N: Tensor, folds_N: Tensor, classes: int) -> Tensor:
    """probabilities_NK of each image, by a linear classifier that was trained on the other folds."""
    probabilities_NK = torch.zeros(len(labels_N), classes)
    for fold in folds_N.unique().tolist():
        out_N = folds_N == fold
        mean_F, std_F = features_NF[~out_N].mean(0), features_NF[~out_N].std(0).clamp(min=1e-6)
        standard_NF = (features_NF - mean_F) / std_F
        weight_KF, bias_K = fit_logistic_regression(standard_NF[~out_N], labels_N[~out_N], classes)
        probabilities_NK[out_N] = (standard_NF[out_N] @ weight_KF.T + bias_K).softmax(1)
    return probabilities_NK


def suspects(probabilities_NK: Tensor, labels_N: Tensor) -> list[tuple[int, int]]:
    """(image, class that it looks like), the surest first: as likely of that class as its own images are on average."""
    chosen_NK = probabilities_NK.numpy()
    labels = labels_N.numpy()
    present_K = np.bincount(labels, minlength=chosen_NK.shape[1]) > 0
    own_N = chosen_NK[np.arange(len(labels)), labels]
    thresholds_K = np.full(chosen_NK.shape[1], np.inf)
    for k in np.flatnonzero(present_K):
        thresholds_K[k] = own_N[labels == k].mean()
    confident_NK = np.where(chosen_NK >= thresholds_K, chosen_NK, -1.0)
    best_N = confident_NK.argmax(1)
    wrong = np.flatnonzero((confident_NK.max(1) > 0) & (best_N != labels))
    margins = chosen_NK[wrong, best_N[wrong]] - own_N[wrong]
    return [(int(n), int(best_N[n])) for n in wrong[np.argsort(-margins, kind="stable")]]
