"""The plots of a bench as SVG that takes its colours from the page around it.

Each is drawn for a width, and is as wide in pixels where there is room: a plot that shrinks with the window would have
letters that nobody can read.  What does not fit is summed up, so that a plot stays small however long the run was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape as html_escape
from math import ceil, floor, log10
from typing import Any, Final, NamedTuple

from rawdl.cli.bench.units import SECONDS, Unit, count_text, rate_unit, tick_text, ticks, time_text, time_unit
from rawdl.proto.fields import escape

Entries = Sequence[Mapping[str, Any]]

_LEFT: Final = 56  # room for five digits before the axis
_RIGHT: Final = 20  # for half of the last number below it
_BOTTOM: Final = 46  # for the numbers and the name of the axis
_TOP: Final = 26  # for the unit of the upright axis
_LINE: Final = 17  # from one line of text to the next
_LETTER: Final = 8  # the width of a digit, and some room
STRETCHES: Final = 160  # of the throughput; more of them would be narrower than two pixels on a small screen
_WIDE: Final = 30  # times the least value, from which on a linear axis shows the greatest only


def safe(text: object) -> str:
    """Make any text fit for HTML and for XML, in which a control character could not even be spelled."""
    return html_escape(escape(str(text)))


class Scale(NamedTuple):
    """Which place of a drawing a value has; what is outside is put at the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0
        return round(self.start + (self.end - self.start) * min(max(part, 0.0), 1.0), 1)


class Drawing:
    """An SVG in the making."""

    def __init__(self, width: int, height: int, label: str) -> None:
        self.width, self.height = width, height
        self._label = label
        self._parts: list[str] = []

    def path(self, kind: str, data: str, title: str = "") -> None:
        inside = f"><title>{safe(title)}</title></path>" if title else "/>"
        self._parts.append(f'<path class="{kind}" d="{data}"{inside}')

    def text(self, x: float, y: float, text: str, anchor: str = "start", kind: str = "note") -> None:
        self._parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{safe(text)}</text>')

    def svg(self) -> str:
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        label = safe(self._label)
        opening = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}">'
        return f"{opening}<title>{label}</title>{''.join(self._parts)}</svg>"


class Frame:
    """Two axes in a drawing: time or another quantity from left to right, what depends on it upwards from 0."""

    def __init__(self, drawing: Drawing, top: int = _TOP) -> None:
        self.drawing = drawing
        self.left, self.right = _LEFT, drawing.width - _RIGHT
        self.top, self.base = top, drawing.height - _BOTTOM

    def upright(self, unit: str, steps: Sequence[float], size: float = 1.0) -> Scale:
        """Draw the axis with a line for each step (in units of ``size``) and return the scale of the values."""
        scale = Scale(0.0, steps[-1] * size, self.base, self.top)
        for step in steps:
            y = scale(step * size)
            self.drawing.path("axis" if step == 0 else "grid", f"M{self.left} {y:g}H{self.right}")
            self.drawing.text(self.left - 8, y + 4, tick_text(step, steps[1]), "end")
        self.drawing.text(0, self.top - 12, unit)
        return scale

    def upright_by_powers(self, unit: Unit, low: float, high: float) -> Scale:
        """Draw an axis of logarithms, and return the scale of the logarithms."""
        scale = Scale(log10(low), log10(high), self.base, self.top)
        exponents = range(ceil(log10(low / unit.size) - 1e-9), ceil(log10(high / unit.size) + 1e-9))
        for exponent in exponents:
            y = scale(log10(unit.size) + exponent)
            self.drawing.path("grid", f"M{self.left} {y:g}H{self.right}")
            self.drawing.text(self.left - 8, y + 4, tick_text(10.0**exponent, 10.0**exponent), "end")
        self.drawing.path("axis", f"M{self.left} {self.base}H{self.right}")
        self.drawing.text(0, self.top - 12, unit.name)
        return scale

    def along(self, name: str, low: float, high: float, size: float = 1.0, right: int | None = None) -> Scale:
        """Draw the lower axis, for values from ``low`` to ``high``, and return their scale."""
        right = self.right if right is None else right
        scale = Scale(low, high, self.left, right)
        for value, text in _numbers(low / size, high / size, right - self.left).items():
            x = scale(value * size)
            self.drawing.path("axis", f"M{x:g} {self.base}v5")
            self.drawing.text(x, self.base + 19, text, "middle")
        self.drawing.text((self.left + right) / 2, self.base + 39, name, "middle")
        return scale


def _numbers(low: float, high: float, room: int) -> dict[float, str]:
    """Return what to write below an axis, so few of them that none touches the next."""
    found: dict[float, str] = {}
    for limit in range(max(3, room // 48), 2, -1):
        step = ticks(high - low, limit)[1]
        values = [at * step for at in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]
        found = {value: tick_text(value, step) for value in values}
        if sum((len(text) + 1) * _LETTER for text in found.values()) <= room:
            break
    return found


# Throughput


class Stretch(NamedTuple):
    """Some intervals in a row: how fast they were together, and the slowest and fastest of them."""

    start: float
    end: float
    rate: float
    least: float
    most: float


def throughput(intervals: Entries, mean: float | None, width: int) -> str:
    """Draw how fast it was over time; of more than ``STRETCHES`` intervals, several are drawn together."""
    stretches = _stretches(intervals)
    rates = [each.rate for each in stretches]
    most = max(each.most for each in stretches)
    unit = rate_unit(most)
    told = f"from {unit.text(min(rates))} to {unit.text(max(rates))}" if len(rates) > 1 else unit.text(most)
    drawing = Drawing(width, 270, f"Throughput over {time_text(stretches[-1].end)}: {told}")
    frame = Frame(drawing)
    y = frame.upright(unit.name, ticks(most / unit.size, 6), unit.size)
    x = frame.along("seconds since the beginning", 0.0, stretches[-1].end)
    line = "".join(f"H{x(each.start):g}V{y(each.rate):g}H{x(each.end):g}" for each in stretches)
    begin, end = f"M{x(stretches[0].start):g}", x(stretches[-1].end)
    drawing.path("area", f"{begin} {frame.base}{line}H{end:g}V{frame.base}Z")
    if len(stretches) < len(intervals):
        upper = "".join(f"H{x(each.start):g}V{y(each.most):g}H{x(each.end):g}" for each in stretches)
        lower = "".join(f"H{x(each.end):g}V{y(each.least):g}H{x(each.start):g}" for each in reversed(stretches))
        drawing.path("band", f"{begin} {y(stretches[0].most):g}{upper}{lower}Z")
    drawing.path("line", f"{begin} {y(stretches[0].rate):g}{line}")
    if mean is not None:
        drawing.path("mean", f"M{frame.left} {y(mean):g}H{frame.right}")
    return drawing.svg()


def _stretches(intervals: Entries) -> list[Stretch]:
    share = ceil(len(intervals) / STRETCHES)
    return [_stretch(intervals[at : at + share]) for at in range(0, len(intervals), share)]


def _stretch(intervals: Entries) -> Stretch:
    start, end = intervals[0]["start"], intervals[-1]["end"]
    rates = [each["bytes_per_second"] for each in intervals]
    rate = sum(each["bytes"] for each in intervals) / (end - start) if end > start else rates[0]
    return Stretch(start, end, rate, min(rates), max(rates))


# Times


def distribution(bins: Entries, figures: Mapping[str, float] | None, width: int) -> str:
    """Draw a histogram with its quantiles.  A last bin that is far wider than the others is drawn as wide as they."""
    tail = bins[-1] if len(bins) > 2 and _width(bins[-1]) > 2 * _width(bins[0]) else None
    main = bins if tail is None else bins[:-1]
    low, high = main[0]["start"], main[-1]["end"]
    unit = time_unit(bins[-1]["end"] if tail is None else high)
    marks = {} if figures is None else {name: figures[name] for name in ("p50", "p95", "p99")}
    told = ", ".join(f"{name} {time_text(value)}" for name, value in marks.items())
    total = sum(each["count"] for each in bins)
    drawing = Drawing(width, 300, f"Times of {count_text(total)} transfers{': ' if told else ''}{told}")
    frame = Frame(drawing, _TOP + _LINE * len(marks))
    y = frame.upright("transfers", ticks(max(each["count"] for each in bins), 5, whole=True))
    spread = (low, high) if high > low else (low * 0.9, low * 1.1 or 1.0)
    x = frame.along(f"time of a transfer, {unit.name}", *spread, unit.size, frame.right - (0 if tail is None else 76))
    for each in main:
        _bar(drawing, x(each["start"]), x(each["end"]), each, y)
    if tail is not None:
        _bar(drawing, frame.right - 44, frame.right, tail, y, "bar tail")
        drawing.text(frame.right, frame.base + 19, f"to {time_text(tail['end'])}", "end")
    _mark(frame, {name: (frame.right - 22 if value > high else x(value), value) for name, value in marks.items()})
    return drawing.svg()


def _width(each: Mapping[str, float]) -> float:
    return each["end"] - each["start"]


def _bar(drawing: Drawing, left: float, right: float, each: Mapping[str, float], y: Scale, kind: str = "bar") -> None:
    if right - left < 2:  # of one value, or of very near ones
        left, right = left - 3, right + 3
    title = f"{time_text(each['start'])} to {time_text(each['end'])}: {count_text(each['count'])}"
    drawing.path(kind, f"M{left + 0.5:g} {y(0):g}V{y(each['count']):g}H{right - 0.5:g}V{y(0):g}Z", title)


def _mark(frame: Frame, marks: Mapping[str, tuple[float, float]]) -> None:
    """Draw a line for each, with its name in a row of its own: equal ones would cover one another."""
    tops = {name: _TOP - 10 + row * _LINE for row, name in enumerate(marks)}
    for name, (x, _) in marks.items():
        frame.drawing.path("mark", f"M{x:g} {tops[name] - 10}V{frame.base}")
    for name, (x, value) in marks.items():
        anchor, aside = ("end", -6) if x > (frame.left + frame.right) / 2 else ("start", 6)
        frame.drawing.text(x + aside, tops[name], f"{name} {time_text(value)}", anchor, "value")


def phases(spans: Mapping[str, Mapping[str, float]], width: int) -> str:
    """Draw a bar as long as each median, and a line to the 95th percentile; the names are the keys."""
    row, left, right = 46, 8, width - 8 - _RIGHT
    told = ", ".join(f"{name} {time_text(each['p50'])}" for name, each in spans.items())
    drawing = Drawing(width, row * len(spans) + _BOTTOM, f"Medians of the phases: {told}")
    frame = Frame(drawing, 0)
    frame.left, frame.right = left, right
    longest = max(each["p95"] for each in spans.values())
    unit = time_unit(longest)
    drawing.path("axis", f"M{left} {frame.base}H{right}")
    x = frame.along(f"median, with a line to the 95th percentile, {unit.name}", 0.0, longest or 1.0, unit.size)
    for at, (name, each) in enumerate(spans.items()):
        top = at * row + 16
        drawing.text(left, top, name, kind="value")
        drawing.text(right, top, f"{time_text(each['p50'])} · p95 {time_text(each['p95'])}", "end")
        middle, median, far = top + 15, max(x(each["p50"]), left + 1), x(each["p95"])
        drawing.path("track", f"M{left} {middle - 7}H{right}v14H{left}Z")
        drawing.path("bar", f"M{left} {middle - 7}H{median:g}v14H{left}Z")
        drawing.path("whisker", f"M{median:g} {middle}H{far:g}M{far:g} {middle - 5}v10")
    return drawing.svg()


def scatter(samples: Entries, width: int) -> str:
    """Draw the time of each transfer by when it ended; those that failed are strokes on the axis."""
    good = [(each["ended"], each["ended"] - each["intended"]) for each in samples if each["error"] is None]
    failed = [each["ended"] for each in samples if each["error"] is not None]
    times = [time for _, time in good]
    drawing = Drawing(width, 270, f"Times of {count_text(len(good))} transfers, by when they ended")
    frame = Frame(drawing)
    unit = time_unit(max(times))
    if min(times) > 0 and max(times) > _WIDE * min(times):
        powers = frame.upright_by_powers(unit, min(times) / 1.2, max(times) * 1.2)
        heights = [powers(log10(time)) for time in times]
    else:
        linear = frame.upright(unit.name, ticks(max(times) / unit.size, 6), unit.size)
        heights = [linear(time) for time in times]
    x = frame.along("seconds since the beginning", 0.0, max(each["ended"] for each in samples) or SECONDS.size)
    spots = ((x(ended), height) for (ended, _), height in zip(good, heights, strict=True))
    drawing.path("dots", "".join(f"M{left:g} {height:g}h0" for left, height in _apart(spots)))
    if failed:
        drawing.path(
            "failed", "".join(f"M{left:g} {frame.base}v-12" for left, _ in _apart((x(at), 0) for at in failed))
        )
    return drawing.svg()


def _apart(spots: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Leave one of those that cover one another: it looks the same, and is as small however many there are."""
    return list({(round(x / 2), round(y / 2)): (x, y) for x, y in spots}.values())
