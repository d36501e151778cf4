"""What a plan leaves out: settings of the portfolio that the minutes do not hold."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.recipes import recipe
from classifier.profiling.step_time import StepTime
from classifier.search.portfolio import portfolio_for, trains_backbone
from jobs.search.plan import _keep_fast_entries


@pytest.mark.parametrize(
    ("step_seconds", "changes", "measured", "has_whole"),
    [
        (0.01, {}, 1, True),
        (9.0, {}, 1, False),
        (9.0, {"model.freeze": "statistics"}, 0, True),  # the recipe itself takes as long
    ],
)
def test_the_whole_network_is_tried_where_the_minutes_hold_it(step_seconds, changes, measured, has_whole):
    dataset, calls = data.load(Experiment().data), []

    def call(function, experiment, **_):
        calls.append(experiment)
        return StepTime(step_seconds)

    base = recipe("finetune").override_all({"search.minutes": 3.0, "search.final": False} | changes)
    node = SimpleNamespace(dataset=dataset, call=call)
    entries = portfolio_for(base)
    kept, notes = _keep_fast_entries(base, cast(Any, node), StepTime(0.001), entries, lambda name: None)
    assert len(calls) == measured
    assert all(trains_backbone(one) and not one.model.probe for one in calls)
    frozen = [entry for entry in entries if not trains_backbone(base.override_all(entry))]
    assert kept == (entries if has_whole else frozen)
    assert len(notes) == len(entries) - len(kept)
    assert all("is left out: one trial would take about" in note for note in notes)
