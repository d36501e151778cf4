"""What a trial changes, as its folder has it."""

import json

from jobs.search.trial_config import (
    TrialConfig,
    read_changes,
    read_trial_configs,
    remove_duplicates,
    trial_name,
    write_changes,
)


def test_equal_changes_are_one_trial():
    assert TrialConfig({"a": 1, "b": 2}, "x").name == trial_name({"b": 2, "a": 1})
    assert TrialConfig({"a": 1}, "x").name != trial_name({"a": 2})
    first, second = TrialConfig({"a": 1}, "x"), TrialConfig({"a": 2}, "x")
    assert remove_duplicates([first, second, TrialConfig({"a": 1}, "y")]) == [first, second]


def test_configurations_are_read_in_the_order_in_which_trials_were_started(tmp_path):
    configs = [TrialConfig({"seed": i}, "drawn", {"seed": i}, number=i) for i in range(5)]
    for config in reversed(configs):
        config.write(tmp_path)
    assert read_trial_configs(tmp_path) == configs


def test_changes_are_read_from_the_file_that_a_trial_has(tmp_path):
    member, earlier = tmp_path / "member", tmp_path / "earlier"
    for folder in (member, earlier):
        folder.mkdir()
    assert read_changes(member) is None
    write_changes(member, {"optimizer.lr": 0.1})
    assert read_changes(member) == {"optimizer.lr": 0.1}
    config = TrialConfig({"optimizer.lr": 0.2}, "drawn")
    config.write(tmp_path)
    assert read_changes(tmp_path / config.name) == config.changes
    # Versions before this one wrote both.
    write_changes(tmp_path / config.name, config.changes)
    assert read_changes(tmp_path / config.name) == config.changes
    document = json.loads((tmp_path / config.name / "sample.json").read_text())
    assert document == {"number": 0, "source": "drawn", "changes": {"optimizer.lr": 0.2}, "drawn": None}
