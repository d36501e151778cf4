"""Settings that were good elsewhere: what they change of an experiment."""

from classifier.config.experiment import Experiment
from classifier.config.recipes import RECIPES, recipe
from classifier.models.catalogue import names
from classifier.search.portfolio import PORTFOLIO, portfolio_for


def test_every_entry_is_an_experiment():
    for entry in PORTFOLIO:
        changed = Experiment().override_all(entry)
        assert changed.model.name in names()
        assert all(changed.get(name) == value for name, value in entry.items())


def test_an_entry_changes_what_the_recipe_has_otherwise():
    for name in RECIPES:
        base = recipe(name)
        for changes in portfolio_for(base):
            assert changes
            assert all(base.get(setting) != value for setting, value in changes.items())
    (same, *_) = [entry for entry in PORTFOLIO if entry["optimizer.name"] == "sgd"]
    assert len(portfolio_for(Experiment().override_all(same))) == len(PORTFOLIO) - 1


def test_pretrained_weights_have_none():
    assert portfolio_for(Experiment().override("model.weights", "imagenet")) == []
