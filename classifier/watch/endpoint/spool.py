"""A film that is still arriving, as a file that can be read and searched already."""

import tempfile
import threading
from collections.abc import Callable


class Spool:
    """Reads from a temporary file what a thread writes to it. What has not come yet is waited for.

    Films have their index at the end as often as at the beginning, so a reader has to go back and forth.

    receive: returns the next bytes; none at the end. length: of the whole film, if it is known.
    """

    def __init__(self, receive: Callable[[], bytes], length: int | None) -> None:
        self._receive, self._length = receive, length
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it ends with the process
        self._size, self._position, self._has_ended = 0, 0, False
        self._changed = threading.Condition()
        self.error: OSError | None = None
        """Why it could not be written: it ends where that happened."""
        threading.Thread(target=self._write, name="spool", daemon=True).start()

    def peek(self, count: int) -> bytes:
        """Return the first bytes, of so many if the film has them."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or self._size >= count)
            self._file.seek(0)
            return self._file.read(min(count, self._size))

    def read(self, count: int) -> bytes:
        """Return at most so many bytes; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or self._size > self._position)
            self._file.seek(self._position)
            part = self._file.read(count) if self._position < self._size else b""
            self._position += len(part)
            return part

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move; return the new position, or -1 where that would be counted from an end that is not known."""
        with self._changed:
            end = self._size if self._has_ended else self._length
            base = (0, self._position, end)[whence]
            if base is None or base + offset < 0:
                return -1
            self._position = base + offset
            return self._position

    def tell(self) -> int:
        return self._position

    def _write(self) -> None:
        try:
            while part := self._receive():
                with self._changed:
                    self._file.seek(self._size)
                    rest = memoryview(part)
                    while rest:
                        rest = rest[self._file.write(rest) :]
                    self._size += len(part)
                    self._changed.notify_all()
        except EOFError:  # the server is gone, and so is who asked
            pass
        except OSError as error:
            self.error = error
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()
