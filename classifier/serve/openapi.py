"""The OpenAPI document of the server, written by hand: bodies of bytes have no schema that a framework could derive."""

from collections.abc import Collection
from typing import Any

from classifier.data.columns.column import KINDS
from classifier.serve.bounds import Bounds
from classifier.version import __version__

_TEXT, _SHARE, _FLAG = {"type": "string"}, {"type": "number", "minimum": 0, "maximum": 1}, {"type": "boolean"}
_COUNT = {"type": "integer", "minimum": 0}
_BYTES = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_TENSOR_KEYS = {"name": _TEXT, "datatype": _TEXT, "shape": {"type": "array", "items": {"type": "integer"}}}


def describe_api(bounds: Bounds, paths: Collection[str], *, has_keys: bool) -> dict[str, Any]:
    """Return the document of these paths. has_keys: whether requests need a key."""
    schemas = {
        "Error": _object({"error": _TEXT}),
        "Prediction": _object(
            {
                "class_name": _TEXT,
                "probability": _SHARE,
                "decision": {"type": ["string", "null"], "description": "a class; null: the model is not sure"},
                "description": {"type": "string", "description": "the answer in words"},
                "prediction_set": _list(_TEXT),
                "is_out_of_distribution": {"type": "boolean", "description": "unlike anything seen in training"},
                "top": _list(_object({"class_name": _TEXT, "probability": _SHARE})),
                "labels": _list(_TEXT) | {"description": "of a model of several labels an image, those that it has"},
                "levels": _list(_object({"class_name": _TEXT, "probability": _SHARE}))
                | {"description": "of nested classes, the most likely of each level above the leaves"},
                "heatmap": _or_null(_BASE64 | {"description": "a JPEG with the evidence in orange, if asked for"}),
            },
            optional=("labels", "levels", "heatmap"),
        ),
        "Predictions": _object(
            {
                "model": _TEXT,
                "version": _TEXT,
                "bundle": {"type": "string", "description": "of what has answered: the same on every server"},
                "predictions": _list({"anyOf": [_schema("Prediction"), _schema("Error")]}),
            }
        ),
        "Images": _object(
            {
                "images": {"type": "array", "items": _or_null(_BASE64), "maxItems": bounds.images},
                "image": _or_null(_BASE64),
                "columns": {
                    "anyOf": [_schema("Row"), _list(_or_null(_schema("Row"))) | {"maxItems": bounds.images}],
                    "description": "of a model that takes columns: a row for each image, null for a missing image",
                },
                "top": _top(),
                "maps": _FLAG,
            },
            optional=("images", "image", "columns", "top", "maps"),
        ),
        "Row": {
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
            "description": "values by the names of columns; those left out are missing",
        },
        "Tensor": {"type": "object", "required": [*_TENSOR_KEYS], "properties": _TENSOR_KEYS | {"data": {}}},
        "Inference": {
            "type": "object",
            "required": ["inputs"],
            "properties": {"id": _TEXT, "inputs": _list(_schema("Tensor")), "outputs": {"type": "array"}},
        },
        "Inferred": _object(
            {"model_name": _TEXT, "model_version": _TEXT, "id": _TEXT, "outputs": _list(_schema("Tensor"))},
            optional=("id",),
        ),
        "Described": _object(
            {
                "name": _TEXT,
                "version": _TEXT,
                "class_names": _list(_TEXT),
                "max_bytes": _COUNT | {"description": "of an image's file"},
                "max_pixels": _COUNT,
                "why_no_heatmaps": {"type": ["string", "null"], "description": "null: there are some"},
                "columns": _list(
                    _object({"name": _TEXT, "kind": {"enum": [*KINDS]}, "values": _list(_TEXT)})
                    | {"description": "that the model takes beside an image; values: the known ones of a category"}
                ),
            }
        ),
        "Model": {
            "type": "object",
            "required": ["name", "versions", "platform", "inputs", "outputs"],
            "properties": {"name": _TEXT, "versions": _list(_TEXT), "platform": _TEXT},
        },
    }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "classifier", "version": __version__},
        "paths": {path: item for path, item in _paths().items() if path in paths},
        "components": {"schemas": schemas},
    }
    if has_keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
        for path in ("/", "/page/{name}", "/v2/health/live", "/v2/health/ready"):
            document["paths"][path]["get"]["security"] = []
    return document


def _paths() -> dict[str, Any]:
    image = {
        "image/*": {"schema": _BYTES},
        "application/octet-stream": {"schema": _BYTES},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"columns": _TEXT | {"description": "JSON: a row for each image, or a list of them"}},
                "additionalProperties": _BYTES,
            }
        },
        "application/json": {"schema": _schema("Images")},
    }
    tensors = {
        "application/json": {"schema": _schema("Inference")},
        "application/octet-stream": {"schema": _BYTES},
    }
    options = [
        _parameter("top", "query", _top()),
        _parameter("maps", "query", _FLAG),
        _parameter("version", "query", _TEXT),
    ]
    length = [_parameter("Inference-Header-Content-Length", "header", _COUNT)]
    predictions = {"application/json": {"schema": _schema("Predictions")}}
    predict = _operation("Classify images", predictions, parameters=options, body=image, unread=predictions)
    infer = _operation(
        "Infer (Open Inference Protocol)",
        {"application/json": {"schema": _schema("Inferred")}, "application/octet-stream": {"schema": _BYTES}},
        parameters=length,
        body=tensors,
    )
    plain: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    describe = _operation("Describe a model", {"application/json": {"schema": _schema("Model")}})
    ready = _operation("Is the model ready?", plain, unready=True)
    model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    index = _operation("List models", {"application/json": {"schema": _list({"type": "object"})}}, body=plain)
    models = {"application/json": {"schema": _object({"models": _list(_schema("Described"))})}}
    paths = {
        "/": {"get": _operation("The page for people", {"text/html": {"schema": _TEXT}})},
        "/page/{name}": {"get": _operation("A file of that page", {"text/*": {"schema": _TEXT}})},
        "/models": {"get": _operation("Describe the models and their limits", models)},
        "/predict": {"post": predict},
        "/predict/{model}": {"post": predict},
        "/v2": {"get": _operation("Describe the server", plain)},
        "/v2/health/live": {"get": _operation("Is the server alive?", plain)},
        "/v2/health/ready": {"get": _operation("Is the server ready?", plain, unready=True)},
        "/v2/repository/index": {"post": index},
        "/v2/repository/models/{model}/load": {
            "post": _operation("Load a model again, if it has changed on disk (admins)", plain, body=plain)
        },
        "/metrics": {"get": _operation("Metrics for Prometheus", {"text/plain": {"schema": _TEXT}})},
        "/openapi.json": {"get": _operation("This document", plain)},
    }
    for path in (model, version):
        paths |= {path: {"get": describe}, f"{path}/ready": {"get": ready}, f"{path}/infer": {"post": infer}}
    for path, item in paths.items():
        names = [word[1:-1] for word in path.split("/") if word.startswith("{")]
        item |= {"parameters": [_parameter(name, "path", _TEXT) for name in names]} if names else {}
    return paths


def _operation(
    summary: str,
    content: dict[str, Any],
    *,
    parameters: list[dict[str, Any]] | None = None,
    body: dict[str, Any] | None = None,
    unread: dict[str, Any] | None = None,
    unready: bool = False,
) -> dict[str, Any]:
    """An operation with its answers. unread: what 422 has, if not an error only."""
    error = {"application/json": {"schema": _schema("Error")}}
    errors = {"400": "malformed", "401": "no key", "403": "not allowed", "404": "not here", "421": "another host"}
    if body:
        errors |= {
            "408": "too slow",
            "409": "cannot be loaded",
            "413": "too large",
            "415": "another form",
            "429": "busy",
        }
        errors["422"] = "no image could be read"
    answers = {status: {"description": text, "content": error} for status, text in errors.items()}
    if unread:
        answers["422"]["content"] = {
            "application/json": {"schema": {"anyOf": [_schema("Predictions"), _schema("Error")]}}
        }
    if unready:
        answers["503"] = {"description": "not ready", "content": content}
    if "429" in answers:
        answers["429"]["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": "done", "content": content}} | answers,
    }
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {"content": body}
    return operation


def _parameter(name: str, where: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": schema}


def _schema(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _top() -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "maximum": 1000, "default": 5}
