"""The page's server: what it shows, what it takes, and whom it refuses."""

import io
from importlib import resources
from pathlib import Path

import pytest
from PIL import Image

from classifier.report.figure import COLOURS, DARK_COLOURS
from tests.label.conftest import CLASSES, Opener, true_label, write_images

FILES = {
    file.name: file.read_text()
    for file in resources.files("classifier.label.page").iterdir()
    if file.name.rpartition(".")[2] in ("html", "css", "js")
}


def test_files_images_and_state_are_served_with_headers_that_run_nothing_else(images: Path, open_desk: Opener):
    desk = open_desk(images, has_page=True)
    for name, text in FILES.items():
        status, content, headers = desk.ask("/" if name == "page.html" else f"/{name}")
        assert (status, content.decode()) == (200, text)
        assert "default-src 'none'" in (headers["content-security-policy"] or "")
        assert "unsafe" not in (headers["content-security-policy"] or "")
        assert headers["x-content-type-options"] == "nosniff"
    status, state, _ = desk.ask("/state")
    assert (status, state["classes"], len(state["items"])) == (200, [*CLASSES], 12)
    key = state["items"][0]["key"]
    for name in ("image", "thumbnail"):
        status, content, headers = desk.ask(f"/{name}/{key}")
        assert (status, headers.get_content_type()) == (200, "image/jpeg")
        assert Image.open(io.BytesIO(content)).size == (32, 32)
    for address in ("/image/999", "/image/-1", "/image/x", "/image/" + "9" * 50, "/server.py", "/..%2Fpage", "/image"):
        assert desk.ask(address)[0] == 404


def test_answers_are_taken_and_mistakes_are_sentences(images: Path, open_desk: Opener):
    desk = open_desk(images, has_page=True)
    item = desk.ask("/state")[1]["items"][0]
    status, state, _ = desk.ask("/answer", {"key": item["key"], "labels": [true_label(item["name"])]})
    assert (status, state["answered"]) == (200, 1)
    assert desk.ask("/undo", {})[1]["undone"] == item["key"]
    for sent in (
        {"key": "1", "labels": ["red"]},
        {"key": True, "labels": ["red"]},
        {"key": item["key"], "labels": "red"},
        {"key": item["key"], "labels": [1]},
        {"key": item["key"], "labels": []},
        {"key": item["key"], "labels": ["red", "blue"]},
        {"key": item["key"], "labels": ["a;b"]},
        {"key": 999, "labels": ["red"]},
        [1],
    ):
        status, content, _ = desk.ask("/answer", sent)
        assert (status, [*content]) == (400, ["error"])
    assert desk.ask("/answer", {"key": 1, "labels": ["x" * 70_000]})[0] == 413
    assert desk.ask("/answer")[0] == 405
    assert desk.ask("/state", {})[0] == 405
    assert desk.ask("/state")[1]["answered"] == 0


def test_other_hosts_and_pages_of_other_origins_are_refused(images: Path, open_desk: Opener):
    desk = open_desk(images, has_page=True)
    sent = {"key": desk.ask("/state")[1]["items"][0]["key"], "labels": ["red"]}
    assert desk.ask("/state", host="evil.example:80")[0] == 421
    assert desk.ask("/answer", sent, host="evil.example")[0] == 421
    assert desk.ask("/answer", sent, origin="http://evil.example")[0] == 403
    assert desk.ask("/answer", sent, sec_fetch_site="cross-site")[0] == 403
    assert desk.ask("/image/0", sec_fetch_site="cross-site")[0] == 403
    assert desk.ask("/answer", sent, content_type="text/plain")[0] == 415
    assert desk.ask("/answer", sent, content_type="application/x-www-form-urlencoded")[0] == 415
    assert desk.ask("/state")[1]["answered"] == 0
    assert desk.ask("/answer", sent)[0] == 200


def test_an_image_that_is_damaged_meanwhile_is_a_sentence(images: Path, open_desk: Opener):
    desk = open_desk(images, has_page=True)
    key = desk.ask("/state")[1]["items"][0]["key"]
    file = desk.labelling.assignment.find_file(key)
    assert file
    file.write_bytes(b"<svg onload='alert(1)'/>")
    status, content, headers = desk.ask(f"/image/{key}")
    assert (status, headers.get_content_type()) == (422, "application/json")
    assert "cannot be shown" in content["error"]


def test_sources_have_nothing_inline_nothing_external_and_no_markup_of_text():
    for name, text in FILES.items():
        assert "://" not in text, name
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "localStorage"):
        assert word not in "".join(FILES.values())
    for word in ("<style", " style=", " onclick=", "<script>"):
        assert word not in FILES["page.html"]


def test_colours_are_those_of_the_reports():
    import re

    light, dark = (dict(re.findall(r"--(\w+): (#\w+);", part)) for part in FILES["page.css"].split("@media", 2)[:2])
    assert light.items() <= COLOURS.items()
    assert dark.items() <= DARK_COLOURS.items()
    assert light.keys() == dark.keys()


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", "</script>"])
def test_names_are_sent_as_json(tmp_path: Path, open_desk: Opener, name: str):
    write_images(tmp_path / "images", 12, lambda n, colour: f"{n} {colour} {name.replace('/', '')}.png")
    desk = open_desk(tmp_path / "images", has_page=True)
    item = desk.ask("/state")[1]["items"][0]
    state = desk.ask("/answer", {"key": item["key"], "labels": [name.replace(";", "")]})[1]
    assert name in state["classes"]
