"""The live part of the terminal: what a verb is doing now, below the lines that stay.

A background thread redraws it, so that it goes on while the main thread is blocked: torch is imported, Ray starts.
Elsewhere, in a log or a pipe, a phase that takes long is one line on stderr.
"""

import errno
import functools
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from classifier.text import show
from classifier.training.progress import describe_step, format_clock

from .output import detach_terminal, discard_output

if TYPE_CHECKING:  # a verb that only reads files prints too, and needs no torch
    from classifier.training.loop import StepProgress

REFRESHES_PER_SECOND = 5
# Without a terminal, a phase is named once it has taken this long.
LONG_SECONDS = 5.0
# A log has room for a whole table.
LOG_WIDTH = 120


class _Console(Console):
    """Shows all text, that of tables too, with escapes for what would control the terminal (`classifier.text.show`)."""

    def render_str(self, text: str, **options: Any) -> Text:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().render_str(show(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError as error:
            if error.errno != errno.EIO:  # of a terminal that was closed
                raise
            detach_terminal()

    def on_broken_pipe(self) -> None:
        """Raise what Python raises: rich would exit, and the run record an exit code in place of a reason."""
        discard_output(sys.stdout.fileno())
        raise BrokenPipeError(errno.EPIPE, "the reader of the output has ended")


def console(**options: Any) -> Console:
    """A console that prints text as text: names may look like markup or emoji codes, or contain escape codes."""
    console = _Console(highlight=False, markup=False, emoji=False, **options)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    return console


def fold(line: str, screen: Console) -> str:
    """Show a line, broken between words if it is too long for a terminal; a word, such as a path, stays whole."""
    line = show(line)
    if not screen.is_terminal:
        return line
    wrap = functools.partial(textwrap.fill, width=screen.width, subsequent_indent="  ")
    return wrap(line, break_long_words=False, break_on_hyphens=False)


class Display:
    """What a verb is doing now. Use the process's one, `display()`: a terminal has only one live part."""

    def __init__(self, screen: Console | None = None) -> None:
        self.screen = screen or console(soft_wrap=True)
        self._live: Live | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()

    @property
    def is_live(self) -> bool:
        """Whether stdout is a terminal, where lines can be redrawn."""
        return self.screen.is_terminal

    def begin_phase(self, name: str, seconds_left: float | None = None) -> None:
        """Say what is done from now on, until the next phase, and how many seconds have passed."""
        if self.is_live:
            self.show(Phase(name, seconds_left))
        else:
            self.clear()
            self._timer = threading.Timer(LONG_SECONDS, self.say, [f"{name} ..."])
            self._timer.daemon = True
            self._timer.start()

    def show(self, thing: Any) -> None:
        """Show a line or table, redrawn several times a second. Does nothing without a terminal."""
        if not self.is_live:
            return
        with self._lock:
            if is_new := self._live is None:
                self._live = Live(console=self.screen, transient=True, refresh_per_second=REFRESHES_PER_SECOND)
                self._live.start()
            self._live.update(_Narrow(thing), refresh=is_new)  # the thread may have to wait for torch's import

    def say(self, line: str) -> None:
        """Print a line on stderr, from any thread."""
        with self._lock:  # a live part that is being removed would be drawn once more
            try:
                print(show(line), file=sys.stderr, flush=True)
            except OSError as error:
                if error.errno != errno.EIO:  # of a terminal that was closed
                    raise
                detach_terminal()

    def clear(self) -> None:
        """Remove the live part: nothing is being done."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._live is not None:
                live, self._live = self._live, None
                live.stop()


class _Narrow:
    """A line or table with room for the ^C that a terminal echoes at its end, and that would wrap."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.thing, options.update(max_width=options.max_width - len("^C")))


@functools.cache
def display() -> Display:
    """The display of this process."""
    return Display()


class Phase:
    """A phase with a spinner, and the seconds since it began or, if known, the time left."""

    def __init__(self, name: str, seconds_left: float | None = None) -> None:
        self.name, self.seconds_left, self.began = name, seconds_left, time.monotonic()
        self.spinner = Spinner("line")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        seconds = time.monotonic() - self.began
        end = f"  {seconds:.0f} s"
        if self.seconds_left is not None:
            end = f"  about {format_clock(max(0.0, self.seconds_left - seconds))} left"
        name = Text(show(self.name))
        name.truncate(options.max_width - len(end) - 2, overflow="ellipsis")
        self.spinner.update(text=name.append(end))
        yield self.spinner


class Step:
    """The current step of a training in this process, with the time left."""

    def __init__(self, step: "StepProgress") -> None:
        self.step, self.reported = step, time.monotonic()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(describe_step(self.step, options.max_width, time.monotonic() - self.reported), no_wrap=True)
