"""Events as JSON Lines: on a stream, and in a file that is rotated."""

import json
import logging
import logging.handlers
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from classifier.errors import in_short
from classifier.watch.counts import Counts

FILE, MAX_BYTES, OLDER_FILES = "alerts.jsonl", 10 << 20, 4
"""alerts.jsonl.1 is the one before, and so on."""


class EventLog:
    """Writes events. stream: where each is a line at once. folder: of the file; None: no file.

    say: called with a sentence if the file cannot be written, once until it can again.
    """

    def __init__(self, stream: TextIO, folder: Path | None, counts: Counts, say: Callable[[str], None]) -> None:
        self._stream = stream
        self._file = _File(folder / FILE, counts, say) if folder else None

    def write(self, event: Mapping[str, Any]) -> None:
        """Write an event. BrokenPipeError if nobody reads the stream any more."""
        line = json.dumps(event)
        if self._file:
            self._file.emit(logging.makeLogRecord({"msg": line}))
        print(line, file=self._stream, flush=True)

    def close(self) -> None:
        if self._file:
            self._file.close()


class _File(logging.handlers.RotatingFileHandler):
    """A rotated file whose errors are told in a sentence, and do not end the watching."""

    def __init__(self, path: Path, counts: Counts, say: Callable[[str], None]) -> None:
        super().__init__(path, maxBytes=MAX_BYTES, backupCount=OLDER_FILES, encoding="utf-8", delay=True)
        self._counts, self._say, self._has_failed = counts, say, False

    def emit(self, record: logging.LogRecord) -> None:
        self._failed_now = False
        super().emit(record)
        self._has_failed = self._failed_now

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - of logging
        import sys

        self._failed_now = True
        self._counts.add("unsaved")
        error = sys.exception()
        if not self._has_failed and error is not None:
            self._say(f"{self.baseFilename} cannot be written ({in_short(error)}): free some space")
