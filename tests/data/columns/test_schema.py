"""Encoding of rows, and schemas that anyone may have written."""

import copy
import dataclasses
import datetime
import json
import math
from typing import Any

import numpy as np
import pytest

from classifier.data.columns.column import Column
from classifier.data.columns.schema import ColumnSchema
from classifier.errors import ConfigError, DataError

SCHEMA = ColumnSchema(
    (
        Column(name="weight", kind="number", width=1, mean=10.0, std=2.0),
        Column(name="colour", kind="category", width=3, values=("Red", "1")),
        Column(name="date", kind="date", width=5, mean=365.0, std=100.0),
        Column(name="notes", kind="text", width=16),
    )
)


def test_rows_become_vectors() -> None:
    rows = [
        {"weight": 14, "colour": "red", "date": datetime.date(1971, 1, 1), "notes": "a stone"},
        {"weight": "14.0", "colour": "RED ", "date": "1.1.1971", "notes": "A stone!"},
        {"weight": math.nan, "colour": 1.0, "notes": ""},
        {"colour": "green", "weight": 1e9},
        None,
    ]
    columns_NF = SCHEMA.encode(rows)
    assert columns_NF.dtype == np.float32
    assert columns_NF.shape == (5, SCHEMA.width) == (5, 26)
    assert SCHEMA.slices == {"weight": slice(1, 2), "colour": slice(2, 5), "date": slice(5, 10), "notes": slice(10, 26)}
    np.testing.assert_array_equal(columns_NF[0], columns_NF[1])
    np.testing.assert_array_equal(columns_NF[0, :5], [1, 2, 1, 0, 0])
    angles = np.array([365 / 365.2425, 365 / 7]) * 2 * np.pi
    expected = [0, *np.sin(angles), *np.cos(angles)]
    np.testing.assert_allclose(columns_NF[0, 5:10], expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(columns_NF[0, 10:]), 1, rtol=1e-6)
    np.testing.assert_array_equal(columns_NF[2, :5], [1, np.nan, 0, 1, 0])
    assert np.isnan(columns_NF[2, 5:]).all()
    np.testing.assert_array_equal(columns_NF[3, :5], [1, 10, 0, 0, 1])  # far from all others, and an unknown colour
    assert columns_NF[4, 0] == 1
    assert np.isnan(columns_NF[4, 1:]).all()


def test_rows_without_an_image() -> None:
    columns_NF = SCHEMA.encode([{"weight": 10}, {"weight": 10}], has_images=[True, False])
    np.testing.assert_array_equal(columns_NF[:, :2], [[1, 0], [0, 0]])
    assert SCHEMA.encode([]).shape == (0, 26)


WRONG_ROWS: list[tuple[Any, str]] = [
    ({"wieght": 3}, "row 2: the model has no column wieght, only weight, colour, date.* did you mean weight?"),
    ({"weight": "heavy"}, "row 2: weight is 'heavy', which is no number"),
    ({"date": "soon"}, "row 2: date is 'soon', which is no date"),
    ({"notes": ["a"]}, r"row 2: notes is \['a'\]: give text or a number"),
]


@pytest.mark.parametrize(("row", "reason"), WRONG_ROWS)
def test_wrong_rows_are_named(row: Any, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        SCHEMA.encode([{"weight": 1}, row])


def test_columns_that_are_not_there_are_missing() -> None:
    columns_NF = SCHEMA.encode_texts({"colour": ["Red", ""], "other": ["x", "y"]}, ["a.png", "b.png"])
    np.testing.assert_array_equal(columns_NF[:, :5], [[1, np.nan, 1, 0, 0], [1, *[np.nan] * 4]])
    with pytest.raises(DataError, match=r"b\.png: weight is 'x'"):
        SCHEMA.encode_texts({"weight": ["1", "x"]}, ["a.png", "b.png"])


def test_a_schema_is_plain_data() -> None:
    plain = json.loads(json.dumps(SCHEMA.as_dict()))
    assert ColumnSchema.from_dict(plain) == SCHEMA
    for one in plain:
        del one["is_day_first"]
        one["later"] = "a key of a later version"
    assert ColumnSchema.from_dict(plain) == SCHEMA


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, r"columns\[0\].name must have 1 to"),
    ({"name": "x" * 2000}, r"columns\[0\].name must have 1 to"),
    ({"name": "colour"}, "two columns of one name"),
    ({"kind": "image"}, "must be one of"),
    ({"width": 2}, r"columns\[0\] has a width of 2"),
    ({"kind": "text", "width": 10**9}, "width is 1000000000"),
    ({"std": 0.0}, "std is 0.0: it must be above 0"),
    ({"mean": math.inf}, "mean is inf"),
    ({"mean": "3"}, "mean is '3'"),
    ({"values": ["a"]}, "1 values"),
    ({"kind": "category", "width": 3, "values": ["a", "A"]}, "a value twice"),
    ({"kind": "category", "width": 2, "values": ["a" * 20_000]}, "more than 10,000 characters"),
    ({"kind": "category", "width": 2, "values": [1]}, "values"),
]


@pytest.mark.parametrize(("change", "reason"), WRONG)
def test_a_wrong_schema_is_refused(change: dict[str, Any], reason: str) -> None:
    plain: Any = copy.deepcopy(SCHEMA.as_dict())
    plain[0] |= change
    with pytest.raises(ConfigError, match=reason):
        ColumnSchema.from_dict(plain)


@pytest.mark.parametrize("plain", [None, {}, [], "x", [3], [{}], SCHEMA.as_dict()[:1] * 1001])
def test_what_is_no_schema_is_refused(plain: Any) -> None:
    with pytest.raises(ConfigError, match="columns"):
        ColumnSchema.from_dict(plain)


def test_a_schema_is_bounded() -> None:
    columns = [Column(name=f"text {n}", kind="text", width=4096) for n in range(3)]
    with pytest.raises(ConfigError, match="a width of 12,289"):
        ColumnSchema.from_dict([{**dataclasses.asdict(column), "values": []} for column in columns])
