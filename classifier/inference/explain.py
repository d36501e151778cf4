"""Explain a prediction: heatmaps by Grad-CAM, integrated gradients or occlusion, and the most similar images.

Heatmaps are maps_NHW, float32 in [0, 1] on the CPU, of the images' size: 1 where evidence for the class is strongest, 0
where there is none or it counts against the class. Models come from Scorer.prepare_model; images are uint8.
"""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from classifier.inference.scorer import Scorer

# Integrated gradients: steps along the path. Occlusion: window positions per side, and the window's size in steps (a
# quarter of the image: a smaller one does not lower a transformer's confidence).
PATH_STEPS, WINDOWS_PER_SIDE, WINDOW_STEPS = 32, 14, 4
# Pixels: smaller images are enlarged to at least this size, larger ones shrunk to at most twice that.
DISPLAY_SIZE = 112


def grad_cam(model: nn.Module, scorer: Scorer, images_NCHW: Tensor, classes_N: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017): the last spatial feature map, its channels weighted by their mean gradients.

    For a transformer, whose last tokens have all mixed: the last layer norm whose gradient differs between positions,
    weighted elementwise (HiResCAM; Draelos and Carin 2020). Layers are found from what a forward pass outputs; a model
    without such a layer gives maps of zeros.
    """
    maps = []
    for images_BCHW, classes_B in zip(
        images_NCHW.split(scorer.batch_size), classes_N.split(scorer.batch_size), strict=True
    ):
        with _capture_feature_maps(model) as captured:
            logits_BK = _logits(model, scorer, images_BCHW.to(scorer.device))
        target = logits_BK.gather(1, classes_B[:, None].to(logits_BK.device)).sum()
        captured = [(module, output) for module, output in captured if output.requires_grad]
        outputs = [output for _, output in captured]
        gradients = torch.autograd.grad(target, outputs, allow_unused=True) if outputs else ()
        layers = [(*pair, gradient) for pair, gradient in zip(captured, gradients, strict=True) if gradient is not None]
        map_BHW = _class_activation_map(layers) if layers else None
        maps.append(
            _resize_to(map_BHW, images_BCHW) if map_BHW is not None else torch.zeros_like(images_BCHW[:, 0].float())
        )
    return torch.cat(maps)


def integrated_gradients(model: nn.Module, scorer: Scorer, images_NCHW: Tensor, classes_N: Tensor) -> Tensor:
    """Integrated gradients (Sundararajan et al. 2017) of the logit; the baseline is the training images' mean colour.

    The map is the attribution summed over channels, where positive. Midpoint rule with PATH_STEPS steps.
    """
    pairs = zip(images_NCHW, classes_N, strict=True)
    return torch.stack([_integrated_gradients_map(model, scorer, *pair) for pair in pairs])


def _integrated_gradients_map(model: nn.Module, scorer: Scorer, image_CHW: Tensor, label: Tensor) -> Tensor:
    attribution_CHW = compute_attribution(model, scorer, image_CHW, int(label))
    return _normalise_maps(attribution_CHW.sum(0).clamp(min=0)[None])[0]


def compute_attribution(
    model: nn.Module, scorer: Scorer, image_CHW: Tensor, label: int, steps: int = PATH_STEPS
) -> Tensor:
    """Return attribution_CHW, each value's share of the class's logit; sums to about logit(image) - logit(baseline)."""
    image_CHW = image_CHW.to(scorer.device).float() / 255
    base_CHW = torch.tensor(scorer.mean, device=scorer.device)[:, None, None].expand_as(image_CHW)
    alphas_S = (torch.arange(steps, device=scorer.device) + 0.5) / steps
    path_SCHW = base_CHW + alphas_S[:, None, None, None] * (image_CHW - base_CHW)
    total_CHW = torch.zeros_like(image_CHW)
    for part_SCHW in path_SCHW.split(scorer.batch_size):
        part_SCHW = part_SCHW.detach().requires_grad_()
        logit = _logits(model, scorer, part_SCHW)[:, label].sum()
        total_CHW += torch.autograd.grad(logit, part_SCHW)[0].sum(0)
    return ((image_CHW - base_CHW) * total_CHW / steps).cpu()


def occlusion(model: nn.Module, scorer: Scorer, images_NCHW: Tensor, classes_N: Tensor) -> Tensor:
    """Occlusion (Zeiler and Fergus 2014): how far the class's log odds fall when a grey window covers each position."""
    size = images_NCHW.shape[-1]
    step = max(1, size // WINDOWS_PER_SIDE)
    offsets = range(0, size, step)
    grey_C11 = torch.tensor([round(255 * mean) for mean in scorer.mean], dtype=torch.uint8)[:, None, None]
    maps = []
    for image_CHW, label in zip(images_NCHW, classes_N.tolist(), strict=True):
        occluded = []
        for top in offsets:
            for left in offsets:
                occluded_CHW = image_CHW.clone()
                occluded_CHW[:, top : top + WINDOW_STEPS * step, left : left + WINDOW_STEPS * step] = grey_C11
                occluded.append(occluded_CHW)
        whole = _log_odds(model, scorer, image_CHW[None], label)
        drops_P = (whole - _log_odds(model, scorer, torch.stack(occluded), label)).view(len(offsets), -1)
        map_HW, count_HW = torch.zeros(size, size), torch.zeros(size, size)
        for i, top in enumerate(offsets):
            for j, left in enumerate(offsets):
                window = (slice(top, top + WINDOW_STEPS * step), slice(left, left + WINDOW_STEPS * step))
                map_HW[window] += drops_P[i, j]
                count_HW[window] += 1
        maps.append((map_HW / count_HW).clamp(min=0))
    return _normalise_maps(torch.stack(maps))


def _log_odds(model: nn.Module, scorer: Scorer, images_NCHW: Tensor, label: int) -> Tensor:
    """Return log_odds_N of the class, on the CPU: unlike probabilities, they do not saturate."""
    with torch.no_grad():
        logits_NK = torch.cat(
            [_logits(model, scorer, part.to(scorer.device)) for part in images_NCHW.split(scorer.batch_size)]
        )
    others_N = torch.cat([logits_NK[:, :label], logits_NK[:, label + 1 :]], 1).logsumexp(1)
    return (logits_NK[:, label] - others_N).cpu()


def overlay_heatmap(image_CHW: Tensor, map_HW: Tensor | None = None) -> bytes:
    """Return the image as a JPEG of about DISPLAY_SIZE; with a map, in grey under an orange heatmap."""
    pixels_HWC = image_CHW.permute(1, 2, 0).expand(-1, -1, 3).float().numpy()
    if map_HW is not None:
        strength_HW1 = 0.65 * map_HW[..., None].numpy()
        grey_HW1 = pixels_HWC.mean(2, keepdims=True)
        pixels_HWC = (1 - strength_HW1) * grey_HW1 + strength_HW1 * np.array([255.0, 120.0, 0.0])
    image = Image.fromarray(pixels_HWC.round().clip(0, 255).astype(np.uint8))
    if image.width < DISPLAY_SIZE:
        factor = -(-DISPLAY_SIZE // image.width)
        image = image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)
    image.thumbnail((2 * DISPLAY_SIZE, 2 * DISPLAY_SIZE), Image.Resampling.BOX)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def nearest_neighbours(features_NF: Tensor, known_MF: Tensor, count: int = 5) -> tuple[Tensor, Tensor]:
    """Return indices_NC and similarities_NC of the `count` known images with the most similar features (cosine)."""
    known_MF = F.normalize(known_MF.float(), dim=1)
    similarities_NC, indices_NC = (F.normalize(features_NF.float(), dim=1) @ known_MF.T).topk(min(count, len(known_MF)))
    return indices_NC, similarities_NC


@contextmanager
def _capture_feature_maps(model: nn.Module) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """Collect (module, output) of this thread's modules whose output has a spatial grid, in order of execution."""
    captured: list[tuple[nn.Module, Tensor]] = []

    thread = threading.get_ident()  # others may use the model at the same time

    def capture(module: nn.Module, _inputs: tuple, output: object) -> None:
        if threading.get_ident() == thread and isinstance(output, Tensor) and _to_grid(output) is not None:
            captured.append((module, output))

    hooks = [module.register_forward_hook(capture) for module in model.modules()]
    try:
        yield captured
    finally:
        for hook in hooks:
            hook.remove()


def _to_grid(output: Tensor) -> Tensor | None:
    """Return the output as grid_NCHW of more than one position; None if it has no spatial grid."""
    if output.ndim == 4:
        _, a, b, c = output.shape
        grid = output.permute(0, 3, 1, 2) if a == b != c else output  # torchvision's Swin puts channels last
        return grid if grid.shape[2] * grid.shape[3] > 1 else None
    if output.ndim == 3:  # tokens; class and register tokens come before the patches
        _, tokens, channels = output.shape
        grid_size = int((tokens + 0.5) ** 0.5)
        extra = tokens - grid_size * grid_size
        if grid_size > 1 and extra <= 5:
            return output[:, extra:].transpose(1, 2).reshape(len(output), channels, grid_size, grid_size)
    return None


def _class_activation_map(layers: list[tuple[nn.Module, Tensor, Tensor]]) -> Tensor | None:
    """Return map_NHW, not yet normalised, from (module, output, gradient) of each layer; None if none is suitable."""
    is_transformer = layers[-1][1].ndim == 3
    for module, output, gradient in reversed(layers):
        grid_NCHW, grad_NCHW = _to_grid(output), _to_grid(gradient)
        if grid_NCHW is None or grad_NCHW is None:
            continue
        if is_transformer:
            varies = (grad_NCHW - grad_NCHW.mean((2, 3), keepdim=True)).abs().max() > 1e-3 * grad_NCHW.abs().max()
            if isinstance(module, nn.LayerNorm) and varies:
                return (grad_NCHW * grid_NCHW).sum(1).clamp(min=0)
        elif (grad_NCHW != 0).any():
            return (grad_NCHW.mean((2, 3), keepdim=True) * grid_NCHW).sum(1).clamp(min=0)
    return None


def _resize_to(map_NHW: Tensor, images_NCHW: Tensor) -> Tensor:
    map_N1HW = F.interpolate(map_NHW.detach().float()[:, None], images_NCHW.shape[-2:], mode="bilinear")
    return _normalise_maps(map_N1HW[:, 0].cpu())


def _logits(model: nn.Module, scorer: Scorer, images_NCHW: Tensor) -> Tensor:
    model.eval()
    return scorer.forward(model, images_NCHW)


def _normalise_maps(maps_NHW: Tensor) -> Tensor:
    return maps_NHW / maps_NHW.amax((1, 2), keepdim=True).clamp(min=1e-12)
