"""audit.html: what an audit found, on one page with thumbnails that needs no network."""

from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path

from classifier.data.audit.finding import KINDS, Finding
from classifier.report import html

NAME = "audit.html"
# Findings of a kind that are shown, and images of a finding.
SHOWN, IMAGES = 24, 4


def write(
    path: Path,
    *,
    name: str,
    counts: str,
    findings: Sequence[Finding],
    content: Callable[[str], bytes | None],
    mend: str | None,
) -> Path:
    """Make the page at `path`.

    counts: what was looked at, a sentence. content: the bytes of an image by its name, None where there is none. mend:
    the command that trains without what is bad.
    """
    return html.write(path, f"Audit of {name}", _sections(name, counts, findings, content, mend))


def title_of(kind: str) -> str:
    """A kind as a heading."""
    return TITLES.get(kind, kind.replace("_", " ").capitalize())


TITLES = {
    "near_leak": "Near-copies across splits",
    "leak": "Copies across splits",
    "group_leak": "Groups across splits",
    "label_conflict": "One picture, several labels",
    "near_conflict": "Near-copies with different labels",
    "label_error": "Probably wrong labels",
    "duplicate": "Copies",
    "near_duplicate": "Near-copies",
    "extension": "Endings that name another format",
    "aspect": "Far from square",
    "frames": "Several frames",
    "few": "Classes with few images",
    "stray": "In no class",
}


def _sections(
    name: str,
    counts: str,
    findings: Sequence[Finding],
    content: Callable[[str], bytes | None],
    mend: str | None,
) -> Iterator[str]:
    by_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    yield f"<h1>Audit of {escape(name)}</h1>"
    errors = sum(finding.severity == "error" for finding in findings)
    verdict = "Nothing is wrong with it." if not findings else f"{len(findings):,} findings"
    if findings:
        verdict += f", {errors:,} of which spoil a training or its score." if errors else ", none of which is grave."
    yield f'<p class="big">{verdict}</p><p class="faint">{escape(counts)}</p>'
    if mend:
        yield f"<p>To train without what is bad: <code>{escape(mend)}</code></p>"
    if by_kind:
        rows = "".join(
            f'<tr><td><a href="#{kind}">{escape(title_of(kind))}</a></td><td class="n">{len(found):,}</td>'
            f'<td class="{KINDS[kind][0]}">{KINDS[kind][0]}</td></tr>'
            for kind, found in by_kind.items()
        )
        yield f"<table><tr><th>what</th><th>how many</th><th>how bad</th></tr>{rows}</table>"
    for kind, found in by_kind.items():
        more = f" The first {SHOWN} are shown." if len(found) > SHOWN else ""
        yield f'<section id="{kind}"><h2>{escape(title_of(kind))} ({len(found):,})</h2>'
        yield f'<p class="faint">{escape(KINDS[kind][1])}{more}</p><div class="grid">'
        yield from (_card(finding, content) for finding in found[:SHOWN])
        yield "</div></section>"


def _card(finding: Finding, content: Callable[[str], bytes | None]) -> str:
    images = "".join(thumbnail(content(id_), id_) for id_ in finding.ids[:IMAGES])
    return f'<div class="card">{images}<br>{escape(finding.text)}</div>'


def thumbnail(content: bytes | None, name: str) -> str:
    """An image as HTML that holds it; nothing where it cannot be read."""
    if content is None:
        return ""
    from classifier.data.decoding import decode

    try:
        return html.inline_image(decode.open_image(content, max_pixels=100_000_000, min_side=html.THUMBNAIL_SIZE), name)
    except decode.DecodeError:
        return ""
