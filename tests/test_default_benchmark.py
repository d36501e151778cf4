"""The table of default.py, and that its sets are the same files in every call."""

import hashlib
from pathlib import Path

import pytest

from tests.benchmarks.cells import NO_FLAGS, Cell, describe_cells, describe_gap, format_table
from tests.benchmarks.sets import write_set


def make_cells(column: str, *errors: range, count: int = 1000) -> list[Cell]:
    """A cell per seed; errors: which of the numbered test images were not predicted."""
    return [
        Cell("photos", column, seed, seconds=10.0 + seed, wrong=tuple(map(str, wrong)), count=count)
        for seed, wrong in enumerate(errors)
    ]


FEW, MANY = range(100), range(130)


@pytest.mark.parametrize(
    ("ours", "others", "expected"),
    [
        ((FEW,), {}, ""),
        ((FEW,), {"timm": (MANY,)}, "ahead of timm by 3.0"),
        ((FEW, FEW), {"timm": (MANY,), "probe": (FEW, FEW)}, "0.0 to probe"),
        ((range(105),), {"timm": (FEW,)}, "0.5 to timm"),
        # The same images and 30 more; as many in another part, where the difference may be luck.
        ((MANY,), {"timm": (FEW,), "probe": (MANY,)}, "**3.0 to timm** (1.9 to 4.1)"),
        ((range(500, 625),), {"timm": (FEW,)}, "2.5 to timm (-0.4 to 5.4)"),
        ((MANY, FEW), {"timm": (FEW, FEW)}, "**1.5 to timm** (0.7 to 2.3)"),
    ],
)
def test_what_is_behind_the_best(ours, others, expected):
    columns = {NO_FLAGS: make_cells(NO_FLAGS, *ours)} | {
        name: make_cells(name, *errors) for name, errors in others.items()
    }
    assert describe_gap(columns) == expected


def test_cells_are_means_over_seeds():
    assert describe_cells(make_cells("timm", FEW, MANY)) == "88.5 ± 2.1, 10 s"
    assert describe_cells(make_cells(NO_FLAGS, FEW)) == "90.0 (88.0 to 91.7), 10 s"
    failed = Cell("photos", "timm", 2, problem="failed with 1: timm-2.log")
    assert describe_cells([failed, *make_cells("timm", FEW)]) == "90.0, 10 s"
    table = format_table([*make_cells(NO_FLAGS, FEW), failed])
    assert "| photos | 90.0 (88.0 to 91.7), 10 s | failed with 1 |  |" in table
    assert table.endswith("photos, timm, seed 2: failed with 1: timm-2.log")


def test_sets_are_the_same_in_every_call(tmp_path):
    hashes = []
    for part in ("first", "second"):
        (tmp_path / part).mkdir()
        folder = write_set("outlines", tmp_path / part, Path("no downloads"))
        files = sorted(folder.rglob("*.png"))
        hashes.append({path.relative_to(folder): hashlib.sha256(path.read_bytes()).digest() for path in files})
    assert hashes[0] == hashes[1]
    counts = {split: sum(path.parts[0] == split for path in hashes[0]) for split in ("train", "test")}
    assert counts == {"train": 6 * 30, "test": 6 * 50}
    assert len({path.name for path in hashes[0]}) == len(hashes[0])
