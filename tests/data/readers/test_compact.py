"""Compact sequences return what was put into them."""

import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.data.readers.archive import list_zip_members
from classifier.data.readers.compact import CompactFiles, CompactStrings, pack_digests, select_strings
from classifier.data.readers.remote import RemotePath


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=20))
def test_strings_round_trip(words):
    names = CompactStrings(words)
    assert [*names] == words
    assert names == words
    assert names[1:5] == words[1:5]
    if words:
        assert names[-1] == words[-1]
    assert [*select_strings(names, range(len(words) - 1, -1, -1))] == words[::-1]


def test_index_out_of_range():
    with pytest.raises(IndexError):
        CompactStrings(["a"])[1]


def test_name_that_is_not_valid_text():
    assert CompactStrings(["a\udcff"])[0] == "a\udcff"


def test_files_round_trip(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/1.png", b"one")
        archive.writestr("x/2.png", b"three")
    (tmp_path / "b.png").write_bytes(b"two")
    remote = RemotePath.from_uri(f"file://{tmp_path}") / "b.png"
    files = [*list_zip_members(tmp_path / "a.zip"), tmp_path / "b.png", remote]
    packed = CompactFiles(files)
    assert [file.read_bytes() for file in packed] == [b"one", b"three", b"two", b"two"]
    assert [*packed] == files
    assert [*packed[1:3]] == files[1:3]


def test_strings_take_little_more_memory_than_their_characters():
    count = 20_000
    tracemalloc.start()
    names = CompactStrings(f"train/class{n % 7}/{n:08d}.jpg" for n in range(count))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / count < 60
    assert len(names) == count


def test_digests_keep_zero_bytes():
    digest = bytes(15) + b"x"
    assert [value.tobytes() for value in pack_digests([digest, digest[::-1], b""])] == [digest, digest[::-1], bytes(16)]
