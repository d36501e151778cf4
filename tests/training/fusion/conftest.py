"""Digits with columns, of which the label depends on both: whether the digit is even, or the opposite by a column."""

import dataclasses

import pytest
import torch

from classifier import data
from classifier.config.experiment import Experiment
from classifier.data.columns.column import Column
from classifier.data.columns.schema import ColumnSchema
from classifier.data.dataset import Dataset, Split
from classifier.training.fusion import fit_mlp, grow_trees

COLUMNS = ColumnSchema(tuple(Column(name=name, kind="number", width=1) for name in ("flip", "noise")))


@pytest.fixture(autouse=True)
def _few_trees_and_steps(monkeypatch):
    monkeypatch.setattr(grow_trees, "FOREST_TREES", 30)
    monkeypatch.setattr(fit_mlp, "STEPS", (0, 30))


def add_columns(split: Split, seed: int) -> Split:
    """Label = parity of the digit XOR a column; a second column is noise."""
    draw = torch.Generator().manual_seed(seed)
    flip_N = torch.randint(0, 2, (len(split),), generator=draw)
    noise_N = torch.randn(len(split), generator=draw)
    columns_NF = torch.stack([torch.ones(len(split)), 2.0 * flip_N - 1, noise_N], 1)
    return dataclasses.replace(split, labels_N=(split.labels_N % 2) ^ flip_N, columns_NF=columns_NF)


@pytest.fixture(scope="package")
def xor_digits() -> Dataset:
    """Images alone say nothing of the label, and columns alone neither."""
    digits = data.load(Experiment().data)
    splits = {name: add_columns(getattr(digits, name), seed) for seed, name in enumerate(digits.counts)}
    return dataclasses.replace(digits, class_names=("even", "odd"), columns=COLUMNS, **splits)
