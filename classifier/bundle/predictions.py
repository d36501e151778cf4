"""Tables of predictions, written to and read from Parquet."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from classifier.errors import RunError, in_short
from classifier.text import escape_all, escape_surrogates, quote, unescape_all

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from classifier.bundle.predictor import Prediction
    from classifier.metrics.significance import PredictedClasses

# Rows that are written to Parquet at once.
ROW_GROUP = 10_000


def predictions_table(
    ids: Sequence[str], labels: "Sequence[int | None] | Tensor", probabilities_NK: ArrayLike, class_names: Sequence[str]
) -> "pa.Table":
    """One row per image: image_id, label, predicted (class indices), label_name, predicted_name, probabilities.

    Bytes of a name that are not UTF-8 are escaped (text.escape_surrogates). A label of None is unknown. probabilities
    is a list of K float32, in the order of class_names.
    """
    import pyarrow as pa

    probabilities = np.ascontiguousarray(probabilities_NK, dtype=np.float32)
    count, classes = probabilities.shape
    names = pa.array(escape_all(class_names), pa.string())
    label = pa.array(labels if isinstance(labels, Sequence) else labels.tolist(), pa.int64())
    predicted = pa.array(probabilities.argmax(1) if count else [], pa.int64())
    return pa.table(
        {
            "image_id": pa.array(list(map(escape_surrogates, ids)), pa.string()),
            "label": label,
            "predicted": predicted,
            "label_name": names.take(label),
            "predicted_name": names.take(predicted),
            "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(probabilities.ravel()), classes),
        }
    )


def label_predictions_table(
    ids: Sequence[str],
    targets_NK: np.ndarray,
    said_NK: np.ndarray,
    probabilities_NK: ArrayLike,
    class_names: Sequence[str],
) -> "pa.Table":
    """predictions_table of images with several labels: image_id; labels, predicted_labels (lists of class indices);
    label_names, predicted_names (lists of names); probabilities.

    targets_NK, said_NK: bool, which labels images have and which were said.
    """
    import pyarrow as pa

    probabilities = np.ascontiguousarray(probabilities_NK, dtype=np.float32)
    names = pa.array(escape_all(class_names), pa.string())
    labels, predicted = _list_labels(targets_NK), _list_labels(said_NK)
    return pa.table(
        {
            "image_id": pa.array(list(map(escape_surrogates, ids)), pa.string()),
            "labels": labels,
            "predicted_labels": predicted,
            "label_names": pa.ListArray.from_arrays(labels.offsets, names.take(labels.values)),
            "predicted_names": pa.ListArray.from_arrays(predicted.offsets, names.take(predicted.values)),
            "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(probabilities.ravel()), len(names)),
        }
    )


def _list_labels(in_NK: np.ndarray) -> "pa.ListArray":
    import pyarrow as pa

    ends_N = np.r_[0, in_NK.sum(1).cumsum()].astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends_N), pa.array(np.nonzero(in_NK)[1]))


def predictor_table(predictions: Sequence["Prediction"], class_names: Sequence[str]) -> "pa.Table":
    """predictions_table of what Predictor.predict_files returned: image_id is the path, and labels are unknown.

    Three more columns: taken (the decision, null if the model is not sure), likely (the prediction set) and is_unlike
    (out of distribution).
    """
    import pyarrow as pa

    probabilities_NK = np.array([one.probabilities for one in predictions]).reshape(-1, len(class_names))
    table = predictions_table(
        [str(one.path) for one in predictions], [None] * len(predictions), probabilities_NK, class_names
    )
    sets, decisions = escape_all([[one.prediction_set for one in predictions], [one.decision for one in predictions]])
    table = table.append_column("taken", pa.array(decisions, pa.string()))
    table = table.append_column("likely", pa.array(sets, pa.list_(pa.string())))
    return table.append_column("is_unlike", pa.array([one.is_out_of_distribution for one in predictions], pa.bool_()))


def save_predictions(table: "pa.Table", path: Path) -> None:
    """Write the table as Parquet, atomically. RunError if it cannot be written."""
    import pyarrow.parquet as pq

    with _write_errors(path):
        pq.write_table(table, _part_of(path))
        _part_of(path).replace(path)


class PredictionsWriter:
    """Writes a predictor_table prediction by prediction, for more of them than fit into memory.

    A context manager: the file is there when it ends without an error. RunError if it cannot be written.
    """

    def __init__(self, path: Path, class_names: Sequence[str]) -> None:
        self._path, self._class_names = path, class_names
        self._rows: list[Prediction] = []

    def append(self, prediction: "Prediction") -> None:
        self._rows.append(prediction)
        if len(self._rows) == ROW_GROUP:
            self._write_rows()

    def __enter__(self) -> "PredictionsWriter":
        import pyarrow.parquet as pq

        with _write_errors(self._path):
            self._writer = pq.ParquetWriter(_part_of(self._path), predictor_table([], self._class_names).schema)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._writer.close()
            _part_of(self._path).unlink()
            return
        self._write_rows()
        with _write_errors(self._path):
            self._writer.close()
            _part_of(self._path).replace(self._path)

    def _write_rows(self) -> None:
        with _write_errors(self._path):
            self._writer.write_table(predictor_table(self._rows, self._class_names))
        self._rows.clear()


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror or error}): free some space, or choose another --out"
        ) from None


def read_predicted_classes(folder: Path) -> "PredictedClasses":
    """Read a tested run's predictions of its test images, for a comparison: names, or sets of names, of the labels.

    RunError if it was not tested.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from classifier.metrics.significance import PredictedClasses

    path = Path(folder) / "predictions.parquet"
    if not Path(folder).is_dir():
        raise RunError(f"{folder} does not exist: give the folder of a tested run")
    if not path.is_file():
        raise RunError(f"{folder} has no {path.name}: test it first: classifier evaluate {quote(folder)}")
    try:
        is_multilabel = "label_names" in pq.read_schema(path).names
        names = ["label_names", "predicted_names"] if is_multilabel else ["label_name", "predicted_name"]
        table = pq.read_table(path, columns=["image_id", *names])
        columns = [unescape_all(table[name].to_pylist()) for name in table.column_names]
        if is_multilabel:
            columns[1:] = [list(map(frozenset, column)) for column in columns[1:]]
    except (OSError, pa.ArrowException, ValueError, TypeError) as error:
        raise RunError(f"{path} is corrupted ({in_short(error, 160)}): test the run again") from None
    values = [value for column in columns for value in column]
    if not all(isinstance(name, str) for value in values for name in (value if is_multilabel else (value,))):
        raise RunError(f"{path} is corrupted (names must be text): test the run again")
    return PredictedClasses(Path(folder).name, *columns)


def read_probabilities(path: Path) -> "tuple[Tensor, Tensor]":
    """Read probabilities_NK and labels_N of a predictions_table whose labels are known, or bool targets_NK of several.

    Of a repeated cross-validation, those of the first repeat: each image counts once. RunError if it is corrupted.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    try:
        names = set(pq.read_schema(path).names)
        table = pq.read_table(path, columns=list({"label", "labels", "probabilities", "fold"} & names))
        if "fold" in names:
            table = table.filter(
                pa.array([fold.startswith(("fold", "repeat0-")) for fold in table["fold"].to_pylist()])
            )
        flat = table["probabilities"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        probabilities_NK = torch.from_numpy(flat.reshape(len(table), -1))
        if "labels" in names:
            labels = torch.from_numpy(expand_labels(table["labels"], probabilities_NK.shape[1]))
        else:
            labels = torch.from_numpy(table["label"].to_numpy().astype(np.int64))
    except (OSError, pa.ArrowException, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise RunError(f"{path} is corrupted ({in_short(error, 160)}): test the run again") from None
    is_valid = ((probabilities_NK >= 0) & (probabilities_NK <= 1 + 1e-3)).all()  # false for NaN
    if not len(table) or not is_valid or not ((labels >= 0) & (labels < probabilities_NK.shape[1])).all():
        raise RunError(f"{path} is corrupted (its labels or probabilities are out of range): test the run again")
    return probabilities_NK, labels


def expand_labels(column: "pa.ChunkedArray", classes: int) -> np.ndarray:
    """Return in_NK, bool, of a column of label_predictions_table with lists of class indices.

    ValueError or IndexError if it is not one.
    """
    lists = column.combine_chunks()
    labels, sizes = lists.flatten().to_numpy(), lists.value_lengths()
    if sizes.null_count or (len(labels) and labels.min() < 0):
        raise ValueError("labels are missing")
    in_NK = np.zeros((len(lists), classes), bool)
    in_NK[np.repeat(np.arange(len(lists)), sizes.to_numpy()), labels] = True
    return in_NK
