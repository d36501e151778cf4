"""Who may ask: API keys, and without them only what is meant for this machine; and headers that browsers obey."""

from collections.abc import Mapping, Sequence

from classifier.serve.bounds import RequestError
from classifier.serve.keys import Keys

HEADERS = tuple(
    (name.encode(), value.encode())
    for name, value in {
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }.items()
)
"""Of every answer. No header opens the server to pages of other origins."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Guard:
    """Checks keys and hosts. keys: None on a loopback address without keys, where anyone on this machine may ask."""

    def __init__(self, keys: Keys | None = None, hosts: Sequence[str] = LOOPBACK) -> None:
        self.keys, self._hosts = keys, hosts

    def check_key(self, authorization: str | None, *, is_admin: bool = False) -> str | None:
        """Return the name of the request's key. RequestError (401, 403) if it has none, or none for this."""
        if self.keys is None:
            if is_admin:
                raise RequestError(403, "loading models needs a key of an admin: start the server with --key_file")
            return None
        scheme, _, secret = (authorization or "").partition(" ")
        key = self.keys.find(secret.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            raise RequestError(401, "this needs a key: send the header Authorization: Bearer KEY")
        if is_admin and key.role != "admin":
            raise RequestError(403, "this needs a key of an admin")
        return key.name

    def check_host(self, host: str | None) -> None:
        """RequestError (421) if a page has a browser ask in the name of another host: DNS rebinding."""
        if self.keys is not None:
            return
        name = (host or "").rpartition(":")[0] if (host or "").rpartition(":")[2].isdigit() else host or ""
        if name.strip("[]") not in self._hosts:
            raise RequestError(421, "this server answers to localhost only: use that name, or start it with --key_file")

    def check_origin(self, method: str, headers: Mapping[str, str]) -> None:
        """RequestError (403) if a browser asks for a page of another origin, which needs no answer to do harm.

        Without keys only, which such a page does not have. Links from elsewhere are followed.
        """
        if self.keys is not None or (method == "GET" and headers.get("sec-fetch-mode") == "navigate"):
            return
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        is_foreign = origin is not None and origin.partition("://")[2] != headers.get("host")
        if is_foreign or site not in ("same-origin", "none"):
            raise RequestError(403, "pages of other origins cannot use this server")
