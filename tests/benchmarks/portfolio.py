"""Which settings are good on many data sets: python tests/benchmarks/portfolio.py OUT [--photos PATH] [--clothes PATH]

Trains each candidate on each data set with a third of its training images held out (test splits are never read),
writes a line per training to OUT/portfolio.jsonl, and resumes from there. Then prints the order in which candidates,
after the recipe, close most of the gap to the best known on each data set, summed over the sets: greedily, as in
Wistuba et al., "Sequential Model-Free Hyperparameter Tuning", 2015. It goes into classifier/search/portfolio.py.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.recipes import recipe, recipe_for
from classifier.data.dataset import Split
from classifier.training.loop import fit
from classifier.training.resolve import resolve
from tests.benchmarks.sets import write_faces, write_tiles

MUON = {
    "optimizer.name": "muon",
    "optimizer.lr": 0.02,
    "optimizer.momentum": 0.95,
    "optimizer.weight_decay": 0.0,
    "schedule.name": "linear",
}
SGD = {"optimizer.name": "sgd", "optimizer.lr": 0.1, "optimizer.weight_decay": 5e-4, "schedule.name": "onecycle"}
ADAMW = {
    "optimizer.name": "adamw",
    "optimizer.lr": 3e-3,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 0.05,
    "schedule.name": "onecycle",
}
CANDIDATES = {
    "recipe": {},
    "plain7_32 muon": {"model.name": "plain7_32"} | MUON,
    "plain7_40 muon": {"model.name": "plain7_40"} | MUON,
    "resnet9_16 muon": {"model.name": "resnet9_16"} | MUON,
    "resnet9_16 sgd": {"model.name": "resnet9_16"} | SGD,
    "resnet9_16 adamw": {"model.name": "resnet9_16"} | ADAMW,
    "resnet9_32 adamw": {"model.name": "resnet9_32"} | ADAMW,
    "half the augmentation": {"augment.strength": 0.5},
    "more augmentation": {"augment.strength": 1.6},
    "trivial": {"augment.trivial": True},
    "cutmix": {"augment.cutmix": 1.0},
    "mixup": {"augment.mixup": 0.2},
    "no smoothing": {"loss.smoothing": 0.0},
}
# Enough epochs to tell candidates apart, in about half a minute each.
EPOCHS = {"digits": 20, "clothes": 8, "photos": 60, "cuttings": 60, "faces": 40}
MAX_IMAGES = 6000
# Candidates in the portfolio.
PORTFOLIO_SIZE = 4


def train(path: str, epochs: int, changes: dict) -> dict:
    """The best validation accuracy and loss of one candidate on one data set, and its seconds."""
    base = recipe(recipe_for(path)).override_all({"data.path": path, "data.validation": 0.33, "train.epochs": epochs})
    dataset = data.load(base.data)
    train_split = dataset.train
    if len(train_split) > MAX_IMAGES:
        train_split = Split(
            train_split.images_NCHW[:MAX_IMAGES], train_split.labels_N[:MAX_IMAGES], train_split.ids[:MAX_IMAGES]
        )
        dataset = dataclasses.replace(dataset, train=train_split)
    experiment: Experiment = resolve(base.override_all(changes), dataset)
    start = time.perf_counter()
    scores = [epoch.validation for epoch in fit(experiment, dataset) if epoch.validation]
    best = scores[-1] if experiment.train.keep == "last" else max(scores, key=lambda s: (s["accuracy"], -s["loss"]))
    seconds = time.perf_counter() - start
    return {"accuracy": best["accuracy"], "loss": best["loss"], "seconds": round(seconds, 1)}


def order(rows: list[dict]) -> list[str]:
    """The recipe, then candidates, each chosen for what it adds to those before it.

    Once they include the best of every data set, a new chain starts without them: they may be too slow for a search.
    """
    sets = sorted({row["set"] for row in rows})
    score = {(row["set"], row["candidate"]): row["accuracy"] for row in rows}
    chosen, chain, left = ["recipe"], ["recipe"], [name for name in CANDIDATES if name != "recipe"]

    def closed_gap(names: list[str]) -> float:
        """The share of the gap from the worst to the best of the rest that these close, summed over the data sets."""
        total = 0.0
        for set_name in sets:
            known = [score[set_name, name] for name in {*chain, *left} if (set_name, name) in score]
            best = max(score.get((set_name, name), 0.0) for name in names)
            total += (best - min(known)) / ((max(known) - min(known)) or 1.0)
        return total

    while left and len(chosen) <= PORTFOLIO_SIZE:
        best = max(left, key=lambda name: closed_gap([*chain, name]))
        if closed_gap([*chain, best]) <= closed_gap(chain) + 1e-9:
            if chain == ["recipe"]:
                break
            chain = ["recipe"]
            continue
        chain.append(best)
        print(f"  {best:<24} {closed_gap(chain):.3f} of {len(sets)}")
        chosen.append(best)
        left.remove(best)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--photos")
    parser.add_argument("--clothes")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    history = args.out / "portfolio.jsonl"
    rows = [json.loads(line) for line in history.read_text().splitlines()] if history.exists() else []
    done = {(row["set"], row["candidate"]) for row in rows}
    with tempfile.TemporaryDirectory() as scratch:
        write_tiles(Path(scratch) / "cuttings")
        write_faces(Path(scratch) / "faces")
        sets = {"digits": "digits", "cuttings": f"{scratch}/cuttings", "faces": f"{scratch}/faces"}
        sets |= {name: path for name in ("photos", "clothes") if (path := getattr(args, name))}
        for set_name, path in sets.items():
            for candidate, changes in CANDIDATES.items():
                if (set_name, candidate) in done:
                    continue
                row = {"set": set_name, "candidate": candidate} | train(path, EPOCHS[set_name], changes)
                rows.append(row)
                with history.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(
                    f"{set_name:<10} {candidate:<24} {row['accuracy']:.2%} {row['loss']:.3f} {row['seconds']:.0f} s",
                    flush=True,
                )
    print("in this order:")
    order(rows)
    for left_out in sorted({row["set"] for row in rows}):
        print(f"without {left_out}:")
        order([row for row in rows if row["set"] != left_out])


if __name__ == "__main__":
    main()
