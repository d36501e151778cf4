"""When alerts begin and end: rules applied to values over time."""

import uuid
from typing import Literal

from classifier.watch.rules import Rule

_TOLERANCE = 1e-6
"""In seconds: sums of frame times are rounded."""


class AlertState:
    """A rule, and whether its alert is on.

    An alert begins when its condition has held for as long as the rule says, and no other began within its `every`; it
    ends by the rule's `until`, which makes the hysteresis.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.id = ""
        """Of the latest alert."""
        self.is_on = False
        self._since: float | None = None
        self._began: float | None = None

    def update(self, value: float, seconds: float, *, is_first: bool = False) -> Literal["began", "ended"] | None:
        """Apply the rule to the value at a time; return what changed. is_first: what was before is unknown."""
        if is_first:
            self._since = None
        holds = self.rule.begin.holds(value)
        if self.is_on:
            until = self.rule.until
            if until.holds(value) if until else not holds:
                self.is_on, self._since = False, None
                return "ended"
            return None
        if not holds:
            self._since = None
            return None
        self._since = seconds if self._since is None else self._since
        if seconds - self._since < self.rule.hold_seconds - _TOLERANCE:
            return None
        if self._began is not None and seconds - self._began < self.rule.every_seconds - _TOLERANCE:
            return None
        self.is_on, self._began, self.id = True, seconds, uuid.uuid4().hex
        return "began"
