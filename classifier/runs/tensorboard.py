"""TensorBoard event files, in TensorBoard's record format (tensorboard.summary.writer), without its writer thread."""

import errno
import io
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class TensorBoardWriter:
    """Writes history rows as an event file. If the disk cannot take an epoch's events, only these are lost."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path: Path | None = None

    def write(self, row: dict[str, Any]) -> None:
        """Write the floats of a history.jsonl row."""
        # Imported here: it is slow, and most processes write no events.
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.summary.writer.record_writer import RecordWriter

        now, content = time.time(), io.BytesIO()
        records = RecordWriter(content)
        if self._path is None:
            records.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        for name, value in row.items():
            if isinstance(value, float):
                values = [Summary.Value(tag=name.replace("_", "/", 1), simple_value=value)]
                event = Event(wall_time=now, step=row["step"], summary=Summary(value=values))
                records.write(event.SerializeToString())
        try:
            self._append(content.getvalue(), now)
        except OSError as error:
            logger.warning(
                "%s cannot be written (%s): this epoch is missing in TensorBoard", self.folder, error.strerror
            )

    def _append(self, content: bytes, now: float) -> None:
        """Append all of it or nothing."""
        path = self._path
        if path is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}.{time.time_ns()}"
        length = path.stat().st_size if path.exists() else 0
        with path.open("ab", buffering=0) as file:
            try:
                if file.write(content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(length)
                raise
        self._path = path
