"""The status of a run folder: from its result, from the process that owns it, or from neither."""

import json

from classifier.config.experiment import Experiment
from classifier.runs.folder import RunFolder
from classifier.runs.status import read_best_epoch, read_status
from tests.report.run_files import history_row


def test_run_without_a_result_is_running_while_a_process_owns_it_and_stopped_afterwards(tmp_path):
    run = RunFolder.create(tmp_path, "a")
    run.write_experiment(Experiment())
    assert read_status(run.folder) == "running"
    run.close()  # as the system does for a process that was killed
    assert read_status(run.folder) == "stopped"


def test_result_says_how_a_run_ended_and_a_corrupted_one_is_damaged(tmp_path):
    run = RunFolder.create(tmp_path, "a")
    for status in ("finished", "stopped", "failed"):
        run.write_result("train", status)
        assert read_status(run.folder) == status
    (run.folder / "result.json").write_text("{")
    assert read_status(run.folder) == "damaged"
    run.close()


def test_best_epoch_is_that_of_the_training_or_of_any_trial(tmp_path):
    def write(folder, *accuracies):
        folder.mkdir(parents=True, exist_ok=True)
        rows = [history_row(n) | {"validation_accuracy": one} for n, one in enumerate(accuracies, start=1)]
        (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert read_best_epoch(tmp_path) is None
    write(tmp_path / "train", 0.5, 0.7, None)
    write(tmp_path / "search/trials/a", 0.5)
    write(tmp_path / "search/trials/b", None, 0.9, 0.8)
    bests = [read_best_epoch(tmp_path / name) for name in ("train", "search")]
    assert [(best["epoch"], best["validation_accuracy"]) for best in bests if best] == [(2, 0.7), (2, 0.9)]
