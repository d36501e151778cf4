"""Predictions as lines on stdout, each printed as soon as it is known: text, CSV or JSON Lines."""

import csv
import io
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO, TypeAlias

from classifier.bundle.predictor import Prediction, Unreadable
from classifier.text import show

from ..cli.console import RunLog

Printer: TypeAlias = Callable[[Prediction | Unreadable], None]
COLUMNS = ("path", "class_name", "probability", "decision", "prediction_set", "is_out_of_distribution")


def open_printer(kind: str, log: RunLog, classes: int, *, has_labels: bool = False) -> Printer:
    """A function that prints a row. has_labels: whether an image has several.

    kind: text; csv, with a header, the second and further of the `classes` most likely classes in columns of their
    own, and unreadable files on stderr; or jsonl, where these have an error.
    """
    if kind == "text":
        return lambda row: _print_text(log, row)
    log.clear()  # the live display stands between us and stdout
    assert isinstance(sys.stdout, io.TextIOWrapper)
    # A file name is any bytes: they leave as they came. The csv module ends its lines itself.
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="")
    if kind == "jsonl":
        return lambda row: print(json.dumps(json_row(row)), flush=True)
    more = [f"{name}_{n}" for n in range(2, classes + 1) for name in ("class_name", "probability")]
    write_csv_row(sys.stdout, [*COLUMNS, *(["labels"] if has_labels else []), *more])
    return lambda row: _print_csv(log, row)


def json_row(row: Prediction | Unreadable) -> dict[str, Any]:
    """The fields of a row. ASCII escapes in JSON keep whatever a file name contains."""
    if isinstance(row, Unreadable):
        return {"path": str(row.path), "error": row.reason}
    fields = {name: getattr(row, name) for name in COLUMNS} | {"path": str(row.path)}
    fields |= {} if row.labels is None else {"labels": row.labels}
    top = [{"class_name": name, "probability": _shorten(probability)} for name, probability in row.top]
    levels = [{"class_name": name, "probability": _shorten(share)} for name, share in row.levels]
    return fields | {"probability": _shorten(row.probability), "top": top} | ({"levels": levels} if levels else {})


def csv_row(prediction: Prediction) -> list[Any]:
    """The fields in the order of COLUMNS; the prediction set and labels as JSON lists, as a class may have any name."""
    more: Sequence[Any] = [item for name, probability in prediction.top[1:] for item in (name, _shorten(probability))]
    return [
        prediction.path,
        prediction.class_name,
        _shorten(prediction.probability),
        prediction.decision,
        json.dumps(prediction.prediction_set, ensure_ascii=False),
        json.dumps(prediction.is_out_of_distribution),
        *([json.dumps(prediction.labels, ensure_ascii=False)] if prediction.labels is not None else []),
        *more,
    ]


def _print_text(log: RunLog, row: Prediction | Unreadable) -> None:
    if isinstance(row, Unreadable):
        log.warning(row.reason)
    else:
        above = [level for level in row.levels if level[0] == row.decision and row.decision not in dict(row.top)]
        top = "  ".join(f"{name} {probability:.1%}" for name, probability in (*above, *row.top))
        log.info(f"{row.path}: {row.describe()}   ({top})")


def write_csv_row(stream: TextIO, cells: Sequence[Any]) -> None:
    """Write a row that every reader of CSV reads back; csv does not quote a carriage return on its own."""
    quoting = csv.QUOTE_ALL if any("\r" in str(cell) for cell in cells) else csv.QUOTE_MINIMAL
    csv.writer(stream, quoting=quoting, lineterminator="\n").writerow(cells)


def _print_csv(log: RunLog, row: Prediction | Unreadable) -> None:
    if isinstance(row, Unreadable):
        log.warning(row.reason)
    else:
        cells = csv_row(row)
        write_csv_row(sys.stdout, [*map(show, cells)] if sys.stdout.isatty() else cells)
        sys.stdout.flush()


def _shorten(probability: float) -> float:
    """The shortest number that is the same in 6 digits; float32 has little more."""
    return float(f"{probability:.6g}")
