"""Damaged archives: they are read or refused in a sentence, and always soon."""

import contextlib
import io
import random
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from classifier.config.sections import DataConfig
from classifier.data import open_source
from classifier.errors import DataError
from tests.data.readers.test_archive import contents

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
TAR_FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
# Where a tar header has its size and type, and what makes headers of other kinds.
SIZE_FIELD, TYPE_FIELD, HEADER_BYTES = range(124, 136), 156, b"\0\x80\xff017LKxgSX"


def pack_tar(files: dict[str, bytes], rng: random.Random) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=rng.choice(TAR_FORMATS)) as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(rng.choice(("", "x" * 120 + "/", "ä/")) + name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def pack_zip(files: dict[str, bytes], rng: random.Random) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", rng.choice(METHODS)) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return stream.getvalue()


def damage(content: bytes, rng: random.Random, *, is_tar: bool) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if is_tar:
            field = rng.choice((*SIZE_FIELD, TYPE_FIELD))
            damaged[512 * rng.randrange(len(damaged) // 512) + field] = rng.choice(HEADER_BYTES)
    for start in range(0, len(damaged) - 511, 512) if is_tar else ():
        header = damaged[start : start + 512]
        if header[257:262] == b"ustar":  # the damage counts only if the checksum is right
            damaged[start + 148 : start + 156] = f"{sum(header[:148]) + 8 * 32 + sum(header[156:]):06o}\0 ".encode()
    return bytes(damaged[: rng.choice((len(damaged), len(damaged), rng.randrange(len(damaged)) + 1))])


@pytest.mark.parametrize("tries", [20, pytest.param(2500, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "pack"), [("tar", pack_tar), ("zip", pack_zip)])
def test_damaged_archives_are_read_or_refused(
    kind: str, pack: Callable[[dict[str, bytes], random.Random], bytes], tries: int, photos: Path, tmp_path: Path
) -> None:
    files = {name: content for name, content in contents(photos).items() if name < "cat/03" or name > "dog/17"}
    slowest = 0.0
    for seed in range(tries):
        rng = random.Random(seed)
        path = tmp_path / f"set.{kind}"
        path.write_bytes(damage(pack(files, rng), rng, is_tar=kind == "tar"))
        began = time.perf_counter()
        refusal = str(path)
        try:
            source = open_source(DataConfig(path=str(path)))
            for file in source.images:
                with contextlib.suppress(OSError):
                    file.read_bytes()
        except DataError as error:
            refusal = str(error)
        assert str(path) in refusal, seed
        assert "\n" not in refusal, seed
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 5
