"""The report's section on a compression: every model that was measured, as a table and a chart."""

from classifier.compress.table import CompressDocument, Row
from classifier.report.figure import COLOURS, FAINT, TRAIN, VALIDATION, create_axes, format_shares, render_chart
from classifier.report.numbers import count_images, format_interval, format_share
from classifier.report.page import Block, Bullets, Chart, Charts, Section, Table

_HEAD = ("model", "MB", "ms, batch 1", "ms, batch 32", "images/s", "accuracy", "95 %", "points lost", "95 %", "")


def build_compression(document: CompressDocument) -> Section:
    """A table of the models, the fastest first, their accuracy against their time, and what was refused."""
    rows = sorted(document["rows"], key=lambda row: row["milliseconds_1"])
    names = [row["name"] for row in rows]
    winner = document.get("winner")
    bold = names.index(winner) if winner in names else None
    blocks: list[Block] = [
        Table(_HEAD, [[*format_row(row, document), _describe_outcome(row, document)] for row in rows], bold_row=bold),
        Charts([_draw(rows)]),
    ]
    if document["refused"]:
        blocks.append(Bullets(document["refused"]))
    threads = f"{document['threads']} thread{'' if document['threads'] == 1 else 's'}"
    note = (
        f"By ONNX Runtime in {threads} on the machine where it was made, in turns with the original; accuracy on "
        f"{describe_images(document)}. Accepted if the interval of the loss ends at "
        f"{document['max_loss']:g} points or below."
    )
    return Section("Compression", blocks, note)


def describe_images(document: CompressDocument) -> str:
    """Say which images models are judged on."""
    images, by_folds = count_images(document["images"]), document.get("by_folds")
    return f"{images}, {by_folds}" if by_folds else f"{images} of the validation split"


def format_row(row: Row, document: CompressDocument) -> list[str]:
    """Return a model's name, size, times, accuracy and loss as text; the original has lost nothing."""
    low, high = (100 * end for end in row["loss_interval"])
    is_original = row is document["rows"][0]
    return [
        row["name"],
        f"{row['megabytes']:.2f}",
        f"{row['milliseconds_1']:.2f}",
        f"{row['milliseconds_32']:.1f}",
        f"{row['images_per_second']:,.0f}",
        format_share(row["accuracy"], 2),
        format_interval(row["accuracy_interval"]),
        "" if is_original else f"{100 * row['loss']:+.2f}",
        "" if is_original else f"{low:+.2f} to {high:+.2f}",
    ]


def _describe_outcome(row: Row, document: CompressDocument) -> str:
    if row is document["rows"][0]:
        return "original"
    return "accepted" if row["accepted"] else "may lose too much"


def _draw(rows: list[Row]) -> Chart:
    """Draw accuracy against milliseconds at batch 1, in other colours for accepted models and the others."""
    figure, axes = create_axes("milliseconds for an image", "accuracy")
    axes.yaxis.set_major_formatter(format_shares())
    for is_accepted, colour in ((True, VALIDATION), (False, TRAIN)):
        chosen = [row for row in rows if row["accepted"] == is_accepted]
        xs, ys = [row["milliseconds_1"] for row in chosen], [row["accuracy"] for row in chosen]
        lows, highs = ([row["accuracy_interval"][end] for row in chosen] for end in (0, 1))
        axes.vlines(xs, lows, highs, color=COLOURS[colour], linewidth=1)
        axes.plot(xs, ys, "o", color=COLOURS[colour])
    for row in rows:
        axes.annotate(
            row["name"], (row["milliseconds_1"], row["accuracy"]), (4, 4), textcoords="offset points", color=FAINT
        )
    axes.set_xlim(left=0)
    parts = [f"{row['name']}: {row['milliseconds_1']:.2f} ms, {row['accuracy']:.1%}" for row in rows]
    text = f"Validation accuracy by milliseconds for an image. {'; '.join(parts)}."
    return Chart(render_chart(figure, text), text, [("accepted", VALIDATION), ("may lose too much", TRAIN)])
