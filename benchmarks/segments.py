"""Download over 1, 4 and 8 connections from an origin that gives each of them so many MB/s.

The figure is wall seconds as a multiple of the least that is possible: the size / (connections × rate).  See README.md
for how to read it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

from chart import bar_chart
from flaky import FlakyOrigin
from rounds import (
    HERE,
    Failed,
    Result,
    Sample,
    choose,
    interleave,
    notes,
    number,
    options,
    run,
    spread,
    table,
    write_json,
)

MB = 1_000_000
NEEDS = {"rawdl": "rawdl+h11", "aria2c": "!aria2c", "bare ranges": ""}


def main() -> int:
    parser = options(__doc__.partition("\n")[0], rounds=5)
    parser.add_argument("--connections", default="1,4,8", help="which cases")
    parser.add_argument("--pace", type=float, default=4.0, help="MB/s of each connection")
    parser.add_argument("--seconds", type=float, default=5.0, help="the least time that is possible")
    args = parser.parse_args()
    clients, absent = choose(NEEDS, NEEDS, args.only)
    found: dict[str, dict[str, Result]] = {}
    counts, pace = [int(count) for count in args.connections.split(",")], int(args.pace * MB)
    with tempfile.TemporaryDirectory(dir=args.dir) as root:
        path = Path(root, "data.bin")
        path.write_bytes(os.urandom(int(max(counts) * pace * args.seconds)))
        with FlakyOrigin(path) as origin:
            for count in counts:
                case = Case(origin, path, count, pace, args.seconds)
                print(f"  {case.name}", file=sys.stderr)
                subjects: dict[str, Callable[[], Sample]] = {name: partial(case.measure, name) for name in clients}
                found[case.name], failures = interleave(subjects, args.rounds)
                print(show(case, args.rounds, found[case.name]) + notes(absent, failures), flush=True)
    if args.json:
        write_json(args.json, "segments", {"pace": pace, "seconds": args.seconds, "rounds": args.rounds}, found)
    if args.plot:
        draw(args.plot, found)
    return 0


class Case:
    """So many connections, and the begin of the origin's file that they can fetch in the least time."""

    def __init__(self, origin: FlakyOrigin, source: Path, connections: int, pace: int, seconds: float) -> None:
        self.name = f"{connections} × {pace / MB:g} MB/s"
        self.size = int(connections * pace * seconds)
        self.least = seconds
        self._origin = origin
        self._connections = connections
        self._pace = pace
        with source.open("rb") as file:
            self._digest = sha256(file.read(self.size)).digest()
        self._path = source.with_name("out.bin")

    def measure(self, client: str) -> Sample:
        """Measure one download in a process of its own, and see that the file is the right one."""
        self._origin.begin(self._pace, size=self.size)
        try:
            _, cpu, wall, _ = run(self._command(client))
            ended = time.monotonic()
            tally = self._origin.end()
            if not self._path.exists() or sha256(self._path.read_bytes()).digest() != self._digest:
                raise Failed("a WRONG FILE, told as a success")
        finally:
            self._path.unlink(missing_ok=True)
        extra = {
            "times": wall / self.least,
            "connected": ended - tally.began,
            "connected_times": (ended - tally.began) / self.least,
            "overhead": tally.sent - self.size,
            "responses": tally.responses,
        }
        return Sample(cpu, cpu, wall, 0, extra)

    def _command(self, client: str) -> list[str]:
        url, path, count = self._origin.url, str(self._path), str(self._connections)
        if client == "aria2c":
            fixed = ["--no-conf", "-q", "-k1M", "--file-allocation=none", "-d", os.path.dirname(path), "-o", "out.bin"]
            return ["aria2c", *fixed, "-x", count, "-s", count, url]
        return [sys.executable, "-s", str(HERE / "ranged.py"), client, url, path, str(self.size), count]


def show(case: Case, rounds: int, results: dict[str, Result]) -> str:
    """Lay out one case, the fastest client first."""
    aria = results.get("aria2c")
    rows = [
        [
            name,
            number(result.median("times"), 3),
            spread(result.values("times")),
            number(result.ratio(aria, "wall"), 3),
            number(result.median("connected_times"), 3),
            number(result.ratio(aria, "connected"), 3),
            number(result.median("wall")),
            number(result.median("cpu")),
            number(result.median("overhead") / 1024, 0),
            number(result.median("responses"), 0),
        ]
        for name, result in sorted(results.items(), key=lambda item: item[1].median("wall"))
    ]
    header = ["client", "× least", "least–most", "× aria2c", "connected × least", "connected × aria2c"]
    header += ["wall s", "CPU s", "KiB more", "requests"]
    return table(f"{case.name}, {case.size / MB:.0f} MB, {rounds} rounds", header, rows)


def draw(path: str, found: dict[str, dict[str, Result]]) -> None:
    groups = [
        (case, "wall, × least", {name: result.median("times") for name, result in results.items()})
        for case, results in found.items()
    ]
    bar_chart(path, "Several connections to an origin that paces each", groups)


if __name__ == "__main__":
    sys.exit(main())
