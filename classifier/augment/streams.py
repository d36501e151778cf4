"""The random streams of the augmentations."""

from enum import IntEnum


class Stream(IntEnum):
    """One stream per use, so that switching one augmentation off does not change the random numbers of the others."""

    FLIP = 0
    ROTATE = 1
    SCALE = 2
    SHEAR = 3
    SHIFT_X = 4
    SHIFT_Y = 5
    CROP_AREA = 6
    CROP_ASPECT = 7
    CROP_X = 8
    CROP_Y = 9
    BRIGHTNESS = 10
    CONTRAST = 11
    SATURATION = 12
    HUE = 13
    ERASE = 14
    ERASE_AREA = 15
    ERASE_ASPECT = 16
    ERASE_X = 17
    ERASE_Y = 18
    MIX_KIND = 19
    MIX_SHARE = 20  # and 21
    MIX_X = 22
    MIX_Y = 23
    TRIVIAL = 24  # to 26
    RANDAUGMENT = 32  # to 47: two per layer
