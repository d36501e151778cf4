"""The version of this package, and of those at its heart."""

import contextlib
import functools
import platform
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """What the result was made with: this code, Python, and the packages at its heart."""
    return {"classifier": __version__, "python": platform.python_version()} | _package_versions()


@functools.cache  # each look reads a package's metadata, 1 ms
def _package_versions() -> dict[str, str]:
    found = {}
    for name in ("torch", "torchvision", "ray", "numpy", "pillow"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
