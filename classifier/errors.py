"""The exceptions of this package, as a tree.

ClassifierError          the base: its message is one sentence that names the cause and the fix
├── ConfigError          a setting, recipe or experiment file
├── DataError            images, labels or splits
├── ModelError           a model's name, shape or weights
├── RunError             a run folder, checkpoint or bundle
└── DivergedError        the loss became NaN or infinite: not an input error, but training cannot continue

The user can fix all but the last; a verb exits with code 2 on them.
The message is the only constructor argument, so that exceptions can be pickled between processes.
"""

from collections.abc import Sequence


def in_short(error: BaseException, limit: int = 100) -> str:
    """Return an exception's message on one line of at most `limit` characters; without a message, its class name."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


class ClassifierError(Exception):
    """Base of all exceptions that this package raises on purpose."""


class ConfigError(ClassifierError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(ClassifierError):
    """Images, labels or splits cannot be trained or tested on."""


class ModelError(ClassifierError):
    """A model is unknown, cannot take these images, or does not match its weights."""


class RunError(ClassifierError):
    """A run folder, checkpoint or bundle is missing, in use, corrupted or of an unknown format."""


class DivergedError(ClassifierError):
    """The loss became NaN or infinite."""


def list_few(items: Sequence[str], limit: int = 3) -> str:
    """Return the first items, separated by commas, and how many more there are."""
    more = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {more:,} more" if more > 0 else "")
