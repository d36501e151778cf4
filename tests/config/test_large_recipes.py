"""Recipes for large sets: each starts and learns, on small images of few classes."""

from pathlib import Path

import pytest

from classifier import data
from classifier.config.large_recipes import LARGE_RECIPES
from classifier.data import loader
from classifier.runtime.distributed import ProcessGroup
from classifier.training.resolve import resolve
from classifier.training.state import TrainState

# What is installed, for the recipe of a pretrained network.
INSTALLED = {"finetune-whole": {"model.name": "timm/tf_efficientnet_lite0"}}
SMALL = {"data.size": 64, "data.batch": 4, "data.cache": None, "optimizer.accumulate": 2, "train.threads": 1}


@pytest.mark.parametrize("name", LARGE_RECIPES)
def test_each_recipe_takes_a_step_of_each_size(name: str, photos: Path) -> None:
    changes = SMALL | INSTALLED.get(name, {}) | {"data.path": str(photos), "data.validation": 0.1}
    requested = LARGE_RECIPES[name]().override_all(changes)
    dataset = data.load(requested.data)
    experiment = resolve(requested, dataset)
    assert experiment.data.validation == 0.1
    state = TrainState(experiment, dataset, ProcessGroup())
    batches = loader.batches(dataset.train, batch=state.batch, seed=0, epoch=0)
    for epoch in (0, experiment.train.epochs - 1):
        state.begin_epoch(epoch)
        before = {key: value.clone() for key, value in state.model.named_parameters()}
        state.train_step(next(batches), epoch)
        assert state.sums.isfinite().all()
        assert state.sums[3] == -1  # no step had a loss that is not finite
    assert any(not value.equal(before[key]) for key, value in state.model.named_parameters())
