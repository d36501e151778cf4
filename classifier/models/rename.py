"""Convert foreign state dicts: rules that turn a file's parameter names into the model's.

A rule applies where the file has the names it is for; the result is checked against the model by name and shape.
"""

import re
from collections.abc import Callable, Collection

from torch import Tensor

StateDict = dict[str, Tensor]

# Prefixes that data-parallel wrappers, torch.compile and training frameworks put before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.", "backbone.", "encoder.")

# EfficientNet (also Lite): names of the package efficientnet_pytorch by L. Melas-Kyriazi -> timm's names.
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
# The first stage has no expansion, so its norms are numbered from the depthwise convolution on.
_MELAS_FIRST_STAGE = _MELAS_BLOCK | {"_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def convert_state_dict(state: StateDict, model_names: Collection[str]) -> StateDict:
    """Rename tensors to the model's names where a rule knows them; others keep their names."""
    for rule in (_strip_prefixes, _convert_efficientnet, _convert_old_densenet):
        state = rule(state, model_names)
    return state


def _strip_prefixes(state: StateDict, model_names: Collection[str]) -> StateDict:
    """Strip prefixes that all names of the file have, but not all names of the model."""
    while state:
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None)
        if prefix is None or all(name.startswith(prefix) for name in model_names):
            return state
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _convert_efficientnet(state: StateDict, model_names: Collection[str]) -> StateDict:
    """The file numbers its blocks consecutively, timm within each stage; the order is the same."""
    if "_conv_stem.weight" not in state or "conv_stem.weight" not in model_names:
        return state
    blocks = list(dict.fromkeys(match[1] for name in model_names if (match := re.match(r"(blocks\.\d+\.\d+)\.", name))))

    def convert(name: str) -> str:
        if not (match := re.fullmatch(r"_blocks\.([0-9]{1,4})\.(\w+)\.(\w+)", name)):
            layer, _, part = name.partition(".")
            return f"{_MELAS_ENDS.get(layer, layer)}.{part}"
        block, layer, part = int(match[1]), match[2], match[3]
        expands = f"_blocks.{block}._expand_conv.weight" in state
        table = _MELAS_BLOCK if expands else _MELAS_FIRST_STAGE
        prefix = blocks[block] if block < len(blocks) else f"_blocks.{block}"
        return f"{prefix}.{table.get(layer, layer)}.{part}"

    return _map_names(state, convert)


def _convert_old_densenet(state: StateDict, model_names: Collection[str]) -> StateDict:
    """torchvision's published DenseNet weights have norm.1 where its layers are named norm1."""
    return _map_names(state, lambda name: re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name))


def _map_names(state: StateDict, convert: Callable[[str], str]) -> StateDict:
    return {convert(name): tensor for name, tensor in state.items()}
