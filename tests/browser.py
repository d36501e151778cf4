"""Reads pages: by a parser, and in headless Chromium, in a frame as wide as a phone's or a desktop's screen."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

# Chromium's own window cannot be as narrow as a phone.
FRAME = """<!doctype html><body style="margin:0"><iframe style="border:0;width:{width}px;height:3000px" srcdoc="{page}">
</iframe><script>addEventListener("load", () => {{
  const inner = document.querySelector("iframe").contentDocument.documentElement
  const entries = document.querySelector("iframe").contentWindow.performance.getEntriesByType("resource")
  const requests = entries.filter(entry => !entry.name.startsWith("data:")).length
  const headings = [...inner.querySelectorAll("h2")].map(heading => heading.textContent)
  const view = document.querySelector("iframe").contentWindow
  const sizes = [...inner.querySelectorAll("svg text")].map(text => {{
    const svg = text.ownerSVGElement
    return parseFloat(view.getComputedStyle(text).fontSize) * svg.clientWidth / svg.viewBox.baseVal.width
  }})
  const chart_text = [...new Set(sizes.map(Math.round))]
  const [scroll, client] = [inner.scrollWidth, inner.clientWidth]
  document.title = JSON.stringify({{scroll, client, requests, headings, chart_text}})
}})</script>"""


class Outline(HTMLParser):
    """Checks that tags are closed in order, and collects what a reader may need."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.anchors: list[str] = []
        self.links: list[str] = []
        self.image_texts: list[str] = []
        self.chart_texts: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)
        assert self.open == []
        assert len(self.anchors) == len(set(self.anchors)), "an id is used twice"
        assert {link[1:] for link in self.links if link.startswith("#")} <= set(self.anchors)

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.attributes |= set(values)
        self.anchors += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if tag == "a" else []
        self.image_texts += [values["alt"]] if tag == "img" else []
        self.chart_texts += [values["aria-label"]] if values.get("role") == "img" else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


@dataclass(frozen=True)
class OpenedPage:
    """A page in the browser: widths in pixels, number of network requests, headings, console messages.

    chart_text: the different sizes of text in charts, in pixels of the screen.
    """

    scroll: int
    client: int
    requests: int
    headings: list[str]
    chart_text: list[int]
    console: list[str]

    def check(self, width: int) -> None:
        """Assert that there is no console message, no network request, no sideways scrolling and no shrunk chart."""
        assert self.console == []
        assert self.requests == 0
        assert self.chart_text in ([], [14])
        assert self.scroll <= self.client <= width  # its scroll bar takes some of the width


def open_page(page: str, width: int, folder: Path) -> OpenedPage:
    """Open a page, given as HTML; skip the test if Chromium is not installed."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    (folder / "frame.html").write_text(FRAME.format(width=width, page=html.escape(page)))
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={max(width, 800)},3000", "--dump-dom"]
    words += ["--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", f"file://{folder / 'frame.html'}"]
    done = subprocess.run([chromium, *words], capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title
    return OpenedPage(
        **json.loads(html.unescape(title[1])), console=[x for x in done.stderr.split("\n") if "CONSOLE" in x]
    )
