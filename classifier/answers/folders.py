"""Folders in which files are put as a whole: on this machine, or in storage that pyarrow can open."""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from filelock import Timeout

from classifier.errors import RunError
from classifier.storage.atomic import fsync
from classifier.storage.file_lock import open_lock, read_owner
from classifier.storage.uri import open_filesystem

if TYPE_CHECKING:
    from classifier.storage.bucket import Storage

LOCK, PART_SUFFIX = ".lock", ".part"


class AnswerFolder(Protocol):
    """A folder here or in storage. Files are replaced as a whole. OSError if it cannot be read or written."""

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if there is no such file."""
        ...

    def size(self, name: str) -> int | None: ...

    def put(self, name: str, write: Callable[[Path], object]) -> None:
        """Put a file in place that `write` writes to a path."""
        ...

    def list_files(self, folder: str) -> list[str]:
        """Return the names of the files directly in a subfolder, "" for the folder itself."""
        ...

    def remove(self, name: str) -> None: ...

    def lock(self, subfolders: Iterable[str]) -> contextlib.AbstractContextManager[None]:
        """Keep other processes out, where that is possible. subfolders: that are written to, too."""
        ...


class LocalFolder:
    """A folder on this machine, or one that machines share."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def size(self, name: str) -> int | None:
        path = self.path / name
        return path.stat().st_size if path.is_file() else None

    def put(self, name: str, write: Callable[[Path], object]) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PART_SUFFIX}")
        try:
            write(part)
            fsync(part)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def list_files(self, folder: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(entry.name for entry in os.scandir(self.path / folder) if entry.is_file())
        return []

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, subfolders: Iterable[str]) -> Iterator[None]:
        """Keep other processes out, and remove what those that were killed have not finished. RunError if one is in."""
        path = self.path / LOCK
        lock = open_lock(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout:
            raise RunError(f"{read_owner(path)} is writing to {self.path}: wait for it to end") from None
        try:
            for folder in ("", *subfolders):
                for name in self.list_files(folder):
                    if name.startswith(".") and name.endswith(PART_SUFFIX):
                        self.remove(f"{folder}/{name}" if folder else name)
            yield
        finally:
            lock.release()


class StorageFolder:
    """A folder in storage. Two that write to it at once both write the same answers."""

    def __init__(self, storage: "Storage") -> None:
        self.storage = storage

    def read(self, name: str) -> bytes | None:
        return self.storage.read(name)

    def size(self, name: str) -> int | None:
        return self.storage.system.get_file_info(f"{self.storage.root}/{name}").size

    def put(self, name: str, write: Callable[[Path], object]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write(path := Path(folder) / Path(name).name)
            self.storage.upload(path, name)

    def list_files(self, folder: str) -> list[str]:
        start = f"{folder}/" if folder else ""
        names = (name.removeprefix(start) for name in self.storage.files(folder))
        return sorted(name for name in names if "/" not in name)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.storage.remove(name)

    def lock(self, _: Iterable[str]) -> contextlib.AbstractContextManager[None]:
        """Storage has no locks."""
        return contextlib.nullcontext()


def open_folder(path: str) -> LocalFolder | StorageFolder:
    """Open a folder or a URI. ConfigError if pyarrow cannot open it."""
    if "://" not in path:
        return LocalFolder(Path(path))
    system, root = open_filesystem(path, "--answers")
    from classifier.storage.bucket import Storage

    return StorageFolder(Storage(system, root.rstrip("/"), path))
