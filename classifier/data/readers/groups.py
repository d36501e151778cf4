"""Groups: images of one patient, plant or video, which always stay in the same split."""

import dataclasses
import re

from classifier.data.readers.source import Source
from classifier.errors import ConfigError, DataError, list_few


def assign_groups(source: Source, pattern: str) -> Source:
    """Group the source's images by what the regular expression's capturing group matches in their names.

    An image whose name does not match forms a group of its own. ConfigError if the expression is invalid; DataError if
    it matches no name.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"data.group {pattern!r} is no valid regular expression ({error}): correct it") from None
    if expression.groups != 1:
        fix = r"give a regular expression with one capturing group, like '(\w+)_\d+\.jpg'"
        raise ConfigError(f"data.group {pattern!r}: {source.name} has no columns; {fix}")
    matches = [expression.search(id_) for id_ in source.ids]
    if not any(matches):
        raise DataError(f"data.group {pattern!r} matches no name in {source.name} ({list_few(source.ids)}): correct it")
    names = [match[1] if match and match[1] is not None else None for match in matches]
    groups = [id_ if name is None else f"group {name}" for id_, name in zip(source.ids, names, strict=True)]
    alone = [id_ for id_, name in zip(source.ids, names, strict=True) if name is None]
    findings = source.findings
    if alone:
        findings += (f"{len(alone)} images match no group of data.group and form one each: {list_few(alone)}.",)
    return dataclasses.replace(source, groups=groups, findings=findings)
