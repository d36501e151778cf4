"""Live sources: the newest frame wins, a lost stream comes back, and what cannot be opened is told."""

import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from classifier.errors import DataError
from classifier.watch.counts import Counts
from classifier.watch.metrics import WatchMetrics
from classifier.watch.observer import Observation, Observer
from classifier.watch.sources.address import parse_address
from classifier.watch.sources.live import Backoff, read_live
from classifier.watch.sources.reader import FrameReader
from classifier.watch.sources.video import Video
from classifier.watch.watcher import Watcher
from tests.watch.conftest import ColourModel, LiveSource, read_number


def watch_live(
    source: LiveSource,
    model: ColourModel,
    should_stop: Callable[[Counts, list[dict]], bool],
    on_observation: Callable[[Observation, Counts], None] = lambda *_: None,
    **more: float,
) -> tuple[Counts, list[str], list[dict]]:
    counts, stop, said, events = Counts(), threading.Event(), [], []
    open_video = partial(Video, parse_address(source.url), 1 << 24, 2.0)
    video = open_video()
    assert video.is_live
    backoff = Backoff(first_seconds=0.1, max_seconds=0.5)
    frames = read_live(video, open_video, stop, counts, said.append, backoff=backoff, **more)
    observer = Observer(model, counts, WatchMetrics(counts, "colours"))
    watcher = Watcher(
        "live",
        observer,
        [],
        counts,
        listeners=[events.append],
        on_observation=lambda seen: on_observation(seen, counts),
    )
    deadline = time.monotonic() + 20
    with FrameReader(frames, stop, counts, fps=1000, keeps_all=False) as reader:
        watcher.run(reader, lambda: should_stop(counts, events) or time.monotonic() > deadline)
    assert time.monotonic() < deadline
    return counts, said, events


@pytest.mark.alone
def test_the_lag_is_at_most_two_frames_at_four_times_real_time(live, model: ColourModel):
    source, from_sent, from_decoded = live([("red", 6.0), ("blue", 6.0)], speed=4.0), [], []
    model.seconds = 0.005

    def measure(seen: Observation, counts: Counts) -> None:
        from_sent.append(source.sent - read_number(seen.pixels_HWC))
        from_decoded.append(counts.frames - 1 - seen.frame.number)

    counts, _, events = watch_live(source, model, lambda counts, _: counts.frames >= 250, measure)
    assert [event["answer"] for event in events] == ["red", "blue"]
    for name, lags in (("sent", from_sent), ("decoded", from_decoded)):
        settled = sorted(lags[len(lags) // 5 :])  # not those before the first frame could be decoded
        half, most = settled[len(settled) // 2], settled[len(settled) * 95 // 100]
        print(f"lag behind the newest frame {name}: {half} frames, 95 % of answers at most {most}")
        assert half <= (2 if name == "decoded" else 10), lags  # a busy machine is late to send and to read
    assert counts.answered > 50


def test_a_slow_model_drops_frames_and_stays_close(live, model: ColourModel):
    source, lags = live([("red", 12.0)], speed=4.0), []
    model.seconds = 0.1
    counts, _, _ = watch_live(
        source,
        model,
        lambda counts, _: counts.frames >= 250,
        lambda seen, _: lags.append(source.sent - read_number(seen.pixels_HWC)),
    )
    assert counts.dropped > 100
    assert sorted(lags)[len(lags) // 2] <= 25  # an answer takes 10


def test_a_stream_that_dies_comes_back(live, model: ColourModel):
    source = live([("red", 4.0), ("blue", 8.0)], speed=4.0, lasts=lambda number: 60 if number < 2 else 1 << 30)
    counts, said, events = watch_live(source, model, lambda _, events: len(events) == 2)
    assert counts.reconnects == 2, said
    assert source.connections >= 3
    assert [event["answer"] for event in events] == ["red", "blue"]
    assert ["is back" in line for line in said] == [False, True] * 2
    assert all(0.05 <= float(line.split()[-2]) <= 0.5 for line in said if "trying again" in line)


def test_a_stream_that_stays_away_ends_the_watching(live, model: ColourModel):
    source = live([("red", 4.0)], speed=4.0, lasts=lambda number: 0 if number else 60)
    with pytest.raises(DataError, match=r"/live.ts has sent nothing for \d s: "):
        watch_live(source, model, lambda *_: False, give_up_seconds=1.0)


@pytest.mark.parametrize(("tries", "share", "seconds"), [(0, 0, 0.5), (0, 1, 1), (3, 1, 8), (5, 1, 30), (99, 0, 15)])
def test_waits_are_bounded(tries: int, share: float, seconds: float):
    assert Backoff().delay(tries, share) == seconds
