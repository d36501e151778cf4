"""A new version of a model, tried on a share of the requests before it takes over, or is rolled back.

Requests of that share are answered by both versions. A canary returns the new version's answers, or the old one's where
the new one fails; shadow traffic returns the old one's. What is compared decides, and the same rule serves both.
"""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, kw_only=True)
class RolloutBounds:
    """When a new version takes over, and when it is rolled back."""

    share: float = 0.0
    """Of the requests that both versions answer; 0 switches at once."""
    is_shadow: bool = False
    """Return the old version's answers meanwhile."""
    requests: int = 100
    """Compared before it takes over."""
    max_errors: float = 0.01
    """Share of them that the new version may fail and the old one not."""
    max_disagreement: float = 0.05
    """Share of their images with another most likely class."""
    max_slowdown: float = 2.0
    """Ratio of the mean seconds of an answer."""


class Outcome(Enum):
    """What the comparisons say so far."""

    UNDECIDED = "undecided"
    ACCEPTED = "accepted"
    ROLLED_BACK = "rolled back"


@dataclass
class Comparison:
    """The counts of what was compared so far."""

    bounds: RolloutBounds
    requests: int = 0
    errors: int = 0
    images: int = 0
    disagreements: int = 0
    old_seconds: float = 0.0
    new_seconds: float = 0.0
    seen: int = 0
    """Requests, compared or not."""

    def takes(self) -> bool:
        """Return whether the next request is one of the share; evenly spread, not drawn."""
        self.seen += 1
        return int(self.seen * self.bounds.share) > int((self.seen - 1) * self.bounds.share)

    def add_error(self) -> None:
        self.requests += 1
        self.errors += 1

    def add(self, images: int, disagreements: int, old_seconds: float, new_seconds: float) -> None:
        self.requests += 1
        self.images += images
        self.disagreements += disagreements
        self.old_seconds += old_seconds
        self.new_seconds += new_seconds

    def judge(self) -> tuple[Outcome, str]:
        """Return the outcome and why, in a sentence.

        Errors and disagreements roll back as soon as no further request could bring them under their bounds.
        """
        bounds = self.bounds
        if self.errors > bounds.max_errors * bounds.requests:
            return Outcome.ROLLED_BACK, (
                f"it failed {self.errors} of {self.requests} requests that the version before it answered "
                f"(at most {bounds.max_errors:.1%} of {bounds.requests} are allowed)"
            )
        mean_images = self.images / max(1, self.requests - self.errors)
        if self.disagreements > bounds.max_disagreement * max(self.images, bounds.requests * mean_images):
            return Outcome.ROLLED_BACK, (
                f"it disagreed on {self.disagreements} of {self.images} images "
                f"(at most {bounds.max_disagreement:.1%} of {bounds.requests} requests' are allowed)"
            )
        if self.requests < bounds.requests:
            return Outcome.UNDECIDED, f"{self.requests} of {bounds.requests} requests compared"
        if self.new_seconds > bounds.max_slowdown * self.old_seconds:
            ratio = self.new_seconds / max(self.old_seconds, 1e-9)
            return (
                Outcome.ROLLED_BACK,
                f"it took {ratio:.1f} times as long (at most {bounds.max_slowdown:g} times is allowed)",
            )
        return Outcome.ACCEPTED, (
            f"{self.requests} requests compared: {self.errors} errors, {self.disagreements} of {self.images} images "
            "with another class"
        )
