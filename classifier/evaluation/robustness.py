"""How a model does on what is unlike its test images: corrupted, attacked, of another source, of no class it knows."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from classifier.data.dataset import Split
from classifier.data.images.arrays import select
from classifier.data.readers.compact import select_strings as chosen_names
from classifier.evaluation.adversarial import fgsm, pgd, right
from classifier.evaluation.corruptions import GROUPS, SEVERITIES, corrupted
from classifier.inference.out_of_distribution import OODDetector
from classifier.inference.scorer import Scorer
from classifier.metrics.scores import compute_scores

# Of each value, in 1/255: what attacks may move it by.
EPSILONS = (1, 2, 4, 8)
Tell = Callable[[str], None]


def some(part: Split, most: int) -> Split:
    """At most so many images, evenly spaced."""
    if len(part) <= most:
        return part
    places = torch.linspace(0, len(part) - 1, most).long()
    return Split(select(part.images_NCHW, places), part.labels_N[places], chosen_names(part.ids, places.tolist()))


def under_corruptions(model: nn.Module, scorer: Scorer, part: Split, tell: Tell, seed: int = 0) -> dict[str, Any]:
    """clean, the mean over all, by group, and for each kind the accuracies of severities 1 to 5."""
    images_NCHW, labels_N = part.images_NCHW[:], part.labels_N
    kinds: dict[str, list[float]] = {}
    for kind in (kind for group in GROUPS.values() for kind in group):
        kinds[kind] = [
            _accuracy(model, scorer, corrupted(images_NCHW, kind, severity, seed=seed), labels_N)
            for severity in range(1, SEVERITIES + 1)
        ]
        tell(f"{kind.replace('_', ' ')}: {', '.join(f'{value:.1%}' for value in kinds[kind])}")
    return {
        "images": len(part),
        "clean": _accuracy(model, scorer, images_NCHW, labels_N),
        "mean": float(np.mean(list(kinds.values()))),
        "groups": {group: float(np.mean([kinds[kind] for kind in names])) for group, names in GROUPS.items()},
        "kinds": kinds,
    }


def under_attack(model: nn.Module, scorer: Scorer, part: Split, novelty: OODDetector | None, tell: Tell) -> dict[str, Any]:
    """Accuracies by attack and epsilon (in 1/255), and how well each score tells attacked images from clean ones."""
    scorer = dataclasses.replace(scorer, precision="fp32")  # a gradient of bf16 is a worse attacker
    found: dict[str, Any] = {"images": len(part), "epsilons": list(EPSILONS), "fgsm": [], "pgd": [], "auroc": {}}
    images_NCHW, labels_N = part.images_NCHW[:], part.labels_N
    for epsilon in EPSILONS:
        hits: dict[str, list[Tensor]] = {"fgsm": [], "pgd": []}
        attacked: list[Tensor] = []
        for batch_NCHW, labels_B in zip(images_NCHW.split(scorer.batch_size), labels_N.split(scorer.batch_size), strict=True):
            one = fgsm(model, scorer, batch_NCHW, labels_B, epsilon / 255)
            hits["fgsm"].append(right(model, scorer, one, labels_B))
            many = pgd(model, scorer, batch_NCHW, labels_B, epsilon / 255)
            hits["pgd"].append(right(model, scorer, many, labels_B))
            attacked.append((255 * many).round().to(torch.uint8).cpu())
        for name, parts in hits.items():
            found[name].append(float(torch.cat(parts).double().mean()))
        tell(f"moved by {epsilon}/255: FGSM {found['fgsm'][-1]:.1%}, PGD {found['pgd'][-1]:.1%}")
        if epsilon == EPSILONS[-1]:
            found["auroc"] = told_apart(model, scorer, images_NCHW, torch.cat(attacked), novelty)
    return found


def under_shift(model: nn.Module, scorer: Scorer, part: Split) -> dict[str, Any]:
    """The figures on a second data set of the same classes."""
    return compute_scores(scorer.predict_split(model, part)[1], part.labels_N, scorer.class_names)


def told_apart(
    model: nn.Module, scorer: Scorer, images_NCHW: Tensor, others_NCHW: Tensor, novelty: OODDetector | None
) -> dict[str, float]:
    """AUROC by score: how often an image of the first kind seems more like the training images than one of the second.

    probability: of the likeliest class (Hendrycks and Gimpel 2017); energy: log-sum-exp of the logits (Liu et al.
    2020); layers: Novelty's, of several layers.
    """
    first, second = (_seen(model, scorer, images, novelty) for images in (images_NCHW, others_NCHW))
    return {name: auroc(first[name], second[name]) for name in first}


def auroc(higher_N: Tensor, lower_M: Tensor) -> float:
    """The share of pairs of which the first is larger; ties count half."""
    from scipy.stats import rankdata

    ranks = rankdata(torch.cat([higher_N, lower_M]).numpy())
    n, m = len(higher_N), len(lower_M)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def _seen(model: nn.Module, scorer: Scorer, images_NCHW: Tensor, novelty: OODDetector | None) -> dict[str, Tensor]:
    model.eval()
    with torch.inference_mode():
        batches = images_NCHW.split(scorer.batch_size)
        logits_NK = torch.cat([scorer.forward(model, batch.to(scorer.device)).cpu() for batch in batches])
    found = {"probability": logits_NK.softmax(1).amax(1), "energy": logits_NK.logsumexp(1)}
    return found | ({"layers": -novelty.score(model, scorer, images_NCHW)} if novelty else {})


def _accuracy(model: nn.Module, scorer: Scorer, images_NCHW: Tensor, labels_N: Tensor) -> float:
    return float((scorer.predict_probabilities(model, images_NCHW).argmax(1) == labels_N).double().mean())
