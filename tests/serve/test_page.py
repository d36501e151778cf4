"""The page for people: its files and headers, and in a browser what people do with it."""

import base64
import dataclasses
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from classifier.bundle.predictor import Predictor
from classifier.report.figure import COLOURS, DARK_COLOURS
from classifier.serve.bounds import Bounds
from classifier.serve.guard import Guard
from classifier.serve.keys import Keys, add_key
from classifier.serve.page.files import KINDS
from classifier.serve.registry import Source
from tests.devtools import Tab, open_tab
from tests.serve.conftest import Running, encode, start, stop
from tests.serve.test_app import IMAGE, validate

FILES = {file.name: file.read_text() for file in resources.files("classifier.serve.page").iterdir() if file.is_file()}
NAMES = sorted(name for name in FILES if name.rpartition(".")[2] in KINDS)
MAX_PIXELS = 1600
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize("name", NAMES)
def test_files_are_served_with_headers_that_run_nothing_else(name: str, server: Running):
    status, content, headers = server.ask("/" if name == "page.html" else f"/page/{name}")
    assert (status, content.decode()) == (200, FILES[name])
    assert headers.get_content_type() == KINDS[name.rpartition(".")[2]]
    [policy] = headers.get_all("content-security-policy") or []
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    status, content, again = server.ask(f"/page/{name}", if_none_match=headers["etag"])
    assert (status, content, again["etag"]) == (304, b"", headers["etag"])


def test_only_files_of_the_page_are_served(server: Running):
    for name in ("files.py", "__init__.py", "..%2Fapp.py", "", "absent.js"):
        assert server.ask(f"/page/{name}")[0] == 404


def test_sources_have_nothing_inline_nothing_external_and_no_markup_of_text():
    for name in NAMES:
        assert "://" not in FILES[name], name
    page = FILES["page.html"]
    assert not re.search(r"<style|\s(style|on\w+)=|<script(?![^>]*src=)", page)
    scripts = "".join(FILES[name] for name in NAMES if name.endswith(".js"))
    assert not re.search(r"(inner|outer)HTML|insertAdjacent|document\.write|eval\(|Function\(|localStorage", scripts)


def test_colours_are_those_of_the_reports():
    light, dark = (dict(re.findall(r"--(\w+): (#\w+);", part)) for part in FILES["page.css"].split("@media", 2)[:2])
    assert light.items() <= COLOURS.items()
    assert dark.items() <= DARK_COLOURS.items()
    assert light.keys() == dark.keys()


def test_models_are_described_with_their_limits_and_why_there_are_no_heatmaps(server: Running, monkeypatch):
    status, answer, _ = server.ask("/models")
    assert status == 200
    validate(server, "/models", status, answer)
    row = answer["models"][0]
    assert (row["name"], row["max_bytes"], row["why_no_heatmaps"]) == ("waves", 32 << 20, "they are off (--maps)")
    monkeypatch.setattr(server.app, "_has_maps", True)
    assert server.ask("/models")[1]["models"][0]["why_no_heatmaps"] is None
    monkeypatch.setattr("classifier.bundle.predictor.has_torch", lambda: False)
    version = server.app.registry.models["waves"].current
    monkeypatch.setattr(version, "why_no_heatmaps", version.predictor.explain_missing_heatmaps())
    assert server.ask("/models")[1]["models"][0]["why_no_heatmaps"] == "torch is not installed"
    status, answer, _ = server.ask("/predict?maps=true", IMAGE)
    assert (status, answer["error"]) == (400, "there are no heatmaps: torch is not installed")


@pytest.fixture(scope="module")
def tab(tmp_path_factory) -> Iterator[Tab]:
    with open_tab(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture(scope="module")
def shown(bundle: Path) -> Iterator[Running]:
    """A server with maps, two models, one with a hostile class name, and a limit of pixels."""
    sources = [Source("waves", bundle), Source("second", bundle)]
    running = start(sources, open_predictor=lambda path: Predictor(path, max_pixels=MAX_PIXELS), has_maps=True)
    predictor = running.app.registry.models["second"].current.predictor
    names = tuple(f"{HOSTILE}{n}" for n, _ in enumerate(predictor.class_names))
    predictor.bundle = dataclasses.replace(predictor.bundle, class_names=names)
    yield running
    stop(running)


@pytest.fixture
def page(tab: Tab, shown: Running) -> Tab:
    return open_page(tab, shown)


def open_page(tab: Tab, server: Running) -> Tab:
    tab.events.clear()
    tab.emulate(390)
    tab.open(f"http://127.0.0.1:{server.port}/")
    tab.wait_for("document.querySelector('#main:not([hidden]), #key_form:not([hidden])')?.id")
    return tab


def save(folder: Path, name: str = "photograph.png", content: bytes = IMAGE) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def read_cards(tab: Tab) -> list[str]:
    """Return the text of each card, when all are answered."""
    tab.wait_for("document.querySelectorAll('.card').length && !document.querySelector('.card[aria-busy=true]')")
    return tab.evaluate("[...document.querySelectorAll('.card')].map(card => card.innerText)")


@pytest.mark.long
def test_drop_an_image_read_its_class_and_see_the_map(page: Tab, bundle: Path, tmp_path: Path):
    expected = Predictor(bundle).predict([IMAGE])[0]
    page.drop(save(tmp_path))
    [text] = read_cards(page)
    assert "photograph.png" in text
    assert "Answered by waves, version 1." in text
    title = page.evaluate("document.querySelector('.card .title').textContent")
    assert title.partition(":")[0].lower() == expected.describe().partition(" (")[0].partition(":")[0].lower()
    shares = [f"{probability:.1%}" for _, probability in expected.top]
    assert page.evaluate("[...document.querySelectorAll('.share')].map(one => one.textContent)") == shares
    assert title in page.evaluate("document.getElementById('news').textContent")
    page.evaluate("document.querySelector('.card .map').focus()")
    page.press("Enter")
    page.wait_for("document.querySelector('.card .map').ariaPressed === 'true'")
    size = page.evaluate("(image => image.decode().then(() => image.naturalWidth))(document.querySelector('.image'))")
    assert size >= 112
    assert "in orange" in page.evaluate("document.querySelector('.image').alt")
    for width in (390, 1280):
        for dark in (False, True):
            page.emulate(width, dark=dark)
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.complaints() == []
    origin = page.evaluate("location.origin")
    assert all(url.startswith(f"{origin}/") for url in page.requests())


@pytest.mark.long
def test_names_are_text_and_another_model_answers_anew(page: Tab, tmp_path: Path):
    page.drop(save(tmp_path, f"{HOSTILE}.png"))
    assert HOSTILE in read_cards(page)[0]
    page.evaluate("(model => { model.value = 'second'; model.onchange() })(document.getElementById('model'))")
    [text] = read_cards(page)
    assert f"{HOSTILE}0" in text
    assert "Answered by second" in text
    assert page.evaluate("document.querySelectorAll('img').length") == 1
    assert page.complaints() == []


@pytest.mark.long
def test_images_come_from_the_clipboard_and_the_camera_and_are_made_smaller(page: Tab):
    paste = """(() => {
      const data = new DataTransfer()
      const bytes = Uint8Array.from(atob(%r), letter => letter.charCodeAt(0))
      data.items.add(new File([bytes], "pasted.png", { type: "image/png" }))
      dispatchEvent(Object.assign(new Event("paste"), { clipboardData: data }))
    })()"""
    page.evaluate(paste % base64.b64encode(encode(80)).decode())
    [text] = read_cards(page)
    assert "pasted.png" in text
    assert "Made smaller for the server's limits: 40 × 40 pixels, from 80 × 80." in text
    page.wait_for("!document.getElementById('photograph').hidden")
    page.evaluate("document.getElementById('photograph').click()")
    page.wait_for("document.getElementById('camera').open && document.getElementById('video').videoWidth")
    page.evaluate("document.getElementById('shoot').click()")
    page.wait_for("document.querySelectorAll('.card').length === 2")
    assert "photograph.jpg" in read_cards(page)[0]
    assert page.evaluate("document.getElementById('video').srcObject.active") is False
    page.evaluate("document.getElementById('clear').click()")
    assert page.evaluate("document.querySelectorAll('.card').length") == 0


@pytest.mark.long
def test_faults_are_told_in_words(tab: Tab, bundle: Path, tmp_path: Path):
    server = start([Source("waves", bundle)])
    try:
        open_page(tab, server)
        assert "(--maps)" in tab.evaluate("document.getElementById('no_maps').innerText")
        tab.drop(save(tmp_path, "letter.txt", b"Dear reader"))
        assert "it is not an image" in read_cards(tab)[0]
        server.app.bounds = Bounds(deadline_seconds=20, requests=0)
        tab.drop(save(tmp_path))
        tab.wait_for("document.querySelector('.title').textContent === 'The server is busy: trying again in 1 s.'")
        server.app.bounds = Bounds(deadline_seconds=20)
        assert "Answered by waves" in read_cards(tab)[0]
        assert tab.evaluate("document.querySelector('.card .map').hidden")
    finally:
        stop(server)
    tab.drop(save(tmp_path))
    assert "cannot be reached" in read_cards(tab)[0]
    assert not tab.evaluate("document.querySelector('.card .retry').hidden")


@pytest.mark.long
def test_a_key_is_asked_for_and_kept_in_this_tab_only(tab: Tab, bundle: Path, tmp_path: Path):
    file = tmp_path / "keys.txt"
    secret = add_key(file, "ann", "predict")
    server = start([Source("waves", bundle)], guard=Guard(Keys.read(file)))
    try:
        open_page(tab, server)
        for key, shown_then in (("wrong", "#problem:not([hidden])"), (secret, "#main:not([hidden])")):
            assert tab.wait_for("document.activeElement.id") == "key"
            tab.call("Input.insertText", text=key)
            tab.press("Enter")
            tab.wait_for(f"document.querySelector('{shown_then}') !== null")
        tab.drop(save(tmp_path))
        assert "Answered by waves" in read_cards(tab)[0]
        assert tab.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
        server.app.guard.keys = Keys([])  # it was withdrawn
        tab.drop(save(tmp_path))
        tab.wait_for("document.activeElement.id === 'key'")
        assert "does not know this key" in tab.evaluate("document.getElementById('problem').innerText")
    finally:
        stop(server)
