"""Which settings are good on many data sets: python tests/benchmarks/portfolio.py OUT [--kind weights] [--sets NAME]

Trains each candidate on each set with a third of its training images held out (test splits are never read), from
scratch or from pretrained weights, writes a line per training to OUT/portfolio.jsonl, and resumes from there. Then
prints the order in which candidates, after those that come first anyway, close most of the gap to the best known on
each set, summed over the sets: greedily, as in Wistuba et al., "Sequential Model-Free Hyperparameter Tuning", 2015. It
goes into classifier/search/portfolio.py.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from classifier import data
from classifier.config.auto_recipe import Facts, build_finetune, build_scratch
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.data.facts import measure_facts
from classifier.data.subset import limit_training_images
from classifier.search.portfolio import PROBE
from classifier.training.loop import fit
from classifier.training.resolve import resolve
from tests.benchmarks.sets import SETS, write_set

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
# The whole network, from the probe; its batch norms keep their statistics.
WHOLE = {"model.probe": True, "model.freeze": "statistics", "train.epochs": 9, "loss.smoothing": 0.1}
CANDIDATES = {
    "scratch": {
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
    },
    "weights": {
        "recipe": {},
        "probe": PROBE,
        "head, lr 1e-3": {"optimizer.lr": 1e-3},
        "head, lr 1e-2": {"optimizer.lr": 1e-2},
        "head, smoothing 0.1": {"loss.smoothing": 0.1},
        "head, decay 0.2": {"optimizer.weight_decay": 0.2, "loss.smoothing": 0.1},
        "head, one view as it is": {"augment.views": 1, "augment.strength": 0.0},
        "head, smaller crops": {"augment.crop": 0.4},
        "head, all augmentation": {"augment.brightness": None, "augment.contrast": None, "augment.saturation": None},
        "head from the probe": {"model.probe": True, "optimizer.lr": 1e-3},
        "whole, lr 1e-3": WHOLE | {"optimizer.lr": 1e-3},
        "whole, lr 3e-4": WHOLE | {"optimizer.lr": 3e-4},
        "whole, lr 2e-3, layers": WHOLE | {"optimizer.lr": 2e-3, "optimizer.layer_decay": 0.8},
    },
}
# What comes first, whatever it scores.
FIRST = {"scratch": ["recipe"], "weights": ["recipe", "probe"]}
# Training images of a set, and passes over them from scratch: enough to tell candidates apart.
MAX_IMAGES = {"scratch": 6000, "weights": 400}
MAX_PASSES, MIN_EPOCHS, MAX_EPOCHS = 24_000, 8, 60
# Candidates in the portfolio, besides those that come first.
PORTFOLIO_SIZE = 4


def build_base(kind: str, facts: Facts) -> Experiment:
    """The experiment that candidates of this kind change."""
    if kind == "weights":
        return build_finetune(facts)
    epochs = max(MIN_EPOCHS, min(MAX_EPOCHS, MAX_PASSES // facts.images))
    return build_scratch(facts).override("train.epochs", epochs)


def load(base: Experiment, kind: str) -> Dataset:
    """The images of the experiment, no more of each split than MAX_IMAGES."""
    dataset = data.load(base.data)
    limit = MAX_IMAGES[kind]
    held_out = dataclasses.replace(dataset, train=dataset.validation)  # limits are for training images
    if len(dataset.validation) > limit:
        dataset = dataclasses.replace(dataset, validation=limit_training_images(held_out, limit, seed=0).train)
    return limit_training_images(dataset, limit, seed=0) if len(dataset.train) > limit else dataset


def train(experiment: Experiment, dataset: Dataset, features: Path) -> dict:
    """The best validation accuracy and loss of one candidate on one data set, and its seconds."""
    start = time.perf_counter()
    resolved = resolve(experiment, dataset)
    scores = [epoch.validation for epoch in fit(resolved, dataset, features=features) if epoch.validation]
    best = scores[-1] if resolved.train.keep == "last" else max(scores, key=lambda s: (s["accuracy"], -s["loss"]))
    return {"accuracy": best["accuracy"], "loss": best["loss"], "seconds": round(time.perf_counter() - start, 1)}


def order(rows: list[dict], kind: str) -> list[str]:
    """What comes first, then candidates, each chosen for what it adds to those before it.

    Once they include the best of every data set, a new chain starts without them: they may be too slow for a search.
    """
    sets, first = sorted({row["set"] for row in rows}), FIRST[kind]
    score = {(row["set"], row["candidate"]): row["accuracy"] for row in rows}
    chosen, chain = list(first), list(first)
    left = [name for name in CANDIDATES[kind] if name not in first]

    def closed_gap(names: list[str]) -> float:
        """The share of the gap from the worst to the best of the rest that these close, summed over the data sets."""
        total = 0.0
        for set_name in sets:
            known = [score[set_name, name] for name in {*chain, *left} if (set_name, name) in score]
            best = max(score.get((set_name, name), 0.0) for name in names)
            total += (best - min(known)) / ((max(known) - min(known)) or 1.0)
        return total

    while left and len(chosen) < len(first) + PORTFOLIO_SIZE:
        best = max(left, key=lambda name: closed_gap([*chain, name]))
        if closed_gap([*chain, best]) <= closed_gap(chain) + 1e-9:
            if chain == first:
                break
            chain = list(first)
            continue
        chain.append(best)
        print(f"  {best:<24} {closed_gap(chain):.3f} of {len(sets)}")
        chosen.append(best)
        left.remove(best)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=sorted(CANDIDATES), default="scratch")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[name for name in SETS if name != "things"])
    parser.add_argument("--candidates", nargs="+", default=[""], help="only those whose names begin with one of these")
    args = parser.parse_args()
    folder = args.out / "sets"
    folder.mkdir(parents=True, exist_ok=True)
    history = args.out / "portfolio.jsonl"
    rows = [json.loads(line) for line in history.read_text().splitlines()] if history.exists() else []
    done = {(row["kind"], row["set"], row["candidate"]) for row in rows}
    for set_name in args.sets:
        wanted = [name for name in CANDIDATES[args.kind] if name.startswith(tuple(args.candidates))]
        if all((args.kind, set_name, name) in done for name in wanted):
            continue
        path = write_set(set_name, folder, args.out / "downloads")
        given = {"data.path": str(path), "data.validation": 0.33}
        base = build_base(args.kind, measure_facts(Experiment().override_all(given).data)).override_all(given)
        dataset = load(base, args.kind)
        base = base.override("data.batch", min(base.data.batch, len(dataset.train)))
        for candidate in wanted:
            if (args.kind, set_name, candidate) in done:
                continue
            experiment = base.override_all(CANDIDATES[args.kind][candidate])
            row = {"kind": args.kind, "set": set_name, "candidate": candidate}
            row |= train(experiment, dataset, args.out / "features" / set_name)
            rows.append(row)
            with history.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(
                f"{set_name:<10} {candidate:<24} {row['accuracy']:.2%} {row['loss']:.3f} {row['seconds']:.0f} s",
                flush=True,
            )
    rows = [row for row in rows if row["kind"] == args.kind]
    print("in this order:")
    order(rows, args.kind)
    for left_out in sorted({row["set"] for row in rows}):
        print(f"without {left_out}:")
        order([row for row in rows if row["set"] != left_out], args.kind)


if __name__ == "__main__":
    main()
