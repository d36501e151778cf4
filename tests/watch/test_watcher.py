"""A film with known scenes: alerts at the right times and none else, with their clips; and the folder that fills."""

import dataclasses
import io
import os
import threading
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from classifier.metrics.hierarchy import Hierarchy
from classifier.watch.clips import Recorder
from classifier.watch.counts import Counts
from classifier.watch.event_log import EventLog
from classifier.watch.metrics import WatchMetrics
from classifier.watch.observer import Observer, Region
from classifier.watch.rules import parse_rule
from classifier.watch.sources.address import parse_address
from classifier.watch.sources.frame import Frame
from classifier.watch.sources.image_folder import read_folder
from classifier.watch.sources.live import read_film
from classifier.watch.sources.reader import FrameReader
from classifier.watch.sources.video import Video
from classifier.watch.watcher import Watcher
from tests.watch.conftest import CLASSES, ColourModel, draw_frame, write_film

SCENES = (("grey", 2.0), ("red", 3.0), ("blue", 1.0), ("red", 0.6), ("grey", 2.4), ("black", 2.0), ("red", 3.0))


def watch(
    path: Path, model: ColourModel, *alerts: str, fps: float = 10.0, run: Path | None = None, **settings: Any
) -> tuple[list[dict[str, Any]], Counts]:
    """Watch a film to its end; return its events."""
    counts, stop, events = Counts(), threading.Event(), []
    video = Video(parse_address(str(path)), 1 << 24, counts=counts)
    assert not video.is_live
    observer = Observer(model, counts, WatchMetrics(counts, "colours"), **settings)
    bounds = {"before": 1.0, "after": 1.0, "keep": 100, "keep_bytes": 1 << 20}
    recorder = Recorder(run / "alerts", counts, print, **bounds) if run else None
    rules = [parse_rule(text, CLASSES) for text in alerts]
    watcher = Watcher("film", observer, rules, counts, listeners=[events.append], recorder=recorder)
    with FrameReader(read_film(video), stop, counts, fps=fps, keeps_all=True) as reader:
        watcher.run(reader, lambda: False)
    if recorder:
        recorder.close()
    return events, counts


def times(events: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(event["event"], round(event["seconds"], 2)) for event in events]


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("film") / "scenes.mp4"
    write_film(path, SCENES)
    return path


def test_the_answer_may_be_a_class_above_the_leaves(model: ColourModel):
    model.hierarchy = Hierarchy(("warm/red", "cold/green", "cold/blue"))
    model.calibration = dataclasses.replace(model.calibration, ancestor_threshold=0.6)
    counts = Counts()
    observer = Observer(model, counts, WatchMetrics(counts, "colours"))
    frames = [draw_frame(colour, n) for n, colour in enumerate(("grey", "red", "green"))]
    seen = [observer.observe(Frame(n, float(n), 0.0, lambda n=n: frames[n])) for n in range(3)]
    assert [one.answer for one in seen] == ["cold", "warm/red", "cold/green"]
    rule = parse_rule("cold > 0.6", model.answer_names)
    assert [rule.begin.holds(one.values[rule.index]) for one in seen] == [True, False, True]
    assert parse_rule("not sure", model.answer_names).index == len(seen[0].values) - 2


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("red > 0.8", [("alert", 2), ("alert_ended", 5), ("alert", 6), ("alert_ended", 6.6), ("alert", 11)]),
        ("red > 0.8 for 2s", [("alert", 4), ("alert_ended", 5), ("alert", 13)]),
        ("red > 0.8 every 5s", [("alert", 2), ("alert_ended", 5), ("alert", 11)]),
        ("blue > 0.8 until < 0.2", [("alert", 5), ("alert_ended", 6)]),
        ("green > 0.8", []),
        ("not sure for 1s", [("alert", 1), ("alert_ended", 2), ("alert", 7.6), ("alert_ended", 11)]),
        ("unlike anything seen for 600ms", [("alert", 9.6), ("alert_ended", 11)]),
    ],
)
def test_alerts_come_at_the_right_times(rule: str, expected: list[tuple[str, float]], film: Path, model: ColourModel):
    events, counts = watch(film, model, rule)
    if expected and expected[-1][0] == "alert":  # still on at the end
        assert events.pop()["is_watched"] is False
    assert times(events) == expected
    assert (counts.frames, counts.answered, counts.dropped) == (350, 140, 0)


def test_smoothing_rides_out_what_is_short(film: Path, model: ColourModel):
    events, _ = watch(film, model, "red > 0.8", half_life=0.5)
    assert [event["event"] for event in events].count("alert") == 2  # not the half second
    assert all(0.8 < event["value"] <= 1 for event in events if event["event"] == "alert")
    assert events[0]["seconds"] == pytest.approx(2.0 + 0.5 * np.log2(0.67 / 0.2), abs=0.3)


def test_without_rules_changes_of_the_answer_are_told(film: Path, model: ColourModel):
    events, _ = watch(film, model)
    answers = ["not sure", "red", "blue", "red", "not sure", "unlike anything seen", "red"]
    assert [event["answer"] for event in events] == answers
    assert [event["seconds"] for event in events] == [0, 2, 5, 6, 6.6, 9, 11]


def test_frames_that_hardly_differ_are_not_answered_again(film: Path, model: ColourModel):
    events, counts = watch(film, model, motion=8.0)
    assert [event["seconds"] for event in events] == [0, 2, 5, 6, 6.6, 9, 11]
    assert counts.answered < 20
    assert counts.answered + counts.unchanged == 140


def test_only_the_region_is_answered(tmp_path: Path, model: ColourModel):
    path = tmp_path / "halves.mp4"
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=5, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        pixels = np.concatenate([draw_frame("red", 0)[:, :32], draw_frame("blue", 0)[:, 32:]], 1)
        for _ in range(3):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        film.mux(stream.encode(None))
    answers = [watch(path, model, region=Region.parse(text))[0][0]["answer"] for text in ("0,0,.5,1", "0.5,0.2,0.5,.8")]
    assert answers == ["red", "blue"]


def test_a_clip_and_a_frame_are_saved(film: Path, model: ColourModel, tmp_path: Path):
    events, counts = watch(film, model, "blue > 0.8", "green > 0.8", run=tmp_path)
    assert (events[0]["frame_file"], events[0]["clip_file"]) == ("alerts/000001.jpg", "alerts/000001.mp4")
    assert counts.clips == 1
    assert sorted(path.name for path in (tmp_path / "alerts").iterdir()) == ["000001.jpg", "000001.mp4"]
    with Image.open(tmp_path / events[0]["frame_file"]) as frame:
        assert frame.size == (64, 48)
        assert np.asarray(frame)[20:].mean((0, 1)).argmax() == 2
    with av.open(str(tmp_path / events[0]["clip_file"])) as clip:
        frames = list(clip.decode(video=0))
    colours = [frame.to_ndarray(format="rgb24")[20:].mean((0, 1)).argmax() for frame in frames]
    assert colours == [0] * 10 + [2] * 10 + [0]  # a second of red, the second of blue, and red again
    assert float(frames[-1].time) == pytest.approx(2.0, abs=0.01)


def test_old_clips_make_room(tmp_path: Path):
    counts, pixels = Counts(), draw_frame("red", 0)
    recorder = Recorder(tmp_path / "alerts", counts, print, before=0, after=0, keep=3, keep_bytes=1 << 20)
    for second in range(6):
        recorder.add(second, pixels)
        assert recorder.begin(second, pixels) == {"frame_file": f"alerts/{second + 1:06d}.jpg"}
    recorder.close()
    assert sorted(path.name for path in (tmp_path / "alerts").iterdir()) == [f"00000{n}.jpg" for n in (4, 5, 6)]


def test_a_clip_ends_at_a_gap_and_has_no_frame_from_before_it(tmp_path: Path):
    """An alert at 0 s, and one at 1,000 s after a lost connection; without frames before an alert."""
    counts, pixels = Counts(), draw_frame("red", 0)
    for name, before, durations in (("around", 2.0, (1.0, 3.0)), ("after", 0.0, (1.0, 1.0))):
        recorder = Recorder(tmp_path / name, counts, print, before=before, after=2.0, keep=9, keep_bytes=1 << 20)
        for second in (0, 1, 1000, 1002, 1003, 1004, 1005, 1010):
            recorder.add(second, pixels, is_first=second in (0, 1000))
            if second in (0, 1004):
                recorder.begin(second, pixels)
        recorder.close()
        for number, seconds in zip((1, 2), durations, strict=True):
            with av.open(str(tmp_path / name / f"{number:06d}.mp4")) as clip:
                times_of = [float(frame.time) for frame in clip.decode(video=0)]
            assert times_of[-1] == pytest.approx(seconds, abs=0.01), name
    assert (counts.clips, counts.unsaved) == (4, 0)


def test_what_cannot_be_saved_is_counted(tmp_path: Path, monkeypatch):
    counts, said, pixels = Counts(), [], draw_frame("red", 0)
    recorder = Recorder(tmp_path / "alerts", counts, said.append, before=1, after=1, keep=9, keep_bytes=1 << 20)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
    recorder.add(0, pixels)
    for _ in range(9):
        recorder.begin(0, pixels)
    assert counts.unsaved >= 1  # of nine clips, eight are recorded at once
    recorder.close()
    assert counts.unsaved == 9 + 9 == len(said)
    assert not [*(tmp_path / "alerts").iterdir()]
    log = EventLog(io.StringIO(), tmp_path / "absent", counts, said.append)
    log.write({})
    log.write({})
    assert (counts.unsaved, len(said)) == (20, 19)


def test_a_folder_that_fills(tmp_path: Path, model: ColourModel):
    """Each image is answered by itself, whatever came before."""
    Image.fromarray(draw_frame("green", 0)).save(tmp_path / "before.png")
    counts, stop, events, said = Counts(), threading.Event(), [], []
    observer = Observer(model, counts, WatchMetrics(counts, "colours"), half_life=60.0)
    watcher = Watcher("folder", observer, [], counts, listeners=[events.append], say=said.append)
    frames = read_folder(tmp_path, stop, poll_seconds=0.05)

    def fill() -> None:
        for name, colour in (("a.png", "red"), ("b.png", "blue")):
            time.sleep(0.2)
            Image.fromarray(draw_frame(colour, 0)).save(tmp_path / name)
        (tmp_path / "broken.jpg").write_bytes(b"nonsense")
        (tmp_path / "notes.txt").write_text("no image")
        deadline = time.monotonic() + 10
        while (len(events) < 2 or not said) and time.monotonic() < deadline:
            time.sleep(0.02)
        stop.set()

    writer = threading.Thread(target=fill)
    writer.start()
    with FrameReader(frames, stop, counts, fps=1e6, keeps_all=True) as reader:
        watcher.run(reader, lambda: False)
    writer.join()
    assert [(Path(event["image"]).name, event["answer"]) for event in events] == [("a.png", "red"), ("b.png", "blue")]
    assert len(said) == 1
    assert "broken.jpg cannot be used as an image" in said[0]
