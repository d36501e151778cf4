"""Foreign text, such as names of files and classes: shown on a terminal, quoted for a shell, written to files.

A name may hold anything: escape codes that a terminal obeys, newlines, marks that reverse the order of what follows,
bytes that are not UTF-8, which Python holds as surrogates.
"""

import re
import shlex
import unicodedata
from collections.abc import Callable
from typing import Any

# Categories of characters that no terminal or log may get as they are: control, surrogate, line, paragraph separator.
_CONTROLLING = {"Cc", "Cs", "Zl", "Zp"}
# Invisible characters (Cf) that names need: joiners, in emoji and in Arabic and Indic scripts.
_JOINERS = "\u200c\u200d"
_UNUSUAL = re.compile(r"[^ -~]")
# A surrogate, or text that looks like an escaped one, with the backslashes before it.
_ESCAPABLE = re.compile(r"(\\*)(?:([\ud800-\udfff])|(?=u[dD][89a-fA-F][0-9a-fA-F]{2}))")
_ESCAPED = re.compile(r"(\\+)u([dD][89a-fA-F][0-9a-fA-F]{2})")


def show(text: object, *, keep: str = "") -> str:
    r"""Return the text as it may be shown, on one line: escape codes, newlines and invisible marks become `\x1b`, `\n`.

    keep: characters that stay, as the newlines of a text of several lines.

    >>> show("a\x1b[31mb")
    'a\\x1b[31mb'
    """

    def escape(match: re.Match[str]) -> str:
        character = match[0]
        is_shown = character in keep or _is_harmless(character)
        return character if is_shown else character.encode("unicode_escape").decode()

    return _UNUSUAL.sub(escape, str(text))


def quote(word: object) -> str:
    r"""Return a word as it can be pasted into a shell; one that cannot be shown as it is in bash's $'\x1b'.

    >>> quote("my runs/a")
    "'my runs/a'"
    """
    text = str(word)
    if show(text) == text:
        return shlex.quote(text)
    return "$'" + "".join(c if _is_harmless(c) and c not in "'\\" else _escape_bytes(c) for c in text) + "'"


def escape_surrogates(text: str) -> str:
    r"""Return text that UTF-8 can hold: bytes of a file name that are not UTF-8 become `\udce9`.

    Text that looks like such an escape gets twice its backslashes; all other text stays as it is.
    """
    if text.isascii() and "\\u" not in text:
        return text

    def escape(match: re.Match[str]) -> str:
        slashes, surrogate = match[1], match[2]
        return 2 * slashes + (f"\\u{ord(surrogate):04x}" if surrogate else "")

    return _ESCAPABLE.sub(escape, text)


def unescape_surrogates(text: str) -> str:
    """Return the text that `escape_surrogates` was given."""
    if "\\u" not in text:
        return text

    def unescape(match: re.Match[str]) -> str:
        slashes, code = match[1], match[2]
        pairs, is_escape = divmod(len(slashes), 2)
        return "\\" * pairs + (chr(int(code, 16)) if is_escape else f"u{code}")

    return _ESCAPED.sub(unescape, text)


def escape_all(value: Any) -> Any:
    """Return plain data with `escape_surrogates` applied to all text in it, as Parquet needs it."""
    return _map_text(value, escape_surrogates)


def unescape_all(value: Any) -> Any:
    """Return the plain data that `escape_all` was given."""
    return _map_text(value, unescape_surrogates)


def _map_text(value: Any, function: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return function(value)
    if isinstance(value, list | tuple):
        return [_map_text(item, function) for item in value]
    if isinstance(value, dict):
        return {_map_text(key, function): _map_text(item, function) for key, item in value.items()}
    return value


def _is_harmless(character: str) -> bool:
    category = unicodedata.category(character)
    return category not in _CONTROLLING and (category != "Cf" or character in _JOINERS)


def _escape_bytes(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
