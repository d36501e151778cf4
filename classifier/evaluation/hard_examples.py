"""Images that a person should look at: the surest mistakes and the unsurest answers, with maps and their likes."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from classifier.data.dataset import Dataset, Split
from classifier.inference.explain import grad_cam, nearest_neighbours, overlay_heatmap
from classifier.inference.features import extract_features
from classifier.inference.out_of_distribution import sample_indices, sample_images
from classifier.inference.scorer import Scorer

if TYPE_CHECKING:
    import pyarrow as pa

# Of each kind, and of the training images that are most like each.
SHOWN, LIKE = 12, 3


WRONG, UNSURE = "wrong", "unsure"
"""Why an image is shown."""


def looked_at(model: nn.Module, scorer: Scorer, dataset: Dataset, part: Split, probabilities_NK: Tensor) -> "pa.Table":
    """A row an image: kind, image_id, label, predicted (names), probability, picture and map (JPEG bytes), and lists of
    the most similar training images by the model's features: like_ids, like_labels, like_pictures.

    The most confident mistakes first, then the answers that were least sure, right or wrong. The map is Grad-CAM's of
    the class that it was taken for, laid over the picture.
    """
    import pyarrow as pa

    confidence_N, predicted_N = probabilities_NK.max(1)
    wrong_N = (predicted_N != part.labels_N).nonzero()[:, 0]
    wrong = wrong_N[confidence_N[wrong_N].argsort(descending=True, stable=True)][:SHOWN]
    unsure_N = confidence_N.argsort(stable=True)
    unsure = unsure_N[~torch.isin(unsure_N, wrong)][:SHOWN]
    places_N = torch.cat([wrong, unsure])
    kinds = [WRONG] * len(wrong) + [UNSURE] * len(unsure)
    images_NCHW = part.images_NCHW[places_N] if len(places_N) else part.images_NCHW[:0]
    maps_NHW = grad_cam(model, scorer, images_NCHW, predicted_N[places_N]) if len(places_N) else torch.zeros(0, 1, 1)
    known, known_N = sample_images(dataset.train.images_NCHW), sample_indices(len(dataset.train))
    like_NC = torch.zeros(len(places_N), 0, dtype=torch.int64)
    if len(places_N) and len(known_N):
        found_NC, _ = nearest_neighbours(extract_features(model, scorer, images_NCHW), extract_features(model, scorer, known), LIKE)
        like_NC = known_N[found_NC]
    names, rows = scorer.class_names, []
    for n, place in enumerate(places_N.tolist()):
        likes = like_NC[n]
        like_images = dataset.train.images_NCHW[likes] if len(likes) else []
        rows.append(
            {
                "kind": kinds[n],
                "image_id": part.ids[place],
                "label": names[int(part.labels_N[place])],
                "predicted": names[int(predicted_N[place])],
                "probability": float(confidence_N[place]),
                "picture": overlay_heatmap(images_NCHW[n]),
                "map": overlay_heatmap(images_NCHW[n], maps_NHW[n]),
                "like_ids": [dataset.train.ids[like] for like in likes.tolist()],
                "like_labels": [names[int(dataset.train.labels_N[like])] for like in likes.tolist()],
                "like_pictures": [overlay_heatmap(image_CHW) for image_CHW in like_images],
            }
        )
    return pa.Table.from_pylist(rows, schema=_schema())


def _schema() -> "pa.Schema":
    import pyarrow as pa

    names = {name: pa.string() for name in ("kind", "image_id", "label", "predicted")}
    names |= {"probability": pa.float64(), "picture": pa.binary(), "map": pa.binary()}
    names |= {"like_ids": pa.list_(pa.string()), "like_labels": pa.list_(pa.string())}
    return pa.schema(list((names | {"like_pictures": pa.list_(pa.binary())}).items()))
