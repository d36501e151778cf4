"""Is the default the best? python tests/benchmarks/default.py OUT [--sets NAME ...] [--columns NAME ...] [--table]

Sets of many kinds (sets.py), each trained by `train` without flags, by every fixed recipe and by what others would
write or call (rivals.py), on the same training images, and scored on the same test images. Each cell of the table is a
process; its result stays in OUT/cells/SET/COLUMN-SEED.json, with its log, so that a later call goes on. A cell whose
file is deleted runs again. The table has the mean test accuracy over --seeds (0 1 2) ± standard deviation, and the mean
seconds of `train` to its end, of others to the trained model. The last column says how far the first is behind the
best other, in bold where that is more than a point and more than luck by the paired 95 % interval.

--cap SECONDS (600) limits a training by a fixed recipe, and every process to twice as long. timm's loop, Ultralytics
and AutoGluon get the seconds that the default took on that set with that seed, for the training alone. The last two are
installed into OUT/rivals on top of the packages that are here, so that all have the same torch.

Unfair: the best of many columns, seen on the test images, is better than it will be on others. The rules of the default
come from sets like these. What others need to start and to download is not counted; Ultralytics trains from scratch
where it cannot download. A training with --data.cache in an empty folder decodes its images anew, as the others do; the
only other flags of the first column are --seed, --out and --name.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.benchmarks.cells import NO_FLAGS, Cell, describe_cells, format_table
from tests.benchmarks.rivals import BACKBONE, RIVALS
from tests.benchmarks.sets import SETS, write_set

ROOT = Path(__file__).resolve().parent.parent.parent
LITE0 = ("--model.name", f"timm/{BACKBONE}", "--model.weights", "imagenet")
RECIPES: dict[str, tuple[str, ...]] = {
    "digits": ("--recipe", "digits"),
    "fashion-quick": ("--recipe", "fashion-quick"),
    "fashion": ("--recipe", "fashion"),
    "photos": ("--recipe", "photos"),
    "finetune": ("--recipe", "finetune", *LITE0),
}
COLUMNS = (NO_FLAGS, *RECIPES, *RIVALS)
# The data sets that are known by name, and what pip installs for a column.
BY_NAME = ("digits",)
PACKAGES = {"ultralytics": "ultralytics", "autogluon": "autogluon.multimodal"}
IN_EQUAL_TIME = ("timm", *PACKAGES)
INSTALL_SECONDS = 900


class CellError(Exception):
    """A training without a score: why, in a few words."""


@dataclass(frozen=True)
class Bench:
    out: Path
    cap: float

    def file(self, set_name: str, column: str, seed: int) -> Path:
        return self.out / "cells" / set_name / f"{column.replace(' ', '-')}-{seed}.json"

    def read(self, set_name: str, column: str, seed: int) -> Cell | None:
        file = self.file(set_name, column, seed)
        if not file.exists():
            return None
        return Cell(**(values := json.loads(file.read_text())) | {"wrong": tuple(values["wrong"])})

    def fill(self, set_name: str, column: str, seed: int) -> Cell:
        """Train and test a cell, and keep its result."""
        train = train_by_rival if column in RIVALS else train_here
        self.file(set_name, column, seed).with_suffix(".log").unlink(missing_ok=True)
        try:
            cell = train(self, self.write_set(set_name), column, seed)
        except CellError as error:
            cell = Cell(set_name, column, seed, problem=str(error))
        file = self.file(set_name, column, seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".tmp")
        partial.write_text(json.dumps(asdict(cell)))
        partial.rename(file)
        return cell

    def write_set(self, name: str) -> Path:
        try:
            return write_set(name, self.out / "sets", self.out / "downloads")
        except (OSError, subprocess.CalledProcessError) as error:
            raise CellError(f"no images: {error}") from error

    def run(self, command: Sequence[str | Path], log: Path, scratch: str, *, seconds: float = 0.0) -> float:
        """Run a command to its end and return its seconds; CellError if it fails or takes too long.

        That is twice the cap longer than the seconds that it was given.
        """
        limit = seconds + 2 * self.cap
        began = time.monotonic()
        environment = os.environ | {"YOLO_CONFIG_DIR": str(self.out / "rivals")}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            process = subprocess.Popen(
                list(map(str, command)), stdout=file, stderr=file, cwd=scratch, env=environment, start_new_session=True
            )
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                raise CellError(f"over {limit:.0f} s") from None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if code:
            *_, reason = ["", *log.read_text(errors="replace").splitlines()]
            raise CellError(f"failed: {reason}")
        return time.monotonic() - began


def train_here(bench: Bench, folder: Path, column: str, seed: int) -> Cell:
    """Train by this program, and evaluate its run."""
    import pyarrow.parquet as pq

    path = folder.name if folder.name in BY_NAME else str(folder)
    flags = [] if column == NO_FLAGS else [*RECIPES[column], "--train.minutes", str(bench.cap / 60)]
    log = bench.file(folder.name, column, seed).with_suffix(".log")
    with tempfile.TemporaryDirectory(dir=bench.out) as scratch:
        keep = ["--seed", str(seed), "--data.cache", f"{scratch}/cache", "--out", scratch, "--name", "run"]
        jobs = ROOT / "jobs"
        seconds = bench.run([sys.executable, jobs / "train.py", path, *flags, *keep], log, scratch)
        evaluate = [sys.executable, jobs / "evaluate.py", f"{scratch}/run", "--data.cache", f"{scratch}/cache"]
        bench.run(evaluate, log, scratch)
        result = json.loads((Path(scratch) / "run" / "result.json").read_text())
        table = pq.read_table(Path(scratch) / "run" / "predictions.parquet")
    planned, model = result["config"]["train"]["epochs"], result["config"]["model"]["name"]
    rows = zip(*(table[name].to_pylist() for name in ("image_id", "label", "predicted")), strict=True)
    return Cell(
        folder.name,
        column,
        seed,
        seconds=round(seconds, 1),
        wrong=tuple(Path(id).stem for id, label, predicted in rows if label != predicted),
        count=table.num_rows,
        note=f"{model}, {result['epochs']} of {planned} epochs",
        cut=column != NO_FLAGS and result["epochs"] < planned,
    )


def train_by_rival(bench: Bench, folder: Path, column: str, seed: int) -> Cell:
    """Train by another program in a process of its own."""
    seconds = bench.cap
    if column in IN_EQUAL_TIME:
        default = bench.read(folder.name, NO_FLAGS, seed) or bench.fill(folder.name, NO_FLAGS, seed)
        if default.problem:
            raise CellError(f"no time to equal: {NO_FLAGS} failed")
        seconds = default.seconds
    python = install(bench, column) if column in PACKAGES else Path(sys.executable)
    log = bench.file(folder.name, column, seed).with_suffix(".log")
    with tempfile.TemporaryDirectory(dir=bench.out) as scratch:
        options = ["--weights", write_weights(bench.out / "weights"), "--seconds", str(seconds), "--seed", str(seed)]
        out = Path(scratch) / "predicted.json"
        command = [python, Path(__file__).with_name("rivals.py"), column, folder, out, *options]
        bench.run(command, log, scratch, seconds=seconds)
        result = json.loads(out.read_text())
    truth = {path.stem: path.parent.name for path in (folder / "test").glob("*/*")}
    wrong = tuple(id for id, name in truth.items() if result["predicted"][id] != name)
    return Cell(
        folder.name, column, seed, seconds=result["seconds"], wrong=wrong, count=len(truth), note=result["note"]
    )


def write_weights(folder: Path) -> Path:
    """Write the installed ImageNet weights as timm names them, in the layout of Hugging Face."""
    if not (folder / "config.json").exists():
        import timm
        import torch

        from classifier.models.installed_weights import find_installed_weights
        from classifier.models.rename import convert_state_dict

        file = find_installed_weights(f"timm/{BACKBONE}")
        assert file is not None
        model: Any = timm.create_model(BACKBONE)
        state = torch.load(file, weights_only=True)
        model.load_state_dict(convert_state_dict(state, list(model.state_dict())))
        model.reset_classifier(0)
        timm.models.save_for_hf(model, str(folder), safe_serialization=False)
    return folder


def install(bench: Bench, column: str) -> Path:
    """Return the Python of an environment with a rival's package; CellError if it was not to be installed, ever."""
    folder = bench.out / "rivals" / column
    python, reason = folder / "bin" / "python", folder / "not-installed.txt"
    if reason.exists():
        raise CellError(reason.read_text())
    if (folder / "installed.txt").exists():
        return python
    print(f"installing {PACKAGES[column]} into {folder}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    (packages,) = folder.glob("lib/*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "here.pth").write_text("\n".join(here))
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    try:
        with (folder / "pip.log").open("w") as log:
            command = [*pip, "install", PACKAGES[column]]
            subprocess.run(command, check=True, timeout=INSTALL_SECONDS, stdout=log, stderr=log)
        for name in ("torchvision", "torch"):  # an older torch that was asked for: that of this environment stands in
            if (packages / name).is_dir():
                subprocess.run([*pip, "uninstall", "--quiet", "--yes", name], check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        reason.write_text(f"not installed: {type(error).__name__} of pip install {PACKAGES[column]}")
        raise CellError(reason.read_text()) from None
    versions = subprocess.run([*pip, "freeze", "--local"], check=True, capture_output=True, text=True)
    (folder / "installed.txt").write_text(versions.stdout)
    return python


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--columns", nargs="+", default=list(COLUMNS), choices=COLUMNS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--cap", type=float, default=600, metavar="SECONDS")
    parser.add_argument("--table", action="store_true", help="print the table of the cells that are there")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the cell's process ends, too
    bench = Bench(args.out.resolve(), args.cap)
    (bench.out / "sets").mkdir(parents=True, exist_ok=True)
    wanted = [(name, column, seed) for name in args.sets for seed in args.seeds for column in args.columns]
    cells = []
    for key in wanted:
        cell = bench.read(*key)
        if cell is None and not args.table:
            cell = bench.fill(*key)
            print(f"{cell.set}, {cell.column}, seed {cell.seed}: {describe_cells([cell])} {cell.note}", flush=True)
        if cell is not None:
            cells.append(cell)
    print(format_table(cells))


if __name__ == "__main__":
    main()
