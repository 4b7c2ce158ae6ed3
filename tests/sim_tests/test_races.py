"""Races: of addresses, of tasks for connections, and of abort() with everything else."""

from __future__ import annotations

import errno
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rawdl
from rawdl import TaskState
from tests.interruption import Interruption
from tests.sim import Conn, Link, Script, World, http_peer
from tests.sim_tests.fetch import ANSWERED, CONNECTED, DNS, HOST, LATENCY, SECURE_URL, URL, Fetch, assert_nothing_left

OK = Script(body=b"hello")
DELAY = 0.25  # seconds from one attempt to the next (RFC 8305 5)


# Happy eyeballs (RFC 8305)


def attempts(world: World) -> list[tuple[str, float]]:
    """Return which address was tried when, in seconds after the name was resolved."""
    tried = [(line.split()[2], when) for when, line in world.log if " connect " in line]
    return [(address.removesuffix(":80"), round(when - DNS, 6)) for address, when in tried]


def run(world: World, **options: Any) -> Fetch:
    client = world.client(**options)
    fetch = Fetch(client)
    client.run()
    assert_nothing_left(world, client, idle=len(world.sockets) if fetch.outcome[0] == "success" else 0)
    assert len(world.sockets) <= 1, "a loser of the race is open"
    return fetch


def test_the_families_take_turns_and_each_attempt_has_a_quarter_of_a_second():
    addresses = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2"]
    with World() as world:
        for address in addresses:
            world.listen(HOST, 80, address=address, connect="blackhole")
        error = run(world).error
        order = ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"]
        assert attempts(world) == [(address, n * DELAY) for n, address in enumerate(order)]
        assert isinstance(error, rawdl.Timeout)
        assert world.elapsed == pytest.approx(DNS + 10)
        assert len(world.seen("gave up")) == 5


def test_an_address_that_answers_in_time_is_the_only_one_tried():
    with World() as world:
        world.listen(HOST, 80, http_peer(OK), address="2001:db8::1", connect_delay=DELAY - 2 * LATENCY - 0.001)
        world.listen(HOST, 80, http_peer(OK), address="192.0.2.1")
        assert run(world).data == b"hello"
        assert attempts(world) == [("2001:db8::1", 0.0)]


def test_the_first_may_still_win_after_the_second_was_tried():
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"first")), address="2001:db8::1", connect_delay=0.3)
        world.listen(HOST, 80, http_peer(Script(body=b"second")), address="192.0.2.1", connect_delay=0.3)
        assert run(world).data == b"first"
        assert attempts(world) == [("2001:db8::1", 0.0), ("192.0.2.1", DELAY)]
        assert world.seen("c2 client gave up") == world.seen("c1 accepted") == [pytest.approx(CONNECTED + 0.3)]


def test_two_that_answer_in_one_moment_make_one_connection():
    with World() as world:
        world.listen(HOST, 80, http_peer(OK), address="2001:db8::1", connect_delay=DELAY)
        world.listen(HOST, 80, http_peer(OK), address="192.0.2.1")
        assert run(world).data == b"hello"
        assert world.seen("c1 accepted") == pytest.approx(world.seen("c2 accepted"))
        assert len(world.requests) == 1


def test_an_attempt_that_fails_lets_the_next_begin_at_once():
    with World() as world:
        world.listen(HOST, 80, address="2001:db8::1", connect="blackhole")
        world.listen(HOST, 80, address="192.0.2.1", connect=errno.EHOSTUNREACH, connect_delay=0.03)
        world.listen(HOST, 80, address="2001:db8::2", connect=errno.ENETUNREACH)
        world.listen(HOST, 80, http_peer(OK), address="192.0.2.2")
        assert run(world).data == b"hello"
        assert attempts(world) == [
            ("2001:db8::1", 0.0),
            ("192.0.2.1", DELAY),
            ("2001:db8::2", pytest.approx(DELAY + 0.05)),
            ("192.0.2.2", pytest.approx(DELAY + 0.05)),
        ]


def test_a_failure_after_all_were_tried_waits_for_the_others():
    with World() as world:
        world.listen(HOST, 80, http_peer(OK), address="2001:db8::1", connect_delay=3.0)
        world.listen(HOST, 80, address="192.0.2.1", connect="refuse")
        assert run(world).data == b"hello"
        assert world.elapsed == pytest.approx(ANSWERED + 3.0)


def test_the_last_failure_is_the_end():
    with World() as world:
        world.listen(HOST, 80, address="2001:db8::1", connect=errno.EHOSTUNREACH, connect_delay=3.0)
        world.listen(HOST, 80, address="192.0.2.1", connect="refuse")
        error = run(world).error
        assert isinstance(error, rawdl.ConnectError)
        assert world.elapsed == pytest.approx(CONNECTED + 3.0)
        assert "192.0.2.1:80" in str(error)
        assert "[2001:db8::1]:80" in str(error)


def test_an_abort_in_the_race_closes_every_runner():
    with World() as world:
        for n in range(1, 5):
            world.listen(HOST, 80, address=f"192.0.2.{n}", connect="blackhole")
        client = world.client()
        fetch = Fetch(client)
        world.drive(client, until=0.6)
        assert len(world.sockets) == 3
        fetch.task.abort()
        assert not world.sockets
        client.run()
        assert isinstance(fetch.error, rawdl.Aborted)
        world.wait()
        assert len(world.conns) == 3, "the fourth was tried after the abort"


# The queue (T39, S26)


class Served:
    """A peer that answers after a second, and counts how many connections it has at most."""

    def __init__(self) -> None:
        self.open = self.most = 0
        self.order: list[str] = []

    def __call__(self, conn: Conn) -> Iterator[Any]:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            while True:
                head = yield from conn.read_until(b"\r\n\r\n")
                self.order.append(head.split()[1].decode().removeprefix("/"))
                yield 1.0
                conn.send(OK.wire)
        finally:
            self.open -= 1


def starts(fetch: Fetch) -> int:
    """Return when the task left the queue, in milliseconds of its profile."""
    return fetch.result.profile.queue_end - fetch.result.profile.queue_start


def test_T39_first_come_first_served():
    with World() as world:
        served = Served()
        world.listen(HOST, 80, served)
        client = world.client(max_concurrent=1)
        fetches = [Fetch(client, f"http://{HOST}/{n}") for n in range(20)]
        client.run()
        assert served.order == [str(n) for n in range(20)]
        assert [fetch.result.data_length for fetch in fetches] == [5] * 20
        assert served.most == 1


@pytest.mark.parametrize(("concurrent", "per_host"), [(10, 6), (4, 6), (100, 6), (7, 1)])
def test_T39_no_more_than_the_limits(concurrent: int, per_host: int):
    """Three hosts, sixty tasks: what is in flight is as much as the limits allow, and no more."""
    with World() as world:
        hosts = {f"{name}.example.org": Served() for name in "abc"}
        for host, served in hosts.items():
            world.listen(host, 80, served)
        client = world.client(max_concurrent=concurrent, max_per_host=per_host)
        fetches = [Fetch(client, f"http://{host}/{n}") for n in range(20) for host in hosts]
        most = 0
        while client.step(None):
            in_flight = sum(fetch.task.state not in (TaskState.QUEUED, TaskState.COMPLETED) for fetch in fetches)
            most = max(most, in_flight)
        assert most == min(concurrent, 3 * per_host)
        assert {served.most for served in hosts.values()} <= set(range(1, per_host + 1))
        assert all(fetch.result.data_length == 5 for fetch in fetches)
        for served in hosts.values():
            assert all(abs(place - int(name)) < per_host for place, name in enumerate(served.order))


def test_T39_the_defaults_are_ten_and_six():
    with World() as world:
        hosts = {f"{name}.example.org": Served() for name in "abc"}
        for host, served in hosts.items():
            world.listen(host, 80, served)
        client = world.client()
        for n in range(10):
            for host in hosts:
                Fetch(client, f"http://{host}/{n}")
        Fetch(client, "http://a.example.org/last")
        world.drive(client, until=0.5)
        assert repr(client) == "<Client 31 tasks, <Pool 10 in use, 0 idle, 21 waiting>>"
        for served in hosts.values():
            assert served.most <= 6
        client.run()


@pytest.mark.contract("S26", "T39")
def test_S26_a_task_that_waits_for_its_host_does_not_hold_up_another_host():
    with World() as world:
        slow, quick = Served(), Served()
        world.listen("slow.example.org", 80, slow)
        world.listen("quick.example.org", 80, quick)
        client = world.client(max_concurrent=4, max_per_host=2)
        waiting = [Fetch(client, f"http://slow.example.org/{n}") for n in range(8)]
        last = [Fetch(client, f"http://quick.example.org/{n}") for n in range(2)]
        client.run()
        assert [starts(fetch) for fetch in last] == [0, 0]
        assert [starts(fetch) // 1000 for fetch in waiting] == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.contract("T39", "T30")
def test_T39_tasks_may_be_aborted_in_the_queue():
    with World() as world:
        served = Served()
        world.listen(HOST, 80, served)
        client = world.client(max_concurrent=1)
        fetches = [Fetch(client, f"http://{HOST}/{n}") for n in range(10)]
        for n in (1, 2, 5, 9):
            world.drive(client, until=world.elapsed + 0.3)
            fetches[n].task.abort()
        client.run()
        assert served.order == ["0", "3", "4", "6", "7", "8"]
        assert [n for n in range(10) if isinstance(fetches[n].end, rawdl.Aborted)] == [1, 2, 5, 9]
        assert_nothing_left(world, client, idle=1)


@pytest.mark.contract("T33", "T39")
def test_T33_an_abort_gives_its_place_to_the_next_and_disturbs_nobody():
    with World() as world:
        world.listen(HOST, 80, http_peer(lambda request: Script(body=request.path.encode(), head_delay=1.0)))
        client = world.client(max_concurrent=20, max_per_host=20)
        fetches = [Fetch(client, f"http://{HOST}/{n}") for n in range(100)]
        for n in range(0, 100, 3):
            world.after(0.06 * n, fetches[n].task.abort)
        client.run()
        for n, fetch in enumerate(fetches):
            if isinstance(fetch.end, rawdl.Aborted):
                assert n % 3 == 0
            else:
                assert fetch.data == b"/%d" % n
        assert sum(isinstance(fetch.end, rawdl.Aborted) for fetch in fetches) > 10


# abort() against everything else (T28-T32, S8)


class Scene:
    """One download, over plain TCP or TLS, on a new connection or a reused one; ready to be driven, turn by turn."""

    def __init__(self, world: World, site: Site, folder: Path) -> None:
        script = Script(body=b"x" * 400, chunk=100, pace=2000, framing="chunked")
        port, link = (443 if site.tls else 80), Link(send_window=site.send_window)
        world.listen(HOST, port, http_peer({"/warm-up": OK, "*": script}), tls=site.tls, link=link)
        self.world, self.path = world, folder / "a"
        self.client = world.client(tls=site.trusting)
        self.url = SECURE_URL if site.tls else URL
        if site.reused:
            Fetch(self.client, self.url.replace("/a", "/warm-up"))
            self.client.run()
            assert len(world.sockets) == 1
        self.fetch = Fetch(self.client, self.url, file_path=self.path, progress_interval=0)

    def check(self, *, aborted: bool) -> None:
        """Look at the end: one outcome, as `aborted` says; no socket in use, and no file but a whole one."""
        end = self.fetch.end
        assert isinstance(end, rawdl.Aborted) == aborted
        if aborted:
            assert end.err_msg == "downloadFile:fail abort"
            assert list(self.path.parent.iterdir()) == []
        else:
            assert isinstance(end, rawdl.DownloadResult)
            assert self.path.read_bytes() == b"x" * 400
            self.path.unlink()
        assert_nothing_left(self.world, self.client, idle=len(self.world.sockets))
        assert len(self.world.sockets) <= 1


class Site:
    """Where a scene plays."""

    def __init__(self, name: str, server: ssl.SSLContext, ca_file: Path) -> None:
        self.tls = server if "https" in name else None
        self.reused = "reused" in name
        self.send_window = 40 if "blocked" in name else 65536
        self.trusting = ssl.create_default_context(cafile=str(ca_file))


SITES = ["http", "http reused", "http blocked", "https", "https reused"]


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest, server_context: ssl.SSLContext, ca_file: Path) -> Site:
    return Site(request.param, server_context, ca_file)


def each_turn(site: Site, folder: Path, interfere: Callable[[Scene, int], None]) -> Iterator[Scene]:
    """Play the scene again and again; the n-th time, drive it for n turns and interfere.  Stop when it ends before."""
    for turn in range(1000):
        with World() as world:
            scene = Scene(world, site, folder)
            for _ in range(turn):
                scene.client.step(None)
            if scene.fetch.task.done():
                scene.check(aborted=False)
                assert turn > 8, "that was no test"
                return
            interfere(scene, turn)
            scene.client.run()
            yield scene
    raise AssertionError("it never ended")


@pytest.mark.contract("T28", "T29", "T30", "T31", "T32", "S8", "I1", "I8")
def test_T28_abort_between_turns(site: Site, tmp_path: Path):
    """Nobody drives then: the socket is closed when abort() returns, and the rest waits for the next turn."""
    states = set()

    def interfere(scene: Scene, turn: int) -> None:
        task, told = scene.fetch.task, len(scene.fetch.events)
        states.add(task.state)
        idle = int(site.reused and task.state is TaskState.QUEUED)
        for _ in range(3):
            assert task.abort() is None
            assert len(scene.world.sockets) == idle
            assert (task.state, task.done()) == (TaskState.ABORTED, False)
            assert len(scene.fetch.events) == told
            assert list(scene.path.parent.iterdir()) == []
        scene.client.step(0)
        assert task.done()
        assert scene.fetch.names[told:] == ["fail", "complete"]
        task.abort()

    for scene in each_turn(site, tmp_path, interfere):
        scene.check(aborted=True)
    assert {TaskState.QUEUED, TaskState.WAITING, TaskState.RECEIVING} <= states
    assert site.reused or TaskState.CONNECTING in states


@pytest.mark.contract("T28", "T29", "T30", "T31", "T32", "S8")
@pytest.mark.parametrize("late", [0.0, 0.02], ids=["alone", "with data"])
def test_T31_abort_by_a_signal_handler_in_select(site: Site, late: float, tmp_path: Path):
    """Its turn closes the socket, and whatever that turn had to tell, of what has come as well, is not told."""

    def interfere(scene: Scene, turn: int) -> None:
        task, told = scene.fetch.task, len(scene.fetch.events)
        idle = int(site.reused and task.state is TaskState.QUEUED)
        scene.world.wait(late)
        scene.world.interrupt(0, task.abort)
        scene.client.step(None)
        assert len(scene.world.sockets) == idle
        assert task.state is TaskState.ABORTED
        assert scene.fetch.names[told:] in ([], ["fail", "complete"])
        scene.client.step(0)
        assert task.done()
        assert scene.fetch.names[told:] == ["fail", "complete"]

    for scene in each_turn(site, tmp_path, interfere):
        scene.check(aborted=True)


@pytest.mark.contract("T9", "T20", "T28", "T29", "T31")
@pytest.mark.parametrize("name", ["headers", "progress"])
def test_T28_abort_in_each_call_of_a_listener(site: Site, name: str, tmp_path: Path):
    calls = 0
    for number in range(1000):
        with World() as world:
            scene = Scene(world, site, tmp_path)
            seen = abort_in_call(scene, name, number)
            scene.client.run()
            calls = scene.fetch.names.count(name)
            scene.check(aborted=calls == number + 1)
            if calls <= number:
                break
            assert seen == [(TaskState.ABORTED, False, 0)]
            assert scene.fetch.names[-3:] == [name, "fail", "complete"], "something followed the abort"
    assert calls == (1 if name == "headers" else number)
    assert name == "headers" or calls > 3


def abort_in_call(scene: Scene, name: str, number: int) -> list[tuple[TaskState, bool, int]]:
    """Abort in that call of that listener, counted from 0; return what is then to be seen of task and sockets."""

    def listener(event: Any) -> None:
        if scene.fetch.names.count(name) == number + 1:
            task = scene.fetch.task
            task.abort()
            seen.append((task.state, task.done(), len(scene.world.sockets)))
            task.abort()

    seen: list[tuple[TaskState, bool, int]] = []
    scene.fetch.react(name, listener)
    return seen


@pytest.mark.contract("T18", "T31")
@pytest.mark.parametrize("name", ["headers", "progress"])
def test_T31_after_an_abort_in_one_listener_the_next_is_not_called(name: str):
    with World() as world:
        world.listen(HOST, 80, http_peer(OK))
        client = world.client()
        fetch = Fetch(client)
        fetch.react(name, lambda event: fetch.task.abort())
        add = fetch.task.on_headers_received if name == "headers" else fetch.task.on_progress_update
        called: list[object] = []
        add(called.append)
        client.run()
        assert isinstance(fetch.error, rawdl.Aborted)
        assert called == []


@pytest.mark.contract("T29", "T30")
@pytest.mark.parametrize("name", ["success", "complete"])
def test_T29_abort_after_the_end_does_nothing(site: Site, name: str, tmp_path: Path):
    with World() as world:
        scene = Scene(world, site, tmp_path)
        scene.fetch.react(name, lambda end: scene.fetch.task.abort())
        scene.client.run()
        scene.fetch.task.abort()
        scene.client.run()
        scene.check(aborted=False)


@pytest.mark.contract("T9")
def test_T9_no_byte_reaches_the_sink_after_an_abort_in_a_header_listener():
    with World() as world:
        world.listen(HOST, 80, http_peer(OK))
        client = world.client()
        fetch = Fetch(client)
        fetch.react("headers", lambda event: fetch.task.abort())
        client.run()
        assert isinstance(fetch.error, rawdl.Aborted)
        assert fetch.data == b""
        assert fetch.names == ["headers", "fail", "complete"]


@pytest.mark.contract("T28", "T30")
def test_abort_inside_a_sink():
    """The rest of what was read may still be handed out, but it is no success, and nothing is told."""
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"x" * 100_000)))
        client = world.client()
        fetch = Fetch(client, sink=lambda data: fetch.task.abort())
        client.run()
        assert isinstance(fetch.error, rawdl.Aborted)
        assert fetch.names in (["headers", "fail", "complete"], ["fail", "complete"])
        assert not world.sockets


@pytest.mark.contract("T28", "T29", "T30", "T32", "I8", "K10")
@pytest.mark.parametrize("stride", range(4))
def test_T28_abort_by_a_signal_handler_at_any_line(site: Site, stride: int, tmp_path: Path):
    """Whatever the line, the outcome is one: aborted with nothing left, or success with a whole file."""
    lines = lines_of_a_run(site, tmp_path)
    aborted = [abort_at_line(site, line, tmp_path) for line in range(1 + stride * 7, lines, 4 * 7)]
    assert aborted.count(True) > 10


@pytest.mark.contract("T28", "T29", "T30", "T32", "I1", "K10")
@pytest.mark.parametrize("site", ["http", "http reused", "http blocked"], indirect=True)
def test_T30_abort_by_a_signal_handler_at_each_of_the_last_lines(site: Site, tmp_path: Path):
    """Here the outcome is decided, once: before the decision it is an abort, and from then on a success."""
    lines = lines_of_a_run(site, tmp_path)
    aborted = [abort_at_line(site, line, tmp_path) for line in range(lines - 260, lines + 1)]
    assert aborted[0] is True
    assert aborted[-1] is False
    assert aborted == sorted(aborted, reverse=True)


def lines_of_a_run(site: Site, folder: Path) -> int:
    with World() as world:
        scene = Scene(world, site, folder)
        with Interruption(sys.maxsize, scene.fetch.task.abort) as interruption:
            scene.client.run()
        scene.check(aborted=False)
        return sys.maxsize - interruption.left


def abort_at_line(site: Site, line: int, folder: Path) -> bool:
    """Play the scene, abort at that line, and look at the end; return whether it was an abort."""
    with World() as world:
        scene = Scene(world, site, folder)
        with Interruption(line, scene.fetch.task.abort) as interruption:
            scene.client.run()
        aborted = isinstance(scene.fetch.end, rawdl.Aborted)
        try:
            scene.check(aborted=aborted)
        except AssertionError as error:
            raise AssertionError(f"aborted at {interruption.where} (line {line} of the run)") from error
    return aborted


# More than one client


@pytest.mark.contract("I8")
def test_two_clients_in_one_world_do_not_disturb_each_other():
    """One aborts, times out and closes; the other goes on, and neither sees a connection of the other's."""
    with World() as world:
        world.listen(HOST, 80, http_peer(lambda request: Script(body=request.path.encode() * 50, pace=500)))
        first, second = world.client(), world.client()
        calm = [Fetch(second, f"http://{HOST}/second/{n}") for n in range(8)]
        wild = [Fetch(first, f"http://{HOST}/first/{n}", timeout=0.1 + n / 4) for n in range(8)]
        for turn in range(10_000):
            for client in (first, second):
                if turn < 200 or client is second:
                    client.step(0)
            if turn == 100:
                wild[0].task.abort()
            if turn == 200:
                first.close()
            if all(fetch.task.done() for fetch in calm):
                break
            deadlines = [client.next_deadline() for client in ((first, second) if turn < 200 else (second,))]
            world.advance(min(when for when in deadlines if when is not None))
        for n, fetch in enumerate(calm):
            assert fetch.data == b"/second/%d" % n * 50
        assert all(fetch.task.done() for fetch in wild)
        owners = [{request.path.split("/")[1] for request in world.requests if request.connection == conn.number}
                  for conn in world.conns]  # fmt: skip
        assert all(len(owner) <= 1 for owner in owners)
        assert {"first"} in owners
        assert {"second"} in owners


@pytest.mark.contract("S6", "T27")
def test_closing_one_client_in_any_turn_aborts_its_tasks(tmp_path: Path):
    for turn in range(40):
        with World() as world:
            world.listen(HOST, 80, http_peer(Script(body=b"x" * 1000, pace=5000)))
            client = world.client(max_concurrent=2)
            fetches = [Fetch(client, file_path=tmp_path / str(n)) for n in range(4)]
            for _ in range(turn):
                if not client.step(None):
                    break
            client.close()
            assert not world.sockets
            for n, fetch in enumerate(fetches):
                if isinstance(fetch.end, rawdl.DownloadResult):
                    (tmp_path / str(n)).unlink()
                else:
                    assert isinstance(fetch.error, rawdl.Aborted)
            assert list(tmp_path.iterdir()) == []
