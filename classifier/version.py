"""The version of this package and of the packages that its results depend on."""

import contextlib
import functools
import platform
from importlib import metadata

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Return the versions of this package, Python and the main dependencies, as results record them."""
    return {"classifier": __version__, "python": platform.python_version()} | _package_versions()


@functools.cache  # reading a package's metadata takes 1 ms
def _package_versions() -> dict[str, str]:
    found = {}
    for name in ("torch", "torchvision", "ray", "numpy", "pillow"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
