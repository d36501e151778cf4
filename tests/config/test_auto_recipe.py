"""The recipe auto: facts in, an experiment out."""

import pytest

from classifier.config.auto_recipe import BACKBONE, Facts, choose_recipe
from classifier.config.experiment import Experiment

PROBE = {"model.name": BACKBONE, "model.weights": "imagenet", "model.probe": True, "train.epochs": 1}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Facts(images=172, classes=5, side=300), PROBE | {"data.size": 224, "data.batch": 16}),
        (Facts(images=13, classes=3, side=96), PROBE | {"data.size": 224, "data.batch": 4}),
        (Facts(images=1, classes=2, side=96), PROBE | {"data.batch": 1}),
        (Facts(images=100_000, classes=10, side=500), PROBE | {"data.size": 224}),
        (Facts(images=180, classes=10, side=28), PROBE | {"data.size": 192}),
        (Facts(images=999, classes=10, side=8), PROBE | {"data.size": 96}),
        (Facts(images=57_000, classes=10, side=28), {"model.name": "plain7_32", "data.batch": 256, "train.epochs": 5}),
        (Facts(images=6_100, classes=10, side=28), {"model.name": "plain7_32", "data.batch": 128, "train.epochs": 46}),
        (Facts(images=1_300, classes=10, side=8), {"model.name": "plain7_32", "data.batch": 32, "train.epochs": 100}),
        (Facts(images=50_000, classes=10, side=64), {"data.batch": 256, "train.epochs": 5, "augment.test_flip": True}),
        (Facts(images=50_000, classes=10, side=28, is_symbols=True), {"augment.test_flip": False}),
    ],
)
def test_facts_decide(facts: Facts, expected: dict):
    choice = choose_recipe(facts)
    assert {name: choice.experiment.get(name) for name in expected} == expected
    assert choice.experiment.data.path == Experiment().data.path, "names of paths decide nothing"
    assert f"{facts.images:,} images of {facts.classes} classes, {facts.side} pixels" in choice.reason
