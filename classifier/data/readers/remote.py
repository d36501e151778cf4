"""Files in storage (S3, Google Cloud, HDFS), with what of a Path the readers use."""

import functools
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pyarrow import fs

from classifier.data.readers.tree import PackedFile, file_identity, derive_identity
from classifier.errors import DataError, in_short
from classifier.storage.uri import open_filesystem


@dataclass(frozen=True)
class Remote:
    """A file or folder. size: in bytes; changed: its time of change in nanoseconds; both None where nobody asked."""

    system: fs.FileSystem
    pure: PurePosixPath
    size: int | None = None
    changed: int | None = None

    @classmethod
    def of(cls, uri: str) -> "Remote":
        """ConfigError if there is no such file system."""
        system, path = open_filesystem(uri, "data.path")
        return cls(system, PurePosixPath(path))

    def __str__(self) -> str:
        return f"{self.system.type_name}:{self.pure}"

    def __truediv__(self, name: str) -> "Remote":
        return Remote(self.system, self.pure / name)

    @property
    def name(self) -> str:
        return self.pure.name

    @property
    def stem(self) -> str:
        return self.pure.stem

    @property
    def suffix(self) -> str:
        return self.pure.suffix

    @property
    def parent(self) -> "Remote":
        return Remote(self.system, self.pure.parent)

    def relative_to(self, folder: "Remote") -> PurePosixPath:
        return self.pure.relative_to(folder.pure)

    def kind(self) -> fs.FileType:
        """File, Directory or NotFound. DataError if the storage does not answer."""
        try:
            return self.system.get_file_info(str(self.pure)).type
        except OSError as error:
            raise DataError(f"{self} cannot be read ({in_short(error)})") from None

    def is_file(self) -> bool:
        return self.kind() == fs.FileType.File

    def files(self) -> list["Remote"]:
        """All files below it, by name. DataError if the storage does not answer."""
        try:
            found = self.system.get_file_info(fs.FileSelector(str(self.pure), recursive=True))
        except OSError as error:
            raise DataError(f"{self} cannot be read ({in_short(error)})") from None
        files = [
            Remote(self.system, PurePosixPath(info.path), info.size, info.mtime_ns)
            for info in found
            if info.type == fs.FileType.File
        ]
        return sorted(files, key=lambda file: str(file.pure))

    def random_access(self) -> Any:
        """The file opened at once for reading anywhere in it. OSError as it comes."""
        return self.system.open_input_file(str(self.pure))

    def open(self, *, encoding: str, newline: str | None = None) -> IO[str]:
        return io.TextIOWrapper(self.system.open_input_stream(str(self.pure)), encoding=encoding, newline=newline)

    def read_bytes(self) -> bytes:
        with self.system.open_input_stream(str(self.pure)) as stream:
            return stream.read()

    def read_text(self, *, encoding: str) -> str:
        return self.read_bytes().decode(encoding)

    def identity(self) -> bytes | None:
        return None if self.changed is None else derive_identity(b"", str(self), self.size, self.changed)

    def pack(self) -> PackedFile:
        system, size, changed = self.system, self.size, self.changed
        make = functools.partial(_remote, system)
        return id(system), make, str(self.pure), -1 if size is None else size, -1 if changed is None else changed


def _remote(system: fs.FileSystem, path: str, size: int, changed: int) -> Remote:
    return Remote(system, PurePosixPath(path), *(None if value < 0 else value for value in (size, changed)))


def random_access(path: "Path | Remote") -> Any:
    """A file that is read anywhere, by several threads at once (`read_at`). OSError as it comes."""
    return path.random_access() if isinstance(path, Remote) else fs.LocalFileSystem().open_input_file(str(path))


def identity_of(path: "Path | Remote") -> bytes | None:
    """See tree.identity."""
    return path.identity() if isinstance(path, Remote) else file_identity(path)


def named_from(paths: "Sequence[Path] | Sequence[Remote]") -> "tuple[Path | Remote, list[str]]":
    """The folder that all of them lie in, at any depth, and the name of each from there on, with slashes."""
    pures = [path.pure if isinstance(path, Remote) else PurePosixPath(path.as_posix()) for path in paths]
    home = os.path.commonpath([str(pure.parent) for pure in pures])
    first = paths[0]
    folder = Remote(first.system, PurePosixPath(home)) if isinstance(first, Remote) else Path(home)
    return folder, [pure.relative_to(home).as_posix() for pure in pures]
