"""The Open Inference Protocol, version 2, as Triton, KServe and their clients speak it, with binary tensors.

A request has one input of images: `images`, uint8 pixels of the model's size, N x C x H x W; or `encoded`, the bytes of
N image files, which are base64 where they stand in JSON. Of a model that takes columns it may have `column.NAME`, too,
N numbers or texts: NaN, null and an empty text are missing values, and an empty text in `encoded` is a missing image.
Binary tensors follow the JSON, whose length is in a header; a string of bytes in one begins with its length, 4 bytes,
little-endian.
https://github.com/kserve/open-inference-protocol
"""

import dataclasses
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from classifier.data.columns.graph_inputs import name_input
from classifier.data.columns.schema import MAX_COLUMNS
from classifier.serve.bounds import Bounds, RequestError
from classifier.serve.plain import decode_base64, parse_json
from classifier.serve.version import ModelVersion, Query, Reply
from classifier.version import __version__

HEADER_LENGTH = "inference-header-content-length"
PLATFORM = "classifier"
COLUMN = name_input("")
NUMBERS = {f"{kind}{8 * n}": f"<{code}{n}" for kind, code in (("INT", "i"), ("UINT", "u")) for n in (1, 2, 4, 8)} | {
    "FP32": "<f4",
    "FP64": "<f8",
    "BOOL": "?",
}
"""Datatypes of numbers -> how numpy calls them."""
_LENGTH = struct.Struct("<I")


def describe_server(*, can_load: bool) -> dict[str, Any]:
    extensions = ["binary_tensor_data", *(["model_repository"] if can_load else [])]
    return {"name": PLATFORM, "version": __version__, "extensions": extensions}


def describe_model(version: ModelVersion, numbers: list[str]) -> dict[str, Any]:
    """Return the metadata of a model. It takes one of its inputs `images` and `encoded`, and any of its columns."""
    bundle = version.predictor.bundle
    shape = [-1, bundle.channels, bundle.size, bundle.size]
    return {
        "name": version.name,
        "versions": numbers,
        "platform": PLATFORM,
        "inputs": [
            {"name": "images", "datatype": "UINT8", "shape": shape},
            {"name": "encoded", "datatype": "BYTES", "shape": [-1]},
            *(
                {
                    "name": name_input(column.name),
                    "datatype": "FP64" if column.kind == "number" else "BYTES",
                    "shape": [-1],
                }
                for column in (bundle.columns.columns if bundle.columns else ())
            ),
        ],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [-1, *([len(bundle.class_names)] if is_wide else [])]}
            for name, (datatype, is_wide, _) in OUTPUTS.items()
        ],
        "parameters": {
            "class_names": bundle.class_names,
            "decision_names": version.predictor.answer_names,
            "max_batch_size": version.batcher.max_size,
        },
    }


def read_query(body: bytes, header_length: str | None, bounds: Bounds) -> tuple[Query, dict[str, Any]]:
    """Read a request: what it asks, and its document. RequestError says what is wrong with it."""
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit()) or int(header_length) > length:
            raise RequestError(400, f"{HEADER_LENGTH} is the length of the JSON, and at most that of the body")
        length = int(header_length)
    document, binary = parse_json(memoryview(body)[:length]), memoryview(body)[length:]
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(one, dict) for one in inputs):
        raise RequestError(400, "inputs is a list of objects: images (UINT8) or encoded (BYTES), and columns")
    images = [one for one in inputs if not str(one.get("name")).startswith(COLUMN)]
    if len(images) > 1 or not inputs or len(inputs) > MAX_COLUMNS + 1:
        raise RequestError(400, "a request has one input of images: images (UINT8) or encoded (BYTES)")
    _read_outputs(document)  # its mistakes are told before any work is done
    tensors = [*_cut_binary(inputs, binary)]
    counts = {shape[0] for _, shape, _ in tensors}
    if len(counts) > 1:
        raise RequestError(400, "the inputs have different numbers of rows: send as many of each")
    [count] = counts
    if not 1 <= count <= bounds.images:
        raise RequestError(413 if count else 400, f"a request has 1 to {bounds.images} images, not {count}")
    rows: list[dict[str, Any]] = [{} for _ in range(count)] if len(inputs) > len(images) else []
    query = Query([None] * count, columns=rows)
    for tensor, shape, data in tensors:
        kind = tensor.get("name"), tensor.get("datatype")
        if str(kind[0]).startswith(COLUMN):
            for row, value in zip(rows, _read_column(tensor, shape, data), strict=True):
                row[str(kind[0]).removeprefix(COLUMN)] = value
        elif kind == ("images", "UINT8") and len(shape) == 4:
            query = dataclasses.replace(query, contents=(), images_NCHW=_read_pixels(tensor, shape, data))
        elif kind == ("encoded", "BYTES") and shape[1:] in ([], [1]):
            query = dataclasses.replace(query, contents=_read_contents(tensor, count, data, may_be_missing=bool(rows)))
        else:
            raise RequestError(400, "the input is images (UINT8, N x C x H x W) or encoded (BYTES, N)")
    return query, document


def _cut_binary(
    inputs: Sequence[Mapping[str, Any]], binary: memoryview
) -> Iterator[tuple[Mapping[str, Any], list[int], memoryview | None]]:
    """Yield each input with its shape and, if they follow the JSON, its bytes."""
    for tensor in inputs:
        shape = tensor.get("shape")
        if not isinstance(shape, list) or not shape or not all(type(n) is int and 0 <= n < 1 << 31 for n in shape):
            raise RequestError(400, "the shape of the input is a list of sizes")
        size = _parameters(tensor).get("binary_data_size")
        is_size = type(size) is int and 0 <= size <= len(binary)
        if size is not None and not is_size:
            raise RequestError(400, "binary_data_size is not the number of bytes that follow the JSON")
        yield tensor, shape, binary[:size] if is_size else None
        binary = binary[size:] if is_size else binary
    if len(binary) and any("binary_data_size" in _parameters(tensor) for tensor in inputs):
        raise RequestError(400, "binary_data_size is not the number of bytes that follow the JSON")


def render(reply: Reply, document: Mapping[str, Any]) -> tuple[bytes, int | None]:
    """Return the body of the answer, and the length of its JSON if binary tensors follow it.

    RequestError (422) names the first image that could not be read: a tensor has no room for that.
    """
    for number, reason in sorted(reply.errors.items()):
        raise RequestError(422, f"image {number}: {reason}")
    outputs, blobs = [], []
    for name, is_binary in _read_outputs(document):
        datatype, _, compute = OUTPUTS[name]
        array = compute(reply)
        output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if is_binary:
            blob = _join_bytes(array) if datatype == "BYTES" else np.ascontiguousarray(array).tobytes()
            blobs.append(blob)
            output["parameters"] = {"binary_data_size": len(blob)}
        else:
            output["data"] = array.ravel().tolist()
        outputs.append(output)
    answer = {"model_name": reply.version.name, "model_version": reply.version.number, "outputs": outputs}
    if isinstance(document.get("id"), str):
        answer["id"] = document["id"]
    head = json.dumps(answer).encode()
    return b"".join([head, *blobs]), len(head) if blobs else None


def _probabilities(reply: Reply) -> np.ndarray:
    return np.concatenate([one.probabilities_NK for one in reply.judgements]).astype("<f4", copy=False)


def _class_names(reply: Reply) -> np.ndarray:
    return np.array(reply.version.predictor.class_names, object)[reply.labels()]


def _decisions(reply: Reply) -> np.ndarray:
    return np.concatenate([one.decisions_N for one in reply.judgements]).astype("<i8", copy=False)


def _out_of_distribution(reply: Reply) -> np.ndarray:
    return np.concatenate([one.is_ood_N for one in reply.judgements])


OUTPUTS: dict[str, tuple[str, bool, Callable[[Reply], np.ndarray]]] = {
    "probabilities": ("FP32", True, _probabilities),
    "class_name": ("BYTES", False, _class_names),
    "decision": ("INT64", False, _decisions),
    "is_out_of_distribution": ("BOOL", False, _out_of_distribution),
}
"""Name -> datatype, whether it has a column per class, and its values. decision: an index of the
model's decision_names, or -1 for not sure."""


def _read_outputs(document: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Return the outputs that were asked for, all without a word, and whether they are to be binary."""
    is_binary = _parameters(document).get("binary_data_output") is True
    asked = document.get("outputs")
    if not asked:
        return [(name, is_binary) for name in OUTPUTS]
    if not isinstance(asked, list) or not all(isinstance(one, dict) and one.get("name") in OUTPUTS for one in asked):
        raise RequestError(400, f"outputs is a list of objects with a name: {', '.join(OUTPUTS)}")
    if any("classification" in _parameters(one) for one in asked):
        raise RequestError(400, "the classification extension is not known here: ask for class_name")
    return [(one["name"], _parameters(one).get("binary_data", is_binary) is True) for one in asked]


def _parameters(document: Mapping[str, Any]) -> dict[str, Any]:
    parameters = document.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise RequestError(400, "parameters is an object")
    return parameters


def _read_pixels(tensor: Mapping[str, Any], shape: list[int], binary: memoryview | None) -> np.ndarray:
    if binary is not None:
        pixels = np.frombuffer(binary, np.uint8)
    else:
        try:
            pixels = np.array(tensor.get("data"))
        except (ValueError, RecursionError):
            raise RequestError(400, "the data of the input are ragged") from None
        is_uint8 = pixels.dtype.kind in "iu" and pixels.size and pixels.min() >= 0 and pixels.max() <= 255
        if not is_uint8:
            raise RequestError(400, "the data of images are numbers from 0 to 255")
        pixels = pixels.astype(np.uint8).ravel()
    count = 1
    for n in shape:
        count *= n
    if pixels.size != count:
        raise RequestError(400, f"the input has {pixels.size} values, but its shape says {count}")
    return pixels.reshape(shape)


def _read_json_bytes(tensor: Mapping[str, Any]) -> list[bytes]:
    if not isinstance(tensor.get("data"), list):
        raise RequestError(400, "the data of encoded are a list of strings of base64")
    return [decode_base64(item) for item in _flatten(tensor)]


def _read_contents(
    tensor: Mapping[str, Any], count: int, binary: memoryview | None, *, may_be_missing: bool
) -> list[bytes | None]:
    contents = _read_json_bytes(tensor) if binary is None else [*_split_bytes(binary)]
    if len(contents) != count:
        raise RequestError(400, f"the input has {len(contents)} elements, but its shape says {count}")
    return [None if may_be_missing and not content else content for content in contents]


def _read_column(tensor: Mapping[str, Any], shape: list[int], binary: memoryview | None) -> list[Any]:
    """Return the values of an input of a column; None where they are missing."""
    name, datatype = str(tensor["name"])[:60], tensor.get("datatype")
    if shape[1:] not in ([], [1]) or not isinstance(datatype, str) or datatype not in (*NUMBERS, "BYTES"):
        raise RequestError(400, f"{name} is a value per row: {', '.join(sorted(NUMBERS))} or BYTES of shape [N]")
    if datatype == "BYTES":
        values = _flatten(tensor) if binary is None else [one.decode(errors="replace") for one in _split_bytes(binary)]
    elif binary is None:
        values = _flatten(tensor)
    elif len(binary) != np.dtype(NUMBERS[datatype]).itemsize * shape[0]:
        raise RequestError(400, f"{name} has {len(binary)} bytes, which are not {shape[0]} values of {datatype}")
    else:
        values = np.frombuffer(binary, NUMBERS[datatype]).tolist()
    if len(values) != shape[0]:
        raise RequestError(400, f"{name} has {len(values)} values, but its shape says {shape[0]}")
    if not all(isinstance(value, str | int | float | None) for value in values):
        raise RequestError(400, f"a value of {name} is a text, a number, true, false or null")
    return [None if value != value else value for value in values]


def _flatten(tensor: Mapping[str, Any]) -> list[Any]:
    data = tensor.get("data")
    if not isinstance(data, list):
        raise RequestError(400, "the data of an input are a list")
    return [item for row in data for item in (row if isinstance(row, list) else [row])]


def _split_bytes(binary: memoryview) -> Iterator[bytes]:
    position = 0
    while position < len(binary):
        if position + _LENGTH.size > len(binary):
            raise RequestError(400, "the binary data of encoded end within a length")
        (length,) = _LENGTH.unpack_from(binary, position)
        position += _LENGTH.size
        if position + length > len(binary):
            raise RequestError(400, "the binary data of encoded end within an image")
        yield bytes(binary[position : position + length])
        position += length


def _join_bytes(array: np.ndarray) -> bytes:
    texts = [str(item).encode("utf-8", "surrogateescape") for item in array.ravel()]
    return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
