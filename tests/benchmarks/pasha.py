"""Would PASHA, whose rungs grow while ranks change, pay off? python tests/benchmarks/pasha.py SEARCH [SEARCH ...]

SEARCH: run folders of searches whose trials were all trained to the end, as by

    jobs/tune.py --search.scheduler none --search.algorithm random --search.portfolio false --search.trials 40

Their histories are replayed: the same trials, in many random orders, two at once, without a scheduler, by asha as
`search.scheduler asha` runs it (a trial is stopped at a rung), by asha that pauses trials and promotes them later, and
by PASHA (Bohdal et al., "PASHA: Efficient HPO and NAS with Progressive Resource Allocation", 2023): promotion with a
highest rung that grows. For these two, training their choice to the end counts towards the time.
"""

import argparse
import heapq
import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np

from jobs.search.schedulers import REDUCTION_FACTOR, rung_epochs

SLOTS, ORDERS, MIN_TRIALS = 2, 300, 20
SHARES = (0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Curve:
    """One trial: its validation accuracy after each epoch, and the seconds until then."""

    accuracy: list[float]
    at: list[float]

    @classmethod
    def read(cls, path: Path) -> "Curve":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return cls(
            [row["validation_accuracy"] for row in rows], np.cumsum([0.0, *(row["seconds"] for row in rows)]).tolist()
        )

    def seconds(self, begin: int, end: int) -> float:
        return self.at[end] - self.at[begin]


def simulate_stopping(curves: list[Curve], levels: tuple[int, ...], budget: float) -> Curve | None:
    """Run trials one after the other, each stopped at the first rung where it is behind; the best complete one."""
    accuracies_at: dict[int, list[float]] = {level: [] for level in levels}
    free, complete = [0.0] * SLOTS, []
    heapq.heapify(free)
    # A trial reaches all its rungs when it starts: close to the real order, as both slots are equally fast.
    for curve in curves:
        now, epoch, last = heapq.heappop(free), 0, len(curve.accuracy)
        for level in (*levels, last):
            now, epoch = now + curve.seconds(epoch, level), level
            if level == last or now > budget:
                break
            value, before = curve.accuracy[level - 1], accuracies_at[level]
            is_behind = bool(before) and value < np.nanpercentile(before, 100 * (1 - 1 / REDUCTION_FACTOR))
            before.append(value)
            if is_behind:
                break
        if epoch == last and now <= budget:
            complete.append(curve)
        heapq.heappush(free, now)
    return max(complete, key=lambda curve: curve.accuracy[-1], default=None)


def simulate_promotion(curves: list[Curve], levels: tuple[int, ...], budget: float, *, grows: bool) -> Curve | None:
    """Pause trials at each rung and promote them while they are among its best; `grows` is PASHA's rule.

    Returns the last leader whose training still fits, once the time is over or nothing is left to promote.
    """
    steps = (*levels, len(curves[0].accuracy))
    top = 1 if grows else len(steps) - 1
    done: list[dict[int, float]] = [{} for _ in steps]  # by rung: the trial's accuracy there
    promoted: list[set[int]] = [set() for _ in steps]
    pending, busy, now = list(range(len(curves))), list[tuple[float, int, int]](), 0.0

    def next_job() -> tuple[int, int] | None:
        for rung in reversed(range(top)):
            best = sorted(done[rung], key=lambda i: -done[rung][i])[: len(done[rung]) // REDUCTION_FACTOR]
            for trial in best:
                if trial not in promoted[rung]:
                    promoted[rung].add(trial)
                    return trial, rung + 1
        return (pending.pop(0), 0) if pending else None

    def leader() -> tuple[int, int] | None:
        for rung in reversed(range(len(steps))):
            if done[rung]:
                return max(done[rung], key=lambda i: done[rung][i]), rung
        return None

    chosen: Curve | None = None
    while True:
        while len(busy) < SLOTS and (job := next_job()):
            trial, rung = job
            begin = steps[rung - 1] if rung else 0
            heapq.heappush(busy, (now + curves[trial].seconds(begin, steps[rung]), trial, rung))
        if not busy:
            return chosen
        now, trial, rung = heapq.heappop(busy)
        if now > budget:
            return chosen
        done[rung][trial] = curves[trial].accuracy[steps[rung] - 1]
        if grows and rung == top < len(steps) - 1:
            there = {i: curves[i] for i in done[rung]}
            top += not rankings_agree(there, steps[rung], steps[rung - 1])
        found = leader()
        if found and now + curves[found[0]].seconds(steps[found[1]], steps[-1]) <= budget:
            chosen = curves[found[0]]


def rankings_agree(curves: dict[int, Curve], upper: int, lower: int) -> bool:
    """Whether trials rank after `upper` epochs as they did after `lower`; nearly equal ones may swap ranks.

    Nearly equal: within the 90th percentile of the distances between trials that swapped ranks more than once.
    """
    after, before = ({i: curve.accuracy[epoch - 1] for i, curve in curves.items()} for epoch in (upper, lower))
    crossing = []
    for a, b in itertools.combinations(curves, 2):
        signs = np.sign(np.subtract(curves[a].accuracy[:upper], curves[b].accuracy[:upper]))
        if np.count_nonzero(np.diff(signs[signs != 0])) > 1:
            crossing.append(abs(after[a] - after[b]))
    noise = np.percentile(crossing, 90) if crossing else 0.0
    by_after, by_before = (sorted(curves, key=lambda i: -score[i]) for score in (after, before))
    return all(abs(before[a] - before[b]) <= noise for a, b in zip(by_after, by_before, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("searches", nargs="+", type=Path)
    for folder in parser.parse_args().searches:
        curves = [Curve.read(path) for path in sorted(folder.glob("trials/*/history.jsonl"))]
        epochs = max((len(curve.accuracy) for curve in curves), default=0)
        curves = [curve for curve in curves if len(curve.accuracy) == epochs]
        if len(curves) < MIN_TRIALS:
            sys.exit(f"{folder}: {len(curves)} complete trials, at least {MIN_TRIALS} are needed")
        levels = rung_epochs(-(-epochs // REDUCTION_FACTOR**2), epochs)
        all_seconds = sum(curve.at[-1] for curve in curves) / SLOTS
        print(f"{folder.name}: {len(curves)} trials of {epochs} epochs, rungs {levels}, {all_seconds:.0f} s for all")
        print("  final validation accuracy of the chosen trial, mean ± standard error over orders")
        for share in SHARES:
            found: dict[str, list[float]] = {}
            for seed in range(ORDERS):
                order = [curves[i] for i in np.random.default_rng(seed).permutation(len(curves))]
                budget = share * all_seconds
                for name, curve in (
                    ("no scheduler", simulate_stopping(order, (), budget)),
                    ("asha, stopping", simulate_stopping(order, levels, budget)),
                    ("asha, promoting", simulate_promotion(order, levels, budget, grows=False)),
                    ("PASHA", simulate_promotion(order, levels, budget, grows=True)),
                ):
                    found.setdefault(name, []).append(curve.accuracy[-1] if curve else float("nan"))
            for name, values in found.items():
                error = np.nanstd(values) / np.sqrt(len(values))
                print(f"  {share:4.0%} of that time  {name:<16} {np.nanmean(values):.2%} ± {error:.2%}")


if __name__ == "__main__":
    main()
