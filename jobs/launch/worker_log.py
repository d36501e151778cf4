"""What a worker says, in another process or on another machine, stands in the run's run.log too."""

import contextlib
import io
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


class _TeeStream(io.TextIOBase):
    """Writes to a stream, and each whole line to a log under the speaker's name."""

    def __init__(self, stream: TextIO, log: TextIO, name: str) -> None:
        self.stream, self.log, self.name = stream, log, name
        self.partial_line = ""

    def write(self, text: str) -> int:
        self.stream.write(text)
        *lines, self.partial_line = (self.partial_line + text).split("\n")
        # A progress bar draws one line again and again: its last state is the line.
        self.log.writelines(f"{self.name}: {line.rpartition(chr(13))[2]}\n" for line in lines)
        return len(text)

    def finish_line(self) -> None:
        """A line that was begun is whole now."""
        if self.partial_line:
            self.write("\n")

    def flush(self) -> None:
        self.stream.flush()


@contextlib.contextmanager
def tee_output(path: Path, name: str) -> Iterator[None]:
    """While it lasts, what Python code of this process prints, and the traceback it ends with, go into a log too."""
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
