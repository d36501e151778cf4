"""How often the test split was read: written down before each read, in files that only grow.

A read is a line of test_reads.jsonl, in the folder of the run and in that of its bundle, which may be copied without
the run. The count outlives whatever follows: a kill, a training that goes on, a calibration that drops the test scores.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from classifier.config.documents import read_bytes
from classifier.errors import RunError
from classifier.storage.atomic import retry_io

FILE = "test_reads.jsonl"
# Of reads that are recorded elsewhere, at most so many are carried over: a damaged document may speak of any number.
MAX_CARRIED_OVER = 1000


def count_test_reads(path: str | Path) -> int:
    """Return how often the test split was read for a run, search or bundle folder; 0 if `path` is none of them.

    Reads that versions without this file have recorded elsewhere are included. RunError if a record cannot be read.
    """
    folders = list(_folders(Path(path)))
    lines = {line for folder in folders for line in _read_lines(folder)}
    return max([len(lines), *map(_count_recorded_elsewhere, folders)])


def record_test_read(path: str | Path, reader: str) -> int:
    """Write down, on disk when this returns, that the test split is about to be read; return the count with this read.

    reader: the verb that reads it. RunError if it cannot be written down: then the split must not be read.
    """
    folders = list(_folders(Path(path)))
    records = {folder: _read_lines(folder) for folder in folders}
    lines = list(dict.fromkeys(line for record in records.values() for line in record))
    missing = max(map(_count_recorded_elsewhere, folders)) - len(lines)
    lines += [json.dumps({"read": f"earlier {n + 1}"}) for n in range(min(missing, MAX_CARRIED_OVER))]
    at = datetime.now(UTC).isoformat()
    lines.append(json.dumps({"read": f"{at} by process {os.getpid()}", "verb": reader}))
    for folder, record in records.items():  # a kill between two folders leaves one behind, until the next read
        new = [line for line in lines if line not in record]
        retry_io(lambda path=folder / FILE, new=new: _append(path, new), folder / FILE)
    return count_test_reads(path)


def describe_count(reads: int) -> str:
    """Return `once` or `3 times`; `never`."""
    return {0: "never", 1: "once"}.get(reads, f"{reads:,} times")


def describe_test_reads(reads: int) -> str:
    """Return a sentence on how often the test split was read, and what follows from that."""
    if reads == 0:
        return "The test split has not been read."
    doubt = ": test scores that influenced a choice are optimistic" if reads > 1 else ""
    return f"The test split was read {describe_count(reads)}{doubt}."


def copy_test_reads(old: Path, new: Path) -> None:
    """Copy the record of one bundle folder to another, which will replace it."""
    if lines := _read_lines(old):
        _append(new / FILE, lines)


def _folders(path: Path) -> Iterator[Path]:
    """The folders in which reads are recorded: the run's, its bundle's and, for a trial, the search's."""
    is_run = (path / "experiment.yaml").is_file()
    run = path if is_run else path.parent if (path.parent / "experiment.yaml").is_file() else None
    yield path
    if is_run and (path / "bundle").is_dir():
        yield path / "bundle"
    if run is not None:
        if run != path:
            yield run
        if run.absolute().parent.name == "trials":
            yield run.absolute().parent.parent


def _read_lines(folder: Path) -> list[str]:
    """The lines of the record; one that a crash cut short counts, as a read may have followed it."""
    path = folder / FILE
    if not os.path.lexists(path):
        return []
    text = read_bytes(path, "restore it, since it counts how often the test split was read").decode(errors="replace")
    return [line for line in text.splitlines() if line]


def _count_recorded_elsewhere(folder: Path) -> int:
    """The reads that result.json, or the one of a run before it was resumed, or the scores in a bundle speak of."""
    counts = [0]
    for name in ("result.json", "result.earlier.json", "bundle.json"):
        with contextlib.suppress(RunError, ValueError, AttributeError):
            document = json.loads(read_bytes(folder / name))
            reads = document.get("test_reads")
            counts.append(reads if isinstance(reads, int) else 0)
            counts.append(int(bool(document.get("test") or (document.get("scores") or {}).get("test"))))
    return max(counts)


def _append(path: Path, lines: list[str]) -> None:
    with path.open("a+b") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        separator = b"" if file.read(1) in (b"", b"\n") else b"\n"  # of a line that a crash cut short
        file.write(separator + "".join(f"{line}\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())
