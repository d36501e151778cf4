"""drift.html: what changed, the class shares and accuracy to be expected, and the images that differ most."""

from collections.abc import Sequence
from pathlib import Path

from classifier.config.sections import DataConfig
from classifier.drift.describe import (
    KINDS,
    describe_accuracy,
    describe_conclusion,
    describe_reference,
    describe_test,
    format_p,
)
from classifier.drift.measure import Drift
from classifier.drift.window import Window
from classifier.inference.reference import Reference
from classifier.report import page
from classifier.report.images import Thumbnails
from classifier.report.numbers import UNKNOWN, format_share
from classifier.report.page import Block, Bullets, Card, Cards, Cell, Page, Section, Table, Text

NAME = "drift.html"
MAX_CLASSES = 40
MEANINGS = {
    "shares": "is a class said more often than its share in the training data leads to?",
    "outputs": "Kolmogorov-Smirnov test of each class's probability",
    "features": "maximum mean discrepancy of what the network sees, by permutation",
    "novelty": "Kolmogorov-Smirnov test of the distance from the training images",
    "columns": "Kolmogorov-Smirnov or chi-squared test of each column",
}


def write(
    path: Path,
    *,
    drift: Drift,
    reference: Reference,
    window: Window,
    class_names: Sequence[str],
    notes: Sequence[str],
    max_pixels: int = DataConfig.max_pixels,
    max_seconds: float = DataConfig.max_seconds,
) -> Path:
    """Write the page at `path`. max_pixels, max_seconds: limits of an image, also of its thumbnail."""
    summary: list[Block] = [Text(_to_sentence(describe_conclusion(drift)), "warning" if drift.is_found else "big")]
    if drift.found:
        summary.append(Bullets([describe_test(drift, test.kind, class_names) for test in drift.found]))
    summary += [Text(_to_sentence(describe_accuracy(drift))), Text(describe_reference(reference), "faint")]
    summary += [Text(note, "faint") for note in notes]
    sections = [_build_tests(drift), _build_shares(drift, reference, class_names)]
    sections += _build_images(drift, window, class_names, max_pixels, max_seconds)
    return page.write(path, Page(f"Drift of {window.name}", summary, sections))


def _to_sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _build_tests(drift: Drift) -> Section:
    rows = []
    for test in drift.tests:
        style = "warning" if test.adjusted <= drift.level else ""
        worst = test.worst if test.tests > 1 else ""
        p = Cell(format_p(test.adjusted).removeprefix("= "), style)
        rows.append([KINDS[test.kind], p, f"{test.tests}", worst, MEANINGS[test.kind]])
    note = (
        f"p-values are adjusted for all tests on this page: at most {format_share(drift.level, 0)} of windows without "
        "drift have any of them at or below the level."
    )
    return Section("Tests", [Table(["test", "p", "tests", "most of all", "asks"], rows, text_columns=5)], note)


def _build_shares(drift: Drift, reference: Reference, class_names: Sequence[str]) -> Section:
    shift, shares = drift.shift, drift.shares
    order = sorted(range(len(class_names)), key=lambda k: shares.p_K[k])
    rows = []
    for k in order[:MAX_CLASSES]:
        estimate = [UNKNOWN, UNKNOWN]
        if shift is not None:
            ends = f"{format_share(float(shift.low_K[k]))} to {format_share(float(shift.high_K[k]))}"
            estimate = [format_share(float(shift.shares_K[k])), ends]
        outputs = [format_share(float(one)) for one in (shares.expected_K[k], shares.observed_K[k])]
        rows.append(
            [
                class_names[k],
                format_share(float(reference.shares[k])),
                *estimate,
                *outputs,
                format_p(shares.p_K[k]).removeprefix("= "),
            ]
        )
    head = ["class", "in training", "estimate now", "95 %", "mean output expected", "mean output", "p, not adjusted"]
    blocks: list[Block] = [Table(head, rows), *page.describe_hidden(len(rows), len(order), "more classes")]
    if drift.shifted is not None:
        blocks.append(
            Text(
                f"At the estimated shares the accuracy is {format_share(drift.shifted.as_it_is)}, and "
                f"{format_share(drift.shifted.reweighted)} if probabilities are corrected for them."
            )
        )
    note = "Estimates hold if the images of each class look as before"
    is_other = any(test.kind in ("features", "novelty") for test in drift.found)
    note += ", which the tests of features contradict: read them as a hint." if is_other else "."
    return Section("Class shares", blocks, note if shift is not None else "")


def _build_images(
    drift: Drift, window: Window, class_names: Sequence[str], max_pixels: int, max_seconds: float
) -> list[Section]:
    contents = window.read_images(drift.drove)
    cards = []
    with Thumbnails(max_pixels, max_seconds) as thumbnails:
        for row, content in zip(drift.drove, contents, strict=True):
            outputs_K = window.probabilities_MK[row]
            k = int(outputs_K.argmax())
            image = thumbnails.embed(content, f"{window.ids[row]}: {class_names[k]}")
            text = f"{class_names[k]} {format_share(float(outputs_K[k]))}"
            cards.append(Card([[image] if image is not None else []], lines=[text], faint_line=str(window.ids[row])))
    title = "Images that differ most" if drift.is_found else "Images that differ most, without drift"
    note = "Those around which there are more images now than in the reference; below each, what the model says of it."
    if not any(contents):
        note += " The images are not at hand: a server keeps them with --capture_images."
    return [Section(title, [Cards(cards)], note)]
