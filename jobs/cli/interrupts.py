"""Ctrl-C and SIGTERM as a request to stop."""

import signal
import types


class Interrupts:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after saving; a second Ctrl-C stops at once.

    A context manager; poll `stop_requested`."""

    def __init__(self) -> None:
        self.stop_requested = False

    def __enter__(self) -> "Interrupts":
        self._before = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: types.FrameType | None) -> None:
        if self.stop_requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stop_requested = True
