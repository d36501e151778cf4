"""How unlike a picture is to all that a model has learned from, told by what its layers make of it.

At a few layers, the mean and the deviation of each channel over the picture are described by a Gaussian, fitted to
training images; a picture is as new as it is at the layer where it is farthest from them (Mahalanobis distances at
several layers: Lee et al. 2018; channels' statistics: Sastry and Oore 2020). The distance at the last layer alone
misses what the net has learned to ignore, and early layers miss what has the same texture.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from classifier.data.images.arrays import Images, select
from classifier.inference.scorer import Scorer

# Layers, evenly spaced; channels and axes of variation of each; training images that they are fitted to.
LAYERS, CHANNELS, AXES, MOST = 6, 128, 32, 2000
# Of images like those of the training, the share that is taken for unlike them.
FALSE_ALARMS = 0.01
_TOLD_APART = 1e-3


@dataclass(frozen=True, eq=False)
class Novelty:
    """What is known of a model's layers. tensors: by layer and name, as they lie in a bundle's file."""

    tensors: dict[str, Tensor]

    @property
    def layers(self) -> list[str]:
        return [name.removesuffix("/mean") for name in self.tensors if name.endswith("/mean")]

    @property
    def limit(self) -> float:
        """Scores above it are of pictures unlike those of the training."""
        return float(self.tensors["limit"])

    @classmethod
    def fitted(cls, model: nn.Module, scorer: Scorer, train: Images, held_out: Images) -> "Novelty":
        """Of a placed model: fitted to training images, its limit set by images that it has not learned from."""
        layers = _spread(model)
        tensors = {}
        for layer, stats_NF in _statistics(model, scorer, some(train), layers).items():
            tensors |= {f"{layer}/{name}": value for name, value in _gaussian(stats_NF).items()}
        found = cls(tensors)
        scores_N = found.scores(model, scorer, some(held_out))
        limit = scores_N.quantile(1 - FALSE_ALARMS) if len(scores_N) else torch.tensor(torch.inf)
        return cls(tensors | {"limit": limit})

    def scores(self, model: nn.Module, scorer: Scorer, images_NCHW: Images) -> Tensor:
        """scores_N, float32 on the CPU: deviations from the training images at the layer that finds most."""
        return self.scores_of(_statistics(model, scorer, images_NCHW, self.layers))

    def scores_of(self, stats: dict[str, Tensor]) -> Tensor:
        """The same, of statistics that `watched` has taken."""
        every = [_distance(stats_NF, self.tensors, layer) for layer, stats_NF in stats.items()]
        return torch.stack(every).amax(0)


@contextlib.contextmanager
def watched(model: nn.Module, layers: list[str], views: int = 1) -> Iterator[dict[str, Tensor]]:
    """While it is open, the layers' statistics of what passes the model; they are there once it is closed.

    views: passes of each batch, of which the first counts.
    """
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    found: dict[str, Tensor] = {}

    def tap(layer: str):
        return lambda _module, _inputs, output: parts[layer].append(_channels(output))

    hooks = [model.get_submodule(layer).register_forward_hook(tap(layer)) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
    found |= {layer: torch.cat(taken[::views]) for layer, taken in parts.items() if taken}


def _statistics(model: nn.Module, scorer: Scorer, images_NCHW: Images, layers: list[str]) -> dict[str, Tensor]:
    model.eval()
    with torch.inference_mode(), watched(model, layers) as found:
        for start in range(0, len(images_NCHW), scorer.batch):
            scorer.forward(model, images_NCHW[start : start + scorer.batch].to(scorer.device))
    return found


def _spread(model: nn.Module) -> list[str]:
    """Some of the model's layers, from the first to the last: convolutions, or normalisations of a transformer."""
    named = list(model.named_modules())
    found = [name for name, module in named if isinstance(module, nn.Conv2d)]
    norms = [name for name, module in named if isinstance(module, nn.LayerNorm)]
    found = norms if len(norms) > len(found) else found
    found = found or [name for name, module in named if name and not list(module.children())]
    places = torch.linspace(0, len(found) - 1, min(LAYERS, len(found))).round().long().tolist()
    return [found[place] for place in places]


def _channels(output: Tensor) -> Tensor:
    """stats_NF: mean and deviation over the picture of some channels, float32 on the CPU."""
    if output.ndim == 4:
        values_NCP = output.flatten(2)
    elif output.ndim == 3:  # a transformer's tokens
        values_NCP = output.transpose(1, 2)
    else:
        values_NCP = output.flatten(1)[:, :, None]
    values_NCP = values_NCP[:, :: -(-values_NCP.shape[1] // CHANNELS)].float()
    return torch.cat([values_NCP.mean(2), values_NCP.std(2, correction=0)], 1).cpu()


def _gaussian(stats_NF: Tensor) -> dict[str, Tensor]:
    """Mean, axes of most variation with their deviations, the deviation beside them, and how far images lie."""
    mean_F = stats_NF.mean(0)
    centred_NF = (stats_NF - mean_F).double()
    variance_F, axes_FF = torch.linalg.eigh(centred_NF.T @ centred_NF / len(stats_NF))
    least = _TOLD_APART * float(variance_F.mean()) + 1e-12
    kept = min(AXES, len(variance_F), max(1, len(stats_NF) // 4))
    rest_F = variance_F[: len(variance_F) - kept]
    tensors = {
        "mean": mean_F,
        "axes": axes_FF[:, -kept:].float().contiguous(),
        "deviations": variance_F[-kept:].clamp(min=least).sqrt().float(),
        "rest": rest_F.mean().clamp(min=least).sqrt().float() if len(rest_F) else torch.tensor(least**0.5),
        "centre": torch.zeros(()),
        "spread": torch.ones(()),
    }
    distances_N = _distance(stats_NF, {f"/{name}": value for name, value in tensors.items()}, "")
    return tensors | {"centre": distances_N.mean(), "spread": distances_N.std(correction=0).clamp(min=1e-3)}


def _distance(stats_NF: Tensor, tensors: dict[str, Tensor], layer: str) -> Tensor:
    """The logarithm of the distance to the Gaussian, in deviations from that of training images."""
    mean_F, axes_FA, deviations_A, rest, centre, spread = (
        tensors[f"{layer}/{name}"] for name in ("mean", "axes", "deviations", "rest", "centre", "spread")
    )
    offset_NF = stats_NF - mean_F
    along_NA = offset_NF @ axes_FA
    beside_N = (offset_NF.square().sum(1) - along_NA.square().sum(1)).clamp(min=0)
    distance_N = (along_NA / deviations_A).square().sum(1) + beside_N / rest**2
    return (distance_N.clamp(min=1e-12).log() - centre) / spread


def places_of(count: int) -> Tensor:
    """places_M, int64: at most MOST, evenly spaced, of so many images."""
    return torch.arange(count) if count <= MOST else torch.linspace(0, count - 1, MOST).long()


def some(images_NCHW: Images) -> Images:
    """The images at `places_of` them."""
    return images_NCHW if len(images_NCHW) <= MOST else select(images_NCHW, places_of(len(images_NCHW)))
