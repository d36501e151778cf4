"""Compare two trainings for equality: weights, order of the images and history, number by number."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from safetensors.torch import load_file

from classifier.runs.folder import read_history

# Fields of history.jsonl that measure time, which no two runs share.
TIMED = ("seconds", "images_per_second", "input_wait")


@dataclass(frozen=True)
class Comparison:
    """How many of the weights, of the epochs' image orders and of the rows of history.jsonl are equal."""

    weights: int
    equal_weights: int
    largest_difference: float
    epochs: int
    equal_orders: int
    equal_rows: int

    @property
    def is_equal(self) -> bool:
        return self.weights == self.equal_weights and self.epochs == self.equal_orders == self.equal_rows

    def lines(self) -> Iterator[Any]:
        """A table, and the largest difference if there is one."""
        table = Table(box=None, pad_edge=False, show_header=False)
        for name, equal, count, what in (
            ("weights", self.equal_weights, self.weights, "numbers, bit for bit"),
            ("order", self.equal_orders, self.epochs, "epochs, with every image once and in the same position"),
            ("history", self.equal_rows, self.epochs, "rows of history.jsonl, except for times"),
        ):
            table.add_row("equal" if equal == count else "DIFFERENT", name, f"{equal:,} of {count:,} {what}")
        yield table
        if self.equal_weights < self.weights:
            yield f"the largest difference of a weight is {self.largest_difference:.3g}"

    def as_dict(self) -> dict[str, Any]:
        """As in result.json."""
        return {
            "weights": self.weights,
            "equal_weights": self.equal_weights,
            "largest_difference": self.largest_difference,
            "epochs": self.epochs,
            "equal_orders": self.equal_orders,
            "equal_figures": self.equal_rows,
        }


def compare_runs(first: Path, second: Path) -> Comparison:
    """Compare the bundles and histories of two run folders."""
    a, b = (load_file(folder / "bundle" / "model.safetensors") for folder in (first, second))
    pairs = [(a[name], b[name]) for name in a]
    rows = list(zip(read_history(first), read_history(second), strict=True))
    return Comparison(
        weights=sum(x.numel() for x, _ in pairs),
        equal_weights=sum(int((x == y).sum()) if x.shape == y.shape else 0 for x, y in pairs),
        largest_difference=max(float((x.double() - y.double()).abs().max()) for x, y in pairs if x.numel()),
        epochs=len(rows),
        equal_orders=sum(x["order"] == y["order"] for x, y in rows),
        equal_rows=sum(all(x[name] == y[name] for name in x.keys() - set(TIMED)) for x, y in rows),
    )
