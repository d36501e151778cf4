"""Code that the user allows to be imported: models by import path, such as `my_nets:Net`.

An import path in a document (a bundle, run, experiment or search space) imports nothing by itself: the user must have
named exactly that path, on the command line or in Python. Names are per process; jobs/launch sends them to workers.
"""

from collections.abc import Iterable

from classifier.errors import ConfigError, ModelError
from classifier.text import show

_trusted: set[str] = set()


def trust(*import_paths: str) -> None:
    """Allow models of these import paths, each `module:Class`, to be imported in this process.

    ConfigError for a name that is no import path.

    >>> classifier.trust("my_nets:Net")
    """
    for path in import_paths:
        if not is_import_path(path):
            raise ConfigError(f"trust {show(path)}: it is no import path: write module:Class, as in model.name")
    _trusted.update(import_paths)


def trusted() -> tuple[str, ...]:
    """Return the import paths that this process may import."""
    return tuple(sorted(_trusted))


def is_import_path(model_name: str) -> bool:
    """Return whether this model.name means code to import, rather than a model of this package or of a library."""
    return ":" in model_name and not model_name.startswith("timm/")


def trust_models(names: Iterable[str]) -> None:
    """Trust those of these values of model.name that are import paths, as the user has named them."""
    trust(*filter(is_import_path, names))


def check_trusted(model_name: str, document: object = "") -> None:
    """ModelError if this model.name would import code that the user has not named. document: where it was read."""
    if is_import_path(model_name) and model_name not in _trusted:
        name = show(model_name)
        raise ModelError(
            f"{f'{document}: ' if document else ''}model.name {name} would import code, which no file may ask for: if "
            f'you trust it, name it yourself, by --trust {name} or in Python by classifier.trust("{name}")'
        )
