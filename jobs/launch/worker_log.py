"""Copies worker output to the run's run.log, from another process or another machine."""

import contextlib
import io
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from classifier.text import show


class _TeeStream(io.TextIOBase):
    """Writes to a stream, and each complete line to a log, prefixed with the worker's name."""

    def __init__(self, stream: TextIO, log: TextIO, name: str) -> None:
        self.stream, self.log, self.name = stream, log, name
        self.partial_line = ""

    def write(self, text: str) -> int:
        self.stream.write(show(text, keep="\n\r"))
        *lines, self.partial_line = (self.partial_line + text).split("\n")
        # A progress bar redraws its line after a carriage return: log only its last state.
        self.log.writelines(f"{self.name}: {show(line.rpartition(chr(13))[2])}\n" for line in lines)
        return len(text)

    def finish_line(self) -> None:
        """End a partial line, so that it is logged."""
        if self.partial_line:
            self.write("\n")

    def flush(self) -> None:
        self.stream.flush()


@contextlib.contextmanager
def tee_output(path: Path, name: str) -> Iterator[None]:
    """Within this context, copy what Python code prints, and the traceback of an exception, to the log at `path`."""
    with path.open("a", encoding="utf-8", buffering=1) as log:
        out, err = _TeeStream(sys.stdout, log, name), _TeeStream(sys.stderr, log, name)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                yield
            except Exception:
                traceback.print_exc()
                raise
            finally:
                out.finish_line()
                err.finish_line()
