"""The names and numbers of the three splits, and the kinds of images."""

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from classifier.errors import DataError

TRAIN, VALIDATION, TEST = range(3)
SPLITS = ("train", "validation", "test")
UNASSIGNED = -1
"""In splits_N: the source does not say which split this image belongs to."""
SPLIT_ALIASES = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validating", "dev", "devel", "development"), VALIDATION),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "heldout"), TEST),
}
"""Names of splits in folders, files and manifests."""
USUAL_NAMES = ("train", "val", "valid", "validation", "test")
"""Those that need no explanation."""
_EVALUATION = -2  # a test split, or a validation split beside another test split
_WORDS = SPLIT_ALIASES | dict.fromkeys(("eval", "evaluation"), _EVALUATION)
# Words in a split's name that say no more than that there are images in it.
_FILLERS = {"set", "sets", "data", "dataset", "split", "splits", "part", "subset", "folder", "dir", "samples", "files"}
_FILLERS |= {"image", "images", "img", "imgs", "photo", "photos", "pic", "pics", "picture" + "s", "the", "my"}
# trainset, testimages: the longest word first, since train begins training.
_COMPOUND = re.compile(
    f"({'|'.join(sorted(_WORDS, key=len, reverse=True))})({'|'.join(sorted(_FILLERS, key=len, reverse=True))})"
)

ImageKind = Literal["symbols", "objects", "photos"]
"""What augmentation may do: symbols (letters, digits) are never mirrored; objects are small, centred and alike."""


class SplitName(NamedTuple):
    """A name with a split's word in it. rest: its other words, without fillers and numbers (seg_train_images: seg)."""

    split: int
    rest: str


def parse_split_names(names: Sequence[str]) -> list[SplitName | None]:
    """Find the split that each name of some folders or files says; None where there is no such word, or several.

    `eval` is the test split, or the validation split if another name says test.

    >>> parse_split_names(["Training", "seg_test", "train2017", "cats"])
    [SplitName(split=0, rest=''), SplitName(split=2, rest='seg'), SplitName(split=0, rest=''), None]
    """
    parsed = [_parse(name) for name in names]
    has_test = any(name is not None and name.split == TEST for name in parsed)
    evaluation = VALIDATION if has_test else TEST
    return [
        name._replace(split=evaluation) if name is not None and name.split == _EVALUATION else name for name in parsed
    ]


def infer_splits(paths: Sequence[str]) -> list[int]:
    """Infer the split of each file from its name, or the names of its folders; UNASSIGNED where none says one."""
    parts = [list(reversed(path.split("/"))) for path in paths]
    names = sorted({name for names in parts for name in names})
    split_of = {name: found.split for name, found in zip(names, parse_split_names(names), strict=True) if found}
    return [next((split_of[name] for name in names if name in split_of), UNASSIGNED) for names in parts]


def parse_split(where: str, value: object) -> int:
    """Return the split that a row names, or UNASSIGNED if it names none. DataError for an unknown split."""
    word = "" if value is None or value != value else str(value).strip()
    if not word:
        return UNASSIGNED
    name = _parse(word)
    if name is None or name.rest or name.split == _EVALUATION:
        raise DataError(f"{where}: unknown split {word!r}: write {', '.join(USUAL_NAMES)}, or nothing")
    return name.split


@functools.lru_cache(1024)
def _parse(name: str) -> SplitName | None:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    words = re.findall(r"[^\W\d_]+", spaced.lower())
    words = list(_join_pairs(words))
    splits = {_WORDS[word] for word in words if word in _WORDS}
    if splits == {TRAIN, VALIDATION}:
        splits = {TRAIN}  # train_val: what VOC calls trainval
    if len(splits) != 1:
        return None
    return SplitName(splits.pop(), " ".join(word for word in words if word not in _WORDS and word not in _FILLERS))


def _join_pairs(words: Iterable[str]) -> Iterable[str]:
    """Yield the words, with the split's word alone where one is joined with a filler, and hold-out as one word."""
    joined = re.sub(r"\b(hold|held) out\b", r"\1out", " ".join(words))
    for word in joined.split():
        compound = _COMPOUND.fullmatch(word)
        yield compound[1] if compound else word


def explain_no_test(share: float) -> str:
    """Say why a data set has no test images. share: its data.test."""
    return "every class has only one image" if share > 0 else "data.test is 0"
