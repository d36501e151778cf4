"""A pruned model is rebuilt from plain data, and loads and predicts the same."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from classifier import models
from classifier.bundle import bundle as bundles
from classifier.compress.prune import prune, prune_to_speed
from classifier.config.sections import ModelConfig
from classifier.errors import ModelError

SHAPE: dict[str, Any] = {"classes": 3, "channels": 3, "size": 32}


def build(name: str, shape: dict[str, Any] = SHAPE, **settings) -> tuple[nn.Module, ModelConfig]:
    config = ModelConfig(name=name, **settings)
    model = models.build(config, **shape, weights=False)
    for module in models.head_modules(model).values():
        nn.init.normal_(next(module.parameters()))
    return model.eval(), config


@pytest.mark.parametrize(
    ("name", "task"),
    [
        *((name, "multiclass") for name in ("cnn", "plain7_32", "resnet9_16", "resnet18", "mobilenet_v3_small")),
        *((name, "ordinal") for name in ("cnn", "resnet18")),
    ],
)
def test_a_pruned_network_is_rebuilt_from_its_widths(name, task):
    shape = SHAPE | {"task": task}
    model, config = build(name, shape)
    pruned = prune(model, config, ratio=0.5, **shape)
    assert models.count_parameters(pruned.model) < 0.6 * models.count_parameters(model)
    again = models.build(pruned.config, **shape, weights=False).eval()
    again.load_state_dict(pruned.weights)
    images_NCHW = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(images_NCHW), pruned.model(images_NCHW))


def test_a_pruned_bundle_loads_and_predicts_the_same(trained, tmp_path):
    bundle, model = trained.loaded
    config = ModelConfig(**bundle.model)
    pruned = prune(model, config, classes=3, channels=3, size=bundle.size, ratio=0.5)
    settings = dataclasses.asdict(pruned.config)
    bundles.save(dataclasses.replace(bundle, model=settings), pruned.model, tmp_path / "bundle")
    loaded = bundles.load(tmp_path / "bundle")
    images_NCHW = trained.dataset.validation.images_NCHW[:8]
    scorer = dataclasses.replace(loaded.scorer(), precision="fp32")
    expected_NK = scorer.predict_probabilities(pruned.model, images_NCHW)
    assert torch.allclose(scorer.predict_probabilities(loaded.model, images_NCHW), expected_NK, atol=1e-6)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("features.0.0", "no such layer"),
        ("head.other=4x4", "no such layer"),
        ("features.0.0=99x3", "fewer fit"),
        ("features.0.0=0x3", "fewer fit"),
        ("features.0.0=8", "fewer fit"),
        ("features.0.0=8x3", "does not accept"),
    ],
)
def test_wrong_widths_are_refused(entry, words):
    with pytest.raises(ModelError, match=words):
        models.build(ModelConfig(name="resnet9_16", widths=(entry,)), **SHAPE, weights=False)


def test_what_cannot_be_pruned_is_refused():
    model, config = build("vit_tiny")
    with pytest.raises(ModelError, match="cannot be pruned"):
        prune(model, config, ratio=0.5, **SHAPE)


def test_the_goal_is_a_speed():
    model, config = build("resnet9_16")

    def measure(pruned: nn.Module) -> float:
        return models.count_parameters(model) / models.count_parameters(pruned)

    found = prune_to_speed(lambda ratio: prune(model, config, ratio=ratio, **SHAPE), measure, 2)
    assert 2 <= measure(found.model) < 3
    with pytest.raises(ModelError, match="times as fast"):
        prune_to_speed(lambda ratio: prune(model, config, ratio=ratio, **SHAPE), measure, 1e6)
