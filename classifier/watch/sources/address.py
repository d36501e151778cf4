"""Where frames come from: a film, a stream, a camera of this machine, or a folder that fills."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from classifier.errors import ConfigError, DataError

Kind = Literal["film", "stream", "device", "folder"]
_PROTOCOLS = {
    "http": "http,https,tls,tcp,crypto",
    "https": "https,tls,tcp,crypto",
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsps,rtsp,rtp,srtp,udp,tls,tcp",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
    "tcp": "tcp",
    "udp": "udp",
}
"""Of each scheme, the protocols that FFmpeg may use for it. None is `file`: a playlist opens no file here."""


@dataclass(frozen=True)
class Address:
    """A source of frames."""

    kind: Kind
    location: str
    """A path, or the URL with its credentials, which nobody but FFmpeg gets."""
    name: str
    """What is shown, logged and sent: without credentials."""
    protocols: str = "none"
    """FFmpeg's whitelist."""


def parse_address(word: str) -> Address:
    """Return the source that a word names: a path or a URL. ConfigError or DataError if there is none."""
    scheme, separator, _ = word.partition("://")
    if separator:
        return _parse_url(word, scheme.lower())
    path = Path(word)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no path"
        raise DataError(f"{word} cannot be opened ({reason}): give a video, a folder, a camera or a URL") from None
    if stat.S_ISDIR(mode):
        return Address("folder", word, word)
    if stat.S_ISCHR(mode):
        return Address("device", word, word)
    if not stat.S_ISREG(mode):
        raise DataError(f"{word} is neither a file nor a camera: give a video, a folder, a camera or a URL")
    return Address("film", word, word)


def _parse_url(url: str, scheme: str) -> Address:
    if scheme not in _PROTOCOLS:
        raise ConfigError(f"{scheme}:// is not supported: use one of {', '.join(_PROTOCOLS)}, or a path")
    return Address("stream", url, hide_credentials(url), _PROTOCOLS[scheme])


def hide_credentials(url: str) -> str:
    """Return a URL without its user, password and parameters, and without a path that has some in it.

    >>> hide_credentials("rtsp://ann:secret@cam:554/live?token=1")
    'rtsp://cam:554/live'
    >>> hide_credentials("rtsp://cam/user=ann&password=b")
    'rtsp://cam/...'
    >>> hide_credentials("http://cam/live?user=ann@home.org&password=b")
    'http://...'
    """
    scheme, _, rest = url.partition("://")
    end = next((n for n, letter in enumerate(rest) if letter in "/?#"), len(rest))
    host, path = rest[:end].rpartition("@")[2], rest[end:]
    if "@" in path or "=" in host or "&" in host:  # of a password or a parameter: where the host is nobody can say
        return f"{scheme.lower()}://..."
    path = path.partition("?")[0].partition("#")[0]
    return f"{scheme.lower()}://{host}{'/...' if '=' in path or '&' in path else path}"


def hide_path(url: str) -> str:
    """Return a web address that `check_url` has taken without its path, which may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def check_url(url: str, option: str) -> str:
    """Return a web address as it is. ConfigError, which does not repeat it, if it is none, or has a password."""
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_usable = False
    if not is_usable or not url.isascii() or any(c.isspace() for c in url):
        raise ConfigError(f"--{option} is no web address: give https://HOST/PATH")
    if "@" in urlsplit(url).netloc:
        raise ConfigError(f"--{option} has a user or a password, which cannot be sent: put a secret into the path")
    return url
