"""Progress of a training in a Python session: a line per epoch, and a bar with the time left."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from classifier.text import show
from classifier.training.loop import StepProgress


class Progress:
    """Prints lines to stdout and to run.log, with a bar below them. show: False prints nothing."""

    def __init__(self, show: bool) -> None:
        self.show = show
        self._lines: list[str] = []
        self._log: TextIO | None = None
        self._bar: Any = None  # a tqdm bar, once there are steps

    @contextlib.contextmanager
    def attach(self, path: Path) -> Iterator["Progress"]:
        """Append the lines to this file, too, from the first one on; remove the bar at the end."""
        with path.open("a", encoding="utf-8") as self._log:
            self._log.writelines(f"{line}\n" for line in self._lines)
            try:
                yield self
            finally:
                self._close_bar()
        self._log = None

    def info(self, line: str) -> None:
        """Print a line."""
        line = show(line)
        self._lines.append(line)
        if self._log is not None:
            print(line, file=self._log, flush=True)
        if self.show:
            tqdm.write(line, file=sys.stdout)

    def show_step(self, step: StepProgress) -> None:
        """Redraw the bar of the training."""
        if not self.show:
            return
        if self._bar is None:
            # To stdout: a notebook shows stderr in red.
            self._bar = tqdm(total=step.steps, initial=step.step, unit="step", leave=False, file=sys.stdout)
        self._bar.set_description(f"epoch {step.epoch}/{step.epochs} loss {step.loss:.3f}", refresh=False)
        self._bar.update(step.step - self._bar.n)

    @contextlib.contextmanager
    def progress_bar(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar for `total` items; yields a function to call with each count of items done."""
        with tqdm(desc=show(description), total=total, leave=False, file=sys.stdout, disable=not self.show) as bar:

            def advance(count: int) -> None:
                bar.update(count)

            yield advance

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
