"""Random worlds: links, servers, faults, limits and aborts drawn by a seed; what must hold in all of them."""

from __future__ import annotations

import random
import ssl
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import rawdl
from rawdl import TaskState
from tests.sim import Link, Script, Selector, World, http_peer, seeds
from tests.sim_tests.fetch import Fetch, assert_nothing_left

TASKS = 20
PATIENCE = 3600.0  # virtual seconds after which every limit has long run out
OUTCOMES = (
    rawdl.Aborted,
    rawdl.ConnectError,
    rawdl.ConnectionLost,
    rawdl.IncompleteBody,
    rawdl.IncompleteHead,
    rawdl.ResolveError,
    rawdl.StorageError,
    rawdl.StatusError,
    rawdl.TLSError,
    rawdl.Timeout,
    rawdl.TooLarge,
)


class Foreign(Selector):
    """A selector that tells, without waiting, whether a poll of its descriptor would."""

    def fileno(self) -> int:
        return 0  # for a loop that asks `readable` instead

    def readable(self) -> bool:
        return bool(self._ready())


def nest(world: World, client: rawdl.Client, selector: Foreign) -> None:
    """Drive as somebody else's loop does: step when the descriptor is readable or the deadline due, else let time pass.

    A client that wants a step for any other reason stands still here, and the world says so.
    """
    client.fileno()
    left = True
    while left:
        deadline = client.next_deadline()
        if selector.readable() or (deadline is not None and deadline <= world.now):
            left = client.step(0)
        else:
            world.advance(deadline)


def drive(world: World, client: rawdl.Client, nested: bool) -> None:
    if nested:
        selector = world.selectors[-1]
        assert isinstance(selector, Foreign)
        nest(world, client, selector)
    else:
        client.run()


def client_in(world: World, nested: bool, **options: object) -> rawdl.Client:
    client_selector: dict[str, object] = {}
    if nested:
        client_selector["selector"] = Foreign(world)
    client = world.client(**client_selector, **options)
    if nested:
        world.selectors.append(client_selector["selector"])
    return client


# What a server may do


def random_body(draw: random.Random) -> bytes:
    return draw.randbytes(draw.choice([0, 1, 10, 300, 3000, 9000]))


def random_script(draw: random.Random) -> Script:
    """Draw a response, which may be slow, falls silent or is cut in a third of the cases."""
    framing = draw.choice(["content-length", "content-length", "chunked", "until-close"])
    script = Script(
        status=draw.choice([200, 200, 200, 404, 503]),
        body=random_body(draw),
        framing=framing,
        chunk=draw.choice([7, 1000, 16384]),
        trailer=draw.choice([(), (("X-Sum", "1"),)]) if framing == "chunked" else (),
        informational=draw.choice([(), (), (b"HTTP/1.1 103 Early Hints\r\n\r\n",)]),
        head_delay=draw.choice([0.0, 0.0, 0.5, 20.0]),
        keep_alive=draw.random() < 0.7,
        close_notify=draw.random() < 0.7,
    )
    fault = draw.choice(["none", "none", "none", "cut", "cut", "stall", "endless stall"])
    at = draw.randint(0, len(script.wire))
    if fault == "cut":
        return replace(script, cut_at=at, cut=draw.choice(["fin", "rst"]))
    if fault == "stall":
        return replace(script, stall_at=at, stall_for=draw.choice([1.0, 59.0, 61.0]))
    if fault == "endless stall":
        return replace(script, stall_at=at)
    return script


class Town:
    """Some hosts, each with its own link and its own scripts, one for each task."""

    def __init__(self, world: World, draw: random.Random, tls: ssl.SSLContext, links: Callable[[], Link]) -> None:
        self.scripts: dict[str, Script] = {}
        self.urls: list[str] = []
        for name in "abcd":
            host, secure = f"{name}.example.org", draw.random() < 0.3
            link, connect = links(), "accept"
            if name == "d":
                connect = draw.choice(["accept", "refuse", "blackhole"])
            peer = http_peer(lambda request: self.scripts[request.path])
            port, context = (443, tls) if secure else (80, None)
            if draw.random() < 0.3:
                world.listen(host, port, address=f"2001:db8::{ord(name)}", connect=draw.choice(["blackhole", "refuse"]))
            world.listen(host, port, peer, address=f"192.0.2.{ord(name)}", link=link, tls=context, connect=connect)
            world.name(host).delay = draw.choice([0.0, 0.005, 2.0])
            self.urls.append(f"{'https' if secure else 'http'}://{host}")

    def add(self, draw: random.Random, number: int) -> tuple[str, Script]:
        path = f"/{number}"
        self.scripts[path] = random_script(draw)
        return draw.choice(self.urls) + path, self.scripts[path]


# All kinds of disorder at once


@pytest.mark.contract("I1", "I2", "I7", "I8", "I9", "S1", "T21", "T33", "N20")
@pytest.mark.parametrize("nested", [False, True], ids=["run", "nested"])
@seeds(40)
def test_a_random_world(seed: int, nested: bool, server_context: ssl.SSLContext, ca_file: Path, tmp_path: Path):
    draw = random.Random(seed)
    with World(seed, spurious=draw.choice([0.0, 0.1])) as world:
        town = Town(world, draw, server_context, world.random_link)
        client = client_in(
            world,
            nested,
            tls=ssl.create_default_context(cafile=str(ca_file)),
            max_concurrent=draw.choice([1, 3, 10, 50]),
            max_per_host=draw.choice([1, 2, 6]),
            buffer_size=draw.choice([4096, 65536, 262144]),
        )
        jobs = [Job(client, town, draw, number, tmp_path) for number in range(TASKS)]
        for job in jobs:
            job.plan_abort(world, draw)
        drive(world, client, nested)
        assert world.elapsed < PATIENCE * TASKS
        for job in jobs:
            job.check()
        assert_nothing_left(world, client, idle=len(world.sockets))
        assert len(world.sockets) <= 100
    assert sorted(tmp_path.iterdir()) == sorted(job.path for job in jobs if job.succeeded and job.path)


class Job:
    """One download of a random world: its task, and what may become of it."""

    def __init__(self, client: rawdl.Client, town: Town, draw: random.Random, number: int, folder: Path) -> None:
        url, self.script = town.add(draw, number)
        self.secure = url.startswith("https")
        self.path = folder / str(number) if draw.random() < 0.5 else None
        self.may_be_aborted = False
        self.limited = draw.random() < 0.2
        options: dict[str, object] = {}
        if self.path:
            options["file_path"] = self.path
        if self.limited:
            options |= draw.choice([{"timeout": draw.choice([0.05, 1.0, 30.0])}, {"limits": rawdl.Limits(body=5000)}])
        self.fetch = Fetch(client, url, progress_interval=draw.choice([0, 0.05]), **options)

    def plan_abort(self, world: World, draw: random.Random) -> None:
        how = draw.choice(["never", "never", "never", "at a time", "in a listener"])
        self.may_be_aborted = how != "never"
        if how == "at a time":
            world.interrupt(draw.choice([0.0, 0.01, 0.1, 3.0, 30.0]), self.fetch.task.abort)
        elif how == "in a listener":
            self.fetch.react(draw.choice(["headers", "progress"]), lambda event: self.fetch.task.abort())

    @property
    def succeeded(self) -> bool:
        return isinstance(self.fetch.end, rawdl.DownloadResult)

    def check(self) -> None:
        """See that it succeeded only with all of the body, and failed only with a reason."""
        end, body = self.fetch.end, self.script.body
        assert isinstance(body, bytes)
        if isinstance(end, rawdl.DownloadResult):
            self.check_success(end, body)
            return
        assert type(end) in OUTCOMES, repr(end)
        assert body.startswith(bytes(self.fetch.data))
        assert not isinstance(end, rawdl.Aborted) or self.may_be_aborted

    def check_success(self, result: rawdl.DownloadResult, body: bytes) -> None:
        got = self.path.read_bytes() if self.path else bytes(self.fetch.data)
        assert result.status_code == self.script.status
        assert result.data_length == len(got)
        if (
            self.script.framing == "until-close"
            and self.script.cut == "fin"
            and self.script.close_notify >= self.secure
        ):
            assert body.startswith(got)  # nobody could have known that it was cut
            assert result.length_known is False
        else:
            assert got == body


# The same world, driven in two ways


@pytest.mark.contract("S1", "S2")
@seeds(20)
def test_a_foreign_loop_ends_the_same(seed: int, server_context: ssl.SSLContext, ca_file: Path):
    """Nothing is left to the moment here: each outcome follows from what the task's own server does."""
    ends = [outcomes(seed, nested, server_context, ca_file) for nested in (False, True)]
    assert ends[0] == ends[1]
    assert len({end[0] for end in ends[0]}) > 1


def outcomes(
    seed: int, nested: bool, tls: ssl.SSLContext, ca_file: Path
) -> list[tuple[str, str | None, bytes, list[str]]]:
    draw = random.Random(seed)
    with World(seed) as world:
        town = Town(world, draw, tls, lambda: Link(segment=draw.choice([100, 1460, 16384]), latency=0.02))
        client = client_in(world, nested, tls=ssl.create_default_context(cafile=str(ca_file)), max_per_host=TASKS)
        fetches = []
        for number in range(TASKS):
            fetch = Fetch(client, town.add(draw, number)[0])
            if draw.random() < 0.2:
                fetch.react(draw.choice(["headers", "progress"]), lambda event, fetch=fetch: fetch.task.abort())
            fetches.append(fetch)
        drive(world, client, nested)
        return [told(fetch) for fetch in fetches]


def told(fetch: Fetch) -> tuple[str, str | None, bytes, list[str]]:
    """Return how a task ended; of its events those whose number does not depend on when who looked."""
    end = fetch.end
    phase = end.phase if isinstance(end, rawdl.Timeout) else None
    data = b"" if isinstance(end, rawdl.Aborted) else bytes(fetch.data)
    return type(end).__name__, phase, data, [name for name in fetch.names if name != "progress"]


@pytest.mark.contract("S1")
@pytest.mark.parametrize("moment", ["before", "in the queue", "while resolving", "in the body", "idle"])
def test_S1_a_call_from_outside_is_told_to_a_foreign_loop(moment: str):
    """A download, an abort or a close between its turns makes the descriptor readable, or the deadline due."""
    with World() as world:
        world.listen("example.org", 80, http_peer(Script(body=b"x" * 100, head_delay=1.0)))
        selector = Foreign(world)
        world.selectors.append(selector)
        client = world.client(selector=selector, max_concurrent=1)
        client.fileno()
        first = Fetch(client)
        seconds = {"before": 0.0, "in the queue": 0.5, "while resolving": 0.002, "in the body": 1.04, "idle": 3.0}
        world.after(seconds[moment], lambda: None)
        while world.elapsed < seconds[moment]:
            foreign_turn(world, client, selector)
        second = Fetch(client)
        assert wants_a_step(world, client, selector) or client.next_deadline() is not None
        second.task.abort()
        assert wants_a_step(world, client, selector)
        for _ in range(1000):
            if first.task.done() and second.task.done():
                break
            foreign_turn(world, client, selector)
        assert isinstance(second.error, rawdl.Aborted)
        assert first.result.data_length == 100


def wants_a_step(world: World, client: rawdl.Client, selector: Foreign) -> bool:
    deadline = client.next_deadline()
    return selector.readable() or (deadline is not None and deadline <= world.now)


def foreign_turn(world: World, client: rawdl.Client, selector: Foreign) -> None:
    if wants_a_step(world, client, selector):
        client.step(0)
    else:
        world.advance(client.next_deadline())


@pytest.mark.contract("S1", "S7")
def test_S1_a_client_at_rest_wants_no_step():
    with World() as world:
        world.listen("example.org", 80, http_peer(Script(body=b"x")))
        selector = Foreign(world)
        world.selectors.append(selector)
        client = world.client(selector=selector)
        client.fileno()
        assert not wants_a_step(world, client, selector)
        fetch = Fetch(client)
        nest(world, client, selector)
        assert fetch.result.data_length == 1
        for _ in range(3):  # what was woken may be woken once more for nothing
            if wants_a_step(world, client, selector):
                client.step(0)
        assert not wants_a_step(world, client, selector)


# Memory (I6)


@pytest.mark.contract("I6", "T44")
@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
def test_I6_memory_does_not_grow_with_the_body(framing: str):
    piece = b"x" * 65536
    peaks = [peak_of(Script(body=[piece] * n, content_length=n * 65536, framing=framing)) for n in (8, 256)]
    assert peaks[1] - peaks[0] < 262_144


def peak_of(script: Script) -> int:
    """Return the most memory that a download takes, the buffers of the simulated network included."""
    with World() as world:
        world.listen("example.org", 80, http_peer(script), link=Link(window=65536))
        client = world.client(buffer_size=65536)
        fetch = Fetch(client, sink=rawdl.DiscardSink(), progress_interval=3600)
        tracemalloc.start()
        try:
            client.run()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            assert fetch.task.state is TaskState.COMPLETED


@pytest.mark.contract("I6")
@pytest.mark.parametrize(
    "flood",
    [
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"X: y\r\n",
        b"x" * 100,
    ],
)
def test_I6_memory_does_not_grow_with_a_flood_of_heads(flood: bytes):
    def peer(conn) -> Iterator[object]:
        yield from conn.read_until(b"\r\n\r\n")
        conn.send(b"" if flood.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\n")
        while True:
            yield from conn.write(flood * 100)

    with World() as world:
        world.listen("example.org", 80, peer)
        client = world.client(buffer_size=4096)
        fetch = Fetch(client)
        tracemalloc.start()
        try:
            client.run()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert isinstance(fetch.error, rawdl.ProtocolError)
        assert peak < 2_000_000
