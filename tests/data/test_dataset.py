"""The summary of a data set, and its splits."""

import json

import pytest

from classifier.config.sections import DataConfig
from classifier.data import load
from classifier.data.dataset import Dataset


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(DataConfig())


def test_summary_is_plain_data(digits: Dataset) -> None:
    summary = digits.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["name"] == "digits"
    assert summary["counts"] == {split: len(getattr(digits, split)) for split in ("train", "validation", "test")}
    assert summary["class_names"] == list("0123456789")
    assert (summary["size"], summary["channels"]) == (8, 1)
    assert len(summary["fingerprint"]) == 16
    assert json.loads(json.dumps(digits.split_record)) == digits.split_record


def test_splits_are_complete(digits: Dataset) -> None:
    ids = [id_ for split in ("train", "validation", "test") for id_ in getattr(digits, split).ids]
    assert sorted(ids) == sorted(f"digits/{n}" for n in range(1797))
    for split in (digits.train, digits.validation, digits.test):
        assert len(split) == len(split.images_NCHW) == len(split.labels_N) == len(split.ids)
        assert set(split.labels_N.tolist()) == set(range(10))
