"""Tables of predictions: made, saved as Parquet, and read back."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from classifier.errors import RunError

if TYPE_CHECKING:
    import pyarrow as pa

    from classifier.bundle.predictor import Prediction
    from classifier.metrics.significance import PredictedClasses


def predictions_table(
    ids: Sequence[str], labels: Sequence[int | None] | Tensor, probabilities_NK: Tensor, class_names: Sequence[str]
) -> "pa.Table":
    """A row an image: image_id, label, predicted (numbers of classes), label_name, predicted_name, probabilities.

    A label of None is unknown. probabilities is a list of K float32, in the order of class_names.
    """
    import pyarrow as pa

    probabilities = np.ascontiguousarray(probabilities_NK.numpy(), dtype=np.float32)
    count, classes = probabilities.shape
    names = pa.array(class_names, pa.string())
    label = pa.array(labels.tolist() if isinstance(labels, Tensor) else labels, pa.int64())
    predicted = pa.array(probabilities.argmax(1) if count else [], pa.int64())
    return pa.table(
        {
            "image_id": pa.array(ids, pa.string()),
            "label": label,
            "predicted": predicted,
            "label_name": names.take(label),
            "predicted_name": names.take(predicted),
            "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(probabilities.ravel()), classes),
        }
    )


def predictor_table(answers: Sequence["Prediction"], class_names: Sequence[str]) -> "pa.Table":
    """predictions_table of what Predictor.files gave: the paths are the ids, and no label is known.

    Three more columns: taken (a class, null where the model is not sure), likely (a list of classes) and is_unlike.
    """
    import pyarrow as pa

    rows = [torch.zeros(0, len(class_names)), *(answer.probabilities[None] for answer in answers)]
    table = predictions_table([str(a.path) for a in answers], [None] * len(answers), torch.cat(rows), class_names)
    table = table.append_column("taken", pa.array([a.decision for a in answers], pa.string()))
    table = table.append_column("likely", pa.array([list(a.prediction_set) for a in answers], pa.list_(pa.string())))
    return table.append_column("is_unlike", pa.array([a.is_out_of_distribution for a in answers], pa.bool_()))


def save_predictions(table: "pa.Table", path: Path) -> None:
    """Write the table as Parquet, whole or not at all. RunError if it cannot be written."""
    import pyarrow.parquet as pq

    part = path.with_name(f".{path.name}.part")
    try:
        pq.write_table(table, part)
        part.replace(path)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror or error}): make room, or choose another --out"
        ) from None


def read_predicted_classes(folder: Path) -> "PredictedClasses":
    """What a tested run said of its test images, for a comparison. RunError if it was not tested."""
    import pyarrow.parquet as pq

    from classifier.metrics.significance import PredictedClasses

    path = Path(folder) / "predictions.parquet"
    if not Path(folder).is_dir():
        raise RunError(f"{folder} does not exist: give the folder of a tested run")
    if not path.is_file():
        raise RunError(f"{folder} has no {path.name}: test it first, by python jobs/evaluate.py {folder}")
    table = pq.read_table(path, columns=["image_id", "label_name", "predicted_name"])
    return PredictedClasses(Path(folder).name, *(table[name].to_pylist() for name in table.column_names))
