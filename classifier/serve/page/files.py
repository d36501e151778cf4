"""The files of the page for people: served as they are, with headers by which a browser runs nothing else."""

import hashlib
from importlib import resources

from starlette.responses import Response

from classifier.serve.bounds import RequestError

PAGE = "page.html"
KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",  # asked again by ETag, so that a new server never meets an old page
}


class PageFiles:
    """The files, read once."""

    def __init__(self) -> None:
        folder = resources.files(__package__ or "")
        names = [file.name for file in folder.iterdir() if file.name.rpartition(".")[2] in KINDS]
        self._contents = {name: (folder / name).read_bytes() for name in names}
        self._tags = {name: f'"{hashlib.sha256(content).hexdigest()[:16]}"' for name, content in self._contents.items()}

    def respond(self, name: str, if_none_match: str) -> Response:
        """Return a file, or that the browser's copy is current. RequestError (404) if there is no such file."""
        if name not in self._contents:
            raise RequestError(404, "the page has no such file")
        headers = HEADERS | {"etag": self._tags[name]}
        if self._tags[name] in if_none_match:
            return Response(status_code=304, headers=headers)
        return Response(self._contents[name], headers=headers, media_type=KINDS[name.rpartition(".")[2]])
