"""Documents are checked against their types as they are read: one sentence names the file and the key."""

import json
from typing import Annotated, NotRequired, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from classifier.config.documents import Count, read_json, read_rows
from classifier.config.fields import Fraction, Range
from classifier.errors import RunError


class Inner(TypedDict):
    rows: list[list[Count]]
    share: NotRequired[Fraction | None]


class Document(TypedDict):
    name: str
    inner: Inner
    by_name: dict[str, Annotated[float, Range(0, 10)]]


WHOLE = {"name": "a\nb", "inner": {"rows": [[1, 2], []], "share": 1}, "by_name": {"x": 1}, "later": [None]}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "document.json"


def test_whole_document_is_read_and_later_keys_stay(file):
    file.write_text(json.dumps(WHOLE))
    assert read_json(file, Document) == WHOLE


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": 1}, "name is 1: it must be text"),
        ({"inner": None}, "inner is None: it must be an object"),
        ({"inner": {}}, "inner.rows is missing"),
        ({"inner": {"rows": [[1, -1]]}}, r"inner.rows\[0\]\[1\] is -1: it must be at least 0"),
        ({"inner": {"rows": [[1, True]]}}, "must be a whole number"),
        ({"inner": {"rows": [["\x1b[2J"]]}}, "must be a whole number"),
        ({"inner": {"rows": {}}}, "must be a list"),
        ({"inner": {"rows": [], "share": 1.5}}, "inner.share is 1.5: it must be at least 0 and at most 1"),
        ({"by_name": {"x": float("nan")}}, "contains NaN"),
        ({"by_name": {"x": 10**400}}, "too large a number"),
        ({"by_name": {"x": 10**9000}}, "corrupted"),
        ({"by_name": [1]}, "must be an object"),
    ],
)
def test_wrong_key_is_named(change, says, file):
    try:
        file.write_text(json.dumps(WHOLE | change))
    except ValueError:  # Python does not even print it
        file.write_text('{"by_name": {"x": 1' + "0" * 9000 + "}}")
    with pytest.raises(RunError, match=says) as error:
        read_json(file, Document, "make it again")
    assert str(file) in str(error.value)
    assert str(error.value).endswith(": make it again")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a": 1e999}', b'{"a": Infinity}', b"null"])
def test_what_is_no_json_is_refused(content, file):
    file.write_bytes(content)
    with pytest.raises(RunError, match="is corrupted"):
        read_json(file, Document)


def test_other_versions_are_told_before_their_keys(file):
    file.write_text(json.dumps({"format_version": 9}))
    with pytest.raises(RunError, match="format_version is 9, but this version reads 1"):
        read_json(file, Document, version=1)


def test_rows_of_a_table_are_checked(tmp_path):
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([{"rows": [[1]], "share": 0.5}, {"rows": [[2]], "share": 7.0}]), file)
    with pytest.raises(RunError, match=r"row 2\.share is 7\.0"):
        read_rows(file, Inner)
    file.write_bytes(b"PAR1")
    with pytest.raises(RunError, match="is corrupted"):
        read_rows(file, Inner)
