"""Rows of predictions."""

import csv
import io

from jobs.steps.prediction_rows import write_csv_row


def test_names_of_any_characters_come_back() -> None:
    rows = [["a\rb", "1"], ["\r", "2"], ['a\n"b"', ","], ["a\r\nb", "é"], ["=1", " x "]]
    stream = io.StringIO(newline="")
    for row in rows:
        write_csv_row(stream, row)
    assert [*csv.reader(io.StringIO(stream.getvalue(), newline=""))] == rows
    assert stream.getvalue().endswith("=1, x \n")  # no needless quotes
