"""Answers by OpenVINO on the CPU, without torch."""

import json

import numpy as np

from classifier.bundle.engine import Answer
from classifier.bundle.exported import Export, check_class_names
from classifier.bundle.onnx_engine import BATCH_PIXELS, MAX_BATCH
from classifier.data.columns.graph_inputs import to_graph_inputs, widths_of_inputs
from classifier.errors import RunError, in_short
from classifier.runtime.cpu import usable_threads

GRAPH, WEIGHTS = "model.xml", "model.bin"


class OpenVinoEngine:
    """A compiled graph of an export. threads, and errors: as of OnnxEngine."""

    def __init__(self, export: Export, threads: int | None = None) -> None:
        import openvino

        path, document = export.folder / GRAPH, export.document
        graph, weights = export.read_graph(GRAPH), export.read_graph(WEIGHTS)
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # it would compute in bf16 where the processor can
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads or usable_threads(),
        }
        try:
            model = openvino.Core().read_model(graph, weights)
            self._model = openvino.compile_model(model, "CPU", settings)
            names = json.dumps(json.loads(model.get_rt_info("class_names").value))
        except Exception as error:  # of many kinds, without a common base
            raise RunError(f"{path} cannot be loaded ({in_short(error, 160)}): export it again") from None
        check_class_names(path, {"class_names": names}, document["class_names"])
        batch = model.inputs[0].partial_shape[0]
        if not batch.is_dynamic:
            raise RunError(f"{path}: the graph takes batches of {batch} only: export it again")
        self._schema = export.columns
        found = [(one.any_name, str(one.partial_shape[1])) for one in model.inputs[1:]]
        if found != [(name, str(width)) for name, width in widths_of_inputs(self._schema).items()]:
            raise RunError(f"{path}: the graph takes other columns than export.json says: export it again")
        self._layers = document["layers"]
        self.batch_size = max(1, min(MAX_BATCH, BATCH_PIXELS // document["size"] ** 2))
        self.description = export.description

    def predict(self, images_NCHW: np.ndarray, columns_NF: np.ndarray | None = None) -> Answer:
        inputs = [np.ascontiguousarray(images_NCHW)]
        if self._schema:
            inputs += to_graph_inputs(self._schema, columns_NF, len(images_NCHW)).values()
        results = self._model(inputs)
        probabilities_NK, *statistics = (np.array(results[output]) for output in self._model.outputs)
        return Answer(probabilities_NK, dict(zip(self._layers, statistics, strict=True)))
