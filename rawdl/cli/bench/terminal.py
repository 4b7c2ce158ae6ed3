"""The document as text: eighty columns, and nothing that an ASCII terminal could not show if it has to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from textwrap import wrap
from typing import Any, Final

from rawdl.cli.bench.units import digits_text, rate_text, rates_of, time_text
from rawdl.cli.meter import elided, size_text
from rawdl.proto.fields import escape

WIDTH: Final = 79
_LABEL: Final = 12  # columns of what a line is about
_BARS: Final = 20  # lines of a chart, at most: what a screen has room for beside the tables
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_COLUMNS: Final = ("min", "mean", "p50", "p90", "p95", "p99", "max", "sd")
_PHASES: Final = {
    "wait": "wait",
    "dns": "look-up",
    "connect": "connect",
    "tls": "TLS",
    "first_byte": "first byte",
    "transfer": "transfer",
    "total": "total",
}


def heading(settings: Mapping[str, Any]) -> str:
    """Return what is to be measured, before it is."""
    what = f"an origin of its own, {settings['url']}" if settings["origin"] == "embedded" else settings["url"]
    return "\n".join([*_entry("rawdl bench", escape(what)), *_entry("", _manner(settings))])


def interval_line(interval: Mapping[str, Any]) -> str:
    """Return the line for an interval that is over."""
    seconds = interval["end"] - interval["start"]
    speed = interval["bytes"] / seconds
    span = f"{interval['start']:7.2f} - {interval['end']:.2f} s"
    count = interval["transfers"]
    return f"{span:<20}{rate_text(speed):>12}{size_text(interval['bytes']):>12}{count:>9} ended"


def report(document: Mapping[str, Any], *, fancy: bool) -> str:
    """Return all that is worth a look; ``fancy`` is whether the terminal has block characters."""
    parts = [
        list(_sums(document)),
        list(_phase_table(document["phases"], fancy)),
        list(_interval_chart(document["intervals"], fancy)),
        list(_histogram(document["histogram"], fancy)),
        list(_failures(document["failures"])),
        list(_costs(document)),
        [line for text in document["warnings"] for line in _entry("warning", escape(text))],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


# Parts


def _manner(settings: Mapping[str, Any]) -> str:
    """Say in words how the load is."""
    rate, count, connections = settings["rate"], settings["transfers"], settings["connections"]
    how = f"{settings['concurrency']} at a time" if rate is None else f"{rate:g} a second, whoever is late"
    parts = [how, f"{count} transfer{'s' * (count > 1)}" if count else f"for {settings['duration']:g} s"]
    if settings["size"] is not None:
        parts.append(f"{size_text(settings['size'])} each")
    parts += ["TLS"] if settings["tls"] else []
    parts += ["chunked"] if settings["chunked"] else []
    parts += [f"over {connections} connections each"] if connections > 1 else []
    parts += [] if settings["keep_alive"] else ["a new connection each"]
    parts += [f"after {settings['warm_up']} to warm up"] if settings["warm_up"] else []
    parts += [f"the first {settings['omit']:g} s omitted"] if settings["omit"] else []
    return ", ".join([*parts, f"into {settings['sink']}"])


def _sums(document: Mapping[str, Any]) -> Iterator[str]:
    totals = document["totals"]
    speeds = (f"{number} {unit}" for unit, number in rates_of(totals["bytes_per_second"]).items())
    yield from _entry("throughput", " = ".join(speeds))
    ended = f"{totals['succeeded']} succeeded, {totals['failed']} failed"
    yield from _entry("transfers", f"{ended}; {digits_text(totals['transfers_per_second'])} a second")
    yield from _entry("bytes", f"{size_text(totals['bytes'])} in {digits_text(totals['seconds'])} s")


def _phase_table(phases: Mapping[str, Any], fancy: bool) -> Iterator[str]:
    there = {label: phases[name] for name, label in _PHASES.items() if phases[name] is not None}
    if there:
        yield " " * _LABEL + "".join(f"{name:>8}" for name in _COLUMNS)
    for label, figures in there.items():
        yield f"{label:<{_LABEL}}" + "".join(f"{_time(figures[name], fancy):>8}" for name in _COLUMNS)


def _interval_chart(intervals: Sequence[Mapping[str, Any]], fancy: bool) -> Iterator[str]:
    """Draw the speed over time; several intervals share a line where there are too many."""
    if len(intervals) < 2:
        return
    rows = []
    for group in _groups(intervals, _BARS):
        start, end = group[0]["start"], group[-1]["end"]
        rows.append((f"{start:.1f} - {end:.1f} s", sum(each["bytes"] for each in group) / (end - start)))
    yield from _chart("speed", [(label, speed, rate_text(speed)) for label, speed in rows], fancy)


def _histogram(bins: Sequence[Mapping[str, Any]], fancy: bool) -> Iterator[str]:
    if len(bins) < 2:
        return
    rows = [(f"to {_time(each['end'], fancy)}", each["count"], str(each["count"])) for each in bins]
    yield from _chart("total", rows, fancy)


def _failures(failures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for failure in failures:
        yield from _entry("failed", f"{failure['count']} x {failure['kind']}: {escape(failure['example'])}", lines=3)


def _costs(document: Mapping[str, Any]) -> Iterator[str]:
    cpu, system, peak = document["cpu"], document["system"], document["memory"]["peak_rss"]
    by_gib = "" if cpu["seconds_per_gib"] is None else f", {cpu['seconds_per_gib']:.3f} s a GiB"
    parts = f"user {cpu['user']:.2f} s, system {cpu['system']:.2f} s"
    yield from _entry("CPU", f"{cpu['seconds']:.2f} s ({parts}){by_gib}; of this process")
    counts = [f"{system['wake_ups']} turns of the loop"]
    counts += [f"{system['reads']} reads, {system['writes']} writes of files"] if system["reads"] is not None else []
    if system["voluntary_switches"] is not None:
        counts.append(f"switches {system['voluntary_switches']} + {system['involuntary_switches']} forced")
    yield from _entry("kernel", "; ".join(counts))
    if peak is not None:
        yield from _entry("memory", f"{size_text(peak)} at most (RSS)")
    yield from _entry("machine", escape(_machine(document["environment"])))


def _machine(environment: Mapping[str, Any]) -> str:
    load = "" if environment["load"] is None else f", load {' '.join(f'{each:g}' for each in environment['load'])}"
    python = f"{environment['implementation']} {environment['python']}, {environment['openssl']}"
    return (
        f"{python}, h11 {environment['h11']}; {environment['platform']}; "
        f"{environment['processor'] or environment['machine']}, {environment['cores']} cores{load}"
    )


def _time(seconds: float, fancy: bool) -> str:
    if seconds >= 9999.5:  # which would need a wider column
        return f"{digits_text(seconds / 3600)} h"
    return time_text(seconds) if fancy else time_text(seconds).replace("µ", "u")


# Layout


def _entry(label: str, text: str, lines: int = 100) -> Iterator[str]:
    """Wrap a text beside its label; whatever is longer than so many lines is cut."""
    wrapped = wrap(text, WIDTH - _LABEL) or [""]
    if len(wrapped) > lines:
        wrapped[lines - 1 :] = [elided(" ".join(wrapped[lines - 1 :]), WIDTH - _LABEL)]
    yield f"{label:<{_LABEL}}{wrapped[0]}"
    yield from (" " * _LABEL + line for line in wrapped[1:])


def _chart(title: str, rows: Sequence[tuple[str, float, str]], fancy: bool) -> Iterator[str]:
    """Draw a bar for each value, between its label and its text."""
    left = max(len(label) for label, _, _ in rows)
    right = max(len(text) for _, _, text in rows)
    room = WIDTH - _LABEL - left - right - 2
    most = max(value for _, value, _ in rows)
    for number, (label, value, text) in enumerate(rows):
        bar = _bar(value / most if most else 0.0, room, fancy)
        head = title if number == 0 else ""
        yield f"{head:<{_LABEL}}{label:>{left}} {bar:<{room}} {text:>{right}}"


def _bar(part: float, room: int, fancy: bool) -> str:
    """Return a bar over a part of the room; whatever is not nothing can be seen."""
    if not fancy:
        return "#" * max(round(part * room), part > 0)
    eighths = max(round(part * room * 8), part > 0)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _groups(items: Sequence[Any], most: int) -> list[Sequence[Any]]:
    """Split into at most so many groups, of lengths that differ by one at most."""
    count = min(most, len(items))
    edges = [len(items) * at // count for at in range(count + 1)]
    return [items[start:stop] for start, stop in pairwise(edges)]
