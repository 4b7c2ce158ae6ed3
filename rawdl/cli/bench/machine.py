"""What this process has used, and where it runs: what a figure is worth depends on both."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from typing import Final, NamedTuple

_IO: Final = "/proc/self/io"
_CPUS: Final = "/proc/cpuinfo"


class Usage(NamedTuple):
    """What a process has used; None is what the system does not tell."""

    user: float  # seconds of CPU, outside the kernel
    kernel: float  # and inside
    wake_ups: int  # turns of the loop
    reads: int | None = None  # calls that read a file
    writes: int | None = None
    voluntary: int | None = None  # switches to another process, because there was nothing to do
    involuntary: int | None = None  # because others wanted to go on

    def since(self, before: Usage) -> Usage:
        """Return what was used from one moment to another."""
        return Usage(
            self.user - before.user,
            self.kernel - before.kernel,
            self.wake_ups - before.wake_ups,
            _difference(self.reads, before.reads),
            _difference(self.writes, before.writes),
            _difference(self.voluntary, before.voluntary),
            _difference(self.involuntary, before.involuntary),
        )


def usage(wake_ups: int) -> Usage:
    """Return what this process has used so far; ``wake_ups`` are those that its client tells of."""
    user, kernel = os.times()[:2]
    reads, writes = _calls()
    voluntary, involuntary = _switches()
    return Usage(user, kernel, wake_ups, reads, writes, voluntary, involuntary)


def peak_rss() -> int | None:
    """Return the most memory that was resident so far, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def most_at_once(wanted: int, each: int) -> int:
    """Return how many transfers may be under way at once: as wanted, if each may open so many descriptors."""
    try:
        import resource
    except ImportError:
        return wanted
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if limit == resource.RLIM_INFINITY else max(1, min(wanted, (limit - 64) // each))


def load_average() -> list[float] | None:
    """Return that of the last 1, 5 and 15 minutes."""
    try:
        return [round(number, 2) for number in os.getloadavg()]
    except (OSError, AttributeError):
        return None


def environment(load: list[float] | None) -> dict[str, object]:
    """Return what the document says of this machine; ``load`` is what `load_average` said before the load."""
    from importlib.metadata import version
    from ssl import OPENSSL_VERSION

    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "openssl": OPENSSL_VERSION,
        "h11": version("h11"),
        "load": load,
    }


def _processor() -> str:
    with suppress(OSError), open(_CPUS, encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor()


def _calls() -> tuple[int | None, int | None]:
    try:
        with open(_IO, encoding="ascii") as file:
            counts = dict(line.split(": ") for line in file)
        return int(counts["syscr"]), int(counts["syscw"])
    except (OSError, ValueError, KeyError):
        return None, None


def _switches() -> tuple[int | None, int | None]:
    try:
        import resource
    except ImportError:
        return None, None
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_nvcsw, used.ru_nivcsw


def _difference(now: int | None, before: int | None) -> int | None:
    return None if now is None or before is None else now - before
