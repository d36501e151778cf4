"""Slow: a million images in tar shards are answered in flat memory, and once each, though `predict` is killed five
times at random moments. What it measures is printed (pytest -s)."""

import io
import random
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.dataset as ds
import pytest
from PIL import Image

from tests.conftest import command_of
from tests.jobs.test_predict_answers import parts_in, run

pytestmark = pytest.mark.slow
__all__ = ["run"]  # the fixture
IMAGES, SHARD, KILLS = 1_000_000, 10_000, 5
MAX_GROWTH_BYTES = 100e6
# Until then memory pools grow to what a part needs (a run of 400,000 images: 786 MB at part 6 and at part 40).
WARM_PARTS = 5


def write_shards(folder: Path, images: int) -> None:
    generator, contents = np.random.default_rng(0), []
    for _ in range(500):
        stream = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (24, 24, 3), np.uint8)).save(stream, "JPEG", quality=80)
        contents.append(stream.getvalue())
    folder.mkdir()
    for start in range(0, images, SHARD):
        with tarfile.open(folder / f"{start // SHARD:04d}.tar", "w") as shard:
            for n in range(start, start + SHARD):
                member = tarfile.TarInfo(f"{n:07d}.jpg")
                member.size = len(contents[n % 500])
                shard.addfile(member, io.BytesIO(contents[n % 500]))


def test_a_million_images_are_answered_once_in_flat_memory(run, tmp_path):
    generator, seed = random.Random(), time.time_ns()
    generator.seed(seed)
    write_shards(tmp_path / "shards", IMAGES)
    answers = tmp_path / "answers"
    words = command_of("predict", "model", "shards", "--answers", "answers")
    finished: dict[str, tuple[int, int]] = {}
    early: list[int] = []
    late: list[int] = []
    for kill in range(KILLS + 1):
        goal = IMAGES // SHARD * (kill + generator.random()) / (KILLS + 1) if kill < KILLS else float("inf")
        began, before = time.monotonic(), len(finished)
        with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
            own = psutil.Process(process.pid)
            while process.poll() is None and len(parts_in(answers)) < max(goal, before + 1):
                rss = own.memory_info().rss if own.is_running() else 0
                parts = len(parts_in(answers)) - before
                if rss and parts:
                    (early if parts <= WARM_PARTS else late).append(rss)
                time.sleep(0.2)
            if kill < KILLS:
                time.sleep(generator.uniform(0, 3))
                assert process.poll() is None
                process.send_signal(signal.SIGKILL)
            code = process.wait()
            assert kill < KILLS or code == 0
        now = parts_in(answers)
        assert finished.items() <= now.items(), "a finished part was written again"
        seconds = time.monotonic() - began
        print(f"{'killed' if kill < KILLS else 'finished'}: {len(now) - before} parts in {seconds:.0f} s")
        finished = now
    ids = ds.dataset(answers).to_table(columns=["image_id"])["image_id"]
    assert len(ids) == len(ids.unique()) == IMAGES, f"seed {seed}"
    print(f"resident memory: {max(early) / 1e6:.0f} MB in the first {WARM_PARTS} parts, {max(late) / 1e6:.0f} MB later")
    assert max(late) < max(early) + MAX_GROWTH_BYTES
