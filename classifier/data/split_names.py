"""What the three splits are called and how they are numbered."""

from typing import Literal

TRAIN, VALIDATION, TEST = range(3)


# What folders, files and manifests call them.
WORDS = {"train": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "test": TEST}


ImageKind = Literal["symbols", "objects", "photos"]
"""What augmentation may do: symbols (letters, digits) are never mirrored; objects are small, centred and alike."""


SPLITS = ("train", "validation", "test")


DRAWN = -1
"""In splits_N: the data set does not say where this image belongs."""
