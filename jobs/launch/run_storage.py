"""A run's storage: open it for a new or a resumed run, mirror the run folder to it, download from it."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from classifier.config.documents import read_json
from classifier.errors import RunError, in_short
from classifier.runs.folder import RunFolder
from classifier.runs.schema import StoredUri
from classifier.storage.atomic import retry_io, write_atomically
from classifier.storage.bucket import Storage
from classifier.storage.mirror import Mirror
from classifier.storage.uri import refuse_endpoint
from classifier.training.checkpoint import CheckpointStore

# Holds the storage's URI in the run folder, so that --resume needs no --storage.
URI_FILE = "storage.json"
# Files that Ray workers mirror, which have a copy of the run folder on their own machines; of trials, the driver's.
WORKER_LOG = "worker.log"
DRIVER_FILES = tuple(f"trials/*/{name}" for name in ("sample.json", "ended.json", "error.txt"))
WORKER_FILES = ("bundle", "checkpoints", "history.jsonl", "experiment.yaml", "tensorboard", WORKER_LOG)


def check_new(out: str, name: str | None, uri: str | None = None) -> None:
    """RunError if OUT or the storage cannot be used for a new run, or the name is taken in one of them."""
    if uri is not None:
        with _naming(uri):
            storage = Storage.from_uri(uri, "run")
            if storage.system.type_name == "local" and Path(storage.root).parent.resolve() == Path(out).resolve():
                raise RunError(f"--storage {uri} is the folder of the runs itself (--out): give another one")
            names = Storage.list_runs(uri)
            if name in names and Storage.from_uri(uri, name).files():
                raise _run_exists_error(uri, name)
    RunFolder.check_new(out, name)


def create_run(out: str, name: str | None, path: str, uri: str | None = None) -> RunFolder:
    """Create a run folder, and claim its name in the storage; without a name, that of the data set with a number.

    path: the data set's. Errors as check_new.
    """
    reserved: list[str] = []
    if uri is not None and name is None:
        with _naming(uri):
            reserved += Storage.list_runs(uri)
    while True:
        run = RunFolder.create(out, name) if name else RunFolder.create_numbered(out, path, reserved=reserved)
        if uri is None or _claim_storage(run, uri):
            return run
        if name:
            raise _run_exists_error(uri, name)
        reserved.append(run.folder.name)


def _claim_storage(run: RunFolder, uri: str) -> bool:
    """Claim the new run's name in the storage; the folder is removed if that fails."""
    run.storage, is_claimed = Storage.from_uri(uri, run.folder.name), False
    try:
        with _naming(uri):
            is_claimed = run.storage.claim()
    finally:
        if not is_claimed:
            run.discard()
    return is_claimed


@contextlib.contextmanager
def _naming(uri: str) -> Iterator[None]:
    """Turn an OSError into a RunError that names the storage."""
    try:
        yield
    except OSError as error:
        raise RunError(f"--storage {uri} cannot be used ({in_short(error, 200)})") from None


def _run_exists_error(uri: str, name: str) -> RunError:
    return RunError(
        f"{Storage.from_uri(uri, name).root} already exists: choose another --name, or continue it with --resume "
        f"{name} --storage {uri}"
    )


def open_earlier(uri: str | None, folder: Path) -> Storage | None:
    """An earlier run's storage, or None. Updates the folder if it is missing, or behind the storage."""
    uri_file = folder / URI_FILE
    if uri is None and uri_file.exists():
        uri = read_json(uri_file, StoredUri)["uri"]
        refuse_endpoint(uri, uri_file, "--storage")
    if uri is None:
        return None
    storage = Storage.from_uri(uri, folder.name)
    files = retry_io(storage.files, storage.root)
    if not files and not folder.is_dir():
        raise RunError(f"{storage.root} holds no run: give OUT/NAME of an earlier run, and its --storage")
    if any(name.startswith("trials/") for name in files):
        retry_io(lambda: storage.download_folder(folder, include=_is_search_file), storage.root)
    else:
        download_run(storage, folder)
    return storage


def _is_search_file(name: str) -> bool:
    """Whether a search's driver needs the file; trials download their checkpoints where they are trained."""
    return not ("/checkpoints/" in name or "/tensorboard/" in name or name.startswith("ray/"))


def open_mirror(run: RunFolder, *, elsewhere: bool) -> Mirror:
    """A mirror of the run folder, to be used as a context. `elsewhere`: workers train it on their own disks.

    Of a search's trials it mirrors what the driver writes; each trial's process mirrors the rest.
    """
    assert run.storage is not None
    write_atomically(run.folder / URI_FILE, json.dumps({"uri": run.storage.uri}) + "\n")
    return Mirror(run.folder, run.storage, skip=WORKER_FILES if elsewhere else (), extra=DRIVER_FILES)


def upload_bundle(run: RunFolder) -> None:
    """Replace the bundle that workers elsewhere left in storage by the one of this machine's run folder."""
    if (storage := run.storage) is not None:
        retry_io(lambda: Mirror(run.folder, storage).upload_bundle(), storage.root)


def delete_copy(run: RunFolder) -> None:
    """Delete the stored copy of a run that never started."""
    if (storage := run.storage) is not None:
        retry_io(lambda: storage.remove(""), storage.root)


def download_run(storage: Storage, folder: Path) -> None:
    """Download the run, unless the folder is ahead of the storage. RunError if the storage cannot be reached."""

    def download_if_newer() -> None:
        if is_new or storage.newest_step() > CheckpointStore(folder / "checkpoints").newest_step():
            storage.download_folder(folder)

    is_new = not folder.is_dir() or not any(folder.iterdir())
    folder.mkdir(parents=True, exist_ok=True)
    retry_io(download_if_newer, storage.root)


def download_trials(run: RunFolder, trial: str = "*", *, bundle: bool = False) -> None:
    """Download what trials left in storage into the search's folder, except for what only a resumed trial needs."""
    if (storage := run.storage) is None:
        return
    excluded = ("checkpoints", "tensorboard") if bundle else ("checkpoints", "tensorboard", "bundle", ".bundle.older")

    def is_included(name: str) -> bool:
        parts = name.split("/")  # trials/TRIAL/...
        return parts[0] == "trials" and trial in ("*", parts[1]) and parts[2] not in excluded

    retry_io(lambda: storage.download_folder(run.folder, include=is_included), storage.root)


@contextlib.contextmanager
def mirror_worker_folder(run: RunFolder, *, fetch: str) -> Iterator[None]:
    """Download a worker's folder on its own machine, mirror it, and delete it after a successful end.

    Does nothing if the run has no storage: the folder is the run folder itself then.
    """
    if run.storage is None:
        yield
        return
    download_run(run.storage, run.folder)
    with Mirror(run.folder, run.storage, download=fetch):
        yield
    shutil.rmtree(run.folder, ignore_errors=True)
