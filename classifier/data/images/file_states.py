"""What is known of files, so that an unchanged one is not read again: FILES in a folder of the cache."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from classifier.data.images.pixel_segment import DIGEST, HASH
from classifier.data.images.row_hash import hash_columns
from classifier.storage.atomic import fsync

FILES = "files-2.arrow"
"""The first version, files.arrow, does not say which files are to be decoded again: they are read once more."""


@dataclass(eq=False)
class FileStates:
    """What is known of N files: the digest of each one's content (empty if unknown), and why some cannot be used."""

    digests: list[bytes]
    errors: dict[int, str]

    def update(self, digests: dict[int, bytes], errors: dict[int, str]) -> None:
        """Record what was found out about files, by index."""
        for index, digest in digests.items():
            self.digests[index] = digest
        self.errors.update(errors)


def read_states(folder: Path, identities: Sequence[bytes | None], may_pass: Callable[[str], bool]) -> FileStates:
    """Return what is known of the files of these identities; see Cache.look_up."""
    states, known = FileStates([b""] * len(identities), {}), _read_known(folder)
    for n, identity in enumerate(identities):
        if identity is not None and (entry := known.get(identity)) is not None:
            digest, reason = entry
            if reason is None:
                states.digests[n] = digest
            elif not may_pass(reason):
                states.digests[n], states.errors[n] = digest, reason
    return states


def write_states(folder: Path, identities: Sequence[bytes | None], states: FileStates) -> None:
    """Add what is known of these files to what is recorded."""
    known = _read_known(folder)
    for n, identity in enumerate(identities):
        if identity is not None and (states.digests[n] or n in states.errors):
            known[identity] = (states.digests[n] or bytes(16), states.errors.get(n))
    batch = pa.record_batch(
        [
            _digest_array([*known]),
            _digest_array([digest for digest, _ in known.values()]),
            _string_array(error for _, error in known.values()),
        ],
        names=["identity", DIGEST, "flaw"],
    )
    _write_batch(batch.replace_schema_metadata({HASH: _hash_batch(batch)}), folder / FILES)


def _read_known(folder: Path) -> dict[bytes, tuple[bytes, str | None]]:
    """Return the digest, and why it cannot be used, of each file by its identity; nothing if the record is damaged."""
    if not (folder / FILES).is_file():  # a pipe would be waited for
        return {}
    try:
        with pa.memory_map(str(folder / FILES)) as file:
            batch = pa.ipc.open_file(file).get_batch(0)
        expected = (batch.schema.metadata or {}).get(HASH.encode())
        if expected not in (None, _hash_batch(batch).encode()):  # None: of an earlier version
            return {}
        identities, digests, errors = (batch.column(name).to_pylist() for name in ("identity", DIGEST, "flaw"))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return {}
    return dict(zip(identities, zip(digests, errors, strict=True), strict=True))


def _hash_batch(batch: pa.RecordBatch) -> str:
    buffers = [buffer for column in batch.columns for buffer in column.buffers() if buffer is not None]
    return hash_columns(np.frombuffer(buffer, np.uint8) for buffer in buffers)


def _write_batch(batch: pa.RecordBatch, path: Path) -> None:
    temporary = path.with_name(f".{os.getpid()}.{path.name}.part")
    try:
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        fsync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _digest_array(values: Sequence[bytes]) -> pa.Array:
    """An array of 16 bytes each."""
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(values), [None, pa.py_buffer(b"".join(values))])


def _string_array(values: Iterable[str | None]) -> pa.Array:
    """An array of strings. pa.array would check whether they are pandas', and import it for that: half a second."""
    builder = pa.lib.StringBuilder()  # pyright: ignore[reportAttributeAccessIssue]
    for value in values:
        builder.append(value)
    return builder.finish()
