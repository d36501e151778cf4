"""The live page: what it serves, to whom, and that nothing is fetched from elsewhere."""

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from classifier.errors import ConfigError
from classifier.watch.counts import Counts
from classifier.watch.metrics import WatchMetrics
from classifier.watch.observer import Observer
from classifier.watch.page import Page
from classifier.watch.sources.frame import Frame
from tests.devtools import open_tab
from tests.watch.conftest import ColourModel, draw_frame

NAME = "<script>alert(1)</script>"


@pytest.fixture
def page(model: ColourModel) -> Iterator[Page]:
    counts = Counts()
    metrics = WatchMetrics(counts, "colours")
    page = Page(NAME, counts, metrics, 0, has_rules=True)
    observer = Observer(model, counts, metrics)
    page.show(observer.observe(Frame(7, 1.5, 0.0, lambda: draw_frame("blue", 7), True)))
    page.add_event({"event": "alert", "id": "a", "rule": "blue > 0.9", "time": "2030-01-01T00:00:00+00:00"})
    yield page
    page.close()


def ask(page: Page, path: str, method: str = "GET", host: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(page.url.removeprefix("http://"), timeout=10)
    connection.request(method, path, headers={"Host": host} if host else {})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content, {name.lower(): value for name, value in response.getheaders()}


def test_the_page(page: Page):
    status, content, headers = ask(page, "/")
    assert status == 200
    assert b"<title>" in content
    assert NAME.encode() not in content
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    for name in re.findall(rb'(?:src|href)="([^"]+)"', content):
        assert ask(page, f"/{name.decode()}")[0] == 200
    state = json.loads(ask(page, "/state")[1])
    assert (state["source"], state["frame"], state["answer"], state["is_on"]) == (NAME, 7, "blue", True)
    assert state["top"][0][0] == "blue"
    assert ask(page, "/frame.jpg?7")[1][:2] == b"\xff\xd8"
    metrics = ask(page, "/metrics")[1].decode()
    assert "classifier_watch_answered_total 1.0" in metrics
    assert 'classifier_compute_seconds_count{model="colours",version="1"} 1.0' in metrics


@pytest.mark.parametrize(
    ("path", "method", "host", "status"),
    [
        ("/", "POST", None, 405),
        ("/../page.py", "GET", None, 404),
        ("/page.py", "GET", None, 404),
        ("/", "GET", "evil.example", 421),
    ],
)
def test_what_is_refused(path: str, method: str, host: str | None, status: int, page: Page):
    assert ask(page, path, method, host)[0] == status


def test_a_port_that_is_in_use(page: Page):
    with pytest.raises(ConfigError, match="choose another --port"):
        Page(NAME, Counts(), WatchMetrics(Counts(), "colours"), int(page.url.rpartition(":")[2]), has_rules=False)


def test_the_files_name_no_other_host():
    folder = Path(__file__).resolve().parents[2] / "classifier" / "watch"
    for path in (folder / "page.html", folder / "page.js", folder / "page.css"):
        assert "//" not in re.sub(r"^// .*$", "", path.read_text(), flags=re.MULTILINE)
        assert "innerHTML" not in path.read_text()


def test_a_browser_shows_it(page: Page, tmp_path: Path):
    with open_tab(tmp_path) as tab:
        tab.open(page.url)
        tab.wait_for("document.querySelector('#frame')?.naturalWidth")
        text = tab.evaluate("document.body.innerText")
        assert NAME in text
        assert "blue > 0.9" in text
        assert "frame 7 at 1.5 s" in text
        assert tab.evaluate("document.querySelector('#classes tr').innerText").startswith("blue")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert tab.evaluate("document.title") == f"(!) {NAME}"
        page.close()
        tab.wait_for("!!document.querySelector('#state.lost')")
        problems = [event for event in tab.events if event["method"] == "Runtime.exceptionThrown"]
        assert not problems
