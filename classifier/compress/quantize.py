"""Post-training quantisation of an exported graph to int8: u8 activations and s8 weights, by ONNX Runtime.

B. Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", 2018.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import onnx
import onnxruntime
import torch

from classifier.compress.graph_rewrites import rewrite_for_int8
from classifier.data.images.arrays import Images, select
from classifier.errors import RunError, in_short

# Images that ranges of activations are measured on, and per pass.
CALIBRATION_IMAGES, BATCH = 256, 32
# Layers with weights, and what lies between two of them and need not go back to float.
_WEIGHTED = ("Conv", "Gemm", "MatMul")
_BETWEEN = ("Add", "AveragePool", "Clip", "GlobalAveragePool", "MaxPool", "Relu")
# Of ONNX Runtime's log.
_WARNINGS, _ERRORS_ONLY = 2, 3
_CPU_FLAGS = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Scheme:
    """How a graph is quantised. excluded: layers with weights that stay in float, by their number in the graph."""

    method: Literal["minmax", "percentile", "entropy"] = "minmax"
    """How ranges of activations are found."""
    per_channel: bool = True
    """A scale for each output channel of the weights, instead of one for the layer."""
    excluded: tuple[int, ...] = ()

    def __str__(self) -> str:
        text = f"{self.method}, per {'channel' if self.per_channel else 'tensor'}"
        return text + (f", {len(self.excluded)} layers in float" if self.excluded else "")


SCHEMES = (
    Scheme(),
    Scheme(per_channel=False),
    Scheme("percentile"),
    Scheme("entropy"),
)


def prepare(source: Path, target: Path) -> int:
    """Rewrite a graph so that int8 pays (graph_rewrites.py). Return how many layers with weights it has."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx.load(source)
    rewrite_for_int8(model)
    onnx.save(model, target)
    with _quiet():
        quant_pre_process(target, target, skip_symbolic_shape=True)  # folds batch norms into convolutions
    return len(_list_layers(onnx.load(target).graph))


def quantize(prepared: Path, target: Path, images_NCHW: np.ndarray, scheme: Scheme) -> None:
    """Quantise a prepared graph. images_NCHW: of the training split. RunError if the graph cannot be quantised."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    graph = onnx.load(prepared).graph
    excluded = {name for number, name in enumerate(_list_layers(graph)) if number in scheme.excluded}
    nodes = [name for name in _select_nodes(graph) if name not in excluded]
    try:
        with _quiet():
            quantize_static(
                prepared,
                target,
                cast("Any", _Images(images_NCHW)),  # its own base class needs it only to read in pieces
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=scheme.per_channel,
                reduce_range=needs_reduced_range(),
                calibrate_method=methods[scheme.method],
                nodes_to_quantize=nodes,
                # A matrix product of two activations, as in attention, loses most.
                extra_options={"MatMulConstBOnly": True},
            )
    except Exception as error:  # of many kinds: whatever a graph has that the quantiser does not know
        raise RunError(f"the graph cannot be quantised ({in_short(error, 200)})") from error


def needs_reduced_range() -> bool:
    """Whether products of 8 bits may overflow here: on x86 without VNNI, sums of two are kept in 16 bits."""
    try:
        flags = _CPU_FLAGS.read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return "avx2" in flags and not any("vnni" in flag for flag in flags)


class _Images:
    """Batches of images, as the quantiser asks for them. They are of one size, as its histograms need."""

    def __init__(self, images_NCHW: np.ndarray) -> None:
        count = max(1, len(images_NCHW) // BATCH)
        size = len(images_NCHW) // count
        self._batches = iter(np.split(images_NCHW[: count * size], count))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch_NCHW = next(self._batches, None)
        return None if batch_NCHW is None else {"images": np.ascontiguousarray(batch_NCHW)}

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        if (inputs := self.get_next()) is None:
            raise StopIteration
        return inputs


def _list_layers(graph: Any) -> list[str]:
    """Return the names of the layers with weights, in the order of execution."""
    return [node.name for node in graph.node if node.op_type in _WEIGHTED]


def _select_nodes(graph: Any) -> list[str]:
    """Return the layers with weights, and the operations that lie between two of them."""
    consumers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    after, before = set[str](), set[str]()  # of a layer with weights
    for node in graph.node:  # in the order of execution
        if node.op_type in _WEIGHTED or any(name in after for name in node.input):
            after.update(node.output)
    for node in reversed(graph.node):
        users = [user for name in node.output for user in consumers.get(name, ())]
        if any(user.op_type in _WEIGHTED or user.output[0] in before for user in users):
            before.update(node.output)
    between = [n.name for n in graph.node if n.op_type in _BETWEEN and n.output[0] in after & before]
    return _list_layers(graph) + between


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice of the quantiser, and the warnings of the sessions that it starts."""
    logger = logging.getLogger()
    level = logger.level
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
            onnxruntime.set_default_logger_severity(_WARNINGS)


def choose_images(images_NCHW: Images, count: int = CALIBRATION_IMAGES) -> np.ndarray:
    """Return at most `count` images, evenly spaced, as an array in memory."""
    rows_M = torch.linspace(0, len(images_NCHW) - 1, min(count, len(images_NCHW))).long()
    return select(images_NCHW, rows_M)[:].contiguous().numpy()
