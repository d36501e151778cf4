"""The one way from the bytes of image files to pixels: bounded in pixels, seconds and memory.

Cheap images are decoded in threads of this process: few pixels, in a format whose parts do not refer to each other.
All others are decoded in worker processes, which are killed when they take too long, cannot take more memory than they
may, and share a budget of it.
"""

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

from classifier.data.decoding import image_file
from classifier.data.decoding.decode import DecodeFailure, timeout_reason
from classifier.data.decoding.image_file import DecodeError, ExpensiveError
from classifier.data.decoding.tasks import Task
from classifier.data.decoding.threads import run_in_threads
from classifier.data.decoding.worker_processes import DecodeWorkers
from classifier.runtime.cpu import available_cores

MAX_CHEAP_WORK = 1 << 24
"""In pixels times passes over them."""

Read = Callable[[int], bytes | DecodeFailure | None]
"""Called in threads, maybe twice for an index: an image's bytes, or why it has none, or None: nothing to be done."""


class BoundedDecoder:
    """Performs one task on images. Its processes are started when an image needs one, and live as long as it does."""

    def __init__(self, task: Task, seconds: float) -> None:
        """seconds: the time that one image may take."""
        self.task, self.seconds = task, seconds
        self._workers = DecodeWorkers(task, seconds, available_cores())

    def __enter__(self) -> "BoundedDecoder":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End its processes; it can be used again."""
        self._workers.close()

    def map(self, read: Read, indices: Sequence[int]) -> Iterator[tuple[int, bytes | DecodeFailure]]:
        """Yield the reply to each image, in any order. Raises whatever `read` raises."""
        perform = self.task.open(_admit_cheap, is_fast=True)
        replies: dict[int, bytes | DecodeFailure] = {}
        expensive: list[int] = []

        def work(index: int) -> None:
            content = read(index)
            if content is None:
                return
            try:
                if isinstance(content, DecodeFailure):
                    replies[index] = content
                elif image_file.is_complex(content):
                    expensive.append(index)
                else:
                    replies[index] = perform(content)
            except ExpensiveError:
                expensive.append(index)
            except DecodeError as error:
                replies[index] = DecodeFailure(str(error))

        def give_up(index: int) -> None:
            late[index] = DecodeFailure(timeout_reason(self.seconds))

        late: dict[int, bytes | DecodeFailure] = {}  # its thread goes on, and may still reply
        run_in_threads(work, indices, self.seconds, give_up)
        yield from (replies | late).items()
        yield from self._workers.map(read, sorted({*expensive} - late.keys()))

    def decode(self, content: bytes) -> bytes:
        """Return the reply to one image. DecodeError if it cannot be used."""
        [(_, reply)] = self.map(lambda _: content, [0])
        if isinstance(reply, DecodeFailure):
            raise DecodeError(reply.reason)
        return reply

    def decode_here(self, content: bytes) -> bytes:
        """`decode` for a server's own threads: a cheap image is decoded in the calling one, whose start costs more.

        Its work is bounded; the seconds are those of other images. Call it within pillow_limits_off, which lasts.
        """
        try:
            if not image_file.is_complex(content):
                return self.task.open(_admit_cheap, is_fast=True)(content)
        except ExpensiveError:
            pass
        [(_, reply)] = self._workers.map(lambda _: content, [0])
        if isinstance(reply, DecodeFailure):
            raise DecodeError(reply.reason)
        return reply


def _admit_cheap(work: int) -> None:
    if work > MAX_CHEAP_WORK:
        raise ExpensiveError
