"""Out-of-distribution (OOD) detection from the statistics of a model's layers.

At a few layers, a Gaussian is fitted to the mean and standard deviation of each channel over training images. An
image's score is its Mahalanobis distance at the layer where it is farthest from them (distances at several layers: Lee
et al. 2018; channel statistics: Sastry and Oore 2020). The last layer alone misses what the network has learned to
ignore; early layers alone miss images of the same texture.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from classifier.data.images.arrays import Images, select
from classifier.inference.ood_detector import OODDetector, standardised_distance
from classifier.inference.scorer import Scorer

# Layers, evenly spaced from this depth to the last: earlier ones have the largest maps, and tell no more (LOG.md).
LAYERS, MIN_DEPTH = 4, 0.4
# Channels and principal components of each layer; training images to fit them to.
CHANNELS, COMPONENTS, MAX_IMAGES = 128, 32, 2000
# Share of in-distribution images that score above the threshold.
FALSE_POSITIVE_RATE = 0.01
# Of fewer images the largest score is too low a threshold: above that of n images are 1 in n + 1 others.
MIN_HELD_OUT_IMAGES = 20
# Smallest variance of a component, relative to the mean variance.
_MIN_VARIANCE_RATIO = 1e-3
# Smallest deviation, relative to the statistics themselves: below it are rounding errors, which exports do not repeat.
_MIN_DEVIATION_RATIO = 1e-4


def fit_detector(model: nn.Module, scorer: Scorer, train: Images, held_out: Images) -> OODDetector:
    """Fit to training images of a placed model, and set the threshold on images held out from training.

    No image is called out of distribution where these are too few to tell.
    """
    layers = select_layers(model)
    of_train, of_held_out = (
        _collect_statistics(model, scorer, sample_images(images_NCHW), layers) if len(images_NCHW) else {}
        for images_NCHW in (train, held_out)
    )
    return fit_to_statistics(of_train, of_held_out)


def fit_to_statistics(train: Mapping[str, Tensor], held_out: Mapping[str, Tensor]) -> OODDetector:
    """Fit to the stats_NF of each layer, of training images and of images held out from training; see fit_detector."""
    arrays: dict[str, np.ndarray] = {}
    for layer, stats_NF in train.items():
        arrays |= {f"{layer}/{name}": tensor.numpy() for name, tensor in _fit_gaussian(stats_NF).items()}
    if len(next(iter(held_out.values()), ())) < MIN_HELD_OUT_IMAGES:
        return OODDetector(arrays | {"limit": np.array(np.inf, np.float32)})
    scores_N = torch.from_numpy(OODDetector(arrays).score({name: stats.numpy() for name, stats in held_out.items()}))
    return OODDetector(arrays | {"limit": scores_N.quantile(1 - FALSE_POSITIVE_RATE).numpy()})


def score_images(detector: OODDetector, model: nn.Module, scorer: Scorer, images_NCHW: Images) -> Tensor:
    """Return the detector's scores_N of images, float32 on the CPU."""
    statistics = _collect_statistics(model, scorer, images_NCHW, detector.layers)
    return torch.from_numpy(detector.score({layer: stats_NF.numpy() for layer, stats_NF in statistics.items()}))


@contextlib.contextmanager
def capture_activations(model: nn.Module, layers: list[str], views: int = 1) -> Iterator[dict[str, Tensor]]:
    """Collect each layer's channel statistics in this thread's forward passes; the dictionary is filled on exit.

    views: forward passes per batch, of which only the first counts.
    """
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    stats: dict[str, Tensor] = {}

    thread = threading.get_ident()  # others may use the model at the same time

    def make_hook(layer: str):
        def collect(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            if threading.get_ident() == thread:
                parts[layer].append(channel_statistics(output).cpu())

        return collect

    hooks = [model.get_submodule(layer).register_forward_hook(make_hook(layer)) for layer in layers]
    try:
        yield stats
    finally:
        for hook in hooks:
            hook.remove()
    stats |= {layer: torch.cat(batches[::views]) for layer, batches in parts.items() if batches}


def _collect_statistics(model: nn.Module, scorer: Scorer, images_NCHW: Images, layers: list[str]) -> dict[str, Tensor]:
    model.eval()
    with torch.inference_mode(), capture_activations(model, layers) as stats:
        for start in range(0, len(images_NCHW), scorer.batch_size):
            scorer.forward(model, images_NCHW[start : start + scorer.batch_size].to(scorer.device))
    return stats


def select_layers(model: nn.Module) -> list[str]:
    """Return names of layers, evenly spaced from MIN_DEPTH to the last: convolutions, or a transformer's norms."""
    modules = list(model.named_modules())
    convolutions = [name for name, module in modules if isinstance(module, nn.Conv2d)]
    norms = [name for name, module in modules if isinstance(module, nn.LayerNorm)]
    layers = norms if len(norms) > len(convolutions) else convolutions
    layers = layers or [name for name, module in modules if name and not list(module.children())]
    last = len(layers) - 1
    indices = torch.linspace(MIN_DEPTH * last, last, LAYERS).round().long().unique().tolist()
    return [layers[i] for i in indices]


def channel_statistics(output: Tensor) -> Tensor:
    """Return stats_NF, float32: mean and standard deviation of up to CHANNELS channels over each image."""
    if output.ndim == 4:
        values_NCP = output.flatten(2)
    elif output.ndim == 3:  # a transformer's tokens
        values_NCP = output.transpose(1, 2)
    else:
        values_NCP = output.flatten(1)[:, :, None]
    values_NCP = values_NCP[:, :: channel_step(values_NCP.shape[1])].float()
    return torch.cat([values_NCP.mean(2), values_NCP.std(2, correction=0)], 1)


def channel_step(channels: int) -> int:
    """Return of how many channels one is looked at."""
    return -(-channels // CHANNELS)


def _fit_gaussian(stats_NF: Tensor) -> dict[str, Tensor]:
    """Fit the mean, the principal components (axes) with their standard deviations, one standard deviation for the
    remaining axes, and the mean and standard deviation (centre, spread) of the training images' own log distances.
    """
    mean_F = stats_NF.mean(0)
    centred_NF = (stats_NF - mean_F).double()
    variance_F, axes_FF = torch.linalg.eigh(centred_NF.T @ centred_NF / len(stats_NF))
    rounding = _MIN_DEVIATION_RATIO**2 * float(stats_NF.double().square().mean())
    min_variance = _MIN_VARIANCE_RATIO * float(variance_F.mean()) + rounding + 1e-12
    components = min(COMPONENTS, len(variance_F), max(1, len(stats_NF) // 4))
    rest_F = variance_F[: len(variance_F) - components]
    tensors = {
        "mean": mean_F,
        "axes": axes_FF[:, -components:].float().contiguous(),
        "deviations": variance_F[-components:].clamp(min=min_variance).sqrt().float(),
        "rest": rest_F.mean().clamp(min=min_variance).sqrt().float()
        if len(rest_F)
        else torch.tensor(min_variance**0.5),
        "centre": torch.zeros(()),
        "spread": torch.ones(()),
    }
    arrays = {f"/{name}": tensor.numpy() for name, tensor in tensors.items()}
    distances_N = torch.from_numpy(standardised_distance(stats_NF.numpy(), arrays, ""))
    return tensors | {"centre": distances_N.mean(), "spread": distances_N.std(correction=0).clamp(min=1e-3)}


def sample_indices(count: int) -> Tensor:
    """Return indices_M, int64: at most MAX_IMAGES of `count` indices, evenly spaced."""
    return torch.arange(count) if count <= MAX_IMAGES else torch.linspace(0, count - 1, MAX_IMAGES).long()


def sample_images(images_NCHW: Images) -> Images:
    """Return the images at `sample_indices`."""
    return images_NCHW if len(images_NCHW) <= MAX_IMAGES else select(images_NCHW, sample_indices(len(images_NCHW)))
