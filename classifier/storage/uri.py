"""File systems named by a URI: any that pyarrow can open. No secret in a URI, and no endpoint that a file names."""

from pathlib import Path
from typing import TYPE_CHECKING

from classifier.errors import ConfigError, RunError, in_short

if TYPE_CHECKING:
    from pyarrow import fs

# Where a colon in the authority stands before a port; elsewhere it stands before a password, which may have a slash.
_SCHEMES_WITH_PORTS = ("hdfs", "viewfs")


def is_remote(path: str) -> bool:
    """Return whether a path is a URI, or is on a Windows share, so that reading it sends something elsewhere."""
    return "://" in path or path.startswith(("\\\\", "//"))


def refuse_credentials(uri: str, setting: str) -> None:
    """ConfigError, which does not contain the URI, if it holds a user's name or password."""
    scheme, _, rest = uri.partition("://")
    authority = rest.partition("/")[0]
    if "@" in authority or (":" in authority and scheme not in _SCHEMES_WITH_PORTS):
        raise ConfigError(f"{setting} contains credentials: set environment variables like AWS_ACCESS_KEY_ID instead")


def refuse_endpoint(uri: str, document: object, option: str) -> None:
    """RunError if a document's URI names the server that is asked, which would get requests signed by the user.

    option: by which the user can name it. ConfigError if the URI contains credentials.
    """
    refuse_credentials(uri, f"the URI in {document}")
    if is_remote(uri) and "?" in uri:
        raise RunError(
            f"{document} names {uri}, with options that choose a server, which no file may choose: if it is yours, "
            f"name it by {option}"
        )


def open_filesystem(uri: str, setting: str) -> "tuple[fs.FileSystem, str]":
    """Return the file system of s3://bucket/folder, gs://..., hdfs://... or a local path, and the path in it.

    setting: its name, for messages. ConfigError if pyarrow cannot open the URI, or if it contains credentials.
    """
    import pyarrow as pa
    from pyarrow import fs

    refuse_credentials(uri, setting)
    try:
        return fs.FileSystem.from_uri(uri if "://" in uri else str(Path(uri).resolve()))
    # ArrowNotImplementedError: this build of Arrow lacks that file system.
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise ConfigError(f"{setting} {uri} cannot be opened: {in_short(error, 200)}") from None
