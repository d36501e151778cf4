"""What a terminal shows while trials run: which trial of how many, the time used and left, and the best trials."""

import time

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from classifier.text import show
from classifier.training.progress import format_clock, join_that_fit

from .history import SearchClock
from .leaderboard import Leaderboard


class LiveTable:
    """Fits into 80 x 24: a line about the search, redrawn as time passes, above a table of the best trials.

    subject: what runs, if it is not the trials of the plan.
    """

    def __init__(self, board: Leaderboard, clock: SearchClock, subject: str | None = None) -> None:
        self.board, self.clock, self.subject = board, clock, subject
        self.began, self.ended_before = time.monotonic(), self._count_ended()
        self.update()

    def update(self) -> None:
        """Read the leaderboard; the display's own thread never does, as it would meet a trial that is being added."""
        self.table, self.count, self.ended = self.board.table(is_live=True), len(self.board.rows), self._count_ended()

    def _count_ended(self) -> int:
        return sum(row.has_ended for row in self.board.rows.values())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(show(join_that_fit(self.describe_progress(), options.max_width)), no_wrap=True, style="bold")
        if self.count:
            yield self.table

    def describe_progress(self) -> list[str]:
        """The parts of the first line, the most important first."""
        total, count = self.board.plan.trial_count, max(1, self.count)
        used, left = self.clock.spent_seconds(), self.clock.total_seconds_left()
        parts = [self.subject or f"trial {count} of {max(count, total)}"]
        if left is None:
            parts += [f"{format_clock(used)} used", self._estimate_left(total)]
        else:
            parts += [f"{format_clock(used)} of {format_clock(used + left)} used", f"{format_clock(left)} left"]
        return [*parts, f"{self.ended} ended"]

    def _estimate_left(self, total: int) -> str:
        """How many trials are left to end and, once one has ended, about how long they take."""
        trials = max(0, total - self.ended)
        ended = self.ended - self.ended_before
        if not ended or self.subject:
            return f"{trials} trials left"
        return f"about {format_clock(trials * (time.monotonic() - self.began) / ended)} left"
