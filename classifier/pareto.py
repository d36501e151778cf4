"""Several objectives at once: which results no other one beats."""

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

    Non-dominated sorting (Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002).
    """
    rank = [-1] * len(points)
    front, left = 0, set(range(len(points)))
    while left:
        best = {i for i in left if not any(dominates(points[j], points[i]) for j in left)}
        for i in best:
            rank[i] = front
        left -= best
        front += 1
    return rank
