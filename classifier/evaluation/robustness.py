"""A model's scores under corruptions, attacks and distribution shift, and its out-of-distribution detection."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from classifier.data.dataset import Split
from classifier.evaluation.adversarial import fgsm, is_correct, pgd
from classifier.evaluation.corruptions import GROUPS, SEVERITIES, corrupt
from classifier.evaluation.split_scores import score_predictions
from classifier.inference.ood_detector import OODDetector
from classifier.inference.out_of_distribution import score_images
from classifier.inference.scorer import Scorer
from classifier.inference.with_columns import WithColumns

# Perturbations of each value by an attack, in 1/255.
EPSILONS = (1, 2, 4, 8)
Log = Callable[[str], None]


def subsample(split: Split, max_images: int) -> Split:
    """Return at most max_images images, evenly spaced."""
    if len(split) <= max_images:
        return split
    return split.take(torch.linspace(0, len(split) - 1, max_images).long())


def measure_corruptions(model: nn.Module, scorer: Scorer, split: Split, log: Log, seed: int = 0) -> dict[str, Any]:
    """Return the accuracies `clean`, `mean` over all corruptions, by group, and by kind for severities 1 to 5."""
    images_NCHW = split.images_NCHW[:]
    kinds: dict[str, list[float]] = {}
    for kind in (kind for group in GROUPS.values() for kind in group):
        kinds[kind] = [
            _accuracy(model, scorer, corrupt(images_NCHW, kind, severity, seed=seed), split)
            for severity in range(1, SEVERITIES + 1)
        ]
        log(f"{kind.replace('_', ' ')}: {', '.join(f'{value:.1%}' for value in kinds[kind])}")
    return {
        "images": len(split),
        "clean": _accuracy(model, scorer, images_NCHW, split),
        "mean": float(np.mean(list(kinds.values()))),
        "groups": {group: float(np.mean([kinds[kind] for kind in names])) for group, names in GROUPS.items()},
        "kinds": kinds,
    }


def measure_attacks(
    model: nn.Module, scorer: Scorer, split: Split, detector: OODDetector | None, log: Log
) -> dict[str, Any]:
    """Return the accuracies by attack and epsilon (in 1/255), and the AUROCs of detecting the strongest PGD attack."""
    scorer = dataclasses.replace(scorer, precision="fp32")  # bf16 gradients would make the attacks weaker
    result: dict[str, Any] = {"images": len(split), "epsilons": list(EPSILONS), "fgsm": [], "pgd": [], "auroc": {}}
    images_NCHW, labels_N = split.images_NCHW[:], split.labels_N
    batch_size = scorer.batch_size
    for epsilon in EPSILONS:
        correct: dict[str, list[Tensor]] = {"fgsm": [], "pgd": []}
        attacked: list[Tensor] = []
        for start in range(0, len(split), batch_size):
            own = slice(start, start + batch_size)
            batch_NCHW, labels_B = images_NCHW[own], labels_N[own]
            attacked_model = model if split.columns_NF is None else WithColumns(model, split.columns_NF[own])
            fgsm_NCHW = fgsm(attacked_model, scorer, batch_NCHW, labels_B, epsilon / 255)
            correct["fgsm"].append(is_correct(attacked_model, scorer, fgsm_NCHW, labels_B))
            pgd_NCHW = pgd(attacked_model, scorer, batch_NCHW, labels_B, epsilon / 255)
            correct["pgd"].append(is_correct(attacked_model, scorer, pgd_NCHW, labels_B))
            attacked.append((255 * pgd_NCHW).round().to(torch.uint8).cpu())
        for name, batches in correct.items():
            result[name].append(float(torch.cat(batches).double().mean()))
        log(f"perturbed by {epsilon}/255: FGSM {result['fgsm'][-1]:.1%}, PGD {result['pgd'][-1]:.1%}")
        if epsilon == EPSILONS[-1]:
            result["auroc"] = detection_aurocs(model, scorer, images_NCHW, torch.cat(attacked), detector)
    return result


def measure_shift(model: nn.Module, scorer: Scorer, split: Split) -> dict[str, Any]:
    """Return the scores on a second dataset of the same classes."""
    probabilities_NK = scorer.predict_split(model, split)[1]
    return score_predictions(scorer.task, probabilities_NK, split.labels_N, scorer.class_names)


def detection_aurocs(
    model: nn.Module, scorer: Scorer, images_NCHW: Tensor, others_NCHW: Tensor, detector: OODDetector | None
) -> dict[str, float]:
    """Return how well each score separates images from unfamiliar others: the AUROC by score.

    probability: of the predicted class (Hendrycks and Gimpel 2017); energy: log-sum-exp of the logits (Liu et al.
    2020); layers: the OODDetector's, if there is one.
    """
    first, second = (_familiarity(model, scorer, images, detector) for images in (images_NCHW, others_NCHW))
    return {name: compute_auroc(first[name], second[name]) for name in first}


def compute_auroc(higher_N: Tensor, lower_M: Tensor) -> float:
    """Return the share of pairs in which the first value is larger; ties count half."""
    from scipy.stats import rankdata

    ranks = rankdata(torch.cat([higher_N, lower_M]).numpy())
    n, m = len(higher_N), len(lower_M)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def _familiarity(
    model: nn.Module, scorer: Scorer, images_NCHW: Tensor, detector: OODDetector | None
) -> dict[str, Tensor]:
    """Return scores_N by name, higher for images that are more similar to the training images."""
    model.eval()
    with torch.inference_mode():
        batches = images_NCHW.split(scorer.batch_size)
        logits_NK = torch.cat([scorer.forward(model, batch.to(scorer.device)).cpu() for batch in batches])
    scores = {"probability": logits_NK.softmax(1).amax(1), "energy": logits_NK.logsumexp(1)}
    return scores | ({"layers": -score_images(detector, model, scorer, images_NCHW)} if detector else {})


def _accuracy(model: nn.Module, scorer: Scorer, images_NCHW: Tensor, split: Split) -> float:
    """The accuracy on the images of a split, changed, with their columns as they are."""
    probabilities_NK = scorer.predict_probabilities(model, images_NCHW, split.columns_NF)
    return float((probabilities_NK.argmax(1) == split.labels_N).double().mean())
