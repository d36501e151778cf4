"""Columns that give the label away, and missing values."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from classifier.config.sections import DataConfig
from classifier.data.audit.column_checks import MAX_IMAGES, check_columns
from classifier.data.audit.scan import ScanResult
from classifier.data.readers.source import Source
from classifier.data.split_names import TRAIN

COUNT = 200
RNG = np.random.default_rng(3)
LABELS_N = RNG.permutation(np.arange(COUNT) % 2)
NOISE_N = RNG.normal(size=COUNT)


def check(labels_N: np.ndarray = LABELS_N, groups: list[str] | None = None, **columns: Any) -> dict[str, str]:
    """Return the text of each kind of finding."""
    count = len(labels_N)
    source = Source(
        name="set",
        class_names=("cat", "dog"),
        ids=[f"{n}.png" for n in range(count)],
        labels_N=labels_N,
        splits_N=np.zeros(count, np.int8),
        images=np.zeros((count, 1, 4, 4), np.uint8),
        groups=groups,
        columns={name: [str(cell) for cell in cells] for name, cells in columns.items()},
    )
    values: dict[str, Any] = {field.name: np.zeros(0) for field in dataclasses.fields(ScanResult)}
    scan = ScanResult(**(values | {"source": source, "flaws": {}, "usable_N": np.arange(count)}))
    found = check_columns(scan, np.full(count, TRAIN), DataConfig(columns=("all",)))
    return {finding.kind: finding.text for finding in found if finding.kind != "reading"}


def test_honest_columns_pass() -> None:
    strong_N = LABELS_N + NOISE_N / 2
    colours = RNG.choice(["red", "blue"], COUNT)
    assert check() == {}
    assert check(strong=strong_N, noise=NOISE_N, colour=colours, words=[f"a word and {n}" for n in range(COUNT)]) == {}


LEAKS = {
    "number": LABELS_N * 3 + NOISE_N / 100,
    "category": np.where(LABELS_N, "benign", "malignant"),
    "code of each label": [f"{label}-{n % 9}" for n, label in enumerate(LABELS_N)],
    "text": [f"seen {n} times, and it is a {'cat' if label else 'dog'}" for n, label in enumerate(LABELS_N)],
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_column_that_tells_the_label(name: str) -> None:
    found = check(diagnosis=LEAKS[name])
    assert set(found) == {"leaking_column"}
    assert found["leaking_column"].startswith("diagnosis alone tells ")
    assert "in a cross-validation of 200 images, the most frequent of which is 50.0% of them" in found["leaking_column"]


def test_what_tells_only_the_group_is_no_leak() -> None:
    patients = [f"patient {n // 4}" for n in range(COUNT)]
    labels_N = np.repeat(RNG.permutation(np.arange(COUNT // 4) % 2), 4)
    assert set(check(labels_N, code=[f"c{n // 4}" for n in range(COUNT)])) == {"leaking_column"}
    assert check(labels_N, patients, code=[f"c{n // 4}" for n in range(COUNT)]) == {}


def test_a_rare_class_is_no_leak() -> None:
    assert check(np.arange(COUNT) % 20 // 19, noise=NOISE_N) == {}


IDENTIFIERS = {
    "code": [f"x{n:x}" for n in range(COUNT)],
    "numbers": [*range(1000, 1000 + COUNT)],
    "paths": [f"scans/{n % 50}/a b.dat" for n in range(COUNT)],
    "files": [f"{n % 50}.jpg" for n in range(COUNT)],
}


@pytest.mark.parametrize("name", IDENTIFIERS)
def test_columns_that_name_images(name: str) -> None:
    assert set(check(key=IDENTIFIERS[name])) == {"identifier_column"}


def test_missing_values() -> None:
    at_random_N = np.where(RNG.random(COUNT) < 0.2, "", NOISE_N.astype(str))
    found = check(weight=at_random_N)
    assert set(found) == {"missing_values"}
    assert found["missing_values"] == f"weight: {(at_random_N == '').sum()} of 200 values are missing " + (
        f"({(at_random_N == '').mean():.1%})"
    )
    by_class_N = np.where((LABELS_N == 1) & (RNG.random(COUNT) < 0.8), "", NOISE_N.astype(str))
    found = check(weight=by_class_N)
    assert set(found) == {"missing_by_class"}
    assert found["missing_by_class"].endswith(" of those of 'dog', 0.0% of 'cat'")


def test_what_a_training_refuses_is_told() -> None:
    found = check(weight=[*range(COUNT - 1), "heavy"])
    assert found == {
        "refused": "199.png: weight is 'heavy', which is no number: correct it, leave it empty, or train with "
        "--data.columns weight:category or :text"
    }


def test_many_images_are_judged_by_a_part() -> None:
    labels_N = np.arange(MAX_IMAGES * 2) // 2 % 2
    assert "of 5,000 images" in check(labels_N, leak=labels_N)["leaking_column"]


def test_few_images_are_not_judged() -> None:
    assert check(np.array([0, 1] * 3), leak=[0, 1] * 3) == {}
