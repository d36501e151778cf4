import pytest

from classifier.config.experiment import Experiment
from classifier.errors import ConfigError
from classifier.search.space import Choice, Interval, conditions, default_space, grid, space_from, trimmed


def parse(*words: str, file=None):
    return space_from(words, file or {}, Experiment(), images=1000)


@pytest.mark.parametrize(
    ("word", "name", "values"),
    [
        ("optimizer.lr=1e-3..1:log", "optimizer.lr", Interval(1e-3, 1.0, log=True)),
        ("optimizer.momentum=0.8..0.95", "optimizer.momentum", Interval(0.8, 0.95)),
        ("data.batch=16..64", "data.batch", Interval(16, 64, whole=True)),
        ("model.name=cnn,resnet9_16", "model.name", Choice(("cnn", "resnet9_16"))),
        ("train.compile=true,false", "train.compile", Choice((True, False))),
        ("augment.mixup=0", "augment.mixup", Choice((0.0,))),
    ],
)
def test_a_word_is_a_range(word, name, values):
    assert parse(word) == {name: values}


def test_a_file_has_lists_and_ranges():
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
def test_a_bad_range_is_refused_by_name(word, says):
    with pytest.raises(ConfigError, match=says) as caught:
        parse(word)
    assert word.partition("=")[0] in str(caught.value)


@pytest.mark.parametrize("value", [[], {"low": 1}, {"low": 1, "high": 2, "step": 1}, 3, {"low": "a", "high": "b"}])
def test_a_bad_file_entry_is_refused(value):
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        parse(file={"optimizer.lr": value})


def test_the_default_space_holds_the_recipe_itself():
    experiment = Experiment()
    for name, values in default_space(experiment, images=1000).items():
        assert experiment.get(name) in values


def test_the_default_space_has_no_batch_larger_than_the_data():
    batches = default_space(Experiment().override("data.batch", 64), images=100)["data.batch"]
    assert batches == Choice((32, 64, 100))


def test_a_file_may_be_written_in_sections_and_by_dotted_name():
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
def test_a_space_comes_back_from_what_is_saved_of_it(file):
    space = parse(file=file)
    assert parse(file={name: values.plain() for name, values in space.items()}) == space


def test_a_setting_without_effect_is_left_out():
    file = {
        "model.name": ["cnn", "vit_tiny", "resnet18"],
        "model.dropout": {"low": 0.0, "high": 0.5, "when": {"model.name": ["vit_tiny"]}},
        "model.norm": ["batch", "group"],
        "model.stem": ["small", "original"],
        "loss.gamma": {"low": 0.5, "high": 3.0},
    }
    space, base = parse(file=file), Experiment()
    sample = {"model.dropout": 0.3, "model.norm": "group", "model.stem": "small", "loss.gamma": 1.0}
    assert trimmed(sample | {"model.name": "cnn"}, space, base) == {"model.name": "cnn", "model.norm": "group"}
    assert trimmed(sample | {"model.name": "vit_tiny"}, space, base) == {"model.name": "vit_tiny", "model.dropout": 0.3}
    assert trimmed(sample | {"model.name": "resnet18"}, space, base) == {
        "model.name": "resnet18",
        "model.stem": "small",
    }


def test_what_matters_in_some_trials_alone_is_said():
    said = conditions(parse(file={"loss.gamma": {"low": 0.5, "high": 3.0}, "optimizer.lr": [0.1]}))
    assert said == ["loss.gamma matters where loss.name is focal and is left out elsewhere"]


def test_a_sample_that_changes_nothing_is_the_recipe():
    base = Experiment()
    space = default_space(base, images=1000)
    assert trimmed({name: base.get(name) for name in space}, space, base) == {}


def test_a_grid_is_every_combination():
    rows = grid(parse("model.name=cnn,resnet9_16", "data.batch=16,32,64"))
    assert len(rows) == 6
    assert {"model.name": "cnn", "data.batch": 64} in rows
    with pytest.raises(ConfigError, match=r"lists of values: optimizer\.lr is a range"):
        grid(parse("optimizer.lr=0.1..1"))


def test_a_condition_on_no_setting_is_refused():
    with pytest.raises(ConfigError, match=r"model\.nam.*did you mean model\.name"):
        parse(file={"model.dropout": {"low": 0.0, "high": 0.5, "when": {"model.nam": "cnn"}}})


def test_what_cannot_change_while_training_is_refused_by_pbt():
    experiment = Experiment().override("search.scheduler", "pbt")
    assert set(default_space(experiment, 1000)) == {
        "optimizer.lr",
        "optimizer.weight_decay",
        "augment.strength",
        "loss.smoothing",
    }
    with pytest.raises(ConfigError, match=r"model\.name cannot be searched by search\.scheduler pbt"):
        space_from(("model.name=cnn,resnet9_16",), {}, experiment, 1000)
