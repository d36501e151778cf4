"""Ctrl-C, SIGTERM and a closed terminal as a request to stop, and an answer on the terminal at once."""

import contextlib
import os
import signal
import socket
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import ClassVar, NoReturn

from .output import detach_terminal
from .verb import EXIT_INTERRUPTED

ANSWER = "stopping after this step; Ctrl-C again to quit now"
# The terminal was closed, or the connection to it lost; Windows has no such signal.
HANGUP = getattr(signal, "SIGHUP", None)


class Interrupts:
    """Turns the first Ctrl-C, SIGTERM or hangup into a request to stop after saving: poll `stop_requested`.

    A context manager; one within another passes a request on to it. It does nothing outside the main thread, which
    alone can handle signals. A second Ctrl-C raises KeyboardInterrupt or, where `answer_interrupts` listens, ends the
    process. A hangup that was ignored (by nohup) still is.
    """

    current: ClassVar["Interrupts | None"] = None
    """The one in force."""
    is_answered: ClassVar[bool] = False
    """Whether `answer_interrupts` listens."""
    has_ended_work: ClassVar[bool] = False
    """Whether a Ctrl-C raised KeyboardInterrupt, so that any error that follows is its consequence."""

    def __init__(self) -> None:
        self.stop_requested = False
        self.say_how_to_resume: Callable[[], None] = lambda: None
        """Called before a second Ctrl-C ends the process."""
        self.is_saving = True
        """False while there is nothing to save: then the first Ctrl-C raises KeyboardInterrupt."""
        self.outer: Interrupts | None = None
        """The one that this one is within: its run is the one to go on with."""
        self._handlers: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGINT, signal.SIGTERM]
            if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
                numbers.append(HANGUP)
            self._handlers = {number: signal.signal(number, self._on_signal) for number in numbers}
            self.outer, Interrupts.current = Interrupts.current, self
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        if Interrupts.current is self:
            Interrupts.current = self.outer
            if self.outer is not None:
                self.outer.stop_requested |= self.stop_requested

    @contextlib.contextmanager
    def nothing_to_save(self) -> Iterator[None]:
        """End at once when asked to, by KeyboardInterrupt, rather than after the current step."""
        self.is_saving = False
        try:
            if self.stop_requested:
                raise KeyboardInterrupt
            yield
        finally:
            self.is_saving = True

    def _on_signal(self, number: int, _: types.FrameType | None) -> None:
        is_first, self.stop_requested = not self.stop_requested, True
        if number == HANGUP:
            detach_terminal()
        is_second_ctrl_c = not is_first and number == signal.SIGINT and not Interrupts.is_answered
        if is_second_ctrl_c or (is_first and not self.is_saving):
            Interrupts.has_ended_work = True
            raise KeyboardInterrupt


def answer_interrupts() -> None:
    """Answer Ctrl-C from a thread until the process ends, and end the process at the second one.

    The main thread, which alone runs Python's signal handlers, may be blocked: by Ray's start, or a long step.
    """
    if threading.current_thread() is not threading.main_thread() or Interrupts.is_answered:
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    Interrupts.is_answered = True
    threading.Thread(target=_answer, args=(reader, writer), name="interrupts", daemon=True).start()


def ignore_interrupts() -> None:
    """Raise KeyboardInterrupt no more: the process is about to end. The second Ctrl-C still ends it at once."""
    if Interrupts.is_answered and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, lambda *_: None)


def _answer(reader: socket.socket, writer: socket.socket) -> None:
    """writer: Python writes the number of each signal into it; it stays open as long as this thread."""
    from .display import display

    is_stopping = False
    while True:
        for number in reader.recv(64):
            if number == signal.SIGINT and is_stopping:
                quit_now()
            if number == HANGUP:
                detach_terminal()
            if number in (signal.SIGINT, signal.SIGTERM, HANGUP) and not is_stopping:
                is_stopping = True
                if Interrupts.current is None:  # Python raises KeyboardInterrupt
                    Interrupts.has_ended_work = True
                display().say(ANSWER)


def quit_now() -> NoReturn:
    """End the process without waiting for any thread. Files are intact: each is written whole, or not at all."""
    from .display import display

    display().clear()
    if (current := Interrupts.current) is not None:
        while current.outer is not None:
            current = current.outer
        current.say_how_to_resume()
    sys.stdout.flush()
    os._exit(EXIT_INTERRUPTED)
