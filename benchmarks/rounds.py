"""Measure child processes in interleaved rounds; medians, ratios, a table, JSON.

Rounds go A B C, B C A, C A B …: a machine that slows down or speeds up half way does so for everybody, and nobody is
always measured behind the same neighbour.  A ratio is taken inside each round and the median of those is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
HANG = 900.0  # seconds; no single measurement comes near this
POLL = 0.02  # seconds between two looks at the high-water mark of a program that cannot tell its own
DISTRIBUTIONS = ("h11", "pycurl", "urllib3", "requests", "httpx", "aiohttp", "uvloop")
PROGRAMS = ("curl", "wget", "aria2c")


class Sample(NamedTuple):
    """One measurement.  `cpu` is user + system seconds of the work alone, `cpu_whole` of the process with its start."""

    cpu: float
    cpu_whole: float
    wall: float
    peak_kib: int
    extra: dict[str, float]


class Failed(Exception):
    """A measurement that did not do the work it was asked for."""


class Result(NamedTuple):
    """The samples of one subject (a client), in the order of the rounds."""

    name: str
    samples: list[Sample]

    def median(self, field: str) -> float:
        """Return the median of a field of the samples, or of a value among their extras."""
        return statistics.median(self.values(field))

    def values(self, field: str) -> list[float]:
        """Return a field of every sample, or a value among their extras."""
        return [sample.extra[field] if field in sample.extra else getattr(sample, field) for sample in self.samples]

    def ratio(self, other: Result | None, field: str = "cpu") -> float | None:
        """Return the median over the rounds of ours / theirs; None if there is nobody to compare with."""
        if other is None:
            return None
        return statistics.median(a / b for a, b in zip(self.values(field), other.values(field), strict=True) if b)


def interleave(subjects: dict[str, Callable[[], Sample]], rounds: int) -> tuple[dict[str, Result], dict[str, str]]:
    """Measure every subject once in each round; a subject that fails is left out and its error is returned."""
    results = {name: Result(name, []) for name in subjects}
    failures: dict[str, str] = {}
    order = list(subjects)
    for number in range(rounds if order else 0):
        for name in order[number % len(order) :] + order[: number % len(order)]:
            if name in failures:
                continue
            try:
                results[name].samples.append(subjects[name]())
            except Failed as error:
                failures[name] = str(error)
        print(f"    round {number + 1} of {rounds}", file=sys.stderr)
    return {name: result for name, result in results.items() if name not in failures}, failures


def python_child(script: str, *args: str) -> Sample:
    """Run a script of this folder in a fresh interpreter; its last line is JSON about its own work."""
    out, cpu, _, _ = run([sys.executable, "-s", str(HERE / script), *args])
    try:
        own = json.loads(out.splitlines()[-1])
    except (ValueError, IndexError):
        raise Failed(f"{script} {args[0]}: no report") from None
    return Sample(own.pop("cpu"), cpu, own.pop("wall"), own.pop("peak_kib"), own)


def code_child(code: str) -> tuple[bytes, Sample]:
    """Run Python code in a fresh isolated interpreter (`python -I -c`); return its output too."""
    out, cpu, wall, _ = run([sys.executable, "-I", "-c", code])
    return out, Sample(cpu, cpu, wall, 0, {})


def program_child(argv: Sequence[str], watch: bool = False) -> Sample:
    """Run a program that is not ours; all its CPU counts, its own start too.  Its peak RSS is known if watched."""
    _, cpu, wall, peak = run(argv, watch)
    return Sample(cpu, cpu, wall, peak, {})


def run(argv: Sequence[str], watch: bool = False) -> tuple[bytes, float, float, int]:
    """Run a command to its end: (stdout, CPU seconds of that process alone, wall seconds, peak KiB if watched)."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment())
        guard = threading.Timer(HANG, process.kill)
        guard.start()
        peak = watch_peak(process.pid) if watch else 0
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        guard.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            err.seek(0)
            last = err.read().decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
            raise Failed(f"exit code {process.returncode}: {last[0][:200]}")
        out.seek(0)
        return out.read(), usage.ru_utime + usage.ru_stime, wall, peak


def watch_peak(pid: int) -> int:
    """Return the last seen high-water mark of a process in KiB, looking until it ends.

    The `ru_maxrss` of wait4 will not do: on Linux it starts at the size that our own process had when it forked.
    """
    peak = 0
    while True:
        try:
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        except OSError:
            return peak
        if found is None:
            return peak
        peak = int(found[1])
        time.sleep(POLL)


def environment() -> dict[str, str]:
    """Return our environment without proxies (all is loopback) and with this checkout first in the path."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**kept, "PYTHONPATH": str(ROOT)}


def choose(clients: Iterable[str], needs: dict[str, str], only: str | None) -> tuple[list[str], list[str]]:
    """Return the clients to run and those that are absent; a need is a Python module or, after a "!", a program."""
    wanted = [name for name in clients if only is None or name in only.split(",")]
    absent = [name for name in wanted if not present(needs.get(name, ""))]
    return [name for name in wanted if name not in absent], absent


def present(need: str) -> bool:
    """Tell whether the modules and programs named (several with "+") are installed."""
    for one in filter(None, need.split("+")):
        if one.startswith("!"):
            if shutil.which(one[1:]) is None:
                return False
        elif one == "rawdl":
            return (ROOT / "rawdl" / "__init__.py").exists()
        elif util.find_spec(one) is None:
            return False
    return True


def options(description: str, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with what all benchmarks have in common."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="interleaved rounds")
    parser.add_argument("--only", metavar="A,B", help="these clients alone")
    parser.add_argument("--json", metavar="FILE", help="write every sample and the medians")
    parser.add_argument("--plot", metavar="FILE.svg", help="draw the medians")
    parser.add_argument("--dir", metavar="DIR", help="where the temporary folder is made (its filesystem matters)")
    return parser


def size(text: str) -> int:
    """Read a size such as 64M or 1G (powers of 1024)."""
    factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper())
    return int(text[:-1]) * factor if factor else int(text)


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out rows of text as a Markdown table; all but the first column are aligned right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    cells = [
        [cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))]
        for line in lines
    ]
    rule = "|".join([" " + "-" * widths[0] + " ", *(" " + "-" * (w - 1) + ": " for w in widths[1:])])
    body = ["| " + " | ".join(line) + " |" for line in cells]
    return "\n".join([f"\n### {title}\n", body[0], f"|{rule}|", *body[1:]])


def number(value: float | None, digits: int = 2) -> str:
    """Show a number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Show the least and the greatest of some values."""
    return f"{min(values):.{digits}f}–{max(values):.{digits}f}"


def notes(absent: Iterable[str], failures: dict[str, str]) -> str:
    """Say who is missing from a table, and why."""
    lines = [f"- {name}: not installed, skipped" for name in absent]
    return "\n".join(["", *lines, *(f"- {name}: {why}" for name, why in failures.items())])


def write_json(path: str, benchmark: str, settings: dict[str, object], cases: dict[str, dict[str, Result]]) -> None:
    """Write every sample, the medians and what they were measured on.  Units: seconds of CPU and wall, KiB, octets."""
    document = {
        "benchmark": benchmark,
        "settings": settings,
        "machine": machine(),
        "cases": {case: {name: described(result) for name, result in found.items()} for case, found in cases.items()},
    }
    Path(path).write_text(json.dumps(document, indent=1) + "\n")


def described(result: Result) -> dict[str, object]:
    """Return a result as plain data."""
    fields = ["cpu", "cpu_whole", "wall", "peak_kib", *result.samples[0].extra]
    samples = [{field: result.values(field)[i] for field in fields} for i in range(len(result.samples))]
    return {"median": {field: result.median(field) for field in fields}, "samples": samples}


def machine() -> dict[str, object]:
    """Describe the machine and the versions; a figure without them says little."""
    versions = {name: metadata.version(name) for name in DISTRIBUTIONS if util.find_spec(name)}
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        **versions,
        **{name: version_line(name) for name in PROGRAMS if shutil.which(name)},
    }


def processor() -> str:
    """Return the processor's name where the system tells it."""
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def version_line(program: str) -> str:
    """Return the first line that a program prints about its version."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]
