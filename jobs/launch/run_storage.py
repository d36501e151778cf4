"""A run's storage as the verbs use it: opened, remembered, and brought back to this machine."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from classifier.errors import RunError, in_short
from classifier.runs.folder import Run
from classifier.storage.atomic import retry_io, write_atomically
from classifier.storage.bucket import Storage
from classifier.storage.mirror import Mirror
from classifier.training.checkpoint import CheckpointStore

# Where a run remembers its storage, so that --resume needs no --storage.
URI_FILE = "storage.json"
# What Ray workers keep there, who have a copy of the folder on their own machines.
WORKER_LOG = "worker.log"
DRIVER_FILES = tuple(f"trials/*/{name}" for name in ("sample.json", "ended.json", "error.txt"))
WORKER_FILES = ("bundle", "checkpoints", "history.jsonl", "experiment.yaml", "tensorboard", WORKER_LOG)


def open_new(uri: str | None, name: str) -> Storage | None:
    """A new run's storage, or None. RunError if that name is taken there, or if it cannot be read."""
    if uri is None:
        return None
    storage = Storage.from_uri(uri, name)
    try:
        taken = storage.files()
    except OSError as error:
        raise RunError(f"--storage {uri} cannot be read ({in_short(error, 200)})") from None
    if taken:
        mend = f"choose another --name, or go on with it by --resume {name} --storage {uri}"
        raise RunError(f"{storage.root} is there already: {mend}")
    return storage


def open_earlier(uri: str | None, folder: Path) -> Storage | None:
    """An earlier run's storage, or None; the folder is as its copy where that went further, or where there is none."""
    remembered = folder / URI_FILE
    if uri is None and remembered.exists():
        uri = json.loads(remembered.read_text())["uri"]
    if uri is None:
        return None
    storage = Storage.from_uri(uri, folder.name)
    there = retry_io(storage.files, storage.root)
    if not there and not folder.is_dir():
        raise RunError(f"{storage.root} holds no run: give OUT/NAME of an earlier one, and its --storage")
    if any(name.startswith("trials/") for name in there):
        retry_io(lambda: storage.download_folder(folder, include=_is_search_file), storage.root)
    else:
        download_run(storage, folder)
    return storage


def _is_search_file(name: str) -> bool:
    """What a search's driver wants of it: a trial goes on from its checkpoint where it is trained."""
    return not ("/checkpoints/" in name or "/tensorboard/" in name or name.startswith("ray/"))


def open_mirror(run: Run, *, elsewhere: bool) -> Mirror:
    """The mirror of a run's folder, for as long as a verb works in it. `elsewhere`: others train it, on their disks.

    Of a search's trials it keeps what the driver writes; each trial's process keeps the rest.
    """
    assert run.storage is not None
    write_atomically(run.folder / URI_FILE, json.dumps({"uri": run.storage.uri}) + "\n")
    return Mirror(run.folder, run.storage, skip=WORKER_FILES if elsewhere else (), extra=DRIVER_FILES)


def upload_bundle(run: Run) -> None:
    """The bundle of this machine's folder, in place of the one that workers elsewhere have left in storage."""
    if (storage := run.storage) is not None:
        retry_io(lambda: Mirror(run.folder, storage).upload_bundle(), storage.root)


def delete_copy(run: Run) -> None:
    """Remove the copy of a run that never began."""
    if (storage := run.storage) is not None:
        retry_io(lambda: storage.remove(""), storage.root)


def download_run(storage: Storage, folder: Path) -> None:
    """Begin in a folder of this machine with what the storage has, unless the folder went further. RunError if away."""

    def bring() -> None:
        mine = CheckpointStore(folder / "checkpoints").latest_manifest()
        if is_new or storage.newest_step() > (mine["step"] if mine else -1):
            storage.download_folder(folder)

    is_new = not folder.is_dir() or not any(folder.iterdir())
    folder.mkdir(parents=True, exist_ok=True)
    retry_io(bring, storage.root)


def download_trials(run: Run, trial: str = "*", *, bundle: bool = False) -> None:
    """What the trials' processes left in storage, into the search's own folder: all but what training goes on from."""
    if (storage := run.storage) is None:
        return
    left = ("checkpoints", "tensorboard") if bundle else ("checkpoints", "tensorboard", "bundle", ".bundle.older")

    def wanted(name: str) -> bool:
        parts = name.split("/")  # trials/TRIAL/...
        return parts[0] == "trials" and trial in ("*", parts[1]) and parts[2] not in left

    retry_io(lambda: storage.download_folder(run.folder, include=wanted), storage.root)


@contextlib.contextmanager
def mirror_worker_folder(run: Run, *, fetch: str) -> Iterator[None]:
    """A worker's folder on its own machine: begun with what the storage has, mirrored, and gone after a good end.

    Nothing where the run has no storage: the folder is the run's own then.
    """
    if run.storage is None:
        yield
        return
    download_run(run.storage, run.folder)
    with Mirror(run.folder, run.storage, download=fetch):
        yield
    shutil.rmtree(run.folder, ignore_errors=True)
