import pytest

from classifier.config.experiment import Experiment
from classifier.config.recipes import recipe
from classifier.errors import ConfigError
from classifier.search.space import (
    Choice,
    Interval,
    default_space,
    describe_conditions,
    effective_changes,
    expand_grid,
    parse_space,
)


def parse(*words: str, file=None):
    return parse_space(words, file or {}, Experiment(), images=1000)


@pytest.mark.parametrize(
    ("word", "name", "values"),
    [
        ("optimizer.lr=1e-3..1:log", "optimizer.lr", Interval(1e-3, 1.0, log=True)),
        ("optimizer.momentum=0.8..0.95", "optimizer.momentum", Interval(0.8, 0.95)),
        ("data.batch=16..64", "data.batch", Interval(16, 64, is_integer=True)),
        ("model.name=cnn,resnet9_16", "model.name", Choice(("cnn", "resnet9_16"))),
        ("train.compile=true,false", "train.compile", Choice((True, False))),
        ("augment.mixup=0", "augment.mixup", Choice((0.0,))),
    ],
)
def test_word_is_parsed_as_range_or_choice(word, name, values):
    assert parse(word) == {name: values}


def test_file_has_lists_and_ranges():
    file = {"optimizer.lr": {"low": 1e-3, "high": 1, "log": True}, "model.name": ["cnn"]}
    assert parse(file=file) == {"optimizer.lr": Interval(1e-3, 1, log=True), "model.name": Choice(("cnn",))}


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("optimizer.lrr=1..2", "did you mean optimizer.lr"),
        ("optimizer.lr=1..0.1", "empty"),
        ("optimizer.lr=0..1:log", "above 0"),
        ("optimizer.lr=0..1", "above 0"),
        ("optimizer.lr=a..1", "from a number"),
        ("optimizer.lr", "LOW..HIGH"),
        ("optimizer.lr=", "LOW..HIGH"),
        ("optimizer.name=sgd,adm", "one of sgd"),
        ("augment.flip=0..2", "at most 1"),
        ("data.batch=16..64.5", "from a number"),
        ("data.path=a,b", "cannot be searched"),
        ("train.epochs=1..5", "cannot be searched"),
    ],
)
def test_bad_range_is_refused_by_name(word, says):
    with pytest.raises(ConfigError, match=says) as caught:
        parse(word)
    assert word.partition("=")[0] in str(caught.value)


WRONG = ([], {"low": 1}, {"low": 1, "high": 2, "step": 1}, 3, {"low": "a", "high": "b"}, [[1]], [{}], [None], "a", None)


@pytest.mark.parametrize("value", WRONG)
def test_bad_file_entry_is_refused(value):
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        parse(file={"optimizer.lr": value})


@pytest.mark.parametrize("value", ["x", 1, None, [1], True])
def test_section_that_is_no_mapping_is_refused(value):
    with pytest.raises(ConfigError, match="optimizer"):
        parse(file={"optimizer": value})


def test_default_space_contains_the_recipe():
    experiment = Experiment()
    for name, values in default_space(experiment, images=1000).items():
        assert experiment.get(name) in values


def test_pretrained_weights_that_are_trained_are_searched_by_how(monkeypatch):
    installed = ("timm/tf_efficientnet_lite0", "timm/tf_efficientnet_lite1")
    monkeypatch.setattr("classifier.search.space.list_installed", lambda: installed)
    head = recipe("finetune").override("model.name", installed[1])
    whole = head.override("model.freeze", "statistics")
    how = {"model.freeze", "optimizer.layer_decay"}
    assert default_space(head, 1000)["model.name"] == Choice(installed[::-1])
    assert not how & set(default_space(head, 1000))
    assert how < set(default_space(whole, 1000))
    assert "model.name" not in default_space(head.override("model.weights", "own.pth"), 1000)
    file = {name: values.to_plain() for name, values in default_space(whole, 1000).items()}
    assert parse_space((), file, whole, 1000) == default_space(whole, 1000)


def test_default_space_has_no_batch_larger_than_the_data():
    batches = default_space(Experiment().override("data.batch", 64), images=100)["data.batch"]
    assert batches == Choice((32, 64, 100))


def test_file_may_use_sections_or_dotted_names():
    assert parse(file={"optimizer": {"name": ["sgd", "adamw"]}}) == parse("optimizer.name=sgd,adamw")
    assert parse(file={"optimizer.name": ["sgd", "adamw"]}) == parse("optimizer.name=sgd,adamw")


@pytest.mark.parametrize(
    "file",
    [
        {"optimizer.lr": {"low": 0.001, "high": 1, "log": True}, "data.batch": {"low": 8, "high": 64}},
        {"model.dropout": {"low": 0.0, "high": 0.5, "when": {"model.name": ["vit_tiny"]}}},
        {"model.norm": {"values": ["batch", "group"], "when": {"model.name": "cnn"}}, "loss.name": ["focal"]},
    ],
)
def test_space_survives_saving_and_parsing(file):
    space = parse(file=file)
    assert parse(file={name: values.to_plain() for name, values in space.items()}) == space


def test_settings_without_effect_are_dropped():
    file = {
        "model.name": ["cnn", "vit_tiny", "resnet18"],
        "model.dropout": {"low": 0.0, "high": 0.5, "when": {"model.name": ["vit_tiny"]}},
        "model.norm": ["batch", "group"],
        "model.stem": ["small", "original"],
        "loss.gamma": {"low": 0.5, "high": 3.0},
    }
    space, base = parse(file=file), Experiment()
    sample = {"model.dropout": 0.3, "model.norm": "group", "model.stem": "small", "loss.gamma": 1.0}
    assert effective_changes(sample | {"model.name": "cnn"}, space, base) == {
        "model.name": "cnn",
        "model.norm": "group",
    }
    assert effective_changes(sample | {"model.name": "vit_tiny"}, space, base) == {
        "model.name": "vit_tiny",
        "model.dropout": 0.3,
    }
    assert effective_changes(sample | {"model.name": "resnet18"}, space, base) == {
        "model.name": "resnet18",
        "model.stem": "small",
    }


def test_settings_with_an_effect_in_some_trials_only_are_described():
    sentences = describe_conditions(parse(file={"loss.gamma": {"low": 0.5, "high": 3.0}, "optimizer.lr": [0.1]}))
    assert sentences == ["loss.gamma has an effect only if loss.name is focal"]


def test_sample_equal_to_the_recipe_changes_nothing():
    base = Experiment()
    space = default_space(base, images=1000)
    assert effective_changes({name: base.get(name) for name in space}, space, base) == {}


def test_grid_is_every_combination():
    rows = expand_grid(parse("model.name=cnn,resnet9_16", "data.batch=16,32,64"))
    assert len(rows) == 6
    assert {"model.name": "cnn", "data.batch": 64} in rows
    with pytest.raises(ConfigError, match=r"lists of values: optimizer\.lr is a range"):
        expand_grid(parse("optimizer.lr=0.1..1"))


def test_condition_on_an_unknown_setting_is_refused():
    with pytest.raises(ConfigError, match=r"model\.nam.*did you mean model\.name"):
        parse(file={"model.dropout": {"low": 0.0, "high": 0.5, "when": {"model.nam": "cnn"}}})


def test_pbt_refuses_settings_that_cannot_change_during_training():
    experiment = Experiment().override("search.scheduler", "pbt")
    assert set(default_space(experiment, 1000)) == {
        "optimizer.lr",
        "optimizer.weight_decay",
        "augment.strength",
        "loss.smoothing",
    }
    with pytest.raises(ConfigError, match=r"model\.name cannot be searched by search\.scheduler pbt"):
        parse_space(("model.name=cnn,resnet9_16",), {}, experiment, 1000)
