"""Storage: its files are complete at every moment, and equal to the local ones in the end."""

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import fs
from safetensors.torch import load_file

from classifier import data
from classifier.config.experiment import Experiment
from classifier.errors import ConfigError, RunError
from classifier.runs.folder import RunFolder
from classifier.runs.recorder import record_training
from classifier.storage import atomic
from classifier.storage.bucket import Storage
from classifier.storage.mirror import Mirror
from classifier.training.checkpoint import Checkpoint, CheckpointStore
from classifier.training.resolve import resolve


@pytest.fixture(params=["local", "s3"])
def uri(request, tmp_path) -> str:
    if request.param == "local":
        return str(tmp_path / "far")
    bucket, rest = request.getfixturevalue("bucket")
    return f"{bucket}/runs{rest}"


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "near"
    folder.mkdir()
    return folder


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, {"w": torch.full((3,), float(step))}, {}, {"epoch": step, "dataset": "f00d"})


def save_bundle(folder: Path, content: str) -> None:
    """Write a bundle as `bundle.save` does: a new folder replaces the old one."""
    part = folder / ".bundle.part"
    part.mkdir()
    (part / "model.safetensors").write_text(content)
    (part / "bundle.json").write_text(json.dumps({"is": content}))
    if (folder / "bundle").exists():
        (folder / "bundle").rename(folder / ".bundle.older")
    part.rename(folder / "bundle")


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_mirror_equals_the_run_folder(uri, folder, tmp_path):
    storage, store = Storage.from_uri(uri, "r"), CheckpointStore(folder / "checkpoints")
    (folder / ".lock").write_text("1")
    (folder / "ray").mkdir()
    (folder / "ray" / "x").write_text("Ray's own")
    (folder / "experiment.yaml").write_text("seed: 0")
    with Mirror(folder, storage) as mirror:
        for step in (1, 2, 3):
            RunFolder(folder).append_history({"step": step})
            store.commit(checkpoint(step))
            mirror.sync()
    save_bundle(folder, "one")
    with Mirror(folder, storage):
        pass
    storage.download_folder(tmp_path / "back")
    downloaded = tree(tmp_path / "back")
    assert downloaded == {name: content for name, content in tree(folder).items() if name not in (".lock", "ray/x")}
    assert storage.newest_step() == 3
    latest = CheckpointStore(tmp_path / "back" / "checkpoints").load_latest()
    assert latest is not None
    assert latest.step == 3
    assert not any("step-00000001" in name for name in downloaded)
    assert storage.read("experiment.yaml") == b"seed: 0"
    assert storage.read("nothing") is None


def test_empty_storage(uri):
    storage = Storage.from_uri(uri, "r")
    assert storage.files() == {}
    assert storage.newest_step() == -1


def test_remove_files_and_folders(uri, folder):
    storage = Storage.from_uri(uri, "run")
    (folder / "file").write_text("a")
    for name in ("word", "many/one", "many/two", "word.more"):
        storage.upload(folder / "file", name)
    storage.remove("word")
    storage.remove("many")
    storage.remove("nothing")
    assert [*storage.files()] == ["word.more"]


def test_bundle_is_complete_at_every_moment(uri, folder, tmp_path, monkeypatch):
    """As if each upload were the last one before a crash: download what is there, and check it."""
    storage, uploads, found = Storage.from_uri(uri, "r"), [], []
    save_bundle(folder, "one")
    with Mirror(folder, storage):
        pass
    save_bundle(folder, "two")

    def check() -> None:
        back = tmp_path / f"back{len(found)}"
        storage.download_folder(back)
        complete = [p.parent for p in back.glob("*/bundle.json")] + [p.parent for p in back.glob(".*/bundle.json")]
        assert complete
        for bundle in complete:
            assert json.loads((bundle / "bundle.json").read_text())["is"] == (bundle / "model.safetensors").read_text()
        found.append({json.loads((bundle / "bundle.json").read_text())["is"] for bundle in complete})

    def upload(self, path, name):
        original(self, path, name)
        uploads.append(name)
        check()

    original = Storage.upload
    monkeypatch.setattr(Storage, "upload", upload)
    with Mirror(folder, storage):
        pass
    check()
    assert uploads == ["bundle/model.safetensors", "bundle/bundle.json"]
    assert found == [{"one"}, {"one", "two"}, {"two"}]


@contextlib.contextmanager
def crash_before(*names: str) -> Iterator[None]:
    """Make uploads in this context fail at the first file with one of these names."""
    original = Storage.upload

    def upload(self: Storage, path: Path, name: str) -> None:
        if name.endswith(names):
            raise ConnectionError("gone")
        original(self, path, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Storage, "upload", upload)
        with pytest.raises(ConnectionError):
            yield


def test_checkpoint_counts_once_its_manifest_is_uploaded(uri, folder):
    storage = Storage.from_uri(uri, "r")
    CheckpointStore(folder / "checkpoints").commit(checkpoint(1))
    with Mirror(folder, storage):
        pass
    CheckpointStore(folder / "checkpoints").commit(checkpoint(2))
    with crash_before("manifest.json"):
        Mirror(folder, storage).sync()
    assert storage.newest_step() == 1


def test_partial_checkpoint_is_uploaded_again(uri, folder, tmp_path):
    storage = Storage.from_uri(uri, "r")
    CheckpointStore(folder / "checkpoints").commit(checkpoint(1))
    with crash_before("manifest.json"):
        Mirror(folder, storage).sync()
    assert storage.files("checkpoints")
    storage.download_folder(tmp_path / "back")
    assert not (tmp_path / "back").exists()
    with Mirror(folder, storage):
        pass
    assert storage.newest_step() == 1


def test_crash_before_the_first_bundle_is_complete_leaves_none(uri, folder, tmp_path):
    """Part of a bundle would look like the user's own folder, and a resumed run could not save its bundle there."""
    storage = Storage.from_uri(uri, "r")
    save_bundle(folder, "one")
    with crash_before("bundle.json"):
        Mirror(folder, storage).sync()
    assert [*storage.files()] == ["bundle/model.safetensors"]
    storage.download_folder(tmp_path / "back")
    assert not (tmp_path / "back" / "bundle").exists()


class WatchedFileSystem:
    """A file system that calls `after` after each change."""

    def __init__(self, system: fs.FileSystem, after: Callable[[], None]) -> None:
        self.system, self.after = system, after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.system, name)
        if name not in ("move", "copy_file", "delete_file", "delete_dir"):
            return method

        def call(*args: str) -> None:
            method(*args)
            self.after()

        return call


@pytest.mark.long
def test_crash_at_any_point_of_an_upload_loses_nothing(tmp_path):
    """Download the copy as it is after each change and train on from it: the result is the same model."""
    experiment = Experiment().override_all({"model.name": "cnn", "data.batch": 512, "train.epochs": 3})
    dataset = data.load(experiment.data)
    experiment, far = resolve(experiment, dataset), tmp_path / "far"

    def train(run: RunFolder, after: Callable[[], None] = lambda: None) -> tuple[dict[str, list], list[int]]:
        run.folder.mkdir(exist_ok=True)
        run.write_experiment(experiment)
        for _ in record_training(run, experiment, dataset):
            after()
        weights = load_file(run.bundle / "model.safetensors")
        return {name: value.tolist() for name, value in weights.items()}, [row["epoch"] for row in run.history()]

    def snapshot() -> None:
        shutil.copytree(far, tmp_path / f"far{len(snapshots)}")
        snapshots.append(tmp_path / f"far{len(snapshots)}")

    snapshots: list[Path] = []
    watched: Any = WatchedFileSystem(fs.LocalFileSystem(), snapshot)
    run = RunFolder(tmp_path / "near")
    run.folder.mkdir()
    mirror = Mirror(run.folder, Storage(watched, str(far)))
    uninterrupted = train(run, mirror.sync)
    mirror.sync()
    assert len(snapshots) > 30
    for number, copy in enumerate(snapshots):
        other = RunFolder(tmp_path / f"other{number}")
        Storage(fs.LocalFileSystem(), str(copy)).download_folder(other.folder)
        assert train(other) == uninterrupted, number


def test_concurrent_syncs_upload_complete_files(folder, tmp_path):
    """A trial that ends calls sync() while the mirror's own thread may be in it."""
    storage, run = Storage.from_uri(str(tmp_path / "far"), "r"), RunFolder(folder)
    with Mirror(folder, storage) as mirror:
        for step in range(100):
            run.append_history({"step": step})
            thread = threading.Thread(target=mirror.sync)
            thread.start()
            mirror.sync()
            assert storage.read("history.jsonl") == (folder / "history.jsonl").read_bytes()
            thread.join()


def test_partial_files_are_not_listed(tmp_path):
    storage = Storage.from_uri(str(tmp_path / "far"), "r")
    (tmp_path / "far" / "r").mkdir(parents=True)
    (tmp_path / "far" / "r" / "history.jsonl.part").write_text("{")
    assert storage.files() == {}
    storage.remove("")
    assert not (tmp_path / "far" / "r").exists()


def test_folder_that_changes_during_an_upload_is_uploaded_again(folder, tmp_path, monkeypatch):
    storage = Storage.from_uri(str(tmp_path / "far"), "r")
    save_bundle(folder, "one")
    original, swapped = Storage.upload, threading.Event()

    def upload_and_swap(self, path, name):
        original(self, path, name)
        if not swapped.is_set():
            swapped.set()
            save_bundle(folder, "two")

    monkeypatch.setattr(Storage, "upload", upload_and_swap)
    with Mirror(folder, storage) as mirror:
        mirror.sync()
        assert storage.read("bundle/bundle.json") is None
        mirror.sync()
    assert storage.read("bundle/model.safetensors") == b"two"


def test_checkpoint_that_is_pruned_during_an_upload_is_skipped(folder, tmp_path, monkeypatch):
    store = CheckpointStore(folder / "checkpoints", keep=1)
    storage = Storage(fs.LocalFileSystem(), str(tmp_path / "far"))
    mirror = Mirror(folder, storage)
    store.commit(checkpoint(1))
    RunFolder(folder).append_history({"step": 1})
    upload = Storage.upload

    def commit_and_upload(self, path, name):
        if name == "history.jsonl":
            store.commit(checkpoint(2))  # prunes the first
        upload(self, path, name)

    monkeypatch.setattr(Storage, "upload", commit_and_upload)
    mirror.sync()
    assert storage.newest_step() == -1
    monkeypatch.setattr(Storage, "upload", upload)
    mirror.sync()
    assert storage.newest_step() == 2


def test_any_error_is_retried_at_the_next_sync(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("classifier.storage.mirror.SYNC_SECONDS", 0.05)
    storage, original = Storage(fs.LocalFileSystem(), str(tmp_path / "far")), Storage.upload
    failures = iter([StopIteration("unexpected"), ValueError("unexpected")])

    def upload(self, path, name):
        if (error := next(failures, None)) is not None:
            raise error
        original(self, path, name)

    monkeypatch.setattr(Storage, "upload", upload)
    with Mirror(folder, storage):
        CheckpointStore(folder / "checkpoints").commit(checkpoint(1))
        start = time.monotonic()
        while storage.newest_step() < 1:
            assert time.monotonic() - start < 30
            time.sleep(0.05)
    assert "uploads are retried" in caplog.text


@pytest.mark.long
def test_outage_is_logged_and_made_up_for(s3_server, folder, monkeypatch, caplog, request):
    """The server is suspended for a while, and the run continues."""
    process, port = s3_server
    for name, value in {"ACCESS_KEY_ID": "me", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr("classifier.storage.mirror.SYNC_SECONDS", 0.1)
    bucket = f"b{time.time_ns()}"
    address = f"http://127.0.0.1:{port}"
    fs.S3FileSystem(endpoint_override=address, allow_bucket_creation=True).create_dir(bucket)
    system = fs.S3FileSystem(endpoint_override=address, request_timeout=1, connect_timeout=1)
    storage = Storage(system, f"{bucket}/r")
    with Mirror(folder, storage):
        process.send_signal(signal.SIGSTOP)
        CheckpointStore(folder / "checkpoints").commit(checkpoint(1))
        RunFolder(folder).append_history({"step": 1})
        start = time.monotonic()
        while "uploads are retried" not in caplog.text:
            assert time.monotonic() - start < 60
            time.sleep(0.1)
        process.send_signal(signal.SIGCONT)
        while "is reachable again" not in caplog.text:
            assert time.monotonic() - start < 120
            time.sleep(0.1)
        assert storage.newest_step() == 1
    assert storage.read("history.jsonl") == b'{"step": 1}\n'


def test_failed_last_upload_raises(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "RETRY_SECONDS", 0.0)
    (folder / "a").write_text("a")
    (tmp_path / "far").write_text("a file where a folder is wanted")
    with (
        pytest.raises(RunError, match=r"far/r cannot be written"),
        Mirror(folder, Storage.from_uri(str(tmp_path / "far"), "r")),
    ):
        pass


@pytest.mark.parametrize(
    ("uri", "message"),
    [("foo://a/b", "foo://a/b cannot be opened"), ("s3://key:secret@bucket/x", "AWS_ACCESS_KEY_ID")],
)
def test_invalid_uri_raises_config_error(uri, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Storage.from_uri(uri, "r")
    assert "secret" not in str(caught.value).replace("AWS_SECRET", "")


def test_relative_path_is_resolved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Storage.from_uri("far", "r").root == os.fspath(tmp_path / "far" / "r")
