"""Output that has lost its reader: a terminal that was closed, a pipe whose reader has ended."""

import contextlib
import os
import stat
import sys


def detach_terminal() -> None:
    """Discard all output from now on that would go to a terminal, which was closed; a file or pipe still gets it."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
            if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
                discard_output(stream.fileno())


def discard_output(descriptor: int) -> None:
    """Let a file descriptor lead nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
