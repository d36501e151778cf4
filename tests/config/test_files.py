"""Experiment files are plain data: text stays text, and no file can be more than it says."""

import pytest

from classifier.config.experiment import Experiment
from classifier.config.files import dump_experiment, dump_yaml, read_experiment, read_yaml
from classifier.errors import ConfigError


def test_numbers_with_exponents_are_numbers_and_names_like_them_are_text(tmp_path):
    file = tmp_path / "e.yaml"
    file.write_text("optimizer: {lr: 1e-3}\ndata: {path: '1e3'}\n")
    experiment = read_experiment(file)
    assert (experiment.optimizer.lr, experiment.data.path) == (1e-3, "1e3")
    file.write_text(dump_experiment(experiment))
    assert read_experiment(file) == experiment
    assert dump_yaml(["1e3", 1e3, "680841e1"]) == "- '1e3'\n- 1000.0\n- '680841e1'\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: &a [1]\nb: *a\n", "aliases"),
        ("&a [*a]", "aliases"),
        ("[" * 5000, "not valid YAML"),
        ("seed: " + "9" * 5000, "not valid YAML"),
        ("seed: 0x" + "f" * 9999, "too large a number"),
        ("seed: 2024-99-99", "not valid YAML"),
        ("seed: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("optimizer: {lr: .nan}", "finite number"),
        ("optimizer: {lr: [1]}", "must be a number"),
        ("x" * 1000 + ": 1", "unknown setting"),
        ("- 1", "must be a mapping"),
        (b"\xff\xfe\xfd", "not valid YAML"),
    ],
)
def test_file_that_is_no_experiment_is_refused_in_one_line(content, says, tmp_path):
    file = tmp_path / "e.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=says) as error:
        read_experiment(file)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none", "/dev/zero"):
        with pytest.raises(ConfigError, match=r"ordinary file|cannot be read"):
            read_yaml(path)


def test_default_experiment_is_read_back(tmp_path):
    (tmp_path / "e.yaml").write_text(dump_experiment(Experiment()))
    assert read_experiment(tmp_path / "e.yaml") == Experiment()
