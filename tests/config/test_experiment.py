import dataclasses

import pytest

from classifier.config.experiment import Experiment, flatten, setting_names
from classifier.errors import ConfigError


def test_every_setting_can_be_read_and_overridden_by_its_dotted_name():
    experiment = Experiment()
    for name in setting_names():
        assert experiment.override(name, experiment.get(name)) == experiment


def test_every_setting_has_a_help_text():
    import inspect

    from classifier.config import sections

    source = inspect.getsource(sections)
    for name, value in vars(sections).items():
        if dataclasses.is_dataclass(value) and name.endswith("Config"):
            body = source.split(f"class {name}(")[1].split("\n@dataclass")[0]
            fields = [f.name for f in dataclasses.fields(value)]
            assert body.count('"""') == 2 * len(fields), name


def test_round_trip_through_plain_data():
    experiment = Experiment().override("search.vary", ["a", "b"]).override("optimizer.lr", 0.3)
    assert Experiment.from_dict(experiment.as_dict()) == experiment
    assert Experiment.from_dict({"optimizer.lr": 0.3, "search": {"vary": ["a", "b"]}}) == experiment


def test_from_dict_starts_from_its_base():
    base = Experiment().override("seed", 7)
    assert Experiment.from_dict({"optimizer": {"lr": 1}}, base) == base.override("optimizer.lr", 1.0)


def test_digest_changes_with_every_setting():
    plain = Experiment()
    digests = {plain.digest(), plain.override("seed", 1).digest(), plain.override("data.batch", 65).digest()}
    assert len(digests) == 3
    assert plain.digest() == Experiment().digest()


def test_digest_of_changes_equals_that_of_the_changed_experiment():
    changes = {"seed": 1, "optimizer.lr": 1, "search.vary": ["a", "b"], "data.size": None}
    assert Experiment().digest(changes) == Experiment().override_all(changes).digest() != Experiment().digest()
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        Experiment().digest({"optimizer.lr": 0})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("optimizer.lrr", 1, "optimizer.lr"),
        ("lr", 1, "optimizer.lr"),
        ("optimizer.lr", 0, "above 0"),
        ("optimizer.lr", float("nan"), "finite"),
        ("optimizer.lr", float("inf"), "finite"),
        ("optimizer.lr", "0.1", "a number"),
        ("data.batch", 1.5, "whole number"),
        ("data.batch", True, "whole number"),
        ("data.validation", 1.1, "at most 1"),
        ("train.compile", 1, "true or false"),
        ("optimizer.name", "sdg", "did you mean sgd"),
        ("data.channels", 2, "one of 1, 3"),
        ("data.size", 1, "at least 4"),
        ("search.vary", "a", "list"),
    ],
)
def test_wrong_names_and_values_raise_config_error(name, value, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Experiment().override(name, value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("train.compile", "true", True),
        ("train.compile", "False", False),
        ("data.size", "none", None),
        ("data.size", "28", 28),
        ("data.channels", "3", 3),
        ("optimizer.lr", "1e-3", 1e-3),
        ("model.name", "cnn", "cnn"),
    ],
)
def test_text_is_parsed_by_the_type_of_its_setting(name, text, value):
    assert Experiment().override_text(name, text).get(name) == value


@pytest.mark.parametrize(("name", "text"), [("train.compile", "yes"), ("data.batch", "x"), ("optimizer.lr", "nan")])
def test_wrong_text_raises_config_error(name, text):
    with pytest.raises(ConfigError, match=name):
        Experiment().override_text(name, text)


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Experiment().data.batch = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_flatten_rejects_anything_but_a_mapping():
    with pytest.raises(ConfigError, match="mapping"):
        flatten([1])  # pyright: ignore[reportArgumentType]
