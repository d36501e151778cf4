"""An exported model: a folder of a bundle, such as BUNDLE/onnx, that answers without torch. Read, and checked.

`export.json` describes it, `sample.safetensors` holds images with the answers that they had where it was made, and the
graph is in the file of its format. Nothing of it is used before it was checked: its bytes by their checksums, what it
says by bundle.json, and what it computes, here, by the sample.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import numpy as np

from classifier.bundle.document import DOCUMENT as BUNDLE_DOCUMENT
from classifier.bundle.document import OOD_TENSORS, REMEDY, WEIGHTS, find, read_ood_detector, read_verified
from classifier.bundle.engine import Engine
from classifier.bundle.schema import (
    BundleDocument,
    CalibrationDocument,
    Checksum,
    Deviation,
    ImageSize,
)
from classifier.config.documents import Count, read_json
from classifier.config.fields import Fraction, NonNegativeFloat, Range
from classifier.data.columns.schema import ColumnSchema
from classifier.data.decoding import decode
from classifier.data.decoding.image_file import DecodeError
from classifier.data.decoding.image_spec import ImageSpec
from classifier.errors import DataError, RunError, in_short
from classifier.inference.ood_detector import OODDetector
from classifier.metrics.decisions import Calibration

FORMAT_VERSION = 1
DOCUMENT, SAMPLE = "export.json", "sample.safetensors"
FORMATS = ("onnx", "openvino", "torch_export")
# By how much probabilities may differ from those of the model, and of another machine. Processors round int8 their way.
TOLERANCES = {"fp32": 1e-5, "int8": 0.02}
# Grey values by which pixels that are decoded and resized here may differ.
PIXEL_TOLERANCE = 1
_MAX_SAMPLE_PIXELS = 10_000_000
# What an export and bundle.json say of the preprocessing: it must be the same.
_PREPROCESSING = ("channels", "size", "fit", "mean", "std", "test_flip")


class Parity(TypedDict):
    """How an export agreed with its model on images of the user's own, when it was made."""

    split: str
    images: Count
    batches: list[Count]
    max_difference: NonNegativeFloat
    """Of any probability."""
    farthest: str
    """The image whose probabilities differ most."""


class ExportDocument(TypedDict):
    """export.json."""

    format_version: int
    format: Literal["onnx", "openvino", "torch_export"]
    precision: Literal["fp32", "int8"]
    made: str
    versions: dict[str, str | None]
    opset: NotRequired[int | None]
    """Of ONNX."""
    parameters: Count
    files: dict[str, Checksum]
    weights_sha256: str
    """Of the weights that it was made from."""
    class_names: list[str]
    channels: int
    size: ImageSize
    fit: str
    mean: list[Fraction]
    std: list[Deviation]
    test_flip: bool
    temperature: Annotated[float, Range(1e-3, 1e3)]
    columns: NotRequired[Any]
    """Those that join the image (ColumnSchema.as_dict): they are inputs of the graph. None without any."""
    layers: list[str]
    """Those whose statistics it gives, in the order of its outputs."""
    calibration: NotRequired[CalibrationDocument | None]
    """Its own, if it differs from the bundle's, as that of an int8 model does."""
    parity: Parity


@dataclass(frozen=True)
class Export:
    """An export whose document was checked; its graph is not loaded yet."""

    folder: Path
    document: ExportDocument
    calibration: Calibration | None
    detector: OODDetector | None

    @functools.cached_property
    def columns(self) -> ColumnSchema | None:
        """The columns that join the image, which are inputs of the graph."""
        plain = self.document.get("columns")
        return None if plain is None else ColumnSchema.from_dict(plain)

    @property
    def description(self) -> str:
        """Its format, precision and graph, for an engine."""
        files = self.document["files"]
        graph = " ".join(files[name]["sha256"][:12] for name in sorted(files) if name.startswith("model."))
        return f"{self.document['format']} {self.document['precision']} {graph}"

    def read_graph(self, name: str) -> bytes:
        """Return the bytes of a file of the graph. RunError if they were changed."""
        return _read(self.folder / name, self.document)


def is_exported(folder: Path, kind: str) -> bool:
    """Return whether the bundle's folder holds an export of this format."""
    return (folder / kind / DOCUMENT).is_file()


def explain_stale(folder: Path, kind: str, bundle: BundleDocument) -> str | None:
    """Return why an export is not of this bundle any more, in a sentence; None if it is."""
    document = _read_document(folder / kind)
    calibration = bundle.get("calibration")
    temperature = calibration["temperature"] if calibration else 1.0
    own = document.get("calibration")
    if document["weights_sha256"] != bundle["files"][WEIGHTS]["sha256"]:
        change = "the model was trained further"
    elif (own["temperature"] if own else temperature) != document["temperature"]:
        change = "the model was calibrated again"
    else:
        return None
    return f"{folder / kind} is not used, since {change} after it was exported: export it again"


def open_export(folder: Path, kind: str, bundle: BundleDocument) -> Export:
    """Open the export of this format in a bundle's folder. RunError if it is damaged, or not of this bundle."""
    path = folder / kind
    document = _read_document(path)
    if document["format"] != kind:
        raise RunError(f"{path / DOCUMENT} is that of an export to {document['format']}, not {kind}: {REMEDY}")
    _check_agreement(path, document, bundle)
    own, shared = document.get("calibration"), bundle.get("calibration")
    plain: Any = own or shared
    if OOD_TENSORS in document["files"]:
        detector = read_ood_detector(path / OOD_TENSORS, document["files"])
    elif OOD_TENSORS in bundle["files"]:
        detector = read_ood_detector(folder / OOD_TENSORS, bundle["files"])
    else:
        detector = None
    if detector and not set(detector.layers) <= set(document["layers"]):
        raise RunError(f"{path} lacks layers of the out-of-distribution detector: export it again")
    names = CalibrationDocument.__annotations__.keys()
    calibration = Calibration.from_dict({name: plain[name] for name in names & plain.keys()}) if plain else None
    return Export(path, document, calibration, detector)


def check_sample(export: Export, engine: Engine) -> None:
    """Compare what is decoded and computed here with the stored sample. RunError says what differs."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path, document = export.folder, export.document
    try:
        sample = load(_read(path / SAMPLE, document))
        images_NCHW, expected_NK, columns_NF = sample["images"], sample["probabilities"], sample.get("columns")
        encoded = {name.rpartition("/")[2]: sample[name] for name in sorted(sample) if name.startswith("encoded/")}
        decoded = {number: sample[f"decoded/{number}"] for number in encoded}
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path / SAMPLE} is corrupted ({in_short(error)}): export it again") from None
    shape = (document["channels"], document["size"], document["size"])
    if (
        images_NCHW.shape[1:] != shape
        or images_NCHW.dtype != np.uint8
        or expected_NK.shape != (len(images_NCHW), len(document["class_names"]))
        or any(pixels.shape != shape for pixels in decoded.values())
        or not _fits(export.columns, columns_NF, len(images_NCHW))
    ):
        raise RunError(f"{path / SAMPLE} is corrupted (shapes do not fit): export it again")
    spec = ImageSpec(document["size"], document["channels"], document["fit"], _MAX_SAMPLE_PIXELS)
    for number, content in encoded.items():
        _check_decoding(path, number, content.tobytes(), decoded[number], spec)
    if export.columns:
        _check_encoding(path, sample, export.columns)
    answer = engine.predict(images_NCHW, columns_NF)
    difference = float(np.abs(answer.probabilities_NK - expected_NK).max())
    if not difference <= TOLERANCES[document["precision"]]:
        raise RunError(
            f"{path} answers differently on this machine: probabilities of its sample differ by up to {difference:.2g} "
            f"from those where it was made ({TOLERANCES[document['precision']]:g} is allowed): export it again here"
        )


def _fits(schema: ColumnSchema | None, columns_NF: np.ndarray | None, count: int) -> bool:
    if schema is None or columns_NF is None:
        return schema is None and columns_NF is None
    return columns_NF.shape == (count, schema.width) and columns_NF.dtype == np.float32


def _check_encoding(path: Path, sample: Mapping[str, np.ndarray], schema: ColumnSchema) -> None:
    """RunError if rows of columns are encoded in another way here than where they were stored."""
    try:
        rows, expected_MF = json.loads(sample["rows"].tobytes()), sample["encoded_rows"]
        found_MF = schema.encode(rows)
    except (KeyError, ValueError, TypeError, RecursionError, DataError) as error:
        raise RunError(f"{path / SAMPLE} is corrupted ({in_short(error)}): export it again") from None
    if found_MF.shape != expected_MF.shape or not np.allclose(found_MF, expected_MF, atol=1e-5, equal_nan=True):
        raise RunError(
            f"{path}: preprocessing differs: the columns of its sample are encoded in another way: install the version "
            "of classifier that it was exported with (export.json), or export it again here"
        )


def _check_decoding(path: Path, number: str, content: bytes, expected: np.ndarray, spec: ImageSpec) -> None:
    try:
        pixels = decode.decode_bytes(content, spec)
    except DecodeError as error:
        raise RunError(f"{path}: preprocessing differs: image {number} of its sample cannot be read: {error}") from None
    difference = int(np.abs(pixels.astype(np.int16) - expected).max())
    if difference > PIXEL_TOLERANCE:
        raise RunError(
            f"{path}: preprocessing differs: image {number} of its sample is decoded with differences of up to "
            f"{difference} grey values: install the versions of Pillow and simplejpeg that it was exported with "
            "(export.json), or export it again here"
        )


def _check_agreement(path: Path, document: ExportDocument, bundle: BundleDocument) -> None:
    """RunError, by name, if the export says something else than bundle.json."""
    names, known = document["class_names"], bundle["class_names"]
    if names != known:
        what = "differ in order" if sorted(names) == sorted(known) else "differ"
        raise RunError(f"{path}: class names {what} from those in bundle.json: export it again")
    own, shared = document.get("columns") or [], bundle.get("columns") or []
    if own != shared:
        is_other_order = sorted(map(str, own)) == sorted(map(str, shared))
        what = "differ in order" if is_other_order else "differ"
        raise RunError(f"{path}: columns {what} from those in bundle.json: export it again")
    for key in _PREPROCESSING:
        if document[key] != bundle[key]:
            raise RunError(
                f"{path}: preprocessing differs: {key} is {document[key]}, but {bundle[key]} in bundle.json: "
                "export it again"
            )


def check_class_names(path: Path, found: Mapping[str, str], class_names: list[str]) -> None:
    """RunError unless the metadata in a graph name the classes in this order."""
    try:
        names = json.loads(found.get("class_names", "null"))
    except (ValueError, RecursionError):
        names = None
    if names != class_names:
        is_other_order = isinstance(names, list) and sorted(map(str, names)) == sorted(class_names)
        what = "class names differ in order" if is_other_order else "class names differ"
        raise RunError(f"{path}: {what} from those in {DOCUMENT}: export it again")


def _read_document(path: Path) -> ExportDocument:
    return read_json(path / DOCUMENT, ExportDocument, "export it again", FORMAT_VERSION)


def _read(path: Path, document: ExportDocument) -> bytes:
    try:
        return read_verified(path, document["files"])
    except RunError as error:
        raise RunError(str(error).replace(REMEDY, "export it again")) from None


def fingerprint(path: Path) -> str:
    """Return a text that changes when the bundle or an export of it does: a digest of their documents."""
    folder = find(path)
    digest = hashlib.sha256()
    for file in (folder / BUNDLE_DOCUMENT, *(folder / kind / DOCUMENT for kind in FORMATS)):
        digest.update(file.read_bytes() if file.is_file() else b"-")
    return digest.hexdigest()
