"""What a model said of images that it was not trained on, as stored in its bundle: what drift is measured against.

In numpy alone; evaluation/reference.py collects it.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MAX_IMAGES = 2000
SOURCES = ("validation", "folds", "test")
_DTYPES = {"probabilities": "f", "targets": "b", "label_counts": "i", "source": "u"}
_OPTIONAL = {"features": "f", "statistics": "f", "ood_scores": "f", "columns": "f"}


@dataclass(frozen=True, eq=False)
class Reference:
    """The stored arrays. N images of K classes: probabilities_NK, float32, calibrated, as what rounding does to values
    near 0 and 1 would be taken for drift; targets_NK, bool; label_counts, int64, of each class over all labelled images
    of the training and how many images those are; source, an index of SOURCES. Where there are any: features, float16,
    inputs of the head; statistics, float16, of the last layer that the out-of-distribution detector looks at;
    ood_scores, float32, its scores; columns, float32, as ColumnSchema encodes them: NaN where a value is missing.
    """

    arrays: Mapping[str, np.ndarray]

    @property
    def fault(self) -> str | None:
        """Why the arrays are none of a reference; None if they are."""
        arrays = self.arrays
        if missing := [name for name in _DTYPES if name not in arrays]:
            return f"it lacks {missing[0]}"
        count, classes = len(self), arrays["probabilities"].shape[-1]
        if arrays["probabilities"].ndim != 2 or not count:
            return "it has no images"
        if count > MAX_IMAGES:
            return f"it has {count:,} images, and {MAX_IMAGES:,} are allowed"
        for name, array in arrays.items():
            kind = (_DTYPES | _OPTIONAL).get(name)
            if kind is None or array.dtype.kind != kind:
                return f"{name} is of no known kind"
            is_sound = np.isfinite(array) if name != "columns" else ~np.isinf(array)
            if kind == "f" and name != "ood_scores" and not is_sound.all():
                return f"{name} is not finite"
        shapes = {"targets": (count, classes), "label_counts": (classes + 1,), "source": (), "ood_scores": (count,)}
        for name, shape in shapes.items():
            if name in arrays and arrays[name].shape != shape:
                return f"{name} has the shape {arrays[name].shape}"
        for name in ("features", "statistics", "columns"):
            if name in arrays and (arrays[name].ndim != 2 or len(arrays[name]) != count):
                return f"{name} has the shape {arrays[name].shape}"
        outputs, counts = arrays["probabilities"], arrays["label_counts"]
        if outputs.min() < 0 or outputs.max() > 1 + 1e-3 or counts.min() < 0 or counts[-1] < 1 or not counts[:-1].any():
            return "its values are out of range"
        return (
            None if int(arrays["source"]) < len(SOURCES) and arrays["targets"].any() else "its values are out of range"
        )

    def __len__(self) -> int:
        return len(self.arrays["probabilities"])

    @property
    def source(self) -> str:
        return SOURCES[int(self.arrays["source"])]

    @property
    def outputs(self) -> np.ndarray:
        """probabilities_NK."""
        return self.arrays["probabilities"]

    @property
    def targets(self) -> np.ndarray:
        """targets_NK."""
        return self.arrays["targets"]

    @functools.cached_property
    def is_multilabel(self) -> bool:
        """Whether images may have any number of labels."""
        return bool((self.targets.sum(1) != 1).any() or self.arrays["label_counts"][:-1].sum() != self.labelled)

    @property
    def labelled(self) -> int:
        """The number of labelled images of the training."""
        return int(self.arrays["label_counts"][-1])

    @functools.cached_property
    def shares(self) -> np.ndarray:
        """shares_K of the classes or labels among them."""
        return self.arrays["label_counts"][:-1] / self.labelled

    @functools.cached_property
    def label_counts(self) -> np.ndarray:
        """counts_K, int64: the images of the reference that have each label."""
        return self.targets.sum(0)

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """weights_N that sum to 1 and give each class its share in the training; equal of several labels."""
        if self.is_multilabel:
            return np.full(len(self), 1 / len(self))
        weights_N = (self.shares / np.maximum(self.label_counts, 1))[self.targets.argmax(1)]
        return weights_N / weights_N.sum()
