"""A run's copy in storage that outlives the machine: STORAGE/NAME in any file system that pyarrow opens.

A run is worked in on a disk of the machine that trains. A Mirror makes its copy like it, in a thread of its own, so
that no training waits for a network: bundle, journal and checkpoints in this order, and in each of them the document
with the checksums last. So what a reader finds there is whole, and the checkpoint is never ahead of the journal.
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
# Seconds between two looks at the folder, and at most so many where the storage does not answer.
SYNC_SECONDS, MAX_SYNC_SECONDS = 2.0, 60.0
# Folders of Ray's own; trials, which have a mirror each where they need one; and what can be seen again in the images.
NOT_MIRRORED = ("ray", "trials", "features")


class Mirror:
    """Keeps a run's copy in storage like its folder, while it is used as a context.

    Where the storage does not answer, the training goes on, and the copy catches up later: an outage is logged. At the
    end it waits as `patiently` does; RunError names what is then only on this machine.
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
        """skip: what other processes keep there. more: patterns of files below NOT_MIRRORED that are kept all the same.
        fetch: a file that comes from there."""
        self.folder, self.storage = folder, storage
        self.skip, self.extra, self.download = {*NOT_MIRRORED, *skip}, extra, download
        self.uploaded: dict[str, tuple[int, int]] = {}
        names = storage.files("checkpoints")
        self.remote_steps = {step_of(name) for name in names}
        self.complete_steps = {step_of(name) for name in names if name.endswith(MANIFESTS)}
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._follow, name="mirror", daemon=True)

    def __enter__(self) -> "Mirror":
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stopped.set()
        self.thread.join()
        try:
            retry_io(self.sync, self.storage.root)
        except RunError:
            if error is None:  # the first error is the one to tell
                raise

    def sync(self) -> None:
        """Bring the copy up to date. OSError if the storage cannot be reached."""
        with self.lock:  # two at once would move away what the other writes
            self._sync()

    def _sync(self) -> None:
        if self.download is not None and not (self.folder / self.download).exists():
            with contextlib.suppress(FileNotFoundError):
                self.storage.download(self.download, self.folder / self.download)
        # Looked for first: the journal that is sent after this has at least the epochs of these.
        places = [path.parent for path in self.folder.glob("checkpoints/*/manifest.json")]
        checkpoints = {step_of(place.name): place for place in places if "checkpoints" not in self.skip}
        if "bundle" not in self.skip:
            self.upload_bundle()
        for path in self._plain_files():
            self._upload(path)
        for step, place in sorted(checkpoints.items()):
            if step not in self.complete_steps and self._upload_folder(
                place, place.relative_to(self.folder).as_posix()
            ):
                self.complete_steps.add(step)
                self.remote_steps.add(step)
        for step in sorted(self.remote_steps - checkpoints.keys()) if checkpoints else ():
            if step < max(checkpoints):  # pruned here
                self.storage.remove(f"checkpoints/step-{step:08d}")
                self.remote_steps.discard(step)

    def _follow(self) -> None:
        pause, failed = SYNC_SECONDS, False
        while not self.stopped.wait(pause):
            try:
                self.sync()
            except Exception as error:  # whatever it is, the next checkpoint must find somebody who sends it
                if not failed:
                    why = error if isinstance(error, OSError) else repr(error)
                    logger.warning("%s does not answer (%s): the run goes on without", self.storage.root, why)
                pause, failed = min(2 * pause, MAX_SYNC_SECONDS), True
            else:
                if failed:
                    logger.warning("%s answers again, and has it all", self.storage.root)
                pause, failed = SYNC_SECONDS, False

    def _plain_files(self) -> Iterator[Path]:
        for top, folders, names in os.walk(self.folder):
            place = Path(top)
            if place != self.folder and any((place / document).exists() for document in MANIFESTS):
                folders.clear()
                continue
            skipped = self.skip | {"checkpoints", "bundle"} if place == self.folder else set()
            folders[:] = [name for name in folders if name not in skipped and not name.startswith(".")]
            yield from (place / name for name in sorted(names) if name not in skipped and not name.startswith("."))
        for pattern in self.extra:
            yield from sorted(self.folder.glob(pattern))

    def _upload(self, path: Path) -> None:
        name = path.relative_to(self.folder).as_posix()
        with contextlib.suppress(FileNotFoundError):  # it was there when the folder was looked at
            about = path.stat()
            stamp = (about.st_mtime_ns, about.st_size)
            if self.uploaded.get(name) != stamp:
                self.storage.upload(path, name)
                self.uploaded[name] = stamp

    def upload_bundle(self) -> None:
        """In place of the older one, which steps aside until the new one is whole: `bundle.find` looks there too."""
        document = self.folder / "bundle" / "bundle.json"
        if not document.exists():
            return
        stamp = (document.stat().st_mtime_ns, document.stat().st_ino)
        if self.uploaded.get("bundle") == stamp:
            return
        storage, there = self.storage, self.storage.files("bundle")
        if "bundle/bundle.json" in there:
            for name in sorted(there, key=lambda name: name.endswith(MANIFESTS)):
                aside = f"{storage.root}/{name.replace('bundle', PREVIOUS_BUNDLE, 1)}"
                storage.system.create_dir(aside.rpartition("/")[0], recursive=True)
                storage.system.copy_file(f"{storage.root}/{name}", aside)
            storage.system.delete_file(f"{storage.root}/bundle/bundle.json")
        if self._upload_folder(document.parent, "bundle"):
            self.uploaded["bundle"] = stamp
            storage.remove(PREVIOUS_BUNDLE)

    def _upload_folder(self, place: Path, name: str) -> bool:
        """Send a folder, its document last; false if another took its place meanwhile, or it was pruned."""
        document = next((place / one for one in MANIFESTS if (place / one).exists()), None)
        if document is None:
            return False
        try:
            before = document.stat().st_ino
        except FileNotFoundError:
            return False
        try:
            for path in sorted(place.iterdir(), key=lambda path: path.name in MANIFESTS):
                if path == document and document.stat().st_ino != before:
                    return False
                self.storage.upload(path, f"{name}/{path.name}")
        except (FileNotFoundError, NotADirectoryError):
            if place.exists() and document.exists() and document.stat().st_ino == before:
                raise  # the storage's own
            return False
        return True
