"""Made documents of the bench, as real as need be: the figures follow from the samples."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from rawdl.cli.bench.figures import describe, histogram

Document = dict[str, Any]
PHASES = ("dns", "connect", "tls", "first_byte", "transfer")


def document(
    transfers: int = 120,
    *,
    seed: int = 1,
    size: int = 8 << 20,
    pace: float = 1.0,
    spread: float = 0.06,
    fails: Callable[[int], bool] = lambda at: False,
    intervals: int = 12,
    url: str = "http://127.0.0.1:8080/8M",
    warnings: Sequence[str] = (),
) -> Document:
    """Make one: each transfer takes some 10 ms times ``pace``, which varies by ``spread``."""
    rng = random.Random(seed)
    samples: list[dict[str, Any]] = []
    now = 0.0
    for at in range(transfers):
        samples.append(_sample(now, rng, size, pace, spread, failed=fails(at)))
        now = samples[-1]["ended"]
    good = [sample for sample in samples if sample["error"] is None]
    failed, total = transfers - len(good), size * len(good)
    times = [sample["ended"] - sample["intended"] for sample in good]
    spans = {name: [sample[name] for sample in good if sample[name] is not None] for name in PHASES}
    return {
        "schema": "rawdl-bench-1",
        "rawdl": "0.1.0",
        "began": "2026-03-04T05:06:07Z",
        "environment": environment(),
        "settings": settings(url, size, transfers, now / intervals),
        "totals": {
            "transfers": transfers,
            "succeeded": len(good),
            "failed": failed,
            "omitted": 0,
            "bytes": total,
            "seconds": now,
            "bytes_per_second": total / now,
            "transfers_per_second": len(good) / now,
        },
        "phases": {name: _figures(spans[name]) for name in PHASES} | {"total": _figures(times), "wait": None},
        "throughput": _figures([size / time for time in times]),
        "intervals": _intervals(samples, now, intervals),
        "histogram": [each._asdict() for each in histogram(times)],
        "failures": [{"kind": "ConnectError", "count": failed, "example": "connection refused"}] if failed else [],
        "cpu": {
            "user": 0.2,
            "system": 0.3,
            "seconds": 0.5,
            "seconds_per_gib": 0.5 * pace / (total / (1 << 30)) if total else None,
        },
        "system": {
            "wake_ups": 12345,
            "reads": 4000,
            "writes": 0,
            "voluntary_switches": 99,
            "involuntary_switches": None,
        },
        "memory": {"peak_rss": 31 << 20},
        "stable": not warnings,
        "warnings": list(warnings),
        "samples": samples,
    }


def environment() -> Document:
    return {
        "python": "3.12.1",
        "implementation": "CPython",
        "platform": "Linux-6.1-x86_64",
        "machine": "x86_64",
        "processor": "A Processor, 2.6 GHz",
        "cores": 4,
        "openssl": "OpenSSL 3.0.15",
        "h11": "0.16.0",
        "load": [0.42, 0.3, 0.25],
    }


def settings(url: str, size: int, transfers: int, interval: float) -> Document:
    return {
        "url": url,
        "origin": "embedded",
        "size": size,
        "tls": False,
        "chunked": False,
        "transfers": transfers,
        "duration": None,
        "concurrency": 1,
        "connections": 1,
        "rate": None,
        "warm_up": 5,
        "omit": 0,
        "sink": "null",
        "interval": interval,
        "keep_alive": True,
    }


def _sample(now: float, rng: random.Random, size: int, pace: float, spread: float, *, failed: bool) -> Document:
    transfer = 0.01 * pace * (1 + spread * abs(rng.gauss(0, 1)))
    first_byte, connect = 0.0008 * (1 + 0.2 * rng.random()), 0.0001 * (1 + rng.random())
    return {
        "intended": now,
        "started": now,
        "ended": now + connect + first_byte + transfer,
        "bytes": 0 if failed else size,
        "reused": False,
        "dns": None,
        "connect": connect,
        "tls": None,
        "first_byte": None if failed else first_byte,
        "transfer": None if failed else transfer,
        "error": "ConnectError" if failed else None,
    }


def _figures(values: Sequence[float]) -> dict[str, float] | None:
    return describe(values).to_dict() if values else None


def _intervals(samples: Sequence[Document], seconds: float, count: int) -> list[Document]:
    """Spread the bytes of each transfer evenly over its time, as the intervals of a real run have them."""
    width = seconds / count
    received, ended = [0.0] * count, [0] * count
    for sample in samples:
        first, last = (min(int(sample[name] / width), count - 1) for name in ("started", "ended"))
        ended[last] += 1
        span = sample["ended"] - sample["started"]
        for at in range(first, last + 1):
            inside = min(sample["ended"], (at + 1) * width) - max(sample["started"], at * width)
            received[at] += sample["bytes"] * inside / span
    return [
        {
            "start": at * width,
            "end": (at + 1) * width,
            "bytes": round(received[at]),
            "bytes_per_second": received[at] / width,
            "transfers": ended[at],
        }
        for at in range(count)
    ]
