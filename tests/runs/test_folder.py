import json
import os
import subprocess
import sys

import pytest

from classifier.config.experiment import Experiment
from classifier.config.files import dump_experiment, read_experiment
from classifier.errors import ConfigError, RunError
from classifier.runs.folder import Run, read_result


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path, "a")
    yield run
    run.close()


def test_an_existing_name_is_refused_with_the_mend(tmp_path):
    Run.create(tmp_path, "a").close()
    with pytest.raises(RunError, match=r"a already exists.*--resume"):
        Run.create(tmp_path, "a")


@pytest.mark.parametrize("name", ["../a", "", ".hidden", "a/b", "a b"])
def test_a_name_stays_inside_out(tmp_path, name):
    with pytest.raises(RunError, match="name"):
        Run.create(tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


def test_an_unwritable_out_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be created.*--out"):
        Run.create(tmp_path / "file", "a")


def test_a_second_owner_is_refused_while_the_first_lives(tmp_path):
    run = Run.create(tmp_path, "a")
    run.write_experiment(Experiment())
    code = f"""
from classifier.runs.folder import Run
from classifier.errors import RunError
try:
    Run.resume({str(run.folder)!r})
except RunError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"in use by process {os.getpid()}" in said
    run.close()
    Run.resume(run.folder).close()


def test_resume_wants_a_run_folder(tmp_path):
    with pytest.raises(RunError, match="no run folder"):
        Run.resume(tmp_path)


def test_history_leaves_out_a_line_that_a_crash_cut(run):
    for step in (10, 20, 30):
        run.append({"epoch": step // 10, "step": step})
    with (run.folder / "history.jsonl").open("a") as file:
        file.write('{"epoch": 4, "st')
    assert [row["step"] for row in run.history()] == [10, 20, 30]
    second = {"step": 20, "about": {"epoch": 2}}
    run.rewind(second)
    run.append({"epoch": 3, "step": 30})
    run.rewind(second)
    assert [row["step"] for row in run.history()] == [10, 20]
    run.append({"epoch": 3, "step": 25})  # a part of an epoch, before a polite stop
    run.rewind({"step": 25, "about": {"epoch": 2}})
    assert [row["step"] for row in run.history()] == [10, 20]
    run.rewind(None)
    assert run.history() == []


def test_a_result_round_trips_and_an_unknown_format_is_refused(run):
    with pytest.raises(RunError, match="has not ended"):
        read_result(run.folder)
    run.write_result("train", "finished", epochs=3)
    result = read_result(run.folder)
    assert (result["kind"], result["status"], result["epochs"]) == ("train", "finished", 3)
    (run.folder / "result.json").write_text(json.dumps(result | {"format_version": 2}))
    with pytest.raises(RunError, match="format_version is 2"):
        read_result(run.folder)


def test_an_experiment_file_round_trips(tmp_path):
    experiment = Experiment().override("optimizer.lr", 1e-5).override("model.weights", "häuser.pth")
    path = tmp_path / "e.yaml"
    path.write_text(dump_experiment(experiment), encoding="utf-8")
    assert read_experiment(path) == experiment


def test_yaml_reads_1e_3_as_a_number(tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text("optimizer.lr: 1e-3\ntrain: {epochs: 3}\n")
    experiment = read_experiment(path)
    assert experiment.optimizer.lr == 1e-3
    assert experiment.train.epochs == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("optimizer: {lrr: 1}", r"e\.yaml: optimizer\.lrr.*did you mean"),
        ("[1, 2]", "mapping"),
        ("a: b: c", "not valid YAML"),
        ("format_version: 7", "format_version is 7"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_a_bad_experiment_file_is_refused_by_name(tmp_path, text, says):
    path = tmp_path / "e.yaml"
    path.write_text(text)
    with pytest.raises((ConfigError, RunError), match=says) as caught:
        read_experiment(path)
    assert "\n" not in str(caught.value)
