"""Answers by a graph that is no export yet: a candidate, to be timed and judged."""

import os
from pathlib import Path

import numpy as np
import onnxruntime

from classifier.bundle.engine import Answer

_PREFIX = "statistics/"
_ERRORS_ONLY = 3
BATCH = 32


class GraphEngine:
    """A session of ONNX Runtime with the graph of a file, computed by this many threads."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = _ERRORS_ONLY
        self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        self._layers = [output.name.removeprefix(_PREFIX) for output in self._session.get_outputs()[1:]]

    @property
    def batch_size(self) -> int:
        return BATCH

    @property
    def description(self) -> str:
        return f"the graph {self._path.name}"

    def predict(self, images_NCHW: np.ndarray, columns_NF: np.ndarray | None = None) -> Answer:
        """Answer a batch, as of Engine; no graph here takes columns."""
        probabilities_NK, *statistics = self._session.run(None, {"images": np.ascontiguousarray(images_NCHW)})
        return Answer(np.asarray(probabilities_NK), dict(zip(self._layers, map(np.asarray, statistics), strict=True)))
