"""Pictures inside of zip and tar archives, read where they lie: nothing is unpacked.

An archive comes from anyone: a name that leads out of it is refused, a link or a device in it is left out, and no
member is read that says it is larger than data.max_bytes, or turns out to be.
"""

import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier.data.readers.folder import read_tree
from classifier.data.readers.remote import Remote, identity_of, random_access
from classifier.data.readers.source import Source
from classifier.data.readers.tree import Listed, Packed, Tree, part_of
from classifier.errors import DataError, in_short

SUFFIXES = (".zip", ".tar")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar")


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive; `size` in bytes, as the archive says."""

    name: str
    size: int
    archive: Path | Remote
    read: Callable[["Member"], bytes]
    at: int
    """Where `read` finds it."""

    def read_bytes(self) -> bytes:
        return self.read(self)

    def identity(self) -> bytes | None:
        return part_of(identity_of(self.archive), self.name, self.size)

    def packed(self) -> Packed:
        archive, read = self.archive, self.read
        return read, lambda name, at, size: Member(name, size, archive, read, at), self.name, self.at, self.size


def read(path: Path | Remote) -> Source:
    """The pictures of a .zip or .tar file that holds a folder of class folders.

    DataError if it is damaged, encrypted, or names a file outside itself.
    """
    members = zipped(path) if path.suffix.lower() == ".zip" else tarred(path)
    return read_tree(_unwrapped(Listed(str(path), ((member.name, member) for member in members))), path.stem)


def zipped(path: Path | Remote) -> Iterator[Member]:
    """The files of a zip archive."""
    try:
        archive = zipfile.ZipFile(_opened(path))
        found = archive.infolist()
    # Python raises NotImplementedError for a kind of zip that it cannot read.
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path} is no zip archive, or damaged ({in_short(error)}): fetch it again") from None
    lock = threading.Lock()

    def read(member: Member) -> bytes:
        try:
            with lock:  # the archive's one file has one place to read at
                content = archive.read(found[member.at])
        # Python raises NotImplementedError for a way to compress that it does not know; it is a RuntimeError.
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
            raise OSError(f"damaged in its archive: {in_short(error)}") from None
        return content

    for at, info in enumerate(found):
        if not info.filename or info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
            continue
        if info.flag_bits & 1:
            raise DataError(f"{path}: {info.filename} is encrypted: unpack the archive, and give its folder")
        yield Member(inside(path, info.filename), info.file_size, path, read, at)


def tarred(path: Path | Remote) -> Iterator[Member]:
    """The files of a tar archive, which threads may read all at once."""
    file = _opened(path)

    def read(member: Member) -> bytes:
        content = file.read_at(member.size, member.at)
        if len(content) < member.size:
            raise OSError("truncated in its archive")
        return content

    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:  # pyright: ignore[reportArgumentType]
            for info in archive:
                if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse():
                    yield Member(inside(path, info.name), info.size, path, read, info.offset_data)
                archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - it would keep them all
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"{path} is no tar archive, or damaged ({in_short(error)}): fetch it again") from None


def inside(path: object, name: str) -> str:
    """The name, spelled in one way. DataError if it leads out of the archive."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts or name.startswith(("/", "\\")) or (parts and ":" in parts[0]) or "\0" in name:
        raise DataError(f"{path}: {name!r} leads out of the archive: do not trust it, or pack it anew")
    return "/".join(parts)


def refuse_compressed(path: Path | Remote) -> None:
    """DataError if it is an archive whose members cannot be read one by one."""
    if path.name.lower().endswith(COMPRESSED):
        raise DataError(
            f"{path} is compressed as a whole, so that no picture in it can be read alone: unpack it and give its "
            "folder, or pack it as a plain .tar or .zip (pictures are compressed already)"
        )


def _unwrapped(top: Listed) -> Tree:
    """Archives often hold one folder, which holds all."""
    here: Tree = top
    while len(here.folders) == 1 and not here.pictures and here.folders[0].folders and not here.folders[0].pictures:
        here = here.folders[0]
    return here


def _opened(path: Path | Remote) -> Any:
    try:
        return random_access(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({in_short(error)}): give it the right to be read") from None
