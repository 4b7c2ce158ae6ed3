"""Download over a line that breaks, or with a client that is killed: the time it takes, and what is fetched twice.

In "cuts" the origin (`flaky.py`) gives each connection so many MB/s, and breaks it by FIN or RST after octets that the
round's seed draws.  In "kills" the client gets SIGKILL after times drawn by it; the rate is that of all its connections
together, so that several live through as many kills as one.  A client that ends without the whole file is started
again.  See README.md for how to read it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import NamedTuple

from chart import bar_chart
from flaky import FlakyOrigin
from rounds import (
    HERE,
    Failed,
    Result,
    Sample,
    choose,
    environment,
    interleave,
    notes,
    number,
    options,
    size,
    spread,
    table,
    write_json,
)

MB = 1_000_000
SHORTEST, LONGEST = 0.5, 1.5  # of the mean: a life before SIGKILL
NEEDS = {
    "rawdl": "rawdl+h11",
    "rawdl x4": "rawdl+h11",
    "curl": "!curl",
    "curl --retry": "!curl",
    "wget": "!wget",
    "aria2c": "!aria2c",
    "aria2c x4": "!aria2c",
}

CONNECTIONS = {"rawdl x4": 4, "aria2c x4": 4}


class Setting(NamedTuple):
    """What happens in a case: MB/s; MB between cuts, or seconds between kills, on average."""

    pace: float
    cut: float
    life: float


CASES = {"cuts": Setting(20.0, 5.0, 0.0), "kills": Setting(10.0, 0.0, 1.5)}


def main() -> int:
    parser = options(__doc__.partition("\n")[0], rounds=5)
    parser.add_argument("--size", type=size, default=50 * MB, help="octets of the file: 64M")
    parser.add_argument("--cases", default=",".join(CASES), help="which cases")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds after which a client has failed")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    args = parser.parse_args()
    clients, absent = choose(NEEDS, NEEDS, args.only)
    found: dict[str, dict[str, Result]] = {}
    with tempfile.TemporaryDirectory(dir=args.dir) as root:
        source = Path(root, "data.bin")
        source.write_bytes(os.urandom(args.size))
        with FlakyOrigin(source) as origin:
            for name in args.cases.split(","):
                print(f"  {name}", file=sys.stderr)
                case = Case(origin, source, CASES[name], args.patience)
                seeds = {client: count(args.seed) for client in clients}  # in each round everybody has the same
                subjects: dict[str, Callable[[], Sample]] = {
                    client: partial(case.measure, client, seeds[client]) for client in clients
                }
                found[name], failures = interleave(subjects, args.rounds)
                print(show(name, args.size, args.rounds, found[name]) + notes(absent, failures), flush=True)
    if args.json:
        settings = {name: CASES[name]._asdict() for name in found}
        write_json(args.json, "lossy", {"size": args.size, "rounds": args.rounds, "cases": settings}, found)
    if args.plot:
        draw(args.plot, found)
    return 0


class Case:
    """A file, an origin, and what goes wrong."""

    def __init__(self, origin: FlakyOrigin, source: Path, setting: Setting, patience: float) -> None:
        self._origin = origin
        self._setting = setting
        self._patience = patience
        self._size = source.stat().st_size
        self._digest = sha256(source.read_bytes()).digest()
        self._root = source.parent

    def measure(self, client: str, seeds: Iterator[int]) -> Sample:
        """Start one client until it has the file, and see that this is the right one."""
        seed, setting = next(seeds), self._setting
        shares = CONNECTIONS.get(client, 1) if setting.life else 1
        self._origin.begin(int(setting.pace * MB / shares), mean=int(setting.cut * MB), seed=seed)
        with tempfile.TemporaryDirectory(dir=self._root) as folder:
            path = Path(folder, "data.bin")
            argv = COMMANDS[client](self._origin.url, path, self._size)
            started = time.perf_counter()
            cpu, starts = self._insist(argv, self._lives(seed), path)
            wall = time.perf_counter() - started
            tally = self._origin.end()
            if not path.exists() or sha256(path.read_bytes()).digest() != self._digest:
                raise Failed(f"a WRONG FILE, told as a success (seed {seed})")
        extra = {
            "times": wall / (self._size / (setting.pace * MB)),
            "again": (tally.sent - self._size) / self._size,
            "idle": wall - tally.busy,
            "starts": starts,
            "responses": tally.responses,
            "cuts": tally.cuts,
        }
        return Sample(cpu, cpu, wall, 0, extra)

    def _lives(self, seed: int) -> Iterator[float]:
        """Return how long each process may run, in seconds."""
        if not self._setting.life:
            return iter(lambda: self._patience, None)
        draw = random.Random(seed)
        return iter(lambda: draw.uniform(SHORTEST, LONGEST) * self._setting.life, None)

    def _insist(self, argv: list[str], lives: Iterator[float], path: Path) -> tuple[float, int]:
        """Run a command again and again until it succeeds; return the CPU seconds of all, and how many there were."""
        until = time.perf_counter() + self._patience
        cpu, starts, code = 0.0, 0, -1
        while code:
            left = until - time.perf_counter()
            if left <= 0:
                there = path.stat().st_size if path.exists() else 0
                raise Failed(f"not done after {self._patience:.0f} s and {starts} starts, {there} octets there")
            code, spent = live(argv, min(next(lives), left))
            cpu, starts = cpu + spent, starts + 1
        return cpu, starts


def live(argv: list[str], seconds: float) -> tuple[int, float]:
    """Run a command, and kill it after so many seconds; return its exit code and its CPU seconds."""
    null = subprocess.DEVNULL
    process = subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, env=environment())
    death = threading.Timer(seconds, process.kill)
    death.start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    death.cancel()
    return process.returncode, usage.ru_utime + usage.ru_stime


def rawdl(connections: int, url: str, path: Path, octets: int) -> list[str]:
    """With its defaults."""
    return [sys.executable, "-s", str(HERE / "ranged.py"), "rawdl", url, str(path), str(octets), str(connections)]


def curl(url: str, path: Path, _: int) -> list[str]:
    return ["curl", "-q", "--silent", "--fail", "-C", "-", "--output", str(path), url]


def curl_retry(url: str, path: Path, octets: int) -> list[str]:
    """It waits for a second at least; by default for 1, 2, 4 …"""
    return [*curl(url, path, octets), "--retry", "3", "--retry-all-errors", "--retry-delay", "1"]


def wget(url: str, path: Path, _: int) -> list[str]:
    """Without a wait; by default it waits for 1, 2, 3 … 10 s."""
    fixed = ["--no-config", "--no-hsts", "-q", "-c", "--tries=0", "--waitretry=0"]
    return ["wget", *fixed, "-O", str(path), url]


def aria2c(connections: int, url: str, path: Path, _: int) -> list[str]:
    """Without a limit to tries; it saves its state each second, by default each minute."""
    fixed = ["--no-conf", "-q", "-c", "-k1M", "--max-tries=0", "--file-allocation=none", "--auto-save-interval=1"]
    shape = [f"-x{connections}", f"-s{connections}", "-d", str(path.parent), "-o", path.name]
    return ["aria2c", *fixed, *shape, url]


COMMANDS: dict[str, Callable[[str, Path, int], list[str]]] = {
    "rawdl": partial(rawdl, 1),
    "rawdl x4": partial(rawdl, 4),
    "curl": curl,
    "curl --retry": curl_retry,
    "wget": wget,
    "aria2c": partial(aria2c, 1),
    "aria2c x4": partial(aria2c, 4),
}


def show(case: str, octets: int, rounds: int, results: dict[str, Result]) -> str:
    """Lay out one case, the fastest client first."""
    reference, setting = results.get("curl"), CASES[case]
    rows = [
        [
            name,
            number(result.median("times")),
            spread(result.values("times"), 2),
            number(result.ratio(reference, "wall")),
            number(result.ratio(reference)),
            number(result.median("again") * 100, 1),
            spread([again * 100 for again in result.values("again")], 1),
            number(result.median("wall")),
            number(result.median("idle")),
            number(result.median("cpu")),
            number(result.median("starts"), 0),
            number(result.median("responses"), 0),
        ]
        for name, result in sorted(results.items(), key=lambda item: item[1].median("wall"))
    ]
    header = ["client", "× least", "least–most", "wall × curl", "CPU × curl", "% again", "least–most"]
    header += ["wall s", "idle s", "CPU s", "starts", "requests"]
    trouble = f"for each connection, a cut each {setting.cut:g} MB"
    if setting.life:
        trouble = f"in all, a SIGKILL each {setting.life:g} s"
    return table(f"{case}: {octets / MB:.3g} MB at {setting.pace:g} MB/s {trouble}, {rounds} rounds", header, rows)


def draw(path: str, found: dict[str, dict[str, Result]]) -> None:
    groups = [
        (f"{case}: {what}", unit, {name: result.median(field) * factor for name, result in results.items()})
        for case, results in found.items()
        for what, unit, field, factor in (("wall", "s", "wall", 1), ("fetched again", "%", "again", 100))
    ]
    bar_chart(path, "A download that is interrupted", groups)


if __name__ == "__main__":
    sys.exit(main())
