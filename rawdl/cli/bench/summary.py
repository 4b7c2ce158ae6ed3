"""From what was measured to the document: the figures, and what is to be said against them.  Reads no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rawdl.cli.bench.figures import describe, histogram, instability
from rawdl.cli.bench.load import DRAIN, HOPELESS, Interval, Record, Sample
from rawdl.cli.bench.machine import Usage
from rawdl.version import __version__

SCHEMA: Final = "rawdl-bench-1"
_PHASES: Final = ("dns", "connect", "tls", "first_byte", "transfer")
_BINS: Final = 20  # lines of a terminal
# So many intervals say more of how even the speed was than single transfers, which differ by nature.
_ENOUGH_INTERVALS: Final = 10
_WHOLE: Final = 0.9  # of its length that an interval must have to be held against others
_BUSY: Final = 0.5  # of the cores, by the load average of the last minute


def document(
    record: Record,
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    *,
    began: str,
    peak_rss: int | None,
) -> dict[str, Any]:
    """Return the document, ready for ``json.dumps``; its form is in report.schema.json."""
    good = [sample for sample in record.samples if sample.error is None]
    totals = _totals(record, len(good))
    warnings, unstable = _warnings(record, environment), _unstable(record, good, settings["interval"])
    return {
        "schema": SCHEMA,
        "rawdl": __version__,
        "began": began,
        "environment": dict(environment),
        "settings": dict(settings),
        "totals": totals,
        "phases": _phases(good, open_loop=settings["rate"] is not None),
        "throughput": _figures([s.bytes / (s.ended - s.started) for s in good if s.ended > s.started]),
        "intervals": [_interval(interval) for interval in record.intervals],
        "histogram": [bin._asdict() for bin in histogram([_total(sample) for sample in good], _BINS)],
        "failures": [failure._asdict() for failure in record.failures],
        "cpu": _cpu(record.usage, totals["bytes"]),
        "system": _system(record.usage),
        "memory": {"peak_rss": peak_rss},
        "stable": not unstable,
        "warnings": [*warnings, *unstable],
        "samples": [sample._asdict() for sample in record.samples],
    }


def _totals(record: Record, succeeded: int) -> dict[str, Any]:
    """Sum it up.  Bytes and speeds are of what came in the measured part, whenever that was begun."""
    count = sum(interval.bytes for interval in record.intervals)
    ended = sum(interval.transfers for interval in record.intervals)
    return {
        "transfers": len(record.samples),
        "succeeded": succeeded,
        "failed": len(record.samples) - succeeded,
        "omitted": record.omitted,
        "unfinished": record.unfinished,
        "held_back": record.held_back,
        "bytes": count,
        "seconds": record.seconds,
        "bytes_per_second": count / record.seconds if record.seconds > 0 else 0.0,
        "transfers_per_second": ended / record.seconds if record.seconds > 0 else 0.0,
    }


def _phases(good: Sequence[Sample], *, open_loop: bool) -> dict[str, Any]:
    phases: dict[str, Any] = {}
    for name in _PHASES:
        phases[name] = _figures([value for sample in good if (value := getattr(sample, name)) is not None])
    phases["total"] = _figures([_total(sample) for sample in good])
    phases["wait"] = _figures([max(0.0, s.started - s.intended) for s in good]) if open_loop else None
    return phases


def _total(sample: Sample) -> float:
    return max(0.0, sample.ended - sample.intended)


def _figures(values: Sequence[float]) -> dict[str, float] | None:
    return describe(values).to_dict() if values else None


def _interval(interval: Interval) -> dict[str, Any]:
    speed = interval.bytes / (interval.end - interval.start)
    return {**interval._asdict(), "bytes_per_second": speed}


def _cpu(usage: Usage | None, count: int) -> dict[str, Any]:
    user, kernel = (usage.user, usage.kernel) if usage is not None else (0.0, 0.0)
    by_gib = (user + kernel) / (count / 2**30) if count else None
    return {"user": user, "system": kernel, "seconds": user + kernel, "seconds_per_gib": by_gib}


def _system(usage: Usage | None) -> dict[str, Any]:
    used = usage or Usage(0.0, 0.0, 0)
    return {
        "wake_ups": used.wake_ups,
        "reads": used.reads,
        "writes": used.writes,
        "voluntary_switches": used.voluntary,
        "involuntary_switches": used.involuntary,
    }


# What is to be said against the figures


def _warnings(record: Record, environment: Mapping[str, Any]) -> list[str]:
    """Return what may make them wrong, whatever they are."""
    load, cores = environment["load"], environment["cores"]
    lost, held, failed = record.unfinished, record.held_back, sum(failure.count for failure in record.failures)
    checks = (
        (record.hopeless, f"it was given up: the first {HOPELESS} transfers failed, and none succeeded"),
        (failed and not record.hopeless, f"{failed} of {len(record.samples)} transfers failed: no figure has them"),
        (lost, f"{lost} had not ended when the run was over, or {DRAIN:g} s after: no figure has these slowest"),
        (held, f"{held} transfers were held back, because too many were under way: that is in their wait"),
        (load and load[0] > _BUSY * cores, f"the machine was busy before: load {load and load[0]}, cores {cores}"),
    )
    return [text for applies, text in checks if applies]


def _unstable(record: Record, good: Sequence[Sample], length: float) -> list[str]:
    """Return why the figures are no sure measure of what another run would give."""
    whole = [interval for interval in record.intervals if interval.end - interval.start >= _WHOLE * length]
    if len(whole) >= _ENOUGH_INTERVALS:
        what, values = "speed of the intervals", [each.bytes / (each.end - each.start) for each in whole]
    else:
        what, values = "time of the transfers", [_total(sample) for sample in good]
    return [f"{what}: {reason}" for reason in instability(values)]
