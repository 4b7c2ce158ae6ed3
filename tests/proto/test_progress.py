"""Progress arithmetic, in virtual time (T10-T16, S23)."""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise

import pytest

from rawdl.proto.progress import Progress, ProgressUpdate, SpeedMeter

KIB = 1024


def run(progress: Progress, steps: list[tuple[float, int]]) -> list[ProgressUpdate]:
    """Return the events of a body whose total is so many bytes at such times, the last one included."""
    events = [progress.snapshot(now) for now, written in steps if progress.advance(now, written)]
    return [*events, progress.finish(*steps[-1])]


# The percentage (T10, T12, T14)


@pytest.mark.parametrize(
    ("written", "expected", "percent"),
    [
        (0, 1, 0),
        (1, 1, 100),
        (0, 0, 0),
        (1, 3, 33),
        (2, 3, 66),
        (999, 1000, 99),
        (199, 200, 99),
        (1, 1 << 62, 0),
        ((1 << 62) - 1, 1 << 62, 99),
        (1 << 62, 1 << 62, 100),
        (2**53 - 1, 2**53, 99),
        (2**63 - 2, 2**63 - 1, 99),
    ],
)
def test_T10_the_percentage_is_rounded_down(written: int, expected: int, percent: int) -> None:
    progress = Progress(0.0, expected, 0.0)
    progress.advance(1.0, written)
    update = progress.snapshot(1.0)
    assert type(update.progress) is int and update.progress == percent
    assert (update.total_bytes_written, update.total_bytes_expected_to_write) == (written, expected)
    assert update.length_computable


def test_T10_100_is_only_the_last_byte() -> None:
    for expected in (1, 7, 99, 100, 101, 1000):
        progress = Progress(0.0, expected, 0.0)
        percents = []
        for written in range(expected + 1):
            progress.advance(written / 10, written)
            percents.append(progress.snapshot(written / 10).progress)
        assert percents == sorted(percents) and percents.index(100) == expected


def test_T12_an_unknown_length() -> None:
    progress = Progress(0.0, None, 0.0)
    assert progress.advance(1.0, 5000)
    update = progress.snapshot(1.0)
    assert (update.progress, update.total_bytes_written, update.total_bytes_expected_to_write) == (0, 5000, 0)
    assert update.length_computable is False and update.eta is None and update.bytes_per_second > 0
    progress.advance(2.0, 6000)
    last = progress.finish(2.0, 6000)
    assert (last.progress, last.total_bytes_written, last.total_bytes_expected_to_write) == (100, 6000, 6000)
    assert last.length_computable is True and last.eta == 0.0
    assert progress.snapshot(1000.0) is last


@pytest.mark.parametrize("expected", [0, None])
def test_T14_an_empty_body(expected: int | None) -> None:
    last = Progress(5.0, expected, 0.05).finish(5.0, 0)
    assert last == ProgressUpdate(100, 0, 0, True, None, 0.0)


def test_S23_the_last_event() -> None:
    events = run(Progress(0.0, 100, 0.0), [(1.0, 40), (2.0, 100)])
    assert [event.progress for event in events] == [40, 100, 100]
    assert events[-1].length_computable and events[-1].eta == 0.0
    assert events[-1].total_bytes_written == events[-1].total_bytes_expected_to_write == 100


def test_S35_before_anything_is_known() -> None:
    assert ProgressUpdate() == ProgressUpdate(0, 0, 0, False, None, None)


# How often (T15)


def test_T15_at_most_one_event_per_interval() -> None:
    steps = [(i / 1000, i * KIB) for i in range(10_001)]  # ten seconds, a read each millisecond
    progress = Progress(0.0, 10_000 * KIB, 0.05)
    times = [now for now, written in steps if progress.advance(now, written)]
    assert times[0] == 0.0 and 190 <= len(times) <= 201
    assert min(b - a for a, b in pairwise(times)) >= 0.05 - 1e-9


def test_T15_the_first_read_is_always_told() -> None:
    assert Progress(7.0, 10, 3600.0).advance(7.0, 1)


def test_T15_after_a_stall_the_next_read_is_told_at_once() -> None:
    progress = Progress(0.0, 10, 1.0)
    assert [progress.advance(now, 1) for now in (0.0, 0.5, 9.9, 10.5, 10.9)] == [True, False, True, False, True]


def test_T15_zero_is_each_read() -> None:
    progress = Progress(0.0, 10, 0.0)
    assert all(progress.advance(1.0, written) for written in range(10))


def test_T15_a_gigabyte_has_a_bounded_number_of_events() -> None:
    """As fast as loopback goes: 256 KiB each 100 microseconds."""
    progress = Progress(0.0, 1 << 30, 0.05)
    reads = (1 << 30) // (256 * KIB)
    assert sum(progress.advance(i * 1e-4, i * 256 * KIB) for i in range(reads)) <= reads * 1e-4 / 0.05 + 2


def test_the_count_goes_on_between_the_events() -> None:
    progress = Progress(0.0, 100, 10.0)
    progress.advance(0.0, 1)
    assert not progress.advance(1.0, 50)
    assert progress.written == 50 and progress.snapshot(1.0).progress == 50


# The speed and what is left (T16)


def test_T16_a_steady_stream_shows_its_speed() -> None:
    meter = SpeedMeter(100.0)
    assert meter.speed(100.0) is None and meter.speed(100.009) is None
    for i in range(1, 200):
        now = 100.0 + i / 10
        meter.sample(now, i * 5000)
        assert meter.speed(now) == pytest.approx(50_000, rel=1e-9)  # from the first sample on


def test_T16_the_last_event_counts_every_byte() -> None:
    progress = Progress(0.0, 5000, 3.0)
    events = run(progress, [(float(i), i * 1000) for i in range(6)])
    assert len(events) == 3
    assert events[-1].bytes_per_second == pytest.approx(1000)


def test_T16_a_hundredth_of_a_second_is_enough_to_say_something() -> None:
    meter = SpeedMeter(0.0)
    meter.sample(0.01, 50)
    assert meter.speed(0.0099) is None and meter.speed(0.01) == pytest.approx(5000)


def test_T16_the_speed_does_not_depend_on_how_often_it_is_sampled() -> None:
    often, seldom = SpeedMeter(0.0), SpeedMeter(0.0)
    for i in range(1, 1001):
        often.sample(i / 100, i * 77)
        if i % 100 == 0:
            seldom.sample(i / 100, i * 77)
    assert often.speed(10.0) == pytest.approx(seldom.speed(10.0), rel=1e-9)


def test_T16_a_stall_drives_the_speed_towards_zero() -> None:
    progress = Progress(0.0, 10**9, 0.0)
    for i in range(1, 101):
        progress.advance(i / 10, i * 10**5)
    speeds = [progress.snapshot(10 + seconds).bytes_per_second for seconds in range(0, 100, 3)]
    assert speeds[0] == pytest.approx(10**6) and speeds == sorted(speeds, reverse=True)
    for earlier, later in pairwise(speeds):
        assert later < earlier * 0.4  # three seconds make it 1/e
    assert 0 <= speeds[-1] < 1e-6


def test_T16_a_change_of_speed_shows_within_seconds() -> None:
    meter = SpeedMeter(0.0)
    for i in range(1, 101):
        meter.sample(i / 10, i * 1000)
    for i in range(1, 101):
        meter.sample(10 + i / 10, 100_000 + i * 5000)
    assert meter.speed(10.0 + 10.0) == pytest.approx(50_000, rel=0.05)


def test_T16_the_time_that_is_left() -> None:
    progress = Progress(0.0, 1000, 0.0)
    assert progress.snapshot(0.0).eta is None
    for i in range(1, 6):
        progress.advance(float(i), i * 100)
    update = progress.snapshot(5.0)
    assert update.bytes_per_second == pytest.approx(100) and update.eta == pytest.approx(5.0)


@pytest.mark.parametrize("stalled_for", [60, 600, 2000, 2090, 2100, 2200, 1e6])
def test_T16_after_a_long_stall_nobody_knows_what_is_left(stalled_for: float) -> None:
    progress = Progress(0.0, 10**12, 0.0)
    progress.advance(1.0, 10**6)
    update = progress.snapshot(1.0 + stalled_for)
    assert update.bytes_per_second is not None and 0 <= update.bytes_per_second < 1
    assert update.eta is None and "Infinity" not in json.dumps(update.to_dict())


def test_T16_nothing_has_come_yet() -> None:
    progress = Progress(0.0, 1000, 0.0)
    progress.advance(5.0, 0)
    update = progress.snapshot(5.0)
    assert update.bytes_per_second == 0.0 and update.eta is None


def test_reads_within_the_clocks_resolution_count_into_the_next() -> None:
    meter = SpeedMeter(0.0)
    meter.sample(1.0, 1000)
    meter.sample(1.0, 5000)
    meter.sample(0.5, 6000)
    meter.sample(2.0, 7000)
    assert meter.speed(2.0) == pytest.approx(
        1000 * math.exp(-1 / 3) * (1 - math.exp(-1 / 3)) / (1 - math.exp(-2 / 3))
        + 6000 * (1 - math.exp(-1 / 3)) / (1 - math.exp(-2 / 3))
    )


def test_a_meter_that_begins_behind_zero() -> None:
    meter = SpeedMeter(0.0, total=10**9)
    meter.sample(1.0, 10**9 + 1000)
    assert meter.speed(1.0) == pytest.approx(1000)


@pytest.mark.parametrize("seed", range(20))
def test_T10_T16_whatever_comes_all_numbers_are_sane(seed: int) -> None:
    rng = random.Random(seed)
    expected = rng.choice([None, 1, 1000, 1 << 20, 1 << 40, 2**63 - 1])
    total = expected if expected is not None else rng.randrange(1 << 40)
    now, written = rng.choice([0.0, 1e-3, 1e9]), 0
    progress = Progress(now, expected, rng.choice([0.0, 0.05, 1.0]))
    updates = []
    for _ in range(300):
        now += rng.choice([0.0, 1e-9, 1e-6, 0.001, 0.05, 1.0, 60.0, 5000.0])
        written = min(total, written + rng.choice([0, 1, 1000, total // 50]))
        progress.advance(now, written)
        updates.append(progress.snapshot(now + rng.choice([0.0, 3.0, 3000.0])))
    updates.append(progress.finish(now, written))
    for update in updates:
        assert 0 <= update.progress <= 100
        assert update.bytes_per_second is None or 0 <= update.bytes_per_second < math.inf
        assert update.eta is None or 0 <= update.eta < math.inf
        json.dumps(update.to_dict(), allow_nan=False)
    counts = [update.total_bytes_written for update in updates]
    assert counts == sorted(counts)


def test_taros_spelling() -> None:
    assert ProgressUpdate(50, 5, 10, True, 2.5, 2.0).to_dict() == {
        "progress": 50,
        "totalBytesWritten": 5,
        "totalBytesExpectedToWrite": 10,
        "lengthComputable": True,
        "bytesPerSecond": 2.5,
        "eta": 2.0,
        "restarted": False,
        "decodedBytesWritten": None,
    }
