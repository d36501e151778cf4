"""Export a bundle's model: the folder of an export is written whole, checked, and then put in place."""

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import LoadedBundle
from classifier.bundle.document import DOCUMENT as BUNDLE_DOCUMENT
from classifier.bundle.document import OOD_TENSORS, REFERENCE, WEIGHTS, Bundle, read_document
from classifier.bundle.engine import Answer, Engine
from classifier.bundle.exported import (
    DOCUMENT,
    FORMAT_VERSION,
    SAMPLE,
    Export,
    ExportDocument,
    Parity,
    check_sample,
    open_export,
)
from classifier.bundle.schema import CalibrationDocument
from classifier.bundle.torch_engine import TorchEngine
from classifier.data.columns.schema import IMAGE
from classifier.data.dataset import Dataset, Split
from classifier.data.decoding.image_spec import ImageSpec
from classifier.data.images.arrays import select
from classifier.data.readers.compact import select_strings
from classifier.errors import DataError, RunError
from classifier.export.formats import open_engine, package_versions, write_graph
from classifier.export.graph import Graph
from classifier.export.parity import StatisticsError, check_parity
from classifier.export.sample import make_sample
from classifier.models import count_parameters
from classifier.storage.atomic import file_sha256, fsync, retry_io, write_atomically, write_tensors

# Images of the parity gate, evenly spaced.
MAX_IMAGES = 256
# Of them, with columns: as many again without these, and without the image.
MAX_VARIANTS = 32
_MAX_PIXELS = 10_000_000


@dataclass(frozen=True, eq=False)
class GateImages:
    """Images that an export is checked on: uint8 images_NCHW, their names, and the split that they are of.

    columns_NF: of a data set with columns, where some of the images are repeated with the columns missing, and some
    as rows without an image.
    """

    images_NCHW: np.ndarray
    ids: tuple[str, ...]
    split: str
    columns_NF: np.ndarray | None = None

    @classmethod
    def select(cls, dataset: Dataset) -> "GateImages":
        """Take images of the validation split, or of the training split if there is none: never of the test split."""
        name, split = ("validation", dataset.validation) if len(dataset.validation) else ("train", dataset.train)
        return cls.sample(name, split)

    @classmethod
    def sample(cls, name: str, split: Split) -> "GateImages":
        """Take at most MAX_IMAGES of a split, evenly spaced. DataError if it has none."""
        if len(split) == 0:
            raise DataError("there are no images to check the export on: give the training data by --data")
        index_M = torch.linspace(0, len(split) - 1, min(MAX_IMAGES, len(split))).long()
        images_NCHW = select(split.images_NCHW, index_M)[:].contiguous().numpy()
        ids = tuple(select_strings(split.ids, index_M.tolist()))
        if split.columns_NF is None:
            return cls(images_NCHW, ids, name)
        columns_NF = split.columns_NF[index_M].numpy()
        variants_M = np.linspace(0, len(ids) - 1, min(MAX_VARIANTS, len(ids))).astype(int)
        without_columns_MF, without_image_MF = columns_NF[variants_M].copy(), columns_NF[variants_M].copy()
        without_columns_MF[:, IMAGE + 1 :] = np.nan
        without_image_MF[:, IMAGE] = 0
        named = [f"{ids[n]} (without {what})" for what in ("its columns", "the image") for n in variants_M]
        return cls(
            np.concatenate([images_NCHW, images_NCHW[variants_M], images_NCHW[variants_M]]),
            (*ids, *named),
            name,
            np.concatenate([columns_NF, without_columns_MF, without_image_MF]),
        )


def export_bundle(path: str | Path, kind: str, gate: GateImages, out: Path | None = None) -> Export:
    """Export the model of a run, search or bundle folder to a format; return the export, which agrees with the model.

    It becomes BUNDLE/kind, replacing an older one; with `out`, a new folder with all that predicting needs, but not the
    weights. RunError if it does not agree, and nothing is left behind.
    """
    folder = bundles.bundle_folder(path)
    loaded = bundles.load(folder)
    detector = bundles.load_ood_detector(folder)
    layers = detector.layers if detector else []
    scorer = dataclasses.replace(loaded.scorer(), precision="fp32", channels_last=False)
    reference = TorchEngine(loaded, layers, scorer)
    expected = _predict_all(reference, gate)

    def fill(part: Path, graph: Graph) -> Mapping[str, Any]:
        example_NCHW = torch.from_numpy(gate.images_NCHW[[0, -1]])
        files = write_graph(graph, kind, part, example_NCHW, loaded.bundle.class_names, loaded.bundle.columns)
        return {"opset": files.opset}

    def check(engine: Engine) -> Parity:
        return check_parity(
            engine,
            gate.images_NCHW,
            gate.columns_NF,
            expected,
            ids=gate.ids,
            split=gate.split,
            class_names=loaded.bundle.class_names,
            detector=detector,
            task=loaded.bundle.task,
        )

    def write(*, has_exact_statistics: bool) -> Export:
        graph = Graph(loaded.model, scorer, layers, has_exact_statistics=has_exact_statistics)
        write_files = functools.partial(fill, graph=graph)
        return write_export(loaded, folder, kind, gate, layers=layers, fill=write_files, check=check, out=out)

    try:
        return write(has_exact_statistics=False)
    except StatisticsError:  # channels whose values are nearly the same: it takes more time to tell them apart
        return write(has_exact_statistics=True)


def write_export(
    loaded: LoadedBundle,
    folder: Path,
    kind: str,
    gate: GateImages,
    *,
    layers: list[str],
    fill: Callable[[Path], Mapping[str, Any]],
    check: Callable[[Engine], Parity],
    precision: str = "fp32",
    calibration: CalibrationDocument | None = None,
    out: Path | None = None,
) -> Export:
    """Write an export of the loaded bundle in `folder`, check it, and put it in place: see `export_bundle`.

    fill: writes the files of the graph into a folder, and returns fields of export.json. check: compares the answers of
    its engine with those it should have, and raises RunError. calibration: its own, if it is not the bundle's.
    """
    base = folder if out is None else _new_folder(out)
    part = base / f".{kind}.part"
    about, bundle = loaded.bundle, read_document(folder)
    try:
        shutil.rmtree(part, ignore_errors=True)  # left by one that was killed
        retry_io(lambda: part.mkdir(parents=True), part)
        fields = fill(part)
        document = _describe(about, bundle["files"][WEIGHTS]["sha256"], kind, precision, calibration)
        document |= {"parameters": count_parameters(loaded.model), "layers": layers, **fields}
        engine = open_engine(_seal(part, document))
        document["parity"] = check(engine)
        spec = ImageSpec(about.size, about.channels, about.fit, _MAX_PIXELS)
        arrays = make_sample(gate.images_NCHW, engine, spec, gate.columns_NF, about.columns)
        sample = {name: torch.tensor(array) for name, array in arrays.items()}
        retry_io(lambda: write_tensors(sample, part / SAMPLE), part / SAMPLE)
        _seal(part, document)
        if out is not None:
            retry_io(lambda: _copy_description(folder, base), base)
        retry_io(lambda: _replace(part, base / kind), base / kind)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        if out is not None:
            shutil.rmtree(base, ignore_errors=True)
        raise
    export = open_export(base, kind, read_document(base))
    check_sample(export, open_engine(export))
    return export


def _predict_all(engine: TorchEngine, gate: GateImages) -> Answer:
    """Answer any number of images, batch by batch."""
    rows = [slice(n, n + engine.batch_size) for n in range(0, len(gate.images_NCHW), engine.batch_size)]
    answers = [
        engine.predict(
            np.ascontiguousarray(gate.images_NCHW[own]), None if gate.columns_NF is None else gate.columns_NF[own]
        )
        for own in rows
    ]
    statistics = {layer: np.concatenate([a.statistics[layer] for a in answers]) for layer in answers[0].statistics}
    return Answer(np.concatenate([answer.probabilities_NK for answer in answers]), statistics)


def _describe(
    about: Bundle, weights_sha256: str, kind: str, precision: str, calibration: CalibrationDocument | None
) -> dict[str, Any]:
    shared = calibration or about.calibration
    return {
        "format_version": FORMAT_VERSION,
        "format": kind,
        "precision": precision,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": package_versions(kind),
        "weights_sha256": weights_sha256,
        "class_names": list(about.class_names),
        "channels": about.channels,
        "size": about.size,
        "fit": about.fit,
        "mean": list(about.mean),
        "std": list(about.std),
        "test_flip": about.test_flip,
        "columns": about.as_document()["columns"],
        "temperature": shared["temperature"] if shared else 1.0,
        "calibration": calibration,
    }


def _seal(part: Path, document: dict[str, Any]) -> Export:
    """Write export.json with the checksums of all other files, and return the export."""
    files = sorted(path for path in part.iterdir() if path.name != DOCUMENT and not path.name.startswith("."))
    for path in files:
        retry_io(lambda path=path: fsync(path), path)
    document["files"] = {path.name: {"sha256": file_sha256(path)} for path in files}
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    retry_io(lambda: write_atomically(part / DOCUMENT, text), part)
    sealed: Any = document
    return Export(part, ExportDocument(**sealed), None, None)


def _new_folder(out: Path) -> Path:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} already exists: give --out a new folder")
    return out


def _copy_description(folder: Path, out: Path) -> None:
    for name in (BUNDLE_DOCUMENT, OOD_TENSORS, REFERENCE):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)


def _replace(part: Path, target: Path) -> None:
    older = target.with_name(f".{target.name}.older")
    shutil.rmtree(older, ignore_errors=True)
    if target.exists():
        target.rename(older)
    part.rename(target)
    shutil.rmtree(older, ignore_errors=True)
