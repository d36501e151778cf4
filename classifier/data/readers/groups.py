"""Groups: images of one patient, plant or video, which stay on one side of every split."""

import dataclasses
import re

from classifier.data.readers.source import Source
from classifier.errors import ConfigError, DataError, list_few


def assign_groups(source: Source, pattern: str) -> Source:
    """The source with groups that a regular expression's first group finds in the images' names.

    An image in whose name it finds nothing is a group of its own. ConfigError if it is no such expression; DataError if
    it finds nothing in any name.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"data.group {pattern!r} is no regular expression ({error}): mend it") from None
    if expression.groups != 1:
        mend = r"give a regular expression with one pair of brackets around it, like '(\w+)_\d+\.jpg'"
        raise ConfigError(f"data.group {pattern!r}: {source.name} has no columns; {mend}")
    matches = [expression.search(id_) for id_ in source.ids]
    if not any(matches):
        raise DataError(
            f"data.group {pattern!r} is found in no name of {source.name} ({list_few(source.ids)}): mend it"
        )
    names = [match[1] if match and match[1] is not None else None for match in matches]
    groups = [id_ if name is None else f"group {name}" for id_, name in zip(source.ids, names, strict=True)]
    alone = [id_ for id_, name in zip(source.ids, names, strict=True) if name is None]
    findings = source.findings
    if alone:
        findings += (f"{len(alone)} pictures belong to no group by data.group, and stand alone: {list_few(alone)}.",)
    return dataclasses.replace(source, groups=groups, findings=findings)
