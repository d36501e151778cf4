"""Which settings are good on many data sets: python tests/benchmarks/portfolio.py OUT [--photos PATH] [--clothes PATH]

Trains each candidate on each set with a third of its training images held out (test splits are never read), a line a
training in OUT/portfolio.jsonl, and goes on where it was. Then prints the order in which candidates, after the recipe,
close most of the gap to the best known on each set, summed over the sets: greedily, as in Wistuba et al., "Sequential
Model-Free Hyperparameter Tuning", 2015. The result belongs into classifier/search/portfolio.py.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
from PIL import Image

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.recipes import recipe, recipe_for
from classifier.data.dataset import Split
from classifier.training.loop import fit
from classifier.training.resolve import resolve

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
# Epochs enough to tell candidates apart in about half a minute each.
EPOCHS = {"digits": 20, "clothes": 8, "photos": 60, "cuttings": 60, "faces": 40}
MOST = 6000
# Candidates in the list.
MANY = 4


def cuttings(folder: Path) -> None:
    """scikit-image's photographs, in tiles: a class is a photograph."""
    import skimage

    for name in ("astronaut", "brick", "chelsea", "coffee", "grass", "gravel", "hubble_deep_field", "ihc"):
        (path,) = (Path(skimage.__file__).parent / "data").glob(f"{name}.*")
        photograph = Image.open(path).convert("RGB")
        (folder / name).mkdir(parents=True)
        for x in range(0, photograph.width - 63, 64):
            for y in range(0, photograph.height - 63, 64):
                photograph.crop((x, y, x + 64, y + 64)).save(folder / name / f"{x}-{y}.png")


def faces(folder: Path) -> None:
    """scikit-image's 100 faces and 100 other things, of 25 x 25 pixels."""
    import skimage

    images = np.load(Path(skimage.__file__).parent / "data" / "lfw_subset.npy")
    for i, image in enumerate(images):
        home = folder / ("face" if i < 100 else "other")
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * image).astype(np.uint8)).save(home / f"{i:03d}.png")


def train(path: str, epochs: int, changes: dict) -> dict:
    """The best validation accuracy and loss of one candidate on one set, and its seconds."""
    base = recipe(recipe_for(path)).override_all({"data.path": path, "data.validation": 0.33, "train.epochs": epochs})
    dataset = data.load(base.data)
    some = dataset.train
    if len(some) > MOST:
        some = Split(some.images_NCHW[:MOST], some.labels_N[:MOST], some.ids[:MOST])
        dataset = dataclasses.replace(dataset, train=some)
    experiment: Experiment = resolve(base.override_all(changes), dataset)
    began = time.perf_counter()
    scores = [epoch.validation for epoch in fit(experiment, dataset) if epoch.validation]
    best = scores[-1] if experiment.train.keep == "last" else max(scores, key=lambda s: (s["accuracy"], -s["loss"]))
    seconds = time.perf_counter() - began
    return {"accuracy": best["accuracy"], "loss": best["loss"], "seconds": round(seconds, 1)}


def order(rows: list[dict]) -> list[str]:
    """Candidates, the recipe first, each chosen for what it adds to those before it.

    Where the best of all sets is found they begin anew without those before: these may be too slow for a search.
    """
    sets = sorted({row["set"] for row in rows})
    score = {(row["set"], row["candidate"]): row["accuracy"] for row in rows}
    chosen, since, left = ["recipe"], ["recipe"], [name for name in CANDIDATES if name != "recipe"]

    def reached(names: list[str]) -> float:
        """The share of the way from the worst to the best of those that are left, summed over the sets."""
        total = 0.0
        for one in sets:
            known = [score[one, name] for name in {*since, *left} if (one, name) in score]
            best = max(score.get((one, name), 0.0) for name in names)
            total += (best - min(known)) / ((max(known) - min(known)) or 1.0)
        return total

    while left and len(chosen) <= MANY:
        best = max(left, key=lambda name: reached([*since, name]))
        if reached([*since, best]) <= reached(since) + 1e-9:
            if since == ["recipe"]:
                break
            since = ["recipe"]
            continue
        since.append(best)
        print(f"  {best:<24} {reached(since):.3f} of {len(sets)}")
        chosen.append(best)
        left.remove(best)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--photos")
    parser.add_argument("--clothes")
    words = parser.parse_args()
    words.out.mkdir(parents=True, exist_ok=True)
    journal = words.out / "portfolio.jsonl"
    rows = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    done = {(row["set"], row["candidate"]) for row in rows}
    with tempfile.TemporaryDirectory() as made:
        cuttings(Path(made) / "cuttings")
        faces(Path(made) / "faces")
        sets = {"digits": "digits", "cuttings": f"{made}/cuttings", "faces": f"{made}/faces"}
        sets |= {name: path for name in ("photos", "clothes") if (path := getattr(words, name))}
        for one, path in sets.items():
            for candidate, changes in CANDIDATES.items():
                if (one, candidate) in done:
                    continue
                row = {"set": one, "candidate": candidate} | train(path, EPOCHS[one], changes)
                rows.append(row)
                with journal.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(
                    f"{one:<10} {candidate:<24} {row['accuracy']:.2%} {row['loss']:.3f} {row['seconds']:.0f} s",
                    flush=True,
                )
    print("in this order:")
    order(rows)
    for left_out in sorted({row["set"] for row in rows}):
        print(f"without {left_out}:")
        order([row for row in rows if row["set"] != left_out])


if __name__ == "__main__":
    main()
