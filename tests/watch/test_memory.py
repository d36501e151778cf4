"""Watching for long takes no more memory."""

import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from classifier.watch.clips import Recorder
from classifier.watch.counts import Counts
from classifier.watch.metrics import WatchMetrics
from classifier.watch.observer import Observation, Observer
from classifier.watch.rules import parse_rule
from classifier.watch.sources.address import parse_address
from classifier.watch.sources.frame import Frame
from classifier.watch.sources.live import read_film
from classifier.watch.sources.reader import FrameReader
from classifier.watch.sources.video import Video
from classifier.watch.watcher import Watcher
from tests.watch.conftest import CLASSES, ColourModel, write_film

FRAMES = 100_000


@pytest.mark.slow
def test_100_000_frames_in_flat_memory(tmp_path: Path, model: ColourModel):
    """A film of two minutes, again and again, with an alert and a clip each time."""
    path, counts, stop, sizes = tmp_path / "film.mp4", Counts(), threading.Event(), []
    write_film(path, [("red", 60.0), ("blue", 60.0)])

    def repeat() -> Iterator[Frame]:
        for turn in range(-(-FRAMES // 3000)):
            for frame in read_film(Video(parse_address(str(path)), 1 << 24)):
                number = turn * 3000 + frame.number
                yield Frame(number, number / 25, frame.time, frame.read, number == 0)

    def measure(seen: Observation) -> None:
        if seen.frame.number % 1000 == 0:
            sizes.append(psutil.Process().memory_info().rss)

    observer = Observer(model, counts, WatchMetrics(counts, "colours"), half_life=0.5)
    rules = [parse_rule("blue > 0.9 for 2s", CLASSES)]
    recorder = Recorder(tmp_path / "alerts", counts, print, before=5, after=5, keep=5, keep_bytes=1 << 30)
    watcher = Watcher(
        "film", observer, rules, counts, listeners=[lambda _: None], recorder=recorder, on_observation=measure
    )
    with FrameReader(repeat(), stop, counts, fps=25, keeps_all=True) as reader:
        watcher.run(reader, lambda: False)
    recorder.close()
    print(f"memory after 10,000 frames: {sizes[10] / 1e6:.1f} MB, largest later: {max(sizes[10:]) / 1e6:.1f} MB")
    assert counts.answered >= FRAMES
    assert counts.alerts == counts.clips >= 33
    assert max(sizes[10:]) <= 1.05 * sizes[10]
