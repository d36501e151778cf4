"""The value of a cell: the same text from every format, and numbers and dates from text."""

import datetime
import math
import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.data.columns.cells import (
    MAX_CHARACTERS,
    MAX_NUMBER,
    fold_category,
    parse_date,
    parse_number,
    split_slashes,
    write_value,
)
from classifier.errors import DataError

SAME: list[tuple[str, list[Any]]] = [
    ("", [None, "", "  ", math.nan, np.float32("nan"), np.datetime64("NaT"), Decimal("nan"), "NaN", "NA", b""]),
    ("3", ["3", 3, 3.0, np.int8(3), np.float32(3), np.array(3), " 3 "]),
    ("0.1", ["0.1", 0.1, np.float32(0.1), Decimal("0.1"), b"0.1"]),
    ("true", [True, np.True_, "true"]),
    ("2020-04-03", ["2020-04-03", datetime.date(2020, 4, 3), np.datetime64("2020-04-03")]),
    ("90.0", [datetime.timedelta(minutes=1.5)]),
    ("Käse", ["Käse", "Ka\u0308se", "Käse".encode()]),
    ("?", ["\ud800"]),
    ("inf", [math.inf, 10**5000]),
    ("12345678-1234-5678-1234-567812345678", [uuid.UUID("12345678123456781234567812345678")]),
]


@pytest.mark.parametrize(("text", "values"), SAME)
def test_a_value_is_the_same_text_in_every_format(text: str, values: list[Any]) -> None:
    assert [write_value("row 1: x", value) for value in values] == [text] * len(values)


@pytest.mark.parametrize("value", [[1], {"a": 1}, (1, 2), np.zeros(2), object()])
def test_what_is_no_single_value_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match=r"row 1: x .*give text or a number"):
        write_value("row 1: x", value)


def test_long_text_is_cut() -> None:
    assert len(write_value("x", "a" * 3 * MAX_CHARACTERS)) == len(write_value("x", "ä" * 3 * MAX_CHARACTERS))
    assert len(write_value("x", "a" * 3 * MAX_CHARACTERS)) == MAX_CHARACTERS


NUMBERS = {"3": 3.0, "-.5": -0.5, "1e3": 1000.0, "3,5": 3.5, "12,75 ": None, "50 %": 50.0, "0,125": 0.125, "true": 1.0}
NUMBERS |= {"1,250": None, "1_000": None, "inf": None, "1e31": None, "12 kg": None, "a": None, "٣": None}


@pytest.mark.parametrize(("text", "number"), NUMBERS.items())
def test_numbers(text: str, number: float | None) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["", "?", "-"])
def test_missing_numbers_and_dates(text: str) -> None:
    assert math.isnan(parse_number(text) or 0)
    assert math.isnan(parse_date(text) or 0)


DATES = {"1970-01-02": 1.0, "1970-01-02 12:00": 1.5, "1970-01-02T12:00:00+12:00": 1.0, "1970/1/2": 1.0, "1970-02": 31.0}
DATES |= {"2.1.1970": 1.0, "2.1.1970 06:00": 1.25, "2/1/1970": 1.0, "30/2/1970": None, "1970": None, "19700102": None}


@pytest.mark.parametrize(("text", "days"), DATES.items())
def test_dates(text: str, days: float | None) -> None:
    assert parse_date(text) == days


def test_dates_with_slashes() -> None:
    assert parse_date("2/1/1970", is_day_first=False) == 31
    assert split_slashes("2/1/1970") == (2, 1)
    assert split_slashes("2.1.1970") is None
    assert parse_date("1969-12-31") == -1


def test_categories_that_are_the_same() -> None:
    assert len({fold_category(text) for text in ("1", "01", "1.0")}) == 1
    assert fold_category("Red ") == fold_category("red") != fold_category("rot")
    assert fold_category("1" * 5000) == "1" * 5000


@given(st.text())
def test_any_text_is_a_cell(text: str) -> None:
    cell = write_value("x", text)
    assert write_value("x", cell) == cell
    number, date = parse_number(cell), parse_date(cell)
    assert number is None or math.isnan(number) or abs(number) <= MAX_NUMBER
    assert date is None or math.isnan(date) or abs(date) < 1e7
    fold_category(cell)
