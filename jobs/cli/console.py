"""Console output of a verb: lines on stdout and in run.log, with the live display below them on a terminal."""

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from classifier.text import show
from classifier.training.progress import describe_epoch

from .display import Step, console, display, fold

if TYPE_CHECKING:  # a verb that only reads files prints too, and needs no torch
    from classifier.training.loop import StepProgress

# From this number on, reading the images takes long enough to deserve a line in the log.
MIN_IMAGES_FOR_LOG = 2000


class RunLog:
    """Prints every line twice: on the terminal and in run.log.

    Without a path, the lines for run.log are kept in memory until `attach`."""

    def __init__(self, path: Path | None = None) -> None:
        self._buffer = io.StringIO()
        self._file: TextIO = self._buffer
        self._log = console(file=self._file, color_system=None)
        self._display = display()
        self._step: StepProgress | None = None
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
        with contextlib.suppress(OSError):  # lines that found no room before
            self._file.close()

    def info(self, *things: Any) -> None:
        """Print text or a table. On a terminal, text that is too long is folded at its words."""
        screen = self._display.screen
        screen.print(*(Text(fold(thing, screen)) if isinstance(thing, str) else thing for thing in things))
        self._write(*things)

    def next_step(self, what: str, command: str | Path) -> None:
        """Print a command or a path to go on with. On a terminal it has a line of its own if both are too long."""
        line, screen = f"{what}: {command}", self._display.screen
        for part in [line] if len(line) <= screen.width or not self.is_live else [f"{what}:", str(command)]:
            screen.print(part)
        self._write(line)

    def warning(self, text: str) -> None:
        """Print what went wrong without stopping the verb: on stderr and in run.log."""
        self._display.say(text)
        self._write(text)

    def _write(self, *things: Any) -> None:
        """Write to run.log, unless the disk is full: no line is worth the run."""
        with contextlib.suppress(OSError):
            self._log.print(*things, soft_wrap=True)
            self._file.flush()

    def begin_phase(self, name: str, seconds_left: float | None = None) -> None:
        """Say what is done from now on; see `Display.begin_phase`."""
        self._display.begin_phase(name, seconds_left)

    def show_step(self, step: "StepProgress") -> None:
        """Show the current step of a training, on a terminal."""
        self._step = step
        self.show(Step(step))

    @contextlib.contextmanager
    def progress_bar(
        self, description: str, total: int | None, find_total: Callable[[], int | None] | None = None
    ) -> Iterator[Callable[[int], None]]:
        """A progress bar on a terminal; yields a function to call with each count of items done.

        Elsewhere one line, if there are many images. find_total: returns the total as it is known by then."""
        if not self.is_live and total is not None and total >= MIN_IMAGES_FOR_LOG:
            self.info(f"{description}: {total:,} images, once")
        progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._display.screen,
        )
        task = progress.add_task(show(description), total=total)
        self.show(progress)
        yield lambda count: progress.update(task, advance=count, total=find_total() if find_total else total)
        self.begin_phase(description)

    def log_epoch(self, row: dict[str, Any], epochs: int) -> None:
        """One line per finished epoch, from its row in history.jsonl; * marks a new best."""
        self.info(describe_epoch(row, epochs))
        epochs_left = epochs - row["epoch"]
        if not epochs_left:
            self.clear()
        elif self._step is not None:
            self.show(Step(dataclasses.replace(self._step, epoch=row["epoch"] + 1)))
        else:  # the steps of Ray's workers are not reported here
            self.begin_phase(f"epoch {row['epoch'] + 1}/{epochs} on the workers", row["seconds"] * epochs_left)

    @property
    def is_live(self) -> bool:
        """Whether stdout is a terminal, where the live display can be redrawn."""
        return self._display.is_live

    def show(self, thing: Any) -> None:
        """Show a line or table below the lines that stay. Does nothing without a terminal."""
        self._display.show(thing)

    def clear(self) -> None:
        """Remove the live display."""
        self._display.clear()
