"""Out-of-distribution (OOD) detection from the statistics of a model's layers.

At a few layers, a Gaussian is fitted to the mean and standard deviation of each channel over training images. An
image's score is its Mahalanobis distance at the layer where it is farthest from them (distances at several layers: Lee
et al. 2018; channel statistics: Sastry and Oore 2020). The last layer alone misses what the network has learned to
ignore; early layers alone miss images of the same texture.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from classifier.data.images.arrays import Images, select
from classifier.inference.scorer import Scorer

# Layers, evenly spaced; channels and principal components of each; training images to fit them to.
LAYERS, CHANNELS, COMPONENTS, MAX_IMAGES = 6, 128, 32, 2000
# Share of in-distribution images that score above the threshold.
FALSE_POSITIVE_RATE = 0.01
# Of fewer images the largest score is too low a threshold: above that of n images are 1 in n + 1 others.
MIN_HELD_OUT_IMAGES = 20
# Smallest variance of a component, relative to the mean variance.
_MIN_VARIANCE_RATIO = 1e-3


# The tensors of a layer.
_GAUSSIAN = ("mean", "axes", "deviations", "rest", "centre", "spread")


@dataclass(frozen=True, eq=False)
class OODDetector:
    """The fitted Gaussians. tensors: "LAYER/NAME" and "limit", as stored in the bundle."""

    tensors: dict[str, Tensor]

    @property
    def layers(self) -> list[str]:
        return [name.removesuffix("/mean") for name in self.tensors if name.endswith("/mean")]

    @property
    def threshold(self) -> float:
        """Images that score above it are out of distribution."""
        return float(self.tensors["limit"])

    @property
    def is_whole(self) -> bool:
        """Whether the tensors are those of a detector: a Gaussian for each layer, and the limit."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        gaussians = [[shapes.get(f"{layer}/{name}") for name in _GAUSSIAN] for layer in self.layers]
        return (
            shapes.get("limit") == ()
            and bool(gaussians)
            and all(
                mean is not None
                and len(mean) == 1
                and deviations is not None
                and axes == mean + deviations
                and scalars == [(), (), ()]
                for mean, axes, deviations, *scalars in gaussians
            )
        )

    @classmethod
    def fit(cls, model: nn.Module, scorer: Scorer, train: Images, held_out: Images) -> "OODDetector":
        """Fit to training images of a placed model, and set the threshold on images held out from training.

        No image is called out of distribution where these are too few to tell.
        """
        layers = _select_layers(model)
        tensors = {}
        for layer, stats_NF in _collect_statistics(model, scorer, sample_images(train), layers).items():
            tensors |= {f"{layer}/{name}": value for name, value in _fit_gaussian(stats_NF).items()}
        if len(held_out) < MIN_HELD_OUT_IMAGES:
            return cls(tensors | {"limit": torch.tensor(torch.inf)})
        scores_N = cls(tensors).score(model, scorer, sample_images(held_out))
        return cls(tensors | {"limit": scores_N.quantile(1 - FALSE_POSITIVE_RATE)})

    def score(self, model: nn.Module, scorer: Scorer, images_NCHW: Images) -> Tensor:
        """Return scores_N, float32 on the CPU: standardised distances from the training images, maximum over layers."""
        return self.score_statistics(_collect_statistics(model, scorer, images_NCHW, self.layers))

    def score_statistics(self, stats: dict[str, Tensor]) -> Tensor:
        """Return the same scores from the statistics that `capture_activations` collected."""
        distances = [_standardised_distance(stats_NF, self.tensors, layer) for layer, stats_NF in stats.items()]
        return torch.stack(distances).amax(0)


@contextlib.contextmanager
def capture_activations(model: nn.Module, layers: list[str], views: int = 1) -> Iterator[dict[str, Tensor]]:
    """Collect each layer's channel statistics during forward passes; the dictionary is filled on exit.

    views: forward passes per batch, of which only the first counts.
    """
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    stats: dict[str, Tensor] = {}

    def make_hook(layer: str):
        return lambda _module, _inputs, output: parts[layer].append(_channel_statistics(output))

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


def _select_layers(model: nn.Module) -> list[str]:
    """Return names of layers, evenly spaced from first to last: convolutions, or a transformer's layer norms."""
    modules = list(model.named_modules())
    convolutions = [name for name, module in modules if isinstance(module, nn.Conv2d)]
    norms = [name for name, module in modules if isinstance(module, nn.LayerNorm)]
    layers = norms if len(norms) > len(convolutions) else convolutions
    layers = layers or [name for name, module in modules if name and not list(module.children())]
    indices = torch.linspace(0, len(layers) - 1, min(LAYERS, len(layers))).round().long().tolist()
    return [layers[i] for i in indices]


def _channel_statistics(output: Tensor) -> Tensor:
    """Return stats_NF, float32 on the CPU: mean and standard deviation of up to CHANNELS channels over each image."""
    if output.ndim == 4:
        values_NCP = output.flatten(2)
    elif output.ndim == 3:  # a transformer's tokens
        values_NCP = output.transpose(1, 2)
    else:
        values_NCP = output.flatten(1)[:, :, None]
    values_NCP = values_NCP[:, :: -(-values_NCP.shape[1] // CHANNELS)].float()
    return torch.cat([values_NCP.mean(2), values_NCP.std(2, correction=0)], 1).cpu()


def _fit_gaussian(stats_NF: Tensor) -> dict[str, Tensor]:
    """Fit the mean, the principal components (axes) with their standard deviations, one standard deviation for the
    remaining axes, and the mean and standard deviation (centre, spread) of the training images' own log distances.
    """
    mean_F = stats_NF.mean(0)
    centred_NF = (stats_NF - mean_F).double()
    variance_F, axes_FF = torch.linalg.eigh(centred_NF.T @ centred_NF / len(stats_NF))
    min_variance = _MIN_VARIANCE_RATIO * float(variance_F.mean()) + 1e-12
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
    distances_N = _standardised_distance(stats_NF, {f"/{name}": value for name, value in tensors.items()}, "")
    return tensors | {"centre": distances_N.mean(), "spread": distances_N.std(correction=0).clamp(min=1e-3)}


def _standardised_distance(stats_NF: Tensor, tensors: dict[str, Tensor], layer: str) -> Tensor:
    """Return the log squared Mahalanobis distance, standardised by those of the training images."""
    mean_F, axes_FA, deviations_A, rest, centre, spread = (tensors[f"{layer}/{name}"] for name in _GAUSSIAN)
    offset_NF = stats_NF - mean_F
    along_NA = offset_NF @ axes_FA
    residual_N = (offset_NF.square().sum(1) - along_NA.square().sum(1)).clamp(min=0)
    distance_N = (along_NA / deviations_A).square().sum(1) + residual_N / rest**2
    return (distance_N.clamp(min=1e-12).log() - centre) / spread


def sample_indices(count: int) -> Tensor:
    """Return indices_M, int64: at most MAX_IMAGES of `count` indices, evenly spaced."""
    return torch.arange(count) if count <= MAX_IMAGES else torch.linspace(0, count - 1, MAX_IMAGES).long()


def sample_images(images_NCHW: Images) -> Images:
    """Return the images at `sample_indices`."""
    return images_NCHW if len(images_NCHW) <= MAX_IMAGES else select(images_NCHW, sample_indices(len(images_NCHW)))
