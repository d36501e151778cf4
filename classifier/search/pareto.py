"""Several objectives at once: which results no other one beats."""

import bisect
from collections.abc import Sequence

# What is wanted of each score: more of it, or less.
MODES = {"accuracy": "max", "macro_f1": "max", "loss": "min", "latency": "min", "size": "min", "epochs": "min"}


def losses(scores: dict[str, float], objectives: Sequence[str]) -> tuple[float, ...]:
    """The scores that count, each so that less is better."""
    return tuple(-scores[name] if MODES[name] == "max" else scores[name] for name in objectives)


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """a is nowhere worse than b and somewhere better; less is better."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def fronts(points: Sequence[Sequence[float]]) -> list[int]:
    """The front of each point: 0 for those that none dominates, 1 for those that only these do, and so on.

    Non-dominated sorting (Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002), by binary
    search (Zhang et al., "An efficient approach to nondominated sorting for evolutionary multiobjective optimization",
    2015).
    """
    rank: dict[tuple[float, ...], int] = {}
    found: list[list[tuple[float, ...]]] = []
    for point in sorted({tuple(point) for point in points}):  # none is dominated by one that comes after it
        rank[point] = bisect.bisect_left(
            found, True, key=lambda front, point=point: not any(dominates(other, point) for other in front)
        )
        if rank[point] == len(found):
            found.append([])
        found[rank[point]].append(point)
    return [rank[tuple(point)] for point in points]
