"""A page of one file: text that is escaped, tables, and figures drawn inside it."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

_STYLE = """
:root { color: #222; background: #fff; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem 1.1rem 3rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .6rem 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; padding-top: .7rem; border-top: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { margin: .4rem 0; max-width: 46rem; }
.lead { font-size: 1.05rem; }
.quiet, figcaption, caption { color: #5a5a5a; font-size: .86rem; text-align: left; }
.warn { border-left: 4px solid #D55E00; padding: .2rem .7rem; background: #fdf3ec; }
.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; padding-top: .3rem; }
th, td { padding: .22rem .8rem .22rem 0; border-bottom: 1px solid #e8e8e8; }
th, td { text-align: left; vertical-align: top; }
th { font-weight: 600; }
td.n, th.n { text-align: right; white-space: nowrap; }
.figures { display: grid; gap: .6rem 1.4rem; }
.figures { grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); }
figure { margin: .4rem 0; max-width: 34rem; }
figure svg { width: 100%; height: auto; display: block; }
footer { margin-top: 2.5rem; }
@media print {
  :root { font-size: 10.5pt; }
  body { max-width: none; padding: 0; }
  figure, table, .warn { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; }
}
@page { margin: 16mm; }
""".strip()
_TAG = re.compile(r"<[^<>]*>")
_NAMES = re.compile(r'((?:\bid|\bxlink:href)="#?|url\(#)')


def escape(text: Any) -> str:
    """Text as HTML shows it, whatever characters it holds."""
    return html.escape(str(text), quote=True)


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of text, which is escaped; ``kind`` is its class."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(
    rows: Sequence[Sequence[Any]], head: Sequence[str] = (), numbers: Iterable[int] = (), caption: str = ""
) -> str:
    """A table whose first column names the rows; columns ``numbers`` stand to the right."""
    right = set(numbers)

    def cells(row: Sequence[Any], scope: str) -> str:
        marks = [' class="n"' if k in right else "" for k in range(len(row))]
        texts = [escape(cell) for cell in row]
        if scope == "col":
            return "".join(f'<th scope="col"{mark}>{t}</th>' for mark, t in zip(marks, texts, strict=True))
        rest = "".join(f"<td{mark}>{t}</td>" for mark, t in zip(marks[1:], texts[1:], strict=True))
        return f'<th scope="row"{marks[0]}>{texts[0]}</th>{rest}'

    top = f"<thead><tr>{cells(head, 'col')}</tr></thead>" if head else ""
    body = "".join(f"<tr>{cells(row, 'row')}</tr>\n" for row in rows)
    below = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table>{below}{top}<tbody>\n{body}</tbody></table></div>'


def drawing(figure: Any, caption: str, name: str) -> str:
    """A Matplotlib figure as SVG inside the page; ``name`` keeps its parts apart from those of others."""
    import matplotlib as mpl

    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tenfac"}), warnings.catch_warnings():
        # the reader's browser writes the text, with the fonts it has
        warnings.filterwarnings("ignore", message=".*Glyph", category=UserWarning)
        figure.savefig(stream, format="svg", metadata=nothing)
    svg = stream.getvalue()
    svg = _TAG.sub(lambda tag: _NAMES.sub(rf"\g<1>{name}-", tag[0]), svg[svg.index("<svg") :])
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL).strip()
    label = f'<svg role="img" aria-label="{escape(caption)}"'
    return f"<figure>{svg.replace('<svg', label, 1)}<figcaption>{escape(caption)}</figcaption></figure>"


def side_by_side(figures: Iterable[str]) -> str:
    """Figures in as many columns as there is room for."""
    return f'<div class="figures">{"".join(figures)}</div>'


def section(name: str, title: str, parts: Iterable[str]) -> str:
    """A part of the page under a heading."""
    body = "\n".join(parts)
    return f'<section id="{name}">\n<h2>{escape(title)}</h2>\n{body}\n</section>'


def page(title: str, parts: Iterable[str]) -> str:
    """The whole file."""
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )
