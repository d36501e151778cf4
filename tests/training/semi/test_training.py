"""Training with unlabelled images: it helps, resumes exactly, and refuses what it cannot do."""

import dataclasses
import itertools

import pytest
import torch

from classifier import data
from classifier.config.experiment import Experiment
from classifier.data.dataset import Split
from classifier.data.subset import limit_training_images
from classifier.errors import ConfigError, RunError
from classifier.training.checkpoint import CheckpointStore
from classifier.training.loop import fit
from classifier.training.resolve import resolve

SETTINGS = {
    "model.name": "cnn",
    "train.epochs": 2,
    "train.precision": "fp32",
    "train.threads": 1,
    "data.batch": 10,
    "checkpoint.epochs": 1,
}


@pytest.fixture(scope="module")
def few():
    """Digits: 20 with labels, the others of the training without."""
    digits = data.load(Experiment().data)
    images_NCHW = digits.train.images_NCHW
    count = len(images_NCHW)
    unlabelled = Split(images_NCHW, torch.full((count,), -1), tuple(f"u{n}" for n in range(count)))
    labelled = limit_training_images(digits, 20, 0)
    return dataclasses.replace(labelled, unlabelled=unlabelled, unlabelled_fingerprint="0" * 16)


def plan(dataset, **changes):
    return resolve(Experiment().override_all(SETTINGS | {k.replace("__", "."): v for k, v in changes.items()}), dataset)


def stop_at(step: int):
    polls = itertools.count(1)
    return lambda: next(polls) >= step


def list_weights(dataset, **changes):
    """The parameters after each epoch, as vectors."""
    epochs = fit(plan(dataset, **changes), dataset)
    return [torch.cat([weight.detach().flatten() for weight in one.model.parameters()]) for one in epochs]


@pytest.mark.parametrize("method", ["softmatch", "freematch"])
@pytest.mark.parametrize("ema", [None, 0.95])
def test_a_resumed_training_equals_an_unbroken_one(few, tmp_path, method, ema):
    experiment = plan(few, semi__method=method, semi__start=0.6 if ema is None else 0.0, optimizer__ema=ema)
    unbroken = list(fit(experiment, few))
    store = CheckpointStore(tmp_path)
    for step in (7, 9):  # within the first epoch, and in the second
        list(fit(experiment, few, store=store, should_stop=stop_at(step)))
    resumed = list(fit(experiment, few, store=store))
    assert resumed[-1].row() | {"seconds": 0, "images_per_second": 0, "input_wait": 0} == unbroken[-1].row() | {
        "seconds": 0,
        "images_per_second": 0,
        "input_wait": 0,
    }
    expected, found = unbroken[-1].model.state_dict(), resumed[-1].model.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_an_epoch_passes_the_unlabelled_images_once(few):
    experiment = plan(few, train__epochs=1)
    (epoch,) = fit(experiment, few)
    assert epoch.step == -(-(-(-len(few.unlabelled) // (7 * 20)) * 20) // 10)


def test_the_labels_alone_come_first(few):
    """Until semi.start, and with the weight 0 to the end, unlabelled images change nothing."""
    without = list_weights(few, semi__weight=0.0)
    begun = list_weights(few, semi__start=0.5)
    assert torch.equal(without[0], begun[0])
    assert not torch.equal(without[-1], begun[-1])


def test_unlabelled_images_help(few):
    changes = {"train__epochs": 8, "semi__ratio": 7, "train__keep": "last", "optimizer__ema": 0.98}
    *_, with_ = fit(plan(few, **changes), few)
    alone = dataclasses.replace(few, unlabelled=None)
    *_, without = fit(plan(alone, **changes | {"train__epochs": 80}), alone)
    assert with_.validation is not None
    assert without.validation is not None
    assert with_.validation["accuracy"] > without.validation["accuracy"] + 0.02


def test_other_unlabelled_images_are_refused(few, tmp_path):
    experiment, store = plan(few), CheckpointStore(tmp_path)
    list(fit(experiment, few, store=store, should_stop=stop_at(3)))
    other = dataclasses.replace(few, unlabelled_fingerprint="1" * 16)
    with pytest.raises(RunError, match="other images than this training began with"):
        list(fit(experiment, other, store=store))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"workers.count": 2}, "set workers.count to 1"),
        ({"optimizer.accumulate": 2}, "set optimizer.accumulate to 1"),
        ({"loss.name": "bce"}, "leave loss.name bce out"),
    ],
)
def test_what_it_cannot_do_is_refused(few, changes, reason):
    with pytest.raises(ConfigError, match=reason):
        plan(few, **{name.replace(".", "__"): value for name, value in changes.items()})


@pytest.mark.parametrize("task", ["multilabel", "ordinal"])
def test_other_tasks_are_refused(few, task):
    with pytest.raises(ConfigError, match=f"one class an image, and data.task is {task}"):
        plan(dataclasses.replace(few, task=task))
