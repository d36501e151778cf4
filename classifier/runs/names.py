"""Default names of runs: the data set's name and the next number, such as photos-3, so that they sort by age."""

import contextlib
import itertools
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

# Longer names of data sets are cut: a run's name is shown in tables and typed by hand.
MAX_LENGTH = 40


def data_name(path: str) -> str:
    """The name of a data set in the names of its runs: the last part of its path, without suffix and odd characters."""
    path = path.partition("?")[0] if "://" in path else os.path.abspath(path)  # `.` has no name
    stem = Path(path).stem
    return re.sub(r"[^A-Za-z0-9_]+", "-", stem)[:MAX_LENGTH].strip("-_") or "data"


def numbered_names(out: str | Path, path: str, reserved: Collection[str] = ()) -> Iterator[str]:
    """Names for a new run on the data set at `path`, numbered from above the highest in OUT and in `reserved`."""
    stem = data_name(path)
    names = list(reserved)
    with contextlib.suppress(OSError):  # OUT is not there yet, or may not be listed
        names += os.listdir(out)
    numbers = [int(match[1]) for name in names if (match := re.fullmatch(rf"{stem}-(\d+)", name))]
    return (f"{stem}-{number}" for number in itertools.count(max(numbers, default=0) + 1))


def natural_key(name: str) -> list[tuple[int, str]]:
    """A key that sorts names with numbers in them as people do: photos-9 before photos-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
