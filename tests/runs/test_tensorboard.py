import subprocess

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from classifier.runs.tensorboard import TensorBoardWriter
from tests.cluster.hosts import can_create_hosts


def row(step):
    return {"step": step, "epoch": step, "train_loss": 1.0 / step, "validation_macro_f1": 0.5}


def read(folder, tag="train/loss"):
    return [(event.step, event.value) for event in EventAccumulator(str(folder)).Reload().Scalars(tag)]


def test_tensorboard_reads_the_event_files(tmp_path):
    for first in (1, 4):  # a run that is resumed
        writer = TensorBoardWriter(tmp_path / "tensorboard")
        for step in range(first, first + 3):
            writer.write(row(step))
    assert read(tmp_path / "tensorboard") == [(step, pytest.approx(1 / step)) for step in range(1, 7)]
    assert len(read(tmp_path / "tensorboard", "validation/macro_f1")) == 6


def test_full_disk_loses_only_the_events_of_its_time(tmp_path, caplog):
    if not can_create_hosts():
        pytest.skip("mounting a disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=True)
    try:
        writer = TensorBoardWriter(disk / "tensorboard")
        writer.write(row(1))
        full = disk / "full"
        subprocess.run(["dd", "if=/dev/zero", f"of={full}"], check=False, capture_output=True)
        for step in range(2, 200):
            writer.write(row(step))
        assert "No space left on device" in caplog.text
        full.unlink()
        writer.write(row(200))
        steps = [step for step, _ in read(disk / "tensorboard")]
        assert (steps[0], steps[-1]) == (1, 200)
        assert len(steps) < 200
    finally:
        subprocess.run(["umount", disk], check=True)
