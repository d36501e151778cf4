"""Storage: what lies there is whole at every moment, and the same as on the disk in the end."""

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
from classifier.runs.folder import Run
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
    return Checkpoint(step, {"w": torch.full((3,), float(step))}, {}, {"epoch": step})


def pack(folder: Path, what: str) -> None:
    """A bundle as `bundle.save` leaves it: a new folder in place of the older one."""
    part = folder / ".bundle.part"
    part.mkdir()
    (part / "model.safetensors").write_text(what)
    (part / "bundle.json").write_text(json.dumps({"is": what}))
    if (folder / "bundle").exists():
        (folder / "bundle").rename(folder / ".bundle.older")
    part.rename(folder / "bundle")


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_copy_is_like_the_folder(uri, folder, tmp_path):
    storage, store = Storage.from_uri(uri, "r"), CheckpointStore(folder / "checkpoints")
    (folder / ".lock").write_text("1")
    (folder / "ray").mkdir()
    (folder / "ray" / "x").write_text("Ray's own")
    (folder / "experiment.yaml").write_text("seed: 0")
    with Mirror(folder, storage) as mirror:
        for step in (1, 2, 3):
            Run(folder).append_history({"step": step})
            store.commit(checkpoint(step))
            mirror.sync()
    pack(folder, "one")
    with Mirror(folder, storage):
        pass
    storage.download_folder(tmp_path / "back")
    theirs = tree(tmp_path / "back")
    assert theirs == {name: content for name, content in tree(folder).items() if name not in (".lock", "ray/x")}
    assert storage.newest_step() == 3
    latest = CheckpointStore(tmp_path / "back" / "checkpoints").load_latest()
    assert latest is not None
    assert latest.step == 3
    assert not any("step-00000001" in name for name in theirs)
    assert storage.read("experiment.yaml") == b"seed: 0"
    assert storage.read("nothing") is None


def test_an_empty_storage_has_nothing(uri):
    storage = Storage.from_uri(uri, "r")
    assert storage.files() == {}
    assert storage.newest_step() == -1


def test_files_and_folders_are_removed(uri, folder):
    storage = Storage.from_uri(uri, "run")
    (folder / "file").write_text("a")
    for name in ("word", "many/one", "many/two", "word.more"):
        storage.upload(folder / "file", name)
    storage.remove("word")
    storage.remove("many")
    storage.remove("nothing")
    assert [*storage.files()] == ["word.more"]


def test_at_every_moment_a_bundle_is_whole(uri, folder, tmp_path, monkeypatch):
    """Each write is the last one before a death: what is there then is pulled, and looked at."""
    storage, puts, seen = Storage.from_uri(uri, "r"), [], []
    pack(folder, "one")
    with Mirror(folder, storage):
        pass
    pack(folder, "two")

    def look() -> None:
        back = tmp_path / f"back{len(seen)}"
        storage.download_folder(back)
        whole = [p.parent for p in back.glob("*/bundle.json")] + [p.parent for p in back.glob(".*/bundle.json")]
        assert whole
        for place in whole:
            assert json.loads((place / "bundle.json").read_text())["is"] == (place / "model.safetensors").read_text()
        seen.append({json.loads((place / "bundle.json").read_text())["is"] for place in whole})

    def put(self, path, name):
        original(self, path, name)
        puts.append(name)
        look()

    original = Storage.upload
    monkeypatch.setattr(Storage, "put", put)
    with Mirror(folder, storage):
        pass
    look()
    assert puts == ["bundle/model.safetensors", "bundle/bundle.json"]
    assert seen == [{"one"}, {"one", "two"}, {"two"}]


@contextlib.contextmanager
def dying_before(*names: str) -> Iterator[None]:
    """What is sent in this context dies where a file of such a name would be next."""
    original = Storage.upload

    def put(self: Storage, path: Path, name: str) -> None:
        if name.endswith(names):
            raise ConnectionError("gone")
        original(self, path, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Storage, "put", put)
        with pytest.raises(ConnectionError):
            yield


def test_a_checkpoint_counts_once_its_manifest_is_there(uri, folder):
    storage = Storage.from_uri(uri, "r")
    CheckpointStore(folder / "checkpoints").commit(checkpoint(1))
    with Mirror(folder, storage):
        pass
    CheckpointStore(folder / "checkpoints").commit(checkpoint(2))
    with dying_before("manifest.json"):
        Mirror(folder, storage).sync()
    assert storage.newest_step() == 1


def test_half_a_checkpoint_is_sent_again(uri, folder, tmp_path):
    storage = Storage.from_uri(uri, "r")
    CheckpointStore(folder / "checkpoints").commit(checkpoint(1))
    with dying_before("manifest.json"):
        Mirror(folder, storage).sync()
    assert storage.files("checkpoints")
    storage.download_folder(tmp_path / "back")
    assert not (tmp_path / "back").exists()
    with Mirror(folder, storage):
        pass
    assert storage.newest_step() == 1


def test_a_death_before_the_first_bundle_is_whole_leaves_none(uri, folder, tmp_path):
    """Half a bundle would pass for a folder of the user, and a run that goes on elsewhere could not save its own."""
    storage = Storage.from_uri(uri, "r")
    pack(folder, "one")
    with dying_before("bundle.json"):
        Mirror(folder, storage).sync()
    assert [*storage.files()] == ["bundle/model.safetensors"]
    storage.download_folder(tmp_path / "back")
    assert not (tmp_path / "back" / "bundle").exists()


class Watched:
    """A file system that calls `after` whenever something in it has changed."""

    def __init__(self, system: fs.FileSystem, after: Callable[[], None]) -> None:
        self.system, self.after = system, after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.system, name)
        if name not in ("move", "copy_file", "delete_file", "delete_dir"):
            return method

        def call(*words: str) -> None:
            method(*words)
            self.after()

        return call


def test_a_death_at_any_moment_of_sending_costs_nothing_but_time(tmp_path):
    """The copy as it is after each change is pulled elsewhere and trained to its end: the same model."""
    experiment = Experiment().override_all({"model.name": "cnn", "data.batch": 512, "train.epochs": 3})
    dataset = data.load(experiment.data)
    experiment, far = resolve(experiment, dataset), tmp_path / "far"

    def train(run: Run, after: Callable[[], None] = lambda: None) -> tuple[dict[str, list], list[int]]:
        run.folder.mkdir(exist_ok=True)
        run.write_experiment(experiment)
        for _ in record_training(run, experiment, dataset):
            after()
        weights = load_file(run.bundle / "model.safetensors")
        return {name: value.tolist() for name, value in weights.items()}, [row["epoch"] for row in run.history()]

    def look() -> None:
        shutil.copytree(far, tmp_path / f"far{len(moments)}")
        moments.append(tmp_path / f"far{len(moments)}")

    moments: list[Path] = []
    watched: Any = Watched(fs.LocalFileSystem(), look)
    run = Run(tmp_path / "near")
    run.folder.mkdir()
    mirror = Mirror(run.folder, Storage(watched, str(far)))
    unbroken = train(run, mirror.sync)
    mirror.sync()
    assert len(moments) > 30
    for number, moment in enumerate(moments):
        other = Run(tmp_path / f"other{number}")
        Storage(fs.LocalFileSystem(), str(moment)).download_folder(other.folder)
        assert train(other) == unbroken, number


def test_two_looks_at_once_send_whole_files(folder, tmp_path):
    """A trial's end does not wait for the next look of the mirror's own thread."""
    storage, run = Storage.from_uri(str(tmp_path / "far"), "r"), Run(folder)
    with Mirror(folder, storage) as mirror:
        for step in range(100):
            run.append_history({"step": step})
            beside = threading.Thread(target=mirror.sync)
            beside.start()
            mirror.sync()
            assert storage.read("history.jsonl") == (folder / "history.jsonl").read_bytes()
            beside.join()


def test_what_is_being_written_is_not_listed(tmp_path):
    storage = Storage.from_uri(str(tmp_path / "far"), "r")
    (tmp_path / "far" / "r").mkdir(parents=True)
    (tmp_path / "far" / "r" / "history.jsonl.part").write_text("{")
    assert storage.files() == {}
    storage.remove("")
    assert not (tmp_path / "far" / "r").exists()


def test_a_folder_that_changes_under_way_is_sent_again(folder, tmp_path, monkeypatch):
    storage = Storage.from_uri(str(tmp_path / "far"), "r")
    pack(folder, "one")
    original, swapped = Storage.upload, threading.Event()

    def swaps(self, path, name):
        original(self, path, name)
        if not swapped.is_set():
            swapped.set()
            pack(folder, "two")

    monkeypatch.setattr(Storage, "put", swaps)
    with Mirror(folder, storage) as mirror:
        mirror.sync()
        assert storage.read("bundle/bundle.json") is None
        mirror.sync()
    assert storage.read("bundle/model.safetensors") == b"two"


def test_a_checkpoint_that_is_pruned_while_others_are_sent_is_passed_over(folder, tmp_path, monkeypatch):
    store, storage = CheckpointStore(folder / "checkpoints", keep=1), Storage(fs.LocalFileSystem(), str(tmp_path / "far"))
    mirror = Mirror(folder, storage)
    store.commit(checkpoint(1))
    Run(folder).append_history({"step": 1})
    put = Storage.upload

    def slow(self, path, name):
        if name == "history.jsonl":
            store.commit(checkpoint(2))  # the first goes
        put(self, path, name)

    monkeypatch.setattr(Storage, "put", slow)
    mirror.sync()
    assert storage.newest_step() == -1
    monkeypatch.setattr(Storage, "put", put)
    mirror.sync()
    assert storage.newest_step() == 2


def test_whatever_goes_wrong_the_next_look_sends_it(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("classifier.storage.mirror.SYNC_SECONDS", 0.05)
    storage, atomic = Storage(fs.LocalFileSystem(), str(tmp_path / "far")), Storage.upload
    failures = iter([StopIteration("odd"), ValueError("odd")])

    def put(self, path, name):
        if (error := next(failures, None)) is not None:
            raise error
        atomic(self, path, name)

    monkeypatch.setattr(Storage, "put", put)
    with Mirror(folder, storage):
        CheckpointStore(folder / "checkpoints").commit(checkpoint(1))
        began = time.monotonic()
        while storage.newest_step() < 1:
            assert time.monotonic() - began < 30
            time.sleep(0.05)
    assert "goes on without" in caplog.text


def test_an_outage_is_told_and_made_up_for(s3_server, folder, monkeypatch, caplog, request):
    """The server is stopped, so that it does not answer, while the run goes on."""
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
        Run(folder).append_history({"step": 1})
        began = time.monotonic()
        while "goes on without" not in caplog.text:
            assert time.monotonic() - began < 60
            time.sleep(0.1)
        process.send_signal(signal.SIGCONT)
        while "answers again" not in caplog.text:
            assert time.monotonic() - began < 120
            time.sleep(0.1)
        assert storage.newest_step() == 1
    assert storage.read("history.jsonl") == b'{"step": 1}\n'


def test_what_never_reached_the_storage_is_told(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "RETRY_SECONDS", 0.0)
    (folder / "a").write_text("a")
    (tmp_path / "far").write_text("a file where a folder is wanted")
    with (
        pytest.raises(RunError, match=r"far/r cannot be written"),
        Mirror(folder, Storage.from_uri(str(tmp_path / "far"), "r")),
    ):
        pass


@pytest.mark.parametrize(
    ("uri", "words"),
    [("foo://a/b", "foo://a/b cannot be opened"), ("s3://key:secret@bucket/x", "AWS_ACCESS_KEY_ID")],
)
def test_a_uri_that_cannot_be_used_is_refused(uri, words):
    with pytest.raises(ConfigError, match=words) as caught:
        Storage.from_uri(uri, "r")
    assert "secret" not in str(caught.value).replace("AWS_SECRET", "")


def test_a_relative_path_is_a_folder_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Storage.from_uri("far", "r").root == os.fspath(tmp_path / "far" / "r")
