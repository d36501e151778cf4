"""What can go wrong, as one small tree.

ClassifierError          the base: its text is one sentence that names the culprit and the mend
├── ConfigError          a setting, recipe or experiment file
├── DataError            images, labels or splits
├── ModelError           a model's name, shape or weights
├── RunError             a run folder, checkpoint or bundle
└── DivergedError        the loss became NaN or infinite: no input error, but the run cannot go on

All but the last are the user's to mend; a verb answers them with exit code 2.
Each takes its message alone, so that it crosses process boundaries whole.
"""

from collections.abc import Sequence


def in_short(error: BaseException, limit: int = 100) -> str:
    """What another library says went wrong, on one line and not too long; where it says nothing, the error's name."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


class ClassifierError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(ClassifierError):
    """A setting that is unknown, of the wrong type or out of range."""


class DataError(ClassifierError):
    """Images, labels or splits that cannot be trained or tested on."""


class ModelError(ClassifierError):
    """A model that is unknown, cannot take these images, or does not match its weights."""


class RunError(ClassifierError):
    """A run folder, checkpoint or bundle that is missing, taken, damaged or of an unknown format."""


class DivergedError(ClassifierError):
    """The loss became NaN or infinite."""


def list_few(items: Sequence[str], limit: int = 3) -> str:
    """The first words, and how many more there are."""
    more = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {more:,} more" if more > 0 else "")
