"""What a model's scores say, in sentences for people; each is true of the figures that it is made from."""

from collections.abc import Iterator, Sequence
from typing import Any

# Below this gap between confidence and accuracy, probabilities may be taken at their word.
HONEST = 0.05
# Classes with fewer images than this are not called weak by their figures.
TELLING = 10


def of(scores: dict[str, Any], *, is_test: bool) -> str:
    """The verdict."""
    accuracy, count, ends = scores["accuracy"], scores["count"], scores["intervals"]["accuracy"]
    between = f" (95 % interval {ends[0]:.1%} to {ends[1]:.1%})" if ends else ""
    if is_test:
        return f"Right on {accuracy:.1%} of {count:,} images that it never saw{between}."
    return (
        f"Right on {accuracy:.1%} of the {count:,} validation images by which it was chosen{between}: expect a little "
        "less of images that it never saw. It was not tested yet."
    )


def details(scores: dict[str, Any]) -> Iterator[str]:
    """Where it fails, and whether it knows."""
    supports = [row["support"] for row in scores["per_class"]]
    largest = max(range(len(supports)), key=supports.__getitem__)
    name = scores["per_class"][largest]["name"]
    share = supports[largest] / sum(supports)
    yield f"To answer {name} always, the most frequent class, would be right on {share:.1%}."
    told = [row for row in scores["per_class"] if row["support"] >= TELLING]
    if len(told) > 1:
        weakest, best = (pick(told, key=lambda row: row["f1"]) for pick in (min, max))
        yield (
            f"Weakest at {weakest['name']}: it finds {weakest['recall']:.0%} of them, and is right in "
            f"{weakest['precision']:.0%} of the cases in which it says so. Best at {best['name']} "
            f"(F1 {best['f1']:.1%})."
        )
    pairs = confused(scores, 1)
    if pairs:
        label, taken, count = pairs[0]
        times = "once" if count == 1 else f"{count:,} times"
        yield f"The most frequent mistake: {label} taken for {taken}, {times}."
    gap = scores["ece"]
    if gap < HONEST:
        yield f"Its probabilities can be believed: they are {gap:.1%} away from how often it is right, on the mean."
    else:
        words = "Its probabilities are not to be taken at their word: they are"
        yield f"{words} {gap:.1%} away from how often it is right, on the mean."


def confused(scores: dict[str, Any], most: int) -> list[tuple[str, str, int]]:
    """(label, taken for, images) of the most frequent mistakes."""
    names = [row["name"] for row in scores["per_class"]]
    cells = [
        (names[i], names[j], count)
        for i, row in enumerate(scores["confusion"])
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(cells, key=lambda cell: -cell[2])[:most]


def fit(history: Sequence[dict[str, Any]]) -> str | None:
    """Whether it learned too little or by heart, from the journal of a training; None where the journal cannot say."""
    rows = [row for row in history if row["validation_accuracy"] is not None and row["train_accuracy"] is not None]
    if len(rows) < 2:
        return None
    last = rows[-1]
    gap = last["train_accuracy"] - last["validation_accuracy"]
    if gap > 0.1:
        return (
            f"It knows its training images better ({last['train_accuracy']:.1%}) than new ones "
            f"({last['validation_accuracy']:.1%}): more images, or more augmentation, would help most."
        )
    late = rows[-1]["validation_accuracy"] - rows[-max(2, len(rows) // 4)]["validation_accuracy"]
    if late > 0.01:
        return "It was still getting better when the training ended: more epochs would help."
    if gap < -0.05:
        return (
            f"In training, with augmentation, it is right on {last['train_accuracy']:.1%}, and on new images on "
            f"{last['validation_accuracy']:.1%}: a larger model, or less augmentation, may learn more."
        )
    return None
