import json
import os
import subprocess
import sys
import threading
import time

import pytest

from classifier.config.experiment import Experiment
from classifier.config.files import dump_experiment, read_experiment
from classifier.errors import ConfigError, RunError
from classifier.runs.folder import RunFolder, is_in_use, read_result
from tests.report.run_files import history_row


@pytest.fixture
def run(tmp_path):
    run = RunFolder.create(tmp_path, "a")
    yield run
    run.close()


def test_existing_name_is_refused_with_a_fix(tmp_path):
    RunFolder.create(tmp_path, "a").close()
    with pytest.raises(RunError, match=r"a already exists.*--resume"):
        RunFolder.create(tmp_path, "a")


@pytest.mark.parametrize("name", ["../a", "", ".hidden", "a/b", "a b"])
def test_invalid_names_are_refused(tmp_path, name):
    with pytest.raises(RunError, match="name"):
        RunFolder.create(tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


def test_a_name_that_nobody_gave_is_never_refused(tmp_path):
    """Another process may create the folder between the look and the creation."""
    for name in ("run", "photos-1", "photos-2"):
        (tmp_path / name).mkdir()
    RunFolder.check_new(tmp_path, None)
    run = RunFolder.create_numbered(tmp_path, "photos")
    assert run.folder.name == "photos-3"
    run.close()


def test_an_unwritable_out_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be created.*--out"):
        RunFolder.create(tmp_path / "file", "a")


def test_folder_in_use_by_another_process_is_refused(tmp_path):
    run = RunFolder.create(tmp_path, "a")
    run.write_experiment(Experiment())
    code = f"""
from classifier.runs.folder import RunFolder
from classifier.errors import RunError
try:
    RunFolder.resume({str(run.folder)!r})
except RunError as error:
    print(error)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"in use by process {os.getpid()}" in output
    assert is_in_use(run.folder)
    run.close()
    assert not is_in_use(run.folder)
    RunFolder.resume(run.folder).close()


def test_a_look_does_not_refuse_whoever_wants_the_folder(tmp_path):
    run = RunFolder.create(tmp_path, "a")
    run.write_experiment(Experiment())
    run.close()
    stop = threading.Event()

    def look():
        while not stop.is_set():
            is_in_use(run.folder)
            time.sleep(0.002)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(30):
            RunFolder.resume(run.folder).close()
    finally:
        stop.set()
        thread.join()


def test_a_folder_that_cannot_be_locked_is_an_error(tmp_path):
    run = RunFolder.create(tmp_path, "a")
    run.write_experiment(Experiment())
    run.close()
    (run.folder / ".lock").unlink()
    (run.folder / ".lock").mkdir()
    with pytest.raises(RunError, match=r"a cannot be locked \(Is a directory\): make it writable"):
        RunFolder.resume(run.folder)
    assert not is_in_use(run.folder)


def test_a_discarded_run_leaves_nothing_behind(tmp_path):
    run = RunFolder.create(tmp_path, "a")
    assert {path.name for path in run.folder.iterdir()} == {".lock"}
    run.discard()
    assert not [*tmp_path.iterdir()]
    RunFolder.create(tmp_path, "a").discard()


def test_resume_refuses_other_folders(tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        RunFolder.resume(tmp_path)


def test_history_without_cut_off_and_repeated_rows(run):
    for step in (10, 20, 30):
        run.append_history(history_row(step // 10) | {"step": step})
    with (run.folder / "history.jsonl").open("a") as file:
        file.write('{"epoch": 4, "st')
    assert [row["step"] for row in run.history()] == [10, 20, 30]
    second = {"step": 20, "about": {"epoch": 2}}
    run.truncate_history(second)
    run.append_history(history_row(3) | {"step": 30})
    run.truncate_history(second)
    assert [row["step"] for row in run.history()] == [10, 20]
    run.append_history(history_row(3) | {"step": 25})  # a part of an epoch, before an interrupt
    run.truncate_history({"step": 25, "about": {"epoch": 2}})
    assert [row["step"] for row in run.history()] == [10, 20]
    run.truncate_history(None)
    assert run.history() == []


def test_result_round_trip_and_unknown_format(run):
    with pytest.raises(RunError, match="has not finished"):
        read_result(run.folder)
    run.write_result("train", "finished", epochs=3)
    result = read_result(run.folder)
    assert (result["kind"], result["status"], result["epochs"]) == ("train", "finished", 3)
    (run.folder / "result.json").write_text(json.dumps(result | {"format_version": 2}))
    with pytest.raises(RunError, match="format_version is 2"):
        read_result(run.folder)


def test_experiment_file_round_trip(tmp_path):
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
    ("text", "message"),
    [
        ("optimizer: {lrr: 1}", r"e\.yaml: optimizer\.lrr.*did you mean"),
        ("[1, 2]", "mapping"),
        ("a: b: c", "not valid YAML"),
        ("format_version: 7", "format_version is 7"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_bad_experiment_file_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "e.yaml"
    path.write_text(text)
    with pytest.raises((ConfigError, RunError), match=message) as caught:
        read_experiment(path)
    assert "\n" not in str(caught.value)
