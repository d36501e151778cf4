"""Tests hold their level, find drift, and estimate what is known here."""

import numpy as np
import pytest

from classifier.data.columns.column import Column
from classifier.data.columns.schema import ColumnSchema
from classifier.drift.column_tests import compare_schema_columns
from classifier.drift.expected_accuracy import estimate_accuracy
from classifier.drift.label_shift import estimate_label_shift, predict_shifted_accuracy
from classifier.drift.measure import Drift, measure_drift
from classifier.drift.mmd import measure_mmd
from classifier.drift.shares import measure_shares
from classifier.drift.two_sample import compare_counts
from classifier.drift.window import Window
from classifier.errors import DataError
from classifier.inference.reference import Reference
from tests.drift.synthetic import CLASSES, draw_labels, draw_outputs, make_reference


def make_window(labels_N: np.ndarray, rng: np.random.Generator, *, offset: float = 0.0, width: int = 16) -> Window:
    count = len(labels_N)
    return Window(
        "window",
        [str(n) for n in range(count)],
        draw_outputs(labels_N, rng),
        (rng.normal(size=count) + offset).astype(np.float32),
        (rng.normal(size=(count, width)) + offset).astype(np.float32),
    )


def measure(reference: Reference, window: Window, **options) -> Drift:
    return measure_drift(reference, window, CLASSES, **options)


def test_undrifted_windows_raise_few_alarms():
    rng = np.random.default_rng(0)
    alarms = 0
    for n in range(60):
        reference = make_reference(200, rng)
        alarms += measure(reference, make_window(draw_labels(100, rng), rng), seed=n).is_found
    assert alarms <= 7  # at a level of 5 %, more than 7 of 60 have a probability of 1 %


def test_p_values_of_shares_are_uniform_in_the_tail():
    rng = np.random.default_rng(1)
    p_RK = []
    for _ in range(200):
        reference = make_reference(200, rng)
        p_RK.append(measure_shares(reference, draw_outputs(draw_labels(150, rng), rng)).p_K)
    for level in (0.01, 0.05, 0.2):
        assert np.mean(np.array(p_RK) <= level) == pytest.approx(level, rel=0.5)


@pytest.mark.parametrize("sizes", [(200, 200), (300, 40)])
def test_the_permutation_test_of_mmd_holds_its_level(sizes):
    rng = np.random.default_rng(2)
    samples = [[rng.standard_t(3, size=(n, 8)) for n in sizes] for _ in range(150)]
    p_R = np.array([measure_mmd(*pair, seed=n, permutations=99).p for n, pair in enumerate(samples)])
    assert (p_R <= 0.1).mean() < 0.18  # of 150, 27 or more have a probability of 0.3 %
    assert p_R.min() >= 0.01


def test_drift_of_features_and_scores_is_found_and_its_images_are_named():
    rng = np.random.default_rng(3)
    reference = make_reference(400, rng)
    window = make_window(draw_labels(100, rng), rng)
    assert window.statistics_MF is not None
    strange = rng.choice(100, 30, replace=False)
    window.statistics_MF[strange] += 3
    found = measure(reference, window)
    assert found.is_found
    assert [test.kind for test in found.found] == ["features"]
    assert set(found.drove) <= {*strange.tolist()}
    assert "novelty" in [
        test.kind for test in measure(reference, make_window(draw_labels(100, rng), rng, offset=1)).found
    ]


def test_a_class_that_doubles_is_named():
    rng = np.random.default_rng(4)
    reference = make_reference(1000, rng)
    shares_K = np.array([0.35, 0.25, 0.2, 0.1, 0.1])
    found = [measure(reference, make_window(draw_labels(300, rng, shares_K), rng)) for _ in range(10)]
    named = [test.worst for one in found for test in one.found if test.kind == "shares"]
    assert len(named) >= 7
    assert {*named} == {"cat"}


def test_label_shift_recovers_the_shares():
    rng = np.random.default_rng(5)
    reference, truth_K = make_reference(2000, rng), np.array([0.1, 0.2, 0.4, 0.3, 0.0])
    labels_N = draw_labels(4000, rng, truth_K)
    shift = estimate_label_shift(reference, draw_outputs(labels_N, rng))
    assert shift.shares_K == pytest.approx(truth_K, abs=0.03)
    assert shift.shares_K.sum() == pytest.approx(1)
    assert ((shift.low_K - 0.01 <= truth_K) & (truth_K <= shift.high_K + 0.01)).all()
    accuracy = (draw_outputs(labels_N, rng).argmax(1) == labels_N).mean()
    shifted = predict_shifted_accuracy(reference, shift.ratios_K)
    assert shifted.as_it_is == pytest.approx(accuracy, abs=0.02)
    assert shifted.reweighted > shifted.as_it_is


def test_accuracy_is_expected_to_fall_with_confidence():
    rng = np.random.default_rng(6)
    reference = make_reference(2000, rng)
    labels_N = draw_labels(3000, rng)
    same = estimate_accuracy(reference, draw_outputs(labels_N, rng), None, has_changed=False)
    assert same.transport is not None
    assert same.do_agree
    for estimate in (same.confidence, same.threshold, same.transport):
        assert estimate.low <= same.reference <= estimate.high
        assert estimate.value == pytest.approx(same.reference, abs=0.02)
    blurred = draw_outputs(labels_N, rng, margin=1.5)
    worse = estimate_accuracy(reference, blurred, None, has_changed=True)
    accuracy = (blurred.argmax(1) == labels_N).mean()
    assert worse.value < same.reference - 0.1
    assert worse.confidence.value == pytest.approx(accuracy, abs=0.08)


def test_several_labels_are_tested_both_ways():
    rng = np.random.default_rng(7)

    def draw(count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
        targets_NK = rng.random((count, 3)) < (share, 0.5, 0.2)
        logits_NK = 3 * (2 * targets_NK - 1) + rng.normal(size=(count, 3))
        return (1 / (1 + np.exp(-logits_NK))).astype(np.float32), targets_NK

    outputs_NK, targets_NK = draw(800, 0.4)
    counts = np.append(targets_NK.sum(0), 800).astype(np.int64)
    source = np.array(0, np.uint8)
    arrays = {"probabilities": outputs_NK, "targets": targets_NK, "label_counts": counts, "source": source}
    reference = Reference(arrays)
    assert reference.fault is None
    assert reference.is_multilabel
    rarer, same = (measure_shares(reference, draw(200, share)[0]).p_K for share in (0.15, 0.4))
    assert rarer[0] < 1e-4
    assert same.min() > 1e-3
    found = measure_drift(reference, Window("w", ["1"] * 200, draw(200, 0.15)[0]), ("a", "b", "c"))
    assert found.is_found
    assert found.shift is None
    assert found.accuracy is not None
    assert any("features are not compared" in note for note in found.notes)


def test_columns_are_compared_by_their_kind():
    rng = np.random.default_rng(8)
    columns = (
        Column(name="weight", kind="number", width=1),
        Column(name="colour", kind="category", width=3, values=("red", "blue")),
        Column(name="note", kind="text", width=4),
    )
    schema = ColumnSchema(columns)

    def draw(count: int, offset: float, red: float) -> np.ndarray:
        rows_NF = np.full((count, schema.width), np.nan, np.float32)
        rows_NF[:, schema.slices["weight"]] = rng.normal(offset, 1, (count, 1))
        rows_NF[: count // 10, schema.slices["weight"]] = np.nan
        rows_NF[:, schema.slices["colour"]] = np.eye(3)[(rng.random(count) > red).astype(int)]
        return rows_NF

    same, notes = compare_schema_columns(schema, draw(500, 0, 0.5), draw(200, 0, 0.5))
    assert min(same.values()) > 0.01
    assert notes == ["note is text, and is not compared"]
    tested, _ = compare_schema_columns(schema, draw(500, 0, 0.5), draw(200, 1, 0.9))
    assert max(tested.values()) < 1e-6
    missing = draw(200, 0, 0.5)
    missing[:, schema.slices["weight"]] = np.nan
    assert compare_schema_columns(schema, draw(500, 0, 0.5), missing)[0]["weight"] < 1e-6


def test_a_reference_may_lack_values_of_columns():
    arrays = make_reference(200, np.random.default_rng(0)).arrays
    columns_NF = np.ones((200, 3), np.float32)
    columns_NF[::4, 1] = np.nan
    assert Reference({**arrays, "columns": columns_NF}).fault is None
    columns_NF[5, 2] = np.inf
    assert Reference({**arrays, "columns": columns_NF}).fault == "columns is not finite"
    assert Reference({**arrays, "statistics": columns_NF.astype(np.float16)}).fault == "statistics is not finite"


def test_rare_categories_are_counted_together():
    assert compare_counts([100, 1, 0], [90, 0, 1]) > 0.5
    assert compare_counts([100, 0], [0, 100]) < 1e-9
    assert compare_counts([0, 0], [3, 4]) == 1.0


def test_few_images_are_refused():
    with pytest.raises(DataError, match="has 5 images with answers, and drift needs 20"):
        Window("log", ["1"] * 5, np.full((5, 2), 0.5, np.float32))


def test_equal_images_are_no_drift_and_no_error():
    outputs_NK = np.tile(np.array([[1, 0, 0, 0, 0]], np.float32), (50, 1))
    reference = make_reference(100, np.random.default_rng(9))
    arrays = {**reference.arrays, "probabilities": np.eye(5, dtype=np.float32)[reference.targets.argmax(1)]}
    arrays["statistics"] = np.zeros((len(reference), 3), np.float16)
    window = Window("w", ["1"] * 50, outputs_NK, None, np.zeros((50, 3), np.float32))
    found = measure_drift(Reference(arrays), window, CLASSES)
    assert {test.kind: test.adjusted <= 0.05 for test in found.tests} == {
        "shares": True,
        "outputs": True,
        "features": False,
    }
    assert np.isfinite([found.p, *found.shares.p_K]).all()


def test_a_model_that_gives_all_images_to_one_class_is_expected_to_be_wrong():
    rng = np.random.default_rng(10)
    reference = make_reference(1000, rng)
    labels_N = draw_labels(600, rng)
    collapsed = draw_outputs(np.where(rng.random(600) < 0.5, 2, labels_N), rng)
    accuracy = (collapsed.argmax(1) == labels_N).mean()
    estimate = estimate_accuracy(reference, collapsed, None, has_changed=True)
    assert estimate.value == pytest.approx(accuracy, abs=0.1)
    assert estimate.confidence.value > accuracy + 0.25
    assert not estimate.do_agree
