"""Images in zip and tar archives, read in place: nothing is unpacked.

Archives are untrusted: a name that leads out of the archive is an error, links and devices are ignored, and members
larger than data.max_bytes, by their header or in fact, are not read.
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
from classifier.data.readers.remote import RemotePath, open_random_access, path_identity
from classifier.data.readers.source import Source
from classifier.data.readers.tree import ListedFolder, PackedFile, Tree, derive_identity
from classifier.errors import DataError, in_short

SUFFIXES = (".zip", ".tar")
COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar")


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive. size: in bytes, from the archive's header."""

    name: str
    size: int
    archive: Path | RemotePath
    read: Callable[["Member"], bytes]
    position: int
    """For `read`: a zip member's index, a tar member's offset in bytes."""

    def read_bytes(self) -> bytes:
        return self.read(self)

    def identity(self) -> bytes | None:
        return derive_identity(path_identity(self.archive), self.name, self.size)

    def pack(self) -> PackedFile:
        archive, read = self.archive, self.read
        return (
            read,
            lambda name, position, size: Member(name, size, archive, read, position),
            self.name,
            self.position,
            self.size,
        )


def read_archive(path: Path | RemotePath) -> Source:
    """Find the images in a .zip or .tar file of class folders.

    DataError if it is corrupted or encrypted, or names a file outside itself.
    """
    members = list_zip_members(path) if path.suffix.lower() == ".zip" else list_tar_members(path)
    return read_tree(_unwrap(ListedFolder(str(path), ((member.name, member) for member in members))), path.stem)


def list_zip_members(path: Path | RemotePath) -> Iterator[Member]:
    """Yield the files in a zip archive."""
    try:
        archive = zipfile.ZipFile(_open(path))
        infos = archive.infolist()
    # NotImplementedError: a zip version that Python cannot read.
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path} is not a zip archive, or corrupted ({in_short(error)}): download it again") from None
    lock = threading.Lock()

    def read(member: Member) -> bytes:
        try:
            with lock:  # all members share one file handle and its position
                content = archive.read(infos[member.position])
        # NotImplementedError, for an unknown compression method, is a RuntimeError.
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
            raise OSError(f"corrupted in its archive: {in_short(error)}") from None
        return content

    for index, info in enumerate(infos):
        if not info.filename or info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
            continue
        if info.flag_bits & 1:
            raise DataError(f"{path}: {info.filename} is encrypted: unpack the archive and give the folder")
        yield Member(normalize_member_name(path, info.filename), info.file_size, path, read, index)


def list_tar_members(path: Path | RemotePath) -> Iterator[Member]:
    """Yield the files in a tar archive. They may be read from several threads at once."""
    file = _open(path)

    def read(member: Member) -> bytes:
        content = file.read_at(member.size, member.position)
        if len(content) < member.size:
            raise OSError("truncated in its archive")
        return content

    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:  # pyright: ignore[reportArgumentType]
            for info in archive:
                if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse():
                    yield Member(normalize_member_name(path, info.name), info.size, path, read, info.offset_data)
                archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - or it would keep all of them in memory
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"{path} is not a tar archive, or corrupted ({in_short(error)}): download it again") from None


def normalize_member_name(path: object, name: str) -> str:
    """Return the name in one canonical spelling. DataError if it leads out of the archive."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts or name.startswith(("/", "\\")) or (parts and ":" in parts[0]) or "\0" in name:
        raise DataError(f"{path}: {name!r} leads out of the archive: do not trust this archive, or repack it")
    return "/".join(parts)


def reject_compressed(path: Path | RemotePath) -> None:
    """Raise a DataError for an archive whose members cannot be read one by one."""
    if path.name.lower().endswith(COMPRESSED_SUFFIXES):
        raise DataError(
            f"{path} is compressed as a whole, so its images cannot be read one by one: unpack it and give the "
            "folder, or pack it as a plain .tar or .zip (images are already compressed)"
        )


def _unwrap(top: ListedFolder) -> Tree:
    """Skip the single top folder that archives often have."""
    tree: Tree = top
    while len(tree.folders) == 1 and not tree.image_files:
        inner = tree.folders[0]
        if not inner.folders or inner.image_files:
            break
        tree = inner
    return tree


def _open(path: Path | RemotePath) -> Any:
    try:
        return open_random_access(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({in_short(error)}): make it readable") from None
