"""Download thousands of 10 KiB files from a real nginx on loopback over kept-alive connections.

Two cases: one after another, and 64 at once.  The figure is CPU seconds of the client process; the curl program, which
reads all addresses from one file and keeps its connections, is 1.00.  See README.md for how to read it.
"""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from pathlib import Path

from chart import bar_chart
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
from servers import SMALL, Missing, Nginx

NEEDS = {
    "bare loop + h11": "h11",
    "rawdl": "rawdl+h11",
    "curl": "!curl",
    "pycurl": "pycurl",
    "http.client": "",
    "urllib3": "urllib3",
    "requests": "requests",
    "httpx": "httpx",
    "aiohttp": "aiohttp",
    "aiohttp+uvloop": "aiohttp+uvloop",
}


def main() -> int:
    parser = options(__doc__.partition("\n")[0], rounds=3)
    parser.add_argument("--sequential", type=int, default=3000, metavar="N", help="files one after another (0: none)")
    parser.add_argument("--parallel", type=int, default=5000, metavar="N", help="files in the parallel case (0: none)")
    parser.add_argument("--at-once", type=int, default=64, metavar="N", help="connections of the parallel case")
    parser.add_argument("--to-files", action="store_true", help="write each body to a file of its own")
    args = parser.parse_args()
    clients, absent = choose(NEEDS, NEEDS, args.only)
    where = "to files" if args.to_files else "in memory"
    found: dict[str, dict[str, Result]] = {}
    with Nginx(SMALL, args.dir) as nginx:
        for count, at_once in ((args.sequential, 1), (args.parallel, args.at_once)):
            if not count:
                continue
            case = f"{count} × 10 KiB {where}, " + ("one after another" if at_once == 1 else f"{at_once} at once")
            print(f"  {case}", file=sys.stderr)
            subjects = {name: partial(measure, nginx, name, count, at_once, args.to_files) for name in clients}
            found[case], failures = interleave(subjects, args.rounds)
            print(show(case, count, args.rounds, found[case]) + notes(absent, failures), flush=True)
    if args.json:
        write_json(args.json, "small", {"rounds": args.rounds, "octets": SMALL, "to_files": args.to_files}, found)
    if args.plot:
        groups = [(case, "CPU s", {n: r.median("cpu") for n, r in results.items()}) for case, results in found.items()]
        bar_chart(args.plot, "Many small downloads from nginx on loopback", groups)
    return 0


def measure(nginx: Nginx, client: str, count: int, at_once: int, to_files: bool) -> Sample:
    """Measure one client in a process of its own, and see that every octet came."""
    url, directory = nginx.url("http", "small.bin"), nginx.root / "out"
    directory.mkdir()
    try:
        if client == "curl":
            sample = program_child(curl(nginx.root, url, count, at_once, directory if to_files else None))
        else:
            target = str(directory) if to_files else "-"
            sample = python_child("many.py", client, url, str(count), str(at_once), target)
        got = sum(entry.stat().st_size for entry in os.scandir(directory)) if to_files else None
    finally:
        shutil.rmtree(directory)
    reported = int(sample.extra.get("octets", count * SMALL))
    if {got, reported} - {None, count * SMALL}:
        raise Failed(f"{got} octets on disk, {reported} reported, {count * SMALL} expected")
    return sample


def curl(root: Path, url: str, count: int, at_once: int, directory: Path | None) -> list[str]:
    """Return a command that takes its addresses from a file."""
    config = root / "addresses"
    lines = (f'url = "{url}?{i}"\noutput = "{directory / str(i) if directory else os.devnull}"\n' for i in range(count))
    config.write_text("".join(lines))
    parallel = ["--parallel", "--parallel-immediate", "--parallel-max", str(at_once)] if at_once > 1 else []
    return ["curl", "-q", "--silent", "--show-error", "--fail", *parallel, "--config", str(config)]


def show(case: str, count: int, rounds: int, results: dict[str, Result]) -> str:
    """Lay out one case, the cheapest client first."""
    reference = results.get("curl")
    rows = [
        [
            name,
            number(result.median("cpu"), 3),
            spread(result.values("cpu")),
            number(result.median("cpu") / count * 1e6, 0),
            number(result.median("cpu_whole"), 3),
            number(result.median("wall")),
            number(result.ratio(reference)),
            number(result.ratio(results.get("http.client"))),
            number(result.ratio(results.get("bare loop + h11"))),
        ]
        for name, result in sorted(results.items(), key=lambda item: item[1].median("cpu"))
    ]
    header = [
        "client",
        "CPU s",
        "least–most",
        "µs each",
        "with start",
        "wall s",
        "× curl",
        "× http.client",
        "× bare + h11",
    ]
    return table(f"{case}, {rounds} rounds", header, rows)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Missing as missing:
        sys.exit(str(missing))
