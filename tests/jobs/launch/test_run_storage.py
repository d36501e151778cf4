"""--storage: a run that outlives its machine, on one worker and on several."""

import json
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from safetensors.torch import load_file

from classifier.errors import RunError
from jobs.launch import run_storage

SETTINGS = ("--model.name", "cnn", "--train.epochs", "12", "--checkpoint.steps", "5", "--data.batch", "128")


def weights_of(folder: Path) -> dict[str, list]:
    return {name: value.tolist() for name, value in load_file(folder / "bundle" / "model.safetensors").items()}


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).parts[0] for path in folder.iterdir() if not path.name.startswith(".")}


def wait_for(condition, seconds: float = 60) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)


@pytest.mark.slow
def test_run_of_a_lost_machine_is_resumed_elsewhere(verb, started, tmp_path):
    clean = verb("train", *SETTINGS, "--name", "clean", "--storage", "far")
    assert clean.code == 0, clean.err
    assert names(tmp_path / "far" / "clean") == names(clean.folder)
    assert weights_of(tmp_path / "far" / "clean") == weights_of(clean.folder)
    refused = verb("train", *SETTINGS, "--name", "clean", "--out", "elsewhere", "--storage", "far")
    assert refused.code == 2
    assert "far/clean already exists" in refused.err
    assert "--resume clean --storage far" in refused.err
    assert not (tmp_path / "elsewhere" / "clean").exists()

    process = started("train", *SETTINGS, "--name", "hurt", "--storage", "far")
    wait_for(lambda: list((tmp_path / "far" / "hurt").glob("checkpoints/*/manifest.json")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    shutil.rmtree(tmp_path / "runs" / "hurt")
    resumed = verb("train", "--resume", "hurt", "--storage", "far")
    assert resumed.code == 0, resumed.err
    assert weights_of(resumed.folder) == weights_of(clean.folder)
    lines = [json.loads(line) for line in (tmp_path / "far" / "hurt" / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 13))
    again = verb("train", "--resume", "runs/hurt", "--train.epochs", "13")  # it remembers its storage
    assert again.code == 0, again.err
    assert '"epochs": 13' in (tmp_path / "far" / "hurt" / "result.json").read_text()


@pytest.mark.slow
def test_workers_share_a_run_only_through_storage(verb, cluster, tmp_path, monkeypatch):
    """They never see the driver's folder: what it holds at the end came from the storage."""
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    words = ("--workers.count", "2", "--name", "two", "--storage", "far")
    done = verb("train", *SETTINGS, *words)
    assert done.code == 0, done.err
    far = tmp_path / "far" / "two"
    assert names(far) >= {"bundle", "checkpoints", "history.jsonl", "result.json", "run.log", "worker.log"}
    assert not (done.folder / "checkpoints").exists()
    assert done.result["epochs"] == 12
    assert done.result["validation"]["accuracy"] > 0.8
    shutil.rmtree(tmp_path / "runs")
    longer = verb("train", "--resume", "two", "--storage", "far", "--train.epochs", "14", "--workers.count", "1")
    assert longer.code == 0, longer.err
    assert longer.result["epochs"] == 14


def test_unusable_storage_is_refused_before_any_work(verb, tmp_path):
    (tmp_path / "far").write_text("a file")
    for uri, word in (("foo://a/b", "cannot be opened"), ("s3://key:secret@b/c", "AWS_ACCESS_KEY_ID")):
        refused = verb("train", "--storage", uri)
        assert refused.code == 2
        assert word in refused.err
    assert not (tmp_path / "runs").exists()
    missing = verb("train", "--resume", "nobody", "--storage", "empty")
    assert missing.code == 2
    assert "empty/nobody holds no run" in missing.err


def test_default_names_are_free_here_and_in_storage(tmp_path):
    out, far = str(tmp_path / "runs"), str(tmp_path / "far")
    for folder in (tmp_path / "runs" / "photos-2", tmp_path / "far" / "photos-7", tmp_path / "far" / "others-9"):
        folder.mkdir(parents=True)
    run_storage.check_new(out, None, far)
    run = run_storage.create_run(out, None, "data/photos/", far)
    assert run.folder == tmp_path / "runs" / "photos-8"
    assert run.storage is not None
    assert run.storage.root == str(tmp_path / "far" / "photos-8")
    assert run_storage.create_run(out, None, "photos").folder.name == "photos-9"
    for refuse in (run_storage.check_new, lambda out, name, uri: run_storage.create_run(out, name, "photos", uri)):
        with pytest.raises(RunError, match=r"far/photos-8 already exists.*--resume photos-8 --storage"):
            refuse(str(tmp_path / "elsewhere"), "photos-8", far)
    assert not list((tmp_path / "elsewhere").glob("*"))


def test_machines_that_start_at_once_get_different_names_in_storage(tmp_path):
    far = str(tmp_path / "far")

    def start(machine: int) -> list[str]:
        return [run_storage.create_run(str(tmp_path / str(machine)), None, "p", far).folder.name for _ in range(10)]

    with ThreadPoolExecutor(4) as pool:
        names = [name for names in pool.map(start, range(4)) for name in names]
    assert len(set(names)) == 40


def test_unreadable_storage_is_named_and_leaves_no_folder(tmp_path):
    (tmp_path / "far").write_text("a file")
    for name in ("mine", None):
        for call in (run_storage.check_new, lambda out, name, uri: run_storage.create_run(out, name, "photos", uri)):
            with pytest.raises(RunError, match=r"--storage .*far cannot be used"):
                call(str(tmp_path / "runs"), name, str(tmp_path / "far"))
    assert not list((tmp_path / "runs").glob("*"))


def test_storage_in_the_folder_of_the_runs_is_refused(tmp_path):
    """A run and its copy would be one folder."""
    with pytest.raises(RunError, match="is the folder of the runs itself"):
        run_storage.check_new(str(tmp_path / "runs"), None, str(tmp_path / "runs"))
    run_storage.check_new(str(tmp_path / "runs"), None, str(tmp_path / "store"))
