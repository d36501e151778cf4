"""The recipe auto: facts in, an experiment out."""

import dataclasses
import math
from typing import Any

import pytest

from classifier.config.auto_recipe import Facts, choose_backbone, choose_recipe, list_better_backbones, list_candidates
from classifier.config.backbones import BETTER, INSTALLED, Backbone
from classifier.config.experiment import Experiment

PROBE = {"model.name": INSTALLED.name, "model.weights": "imagenet", "model.probe": True, "train.epochs": 1}
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
        (
            Facts(images=180, classes=10, side=28, probe_accuracy=0.8, scratch_gain=-0.01, scratch_gain_error=0.0),
            PROBE | {"data.size": 192},
        ),
        (
            Facts(images=180, classes=10, side=28, probe_accuracy=0.8, scratch_gain=0.075, scratch_gain_error=0.066),
            PROBE,
        ),
        (Facts(images=999, classes=10, side=8, probe_accuracy=0.99), PROBE | {"data.size": 96}),
        (
            Facts(**GLYPHS, probe_accuracy=0.76, scratch_gain=0.11, scratch_gain_error=0.02),
            SCRATCH | {"train.epochs": 150, "data.batch": 64},
        ),
        (Facts(**GLYPHS, probe_accuracy=0.9, scratch_gain=-0.03), PROBE),
        (
            Facts(images=300, classes=9, side=100, probe_accuracy=0.5, scratch_gain=0.2, scratch_gain_error=0.06),
            SCRATCH | {"data.size": 64},
        ),
        (Facts(images=554, classes=3, side=28, validation=51, imbalance=100), PROBE | {"loss.adjustment": 0.5}),
        (Facts(images=554, classes=3, side=28, validation=51, imbalance=5), PROBE | {"loss.adjustment": 0.0}),
        # As many epochs as the minutes hold.
        (Facts(images=57_000, classes=10, side=28), SCRATCH | {"data.batch": 256}),
        (Facts(images=57_000, classes=10, side=28, scratch_speed=3000), SCRATCH | {"train.epochs": 6}),
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
        (300, {"loss.adjustment": 1.0}, ("probe", "scratch")),
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


FEW = Facts(images=400, classes=10, side=28, unlabelled=20_000)
SEMI = SCRATCH | {"train.keep": "last", "train.epochs": 8, "data.batch": 64, "data.validation": 0}


@pytest.mark.parametrize(
    ("changes", "given", "expected"),
    [
        ({}, {}, SEMI),
        ({"images": 40}, {}, PROBE | FOLDS),
        ({"images": 40}, {"semi.method": "freematch"}, SEMI | {"data.batch": 32}),
        ({"images": 20_000, "validation": 1000}, {}, SEMI | {"data.batch": 64, "data.validation": 0.05}),
        ({"scratch_speed": 300.0}, {}, SEMI | {"train.epochs": 5}),
        ({"scratch_speed": 10.0}, {}, SEMI | {"train.epochs": 3}),
        ({"unlabelled": 500}, {}, PROBE | FOLDS),
        ({"unlabelled": 500, "images": 40}, {}, PROBE | FOLDS),
        ({"side": 300}, {}, PROBE | FOLDS),
        ({"side": 300, "validation": 200, "probe_accuracy": 0.8, "finetune_speed": 1000.0}, {}, PROBE),
        ({"side": 300}, {"semi.method": "freematch"}, {"model.weights": "imagenet", "augment.views": 0}),
    ],
)
def test_unlabelled_images_are_learned_from_in_steps_where_they_are_small_and_many(changes, given, expected):
    choice = choose_recipe(dataclasses.replace(FEW, **changes), given)
    settings = choice.experiment
    assert {name: settings.get(name) for name in expected} == expected
    assert " without labels, " in choice.reason


@pytest.mark.parametrize(("speed", "more"), [(300.0, "for about 8 epochs"), (10_000.0, "")])
def test_no_more_epochs_are_promised_than_unlabelled_images_get(speed: float, more: str):
    choice = choose_recipe(dataclasses.replace(FEW, scratch_speed=speed))
    assert choice.more.endswith(more)
    assert bool(choice.more) is bool(more)


def test_a_network_of_the_users_gets_a_recipe_for_any_network():
    facts = Facts(images=40, classes=2, side=100)
    experiment = choose_recipe(facts, {"model.name": "cnn"}).experiment
    assert (experiment.optimizer.name, experiment.data.batch, experiment.data.size) == ("adamw", 32, None)
    stream = choose_recipe(facts, {"data.stream": True}).experiment
    assert (stream.model.freeze, stream.views) == ("none", 0)


def test_more_time_is_worth_saying():
    many = Facts(images=57_000, classes=10, side=28, scratch_speed=3000)
    assert choose_recipe(many).more == "more time trains longer: --train.minutes 12 for about 24 epochs"
    assert choose_recipe(many, {"train.minutes": 12}).experiment.train.epochs == 26
    photos = Facts(images=5000, classes=9, side=300, validation=500, probe_accuracy=0.9, finetune_speed=30)
    assert choose_recipe(photos).more == "with more time the whole network is fine-tuned: --train.minutes 16"
    assert choose_recipe(photos, {"train.minutes": 16}).experiment.train.epochs == 5
    assert choose_recipe(Facts(images=172, classes=5, side=300)).more == ""


@pytest.mark.parametrize(
    ("images", "validation", "share"), [(172, 21, 0.333), (900, 100, 0.1), (9000, 1000, 0.1), (2, 0, 0.333)]
)
def test_a_search_holds_out_enough_images_to_tell_trials_apart(images, validation, share):
    facts = Facts(images=images, classes=2, side=224, validation=validation, probe_accuracy=0.9)
    base = choose_recipe(facts).base
    assert base.data.validation == share
    assert base.data.batch <= max(1, (1 - share) * (images + validation))


def test_the_simplest_backbone_within_one_standard_error_of_the_best_is_chosen():
    def probe(backbone: Backbone, accuracy: float | None) -> Facts:
        return Facts(images=200, classes=5, side=300, backbone=backbone, probe_accuracy=accuracy, probe_held_out=200)

    small, middle, large = INSTALLED, BETTER[0], BETTER[-1]
    for accuracies, chosen in [
        ((0.90,), small),
        ((0.90, 0.915), small),
        ((0.90, 0.93), middle),
        ((0.90, 0.93, 0.94), middle),
        ((0.90, 0.93, 0.96), large),
        ((0.90, 0.85, 0.80), small),
        ((0.99, None, 1.00), large),
    ]:
        probes = [probe(*pair) for pair in zip((small, middle, large), accuracies, strict=False)]
        assert choose_backbone(probes).backbone == chosen, accuracies


@pytest.mark.parametrize(
    ("accuracy", "images", "given", "count"),
    [
        (0.9, 200, {}, len(BETTER)),
        (0.98, 200, {}, 0),
        (None, 200, {}, 0),
        (0.9, 99, {}, 0),
        (0.9, 200, {"model.name": "resnet18", "model.weights": "imagenet"}, 0),
        (0.9, 200, {"data.size": 224}, len(BETTER)),
        (0.9, 200, {"data.size": 160}, sum(one.multiple == 32 for one in BETTER)),
    ],
)
def test_backbones_are_compared_where_there_is_room(accuracy, images: int, given: dict, count: int):
    facts = Facts(images=images, classes=5, side=300, probe_accuracy=accuracy)
    assert len(list_better_backbones(facts, given)) == count


def test_a_better_backbone_gets_sides_that_it_can_take_and_is_not_fine_tuned():
    for side in (8, 17, 20, 24, 300):
        facts = Facts(images=5000, classes=9, side=side, validation=500, probe_accuracy=0.9, finetune_speed=math.inf)
        for backbone in BETTER:
            experiment = choose_recipe(dataclasses.replace(facts, backbone=backbone)).experiment
            assert experiment.model.name == backbone.name
            assert experiment.data.size is not None
            assert experiment.data.size % backbone.multiple == 0
            assert 96 <= experiment.data.size <= 224
            assert experiment.train.epochs == 1
