"""What an audit finds: one fault of some images, in a sentence."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]

# Kind -> how bad it is, and what to do about it.
KINDS: dict[str, tuple[Severity, str]] = {
    "unreadable": ("error", "They are skipped in training: replace or remove them."),
    "leak": ("error", "The score counts what was learned by heart: keep each picture on one side (--write-manifest)."),
    "near_leak": (
        "error",
        "Nearly the same pictures are learned and tested: keep them on one side (--write-manifest).",
    ),
    "group_leak": ("error", "What belongs together is learned and tested: keep each group on one side."),
    "label_conflict": ("error", "One picture cannot be both: decide, and remove the other."),
    "near_conflict": ("warning", "Nearly the same pictures have different labels: look which one is right."),
    "label_error": ("warning", "The model, which has not learned these, is sure of another class: look at the label."),
    "duplicate": ("warning", "Copies count twice and teach nothing: one of each is enough (--write-manifest)."),
    "near_duplicate": ("warning", "One of each may be enough; keep them on one side of a split."),
    "extension": ("warning", "They are read by what they hold; other programs may go by the name: rename them."),
    "blank": ("warning", "There is nothing to see on them: remove them, unless that is what the class is."),
    "tiny": ("warning", "They are enlarged, and blurred by it: find larger ones, or set a smaller --data.size."),
    "dark": ("note", "There is little to see on them: check what made them."),
    "bright": ("note", "There is little to see on them: check what made them."),
    "blurred": ("note", "They are much softer than the others: check them."),
    "aspect": ("note", "Much of them is cut off to make a square: --data.fit pad keeps all of it."),
    "frames": ("note", "They are animations or stacks, of which the first frame is taken."),
    "few": ("warning", "So few images say little of a class: collect more, or merge classes."),
    "imbalance": ("warning", "See --data.balance, --loss.class_weights and --loss.adjustment; read the macro F1."),
    "stray": ("note", "They lie in no class: move them into one, or leave it so."),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """ids: the images that it is about, those that belong together beside one another; none for a class or the whole.
    text: a sentence without the mend, which KINDS has."""

    kind: str
    text: str
    ids: tuple[str, ...] = ()
    score: float | None = None
    """Of a near-duplicate, from 0 to 1."""

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind][0]

    @property
    def fix(self) -> str:
        return KINDS[self.kind][1]
