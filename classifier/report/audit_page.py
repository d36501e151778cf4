"""audit.html: the findings of an audit with thumbnails, on one self-contained page."""

from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path

from classifier.data.audit.finding import KINDS, Finding
from classifier.report import html

NAME = "audit.html"
# Findings shown of each kind, and images shown of a finding.
MAX_FINDINGS, MAX_IMAGES = 24, 4
TITLES = {
    "near_leak": "Near duplicates across splits",
    "leak": "Duplicates across splits",
    "group_leak": "Groups across splits",
    "label_conflict": "Conflicting labels",
    "near_conflict": "Near duplicates with conflicting labels",
    "label_error": "Likely label errors",
    "duplicate": "Duplicates",
    "near_duplicate": "Near duplicates",
    "extension": "Wrong file extensions",
    "aspect": "Extreme aspect ratios",
    "frames": "Several frames",
    "few": "Classes with few images",
    "stray": "Images without a class",
}


def write(
    path: Path,
    *,
    name: str,
    counts: str,
    findings: Sequence[Finding],
    content: Callable[[str], bytes | None],
    fix_command: str | None,
) -> Path:
    """Write the page at `path`.

    counts: a sentence about the audited images. content: returns the bytes of an image by its id; None if they cannot
    be read. fix_command: the command that trains without the bad images.
    """
    return html.write(path, f"Audit of {name}", _sections(name, counts, findings, content, fix_command))


def title_of(kind: str) -> str:
    """Return the heading of a kind of findings."""
    return TITLES.get(kind, kind.replace("_", " ").capitalize())


def _sections(
    name: str,
    counts: str,
    findings: Sequence[Finding],
    content: Callable[[str], bytes | None],
    fix_command: str | None,
) -> Iterator[str]:
    by_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    yield f"<h1>Audit of {escape(name)}</h1>"
    yield f'<p class="big">{_summarize(findings)}</p><p class="faint">{escape(counts)}</p>'
    if fix_command:
        yield f"<p>Train without the bad images: <code>{escape(fix_command)}</code></p>"
    if by_kind:
        rows = "".join(
            f'<tr><td><a href="#{kind}">{escape(title_of(kind))}</a></td><td class="n">{len(of_kind):,}</td>'
            f'<td class="{KINDS[kind][0]}">{KINDS[kind][0]}</td></tr>'
            for kind, of_kind in by_kind.items()
        )
        yield f"<table><tr><th>finding</th><th>count</th><th>severity</th></tr>{rows}</table>"
    for kind, of_kind in by_kind.items():
        more = f" The first {MAX_FINDINGS} are shown." if len(of_kind) > MAX_FINDINGS else ""
        yield f'<section id="{kind}"><h2>{escape(title_of(kind))} ({len(of_kind):,})</h2>'
        yield f'<p class="faint">{escape(KINDS[kind][1])}{more}</p><div class="grid">'
        yield from (_card(finding, content) for finding in of_kind[:MAX_FINDINGS])
        yield "</div></section>"


def _summarize(findings: Sequence[Finding]) -> str:
    if not findings:
        return "No problems found."
    count = f"{len(findings):,} finding{'s' if len(findings) > 1 else ''}"
    errors = sum(finding.severity == "error" for finding in findings)
    return f"{count}, {errors:,} of them errors that distort training or scores." if errors else f"{count}, no errors."


def _card(finding: Finding, content: Callable[[str], bytes | None]) -> str:
    images = "".join(thumbnail(content(id_), id_) for id_ in finding.ids[:MAX_IMAGES])
    return f'<div class="card">{images}<br>{escape(finding.text)}</div>'


def thumbnail(content: bytes | None, name: str) -> str:
    """An <img> that contains the image; empty if it cannot be read."""
    if content is None:
        return ""
    from classifier.data.decoding import decode

    try:
        return html.inline_image(decode.open_image(content, max_pixels=100_000_000, min_side=html.THUMBNAIL_SIZE), name)
    except decode.DecodeError:
        return ""
