"""What a server may say that it should not, or that means less than it seems; the names are rows of the tables."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rawdl
from rawdl import Phase, TaskState
from tests.origin import TLSEngine
from tests.sim import Conn, Link, Script, World, http_peer
from tests.sim_tests.fetch import ANSWERED, CONNECTED, HOST, SECURE_URL, URL, Fetch, open_connections, run
from tests.sim_tests.peers import CLOSING, OK, REQUEST_END, answer, tls_peer


@pytest.mark.contract("H1", "T22")
@pytest.mark.parametrize("status", [400, 404, 429, 500, 503, 599, 600, 999])
def test_H1_an_error_status_is_a_success_unless_it_was_asked_not_to_be(status: int, tmp_path: Path):
    peer = http_peer(Script(status=status, body=b"sorry", header=(("Retry-After", "1"),)))
    with World() as world:
        world.listen(HOST, 80, peer)
        assert run(world).result.status_code == status
    with World() as world:
        world.listen(HOST, 80, peer)
        fetch = run(world, file_path=tmp_path / "a", fail_on_status=True)
        error = fetch.error
        assert isinstance(error, rawdl.StatusError)
        assert error.status_code == status
        assert error.reason == f"http status {status}"
        assert fetch.names == ["headers", "fail", "complete"]
    assert list(tmp_path.iterdir()) == []


NO_BODY = [(status, framing) for status in (204, 205, 304) for framing in ("none", "content-length", "chunked")]


@pytest.mark.contract("H2")
@pytest.mark.parametrize(("status", "framing"), NO_BODY)
def test_H2_a_status_that_has_no_body(status: int, framing: str, tmp_path: Path):
    """What the field says of a length is not waited for (RFC 9112 6.3), nor is what follows taken for a response."""
    head = Script(status=status, framing=framing, content_length=10).head
    with World() as world:
        world.listen(HOST, 80, answer(head, 1e9))
        fetch = run(world, file_path=tmp_path / "a")
        assert fetch.result.status_code == status
        assert world.elapsed < 1
        (update,) = fetch.of("progress")
        assert (update.progress, update.total_bytes_written, update.total_bytes_expected_to_write) == (100, 0, 0)
    assert (tmp_path / "a").read_bytes() == b""


@pytest.mark.contract("H2", "C9")
def test_H2_interim_responses_only():
    with World() as world:
        world.listen(HOST, 80, answer(b"HTTP/1.1 100 Continue\r\n\r\n"))
        fetch = run(world)
        assert isinstance(fetch.error, rawdl.IncompleteHead)
        assert fetch.names == ["fail", "complete"]


def test_H2_switching_protocols_unasked():
    with World() as world:
        world.listen(HOST, 80, answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"))
        error = run(world).error
        assert type(error) is rawdl.ProtocolError
        assert (error.reason, error.err_code) == ("protocol error", 600001)


def test_H3_an_empty_body():
    with World() as world:
        world.listen(HOST, 80, http_peer(Script()))
        assert run(world).result.data_length == 0
        assert open_connections(world) == 1


PART = Script(status=206, body=b"llo", header=(("Content-Range", "bytes 2-4/5"),))


@pytest.mark.contract("H4", "T46")
def test_H4_a_part_that_was_not_asked_for(tmp_path: Path):
    with World() as world:
        world.listen(HOST, 80, http_peer(PART))
        error = run(world, file_path=tmp_path / "a").error
        assert isinstance(error, rawdl.ProtocolError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["Range", "range"])
def test_H4_a_part_that_the_caller_asked_for_is_what_is_saved(name: str):
    with World() as world:
        world.listen(HOST, 80, http_peer(PART))
        fetch = run(world, header={name: "bytes=2-"})
        assert fetch.result.status_code == 206
        assert fetch.data == b"llo"
        assert world.requests[0].field("Range") == "bytes=2-"


def test_H4_a_range_on_a_whole_response_means_nothing():
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"hello", header=(("Content-Range", "bytes 2-4/5"),))))
        fetch = run(world)
        assert fetch.result.status_code == 200
        assert fetch.data == b"hello"


@pytest.mark.parametrize(
    "head",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
    ],
)
def test_H6_what_is_no_response(head: bytes, tmp_path: Path):
    """The server says no more and keeps the connection open: the error must come from what is there."""
    with World() as world:
        world.listen(HOST, 80, answer(head, 1e9))
        fetch = run(world, file_path=tmp_path / "a")
        assert isinstance(fetch.error, rawdl.ProtocolError)
        assert not isinstance(fetch.error, rawdl.IncompleteHead)
        assert world.elapsed < 1
        assert len(world.conns) == 1
    assert list(tmp_path.iterdir()) == []


def endless() -> Iterator[bytes]:
    while True:
        yield b"x" * 10_000


class Endless:
    """A body that is begun anew for each request, and never ends."""

    def __iter__(self) -> Iterator[bytes]:
        return endless()


@pytest.mark.contract("H7")
@pytest.mark.parametrize("framing", ["until-close", "chunked"])
def test_H7_an_endless_body_stops_at_the_limit(framing: str, tmp_path: Path):
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=Endless(), framing=framing)))
        fetch = run(world, file_path=tmp_path / "a", limits=rawdl.Limits(body=1_000_000))
        error = fetch.error
        assert isinstance(error, rawdl.TooLarge)
        assert (error.limit, error.reason, error.err_code) == (1_000_000, "exceed max file size", 602001)
        assert max(update.total_bytes_written for update in fetch.of("progress")) <= 1_000_000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.contract("H7")
@pytest.mark.parametrize("framing", ["until-close", "chunked"])
def test_H7_an_endless_body_stops_at_the_total(framing: str):
    with World() as world:
        link = Link(bandwidth=100_000)
        world.listen(HOST, 80, http_peer(Script(body=Endless(), framing=framing)), link=link)
        error = run(world, timeout=20).error
        assert isinstance(error, rawdl.Timeout)
        assert error.phase is Phase.TOTAL
        assert world.elapsed == pytest.approx(20)


@pytest.mark.contract("H7")
@pytest.mark.parametrize("excess", [0, 1])
@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
def test_H7_the_limit_itself_is_allowed(framing: str, excess: int):
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"x" * (1000 + excess), framing=framing, chunk=300)))
        fetch = run(world, limits=rawdl.Limits(body=1000))
        if excess:
            assert isinstance(fetch.error, rawdl.TooLarge)
            assert len(fetch.data) <= 1000
        else:
            assert fetch.result.data_length == 1000


@pytest.mark.contract("H9")
@pytest.mark.parametrize(("segment", "surplus"), [(16384, 7), (3, 2), (1, 0)])
def test_H9_a_body_that_is_longer_than_it_says(
    segment: int, surplus: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """What has come with the end of the body is told of; what comes later closes the connection, which is idle then."""
    with World() as world:
        world.listen(HOST, 80, answer(Script(body=b"hello").wire + b"surplus", 1e9), link=Link(segment=segment))
        client = world.client()
        result = client.download_file(url=URL, file_path=tmp_path / "a").result()
        assert (result.data_length, result.length_known) == (5, True)
        assert result.surplus == result.to_dict()["surplus"] == surplus
        told = f"{URL}: {surplus} bytes came behind the end of the body, and were dropped"
        assert [record.getMessage() for record in caplog.records] == [told] * (surplus > 0)
        world.wait()
        client.step(0)
        assert open_connections(world) == 0
    assert (tmp_path / "a").read_bytes() == b"hello"


@pytest.mark.contract("H9")
@pytest.mark.parametrize("length", [4095, 4096, 8192, 8193])
@pytest.mark.parametrize("options", [{}, {"rate_limit": 1e5}], ids=["free", "limited"])
def test_H9_it_is_seen_wherever_the_last_read_ends(length: int, options: dict[str, Any], tmp_path: Path):
    """A read that was not to go beyond the end of the body is followed by a look behind it."""
    script = Script(body=bytes(length) + b"surplus", content_length=length)
    with World() as world:
        world.listen(HOST, 80, http_peer(script))
        fetch = run(world, client_options={"buffer_size": 4096}, file_path=tmp_path / "a", **options)
        assert (fetch.result.data_length, fetch.result.surplus) == (length, 7)
        assert open_connections(world) == 0
    assert (tmp_path / "a").read_bytes() == bytes(length)


@pytest.mark.contract("H9")
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_H9_a_close_behind_the_body_is_no_fault(how: Any):
    script = Script(body=bytes(8192))
    with World() as world:
        world.listen(HOST, 80, http_peer(replace(script, cut_at=len(script.wire), cut=how)))
        fetch = run(world, client_options={"buffer_size": 4096})
        assert (fetch.result.data_length, fetch.result.surplus, fetch.result.attempts) == (8192, 0, ())


def surplus_peer(wire: bytes, surplus: bytes) -> Callable[[Conn], Iterator[float]]:
    """Make a peer that adds a surplus, which looks like a response, to its first one, and answers 200 after that."""

    def peer(conn: Conn):
        yield from conn.read_until(REQUEST_END)
        conn.send(wire if conn.number == 1 else OK.wire)
        if conn.number == 1:
            conn.send(surplus)
        while True:
            yield from conn.read_until(REQUEST_END)
            conn.send(OK.wire)

    return peer


SMUGGLED = Script(status=418, body=b"smuggled").wire


@pytest.mark.contract("C8")
@pytest.mark.parametrize("queued", ["before", "in its callback", "after"])
@pytest.mark.parametrize("segment", [len(OK.wire), 1, 16384])
def test_C8_what_follows_a_response_is_not_the_response_to_the_next_request(segment: int, queued: str):
    with World() as world:
        world.listen(HOST, 80, surplus_peer(OK.wire, SMUGGLED), link=Link(segment=segment))
        client = world.client(max_per_host=1 if queued == "before" else 6)
        fetches = [Fetch(client)]
        if queued == "before":
            fetches.append(Fetch(client))
        if queued == "in its callback":
            fetches[0].react("success", lambda result: fetches.append(Fetch(client)))
        client.run()
        if queued == "after":
            fetches.append(Fetch(client))
            client.run()
        assert [fetch.result.status_code for fetch in fetches] == [200, 200]
        assert [fetch.data for fetch in fetches] == [b"hello", b"hello"]


@pytest.mark.contract("C8")
def test_C8_not_even_if_the_next_task_begins_in_the_turn_in_which_this_one_ends():
    """The response has come as one segment, the surplus as another, and both are there."""
    with World() as world:
        world.listen(HOST, 80, surplus_peer(OK.wire, SMUGGLED), link=Link(segment=len(OK.wire)))
        client = world.client()
        first = Fetch(client)
        world.drive(client, until=CONNECTED)
        world.wait(1.0)
        second = Fetch(client)
        client.run()
        assert [first.result.status_code, second.result.status_code] == [200, 200]


@pytest.mark.contract("C8")
def test_C8_not_even_if_it_comes_in_the_turn_in_which_the_next_task_begins():
    """A listener of another task takes long, and before the next select() the idle connection is taken."""

    def peer(conn: Conn):
        yield from conn.read_until(REQUEST_END)
        conn.send(OK.wire)
        yield 5.0
        conn.send(SMUGGLED)
        yield from conn.read_until(REQUEST_END)
        conn.send(OK.wire)

    with World() as world:
        world.listen(HOST, 80, peer)
        world.listen("other.example.org", 80, http_peer(Script(body=b"x" * 100, pace=100)))
        client = world.client()
        first, other = Fetch(client), Fetch(client, "http://other.example.org/", progress_interval=0)
        world.drive(client, until=1.0)
        assert first.result.data_length == 5
        assert open_connections(world) == 2
        other.react("progress", lambda update: world.wait(max(0, 8.0 - world.elapsed)))
        world.wait(0.5)
        second = Fetch(client)
        client.run()
        assert second.result.status_code == 200
        assert second.data == b"hello"


@pytest.mark.contract("C8")
@pytest.mark.parametrize("length", [4000, 4095, 4096, 4097, 8191, 8192, 8193])
def test_C8_not_even_if_TLS_has_decrypted_it_already(length: int, server_context: ssl.SSLContext, trusting: rawdl.TLS):
    """Response and surplus are one record; some of these responses end where the buffer does."""
    body = length - Script(body=b"x" * 4000).body_at
    wire = Script(body=b"x" * body).wire
    assert len(wire) == length

    def talk(conn: Conn, engine: TLSEngine):
        engine.send(wire + SMUGGLED if conn.number == 1 else OK.wire)
        conn.send(engine.data_to_send())
        yield lambda: bool(conn.received)
        engine.send(OK.wire)
        conn.send(engine.data_to_send())

    with World() as world:
        world.listen(HOST, 443, tls_peer(server_context, talk))
        client = world.client(tls=trusting, buffer_size=4096)
        first = Fetch(client, SECURE_URL)
        client.run()
        assert first.result.data_length == body
        world.wait(1.0)
        second = Fetch(client, SECURE_URL)
        client.run()
        assert second.result.status_code == 200
        assert second.data == b"hello"


@pytest.mark.contract("C8")
@pytest.mark.parametrize("late", [b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", b"x"])
def test_C8_what_comes_on_an_idle_connection_closes_it(late: bytes, site: dict[str, Any]):
    def peer(conn: Conn):
        yield from conn.read_until(REQUEST_END)
        conn.send(OK.wire)
        yield 5.0
        conn.send(late)
        yield 1e9

    with World() as world:
        world.listen(HOST, site["port"], peer, tls=site["tls"])
        client = world.client(**site["client"])
        fetch = Fetch(client, site["url"])
        client.run()
        assert fetch.result.data_length == 5
        assert open_connections(world) == 1
        while open_connections(world) and world.elapsed < 10:
            client.step(10.0)
        assert world.elapsed == pytest.approx(ANSWERED + 5.0, abs=0.1)


def test_C8_an_idle_connection_is_closed_after_a_while(site: dict[str, Any]):
    with World() as world:
        world.listen(HOST, site["port"], http_peer(OK), tls=site["tls"])
        client = world.client(**site["client"])
        fetch = Fetch(client, site["url"])
        client.run()
        assert fetch.result.data_length == 5
        assert open_connections(world) == 1
        world.drive(client, until=3600)
        while client.next_deadline() is not None:
            client.step(None)
        assert open_connections(world) == 0


@pytest.mark.contract("C9")
def test_C9_endless_interim_responses():
    def peer(conn: Conn):
        yield from conn.read_until(REQUEST_END)
        while True:
            yield from conn.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100)

    with World() as world:
        world.listen(HOST, 80, peer)
        fetch = run(world)
        assert type(fetch.error) is rawdl.ProtocolError
        assert fetch.names == ["fail", "complete"]


@pytest.mark.contract("C10")
@pytest.mark.parametrize("piece", [b"X: y\r\n", b"x" * 1000, b"X: %b\r\n" % (b"y" * 900)])
def test_C10_an_endless_head(piece: bytes):
    def peer(conn: Conn):
        yield from conn.read_until(REQUEST_END)
        conn.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            yield from conn.write(piece * 10)

    with World() as world:
        world.listen(HOST, 80, peer)
        error = run(world).error
        assert type(error) is rawdl.ProtocolError
        assert world.conns[0].sent < 1_000_000


@pytest.mark.contract("C11", "C10")
@pytest.mark.parametrize("beginning", [b"5;x=", b"5\r\nhello\r\n5;", b"0\r\nX: ", b"0\r\n", b"5"])
def test_C11_an_endless_chunk_line_or_trailer(beginning: bytes):
    filler = b"X: y\r\n" if beginning == b"0\r\n" else b"x" * 500
    if beginning == b"5":
        filler = b"0" * 500

    def peer(conn: Conn):
        yield from conn.read_until(REQUEST_END)
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + beginning)
        while True:
            yield from conn.write(filler)

    with World() as world:
        world.listen(HOST, 80, peer)
        error = run(world).error
        assert type(error) is rawdl.ProtocolError


@pytest.mark.contract("T24")
def test_the_end_of_a_task_is_never_a_state_in_between():
    """Of each way to end, the state, the event and the exception agree; `Fetch.end` looks."""
    with World() as world:
        answers = {"/a": OK, "/b": Script(cut_at=5), "/c": Script(head_delay=1e9), "/d": CLOSING}
        world.listen(HOST, 80, http_peer(answers))
        client = world.client()
        fetches = [Fetch(client, f"http://{HOST}/{name}") for name in "abcd"]
        fetches.append(Fetch(client, "ftp://example.org/"))
        fetches[2].react("complete", lambda end: None)
        client.run()
        states = [TaskState.COMPLETED, TaskState.FAILED, TaskState.FAILED, TaskState.COMPLETED, TaskState.FAILED]
        assert [fetch.task.state for fetch in fetches] == states
        assert [type(fetch.end).__name__ for fetch in fetches][1:3] == ["IncompleteHead", "Timeout"]
        assert isinstance(fetches[4].error, rawdl.InvalidURL)
