"""Is drift found, and nothing else? python tests/benchmarks/keep/drift.py [--sets fashion digits] [--windows 1000]

Trains a quick model, with its reference as every training stores it, and draws windows of 200 test images, each
answered once: false alarms on undrifted windows (the reference is fixed, as it is in use); windows of every corruption
at severity 3, and with a class of doubled share, in which drift is found; accuracy that is predicted under five
corruptions, against the true one.
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent.parent))

import numpy as np
import torch

from classifier import data
from classifier.bundle import bundle as bundles
from classifier.bundle.predictor import Predictor
from classifier.config.experiment import Experiment
from classifier.drift.measure import Drift, measure_drift
from classifier.drift.window import Window
from classifier.evaluation.corruptions import GROUPS, corrupt
from classifier.metrics.intervals import wilson

SETS = {
    "fashion": ["/usr/share/datasets/fashion-mnist", "--recipe", "fashion-quick", "--train.epochs", "6"],
    "digits": ["digits", "--recipe", "digits", "--data.test", "0.5"],
}
WINDOW, SEVERITY = 200, 3
ACCURACY_KINDS = ("gaussian_noise", "defocus_blur", "fog", "contrast", "jpeg")
POOL = 4000
"""Corrupted images of each kind."""


@dataclasses.dataclass(frozen=True)
class Pool:
    """Answered images, from which windows are drawn."""

    window: Window
    labels_N: np.ndarray

    def draw(self, rows: np.ndarray) -> Window:
        """Return a window of these images."""
        whole, ids = self.window, [str(n) for n in rows]
        scores_M, statistics_MF = (
            one if one is None else one[rows] for one in (whole.ood_scores_M, whole.statistics_MF)
        )
        return Window("window", ids, whole.probabilities_MK[rows], scores_M, statistics_MF)

    @property
    def accuracy(self) -> float:
        return float((self.window.probabilities_MK.argmax(1) == self.labels_N).mean())


def answer(predictor: Predictor, images_NCHW: torch.Tensor, labels_N: torch.Tensor) -> Pool:
    """Answer images in batches."""
    judgements = [predictor.judge(batch.numpy()) for batch in images_NCHW.split(predictor.engine.batch_size)]
    joined = type(judgements[0]).join(judgements)
    ids = [str(n) for n in range(len(images_NCHW))]
    scores = joined.probabilities_NK, joined.ood_scores_N, joined.statistics_NF
    return Pool(Window("pool", ids, *scores), labels_N.numpy())


def train(words: list[str], folder: Path) -> Path:
    """Train a model as a user would."""
    from classifier.api.training import train as train_here

    settings = dict(zip((word.removeprefix("--") for word in words[1::2]), words[2::2], strict=True))
    recipe = settings.pop("recipe")
    changes: dict[str, Any] = {name: float(value) if "." in value else int(value) for name, value in settings.items()}
    return train_here(words[0], recipe=recipe, name="model", out=str(folder), progress=False, **changes).folder


def doubled_rows(pool: Pool, k: int, rng: np.random.Generator) -> np.ndarray:
    """Return the rows of a window in which class k is twice as frequent."""
    is_own = pool.labels_N == k
    share = min(1.0, 2 * is_own.mean())
    own = rng.binomial(WINDOW, share)
    chosen = [
        rng.choice(np.flatnonzero(is_in), count, replace=count > is_in.sum())
        for is_in, count in ((is_own, own), (~is_own, WINDOW - own))
    ]
    return np.concatenate(chosen)


def rate(found: list[bool]) -> str:
    low, high = wilson(sum(found), len(found))
    return f"{np.mean(found):6.1%} of {len(found):4} ({low:.1%} to {high:.1%})"


def run(name: str, path: Path, windows: int) -> Iterator[str]:
    """Yield the lines of the table."""
    predictor = Predictor(path, device="cpu", engine="torch")
    reference = bundles.load_reference(path)
    assert reference is not None
    dataset = data.load(Experiment.from_dict(predictor.bundle.experiment).data)
    images_NCHW, labels_N = dataset.test.images_NCHW[:], dataset.test.labels_N
    clean = answer(predictor, images_NCHW, labels_N)
    rng = np.random.Generator(np.random.Philox(0))
    class_names, calibration = predictor.class_names, predictor.calibration

    def measure(window: Window, seed: int) -> Drift:
        return measure_drift(reference, window, class_names, calibration, with_estimates=False, seed=seed)

    yield f"{name}: accuracy {clean.accuracy:.2%} on {len(labels_N):,}, reference of {len(reference):,} images"
    began = time.monotonic()
    drifts = [measure(clean.draw(rng.choice(len(labels_N), WINDOW, replace=False)), n) for n in range(windows)]
    seconds = (time.monotonic() - began) / windows
    yield f"{'false alarms':28} {rate([one.is_found for one in drifts])}, {seconds:.2f} s a window"
    for kind in (test.kind for test in drifts[0].tests):
        alarms = [any(test.kind == kind for test in one.found) for one in drifts]
        yield f"{'  by ' + kind:28} {rate(alarms)}"
    by_class = []
    for k, class_name in enumerate(class_names):
        by_class.append([measure(clean.draw(doubled_rows(clean, k, rng)), n).is_found for n in range(windows // 10)])
        yield f"{'  twice ' + class_name:28} {rate(by_class[-1])}"
    yield f"{'a doubled class, mean':28} {rate([one for found in by_class for one in found])}"
    pool, found = min(POOL, len(labels_N)), {}
    errors = []
    for kind in (kind for kinds in GROUPS.values() for kind in kinds):
        corrupted = answer(predictor, corrupt(images_NCHW[:pool], kind, SEVERITY), labels_N[:pool])
        rows = [rng.choice(pool, min(WINDOW, pool), replace=False) for _ in range(windows // 20)]
        found[kind] = [measure(corrupted.draw(one), n).is_found for n, one in enumerate(rows)]
        found_all = measure_drift(reference, corrupted.window, class_names, calibration)
        expected = found_all.accuracy
        assert expected is not None
        assert expected.transport is not None
        error = expected.value - corrupted.accuracy
        errors.append((kind, error))
        yield (
            f"{'  ' + kind:28} {rate(found[kind])}  accuracy {corrupted.accuracy:6.2%}, expected {expected.value:6.2%} "
            f"({error:+.1%}; confidence {expected.confidence.value:.1%}, ATC {expected.threshold.value:.1%}, "
            f"transport {expected.transport.value:.1%})"
        )
    yield f"{'corruptions, mean':28} {rate([one for own in found.values() for one in own])}"
    chosen = [abs(error) for kind, error in errors if kind in ACCURACY_KINDS]
    yield f"expected accuracy, five corruptions: off by {max(chosen):.1%} at most, mean {statistics.mean(chosen):.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--run", type=Path, help="a run of the set that is trained already")
    arguments = parser.parse_args()
    for name in arguments.sets:
        with tempfile.TemporaryDirectory() as folder:
            for line in run(name, arguments.run or train(SETS[name], Path(folder)), arguments.windows):
                print(line, flush=True)


if __name__ == "__main__":
    main()
