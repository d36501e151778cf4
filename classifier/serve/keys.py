"""API keys: a file of their SHA-256, so that who reads it has none of them.

A line is `NAME ROLE HASH`, where the role is predict or admin. A key is 256 random bits, which no one guesses from its
hash, so that a slow hash would gain nothing.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from classifier.errors import ConfigError

ROLES = ("predict", "admin")
_NAME, _HASH = re.compile(r"[\w.-]{1,64}"), re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Key:
    """A key that the server knows. An admin may also load models."""

    name: str
    role: str
    sha256: str


class Keys:
    """The keys of a file."""

    def __init__(self, keys: list[Key]) -> None:
        self._keys = keys

    @classmethod
    def read(cls, path: Path) -> "Keys":
        """Read a file of keys. ConfigError names the line that is none, but none of its words."""
        keys = _read_keys(path)
        if not keys:
            raise ConfigError(f"{path} has no keys: make one with --add_key NAME")
        return cls(keys)

    def find(self, secret: str) -> Key | None:
        """Return whose key this is. All are compared, each in constant time."""
        digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found


def add_key(path: Path, name: str, role: str) -> str:
    """Make a key, append its hash to the file, and return the key, which is nowhere else. ConfigError if it cannot."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name of a key: use letters, digits, '.', '_' and '-'")
    secret = secrets.token_urlsafe(32)
    try:
        if path.exists() and any(key.name == name for key in _read_keys(path)):
            raise ConfigError(f"{path} has a key of the name {name}: remove its line, or choose another name")
        with path.open("a", encoding="utf-8") as file:
            path.chmod(0o600)
            file.write(f"{name} {role} {hashlib.sha256(secret.encode()).hexdigest()}\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}): choose another --key_file") from None
    return secret


def _read_keys(path: Path) -> list[Key]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"{path} cannot be read ({reason}): make keys with --add_key NAME") from None
    keys = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        name, role, sha256 = words if len(words) == 3 else ("", "", "")
        if not _NAME.fullmatch(name) or role not in ROLES or not _HASH.fullmatch(sha256):
            raise ConfigError(f"{path}, line {number} is not NAME ROLE HASH: make keys with --add_key NAME")
        keys.append(Key(name, role, sha256))
    return keys
