"""Changes of a graph that keep its answers, so that int8 pays: ONNX in, ONNX out."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from classifier.inference.out_of_distribution import channel_step

_PROBABILITIES, _STATISTICS = "probabilities", "statistics/"
# What a convolution in int8 takes in.
_ABSORBED = ("BatchNormalization", "Clip", "Relu")


def soften(source: Path, target: Path, temperature: float) -> None:
    """Write the graph with its probabilities at another temperature: their logarithms are divided by it."""
    model = onnx.load(source)
    graph, raw = model.graph, "probabilities_raw"
    for node in graph.node:
        for number, name in enumerate(node.output):
            if name == "probabilities":
                node.output[number] = raw
    values = {"least_probability": np.finfo(np.float32).tiny, "own_temperature": temperature}
    graph.initializer.extend(numpy_helper.from_array(np.array(v, np.float32), name) for name, v in values.items())
    graph.node.extend(
        [
            helper.make_node("Max", [raw, "least_probability"], ["probabilities_clamped"]),
            helper.make_node("Log", ["probabilities_clamped"], ["log_probabilities_raw"]),
            helper.make_node("Div", ["log_probabilities_raw", "own_temperature"], ["logits_softened"]),
            helper.make_node("Softmax", ["logits_softened"], ["probabilities"], axis=1),
        ]
    )
    onnx.save(model, target)


def move_pooling_back(graph: Any) -> None:
    """Turn MaxPool -> BatchNormalization and MaxPool -> Relu into the reverse, so that a convolution takes both in.

    They commute where the norm only scales by positive factors. Statistics of what comes before a norm then are those
    of the normalised values, and serve a detector of its own as well.
    """
    factors = {array.name: numpy_helper.to_array(array) for array in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    answering = _find_ancestors(makers, _PROBABILITIES)
    for node in list(graph.node):
        is_norm = node.op_type == "BatchNormalization"
        pool = makers.get(node.input[0]) if is_norm or node.op_type == "Relu" else None
        if pool is None or pool.op_type != "MaxPool":
            continue
        if is_norm and not np.all(factors.get(node.input[1], np.zeros(1)) > 0):
            continue
        source, middle, result = pool.input[0], pool.output[0], node.output[0]
        users = {name: [user for user in graph.node if name in user.input] for name in (source, middle)}
        if len(users[middle]) > 1 or sum(user.output[0] in answering for user in users[source]) > 1:
            continue
        for user in users[source]:
            user.input[list(user.input).index(source)] = middle
        node.input[0], node.output[0] = source, middle
        pool.input[0], pool.output[0] = middle, result
        later = onnx.NodeProto()  # nodes are in the order of execution
        later.CopyFrom(node)
        node.CopyFrom(pool)
        pool.CopyFrom(later)
        makers = {name: node for node in graph.node for name in node.output}
    del graph.value_info[:]


def simplify_statistics(graph: Any) -> None:
    """Compute means and standard deviations of feature maps by two poolings, in whatever memory layout they have.

    Those of a convolution become those of its norm and activation, which int8 computes with it as one operation: they
    need a detector of their own.
    """
    makers = {name: node for node in graph.node for name in node.output}
    constants = {array.name for array in graph.initializer}
    answering = _find_ancestors(makers, _PROBABILITIES)
    channels = _count_channels(graph)
    for output in [output.name for output in graph.output if output.name.startswith(_STATISTICS)]:
        branch = _find_ancestors(makers, output) - answering - constants
        sources = {name for value in branch if value in makers for name in makers[value].input} & answering - constants
        if len(sources) != 1 or not sources <= channels.keys():
            continue  # tokens of a transformer
        [source] = sources
        source = _find_activation(graph, source, branch)
        others = [o.name for o in graph.output if o.name not in (output, _PROBABILITIES)]
        shared = set[str]().union(*(_find_ancestors(makers, name) for name in others))
        dead = [node for node in graph.node if node.output[0] in branch - shared]
        for node in dead:
            graph.node.remove(node)
        _append_statistics(graph, source, output, channel_step(channels[source]))
        makers = {name: node for node in graph.node for name in node.output}


def _count_channels(graph: Any) -> dict[str, int]:
    """Return the channels of the outputs of convolutions, and of the norms and activations behind them."""
    shapes = {array.name: tuple(array.dims) for array in graph.initializer}
    found: dict[str, int] = {}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in shapes:
            found[node.output[0]] = shapes[node.input[1]][0]
        elif node.op_type in _ABSORBED and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def _find_activation(graph: Any, source: str, branch: set[str]) -> str:
    """Return the last value behind a convolution that it may take in: there is one use of each before. branch: of the
    statistics, which do not count as a use.
    """
    while True:
        users = [node for node in graph.node if source in node.input and node.output[0] not in branch]
        if len(users) != 1 or users[0].op_type not in _ABSORBED:
            return source
        source = users[0].output[0]


def _append_statistics(graph: Any, source: str, output: str, step: int) -> None:
    """Append mean and standard deviation of each `step`th channel; the variance as the mean square less the square."""

    def add(kind: str, part: str, *inputs: str, **attributes: Any) -> str:
        graph.node.append(helper.make_node(kind, inputs, [f"{output}/{part}"], f"{output}/{part}", **attributes))
        return f"{output}/{part}"

    def constant(part: str, value: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{output}/{part}"))
        return f"{output}/{part}"

    mean = add("GlobalAveragePool", "mean", source)
    square = add("GlobalAveragePool", "mean_square", add("Mul", "squares", source, source))
    variance = add("Sub", "variance", square, add("Mul", "squared_mean", mean, mean))
    deviation = add("Sqrt", "deviation", add("Relu", "rounded_variance", variance))
    parts = [mean, deviation]
    if step > 1:
        ends = [constant(part, np.array([value])) for part, value in (("start", 0), ("end", 2**31), ("axis", 1))]
        parts = [
            add("Slice", f"some_{n}", part, *ends, constant(f"step_{n}", np.array([step])))
            for n, part in enumerate(parts)
        ]
    both = add("Concat", "both", *parts, axis=1)
    graph.node.append(helper.make_node("Flatten", [both], [output], f"{output}/flat", axis=1))


def _find_ancestors(makers: dict[str, Any], output: str) -> set[str]:
    """Return the names of all values that an output is computed from, and its own."""
    found, waiting = set[str](), [output]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += makers[name].input if name in makers else []
    return found
