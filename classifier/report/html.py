"""Building blocks of self-contained HTML pages: frame, style (light, dark, print), sections, tables, images."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from classifier.report.svg import STYLE
from classifier.storage.atomic import write_atomically

# Largest width and height of a thumbnail, in pixels.
THUMBNAIL_SIZE = 112

_FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">{head}
<title>{title}</title><link rel="icon" href="data:,"><style>{chart_style}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 0 auto;
  max-width: 860px; padding: 1rem; }}
h1 {{ font-size: 1.5rem; margin: .5rem 0; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.15rem; margin: 2rem 0 .25rem; }} h3 {{ font-size: 1rem; margin: 1rem 0 .25rem; }}
p {{ margin: .4rem 0; overflow-wrap: anywhere; }} .faint {{ color: var(--faint); }} .big {{ font-size: 1.15rem; }}
a {{ color: var(--c0); }} ul {{ margin: .3rem 0; padding-left: 1.2rem; overflow-wrap: anywhere; }}
.wide {{ overflow-x: auto; }} table {{ border-collapse: collapse; font-size: .875rem; white-space: nowrap; }}
th, td {{ text-align: right; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); }}
th:first-child, td:first-child {{ text-align: left; }} th {{ color: var(--faint); font-weight: 500; }}
tr.won td {{ background: var(--box); font-weight: 600; }} td.right {{ color: var(--c2); }}
pre {{ background: var(--box); padding: .75rem; overflow-x: auto; border-radius: 4px; font-size: .875rem; }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 1rem; }}
table.matrix td, table.matrix th {{ text-align: center; padding: .25rem .4rem; min-width: 1.4rem; }}
table.matrix td:first-child, table.matrix th:first-child {{ text-align: left; }}
.error {{ color: var(--c1); }} .warning {{ color: var(--c4); }} .note {{ color: var(--faint); }}
.grid {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: .75rem; }}
.card {{ background: var(--box); border-radius: 6px; padding: .6rem; font-size: .8rem; overflow-wrap: anywhere;
  break-inside: avoid; }}
.card img {{ width: 72px; height: 72px; object-fit: contain; margin: 0 .3rem .3rem 0; background: var(--ground); }}
.card img.map {{ image-rendering: auto; }}
@media print {{ body {{ max-width: none; }} h2, h3 {{ break-after: avoid; }} svg.chart {{ break-inside: avoid; }} }}
</style></head><body>
{body}
</body></html>
"""


def write(path: Path, title: str, body: Iterable[str], *, refresh: float | None = None) -> Path:
    """Write a page of the given parts. refresh: seconds after which a browser reloads it."""
    head = f'<meta http-equiv="refresh" content="{refresh:g}">' if refresh else ""
    text = _FRAME.format(title=escape(title), chart_style=STYLE, head=head, body="\n".join(body))
    write_atomically(path, text)
    return path


def section(title: str, content: str, note: str = "", anchor: str | None = None) -> str:
    """A heading, a note in faint print, and the content."""
    paragraph = f'<p class="faint">{escape(note)}</p>' if note else ""
    id_attribute = f' id="{anchor}"' if anchor else ""
    return f"<section{id_attribute}><h2>{escape(title)}</h2>{paragraph}{content}</section>"


def bullet_list(lines: Iterable[str]) -> str:
    """A bullet for each line."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def chart_grid(svgs: Iterable[str]) -> str:
    """Charts side by side, as far as the page is wide enough."""
    return f'<div class="charts">{"".join(svgs)}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], bold_row: int | None = None) -> str:
    """A table that scrolls sideways on its own where it is too wide. bold_row: the index of a row to emphasise."""
    lines = [f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>"]
    for n, row in enumerate(rows):
        css_class = ' class="won"' if n == bold_row else ""
        lines.append(f"<tr{css_class}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def inline_image(image: Image.Image, name: str, max_size: int = THUMBNAIL_SIZE, css_class: str = "") -> str:
    """An <img> that contains the image as a JPEG, shrunk to max_size pixels. name: its alternative text."""
    image.thumbnail((max_size, max_size), Image.Resampling.BOX)
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=80)
    return inline_jpeg(stream.getvalue(), name, css_class)


def inline_jpeg(jpeg: bytes, name: str, css_class: str = "") -> str:
    """An <img> that contains the bytes of a JPEG. name: its alternative text."""
    data, title = base64.b64encode(jpeg).decode(), escape(name)
    class_attribute = f' class="{css_class}"' if css_class else ""
    return f'<img{class_attribute} alt="{title}" title="{title}" src="data:image/jpeg;base64,{data}">'
