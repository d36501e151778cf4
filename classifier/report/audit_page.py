"""audit.html: the findings of an audit with thumbnails, on one self-contained page."""

from collections.abc import Callable, Sequence
from pathlib import Path

from classifier.config.sections import DataConfig
from classifier.data.audit.finding import KINDS, Finding
from classifier.report import images, page
from classifier.report.page import Block, Card, Cards, Cell, Code, Page, Section, Table, Text

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
    "depth": "16-bit files of few bits",
    "frames": "Several frames",
    "few": "Classes with few images",
    "refused": "What training refuses",
    "reading": "How it was read",
}


def write(
    path: Path,
    *,
    name: str,
    counts: str,
    findings: Sequence[Finding],
    content: Callable[[str], bytes | None],
    file: Callable[[str], Path | None],
    fix_command: str | None,
    max_pixels: int = DataConfig.max_pixels,
    max_seconds: float = DataConfig.max_seconds,
) -> Path:
    """Write the page at `path`.

    counts: a sentence about the audited images. content: returns the bytes of an image by its id; None if they cannot
    be read. file: returns its file; None if it is in memory, in another file or elsewhere. fix_command: the command
    that trains without the bad images. max_pixels, max_seconds: limits of an image, also of its thumbnail.
    """
    by_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    summary: list[Block] = [Text(_summarize(findings), "big"), Text(counts, "faint")]
    if fix_command:
        summary += [Text("Train without the bad images:"), Code([fix_command])]
    if by_kind:
        summary.append(_tabulate(by_kind))

    def build_card(finding: Finding) -> Card:
        shown = []
        for id_ in finding.ids[:MAX_IMAGES]:
            image_file = file(id_)
            link = images.link_to(image_file, path.parent) if image_file else ""
            shown.append(thumbnails.embed(content(id_), f"{id_}: {title_of(finding.kind).lower()}", link))
        return Card([[image for image in shown if image is not None]], lines=[finding.text])

    with images.Thumbnails(max_pixels, max_seconds) as thumbnails:
        sections = [_build_section(kind, of_kind, build_card) for kind, of_kind in by_kind.items()]
    return page.write(path, Page(f"Audit of {name}", summary, sections, has_contents=False))


def title_of(kind: str) -> str:
    """Return the heading of a kind of findings."""
    return TITLES.get(kind, kind.replace("_", " ").capitalize())


def _tabulate(by_kind: dict[str, list[Finding]]) -> Table:
    rows = [
        [Cell(title_of(kind), link=kind), f"{len(of_kind):,}", Cell(KINDS[kind][0], KINDS[kind][0])]
        for kind, of_kind in by_kind.items()
    ]
    return Table(["finding", "count", "severity"], rows)


def _build_section(kind: str, findings: Sequence[Finding], build_card: Callable[[Finding], Card]) -> Section:
    more = f" The first {MAX_FINDINGS} are shown." if len(findings) > MAX_FINDINGS else ""
    cards = Cards([build_card(finding) for finding in findings[:MAX_FINDINGS]])
    return Section(f"{title_of(kind)} ({len(findings):,})", [cards], KINDS[kind][1] + more, kind)


def _summarize(findings: Sequence[Finding]) -> str:
    if not findings:
        return "No problems found."
    count = f"{len(findings):,} finding{'s' if len(findings) > 1 else ''}"
    errors = sum(finding.severity == "error" for finding in findings)
    return f"{count}, {errors:,} of them errors that distort training or scores." if errors else f"{count}, no errors."
