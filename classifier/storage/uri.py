"""Places that are named by a URI: whatever pyarrow opens."""

from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from classifier.errors import ConfigError, in_short


def open_filesystem(uri: str, setting: str) -> tuple[fs.FileSystem, str]:
    """The file system of s3://bucket/folder, gs://..., hdfs://... or a path, and the place in it.

    what: the setting that has it. ConfigError if pyarrow cannot open it, or if it holds a secret.
    """
    if "@" in uri.partition("://")[2].partition("/")[0]:
        raise ConfigError(f"{setting} holds a key: keep it out of commands, in AWS_ACCESS_KEY_ID and the like")
    try:
        return fs.FileSystem.from_uri(uri if "://" in uri else str(Path(uri).resolve()))
    # Arrow raises ArrowNotImplementedError for a kind of storage that this build of it cannot open.
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise ConfigError(f"{setting} {uri} cannot be opened: {in_short(error, 200)}") from None
