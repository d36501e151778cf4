"""Pillow's settings, which are global to the process, while images are decoded."""

import contextlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageFile


@contextlib.contextmanager
def pillow_limits_off() -> Iterator[None]:
    """Turn Pillow's own limits and warnings off: what they warn of is a DecodeError here. Threads may share it.

    Warning filters and Pillow's settings are global to the process: the first thread to enter sets them and the last
    to leave restores them; one catch_warnings per thread would restore them in the wrong order.
    """
    with _PILLOW.lock:
        if _PILLOW.depth == 0:
            _PILLOW.override()
        _PILLOW.depth += 1
    try:
        yield
    finally:
        with _PILLOW.lock:
            _PILLOW.depth -= 1
            if _PILLOW.depth == 0:
                _PILLOW.stack.close()


class _PillowSettings:
    def __init__(self) -> None:
        self.lock, self.depth, self.stack = threading.Lock(), 0, contextlib.ExitStack()

    def override(self) -> None:
        self.stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"PIL\.")
        self._set(Image, "MAX_IMAGE_PIXELS", None)  # data.max_pixels is the limit
        self._set(ImageFile, "LOAD_TRUNCATED_IMAGES", False)  # half an image is a DecodeError

    def _set(self, module: Any, name: str, value: Any) -> None:
        self.stack.callback(setattr, module, name, getattr(module, name))
        setattr(module, name, value)


_PILLOW = _PillowSettings()
