"""Measure peak memory of a large download, and what each of thousands of waiting downloads weighs.

The first table is the high-water mark of a whole process; the second is the growth of the resident set while N more
downloads are opened and held, divided by N.  See README.md for how to read it.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from chart import bar_chart
from rounds import (
    Failed,
    Result,
    Sample,
    choose,
    code_child,
    interleave,
    notes,
    number,
    options,
    python_child,
    size,
    spread,
    table,
    write_json,
)
from servers import HoldingOrigin, Missing, Nginx

BARE = "bare interpreter + h11"
PEAK_NEEDS = {
    BARE: "h11",
    "bare loop": "",
    "rawdl": "rawdl+h11",
    **{name: name for name in ("pycurl", "http.client", "urllib3", "requests", "httpx", "aiohttp")},
}
WAITING_NEEDS = {
    "rawdl queued": "rawdl+h11",
    "rawdl connected": "rawdl+h11",
    "pycurl": "pycurl",
    "aiohttp": "aiohttp",
    "http.client on threads": "",
    "httpx": "httpx",
}


def main() -> int:
    parser = options(__doc__.partition("\n")[0], rounds=3)
    parser.add_argument("--size", type=size, default=1 << 30, help="octets of the large file (0: skip)")
    parser.add_argument("--waiting", type=int, default=2000, metavar="N", help="downloads held open (0: skip)")
    args = parser.parse_args()
    found: dict[str, dict[str, Result]] = {}
    if args.size:
        peaks(args.size, args.rounds, args.only, args.dir, found)
    if args.waiting:
        waiting(args.waiting, args.rounds, args.only, found)
    if args.json:
        settings = {"size": args.size, "waiting": args.waiting, "rounds": args.rounds}
        write_json(args.json, "memory", settings, found)
    if args.plot:
        bar_chart(args.plot, "Memory", [group(case, results) for case, results in found.items()])
    return 0


def peaks(
    octets: int, rounds: int, only: str | None, directory: str | None, found: dict[str, dict[str, Result]]
) -> None:
    """Measure and print the peaks of a download into a file, over http and over https."""
    clients, absent = choose(PEAK_NEEDS, PEAK_NEEDS, only)
    with Nginx(octets, directory) as nginx:
        for scheme in ("http", "https"):
            case = f"peak, {scheme}"
            print(f"  {case}", file=sys.stderr)
            subjects = {name: partial(measure_peak, nginx, scheme, name, octets) for name in clients}
            found[case], failures = interleave(subjects, rounds)
            print(show_peaks(scheme, octets, rounds, found[case]) + notes(absent, failures), flush=True)


def measure_peak(nginx: Nginx, scheme: str, client: str, octets: int) -> Sample:
    if client == BARE:
        code = (
            "import h11; print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
        )
        out, sample = code_child(code)
        return sample._replace(peak_kib=int(out))
    path = nginx.root / "out.bin"
    try:
        sample = python_child("bulk.py", client, nginx.url(scheme), str(path), nginx.ca_file)
        got = path.stat().st_size
    finally:
        Path(path).unlink(missing_ok=True)
    if got != octets:
        raise Failed(f"{got} of {octets} octets")
    return sample


def waiting(count: int, rounds: int, only: str | None, found: dict[str, dict[str, Result]]) -> None:
    """Measure and print what a waiting download weighs."""
    clients, absent = choose(WAITING_NEEDS, WAITING_NEEDS, only)
    case = f"{count} downloads held open"
    print(f"  {case}", file=sys.stderr)
    with HoldingOrigin() as origin:
        subjects = {name: partial(python_child, "waiting.py", name, origin.url, str(count)) for name in clients}
        found[case], failures = interleave(subjects, rounds)
    rows = [
        [name, number(result.median("each") / 1024, 1), spread([each / 1024 for each in result.values("each")], 1)]
        for name, result in sorted(found[case].items(), key=lambda item: item[1].median("each"))
    ]
    print(table(f"{case}, {rounds} rounds", ["client", "KiB each", "least–most"], rows) + notes(absent, failures))


def show_peaks(scheme: str, octets: int, rounds: int, results: dict[str, Result]) -> str:
    bare = results.get(BARE)
    rows = [
        [
            name,
            number(result.median("peak_kib") / 1024, 1),
            spread([peak / 1024 for peak in result.values("peak_kib")], 1),
            number((result.median("peak_kib") - bare.median("peak_kib")) / 1024 if bare else None, 1),
        ]
        for name, result in sorted(results.items(), key=lambda item: item[1].median("peak_kib"))
    ]
    header = ["client", "peak MiB", "least–most", "above bare + h11, MiB"]
    return table(f"Peak memory, {scheme}, {octets >> 20} MiB into a file, {rounds} rounds", header, rows)


def group(case: str, results: dict[str, Result]) -> tuple[str, str, dict[str, float]]:
    if case.startswith("peak"):
        return case, "MiB", {name: result.median("peak_kib") / 1024 for name, result in results.items()}
    return case, "KiB each", {name: result.median("each") / 1024 for name, result in results.items()}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Missing as missing:
        sys.exit(str(missing))
