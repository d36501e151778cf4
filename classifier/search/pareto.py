"""Pareto dominance and fronts for searches with several objectives."""

import bisect
from collections.abc import Sequence

# Whether each objective is maximised or minimised.
MODES = {
    "accuracy": "max",
    "macro_f1": "max",
    "map": "max",
    "quadratic_kappa": "max",
    "loss": "min",
    "latency": "min",
    "size": "min",
    "epochs": "min",
}


def to_losses(scores: dict[str, float], objectives: Sequence[str]) -> tuple[float, ...]:
    """Return the scores of the objectives, negated where they are maximised: less is better."""
    return tuple(-scores[name] if MODES[name] == "max" else scores[name] for name in objectives)


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Return whether a dominates b: no worse in any objective and better in at least one. Less is better."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def pareto_fronts(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the front of each point: 0 if no point dominates it, 1 if only points of front 0 do, and so on.

    Non-dominated sorting (Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002), by binary
    search (Zhang et al., "An efficient approach to nondominated sorting for evolutionary multiobjective optimization",
    2015).
    """
    rank: dict[tuple[float, ...], int] = {}
    fronts: list[list[tuple[float, ...]]] = []
    for point in sorted({tuple(point) for point in points}):  # no point is dominated by a later one
        rank[point] = bisect.bisect_left(
            fronts, True, key=lambda front, point=point: not any(dominates(other, point) for other in front)
        )
        if rank[point] == len(fronts):
            fronts.append([])
        fronts[rank[point]].append(point)
    return [rank[tuple(point)] for point in points]
