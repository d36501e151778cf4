"""The loop: a frame, its answer, the alerts that begin and end with it, and who is told."""

import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from classifier.errors import DataError
from classifier.watch.alerts import AlertState
from classifier.watch.clips import Recorder
from classifier.watch.counts import Counts
from classifier.watch.observer import Observation, Observer
from classifier.watch.rules import Rule
from classifier.watch.sources.reader import FrameReader

_POLL_SECONDS = 0.2
Listener = Callable[[dict[str, Any]], None]


class Watcher:
    """Watches a source until it ends, or is to stop.

    listeners: called with each event, plain data for JSON: `alert`, `alert_ended`, and without rules `answer`, whenever
    the answer is another. on_observation: called after each frame. say: called with a sentence on an unreadable image.
    """

    def __init__(
        self,
        source: str,
        observer: Observer,
        rules: Sequence[Rule],
        counts: Counts,
        *,
        listeners: Sequence[Listener],
        recorder: Recorder | None = None,
        on_observation: Callable[[Observation], None] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._source, self._observer, self._counts = source, observer, counts
        self._states = [AlertState(rule) for rule in rules]
        self._listeners, self._recorder = listeners, recorder
        self._on_observation, self._say = on_observation, say
        self._answer: str | None = None

    def run(self, reader: FrameReader, should_stop: Callable[[], bool]) -> None:
        """Watch to the end. The error of the source, if it has ended by one."""
        latest: Observation | None = None
        try:
            while not should_stop():
                frame = reader.take(_POLL_SECONDS)
                if frame is None:
                    continue
                try:
                    latest = self._observer.observe(frame)
                except DataError as error:
                    self._counts.unreadable += 1
                    self._say(str(error))
                    continue
                self._react(latest)
        except EOFError:
            pass
        finally:
            if latest is not None:
                self._end_alerts(latest)

    def _react(self, seen: Observation) -> None:
        frame = seen.frame
        if self._recorder:
            self._recorder.add(frame.seconds, seen.pixels_HWC, is_first=frame.is_first)
        for state in self._states:
            change = state.update(float(seen.values[state.rule.index]), frame.seconds, is_first=frame.is_first)
            if change == "began":
                self._counts.alerts += 1
                files = self._recorder.begin(frame.seconds, seen.pixels_HWC) if self._recorder else {}
                self._tell_of(state, "alert", seen, **files)
            elif change == "ended":
                self._tell_of(state, "alert_ended", seen)
        if not self._states and seen.answer != self._answer:
            self._answer = seen.answer
            self._tell("answer", seen, id=uuid.uuid4().hex)
        if self._on_observation:
            self._on_observation(seen)

    def _end_alerts(self, seen: Observation) -> None:
        """Tell that the alerts that are on are watched no more."""
        for state in self._states:
            if state.is_on:
                self._tell_of(state, "alert_ended", seen, is_watched=False)

    def _tell_of(self, state: AlertState, event: str, seen: Observation, **fields: Any) -> None:
        value = _shorten(float(seen.values[state.rule.index]))
        self._tell(event, seen, id=state.id, rule=state.rule.text, value=value, **fields)

    def _tell(self, event: str, seen: Observation, **fields: Any) -> None:
        frame = seen.frame
        about = {
            "event": event,
            "time": datetime.fromtimestamp(frame.time, UTC).isoformat(timespec="milliseconds"),
            "source": self._source,
            "seconds": round(frame.seconds, 3),
            "frame": frame.number,
            **({"image": str(seen.path)} if seen.path else {}),
            "answer": seen.answer,
            "top": [{"class_name": name, "probability": _shorten(share)} for name, share in seen.top],
        }
        for listener in self._listeners:
            listener(about | fields)


def _shorten(value: float) -> float:
    return float(f"{value:.4g}")
