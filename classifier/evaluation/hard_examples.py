"""A model's most confident errors and least confident predictions, with Grad-CAM maps and nearest training images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from classifier.data.dataset import Dataset, Split
from classifier.inference.explain import grad_cam, nearest_neighbours, overlay_heatmap
from classifier.inference.features import extract_features
from classifier.inference.out_of_distribution import sample_images, sample_indices
from classifier.inference.scorer import Scorer
from classifier.inference.with_columns import WithColumns
from classifier.text import escape_all

if TYPE_CHECKING:
    import pyarrow as pa

# Images of each kind, and nearest training images of each of them.
IMAGES_SHOWN, NEIGHBOURS_SHOWN = 12, 3


WRONG, UNSURE = "wrong", "unsure"
"""The kinds: a confident error, or an uncertain prediction."""


def find_hard_examples(
    model: nn.Module,
    scorer: Scorer,
    dataset: Dataset,
    split: Split,
    probabilities_NK: Tensor,
    train_features: Tensor | None = None,
    said_NK: np.ndarray | None = None,
) -> "pa.Table":
    """Return the most confident errors of a split, then its least confident predictions, whether correct or not.

    One row per image: kind, image_id, label, predicted (names), class_name and its probability, picture and map (JPEG
    bytes); and lists about the training images with the most similar features: like_ids, like_labels, like_pictures.
    The class is the predicted one; of several labels that which is most surely wrong, or least sure. The map is its
    Grad-CAM map, over the image. train_features: of the training images, N x F, if known. said_NK: bool, which of
    several labels were said.
    """
    import pyarrow as pa

    names, sets_MK, rows = scorer.class_names, dataset.label_sets_MK, []
    if sets_MK is None or said_NK is None:
        confidence_N, predicted_N = probabilities_NK.max(1)
        wrong, unsure = _rank(confidence_N, predicted_N != split.labels_N, confidence_N)
        classes_M = predicted_N[torch.cat([wrong, unsure])]
    else:
        wrong, unsure, classes_M = _rank_labels(probabilities_NK, torch.from_numpy(said_NK), sets_MK[split.labels_N])
    indices_M = torch.cat([wrong, unsure])
    kinds = [WRONG] * len(wrong) + [UNSURE] * len(unsure)
    images_MCHW = split.images_NCHW[indices_M] if len(indices_M) else split.images_NCHW[:0]
    columns_MF = None if split.columns_NF is None else split.columns_NF[indices_M]
    maps_MHW = _draw_maps(model, scorer, images_MCHW, columns_MF, classes_M) if len(indices_M) else torch.zeros(0, 1, 1)
    neighbours_MJ = _nearest_training_images(model, scorer, dataset.train, images_MCHW, train_features)

    def name_label(label: Tensor) -> str:
        return names[int(label)] if sets_MK is None else name_labels(sets_MK[label], names)

    for m, index in enumerate(indices_M.tolist()):
        others = [j for j in neighbours_MJ[m].tolist() if dataset.train.ids[j] != split.ids[index]]
        neighbours_J = torch.tensor(others[:NEIGHBOURS_SHOWN], dtype=torch.int64)
        neighbour_images = dataset.train.images_NCHW[neighbours_J] if len(neighbours_J) else []
        rows.append(
            {
                "kind": kinds[m],
                "image_id": split.ids[index],
                "label": name_label(split.labels_N[index]),
                "predicted": names[classes_M[m]] if said_NK is None else name_labels(said_NK[index], names),
                "class_name": names[classes_M[m]],
                "probability": float(probabilities_NK[index, classes_M[m]]),
                "picture": overlay_heatmap(images_MCHW[m]),
                "map": overlay_heatmap(images_MCHW[m], maps_MHW[m]),
                "like_ids": [dataset.train.ids[j] for j in neighbours_J.tolist()],
                "like_labels": [name_label(label) for label in dataset.train.labels_N[neighbours_J]],
                "like_pictures": [overlay_heatmap(image_CHW) for image_CHW in neighbour_images],
            }
        )
    return pa.Table.from_pylist(escape_all(rows), schema=_schema())


def _draw_maps(
    model: nn.Module, scorer: Scorer, images_MCHW: Tensor, columns_MF: Tensor | None, classes_M: Tensor
) -> Tensor:
    if columns_MF is None:
        return grad_cam(model, scorer, images_MCHW, classes_M)
    batches = (of_M.split(scorer.batch_size) for of_M in (images_MCHW, columns_MF, classes_M))
    return torch.cat(
        [
            grad_cam(WithColumns(model, columns_BF), scorer, images_BCHW, classes_B)
            for images_BCHW, columns_BF, classes_B in zip(*batches, strict=True)
        ]
    )


def name_labels(in_K: Tensor | np.ndarray, class_names: Sequence[str]) -> str:
    """Name the labels that an image has."""
    return " + ".join(name for name, is_in in zip(class_names, in_K.tolist(), strict=True) if is_in) or "no label"


def _rank(surely_wrong_N: Tensor, is_wrong_N: Tensor, confidence_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return the errors that are most surely wrong, and the least confident predictions of the other images."""
    errors_N = is_wrong_N.nonzero()[:, 0]
    wrong = errors_N[surely_wrong_N[errors_N].argsort(descending=True, stable=True)][:IMAGES_SHOWN]
    by_confidence_N = confidence_N.argsort(stable=True)
    return wrong, by_confidence_N[~torch.isin(by_confidence_N, wrong)][:IMAGES_SHOWN]


def _rank_labels(probabilities_NK: Tensor, said_NK: Tensor, targets_NK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what _rank does, and classes_M: the label of each error that is most surely wrong, else the least sure.

    The confidence in a label that is said is its probability, in one that is not 1 minus that.
    """
    confidences_NK = torch.where(said_NK, probabilities_NK, 1 - probabilities_NK)
    worst_N, wrong_label_N = torch.where(said_NK != targets_NK, confidences_NK, -1.0).max(1)
    least_N, unsure_label_N = confidences_NK.min(1)
    wrong, unsure = _rank(worst_N, worst_N >= 0, least_N)
    return wrong, unsure, torch.cat([wrong_label_N[wrong], unsure_label_N[unsure]])


def _nearest_training_images(
    model: nn.Module, scorer: Scorer, train: Split, images_MCHW: Tensor, train_features: Tensor | None
) -> Tensor:
    """Return neighbours_MJ, int64: indices of the training images with the most similar features, of a sample of them.

    One more than are shown, as an image may be its own neighbour. M x 0 if there are no images to compare.
    """
    sample_S = sample_indices(len(train))
    if not len(images_MCHW) or not len(sample_S):
        return torch.zeros(len(images_MCHW), 0, dtype=torch.int64)
    features_MF = extract_features(model, scorer, images_MCHW)
    if train_features is not None:
        sample_SF = train_features[sample_S]
    else:
        sample_SF = extract_features(model, scorer, sample_images(train.images_NCHW))
    neighbours_MJ, _ = nearest_neighbours(features_MF, sample_SF, NEIGHBOURS_SHOWN + 1)
    return sample_S[neighbours_MJ]


def _schema() -> "pa.Schema":
    import pyarrow as pa

    columns = {name: pa.string() for name in ("kind", "image_id", "label", "predicted", "class_name")}
    columns |= {"probability": pa.float64(), "picture": pa.binary(), "map": pa.binary()}
    columns |= {"like_ids": pa.list_(pa.string()), "like_labels": pa.list_(pa.string())}
    return pa.schema(list((columns | {"like_pictures": pa.list_(pa.binary())}).items()))
