"""Console output of a verb: lines on stdout and in run.log, and a live display on a terminal."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from classifier.training.progress import describe_epoch, describe_step

if TYPE_CHECKING:  # a verb that only reads files prints too, and needs no torch
    from classifier.training.loop import StepProgress

# From this number on, reading the images takes long enough to deserve a line in the log.
MIN_IMAGES_FOR_LOG = 2000


def console(**options: Any) -> Console:
    """A console that prints text as it is: file names may look like markup or emoji codes."""
    console = Console(highlight=False, markup=False, emoji=False, **options)
    if not console.is_terminal:  # a log has room for a whole table
        console.width = 120
    return console


class RunLog:
    """Prints every line twice: on the terminal and in run.log.

    Without a path, the lines for run.log are kept in memory until `attach`."""

    def __init__(self, path: Path | None = None) -> None:
        self._buffer = io.StringIO()
        self._file: TextIO = self._buffer
        self._screen = console(soft_wrap=True)
        self._log = console(file=self._file, color_system=None)
        self._live: Live | None = None
        if path is not None:
            self.attach(path)

    def attach(self, path: Path) -> None:
        """Append to this file from now on, starting with the lines so far."""
        self._file = path.open("a", encoding="utf-8")
        self._file.write(self._buffer.getvalue())
        self._file.flush()
        self._log.file = self._file

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        self._file.close()

    def info(self, *things: Any) -> None:
        """Print text or a table."""
        self._screen.print(*things)
        self._log.print(*things)
        self._file.flush()

    def warning(self, text: str) -> None:
        """Print what went wrong without stopping the verb: on stderr and in run.log."""
        self.clear()
        print(text, file=sys.stderr)
        self._log.print(text)

    def show_step(self, step: "StepProgress") -> None:
        """Redraw the live line of a training. Does nothing without a terminal."""
        self.show(Text(describe_step(step)))

    @contextlib.contextmanager
    def progress_bar(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar on a terminal; yields a function to call with each count of items done.

        Elsewhere one line, if there are many images."""
        if not self.is_live and total >= MIN_IMAGES_FOR_LOG:
            self.info(f"{description}: {total:,} images, once")
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._screen,
            transient=True,
            disable=not self.is_live,
        ) as progress:
            task = progress.add_task(description, total=total)
            yield lambda count: progress.advance(task, count)

    def log_epoch(self, row: dict[str, Any], epochs: int) -> None:
        """One line per finished epoch, from its row in history.jsonl; * marks a new best."""
        self.clear()
        self.info(describe_epoch(row, epochs))

    @property
    def is_live(self) -> bool:
        """Whether stdout is a terminal, where the live display can be redrawn."""
        return self._screen.is_terminal

    def show(self, thing: Any) -> None:
        """Redraw the live display with a line or table. Does nothing without a terminal."""
        if not self.is_live:
            return
        if self._live is None:
            self._live = Live(console=self._screen, transient=True, auto_refresh=False)
            self._live.start()
        self._live.update(thing, refresh=True)

    def clear(self) -> None:
        """Remove the live display."""
        if self._live is not None:
            self._live.stop()
            self._live = None
