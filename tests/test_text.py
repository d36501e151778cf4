"""Foreign text never reaches a terminal, log or shell raw, and comes back equal from every format that holds it."""

import json
import logging
import os
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.table import Table

from classifier.bundle.predictions import predictions_table, read_predicted_classes, save_predictions
from classifier.config.documents import read_json, read_rows
from classifier.config.experiment import Experiment
from classifier.config.files import dump_experiment, dump_yaml, read_experiment, read_yaml
from classifier.report import page
from classifier.report.model_card import escape_markdown
from classifier.storage.atomic import write_atomically
from classifier.text import escape_all, escape_surrogates, quote, show, unescape_surrogates
from jobs.cli.console import RunLog
from jobs.cli.environment import setup

NAMES = (
    "1e3",
    "680841e1",
    "yes",
    "null",
    "~",
    "0x1f",
    "1:30",
    "2024-01-01",
    ".inf",
    "<<",
    "- a",
    "a: b",
    "#c",
    "=",
    "",
)
NAMES += ("$HOME `ls` 'x' \"y\"", "[/bold] [red]x", "<script>alert(1)</script>", "&amp;", "\U0001f600", "\u202egnp.exe")
NAMES += (
    "a\nb\r\tc",
    "\x1b[31mred\x1b]0;t\x07",
    "\x85 \u2028",
    "caf\udce9",
    "\\udce9",
    "\\\\udce9",
    "\ufeff",
    "{{ 1 }}",
)
# Text as it comes from file names: any but the surrogates that no name has.
TEXT = st.one_of(
    st.sampled_from(NAMES),
    st.text(),
    st.text(
        st.one_of(
            st.sampled_from("\\ud8cCe9\x1b\n\u202e$'\"<&"), st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
        )
    ),
    st.floats(allow_nan=False).map(str),
)
CONTROL = "\x00\x07\x08\x0b\x1b\x7f\x9b\n\r\t\u202a\u202e\u2066\u200e\u2028\u2029\ufeff\udce9"


def all_texts(test):
    """Run a test on all kinds of text: each of NAMES, then random ones."""
    for name in NAMES:
        test = example(text=name)(test)
    return settings(max_examples=50, deadline=None)(given(text=TEXT)(test))


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("texts") / "file"


@all_texts
def test_escaped_text_is_utf_8_and_comes_back_equal(text):
    escape_surrogates(text).encode()
    assert unescape_surrogates(escape_surrogates(text)) == text


@all_texts
def test_shown_text_is_one_line_without_anything_that_a_terminal_obeys(text):
    shown = show(f"a {text}{CONTROL} b")
    assert not set(CONTROL) & set(shown)
    assert shown.isprintable() or set(shown) & set("\u200c\u200d") or not shown.encode("utf-8").isascii()
    assert show(shown) == shown


@settings(max_examples=20, deadline=None)
@example(text="it's\x1b[1m caf\udce9\n$x `ls` \\n")
@given(text=TEXT)
def test_quoted_word_is_the_same_in_a_shell(text):
    text = os.fsdecode(os.fsencode(text.replace("\0", "").encode("utf-8", "surrogateescape")))
    word = quote(text)
    assert show(word) == word
    printed = subprocess.run(
        ["bash", "-c", f"printf %s {word}"], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
    )
    assert os.fsdecode(printed.stdout) == text


@all_texts
def test_yaml(file, text):
    write_atomically(file, dump_yaml({"text": text, "inner": {text: [text, 1e-3]}}))
    assert read_yaml(file) == {"text": text, "inner": {text: [text, 1e-3]}}


@all_texts
def test_experiment(file, text):
    experiment = Experiment().override_all({"data.path": text, "data.group": text, "search.vary": (text,)})
    write_atomically(file, dump_experiment(experiment))
    assert read_experiment(file) == experiment


@all_texts
def test_json(file, text):
    write_atomically(file, json.dumps({text: text}, ensure_ascii=False))
    assert read_json(file, dict[str, str]) == {text: text}


@all_texts
def test_parquet(file, text):
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([escape_all({"a": text, "b": [text]})]), file)
    assert read_rows(file, dict[str, object]) == [{"a": text, "b": [text]}]


@all_texts
def test_table_of_predictions(file, text):
    folder = file.with_name("run")
    folder.mkdir(exist_ok=True)
    names = (text, f"{text}2")
    table = predictions_table([text], [1], torch.tensor([[0.9, 0.1]]), names)
    save_predictions(table, folder / "predictions.parquet")
    read = read_predicted_classes(folder)
    assert (list(read.ids), list(read.labels), list(read.predicted)) == ([text], [names[1]], [text])


class Texts(HTMLParser):
    """The text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.found.append(data)


@all_texts
def test_html(file, text):
    content = page.Page("t", [page.Text(f"({text})"), page.Bullets([f"<{text}>"])], [])
    html = page.write(file, content).read_text(encoding="utf-8")
    # A parser makes a newline of each carriage return, but none reaches it.
    assert show(f"({text})", keep="\n") in Texts(html).found
    assert show(f"<{text}>", keep="\n") in Texts(html).found


@all_texts
def test_markdown(text):
    escaped = escape_markdown(text)
    assert isinstance(escaped, str)
    plain = "".join(c for c, before in zip(escaped, " " + escaped, strict=False) if c != "\\" or before == "\\")
    assert "\n" not in escaped
    assert plain.replace("\\", "") == show(text).replace("\\", "")


@all_texts
def test_terminal_and_log(file, text):
    log_file = file.with_name("run.log")
    log_file.unlink(missing_ok=True)
    table = Table(f"head {text}")
    table.add_row(f"cell {text}")
    with RunLog(log_file) as log:
        log.info(f"line {text}{CONTROL}")
        log.next_step("command", f"x {text}{CONTROL}")
        log.warning(f"warning {text}{CONTROL}")
        log.info(table)
    written = log_file.read_text(encoding="utf-8")
    assert not set(CONTROL) - {"\n"} & set(written)
    first, second, third = written.split("\n")[:3]
    assert [first, second, third] == [
        show(f"line {text}{CONTROL}"),
        show(f"command: x {text}{CONTROL}"),
        show(f"warning {text}{CONTROL}"),
    ]


def test_warning_of_a_library_is_shown(capsys, monkeypatch):
    monkeypatch.setattr(logging, "lastResort", logging.StreamHandler())
    setup()
    record = logging.LogRecord("a", logging.WARNING, "", 1, "%s is damaged", ("\x1b[2J\n",), None)
    assert logging.lastResort is not None
    assert logging.lastResort.format(record) == "\\x1b[2J\\n is damaged"
