"""Answers by ONNX Runtime on the CPU, without torch."""

import numpy as np
import onnxruntime

from classifier.bundle.engine import Answer
from classifier.bundle.exported import Export, check_class_names
from classifier.data.columns.graph_inputs import to_graph_inputs, widths_of_inputs
from classifier.errors import RunError, in_short
from classifier.runtime.cpu import usable_threads

GRAPH = "model.onnx"
# Images per batch, and pixels per batch and channel (32 images of 224 x 224): larger batches are no faster.
MAX_BATCH, BATCH_PIXELS = 32, 32 * 224 * 224
_ERRORS_ONLY = 3
onnxruntime.disable_telemetry_events()  # which 1.32 has on Linux, too


class OnnxEngine:
    """A session with the graph of an export. threads: None for one per core that this process may use.

    RunError if the graph was changed, or is not what its document says.
    """

    def __init__(self, export: Export, threads: int | None = None) -> None:
        path, document = export.folder / GRAPH, export.document
        content = export.read_graph(GRAPH)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or usable_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        # Threads that wait busily for each other take the cores from those that decode the next images (LOG.md).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of many kinds, without a common base
            raise RunError(f"{path} cannot be loaded ({in_short(error, 160)}): export it again") from None
        check_class_names(path, self._session.get_modelmeta().custom_metadata_map, document["class_names"])
        images, *others = self._session.get_inputs()
        batch, *shape = images.shape
        if isinstance(batch, int):
            raise RunError(f"{path}: the graph takes batches of {batch} only: export it again")
        if shape != [document["channels"], document["size"], document["size"]] or images.type != "tensor(uint8)":
            raise RunError(f"{path}: preprocessing differs: the graph takes {images.type} of {shape}: export it again")
        self._schema = export.columns
        widths = widths_of_inputs(self._schema)
        found = [(one.name, one.shape[1:], one.type) for one in others]
        if found != [(name, [width], "tensor(float)") for name, width in widths.items()]:
            raise RunError(f"{path}: the graph takes other columns than export.json says: export it again")
        expected = ["probabilities", *(f"statistics/{layer}" for layer in document["layers"])]
        if [output.name for output in self._session.get_outputs()] != expected:
            raise RunError(f"{path}: the graph has other outputs than export.json says: export it again")
        self._input, self._layers = images.name, document["layers"]
        self.batch_size = max(1, min(MAX_BATCH, BATCH_PIXELS // document["size"] ** 2))
        self.description = export.description

    def predict(self, images_NCHW: np.ndarray, columns_NF: np.ndarray | None = None) -> Answer:
        inputs = {self._input: np.ascontiguousarray(images_NCHW)}
        if self._schema:
            inputs |= to_graph_inputs(self._schema, columns_NF, len(images_NCHW))
        probabilities_NK, *statistics = self._session.run(None, inputs)
        return Answer(np.asarray(probabilities_NK), dict(zip(self._layers, map(np.asarray, statistics), strict=True)))
