"""Horizontal bar charts as SVG, written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

LABEL, BAR, VALUE, ROW, TITLE = 190, 420, 130, 20, 34  # pixels
OURS, BASE, PEER = "#c2410c", "#52525b", "#a1a1aa"
STYLE = "text{font:13px system-ui,sans-serif;fill:#18181b}.t{font-weight:600}"


def bar_chart(path: str, title: str, groups: Sequence[tuple[str, str, dict[str, float]]]) -> None:
    """Draw groups of (heading, unit, {name: value}); each group has its own scale, beginning at zero."""
    parts: list[str] = [f'<text class="t" x="10" y="22" font-size="16">{escape(title)}</text>']
    y = TITLE
    for heading, unit, values in groups:
        y += TITLE
        parts.append(f'<text class="t" x="10" y="{y - 8}">{escape(heading)}, {escape(unit)} (less is better)</text>')
        y = draw_bars(parts, y, values)
    width, height = LABEL + BAR + VALUE, y + 10
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    ground = f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
    Path(path).write_text("\n".join([frame, ground, *parts, "</svg>", ""]))


def draw_bars(parts: list[str], y: int, values: dict[str, float]) -> int:
    """Draw one bar for each value, the least first; return where the next thing may begin."""
    greatest = max(values.values(), default=0) or 1
    for name, value in sorted(values.items(), key=lambda item: item[1]):
        colour = OURS if name.startswith("rawdl") else BASE if name.startswith("bare") else PEER
        length = max(1.0, value / greatest * BAR)
        middle = y + ROW - 6
        parts.append(f'<text x="{LABEL - 8}" y="{middle}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="{LABEL}" y="{y + 2}" width="{length:.1f}" height="{ROW - 4}" fill="{colour}"/>')
        parts.append(f'<text x="{LABEL + length + 6:.1f}" y="{middle}">{value:.3g}</text>')
        y += ROW
    return y
