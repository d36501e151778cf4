"""Columns of odd content: they are read, learned and encoded, or refused in a sentence, always soon."""

import csv
import io
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from classifier.config.sections import DataConfig
from classifier.data import open_source
from classifier.data.columns.learn import learn_schema
from classifier.data.columns.request import ColumnRequest
from classifier.data.columns.schema import ColumnSchema
from classifier.errors import ClassifierError
from tests.data.readers.test_archive import pack_tar
from tests.data.readers.test_table_fuzz import ODD, damage

CELLS = (
    *("1", "2.5", "-3", "1e400", "inf", "-inf", "1,5", "1,500", "50 %", "0x1f", "\u0663", "9" * 400, "1_000", "true"),
    *("2020-01-01", "31/12/2020", "12/31/2020", "2020-13-45", "0001-01-01", "9999-12-31T23:59:59-23:59", "1.1.0000"),
    *("red", "blue", "red", "a text of some words", "word " * 500, "\ud800", "\0", "?", "-", *ODD),
)
NAMES = ("weight", "colour", "a b", "weight:text", "all", "", "x" * 2000, "path ", "LABEL", "\u732b", "a,b", "'")
KINDS = ("", ":number", ":category", ":date", ":text")


def odd_values(count: int, rng: random.Random) -> list[str]:
    cells = rng.sample(CELLS, rng.choice((1, 2, 5, 20)))
    return [rng.choice(cells) for _ in range(count)]


def odd_array(values: list[str], rng: random.Random) -> pa.Array:
    numbers = [rng.choice((None, float(n), float("nan"), 1e300, float("inf"))) for n in range(len(values))]
    texts = [value.encode(errors="replace").decode() for value in values]
    return rng.choice(
        (
            lambda: pa.array(texts),
            lambda: pa.array(texts).dictionary_encode(),
            lambda: pa.array([value.encode(errors="replace") for value in values]),
            lambda: pa.array(numbers),
            lambda: pa.array([n % 3 == 0 for n in range(len(values))]),
            lambda: pa.array([n * 10**9 for n in range(len(values))], pa.timestamp("ns", "UTC")),
            lambda: pa.array([n * 10**9 + 1 for n in range(len(values))], pa.duration("ns")),
            lambda: pa.array([*range(len(values))], pa.date32()),
            lambda: pa.array([*range(len(values))], pa.time64("us")),
            lambda: pa.array([None] * len(values)),
            lambda: pa.array([[n] for n in range(len(values))]),
        )
    )()


def write_set(path: Path, images: list[Path], rng: random.Random) -> None:
    names = rng.sample(NAMES, rng.randint(1, 4))
    columns = {name: odd_values(len(images), rng) for name in names}
    labels = [image.parent.name for image in images]
    if path.suffix == ".csv":
        stream = io.StringIO()
        writer = csv.writer(stream)
        writer.writerow(["path", "label", *names])
        paths = [image.relative_to(path.parent) for image in images]
        writer.writerows(zip(paths, labels, *columns.values(), strict=True))
        content = stream.getvalue().replace("\0", "").encode(errors="replace")
        path.write_bytes(damage(content, rng) if rng.random() < 0.1 else content)
    elif path.suffix == ".parquet":
        cells: dict[str, Any] = {"image": [{"bytes": image.read_bytes(), "path": None} for image in images]}
        cells |= {"label": labels} | {name: odd_array(values, rng) for name, values in columns.items()}
        pq.write_table(pa.table(cells), path)
    else:
        files: dict[str, bytes] = {}
        for n, image in enumerate(images):
            row: dict[str, Any] = {name: values[n] for name, values in columns.items() if rng.random() < 0.9}
            row |= {rng.choice(names): rng.choice((n, None, [n], {"a": n}, 10**400, True))} if n % 5 == 0 else {}
            files |= {f"{n}.png": image.read_bytes(), f"{n}.json": json.dumps(row | {"label": labels[n]}).encode()}
        pack_tar(path, files)


@pytest.mark.parametrize("tries", [20, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ending", [".csv", ".parquet", ".tar"])
def test_odd_columns_are_encoded_or_refused(ending: str, tries: int, photos: Path) -> None:
    images = sorted(photos.rglob("*.png"))[::2]
    encoded = 0
    for seed in range(tries):
        rng = random.Random(f"{ending} {seed}")
        path = photos / f"set{ending}"
        write_set(path, images, rng)
        words = rng.choice((("all",), ("all",), (rng.choice(NAMES) + rng.choice(KINDS),)))
        began = time.perf_counter()
        try:
            source = open_source(DataConfig(path=str(path), columns=words))
            is_training_N = np.arange(len(source.ids)) % 4 > 0
            request = ColumnRequest.parse(words)
            schema, _ = learn_schema(source.name, source.columns, source.ids, is_training_N, request)
            assert ColumnSchema.from_dict(json.loads(json.dumps(schema.as_dict()))) == schema, seed
            columns_NF = schema.encode_texts(source.columns, source.ids)
            assert columns_NF.shape == (len(source.ids), schema.width), seed
            assert not np.isinf(columns_NF).any(), seed
            encoded += 1
        except ClassifierError:
            pass
        except Exception as error:
            raise AssertionError(f"{ending}, seed {seed}: {type(error).__name__}: {error}") from error
        assert time.perf_counter() - began < 5
    assert encoded > tries / 10
