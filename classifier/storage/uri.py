"""File systems named by a URI: any that pyarrow can open."""

from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from classifier.errors import ConfigError, in_short


def open_filesystem(uri: str, setting: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of s3://bucket/folder, gs://..., hdfs://... or a local path, and the path in it.

    setting: its name, for messages. ConfigError if pyarrow cannot open the URI, or if it contains credentials.
    """
    if "@" in uri.partition("://")[2].partition("/")[0]:
        raise ConfigError(f"{setting} contains credentials: set environment variables like AWS_ACCESS_KEY_ID instead")
    try:
        return fs.FileSystem.from_uri(uri if "://" in uri else str(Path(uri).resolve()))
    # ArrowNotImplementedError: this build of Arrow lacks that file system.
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise ConfigError(f"{setting} {uri} cannot be opened: {in_short(error, 200)}") from None
