"""Files of weights: read without executing code, with the names of the classes where they are known."""

import json
import pickle
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classifier.config.documents import read_bytes
from classifier.errors import ModelError, RunError, in_short
from classifier.storage.atomic import file_sha256
from classifier.storage.torch_file import load_torch

CLASS_NAMES = "class_names"
"""In the metadata of a .safetensors file: a JSON list."""
# What training programs call the classes in their checkpoints: a list, or their indices by name.
_CLASS_KEYS = (CLASS_NAMES, "classes", "class_to_idx")
# Keys of the weights in the checkpoints of training programs, best first: averaged weights before the others.
_WRAPPERS = ("model_ema", "state_dict_ema", "state_dict", "model_state_dict", "model")
_MAX_WRAPPERS = 4


@dataclass(frozen=True)
class WeightsFile:
    """tensors: by name, on the CPU. class_names: of the head's outputs, in their order; None if the file has none."""

    tensors: dict[str, Tensor]
    class_names: tuple[str, ...] | None = None


def read_weights(path: str) -> WeightsFile:
    """Read a .safetensors or .pth file. Never executes code: only tensors and plain data are unpickled.

    ModelError if the file is missing, corrupted, or holds anything else.
    """
    where, file = f"model.weights {path}", Path(path).expanduser()
    if not file.is_file():
        raise ModelError(f"{where}: no such file; give imagenet, or a .safetensors or .pth file")
    names = None
    try:
        if file.suffix == ".safetensors":
            from safetensors import safe_open
            from safetensors.torch import load_file

            content: Any = load_file(file)
            with safe_open(file, "pt") as opened:
                names = _parse_class_names((opened.metadata() or {}).get(CLASS_NAMES))
        else:
            content = load_torch(file)
            names = _find_class_names(content)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{where} is corrupted or holds more than tensors, which could run code when loaded: save only the "
            "weights, with safetensors or torch.save(model.state_dict(), FILE)"
        ) from error
    except Exception as error:  # a corrupted pickle may raise anything (KeyError, AssertionError, struct.error, ...)
        reason = f"{type(error).__name__}: {in_short(error, 160)}"
        raise ModelError(f"{where} cannot be read ({reason}): give an intact .safetensors or .pth file") from error
    for _ in range(_MAX_WRAPPERS):
        inner = [key for key in _WRAPPERS if isinstance(content, dict) and isinstance(content.get(key), dict)]
        content = content[inner[0]] if inner else content
    items = content.items() if isinstance(content, dict) else ()
    tensors = {key: value for key, value in items if isinstance(key, str) and _is_plain(value)}
    if not tensors:
        raise ModelError(f"{where} holds no named tensors: save the weights with torch.save(model.state_dict(), FILE)")
    return WeightsFile(tensors, names if names is not None else _read_bundle_names(file))


def _is_plain(value: object) -> bool:
    """Is it a dense tensor with values?"""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_nested
        and not value.is_complex()
    )


def _parse_class_names(text: str | None) -> tuple[str, ...] | None:
    """Return the names in a JSON list; None if it is none."""
    try:
        names = json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
    return _as_class_names(names)


def _find_class_names(content: Any) -> tuple[str, ...] | None:
    """Return the names that a training program saved with the weights; None if it saved none."""
    if not isinstance(content, dict):
        return None
    for key in _CLASS_KEYS:
        names = content.get(key)
        if isinstance(names, dict):
            is_numbered = sorted(map(repr, names.values())) == sorted(map(repr, range(len(names))))
            names = sorted(names, key=names.__getitem__) if is_numbered else None
        if found := _as_class_names(names):
            return found
    return None


def _as_class_names(names: Any) -> tuple[str, ...] | None:
    """Return names in the spelling of labels (NFC); None if these are none."""
    is_list = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return tuple(unicodedata.normalize("NFC", name) for name in names) if is_list else None


def _read_bundle_names(file: Path) -> tuple[str, ...] | None:
    """Return the class names of the bundle that a weights file belongs to, if it lies in one of an earlier version."""
    try:
        document = json.loads(read_bytes(file.parent / "bundle.json"))
        is_its_own = document["files"][file.name]["sha256"] == file_sha256(file)
        return _parse_class_names(json.dumps(document["class_names"])) if is_its_own else None
    except (RunError, ValueError, LookupError, TypeError, RecursionError):
        return None
