"""Late fusion: the features of an image and the columns of a table, joined before the head.

The head sees the image's features, the columns, a flag for whatever is missing, and a hidden layer: so that a linear
model of features and columns is a special case. Half of the hidden layer are products of a projection of the image and
one of the columns (J.-H. Kim et al., "Hadamard Product for Low-rank Bilinear Pooling", 2017): without them a network
from scratch did not learn a label that depends on both, but on neither alone. The weights of the flags are the learned
embeddings of what is missing. In training the image, or all columns of a sample, and single columns are left out at
random (modality dropout: N. Neverova et al., "ModDrop", 2015), so that a prediction needs neither.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classifier.config.sections import ModelConfig
from classifier.errors import ModelError
from classifier.models.fusion.candidates import Candidate, make_candidate
from classifier.models.head import DropoutLinear, head_modules, replace_module
from classifier.models.ordinal_head import OrdinalHead

# Neurons of each half of the hidden layer.
HIDDEN = 64


class FusionNet(nn.Module):
    """images_NCHW, and columns_NF as data/columns/schema.py encodes them, to logits_NK: the first number says whether
    there is an image; of a missing value all numbers are NaN.

    backbone: images to features_NB. Without columns_NF the images are there, and all columns are missing.
    """

    def __init__(self, backbone: nn.Module, fusion: "Fusion") -> None:
        super().__init__()
        self.backbone, self.fusion = backbone, fusion

    def forward(self, images_NCHW: Tensor, columns_NF: Tensor | None = None) -> Tensor:
        return self.fusion(self.backbone(images_NCHW), columns_NF)

    def head_parameter_names(self) -> frozenset[str]:
        """Return the names of the parameters that no image model has, which are new and train as a head does."""
        return frozenset(f"fusion.{name}" for name, _ in self.fusion.named_parameters())


class Fusion(nn.Module):
    """features_NB and columns_NF to logits_NK: what a FusionNet has after its backbone.

    head: the image model's, of which the rows for the other inputs start at zero. candidate: what answers in place of
    the head, where it was found to be better; the head then gives the gradients by which answers are explained.
    """

    candidate: Candidate | None

    def __init__(
        self,
        head: nn.Linear,
        column_widths: Sequence[int],
        *,
        classes: int,
        modality_dropout: float = 0.0,
        is_multilabel: bool = False,
    ) -> None:
        super().__init__()
        self.classes, self.features, self.is_multilabel = classes, head.in_features, is_multilabel
        self.column_widths, self.modality_dropout = tuple(column_widths), modality_dropout
        columns, width = len(self.column_widths), sum(self.column_widths)
        self.register_buffer("column_of_F", _list_columns(self.column_widths), persistent=False)
        firsts = [0, *itertools.accumulate(self.column_widths)][:columns]
        self.register_buffer("first_of_C", torch.tensor(firsts), persistent=False)
        self.missing_image = nn.Parameter(torch.zeros(self.features))
        table = 1 + width + columns
        self.image_layer, self.table_layer = nn.Linear(self.features, HIDDEN), nn.Linear(table, HIDDEN)
        self.head = widen_head(head, self.features + table + 2 * HIDDEN)  # last, for models.head_modules
        self.candidate = None

    column_of_F: Tensor
    first_of_C: Tensor

    def forward(self, features_NB: Tensor, columns_NF: Tensor | None = None) -> Tensor:
        features_NB = features_NB.float()
        if columns_NF is None:
            columns_NF = self.make_empty_columns(features_NB)
        has_image_N1, values_NF = columns_NF[:, :1] > 0, columns_NF[:, 1:]
        if self.training and self.modality_dropout:
            has_image_N1, values_NF = self._drop(has_image_N1, values_NF)
        inputs_NI = self.join(features_NB, has_image_N1, values_NF)
        image_NH = self.image_layer(inputs_NI[:, : self.features]).float()
        table_NH = self.table_layer(inputs_NI[:, self.features :]).float()
        hidden_NH = torch.cat([F.gelu(image_NH + table_NH), image_NH.tanh() * table_NH.tanh()], 1)
        logits_NK = self.head(torch.cat([inputs_NI, hidden_NH], 1))
        if self.candidate is None:
            return logits_NK
        chosen_NK = self.candidate(logits_NK.float(), features_NB, has_image_N1, values_NF)
        return chosen_NK.detach() + (logits_NK - logits_NK.detach()) if torch.is_grad_enabled() else chosen_NK

    def make_empty_columns(self, features_NB: Tensor) -> Tensor:
        """Return columns_NF of images that are there, of which all columns are missing."""
        width = sum(self.column_widths)
        return F.pad(features_NB.new_full((len(features_NB), width), float("nan")), (1, 0), value=1.0)

    def join(self, features_NB: Tensor, has_image_N1: Tensor, values_NF: Tensor) -> Tensor:
        """Return inputs_NI: image or its embedding, flag, columns or zero (their mean), flags."""
        image_NB = torch.where(has_image_N1, features_NB, self.missing_image)
        is_missing_NF = values_NF.isnan()
        flags_NC = is_missing_NF[:, self.first_of_C].float()
        filled_NF = torch.where(is_missing_NF, 0.0, values_NF)
        return torch.cat([image_NB, 1 - has_image_N1.float(), filled_NF, flags_NC], 1)

    def _drop(self, has_image_N1: Tensor, values_NF: Tensor) -> tuple[Tensor, Tensor]:
        """Leave out the image, or all columns, and single columns of each sample."""
        p, columns = self.modality_dropout, len(self.column_widths)
        draw_N1 = torch.rand(len(values_NF), 1, device=values_NF.device)
        is_dropped_NC = torch.rand(len(values_NF), columns, device=values_NF.device) < p
        is_dropped_NC = is_dropped_NC | ((draw_N1 >= p) & (draw_N1 < 2 * p))
        is_image_dropped_N1 = draw_N1 < p
        # A sample keeps something, at least what it had.
        is_empty_N1 = (values_NF[:, self.first_of_C].isnan() | is_dropped_NC).all(1, keepdim=True)
        has_left_N1 = has_image_N1 & ~(is_image_dropped_N1 & ~is_empty_N1)
        keeps_none_N1 = is_empty_N1 & ~has_left_N1
        is_dropped_NF = (is_dropped_NC & ~keeps_none_N1)[:, self.column_of_F]
        return has_left_N1, values_NF.masked_fill(is_dropped_NF, float("nan"))

    def make_candidate(self, tensors: Mapping[str, Tensor]) -> Candidate | None:
        """Return the candidate of these tensors, on this module's device. ValueError if they do not fit."""
        candidate = make_candidate(
            tensors, self.features, sum(self.column_widths), self.classes, is_multilabel=self.is_multilabel
        )
        return None if candidate is None else candidate.to(self.missing_image.device)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Make the candidate that the state has, or none: its tensors say how large it is."""
        start = f"{prefix}candidate."
        tensors = {name.removeprefix(start): value for name, value in state_dict.items() if name.startswith(start)}
        try:
            self.candidate = self.make_candidate(tensors)
        except ValueError as error:
            error_msgs.append(f"{start}: {error}")
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def wrap(
    model: nn.Module, config: ModelConfig, column_widths: Sequence[int], *, classes: int, is_multilabel: bool
) -> FusionNet:
    """Return the image model, with its weights, as a FusionNet. ModelError if its head is not one linear layer."""
    heads = head_modules(model)
    name, head = next(iter(heads.items()), ("", None))
    if len(heads) != 1 or not isinstance(head, nn.Linear) or head.bias is None:
        raise ModelError(
            f"model.name {config.name}: columns join the features of an image before a head that is one linear layer, "
            "and this model's is not: choose another model, or leave data.columns out"
        )
    if head is model:
        raise ModelError(f"model.name {config.name} has no layer before its head, which columns could join")
    replace_module(model, name, nn.Identity())
    fusion = Fusion(
        head,
        column_widths,
        classes=classes,
        modality_dropout=config.modality_dropout,
        is_multilabel=is_multilabel,
    )
    return FusionNet(model, fusion)


def widen_head(head: nn.Linear, inputs: int) -> nn.Linear:
    """Return the head for more inputs, whose weights for the new ones, behind the others, are zero."""
    device = head.weight.device
    if isinstance(head, OrdinalHead):
        wider: nn.Linear = OrdinalHead(inputs, len(head.gaps) + 2, head.p, device)
    else:
        wider = nn.Linear(inputs, head.out_features, device=device)
        if isinstance(head, DropoutLinear):
            wider = DropoutLinear(wider, head.p)
    state = {name: tensor.detach() for name, tensor in head.state_dict().items()}
    state["weight"] = F.pad(state["weight"], (0, inputs - head.in_features))
    wider.load_state_dict(state)
    return wider


def _list_columns(widths: Sequence[int]) -> Tensor:
    """Return the column of each number of the vector."""
    return torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(list(widths), dtype=torch.int64))
