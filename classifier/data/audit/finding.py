"""A finding of an audit: one problem of some images, described in a sentence."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]

# Kind -> how severe it is, and what to do about it.
KINDS: dict[str, tuple[Severity, str]] = {
    "refused": ("error", "Training refuses a data set like this: correct it first."),
    "unreadable": ("error", "Training skips them: replace or remove them."),
    "leak": ("error", "These inflate the score: keep each image in one split (--write-manifest)."),
    "near_leak": (
        "error",
        "Near duplicates in two splits inflate the score: keep them in one split (--write-manifest).",
    ),
    "group_leak": ("error", "A group in two splits inflates the score: keep each group in one split."),
    "label_conflict": ("error", "One image cannot have all of them: decide which is right, and remove the others."),
    "near_conflict": ("warning", "Near duplicates have different labels: check which is right."),
    "label_error": ("warning", "A linear classifier trained without these predicts another class: check the label."),
    "duplicate": ("warning", "Duplicates count twice and add nothing: keep one of each (--write-manifest)."),
    "near_duplicate": ("warning", "One of each may be enough; keep them in one split."),
    "extension": ("warning", "They are read by content, but other programs may trust the extension: rename them."),
    "blank": ("warning", "They show nothing: remove them, unless that is what the class means."),
    "depth": (
        "warning",
        "They are nearly black as read: multiply their values, or declare their range (TIFF's MaxSampleValue, PNG's "
        "sBIT).",
    ),
    "tiny": ("warning", "Enlarging them blurs them: find larger ones, or set a smaller --data.size."),
    "dark": ("note", "They show little: check how they were taken."),
    "bright": ("note", "They show little: check how they were taken."),
    "blurred": ("note", "They are much blurrier than the others: check them."),
    "aspect": ("note", "Cropping to a square removes much of them: --data.fit pad keeps everything."),
    "frames": ("note", "They are animations or stacks; only the first frame is used."),
    "few": ("warning", "Too few images to learn or judge a class: collect more, or merge classes."),
    "imbalance": ("warning", "See --data.balance, --loss.class_weights and --loss.adjustment; read the macro F1."),
    "leaking_column": (
        "warning",
        "It may be known only when the label is, such as a diagnosis or a name: then leave it out of data.columns.",
    ),
    "identifier_column": (
        "warning",
        "It names images, and tells nothing about new ones: leave it out of data.columns.",
    ),
    "missing_by_class": (
        "warning",
        "A model learns the class from what is missing: check that it is so in use, too, or leave the column out.",
    ),
    "missing_values": ("note", "A model learns to do without them: check that they are not a mistake."),
    "reading": ("note", "How the data set was read: check that it is what you mean."),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """ids: the images concerned, related ones next to each other; empty if it is about a class or the whole data set.
    text: a sentence, without the fix, which is in KINDS."""

    kind: str
    text: str
    ids: tuple[str, ...] = ()
    score: float | None = None
    """Similarity of near duplicates, or confidence in a label error; from 0 to 1."""

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind][0]

    @property
    def fix(self) -> str:
        return KINDS[self.kind][1]
