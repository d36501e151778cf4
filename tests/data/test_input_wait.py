"""Slow: a training does not wait for its images, wherever they come from."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.audit.test_checks import as_folder, as_list, as_manifest, as_parquet
from tests.data.faults import encoded, scene
from tests.data.readers.test_archive import pack_tar, pack_zip
from tests.data.readers.test_webdataset import shard

pytestmark = pytest.mark.slow
COUNT = 600


def contents() -> dict[str, bytes]:
    return {
        f"{'cat' if n % 2 else 'dog'}/{n:04d}.jpg": encoded(scene(n, 160), "jpeg", quality=92) for n in range(COUNT)
    }


def as_shards(home: Path, files: dict[str, bytes]) -> Path:
    contents = list(files.values())
    for n in range(6):
        shard(home / "shards" / f"train-{n}.tar", contents[100 * n : 100 * n + 100], 100 * n, lambda k: str(k % 2))
    return home / "shards"


SOURCES: dict[str, tuple[Callable[[Path, dict[str, bytes]], Path], tuple[str, ...]]] = {
    "folder": (as_folder, ()),
    "folder, without a cache": (as_folder, ("--data.cache", "none")),
    "folder, cached as JPEGs": (as_folder, ("--data.cache_as", "jpeg")),
    "manifest": (as_manifest, ()),
    "list": (as_list, ()),
    "zip": (lambda home, files: pack_zip(home / "set.zip", files), ()),
    "tar": (lambda home, files: pack_tar(home / "set.tar", files), ()),
    "table": (as_parquet, ()),
    "table, as a stream": (as_parquet, ("--data.stream", "true")),
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
