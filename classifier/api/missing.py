"""What a run lacks although its model is whole: outputs that could not be made, why, and the command for them."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from classifier.errors import ClassifierError, RunError, in_short
from classifier.runs.folder import read_result, update_result

CALIBRATION, TEST = "the calibration", "the test"


class Missing:
    """Notes outputs that could not be made after the training, so that the work goes on without them."""

    def __init__(self) -> None:
        self._attempted: set[str] = set()
        self._lines: dict[str, str] = {}
        self.faults: list[Exception] = []
        """Errors that are nobody's but ours: neither the user's mistake nor the disk's."""

    @contextlib.contextmanager
    def note(self, name: str, remedy: str) -> Iterator[None]:
        """Make an output in the body; where that fails, note why and go on. remedy: the command that makes it later."""
        self._attempted.add(name)
        self._lines.pop(name, None)
        try:
            yield
        except BrokenPipeError:  # of stdout, whose reader wants no more of anything
            raise
        except Exception as error:  # a full disk, a name, or a fault of ours: nothing that would be worth the model
            if not isinstance(error, (ClassifierError, OSError)):
                self.faults.append(error)
            self._lines[name] = f"{name} is missing ({in_short(error, 200)}): make it with {remedy}"

    def mark_made(self, name: str) -> None:
        """Note that an output has been made, which may have been missing before."""
        self._attempted.add(name)

    @property
    def names(self) -> list[str]:
        """The outputs that could not be made."""
        return list(self._lines)

    def as_field(self) -> dict[str, list[str]]:
        """The field `missing` of result.json; none if nothing is missing."""
        return {"missing": self.names} if self.names else {}

    def describe(self) -> list[str]:
        """A sentence on each of them."""
        return list(self._lines.values())

    def still(self, earlier: Sequence[str]) -> list[str]:
        """The names of all that is missing if those were missing before."""
        return list(dict.fromkeys([*(name for name in earlier if name not in self._attempted), *self._lines]))

    def save(self, folder: Path) -> None:
        """Write the names into result.json, as `missing`; it lists nothing if they have been made meanwhile."""
        with contextlib.suppress(OSError, RunError):  # no result yet, or what kept them from being made
            earlier = read_result(folder).get("missing") or []
            if (now := self.still(earlier)) != earlier:
                update_result(folder, missing=now)
