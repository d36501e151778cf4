"""Self-supervised methods: a backbone with heads of its own, from two views of each image to a loss.

A method is a module whose state_dict is all that it learns, teachers and centres included, so that a checkpoint of it
resumes exactly. Its heads are thrown away: what remains is `backbone.model`.
"""

import copy
import math
from typing import Literal, TypedDict

import torch
from torch import Tensor, nn

from classifier.inference.features import capture_features
from classifier.pretraining import losses

Name = Literal["simclr", "byol", "dino"]


class MethodDocument(TypedDict):
    """The method of a run, in its folder."""

    method: Name


HIDDEN, PROJECTED = 512, 128
TEMPERATURE = 0.2
"""Of SimCLR; T. Chen et al. compare 0.05 to 1."""
PROTOTYPES, STUDENT_TEMPERATURE, TEACHER_TEMPERATURE, CENTRE_MOMENTUM = 1024, 0.1, 0.04, 0.9
MOMENTUM = 0.99
"""Of teachers; it rises to 1 along half a cosine, as in BYOL."""


class Backbone(nn.Module):
    """A classifier as far as the inputs of its head: features_NF of images_NCHW."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images_NCHW: Tensor) -> Tensor:
        with capture_features(self.model) as captured:
            self.model(images_NCHW)
        return captured[0]


class Method(nn.Module):
    """Base class. forward takes the views one after the other, 2N of N images, and returns the loss, a scalar."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone = Backbone(model)

    def after_step(self, progress: float) -> None:
        """Call it after each step of the optimizer. progress: share of the steps that are done."""


class SimCLR(Method):
    def __init__(self, model: nn.Module, features: int) -> None:
        super().__init__(model)
        self.projector = _make_mlp(features, PROJECTED)

    def forward(self, views_NCHW: Tensor) -> Tensor:
        first_ND, second_ND = self.projector(self.backbone(views_NCHW)).chunk(2)
        return losses.nt_xent(first_ND, second_ND, TEMPERATURE)


class _WithTeacher(Method):
    """A method whose teacher is the moving average of its student."""

    def __init__(self, model: nn.Module, head: nn.Module) -> None:
        super().__init__(model)
        self.projector = head
        self.teacher = nn.Sequential(copy.deepcopy(self.backbone), copy.deepcopy(head)).requires_grad_(False)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        momentum = 1 - (1 - MOMENTUM) * (math.cos(math.pi * progress) + 1) / 2
        student = nn.Sequential(self.backbone, self.projector)
        own: list[Tensor] = [*student.parameters()]
        average: list[Tensor] = [*self.teacher.parameters()]
        torch._foreach_lerp_(average, own, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]
        for target, source in zip(self.teacher.buffers(), student.buffers(), strict=True):
            target.copy_(source)


class BYOL(_WithTeacher):
    def __init__(self, model: nn.Module, features: int) -> None:
        super().__init__(model, _make_mlp(features, PROJECTED))
        self.predictor = _make_mlp(PROJECTED, PROJECTED)

    def forward(self, views_NCHW: Tensor) -> Tensor:
        predicted_ND = self.predictor(self.projector(self.backbone(views_NCHW)))
        with torch.no_grad():
            first_ND, second_ND = self.teacher(views_NCHW).chunk(2)
        return losses.regress_views(predicted_ND, torch.cat([second_ND, first_ND]))


class DINO(_WithTeacher):
    """With two views of the whole image; the paper's small crops beside them are left out."""

    centre_P: Tensor

    def __init__(self, model: nn.Module, features: int) -> None:
        last = nn.utils.parametrizations.weight_norm(nn.Linear(PROJECTED, PROTOTYPES, bias=False))
        super().__init__(model, nn.Sequential(_make_mlp(features, PROJECTED), _UnitLength(), last))
        self.register_buffer("centre_P", torch.zeros(PROTOTYPES))

    def forward(self, views_NCHW: Tensor) -> Tensor:
        student_NP = self.projector(self.backbone(views_NCHW))
        with torch.no_grad():
            first_NP, second_NP = self.teacher(views_NCHW).float().chunk(2)
        temperatures = STUDENT_TEMPERATURE, TEACHER_TEMPERATURE
        loss = losses.match_prototypes(student_NP, torch.cat([second_NP, first_NP]), self.centre_P, *temperatures)
        if self.training:
            self.centre_P.lerp_(torch.cat([first_NP, second_NP]).mean(0), 1 - CENTRE_MOMENTUM)
        return loss


METHODS: dict[str, type[SimCLR | BYOL | DINO]] = {"simclr": SimCLR, "byol": BYOL, "dino": DINO}


def choose_method(model: nn.Module) -> Name:
    """DINO for transformers, which have layer norms alone; SimCLR for networks with batch norms, and all others."""
    kinds = {type(module) for module in model.modules()}
    return "dino" if nn.LayerNorm in kinds and not kinds & {nn.BatchNorm2d, nn.GroupNorm} else "simclr"


class _UnitLength(nn.Module):
    def forward(self, values_ND: Tensor) -> Tensor:
        return nn.functional.normalize(values_ND, dim=1)


def _make_mlp(inputs: int, outputs: int) -> nn.Sequential:
    layers = nn.Linear(inputs, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs)
    return nn.Sequential(*layers)
