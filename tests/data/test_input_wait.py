"""Slow: a training does not wait for its images, wherever they come from."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.faults import encoded, scene
from tests.data.test_archive import pack_tar, pack_zip
from tests.data.test_shards import shard

pytestmark = pytest.mark.slow
COUNT = 600


def contents() -> dict[str, bytes]:
    return {
        f"{'cat' if n % 2 else 'dog'}/{n:04d}.jpg": encoded(scene(n, 160), "jpeg", quality=92) for n in range(COUNT)
    }


def as_folder(home: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (home / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "set" / name).write_bytes(content)
    return home / "set"


def as_manifest(home: Path, files: dict[str, bytes]) -> Path:
    as_folder(home, files)
    lines = ["path,label", *(f"set/{name},{name.partition('/')[0]}" for name in files)]
    (home / "set.csv").write_text("\n".join(lines))
    return home / "set.csv"


def as_list(home: Path, files: dict[str, bytes]) -> Path:
    as_folder(home, files)
    (home / "set.txt").write_text("\n".join(f"set/{name} {name.partition('/')[0]}" for name in files))
    return home / "set.txt"


def as_table(home: Path, files: dict[str, bytes]) -> Path:
    rows = [{"bytes": content, "path": name} for name, content in files.items()]
    images = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    labels = [name.partition("/")[0] for name in files]
    pq.write_table(pa.table({"image": images, "label": labels}), home / "set.parquet", row_group_size=100)
    return home / "set.parquet"


def as_shards(home: Path, files: dict[str, bytes]) -> Path:
    pictures = list(files.values())
    for n in range(6):
        shard(home / "shards" / f"train-{n}.tar", pictures[100 * n : 100 * n + 100], 100 * n, lambda k: str(k % 2))
    return home / "shards"


SOURCES: dict[str, tuple[Callable[[Path, dict[str, bytes]], Path], tuple[str, ...]]] = {
    "folder": (as_folder, ()),
    "folder, without a cache": (as_folder, ("--data.cache", "none")),
    "folder, kept as JPEGs": (as_folder, ("--data.cache_as", "jpeg")),
    "manifest": (as_manifest, ()),
    "list": (as_list, ()),
    "zip": (lambda home, files: pack_zip(home / "set.zip", files), ()),
    "tar": (lambda home, files: pack_tar(home / "set.tar", files), ()),
    "table": (as_table, ()),
    "table, as a stream": (as_table, ("--data.stream", "true")),
    "shards": (as_shards, ()),
    "shards, as a stream": (as_shards, ("--data.stream", "true")),
}


@pytest.mark.parametrize("name", SOURCES)
def test_waiting_is_less_than_a_fiftieth_of_a_step(name: str, verb, tmp_path: Path) -> None:
    write, words = SOURCES[name]
    path = write(tmp_path, contents())
    settings = ("--model.name", "resnet18", "--data.size", "96", "--data.batch", "32", "--train.epochs", "3")
    done = verb("train", "--data.path", path, *settings, *words)
    assert done.code == 0, done.err
    assert "waiting for images took" in done.out
    print(
        f"{name:<28} waiting {done.result['input_wait']:.2%} of a step, {done.result['images_per_second']:.0f} images/s"
    )
    assert done.result["input_wait"] < 0.02
