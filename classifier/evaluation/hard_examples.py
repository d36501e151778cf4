"""A model's most confident errors and least confident predictions, with Grad-CAM maps and nearest training images."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from classifier.data.dataset import Dataset, Split
from classifier.inference.explain import grad_cam, nearest_neighbours, overlay_heatmap
from classifier.inference.features import extract_features
from classifier.inference.out_of_distribution import sample_images, sample_indices
from classifier.inference.scorer import Scorer
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
) -> "pa.Table":
    """Return the most confident errors of a split, then its least confident predictions, whether correct or not.

    One row per image: kind, image_id, label, predicted (names), probability, picture and map (JPEG bytes); and lists
    about the training images with the most similar features: like_ids, like_labels, like_pictures. The map is the
    Grad-CAM map of the predicted class, over the image. train_features: of the training images, N x F, if known.
    """
    import pyarrow as pa

    confidence_N, predicted_N = probabilities_NK.max(1)
    errors_N = (predicted_N != split.labels_N).nonzero()[:, 0]
    wrong = errors_N[confidence_N[errors_N].argsort(descending=True, stable=True)][:IMAGES_SHOWN]
    by_confidence_N = confidence_N.argsort(stable=True)
    unsure = by_confidence_N[~torch.isin(by_confidence_N, wrong)][:IMAGES_SHOWN]
    indices_M = torch.cat([wrong, unsure])
    kinds = [WRONG] * len(wrong) + [UNSURE] * len(unsure)
    images_MCHW = split.images_NCHW[indices_M] if len(indices_M) else split.images_NCHW[:0]
    maps_MHW = grad_cam(model, scorer, images_MCHW, predicted_N[indices_M]) if len(indices_M) else torch.zeros(0, 1, 1)
    neighbours_MJ = _nearest_training_images(model, scorer, dataset.train, images_MCHW, train_features)
    names, rows = scorer.class_names, []
    for m, index in enumerate(indices_M.tolist()):
        others = [j for j in neighbours_MJ[m].tolist() if dataset.train.ids[j] != split.ids[index]]
        neighbours_J = torch.tensor(others[:NEIGHBOURS_SHOWN], dtype=torch.int64)
        neighbour_images = dataset.train.images_NCHW[neighbours_J] if len(neighbours_J) else []
        rows.append(
            {
                "kind": kinds[m],
                "image_id": split.ids[index],
                "label": names[int(split.labels_N[index])],
                "predicted": names[int(predicted_N[index])],
                "probability": float(confidence_N[index]),
                "picture": overlay_heatmap(images_MCHW[m]),
                "map": overlay_heatmap(images_MCHW[m], maps_MHW[m]),
                "like_ids": [dataset.train.ids[j] for j in neighbours_J.tolist()],
                "like_labels": [names[int(dataset.train.labels_N[j])] for j in neighbours_J.tolist()],
                "like_pictures": [overlay_heatmap(image_CHW) for image_CHW in neighbour_images],
            }
        )
    return pa.Table.from_pylist(escape_all(rows), schema=_schema())


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

    columns = {name: pa.string() for name in ("kind", "image_id", "label", "predicted")}
    columns |= {"probability": pa.float64(), "picture": pa.binary(), "map": pa.binary()}
    columns |= {"like_ids": pa.list_(pa.string()), "like_labels": pa.list_(pa.string())}
    return pa.schema(list((columns | {"like_pictures": pa.list_(pa.binary())}).items()))
