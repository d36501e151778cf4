"""A folder that fills: each new image once, when it is complete."""

import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from classifier.data.decoding.decode import SUFFIXES
from classifier.errors import DataError
from classifier.watch.sources.frame import Frame

_POLL_SECONDS = 0.5
"""A file that has kept its size and time for as long is complete."""
_State = tuple[int, int]


def read_folder(folder: Path, stop: threading.Event, poll_seconds: float = _POLL_SECONDS) -> Iterator[Frame]:
    """Yield the images that appear in a folder until `stop`, the oldest first; not those that it has at the start.

    An image that is written again is a new one. DataError if the folder is gone.
    """
    done = _list_images(folder)
    before, began, number = done, time.monotonic(), 0
    while not stop.wait(poll_seconds):
        found = _list_images(folder)
        complete = [name for name, state in found.items() if before.get(name) == state != done.get(name)]
        for name in sorted(complete, key=lambda name: (found[name], name)):
            yield Frame(number, time.monotonic() - began, time.time(), partial(Path, folder, name), number == 0)
            number += 1
        done = {name: state for name, state in done.items() if name in found} | {name: found[name] for name in complete}
        before = found


def _list_images(folder: Path) -> dict[str, _State]:
    """Return the time and size of each image in a folder, by name; not of hidden files."""
    images = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or Path(entry.name).suffix.lower() not in SUFFIXES:
                    continue
                try:
                    about = entry.stat()
                except OSError:  # gone already
                    continue
                images[entry.name] = (about.st_mtime_ns, about.st_size)
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror}): give a folder that can be") from None
    return images
