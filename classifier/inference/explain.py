"""Where in a picture a model saw a class: Grad-CAM, integrated gradients, occlusion. And which pictures are like it.

Every map is maps_NHW, float32 in [0, 1] on the CPU, of the size of the images: 1 where it mattered most, 0 where it did
not, or spoke against the class. Work with placed models (Scorer.place) and uint8 images.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from classifier.inference.scorer import Scorer

# Of integrated gradients; of occlusion: windows along a side, and the side of each in steps, about a quarter of the
# picture's: a smaller hole leaves a transformer as sure as it was.
STEPS, WINDOWS, WIDE = 32, 14, 4
# Small pictures are enlarged to about this side, in pixels; large ones are shrunk to it.
SIDE = 112


def grad_cam(model: nn.Module, scorer: Scorer, images_NCHW: Tensor, classes_N: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017): the last layer that has places, each channel weighed by its mean gradient.

    Of a transformer, whose last tokens all know everything: the last layer norm where places differ in what they mean
    to the class, each value weighed by its own gradient (HiResCAM; Draelos and Carin 2020). Both are found by looking
    at what passes the model. All zero, where it has no such layer.
    """
    parts = []
    for images_BCHW, classes_B in zip(
        images_NCHW.split(scorer.batch_size), classes_N.split(scorer.batch_size), strict=True
    ):
        with _looking(model) as seen:
            logits_BK = _logits(model, scorer, images_BCHW.to(scorer.device))
        wanted = logits_BK.gather(1, classes_B[:, None].to(logits_BK.device)).sum()
        seen = [(module, output) for module, output in seen if output.requires_grad]
        outputs = [output for _, output in seen]
        slopes = torch.autograd.grad(wanted, outputs, allow_unused=True) if outputs else ()
        known = [(*one, slope) for one, slope in zip(seen, slopes, strict=True) if slope is not None]
        map_BHW = _cam(known) if known else None
        parts.append(
            _enlarged(map_BHW, images_BCHW) if map_BHW is not None else torch.zeros_like(images_BCHW[:, 0].float())
        )
    return torch.cat(parts)


def integrated_gradients(model: nn.Module, scorer: Scorer, images_NCHW: Tensor, classes_N: Tensor) -> Tensor:
    """Integrated gradients (Sundararajan et al. 2017) of the logit, from a picture of the training images' mean colour.

    The map is the sum over channels of what each pixel adds, where it adds. Midpoints of STEPS pieces of the path.
    """
    return torch.stack([_shares(model, scorer, *one) for one in zip(images_NCHW, classes_N, strict=True)])


def _shares(model: nn.Module, scorer: Scorer, image_CHW: Tensor, label: Tensor) -> Tensor:
    added_CHW = attribution(model, scorer, image_CHW, int(label))
    return _scaled(added_CHW.sum(0).clamp(min=0)[None])[0]


def attribution(model: nn.Module, scorer: Scorer, image_CHW: Tensor, label: int) -> Tensor:
    """What each value of an image adds to the logit of the class; the sum is the logit's rise along the path."""
    image_CHW = image_CHW.to(scorer.device).float() / 255
    base_CHW = torch.tensor(scorer.mean, device=scorer.device)[:, None, None].expand_as(image_CHW)
    shares_S = (torch.arange(STEPS, device=scorer.device) + 0.5) / STEPS
    path_SCHW = base_CHW + shares_S[:, None, None, None] * (image_CHW - base_CHW)
    total_CHW = torch.zeros_like(image_CHW)
    for part_SCHW in path_SCHW.split(scorer.batch_size):
        part_SCHW = part_SCHW.detach().requires_grad_()
        rise = _logits(model, scorer, part_SCHW)[:, label].sum()
        total_CHW += torch.autograd.grad(rise, part_SCHW)[0].sum(0)
    return ((image_CHW - base_CHW) * total_CHW / STEPS).cpu()


def occlusion(model: nn.Module, scorer: Scorer, images_NCHW: Tensor, classes_N: Tensor) -> Tensor:
    """Occlusion (Zeiler and Fergus 2014): how the class's log-odds fall with a grey window over each place."""
    side = images_NCHW.shape[-1]
    step = max(1, side // WINDOWS)
    places = range(0, side, step)
    grey_C11 = torch.tensor([round(255 * mean) for mean in scorer.mean], dtype=torch.uint8)[:, None, None]
    maps = []
    for image_CHW, label in zip(images_NCHW, classes_N.tolist(), strict=True):
        covered = []
        for top in places:
            for left in places:
                copy_CHW = image_CHW.clone()
                copy_CHW[:, top : top + WIDE * step, left : left + WIDE * step] = grey_C11
                covered.append(copy_CHW)
        whole = _odds(model, scorer, image_CHW[None], label)
        drops_P = (whole - _odds(model, scorer, torch.stack(covered), label)).view(len(places), -1)
        map_HW, times_HW = torch.zeros(side, side), torch.zeros(side, side)
        for i, top in enumerate(places):
            for j, left in enumerate(places):
                window = (slice(top, top + WIDE * step), slice(left, left + WIDE * step))
                map_HW[window] += drops_P[i, j]
                times_HW[window] += 1
        maps.append((map_HW / times_HW).clamp(min=0))
    return _scaled(torch.stack(maps))


def _odds(model: nn.Module, scorer: Scorer, images_NCHW: Tensor, label: int) -> Tensor:
    """log_odds_N of the class, on the CPU: unlike probabilities they are never at their end."""
    with torch.no_grad():
        logits_NK = torch.cat(
            [_logits(model, scorer, part.to(scorer.device)) for part in images_NCHW.split(scorer.batch_size)]
        )
    others_N = torch.cat([logits_NK[:, :label], logits_NK[:, label + 1 :]], 1).logsumexp(1)
    return (logits_NK[:, label] - others_N).cpu()


def overlaid(image_CHW: Tensor, map_HW: Tensor | None = None) -> bytes:
    """A JPEG of a picture for people, enlarged or shrunk to about SIDE; with a map, what mattered is orange."""
    pixels_HWC = image_CHW.permute(1, 2, 0).expand(-1, -1, 3).float().numpy()
    if map_HW is not None:
        strength_HW1 = 0.65 * map_HW[..., None].numpy()
        grey_HW1 = pixels_HWC.mean(2, keepdims=True)
        pixels_HWC = (1 - strength_HW1) * grey_HW1 + strength_HW1 * np.array([255.0, 120.0, 0.0])
    image = Image.fromarray(pixels_HWC.round().clip(0, 255).astype(np.uint8))
    if image.width < SIDE:
        times = -(-SIDE // image.width)
        image = image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST)
    image.thumbnail((2 * SIDE, 2 * SIDE), Image.Resampling.BOX)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def nearest(features_NF: Tensor, known_MF: Tensor, count: int = 5) -> tuple[Tensor, Tensor]:
    """places_NC among the known images and similarities_NC (cosine) of those that the model sees most alike."""
    known_MF = F.normalize(known_MF.float(), dim=1)
    similar_NC, places_NC = (F.normalize(features_NF.float(), dim=1) @ known_MF.T).topk(min(count, len(known_MF)))
    return places_NC, similar_NC


@contextmanager
def _looking(model: nn.Module) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """While it is open, the modules whose outputs have places, with these, in the order in which they are done."""
    seen: list[tuple[nn.Module, Tensor]] = []

    def look(module: nn.Module, _inputs: tuple, output: object) -> None:
        if isinstance(output, Tensor) and _places(output) is not None:
            seen.append((module, output))

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _places(output: Tensor) -> Tensor | None:
    """The output as N x C x H x W, more than one place each; None if it has no grid."""
    if output.ndim == 4:
        _, a, b, c = output.shape
        grid = output.permute(0, 3, 1, 2) if a == b != c else output  # torchvision's Swin has its channels last
        return grid if grid.shape[2] * grid.shape[3] > 1 else None
    if output.ndim == 3:  # tokens; those beside the patches come first
        _, tokens, channels = output.shape
        side = int((tokens + 0.5) ** 0.5)
        extra = tokens - side * side
        if side > 1 and extra <= 5:
            return output[:, extra:].transpose(1, 2).reshape(len(output), channels, side, side)
    return None


def _cam(known: list[tuple[nn.Module, Tensor, Tensor]]) -> Tensor | None:
    """map_NHW, before it is scaled, from modules, their outputs and how the class depends on these."""
    of_tokens = known[-1][1].ndim == 3
    for module, output, slope in reversed(known):
        grid_NCHW, slope_NCHW = _places(output), _places(slope)
        if grid_NCHW is None or slope_NCHW is None:
            continue
        if of_tokens:
            differs = (slope_NCHW - slope_NCHW.mean((2, 3), keepdim=True)).abs().max() > 1e-3 * slope_NCHW.abs().max()
            if isinstance(module, nn.LayerNorm) and differs:
                return (slope_NCHW * grid_NCHW).sum(1).clamp(min=0)
        elif (slope_NCHW != 0).any():
            return (slope_NCHW.mean((2, 3), keepdim=True) * grid_NCHW).sum(1).clamp(min=0)
    return None


def _enlarged(map_NHW: Tensor, images_NCHW: Tensor) -> Tensor:
    map_N1HW = F.interpolate(map_NHW.detach().float()[:, None], images_NCHW.shape[-2:], mode="bilinear")
    return _scaled(map_N1HW[:, 0].cpu())


def _logits(model: nn.Module, scorer: Scorer, images_NCHW: Tensor) -> Tensor:
    model.eval()
    return scorer.forward(model, images_NCHW)


def _scaled(maps_NHW: Tensor) -> Tensor:
    return maps_NHW / maps_NHW.amax((1, 2), keepdim=True).clamp(min=1e-12)
