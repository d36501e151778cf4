"""Images in zip and tar archives, read in place: nothing is unpacked.

Archives are untrusted: a name that leads out of the archive is an error, links and devices are left out, and members
larger than data.max_bytes, by their header or in fact, are not read.
"""

import bz2
import copy
import dataclasses
import lzma
import re
import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier.data.readers.file_bytes import PackedFile, derive_identity
from classifier.data.readers.folder import read_tree
from classifier.data.readers.remote import RemotePath, open_random_access, path_identity
from classifier.data.readers.source import Source
from classifier.data.readers.tree import ListedFolder, is_hidden
from classifier.errors import DataError, in_short, list_few

SUFFIXES = (".zip", ".tar")
MAX_HEADER_BYTES = 1 << 20
"""Of a tar's extended headers: a long name, or attributes."""
_EXTENDED_HEADERS = (*tarfile.GNU_TYPES[:2], tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
MAX_PACKING_BYTES = 1 << 12
"""By which a zip member may be larger than twice its content."""
MAX_LZMA_BYTES = 1 << 28
_DOS_FOLDER = 0x10  # of a zip member's attributes
_ZIP_ENCRYPTED, _ZIP_UTF8 = 0x1, 0x800  # flags of a zip member
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

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"

    def read_bytes(self) -> bytes:
        return self.read(self)

    def identity(self) -> bytes | None:
        return derive_identity(path_identity(self.archive), self.name, self.size)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, as for a process on another machine, it opens its archive there."""
        return _reopen_member, (self.name, self.size, self.archive, self.position)

    def pack(self) -> PackedFile:
        archive, read = self.archive, self.read
        return (
            read,
            lambda name, position, size: Member(name, size, archive, read, position),
            self.name,
            self.position,
            self.size,
        )


def read_archive(path: Path | RemotePath, *, is_nested: bool = False) -> Source:
    """Find the images in a .zip or .tar file of class folders. is_nested: as for read_tree.

    DataError if it is corrupted or encrypted, or names a file outside itself.
    """
    left_out, guessed, findings = list[str](), list[str](), []
    is_zip = path.suffix.lower() == ".zip"
    members = list_zip_members(path, left_out, guessed) if is_zip else list_tar_members(path, left_out)
    listed = ListedFolder(str(path), ((member.name, member) for member in members))
    source = read_tree(listed, path.stem, is_nested=is_nested)
    if left_out:
        findings.append(f"{len(left_out):,} links and devices in {path.name} were left out: {list_few(left_out)}.")
    if guessed:
        findings.append(
            f"{path.name} does not say how its names are encoded, and code page 437 was assumed: {list_few(guessed)}; "
            "if these look wrong, unpack it and give the folder."
        )
    return dataclasses.replace(source, findings=(*source.findings, *findings)) if findings else source


def list_zip_members(
    path: Path | RemotePath, left_out: list[str] | None = None, guessed: list[str] | None = None
) -> Iterator[Member]:
    """Yield the files in a zip archive.

    left_out: gets the names of visible members that are no files. guessed: the visible names of unknown encoding.
    """
    infos, read = _open_zip(path)
    for index, info in enumerate(infos):
        name, is_guess = _decode_zip_name(info)
        if not name or name.endswith(("/", "\\")) or (info.external_attr & _DOS_FOLDER and not info.file_size):
            continue
        name = normalize_member_name(path, name)
        if stat.S_ISLNK(info.external_attr >> 16):
            _note(name, left_out)
            continue
        if info.flag_bits & _ZIP_ENCRYPTED:
            raise DataError(f"{path}: {name} is encrypted: unpack the archive and give the folder")
        if is_guess:
            _note(name, guessed)
        yield Member(name, info.file_size, path, read, index)


def _open_zip(path: Path | RemotePath) -> tuple[list[zipfile.ZipInfo], Callable[[Member], bytes]]:
    """Return the headers of the members, and the function that reads one."""
    try:
        archive = zipfile.ZipFile(_open(path))
        infos = archive.infolist()
    except Exception as error:  # a corrupted archive can fail in any way
        raise DataError(f"{path} is not a zip archive, or corrupted ({in_short(error)}): download it again") from None
    lock = threading.Lock()

    def read(member: Member) -> bytes:
        try:
            with lock:  # all members share one file handle and its position
                packed = _read_packed(archive, infos[member.position])
            return _unpack(packed, infos[member.position])
        except Exception as error:  # each method of compression has errors of its own
            raise OSError(f"corrupted in its archive: {in_short(error)}") from None

    return infos, read


def _read_packed(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Read the bytes of a zip member as they are stored. Any exception if they are damaged."""
    if info.compress_size > 2 * info.file_size + MAX_PACKING_BYTES:
        raise OSError("it is larger than its header says")
    stored: Any = copy.copy(info)
    stored.compress_type, stored.file_size, stored.CRC = zipfile.ZIP_STORED, info.compress_size, None
    return archive.read(stored)


def _unpack(packed: bytes, info: zipfile.ZipInfo) -> bytes:
    """Return the content of a zip member; zipfile would unpack gigabytes from a few bytes, whatever size is stated.

    Any exception if it is damaged.
    """
    limit = info.file_size + 1
    match info.compress_type:
        case zipfile.ZIP_STORED:
            content = packed
        case zipfile.ZIP_DEFLATED:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, limit)
        case zipfile.ZIP_BZIP2:
            content = bz2.BZ2Decompressor().decompress(packed, limit)
        case zipfile.ZIP_LZMA:  # a version, the length of the properties, and these; then as a .lzma of unknown length
            (length,) = struct.unpack_from("<H", packed, 2)
            decompressor = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAX_LZMA_BYTES)
            content = decompressor.decompress(packed[4 : 4 + length] + b"\xff" * 8 + packed[4 + length :], limit)
        case method:
            raise OSError(f"compression method {method} is not supported: pack it again")
    if len(content) != info.file_size:
        raise OSError("it is not as large as its header says")
    if zlib.crc32(content) != info.CRC:
        raise OSError("its checksum differs")
    return content


def list_tar_members(path: Path | RemotePath, left_out: list[str] | None = None) -> Iterator[Member]:
    """Yield the files in a tar archive. They may be read from several threads at once.

    left_out: gets the names of visible members that are no files.
    """
    file = _open(path)
    read = _make_tar_reader(file)
    try:
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_BoundedTarInfo) as archive:
            for info in archive:
                _BoundedTarInfo.check_size(info)  # again: an extended header may have set another
                if not info.isdir() and not info.name.endswith("\\"):
                    name = normalize_member_name(path, info.name)
                    if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse():
                        yield Member(name, info.size, path, read, info.offset_data)
                    else:
                        _note(name, left_out)
                archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - or it would keep all of them in memory
            if any(file.read_at(tarfile.BLOCKSIZE, archive.offset)):  # tarfile ends where it finds no header
                raise tarfile.ReadError(f"there is no header at byte {archive.offset:,}")
    except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{path} is not a tar archive, or corrupted ({in_short(error)}): download it again") from None


def _make_tar_reader(file: Any) -> Callable[[Member], bytes]:
    def read(member: Member) -> bytes:
        content = file.read_at(member.size, member.position)
        if len(content) < member.size:
            raise OSError("truncated in its archive")
        return content

    return read


_readers: OrderedDict[str, Callable[[Member], bytes]] = OrderedDict()
_MAX_READERS = 4
"""Archives that stay open for members that came from another process."""


def _reopen_member(name: str, size: int, archive: Path | RemotePath, position: int) -> Member:
    if (read := _readers.get(str(archive))) is None:
        is_zip = archive.suffix.lower() == ".zip"
        read = _open_zip(archive)[1] if is_zip else _make_tar_reader(_open(archive))
        _readers[str(archive)] = read
        while len(_readers) > _MAX_READERS:
            _readers.popitem(last=False)
    return Member(name, size, archive, read, position)


class _BoundedTarInfo(tarfile.TarInfo):
    """A tar header. One with a negative size, which would lead tarfile back, or made to fill the memory is refused."""

    @classmethod
    def frombuf(cls, *args: Any, **options: Any) -> Any:
        return cls.check_size(super().frombuf(*args, **options))

    @staticmethod
    def check_size(info: tarfile.TarInfo) -> tarfile.TarInfo:
        if info.size < 0 or (info.type in _EXTENDED_HEADERS and info.size > MAX_HEADER_BYTES):
            raise tarfile.HeaderError(f"a header with a size of {info.size:,} bytes")
        return info


def _decode_zip_name(info: zipfile.ZipInfo) -> tuple[str, bool]:
    """Return a member's name, and whether its encoding is a guess.

    Some tools, that of macOS among them, write UTF-8 without its flag; Windows writes the code page of its country.
    """
    if info.flag_bits & _ZIP_UTF8 or info.filename.isascii():
        return info.filename, False
    try:
        return info.filename.encode("cp437").decode("utf-8"), False
    except UnicodeError:  # the encoding of old DOS and Windows tools, which Python has decoded
        return info.filename, True


def _note(name: str, names: list[str] | None) -> None:
    if names is not None and not is_hidden(name):
        names.append(name)


def normalize_member_name(path: object, name: str) -> str:
    """Return the name in one canonical spelling. DataError if it leads out of the archive."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts or name.startswith(("/", "\\")) or (parts and re.match("[A-Za-z]:", parts[0])) or "\0" in name:
        raise DataError(f"{path}: {name!r} leads out of the archive: do not trust this archive, or repack it")
    return "/".join(parts)


def reject_compressed(path: Path | RemotePath) -> None:
    """Raise a DataError for an archive whose members cannot be read one by one."""
    if path.name.lower().endswith(COMPRESSED_SUFFIXES):
        raise DataError(
            f"{path} is compressed as a whole, so its images cannot be read one by one: unpack it and give the "
            "folder, or pack it as a plain .tar or .zip (images are already compressed)"
        )


def _open(path: Path | RemotePath) -> Any:
    try:
        return open_random_access(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({in_short(error)}): make it readable") from None
