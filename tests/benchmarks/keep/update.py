"""What does an update forget? python tests/benchmarks/keep/update.py OUT [--draws 5] [--memory 500]

Split Fashion-MNIST: its 10 classes come in 5 tasks of 2, in another order in each draw. A model is trained on the first
(recipe fashion-quick) and updated with the others in turn by `update`, with a memory of 500 images. Beside it the same
recipe on all classes at once (joint), on the memory alone at the end (GDumb), and on each task's images alone, from the
weights of the task before (naive). All are scored on the 10,000 test images. The seconds are of training alone: of the
updates the largest and the sum. Each draw stays in OUT/draws/N.json, so that a later call goes on.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent.parent))

import torch
from PIL import Image

from classifier import data
from classifier.bundle import bundle as bundles
from classifier.compress.train_step import train_step
from classifier.config.recipes import recipe
from classifier.config.sections import DataConfig
from classifier.data.dataset import Dataset
from classifier.runs.folder import read_history
from classifier.training.state import build_model
from classifier.update.compose import compose
from classifier.update.grow_head import grow_head
from classifier.update.images import load_new_images, read_composed_as
from classifier.update.judge import find_hits
from classifier.update.plan import plan_update
from tests.benchmarks.sets import fetch_debian

ROOT = Path(__file__).resolve().parent.parent.parent.parent
FASHION = Path("/usr/share/datasets/fashion-mnist")
TASKS, FIRST = 5, ("--recipe", "fashion-quick", "--train.threads", "1")
COLUMNS = ("update", "memory alone", "naive", "joint")


def write_classes(path: Path, folder: Path) -> None:
    """Write Fashion-MNIST as PNG files: folder/train/CLASS and folder/test/CLASS."""
    if folder.exists():
        return
    part, dataset = folder.with_name("classes.part"), data.load(DataConfig(path=str(path), validation=0.0))
    for name in ("train", "test"):
        split = getattr(dataset, name)
        for n, (image_CHW, k) in enumerate(zip(split.images_NCHW[:], split.labels_N.tolist(), strict=True)):
            file = part / name / str(k) / f"{n:05d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image_CHW[0].numpy()).save(file)
    part.rename(folder)


def link_task(classes: Path, chosen: list[int], folder: Path) -> Path:
    """Make a data set of these classes, by links."""
    for name in ("train", "test"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for k in chosen:
            with contextlib.suppress(FileExistsError):
                (folder / name / str(k)).symlink_to((classes / name / str(k)).absolute())
    return folder


def run(verb: str, *words: object, out: Path) -> None:
    """Run a verb to its end; nothing is done if its run is finished."""
    name = str(words[-1])
    if (out / name / "result.json").is_file():
        return
    command = [sys.executable, ROOT / "jobs" / f"{verb}.py", *words[:-1], "--name", name, "--out", out]
    with (out.parent / f"{name}.log").open("w") as log:
        subprocess.run(list(map(str, command)), check=True, stdout=log, stderr=log, env=os.environ)


def train_naively(task: Path, before: Path, folder: Path) -> None:
    """Train the model in `before` on the images of a task alone; the run is in `folder`/step."""
    loaded = bundles.load(before)
    about = loaded.bundle
    new = load_new_images(before, about, str(task), {})
    if not (folder / "data").exists():
        compose(new, new, 0, folder)  # its old part holds no training images
    config = read_composed_as(about, folder / "data" / "new")
    dataset = data.load(config)
    names = tuple(sorted({*about.class_names, *new.class_names}))
    dataset = with_classes(dataset, names)
    document: Any = {"epochs": None, "run_epochs": recipe("fashion-quick").train.epochs}
    experiment = plan_update(about, config, folder, document, len(dataset.train))
    experiment = experiment.override_all({"loss.distill": 0.0, "data.balance": 0.0})
    weights = grow_head(loaded.model.state_dict(), about.class_names, build_model(experiment, dataset), names)
    train_step(
        folder / "step",
        experiment,
        dataset,
        teacher=None,
        weights=weights,
        should_stop=lambda: False,
        on_epoch=lambda epoch, epochs: None,
    )


def with_classes(dataset: Dataset, names: tuple[str, ...]) -> Dataset:
    """Return the data set as one of more classes."""
    import dataclasses

    positions = torch.tensor([names.index(name) for name in dataset.class_names])
    splits = {
        name: dataclasses.replace(split, labels_N=positions[split.labels_N])
        for name in ("train", "validation", "test")
        for split in [getattr(dataset, name)]
    }
    return dataclasses.replace(dataset, class_names=names, **splits)


def score(folder: Path, dataset: Dataset) -> float:
    """Return the accuracy of a model on all test images."""
    return float(find_hits(bundles.load(folder), dataset.test, dataset.class_names).mean())


def seconds(folder: Path) -> float:
    return sum(row["seconds"] for row in read_history(folder))


def measure(draw: int, classes: Path, dataset: Dataset, out: Path, memory: int) -> dict[str, Any]:
    """Return accuracies and seconds of a draw. dataset: of the test images."""
    order = torch.randperm(10, generator=torch.Generator().manual_seed(draw)).tolist()
    runs = out / f"runs-{draw}" / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    tasks = [link_task(classes, order[2 * n :][:2], runs.parent / f"task-{n}") for n in range(TASKS)]
    run("train", link_task(classes, order, runs.parent / "all"), *FIRST, "--seed", draw, "joint", out=runs)
    run("train", tasks[0], *FIRST, "--seed", draw, "update-0", out=runs)
    for n in range(1, TASKS):
        baseline = ("--baseline", "true" if n == TASKS - 1 else "false")
        words = (runs / f"update-{n - 1}", tasks[n], "--memory", memory, "--max-loss", 100, *baseline)
        run("update", *words, f"update-{n}", out=runs)
        before = runs / "update-0" if n == 1 else runs / f"naive-{n - 1}" / "step"
        train_naively(tasks[n], before, runs / f"naive-{n}")
    steps = [runs / f"update-{n}" / "steps" / "replay" for n in range(1, TASKS)]
    spent = [seconds(folder) for folder in steps]
    last = runs / f"update-{TASKS - 1}" / "steps"
    folders = (last / "replay", last / "memory-alone", runs / f"naive-{TASKS - 1}" / "step", runs / "joint")
    return {
        "accuracy": dict(zip(COLUMNS, (score(folder, dataset) for folder in folders), strict=True)),
        "seconds": {
            "joint": seconds(runs / "joint"),
            "largest": max(spent),
            "sum": sum(spent) + seconds(runs / "update-0"),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--memory", type=int, default=500)
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    (out / "draws").mkdir(parents=True, exist_ok=True)
    write_classes(fetch_debian("dataset-fashion-mnist", FASHION, out), out / "classes")
    dataset = data.load(DataConfig(path=str(out / "classes")))
    found = []
    for draw in range(arguments.draws):
        path = out / "draws" / f"{draw}.json"
        if not path.exists():
            measured = measure(draw, out / "classes", dataset, out, arguments.memory)
            path.write_text(json.dumps(measured))
        found.append(json.loads(path.read_text()))
        print(draw, found[-1], flush=True)
    print("| | accuracy | seconds of training |\n|---|---|---|")
    for name in COLUMNS:
        values = [100 * one["accuracy"][name] for one in found]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        times = [one["seconds"] for one in found]
        mean = {key: statistics.mean(time[key] for time in times) for key in times[0]}
        spent = {"update": f"{mean['largest']:.0f} at most, {mean['sum']:.0f} in all", "joint": f"{mean['joint']:.0f}"}
        print(f"| {name} | {statistics.mean(values):.2f} ± {spread:.2f} % | {spent.get(name, '')} |")


if __name__ == "__main__":
    main()
