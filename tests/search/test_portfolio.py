"""Portfolio entries are valid, and list only what they change in an experiment."""

from classifier.config.experiment import Experiment
from classifier.config.recipes import RECIPES, recipe
from classifier.models.catalogue import names
from classifier.search.portfolio import PORTFOLIO, portfolio_for


def test_every_entry_is_a_valid_experiment():
    for entry in PORTFOLIO:
        changed = Experiment().override_all(entry)
        assert changed.model.name in names()
        assert all(changed.get(name) == value for name, value in entry.items())


def test_entries_list_only_what_differs_from_the_recipe():
    for name in RECIPES:
        base = recipe(name)
        for changes in portfolio_for(base):
            assert changes
            assert all(base.get(setting) != value for setting, value in changes.items())
    (same, *_) = [entry for entry in PORTFOLIO if entry["optimizer.name"] == "sgd"]
    assert len(portfolio_for(Experiment().override_all(same))) == len(PORTFOLIO) - 1


def test_no_entries_with_pretrained_weights():
    assert portfolio_for(Experiment().override("model.weights", "imagenet")) == []
