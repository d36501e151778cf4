"""Drift of a window of images from a model's reference: tests at one family-wise level, label shift, accuracy."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from classifier.data.columns.schema import ColumnSchema
from classifier.drift.column_tests import compare_schema_columns
from classifier.drift.expected_accuracy import MIN_IMAGES, ExpectedAccuracy, estimate_accuracy
from classifier.drift.label_shift import LabelShift, ShiftedAccuracy, estimate_label_shift, predict_shifted_accuracy
from classifier.drift.mmd import MAX_IMAGES, measure_mmd
from classifier.drift.shares import ShareTest, measure_shares
from classifier.drift.two_sample import compare_columns, compare_values
from classifier.drift.window import Window, choose_rows
from classifier.inference.reference import Reference
from classifier.metrics.decisions import Calibration

LEVEL = 0.05
WEIGHTS = {"shares": 0.86, "outputs": 0.01, "features": 0.1, "novelty": 0.03, "columns": 0.2}
"""Of the level, that each group of tests may use. The shares of classes have most, as nothing else finds a class that
has become more frequent, and it shows little; where images change, outputs and scores have p-values far below these."""
DROVE = 24
"""Images that are named as those that drove the drift."""


class GroupTest(NamedTuple):
    """A group of tests. p: the smallest p-value, times the number of tests (Bonferroni); adjusted: divided by the share
    of the level that the group may use, to be compared with the level itself. worst: of which class or column."""

    kind: str
    tests: int
    p: float
    adjusted: float
    worst: str


@dataclass(frozen=True, eq=False)
class Drift:
    """What was found in a window."""

    images: int
    level: float
    tests: list[GroupTest]
    shares: ShareTest
    shift: LabelShift | None
    """None of several labels an image, where classes do not share anything, or if it was not asked for."""
    shifted: ShiftedAccuracy | None
    accuracy: ExpectedAccuracy | None
    """None where there are too few images, or if it was not asked for."""
    drove: list[int]
    """Rows of the window's images that differ most, the most different first."""
    notes: list[str]

    @property
    def p(self) -> float:
        """The p-value of no drift at all: the level at which it would just be found."""
        return min(1.0, *(test.adjusted for test in self.tests))

    @property
    def is_found(self) -> bool:
        return self.p <= self.level

    @property
    def found(self) -> list[GroupTest]:
        """The groups in which drift was found."""
        return [test for test in self.tests if test.adjusted <= self.level]

    @property
    def expected_drop(self) -> float | None:
        """By how much the expected accuracy is below that of the reference, in [-1, 1]."""
        return self.accuracy.reference - self.accuracy.value if self.accuracy else None


def measure_drift(
    reference: Reference,
    window: Window,
    class_names: tuple[str, ...],
    calibration: Calibration | None = None,
    schema: ColumnSchema | None = None,
    *,
    level: float = LEVEL,
    with_estimates: bool = True,
    seed: int = 0,
) -> Drift:
    """Compare a window with the reference.

    Groups of tests share the level, each by its weight (weighted Bonferroni), so that any of them errs in at most
    `level` of all windows without drift: shares of the classes (shares.py); the outputs, by Kolmogorov-Smirnov tests
    (black box shift detection; Lipton et al. 2018, Rabanser et al. 2019); the features, by MMD (mmd.py); the
    out-of-distribution score; columns beside the image. Groups for which the window has no values give their share to
    the others. with_estimates: also estimate the class shares and the accuracy, which takes seconds.
    """
    notes: list[str] = []
    shares = measure_shares(reference, window.probabilities_MK)
    p_values: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {"shares": (shares.p_K, class_names)}
    p_values["outputs"] = compare_columns(reference.outputs, window.probabilities_MK), class_names
    witness_M, distances = None, _choose_features(reference, window, notes)
    if distances:
        name, reference_NF, window_MF = distances
        rows = choose_rows(len(window), MAX_IMAGES)
        mmd = measure_mmd(reference_NF, window_MF[rows], seed=seed)
        p_values["features"] = np.array([mmd.p]), (name,)
        witness_M = np.full(len(window), -np.inf)
        witness_M[rows] = mmd.witness_M
    scores_N, scores_M = reference.arrays.get("ood_scores"), window.ood_scores_M
    if scores_N is not None and scores_M is not None:
        p_values["novelty"] = np.array([compare_values(scores_N, scores_M)]), ("out-of-distribution score",)
    if schema is not None and "columns" in reference.arrays and window.columns_MF is not None:
        tested, left_out = compare_schema_columns(schema, reference.arrays["columns"], window.columns_MF)
        p_values["columns"] = np.array([*tested.values()]), tuple(tested)
        notes += left_out
    elif schema is not None:
        notes.append("columns are not compared: these answers do not have them")
    shift = shifted = None
    if with_estimates and not reference.is_multilabel:
        shift = estimate_label_shift(reference, window.probabilities_MK, seed=seed)
        shifted = predict_shifted_accuracy(reference, shift.ratios_K)
    tests, accuracy = _combine(p_values), None
    if with_estimates and min(len(reference), len(window)) >= MIN_IMAGES:
        has_changed = any(test.kind in ("features", "novelty") and test.adjusted <= level for test in tests)
        accuracy = estimate_accuracy(
            reference, window.probabilities_MK, calibration, has_changed=has_changed, seed=seed
        )
    drove = _rank(witness_M, scores_M, window.probabilities_MK)
    return Drift(len(window), level, tests, shares, shift, shifted, accuracy, drove, notes)


def _choose_features(
    reference: Reference, window: Window, notes: list[str]
) -> tuple[str, np.ndarray, np.ndarray] | None:
    """Return what both have: statistics of the detector's last layer, which need no torch, or inputs of the head."""
    for name, values_MF in (("statistics", window.statistics_MF), ("features", window.features_MF)):
        stored_NF = reference.arrays.get(name)
        if stored_NF is None or values_MF is None:
            continue
        if stored_NF.shape[1] != values_MF.shape[1]:
            notes.append(f"{name} have {values_MF.shape[1]} values an image, and {stored_NF.shape[1]} in the reference")
            continue
        # Rounded alike, so that rounding is no difference.
        largest = np.finfo(np.float16).max
        rounded_MF = np.clip(values_MF, -largest, largest).astype(np.float16)
        return name, stored_NF.astype(np.float64), rounded_MF.astype(np.float64)
    notes.append("features are not compared: these answers do not have them")
    return None


def _combine(p_values: dict[str, tuple[np.ndarray, tuple[str, ...]]]) -> list[GroupTest]:
    tested = {kind: pair for kind, pair in p_values.items() if len(pair[0])}
    total, tests = sum(WEIGHTS[kind] for kind in tested), []
    for kind, (p_T, names) in tested.items():
        p = min(1.0, float(p_T.min()) * len(p_T))
        tests.append(GroupTest(kind, len(p_T), p, min(1.0, p * total / WEIGHTS[kind]), names[int(p_T.argmin())]))
    return tests


def _rank(witness_M: np.ndarray | None, scores_M: np.ndarray | None, probabilities_MK: np.ndarray) -> list[int]:
    """Return the rows of the images that differ most: by the witness function, else by their score, or confidence."""
    if witness_M is not None:
        ranks_M = witness_M
    elif scores_M is not None:
        ranks_M = np.nan_to_num(scores_M, nan=-np.inf)
    else:
        ranks_M = -probabilities_MK.max(1)
    return np.argsort(-ranks_M, kind="stable")[:DROVE].tolist()
