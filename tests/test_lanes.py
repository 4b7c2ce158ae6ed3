"""Whole blocks: bytes are waited for in blocks or smaller batches, and nothing is left lying (T15, T36)."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import pytest

import rawdl
from rawdl.connection import Connection
from rawdl.lanes import Lanes, Pipe
from rawdl.loop import Loop
from tests import once
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


@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
def test_the_kernel_moves_whole_blocks_too(
    framing: str, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Over the ends of large chunks, too."""
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
        script = Script(body=BODY, framing=framing, chunk=70_000)  # type: ignore[arg-type]
        client.download_file(url=origin.serve("/a", script), file_path=tmp_path / "a").result()
    assert {BLOCK, 2 * BLOCK, 3 * BLOCK} <= set(bounds)
    assert (tmp_path / "a").read_bytes() == BODY


class Spliced:
    """A download into a file whose body begins when the test says so, piece by piece; little is enough for a splice."""

    def __init__(self, client: rawdl.Client, listener: socket.socket, path: Path, head: bytes, **options: Any) -> None:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a"
        self.client = client
        self.fetch = Fetch(client, url, file_path=path, progress_interval=0, **options)
        client.run(0.01)
        self.peer = listener.accept()[0]
        self.peer.settimeout(5)
        self.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        while "headers" not in self.fetch.names:
            client.step(5)

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.peer.sendall(piece)
            self.client.step(0)

    def end(self) -> rawdl.DownloadResult | rawdl.DownloadError:
        self.client.run(5)
        self.peer.close()
        return self.fetch.end


@pytest.fixture
def spliced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Spliced]]:
    """Make such downloads."""
    monkeypatch.setattr("rawdl.lanes._WORTH_SPLICING", WORTH)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(once.client())
        made = partial(Spliced, client, listener, tmp_path / "a")
        yield lambda *args, **options: stack.enter_context(closing_peer(made(*args, **options)))


@contextmanager
def closing_peer(download: Spliced) -> Iterator[Spliced]:
    with download.peer:
        yield download


WORTH = 1000
CHUNKED = b"Transfer-Encoding: chunked"


@pytest.mark.parametrize("behind", [b"", b"surplus", b"x"])
@pytest.mark.parametrize(
    ("head", "end"), [(b"Content-Length: 20000", b""), (CHUNKED, b"\r\n0\r\n\r\n")], ids=["length", "chunked"]
)
def test_H9_what_is_behind_a_spliced_body_is_seen(
    head: bytes, end: bytes, behind: bytes, spliced: Callable[..., Spliced], tmp_path: Path
):
    download = spliced(head)
    begin = b"%x\r\n" % 20000 if end else b""
    download.send(begin + bytes(5000), bytes(15_000) + end + behind)
    result = download.end()
    assert isinstance(result, rawdl.DownloadResult)
    assert result.data_length == 20_000
    assert bool(result.surplus) == bool(behind) and result.surplus <= len(behind)
    assert result.surplus == len(behind) or end, "of a chunked body not all need be looked at"
    assert len(download.client.stats().connections) == (not behind)
    assert (tmp_path / "a").read_bytes() == bytes(20_000)


def chunks_of(body: bytes, random: Random) -> bytes:
    """Spell a body in chunks, mostly so large that they are worth it; with all that the grammar has."""
    wire, at = [], 0
    while at < len(body):
        size = random.choice((1, 15, WORTH - 1, WORTH, 4096, 4096, 4096, 70_000, 300_000))
        data = body[at : at + size]
        at += size
        padding = random.choice((b"", b"", b"", b"000"))
        extension = random.choice((b"", b"", b"", b";a=b", b' ; c="d;"'))
        wire.append(padding + b"%x" % len(data) + extension + b"\r\n" + data + b"\r\n")
    return b"".join(wire) + b"0\r\n" + random.choice((b"", b"A: b\r\n")) + b"\r\n"


@pytest.mark.parametrize("limited", [None, 50e6])
@pytest.mark.parametrize("seed", range(12))
def test_I9_large_chunks_however_they_come(
    seed: int, limited: float | None, spliced: Callable[..., Spliced], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    random = Random(seed)
    if seed % 3 == 0:
        monkeypatch.setattr("rawdl.lanes.Pipe.SIZE", 65536)  # many blocks
    real = Lanes.move

    def move(self: Lanes, *most: int) -> int | None:
        n = real(self, *most)
        assert not most or n is None or n <= most[0]
        return n

    monkeypatch.setattr(Lanes, "move", move)
    body = random.randbytes(random.choice((3_000, 60_000, 2_500_000)))
    wire = chunks_of(body, random)
    download = spliced(CHUNKED, rate_limit=limited)
    at = 0
    while at < len(wire):
        size = random.choice((1, 2, 7, 9, 4096, 4105, 70_000, 200_000))
        download.send(wire[at : at + size])
        at += size
    result = download.end()
    assert isinstance(result, rawdl.DownloadResult)
    assert (result.data_length, result.surplus) == (len(body), 0)
    assert (tmp_path / "a").read_bytes() == body
    assert len(download.client.stats().connections) == 1


@pytest.mark.parametrize("wrong", [b"x", b"\n", b"\r\nx\r\n", b"\r\n-1\r\n", b"\r\n8000000000000000\r\n"])
def test_C1_C6_I3_what_came_before_a_wrong_chunk_line_is_written(
    wrong: bytes, spliced: Callable[..., Spliced], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written: list[int] = []
    real = os.splice

    def splice(source: int, target: int, *args: Any) -> int:
        n = real(source, target, *args)
        if stat.S_ISREG(os.fstat(target).st_mode):
            written.append(n)
        return n

    monkeypatch.setattr(os, "splice", splice)
    download = spliced(CHUNKED)
    download.send(b"1000\r\n", (bytes(4096) + b"\r\n1000\r\n") * 3 + bytes(4096) + wrong + bytes(20))
    assert isinstance(download.end(), rawdl.ProtocolError)
    assert sum(written) == 4 * 4096
    assert list(tmp_path.iterdir()) == []


def test_T15_progress_is_told_where_a_chunk_ends(spliced: Callable[..., Spliced], tmp_path: Path):
    download = spliced(CHUNKED)
    chunk = b"1000\r\n" + bytes(4096) + b"\r\n"
    for _ in range(4):
        download.send(chunk[:-2], chunk[-2:])
        download.client.run(0.01)
    told = [update.total_bytes_written for update in download.fetch.of("progress")]
    assert told == [4096 * n for n in range(1, 5)], "once for each, and never for what is between them"
    download.send(b"0\r\n\r\n")
    assert isinstance(download.end(), rawdl.DownloadResult)


def test_T15_progress_is_told_of_what_came_with_a_part_of_a_chunk_line(spliced: Callable[..., Spliced]):
    """A server that says no more for a while has said that."""
    download = spliced(CHUNKED)
    chunk = b"1000\r\n" + bytes(4096) + b"\r\n"
    download.send(chunk, chunk * 2 + b"1\r\nx\r\n2")
    download.client.run(0.01)
    assert download.fetch.of("progress")[-1].total_bytes_written == 3 * 4096 + 1
    download.send(b"\r\nyz\r\n0\r\n\r\n")
    assert isinstance(download.end(), rawdl.DownloadResult)


@pytest.mark.parametrize("call", ["fill", "drain"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_chunks_where_the_kernel_refuses(
    call: str, nth: int, spliced: Callable[..., Spliced], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real, calls = getattr(Pipe, call), 0

    def refusing(self: Pipe, *args: Any) -> int | None:
        nonlocal calls
        calls += 1
        if calls >= nth:
            raise OSError(errno.EINVAL, "refused")
        return real(self, *args)  # type: ignore[no-any-return]

    monkeypatch.setattr(Pipe, call, refusing)
    body = Random(nth).randbytes(40_960)
    download = spliced(CHUNKED)
    for at in range(0, len(body), 8192):
        download.send(b"".join(b"1000\r\n" + body[to : to + 4096] + b"\r\n" for to in (at, at + 4096)))
    download.send(b"0\r\n\r\n")
    assert isinstance(download.end(), rawdl.DownloadResult)
    assert calls == nth
    assert (tmp_path / "a").read_bytes() == body


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
