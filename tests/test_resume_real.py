"""Going on over real sockets, against a real server, and with other processes about (T45-T48, R1, R13, E3)."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import rawdl
from rawdl.proto.ranges import OVERLAP
from tests import once
from tests.kill import start
from tests.nginx import Nginx
from tests.origin import Origin, Script
from tests.recorder import PATIENCE, Recorder
from tests.resource import Fault, Resource
from tests.resuming import AT_ONCE

MIB = 1 << 20
DATA = random.Random(4).randbytes(MIB) * 8
CUT = 3 * MIB + 1


@pytest.fixture(params=["http", "https"])
def site(request: pytest.FixtureRequest, ca_file: Path) -> Iterator[tuple[Origin, rawdl.TLS | None]]:
    name = "origin" if request.param == "http" else "tls_origin"
    yield request.getfixturevalue(name), rawdl.TLS(ca_file=str(ca_file)) if request.param == "https" else None


def download(url: str, path: Path, **options: Any) -> rawdl.DownloadResult:
    """Download in a client of its own."""
    made = {name: options.pop(name) for name in ("tls", "retry") if name in options}
    with once.client(**made) as client:
        return client.download_file(url=url, file_path=path, **options).result(PATIENCE)


def assert_whole(path: Path, data: bytes = DATA) -> None:
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(data).digest()
    assert os.listdir(path.parent) == [path.name]


# Real sockets


@pytest.mark.parametrize("kind", ["fin", "rst"])
def test_T45_T47_another_client_goes_on(kind: Any, site: tuple[Origin, rawdl.TLS | None], tmp_path: Path):
    origin, tls = site
    resource = Resource(DATA, faults=[Fault(in_body=CUT, kind=kind)])
    url = origin.serve("/a", resource)
    with pytest.raises(rawdl.IncompleteBody):
        download(url, tmp_path / "a", tls=tls)
    kept = (tmp_path / "a.part").read_bytes()
    assert DATA.startswith(kept)
    assert len(kept) == CUT or kind == "rst"  # which throws away what has not been read
    result = download(url, tmp_path / "a", tls=tls)
    assert result.resumed_from == len(kept) > 0
    asked = resource.log[1].request
    assert asked.field("Range") == f"bytes={len(kept) - OVERLAP}-"
    assert asked.field("If-Range") == '"v1"'
    assert resource.sent <= CUT + len(DATA) - len(kept) + OVERLAP
    assert_whole(tmp_path / "a")


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
@pytest.mark.parametrize("checksum", [None, f"sha256:{hashlib.sha256(DATA).hexdigest()}"], ids=["splice", "checksum"])
def test_T46_the_same_task_goes_on(
    checksum: str | None, framing: Any, site: tuple[Origin, rawdl.TLS | None], tmp_path: Path
):
    origin, tls = site
    faults = [Fault(in_body=CUT), Fault(in_body=OVERLAP + 100_000), Fault(in_body=MIB)]
    resource = Resource(DATA, framing=framing, part_framing=framing, faults=faults)
    result = download(origin.serve("/a", resource), tmp_path / "a", tls=tls, retry=AT_ONCE, checksum=checksum)
    assert len(result.attempts) == 3
    offsets = [CUT, CUT + 100_000, CUT + 100_000 + MIB - OVERLAP]
    assert resource.ranges_asked == [None, *(f"bytes={offset - OVERLAP}-" for offset in offsets)]
    assert_whole(tmp_path / "a")


def test_T48_a_file_that_changed(origin: Origin, tmp_path: Path):
    resource = Resource(DATA, faults=[Fault(in_body=CUT)])
    url = origin.serve("/a", resource)
    with pytest.raises(rawdl.IncompleteBody):
        download(url, tmp_path / "a")
    resource.change(DATA[::-1], '"v2"')
    assert download(url, tmp_path / "a").resumed_from == 0
    assert_whole(tmp_path / "a", DATA[::-1])


# Content codings


@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
def test_D1_a_turn_decodes_little_however_much_it_makes(
    framing: Any, site: tuple[Origin, rawdl.TLS | None], tmp_path: Path
):
    """A bomb holds up neither the other downloads of a loop nor an abort."""
    origin, tls = site
    body = gzip.compress(bytes(100 * MIB) + DATA[: MIB // 2])
    script = Script(body=body, framing=framing, header=(("Content-Encoding", "gzip"),))
    with once.client(tls=tls) as client:
        task = client.download_file(url=origin.serve("/a", script), file_path=tmp_path / "a", decode=True)
        counts = [0]
        while not task.done():
            client.step(PATIENCE)
            counts.append(task.progress.decoded_bytes_written or 0)
        assert task.result().data_length == 100 * MIB + MIB // 2
    # 16 KiB, and in the first turn the 2 KiB that the head was read with: of each byte deflate makes 1032 at most.
    assert max(after - before for before, after in pairwise(counts)) <= 20 * MIB


# A real server


def break_off(url: str, path: Path, **options: Any) -> int:
    """Abort a download after some of it, and return how much is there."""
    recorder = Recorder()
    with once.client(**options) as client:
        task = recorder.download(client, url=url, file_path=path, resume=True, progress_interval=0)
        recorder.react("progress", lambda event: event.total_bytes_written >= CUT and task.abort())
        assert isinstance(task.exception(PATIENCE), rawdl.Aborted)
    kept = (path.parent / f"{path.name}.part").stat().st_size
    assert CUT <= kept < len(DATA)
    return kept


@pytest.fixture
def served(nginx: Nginx) -> Iterator[Path]:
    path = nginx.root / "resumed"
    path.write_bytes(DATA)
    os.utime(path, (1_445_412_480, 1_445_412_480))
    yield path
    path.unlink()


@pytest.mark.parametrize("way", ["http", "https", "redirect"])
def test_T45_T47_nginx_goes_on(way: str, nginx: Nginx, served: Path, tmp_path: Path):
    url = f"{nginx.https}/resumed" if way == "https" else f"{nginx.http}/resumed"
    url = f"{nginx.http}/redirect/resumed" if way == "redirect" else url
    tls = rawdl.TLS(ca_file=str(nginx.ca_file))
    kept = break_off(url, tmp_path / "a", tls=tls)
    before = len(nginx.log())
    result = download(url, tmp_path / "a", tls=tls, remote_time=True)
    assert (result.resumed_from, result.data_length) == (kept, len(DATA))
    assert result.header["content-range"] == f"bytes {kept - OVERLAP}-{len(DATA) - 1}/{len(DATA)}"
    assert len(result.redirects) == (way == "redirect")
    assert (tmp_path / "a").stat().st_mtime == 1_445_412_480
    assert_whole(tmp_path / "a")
    again = download(url, tmp_path / "b", tls=tls)  # nginx writes its log after the response
    assert again.resumed_from == 0
    (tmp_path / "b").unlink()
    assert f'" 206 {len(DATA) - kept + OVERLAP} "' in nginx.log()[before:]


def test_T48_nginx_has_another_version(nginx: Nginx, served: Path, tmp_path: Path):
    """Its ETag is of the time and the length, of which only the time has changed."""
    break_off(f"{nginx.http}/resumed", tmp_path / "a")
    served.write_bytes(DATA[::-1])
    os.utime(served, (1_445_412_481, 1_445_412_481))
    assert download(f"{nginx.http}/resumed", tmp_path / "a").resumed_from == 0
    assert_whole(tmp_path / "a", DATA[::-1])


def test_R9_nginx_has_less_now(nginx: Nginx, served: Path, tmp_path: Path):
    break_off(f"{nginx.http}/resumed", tmp_path / "a")
    served.write_bytes(DATA[:1000])
    assert download(f"{nginx.http}/resumed", tmp_path / "a").resumed_from == 0
    assert_whole(tmp_path / "a", DATA[:1000])


# Other processes

DIES = """
import os, signal, sys, rawdl
def die(event):
    if event.total_bytes_written > 20 << 20:
        os.kill(os.getpid(), signal.SIGKILL)
task = rawdl.download_file(url=sys.argv[1], file_path=sys.argv[2], progress_interval=0)
task.on_progress_update(die)
task.result()
"""
STALLS = """
import sys, rawdl
task = rawdl.download_file(url=sys.argv[1], file_path=sys.argv[2], progress_interval=0)
task.on_progress_update(lambda event: print("there", flush=True))
task.result()
"""
RACES = """
import sys, rawdl
url, path, exists = sys.argv[1:]
print("ready", flush=True)
for line in sys.stdin:
    with rawdl.Client() as client:
        task = client.download_file(url=url, file_path=path + line.strip(), exists=exists)
        error = task.exception()
        print(type(error).__name__ if error else task.result().file_path, flush=True)
"""


def test_T47_R1_R13_a_process_is_killed_and_another_takes_over(origin: Origin, tmp_path: Path):
    data = DATA * 5
    resource = Resource(data)
    url = origin.serve("/a", resource)
    assert start(DIES, url, tmp_path / "a").wait(PATIENCE) == -signal.SIGKILL
    record = json.loads((tmp_path / "a.part.json").read_text())
    assert record["owner"]["pid"] != 0, "nobody has released it"
    done, there = record["done"][0][1], (tmp_path / "a.part").stat().st_size
    assert 0 < done < there < done + 18 * MIB, "a journal each 16 MiB, and each second"
    assert download(url, tmp_path / "a").resumed_from == there, "what came in order is all there"
    assert resource.ranges_asked == [None, f"bytes={there - OVERLAP}-"]
    assert_whole(tmp_path / "a", data)


def test_R13_S29_a_process_that_lives_is_left_alone(origin: Origin, tmp_path: Path):
    resource = Resource(DATA, like=Script(), faults=[Fault(in_body=CUT, kind="stall")])
    url = origin.serve("/a", resource)
    child = start(STALLS, url, tmp_path / "a", stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline() == "there\n"
        for resume in ("auto", False):
            with pytest.raises(rawdl.StorageError, match="in use"):
                download(url, tmp_path / "a", resume=resume)
        assert len(resource.log) == 1
        assert child.poll() is None
    finally:
        child.kill()
        child.communicate()
    assert download(url, tmp_path / "a").data_length == len(DATA)
    assert_whole(tmp_path / "a")


@pytest.mark.usefixtures("leaves_parts")  # a loser that came late may keep what it has
@pytest.mark.parametrize("exists", ["overwrite", "error", "rename"])
def test_E3_R13_T43_processes_race_for_one_name(exists: str, origin: Origin, tmp_path: Path):
    url, rounds = origin.serve("/a", Resource(DATA[:300_000])), 12
    racers = [racer(url, f"{tmp_path}/a", exists) for _ in range(3)]
    try:
        assert [ask(each) for each in racers] == ["ready"] * 3
        for number in range(rounds):
            for each in racers:
                tell(each, f"{number}")
            outcomes = [ask(each) for each in racers]
            winners = [outcome for outcome in outcomes if outcome != "StorageError"]
            assert 1 <= len(winners) <= (1 if exists == "error" else 3), outcomes
            assert exists == "overwrite" or len(set(winners)) == len(winners)
            assert all(Path(winner).read_bytes() == DATA[:300_000] for winner in winners)
    finally:
        for each in racers:
            each.kill()
            each.communicate()


def racer(*arguments: str) -> subprocess.Popen[str]:
    root = str(Path(__file__).parent.parent)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", RACES, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )


def ask(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
