"""Which engine answers for a bundle: torch on GPUs, and where there is no export; else ONNX Runtime."""

import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from classifier.bundle import document
from classifier.bundle.document import Bundle
from classifier.bundle.engine import Engine
from classifier.bundle.exported import Export, check_sample, explain_stale, is_exported, open_export
from classifier.errors import ConfigError, RunError
from classifier.inference.ood_detector import OODDetector
from classifier.metrics.decisions import Calibration

if TYPE_CHECKING:
    from classifier.bundle.bundle import LoadedBundle

logger = logging.getLogger(__name__)
ENGINES = ("auto", "torch", "onnx", "openvino")
# Of drivers: NVIDIA, AMD, and Windows' for Linux.
_GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


class OpenedEngine(NamedTuple):
    """An engine, with the bundle, the calibration and the out-of-distribution detector of what it computes."""

    bundle: Bundle
    engine: Engine
    calibration: Calibration | None
    detector: OODDetector | None


def open_engine(
    path: Path, engine: str, device: str, threads: int | None, load: "Callable[[], LoadedBundle]"
) -> OpenedEngine:
    """Open the engine of a run, search or bundle folder: see Predictor. load: returns the bundle with its model.

    What an export computes here is compared with its sample first. RunError if it is damaged, or differs.
    """
    if engine not in ENGINES:
        raise ConfigError(f"there is no engine {engine!r}: choose one of {', '.join(ENGINES)}")
    folder = document.find(path)
    kind = _choose_engine(folder, device) if engine == "auto" else engine
    if kind == "torch":
        return _open_torch(path, load)
    bundle = document.read_document(folder)
    if not is_exported(folder, kind):
        needed = ", and torch is not installed here" if engine == "auto" else ""
        raise RunError(f"{folder} holds no export to {kind}{needed}: make one where it was trained: classifier export")
    if stale := explain_stale(folder, kind, bundle):
        if engine == "auto" and has_torch():
            logger.warning("%s", stale)
            return _open_torch(path, load)
        raise RunError(stale)
    export = open_export(folder, kind, bundle)
    opened = _start_engine(export, kind, threads)
    check_sample(export, opened)
    return OpenedEngine(document.parse_document(bundle), opened, export.calibration, export.detector)


def _start_engine(export: Export, kind: str, threads: int | None) -> Engine:
    if kind == "onnx":
        from classifier.bundle.onnx_engine import OnnxEngine

        return OnnxEngine(export, threads)
    from classifier.bundle.openvino_engine import OpenVinoEngine

    return OpenVinoEngine(export, threads)


def _open_torch(path: Path, load: "Callable[[], LoadedBundle]") -> OpenedEngine:
    from classifier.bundle.torch_engine import TorchEngine

    loaded, detector = load(), document.load_ood_detector(path)
    layers = detector.layers if detector else []
    if not set(layers) <= {name for name, _ in loaded.model.named_modules()}:
        raise RunError(f"{path}: {document.OOD_TENSORS} does not fit the model: {document.REMEDY}")
    plain = loaded.bundle.calibration
    calibration = Calibration.from_dict(plain) if plain else None
    return OpenedEngine(loaded.bundle, TorchEngine(loaded, layers), calibration, detector)


def _choose_engine(folder: Path, device: str) -> str:
    if not has_torch():
        return "onnx"
    if not is_exported(folder, "onnx") or device not in ("auto", "cpu"):
        return "torch"
    if device == "cpu" or not _may_have_gpu():
        return "onnx"
    from classifier.runtime.distributed import pick_device

    return "onnx" if pick_device("auto").type == "cpu" else "torch"


def has_torch() -> bool:
    """Return whether torch is installed, without loading it."""
    return importlib.util.find_spec("torch") is not None


def _may_have_gpu() -> bool:
    """Return whether there may be a GPU, without loading torch, which takes seconds."""
    return sys.platform != "linux" or any(Path(name).exists() for name in _GPU_FILES)
