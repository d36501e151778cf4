"""One column of a table: its kind, and what was learned of its values."""

from dataclasses import dataclass
from typing import Literal

ColumnKind = Literal["number", "category", "date", "text"]
KINDS: tuple[ColumnKind, ...] = ("number", "category", "date", "text")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column, and how its values become numbers: plain data."""

    name: str
    kind: ColumnKind
    width: int
    """How many numbers a value becomes."""
    mean: float = 0.0
    """Of a number, or of a date in days since 1970, over the training images."""
    std: float = 1.0
    values: tuple[str, ...] = ()
    """Of a category: those that have a place of their own; all others share the last one."""
    is_day_first: bool = True
    """Of a date: whether 3/4/2020 is in April."""

    def describe(self) -> str:
        """Return the name and the kind, as a message shows them.

        >>> Column(name="colour", kind="category", width=3, values=("red", "blue")).describe()
        'colour (category of 2)'
        """
        return f"{self.name} ({self.kind}{f' of {len(self.values)}' if self.kind == 'category' else ''})"
