"""Whether a live source is read as fast as it comes."""

import math

_WAIT_SECONDS = 1e-3
"""Reading for as long is waiting: what has come is read in less."""
_BEHIND_SECONDS = 1.0


class Pace:
    """Finds by waits and by time stamps whether a source comes faster than it is read.

    Who waits for half of a frame's time has read all. A shorter wait may be of a reader that is busy but keeps up, or a
    hiccup of one that falls behind: it counts unless time stamps fall behind the clock, since all had been read, by a
    second.
    """

    def __init__(self, period: float, now: float) -> None:
        self._long_wait, self._caught_up = period / 2, now
        self._lead = -math.inf
        """By so much time stamps were ahead of the clock when all had been read."""

    def is_behind(self, waited: float, stamp: float | None, now: float) -> bool:
        """Whether a second has passed since all was read. waited, stamp: of a frame that has come, in seconds."""
        lead = self._lead if stamp is None else stamp - now
        self._lead = lead if waited > self._long_wait else max(self._lead, lead)
        if waited > _WAIT_SECONDS and lead >= self._lead - _BEHIND_SECONDS:
            self._caught_up = now
        return now - self._caught_up > _BEHIND_SECONDS
