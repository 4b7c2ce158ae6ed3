"""What a debugger shows of a client at work: every object tells its state, and none a secret."""

from __future__ import annotations

import gc
import re
import ssl
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rawdl
from rawdl import errors
from rawdl.loop import READ, WRITE, Watch
from rawdl.sinks import DecodingSink, LimitedSink, TemporaryFile, as_sink
from tests.sim import Link, Script, World, http_peer
from tests.sim_tests.crews import BODY, CrewBench
from tests.sim_tests.fetch import HOST

SECRET = "canary"
PLACE = f"{HOST}/a?token="
GIVEN = f"user:{SECRET}@{PLACE}{SECRET}"
SHOWN = re.escape(f"http://***@{PLACE}***")
SECURE = SHOWN.replace("http", "https", 1)
MOST_TURNS = 1000
# Settings, and what only counts or carries for one of those that tell.
MUTE = {
    "Authority",
    "Deadlines",
    "Defaults",
    "Destinations",
    "Dialer",
    "HeadWriter",
    "Jar",
    "Marks",
    "Pace",
    "Progress",
}
MUTE |= {"Sessions", "Shared", "SparePipe", "SpeedMeter", "Trust"}

Scene = dict[str, list[object]]


def seen_from(*roots: object) -> Scene:
    """Return our own objects that can be reached, by the names of their classes."""
    found: Scene = {}
    known: dict[int, object] = {}
    left = list(roots)
    while left:
        thing = left.pop()
        home = type(thing).__module__.partition(".")[0]
        if id(thing) in known or isinstance(thing, type) or home not in ("rawdl", "builtins", "collections"):
            continue
        known[id(thing)] = thing
        if isinstance(thing, types.FunctionType):
            left += thing.__closure__ or ()
        elif not isinstance(thing, types.ModuleType):
            left += gc.get_referents(thing)
        if home == "rawdl":
            found.setdefault(type(thing).__name__, []).append(thing)
    return found


def until(client: rawdl.Client, is_there: Callable[[], object]) -> None:
    for _ in range(MOST_TURNS):
        if is_there():
            return
        client.step(None)
    raise AssertionError(f"not within {MOST_TURNS} turns: {client!r}")


def begun(world: World, folder: Path, url: str, state: str, **options: Any) -> Scene:
    """Have a download with secrets come to a state, and look at it from there."""
    client = world.client(**options)
    header = {"Authorization": SECRET, "X-Key": SECRET}
    name = str(folder / "a")
    task = client.download_file(url=url, file_path=name, header=header, rate_limit=1e6, checksum=f"sha256:{'0' * 64}")
    until(client, lambda: task.state == state)
    return seen_from(client, task)


def queued(world: World, folder: Path, context: ssl.SSLContext) -> Scene:
    client = world.client(proxy=f"http://user:{SECRET}@proxy.example.org:3128")
    task = client.download_file(url=f"http://{GIVEN}", file_path=str(folder / "a"))
    return seen_from(client, task)


def connecting(world: World, folder: Path, context: ssl.SSLContext) -> Scene:
    world.listen(HOST, 80, connect="blackhole")
    client = world.client()
    task = client.download_file(url=f"http://{GIVEN}", sink=rawdl.MemorySink())
    until(client, lambda: world.seen("connect 10."))
    return seen_from(client, task)


def receiving(world: World, folder: Path, context: ssl.SSLContext) -> Scene:
    header = (("Set-Cookie", f"c={SECRET}"), ("Link", f"<http://x/?sig={SECRET}>; rel=x"))
    world.listen(HOST, 80, http_peer(Script(body=b"x" * 500_000, header=header)), link=Link(segment=1000))
    return begun(world, folder, f"http://{GIVEN}", "receiving")


def secured(world: World, folder: Path, context: ssl.SSLContext) -> Scene:
    world.listen(HOST, 443, http_peer(Script(body=b"x" * 500_000)), tls=context, link=Link(segment=1000))
    insecure = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    insecure.check_hostname, insecure.verify_mode = False, ssl.CERT_NONE
    return begun(world, folder, f"https://{GIVEN}", "receiving", tls=insecure)


def shared(world: World, folder: Path, context: ssl.SSLContext) -> Scene:
    bench = CrewBench(world, folder)
    client = world.client()
    attempt = bench.begin(client)
    until(client, lambda: len(world.conns) == 4)
    return seen_from(client, attempt.task)


def refused(world: World, folder: Path, context: ssl.SSLContext) -> Scene:
    client = world.client()
    task = client.download_file(url=f"http://user:{SECRET}@/a", sink=rawdl.DiscardSink())
    return seen_from(client, task)


PART = r"<PartFile \S+a\.part open, \d+ bytes>"
SCENES: dict[Callable[..., Scene], dict[str, str]] = {
    queued: {
        "Client": r"<Client 1 tasks, <Pool 0 in use, 0 idle, 1 waiting>>",
        "Destination": r"<Destination \S+a \(overwrite\) claimed>",
        "Download": rf"<Download {SHOWN} queued>",
        "DownloadTask": rf"<DownloadTask {SHOWN} queued>",
        "Driver": r"<Driver free>",
        "Loop": r"<Loop 1 watched, 0 timers, 1 pending>",
        "PartFile": r"<PartFile \S+a\.part closed, 0 bytes>",
        "Proxy": r"Proxy\('http://\*\*\*@proxy\.example\.org:3128'\)",
        "Retrieval": rf"<Retrieval {SHOWN}, 0 bytes there, nothing under way>",
        "Slot": r"<Slot 1 for http://example\.org:80 waiting>",
        "Telling": r"<Telling 0 bytes, before the head>",
    },
    connecting: {
        "Alarm": r"<Alarm connect>",
        "Dial": r"<Dial http://example\.org:80: no answer yet from 10\.\S+:80>",
        "Fetch": rf"<Fetch {SHOWN} connect, 0 bytes>",
        "MemorySink": r"<MemorySink 0 bytes>",
        "Timer": r"<Timer at \d+\.\d{3}>",
    },
    receiving: {
        "Connection": r"<Connection 10\.\S+:80 open, 1 exchanges>",
        "Course": rf"<Course {SHOWN} from 0 of 500000 bytes>",
        "DownloadTask": rf"<DownloadTask {SHOWN} receiving \d+ bytes>",
        "Exchange": r"<Exchange GET /a\?token=\*\*\* body content-length \d+/500000>",
        "Fetch": rf"<Fetch {SHOWN} idle, \d+ bytes>",
        "Headers": r"Headers\(\[.*'Set-Cookie', '\*\*\*'.*\)",
        "HashingTee": rf"<HashingTee sha256 to {PART}>",
        "Job": rf"<Job <Request GET URL\('{SHOWN}'\)> to {PART}>",
        "Lanes": r"<Lanes of 10\.\S+:80 through the buffer>",
        "Ledger": r"<Ledger of \S+a\.part, 0 bytes saved>",
        "Retrieval": rf"<Retrieval {SHOWN}, \d+ bytes there, <Fetch {SHOWN} idle, \d+ bytes>>",
        "Store": rf"<Store {PART}, resumed from 0>",
        "Telling": r"<Telling \d+ bytes, after the head>",
        "Throttle": r"<Throttle open>",
        "Verification": r"<Verification against sha256:0{64}>",
        "Watch": r"<Watch of \d+ for read>",
        "_Host": r"<_Host 1 in use, 0 idle, 0 waiting>",
    },
    secured: {
        "Fetch": rf"<Fetch {SECURE} idle, \d+ bytes>",
        "Slot": r"<Slot 1 for https://example\.org:443 held>",
        "TLSConnection": r"<TLSConnection 10\.\S+:443 open, 1 exchanges>",
    },
    shared: {
        "Crew": rf"<Crew 4 of 4, <Plan \d+/{len(BODY)} live=\[.*\]>>",
        "Member": rf"<Member http://{HOST}\S* <Segment \d+-\d+ at \d+>, answered>",
        "SegmentSink": r"<SegmentSink <Segment \d+-\d+ at \d+>>",
    },
    refused: {"Refusal": r"<Refusal http://\*\*\*@/a: .*>"},
}


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.mark.parametrize("build", SCENES, ids=lambda build: build.__name__)
def test_what_is_at_work_tells_its_state_and_no_secret(
    build: Callable[..., Scene], world: World, tmp_path: Path, server_context: ssl.SSLContext
) -> None:
    scene = build(world, tmp_path, server_context)
    for name, expected in SCENES[build].items():
        shown = [repr(thing) for thing in scene[name]]
        assert any(re.fullmatch(expected, text) for text in shown), shown
    for name, things in scene.items():
        for thing in things:
            assert SECRET not in repr(thing)
            assert name in MUTE or not re.match(r"<\S+ object at ", repr(thing)), "it does not tell its state"


@pytest.mark.parametrize(
    ("thing", "shown"),
    [
        (Watch(types.SimpleNamespace(fileno=lambda: 7), READ | WRITE, print), "<Watch of 7 for read and write>"),
        (Watch(types.SimpleNamespace(fileno=lambda: 7), 0, print), "<Watch of 7 for nothing>"),
        (rawdl.DiscardSink(), "<DiscardSink closed>"),
        (rawdl.MemorySink(), "<MemorySink 0 bytes>"),
        (as_sink(print), "<CallableSink to print>"),
        (as_sink(types.SimpleNamespace(write=print)), "<WritableSink to SimpleNamespace>"),
        (LimitedSink(as_sink(print), 9, 2), "<LimitedSink 7 bytes left to <CallableSink to print>>"),
        (DecodingSink(as_sink(print), None), "<DecodingSink to <CallableSink to print>>"),
        (TemporaryFile(None, ".iso"), "<TemporaryFile without a name closed>"),
        (rawdl.TLS(key_password=SECRET, client_cert="a.pem"), "TLS(ca_file=None, ca_dir=None, client_cert='a.pem', "),
        (rawdl.BasicAuth("user", SECRET), "BasicAuth('user', '***')"),
        (rawdl.DigestAuth("user", SECRET), "DigestAuth('user', '***')"),
        (rawdl.BearerAuth(SECRET), "BearerAuth('***')"),
        (rawdl.Retry(attempts=2), "Retry(attempts=2, "),
        (rawdl.Redirects(limit=2), "Redirects(limit=2, "),
        (rawdl.LowSpeed(10, 5), "LowSpeed(bytes_per_second=10"),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_can_be_made_without_a_client(thing: object, shown: str) -> None:
    assert repr(thing).startswith(shown)
    assert SECRET not in repr(thing)


@pytest.mark.parametrize("name", sorted(name for name, value in vars(errors).items() if isinstance(value, type)))
def test_an_error_shows_its_class_and_what_happened(name: str) -> None:
    details = {
        "ChecksumError": {"expected": "a", "actual": "b"},
        "IncompleteBody": {"received": 1, "expected": 2},
        "StatusError": {"status_code": 404},
        "Timeout": {"phase": rawdl.Phase.IDLE},
        "TooLarge": {"limit": 5},
    }
    error = getattr(errors, name)("what happened", **details.get(name, {}))
    assert repr(error) == f"{name}('what happened')"


def test_a_client_and_a_task_that_have_ended(world: World) -> None:
    world.listen(HOST, 80, http_peer(Script(body=b"whole")))
    client = world.client()
    task = client.download_file(url=f"http://{GIVEN}", sink=rawdl.MemorySink())
    client.run()
    assert re.fullmatch(rf"<DownloadTask {SHOWN} completed 5 bytes>", repr(task))
    assert re.fullmatch(rf"<DownloadResult 200 {SHOWN} to a sink, 5 bytes>", repr(task.result()))
    client.close()
    assert repr(client) == "<Client closed, <Pool 0 in use, 0 idle, 0 waiting>>"
