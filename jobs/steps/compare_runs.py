"""Compare two trainings for equality: weights, order of the images and history, number by number."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor

from classifier.runs.folder import read_history

# Fields of history.jsonl that measure time, which no two runs share.
TIMED = ("seconds", "images_per_second", "input_wait")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """How many of the weights, of the epochs' image orders and of the rows of history.jsonl are equal.

    What only one of the two trainings has counts as different.
    """

    weights: int
    equal_weights: int
    largest_difference: float
    epochs: int
    equal_orders: int
    equal_rows: int

    @property
    def is_equal(self) -> bool:
        """Whether all of it is equal; nothing is no proof."""
        is_known = self.weights > 0 and self.epochs > 0
        return is_known and self.weights == self.equal_weights and self.epochs == self.equal_orders == self.equal_rows

    def lines(self) -> Iterator[Any]:
        """A table, and the largest difference if there is one."""
        table = Table(box=None, pad_edge=False, show_header=False)
        for name, equal, count, what in (
            ("weights", self.equal_weights, self.weights, "numbers, bit for bit"),
            ("order", self.equal_orders, self.epochs, "epochs, with every image once and in the same position"),
            ("history", self.equal_rows, self.epochs, "rows of history.jsonl, except for times"),
        ):
            table.add_row("equal" if equal == count > 0 else "DIFFERENT", name, f"{equal:,} of {count:,} {what}")
        yield table
        if self.largest_difference:
            yield f"the largest difference of a weight is {self.largest_difference:.3g}"

    def as_dict(self) -> dict[str, Any]:
        """As in result.json."""
        return {
            "weights": self.weights,
            "equal_weights": self.equal_weights,
            "largest_difference": self.largest_difference if math.isfinite(self.largest_difference) else None,
            "epochs": self.epochs,
            "equal_orders": self.equal_orders,
            "equal_figures": self.equal_rows,
        }


def compare_runs(first: Path, second: Path) -> Comparison:
    """Compare the bundles and histories of two run folders."""
    a, b = (load_file(folder / "bundle" / "model.safetensors") for folder in (first, second))
    return compare(a, b, read_history(first), read_history(second))


def compare(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], a_rows: Sequence[Row], b_rows: Sequence[Row]
) -> Comparison:
    """Compare two state dicts, and the rows of two histories."""
    weights = equal_weights = 0
    largest_difference = 0.0
    for name in {**a, **b}:
        x, y = a.get(name), b.get(name)
        if x is None or y is None or x.shape != y.shape:
            weights += max(one.numel() for one in (x, y) if one is not None)
            continue
        weights += x.numel()
        equal_weights += int((x == y).sum())
        differences = (x.double() - y.double()).abs()[x != y]
        if differences.numel():  # that of a NaN is a NaN, and would be lost by max
            largest_difference = max(largest_difference, float(differences.nan_to_num(nan=math.inf).max()))
    pairs = list(zip(a_rows, b_rows, strict=False))
    return Comparison(
        weights=weights,
        equal_weights=equal_weights,
        largest_difference=largest_difference,
        epochs=max(len(a_rows), len(b_rows)),
        equal_orders=sum(x.get("order") == y.get("order") for x, y in pairs),
        equal_rows=sum(_without_times(x) == _without_times(y) for x, y in pairs),
    )


def _without_times(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in TIMED}
