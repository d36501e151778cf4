"""Cells of the table of default.py, each a training of one set in one way with one seed, and the table itself."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from classifier.metrics.intervals import Interval, mean_interval, paired_difference_interval

NO_FLAGS = "no flags"
# A default that is further behind the best is not the best.
TOLERANCE = 0.01


@dataclass(frozen=True)
class Cell:
    """One training of one set."""

    set: str
    column: str
    seed: int
    problem: str = ""
    """Why there is no score; the rest is empty then."""
    seconds: float = 0.0
    wrong: tuple[str, ...] = ()
    """Test images whose class was not predicted."""
    count: int = 0
    """Of test images."""
    note: str = ""
    cut: bool = False
    """Stopped by --cap before its last epoch."""

    @property
    def accuracy(self) -> float:
        return 1 - len(self.wrong) / self.count


def compare(ours: Sequence[Cell], other: Sequence[Cell]) -> tuple[float, Interval]:
    """How far the mean accuracy of ours is behind, with the paired 95 % interval.

    The interval is that of one pair of models with the mean numbers of images that only one of them has right.
    """
    gap = statistics.mean(cell.accuracy for cell in other) - statistics.mean(cell.accuracy for cell in ours)
    pairs = [(set(mine.wrong), set(theirs.wrong)) for mine in ours for theirs in other]
    only_ours = round(statistics.mean(len(theirs - mine) for mine, theirs in pairs))
    only_other = round(statistics.mean(len(mine - theirs) for mine, theirs in pairs))
    return gap, paired_difference_interval(only_ours, only_other, ours[0].count)


def describe_gap(columns: dict[str, list[Cell]]) -> str:
    """The points from no flags to the best other column."""
    others = {name: scored for name, cells in columns.items() if name != NO_FLAGS and (scored := _scored(cells))}
    ours = _scored(columns.get(NO_FLAGS, []))
    if not ours or not others:
        return ""
    name = max(others, key=lambda name: statistics.mean(cell.accuracy for cell in others[name]))
    gap, (low, high) = compare(ours, others[name])
    if gap < 0:
        return f"ahead of {name} by {_percent(-gap)}"
    text = f"{_percent(gap)} to {name}"
    if gap <= TOLERANCE:
        return text
    return f"{f'**{text}**' if low > 0 else text} ({_percent(low)} to {_percent(high)})"


def describe_cells(cells: Sequence[Cell]) -> str:
    """Mean accuracy and its deviation over the seeds, with the interval of no flags, and mean seconds."""
    scored = _scored(cells)
    if not scored:
        return cells[0].problem.partition(":")[0] if cells else ""
    accuracies = [cell.accuracy for cell in scored]
    mean = statistics.mean(accuracies)
    spread = f" ± {_percent(statistics.stdev(accuracies))}" if len(scored) > 1 else ""
    low, high = mean_interval(mean, scored[0].count)
    interval = f" ({_percent(low)} to {_percent(high)})" if scored[0].column == NO_FLAGS else ""
    seconds = statistics.mean(cell.seconds for cell in scored)
    return f"{_percent(mean)}{spread}{interval}, {seconds:.0f} s{', cut' * any(cell.cut for cell in scored)}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _scored(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if not cell.problem]


def format_table(cells: Sequence[Cell]) -> str:
    """A Markdown table: a row per set, a column per way to train; then why cells have no score."""
    shown = list(dict.fromkeys(cell.column for cell in cells))
    lines = ["| | " + " | ".join(shown) + " | behind the best, points |", "|---" * (len(shown) + 2) + "|"]
    for set_name in dict.fromkeys(cell.set for cell in cells):
        columns = {name: [c for c in cells if (c.set, c.column) == (set_name, name)] for name in shown}
        lines.append(f"| {' | '.join([set_name, *map(describe_cells, columns.values()), describe_gap(columns)])} |")
    lines += [f"{cell.set}, {cell.column}, seed {cell.seed}: {cell.problem}" for cell in cells if cell.problem]
    return "\n".join(lines)
