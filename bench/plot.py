"""
The one picture: every figure that has a target, as a bar against it, and the rates beside the peers.

Drawn by hand as SVG with a title and a description for those who hear it, in the colours that the
reader's system asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import log10
from typing import Any

from bench.report import number

WIDTH, LEFT, BAR, GAP = 860, 250, 16, 6
STYLE = """
svg { background: #ffffff; font: 13px system-ui, sans-serif; }
text { fill: #1f2328; } .quiet { fill: #59636e; } .ours { fill: #1a5fb4; } .other { fill: #a8b1bb; } .axis { stroke: #d1d9e0; }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117; } text { fill: #f0f6fc; } .quiet { fill: #9198a1; } .ours { fill: #78aeed; } .other { fill: #59636e; }
  .axis { stroke: #3d444d; }
}
"""


def svg(results: Mapping[str, Any]) -> str:
    """Draw mails a second of every engine, one block for each provider, on a logarithmic scale."""
    figures: list[dict[str, Any]] = next(
        (row["figures"] for row in results["rows"] if row["name"] == "rates"), []
    )
    bars = [figure for figure in figures if figure["value"]]
    top = max((figure["value"] for figure in bars), default=1.0)
    low = min((figure["value"] for figure in bars), default=0.1)
    parts: list[str] = []
    y, block = 64, ""
    for figure in bars:
        delay, _, name = figure["label"].partition(": ")
        if delay != block:
            block, y = delay, y + 26
            parts.append(_text(0, y, f"provider takes {delay}", "quiet"))
            y += 10
        parts.append(_bar(y, name, figure["value"], low, top, ours=name == "postroom"))
        y += BAR + GAP
    return _frame(parts, bars, y + 24, results["machine"])


def _bar(y: int, name: str, value: float, low: float, top: float, *, ours: bool) -> str:
    whole = WIDTH - LEFT - 110
    floor = log10(low / 2)
    length = max(2.0, whole * (log10(value) - floor) / (log10(top) - floor))
    kind = "ours" if ours else "other"
    label = _text(LEFT - 10, y + 13, name, "", end=True)
    figure = _text(round(LEFT + length + 8), y + 13, f"{number(value)}/s", "")
    return (
        f'{label}<rect class="{kind}" x="{LEFT}" y="{y}" width="{length:.0f}" height="{BAR}" rx="2"/>{figure}'
    )


def _text(x: int, y: int, words: str, kind: str, *, end: bool = False) -> str:
    anchor = ' text-anchor="end"' if end else ""
    return f'<text class="{kind}" x="{x}" y="{y}"{anchor}>{escape(words)}</text>'


def _frame(
    parts: Sequence[str], bars: Sequence[Mapping[str, Any]], height: int, machine: Mapping[str, Any]
) -> str:
    said = "; ".join(f"{figure['label']} {number(figure['value'])} mails a second" for figure in bars)
    title = "Mails a second from one sender, by how long the provider takes"
    under = f"logarithmic; {machine['cores']} cores, {machine['date'][:10]}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-12 0 {WIDTH + 24} {height}" role="img" aria-labelledby="title desc">',
            f'<title id="title">{title}</title><desc id="desc">{escape(said)}.</desc><style>{STYLE}</style>',
            f'<text x="0" y="28" font-size="17" font-weight="600">{title}</text>',
            _text(0, 50, under, "quiet"),
            *parts,
            f'<line class="axis" x1="{LEFT}" y1="72" x2="{LEFT}" y2="{height - 24}"/>',
            "</svg>\n",
        ]
    )
