"""A page in headless Chromium, driven over its DevTools protocol as a user would drive it."""

import json
import re
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

WORDS = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "about:blank")
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


class Tab:
    """A tab of a browser. events: what the browser has told of its own, as far as it was read."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._count = socket, 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol: https://chromedevtools.github.io/devtools-protocol."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while (message := json.loads(self._socket.recv(timeout=60))).get("id") != self._count:
            self.events.append(message)
        assert "error" not in message, message["error"]
        return message["result"]

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def evaluate(self, code: str) -> Any:
        """Return the value of an expression, or of its promise."""
        done = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def wait_for(self, code: str, seconds: float = 30) -> Any:
        """Return the value of an expression once it is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(code)):
            assert time.monotonic() < deadline, (
                f"{code} did not become true: {self.evaluate('document.body.innerText')}"
            )
            time.sleep(0.05)
        return value

    def drop(self, *files: Path) -> None:
        """Drag files from outside onto the page."""
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=100, y=100, data=data)

    def press(self, key: str, *, is_control: bool = False) -> None:
        """Press a key by its name in a page's events: Enter, Tab, ArrowLeft, ArrowRight, or a letter or digit."""
        named = {"Enter": 13, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39}
        code, written = named.get(key) or ord(key.upper()), {"Enter": "\r"}.get(key, "" if key in named else key)
        for kind in ("keyDown", "keyUp"):
            text = {"text": written} if written and kind == "keyDown" and not is_control else {}
            words = {"key": key, "code": key if key in named else "", "modifiers": 2 * is_control}
            self.call("Input.dispatchKeyEvent", type=kind, windowsVirtualKeyCode=code, **words, **text)

    def emulate(self, width: int, *, dark: bool = False) -> None:
        """Set the width of the window in pixels, and the scheme of colours."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def requests(self) -> set[str]:
        """Addresses that the page has asked for, without what was in its memory."""
        sent = [one["params"]["request"]["url"] for one in self.events if one["method"] == "Network.requestWillBeSent"]
        return {url for url in sent if not url.startswith(("data:", "blob:"))}

    def complaints(self) -> list[str]:
        """What the page wrote to the console, and what of it the browser refused to run."""
        names = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(one["params"]) for one in self.events if one["method"] in names]


@contextmanager
def open_tab(folder: Path) -> Iterator[Tab]:
    """A new browser with a camera that is none; skips the test where Chromium is not installed."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    command = [chromium, *WORDS, *FAKE_CAMERA, f"--user-data-dir={folder / 'profile'}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    reader = threading.Thread(target=process.stderr.read)
    try:
        port = next(match[1] for line in process.stderr if (match := re.search(r"ws://127\.0\.0\.1:(\d+)/", line)))
        reader.start()  # a full pipe would stop the browser
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=30) as response:
            pages = [page for page in json.load(response) if page["type"] == "page"]
        with connect(pages[0]["webSocketDebuggerUrl"], max_size=None) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        process.wait(30)
        if reader.ident:
            reader.join(30)
        process.stderr.close()
