"""Progress events on the virtual clock: what they say, when they come, and how many there are."""

from __future__ import annotations

import json
import math
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import rawdl
from rawdl import ProgressUpdate
from tests.sim import Conn, Link, Script, World, http_peer
from tests.sim_tests.fetch import ANSWERED, HOST, URL, Fetch, check_update

KNOWN = ["content-length"]
UNKNOWN = ["chunked", "until-close"]
MIB = 1 << 20


class Listener:
    """Write down each update with its time; a plain function, so that nothing but the last event ends it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.updates: list[ProgressUpdate] = []
        self.times: list[float] = []

    def __call__(self, update: ProgressUpdate) -> None:
        self.updates.append(update)
        self.times.append(self.world.elapsed)


def progress_of(script: Script, link: Link = Link(), **options: object) -> Listener:  # noqa: B008 (it is frozen)
    """Download it and return what a listener was told."""
    with World() as world:
        world.listen(HOST, 80, http_peer(script), link=link)
        client = world.client()
        fetch = Fetch(client, **options)
        listener = Listener(world)
        fetch.task.on_progress_update(listener)
        client.run()
        assert isinstance(fetch.end, rawdl.DownloadResult)
        assert listener.updates == fetch.of("progress")
        return listener


def pieces(head: bytes, *pieces: bytes, gap: float = 1.0) -> Callable[[Conn], Iterator[float]]:
    """Make a peer that answers by a head, and then by each piece after a gap."""

    def peer(conn: Conn):
        yield from conn.read_until(b"\r\n\r\n")
        conn.send(head)
        for piece in pieces:
            yield gap
            conn.send(piece)

    return peer


# What it says


def test_T10_progress_is_rounded_down():
    """Three bytes of known length: 0, 33 and 66, and 100 with the last byte only."""
    script = Script(body=b"abc")
    with World() as world:
        world.listen(HOST, 80, pieces(script.head, b"a", b"b", b"c"))
        client = world.client()
        fetch = Fetch(client)
        client.run()
        assert [update.progress for update in fetch.of("progress")] == [33, 66, 100]
        assert [update.total_bytes_written for update in fetch.of("progress")] == [1, 2, 3]
        assert {update.total_bytes_expected_to_write for update in fetch.of("progress")} == {3}
        assert {type(update.progress) for update in fetch.of("progress")} == {int}


@pytest.mark.contract("T10")
@pytest.mark.parametrize("length", [7, 200, 1000, 99_999])
def test_T10_100_is_the_last_byte_and_no_other(length: int):
    """All but one byte is not 100 %, though it is more than 99.5."""
    script = Script(body=b"x" * length)
    with World() as world:
        world.listen(HOST, 80, pieces(script.head, script.body[:-1], script.body[-1:]), link=Link(segment=MIB))
        client = world.client()
        fetch = Fetch(client)
        client.run()
        before, last = fetch.of("progress")[-2:]
        assert before.progress == (length - 1) * 100 // length < 100
        assert last.progress == 100


@pytest.mark.contract("T10", "K14")
@pytest.mark.parametrize("length", [2**53 + 1, 2**62, 2**63 - 1])
def test_T10_of_a_length_beyond_what_a_float_holds(length: int):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length
    with World() as world:
        world.listen(HOST, 80, pieces(head, b"x" * 1000))
        client = world.client()
        fetch = Fetch(client)
        client.run()
        assert isinstance(fetch.error, rawdl.IncompleteBody)
        (update,) = fetch.of("progress")
        assert (update.progress, update.total_bytes_expected_to_write) == (0, length)
        check_update(update)


@pytest.mark.contract("T10", "T11")
@pytest.mark.parametrize("framing", KNOWN + UNKNOWN)
@pytest.mark.parametrize("segment", [1, 17, 1460, 16384])
@pytest.mark.parametrize("interval", [0, 0.05])
def test_T11_the_count_never_decreases(framing: str, segment: int, interval: float):
    script = Script(body=b"x" * 5000, framing=framing, chunk=300)
    listener = progress_of(script, Link(segment=segment, bandwidth=10_000), progress_interval=interval)
    written = [update.total_bytes_written for update in listener.updates]
    assert written == sorted(written)
    assert written[-1] == 5000
    assert len(written) > (3 if segment < 5000 else 0)
    for update in listener.updates:
        check_update(update)


@pytest.mark.parametrize("framing", UNKNOWN)
def test_T12_of_an_unknown_length(framing: str):
    listener = progress_of(Script(body=b"x" * 5000, framing=framing, chunk=300), Link(segment=500, bandwidth=1000))
    *before, last = listener.updates
    assert len(before) > 3
    for update in before:
        facts = (update.progress, update.total_bytes_expected_to_write, update.length_computable, update.eta)
        assert facts == (0, 0, False, None)
        assert 0 < update.total_bytes_written <= 5000
    assert (last.progress, last.total_bytes_written, last.total_bytes_expected_to_write) == (100, 5000, 5000)
    assert last.length_computable is True


def test_T13_the_counts_are_bytes_of_the_body_as_it_comes():
    """Not those of heads, chunk lines and trailers; of a coded body, not those that it would decode to."""
    coded = bytes.fromhex("1f8b08000000000000ff4b4c4a4ecc4c01009a6cd3ce06000000")
    interim = (b"HTTP/1.1 103 Early Hints\r\n\r\n",)
    header = (("Content-Encoding", "gzip"),)
    for framing in KNOWN + UNKNOWN:
        script = Script(body=coded, framing=framing, chunk=3, header=header, informational=interim)
        last = progress_of(script, Link(segment=1)).updates[-1]
        assert (last.total_bytes_written, last.total_bytes_expected_to_write) == (len(coded), len(coded))


@pytest.mark.contract("T14", "S23")
@pytest.mark.parametrize("framing", KNOWN + UNKNOWN)
@pytest.mark.parametrize("interval", [0, 0.05, 3600])
def test_T14_the_last_event_is_100_and_comes_before_success(framing: str, interval: float, tmp_path: Path):
    """And before the rename: in it there is no file yet."""
    there = []
    with World() as world:
        script = Script(body=b"x" * 5000, framing=framing, pace=2000)
        world.listen(HOST, 80, http_peer(script))
        client = world.client()
        fetch = Fetch(client, file_path=tmp_path / "a", progress_interval=interval)
        fetch.react("progress", lambda update: there.append((tmp_path / "a").exists()))
        client.run()
        assert fetch.names[-3:] == ["progress", "success", "complete"]
        last = fetch.of("progress")[-1]
        assert (last.progress, last.total_bytes_written, last.length_computable, last.eta) == (100, 5000, True, 0.0)
        assert sum(update.progress == 100 for update in fetch.of("progress")) == 1
    assert set(there) == {False}


@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close", "none"])
def test_T14_an_empty_body_gives_one_event(framing: str):
    status = 204 if framing == "none" else 200
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(status=status, framing=framing)))
        client = world.client()
        fetch = Fetch(client)
        client.run()
        assert fetch.names == ["headers", "progress", "success", "complete"]
        (update,) = fetch.of("progress")
        facts = (update.total_bytes_written, update.total_bytes_expected_to_write, update.progress)
        assert facts == (0, 0, 100)
        assert update.to_dict()["progress"] == 100


@pytest.mark.contract("T14", "T21")
def test_no_event_is_the_last_of_a_download_that_fails():
    with World() as world:
        script = Script(body=b"x" * 1000)
        world.listen(HOST, 80, http_peer(replace(script, cut_at=len(script.wire) - 1)))
        client = world.client()
        fetch = Fetch(client)
        client.run()
        assert isinstance(fetch.error, rawdl.IncompleteBody)
        assert [update.progress for update in fetch.of("progress")] == [99]


# When it comes


@pytest.mark.parametrize("interval", [0.05, 0.2, 1.0])
def test_T15_at_most_one_event_in_an_interval(interval: float):
    """The last one, which cannot wait, may come sooner."""
    options = {} if interval == 0.05 else {"progress_interval": interval}
    script, link = Script(body=b"x" * 100_000), Link(segment=100, bandwidth=20_000)
    listener = progress_of(script, link, **options)
    gaps = [after - before for before, after in zip(listener.times[:-1], listener.times[1:-1], strict=False)]
    assert min(gaps) >= interval - 1e-9
    assert max(gaps) < interval + 0.02, "bytes came all the time"
    assert len(listener.times) == pytest.approx(5 / interval, abs=3)


@pytest.mark.parametrize("framing", KNOWN + UNKNOWN)
def test_T15_the_first_bytes_are_told_at_once(framing: str):
    script = Script(body=b"x" * 1000, framing=framing, chunk=500)
    head, rest = script.wire[: script.body_at], script.wire[script.body_at :]
    with World() as world:
        world.listen(HOST, 80, pieces(head, rest[:20], rest[20:]))
        client = world.client()
        fetch = Fetch(client, progress_interval=60)
        listener = Listener(world)
        fetch.task.on_progress_update(listener)
        client.run()
        assert listener.times == [pytest.approx(ANSWERED + 1), pytest.approx(ANSWERED + 2)]
        assert len(fetch.of("progress")) == 2


def test_T15_an_interval_of_0_is_an_event_for_each_read():
    script = Script(body=b"x" * 1000)
    with World() as world:
        world.listen(HOST, 80, pieces(script.head, *[b"x" * 10] * 100, gap=0.001))
        client = world.client()
        fetch = Fetch(client, progress_interval=0)
        client.run()
        assert [update.total_bytes_written for update in fetch.of("progress")] == list(range(10, 1001, 10))


def test_T15_an_interval_of_0_is_an_event_for_each_read_even_in_one_moment():
    """All of it is there when we look, in segments of a hundred bytes; the default would tell of the first and last."""
    script, link = Script(body=b"x" * 100_000), Link(segment=1000)
    assert len(progress_of(script, link, progress_interval=0).updates) >= 90
    assert len(progress_of(script, link).updates) == 2


def test_T15_a_large_body_gives_a_bounded_number():
    """As many as there are intervals in the time that it takes, however many reads that is."""
    for megabytes, bandwidth in ((64, 32e6), (64, 1e12)):
        script = Script(body=[b"x" * MIB] * megabytes, content_length=megabytes * MIB)
        listener = progress_of(script, Link(bandwidth=bandwidth, segment=65536, latency=0.0), sink=rawdl.DiscardSink())
        seconds = listener.times[-1] - listener.times[0]
        assert len(listener.updates) <= seconds / 0.05 + 2


@pytest.mark.contract("T15")
def test_an_interval_begins_with_the_event_not_with_the_clock():
    """Bytes at 0, 30 and 60 ms: the first and the third are told, and 90 ms is not before 110."""
    script = Script(body=b"x" * 50)
    with World() as world:
        world.listen(HOST, 80, pieces(script.head, *[b"x" * 10] * 5, gap=0.03))
        client = world.client()
        fetch = Fetch(client)
        client.run()
        assert [update.total_bytes_written for update in fetch.of("progress")] == [10, 30, 50]


def test_T15_over_TLS(server_context: ssl.SSLContext, ca_file: Path):
    with World() as world:
        script = Script(body=b"x" * 100_000, chunk=1000)
        world.listen(HOST, 443, http_peer(script), tls=server_context, link=Link(bandwidth=50_000, segment=500))
        client = world.client(tls=rawdl.TLS(ca_file=str(ca_file)))
        fetch = Fetch(client, URL.replace("http", "https"))
        client.run()
        assert fetch.result.data_length == 100_000
        assert len(fetch.of("progress")) == pytest.approx(2 / 0.05, abs=5)


# How fast


def test_T16_a_steady_speed_is_told_as_it_is():
    listener = progress_of(Script(body=b"x" * 1_000_000), Link(segment=1000, bandwidth=50_000))
    for update, time in list(zip(listener.updates, listener.times, strict=True))[:-1]:
        if time < 1:
            continue
        assert update.bytes_per_second == pytest.approx(50_000, rel=0.05)
        assert update.eta == pytest.approx(20 + ANSWERED - time, rel=0.06, abs=0.1)


def test_T16_a_change_of_speed_shows_within_seconds():
    """From 10 kB/s to 100: not at once, but before ten seconds are over."""
    script = Script(body=b"x" * 5_000_000)

    def peer(conn: Conn):
        yield from conn.read_until(b"\r\n\r\n")
        conn.send(script.head)
        for second in range(50):
            for _ in range(10):
                yield 0.1
                conn.send(b"x" * (1000 if second < 20 else 10_000))

    with World() as world:
        world.listen(HOST, 80, peer)
        client = world.client()
        fetch = Fetch(client)
        listener = Listener(world)
        fetch.task.on_progress_update(listener)
        client.run()
        assert isinstance(fetch.error, rawdl.IncompleteBody)
        speeds = dict(zip((round(time, 1) for time in listener.times), listener.updates, strict=True))
        assert speeds[19.9].bytes_per_second == pytest.approx(10_000, rel=0.05)
        assert 10_000 < (speeds[20.6].bytes_per_second or 0) < 50_000
        assert speeds[32.0].bytes_per_second == pytest.approx(100_000, rel=0.1)


def test_T16_nothing_is_said_of_the_speed_before_there_is_one():
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"x" * 10)))
        client = world.client()
        fetch = Fetch(client)
        before = fetch.task.progress
        client.run()
        assert before == ProgressUpdate(0, 0, 0, False, None, None)
        (update,) = fetch.of("progress")
        assert update.bytes_per_second is None
        assert update.eta == 0.0


def stall_after(seconds: float, total: int) -> Callable[[Conn], Iterator[float]]:
    """Make a peer that sends 100 kB/s for some seconds and then nothing, of so many bytes that it has announced."""

    def peer(conn: Conn):
        yield from conn.read_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        for _ in range(int(seconds * 10)):
            yield 0.1
            conn.send(b"x" * 10_000)
        yield 1e9

    return peer


@pytest.mark.contract("T16", "S23")
def test_T16_in_a_stall_the_speed_falls_towards_0():
    with World() as world:
        world.listen(HOST, 80, stall_after(5.0, 10_000_000))
        client = world.client()
        fetch = Fetch(client)
        world.drive(client, until=5.5)
        events, speeds, etas = len(fetch.events), [], []
        for second in range(6, 60):
            world.drive(client, until=second)
            progress = fetch.task.progress
            assert progress.total_bytes_written == 500_000
            assert progress.progress == 5
            speeds.append(progress.bytes_per_second or 0)
            etas.append(progress.eta or math.inf)
        assert speeds[0] > 50_000
        assert speeds == sorted(speeds, reverse=True)
        assert speeds[4] < speeds[0] / 2, "after five seconds"
        assert speeds[-1] < 10
        assert etas == sorted(etas)
        assert len(fetch.events) == events, "an event came without bytes"
        fetch.task.abort()
        client.run()


@pytest.mark.contract("T10", "T16")
@pytest.mark.parametrize("total", [10_000_000, 2**62])
def test_T16_in_a_stall_of_hours_eta_is_a_number_or_None(total: int):
    """What grows without bound must not end as Infinity, which no JSON can hold."""
    with World() as world:
        world.listen(HOST, 80, stall_after(5.0, total))
        client = world.client(timeouts=rawdl.Timeouts(idle=None))
        fetch = Fetch(client)
        for minute in range(1, 90):
            world.drive(client, until=60.0 * minute)
            progress = fetch.task.progress
            check_update(progress)
            json.dumps(progress.to_dict(), allow_nan=False)
        fetch.task.abort()
        client.run()


@pytest.mark.contract("T16")
def test_T16_after_a_stall_the_speed_is_not_that_of_the_stall():
    """A minute of silence in the middle weighs no more than the smoothing lets it."""
    script = Script(body=b"x" * 1_000_000)

    def peer(conn: Conn):
        yield from conn.read_until(b"\r\n\r\n")
        conn.send(script.head)
        for tenth in range(100):
            yield 0.1 if tenth != 50 else 50.0
            conn.send(b"x" * 10_000)

    with World() as world:
        world.listen(HOST, 80, peer)
        client = world.client()
        fetch = Fetch(client)
        client.run()
        assert fetch.result.data_length == 1_000_000
        assert fetch.of("progress")[-2].bytes_per_second == pytest.approx(100_000, rel=0.3)


@pytest.mark.contract("T10", "S35")
def test_the_snapshot_agrees_with_the_events():
    """`task.progress`, asked in a listener and between turns, says the same as what is told."""
    with World() as world:
        world.listen(HOST, 80, http_peer(Script(body=b"x" * 1000, pace=1000)))
        client = world.client()
        fetch = Fetch(client, progress_interval=0)
        asked = []
        fetch.react("progress", lambda update: asked.append(fetch.task.progress))
        while client.step(None):
            check_update(fetch.task.progress)
        for update, snapshot in zip(fetch.of("progress"), asked, strict=True):
            assert snapshot.total_bytes_written == update.total_bytes_written
            assert snapshot.progress == update.progress
