"""How a model answers the old and the new test images, against the one before; and whether it may take its place."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch

from classifier.bundle.bundle import LoadedBundle
from classifier.compress.judge import compare_answers
from classifier.data.dataset import Split
from classifier.errors import ConfigError
from classifier.update.document import Candidate, ClassChange, Comparison, Outcome, UpdateDocument
from classifier.update.tables import is_new

DEFAULT_MAX_LOSS = 1.0
"""Points of accuracy on the old test images."""


def find_hits(loaded: LoadedBundle, split: Split, class_names: Sequence[str]) -> np.ndarray:
    """Return is_hit_N, bool: whether the model's class is that of the image. class_names: of the split's labels.

    A model that does not know a class never says it.
    """
    positions = torch.tensor([class_names.index(name) for name in loaded.bundle.class_names])
    if not len(split):
        return np.zeros(0, bool)
    unlabelled = dataclasses.replace(split, labels_N=torch.zeros_like(split.labels_N))
    _, probabilities_NK = loaded.scorer().predict_split(loaded.model, unlabelled)
    return (positions[probabilities_NK.argmax(1)] == split.labels_N).numpy()


def compare_old_and_new(
    before_N: np.ndarray, after_N: np.ndarray, split: Split, class_names: Sequence[str]
) -> tuple[Comparison | None, Comparison | None, list[ClassChange]]:
    """Return the change on the old images, on the new ones, and that of each class on the old ones; None without such
    images."""
    is_new_N = is_new(split.ids)
    old, new = (_compare(before_N[chosen_N], after_N[chosen_N]) for chosen_N in (~is_new_N, is_new_N))
    labels_N = split.labels_N.numpy()
    classes: list[ClassChange] = []
    for k, name in enumerate(class_names):
        own_N = ~is_new_N & (labels_N == k)
        if own_N.any():
            before, after = float(before_N[own_N].mean()), float(after_N[own_N].mean())
            classes.append({"name": name, "images": int(own_N.sum()), "before": before, "after": after})
    return old, new, classes


def choose_max_loss(asked: float | None, images: int) -> float:
    """Return the largest loss, in points, on so many old test images with which a model is promoted.

    asked: by the user; if None, 1, or the least that can be shown not to be exceeded. ConfigError if it is less.
    """
    same_N = np.ones(images, bool)
    least = 100 * compare_answers(same_N, same_N).high if images else 0.0
    if asked is None:
        return max(DEFAULT_MAX_LOSS, least)
    if asked < least:
        raise ConfigError(
            f"--max-loss {asked:g}: a loss below {least:.2f} points cannot be shown on {images:,} old test images: "
            "allow more"
        )
    return asked


def judge(candidate: Candidate, limit: float) -> Outcome:
    """Decide whether a model is promoted: it must be better on the new test images, and on the old ones not worse by
    more than `limit` points, each by its 95 % interval."""
    old, new = candidate["old"], candidate["new"]
    is_better, is_kept = new is not None and new["interval"][0] > 0, old is not None
    if new is None:
        lines = ["there are no new test images, so nothing shows that it is better"]
    else:
        lines = [f"new test images: {_describe(new)}{'' if is_better else ', which does not show a gain'}"]
    if old is None:
        lines.append("there are no old test images, so nothing shows that it is not worse")
    else:
        is_kept = -100 * old["interval"][0] <= limit
        doubt = "" if is_kept else f", which may be a loss of more than {limit:.3g} point{'' if limit == 1 else 's'}"
        lines.append(f"old test images: {_describe(old)}{doubt}")
    return {"chosen": candidate["name"], "promoted": is_better and is_kept, "reasons": lines}


def find_allowing_loss(document: UpdateDocument) -> int | None:
    """Return the --max-loss, in whole points, with which the chosen model would be promoted; None if none would do."""
    outcome = document.get("outcome")
    candidate = next(one for one in document["candidates"] if outcome and one["name"] == outcome["chosen"])
    if candidate["old"] is None or candidate["new"] is None or candidate["new"]["interval"][0] <= 0:
        return None
    return math.ceil(-100 * candidate["old"]["interval"][0])


def _describe(comparison: Comparison) -> str:
    low, high = (100 * end for end in comparison["interval"])
    change = f"{100 * comparison['change']:+.2f} points ({low:+.2f} to {high:+.2f})"
    return f"{comparison['before']:.2%} before, {comparison['after']:.2%} after: {change}"


def _compare(before_N: np.ndarray, after_N: np.ndarray) -> Comparison | None:
    if not len(before_N):
        return None
    loss = compare_answers(before_N, after_N)
    return {
        "images": len(before_N),
        "before": float(before_N.mean()),
        "after": float(after_N.mean()),
        "change": float(after_N.mean() - before_N.mean()),
        "interval": [-loss.high, -loss.low],
    }
