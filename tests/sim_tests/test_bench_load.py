"""The load of `rawdl bench` on a simulated network: who is begun when, and whom a stall of the server is charged to."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

import rawdl
from rawdl.cli.bench.load import DRAIN, HOPELESS, Interval, Load, Plan, Record
from rawdl.cli.bench.machine import Usage
from tests.sim import Conn, Link, Script, World, http_peer
from tests.sim.conn import Pause
from tests.sim.world import START
from tests.sim_tests.fetch import HOST, URL

BODY = b"x" * 1000
ROUND_TRIP = 0.002


class Stalling:
    """A server that answers at once, but for one span of time in which it does nothing at all."""

    def __init__(self, world: World, since: float, seconds: float) -> None:
        self._world, self._since, self._until = world, START + since, START + since + seconds

    def __call__(self, conn: Conn) -> Generator[Pause, None, None]:
        while True:
            yield from conn.read_until(b"\r\n\r\n")
            if self._since <= self._world.now < self._until:
                yield self._until - self._world.now
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY))


def load(world: World, plan: Plan, peer: Any = None, *, link: Link | None = None, **options: Any) -> Load:
    world.listen(HOST, 80, peer or http_peer(Script(body=BODY)), link=link or Link(latency=ROUND_TRIP / 2))
    client = world.client(max_concurrent=5000, max_per_host=5000)
    return Load(
        client,
        plan,
        lambda slot: {"url": URL, "sink": rawdl.DiscardSink(), "fail_on_status": True, **options},
        clock=world.clock,
        look=lambda: Usage(0.0, 0.0, client.stats().wake_ups),
    )


def latencies(record: Record) -> list[float]:
    return [sample.ended - sample.intended for sample in record.samples]


class TestCoordinatedOmission:
    """A server stands still for 1 s. At 100 transfers a second, 100 of them would have come meanwhile."""

    STALL = 1.0

    def test_an_open_loop_charges_the_stall_to_all_who_would_have_come(self) -> None:
        with World() as world:
            record = load(world, Plan(duration=4, rate=100), Stalling(world, 1.5, self.STALL)).run()
        assert len(record.samples) == 400 and not record.failures and record.unfinished == record.held_back == 0
        late = sorted(latency for latency in latencies(record) if latency > 10 * ROUND_TRIP)
        # Whoever comes in the last 20 ms of the stall waits for less than that; a new connection takes a round trip.
        assert 95 <= len(late) <= 100
        # They are spread over the whole of the stall, as their intended starts are.
        middle = late[len(late) // 2]
        assert late[-1] == pytest.approx(self.STALL, abs=0.05) and middle == pytest.approx(self.STALL / 2, abs=0.05)

    def test_none_is_put_off_because_others_are_slow(self) -> None:
        with World() as world:
            record = load(world, Plan(duration=4, rate=100), Stalling(world, 1.5, self.STALL)).run()
        samples = sorted(record.samples)
        assert [sample.intended for sample in samples] == pytest.approx([at / 100 for at in range(400)])
        assert [sample.started for sample in samples] == pytest.approx([sample.intended for sample in samples])

    def test_a_closed_loop_sees_the_stall_once(self) -> None:
        with World() as world:
            record = load(world, Plan(duration=4), Stalling(world, 1.5, self.STALL)).run()
        late = [latency for latency in latencies(record) if latency > 10 * ROUND_TRIP]
        assert len(late) == 1 and late[0] == pytest.approx(self.STALL, abs=0.05)
        assert len(record.samples) > 1000

    def test_who_is_held_back_by_the_bound_is_counted_and_charged_from_the_intended_start(self) -> None:
        with World() as world:
            record = load(world, Plan(duration=4, rate=100, most=10), Stalling(world, 1.5, self.STALL)).run()
        assert len(record.samples) == 400 and record.unfinished == 0
        assert 85 <= record.held_back <= 100
        waited = [sample for sample in record.samples if sample.started > sample.intended + 10 * ROUND_TRIP]
        assert 80 <= len(waited) <= record.held_back
        assert 95 <= sum(latency > 10 * ROUND_TRIP for latency in latencies(record)) <= 105

    def test_who_never_gets_an_answer_is_told_of(self) -> None:
        with World() as world:
            record = load(world, Plan(duration=1, rate=10, most=5), Stalling(world, 0.45, 1000.0)).run()
            assert world.now == pytest.approx(START + 1 + DRAIN)
        assert (len(record.samples), record.unfinished, record.held_back) == (5, 5, 0)

    def test_who_was_held_back_to_the_end_is_told_of_too(self) -> None:
        with World() as world:
            record = load(world, Plan(duration=1, rate=10, most=2), Stalling(world, 0.45, 1000.0)).run()
        assert (len(record.samples), record.unfinished, record.held_back) == (5, 5, 1)


class TestMeasuredPart:
    def test_so_many_transfers(self) -> None:
        with World() as world:
            record = load(world, Plan(transfers=7, concurrency=3)).run()
            assert len(world.requests) == 7 and len(world.conns) == 3
        assert len(record.samples) == 7 and record.omitted == 0
        assert sum(interval.bytes for interval in record.intervals) == 7 * len(BODY)
        assert sum(interval.transfers for interval in record.intervals) == 7
        assert record.seconds == pytest.approx(max(sample.ended for sample in record.samples))
        assert record.usage is not None and record.usage.wake_ups > 7

    def test_a_new_one_begins_in_the_moment_in_which_one_ends(self) -> None:
        with World() as world:
            record = load(world, Plan(transfers=5)).run()
        starts, ends = [sample.started for sample in record.samples], [sample.ended for sample in record.samples]
        assert starts[1:] == ends[:-1]

    @pytest.mark.parametrize("rate", [None, 100])
    def test_warm_up_is_begun_and_not_counted(self, rate: float | None) -> None:
        with World() as world:
            record = load(world, Plan(transfers=5, warm_up=3, rate=rate)).run()
            assert len(world.requests) == 8
        assert (len(record.samples), record.omitted) == (5, 3)
        assert all(sample.intended >= 0 for sample in record.samples)
        assert record.samples[0].intended == 0 and record.samples[0].dns is None, "the first one had to look up"

    @pytest.mark.parametrize("rate", [None, 100])
    def test_the_first_seconds_are_not_counted(self, rate: float | None) -> None:
        with World() as world:
            record = load(world, Plan(duration=1, omit=2, rate=rate)).run()
            assert world.elapsed == pytest.approx(3, abs=0.05)
        assert record.omitted >= 200 and record.seconds == pytest.approx(1)
        assert min(sample.intended for sample in record.samples) == pytest.approx(0, abs=0.01)
        assert [interval[:2] for interval in record.intervals] == [pytest.approx((0, 1))]

    def test_bytes_count_in_the_interval_in_which_they_come(self) -> None:
        with World() as world:
            big = http_peer(Script(body=b"x" * 500_000))
            slow = Link(latency=0.0, bandwidth=100_000.0, segment=1000)
            record = load(world, Plan(duration=2, interval=0.5), big, link=slow).run()
        assert [interval[:2] for interval in record.intervals] == [
            pytest.approx((at / 2, at / 2 + 0.5), abs=0.02) for at in range(4)
        ]
        assert [interval.bytes for interval in record.intervals] == pytest.approx([50_000] * 4, rel=0.1)
        assert len(record.samples) == 1 and record.samples[0].ended > 4  # waited for, though the end was at 2 s

    def test_intervals_are_told_as_they_end(self) -> None:
        told: list[Interval] = []
        with World() as world:
            work = load(world, Plan(duration=3))
            work._tell = told.append
            record = work.run()
        assert told == record.intervals and len(told) == 3


class TestFailures:
    def test_are_counted_apart(self) -> None:
        answers = iter(
            [Script(body=BODY), Script(status=503, body=b""), Script(body=BODY), Script(status=404, body=b"")]
        )
        with World() as world:
            record = load(world, Plan(transfers=4), http_peer(lambda request: next(answers))).run()
        assert [sample.error for sample in record.samples] == [None, "StatusError", None, "StatusError"]
        [failure] = record.failures
        assert (failure.kind, failure.count) == ("StatusError", 2) and "503" in failure.example
        assert isinstance(record.first_error, rawdl.StatusError) and record.first_error.status_code == 503
        assert sum(interval.bytes for interval in record.intervals) == 2 * len(BODY)

    def test_what_can_only_fail_is_given_up(self) -> None:
        with World() as world:
            world.listen(HOST, 80, connect="refuse")
            client = world.client()
            options = {"url": URL, "sink": rawdl.DiscardSink()}
            work = Load(
                client,
                Plan(duration=1000, concurrency=3),
                lambda slot: options,
                clock=world.clock,
                look=lambda: Usage(0.0, 0.0, 0),
            )
            record = work.run()
            assert world.elapsed < 100
        assert record.hopeless and HOPELESS <= len(record.samples) <= HOPELESS + 3
        assert {sample.error for sample in record.samples} == {"ConnectError"}

    def test_a_failing_warm_up_leaves_the_error(self) -> None:
        with World() as world:
            record = load(world, Plan(duration=1, warm_up=1000), http_peer(Script(status=500, body=b""))).run()
        assert record.samples == [] and record.seconds == 0 and record.usage is None
        assert isinstance(record.first_error, rawdl.StatusError)


@pytest.mark.parametrize("rate", [None, 100])
def test_a_stop_ends_it_and_keeps_what_was_measured(rate: float | None) -> None:
    with World() as world:
        work = load(world, Plan(duration=1000, rate=rate), Stalling(world, 1.2, 1000.0))
        world.interrupt(1.5, work.stop)
        record = work.run()
        assert world.elapsed == pytest.approx(1.5, abs=0.05)
    assert record.seconds == pytest.approx(1.5, abs=0.05) and record.first_error is None
    assert len(record.samples) >= 100 and record.unfinished == (30 if rate else 1)
    assert not record.failures and len(record.intervals) == 2


def test_nothing_begins_after_an_exception(caplog: pytest.LogCaptureFixture) -> None:
    def leave(interval: Interval) -> None:
        raise EOFError

    with World() as world:
        work = load(world, Plan(duration=1000, concurrency=3))
        work._tell = leave
        with pytest.raises(EOFError):
            work.run()
        asked = len(world.requests)
        for client in world._clients:
            client.close()
        assert len(world.requests) == asked and world.elapsed < 1.1
    assert caplog.records == []  # as of a callback that raised


def test_phases_are_those_of_the_connection() -> None:
    with World() as world:
        first, second = load(world, Plan(transfers=2)).run().samples
    assert first.dns == pytest.approx(world.name(HOST).delay) and not first.reused
    assert first.connect == pytest.approx(ROUND_TRIP) and first.first_byte == pytest.approx(ROUND_TRIP)
    assert second.reused and second.dns is second.connect is second.tls is first.tls is None
    assert second.first_byte == pytest.approx(ROUND_TRIP)
