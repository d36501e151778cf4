"""A webhook: signed, tried again, and never waited for."""

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from classifier.errors import ConfigError
from classifier.watch.counts import Counts
from classifier.watch.sources.live import Backoff
from classifier.watch.webhook import Webhook, read_secret

EVENT = {"event": "alert", "id": "abc", "rule": "cat > 0.9"}
SECRET = b"0123456789abcdef"
FAST = Backoff(first_seconds=0.01, max_seconds=0.05)


class Receiver:
    """Answers with these statuses, one a request, then with 200. A status of 0 hangs, and 202 before its body."""

    def __init__(self, *statuses: int) -> None:
        left, self.requests = list(statuses), []
        self.may_end = threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.requests.append((self.path, self.headers, body))
                status = left.pop(0) if left else 200
                if not status:
                    receiver.may_end.wait(10)
                    return
                self.send_response(status)
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", "10" if status == 202 else "0")
                self.end_headers()
                if status == 202:
                    receiver.may_end.wait(10)

            def log_message(self, *_: object, **__: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=secret"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def receive() -> Iterator[type[Receiver]]:
    made: list[Receiver] = []

    class Made(Receiver):
        def __init__(self, *statuses: int) -> None:
            super().__init__(*statuses)
            made.append(self)

    yield Made
    for one in made:
        one.may_end.set()
        one.server.shutdown()
        one.server.server_close()


def send(url: str, secret: bytes | None = SECRET, events: int = 1) -> tuple[Counts, list[str]]:
    counts, said = Counts(), []
    webhook = Webhook(url, secret, counts, said.append, backoff=FAST)
    for _ in range(events):
        webhook.send(EVENT)
    webhook.close()
    return counts, said


def test_an_event_is_signed_and_tried_again(receive):
    receiver = receive(500, 429, 503)
    counts, said = send(receiver.url)
    assert (counts.sent, counts.unsent, said) == (1, 0, [])
    assert len(receiver.requests) == 4
    for path, headers, body in receiver.requests:
        assert path == "/hook?token=secret"
        assert json.loads(body) == EVENT
        assert headers["webhook-id"] == "abc-alert"  # the same in each try
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
        signed = f"abc-alert.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"


@pytest.mark.parametrize(
    ("statuses", "tries", "problem"),
    [([400], 1, "HTTP status 400"), ([302], 1, "HTTP status 302"), ([500] * 9, 6, "500")],
)
def test_what_is_not_taken_is_told_without_the_secret(statuses: list[int], tries: int, problem: str, receive):
    receiver = receive(*statuses)
    counts, [said] = send(receiver.url, secret=None)
    assert (counts.sent, counts.unsent, len(receiver.requests)) == (0, 1, tries)
    assert problem in said
    assert "secret" not in said
    assert "/hook" not in said  # many receivers know a sender by it
    assert "webhook-signature" not in receiver.requests[0][1]


def test_nothing_waits_for_a_receiver_that_hangs(receive):
    receiver, counts, said = receive(0), Counts(), []
    webhook = Webhook(receiver.url, SECRET, counts, said.append, timeout=30)
    began = time.monotonic()
    for _ in range(150):
        webhook.send(EVENT)
    assert time.monotonic() - began < 1
    assert len([line for line in said if "100 others wait" in line]) >= 49
    webhook.close(seconds=0.2)
    assert time.monotonic() - began < 5
    assert "of the last events were not sent to http://127.0.0.1" in said[-1]
    assert (counts.sent, counts.unsent) == (0, 150)


def test_an_event_that_was_taken_is_not_sent_again(receive):
    receiver, began = receive(202), time.monotonic()
    counts, said = send(receiver.url)
    assert (counts.sent, len(receiver.requests), said) == (1, 1, [])
    assert time.monotonic() - began < 4


def test_no_receiver():
    _, [said] = send("http://127.0.0.1:9/")
    assert "Connection refused" in said


def test_secrets(tmp_path: Path):
    path = tmp_path / "key"
    path.write_text("whsec_" + base64.b64encode(SECRET).decode() + "\n")
    assert read_secret(path) == SECRET
    path.write_text(base64.b64encode(SECRET).decode() + "\n")
    assert read_secret(path) == SECRET
    for content, said in (
        (b"whsec_abcd", "fewer than 16 bytes"),
        (b"whsec_abcde", "not base64"),
        (b"a key of some words", "not base64"),
        (b"\xff" * 20, "not base64"),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=said):
            read_secret(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_secret(tmp_path / "absent")
