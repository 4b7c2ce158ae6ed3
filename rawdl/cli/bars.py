"""The bars: how the progress of several files looks on a terminal of some size.  Needs rich, which draws a bar.

Its live display is not used: that hides the cursor, which a process that is killed does not bring back, and redraws in
a thread of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from io import BytesIO, TextIOWrapper
from typing import Final, NamedTuple

from rich.console import Console, RenderableType
from rich.progress_bar import ProgressBar
from rich.text import Text

from rawdl.cli.meter import Status, cells, columns_of, elided

_ATTRIBUTES: Final = re.compile(r"\x1b\[[0-9;]*m")
_GAP: Final = 2
_MARGIN: Final = 3  # columns that stay free, for the reasons of the line
_SHORTEST_LABEL: Final = 6
_LONGEST_LABEL: Final = 40
_SHORTEST_BAR: Final = 8
_LONGEST_BAR: Final = 40
_NARROW: Final = 60  # where a number is worth more than the whole label of the total
# How wide a column is at least, if it is there: as wide as it gets as a rule, so that a stall moves nothing.
_USUAL_WIDTHS: Final = (5, 0, 12, 8, 0)


class _Layout(NamedTuple):
    """How many cells each thing has, 0 for what has no room; ``columns`` are those of `columns_of`."""

    label: int
    bar: int
    columns: Sequence[int]


class Painter:
    """Make the rows, with the colours that the terminal has, and the characters that ``encoding`` has."""

    def __init__(self, encoding: str) -> None:
        # Not the terminal itself: a console writes to its file even while it captures, if nothing, and may fail then.
        nowhere = TextIOWrapper(BytesIO(), encoding)
        self._console = Console(file=nowhere, force_terminal=True, legacy_windows=False)

    def rows(self, total: Status, files: Sequence[Status], size: os.terminal_size) -> list[str]:
        """Return a row for each file that there is room for, the largest ones last, and one for the total."""
        room = max(0, size.lines - 2)  # one for the total, one for what stands above
        shown = sorted(files, key=lambda status: status.expected or 0)[-room:] if room else []
        statuses = [*shown, total]
        table: list[Sequence[str]] = [columns_of(status) for status in statuses]
        layout = _layout(statuses, counted := [_with_count(columns) for columns in table], size.columns - _MARGIN)
        if layout.columns[1]:
            table = counted
        else:
            layout = _layout(statuses, table, size.columns - _MARGIN)
        # Told, not asked for: it would look for the size in the environment as well.
        self._console.width, self._console.height = size.columns, size.lines
        return [self._row(status, columns, layout) for status, columns in zip(statuses, table, strict=True)]

    def _row(self, status: Status, columns: Sequence[str], layout: _Layout) -> str:
        label = elided(status.label, layout.label)
        free = layout.label - cells(label)
        parts = [label + " " * free if free >= 0 else " " * layout.label] if layout.label else []
        if layout.bar:
            parts.append(self._bar(status, layout.bar))
        if status.stalled is not None and layout.columns[2]:
            columns = [*columns[:2], self._rendered(Text(columns[2].rjust(layout.columns[2]), "yellow")), *columns[3:]]
        for column, width in zip(columns, layout.columns, strict=True):
            if width and cells(_ATTRIBUTES.sub("", column)) <= width:
                parts.append(column.rjust(width))
        return (" " * _GAP).join(parts).rstrip()

    def _bar(self, status: Status, width: int) -> str:
        """Return a bar, one that moves if the length is not known, or nothing while nothing comes at all."""
        idle = bool(status.waiting) or status.stalled is not None
        if status.expected is None and idle:
            return " " * width
        bar = self._rendered(ProgressBar(status.expected, status.written, width))
        return bar + " " * (width - cells(_ATTRIBUTES.sub("", bar)))  # without colours it has only what is done

    def _rendered(self, what: RenderableType) -> str:
        with self._console.capture() as captured:
            self._console.print(what, end="", soft_wrap=True)
        return captured.get()


def _with_count(columns: Sequence[str]) -> Sequence[str]:
    """Put a count of bytes that no percentage can be told of where the others have theirs."""
    how_far, of_what, *rest = columns
    return columns if of_what else ("", how_far, *rest)


def _layout(statuses: Sequence[Status], table: Sequence[Sequence[str]], room: int) -> _Layout:
    """Share the room out: the columns that stand last give way first, then the bar, and the label is cut at need."""
    widths = [
        max(usual, *map(len, column)) if any(column) else 0
        for column, usual in zip(zip(*table, strict=True), _USUAL_WIDTHS, strict=True)
    ]
    longest = min(max(cells(status.label) for status in statuses), _LONGEST_LABEL)
    shortest = _SHORTEST_LABEL if room < _NARROW or len(statuses) < 2 else cells(statuses[-1].label)
    shortest = min(longest, shortest)
    while any(widths) and shortest + _taken(widths) > room:
        widths[max(at for at, width in enumerate(widths) if width)] = 0
    left = room - _taken(widths)
    if not any(widths) and any(columns[0] for columns in table):  # a number is worth more than a label alone
        return _Layout(0, 0, [max(room, 0), 0, 0, 0, 0])
    bar = min(left - _GAP - max(shortest, min(longest, (left - _GAP) // 2)), _LONGEST_BAR)
    if bar < _SHORTEST_BAR:
        return _Layout(max(0, min(longest, left)), 0, widths)
    return _Layout(min(longest, left - _GAP - bar), bar, widths)


def _taken(widths: Sequence[int]) -> int:
    return sum(_GAP + width for width in widths if width)
