"""What a measured child process says about itself.  Imports next to nothing: it would weigh on every client alike."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable


def measure(work: Callable[[], float], name: str = "octets") -> None:
    """Run the work and print one line of JSON: CPU and wall seconds around it, peak RSS in KiB, what it returned."""
    cpu, started = cpu_seconds(), time.perf_counter()
    value = work()
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - started
    print(f'{{"cpu": {cpu:.6f}, "wall": {wall:.6f}, "peak_kib": {memory_kib("VmHWM")}, "{name}": {value}}}', flush=True)


def cpu_seconds() -> float:
    """Return user + system seconds of this process, all its threads together."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def memory_kib(field: str) -> int:
    """Return `VmHWM` (peak) or `VmRSS` (now) in KiB; elsewhere than on Linux the peak stands for both."""
    try:
        with open("/proc/self/status", "rb") as file:
            line = next(line for line in file if line.startswith(field.encode()))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(line.split()[1])
