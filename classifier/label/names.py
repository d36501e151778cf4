"""Names of classes that people type: what a manifest can hold, and a training tells apart."""

from collections.abc import Iterable

from classifier.data.labels.class_names import clean_label
from classifier.data.labels.values import parse_label
from classifier.errors import DataError
from classifier.text import show

MAX_LENGTH = 100
_SEPARATORS = ";,|\t[]{}"


def check_name(text: str, known: Iterable[str]) -> str:
    """Return a name as it is stored. DataError says why it cannot be that of a class.

    known: the classes so far, of which any may be given as it is.
    """
    known = tuple(known)
    if text in known:
        return text
    name = clean_label(" ".join(text.split()))
    if not name or parse_label("", name) is None or name == "-1":
        raise DataError("the name of the class is empty, or that of a missing label: type another")
    if len(name) > MAX_LENGTH:
        raise DataError(f"the name has {len(name):,} characters: give at most {MAX_LENGTH}")
    if any(one in name for one in _SEPARATORS):
        raise DataError("the name has a ; , | or bracket, by which manifests separate labels: type another")
    if show(name) != name:
        raise DataError("the name has invisible characters: type another")
    if twin := next((one for one in known if one.casefold() == name.casefold()), None):
        return twin
    return name
