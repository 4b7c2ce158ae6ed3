"""Download over a line that is slower than the machine: http and https, a few MB/s.

The figure is CPU seconds of the client process, user + system, per GiB: what a download takes from everything else that
the machine does meanwhile.  See README.md for how to read it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from chart import bar_chart
from flaky import FlakyOrigin
from rounds import (
    Failed,
    Result,
    Sample,
    choose,
    interleave,
    notes,
    number,
    options,
    program_child,
    python_child,
    spread,
    table,
    write_json,
)
from servers import make_certificate
from throughput import NEEDS, PROGRAMS

MB = 1_000_000
GIB = 1 << 30
PIECE = 3 * 1448  # octets: a few segments, as a network card hands them on together


def main() -> int:
    parser = options(__doc__.partition("\n")[0], rounds=3)
    parser.add_argument("--cases", default="http,https", help="which cases")
    parser.add_argument("--paces", default="2.5,25", help="MB/s")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long a download takes")
    args = parser.parse_args()
    clients, absent = choose(NEEDS, NEEDS, args.only)
    found: dict[str, dict[str, Result]] = {}
    paces = [float(pace) * MB for pace in args.paces.split(",")]
    with tempfile.TemporaryDirectory(dir=args.dir) as root:
        source = Path(root, "data.bin")
        source.write_bytes(os.urandom(int(max(paces) * args.seconds)))
        make_certificate(Path(root))
        for scheme in args.cases.split(","):
            with FlakyOrigin(source, Path(root) if scheme == "https" else None) as origin:
                for pace in paces:
                    case = Case(origin, Path(root), scheme, int(pace), args.seconds)
                    print(f"  {case.name}", file=sys.stderr)
                    subjects: dict[str, Callable[[], Sample]] = {name: partial(case.measure, name) for name in clients}
                    found[case.name], failures = interleave(subjects, args.rounds)
                    print(show(case, args.rounds, found[case.name]) + notes(absent, failures), flush=True)
    if args.json:
        write_json(args.json, "line", {"seconds": args.seconds, "rounds": args.rounds}, found)
    if args.plot:
        draw(args.plot, found)
    return 0


class Case:
    """One scheme and one pace, and the begin of the origin's file that comes in the time given."""

    def __init__(self, origin: FlakyOrigin, root: Path, scheme: str, pace: int, seconds: float) -> None:
        self.name = f"{scheme}, {pace / MB:g} MB/s"
        self.size = int(pace * seconds)
        self.seconds = seconds
        self._origin = origin
        self._pace = pace
        self._path = root / "out.bin"
        self._ca_file = str(root / "cert.pem")

    def measure(self, client: str) -> Sample:
        """Measure one download in a process of its own, and see that it is whole."""
        self._origin.begin(self._pace, size=self.size, piece=PIECE)
        url, path = self._origin.url, str(self._path)
        try:
            if client in PROGRAMS:
                sample = program_child(PROGRAMS[client](url, path, self._ca_file))
            else:
                sample = python_child("bulk.py", client, url, path, self._ca_file)
            self._origin.end()
            if (got := self._path.stat().st_size) != self.size:
                raise Failed(f"{got} of {self.size} octets")
        finally:
            self._path.unlink(missing_ok=True)
        return sample


def show(case: Case, rounds: int, results: dict[str, Result]) -> str:
    """Lay out one case, the cheapest client first."""
    bare, reference, gib = results.get("bare loop"), results.get("curl"), case.size / GIB
    rows = [
        [
            name,
            number(result.median("cpu") / gib, 2),
            spread([cpu / gib for cpu in result.values("cpu")]),
            number(100 * result.median("cpu") / result.median("wall"), 1),
            number(result.median("wall") / case.seconds, 3),
            number(result.ratio(bare)),
            number(result.ratio(reference)),
        ]
        for name, result in sorted(results.items(), key=lambda item: item[1].median("cpu"))
    ]
    header = ["client", "CPU s/GiB", "least–most", "% of a core", "wall, × least", "× bare loop", "× curl"]
    return table(f"{case.name}, {case.size / MB:.0f} MB, {rounds} rounds", header, rows)


def draw(path: str, found: dict[str, dict[str, Result]]) -> None:
    groups = [
        (case, "CPU s", {name: result.median("cpu") for name, result in results.items()})
        for case, results in found.items()
    ]
    bar_chart(path, "A line that is slower than the machine", groups)


if __name__ == "__main__":
    sys.exit(main())
