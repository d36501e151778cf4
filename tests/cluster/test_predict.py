"""Slow: two machines answer parts of a set of images as one process does, and go on when one of them is lost."""

import subprocess
import time

import pyarrow.parquet as pq
import pytest
import torch

from classifier import data, models
from classifier.bundle import bundle
from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig
from tests.cluster.conftest import Cluster
from tests.cluster.hosts import wait_for
from tests.conftest import command_of, draw_photos
from tests.jobs.test_predict_million import write_shards

pytestmark = pytest.mark.slow
IMAGES = 60_000


def test_two_machines_answer_as_one_process_does_though_one_is_lost(cluster: Cluster) -> None:
    shared = cluster.shared
    photos = draw_photos(shared / "photos", {"red": 40, "green": 40, "blue": 40})
    dataset = data.load(DataConfig(path=str(photos)))
    experiment = Experiment().override_all({"model.name": "cnn", "train.precision": "fp32", "data.path": str(photos)})
    torch.manual_seed(0)
    model = models.build(experiment.model, classes=3, channels=dataset.channels, size=dataset.size)
    bundle.save(
        bundle.Bundle.from_training(experiment, dataset, scores={}, epoch=1), model, shared / "model" / "bundle"
    )
    write_shards(shared / "shards", IMAGES)
    words = (shared / "model", shared / "shards", "--part_size", 1000)
    began = time.monotonic()
    subprocess.run(command_of("predict", *words, "--answers", shared / "one"), check=True)
    print(f"one process: {time.monotonic() - began:.0f} s")

    began, many = time.monotonic(), shared / "many"
    cluster.submit("python", "jobs/predict.py", *words, "--answers", many, "--workers.count", 2, name="answers")
    wait_for(lambda: len([*many.glob("_parts/*.json")]) >= 5, 240, "the first parts")
    lost = cluster.machines[2]
    lost.power_off()
    cluster.nodes[lost.name].wait(timeout=60)
    before = {path: path.stat().st_mtime_ns for path in many.glob("_parts/*.json")}
    assert len(before) < IMAGES // 1000, "it was over too early"
    lost.power_on()
    cluster.start(lost)
    assert cluster.wait_for_end("answers", 500) == "SUCCEEDED", cluster.logs("answers")
    print(f"two machines, one of which was lost: {time.monotonic() - began:.0f} s")
    assert all(path.stat().st_mtime_ns == mtime for path, mtime in before.items())
    for path in (shared / "one").glob("part-*"):
        assert path.read_bytes() == (many / path.name).read_bytes()
    assert pq.read_table(many).num_rows == IMAGES
