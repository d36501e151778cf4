"""Names, paths and settings of other people are text in every page, whatever they contain, and in the model card."""

import re

import numpy as np
import pytest
from PIL import Image

from classifier.data.audit.finding import Finding
from classifier.report import audit_page, model_card, run_page
from classifier.report.model_card import escape_markdown
from classifier.text import show
from tests.browser import Outline
from tests.report.run_files import write_run
from tests.report.test_search_page import write_search_page

NOT_UTF_8 = "not UTF-8: \udcff"
HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "{{ 7 * 6 }}{% include '/etc/passwd' %}",
    "</style></title></svg><b>",
    "javascript:alert(1)",
    "a\x00\x1b]0;b\u202e\n# c",
    NOT_UTF_8,
    "猫 \U0001f431 \ue000",
    "$\\frac{1}$ &amp; _*[x](y)*_ `c` | d",
)
TAGS = {"html", "head", "meta", "title", "link", "style", "body", "nav", "section", "h1", "h2", "h3", "p", "ul", "li"}
TAGS |= {"div", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "span", "pre", "b", "a", "img"}
TAGS |= {"svg", "g", "path", "defs", "use", "text", "clippath", "rect"}


def check_is_text(page: str, name: str) -> None:
    """Assert that a page has no tag, attribute or link that is not a template's, and that the name is in its text."""
    outline = Outline(page)
    assert outline.tags <= TAGS
    assert not [name for name in outline.attributes if name.startswith("on")]
    assert all(re.fullmatch(r"#[\w-]+|[\w./%-]+", link) for link in outline.links)
    assert "42" not in outline.headings[0]
    assert any(show(name.partition("\n")[0]) in text for text in outline.texts)


@pytest.mark.parametrize("name", HOSTILE)
def test_page_and_model_card_of_a_run(name, tmp_path):
    names = [name, "cat", f"dog {name}"]
    folder = write_run(tmp_path / "run", names, data_path=f"photos {name}"[:60], finding=name, columns=names)
    check_is_text(run_page.write(folder).read_text(), name)
    card = (folder / model_card.NAME).read_text()
    assert not re.search(r"(?<!\\)<|\n# c|(?<!\\)\[x\]|42", card)
    for line in card.splitlines():
        assert not line.startswith("|") or len(re.findall(r"(?<!\\)\|", line)) == 7, "a name does not end its cell"


@pytest.mark.parametrize("name", HOSTILE)
def test_page_of_a_search(name, tmp_path):
    page = write_search_page(tmp_path, 4, importance={name.strip(): 0.8}, objective=("accuracy", "latency"), name=name)
    check_is_text(page, name)


@pytest.mark.parametrize("name", HOSTILE)
def test_page_of_an_audit(name, tmp_path):
    file = tmp_path / (re.sub("[/\0]", "", name) + ".png")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(file)
    page = audit_page.write(
        tmp_path / audit_page.NAME,
        name=name,
        counts=f"{name}: 1 image",
        findings=[Finding(kind="dark", text=f"{name}: it is dark", ids=(name,))],
        content=lambda id_: file.read_bytes(),
        file=lambda id_: file,
        fix_command=f"classifier train {name}",
    ).read_text()
    check_is_text(page, name)
    (link,) = [link for link in Outline(page).links if not link.startswith("#")]
    assert ":" not in link, "a file's name is no scheme"


def test_markdown_that_is_escaped():
    assert escape_markdown("resnet9_16, 90 % of x-rays (left)") == "resnet9_16, 90 % of x-rays (left)"
    assert (
        escape_markdown("*a* _b_ <c> [d](e) `f` a|b\n# g")
        == "\\*a\\* \\_b\\_ \\<c\\> \\[d\\](e) \\`f\\` a\\|b\\\\n\\# g"
    )
    assert [escape_markdown(text) for text in ("- a", "1. b", "c - 1.")] == ["\\- a", "1\\. b", "c - 1."]
    assert escape_markdown("https://x, www.y, a@b") == "https\\://x, www\\.y, a\\@b"
    assert escape_markdown(16) == 16
