"""What has been read, answered and sent so far."""

import threading
from dataclasses import dataclass
from typing import Literal

_LOCK = threading.Lock()


@dataclass
class Counts:
    """Numbers since the start. Each is written by one thread, but for those that are written by `add`."""

    frames: int = 0
    """Frames decoded."""
    damaged: int = 0
    """Frames and packets that could not be decoded."""
    dropped: int = 0
    """Frames that were due, and replaced by newer ones before they were answered."""
    unchanged: int = 0
    """Frames that hardly differed from the last one answered, whose answer they got."""
    answered: int = 0
    """Frames that the model answered."""
    unreadable: int = 0
    """Image files that could not be read."""
    reconnects: int = 0
    """Times that a lost stream came back."""
    alerts: int = 0
    """Alerts that began."""
    clips: int = 0
    """Clips saved."""
    unsaved: int = 0
    """Clips, frames and events that could not be saved."""
    sent: int = 0
    """Events that the webhook has taken."""
    unsent: int = 0
    """Events that it has not."""

    def add(self, name: Literal["unsaved", "unsent"], number: int = 1) -> None:
        """Add to a number that several threads write."""
        with _LOCK:
            setattr(self, name, getattr(self, name) + number)
