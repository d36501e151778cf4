"""Images with columns against either alone: python tests/benchmarks/tasks/columns.py [--group unit]

Units of the game Wesnoth (Debian's wesnoth-1.16-data): the sprite, columns of the unit's file, and its usage (fighter,
scout, ...) as the label. --group line keeps the levels of a unit, into which it advances, in one fold. For each set of
columns the probe of the recipe `auto` is fitted to the table alone (all images are missing), to the images alone and to
both; beside them stand the scores of ExtraTrees on raw pixels and columns, a simple trial.
"""

import argparse
import dataclasses
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent.parent))

import pyarrow as pa
import pyarrow.csv
import torch
from sklearn.ensemble import ExtraTreesClassifier

from classifier import data
from classifier.config.auto_recipe import Facts, build_probe
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset, Split
from classifier.inference.scorer import Scorer
from classifier.training.loop import fit
from classifier.training.resolve import resolve

ROOT = Path("/usr/share/games/wesnoth/1.16/data/core")
NUMBERS = ("hitpoints", "cost", "movement", "experience", "level")
TEXTS = ("race", "alignment", "movement_type")
TRIAL = ("hitpoints", "cost", "movement", "attacks")
"""The columns that a simple trial had, more or less."""
PIXELS = 32


def read_units(group: str) -> Iterator[dict[str, Any]]:
    """Yield a row of each unit that has a sprite of its own and a usage. group: unit or line."""
    seen, lines = set[str](), dict[str, str]()
    for path in sorted((ROOT / "units").rglob("*.cfg")):
        text = re.sub(r"^\s*#.*$", "", path.read_text("utf-8", "replace"), flags=re.MULTILINE)
        for body in re.findall(r"\[unit_type\](.*?)\[/unit_type\]", text, re.DOTALL):
            keys, attacks = parse_unit(body)
            image = ROOT / "images" / re.split(r"[~:]", keys.get("image", ""))[0]
            if keys.get("usage", "null") == "null" or not image.is_file() or str(image) in seen:
                continue
            seen.add(str(image))
            advances = [keys["id"], *map(str.strip, keys.get("advances_to", "").split(","))]
            line = next((lines[name] for name in advances if name in lines), keys["id"])
            lines |= dict.fromkeys((name for name in advances if name != "null"), line)
            own = keys["id"] if group == "unit" else line
            yield {"path": str(image), "label": keys["usage"], "group": own, **describe_unit(keys, attacks)}


def parse_unit(body: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Return the keys of a unit, and those of each of its attacks."""
    keys, attacks, depth, is_attack = dict[str, str](), list[dict[str, str]](), 0, False
    for line in map(str.strip, body.splitlines()):
        if line.startswith("[/"):
            depth -= 1
        elif line.startswith("["):
            depth += 1
            if depth == 1 and line == "[attack]":
                attacks.append({})
            is_attack = depth == 1 and line == "[attack]"
        elif pair := re.match(r'(\w+)\s*=\s*_?\s*"?(.*?)"?\s*$', line):
            if depth == 0:
                keys.setdefault(pair[1], pair[2])
            elif depth == 1 and is_attack:
                attacks[-1][pair[1]] = pair[2]
    return keys, attacks


def describe_unit(keys: dict[str, str], attacks: list[dict[str, str]]) -> dict[str, Any]:
    """Return the columns of a unit; None where it has no attack of a kind."""
    row: dict[str, Any] = {name: float(keys[name]) for name in NUMBERS} | {"attacks": float(len(attacks))}
    for kind in ("melee", "ranged"):
        of_kind = [attack for attack in attacks if attack.get("range") == kind]
        for column, key in (("damage", "damage"), ("strikes", "number")):
            row[f"{kind}_{column}"] = max((float(attack.get(key, 0)) for attack in of_kind), default=None)
    return row | {name: keys[name] for name in TEXTS}


def load_fold(manifest: Path, fold: int, folds: int, seed: int, columns: tuple[str, ...]) -> tuple[Experiment, Dataset]:
    """Return the experiment that the recipe `auto` would choose, without a choice of backbones, and its data."""
    given = {
        "data.path": str(manifest),
        "data.outside": True,
        "data.group": "group",
        "data.columns": columns,
        "data.folds": folds,
        "data.fold": fold,
        "data.split_seed": seed,
    }
    facts = Facts(images=180, classes=5, side=72)
    experiment = build_probe(facts).override_all(given)
    dataset = data.load(experiment.data)
    return resolve(experiment, dataset), dataset


def hide_images(split: Split) -> Split:
    assert split.columns_NF is not None
    columns_NF = split.columns_NF.clone()
    columns_NF[:, 0] = 0
    return dataclasses.replace(split, columns_NF=columns_NF)


def score(experiment: Experiment, dataset: Dataset) -> tuple[int, str]:
    """Train, and return how many images of the test split are right, and how columns join them."""
    *_, last = fit(experiment, dataset)
    scorer = Scorer.from_experiment(experiment, dataset, torch.device("cpu"))
    probabilities_NK = scorer.predict_split(last.model, dataset.test)[1]
    hits = int((probabilities_NK.argmax(1) == dataset.test.labels_N).sum())
    return hits, last.fusion["chosen"] if last.fusion else "head"


def score_trial(dataset: Dataset, what: str) -> int:
    """Return how many images of the test split ExtraTrees on raw pixels and columns are right about."""
    parts = []
    for split in (dataset.train, dataset.test):
        images_NCHW = torch.nn.functional.interpolate(split.images_NCHW[:].float(), PIXELS, mode="area")
        assert split.columns_NF is not None
        tables = {"image": images_NCHW.flatten(1), "table": split.columns_NF[:, 1:]}
        chosen = tables.values() if what == "both" else [tables[what]]
        parts.append(torch.cat(list(chosen), 1).numpy())
    trees = ExtraTreesClassifier(300, random_state=0).fit(parts[0], dataset.train.labels_N.numpy())
    return int((trees.predict(parts[1]) == dataset.test.labels_N.numpy()).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1, help="how often folds are drawn")
    parser.add_argument("--group", choices=("unit", "line"), default="unit", help="what stays in one fold")
    options = parser.parse_args()
    rows = list(read_units(options.group))
    print(f"{len(rows)} units, {len({row['label'] for row in rows})} usages, {options.folds} folds x {options.seeds}")
    print(f"{'columns':<10} {'model':<12} {'table':>14} {'image':>14} {'both':>14}   accuracy, standard error; chosen")
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "units.csv"
        pyarrow.csv.write_csv(pa.Table.from_pylist(rows), manifest)
        for name, columns in (("few", TRIAL), ("all", ("all",))):
            started = time.perf_counter()
            hits: dict[str, list[int]] = {}
            chosen, counts = list[str](), list[int]()
            for seed in range(options.seeds):
                for fold in range(options.folds):
                    experiment, dataset = load_fold(manifest, fold, options.folds, seed, columns)
                    counts.append(len(dataset.test))
                    for what in ("table", "image", "both"):
                        hits.setdefault(f"trial {what}", []).append(score_trial(dataset, what))
                    both, how = score(experiment, dataset)
                    splits = {one: hide_images(getattr(dataset, one)) for one in ("train", "validation", "test")}
                    table, _ = score(experiment, dataclasses.replace(dataset, **splits))
                    splits = {
                        one: dataclasses.replace(getattr(dataset, one), columns_NF=None)
                        for one in ("train", "validation", "test")
                    }
                    image, _ = score(experiment, dataclasses.replace(dataset, columns=None, **splits))
                    for what, count in (("table", table), ("image", image), ("both", both)):
                        hits.setdefault(what, []).append(count)
                    chosen.append(how)
            for model, prefix in (("ExtraTrees", "trial "), ("classifier", "")):
                cells = [describe(hits[f"{prefix}{what}"], counts) for what in ("table", "image", "both")]
                print(f"{name:<10} {model:<12} {' '.join(cells)}" + ("" if prefix else f"   {', '.join(chosen)}"))
            print(f"{'':<10} {time.perf_counter() - started:.0f} s", flush=True)


def describe(hits: list[int], counts: list[int]) -> str:
    """Return the share that is right, and its standard error over images."""
    share = sum(hits) / sum(counts)
    error = (share * (1 - share) / (sum(counts) / max(1, len(counts) // 5))) ** 0.5
    return f"{share:>7.1%} ± {error:.1%}"


if __name__ == "__main__":
    main()
