"""The order of grades, from the lowest to the highest."""

from collections.abc import Sequence

from classifier.data.labels.class_names import clean_label, sort_class_names
from classifier.data.labels.values import NUMBER
from classifier.errors import ConfigError, list_few
from classifier.text import quote

MAX_NAMED = 6
"""Classes that a message names."""


def order_grades(name: str, class_names: Sequence[str], order: str | None) -> tuple[str, ...]:
    """Return the classes of a data set in the order of a text like `none,mild,severe`, or else of their numbers.

    Grades that no image has are left out. ConfigError if no order is known, or it leaves out a class.
    """
    if order is None:
        if not all(NUMBER.fullmatch(one) for one in class_names):
            some = ",".join(class_names[:MAX_NAMED]) + (",..." if len(class_names) > MAX_NAMED else "")
            raise ConfigError(
                f"{name}: no order of its classes is known: name all from the lowest to the highest, as in "
                f"--data.order {quote(some)}"
            )
        return sort_class_names(class_names)
    grades = [clean_label(one) for one in order.split(",")]
    if missing := [repr(one) for one in class_names if one not in grades]:
        raise ConfigError(f"data.order {order[:100]!r} lacks the classes {list_few(missing)} of {name}: name them all")
    if len(set(grades)) < len(grades):
        raise ConfigError(f"data.order {order[:100]!r} names a class twice: name each once")
    return tuple(one for one in grades if one in class_names)
