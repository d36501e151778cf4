"""Tables, lists and names of files with odd or damaged content: they are read or refused in a sentence, always soon."""

import contextlib
import io
import json
import random
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from classifier.config.sections import DataConfig
from classifier.data import open_source
from classifier.errors import DataError

FORMATS = ("csv", "txt", "lst", "parquet", "images", "folder")
# What cells, names and lines may hold besides the usual.
ODD = (
    *("", " ", "nan", "NaN", "null", "None", "-1", "01", "1.0", "1e3", "yes", "True", "[0, 1]", "a;b", "a|b", "a,b"),
    *(
        "caf\u00e9",
        "cafe\u0301",
        "\ufeffcat",
        "cat ",
        "CAT",
        "\x1b[31mred",
        "a\nb",
        "a\tb",
        '"',
        "''",
        "$HOME",
        "..",
        ".",
    ),
    *("\u202egnp", "train", "test", "validation", "\U0001f431", "x" * 300, "../../etc/passwd", "/dev/zero", "C:\\a\\b"),
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252", "shift_jis", "utf-32")


def rows_of(images: list[Path], rng: random.Random) -> list[list[str]]:
    """A row of path, label and split for each image; some cells are odd."""
    rows = [[f"{path.parent.name}/{path.name}", path.parent.name, rng.choice(("", "train", "test"))] for path in images]
    for _ in range(rng.randint(0, 6)):
        rows[rng.randrange(len(rows))][rng.randrange(3)] = rng.choice(ODD)
    return rows


def write_text(path: Path, rows: list[list[str]], rng: random.Random) -> None:
    separator = rng.choice(",,,;\t| ")
    quote = rng.choice(("", '"'))
    lines = [separator.join(f"{quote}{cell}{quote}" for cell in row) for row in rows]
    if path.suffix == ".csv" and rng.random() < 0.8:
        lines.insert(0, separator.join(rng.choice((("path", "label", "split"), ("filename", "class", "set")))))
    text = rng.choice(("\n", "\n", "\r\n", "\r")).join(lines)
    path.write_bytes(damage(text.encode(rng.choice(ENCODINGS), errors="replace"), rng))


def damage(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((0, 0, 1, 4, 30))):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged[: rng.choice((len(damaged), len(damaged), rng.randrange(len(damaged)) + 1))])


def write_table(path: Path, rows: list[list[str]], images: list[Path] | None, rng: random.Random) -> None:
    labels = [row[1] for row in rows]
    columns = {"label": odd_column(labels, rng)}
    if images is None:
        columns["path"] = pa.array([row[0] for row in rows])
    else:
        columns["image"] = pa.array([{"bytes": image.read_bytes(), "path": None} for image in images])
    table = pa.table(columns)
    if rng.random() < 0.3:
        names = {"label": {"names": rng.sample(("cat", "dog", *ODD), 3), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": names}})})
    stream = io.BytesIO()
    compression = rng.choice(("none", "snappy", "gzip", "zstd"))
    pq.write_table(table, stream, compression=compression, use_dictionary=rng.random() < 0.5)
    path.write_bytes(damage(stream.getvalue(), rng))


def odd_column(labels: list[str], rng: random.Random) -> pa.Array:
    """The labels as one of the types that tables have."""
    number = {name: n for n, name in enumerate(sorted(set(labels)))}
    return rng.choice(
        (
            lambda: pa.array(labels),
            lambda: pa.array([name.encode() for name in labels]),
            lambda: pa.array([number[name] for name in labels]),
            lambda: pa.array([float(number[name]) for name in labels]),
            lambda: pa.array([number[name] == 0 for name in labels]),
            lambda: pa.array([[number[name]] for name in labels]),
            lambda: pa.array([{"name": name} for name in labels]),
            lambda: pa.array([rng.choice((None, number[name])) for name in labels], pa.int64()),
            lambda: pa.array(labels).dictionary_encode(),
        )
    )()


def write_folder(path: Path, images: list[Path], rng: random.Random) -> None:
    """Class folders of odd names, with links to the images."""
    classes = ["cat", "dog", *rng.sample(ODD, 3)]
    for n, image in enumerate(images):
        name = rng.choice((f"{n}.png", f"{rng.choice(ODD)}.png", f"{n}.heic"))
        target = path.joinpath(*rng.choice(([], ["train"], ["outer"])), rng.choice(classes), name)
        if path in target.resolve().parents and ".." not in target.parts:
            with contextlib.suppress(OSError):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.hardlink_to(image)


@pytest.mark.parametrize("tries", [20, pytest.param(5000 // len(FORMATS), marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", FORMATS)
def test_odd_tables_are_read_or_refused(kind: str, tries: int, photos: Path, tmp_path: Path) -> None:
    images = sorted(photos.rglob("*.png"))[::4]
    slowest = 0.0
    for seed in range(tries):
        rng = random.Random(f"{kind} {seed}")
        rows = rows_of(images, rng)
        path = photos / f"set.{kind}"
        if kind == "folder":
            path = tmp_path / f"set-{seed}"
            write_folder(path, images, rng)
        elif kind in ("parquet", "images"):
            path = photos / "set.parquet"
            write_table(path, rows, images if kind == "images" else None, rng)
        else:
            write_text(path, rows, rng)
        began = time.perf_counter()
        try:
            source = open_source(DataConfig(path=str(path)))
            assert len(source.images) == len(source.labels_N), seed
            assert source.labels_N.max() < len(source.label_sets or source.class_names), seed
            for file in source.images:
                with contextlib.suppress(OSError):
                    file.read_bytes()
        except DataError:
            pass
        except Exception as error:
            raise AssertionError(f"{kind}, seed {seed}: {type(error).__name__}: {error}") from error
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 5
