"""What to label next, against a random choice: labels with which a linear probe reaches the same test accuracy.

    python tests/benchmarks/keep/label.py [fashion] [photos] [--out FOLDER]

Fashion-MNIST: 5,000 images to choose from and 3,000 for the test. Photographs: the 284 of sets.py, of which each seed
draws 91 for the test. Features are those of the installed backbone, as `classifier label FOLDER` computes them, once.
After each round the probe is fitted anew, its penalty by cross-validation. Near duplicates are chosen once. Means of 5
seeds; the random choice is drawn 4 times for each. Labels saved: by linear interpolation of the two mean curves.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent.parent))

import numpy as np
import torch
from PIL import Image

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig
from classifier.inference.logistic_regression import fit_linear_probe
from classifier.label import choose as choosing
from classifier.label.backbone import open_pretrained
from classifier.label.guess import guess
from classifier.label.pool import Pool, build_pool, scan_files
from tests.benchmarks.sets import fetch_debian, write_set

SEEDS, DRAWS = 5, 4
FASHION = Path("/usr/share/datasets/fashion-mnist")
ROUNDS = {
    "fashion": (20, 40, 60, 80, 100, 140, 200, 280, 400, 560, 800),
    "photos": (5, 10, 15, 20, 30, 40, 50, 60, 80, 100, 120, 140),
}


@dataclass(frozen=True, eq=False)
class Images:
    """A pool with the labels that are hidden from the choice, and images for the test."""

    pool: Pool
    labels: list[str]
    test_NF: torch.Tensor
    test_labels: list[str]

    @property
    def classes(self) -> list[str]:
        return sorted({*self.labels})


def measure(images: Images, chosen: list[int]) -> float:
    """Return the test accuracy of a linear probe of these images."""
    features_MF = torch.from_numpy(images.pool.features_NF[chosen])
    numbers_M = torch.tensor([images.classes.index(images.labels[n]) for n in chosen])
    if len(numbers_M.unique()) < 2:
        predicted_N = numbers_M[:1].expand(len(images.test_labels))
    else:
        predicted_N = fit_linear_probe(features_MF, numbers_M, len(images.classes)).head(images.test_NF).argmax(1)
    truth_N = torch.tensor([images.classes.index(one) for one in images.test_labels])
    return float((predicted_N == truth_N).float().mean())


def follow_choice(images: Images, rounds: tuple[int, ...], seed: int) -> list[float]:
    """Return the accuracy after each round of choosing and labelling."""
    labels: dict[int, tuple[str, ...]] = {}
    curve = []
    for size in rounds:
        guesses = guess(images.pool, (), labels)
        choice = choosing.choose(images.pool, guesses, labels, (), size - len(labels), seed + len(labels))
        labels |= {n: (images.labels[n],) for n in choice.images}
        curve.append(measure(images, [*labels]))
    return curve


def follow_random(images: Images, rounds: tuple[int, ...], seed: int) -> list[float]:
    order = np.random.default_rng(seed).permutation(len(images.labels)).tolist()
    return [measure(images, order[:size]) for size in rounds]


def load_fashion(out: Path) -> Callable[[int], Images]:
    """Write images of Fashion-MNIST as files, and return the function from a seed to the images."""
    folder = out / "label-fashion"
    if not folder.is_dir():
        partial = out / "label-fashion.part"
        path = fetch_debian("dataset-fashion-mnist", FASHION, out)
        dataset = data.load(Experiment().override("data.path", str(path)).data)
        assert dataset.test is not None
        for split, part, count in (("pool", dataset.train, 5000), ("test", dataset.test, 3000)):
            (partial / split).mkdir(parents=True, exist_ok=True)
            for n in torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:count].tolist():
                [image_CHW] = part.images_NCHW[n : n + 1].numpy()
                name = dataset.class_names[int(part.labels_N[n])].replace("/", "-")
                Image.fromarray(image_CHW[0]).save(partial / split / f"{name}.{n}.png")
        partial.rename(folder)
    pools = {split: compute(sorted((folder / split).iterdir()), folder, split) for split in ("pool", "test")}
    labels = {split: [file.name.partition(".")[0] for file in pool.files] for split, pool in pools.items()}
    test_NF = torch.from_numpy(pools["test"].features_NF)
    images = Images(pools["pool"], labels["pool"], test_NF, labels["test"])
    return lambda _: images


def load_photos(out: Path) -> Callable[[int], Images]:
    """Write the photographs, and return the function from a seed to its split of them."""
    files = sorted(write_set("photos", out, out).rglob("*.png"))
    whole = compute(files, out / "photos", "all")
    labels = np.array([file.parent.name for file in whole.files])

    def split(seed: int) -> Images:
        rng = np.random.default_rng(seed)
        is_test_N = np.zeros(len(labels), bool)
        for name in np.unique(labels):
            own = rng.permutation(np.flatnonzero(labels == name))
            is_test_N[own[: round(0.32 * len(own))]] = True
        kept = np.flatnonzero(~is_test_N)
        pool = Pool(tuple(whole.files[n] for n in kept), whole.features_NF[kept], whole.groups_N[kept])
        test_NF = torch.from_numpy(whole.features_NF[is_test_N])
        return Images(pool, labels[kept].tolist(), test_NF, labels[is_test_N].tolist())

    return split


def compute(files: list[Path], folder: Path, name: str) -> Pool:
    """Return the pool of some images; its features are computed once."""
    scan = scan_files(files, DataConfig())
    side = int(np.median(scan.sizes_K2.min(1)))
    return build_pool(scan, open_pretrained(side, DataConfig(), "cpu"), DataConfig(), folder / f"{name}.safetensors")


def find_labels(curve: list[float], rounds: tuple[int, ...], accuracy: float) -> float | None:
    """Return with how many labels a curve reaches an accuracy first; None if it does not."""
    best = np.maximum.accumulate(curve)
    if best[-1] < accuracy:
        return None
    at = int(np.argmax(best >= accuracy))
    if at == 0:
        return float(rounds[0])
    share = (accuracy - best[at - 1]) / (best[at] - best[at - 1])
    return rounds[at - 1] + share * (rounds[at] - rounds[at - 1])


def compare(name: str, load: Callable[[int], Images]) -> None:
    began, rounds = time.perf_counter(), ROUNDS[name]
    ours = np.array([follow_choice(load(seed), rounds, seed) for seed in range(SEEDS)])
    random = np.array(
        [follow_random(load(seed), rounds, 1000 * seed + draw) for seed in range(SEEDS) for draw in range(DRAWS)]
    )
    images = load(0)
    print(f"\n{name}: {len(images.labels):,} images to choose from, {len(images.test_labels):,} for the test")
    print(f"{'labels':>6}  {'random':>15}  {'chosen':>15}  as good as random with  labels saved")
    for n, size in enumerate(rounds):
        needed = find_labels(ours.mean(0).tolist(), rounds, float(random[:, n].mean()))
        saved = "" if needed is None else f"{needed:14.0f} of {size:<5} {1 - needed / size:>13.0%}"
        columns = [f"{100 * one.mean():6.2f} % ± {100 * one.std(ddof=1):4.2f}" for one in (random[:, n], ours[:, n])]
        print(f"{size:>6}  {columns[0]:>15}  {columns[1]:>15}  {saved}", flush=True)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=["photos", "fashion"])
    parser.add_argument("--out", type=Path, default=Path("/tmp/classifier-label"))
    parser.add_argument("--few", type=float, help="labels a class below which typical images are chosen")
    arguments = parser.parse_args()
    if arguments.few is not None:
        choosing.FEW_LABELS = arguments.few
    arguments.out.mkdir(parents=True, exist_ok=True)
    for one in arguments.sets:
        compare(one, {"fashion": load_fashion, "photos": load_photos}[one](arguments.out))
