"""Open settings are resolved once, from the data and the machine, and stay resolved."""

import pytest
import torch

from classifier import data
from classifier.config.experiment import Experiment
from classifier.errors import ConfigError
from classifier.training.resolve import resolve


@pytest.fixture(scope="module")
def digits():
    return data.load(Experiment().data)


def test_every_open_setting_is_resolved_once(digits):
    resolved = resolve(Experiment(), digits)
    assert (resolved.data.size, resolved.data.channels) == (8, 1)
    assert resolved.augment.policy == "symbols"
    assert None not in resolved.augment.__dict__.values()
    assert resolved.train.precision in ("fp32", "bf16")
    assert resolved.train.threads == torch.get_num_threads()
    assert resolve(resolved, digits) == resolved


def test_requested_settings_are_kept(digits):
    asked = {"augment.flip": 0.5, "train.threads": 7, "train.precision": "bf16"}
    resolved = resolve(Experiment().override_all(asked), digits)
    assert {name: resolved.get(name) for name in asked} == asked


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ({"amx_bf16": True, "avx512_bf16": True, "sse4a": False}, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": True, "sse4a": True}, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": True, "sse4a": False}, "fp32"),
        ({"sse4a": True}, "fp32"),
        ({}, "fp32"),
    ],
    ids=["AMX", "AMD with AVX512-BF16", "Intel without AMX", "older AMD", "unknown"],
)
def test_bf16_only_where_it_is_faster(digits, monkeypatch, flags, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    on_cpu = Experiment().override("train.device", "cpu")
    assert resolve(on_cpu, digits).train.precision == precision


def test_a_way_to_join_columns_needs_some(digits):
    with pytest.raises(ConfigError, match=r"model\.fusion trees joins columns to the images, and digits has none"):
        resolve(Experiment().override("model.fusion", "trees"), digits)


def test_missing_device_is_refused(digits):
    with pytest.raises(ConfigError, match=r"train\.device is 'cuda:99'"):
        resolve(Experiment().override("train.device", "cuda:99"), digits)
