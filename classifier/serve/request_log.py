"""A line of JSON for each request and event, with its trace; of a request's content, only the digest.

A thread writes the lines, so that a slow or blocked reader of them never holds up an answer: lines that it does not
take in time are dropped, and counted.
"""

import hashlib
import json
import queue
import random
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

MAX_WAITING_LINES = 10_000
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True)
class Trace:
    """Where a request belongs in a trace (W3C Trace Context): its own span, below its client's if that has sent one."""

    trace_id: str
    span_id: str
    parent_id: str | None
    flags: str

    @classmethod
    def begin(cls, traceparent: str | None) -> "Trace":
        """Continue the client's trace, or begin one where the header is absent or malformed."""
        match = _TRACEPARENT.fullmatch(traceparent or "")
        # Not os.urandom, which releases the interpreter's lock, and waits for it behind the threads that compute.
        span_id = f"{random.getrandbits(64):016x}"
        if match:
            version, trace_id, parent_id, flags, rest = match.groups()
            if version != "ff" and not (version == "00" and rest) and int(trace_id, 16) and int(parent_id, 16):
                return cls(trace_id, span_id, parent_id, flags)
        return cls(f"{random.getrandbits(128):032x}", span_id, None, "00")

    @property
    def header(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    def fields(self) -> dict[str, str]:
        own = {"trace_id": self.trace_id, "span_id": self.span_id}
        return own | ({"parent_id": self.parent_id} if self.parent_id else {})


def digest_of(body: bytes) -> str:
    """Return what identifies a body in the log."""
    return hashlib.sha256(body).hexdigest()[:16]


class RequestLog:
    """Writes lines to a stream; None: nowhere."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream, self.dropped = stream, 0
        self._lines: queue.Queue[Mapping[str, Any] | None] = queue.Queue(MAX_WAITING_LINES)
        self._thread = threading.Thread(target=self._write_lines, name="log", daemon=True)
        if stream is not None:
            self._thread.start()

    def write(self, event: str, **fields: Any) -> None:
        """Log an event; never waits."""
        if self.stream is None:
            return
        try:
            self._lines.put_nowait({"time": time.time(), "event": event} | fields)
        except queue.Full:
            self.dropped += 1

    def close(self, seconds: float = 2.0) -> None:
        """Write what waits, for at most some seconds."""
        if self._thread.is_alive():
            try:
                self._lines.put(None, timeout=seconds)
                self._thread.join(seconds)
            except queue.Full:
                pass

    def _write_lines(self) -> None:
        assert self.stream is not None
        while (fields := self._lines.get()) is not None:
            when = datetime.fromtimestamp(fields["time"], UTC).isoformat(timespec="milliseconds")
            try:
                self.stream.write(json.dumps({**fields, "time": when}) + "\n")
                if self._lines.empty():
                    self.stream.flush()
            except (OSError, ValueError):  # a full disk, a closed pipe: the server goes on
                self.dropped += 1
