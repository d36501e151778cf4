"""Graphs as files: ONNX, OpenVINO's intermediate representation, and torch.export's archive; and what runs them."""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from classifier.bundle.engine import Answer, Engine
from classifier.bundle.exported import Export
from classifier.data.columns.graph_inputs import make_missing, to_graph_inputs, widths_of_inputs
from classifier.data.columns.schema import ColumnSchema
from classifier.errors import RunError, in_short
from classifier.export.graph import Graph

# Packages that make a format, whose versions are recorded.
PACKAGES = {
    "onnx": ("torch", "onnx", "onnxscript", "onnxruntime"),
    "openvino": ("torch", "onnx", "onnxscript", "openvino"),
    "torch_export": ("torch",),
}
ARCHIVE = "model.pt2"
# Files of ONNX above 2 GB need a second file; no network for a CPU is so large.
MAX_BYTES = 1_900_000_000


class Files(NamedTuple):
    """The files that a graph was written to."""

    names: tuple[str, ...]
    opset: int | None


def package_versions(kind: str) -> dict[str, str | None]:
    """Return the versions of the packages that make a format, None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES[kind]:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return {name: found.get(name) for name in PACKAGES[kind]}


def write_graph(
    graph: Graph,
    kind: str,
    folder: Path,
    example_NCHW: torch.Tensor,
    class_names: tuple[str, ...],
    schema: ColumnSchema | None = None,
) -> Files:
    """Write the graph into `folder` with any number of images per batch. RunError if the format cannot express it.

    example_NCHW: two images, uint8. schema: of the columns that the model takes.
    """
    size = sum(value.nbytes for value in graph.state_dict().values())
    if size > MAX_BYTES:
        raise RunError(f"the model has {size / 1e9:.1f} GB of weights: exports hold at most {MAX_BYTES / 1e9:.1f} GB")
    write = {"onnx": _write_onnx, "openvino": _write_openvino, "torch_export": _write_archive}[kind]
    try:
        with _quiet():
            return write(graph, folder, _Example.make(example_NCHW, schema), json.dumps(class_names))
    except ModuleNotFoundError:
        raise
    except Exception as error:  # of many kinds: whatever a network does that an exporter does not know
        raise RunError(f"the model cannot be exported to {kind} ({in_short(error, 300)})") from error


class _Example(NamedTuple):
    """Inputs of two images, by which a graph is traced. names: those of the graph."""

    inputs: tuple[torch.Tensor, ...]
    names: list[str]

    @classmethod
    def make(cls, images_NCHW: torch.Tensor, schema: ColumnSchema | None) -> "_Example":
        columns = {}
        if schema:
            columns_NF = np.nan_to_num(make_missing(schema, len(images_NCHW)))
            columns = to_graph_inputs(schema, columns_NF, len(images_NCHW))
        inputs = (images_NCHW, *map(torch.from_numpy, columns.values()))
        return cls(inputs, ["images", *widths_of_inputs(schema)])

    @property
    def dynamic_shapes(self) -> tuple[Any, ...]:
        batch = {0: torch.export.Dim("batch")}
        return (batch, (batch,) * (len(self.inputs) - 1)) if len(self.inputs) > 1 else (batch,)


def _write_onnx(graph: Graph, folder: Path, example: _Example, class_names: str) -> Files:
    import onnxscript  # noqa: F401 - torch.onnx says less of its absence

    program = torch.onnx.export(
        graph,
        example.inputs,
        dynamo=True,
        dynamic_shapes=example.dynamic_shapes,
        input_names=example.names,
        output_names=["probabilities", *(f"statistics/{layer}" for layer in graph.layers)],
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props["class_names"] = class_names
    _average_globally(program.model)
    program.save(folder / "model.onnx", external_data=False)
    return Files(("model.onnx",), program.model.opset_imports[""])


def _average_globally(model: Any) -> None:
    """Turn means over whole images into poolings: ONNX Runtime keeps these in the layout of its convolutions."""
    for node in model.graph:
        axes = node.inputs[1].const_value if node.op_type == "ReduceMean" and len(node.inputs) == 2 else None
        if axes is None or node.inputs[0].shape is None or node.inputs[0].shape.rank() != 4:
            continue
        keeps = "keepdims" not in node.attributes or node.attributes["keepdims"].as_int()
        if keeps and sorted(axis % 4 for axis in axes.numpy().tolist()) == [2, 3]:
            node.op_type = "GlobalAveragePool"
            node.attributes.clear()
            node.resize_inputs(1)


def _write_openvino(graph: Graph, folder: Path, example: _Example, class_names: str) -> Files:
    import openvino

    _, opset = _write_onnx(graph, folder, example, class_names)
    model = openvino.convert_model(folder / "model.onnx")
    model.set_rt_info(class_names, "class_names")
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    (folder / "model.onnx").unlink()
    return Files(("model.xml", "model.bin"), opset)


def _write_archive(graph: Graph, folder: Path, example: _Example, class_names: str) -> Files:
    program = torch.export.export(graph, example.inputs, dynamic_shapes=example.dynamic_shapes)
    torch.export.save(program, folder / ARCHIVE, extra_files={"class_names.json": class_names})
    return Files((ARCHIVE,), None)


def open_engine(export: Export) -> Engine:
    """Return what computes the answers of an export. RunError if it cannot be loaded."""
    if export.document["format"] == "onnx":
        from classifier.bundle.onnx_engine import OnnxEngine

        return OnnxEngine(export)
    if export.document["format"] == "openvino":
        from classifier.bundle.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(export)
    return ArchiveEngine(export)


class ArchiveEngine:
    """Answers by an archive of torch.export, which this process has made: loading a foreign one may execute code."""

    batch_size = 32

    def __init__(self, export: Export) -> None:
        self._layers, self.description = export.document["layers"], export.description
        self._schema = export.columns
        with _quiet():
            self._module = torch.export.load(export.folder / ARCHIVE).module()

    def predict(self, images_NCHW: np.ndarray, columns_NF: np.ndarray | None = None) -> Answer:
        inputs = [torch.from_numpy(images_NCHW)]
        if self._schema:
            parts = to_graph_inputs(self._schema, columns_NF, len(images_NCHW)).values()
            inputs += [torch.from_numpy(part) for part in parts]
        with torch.inference_mode():
            probabilities_NK, *statistics = self._module(*inputs)
        return Answer(probabilities_NK.numpy(), dict(zip(self._layers, (s.numpy() for s in statistics), strict=True)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and progress of exporters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = {
            name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")
        }
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
