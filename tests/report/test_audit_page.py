"""audit.html shows the findings by kind; its images lead to their files, or are large enough to be enlarged."""

import base64
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from classifier.data.audit.finding import Finding
from classifier.report import audit_page
from tests.browser import Outline, open_page

FINDINGS = [
    Finding(kind="leak", text="the same image is in train and test", ids=("train/a.png", "test/a.png")),
    *(Finding(kind="dark", text=f"{n} is dark", ids=("train/a.png",)) for n in range(audit_page.MAX_FINDINGS + 1)),
    Finding(kind="unreadable", text="gone.png: it is empty", ids=("gone.png",)),
]


def write_page(folder: Path, findings: list[Finding], file: Path | None = None) -> str:
    stream = io.BytesIO()
    Image.new("RGB", (500, 300), "teal").save(stream, "PNG")
    page = audit_page.write(
        folder / audit_page.NAME,
        name="photos",
        counts="photos: 2 images",
        findings=findings,
        content=lambda id_: None if id_ == "gone.png" else stream.getvalue(),
        file=lambda id_: file,
        fix_command="classifier train clean.csv",
    )
    return page.read_text()


def image_sizes(page: str) -> set[tuple[int, int]]:
    contents = re.findall('base64,([^"]+)', page)
    return {Image.open(io.BytesIO(base64.b64decode(content))).size for content in contents}


def test_findings_are_listed_by_kind_and_the_first_are_shown(tmp_path: Path) -> None:
    page = write_page(tmp_path, FINDINGS)
    outline = Outline(page)
    assert outline.headings == ["Audit of photos", "Duplicates across splits (1)", "Dark (25)", "Unreadable (1)"]
    assert outline.links == ["#leak", "#dark", "#unreadable"]
    assert "27 findings, 2 of them errors that distort training or scores." in page
    assert "The first 24 are shown." in page
    assert "23 is dark" in page
    assert "24 is dark" not in page
    assert "classifier train clean.csv" in page


def test_images_say_what_they_show_and_link_to_their_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    linked, unlinked = write_page(tmp_path, FINDINGS[:1], tmp_path / "a.png"), write_page(tmp_path, FINDINGS[:1])
    texts = ["train/a.png: duplicates across splits", "test/a.png: duplicates across splits"]
    assert Outline(linked).image_texts == Outline(unlinked).image_texts == texts
    assert Outline(linked).links == ["#leak", "a.png", "a.png"]
    assert image_sizes(linked) == {(112, 67)}
    assert image_sizes(unlinked) == {(240, 144)}


def test_nothing_found(tmp_path: Path) -> None:
    assert "No problems found." in write_page(tmp_path, [])


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_browser_shows_no_errors_requests_or_sideways_scrolling(tmp_path: Path, width: int) -> None:
    open_page(write_page(tmp_path, FINDINGS), width, tmp_path).check(width)
