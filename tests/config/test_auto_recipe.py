"""The recipe auto: facts in, an experiment out."""

import math
from typing import Any

import pytest

from classifier.config.auto_recipe import BACKBONE, Facts, choose_recipe, list_candidates
from classifier.config.experiment import Experiment

PROBE = {"model.name": BACKBONE, "model.weights": "imagenet", "model.probe": True, "train.epochs": 1}
FOLDS = {"data.validation": 0, "train.keep": "last"}
SCRATCH = {"model.name": "plain7_32", "model.weights": None}
LONG = {"train.epochs": 150, "data.batch": 64}
# 1,500 letters of 100 classes.
GLYPHS: dict[str, Any] = {"images": 1452, "classes": 100, "side": 32, "validation": 129}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            Facts(images=172, classes=5, side=300),
            PROBE | {"data.size": 224, "data.batch": 16, "data.validation": 0, "train.keep": "last"},
        ),
        (Facts(images=13, classes=3, side=96), PROBE | {"data.size": 224, "data.batch": 4}),
        (Facts(images=1, classes=2, side=96), PROBE | {"data.batch": 1}),
        (Facts(images=100_000, classes=10, side=500), PROBE | {"data.size": 224}),
        (Facts(images=180, classes=10, side=28, probe_accuracy=0.8, scratch_accuracy=0.79), PROBE | {"data.size": 192}),
        (Facts(images=180, classes=10, side=28, probe_accuracy=0.8, scratch_accuracy=0.83, held_out=72), PROBE),
        (Facts(images=999, classes=10, side=8, probe_accuracy=0.99), PROBE | {"data.size": 96}),
        (
            Facts(**GLYPHS, probe_accuracy=0.76, scratch_accuracy=0.87, held_out=290),
            SCRATCH | {"train.epochs": 150, "data.batch": 64},
        ),
        (Facts(**GLYPHS, probe_accuracy=0.9, scratch_accuracy=0.87), PROBE),
        (
            Facts(images=300, classes=9, side=100, probe_accuracy=0.5, scratch_accuracy=0.7, held_out=60),
            SCRATCH | {"data.size": 64},
        ),
        # As many epochs as the minutes hold.
        (Facts(images=57_000, classes=10, side=28), SCRATCH | {"data.batch": 256}),
        (Facts(images=57_000, classes=10, side=28, scratch_speed=3000), SCRATCH | {"train.epochs": 5}),
        (Facts(images=57_000, classes=10, side=28, scratch_speed=30), SCRATCH | {"train.epochs": 3}),
        (Facts(images=50_000, classes=10, side=64), {"augment.test_flip": True}),
        (
            Facts(images=50_000, classes=10, side=28, is_symbols=True),
            {"augment.test_flip": False, "augment.policy": "symbols"},
        ),
        # Fine-tuning, where the probe leaves room, enough images tell, and there is time.
        (
            Facts(images=5000, classes=9, side=300, validation=500, probe_accuracy=0.9, finetune_speed=math.inf),
            {"model.probe": True, "model.freeze": "statistics", "train.epochs": 11, "train.keep": "best"},
        ),
        (
            Facts(images=5000, classes=9, side=300, validation=500, probe_accuracy=0.9, finetune_speed=30),
            PROBE | {"data.validation": 0.1},
        ),
        (Facts(images=500, classes=9, side=300, validation=50, probe_accuracy=0.9, finetune_speed=2000), PROBE),
        (Facts(images=5000, classes=9, side=300, validation=500, probe_accuracy=0.98, finetune_speed=2000), PROBE),
    ],
)
def test_facts_decide(facts: Facts, expected: dict):
    choice = choose_recipe(facts)
    assert {name: choice.experiment.get(name) for name in expected} == expected
    assert choice.experiment.data.path == Experiment().data.path, "names of paths decide nothing"
    assert choice.base.model.name == choice.experiment.model.name
    assert not choice.base.model.probe, "a search needs steps"
    assert f"{facts.images:,} images of {facts.classes} classes, {facts.side} pixels" in choice.reason


@pytest.mark.parametrize(
    ("side", "given", "kinds"),
    [
        (300, {}, ("probe", "scratch")),
        (28, {}, ("probe", "scratch")),
        (300, {"train.minutes": 5.0, "data.only": ("cat", "dog"), "seed": 3}, ("probe", "scratch")),
        (300, {"model.name": "cnn"}, ("scratch",)),
        (300, {"model.name": "resnet18", "model.weights": "imagenet"}, ("probe",)),
        (300, {"model.weights": "lite0.pth"}, ("probe",)),
        (300, {"model.weights": None}, ("scratch",)),
        # Without effect on a probe, or impossible with one.
        (300, {"optimizer.lr": 0.1}, ("finetune",)),
        (300, {"train.epochs": 5}, ("finetune",)),
        (300, {"data.stream": True}, ("finetune",)),
        (28, {"augment.rotate": 5.0}, ("scratch",)),
        (28, {"augment.rotate": 5.0, "model.weights": "lite0.pth"}, ("finetune",)),
    ],
)
def test_what_the_user_set_decides_what_is_left(side: int, given: dict, kinds: tuple[str, ...]):
    assert list_candidates(Facts(images=500, classes=3, side=side), given) == kinds
    assert choose_recipe(Facts(images=500, classes=3, side=side), given).kind == kinds[0]


def test_a_network_of_the_users_gets_a_recipe_for_any_network():
    facts = Facts(images=40, classes=2, side=100)
    experiment = choose_recipe(facts, {"model.name": "cnn"}).experiment
    assert (experiment.optimizer.name, experiment.data.batch, experiment.data.size) == ("adamw", 32, None)
    stream = choose_recipe(facts, {"data.stream": True}).experiment
    assert (stream.model.freeze, stream.views) == ("none", 0)


def test_more_time_is_worth_saying():
    many = Facts(images=57_000, classes=10, side=28, scratch_speed=3000)
    assert choose_recipe(many).more == "more time trains longer: --train.minutes 12 for about 20 epochs"
    assert choose_recipe(many, {"train.minutes": 12}).experiment.train.epochs == 22
    photos = Facts(images=5000, classes=9, side=300, validation=500, probe_accuracy=0.9, finetune_speed=30)
    assert choose_recipe(photos).more == "with more time the whole network is fine-tuned: --train.minutes 19"
    assert choose_recipe(photos, {"train.minutes": 19}).experiment.train.epochs == 5
    assert choose_recipe(Facts(images=172, classes=5, side=300)).more == ""


@pytest.mark.parametrize(
    ("images", "validation", "share"), [(172, 21, 0.333), (900, 100, 0.1), (9000, 1000, 0.1), (2, 0, 0.333)]
)
def test_a_search_holds_out_enough_images_to_tell_trials_apart(images, validation, share):
    facts = Facts(images=images, classes=2, side=224, validation=validation, probe_accuracy=0.9)
    base = choose_recipe(facts).base
    assert base.data.validation == share
    assert base.data.batch <= max(1, (1 - share) * (images + validation))
