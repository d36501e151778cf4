"""Traces are continued or begun, and a log whose reader is stuck holds up nobody."""

import json
import threading
import time

import pytest

from classifier.serve import request_log
from classifier.serve.request_log import RequestLog, Trace

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "is_continued"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"cc-{TRACE}-{PARENT}-01-of-a-later-version", True),
        (f"00-{TRACE}-{PARENT}-01-more", False),
        (f"ff-{TRACE}-{PARENT}-01", False),
        (f"00-{'0' * 32}-{PARENT}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{PARENT}-01", False),
        ("", False),
        (None, False),
    ],
)
def test_traces(header, is_continued):
    trace = Trace.begin(header)
    assert (trace.trace_id == TRACE) is is_continued
    assert trace.parent_id == (PARENT if is_continued else None)
    assert trace.header.startswith(f"00-{trace.trace_id}-{trace.span_id}-0")


def test_a_stuck_reader_holds_up_nobody(monkeypatch):
    monkeypatch.setattr(request_log, "MAX_WAITING_LINES", 10)

    class Stuck:
        lines, gate = list[str](), threading.Event()

        def write(self, line: str) -> None:
            self.gate.wait(10)
            self.lines.append(line)

        def flush(self) -> None: ...

    stream = Stuck()
    log = RequestLog(stream)  # type: ignore[arg-type]
    began = time.monotonic()
    for n in range(100):
        log.write("request", n=n)
    assert time.monotonic() - began < 1
    assert log.dropped >= 89
    stream.gate.set()
    log.close()
    assert [json.loads(line)["n"] for line in stream.lines][:3] == [0, 1, 2]
