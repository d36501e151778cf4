"""One trial of a search: a run folder under OUT/NAME/trials/, trained by a Tune actor, one epoch per step."""

import contextlib
import dataclasses
import gc
import json
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from ray import tune

from classifier import data
from classifier.config.documents import read_json
from classifier.config.experiment import Experiment
from classifier.errors import ClassifierError
from classifier.profiling.step_time import is_out_of_memory
from classifier.runs.folder import FEATURES, RunFolder, completed_rows
from classifier.runs.recorder import record_training
from classifier.runs.schema import TrialEnd
from classifier.runtime.distributed import ProcessGroup, pick_device
from classifier.storage.atomic import retry_io, write_atomically
from classifier.storage.bucket import Storage
from classifier.storage.mirror import Mirror
from classifier.training.checkpoint import CheckpointStore
from classifier.training.resolve import resolve

from ..launch import run_storage, workers
from ..launch.cluster import DriverContext
from ..launch.shared_dataset import SharedDataset
from ..launch.worker_log import tee_output
from .best_epochs import worst_score
from .schedulers import EPOCH, REPLAYED, SCORES, TASK_SCORES, read_scores
from .trial_config import trial_name, write_changes


class TrialActor(tune.Trainable):
    """Trains one trial after another in one process: a step of Tune is an epoch.

    Epochs that a trial's folder already has are reported first, without training them again, so a killed trial or a
    resumed search continues where it was.
    """

    def setup(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        config: dict[str, Any],
        *,
        experiment: dict[str, Any],
        shared: SharedDataset,
        folder: str,
        storage: Storage | None,
        costs: dict[str, dict[str, float]],
        driver: DriverContext,
    ) -> None:
        driver.enter()
        self.base, self.dataset = Experiment.from_dict(experiment), shared.open()
        self.trials, self.costs, self.storage = Path(folder), costs, storage
        self.mirror = contextlib.ExitStack()
        if storage is not None:  # the driver's folder may be on another machine
            self.trials = Path(tempfile.mkdtemp(prefix="classifier-trials-")) / "trials"
        self._start_trial(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._start_trial(new_config)
        return True

    def _start_trial(self, config: dict[str, Any]) -> None:
        changes = {name: value for name, value in config.items() if name != "start"}
        self.experiment = self.base.override_all(changes)
        self.digest = self.experiment.digest()
        self.last_report: dict[str, Any] = {EPOCH: 0}
        name, is_member = trial_name(changes), self.base.search.scheduler == "pbt"
        if is_member:  # its settings change, and copies of it diverge
            name = self.trial_id
            earlier = config.get("start")  # this member's folder before the search was resumed
            if earlier and (self.trials / earlier).exists() and not (self.trials / name).exists():
                (self.trials / earlier).rename(self.trials / name)
        storage = self.storage.subfolder(f"trials/{name}") if self.storage else None
        self.run = RunFolder(self.trials / name, storage, feature_folder=self.trials.parent / FEATURES)
        self.run.folder.mkdir(parents=True, exist_ok=True)
        if self.run.storage is not None:
            run_storage.download_run(self.run.storage, self.run.folder)
            skip = run_storage.WORKER_FILES if self.experiment.workers.count > 1 else ()
            self.sync = self.mirror.enter_context(Mirror(self.run.folder, self.run.storage, skip=skip)).sync
        if is_member:
            write_changes(self.run.folder, changes)
        self._rows = self._epoch_rows()

    def _epoch_rows(self) -> Generator[dict[str, Any], None, None]:
        """The rows of history.jsonl: those that exist, then those of the remaining epochs."""
        run, written = self.run, self.run.history()
        if (run.folder / "ended.json").exists():
            yield from ({**row, REPLAYED: True} for row in written)
            return
        manifest = CheckpointStore(run.checkpoints).latest_manifest()
        rows = completed_rows(written, manifest)
        # Members of a population are compared at their current epoch; so are other trials, after what led to it. A row
        # after which the trial had gone on, though not to another checkpoint, does not stop it now.
        yield from (
            rows[-1:]
            if self.base.search.scheduler == "pbt"
            else ({**row, REPLAYED: row is not written[-1]} for row in rows)
        )
        try:
            yield from self._train(self.experiment)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            batch, accumulate = self.experiment.data.batch, self.experiment.optimizer.accumulate
            if not is_out_of_memory(error) or batch < 2:
                raise
            print(f"out of memory with data.batch {batch}: halving it, with optimizer.accumulate {2 * accumulate}")
        else:
            return
        gc.collect()
        torch.cuda.empty_cache()
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        write_atomically(run.folder / "halved.json", json.dumps({"from": batch, "to": batch // 2}) + "\n")
        halved = {"data.batch": batch // 2, "optimizer.accumulate": 2 * accumulate}
        yield from self._train(self.experiment.override_all(halved))

    def _train(self, experiment: Experiment) -> Generator[dict[str, Any], None, None]:
        if experiment.workers.count > 1:
            yield from workers.train(self.run, experiment, should_stop=lambda: False)
            return
        dataset = self.dataset
        if experiment.data != dataclasses.replace(self.base.data, batch=experiment.data.batch):
            dataset = data.load(experiment.data)
        resolved = resolve(experiment, dataset)
        self.run.write_experiment(resolved)
        group = ProcessGroup(device=pick_device(resolved.train.device))
        yield from (epoch.row() for epoch in record_training(self.run, resolved, dataset, group=group))

    def step(self) -> dict[str, Any]:
        """Train and report an epoch. A trial that cannot continue ends with the worst scores and its error."""
        costs = self.costs.get(self.experiment.model.name, {})
        try:
            # Only while it trains: between steps the process is Tune's, which may assign it another trial.
            with tee_output(self.run.folder / "run.log", f"trial {self.run.folder.name}"):
                row = next(self._rows, None)
        except (ClassifierError, torch.OutOfMemoryError, MemoryError) as error:  # Tune retries after others
            write_atomically(self.run.folder / "error.txt", f"{error}\n")
            return self._report_failure(str(error), costs)
        if row is None and self.last_report[EPOCH]:  # stopped by train.patience, or it had ended before
            ended = self.run.folder / "ended.json"
            whole = read_json(ended, TrialEnd)["whole"] if ended.exists() else True
            return self._report(self.last_report | {"done": True, "whole": whole})
        if row is None:  # it had failed before
            error = (self.run.folder / "error.txt").read_text().strip()
            return self._report_failure(error, costs)
        scores = read_scores(row)
        is_last = row[EPOCH] >= self.experiment.train.epochs
        about = {EPOCH: row[EPOCH], "seconds": row["seconds"], "done": is_last, "whole": is_last}
        about |= {REPLAYED: row.get(REPLAYED, False)}
        return self._report(about | scores | costs)

    def _report_failure(self, error: str, costs: dict[str, float]) -> dict[str, Any]:
        scores = {name: worst_score(name) for name in (*SCORES, *TASK_SCORES)}
        return self._report(
            {EPOCH: self.last_report[EPOCH], "error": error, "done": True, "whole": False} | scores | costs
        )

    def _report(self, report: dict[str, Any]) -> dict[str, Any]:
        """Add the digest of what was trained; `epochs` is the objective, `epoch` the time.

        `whole`: the training ran to its end. `done` is also true of trials that Tune stops.
        """
        self.last_report = report | {"digest": self.digest, "epochs": report[EPOCH], "folder": self.run.folder.name}
        if self.run.storage is not None and report["done"]:  # the driver reads it there after this report
            retry_io(self.sync, self.run.storage.root)
        return self.last_report

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save what population-based training copies from one member to another: history, checkpoints and bundle."""
        shutil.copy(self.run.folder / "history.jsonl", checkpoint_dir)
        for folder in (self.run.checkpoints, self.run.bundle):
            shutil.copytree(folder, Path(checkpoint_dir) / folder.name)

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Continue from another member's checkpoint, with this trial's settings."""
        self._rows.close()
        for folder in (self.run.checkpoints, self.run.bundle):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(Path(checkpoint_dir) / folder.name, folder)
        # Its own history is not that of these weights, and would have a gap if it was behind.
        write_atomically(self.run.folder / "history.jsonl", (Path(checkpoint_dir) / "history.jsonl").read_text())
        manifest = CheckpointStore(self.run.checkpoints).latest_manifest()
        assert manifest is not None
        self.run.truncate_history(manifest)
        self._rows = self._rows_after(manifest["about"]["epoch"])

    def _rows_after(self, epoch: int) -> Generator[dict[str, Any], None, None]:
        yield from (row for row in self._epoch_rows() if row[EPOCH] > epoch)

    def cleanup(self) -> None:
        self._rows.close()
        self.mirror.close()
        if self.storage is not None:
            shutil.rmtree(self.run.folder, ignore_errors=True)
