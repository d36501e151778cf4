"""Events sent to a web address, signed and tried again; a thread sends them, so that nothing waits for it.

Headers and signature are those of Standard Webhooks (https://www.standardwebhooks.com), for which there are libraries
that verify them: `webhook-id`, the same in each try, `webhook-timestamp`, and `webhook-signature`, which is `v1,` and
the base64 of the HMAC-SHA256 of `ID.TIMESTAMP.BODY`.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import queue
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from classifier.errors import ConfigError
from classifier.watch.counts import Counts
from classifier.watch.sources.address import check_url, hide_path
from classifier.watch.sources.live import Backoff

_MAX_WAITING, _TRIES, _MAX_RETRY_AFTER = 100, 6, 60.0
_MIN_SECRET_BYTES = 16
_PREFIX = "whsec_"
_ADVICE = "make it with echo whsec_$(openssl rand -base64 32) > FILE"


def read_secret(path: Path) -> bytes:
    """Read the key of the signatures. ConfigError, which does not contain it, if there is none.

    It is base64, with or without whsec_ before it, as the libraries of Standard Webhooks read it.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
        secret = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): {_ADVICE}") from None
    except ValueError:
        raise ConfigError(f"{path} has a secret that is not base64: {_ADVICE}") from None
    if len(secret) < _MIN_SECRET_BYTES:
        raise ConfigError(f"{path} has a secret of fewer than {_MIN_SECRET_BYTES} bytes: {_ADVICE}")
    return secret


def sign(secret: bytes, id_: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a message."""
    digest = hmac.new(secret, f"{id_}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


class Webhook:
    """Sends events, in order. say: called with a sentence when one could not be sent."""

    def __init__(
        self,
        url: str,
        secret: bytes | None,
        counts: Counts,
        say: Callable[[str], None],
        *,
        backoff: Backoff | None = None,
        timeout: float = 10.0,
    ) -> None:
        self._url, self._secret, self._name = check_url(url, "webhook"), secret, hide_path(url)
        self._counts, self._say, self._timeout = counts, say, timeout
        self._backoff = backoff or Backoff()
        self._waiting: queue.Queue[Mapping[str, Any] | None] = queue.Queue(_MAX_WAITING)
        self._is_closing = threading.Event()
        self._taken = self._done = 0
        """Events: to be sent, and sent or given up. Each is written by one thread."""
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._thread = threading.Thread(target=self._send_all, name="webhook", daemon=True)
        self._thread.start()

    def send(self, event: Mapping[str, Any]) -> None:
        """Send an event; never waits. Of more than a hundred that wait, the newest are left out."""
        try:
            self._waiting.put_nowait(event)
            self._taken += 1
        except queue.Full:
            self._counts.add("unsent")
            self._say(f"an event was not sent to {self._name}: {_MAX_WAITING} others wait")

    def close(self, seconds: float = 5.0) -> None:
        """Send what waits, for at most so many seconds, and say what was not sent."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=seconds)
            self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._is_closing.set()
            self._thread.join(1.0)
        if left := self._taken - self._done:
            self._counts.add("unsent", left)
            self._say(f"{left} of the last events were not sent to {self._name}: it did not answer in time")

    def _send_all(self) -> None:
        while (event := self._waiting.get()) is not None and not self._is_closing.is_set():
            if problem := self._send(event):
                self._counts.add("unsent")
                self._say(f"an event was not sent to {self._name} ({problem})")
            else:
                self._counts.sent += 1
            self._done += 1

    def _send(self, event: Mapping[str, Any]) -> str | None:
        """Send an event, in several tries; return why it could not be."""
        body, problem = json.dumps(event).encode(), ""
        for number in range(_TRIES):
            wait = self._backoff.delay(number, random.random())
            try:
                self._opener.open(self._request(event, body), timeout=self._timeout).close()
                return None
            except urllib.error.HTTPError as error:
                error.close()
                problem = f"HTTP status {error.code}"
                if error.code not in (408, 425, 429) and error.code < 500:
                    return problem
                after = error.headers.get("retry-after", "")
                wait = max(wait, min(_MAX_RETRY_AFTER, float(after))) if after.isdecimal() else wait
            except (OSError, ValueError) as error:
                reason = getattr(error, "reason", error)
                problem = getattr(reason, "strerror", None) or type(reason).__name__
            except Exception as error:  # http.client's
                problem = type(error).__name__
            if number + 1 < _TRIES and self._is_closing.wait(wait):
                break
        return problem

    def _request(self, event: Mapping[str, Any], body: bytes) -> urllib.request.Request:
        timestamp = int(time.time())
        id_ = f"{event['id']}-{event['event']}"
        headers = {"content-type": "application/json", "webhook-id": id_, "webhook-timestamp": str(timestamp)}
        if self._secret is not None:
            headers["webhook-signature"] = sign(self._secret, id_, timestamp, body)
        return urllib.request.Request(self._url, body, headers, method="POST")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else than where the user has said."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None
