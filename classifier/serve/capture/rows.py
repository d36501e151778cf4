"""Requests and their answers as rows of a table: with the columns of `predict --answers`, and some of their own."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg

from classifier.answers.rows import Answers, Columns, to_table
from classifier.bundle.predictor import Judgement
from classifier.data.decoding.image_file import encode_png
from classifier.serve.version import Query, Reply

if TYPE_CHECKING:
    import pyarrow

TOP = 5
# Images up to this side are kept as they are, in PNG; larger ones in JPEG, of this quality.
PNG_SIDE, QUALITY = 64, 90


@dataclass(frozen=True, eq=False)
class CapturedRequest:
    """A request and its answer. time: seconds since 1970; encoded: the images of it that could be read, if kept."""

    time: float
    trace_id: str
    version: str
    bundle: str
    class_names: tuple[str, ...]
    image_ids: list[str]
    """SHA-256 of each file, or of the pixels of an image that was sent as a tensor; of the columns without an image."""
    errors: dict[int, str]
    judgement: Judgement
    columns: list[str | None]
    """JSON of the values beside each image."""
    encoded: list[bytes | None] | None

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def nbytes(self) -> int:
        """Of what it holds, about."""
        texts = sum(map(len, filter(None, (*(self.encoded or ()), *self.columns))))
        return texts + sum(one.nbytes for one in self.judgement if one is not None)

    @classmethod
    def of(cls, query: Query, reply: Reply, time: float, trace_id: str, *, has_images: bool) -> "CapturedRequest":
        names = reply.version.predictor.class_names
        columns = [json.dumps(row) if row else None for row in query.columns or [None] * len(query)]
        contents = query.contents or [image.tobytes() for image in reply.images]
        read = [n for n in range(len(query)) if n not in reply.errors]
        return cls(
            time,
            trace_id,
            reply.version.number,
            reply.version.bundle,
            names,
            [_identify(*pair) for pair in zip(contents, columns, strict=True)],
            reply.errors,
            Judgement.join([*reply.judgements, Judgement.empty(len(names), reply.version.predictor.task)]),
            columns,
            [_encode(one) if query.has_image(n) else None for n, one in zip(read, reply.images, strict=True)]
            if has_images
            else None,
        )


def build_table(model: str, requests: Sequence[CapturedRequest]) -> "pyarrow.Table":
    """Return a row per image of the requests, at least one, in their order."""
    import pyarrow as pa

    tables, start = [], 0
    for end in range(1, len(requests) + 1):  # those of one version have the same classes
        if end == len(requests) or requests[end].version != requests[start].version:
            tables.append(_build_table(model, requests[start:end]))
            start = end
    return pa.concat_tables(tables)


def _build_table(model: str, requests: Sequence[CapturedRequest]) -> "pyarrow.Table":
    import pyarrow as pa

    columns = Columns(TOP, probabilities=True, features=True)
    answers = Answers.join(
        [
            Answers(one.class_names, columns, one.image_ids, one.errors, one.judgement, one.judgement.statistics_NF)
            for one in requests
        ]
    )
    table = to_table(answers)
    table = table.rename_columns({"features": "statistics"})

    def repeat(name: str) -> list[Any]:
        return [getattr(one, name) for one in requests for _ in one.image_ids]

    micros_N = (np.array(repeat("time")) * 1e6).astype(np.int64)
    added = {
        "time": pa.array(micros_N).cast(pa.timestamp("us", "UTC")),
        "trace_id": pa.array(repeat("trace_id"), pa.string()),
        "model": pa.array([model] * len(table), pa.string()),
        "version": pa.array(repeat("version"), pa.string()),
        "bundle": pa.array(repeat("bundle"), pa.string()),
        "columns": pa.array([row for one in requests for row in one.columns], pa.string()),
        "image": pa.array([image for one in requests for image in _list_images(one)], pa.binary()),
    }
    for name, values in added.items():
        table = table.append_column(name, values)
    return table


def _list_images(request: CapturedRequest) -> list[bytes | None]:
    remaining = iter(request.encoded or ())
    return [None if n in request.errors else next(remaining, None) for n in range(len(request))]


def _identify(content: bytes | None, columns: str | None) -> str:
    return hashlib.sha256((columns or "").encode() if content is None else content).hexdigest()


def _encode(image_CHW: np.ndarray) -> bytes:
    if max(image_CHW.shape[1:]) <= PNG_SIDE:
        return encode_png(image_CHW)
    pixels_HWC = np.ascontiguousarray(image_CHW.transpose(1, 2, 0))
    if image_CHW.shape[0] == 1:
        return simplejpeg.encode_jpeg(pixels_HWC, QUALITY, "GRAY", "Gray")
    return simplejpeg.encode_jpeg(pixels_HWC, QUALITY, "RGB", "444")
