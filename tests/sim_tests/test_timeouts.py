"""Time limits, to the virtual millisecond."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

import rawdl
from rawdl import Phase, Timeouts
from tests.sim import Conn, Link, Script, World, http_peer
from tests.sim_tests.fetch import ANSWERED, CONNECTED, DNS, HOST, LATENCY, SECURE_URL, URL, Fetch, assert_nothing_left

NEVER = Timeouts(resolve=None, connect=None, tls=None, send=None, head=None, idle=None)
DAY = 86400.0

# Each makes a world in which a download gets as far as one phase and no further, and returns when that begins.


def stuck_in_resolve(world: World, tls: ssl.SSLContext) -> float:
    world.listen(HOST, 80)
    world.name(HOST).silent = True
    return 0.0


def stuck_in_connect(world: World, tls: ssl.SSLContext) -> float:
    world.listen(HOST, 80, connect="blackhole")
    return DNS


def stuck_in_tls(world: World, tls: ssl.SSLContext) -> float:
    world.listen(HOST, 443, http_peer(Script()), tls=tls, link=Link(stall_at=700))
    return CONNECTED


def stuck_in_send(world: World, tls: ssl.SSLContext) -> float:
    world.listen(HOST, 80, link=Link(send_window=20, deaf=True))
    return CONNECTED


def stuck_in_head(world: World, tls: ssl.SSLContext) -> float:
    world.listen(HOST, 80, http_peer(Script(stall_at=20)))
    return CONNECTED


def stuck_in_body(world: World, tls: ssl.SSLContext) -> float:
    script = Script(body=b"x" * 1000)
    world.listen(HOST, 80, http_peer(replace(script, stall_at=script.body_at + 640)))
    return ANSWERED


STUCK: dict[Phase, Callable[[World, ssl.SSLContext], float]] = {
    Phase.RESOLVE: stuck_in_resolve,
    Phase.CONNECT: stuck_in_connect,
    Phase.TLS: stuck_in_tls,
    Phase.SEND: stuck_in_send,
    Phase.HEAD: stuck_in_head,
    Phase.IDLE: stuck_in_body,
}
DEFAULTS = {
    Phase.RESOLVE: 10,
    Phase.CONNECT: 10,
    Phase.TLS: 10,
    Phase.SEND: 30,
    Phase.HEAD: 60,
    Phase.IDLE: 60,
}
WORDS = {
    Phase.RESOLVE: "no address yet of example.org port 80",
    Phase.CONNECT: "no answer yet from 10.0.0.1:80",
    Phase.TLS: "no end yet of the handshake with 10.0.0.1:443",
    Phase.SEND: "10.0.0.1:80 does not take the request",
    Phase.HEAD: "no response head from 10.0.0.1:80",
    Phase.IDLE: "no data after 640 of 1000 bytes of the body",
}
every_phase = pytest.mark.parametrize("phase", list(STUCK))


def url_for(phase: Phase) -> str:
    return SECURE_URL if phase is Phase.TLS else URL


def timed_out(fetch: Fetch, phase: Phase) -> rawdl.Timeout:
    """Return the error of a task that must have timed out in this phase."""
    error = fetch.error
    assert isinstance(error, rawdl.Timeout), error
    assert isinstance(error, TimeoutError)
    assert (error.phase, error.reason, error.err_code) == (phase, "timeout", 5), error
    return error


# The phases (T36, I7)


@pytest.mark.parametrize("phase", [Phase.RESOLVE, Phase.CONNECT, Phase.TLS])
def test_S40_setup_bounds_all_that_it_takes_to_have_a_connection(
    phase: Phase, server_context: ssl.SSLContext, trusting: rawdl.TLS
):
    with World() as world:
        STUCK[phase](world, server_context)
        client = world.client(tls=trusting, timeouts=Timeouts(setup=2.0))
        fetch = Fetch(client, url_for(phase))
        client.run()
        assert world.elapsed == pytest.approx(2.0, abs=1e-9)
        assert str(timed_out(fetch, Phase.SETUP)).startswith(f"setup time limit of 2 s: {WORDS[phase]}")


@every_phase
@pytest.mark.parametrize("limit", [None, 0.75, 4000.0])
def test_T36_each_phase_ends_at_its_limit_and_says_so(
    phase: Phase, limit: float | None, server_context: ssl.SSLContext, trusting: rawdl.TLS, tmp_path: Path
):
    with World() as world:
        begun = STUCK[phase](world, server_context)
        client = world.client(tls=trusting, timeouts=Timeouts(**({phase: limit} if limit else {})))
        fetch = Fetch(client, url_for(phase), file_path=tmp_path / "a")
        client.run()
        seconds = limit or DEFAULTS[phase]
        assert world.elapsed == pytest.approx(begun + seconds, abs=1e-9)
        error = timed_out(fetch, phase)
        assert str(error) == f"{phase} time limit of {seconds:g} s: {WORDS[phase]}"
        assert error.url == url_for(phase)
        assert_nothing_left(world, client)
        assert client.next_deadline() is None
    assert list(tmp_path.iterdir()) == []


@every_phase
def test_T36_a_limit_of_None_is_none(phase: Phase, server_context: ssl.SSLContext, trusting: rawdl.TLS):
    with World() as world:
        STUCK[phase](world, server_context)
        client = world.client(tls=trusting, timeouts=Timeouts(**{phase: None}))
        fetch = Fetch(client, url_for(phase))
        world.drive(client, until=30 * DAY)
        assert not fetch.task.done()
        assert client.next_deadline() is None
        fetch.task.abort()
        assert not world.sockets
        client.run()
        assert isinstance(fetch.error, rawdl.Aborted)


@every_phase
def test_T36_the_total_ends_every_phase(phase: Phase, server_context: ssl.SSLContext, trusting: rawdl.TLS):
    with World() as world:
        STUCK[phase](world, server_context)
        client = world.client(tls=trusting)
        fetch = Fetch(client, url_for(phase), timeout=3.5)
        client.run()
        assert world.elapsed == pytest.approx(3.5)
        error = timed_out(fetch, Phase.TOTAL)
        received = 640 if phase is Phase.IDLE else 0
        assert str(error).startswith("total time limit of 3.5 s: not complete, ")
        assert str(error).endswith(f", {received} bytes received")
        assert_nothing_left(world, client)


@every_phase
def test_T36_the_limit_of_another_phase_does_not_end_it(
    phase: Phase, server_context: ssl.SSLContext, trusting: rawdl.TLS
):
    others = Timeouts(**{each: 0.5 for each in DEFAULTS if each is not phase}, total=100.0)
    with World() as world:
        STUCK[phase](world, server_context)
        client = world.client(tls=trusting, timeouts=others)
        fetch = Fetch(client, url_for(phase), timeouts=replace(others, **{phase: 20.0}))
        client.run()
        timed_out(fetch, phase)


@pytest.mark.contract("T36")
def test_a_phase_has_its_whole_limit_whatever_the_one_before_took(server_context: ssl.SSLContext, trusting: rawdl.TLS):
    """Resolving, connecting and the handshake take 9 s each, and the head 59 s."""
    with World() as world:
        link = Link(stall_at=0, stall_for=9.0)
        script = Script(body=b"hello", head_delay=59.0)
        world.listen(HOST, 443, http_peer(script), tls=server_context, connect_delay=9.0, link=link)
        world.name(HOST).delay = 9.0
        client = world.client(tls=trusting)
        fetch = Fetch(client, SECURE_URL)
        client.run()
        assert fetch.result.data_length == 5
        assert world.elapsed > 3 * 9 + 59


def test_T36_the_limit_is_not_reached_a_moment_before_it():
    for delay, arrives in ((59.9, True), (60.1, False)):
        with World() as world:
            world.listen(HOST, 80, http_peer(Script(body=b"hello", head_delay=delay - 2 * LATENCY)))
            client = world.client()
            fetch = Fetch(client)
            client.run()
            assert isinstance(fetch.end, rawdl.DownloadResult) == arrives


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def server_of_version(request: pytest.FixtureRequest, ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(HOST).configure_cert(context)
    context.minimum_version = context.maximum_version = ssl.TLSVersion[request.param]
    return context


def test_T36_a_handshake_that_stalls_at_any_message(server_of_version: ssl.SSLContext, trusting: rawdl.TLS):
    """The offsets go through all of the server's messages, and on into its response."""
    phases: list[Phase] = []
    for offset in range(0, 2000, 41):
        with World() as world:
            script = Script(body=b"x" * 3000, chunk=100)  # a record each
            world.listen(HOST, 443, http_peer(script), tls=server_of_version, link=Link(stall_at=offset))
            client = world.client(tls=trusting)
            fetch = Fetch(client, SECURE_URL)
            client.run()
            error = fetch.error
            assert isinstance(error, rawdl.Timeout)
            phases.append(error.phase)
            if error.phase is Phase.TLS:
                assert world.elapsed == pytest.approx(CONNECTED + 10)
            assert_nothing_left(world, client)
    assert phases == sorted(phases, key=[Phase.TLS, Phase.HEAD, Phase.IDLE].index)
    assert {Phase.TLS, Phase.IDLE} <= set(phases)
    assert phases.count(Phase.TLS) > 20


# The head (C13, S25)


def drip(data: bytes, seconds: float) -> Callable[[Conn], Iterator[float]]:
    """Make a peer that answers by one byte every so many seconds."""

    def peer(conn: Conn):
        yield from conn.read_until(b"\r\n\r\n")
        for byte in data:
            conn.send(bytes([byte]))
            yield seconds

    return peer


def test_C13_a_dripping_head_does_not_renew_its_limit():
    with World() as world:
        world.listen(HOST, 80, drip(Script(body=b"x").wire, 29.0))
        client = world.client()
        fetch = Fetch(client)
        client.run()
        assert world.elapsed == pytest.approx(CONNECTED + 60)
        timed_out(fetch, Phase.HEAD)
        assert_nothing_left(world, client)


def test_S25_interim_responses_do_not_renew_the_limit_of_the_head():
    def peer(conn: Conn):
        yield from conn.read_until(b"\r\n\r\n")
        while True:
            yield 29.0
            conn.send(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")

    with World() as world:
        world.listen(HOST, 80, peer)
        client = world.client()
        fetch = Fetch(client)
        client.run()
        assert world.elapsed == pytest.approx(CONNECTED + 60)
        timed_out(fetch, Phase.HEAD)
        assert fetch.names == ["fail", "complete"]


def test_S25_an_interim_response_is_no_end_of_the_waiting_for_the_head():
    """Some clients lose their limit at the first of them."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(raw=interim)))
        client = world.client()
        fetch = Fetch(client)
        client.run()
        assert world.elapsed == pytest.approx(CONNECTED + 60)
        timed_out(fetch, Phase.HEAD)


# The body: idle (N12, S25)


@pytest.mark.parametrize("framing", ["content-length", "until-close", "chunked"])
def test_N12_a_body_that_is_slow_but_moves_goes_on(framing: str):
    script = Script(body=b"slow but moving", framing=framing, chunk=3)
    head, rest = script.wire[: script.body_at], script.wire[script.body_at :]

    def peer(conn: Conn):
        yield from conn.read_until(b"\r\n\r\n")
        conn.send(head)
        for byte in rest:
            yield 59.0
            conn.send(bytes([byte]))

    with World() as world:
        world.listen(HOST, 80, peer)
        client = world.client()
        fetch = Fetch(client)
        client.run()
        assert world.elapsed == pytest.approx(ANSWERED + 59 * len(rest))
        assert fetch.result.data_length == len(script.body)
        assert fetch.data == script.body


def test_N12_a_total_ends_a_body_that_is_slow_but_moves():
    with World() as world:
        world.listen(HOST, 80, pieces_at(*range(0, 3000, 30)))
        client = world.client()
        fetch = Fetch(client, timeout=300)
        client.run()
        assert world.elapsed == pytest.approx(300)
        timed_out(fetch, Phase.TOTAL)
        assert_nothing_left(world, client)


def test_T36_idle_runs_from_the_last_read():
    script = Script(body=b"x" * 100)
    link = Link(stall_at=script.body_at + 50)

    def peer(conn: Conn):
        yield from conn.read_until(b"\r\n\r\n")
        conn.send(script.head)
        for _ in range(10):
            yield 20.0
            conn.send(b"x" * 10)

    with World() as world:
        world.listen(HOST, 80, peer, link=link)
        client = world.client()
        fetch = Fetch(client)
        client.run()
        assert world.elapsed == pytest.approx(ANSWERED + 5 * 20 + 60)
        error = timed_out(fetch, Phase.IDLE)
        assert str(error).endswith("no data after 50 of 100 bytes of the body")


def pieces_at(*times: float) -> Callable[[Conn], Iterator[float]]:
    """Make a peer that answers by a head and, at these times after it, ten bytes each."""
    head = Script(body=bytes(10 * len(times))).head

    def peer(conn: Conn):
        yield from conn.read_until(b"\r\n\r\n")
        conn.send(head)
        begun = conn.world.now
        for time in times:
            yield begun + time - conn.world.now
            conn.send(bytes(10))

    return peer


@pytest.mark.parametrize("before", [b"", b"1\r\nh\r\n"], ids=["first", "second"])
def test_S25_a_read_that_brings_no_payload_is_not_idle(before: bytes):
    """A chunk line comes a byte every 29 s, before any payload and after the first."""
    script = Script(framing="chunked")

    def peer(conn: Conn):
        yield from conn.read_until(b"\r\n\r\n")
        conn.send(script.head + before)
        for byte in b"0004\r\nello\r\n0\r\n\r\n":
            yield 29.0
            conn.send(bytes([byte]))

    with World() as world:
        world.listen(HOST, 80, peer)
        client = world.client()
        fetch = Fetch(client)
        client.run()
        assert fetch.result.data_length == (5 if before else 4)


@pytest.mark.parametrize("name", ["headers", "progress"])
def test_S25_a_slow_listener_does_not_make_idle_what_has_come(name: str):
    """The next bytes are there when the listener returns."""
    with World() as world:
        world.listen(HOST, 80, pieces_at(5, 10, 15, 20))
        client = world.client()
        fetch = Fetch(client)
        fetch.react(name, lambda event: world.wait(100))
        client.run()
        assert fetch.result.data_length == 40


@pytest.mark.parametrize("name", ["headers", "progress"])
def test_S25_the_time_in_a_listener_is_not_idle(name: str):
    """When the listener returns nothing has come; it comes a second later."""
    with World() as world:
        world.listen(HOST, 80, pieces_at(5, 101) if name == "progress" else pieces_at(101))
        client = world.client()
        fetch = Fetch(client)
        fetch.react(name, lambda event: world.wait(max(0, 100 - world.elapsed)))
        client.run()
        assert fetch.result.data_length == (20 if name == "progress" else 10)


@pytest.mark.contract("S25")
def test_the_time_in_the_listener_of_another_task_is_not_idle_either():
    with World() as world:
        world.listen(HOST, 80, pieces_at(1, 101.5))
        world.listen("other.example.org", 80, http_peer(Script(body=b"x", head_delay=1.5)))
        client = world.client()
        fetch = Fetch(client)
        other = Fetch(client, "http://other.example.org/")
        other.react("headers", lambda event: world.wait(99))
        client.run()
        assert other.result.data_length == 1
        assert fetch.result.data_length == 20


@pytest.mark.parametrize("of", ["its own", "another"])
def test_S25_the_time_in_a_sink_is_not_idle(of: str):
    """A disk that wakes up takes as long as any listener."""
    with World() as world:
        world.listen(HOST, 80, pieces_at(1, 101.5))
        world.listen("other.example.org", 80, pieces_at(1))
        client = world.client()
        waited: list[float] = []

        def slow_disk(data: memoryview) -> None:
            if not waited:
                world.wait(100)
                waited.append(world.elapsed)

        fetch = Fetch(client, **({"sink": slow_disk} if of == "its own" else {}))
        other = Fetch(client, "http://other.example.org/", **({"sink": slow_disk} if of == "another" else {}))
        client.run()
        assert waited
        assert other.result.data_length == 10
        assert fetch.result.data_length == 20


def test_S25_after_a_slow_listener_the_idle_limit_runs_from_when_we_looked():
    with World() as world:
        world.listen(HOST, 80, pieces_at(1, 1e6))
        client = world.client()
        fetch = Fetch(client)
        fetch.react("progress", lambda event: world.wait(100))
        client.run()
        timed_out(fetch, Phase.IDLE)
        assert world.elapsed == pytest.approx(ANSWERED + 1 + 100 + 60)


@pytest.mark.contract("N18")
@pytest.mark.parametrize("turn", range(1, 10))
def test_an_hour_asleep_is_no_timeout_where_the_answer_has_come_meanwhile(turn: int):
    """The lid is closed between two turns; what was under way is there when it opens."""
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"x" * 20_000, pace=200_000)))
        client = world.client()
        fetch = Fetch(client)
        for _ in range(turn):
            client.step(None)
        world.wait(3600.0)
        client.run()
        assert fetch.result.data_length == 20_000


@pytest.mark.contract("T36")
def test_a_name_that_was_resolved_in_time_is_taken_however_late_we_look():
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"hello")))
        world.listen("other.example.org", 80, http_peer(Script(body=b"x")))
        client = world.client()
        other = Fetch(client, "http://other.example.org/")
        late: list[Fetch] = []

        def start_another_and_take_long(event: object) -> None:
            late.append(Fetch(client))
            world.interrupt(0.001, world.wait, 30.0)  # in the select() after next: the name is being resolved

        other.react("headers", start_another_and_take_long)
        client.run()
        assert late[0].result.data_length == 5


# The total (T36, S26, S38)


def test_S26_the_time_in_the_queue_does_not_count():
    """Each takes 50 s of its 60, and the last one waits for 450."""
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"x", head_delay=50.0)))
        client = world.client(max_concurrent=1, timeouts=Timeouts(resolve=1, connect=1, head=55))
        fetches = [Fetch(client, timeout=60) for _ in range(10)]
        client.run()
        assert world.elapsed > 450
        assert [fetch.result.data_length for fetch in fetches] == [1] * 10


def test_T36_the_total_runs_from_the_end_of_the_queue():
    with World() as world:
        world.listen(HOST, 80, http_peer([Script(body=b"x", head_delay=50.0), Script(head_delay=1e9)]))
        client = world.client(max_per_host=1)
        first, second = Fetch(client, timeout=60), Fetch(client, timeout=45)
        client.run()
        assert first.result.data_length == 1
        timed_out(second, Phase.TOTAL)
        assert world.elapsed == pytest.approx(ANSWERED + 50 + 45)


@pytest.mark.contract("T36")
def test_a_listener_that_takes_long_as_a_task_leaves_the_queue_costs_that_task_nothing():
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"hello")))
        world.listen("other.example.org", 80, http_peer(Script(body=b"x", head_delay=1.0)))
        client = world.client()
        other = Fetch(client, "http://other.example.org/")
        late: list[Fetch] = []
        world.after(CONNECTED + 1.0, lambda: late.append(Fetch(client, timeout=5)))
        world.drive(client, until=CONNECTED + 1.0)
        assert late, "it is to leave the queue in the turn in which the other has its head"
        other.react("headers", lambda event: world.wait(100))
        world.wait(2 * LATENCY)
        client.run()
        assert other.result.data_length == 1
        assert late[0].result.data_length == 5


@pytest.mark.contract("T36", "S25")
def test_the_total_includes_resolving_connecting_the_handshake_and_the_head(
    server_context: ssl.SSLContext, trusting: rawdl.TLS
):
    """Five seconds in each make a total of 20; one second less does not do."""
    for total, enough in ((20.5, True), (19.5, False)):
        with World() as world:
            link = Link(stall_at=0, stall_for=5.0)
            script = Script(body=b"hello", head_delay=5.0)
            world.listen(HOST, 443, http_peer(script), tls=server_context, connect_delay=5.0, link=link)
            world.name(HOST).delay = 5.0
            client = world.client(tls=trusting)
            fetch = Fetch(client, SECURE_URL, timeout=total)
            client.run()
            if enough:
                assert fetch.result.data_length == 5
            else:
                timed_out(fetch, Phase.TOTAL)
                assert world.elapsed == pytest.approx(total)


def test_S38_the_total_is_looked_at_once_more_before_the_rename(tmp_path: Path):
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"hello")))
        client = world.client()
        fetch = Fetch(client, file_path=tmp_path / "a", timeout=50)
        fetch.react("progress", lambda update: world.wait(100))
        client.run()
        error = timed_out(fetch, Phase.TOTAL)
        assert str(error) == "total time limit of 50 s: not complete, finishing, 5 bytes received"
        assert fetch.names == ["headers", "progress", "fail", "complete"]
        assert_nothing_left(world, client)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.contract("S38")
def test_a_listener_of_the_last_progress_event_that_takes_less_than_the_total(tmp_path: Path):
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"hello")))
        client = world.client()
        fetch = Fetch(client, file_path=tmp_path / "a", timeout=50)
        fetch.react("progress", lambda update: world.wait(40))
        client.run()
        assert fetch.result.data_length == 5
    assert (tmp_path / "a").read_bytes() == b"hello"


@pytest.mark.contract("T36")
def test_a_task_may_have_other_limits_than_its_client():
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(head_delay=1e9)))
        client = world.client(timeouts=replace(NEVER, head=5.0))
        fetches = [Fetch(client), Fetch(client, timeouts=Timeouts(head=7.0)), Fetch(client, timeouts=NEVER, timeout=9)]
        ends: list[float] = []
        for fetch in fetches:
            fetch.react("complete", lambda end: ends.append(world.elapsed))
        client.run()
        timed_out(fetches[0], Phase.HEAD)
        timed_out(fetches[1], Phase.HEAD)
        timed_out(fetches[2], Phase.TOTAL)
        assert ends == [pytest.approx(CONNECTED + 5), pytest.approx(CONNECTED + 7), pytest.approx(9)]


def test_T38_a_jump_of_the_wall_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    import time

    wall = iter(range(10**9, -(10**9), -86400))
    monkeypatch.setattr(time, "time", lambda: float(next(wall)))
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"x" * 1000, pace=100)))
        client = world.client()
        fetches = [Fetch(client, timeout=15), Fetch(client, timeout=5)]
        client.run()
        assert fetches[0].result.data_length == 1000
        timed_out(fetches[1], Phase.TOTAL)
        profile = fetches[0].result.profile
        assert profile.response_end - profile.response_start == pytest.approx(10_000, abs=500)  # the head is paced too
