"""Download 1 GiB from a real nginx on loopback: http, https and chunked, into a file and into nothing.

The figure is CPU seconds of the client process, user + system, per GiB: on loopback the wall clock shows the server and
the scheduler as much as the client.  See README.md for how to read it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
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
    size,
    spread,
    table,
    write_json,
)
from servers import Missing, Nginx

GIB = 1 << 30
CASES = ("http-file", "http-null", "https-file", "chunked-file")
NEEDS = {
    "bare loop": "",
    "rawdl": "rawdl+h11",
    "curl": "!curl",
    "wget": "!wget",
    "aria2c": "!aria2c",
    "pycurl": "pycurl",
    "http.client": "",
    "urllib3": "urllib3",
    "requests": "requests",
    "httpx": "httpx",
    "aiohttp": "aiohttp",
}


def main() -> int:
    parser = options(__doc__.partition("\n")[0], rounds=5)
    parser.add_argument("--size", type=size, default=GIB, help="octets of the file: 64M, 1G")
    parser.add_argument("--cases", default=",".join(CASES), help="which cases")
    args = parser.parse_args()
    clients, absent = choose(NEEDS, NEEDS, args.only)
    found: dict[str, dict[str, Result]] = {}
    with Nginx(args.size, args.dir) as nginx:
        for case in args.cases.split(","):
            print(f"  {case}", file=sys.stderr)
            subjects = {name: partial(measure, nginx, case, name, args.size) for name in clients}
            found[case], failures = interleave(subjects, args.rounds)
            print(show(case, args.size, args.rounds, found[case]) + notes(absent, failures), flush=True)
    if args.json:
        write_json(args.json, "throughput", {"size": args.size, "rounds": args.rounds}, found)
    if args.plot:
        draw(args.plot, args.size, found)
    return 0


def measure(nginx: Nginx, case: str, client: str, expected: int) -> Sample:
    """Measure one download in a process of its own, see that it is whole, and remove the file."""
    scheme, _, goal = case.partition("-")
    path = os.devnull if goal == "null" else str(nginx.root / "out.bin")
    url = nginx.url(scheme)
    if goal == "file":
        touch(path, expected)
    try:
        if client in PROGRAMS:
            sample = program_child(PROGRAMS[client](url, path, nginx.ca_file), watch=True)
        else:
            sample = python_child("bulk.py", client, url, path, nginx.ca_file)
        got = Path(path).stat().st_size if goal == "file" else int(sample.extra.get("octets", expected))
    finally:
        if goal == "file":
            Path(path).unlink(missing_ok=True)
    # The bare loop leaves the framing of a chunked body in.
    if got < expected or (got > expected and client != "bare loop"):
        raise Failed(f"{got} of {expected} octets")
    return sample


def touch(path: str, octets: int) -> None:
    """Write such a file and remove it, so that everybody finds page cache that has been used a moment ago.

    A virtual machine gives freed memory back to its host after about two seconds.  Whoever writes then pays for getting
    it again: five times the cost of the copy, and by chance.
    """
    block = memoryview(bytes(1 << 20))
    with open(path, "wb", buffering=0) as file:
        for at in range(0, octets, len(block)):
            file.write(block[: octets - at])
    os.unlink(path)


def curl(url: str, path: str, ca_file: str) -> list[str]:
    return ["curl", "-q", "--silent", "--show-error", "--fail", "--cacert", ca_file, "--output", path, url]


def wget(url: str, path: str, ca_file: str) -> list[str]:
    return ["wget", "--no-config", "--no-hsts", "-nv", f"--ca-certificate={ca_file}", "-O", path, url]


def aria2c(url: str, path: str, ca_file: str) -> list[str]:
    directory, name = os.path.split(path)
    fixed = ["--no-conf", "-q", "-x1", "-s1", "--file-allocation=none", "--allow-overwrite=true"]
    return ["aria2c", *fixed, f"--ca-certificate={ca_file}", "-d", directory, "-o", name, url]


PROGRAMS: dict[str, Callable[[str, str, str], list[str]]] = {"curl": curl, "wget": wget, "aria2c": aria2c}


def show(case: str, octets: int, rounds: int, results: dict[str, Result]) -> str:
    """Lay out one case, the cheapest client first."""
    bare, reference, gib = results.get("bare loop"), results.get("curl"), octets / GIB
    rows = [
        [
            name,
            number(result.median("cpu") / gib, 3),
            spread([cpu / gib for cpu in result.values("cpu")]),
            number(result.median("cpu_whole") / gib, 3),
            number(result.median("wall") / gib, 2),
            number(result.median("peak_kib") / 1024, 1),
            number(result.ratio(bare)),
            number(result.ratio(reference)),
        ]
        for name, result in sorted(results.items(), key=lambda item: item[1].median("cpu"))
    ]
    header = ["client", "CPU s/GiB", "least–most", "with start", "wall s/GiB", "peak MiB", "× bare loop", "× curl"]
    return table(f"{case}, {octets >> 20} MiB, {rounds} rounds", header, rows)


def draw(path: str, octets: int, found: dict[str, dict[str, Result]]) -> None:
    groups = [
        (case, "CPU s/GiB", {name: result.median("cpu") * GIB / octets for name, result in results.items()})
        for case, results in found.items()
    ]
    bar_chart(path, "One large download from nginx on loopback", groups)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Missing as missing:
        sys.exit(str(missing))
