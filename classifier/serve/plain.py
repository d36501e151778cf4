"""POST /predict: images as they are, in the forms that clients send them, and the answers in words.

A body is one image, a form with several (multipart/form-data), or JSON: `{"images": ["BASE64", ...], "top": 3}`. A
model that takes columns is given them in JSON: `{"image": "BASE64", "columns": {"weight": 3.2}}`, a list of such
objects beside `images`, or a field `columns` of the form. What is left out, or null, is missing: also the image.
"""

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import FormParser, parse_options_header

from classifier.bundle.predictor import Prediction
from classifier.serve.bounds import Bounds, RequestError
from classifier.serve.version import ModelVersion, Query, Reply

MAX_TOP = 1000
MAX_VALUES = 2_000_000
"""In JSON, whose parser holds up all threads, and whose numbers take ten times their bytes."""
TRUE, FALSE = ("1", "true", "yes"), ("", "0", "false", "no")


def read_query(body: bytes, kind: str, parameters: Mapping[str, str], bounds: Bounds) -> Query:
    """Read the images of a request, and what to say of them. RequestError says what is wrong with it.

    kind: the header Content-Type. parameters: of the URL.
    """
    options: dict[str, Any] = dict(parameters)
    form = kind.partition(";")[0].strip().lower()
    if form == "multipart/form-data":
        contents: list[bytes | None] = [*_read_form(body, kind, bounds, options)]
    elif form == "application/json":
        contents = _read_json(body, options)
    elif form == "application/x-www-form-urlencoded":
        raise RequestError(415, "send images as multipart/form-data, as JSON, or one image as the body")
    else:  # an image's own bytes say what it is
        contents = [body]
    rows = _read_rows(options.get("columns"), contents)
    contents = contents or [None] * len(rows)
    if len(rows) not in (0, len(contents)):
        raise RequestError(400, f"there are {len(rows)} rows of columns for {len(contents)} images: send one for each")
    if not contents or not all(one or (one is None and n < len(rows)) for n, one in enumerate(contents)):
        raise RequestError(400, "there is no image in the request: send its bytes, multipart/form-data, or JSON")
    if len(contents) > bounds.images:
        raise RequestError(413, f"{len(contents)} images are more than {bounds.images} in one request: send fewer")
    top, maps = _read_top(options.get("top", 5)), _read_flag("maps", options.get("maps", ""))
    query = Query(contents, top=top, maps=maps, columns=rows)
    if query.maps and len(contents) > bounds.heatmaps:
        raise RequestError(413, f"heatmaps are drawn of at most {bounds.heatmaps} images in one request: send fewer")
    return query


def describe_model(version: ModelVersion, bounds: Bounds, why_no_heatmaps: str | None) -> dict[str, Any]:
    """Return what a client may want to know of a model before it sends images."""
    predictor, schema = version.predictor, version.predictor.bundle.columns
    return {
        "name": version.name,
        "version": version.number,
        "class_names": predictor.class_names,
        "max_bytes": min(bounds.request_bytes, predictor.images.max_bytes),
        "max_pixels": predictor.spec.max_pixels,
        "why_no_heatmaps": why_no_heatmaps,
        "columns": [
            {"name": column.name, "kind": column.kind, "values": column.values}
            for column in (schema.columns if schema else ())
        ],
    }


def describe(reply: Reply, query: Query) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and the answer, as plain data. 422 if none of the images could be read."""
    predictor, number = reply.version.predictor, 0
    rows: list[dict[str, Any]] = []
    fields = (row for judgement in reply.judgements for row in predictor.to_predictions(judgement, query.top))
    for n in range(len(query)):
        if n in reply.errors:
            rows.append({"error": reply.errors[n]})
            continue
        prediction = Prediction(None, **next(fields))
        row = {
            "class_name": prediction.class_name,
            "probability": _shorten(prediction.probability),
            "decision": prediction.decision,
            "description": prediction.describe(),
            "prediction_set": prediction.prediction_set,
            "is_out_of_distribution": prediction.is_out_of_distribution,
            "top": [{"class_name": name, "probability": _shorten(share)} for name, share in prediction.top],
        }
        if prediction.labels is not None:
            row["labels"] = prediction.labels
        if prediction.levels:
            row["levels"] = [{"class_name": name, "probability": _shorten(share)} for name, share in prediction.levels]
        if query.maps:
            heatmap = reply.heatmaps[number]
            row["heatmap"] = None if heatmap is None else base64.b64encode(heatmap).decode()
        number += 1
        rows.append(row)
    version = reply.version
    answer = {"model": version.name, "version": version.number, "bundle": version.bundle, "predictions": rows}
    return (200 if number else 422), answer


def decode_base64(text: Any) -> bytes:
    """Return the bytes of base64, also as a data URL has it. RequestError if it is none."""
    if not isinstance(text, str):
        raise RequestError(400, "an image in JSON is a string of base64")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(400, "an image in JSON is a string of base64, and this is none") from None


def parse_json(body: bytes | memoryview) -> dict[str, Any]:
    """Return the JSON object of a body. RequestError if it is none, or has too many values."""
    content = bytes(body)
    if content.count(b",") > MAX_VALUES:
        raise RequestError(413, f"JSON has more than {MAX_VALUES:,} values: send files, or binary tensors")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise RequestError(400, "the body is not JSON: send an object, in UTF-8") from None
    if not isinstance(document, dict):
        raise RequestError(400, "the body is not a JSON object")
    return document


def _read_json(body: bytes, options: dict[str, Any]) -> list[bytes | None]:
    document = parse_json(body)
    if unknown := document.keys() - {"images", "image", "columns", "top", "maps"}:
        raise RequestError(400, f"{sorted(unknown)[0][:40]!r} is unknown: the keys are images, columns, top and maps")
    options |= {name: document[name] for name in ("columns", "top", "maps") if name in document}
    images = document.get("images", [document["image"]] if "image" in document else [])
    if not isinstance(images, list):
        raise RequestError(400, "images is a list of strings of base64")
    return [None if image is None else decode_base64(image) for image in images]


def _read_rows(value: Any, contents: Sequence[bytes | None]) -> Sequence[dict[str, Any] | None]:
    """Return the rows of columns: objects, or one for one image. RequestError if they are none."""
    if isinstance(value, str):  # of a form
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RequestError(400, "columns is no JSON: send an object of values by the names of columns") from None
    if value is None:
        return [{}] * len(contents) if None in contents else []
    rows = [value] if isinstance(value, dict) else value
    if not isinstance(rows, list) or not all(isinstance(row, dict | None) for row in rows):
        raise RequestError(400, "columns is an object of values by the names of columns, or a list of one per image")
    if any(isinstance(cell, dict | list) for row in rows if row for cell in row.values()):
        raise RequestError(400, "a value of a column is a text, a number, true, false or null")
    return rows


def _read_form(body: bytes, kind: str, bounds: Bounds, options: dict[str, Any]) -> list[bytes]:
    _, parameters = parse_options_header(kind)
    contents: list[bytes] = []

    def add_file(file: Any) -> None:
        if len(contents) == bounds.images:
            raise RequestError(413, f"more than {bounds.images} images in one request: send fewer")
        contents.append(file.file_object.getvalue())

    def add_field(field: Any) -> None:
        if field.field_name in (b"top", b"maps", b"columns"):
            options[field.field_name.decode()] = (field.value or b"").decode("utf-8", "replace")

    config: Any = {"MAX_MEMORY_FILE_SIZE": math.inf}  # the body is in memory already: nothing goes to the disk
    try:
        boundary = parameters[b"boundary"]
        parser = FormParser("multipart/form-data", add_field, add_file, boundary=boundary, config=config)
        parser.write(body)
        parser.finalize()
    except (FormParserError, KeyError, ValueError):
        raise RequestError(
            400, "the form cannot be read: send multipart/form-data with a file for each image"
        ) from None
    return contents


def _read_top(value: Any) -> int:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6):
        raise RequestError(400, "top is a number: how many of the most likely classes to return")
    if not 1 <= int(value) <= MAX_TOP:
        raise RequestError(400, f"top is from 1 to {MAX_TOP}")
    return int(value)


def _read_flag(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text not in (*TRUE, *FALSE):
        raise RequestError(400, f"{name} is true or false")
    return text in TRUE


def _shorten(probability: float) -> float:
    """The shortest number that is the same in 6 digits; float32 has little more."""
    return float(f"{probability:.6g}")
