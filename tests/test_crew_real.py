"""Several connections for one file over real sockets, where the kernel moves the bytes, and against a real server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rawdl
from tests.driving import in_thread
from tests.nginx import Nginx
from tests.origin import Origin, Script
from tests.recorder import PATIENCE, Recorder
from tests.resource import Fault, Resource
from tests.resuming import AT_ONCE

pytestmark = pytest.mark.one_version

KIB, MIB = 1 << 10, 1 << 20
DATA = random.Random(7).randbytes(MIB) + random.Random(8).randbytes(MIB) + random.Random(9).randbytes(MIB)
DIGEST = hashlib.sha256(DATA).hexdigest()
PACE = 2_000_000.0  # bytes per second and connection: one alone takes 1.5 s
FOUR: dict[str, Any] = {"connections": 4, "min_segment": 64 * KIB}


@pytest.fixture(params=["http", "https"])
def site(request: pytest.FixtureRequest) -> Origin:
    origin: Origin = request.getfixturevalue("origin" if request.param == "http" else "tls_origin")
    return origin


@pytest.fixture
def client(ca_file: Path) -> Iterator[rawdl.Client]:
    with rawdl.Client(tls=rawdl.TLS(ca_file=str(ca_file)), retry=AT_ONCE, max_per_host=20) as client:
        yield client


def paced(**options: Any) -> Resource:
    return Resource(DATA, like=Script(pace=PACE), **options)


def assert_whole(path: Path, digest: str = DIGEST) -> None:
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest
    assert os.listdir(path.parent) == [path.name]


# Our own server


def test_four_connections(site: Origin, client: rawdl.Client, tmp_path: Path):
    resource, recorder = paced(), Recorder()
    url = site.serve("/a", resource)
    result = recorder.download(client, url=url, file_path=tmp_path / "a", **FOUR).result(PATIENCE)
    assert_whole(tmp_path / "a")
    assert site.connections >= 4
    assert resource.ranges_asked[0] is None
    assert None not in resource.ranges_asked[1:]
    assert (result.data_length, result.attempts, result.status_code) == (len(DATA), (), 200)
    written = [update.total_bytes_written for update in recorder.of("progress")]
    assert written == sorted(written)
    assert recorder.outcome == ["success", "complete"]


@pytest.mark.parametrize("buffer_size", [4096, MIB])
@pytest.mark.parametrize("connections", [2, 4, 16])
def test_at_full_speed(connections: int, buffer_size: int, site: Origin, ca_file: Path, tmp_path: Path):
    """Unpaced, and with small segments: connections end and begin all the time, in each other's turns."""
    url = site.serve("/a", Resource(DATA))
    with rawdl.Client(tls=rawdl.TLS(ca_file=str(ca_file)), buffer_size=buffer_size, max_per_host=8) as client:
        for _ in range(3):
            task = client.download_file(url=url, file_path=tmp_path / "a", connections=connections, min_segment=KIB)
            assert task.result(PATIENCE).data_length == len(DATA)
            assert_whole(tmp_path / "a")


@pytest.mark.parametrize("kind", ["fin", "rst", "stall"])
def test_all_kinds_of_breaks(kind: Any, site: Origin, client: rawdl.Client, tmp_path: Path):
    faults = [Fault(in_body=at, kind=kind, stall_for=0.2) for at in (300_000, 100_000, 1, 0, 200_000, 70_000)]
    resource = paced(faults=faults)
    url = site.serve("/a", resource)
    task = client.download_file(url=url, file_path=tmp_path / "a", checksum=f"sha256:{DIGEST}", **FOUR)
    assert task.result(PATIENCE).checksum == f"sha256:{DIGEST}"
    assert_whole(tmp_path / "a")


@pytest.mark.parametrize("threaded", [False, True], ids=["run", "start"])
def test_T31_an_abort_closes_them_all(threaded: bool, site: Origin, client: rawdl.Client, tmp_path: Path):
    """Whether it comes from a listener or from a thread that does not drive."""
    url, recorder = site.serve("/a", Resource(DATA, like=Script(pace=PACE / 4))), Recorder()
    if threaded:
        client.start()
    task = recorder.download(client, url=url, file_path=tmp_path / "a", **FOUR)
    if threaded:
        site.wait_request(4)
        task.abort()
    else:
        recorder.react("progress", lambda event: len(site.requests) >= 4 and task.abort())
    assert isinstance(task.exception(PATIENCE), rawdl.Aborted)
    for n in range(1, 5):
        site.wait_closed(n)
    assert recorder.outcome == ["fail", "complete"]
    assert os.listdir(tmp_path) == []


def test_T34_a_pause_stops_them_all(site: Origin, client: rawdl.Client, tmp_path: Path):
    url, recorder = site.serve("/a", paced()), Recorder()
    site.serve("/other", Script(body=b"hello"))
    client.start()
    task = recorder.download(client, url=url, file_path=tmp_path / "a", progress_interval=0, **FOUR)
    site.wait_request(4)
    in_thread(task.pause)
    for _ in range(2):  # by then it has heard of it
        client.download_file(url=site.url("/other"), sink=rawdl.DiscardSink()).result(PATIENCE)
    told = len(recorder.events)
    for _ in range(20):
        client.download_file(url=site.url("/other"), sink=rawdl.DiscardSink()).result(PATIENCE)
    assert (len(recorder.events), task.state) == (told, rawdl.TaskState.PAUSED)
    task.resume()
    assert task.result(PATIENCE).data_length == len(DATA)
    assert_whole(tmp_path / "a")


def test_T32_T45_what_was_kept_is_gone_on_with(site: Origin, client: rawdl.Client, tmp_path: Path):
    resource, recorder = paced(), Recorder()
    url = site.serve("/a", resource)
    task = recorder.download(client, url=url, file_path=tmp_path / "a", **FOUR)
    recorder.react("progress", lambda event: event.progress > 40 and task.abort(keep=True))
    assert isinstance(task.exception(PATIENCE), rawdl.Aborted)
    assert sorted(os.listdir(tmp_path)) == ["a.part", "a.part.json"]
    resource.log.clear()
    result = client.download_file(url=url, file_path=tmp_path / "a", **FOUR).result(PATIENCE)
    assert result.resumed_from > 0.4 * len(DATA)
    assert None not in resource.ranges_asked
    assert_whole(tmp_path / "a")


def test_inside_asyncio(site: Origin, client: rawdl.Client, tmp_path: Path):
    async def main() -> None:
        tasks = [client.download_file(url=url, file_path=tmp_path / "b" / str(n), **FOUR) for n in range(3)]
        assert [result.data_length for result in await asyncio.gather(*tasks)] == [len(DATA)] * 3

    url = site.serve("/a", paced())
    (tmp_path / "b").mkdir()
    asyncio.run(main())
    assert {path.read_bytes() == DATA for path in (tmp_path / "b").iterdir()} == {True}
    assert sorted(os.listdir(tmp_path / "b")) == ["0", "1", "2"]


def test_a_rate_limit_holds_over_all_connections(site: Origin, client: rawdl.Client, tmp_path: Path):
    """The server sees to it that the client would take more if it could: nobody looks at a clock."""
    url, recorder = site.serve("/a", Resource(DATA)), Recorder()
    rate = 6_000_000.0
    task = recorder.download(client, url=url, file_path=tmp_path / "a", rate_limit=rate, progress_interval=0, **FOUR)
    result = task.result(PATIENCE)
    assert_whole(tmp_path / "a")
    profile = result.profile
    assert profile.received_bytes_count == len(DATA)
    # What may pile up before it begins is a quarter of a second's worth.
    assert len(recorder.of("progress")) > (len(DATA) - rate / 4) / (rate / 50) / 2


# A real server


@pytest.fixture(scope="module")
def files(nginx: Nginx) -> dict[str, str]:
    """Put files where nginx serves them; return the SHA-256 of each."""
    digests = {}
    for name, size in {"crew-1m": MIB, "crew-48m": 48 * MIB}.items():
        data = b"".join(random.Random(n).randbytes(MIB) for n in range(size // MIB))
        (nginx.root / name).write_bytes(data)
        digests[name] = hashlib.sha256(data).hexdigest()
    return digests


@pytest.fixture
def visitor(nginx: Nginx) -> Iterator[rawdl.Client]:
    with rawdl.Client(tls=rawdl.TLS(ca_file=str(nginx.ca_file)), retry=AT_ONCE) as client:
        yield client


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("path", ["crew-48m", "slow/crew-1m", "redirect/crew-48m"])
def test_nginx(path: str, scheme: str, nginx: Nginx, files: dict[str, str], visitor: rawdl.Client, tmp_path: Path):
    url, before = f"{getattr(nginx, scheme)}/{path}", len(nginx.log().splitlines())
    task = visitor.download_file(url=url, file_path=tmp_path / "a", **FOUR)
    result = task.result(PATIENCE)
    assert_whole(tmp_path / "a", files[path.rpartition("/")[2]])
    assert result.attempts == ()
    with rawdl.Client() as other:  # what nginx is asked after it has seen the others closed is logged after them
        other.download_file(url=f"{nginx.http}/none", sink=rawdl.DiscardSink()).result(PATIENCE)
    answers = [line.split('" ')[1].split()[0] for line in nginx.log().splitlines()[before:]]
    if path.startswith("slow"):  # what is fast enough the first connection brings before the others have begun
        assert answers.count("206") >= 3
    assert answers.count("302") == path.startswith("redirect")
    assert set(answers) <= {"200", "206", "302", "404"}


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nginx_goes_on_with_what_was_kept(
    scheme: str, nginx: Nginx, files: dict[str, str], visitor: rawdl.Client, tmp_path: Path
):
    url, recorder = f"{getattr(nginx, scheme)}/slow/crew-1m", Recorder()
    task = recorder.download(visitor, url=url, file_path=tmp_path / "a", **FOUR)
    recorder.react("progress", lambda event: event.progress > 50 and task.abort(keep=True))
    assert isinstance(task.exception(PATIENCE), rawdl.Aborted)
    url = f"{getattr(nginx, scheme)}/slow/crew-1m"
    result = visitor.download_file(url=url, file_path=tmp_path / "a", resume=True, **FOUR).result(PATIENCE)
    assert result.resumed_from > MIB / 2
    assert_whole(tmp_path / "a", files["crew-1m"])
