"""Measure what it costs to begin: importing the library, and one 10 KiB download as a whole process.

Everything runs as `python -I -c CODE` in fresh interpreters with warm byte code.  See README.md for how to read it.
"""

from __future__ import annotations

import json
import sys
from functools import partial

from chart import bar_chart
from rounds import (
    ROOT,
    Failed,
    Result,
    Sample,
    choose,
    code_child,
    interleave,
    notes,
    number,
    options,
    program_child,
    table,
    write_json,
)
from servers import SMALL, Missing, Nginx

# What a process that may never need it should not pay for: each of these costs 2 to 20 ms or drags such modules in.
UNWANTED = (
    "ssl",
    "asyncio",
    "http.client",
    "urllib.request",
    "logging.handlers",
    "concurrent.futures",
    "email",
    "tempfile",
)

# `-I` ignores PYTHONPATH, so the checkout is put in front by hand, for every subject alike.
PATH = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
IMPORT = (
    PATH
    + """\
import time
before = len(sys.modules)
def kib():
    try:
        lines = open("/proc/self/status").read().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
size, cpu, started = kib(), time.process_time(), time.perf_counter()
{statement}
wall, cpu = time.perf_counter() - started, time.process_time() - cpu
here = [name for name in {unwanted!r} if name in sys.modules]
modules, size = len(sys.modules) - before, kib() - size
import json
print(json.dumps({{"wall": wall, "cpu": cpu, "modules": modules, "kib": size, "unwanted": here}}))
"""
)

IMPORTS = {
    "nothing": "pass",
    "rawdl": "import rawdl",
    "rawdl and a Client": "import rawdl; rawdl.Client().close()",
    "h11": "import h11",
    "h11 and selectors": "import h11, selectors",
    "http.client": "import http.client",
    "urllib.request": "import urllib.request",
    "asyncio": "import asyncio",
    "pycurl": "import pycurl",
    "urllib3": "import urllib3",
    "requests": "import requests",
    "httpx": "import httpx",
    "aiohttp": "import aiohttp",
}
IMPORT_NEEDS = {
    "rawdl": "rawdl+h11",
    "rawdl and a Client": "rawdl+h11",
    "h11": "h11",
    "h11 and selectors": "h11",
    **{name: name for name in ("pycurl", "urllib3", "requests", "httpx", "aiohttp")},
}

DOWNLOADS = {
    "rawdl": """\
import rawdl
rawdl.download({url!r}, {path!r})
""",
    "http.client": """\
import http.client
connection = http.client.HTTPConnection({host!r}, {port})
connection.request("GET", {target!r})
with open({path!r}, "wb") as file:
    file.write(connection.getresponse().read())
""",
    "pycurl": """\
import pycurl
curl = pycurl.Curl()
with open({path!r}, "wb") as file:
    curl.setopt(pycurl.URL, {url!r})
    curl.setopt(pycurl.WRITEDATA, file)
    curl.perform()
""",
    "urllib.request": """\
import urllib.request
urllib.request.urlretrieve({url!r}, {path!r})
""",
    "requests": """\
import requests
with open({path!r}, "wb") as file:
    file.write(requests.get({url!r}).content)
""",
    "urllib3": """\
import urllib3
with open({path!r}, "wb") as file:
    file.write(urllib3.request("GET", {url!r}).data)
""",
    "httpx": """\
import httpx
with open({path!r}, "wb") as file:
    file.write(httpx.get({url!r}).content)
""",
    "aiohttp": """\
import asyncio, aiohttp
async def main():
    async with aiohttp.ClientSession() as session, session.get({url!r}) as response:
        with open({path!r}, "wb") as file:
            file.write(await response.read())
asyncio.run(main())
""",
}
DOWNLOAD_NEEDS = {
    "rawdl": "rawdl+h11",
    "curl": "!curl",
    "http.client": "",
    "urllib.request": "",
    **{name: name for name in ("pycurl", "requests", "urllib3", "httpx", "aiohttp")},
}


def main() -> int:
    parser = options(__doc__.partition("\n")[0], rounds=21)
    args = parser.parse_args()
    names, absent = choose(IMPORTS, IMPORT_NEEDS, args.only)
    print("  imports", file=sys.stderr)
    unwanted: dict[str, list[str]] = {}
    imports, failures = interleave({name: partial(measure_import, name, unwanted) for name in names}, args.rounds)
    print(show_imports(imports, unwanted, args.rounds) + notes(absent, failures), flush=True)
    names, absent = choose(DOWNLOAD_NEEDS, DOWNLOAD_NEEDS, args.only)
    print("  whole processes", file=sys.stderr)
    with Nginx(SMALL, args.dir) as nginx:
        subjects = {name: partial(measure_download, nginx, name) for name in names}
        downloads, failures = interleave(subjects, args.rounds)
    print(show_downloads(downloads, args.rounds) + notes(absent, failures))
    found = {"import": imports, "10 KiB download as a whole process": downloads}
    if args.json:
        write_json(args.json, "startup", {"rounds": args.rounds, "octets": SMALL, "unwanted": unwanted}, found)
    if args.plot:
        groups = [
            ("import", "ms", {name: result.median("wall") * 1e3 for name, result in imports.items()}),
            ("10 KiB as a process", "CPU ms", {name: r.median("cpu_whole") * 1e3 for name, r in downloads.items()}),
        ]
        bar_chart(args.plot, "What it costs to begin", groups)
    return 1 if any(unwanted.get(name) for name in ("rawdl", "rawdl and a Client")) else 0


def measure_import(name: str, unwanted: dict[str, list[str]]) -> Sample:
    """Import in a fresh interpreter; note which of the unwanted modules came along."""
    out, sample = code_child(IMPORT.format(statement=IMPORTS[name], unwanted=UNWANTED))
    own = json.loads(out)
    unwanted[name] = own["unwanted"]
    extra = {"modules": own["modules"], "kib": own["kib"]}
    return sample._replace(cpu=own["cpu"], wall=own["wall"], extra=extra)


def measure_download(nginx: Nginx, name: str) -> Sample:
    """Download in a fresh process and see that the file is whole."""
    path, url = nginx.root / "out.bin", nginx.url("http", "small.bin")
    if name == "curl":
        sample = program_child(["curl", "-q", "--silent", "--fail", "--output", str(path), url])
    else:
        host, port = url.split("/")[2].split(":")
        code = DOWNLOADS[name].format(url=url, path=str(path), host=host, port=int(port), target="/small.bin")
        sample = code_child(PATH + code)[1]
    got = path.stat().st_size
    path.unlink()
    if got != SMALL:
        raise Failed(f"{got} of {SMALL} octets")
    return sample


def show_imports(results: dict[str, Result], unwanted: dict[str, list[str]], rounds: int) -> str:
    bare = results.get("nothing")
    rows = [
        [
            name,
            number(min(result.values("wall")) * 1e3, 1),
            number(result.median("wall") * 1e3, 1),
            number(result.median("cpu") * 1e3, 1),
            number((result.median("cpu_whole") - (bare.median("cpu_whole") if bare else 0)) * 1e3, 1),
            number(result.median("modules"), 0),
            number(result.median("kib") / 1024, 1),
            " ".join(unwanted[name]) or "none",
        ]
        for name, result in sorted(results.items(), key=lambda item: item[1].median("wall"))
    ]
    header = ["import", "best ms", "median ms", "CPU ms", "process − bare, CPU ms", "modules", "RSS MiB", "unwanted"]
    return table(f"Import, {rounds} rounds", header, rows)


def show_downloads(results: dict[str, Result], rounds: int) -> str:
    reference, stdlib = results.get("curl"), results.get("http.client")
    rows = [
        [
            name,
            number(result.median("cpu_whole") * 1e3, 1),
            number(min(result.values("cpu_whole")) * 1e3, 1),
            number(result.median("wall") * 1e3, 1),
            number(result.ratio(reference, "cpu_whole")),
            number(result.ratio(stdlib, "cpu_whole")),
        ]
        for name, result in sorted(results.items(), key=lambda item: item[1].median("cpu_whole"))
    ]
    header = ["client", "CPU ms", "least", "wall ms", "× curl", "× http.client"]
    return table(f"A 10 KiB download as a whole process, {rounds} rounds", header, rows)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Missing as missing:
        sys.exit(str(missing))
