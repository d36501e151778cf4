import pytest

from classifier.config import Experiment
from classifier.errors import ConfigError
from classifier.space import Choice, Interval, default_space, space_from


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
