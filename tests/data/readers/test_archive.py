"""Zip and tar archives of class folders: read in place, and not trusted."""

import contextlib
import io
import stat
import tarfile
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest

from classifier import data
from classifier.config.sections import DataConfig
from classifier.data.readers import archive
from classifier.errors import DataError


def pack_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def pack_tar(path: Path, files: dict[str, bytes], mode: Literal["w", "w:gz"] = "w") -> Path:
    with tarfile.open(path, mode) as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return path


PACK = {"zip": pack_zip, "tar": pack_tar}


def contents(folder: Path, top: str = "") -> dict[str, bytes]:
    return {top + p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.png"))}


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("top", ["", "photos/", "./photos/"])
def test_archive_reads_like_the_folder_it_contains(kind: str, top: str, photos: Path, tmp_path: Path) -> None:
    files = contents(photos, top) | {f"{top}cat/.DS_Store": b"x", "__MACOSX/cat/a.png": b"x", f"{top}notes.txt": b"x"}
    path = PACK[kind](tmp_path / f"set.{kind}", files)
    loaded, plain = (data.load(DataConfig(path=str(p))) for p in (path, photos))
    assert loaded.class_names == ("cat", "dog")
    assert loaded.counts == plain.counts
    assert sorted(loaded.train.ids) == sorted(top.removeprefix("./") + id_ for id_ in plain.train.ids)
    by_id = dict(zip((id_.removeprefix("photos/") for id_ in loaded.train.ids), loaded.train.images_NCHW, strict=True))
    for id_, image_CHW in zip(plain.train.ids, plain.train.images_NCHW, strict=True):
        assert (by_id[id_] == image_CHW).all()


def test_splits_and_threads(photos: Path, tmp_path: Path) -> None:
    files = {
        f"set/{split}/{name}": content for split in ("train", "test") for name, content in contents(photos).items()
    }
    for kind, pack in PACK.items():
        source = archive.read_archive(pack(tmp_path / f"set.{kind}", files))
        assert set(source.splits_N.tolist()) == {0, 2}
        with ThreadPoolExecutor(8) as pool:
            read = list(pool.map(lambda file: file.read_bytes(), list(source.images) * 20))
        assert read == [files[id_] for id_ in source.ids] * 20


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("name", ["../a.png", "cat/../../a.png", "/etc/a.png", "C:/a.png", "..\\a.png", "\\a.png"])
def test_name_that_leads_out_is_an_error(kind: str, name: str, photos: Path, tmp_path: Path) -> None:
    path = PACK[kind](tmp_path / f"set.{kind}", contents(photos) | {name: b"x"})
    with pytest.raises(DataError, match=r"leads out of the archive"):
        archive.read_archive(path)


def test_links_and_devices_are_left_out(photos: Path, tmp_path: Path) -> None:
    path = pack_tar(tmp_path / "set.tar", contents(photos))
    with tarfile.open(path, "a") as packed:
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)):
            info = tarfile.TarInfo(f"cat/{number}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            packed.addfile(info)
    source = archive.read_archive(path)
    assert len(source.ids) == 40
    assert source.findings == (
        "4 links and devices in set.tar were left out: cat/0.png, cat/1.png, cat/2.png and 1 more.",
    )
    path = pack_zip(tmp_path / "set.zip", contents(photos))
    with zipfile.ZipFile(path, "a") as packed:
        info = zipfile.ZipInfo("cat/link.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(info, "/etc/passwd")
    source = archive.read_archive(path)
    assert len(source.ids) == 40
    assert source.findings == ("1 links and devices in set.zip were left out: cat/link.png.",)


def test_oversized_member_is_skipped(photos: Path, tmp_path: Path) -> None:
    files = contents(photos) | {"cat/bomb.png": bytes(5_000_000)}
    path = pack_zip(tmp_path / "set.zip", files, zipfile.ZIP_DEFLATED)
    loaded = data.load(DataConfig(path=str(path), max_bytes=1_000_000, max_corrupt=0.1))
    assert sum(loaded.counts.values()) == 40
    assert "cat/bomb.png (its 5,000,000 bytes are more than data.max_bytes 1,000,000)" in loaded.findings[0]


@pytest.mark.parametrize("kind", PACK)
def test_corrupted_member_is_skipped(kind: str, photos: Path, tmp_path: Path) -> None:
    files = contents(photos)
    path = PACK[kind](tmp_path / f"set.{kind}", files)
    raw = bytearray(path.read_bytes())
    content = files["cat/03.png"]
    start = raw.index(content) + len(content) // 2
    raw[start : start + 20] = bytes(20)
    path.write_bytes(raw)
    loaded = data.load(DataConfig(path=str(path), max_corrupt=0.1))
    assert [flaw["id"] for flaw in loaded.split_record["unreadable"]] == ["cat/03.png"]


def test_invalid_archives_are_errors(photos: Path, tmp_path: Path) -> None:
    def refused(path: Path, reason: str) -> None:
        with pytest.raises(DataError, match=reason) as caught:
            data.open_source(DataConfig(path=str(path)))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    for kind in PACK:
        (tmp_path / f"noise.{kind}").write_bytes(bytes(range(256)) * 20)
        refused(tmp_path / f"noise.{kind}", f"is not a {kind} archive, or corrupted")
    whole = pack_zip(tmp_path / "cut.zip", contents(photos)).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut.zip", "is not a zip archive, or corrupted")
    refused(pack_tar(tmp_path / "set.tar.gz", contents(photos), "w:gz"), "is compressed as a whole")
    refused(pack_zip(tmp_path / "flat.zip", {"a.png": b"x"}), "has images but no class folders")
    refused(pack_zip(tmp_path / "none.zip", {"a.txt": b"x"}), r"has no images, only 1 \.txt \(a\.txt\)")
    raw = bytearray(pack_zip(tmp_path / "locked.zip", contents(photos)).read_bytes())
    start = raw.rindex(b"PK\x01\x02")
    raw[start + 8] |= 1  # the flag of encryption, of the last file in the directory
    (tmp_path / "locked.zip").write_bytes(raw)
    refused(tmp_path / "locked.zip", "dog/19.png is encrypted")


def test_truncated_tar_is_an_error_or_read_up_to_its_last_whole_file(photos: Path, tmp_path: Path) -> None:
    whole = pack_tar(tmp_path / "set.tar", contents(photos)).read_bytes()
    for length in range(700, len(whole), 5_000):
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        try:
            source = archive.read_archive(tmp_path / "cut.tar")
        except DataError as error:
            assert "cut.tar" in str(error)  # noqa: PT017 - either way is right
        else:
            assert len(source.ids) <= 40


def test_member_without_a_name_is_ignored(photos: Path, tmp_path: Path) -> None:
    path = pack_zip(tmp_path / "set.zip", contents(photos) | {"?": b"x"})
    with zipfile.ZipFile(path, "a") as packed:
        packed.filelist[-1].filename = ""
        packed._didModify = True  # pyright: ignore[reportAttributeAccessIssue]
    assert data.load(DataConfig(path=str(path))).class_names == ("cat", "dog")


@pytest.mark.parametrize("kind", PACK)
def test_archives_of_windows_and_macos(kind: str, photos: Path, tmp_path: Path) -> None:
    """Backslashes, folders as members of their own, litter beside and inside an outer folder."""
    files: dict[str, bytes] = {name.replace("/", "\\"): content for name, content in contents(photos, "set/").items()}
    files |= {
        "set\\": b"",
        "set\\cat\\": b"",
        "__MACOSX/set/cat/._00.png": b"x",
        ".DS_Store": b"x",
        "set/Thumbs.db": b"x",
    }
    source = archive.read_archive(PACK[kind](tmp_path / f"set.{kind}", files))
    assert source.class_names == ("cat", "dog")
    assert len(source.ids) == 40
    assert source.findings == ("its classes are the folders in set/.",)


def test_last_member_of_a_name_counts(photos: Path, tmp_path: Path) -> None:
    path = pack_tar(tmp_path / "set.tar", contents(photos))
    with tarfile.open(path, "a") as packed:
        info = tarfile.TarInfo("cat/00.png")
        info.size = 3
        packed.addfile(info, io.BytesIO(b"new"))
    source = archive.read_archive(path)
    assert len(source.ids) == 40
    assert source.images[[*source.ids].index("cat/00.png")].read_bytes() == b"new"


def test_names_of_zip_members_in_utf8_without_its_flag(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for name in ("aepfel/1.png", "gruen/1.png"):
            packed.writestr(name, b"x")
    raw = path.read_bytes()
    for name, written in {b"aepfel": "Äpfel".encode(), b"gruen": "grün".encode("cp437") + b"e"}.items():
        raw = raw.replace(name, written)
    path.write_bytes(raw)
    source = archive.read_archive(path)
    assert source.class_names == ("grüne", "Äpfel")
    [finding] = source.findings  # what no tool has marked may be of any code page
    assert "code page 437 was assumed: grüne/1.png;" in finding


def test_negative_sizes_in_tar_headers_end(photos: Path, tmp_path: Path) -> None:
    """A negative size leads tarfile back to an earlier header, again and again."""
    for kind in (tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.DIRTYPE, b"Z"):
        for first in (True, False):
            info = tarfile.TarInfo("cat/evil.png")
            info.type = kind
            header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
            header[124:136] = b"\xff" * 10 + b"\xfc\0"  # base 256, negative
            header[148:156] = b" " * 8
            header[148:156] = f"{sum(header[:512]):06o}\0 ".encode()
            whole = pack_tar(tmp_path / "set.tar", contents(photos)).read_bytes().rstrip(b"\0")
            whole += bytes(-len(whole) % 512)
            (tmp_path / "evil.tar").write_bytes(header + whole if first else whole + header + bytes(1024))
            with pytest.raises(DataError, match=r"evil\.tar is not a tar archive, or corrupted"):
                archive.read_archive(tmp_path / "evil.tar")
    with tarfile.open(tmp_path / "pax.tar", "w", format=tarfile.PAX_FORMAT) as packed:
        info = tarfile.TarInfo("cat/1.png")
        info.pax_headers = {"size": "-1024"}
        packed.addfile(info)
    with pytest.raises(DataError, match=r"pax\.tar is not a tar archive, or corrupted"):
        archive.read_archive(tmp_path / "pax.tar")


def test_headers_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    (tmp_path / "set.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(DataError, match=r"a header with a size of 1,099,511,627,776 bytes"):
        archive.read_archive(tmp_path / "set.tar")


def test_tar_that_is_damaged_in_the_middle_is_refused(photos: Path, tmp_path: Path) -> None:
    """tarfile takes anything that is no header for the end."""
    path = pack_tar(tmp_path / "set.tar", contents(photos))
    raw = bytearray(path.read_bytes())
    start = raw.index(b"dog/00.png")
    raw[start + 3] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(DataError, match="there is no header at byte"):
        archive.read_archive(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_state_too_small_a_size_take_little_memory(method: int, tmp_path: Path) -> None:
    path = pack_zip(tmp_path / "set.zip", {"cat/bomb.png": bytes(1 << 25)}, method)
    raw = bytearray(path.read_bytes())
    size = raw.rindex(b"PK\1\2") + 24  # in the directory of the archive
    raw[size : size + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(raw)
    (member,) = archive.list_zip_members(path)
    tracemalloc.start()
    try:
        with pytest.raises(OSError, match="its header says"):
            member.read_bytes()
        assert tracemalloc.get_traced_memory()[1] < 1 << 24  # LZMA has a dictionary of 8 MB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_members_are_unreadable_whatever_compressed_them(method: int, photos: Path, tmp_path: Path) -> None:
    files = contents(photos)
    path = pack_zip(tmp_path / "set.zip", files, method)
    with zipfile.ZipFile(path) as packed:
        starts = [info.header_offset + 30 + len(info.filename) for info in packed.infolist()]
    for offset in (0, 4, 9, 20, 40):
        raw = bytearray(path.read_bytes())
        for start in starts:
            raw[start + offset] ^= 0x5A
        (tmp_path / "damaged.zip").write_bytes(raw)
        for file in archive.read_archive(tmp_path / "damaged.zip").images:
            with contextlib.suppress(OSError):
                file.read_bytes()
