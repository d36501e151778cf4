"""Weights that others saved under other names: rules that turn a file's names into the model's.

A rule is used when the file has the names it is for; what it makes is checked against the model by name and shape.
"""

import re
from collections.abc import Callable, Collection

from torch import Tensor

State = dict[str, Tensor]

# What data-parallel wrappers, torch.compile and training frameworks put before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.", "backbone.", "encoder.")

# EfficientNet (also Lite) as the package efficientnet_pytorch by L. Melas-Kyriazi names it -> as timm does.
_MELAS_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_MELAS_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# The first stage does not expand: it counts its norms from the depthwise convolution on.
_MELAS_FIRST_STAGE = _MELAS_BLOCK | {"_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def renamed(state: State, wanted: Collection[str]) -> State:
    """The tensors under the names that the model wants, as far as a rule knows them; others keep their names."""
    for rule in (_without_prefix, _from_melas, _from_old_densenet):
        state = rule(state, wanted)
    return state


def _without_prefix(state: State, wanted: Collection[str]) -> State:
    """Take off what stands before every name of the file and before none, or not all, of the model's."""
    while state:
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None)
        if prefix is None or all(name.startswith(prefix) for name in wanted):
            return state
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _from_melas(state: State, wanted: Collection[str]) -> State:
    """The file numbers its blocks through, timm within each stage: the order is the same."""
    if "_conv_stem.weight" not in state or "conv_stem.weight" not in wanted:
        return state
    places = list(dict.fromkeys(match[1] for name in wanted if (match := re.match(r"(blocks\.\d+\.\d+)\.", name))))

    def new(name: str) -> str:
        if not (match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)):
            layer, _, part = name.partition(".")
            return f"{_MELAS_ENDS.get(layer, layer)}.{part}"
        block, layer, part = int(match[1]), match[2], match[3]
        expands = f"_blocks.{block}._expand_conv.weight" in state
        table = _MELAS_BLOCK if expands else _MELAS_FIRST_STAGE
        place = places[block] if block < len(places) else f"_blocks.{block}"
        return f"{place}.{table.get(layer, layer)}.{part}"

    return _map(state, new)


def _from_old_densenet(state: State, wanted: Collection[str]) -> State:
    """torchvision's published DenseNet weights say norm.1 where its layers are named norm1."""
    return _map(state, lambda name: re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name))


def _map(state: State, new: Callable[[str], str]) -> State:
    return {new(name): tensor for name, tensor in state.items()}
