"""Outputs of a model that does not exist, with known labels and class shares."""

import numpy as np

from classifier.inference.reference import Reference

CLASSES = ("ant", "bee", "cat", "dog", "eel")
SHARES = np.array([0.4, 0.3, 0.1, 0.1, 0.1])


def draw_outputs(
    labels_N: np.ndarray, rng: np.random.Generator, *, classes: int = len(CLASSES), margin: float = 2.5
) -> np.ndarray:
    """Return probabilities_NK, float32: exactly calibrated for equal shares, the surer the larger the margin."""
    logits_NK = rng.normal(size=(len(labels_N), classes))
    logits_NK[np.arange(len(labels_N)), labels_N] += margin
    exponentials_NK = np.exp(margin * logits_NK)
    return (exponentials_NK / exponentials_NK.sum(1, keepdims=True)).astype(np.float32)


def draw_labels(count: int, rng: np.random.Generator, shares_K: np.ndarray = SHARES) -> np.ndarray:
    """Return labels_N of these shares."""
    return rng.choice(len(shares_K), count, p=shares_K)


def make_reference(count: int, rng: np.random.Generator, *, width: int = 16, margin: float = 2.5) -> Reference:
    """Return a reference whose images have the shares exactly, as a stratified split has."""
    labels_N = np.repeat(np.arange(len(SHARES)), np.round(SHARES * count).astype(int))
    return Reference(
        {
            "probabilities": draw_outputs(labels_N, rng, margin=margin),
            "targets": labels_N[:, None] == np.arange(len(SHARES)),
            "label_counts": np.append(np.round(SHARES * 20_000), 20_000).astype(np.int64),
            "source": np.array(0, np.uint8),
            "statistics": rng.normal(size=(len(labels_N), width)).astype(np.float16),
            "ood_scores": rng.normal(size=len(labels_N)).astype(np.float32),
        }
    )
