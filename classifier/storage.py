"""A run's copy in storage that outlives the machine: STORAGE/NAME in any file system that pyarrow opens.

A run is worked in on a disk of the machine that trains. A Mirror makes its copy like it, in a thread of its own, so
that no training waits for a network: bundle, journal and checkpoints in this order, and in each of them the document
with the checksums last. So what a reader finds there is whole, and the checkpoint is never ahead of the journal.
"""

import contextlib
import dataclasses
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pyarrow import fs

from classifier.errors import RunError
from classifier.files import patiently
from classifier.filesystem import opened

logger = logging.getLogger(__name__)
# Seconds between two looks at the folder, and at most so many where the storage does not answer.
EVERY, SELDOM = 2.0, 60.0
# A folder with one of these is whole once that file is there, which is written last.
DOCUMENTS = ("manifest.json", "bundle.json")
# Folders of Ray's own; trials, which have a mirror each where they need one; and what can be seen again in the images.
NOT_MIRRORED = ("ray", "trials", "features")
# Renaming is atomic here; elsewhere a file is there only once it was written to its end.
RENAMING = ("local", "hdfs")
PART = ".part"
OLDER = ".bundle.older"


@dataclass(frozen=True)
class Storage:
    """One run's folder in storage. Names of files are relative, with slashes."""

    system: fs.FileSystem
    root: str
    uri: str = ""
    """As it was given; root holds the run's name too."""

    @classmethod
    def at(cls, uri: str, name: str) -> "Storage":
        """STORAGE/NAME. ConfigError if pyarrow cannot open it, or if it holds a secret."""
        uri = uri if "://" in uri else str(Path(uri).resolve())
        system, root = opened(uri, "--storage")
        return cls(system, f"{root.rstrip('/')}/{name}", uri)

    def below(self, name: str) -> "Storage":
        """A folder of it, as a storage of its own."""
        return dataclasses.replace(self, root=f"{self.root}/{name}")

    def files(self, folder: str = "") -> dict[str, int]:
        """The files below a folder, with their bytes; none of those that are being written."""
        place = f"{self.root}/{folder}".rstrip("/")
        found = self.system.get_file_info(fs.FileSelector(place, recursive=True, allow_not_found=True))
        there = [info for info in found if info.type == fs.FileType.File and not info.path.endswith(PART)]
        return {info.path.removeprefix(f"{self.root}/"): info.size for info in there}

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is none."""
        try:
            with self.system.open_input_stream(f"{self.root}/{name}") as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def put(self, path: Path, name: str) -> None:
        """Copy a local file; a reader sees the old content or the new."""
        place = f"{self.root}/{name}"
        part = f"{place}{PART}" if self.system.type_name in RENAMING else place
        self.system.create_dir(place.rpartition("/")[0], recursive=True)
        with path.open("rb") as file, self.system.open_output_stream(part) as stream:
            while block := file.read(1 << 22):
                stream.write(block)
        if part != place:
            self.system.move(part, place)

    def get(self, name: str, path: Path) -> None:
        """Copy a file from the storage to a local path, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with self.system.open_input_stream(f"{self.root}/{name}") as stream, part.open("wb") as file:
            while block := stream.read(1 << 22):
                file.write(block)
        os.replace(part, path)

    def remove(self, folder: str) -> None:
        """Remove a file or a folder; its document first: what is left by a death in between counts for nothing."""
        if self.system.get_file_info(f"{self.root}/{folder}".rstrip("/")).type == fs.FileType.File:
            self.system.delete_file(f"{self.root}/{folder}")
            return
        for name in sorted(self.files(folder), key=lambda name: not name.endswith(DOCUMENTS)):
            self.system.delete_file(f"{self.root}/{name}")
        with contextlib.suppress(FileNotFoundError):
            self.system.delete_dir(f"{self.root}/{folder}".rstrip("/"))

    def newest_step(self) -> int:
        """The step of the newest whole checkpoint there; -1 where there is none."""
        return max((_step(name) for name in self.files("checkpoints") if name.endswith(DOCUMENTS)), default=-1)

    def pull(self, folder: Path, *, wanted: Callable[[str], bool] = lambda _: True) -> None:
        """Copy the run's files into a local folder, over those that are there; documents last.

        A bundle or checkpoint that a death left without its document is as good as absent.
        """
        names = self.files()
        whole = {_place(name) for name in names if name.endswith(DOCUMENTS)}
        there = [name for name in names if _place(name) in whole or not _has_document(_place(name))]
        for name in sorted(filter(wanted, there), key=lambda name: name.endswith(DOCUMENTS)):
            self.get(name, folder / name)


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
        more: Collection[str] = (),
        fetch: str | None = None,
    ) -> None:
        """skip: what other processes keep there. more: patterns of files below NOT_MIRRORED that are kept all the same.
        fetch: a file that comes from there."""
        self.folder, self.storage = folder, storage
        self.skip, self.more, self.fetch = {*NOT_MIRRORED, *skip}, more, fetch
        self.sent: dict[str, tuple[int, int]] = {}
        names = storage.files("checkpoints")
        self.there = {_step(name) for name in names}
        self.whole = {_step(name) for name in names if name.endswith(DOCUMENTS)}
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._follow, name="mirror", daemon=True)

    def __enter__(self) -> "Mirror":
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.over.set()
        self.thread.join()
        try:
            patiently(self.sync, self.storage.root)
        except RunError:
            if error is None:  # the first error is the one to tell
                raise

    def sync(self) -> None:
        """Bring the copy up to date. OSError if the storage cannot be reached."""
        with self.lock:  # two at once would move away what the other writes
            self._sync()

    def _sync(self) -> None:
        if self.fetch is not None and not (self.folder / self.fetch).exists():
            with contextlib.suppress(FileNotFoundError):
                self.storage.get(self.fetch, self.folder / self.fetch)
        # Looked for first: the journal that is sent after this has at least the epochs of these.
        places = [path.parent for path in self.folder.glob("checkpoints/*/manifest.json")]
        checkpoints = {_step(place.name): place for place in places if "checkpoints" not in self.skip}
        if "bundle" not in self.skip:
            self.send_bundle()
        for path in self._plain_files():
            self._send(path)
        for step, place in sorted(checkpoints.items()):
            if step not in self.whole and self._send_folder(place, place.relative_to(self.folder).as_posix()):
                self.whole.add(step)
                self.there.add(step)
        for step in sorted(self.there - checkpoints.keys()) if checkpoints else ():
            if step < max(checkpoints):  # pruned here
                self.storage.remove(f"checkpoints/step-{step:08d}")
                self.there.discard(step)

    def _follow(self) -> None:
        pause, failed = EVERY, False
        while not self.over.wait(pause):
            try:
                self.sync()
            except Exception as error:  # whatever it is, the next checkpoint must find somebody who sends it
                if not failed:
                    why = error if isinstance(error, OSError) else repr(error)
                    logger.warning("%s does not answer (%s): the run goes on without", self.storage.root, why)
                pause, failed = min(2 * pause, SELDOM), True
            else:
                if failed:
                    logger.warning("%s answers again, and has it all", self.storage.root)
                pause, failed = EVERY, False

    def _plain_files(self) -> Iterator[Path]:
        for top, folders, names in os.walk(self.folder):
            place = Path(top)
            if place != self.folder and any((place / document).exists() for document in DOCUMENTS):
                folders.clear()
                continue
            skipped = self.skip | {"checkpoints", "bundle"} if place == self.folder else set()
            folders[:] = [name for name in folders if name not in skipped and not name.startswith(".")]
            yield from (place / name for name in sorted(names) if name not in skipped and not name.startswith("."))
        for pattern in self.more:
            yield from sorted(self.folder.glob(pattern))

    def _send(self, path: Path) -> None:
        name = path.relative_to(self.folder).as_posix()
        with contextlib.suppress(FileNotFoundError):  # it was there when the folder was looked at
            about = path.stat()
            stamp = (about.st_mtime_ns, about.st_size)
            if self.sent.get(name) != stamp:
                self.storage.put(path, name)
                self.sent[name] = stamp

    def send_bundle(self) -> None:
        """In place of the older one, which steps aside until the new one is whole: `bundle.find` looks there too."""
        document = self.folder / "bundle" / "bundle.json"
        if not document.exists():
            return
        stamp = (document.stat().st_mtime_ns, document.stat().st_ino)
        if self.sent.get("bundle") == stamp:
            return
        storage, there = self.storage, self.storage.files("bundle")
        if "bundle/bundle.json" in there:
            for name in sorted(there, key=lambda name: name.endswith(DOCUMENTS)):
                aside = f"{storage.root}/{name.replace('bundle', OLDER, 1)}"
                storage.system.create_dir(aside.rpartition("/")[0], recursive=True)
                storage.system.copy_file(f"{storage.root}/{name}", aside)
            storage.system.delete_file(f"{storage.root}/bundle/bundle.json")
        if self._send_folder(document.parent, "bundle"):
            self.sent["bundle"] = stamp
            storage.remove(OLDER)

    def _send_folder(self, place: Path, name: str) -> bool:
        """Send a folder, its document last; false if another took its place meanwhile, or it was pruned."""
        document = next((place / one for one in DOCUMENTS if (place / one).exists()), None)
        if document is None:
            return False
        try:
            before = document.stat().st_ino
        except FileNotFoundError:
            return False
        try:
            for path in sorted(place.iterdir(), key=lambda path: path.name in DOCUMENTS):
                if path == document and document.stat().st_ino != before:
                    return False
                self.storage.put(path, f"{name}/{path.name}")
        except (FileNotFoundError, NotADirectoryError):
            if place.exists() and document.exists() and document.stat().st_ino == before:
                raise  # the storage's own
            return False
        return True


def _place(name: str) -> str:
    """The folder that a file lies in."""
    return name.rpartition("/")[0]


def _has_document(place: str) -> bool:
    """Whether the folder is a bundle or a checkpoint, whole once its document is there."""
    last = place.rpartition("/")[2]
    return last in ("bundle", OLDER) or last.startswith("step-")


def _step(name: str) -> int:
    """The step of a checkpoint's folder, or of a file in it."""
    return int(name.rpartition("step-")[2].partition("/")[0])
