"""The names and numbers of the three splits, and the kinds of images."""

from typing import Literal

TRAIN, VALIDATION, TEST = range(3)
SPLITS = ("train", "validation", "test")
UNASSIGNED = -1
"""In splits_N: the source does not say which split this image belongs to."""
SPLIT_ALIASES = {"train": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "test": TEST}
"""Names of splits in folders, files and manifests."""

ImageKind = Literal["symbols", "objects", "photos"]
"""What augmentation may do: symbols (letters, digits) are never mirrored; objects are small, centred and alike."""
