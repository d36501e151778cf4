"""Changes of a graph that keep its answers, so that int8 pays: ONNX in, ONNX out."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

_PROBABILITIES = "probabilities"
# Statistics of maps are measured on at least so many rows and columns.
SAMPLED_SIDE = 28
# What a convolution in int8 takes in.
_ABSORBED = ("BatchNormalization", "Clip", "Relu")


def soften(source: Path, target: Path, temperature: float) -> None:
    """Write the graph with its probabilities at another temperature: their logarithms are divided by it."""
    model = onnx.load(source)
    graph, raw = model.graph, "probabilities_raw"
    for node in graph.node:
        for number, name in enumerate(node.output):
            if name == _PROBABILITIES:
                node.output[number] = raw
    values = {"least_probability": np.finfo(np.float32).tiny, "own_temperature": temperature}
    graph.initializer.extend(numpy_helper.from_array(np.array(v, np.float32), name) for name, v in values.items())
    graph.node.extend(
        [
            helper.make_node("Max", [raw, "least_probability"], ["probabilities_clamped"]),
            helper.make_node("Log", ["probabilities_clamped"], ["log_probabilities_raw"]),
            helper.make_node("Div", ["log_probabilities_raw", "own_temperature"], ["logits_softened"]),
            helper.make_node("Softmax", ["logits_softened"], [_PROBABILITIES], axis=1),
        ]
    )
    onnx.save(model, target)


def rewrite_for_int8(model: Any) -> None:
    """Let each convolution take in the norm, the activation and the statistics behind it.

    Statistics of the layers then are those of their activations: they need a detector of their own.
    """
    graph = model.graph
    answering = _find_ancestors(graph, _PROBABILITIES)
    nodes = list(graph.node)  # statistics last: they will use what comes after them now
    nodes.sort(key=lambda node: node.output[0] not in answering)
    del graph.node[:]
    graph.node.extend(nodes)
    _move_pooling_back(graph, answering)
    sizes = {info.name: _side(info) for info in graph.value_info}
    _measure_activations(graph, answering, sizes)
    del graph.value_info[:]


def _move_pooling_back(graph: Any, answering: set[str]) -> None:
    """Turn MaxPool -> BatchNormalization and MaxPool -> Relu into the reverse.

    They commute where the norm only scales by positive factors.
    """
    factors = {array.name: numpy_helper.to_array(array) for array in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    for node in list(graph.node):
        is_norm = node.op_type == "BatchNormalization"
        pool = makers.get(node.input[0]) if is_norm or node.op_type == "Relu" else None
        if pool is None or pool.op_type != "MaxPool":
            continue
        if is_norm and not np.all(factors.get(node.input[1], np.zeros(1)) > 0):
            continue
        source, middle, result = pool.input[0], pool.output[0], node.output[0]
        if len(_find_users(graph, middle)) > 1 or len(_find_users(graph, source, answering)) > 1:
            continue
        for user in _find_users(graph, source):
            _replace_input(user, source, middle)
        node.input[0], node.output[0] = source, middle
        pool.input[0], pool.output[0] = middle, result
        later = onnx.NodeProto()  # nodes are in the order of execution
        later.CopyFrom(node)
        node.CopyFrom(pool)
        pool.CopyFrom(later)
        makers = {name: maker for maker in graph.node for name in maker.output}


def _measure_activations(graph: Any, answering: set[str], sizes: dict[str, int]) -> None:
    """Measure statistics of a convolution behind its norm and activation, where nothing else uses what is before.

    Of large maps only each so many rows and columns are measured: going back to float costs more than the convolution.
    sizes: of square maps, by name.
    """
    sampled: dict[tuple[str, int], str] = {}
    for node in [node for node in graph.node if node.output[0] not in answering]:
        for source in set(node.input) & answering:
            value = source
            while True:
                users = _find_users(graph, value, answering)
                if len(users) != 1 or users[0].op_type not in _ABSORBED or users[0].input[0] != value:
                    break
                value = users[0].output[0]
            step = sizes.get(source, 0) // SAMPLED_SIDE
            if step > 1:
                if (value, step) not in sampled:
                    sampled[value, step] = _sample(graph, graph.node[:].index(node), value, step)
                value = sampled[value, step]
            _replace_input(node, source, value)


def _sample(graph: Any, position: int, value: str, step: int) -> str:
    """Insert a node that takes each `step`th row and column of a map; return the name of its output."""
    name = f"{value}/sampled"
    parts = {"start": [0, 0], "end": [2**31, 2**31], "axes": [2, 3], "step": [step, step]}
    for part, numbers in parts.items():
        graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), f"{name}/{part}"))
    graph.node.insert(position, helper.make_node("Slice", [value, *(f"{name}/{part}" for part in parts)], [name], name))
    return name


def _side(info: Any) -> int:
    """Return the side of a square map; 0 for other values."""
    dims = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
    return dims[3] if len(dims) == 4 and dims[2] == dims[3] else 0


def _find_users(graph: Any, name: str, within: set[str] | None = None) -> list[Any]:
    """Return the nodes that use a value. within: only those whose outputs are among these values."""
    users = [node for node in graph.node if name in node.input]
    return users if within is None else [node for node in users if node.output[0] in within]


def _replace_input(node: Any, old: str, new: str) -> None:
    for number, name in enumerate(node.input):
        if name == old:
            node.input[number] = new


def _find_ancestors(graph: Any, output: str) -> set[str]:
    """Return the names of all values that an output is computed from, and its own."""
    makers = {name: node for node in graph.node for name in node.output}
    found, waiting = set[str](), [output]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += makers[name].input if name in makers else []
    return found
