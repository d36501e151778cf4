"""Features: the inputs of a model's head, and files of them."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import torch
import xxhash
from torch import Tensor, nn

from classifier import models
from classifier.data.images.arrays import Images
from classifier.inference.scorer import Scorer
from classifier.models.fusion.fusion_net import FusionNet
from classifier.storage.atomic import file_sha256, retry_io, write_tensors

logger = logging.getLogger(__name__)


def extract_batch_features(model: nn.Module, scorer: Scorer, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return features_NF (the input of the model's head) and logits_NK of one batch, both float32 on the device.

    Where columns join the image (models/fusion), the features are the image's alone, and the logits without columns.

    The model is on the scorer's device and in eval mode. No gradients.
    """
    with capture_features(model) as captured, torch.no_grad():
        logits_NK = scorer.forward(model, images_NCHW.to(scorer.device, non_blocking=True))
    return captured[0], logits_NK


@contextlib.contextmanager
def capture_features(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect features_NF, float32 on the model's device, of each batch that it computes."""
    # The first head; auxiliary heads come after it and give no output in eval mode.
    head = model.fusion if isinstance(model, FusionNet) else next(iter(models.head_modules(model).values()))
    captured: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0].flatten(1).float()))
    try:
        yield captured
    finally:
        hook.remove()


def extract_features(model: nn.Module, scorer: Scorer, images_NCHW: Images) -> Tensor:
    """Return features_NF, float32 on the CPU, of any number of uint8 images. The model is on the scorer's device."""
    model.eval()
    starts = range(0, len(images_NCHW), scorer.batch_size)
    batches = (images_NCHW[start : start + scorer.batch_size] for start in starts)
    return torch.cat([extract_batch_features(model, scorer, batch_NCHW)[0].cpu() for batch_NCHW in batches])


def save_features(features: dict[str, Tensor], path: Path) -> None:
    """Write features to a .safetensors file with their hash, atomically. RunError if it cannot be written."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(features, part, hash=_hash_tensors(features))
        part.replace(path)

    retry_io(write, path)


def load_features(path: Path) -> dict[str, Tensor] | None:
    """Load what save_features wrote; None if there is no such file, or, which is logged, if it is damaged.

    A file of an earlier version has no hash.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            features = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            expected = (file.metadata() or {}).get("hash")
    except (SafetensorError, OSError, ValueError):
        features = expected = None
    if features is None or expected not in (None, _hash_tensors(features)):
        logger.warning("%s is damaged: its features are computed again", path)
        return None
    return features


def _hash_tensors(tensors: dict[str, Tensor]) -> str:
    hasher = xxhash.xxh3_128()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        hasher.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        hasher.update(tensor.flatten().view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def weights_identity(weights: str | None) -> str:
    """Identify the weights that features were computed with: a file by its SHA-256, others by name."""
    return file_sha256(Path(weights)) if weights is not None and Path(weights).is_file() else str(weights)
