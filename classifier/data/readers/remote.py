"""Files in remote storage (S3, Google Cloud, HDFS), with the parts of pathlib.Path that the readers use."""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow import fs

from classifier.data.readers.file_bytes import PackedFile, derive_identity, file_identity
from classifier.errors import DataError, in_short
from classifier.storage.uri import open_filesystem


@dataclass(frozen=True)
class RemotePath:
    """A file or folder. size: in bytes; mtime_ns: modification time; both None if not queried."""

    system: fs.FileSystem
    path: PurePosixPath
    size: int | None = None
    mtime_ns: int | None = None

    @classmethod
    def from_uri(cls, uri: str) -> "RemotePath":
        """Open a URI. ConfigError if its file system is unknown."""
        system, path = open_filesystem(uri, "data.path")
        return cls(system, PurePosixPath(path))

    def __str__(self) -> str:
        return f"{self.system.type_name}:{self.path}"

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(self.system, self.path / name)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def suffix(self) -> str:
        return self.path.suffix

    @property
    def parent(self) -> "RemotePath":
        return RemotePath(self.system, self.path.parent)

    def relative_to(self, folder: "RemotePath") -> PurePosixPath:
        return self.path.relative_to(folder.path)

    def file_type(self) -> fs.FileType:
        """Return File, Directory or NotFound. DataError if the storage does not respond."""
        try:
            return self.system.get_file_info(str(self.path)).type
        except OSError as error:
            raise DataError(f"{self} cannot be read ({in_short(error)})") from None

    def is_file(self) -> bool:
        return self.file_type() == fs.FileType.File

    def list_files(self) -> list["RemotePath"]:
        """Return all files below it, sorted by name. DataError if the storage does not respond."""
        try:
            found = self.system.get_file_info(fs.FileSelector(str(self.path), recursive=True))
        except OSError as error:
            raise DataError(f"{self} cannot be read ({in_short(error)})") from None
        files = [
            RemotePath(self.system, PurePosixPath(info.path), info.size, info.mtime_ns)
            for info in found
            if info.type == fs.FileType.File
        ]
        return sorted(files, key=lambda file: str(file.path))

    def open_random_access(self) -> Any:
        """Open the file for random access. Raises OSError."""
        return self.system.open_input_file(str(self.path))

    def read_bytes(self) -> bytes:
        with self.system.open_input_stream(str(self.path)) as stream:
            return stream.read()

    def identity(self) -> bytes | None:
        return None if self.mtime_ns is None else derive_identity(b"", str(self), self.size, self.mtime_ns)

    def pack(self) -> PackedFile:
        system, size, mtime_ns = self.system, self.size, self.mtime_ns
        make = functools.partial(_create_remote, system)
        return id(system), make, str(self.path), -1 if size is None else size, -1 if mtime_ns is None else mtime_ns


def _create_remote(system: fs.FileSystem, path: str, size: int, mtime_ns: int) -> RemotePath:
    return RemotePath(system, PurePosixPath(path), *(None if value < 0 else value for value in (size, mtime_ns)))


def open_random_access(path: "Path | RemotePath") -> Any:
    """Open a file for random access, from several threads at once (`read_at`). Raises OSError."""
    return (
        path.open_random_access() if isinstance(path, RemotePath) else fs.LocalFileSystem().open_input_file(str(path))
    )


def path_identity(path: "Path | RemotePath") -> bytes | None:
    """tree.file_identity, for local and remote files."""
    return path.identity() if isinstance(path, RemotePath) else file_identity(path)


def split_common_folder(paths: "Sequence[Path] | Sequence[RemotePath]") -> "tuple[Path | RemotePath, list[str]]":
    """Return the deepest folder that contains all paths, and the name of each relative to it, with slashes."""
    pure_paths = [path.path if isinstance(path, RemotePath) else PurePosixPath(path.as_posix()) for path in paths]
    top = os.path.commonpath([str(pure.parent) for pure in pure_paths])
    first = paths[0]
    folder = RemotePath(first.system, PurePosixPath(top)) if isinstance(first, RemotePath) else Path(top)
    return folder, [pure.relative_to(top).as_posix() for pure in pure_paths]
