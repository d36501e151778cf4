"""The answers to the images of a part, as columns: to Parquet, CSV or JSON Lines."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classifier.bundle.predictor import Judgement
from classifier.metrics.hierarchy import Hierarchy
from classifier.text import escape_surrogates

if TYPE_CHECKING:
    import pyarrow

FORMATS = ("parquet", "csv", "jsonl")
SURE, NOT_SURE, UNLIKE = SURENESS = ("sure", "not sure", "unlike anything seen")


@dataclass(frozen=True)
class Columns:
    """Which columns the answers have, besides those that they always have.

    image_id; predicted, predicted_name, probability: the most likely class, its index and name; taken: the class that
    the calibration decides for, or none; likely: the prediction set, the most likely class first; labels: of a model
    of several labels, those that the image has; is_unlike: out of distribution; verdict: one of SURENESS; novelty: the
    out-of-distribution score; top: the most likely classes with their probabilities; error: why an image has no answer.
    All but image_id are null where there is no answer.
    """

    top: int
    """Number of most likely classes."""
    probabilities: bool = False
    """Those of all classes, in the order of the model's class names."""
    features: bool = False
    """The inputs of the model's last layer."""


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers to N images, of which M could be read. order_MK: classes, the most likely first."""

    class_names: tuple[str, ...]
    columns: Columns
    ids: Sequence[str]
    errors: dict[int, str]
    """By the number of an image that could not be read."""
    judgement: Judgement
    features_MF: np.ndarray | None

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def join(cls, answers: "Sequence[Answers]") -> "Answers":
        """Join those of neighbouring batches, at least one."""
        first, starts = answers[0], np.cumsum([0, *map(len, answers)]).tolist()
        errors = {
            n + start: text for one, start in zip(answers, starts, strict=False) for n, text in one.errors.items()
        }
        features = [one.features_MF for one in answers if one.features_MF is not None]
        return cls(
            first.class_names,
            first.columns,
            [id_ for one in answers for id_ in one.ids],
            errors,
            Judgement.join([one.judgement for one in answers]),
            np.concatenate(features) if features else None,
        )

    def to_lists(self) -> "_Lists":
        """Return plain values by column, for the M images that could be read."""
        judgement, said_MK = self.judgement, self.judgement.said_NK
        is_leaf_M = judgement.decisions_N < len(self.class_names)
        answer_names = self.class_names if is_leaf_M.all() else Hierarchy(self.class_names).names
        order_MK = (-judgement.probabilities_NK).argsort(axis=1, kind="stable")  # ties go to the lower class
        is_unsure_M = (judgement.decisions_N < 0) & (said_MK is None)  # that an image has no label is an answer
        sureness_M = np.where(judgement.is_ood_N, UNLIKE, np.where(is_unsure_M, NOT_SURE, SURE))
        return _Lists(
            predicted=order_MK[:, 0].tolist(),
            decisions=[answer_names[k] if k >= 0 else None for k in judgement.decisions_N.tolist()],
            order_MK=order_MK,
            sorted_MK=np.take_along_axis(judgement.probabilities_NK, order_MK, 1),
            in_set_MK=np.take_along_axis(judgement.in_set_NK, order_MK, 1),
            said_MK=None if said_MK is None else np.take_along_axis(said_MK, order_MK, 1),
            is_unlike=judgement.is_ood_N.tolist(),
            sureness=sureness_M.tolist(),
            ood_scores=judgement.ood_scores_N,
        )


@dataclass(frozen=True, eq=False)
class _Lists:
    """order_MK: classes, the most likely first; what follows it is in that order."""

    predicted: list[int]
    decisions: list[str | None]
    order_MK: np.ndarray
    sorted_MK: np.ndarray
    in_set_MK: np.ndarray
    said_MK: np.ndarray | None
    is_unlike: list[bool]
    sureness: list[str]
    ood_scores: np.ndarray | None


def write_answers(answers: Answers, path: Path, kind: str) -> None:
    """Write the answers in one of FORMATS. Names that are not UTF-8 are escaped (text.escape_surrogates). OSError."""
    if kind == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(to_table(answers), path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = _list_rows(answers)
        if kind == "jsonl":
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            return
        writer, names = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_MINIMAL), _column_names(answers)
        writer.writerow(names)
        for row in rows:
            writer.writerow(_to_cell(row[name]) for name in names)


def _column_names(answers: Answers) -> list[str]:
    columns = answers.columns
    names = dict.fromkeys(("image_id", "predicted", "predicted_name", "probability", "taken", "likely"), True)
    names |= {"labels": answers.judgement.said_NK is not None, "is_unlike": True, "verdict": True, "novelty": True}
    names |= {"top": True, "probabilities": columns.probabilities, "features": columns.features, "error": True}
    return [name for name, is_there in names.items() if is_there]


def _list_rows(answers: Answers) -> Iterator[dict[str, Any]]:
    """Yield a row of plain values per image, with the columns in their order."""
    lists, names = answers.to_lists(), [escape_surrogates(name) for name in answers.class_names]
    top, m = min(answers.columns.top, len(names)), 0
    for n, id_ in enumerate(answers.ids):
        row: dict[str, Any] = dict.fromkeys(_column_names(answers)) | {"image_id": escape_surrogates(id_)}
        if n in answers.errors:
            yield row | {"error": escape_surrogates(answers.errors[n])}
            continue
        ranked, probabilities = lists.order_MK[m].tolist(), [_shorten(p) for p in lists.sorted_MK[m, :top].tolist()]
        row["predicted"], row["predicted_name"], row["probability"] = ranked[0], names[ranked[0]], probabilities[0]
        row["taken"] = None if lists.decisions[m] is None else escape_surrogates(str(lists.decisions[m]))
        row["likely"] = [names[k] for k in lists.order_MK[m][lists.in_set_MK[m]]]
        if lists.said_MK is not None:
            row["labels"] = [names[k] for k in lists.order_MK[m][lists.said_MK[m]]]
        row["is_unlike"], row["verdict"] = lists.is_unlike[m], lists.sureness[m]
        score = math.nan if lists.ood_scores is None else float(lists.ood_scores[m])
        row["novelty"] = None if math.isnan(score) else _shorten(score)
        row["top"] = [{"name": names[k], "probability": p} for k, p in zip(ranked[:top], probabilities, strict=True)]
        if answers.columns.probabilities:
            row["probabilities"] = [_shorten(p) for p in answers.judgement.probabilities_NK[m].tolist()]
        if answers.features_MF is not None:
            row["features"] = [_shorten(value) for value in answers.features_MF[m].tolist()]
        yield row
        m += 1


def _to_cell(value: Any) -> Any:
    """Return a value as CSV holds it: lists and truth values as JSON, as a class may have any name."""
    if isinstance(value, list | bool):
        return json.dumps(value, ensure_ascii=False)
    return value


def to_table(answers: Answers) -> "pyarrow.Table":
    """Return the answers as a table of Arrow, with a row per image."""
    import pyarrow as pa

    lists = answers.to_lists()
    names = pa.array([escape_surrogates(name) for name in answers.class_names], pa.string())
    is_read_N = np.ones(len(answers), bool)
    is_read_N[[*answers.errors]] = False
    # Of each image its row among those that were read; null for the others.
    rows_N = pa.array(np.cumsum(is_read_N) - 1, pa.int64(), mask=~is_read_N)
    top, count = min(answers.columns.top, len(names)), len(lists.predicted)

    def list_names(is_in_MK: np.ndarray) -> pa.ListArray:
        ends = pa.array(np.cumsum([0, *is_in_MK.sum(1)]), pa.int32())
        return pa.ListArray.from_arrays(ends, names.take(pa.array(lists.order_MK[is_in_MK])))

    pairs = pa.StructArray.from_arrays(
        [names.take(pa.array(lists.order_MK[:, :top].ravel())), pa.array(lists.sorted_MK[:, :top].ravel())],
        ["name", "probability"],
    )
    predicted = pa.array(lists.predicted, pa.int64())
    read: dict[str, pa.Array] = {
        "predicted": predicted,
        "predicted_name": names.take(predicted),
        "probability": pa.array(lists.sorted_MK[:, 0], pa.float32()),
        "taken": pa.array([None if t is None else escape_surrogates(t) for t in lists.decisions], pa.string()),
        "likely": list_names(lists.in_set_MK),
        **({} if lists.said_MK is None else {"labels": list_names(lists.said_MK)}),
        "is_unlike": pa.array(lists.is_unlike, pa.bool_()),
        "verdict": pa.array(lists.sureness, pa.string()),
        "novelty": pa.nulls(count, pa.float32())
        if lists.ood_scores is None
        else pa.array(lists.ood_scores, pa.float32(), from_pandas=True),  # NaN, of a missing image, is null
        "top": pa.ListArray.from_arrays(pa.array(np.arange(count + 1) * top, pa.int32()), pairs),
    }
    if answers.columns.probabilities:
        read["probabilities"] = _to_list_column(answers.judgement.probabilities_NK)
    if answers.columns.features:
        features_MF = answers.features_MF
        read["features"] = pa.nulls(0, pa.list_(pa.float32())) if features_MF is None else _to_list_column(features_MF)
    columns = {"image_id": pa.array([escape_surrogates(id_) for id_ in answers.ids], pa.string())}
    columns |= {name: array.take(rows_N) for name, array in read.items()}
    errors = [answers.errors.get(n) for n in range(len(answers))]
    columns["error"] = pa.array([None if e is None else escape_surrogates(e) for e in errors], pa.string())
    return pa.table(columns)


def _to_list_column(values_MF: np.ndarray) -> Any:
    import pyarrow as pa

    count, width = values_MF.shape
    values = pa.array(np.ascontiguousarray(values_MF, np.float32).ravel())
    return pa.ListArray.from_arrays(pa.array(np.arange(count + 1) * width, pa.int32()), values)


def _shorten(number: float) -> float:
    """The shortest number that is the same in 6 digits; float32 has little more."""
    return float(f"{number:.6g}")
