"""Portfolio entries are valid, and list only what they change in an experiment."""

import pytest

from classifier.config.auto_recipe import Facts, build_finetune, build_probe
from classifier.config.experiment import Experiment
from classifier.config.recipes import RECIPES, recipe
from classifier.models.catalogue import names
from classifier.search.portfolio import FROM_SCRATCH, PRETRAINED, PROBE, portfolio_for, trains_backbone


def test_every_entry_is_a_valid_experiment():
    for entry in FROM_SCRATCH + PRETRAINED:
        changed = Experiment().override_all(entry)
        assert changed.model.name in names()
        assert all(changed.get(name) == value for name, value in entry.items())


def test_entries_list_only_what_differs_from_the_recipe():
    for name in RECIPES:
        base = recipe(name)
        for changes in portfolio_for(base):
            assert changes
            assert all(base.get(setting) != value for setting, value in changes.items())
    (same, *_) = [entry for entry in FROM_SCRATCH if entry["optimizer.name"] == "sgd"]
    assert len(portfolio_for(Experiment().override_all(same))) == len(FROM_SCRATCH) - 1


@pytest.mark.parametrize(
    ("changes", "has_probe", "has_whole"),
    [
        ({}, True, False),  # without minutes nothing bounds what the whole network takes
        ({"search.minutes": 3.0}, True, True),
        ({"model.freeze": "none"}, True, True),
        ({"augment.views": 0, "augment.mixup": 0.2}, True, False),
        ({"data.stream": True, "search.minutes": 3.0}, False, False),
    ],
)
def test_with_pretrained_weights_the_probe_comes_first_and_the_whole_network_last(changes, has_probe, has_whole):
    base = recipe("finetune").override_all(changes)
    tried = [base.override_all(entry) for entry in portfolio_for(base)]
    assert [one.takes_steps for one in tried[:1]] == [False] * has_probe
    assert all(one.takes_steps and one.model.name == base.model.name for one in tried[1:])
    assert all(base.views or not one.views for one in tried)
    frozen = [not trains_backbone(one) for one in tried]
    assert frozen.count(False) >= has_whole
    if not trains_backbone(base):
        assert frozen == sorted(frozen, reverse=True)
        assert all(frozen) is not has_whole


def test_the_probe_of_a_search_is_what_a_training_does_without_flags():
    facts = Facts(images=172, classes=5, side=224)
    assert build_finetune(facts).override_all(PROBE).model == build_probe(facts).model
    assert not build_finetune(facts).override_all(PROBE).takes_steps
    assert not build_probe(facts).takes_steps
