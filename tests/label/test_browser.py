"""The page in a browser: labelled by key and click, undone, reloaded, and trained on."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.devtools import Tab, open_tab
from tests.label.conftest import CLASSES, Desk, Opener, true_label, write_images

CURRENT = "document.querySelector('#thumbnails [aria-current=true]')?.closest('li').dataset.key"
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def tab(tmp_path_factory) -> Iterator[Tab]:
    with open_tab(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


def open_page(tab: Tab, desk: Desk, *, width: int = 1280) -> None:
    assert desk.page
    tab.events.clear()
    tab.emulate(width)
    tab.open(desk.page.url)
    tab.wait_for("document.querySelectorAll('#main:not([hidden]) #thumbnails li').length")


def wait_for_answers(tab: Tab, count: int) -> None:
    """Wait until the server has confirmed so many: the page shows an answer before."""
    tab.wait_for(f"document.getElementById('where').textContent.startsWith('{count} images labelled')")


def save_labels(tab: Tab, keys: str) -> None:
    """Choose the labels that have these keys, and no other: those of the model's guess are chosen already."""
    pressed = tab.evaluate("[...document.querySelectorAll('#classes button')].map(b => b.ariaPressed === 'true')")
    for number, is_pressed in enumerate(pressed, 1):
        if is_pressed != (str(number) in keys):
            tab.press(str(number))
    tab.press("Enter")


def check_quiet(tab: Tab) -> None:
    """Assert that nothing complained, nothing was asked from elsewhere, and nothing is wider than the screen."""
    assert tab.complaints() == []
    origin = tab.evaluate("location.origin")
    assert all(url.startswith(f"{origin}/") for url in tab.requests())
    for width in (390, 1280):
        for dark in (False, True):
            tab.emulate(width, dark=dark)
            assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def find_label(desk: Desk, key: str) -> str:
    file = desk.labelling.assignment.find_file(int(key))
    assert file
    return true_label(file.name)


@pytest.mark.long
def test_twenty_images_are_labelled_by_key_undone_reloaded_and_trained_on(
    tab: Tab, images: Path, tmp_path: Path, open_desk, verb
):
    desk = open_desk(images, count=20, has_page=True)
    open_page(tab, desk)
    order = []
    for count in range(1, 21):
        key = tab.evaluate(CURRENT)
        order.append(key)
        tab.press(str(1 + CLASSES.index(find_label(desk, key))))
        tab.wait_for(f"document.getElementById('count').textContent.startsWith('{count} of 20')")
        assert tab.evaluate("document.getElementById('news').textContent") == f"{find_label(desk, key)}."
    tab.wait_for("!document.getElementById('done').hidden")
    tab.press("u")
    tab.wait_for(f"{CURRENT} === '{order[-1]}'")
    tab.press("z", is_control=True)
    tab.wait_for(f"{CURRENT} === '{order[-2]}'")
    assert len(desk.manifest.read_text().splitlines()) == 19
    open_page(tab, desk)
    assert tab.evaluate("document.getElementById('count').textContent") == "18 of 20 answered"
    for key in order[-2:]:
        tab.press("ArrowLeft")
        tab.press("ArrowRight")
        tab.press("s" if key == order[-1] else str(1 + CLASSES.index(find_label(desk, tab.evaluate(CURRENT)))))
    tab.wait_for("!document.getElementById('done').hidden")
    assert len(desk.manifest.read_text().splitlines()) == 20
    check_quiet(tab)
    done = verb("train", desk.manifest, "--model.name", "cnn", "--train.epochs", "1", "--name", "labelled")
    assert done.code == 0, done.err
    bundle = json.loads((tmp_path / "runs" / "labelled" / "bundle" / "bundle.json").read_text())
    assert sorted(bundle["class_names"]) == sorted(CLASSES)


@pytest.mark.long
def test_guesses_are_accepted_classes_typed_and_images_clicked(tab: Tab, images: Path, open_desk: Opener):
    desk = open_desk(images, count=10, has_page=True, classes=())
    open_page(tab, desk, width=390)
    assert tab.evaluate("document.getElementById('accept').hidden")
    expected = {}
    for _ in range(6):
        key = tab.evaluate(CURRENT)
        label = expected[key] = find_label(desk, key)
        before = tab.evaluate("document.getElementById('count').textContent")
        if tab.evaluate(
            f"[...document.querySelectorAll('#classes button')].some(b => b.textContent.startsWith('{label}'))"
        ):
            click = f"[...document.querySelectorAll('#classes button')].find(b => b.textContent.startsWith('{label}'))"
            tab.evaluate(f"{click}.click()")
        else:
            tab.press("n")
            for letter in label:
                tab.press(letter)
            assert tab.evaluate("document.getElementById('name').value") == label
            tab.press("Enter")
        tab.wait_for(f"document.getElementById('count').textContent !== {json.dumps(before)}")
    tab.wait_for("!document.getElementById('accept').hidden")
    for _ in range(4):
        wait_for_answers(tab, len(expected))  # the guesses follow from them
        tab.wait_for("document.getElementById('guess').textContent.includes('The model thinks')")
        guessed = tab.evaluate("document.getElementById('accept').firstChild.textContent").removeprefix("Accept ")
        expected[tab.evaluate(CURRENT)] = guessed.strip()
        tab.press("Enter")
    wait_for_answers(tab, 10)
    answers = {str(item["key"]): item["answer"] for item in desk.labelling.describe()["items"]}
    assert answers == {key: (label,) for key, label in expected.items()}
    tab.evaluate("document.getElementById('more').click()")
    tab.wait_for("document.getElementById('count').textContent === '0 of 10 answered'")
    tab.evaluate("document.querySelectorAll('#thumbnails button')[4].click()")
    assert tab.evaluate(CURRENT) == tab.evaluate("document.querySelectorAll('#thumbnails li')[4].dataset.key")
    tab.evaluate("document.getElementById('shortcuts').click()")
    tab.press("s")
    assert tab.evaluate("document.getElementById('count').textContent") == "0 of 10 answered"
    check_quiet(tab)


@pytest.mark.long
def test_several_labels_hostile_names_and_disagreements(tab: Tab, tmp_path: Path, open_desk: Opener):
    write_images(tmp_path / "images", 12, lambda n, name: f"{n:02d} {name} {HOSTILE}.png".replace("/", ""))
    anna = open_desk(tmp_path / "images", "anna", is_multilabel=True, has_page=True, count=3, classes=(HOSTILE, "x"))
    open_page(tab, anna)
    for keys in ("1", "2", "12"):
        save_labels(tab, keys)
    wait_for_answers(tab, 3)
    said = [item["answer"] for item in anna.labelling.describe()["items"]]
    assert said == [(HOSTILE,), ("x",), (HOSTILE, "x")]
    ben = open_desk(tmp_path / "images", "ben", is_multilabel=True, has_page=True, count=3, classes=(HOSTILE, "x"))
    open_page(tab, ben)
    for keys in ("1", "1", "12"):
        save_labels(tab, keys)
    tab.wait_for("document.querySelectorAll('#disagreements li').length === 1")
    assert "(Cohen)" in tab.evaluate("document.getElementById('kappas').innerText")
    tab.evaluate("document.querySelector('#disagreements button').click()")
    tab.wait_for("document.querySelectorAll('#disagreements li').length === 0")
    assert tab.evaluate("document.querySelectorAll('[onerror]').length") == 0
    assert len(ben.manifest.read_text().splitlines()) == 4
    check_quiet(tab)
