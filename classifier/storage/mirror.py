"""Mirrors a run folder to storage that outlives the machine: STORAGE/NAME in any file system that pyarrow can open.

Training writes to a local disk, and a background thread uploads what changed, so that training never waits for the
network. The order is bundle, history, checkpoints, and in each folder the manifest with the checksums last: what a
reader finds in storage is complete, and no checkpoint is ahead of the history.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType

from classifier.errors import RunError
from classifier.storage.atomic import retry_io
from classifier.storage.bucket import MANIFESTS, PREVIOUS_BUNDLE, Storage, step_of

logger = logging.getLogger(__name__)
# Seconds between two synchronizations, and the maximum after failed ones.
SYNC_SECONDS, MAX_SYNC_SECONDS = 2.0, 60.0
# Ray's own folder; trials, which have mirrors of their own; and cached features, which can be recomputed.
NOT_MIRRORED = ("ray", "trials", "features")


class Mirror:
    """A context manager that keeps a copy of a run folder in storage up to date.

    While the storage is unreachable, training continues, the outage is logged, and uploads are retried. On exit, the
    last upload is retried as by `retry_io`; RunError if it fails: some files are then only on this machine.
    """

    def __init__(
        self,
        folder: Path,
        storage: Storage,
        *,
        skip: Collection[str] = (),
        extra: Collection[str] = (),
        download: str | None = None,
    ) -> None:
        """skip: names that other processes upload. extra: patterns of files below NOT_MIRRORED to upload nevertheless.
        download: a file to download from storage once it is there."""
        self.folder, self.storage = folder, storage
        self.skip, self.extra, self.download = {*NOT_MIRRORED, *skip}, extra, download
        self.uploaded: dict[str, tuple[int, int]] = {}
        names = storage.files("checkpoints")
        self.remote_steps = {step_of(name) for name in names} - {-1}
        self.complete_steps = {step_of(name) for name in names if name.endswith(MANIFESTS)}
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def __enter__(self) -> "Mirror":
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stopped.set()
        self.thread.join()
        try:
            retry_io(self.sync, self.storage.root)
        except RunError:
            if error is None:  # else the first error is raised
                raise

    def sync(self) -> None:
        """Upload what has changed. OSError if the storage cannot be reached."""
        with self.lock:  # two at once would move away each other's partial files
            self._sync()

    def _sync(self) -> None:
        if self.download is not None and not (self.folder / self.download).exists():
            with contextlib.suppress(FileNotFoundError):
                self.storage.download(self.download, self.folder / self.download)
        # Listed first, so that the history that is uploaded next contains at least the epochs of these checkpoints.
        folders = [path.parent for path in self.folder.glob("checkpoints/*/manifest.json")]
        checkpoints = {step_of(folder.name): folder for folder in folders if "checkpoints" not in self.skip}
        checkpoints.pop(-1, None)
        if "bundle" not in self.skip:
            self.upload_bundle()
        for path in self._plain_files():
            self._upload(path)
        for step, folder in sorted(checkpoints.items()):
            name = folder.relative_to(self.folder).as_posix()
            if step not in self.complete_steps and self._upload_folder(folder, name):
                self.complete_steps.add(step)
                self.remote_steps.add(step)
        for step in sorted(self.remote_steps - checkpoints.keys()) if checkpoints else ():
            if step < max(checkpoints):  # pruned locally
                self.storage.remove(f"checkpoints/step-{step:08d}")
                self.remote_steps.discard(step)

    def _run(self) -> None:
        pause, failed = SYNC_SECONDS, False
        while not self.stopped.wait(pause):
            try:
                self.sync()
            except Exception as error:  # whatever it is, this thread must live to upload the next checkpoint
                if not failed:
                    why = error if isinstance(error, OSError) else repr(error)
                    logger.warning(
                        "%s is unreachable (%s): training continues, and uploads are retried", self.storage.root, why
                    )
                pause, failed = min(2 * pause, MAX_SYNC_SECONDS), True
            else:
                if failed:
                    logger.warning("%s is reachable again, and up to date", self.storage.root)
                pause, failed = SYNC_SECONDS, False

    def _plain_files(self) -> Iterator[Path]:
        for top, subfolders, names in os.walk(self.folder):
            folder = Path(top)
            if folder != self.folder and any((folder / manifest).exists() for manifest in MANIFESTS):
                subfolders.clear()
                continue
            skip = self.skip | {"checkpoints", "bundle"} if folder == self.folder else set()
            subfolders[:] = [name for name in subfolders if name not in skip and not name.startswith(".")]
            yield from (folder / name for name in sorted(names) if name not in skip and not name.startswith("."))
        for pattern in self.extra:
            yield from sorted(self.folder.glob(pattern))

    def _upload(self, path: Path) -> None:
        name = path.relative_to(self.folder).as_posix()
        with contextlib.suppress(FileNotFoundError):  # removed since the folder was listed
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if self.uploaded.get(name) != stamp:
                self.storage.upload(path, name)
                self.uploaded[name] = stamp

    def upload_bundle(self) -> None:
        """Replace the bundle; until it is complete, the old one stays aside, where `bundle.find` also looks."""
        manifest = self.folder / "bundle" / "bundle.json"
        if not manifest.exists():
            return
        stamp = (manifest.stat().st_mtime_ns, manifest.stat().st_ino)
        if self.uploaded.get("bundle") == stamp:
            return
        storage, remote_files = self.storage, self.storage.files("bundle")
        if "bundle/bundle.json" in remote_files:
            for name in sorted(remote_files, key=lambda name: name.endswith(MANIFESTS)):
                aside = f"{storage.root}/{name.replace('bundle', PREVIOUS_BUNDLE, 1)}"
                storage.system.create_dir(aside.rpartition("/")[0], recursive=True)
                storage.system.copy_file(f"{storage.root}/{name}", aside)
            storage.system.delete_file(f"{storage.root}/bundle/bundle.json")
        if self._upload_folder(manifest.parent, "bundle"):
            self.uploaded["bundle"] = stamp
            storage.remove(PREVIOUS_BUNDLE)

    def _upload_folder(self, folder: Path, name: str) -> bool:
        """Upload a folder, its manifest last; return false if it was replaced or pruned meanwhile."""
        manifest = next((folder / one for one in MANIFESTS if (folder / one).exists()), None)
        if manifest is None:
            return False
        try:
            inode = manifest.stat().st_ino
        except FileNotFoundError:
            return False
        try:
            for path in sorted(folder.iterdir(), key=lambda path: path.name in MANIFESTS):
                if path == manifest and manifest.stat().st_ino != inode:
                    return False
                self.storage.upload(path, f"{name}/{path.name}")
        except (FileNotFoundError, NotADirectoryError):
            if folder.exists() and manifest.exists() and manifest.stat().st_ino == inode:
                raise  # an error of the storage
            return False
        return True
