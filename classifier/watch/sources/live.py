"""Frames of a source as they come: of films, of streams that are lost and come back."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from classifier.errors import DataError
from classifier.watch.counts import Counts
from classifier.watch.sources.frame import Frame
from classifier.watch.sources.video import Video, to_pixels

_FILM_STEP, _LIVE_STEP = 10.0, 2.0
"""Seconds from one frame to the next, at most; unless frames are rare. What is longer is a gap."""


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait before the next try: twice as long each time, up to a limit, with jitter."""

    first_seconds: float = 1.0
    max_seconds: float = 30.0

    def delay(self, tries: int, random_share: float) -> float:
        """Seconds to wait after so many failed tries. random_share: in [0, 1), so that not all come back at once."""
        return min(self.max_seconds, self.first_seconds * 2.0 ** min(tries, 30)) * (0.5 + random_share / 2)


def read_film(video: Video) -> Iterator[Frame]:
    """Yield all frames of a film, with the seconds at which it shows them.

    Where its time stamps jump, as where recordings were joined, time goes on, and the frame is the first after a gap.
    """
    longest = max(_FILM_STEP, 10 * video.period)
    start, seconds, last = 0.0, -video.period, None
    with video:
        for number, decoded in enumerate(video.frames()):
            shown = decoded.time
            if shown is None:
                shown = 0.0 if last is None else last + video.period
            is_first = not _goes_on(last, shown, longest)
            if is_first:
                start = shown - (seconds + video.period)
            seconds, last = shown - start, shown
            yield Frame(number, seconds, time.time(), partial(to_pixels, decoded), is_first)


def read_live(
    video: Video,
    reopen: Callable[[], Video],
    stop: threading.Event,
    counts: Counts,
    say: Callable[[str], None],
    *,
    give_up_seconds: float = 0.0,
    backoff: Backoff | None = None,
) -> Iterator[Frame]:
    """Yield the frames of a live source until `stop`; connect again when it is lost.

    give_up_seconds: without a frame; 0: never. DataError then.
    """
    backoff, name = backoff or Backoff(), video.address.name
    began = latest = time.monotonic()
    number = tries = 0
    lost = ""
    while not stop.is_set():
        if lost:
            delay = backoff.delay(tries, random.random())
            silent = time.monotonic() - latest
            if give_up_seconds and silent + delay > give_up_seconds:
                raise DataError(f"{name} has sent nothing for {silent:.0f} s: {lost}")
            say(f"{lost}; trying again in {delay:.1f} s")
            tries += 1
            if stop.wait(delay):
                return
            try:
                video = reopen()
            except DataError as error:
                lost = str(error)
                continue
        is_new, last, longest = True, None, max(_LIVE_STEP, 3 * video.period)
        try:
            with video:
                for decoded in video.frames():
                    now = time.monotonic()
                    if is_new and lost:
                        say(f"{name} is back")
                        counts.reconnects += 1
                    # A pause after which time stamps go on, as between the segments of HLS, is none of the source.
                    is_gap = now - latest > longest and not _goes_on(last, decoded.time, longest)
                    latest, last = now, decoded.time
                    yield Frame(number, now - began, time.time(), partial(to_pixels, decoded), is_new or is_gap)
                    number, tries, is_new = number + 1, 0, False
                    if stop.is_set():
                        return
            lost = f"{name} has ended"
        except DataError as error:
            lost = str(error)


def _goes_on(last: float | None, shown: float | None, longest: float) -> bool:
    """Whether a time stamp is neither before the last one nor long after it."""
    return last is not None and shown is not None and 0 <= shown - last <= longest
