"""Whole blocks: bytes are waited for in blocks or smaller batches, and nothing is left lying (T15, T36)."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest

import rawdl
from rawdl.connection import Connection
from rawdl.loop import Loop
from tests.origin import Origin, Script
from tests.sim import Conn, Link, Socket, World, http_peer
from tests.sim_tests.fetch import ANSWERED, HOST, LATENCY, SECURE_URL, URL, Fetch

BLOCK = 1 << 20
BODY = bytes(range(251)) * 17000  # four blocks and some
MARK = (socket.SOL_SOCKET, socket.SO_RCVLOWAT)
FAST = Link(window=8 * BLOCK, segment=131072)
LINE = Link(window=8 * BLOCK, segment=1460, merged=True)
PATIENCE = 0.1

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="readiness for whole blocks is asked of Linux only")


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


class Marks:
    """A sink that writes down, for each piece, when it came, its size, and what the socket was waiting for."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sizes: list[int] = []
        self.times: list[float] = []
        self.marks: list[int] = []

    def __call__(self, data: memoryview) -> None:
        [sock] = self.world.sockets.values()
        mark = sock.options.get(MARK, 1)
        assert isinstance(mark, int)
        self.sizes.append(len(data))
        self.times.append(self.world.elapsed)
        self.marks.append(mark)

    @property
    def totals(self) -> list[int]:
        return list(accumulate(self.sizes))


def in_bursts(*pieces: bytes, gap: float) -> object:
    """Make a peer that sends a head and the first piece at once, and each further one after a gap."""

    def peer(conn: Conn) -> Iterator[float]:
        yield from conn.read_until(b"\r\n\r\n")  # type: ignore[misc]
        conn.send(Script(body=b"".join(pieces)).head + pieces[0])
        for piece in pieces[1:]:
            yield gap
            conn.send(piece)
        yield 3600.0

    return peer


@pytest.mark.parametrize("framing", ["content-length", "until-close", "chunked"])
@pytest.mark.parametrize("block", [4096, 262144, BLOCK])
def test_no_read_goes_beyond_a_block(framing: str, block: int, world: World):
    script = Script(body=BODY, framing=framing, chunk=len(BODY))  # type: ignore[arg-type]
    world.listen(HOST, 80, http_peer(script), link=FAST)
    marks = Marks(world)
    fetch = Fetch(world.client(buffer_size=block), sink=marks)
    fetch.task.exception()
    assert fetch.result.data_length == marks.totals[-1] == len(BODY)
    # But for the read that brought the head, and for the last, which may take what is left.
    assert set(range(block, len(BODY) - block, block)) - set(marks.totals) <= set(range(0, marks.sizes[0] + 1, block))
    assert all(mark <= block for mark in marks.marks)
    assert (max(marks.marks) > 1) == (block >= 262144), "small blocks are not worth waiting for"


def test_the_wait_is_never_for_more_than_is_sure_to_come(world: World):
    world.listen(HOST, 80, http_peer(Script(body=BODY)), link=FAST)
    marks = Marks(world)
    fetch = Fetch(world.client(), sink=marks)
    fetch.task.exception()
    assert fetch.result.data_length == len(BODY)
    for mark, before in zip(marks.marks, [0, *marks.totals], strict=False):
        assert mark == 1 or mark <= len(BODY) - before
    assert max(marks.marks) == BLOCK
    assert max(marks.times) == pytest.approx(ANSWERED), "nothing was waited for in vain"


@pytest.mark.parametrize("chunk", [65536, 3 * BLOCK])
def test_the_end_of_a_chunked_body_is_seen_at_once(chunk: int, world: World):
    world.listen(HOST, 80, http_peer(Script(body=BODY, framing="chunked", chunk=chunk)), link=FAST)
    fetch = Fetch(world.client(), sink=Marks(world))
    fetch.task.exception()
    assert fetch.result.data_length == len(BODY)
    assert world.elapsed == pytest.approx(ANSWERED)


def test_a_connection_goes_back_without_a_mark(world: World):
    """The next head is shorter than any block."""
    world.listen(HOST, 80, http_peer({"/a": Script(body=BODY), "/b": Script(body=b"b")}), link=FAST)
    client, marks = world.client(), Marks(world)
    client.download_file(url=URL, sink=marks).result()
    assert max(marks.marks) == BLOCK
    [sock] = world.sockets.values()
    assert sock.options[MARK] == 1
    began = world.elapsed
    assert client.download_file(url=f"http://{HOST}/b", sink=rawdl.DiscardSink()).result().profile.socket_reused
    assert world.elapsed - began == pytest.approx(2 * LATENCY)


@pytest.mark.parametrize(
    ("bandwidth", "most"), [(100e6, BLOCK), (10e6, 262144), (1e6, 32768), (400e3, 16384), (200e3, 1)]
)
def test_no_more_is_waited_for_than_comes_in_half_of_our_patience(bandwidth: float, most: int, world: World):
    """So that a batch which is late is the exception."""
    world.listen(HOST, 80, http_peer(Script(body=BODY)), link=replace(LINE, bandwidth=bandwidth))
    marks = Marks(world)
    Fetch(world.client(), sink=marks).task.result()
    assert max(marks.marks) == most


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("bandwidth", [1e6, 5e6, 25e6])
def test_a_line_wakes_us_up_for_batches_and_not_for_packets(
    bandwidth: float, scheme: str, world: World, server_context: ssl.SSLContext, ca_file: Path
):
    port, tls = (443, server_context) if scheme == "https" else (80, None)
    link = replace(LINE, bandwidth=bandwidth)
    world.listen(HOST, port, http_peer(Script(body=BODY)), link=link, tls=tls)
    client = world.client(tls=rawdl.TLS(ca_file=str(ca_file)))
    client.download_file(url=f"{scheme}://{HOST}/a", sink=Marks(world)).result()
    assert world.elapsed == pytest.approx(len(BODY) / bandwidth, abs=0.1), "waiting costs no time"
    assert client.stats().wake_ups < 600 + 100 * world.elapsed  # packets at first, until it is known how fast they come


@pytest.mark.parametrize("window", [16384, 65536, 262144])
def test_no_more_is_waited_for_than_a_quarter_of_what_the_kernel_has_room_for(
    window: int, world: World, monkeypatch: pytest.MonkeyPatch
):
    """Else the peer would have to wait as well; so it is asked for more room first, which this one does not give."""
    asked: list[int] = []
    real = Socket.setsockopt

    def setsockopt(sock: Socket, level: int, option: int, value: int) -> None:
        asked.append(value)
        real(sock, level, option, value)

    monkeypatch.setattr(Socket, "setsockopt", setsockopt)
    world.listen(HOST, 80, http_peer(Script(body=BODY)), link=replace(LINE, window=window, bandwidth=20e6))
    marks = Marks(world)
    Fetch(world.client(), sink=marks).task.result()
    assert max(marks.marks) == (window // 4 if window // 4 >= 16384 else 1)
    assert max(asked) > window


@pytest.mark.parametrize("first", [len(BODY), 4 * BLOCK], ids=["in a block", "between two"])
@pytest.mark.parametrize("gap", [0.015, 1.0])
def test_T15_what_comes_slower_is_not_left_lying(gap: float, first: int, world: World):
    """Once a block does not come, its beginning is told, and from then on each byte when it comes."""
    pieces = [BODY[:first], *[b"x" * 1000] * 10, bytes(3 * BLOCK)]
    link = replace(LINE, bandwidth=200e6)
    world.listen(HOST, 80, in_bursts(*pieces, gap=gap), link=link)  # type: ignore[arg-type]
    marks = Marks(world)
    fetch = Fetch(world.client(), sink=marks)
    fetch.task.exception()
    assert fetch.result.data_length == sum(map(len, pieces))
    assert max(marks.marks) == BLOCK
    seen = dict(zip(marks.totals, marks.times, strict=True))
    for n in range(11):
        told = min(when for total, when in seen.items() if total >= first + 1000 * n)
        assert told <= ANSWERED + max(first / 200e6, n * gap) + PATIENCE + 1e-4
    for n in range(int(PATIENCE / gap) + 3, 11):
        assert seen[first + 1000 * n] == pytest.approx(ANSWERED + n * gap, abs=1e-4)


def test_T15_a_head_without_a_body_is_no_sign_of_speed(world: World):
    """However large the first chunk will be."""

    def peer(conn: Conn) -> Iterator[float]:
        yield from conn.read_until(b"\r\n\r\n")  # type: ignore[misc]
        conn.send(Script(framing="chunked").head)
        yield 0.001
        conn.send(b"%x\r\n" % (4 * BLOCK))
        for _ in range(10):
            yield 0.001
            conn.send(b"x" * 1000)
        yield 3600.0

    world.listen(HOST, 80, peer, link=FAST)
    marks = Marks(world)
    fetch = Fetch(world.client(), sink=marks, timeouts=rawdl.Timeouts(idle=1))
    assert isinstance(fetch.task.exception(), rawdl.Timeout)
    assert set(marks.marks) == {1}
    assert marks.times == pytest.approx([ANSWERED + 0.001 * n for n in range(2, 12)])


@pytest.mark.parametrize("idle", [0.03, 0.2, 60.0])
def test_T36_S25_waiting_for_a_block_is_not_idle(idle: float, world: World):
    """Bytes that come all the time keep the task alive, however short the limit is."""
    pieces = [BODY, *[b"x" * 1000] * 200, bytes(2 * BLOCK)]
    world.listen(HOST, 80, in_bursts(*pieces, gap=0.01), link=FAST)  # type: ignore[arg-type]
    marks = Marks(world)
    fetch = Fetch(world.client(), sink=marks, timeouts=rawdl.Timeouts(idle=idle))
    fetch.task.exception()
    assert fetch.result.data_length == sum(map(len, pieces))
    assert max(marks.marks) == BLOCK


def test_T36_S25_an_idle_connection_is_found_out_while_a_block_is_waited_for(world: World):
    world.listen(HOST, 80, in_bursts(BODY, bytes(2 * BLOCK), gap=3600.0), link=FAST)  # type: ignore[arg-type]
    fetch = Fetch(world.client(), sink=Marks(world), timeouts=rawdl.Timeouts(idle=2.0))
    error = fetch.task.exception()
    assert isinstance(error, rawdl.Timeout)
    assert world.elapsed == pytest.approx(ANSWERED + PATIENCE + 2.0)


@pytest.mark.parametrize("end", ["fin", "rst"])
def test_an_end_is_seen_while_a_block_is_waited_for(end: str, world: World):
    at = len(Script(body=BODY).head) + 3 * BLOCK + 1000
    world.listen(HOST, 80, http_peer(Script(body=BODY, cut_at=at, cut=end)), link=FAST)  # type: ignore[arg-type]
    marks = Marks(world)
    fetch = Fetch(world.client(), sink=marks)
    assert isinstance(fetch.task.exception(), rawdl.IncompleteBody)
    assert max(marks.marks) == BLOCK
    assert marks.totals[-1] == 3 * BLOCK + 1000
    assert world.elapsed == pytest.approx(ANSWERED)


def test_an_abort_leaves_no_timer(world: World):
    world.listen(HOST, 80, in_bursts(BODY, b"never", gap=3600.0), link=FAST)  # type: ignore[arg-type]
    client, marks = world.client(), Marks(world)
    fetch = Fetch(client, sink=marks)
    while 3 * BLOCK not in marks.totals:
        client.step(None)
    fetch.task.abort()
    client.run()
    assert isinstance(fetch.error, rawdl.Aborted)
    assert client.next_deadline() is None


def test_of_tls_no_more_is_waited_for_than_is_sure_to_come(world: World, server_context: ssl.SSLContext, ca_file: Path):
    """A part of a record may be here already, where the kernel does not count it."""
    world.listen(HOST, 443, http_peer(Script(body=BODY)), link=replace(LINE, bandwidth=25e6), tls=server_context)
    marks = Marks(world)
    client = world.client(tls=rawdl.TLS(ca_file=str(ca_file)))
    client.download_file(url=SECURE_URL, sink=marks).result()
    assert sum(marks.sizes) == len(BODY)
    assert max(marks.marks) == BLOCK
    for mark, before in zip(marks.marks, [0, *marks.totals], strict=False):
        assert mark == 1 or mark <= len(BODY) - before - 16384
    assert world.elapsed < len(BODY) / 25e6 + PATIENCE, "nothing was waited for in vain"


@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
def test_blocks_of_a_real_kernel(framing: str, origin: Origin, tmp_path: Path):
    """By splice into a file, by the buffer into memory; one after another, and all at once."""
    url = origin.serve("/a", Script(body=BODY * 4, framing=framing, chunk=3 * BLOCK))  # type: ignore[arg-type]
    with rawdl.Client() as client:
        for name in ("a", "b"):
            client.download_file(url=url, file_path=tmp_path / name).result()
            assert (tmp_path / name).read_bytes() == BODY * 4
        sinks = [rawdl.MemorySink() for _ in range(3)]
        tasks = [client.download_file(url=url, sink=sink) for sink in sinks]
        assert client.run() is False
        assert [task.result().data_length for task in tasks] == [len(BODY) * 4] * 3
        assert all(sink.getvalue() == BODY * 4 for sink in sinks)


def test_the_kernel_moves_whole_blocks_too(origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """But for what is less than a splice is worth, before the end of one."""
    real, bounds = os.splice, []

    def splice(source: int, target: int, *args: object, **options: object) -> int:
        regular = stat.S_ISREG(os.fstat(target).st_mode)
        if regular:
            bounds.append(os.lseek(target, 0, os.SEEK_CUR))
        n = real(source, target, *args, **options)  # type: ignore[arg-type]
        if regular:
            bounds.append(os.lseek(target, 0, os.SEEK_CUR))
        return n

    monkeypatch.setattr(os, "splice", splice)
    with rawdl.Client(buffer_size=65536) as client:
        client.download_file(url=origin.serve("/a", Script(body=BODY)), file_path=tmp_path / "a").result()
    assert {BLOCK, 2 * BLOCK, 3 * BLOCK} <= set(bounds)
    assert (tmp_path / "a").read_bytes() == BODY


@pytest.mark.parametrize("behind", [b"", b"surplus"])
def test_H9_what_is_behind_a_spliced_body_is_seen(behind: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rawdl.lanes._WORTH_SPLICING", 1000)
    with socket.create_server(("127.0.0.1", 0)) as listener, rawdl.Client() as client:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a"
        there: list[object] = []
        task = client.download_file(url=url, file_path=tmp_path / "a")
        task.on_headers_received(there.append)
        client.run(0.01)
        with listener.accept()[0] as peer:
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n")
            while not there:
                client.step(5)
            peer.sendall(bytes(20_000) + behind)
            result = task.result(5)
            assert (result.data_length, result.surplus) == (20_000, len(behind))
            assert len(client.stats().connections) == (not behind)
    assert (tmp_path / "a").read_bytes() == bytes(20_000)


@pytest.mark.parametrize("failing", [1, 2])
def test_a_mark_that_could_not_be_taken_back_is_taken_back_later(failing: int, monkeypatch: pytest.MonkeyPatch):
    """Else the next head would be waited for in vain."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    calls = 0
    real = socket.socket.setsockopt

    class Failing(socket.socket):
        def setsockopt(self, *args: int) -> None:  # type: ignore[override]
            nonlocal calls
            calls += 1
            if calls == failing:
                raise OSError(errno.ENOBUFS, "no")
            real(self, *args)

    loop = Loop()
    connection = Connection(loop, Failing(fileno=ours.detach()), ("127.0.0.1", 80))
    connection.make_room(1 << 20)
    connection.expect(1)
    assert connection.sock.getsockopt(*MARK) == 1
    connection.sock.close()
    theirs.close()
    loop.close()
