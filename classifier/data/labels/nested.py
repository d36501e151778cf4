"""Classes in classes: whether names such as animal/dog make a tree, and what to say of it."""

from collections import Counter
from collections.abc import Iterator, Sequence

from classifier.data.labels.class_names import clean_label
from classifier.errors import list_few
from classifier.metrics.hierarchy import SEPARATOR, Hierarchy, list_prefixes


def clean_path(class_name: str) -> str:
    """Return a path without blanks at the ends of its parts."""
    return SEPARATOR.join(map(clean_label, class_name.split(SEPARATOR)))


def find_faults(name: str, class_names: Sequence[str]) -> Iterator[str]:
    """Yield why a data set cannot be trained with data.task nested, in sentences."""
    if gaps := [repr(one) for one in class_names if not all(one.split(SEPARATOR))]:
        yield f"{name}: a part of the class {gaps[0]} is empty: write its path like animal/dog"
    leaves, inner = set(class_names), {path: one for one in class_names for path in list_prefixes(one)}
    for path, inside in inner.items():
        if (above := SEPARATOR.join(path)) in leaves:
            yield (
                f"{name}: {above!r} has images of its own, and is also the class around {inside!r}: give these images "
                f"a class in it, such as {above + SEPARATOR + 'other'!r}"
            )
    folded: dict[str, str] = {}
    for above in sorted({SEPARATOR.join(path) for path in inner}):
        other = folded.setdefault(above.casefold(), above)
        if other != above:
            yield f"{name}: {other!r} and {above!r} differ only by case: use one name if they are one class"
    if not Hierarchy(class_names).levels:
        yield (
            f"{name} has no classes in classes, such as animal/dog beside animal/cat and plant/fern "
            f"({list_few([*map(repr, class_names)])}): leave out --data.task nested"
        )


def describe_tree(class_names: Sequence[str]) -> str:
    """Say how many of the classes are in which of the outermost ones."""
    tops = Counter(one.partition(SEPARATOR)[0] for one in class_names)
    return f"its {len(class_names):,} classes are nested: {list_few([f'{top} ({n:,})' for top, n in tops.items()])}."


def suggest_nested(class_names: Sequence[str]) -> list[str]:
    """Return a finding if the names are paths of classes in classes."""
    if not Hierarchy(class_names).levels:
        return []
    example = next(one for one in class_names if SEPARATOR in one)
    return [
        f"the names of its classes are paths, such as {example!r}: with --data.task nested, the classes above them are "
        "scored and answered, too."
    ]
