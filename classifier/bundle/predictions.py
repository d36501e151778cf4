"""Tables of predictions, written to and read from Parquet."""

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
    """One row per image: image_id, label, predicted (class indices), label_name, predicted_name, probabilities.

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


def predictor_table(predictions: Sequence["Prediction"], class_names: Sequence[str]) -> "pa.Table":
    """predictions_table of what Predictor.predict_files returned: image_id is the path, and labels are unknown.

    Three more columns: taken (the decision, null if the model is not sure), likely (the prediction set) and is_unlike
    (out of distribution).
    """
    import pyarrow as pa

    probabilities_NK = torch.cat([torch.zeros(0, len(class_names)), *(one.probabilities[None] for one in predictions)])
    ids = [str(one.path) for one in predictions]
    table = predictions_table(ids, [None] * len(predictions), probabilities_NK, class_names)
    sets = [list(one.prediction_set) for one in predictions]
    table = table.append_column("taken", pa.array([one.decision for one in predictions], pa.string()))
    table = table.append_column("likely", pa.array(sets, pa.list_(pa.string())))
    return table.append_column("is_unlike", pa.array([one.is_out_of_distribution for one in predictions], pa.bool_()))


def save_predictions(table: "pa.Table", path: Path) -> None:
    """Write the table as Parquet, atomically. RunError if it cannot be written."""
    import pyarrow.parquet as pq

    part = path.with_name(f".{path.name}.part")
    try:
        pq.write_table(table, part)
        part.replace(path)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror or error}): free some space, or choose another --out"
        ) from None


def read_predicted_classes(folder: Path) -> "PredictedClasses":
    """Read a tested run's predictions of its test images, for a comparison. RunError if it was not tested."""
    import pyarrow.parquet as pq

    from classifier.metrics.significance import PredictedClasses

    path = Path(folder) / "predictions.parquet"
    if not Path(folder).is_dir():
        raise RunError(f"{folder} does not exist: give the folder of a tested run")
    if not path.is_file():
        raise RunError(f"{folder} has no {path.name}: test it first: classifier evaluate {folder}")
    table = pq.read_table(path, columns=["image_id", "label_name", "predicted_name"])
    return PredictedClasses(Path(folder).name, *(table[name].to_pylist() for name in table.column_names))
