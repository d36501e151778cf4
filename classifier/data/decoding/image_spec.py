"""How an image file is decoded: size, channels, fit, and the maximum number of pixels in a file."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ImageSpec:
    """uint8, channels x size x size. fit: crop (centre square), pad or stretch; see `decode.prepare`."""

    size: int
    channels: int
    fit: str
    max_pixels: int
    """Files with more pixels are refused, before they are decoded."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        return self.channels, self.size, self.size

    def to_words(self) -> list[str]:
        """The arguments that describe this spec to a decoding process."""
        return [str(self.size), str(self.channels), self.fit, str(self.max_pixels)]

    @classmethod
    def from_words(cls, words: Sequence[str]) -> "ImageSpec":
        """Return the spec that `to_words` described."""
        size, channels, fit, max_pixels = words
        return cls(int(size), int(channels), fit, int(max_pixels))
