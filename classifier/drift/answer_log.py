"""Answers in Parquet as a window: of `serve --capture` or `predict --answers`. The files may be anyone's."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classifier.bundle.document import Bundle
from classifier.bundle.inputs.column_rows import encode_rows
from classifier.drift.window import Window, choose_rows
from classifier.errors import DataError, list_few
from classifier.text import escape_surrogates, show

if TYPE_CHECKING:
    import pyarrow as pa

    from classifier.data.readers.remote import RemotePath
    from classifier.storage.bounded_parquet import BoundedParquet

_SUFFIX = ".parquet"
_NEEDED, _ANSWER = ("image_id", "predicted", "predicted_name"), "probabilities"
_LISTS = {"statistics": "statistics_MF", "features": "features_MF"}
_OTHERS = ("novelty", "columns", "bundle", "model", "time")


def is_answer_log(path: str) -> bool:
    """Return whether a path is a Parquet file with answers, or a folder of such files. DataError if it is damaged."""
    files = _list_files(path)
    return bool(files) and {*_NEEDED} <= {*_open(files[0]).schema.names}


def read_answers(path: str, bundle: Bundle, limit: int) -> Window:
    """Read answers of the bundle's model, at most `limit`: of a log with times the newest, else evenly spaced.

    DataError, naming file and column, for answers of another model, without all probabilities, or out of range.
    """
    files = [(file, _open(file)) for file in _list_files(path)]
    names = [_check_columns(file, table) for file, table in files]
    has_time = all("time" in own for own in names)
    counts = [table.starts[-1] for _, table in files]
    total, notes = sum(counts), list[str]()
    rows = np.arange(max(0, total - limit), total) if has_time else choose_rows(total, limit)
    if len(rows) < total:
        which = "the newest" if has_time else "evenly spaced"
        notes.append(f"{len(rows):,} of {total:,} answers are compared, {which} (--limit)")
    shared = [name for name in (*_NEEDED, _ANSWER, *_LISTS, *_OTHERS) if all(name in own for own in names)]
    table, rows = _read_rows(path, files, shared, rows)
    is_answered = table["predicted"].is_valid().to_numpy()
    if lost := int((~is_answered).sum()):
        notes.append(f"{lost:,} images have no answer, as they could not be read")
    table, rows = table.filter(is_answered), rows[is_answered]
    table, rows = _select_model(path, table, rows, notes)
    probabilities_MK = _to_matrix(path, table, _ANSWER)
    _check_classes(path, table, probabilities_MK, bundle.class_names)
    arrays: dict[str, Any] = {_LISTS[name]: _to_matrix(path, table, name) for name in _LISTS if name in shared}
    arrays = {name: values for name, values in arrays.items() if values is not None}
    if "novelty" in shared and table["novelty"].null_count < len(table):
        arrays["ood_scores_M"] = _to_floats(path, table, "novelty")
    if bundle.columns and "columns" in shared:
        arrays["columns_MF"] = _encode_columns(path, table["columns"].to_pylist(), bundle)

    def read_images(chosen: Sequence[int]) -> list[bytes | None]:
        if not all("image" in table.schema.names for _, table in files):
            return [None] * len(chosen)
        wanted = rows[list(chosen)]
        order = wanted.argsort()
        images, _ = _read_rows(path, files, ["image"], wanted[order])
        contents: list[bytes | None] = [None] * len(chosen)
        for n, content in zip(order, images["image"].to_pylist(), strict=True):
            contents[n] = content if isinstance(content, bytes) else None
        return contents

    ids = [str(id_) for id_ in table["image_id"].to_pylist()]
    return Window(path, ids, probabilities_MK, **arrays, read_images=read_images, notes=notes)


def _list_files(path: str) -> "list[Path | RemotePath]":
    """Return the Parquet files at a path, by name: those of a log are named by the time at which they were written."""
    if "://" in path:
        from classifier.data.readers.remote import RemotePath

        remote = RemotePath.from_uri(path)
        files = [remote] if remote.is_file() else remote.list_files()
        return sorted((file for file in files if file.suffix.lower() == _SUFFIX), key=str)
    local = Path(path)
    if local.is_file():
        return [local] if local.suffix.lower() == _SUFFIX else []
    return [*sorted(file for file in local.rglob(f"*{_SUFFIX}") if file.is_file())] if local.is_dir() else []


def _open(file: "Path | RemotePath") -> "BoundedParquet":
    from classifier.data.readers.parquet import open_table

    return open_table(file)


def _check_columns(file: "Path | RemotePath", table: "BoundedParquet") -> list[str]:
    """Return the names of the columns. DataError if there is no answer in them."""
    import pyarrow as pa

    names = table.schema.names
    if missing := [name for name in _NEEDED if name not in names]:
        raise DataError(f"{file} lacks the column {missing[0]}: give answers of serve --capture or predict --answers")
    if _ANSWER not in names:
        raise DataError(f"{file} lacks the column {_ANSWER}: answer again by predict --answers --probabilities")
    kinds = {"image_id": pa.types.is_string, "predicted_name": pa.types.is_string, "predicted": pa.types.is_integer}
    kinds |= {"novelty": pa.types.is_floating, "columns": pa.types.is_string, "bundle": pa.types.is_string}
    kinds |= {"model": pa.types.is_string, "image": pa.types.is_binary, "time": pa.types.is_timestamp}
    kinds |= dict.fromkeys((_ANSWER, *_LISTS), _is_list_of_floats)
    for name, is_kind in kinds.items():
        if name in names and not is_kind(table.schema.field(name).type):
            raise DataError(f"{file}: {name} is {table.schema.field(name).type}, as in no log of answers")
    return names


def _is_list_of_floats(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) and pa.types.is_floating(kind.value_type)


def _read_rows(
    path: str, files: "list[tuple[Path | RemotePath, BoundedParquet]]", names: list[str], rows: np.ndarray
) -> "tuple[pa.Table, np.ndarray]":
    """Read these columns of some rows, counted over all files in their order; and which rows those are."""
    import pyarrow as pa

    parts, start = [], 0
    for file, table in files:
        for group in table.row_groups:
            size = table.starts[group + 1] - table.starts[group]
            wanted = rows[(rows >= start) & (rows < start + size)] - start
            if len(wanted):
                try:
                    batches = table.read_batches(group, names)
                    parts += list(_take(batches, wanted))
                except OSError as error:
                    raise DataError(f"{file} cannot be read ({error}): copy it again") from None
            start += size
    if not parts:
        raise DataError(f"{path} has no answers: collect some")
    if any(part.schema != parts[0].schema for part in parts):
        raise DataError(f"{path} has files with columns of other types: give those of one model")
    return pa.Table.from_batches(parts), rows


def _take(batches: "Iterator[pa.RecordBatch]", rows: np.ndarray) -> "Iterator[pa.RecordBatch]":
    start = 0
    for batch in batches:
        own = rows[(rows >= start) & (rows < start + batch.num_rows)] - start
        if len(own):
            yield batch.take(own)
        start += batch.num_rows


def _select_model(path: str, table: "pa.Table", rows: np.ndarray, notes: list[str]) -> "tuple[pa.Table, np.ndarray]":
    """Keep the answers of one model: those of several names are refused, of several versions the newest is kept."""
    if not len(table):
        raise DataError(f"{path} has no answers: collect some")
    if "model" in table.column_names:
        models = sorted({str(name) for name in table["model"].to_pylist()})
        if len(models) > 1:
            raise DataError(f"{path} has answers of several models ({list_few(models)}): give the folder of one")
    if "bundle" in table.column_names:
        bundles = np.array([str(digest) for digest in table["bundle"].to_pylist()])
        is_newest = bundles == bundles[-1]
        if others := int((~is_newest).sum()):
            notes.append(f"{others:,} answers of other versions of the model are left out")
        return table.filter(is_newest), rows[is_newest]
    return table, rows


def _to_matrix(path: str, table: "pa.Table", name: str) -> Any:
    """Return values_MF, float32, of a column of lists; None if it has none. DataError if they differ in length."""
    column = table[name].combine_chunks()
    if column.null_count == len(column) and name != _ANSWER:
        return None
    sizes = np.unique(column.value_lengths().to_numpy(zero_copy_only=False)) if not column.null_count else []
    if len(sizes) != 1 or not sizes[0]:
        raise DataError(f"{path}: {name} must have as many values in each row: these are answers of several models")
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0] // sizes[0])
        raise DataError(f"{path}: {name} of {show(str(table['image_id'][row].as_py()))} is not finite")
    return values.reshape(len(table), -1)


def _to_floats(path: str, table: "pa.Table", name: str) -> np.ndarray:
    column = table[name]
    values = column.to_numpy().astype(np.float32)
    if (~np.isfinite(values)).sum() > column.null_count:
        raise DataError(f"{path}: {name} is not finite")
    return values


def _check_classes(path: str, table: "pa.Table", probabilities_MK: np.ndarray, class_names: Sequence[str]) -> None:
    """DataError unless the answers are about these classes."""
    count = probabilities_MK.shape[1]
    if count != len(class_names):
        raise DataError(
            f"{path} has answers of {count} classes, and the model has {len(class_names)}: give the model that answered"
        )
    if probabilities_MK.min() < 0 or probabilities_MK.max() > 1 + 1e-3:
        raise DataError(f"{path}: {_ANSWER} must be from 0 to 1")
    predicted_M, names = table["predicted"].to_numpy(), table["predicted_name"].to_pylist()
    if predicted_M.min() < 0 or predicted_M.max() >= count:
        raise DataError(f"{path}: predicted must be the index of a class")
    known = [escape_surrogates(name) for name in class_names]
    for k, name in {(int(k), name) for k, name in zip(predicted_M, names, strict=True)}:
        if known[k] != name:
            raise DataError(
                f"{path} has answers of other classes: {show(str(name))} is {show(known[k])} of this model. Give the "
                "model that answered"
            )


def _encode_columns(path: str, texts: list[str | None], bundle: Bundle) -> np.ndarray | None:
    """Return columns_MF of the values beside each image. DataError for what is none of this model's."""
    try:
        rows = [json.loads(text) if text else None for text in texts]
        if not all(row is None or isinstance(row, dict) for row in rows):
            raise ValueError
        columns_MF, errors = encode_rows(bundle.columns, rows, [True] * len(rows))
    except (ValueError, RecursionError):
        raise DataError(f"{path}: columns must be JSON of values by their names") from None
    if errors:
        raise DataError(f"{path}: columns of row {min(errors) + 1}: {errors[min(errors)]}")
    return columns_MF
