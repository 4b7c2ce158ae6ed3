"""Faults of the network, of TLS and of the machine, one test each; the names are rows of the fault table."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rawdl
from rawdl import Phase
from tests import once
from tests.origin import Origin, TLSEngine
from tests.sim import Conn, Link, Script, World, http_peer
from tests.sim_tests.fetch import (
    ANSWERED,
    CONNECTED,
    DNS,
    HOST,
    LATENCY,
    SECURE_URL,
    URL,
    Fetch,
    assert_nothing_left,
    open_connections,
    run,
)
from tests.sim_tests.peers import OK, REQUEST_END, answer, tls_peer

# DNS


@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_FAIL, socket.EAI_AGAIN])
def test_N1_the_name_does_not_resolve(code: int):
    with World() as world:
        world.name(HOST).error = socket.gaierror(code, "no")
        error = run(world).error
        assert isinstance(error, rawdl.ResolveError)
        assert error.errno == code
        assert (error.reason, error.err_code, error.url) == ("name not resolved", 600001, URL)
        assert isinstance(error.__cause__, socket.gaierror)
        assert not world.conns


def test_N1_the_name_has_no_address():
    with World() as world:
        world.name(HOST)
        error = run(world).error
        assert isinstance(error, rawdl.ResolveError)
        assert HOST in str(error)


def test_N1_the_resolver_is_silent():
    with World() as world:
        world.name(HOST).silent = True
        error = run(world).error
        assert isinstance(error, rawdl.Timeout)
        assert error.phase is Phase.RESOLVE
        assert world.elapsed == pytest.approx(10)
        assert world.seen(f"resolve {HOST} cancelled") == [pytest.approx(10)]


def test_N1_an_answer_that_comes_after_all_is_not_heard():
    with World() as world:
        world.listen(HOST, 80, http_peer(OK))
        world.name(HOST).delay = 11.0
        assert isinstance(run(world).error, rawdl.Timeout)
        world.wait()
        assert not world.conns


@pytest.mark.parametrize("raised", [OSError(errno.EMFILE, "too many"), UnicodeError("no"), RuntimeError("no thread")])
def test_N1_a_resolver_that_raises_fails_the_task_and_no_other(raised: Exception):
    with World() as world:
        world.listen("other.example.org", 80, http_peer(OK))

        class Resolver:
            def resolve(self, host: str, *rest: Any) -> Callable[[], None]:
                if host == HOST:
                    raise raised
                return world.resolver.resolve(host, *rest)

        client = world.client(resolver=Resolver())
        fetch, other = Fetch(client), Fetch(client, "http://other.example.org/")
        client.run()
        assert isinstance(fetch.error, rawdl.DownloadError)
        assert not isinstance(fetch.error, rawdl.Timeout), "it took the resolver's limit to end"
        assert other.result.data_length == 5


@pytest.mark.parametrize("ended_by", ["abort", "timeout", "close"])
def test_N1_a_resolver_that_raises_when_it_is_called_off(ended_by: str):
    with World() as world:
        world.listen("other.example.org", 80, http_peer(OK))

        class Resolver:
            def resolve(self, host: str, *rest: Any) -> Callable[[], None]:
                return raising if host == HOST else world.resolver.resolve(host, *rest)

        def raising() -> None:
            raise RuntimeError("cannot be called off")

        client = world.client(resolver=Resolver())
        fetch, other = Fetch(client), Fetch(client, "http://other.example.org/")
        client.run(1)
        if ended_by == "timeout":
            client.run()
        else:
            fetch.task.abort() if ended_by == "abort" else client.close()
        client.close()
        assert isinstance(fetch.error, rawdl.Timeout if ended_by == "timeout" else rawdl.Aborted)
        assert other.result.data_length == 5


def test_N1_a_resolver_that_answers_at_once():
    with World() as world:
        world.listen(HOST, 80, http_peer(OK), address="192.0.2.1")

        class Resolver:
            def resolve(self, host: str, port: int, family: int, callback: Callable[..., None]) -> Callable[[], None]:
                callback([(socket.AF_INET, ("192.0.2.1", port))], None)
                return lambda: None

        assert run(world, client_options={"resolver": Resolver()}).data == b"hello"


@pytest.mark.parametrize("where", [("192.0.2.1", 700_000), "192.0.2.1", ("192.0.2.1\0", 80)])
def test_N1_S41_an_answer_that_is_no_address_fails_the_task_and_no_other(where: Any, origin: Origin):
    """On a real socket, which raises what it likes for it: OverflowError, TypeError, ValueError."""

    def resolve(host: str, port: int, family: int) -> list[Any]:
        return [(socket.AF_INET, where if host == HOST else ("127.0.0.1", port))]

    url = origin.serve("/a", Script(body=b"hello")).replace("127.0.0.1", "other.example.org")
    with once.client(resolver=resolve) as client:
        wrong, right = Fetch(client), Fetch(client, url)
        client.run()
        assert isinstance(wrong.error, rawdl.DownloadError)
        assert right.data == b"hello"


# Connecting


def listen_twice(world: World, first: Any, **options: Any) -> None:
    """Give the host two addresses, of which only the second works as it should."""
    world.listen(HOST, 80, http_peer(OK), address="2001:db8::1", connect=first, **options)
    world.listen(HOST, 80, http_peer(OK), address="192.0.2.1")


def test_N2_a_black_hole_costs_a_quarter_of_a_second():
    with World() as world:
        listen_twice(world, "blackhole")
        assert run(world).data == b"hello"
        assert world.seen("c1 connect 2001:db8::1:80") == [pytest.approx(DNS)]
        assert world.seen("c2 connect 192.0.2.1:80") == [pytest.approx(DNS + 0.25)]
        assert world.seen("c1 client gave up") == world.seen("c2 accepted") == [pytest.approx(CONNECTED + 0.25)]
        assert world.elapsed == pytest.approx(ANSWERED + 0.25)


@pytest.mark.parametrize(
    ("first", "delay", "lost"),
    [
        ("refuse", 0.0, 2 * LATENCY),
        (errno.ENETUNREACH, 0.0, 0.0),
        (errno.EHOSTUNREACH, 0.1, 2 * LATENCY + 0.1),
        (errno.EADDRNOTAVAIL, 0.0, 0.0),
    ],
)
def test_N2_an_address_that_fails_costs_no_more_than_its_failing(first: Any, delay: float, lost: float):
    with World() as world:
        listen_twice(world, first, connect_delay=delay)
        assert run(world).data == b"hello"
        assert world.elapsed == pytest.approx(ANSWERED + lost)


def test_N3_the_error_lists_each_address_and_what_it_said():
    codes = {
        "2001:db8::1": errno.ENETUNREACH,
        "192.0.2.1": errno.EHOSTUNREACH,
        "2001:db8::2": errno.EADDRNOTAVAIL,
        "192.0.2.2": errno.ECONNREFUSED,
    }
    with World() as world:
        for address, code in codes.items():
            world.listen(HOST, 80, address=address, connect=code)
        error = run(world).error
        assert isinstance(error, rawdl.ConnectError)
        assert (error.reason, error.err_code) == ("connection failed", 600001)
        assert error.errno in codes.values()
        for address, code in codes.items():
            where = f"[{address}]:80" if ":" in address else f"{address}:80"
            assert f"{where}: {os.strerror(code)}" in str(error)
        assert f"{HOST} port 80" in str(error)
        assert isinstance(error.__cause__, OSError)


@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_N3_refused(delay: float):
    with World() as world:
        world.listen(HOST, 80, connect="refuse", connect_delay=delay)
        error = run(world).error
        assert isinstance(error, rawdl.ConnectError)
        assert error.errno == errno.ECONNREFUSED
        assert world.elapsed == pytest.approx(CONNECTED + delay)


def test_N4_accepted_and_never_answered():
    with World() as world:
        world.listen(HOST, 80)
        error = run(world).error
        assert isinstance(error, rawdl.Timeout)
        assert error.phase is Phase.HEAD


# The connection breaks


def test_N5_a_reset_before_any_byte_of_a_fresh_connection():
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(cut_at=0, cut="rst")))
        error = run(world).error
        assert isinstance(error, rawdl.ConnectionLost)
        assert error.errno == errno.ECONNRESET
        assert str(error).endswith(", after 0 bytes of the response head")
        assert (error.reason, error.err_code) == ("interrupted", 600001)
        assert len(world.requests) == 1, "a failure that another try may mend is for a retry policy to repeat"


def test_N5_a_reset_as_soon_as_it_is_connected():
    with World() as world:
        world.listen(HOST, 80, http_peer(OK), link=Link(cut_at=0, cut="rst"))
        error = run(world).error
        assert isinstance(error, rawdl.ConnectionLost)


def twice(world: World, url: str = URL, gap: float = 0.0, **options: Any) -> tuple[Fetch, Fetch]:
    """Download twice in a row, the second time on what connection there is, and see that nothing is left in use."""
    client = world.client(**options)
    first = Fetch(client, url)
    client.run()
    assert first.result.data_length == 5
    assert open_connections(world) == 1, "there is nothing to reuse"
    world.wait(gap)
    second = Fetch(client, url)
    client.run()
    assert_nothing_left(world, client, idle=open_connections(world))
    return first, second


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_N6_a_reused_connection_that_ends_before_any_byte_is_replaced(site: dict[str, Any], how: str):
    with World() as world:
        answers = [OK, Script(cut_at=0, cut=how), Script(body=b"again")]
        world.listen(HOST, site["port"], http_peer(answers), tls=site["tls"])
        _, second = twice(world, site["url"], **site["client"])
        assert second.data == b"again"
        assert second.result.profile.socket_reused is False
        assert second.result.attempts == ()
        assert [request.connection for request in world.requests] == [1, 1, 2]


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_N6_that_happens_once(site: dict[str, Any], how: str):
    with World() as world:
        world.listen(HOST, site["port"], http_peer([OK, Script(cut_at=0, cut=how)]), tls=site["tls"])
        _, second = twice(world, site["url"], **site["client"])
        # FIN is what a server says that closes; over TLS it ends the stream, and there a reset may look like one.
        assert isinstance(second.error, rawdl.IncompleteHead if how == "fin" else rawdl.ConnectionLost)
        assert [request.connection for request in world.requests] == [1, 1, 2]


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_N6_not_after_the_first_byte(site: dict[str, Any], how: str):
    with World() as world:
        world.listen(HOST, site["port"], http_peer([OK, Script(cut_at=1, cut=how)]), tls=site["tls"])
        _, second = twice(world, site["url"], **site["client"])
        assert isinstance(second.error, rawdl.IncompleteHead if how == "fin" else rawdl.ConnectionLost)
        assert [request.connection for request in world.requests] == [1, 1]


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_N6_a_connection_that_ended_before_it_was_asked_for_is_not_tried(site: dict[str, Any], how: str):
    def peer(conn: Conn):
        yield from conn.read_until(REQUEST_END)
        conn.send(OK.wire)
        yield 1.0
        conn.end(how)

    with World() as world:
        world.listen(HOST, site["port"], peer, tls=site["tls"])
        _, second = twice(world, site["url"], gap=2.0, **site["client"])
        assert second.data == b"hello"
        assert open_connections(world) == 1


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("window", [10, 60])
def test_N6_it_ends_while_the_request_is_being_sent(how: str, window: int):
    """Of the second request only the beginning fits; then the server goes away."""

    def peer(conn: Conn):
        yield from conn.read_until(REQUEST_END)
        conn.send(OK.wire)
        if conn.number == 1:
            yield lambda: conn.received.startswith(b"GET")
            conn.end(how)
        yield 1e9

    with World() as world:
        world.listen(HOST, 80, peer, link=Link(send_window=window))
        _, second = twice(world)
        assert second.data == b"hello"
        assert len(world.conns) == 2


def test_N6_it_takes_nothing_of_the_request_and_ends_later():
    """The connection is full when the FIN comes: nothing can be sent, but its end can be read."""

    def peer(conn: Conn):
        yield from conn.read_until(REQUEST_END)
        conn.send(OK.wire)
        if conn.number == 1:
            yield 1.0
            world.conns[0].link = Link(send_window=10, deaf=True)
            yield 1.0
            conn.end()
        yield 1e9

    with World() as world:
        world.listen(HOST, 80, peer)
        _, second = twice(world, gap=1.5)
        assert second.data == b"hello"
        assert len(world.conns) == 2


def test_N7_closed_in_the_head(tmp_path: Path):
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"hello", cut_at=20)))
        error = run(world, file_path=tmp_path / "a").error
        assert isinstance(error, rawdl.IncompleteHead)
        assert (error.reason, error.err_code) == ("incomplete", 600001)
        assert "20 bytes" in str(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.contract("N8", "S18")
@pytest.mark.parametrize("code", [errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.EHOSTUNREACH])
def test_N8_what_the_kernel_reports(code: int):
    script = Script(body=b"x" * 100)
    with World() as world:
        listener = world.listen(HOST, 80, http_peer(script), link=Link(cut_at=20, cut="rst", cut_error=code))
        error = run(world).error
        assert isinstance(error, rawdl.ConnectionLost)
        assert error.errno == code
        assert str(error).endswith(f"broke: {os.strerror(code)}, after 20 bytes of the response head")

        listener.link = Link(cut_at=script.body_at + 60, cut="rst", cut_error=code)
        fetch = run(world)
        error = fetch.error
        assert isinstance(error, rawdl.IncompleteBody)
        assert (error.received, error.expected) == (60, 100)
        assert isinstance(error.__cause__, rawdl.ConnectionLost)
        assert error.__cause__.errno == code
        assert fetch.data == b"x" * 60, "what came before the reset is kept"


@pytest.mark.contract("N9", "T24")
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_N9_closed_in_the_body(framing: str):
    script = Script(body=b"x" * 100, framing=framing, chunk=10)
    with World() as world:
        world.listen(HOST, 80, http_peer(script), link=Link(cut_at=len(script.wire) - 1))
        fetch = run(world)
        error = fetch.error
        assert isinstance(error, rawdl.IncompleteBody)
        assert error.reason == "incomplete"
        assert error.received == len(fetch.data) == (99 if framing == "content-length" else 100)
        assert error.expected == (100 if framing == "content-length" else None)


def test_N10_closed_in_a_body_that_the_close_delimits():
    with World() as world:
        script = Script(body=b"x" * 100, framing="until-close")
        world.listen(HOST, 80, http_peer(script), link=Link(cut_at=script.body_at + 60))
        result = run(world).result
        assert (result.data_length, result.length_known) == (60, False)


@pytest.mark.contract("N10", "C7", "T24")
@pytest.mark.parametrize("close_notify", [True, False])
def test_N10_over_TLS_the_end_must_be_said(close_notify: bool, server_context: ssl.SSLContext, trusting: rawdl.TLS):
    with World() as world:
        script = Script(body=b"x" * 100, framing="until-close", close_notify=close_notify)
        world.listen(HOST, 443, http_peer(script), tls=server_context)
        fetch = run(world, SECURE_URL, {"tls": trusting})
        assert fetch.data == b"x" * 100
        if close_notify:
            assert fetch.result.length_known is False
        else:
            error = fetch.error
            assert isinstance(error, rawdl.IncompleteBody)
            assert (error.received, error.expected) == (100, None)


@pytest.mark.contract("L4")
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_over_TLS_a_body_that_is_complete_needs_no_end(
    framing: str, server_context: ssl.SSLContext, trusting: rawdl.TLS
):
    with World() as world:
        script = Script(body=b"x" * 100, framing=framing, keep_alive=False, close_notify=False)
        world.listen(HOST, 443, http_peer(script), tls=server_context)
        assert run(world, SECURE_URL, {"tls": trusting}).result.data_length == 100


def test_N10_a_close_notify_is_the_end_though_no_FIN_follows(server_context: ssl.SSLContext, trusting: rawdl.TLS):
    """It may wait for ours first (RFC 8446 6.1).  In one segment with the last of the body, it must be noticed."""
    script = Script(body=b"x" * 100, framing="until-close")

    def talk(conn: Conn, engine: TLSEngine):
        engine.send(script.wire[:-10])
        conn.send(engine.data_to_send())
        yield 1.0
        engine.send(script.wire[-10:])
        engine.close()
        conn.send(engine.data_to_send())

    with World() as world:
        world.listen(HOST, 443, tls_peer(server_context, talk))
        fetch = run(world, SECURE_URL, {"tls": trusting})
        assert fetch.result.data_length == 100
        assert world.elapsed < 2


@pytest.mark.contract("N17")
@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
def test_what_is_decrypted_is_read_before_waiting(framing: str, server_context: ssl.SSLContext, trusting: rawdl.TLS):
    """One record is four times the buffer, and nothing follows it that would make the socket readable."""
    body = os.urandom(16000)

    def talk(conn: Conn, engine: TLSEngine) -> None:
        engine.send(Script(body=body, framing=framing).wire)
        if framing == "until-close":
            engine.close()
        conn.send(engine.data_to_send())

    with World() as world:
        world.listen(HOST, 443, tls_peer(server_context, talk))
        fetch = run(world, SECURE_URL, {"tls": trusting, "buffer_size": 4096})
        assert fetch.result.data_length == 16000
        assert fetch.data == body
        assert world.elapsed < 1


@pytest.mark.contract("N15")
def test_over_TLS_a_response_that_comes_with_the_end_of_the_handshake(
    server_context: ssl.SSLContext, trusting: rawdl.TLS
):
    """The server sends it before it has read anything, in one segment with its last handshake message."""

    def talk(conn: Conn, engine: TLSEngine) -> None:
        engine.send(Script(status=503, body=b"later").wire)
        conn.send(engine.data_to_send())

    with World() as world:
        world.listen(HOST, 443, tls_peer(server_context, talk, early=True))
        fetch = run(world, SECURE_URL, {"tls": trusting})
        assert fetch.result.status_code == 503
        assert fetch.data == b"later"
        assert world.elapsed < 1


# Slowness


def test_N13_a_server_that_is_faster_than_the_disk_is_slowed_down():
    """No more is under way than the windows hold, whatever the body's length."""
    window, most = 65536, 0
    taken = 0

    def slow_disk(data: memoryview) -> None:
        nonlocal taken, most
        taken += len(data)
        world.wait(1.0)
        most = max(most, world.conns[0].sent - taken)

    with World() as world:
        script = Script(body=[b"x" * 65536] * 64, content_length=64 * 65536)
        world.listen(HOST, 80, http_peer(script), link=Link(window=window))
        fetch = run(world, sink=slow_disk)
        assert fetch.result.data_length == taken == 64 * 65536
        assert window // 2 < most <= window + len(script.head)


def test_N14_the_server_does_not_take_the_request():
    with World() as world:
        world.listen(HOST, 80, http_peer(OK), link=Link(send_window=20, deaf=True))
        error = run(world).error
        assert isinstance(error, rawdl.Timeout)
        assert error.phase is Phase.SEND
        assert world.elapsed == pytest.approx(CONNECTED + 30)


@pytest.mark.contract("N14", "S18")
def test_the_server_breaks_off_while_it_is_sent_the_request():
    def peer(conn: Conn):
        yield lambda: len(conn.received) >= 50
        conn.end("rst")

    with World() as world:
        world.listen(HOST, 80, peer, link=Link(send_window=20))
        error = run(world, header={"X-Long": "x" * 2000}).error
        assert isinstance(error, rawdl.ConnectionLost)
        assert re.search(r"broke: .*, after \d\d of 2\d\d\d bytes of the request$", str(error)), error


@pytest.mark.contract("N14")
def test_the_server_does_not_take_the_second_request():
    def peer(conn: Conn):
        yield from conn.read_until(REQUEST_END)
        conn.send(OK.wire)
        world.conns[0].link = Link(send_window=20, deaf=True)
        yield 1e9

    with World() as world:
        world.listen(HOST, 80, peer)
        _, second = twice(world, gap=1.0)
        error = second.error
        assert isinstance(error, rawdl.Timeout)
        assert error.phase is Phase.SEND


@pytest.mark.contract("N14")
def test_the_server_closes_its_half_and_says_nothing():
    def peer(conn: Conn):
        yield from conn.read_until(REQUEST_END)
        conn.send(b"HTTP/1.1 200 OK\r\n")
        conn.end("half")
        yield 1e9

    with World() as world:
        world.listen(HOST, 80, peer)
        assert isinstance(run(world).error, rawdl.IncompleteHead)
        assert world.elapsed == pytest.approx(ANSWERED)


@pytest.mark.contract("N14")
def test_the_server_closes_its_half_in_the_body():
    def peer(conn: Conn):
        yield from conn.read_until(REQUEST_END)
        conn.send(Script(body=b"x" * 100).wire[:-1])
        conn.end("half")
        yield 1e9

    with World() as world:
        world.listen(HOST, 80, peer)
        error = run(world).error
        assert isinstance(error, rawdl.IncompleteBody)
        assert (error.received, error.expected) == (99, 100)


# Early responses


@pytest.mark.parametrize("status", [413, 400, 503])
def test_N15_the_response_comes_before_the_request_is_sent(status: int):
    def peer(conn: Conn):
        yield lambda: len(conn.received) >= 50
        conn.send(Script(status=status, body=b"no").wire)
        yield 1e9

    with World() as world:
        world.listen(HOST, 80, peer, link=Link(send_window=20))
        fetch = run(world, header={"X-Long": "x" * 2000})
        assert fetch.result.status_code == status
        assert fetch.data == b"no"
        assert open_connections(world) == 0, "of the request only a part was sent: the connection is no good"


@pytest.mark.contract("N15")
def test_an_early_response_in_small_pieces():
    def peer(conn: Conn):
        yield lambda: len(conn.received) >= 50
        for byte in Script(status=413, body=b"no").wire:
            conn.send(bytes([byte]))
            yield 0.05

    with World() as world:
        world.listen(HOST, 80, peer, link=Link(send_window=20))
        fetch = run(world, header={"X-Long": "x" * 2000})
        assert fetch.result.status_code == 413
        assert fetch.data == b"no"
        assert open_connections(world) == 0


@pytest.mark.contract("N15")
def test_an_early_response_is_read_though_a_reset_follows_it():
    """The server closes with some of the request unread, as it must, and its kernel then answers by RST."""

    def peer(conn: Conn):
        yield lambda: len(conn.received) >= 50
        yield 1.5 * LATENCY
        conn.send(Script(status=413, body=b"no", keep_alive=False).wire)

    with World() as world:
        world.listen(HOST, 80, peer, link=Link(send_window=1000))
        client = world.client()
        fetch = Fetch(client, header={"X-Long": "x" * 9000})
        world.drive(client, until=CONNECTED + 2.5 * LATENCY)  # more of the request has gone, into the closed connection
        assert not fetch.task.done()
        world.wait(1.0)  # the response has come, and behind it the reset
        client.run()
        assert fetch.result.status_code == 413
        assert fetch.data == b"no"


@pytest.mark.contract("N15", "I2")
@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
def test_an_early_response_that_the_reset_cuts_is_not_complete(framing: str):
    """It is send() that is told of the reset, and what recv() then says looks like an end."""
    script = Script(status=413, body=b"x" * 100, framing=framing)

    def peer(conn: Conn):
        yield lambda: len(conn.received) >= 50
        yield 1.5 * LATENCY
        conn.send(script.wire[: script.body_at + 60])
        conn.end("rst")

    with World() as world:
        world.listen(HOST, 80, peer, link=Link(send_window=1000))
        client = world.client()
        fetch = Fetch(client, header={"X-Long": "x" * 9000})
        world.drive(client, until=CONNECTED + 2.5 * LATENCY)
        world.wait(1.0)
        client.run()
        assert isinstance(fetch.error, rawdl.IncompleteBody | rawdl.ConnectionLost)
        assert (script.body).startswith(bytes(fetch.data))
        assert open_connections(world) == 0


@pytest.mark.contract("N15")
def test_over_TLS_an_early_response_makes_the_connection_no_good(server_context: ssl.SSLContext, trusting: rawdl.TLS):
    """The request is encrypted and taken off our hands, but most of it is not on the wire."""

    def talk(conn: Conn, engine: TLSEngine) -> None:
        engine.send(Script(status=413, body=b"no").wire)
        conn.send(engine.data_to_send())

    with World() as world:
        world.listen(HOST, 443, tls_peer(server_context, talk, early=True), link=Link(send_window=100))
        fetch = run(world, SECURE_URL, {"tls": trusting}, header={"X-Long": "x" * 9000})
        assert fetch.result.status_code == 413
        assert fetch.data == b"no"
        assert open_connections(world) == 0


@pytest.mark.contract("N15")
@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]
)
def test_an_interim_response_while_the_request_is_being_sent_does_not_stop_that(interim: bytes):
    def peer(conn: Conn):
        yield lambda: len(conn.received) >= 50
        conn.send(interim)
        yield from conn.read_until(REQUEST_END)
        conn.send(OK.wire)
        yield 1e9

    with World() as world:
        world.listen(HOST, 80, peer, link=Link(send_window=20))
        fetch = run(world, header={"X-Long": "x" * 2000})
        assert fetch.result.status_code == 200
        assert fetch.data == b"hello"


# Segmentation and readiness


RESPONSES = {
    "content-length": Script(body=bytes(range(200))),
    "chunked": Script(body=bytes(range(200)), framing="chunked", chunk=7, trailer=(("X-Sum", "5"),)),
    "until-close": Script(body=bytes(range(200)), framing="until-close"),
    "interim": Script(body=bytes(range(200)), informational=(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",)),
    "empty": Script(),
    "not found": Script(status=404, body=b"not here"),
    "no content": Script(status=204, framing="none"),
}


@pytest.mark.contract("N16", "I9")
@pytest.mark.parametrize("segment", [1, 2, 3, 1 << 20, (1, 9)])
@pytest.mark.parametrize("name", list(RESPONSES))
def test_N16_the_result_does_not_depend_on_the_segments(
    site: dict[str, Any], name: str, segment: int | tuple[int, int]
):
    script = RESPONSES[name]
    with World(7) as world:
        world.listen(HOST, site["port"], http_peer(script), tls=site["tls"], link=Link(segment=segment))
        fetch = run(world, site["url"], site["client"])
        assert fetch.data == script.body
        assert fetch.result.status_code == script.status
        assert open_connections(world) == (name != "until-close")


@pytest.mark.contract("N16", "C8", "H9")
def test_a_response_with_the_next_head_behind_it():
    with World() as world:
        world.listen(HOST, 80, answer(OK.wire + Script(status=500).wire, 1e9))
        fetch = run(world)
        assert fetch.result.status_code == 200
        assert fetch.data == b"hello"
        assert open_connections(world) == 0


@pytest.mark.contract("N17")
@pytest.mark.parametrize("seed", range(5))
def test_N17_spurious_readiness(site: dict[str, Any], seed: int):
    with World(seed, spurious=0.4) as world:
        script = Script(body=b"x" * 500, framing="chunked", chunk=50, head_delay=2.0)
        link = Link(segment=(1, 20), send_window=9)
        world.listen(HOST, site["port"], http_peer(script), tls=site["tls"], link=link)
        assert run(world, site["url"], site["client"]).data == script.body


@pytest.mark.contract("N17")
def test_N17_a_signal_at_any_moment_that_does_nothing(site: dict[str, Any]):
    """select() then returns early, with nothing ready: what EINTR used to be."""
    with World() as world:
        world.listen(HOST, site["port"], http_peer(Script(body=b"x" * 500, head_delay=0.1)), tls=site["tls"])
        for millisecond in range(0, 200, 2):
            world.interrupt(millisecond / 1000, lambda: None)
        assert run(world, site["url"], site["client"]).result.data_length == 500


@pytest.mark.contract("N17")
@pytest.mark.parametrize("where", ["resolve", "connect", "send", "head", "body"])
def test_N17_a_task_that_waits_costs_no_turns(where: str):
    """An hour of waiting in each phase."""
    script = Script(body=b"x" * 100)
    with World() as world:
        stall = {"head": 10, "body": script.body_at + 10}.get(where)
        link = Link(stall_at=stall, deaf=where == "send", send_window=20)
        world.listen(HOST, 80, http_peer(script), link=link, connect="blackhole" if where == "connect" else "accept")
        world.name(HOST).silent = where == "resolve"
        client = world.client(
            timeouts=rawdl.Timeouts(resolve=None, connect=None, tls=None, send=None, head=None, idle=None)
        )
        fetch = Fetch(client)
        world.drive(client, until=10.0)
        before = world.selector.turns
        world.drive(client, until=3600.0)
        assert world.selector.turns - before <= 3
        fetch.task.abort()
        client.run()


# The machine


@pytest.mark.contract("N19")
@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS])
def test_N19_no_socket_is_to_be_had_and_the_other_downloads_go_on(code: int):
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"hello", head_delay=1.0)))
        world.listen("other.example.org", 80, http_peer(OK))
        full = False

        def socket_factory(*arguments: int) -> Any:
            if full:
                raise OSError(code, os.strerror(code))
            return world.socket(*arguments)

        client = world.client(socket_factory=socket_factory)
        going = [Fetch(client) for _ in range(3)]
        world.drive(client, until=0.5)
        full = True
        failing = [Fetch(client, "http://other.example.org/") for _ in range(3)]
        world.drive(client, until=lambda: all(fetch.task.done() for fetch in failing))
        full = False
        later = Fetch(client, "http://other.example.org/")
        client.run()
        for fetch in failing:
            error = fetch.error
            assert isinstance(error, rawdl.ConnectError)
            assert error.errno == code
        for fetch in [*going, later]:
            assert fetch.result.data_length == 5


@pytest.mark.contract("N19")
@pytest.mark.parametrize("code", [errno.EADDRINUSE, errno.EADDRNOTAVAIL])
def test_N19_no_port_is_to_be_had(code: int):
    with World() as world:
        world.listen(HOST, 80, connect=code)
        error = run(world).error
        assert isinstance(error, rawdl.ConnectError)
        assert error.errno == code
        assert world.elapsed == pytest.approx(DNS)


@pytest.mark.contract("N20")
def test_N20_a_thousand_downloads_of_one_server():
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"hello", head_delay=0.5)))
        client = world.client(max_concurrent=50, max_per_host=20)
        fetches = [Fetch(client, f"{URL}?{n}") for n in range(1000)]
        most = 0
        while client.step(None):
            most = max(most, open_connections(world))
        assert most == 20
        assert all(fetch.result.data_length == 5 for fetch in fetches)
        assert len(world.conns) == 20, "they are used again"
        order = [int(request.target.partition("?")[2]) for request in world.requests]
        # Those that go out at the same moment arrive in any order.
        assert all(abs(place - number) < 20 for place, number in enumerate(order))


@pytest.mark.contract("K1")
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_K1_a_sink_that_fails_in_the_body_fails_its_task_and_no_other(site: dict[str, Any], code: int):
    def full(data: memoryview) -> None:
        raise OSError(code, os.strerror(code))

    with World() as world:
        world.listen(HOST, site["port"], http_peer(Script(body=b"x" * 1000, pace=5000)), tls=site["tls"])
        client = world.client(**site["client"])
        failing, other = Fetch(client, site["url"], sink=full), Fetch(client, site["url"])
        failing.react("complete", lambda end: connections.append(open_connections(world)))
        connections: list[int] = []
        client.run()
        error = failing.error
        assert isinstance(error, rawdl.StorageError)
        assert (error.errno, error.path, error.reason, error.err_code) == (code, None, "storage", 602001)
        assert isinstance(error.__cause__, OSError)
        assert connections == [1], "its connection was open after its end"
        assert other.result.data_length == 1000


@pytest.mark.contract("K3")
def test_K3_what_is_wrong_with_the_destination_is_found_before_the_request(tmp_path: Path):
    with World() as world:
        world.listen(HOST, 80, http_peer(OK))
        (tmp_path / "file").write_bytes(b"")
        for path in (tmp_path, tmp_path / "missing" / "a", tmp_path / "file" / "a", tmp_path / ("x" * 300)):
            error = run(world, file_path=path).error
            assert isinstance(error, rawdl.StorageError)
            assert error.errno in (errno.EISDIR, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
        assert not world.conns


@pytest.mark.contract("K14", "C5")
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
@pytest.mark.parametrize("size", [2**31, 2**32 + 1, 2**53 + 1, 2**62, 2**63 - 1])
def test_C5_a_huge_length_and_then_the_close(framing: str, size: int):
    field = b"Content-Length: %d" % size if framing == "content-length" else b"Transfer-Encoding: chunked"
    line = b"" if framing == "content-length" else b"%x\r\n" % size
    with World() as world:
        world.listen(HOST, 80, answer(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%bhello" % (field, line)))
        sink = rawdl.MemorySink()
        fetch = run(world, sink=sink)
        error = fetch.error
        assert isinstance(error, rawdl.IncompleteBody)
        assert error.received == 5
        assert error.expected == (size if framing == "content-length" else None)
        if framing == "content-length":
            assert fetch.of("progress")[-1].total_bytes_expected_to_write == size


# TLS


@pytest.mark.parametrize("what", [b"garbage\r\n\r\n", b"\x16\x03\x03\xff\xff" + bytes(70000), bytes(100)])
def test_L1_garbage_instead_of_a_handshake(what: bytes, trusting: rawdl.TLS):
    def peer(conn: Conn):
        yield lambda: bool(conn.received)
        conn.send(what)
        yield 1e9

    with World() as world:
        world.listen(HOST, 443, peer)
        error = run(world, SECURE_URL, {"tls": trusting}).error
        assert isinstance(error, rawdl.TLSError)
        assert (error.reason, error.certificate) == ("connection failed", False)
        assert "handshake" in str(error)
        assert world.elapsed < 1


@pytest.mark.contract("L1", "S37")
def test_L1_plain_http_where_TLS_is_expected(trusting: rawdl.TLS):
    def peer(conn: Conn):
        yield lambda: bool(conn.received)
        conn.send(Script(status=400, reason="Bad Request", keep_alive=False, body=b"speak http").wire)

    with World() as world:
        world.listen(HOST, 443, peer)
        error = run(world, SECURE_URL, {"tls": trusting}).error
        assert isinstance(error, rawdl.TLSError)
        assert error.reason == "connection failed"
        assert "plain http" in str(error)


@pytest.mark.contract("L1")
def test_L1_TLS_where_plain_http_is_expected(server_context: ssl.SSLContext):
    with World() as world:
        world.listen(HOST, 80, http_peer(OK), tls=server_context)
        error = run(world).error
        assert isinstance(error, rawdl.ProtocolError)
        assert world.requests == []


def test_L2_a_certificate_that_nobody_vouches_for(server_context: ssl.SSLContext):
    with World() as world:
        world.listen(HOST, 443, http_peer(OK), tls=server_context)
        error = run(world, SECURE_URL).error
        assert isinstance(error, rawdl.TLSError)
        assert (error.reason, error.certificate) == ("certificate", True)
        assert world.requests == []


def test_L2_a_certificate_for_another_name(server_context: ssl.SSLContext, trusting: rawdl.TLS):
    with World() as world:
        world.listen("example.net", 443, http_peer(OK), tls=server_context)
        error = run(world, "https://example.net/", {"tls": trusting}).error
        assert isinstance(error, rawdl.TLSError)
        assert (error.reason, error.certificate) == ("certificate", True)
        assert world.requests == []


@pytest.mark.parametrize("record", [b"\x17\x03\x03\x00\x20" + bytes(32), b"\x15\x03\x03\x00\x02\x02\x28", b"junk!"])
def test_L3_a_bad_record_or_an_alert_in_the_body(record: bytes, server_context: ssl.SSLContext, trusting: rawdl.TLS):
    def talk(conn: Conn, engine: TLSEngine) -> None:
        engine.send(Script(body=b"x" * 100).wire[:-10])
        conn.send(engine.data_to_send() + record)

    with World() as world:
        world.listen(HOST, 443, tls_peer(server_context, talk))
        fetch = run(world, SECURE_URL, {"tls": trusting})
        error = fetch.error
        assert isinstance(error, rawdl.IncompleteBody)
        assert (error.received, error.expected) == (90, 100)
        assert fetch.data == b"x" * 90
        assert isinstance(error.__cause__, rawdl.ConnectionLost)
        assert world.elapsed < 1


@pytest.mark.contract("L3")
def test_L3_a_bad_record_behind_a_complete_response_harms_nobody(server_context: ssl.SSLContext, trusting: rawdl.TLS):
    def talk(conn: Conn, engine: TLSEngine) -> None:
        engine.send(OK.wire)
        conn.send(engine.data_to_send() + b"junk!" * 5)

    with World() as world:
        world.listen(HOST, 443, tls_peer(server_context, talk))
        client = world.client(tls=trusting)
        fetches = [Fetch(client, SECURE_URL)]
        fetches[0].react("success", lambda result: fetches.append(Fetch(client, SECURE_URL)))
        client.run()
        assert [fetch.result.data_length for fetch in fetches] == [5, 5]
        assert len(world.conns) == 2
