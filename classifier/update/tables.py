"""A data set of decoded images, written as Parquet tables: train.parquet, validation.parquet and test.parquet.

`data.load` reads them as any other tables (readers/parquet.py), with the same pixels.
"""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from classifier.data.dataset import Split
from classifier.storage.atomic import retry_io
from classifier.text import escape_surrogates

OLD, NEW = "old", "new"
"""Folders of tables: images that were kept from earlier, and those that came with the update."""
ROW_GROUP = 256


def write_tables(splits: dict[str, Split], class_names: Sequence[str], folder: Path) -> None:
    """Write a table for each split, by its name, into a new folder, losslessly; none for an empty one.

    class_names: of the labels. RunError if they cannot be written.
    """
    schema = _make_schema(class_names)

    def write() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, split in splits.items():
            if len(split):
                with pq.ParquetWriter(folder / f"{name}.parquet", schema) as writer:
                    for batch in _make_batches(split, schema):
                        writer.write_batch(batch)

    retry_io(write, folder)


def is_new(ids: Sequence[str]) -> np.ndarray:
    """Return is_new_N, bool: whether images, by their names in a data set of such folders, came with the update."""
    return np.array([name.startswith(f"{NEW}/") for name in ids], bool)


def _make_schema(class_names: Sequence[str]) -> pa.Schema:
    """Return columns as Hugging Face's `datasets` writes them: the labels are numbers of the class names."""
    label = {"names": [escape_surrogates(name) for name in class_names], "_type": "ClassLabel"}
    features = {"image": {"_type": "Image"}, "label": label}
    fields = {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()}
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})


def _make_batches(split: Split, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(split), ROW_GROUP):
        rows = slice(start, start + ROW_GROUP)
        names = [escape_surrogates(name) for name in split.ids[rows]]
        pixels = map(_to_png, np.asarray(split.images_NCHW[rows]))
        cells = [{"bytes": png, "path": name} for png, name in zip(pixels, names, strict=True)]
        columns = [pa.array(cells, schema.field("image").type), pa.array(split.labels_N[rows].numpy())]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _to_png(image_CHW: np.ndarray) -> bytes:
    image_HWC = np.ascontiguousarray(image_CHW.transpose(1, 2, 0))
    file = io.BytesIO()
    Image.fromarray(image_HWC[:, :, 0] if image_HWC.shape[2] == 1 else image_HWC).save(file, "PNG", compress_level=1)
    return file.getvalue()
