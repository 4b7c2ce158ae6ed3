"""How fast a body may come, and how slow, in virtual time (T37, T44)."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import accumulate, count
from math import inf, nan

import pytest
from hypothesis import given, settings, strategies as st

from rawdl.proto.pacing import LowSpeed, Pace, SpeedFloor, TokenBucket

STEADY = settings(derandomize=True, deadline=None, database=None)
START = 4096.0
NO_NUMBERS = [None, "1", b"1", 1j, [1], True, False]
NO_AMOUNTS = [0, 0.0, -1, nan, inf, -inf, 10**400]

# The place of a timer among those of the same moment, from the order of arming: a heap promises none.
ORDERS: dict[str, Callable[[int], float]] = {
    "first armed": float,
    "last armed": lambda n: -n,
    "any": lambda n: random.Random(n).random(),
}


class Reader:
    """Read whenever that is allowed, from a source of ``speed`` bytes per second (None: there is always more)."""

    def __init__(
        self, shared: TokenBucket, own: TokenBucket | None = None, *, speed: float | None = None, excess: int = 0
    ) -> None:
        self.pace = Pace(shared, own)
        self.speed = speed
        self.excess = excess  # what each read brings beyond what was allowed
        self.total = 0
        self.turns: list[float] = []

    def serve(self, now: float) -> float:
        """Read if that is allowed; return when to come again."""
        allowed = self.pace.available(now)
        if not allowed:
            return self.pace.when(now)
        there = allowed if self.speed is None else int((now - START) * self.speed) - self.total
        n = min(allowed, there) + self.excess
        self.pace.spend(n, now)
        self.total += n
        self.turns.append(now)
        return now if self.speed is None or n < there else now + 20 / self.speed


def drive(readers: list[Reader], seconds: float, order: str = "first armed", late: float = 0.0) -> int:
    """Serve each reader when it asked for it, or up to ``late`` seconds later; return how often one was woken."""
    number, draw, now, woken = count(), random.Random(7).random, START, 0
    heap = [(START, ORDERS[order](next(number)), i) for i in range(len(readers))]
    heapify(heap)
    while heap[0][0] < START + seconds:
        when, _, i = heappop(heap)
        now = when + late * draw() if when > now else now
        heappush(heap, (readers[i].serve(now), ORDERS[order](next(number)), i))
        woken += 1
    return woken


# The rate


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("readers", [1, 3, 20])
@pytest.mark.parametrize("rate", [1, 1000, 100_000.5, 20_000_000])
def test_the_rate_is_reached_and_shared_equally(rate: float, readers: int, order: str) -> None:
    seconds = 2000 if rate == 1 else 60
    bucket = TokenBucket(rate, START)
    crowd = [Reader(bucket) for _ in range(readers)]
    drive(crowd, seconds, order)
    totals = [reader.total for reader in crowd]
    assert 0.95 * rate * seconds <= sum(totals) <= rate * seconds + bucket.burst
    assert min(totals) >= 0.9 * max(totals)


@pytest.mark.parametrize("late", [0.005, 0.1])
def test_a_loop_that_is_late_reaches_the_rate(late: float) -> None:
    bucket = TokenBucket(100_000, START)
    crowd = [Reader(bucket) for _ in range(5)]
    drive(crowd, 60, late=late)
    assert 0.95 * 6_000_000 <= sum(reader.total for reader in crowd) <= 6_000_000 + bucket.burst


def test_one_reader_is_woken_once_for_each_turn() -> None:
    bucket = TokenBucket(1000.0, START)
    reader = Reader(bucket)
    woken = drive([reader], 64)
    # A read that is refused, a timer, and sometimes a second one a moment later, where rounding set it too early.
    assert len(reader.turns) == pytest.approx(64 * 50, rel=0.01) and woken <= 3 * len(reader.turns)


@pytest.mark.parametrize("order", ORDERS)
def test_what_slow_readers_leave_goes_to_the_others(order: str) -> None:
    bucket = TokenBucket(100_000, START)
    slow = [Reader(bucket, speed=4000) for _ in range(15)]
    fast = [Reader(bucket), Reader(bucket)]
    drive(slow + fast, 60, order)
    for reader in slow:
        assert reader.total == pytest.approx(4000 * 60, rel=0.1)
    for reader in fast:
        assert reader.total == pytest.approx(20_000 * 60, rel=0.1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("excess", [0, 16_000])
def test_nobody_starves(order: str, excess: int) -> None:
    """Each has a turn among any so many, even if each read brings far more than was asked for."""
    bucket = TokenBucket(10_000, START)
    crowd = [Reader(bucket, excess=excess) for _ in range(20)]
    drive(crowd, 2000 if excess else 100, order)
    every = sorted((at, i) for i, reader in enumerate(crowd) for at in reader.turns)[20:]
    assert len(every) > 1000
    for at in range(len(every) - 60):
        assert {i for _, i in every[at : at + 60]} == set(range(20))


@pytest.mark.parametrize("order", ORDERS)
def test_two_limits_at_once(order: str) -> None:
    shared = TokenBucket(100_000, START)
    limited = [Reader(shared, TokenBucket(5000, START)) for _ in range(4)]
    free = [Reader(shared) for _ in range(2)]
    drive(limited + free, 60, order)
    for reader in limited:
        assert reader.total == pytest.approx(5000 * 60, rel=0.05)
    for reader in free:  # of two that are woken in the same moment, the last armed is always first
        assert reader.total == pytest.approx(40_000 * 60, rel=0.15 if order == "last armed" else 0.05)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 3),  # which reader
        st.sampled_from(["read", "read", "read", "wait", "leave", "nothing"]),
        st.floats(0, 1) | st.just(1.0) | st.floats(1, 100),  # how much of a turn it brings
        st.just(0.0) | st.floats(0, 0.01) | st.floats(0, 2.0),  # how long afterwards
    ),
    max_size=60,
)


@settings(STEADY, max_examples=300)
@given(rate=st.floats(0.1, 1e9), burst=st.none() | st.floats(0.1, 1e9), steps=STEPS)
def test_never_more_than_the_rate_whatever_the_schedule(rate: float, burst: float | None, steps) -> None:
    """Over any span: no more than rate * span + burst, and what the last read took beyond what it was allowed."""
    bucket, now, reads = TokenBucket(rate, START, burst), START, []
    paces = [Pace(bucket) for _ in range(4)]
    for which, what, part, pause in steps:
        pace = paces[which]
        if what == "leave":
            pace.leave()
        elif what == "wait":
            assert pace.when(now) > now
        elif allowed := pace.available(now):
            n = int(allowed * part) if what == "read" else 0
            pace.spend(n, now)
            reads.append((now, n, max(0, n - allowed)))
        now += pause
    sums = [0, *accumulate(n for _, n, _ in reads)]
    for i, (first, _, _) in enumerate(reads):
        for j, (last, _, excess) in enumerate(reads[i:], i):
            most = rate * (last - first) + bucket.burst + excess
            assert sums[j + 1] - sums[i] <= most * (1 + 1e-9) + 1e-3


# Turn by turn: here 1000 bytes per second are turns of 20, of which four pile up


def thousand() -> tuple[TokenBucket, Pace, Pace, Pace]:
    """Return a bucket that three readers have emptied."""
    bucket = TokenBucket(1000, START - 1, burst=80)
    first, second, third = (Pace(bucket) for _ in range(3))
    for pace in (first, second, third, first):
        assert pace.available(START) == 20
        pace.spend(20, START)
    assert [pace.available(START) for pace in (first, second, third)] == [0, 0, 0]
    return bucket, first, second, third


def test_first_come_first_served() -> None:
    bucket, first, second, third = thousand()
    assert [pace.when(START) - START for pace in (second, third, first)] == pytest.approx([0.02, 0.04, 0.06])
    assert second.when(START) - START == pytest.approx(0.02)  # to ask again costs nobody its place
    now = START + 0.021
    assert [pace.available(now) for pace in (first, third, Pace(bucket))] == [0, 0, 0]
    assert second.available(now) == 20
    second.spend(20, now)
    assert third.when(now) - START == pytest.approx(0.04) and second.when(now) - START == pytest.approx(0.08)
    assert repr(bucket) == "<TokenBucket 1000 B/s, 1 bytes there, 3 waiting>"


@pytest.mark.parametrize("end", ["leaves", "finds nothing"])
def test_a_turn_that_is_not_taken_is_the_next_ones(end: str) -> None:
    _, first, second, third = thousand()
    for pace in (first, second, third):
        pace.when(START)
    now = START + 0.021
    if end == "leaves":
        first.leave()
        first.leave()
    else:
        assert first.available(now) == 20
        first.spend(0, now)
    assert second.available(now) == 20
    second.spend(15, now)
    assert third.when(now) - now == pytest.approx(0.014)


def test_those_who_never_come_hold_nobody_up() -> None:
    bucket = TokenBucket(1000, START, burst=90)
    bucket.take(90, Pace(bucket), START)
    for _ in range(100):
        Pace(bucket).when(START)
    reader = Reader(bucket)
    drive([reader], 60)
    assert reader.total >= 0.95 * 60 * 1000


def test_what_was_taken_too_much_is_waited_for() -> None:
    _, first, second, _ = thousand()
    first.spend(980, START)
    assert second.when(START) - START == pytest.approx(1.0)
    assert second.available(START + 0.99) == 0 and second.available(START + 1.01) == 20


def test_a_long_sleep_piles_up_no_more_than_the_burst() -> None:
    _, first, second, _ = thousand()
    now = START + 1e6
    for pace in (first, first, second, second):
        assert pace.available(now) == 20
        pace.spend(20, now)
    assert first.available(now) == second.available(now) == 0


@pytest.mark.parametrize("rate", [1000, 1e6, 1e9])
@pytest.mark.parametrize("seconds", [0.1, 1.0, 3.0])
def test_from_the_beginning_on_no_more_is_read_than_the_rate(rate: float, seconds: float) -> None:
    """Else a short download would be a good part faster than its limit."""
    bucket = TokenBucket(rate, START)
    reader = Reader(bucket)
    drive([reader], seconds)
    assert rate * seconds - 2 * bucket.turn <= reader.total <= rate * seconds + bucket.turn


def test_a_full_bucket_is_for_whoever_comes() -> None:
    _, first, second, third = thousand()
    first.when(START)
    second.when(START)
    now = START + 1e6
    assert [pace.available(now) for pace in (first, second, third)] == [20, 20, 20]
    third.spend(20, now)
    assert [pace.available(now) for pace in (first, second, third)] == [20, 20, 0]


def test_a_clock_that_stands_brings_nothing() -> None:
    _, first, *_ = thousand()
    assert first.available(START) == first.available(START) == 0
    assert first.available(START + 0.019) == 0 and first.available(START + 0.0205) == 20


@pytest.mark.parametrize("now", [0.0, 1e3, 1e9, 1e15, 1e300])
def test_the_moment_to_come_again_is_never_now(now: float) -> None:
    bucket = TokenBucket(1e12, now)
    pace = Pace(bucket)
    assert pace.when(now) > now
    pace.spend(int(bucket.burst), now)
    assert pace.when(now) > now


@pytest.mark.parametrize(
    ("rate", "burst", "turn", "most"),
    [
        (1000, None, 20, 250),
        (1_000_000_000, None, 65536, 250_000_000),
        (1, None, 1, 4),
        (0.001, None, 1, 4),
        (1000, 40, 10, 40),
        (1000, 0.5, 1, 4),
        (1000, 1_000_000, 20, 1_000_000),
        (1e300, None, 65536, 2.5e299),
    ],
)
def test_the_size_of_a_turn(rate: float, burst: float | None, turn: int, most: float) -> None:
    bucket = TokenBucket(rate, START, burst)
    assert type(bucket.turn) is int and bucket.turn == turn
    assert bucket.burst == pytest.approx(most)


def test_the_smaller_part_of_two_limits() -> None:
    shared, own = TokenBucket(20_000, START - 1), TokenBucket(1000, START - 1)
    pace = Pace(shared, own)
    assert pace.available(START) == 250
    pace.spend(150, START)
    assert pace.available(START) == 100
    pace.spend(100, START)
    assert repr(shared) == "<TokenBucket 20000 B/s, 4750 bytes there, 0 waiting>"
    assert repr(own) == "<TokenBucket 1000 B/s, 0 bytes there, 0 waiting>"
    assert pace.available(START) == 0 and pace.when(START) - START == pytest.approx(0.02)
    assert pace.available(START + 0.0305) == 30
    assert Pace(shared, TokenBucket(10**6, START)).available(START) == shared.turn == 400


def test_nobody_waits_in_two_lines() -> None:
    shared, own = TokenBucket(100_000, START), TokenBucket(1000, START)
    pace = Pace(shared, own)

    def lines() -> list[str]:
        return [repr(bucket)[-10:] for bucket in (shared, own)]

    pace.spend(25_000, START)
    pace.when(START)
    assert lines() == ["0 waiting>", "1 waiting>"]
    later = START + 100
    Pace(shared).spend(25_000, later)
    pace.when(later)
    assert lines() == ["1 waiting>", "1 waiting>"]  # its own is no line
    own.take(250, pace, later)
    pace.when(later)
    assert lines() == ["0 waiting>", "1 waiting>"]


@pytest.mark.parametrize("name", ["rate_limit", "burst"])
def test_S11_a_rate_is_above_zero_and_finite(name: str) -> None:
    def make(value: object) -> TokenBucket:
        return TokenBucket(value, START) if name == "rate_limit" else TokenBucket(1000, START, value)

    for wrong in NO_NUMBERS:
        if name == "rate_limit" or wrong is not None:
            with pytest.raises(TypeError, match=f"^{name} is a number"):
                make(wrong)
    for wrong in NO_AMOUNTS:
        with pytest.raises(ValueError, match=f"^{name} must be above 0 and finite"):
            make(wrong)


# Too slow: 1000 bytes per second over 10 seconds, unless said otherwise

FLOOR, WINDOW = 1000, 10
LATE = WINDOW / 20  # how much later than by an exact average


def floor() -> SpeedFloor:
    return SpeedFloor(LowSpeed(FLOOR, WINDOW), START)


def expires(speed_floor: SpeedFloor, arrivals: list[tuple[float, int]]) -> float:
    """Let bytes come at such seconds after the start; return when it expires, by a timer that is armed as a loop does.

    After the last of them nothing comes.
    """
    total, timer = 0, START
    for at, n in [*arrivals, (inf, 0)]:
        while (timer := max(timer, speed_floor.deadline())) < START + at:
            if speed_floor.expired(timer):
                return timer - START
        total += n
        speed_floor.advance(START + at, total)
    raise AssertionError("it never expires")


def test_T37_low_speed_is_a_pair() -> None:
    low_speed = LowSpeed(1000, 30)
    assert (low_speed.bytes_per_second, low_speed.seconds) == (1000, 30)
    assert LowSpeed.of((1000, 30)) == low_speed and LowSpeed.of(low_speed) is low_speed
    assert pickle.loads(pickle.dumps(low_speed)) == low_speed and len({low_speed, LowSpeed(1000.0, 30.0)}) == 1
    with pytest.raises(AttributeError):
        low_speed.seconds = 5


@pytest.mark.parametrize("wrong", [None, 1000, "1000,30", b"ab", [1000, 30], {1000, 30}, True, (None, 3), ("1", 3)])
def test_T37_S11_what_is_no_low_speed(wrong: object) -> None:
    with pytest.raises(TypeError, match="low_speed"):
        LowSpeed.of(wrong)


@pytest.mark.parametrize("wrong", [(), (1000,), (1000, 30, 1)])
def test_T37_S11_what_is_no_pair(wrong: object) -> None:
    with pytest.raises(ValueError, match="low_speed is two numbers"):
        LowSpeed.of(wrong)


@pytest.mark.parametrize("name", ["bytes_per_second", "seconds"])
def test_T37_S11_both_are_above_zero_and_finite(name: str) -> None:
    for wrong in NO_NUMBERS:
        with pytest.raises(TypeError, match=f"^low_speed.{name} is a number"):
            LowSpeed(**{"bytes_per_second": 1, "seconds": 1, name: wrong})
    for wrong in NO_AMOUNTS:
        with pytest.raises(ValueError, match=f"^low_speed.{name} must be above 0"):
            LowSpeed(**{"bytes_per_second": 1, "seconds": 1, name: wrong})


def test_T37_nothing_comes() -> None:
    speed_floor = floor()
    assert speed_floor.deadline() == START + WINDOW
    assert not speed_floor.expired(START + WINDOW - 0.001) and speed_floor.expired(START + WINDOW)


def stream(rate: float, begin: float, end: float, every: float = 0.125) -> list[tuple[float, int]]:
    """Return the arrivals of so many bytes per second."""
    return [(begin + i * every, int(rate * every)) for i in range(1, int((end - begin) / every) + 1)]


@pytest.mark.parametrize("rate", [8, 100, 500, 992])
def test_T37_a_trickle_is_no_transfer(rate: int) -> None:
    assert expires(floor(), stream(rate, 0, 100)) == WINDOW


@pytest.mark.parametrize("fast", [1000, 1024, 2000, 16_000, 10**9])
@pytest.mark.parametrize("then", [0, 8])
@pytest.mark.parametrize("begin", [10, 11.375, 1000])
def test_T37_a_fast_start_is_no_excuse(fast: int, then: int, begin: float) -> None:
    """It fires once the average has dropped: when so much of the window is slow that the rest cannot make up for it."""
    dropped = begin + WINDOW * (fast - FLOOR) / (fast - then)
    found = expires(floor(), stream(fast, 0, begin) + stream(then, begin, begin + 2 * WINDOW if then else begin))
    assert dropped - 0.125 <= found <= dropped + 0.125 + LATE


@pytest.mark.parametrize("size", [FLOOR * WINDOW, 10**12])
def test_T37_one_large_piece_lasts_for_one_window(size: int) -> None:
    for at in (0.0, 0.125, 3.0, 9.875):
        assert at + WINDOW <= expires(floor(), [(at, size)]) <= at + WINDOW + LATE


@pytest.mark.parametrize("every", [0.0625, 1, 3.3, 10])
def test_T37_a_transfer_at_the_floor_never_fires(every: float) -> None:
    speed_floor = floor()
    for i in range(1, int(1000 / every)):
        speed_floor.advance(START + i * every, int(i * every * FLOOR) + 1)
        assert not speed_floor.expired(START + i * every)


@pytest.mark.parametrize("resumed", [True, False])
def test_T37_time_that_is_paused_does_not_count(resumed: bool) -> None:
    speed_floor = floor()
    speed_floor.advance(START + 4, FLOOR * WINDOW - 1)
    speed_floor.pause(START + 6)
    speed_floor.pause(START + 7)
    assert speed_floor.deadline() is None and not speed_floor.expired(START + 1000)
    speed_floor.resume(START + 1006)
    if resumed:
        speed_floor.resume(START + 1007)
    assert speed_floor.deadline() == START + 1000 + WINDOW


def test_T37_bytes_that_come_while_paused_count() -> None:
    speed_floor = floor()
    speed_floor.pause(START + 6)
    speed_floor.advance(START + 500, FLOOR * WINDOW)
    speed_floor.resume(START + 1006)
    assert START + 1006 + WINDOW <= speed_floor.deadline() <= START + 1006 + WINDOW + LATE


def test_T37_our_own_limit_is_not_the_servers_fault() -> None:
    """A reader that is held to a tenth of the floor, and stops the time while it may not read."""
    pace, speed_floor = Pace(TokenBucket(FLOOR / 10, START)), floor()
    now, total = START, 0
    while now < START + 10 * WINDOW:
        speed_floor.resume(now)
        if allowed := pace.available(now):
            pace.spend(allowed, now)
            total += allowed
            speed_floor.advance(now, total)
        assert not speed_floor.expired(now)
        if not pace.available(now):
            speed_floor.pause(now)
            now = pace.when(now)
    assert total < 11 * WINDOW * FLOOR / 10


def test_T44_the_window_takes_little_memory() -> None:
    speed_floor = floor()
    for i in range(100_000):
        speed_floor.advance(START + i / 1000, i * 10**6)
    assert len(speed_floor._marks) < 50


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["bytes", "bytes", "bytes", "look", "to the deadline", "pause", "resume"]),
        st.integers(0, 40) | st.integers(0, 1500),  # milliseconds, nearly, before it
        st.integers(0, 60) | st.integers(0, 1500),  # how many
    ),
    max_size=60,
)


@settings(STEADY, max_examples=1000)
@given(bytes_per_second=st.integers(1, 1000), window=st.sampled_from([0.25, 1.0, 2.0]), events=EVENTS)
def test_T37_against_the_exact_average(bytes_per_second: int, window: float, events) -> None:
    """By times that are whole numbers of 1/1024 s, which add up without rounding."""
    speed_floor = SpeedFloor(LowSpeed(bytes_per_second, window), START)
    enough, now, counted, paused, arrived = bytes_per_second * window, START, 0.0, False, []

    def came_in_the_last(seconds: float) -> int:
        return sum(n for at, n in arrived if at > counted - seconds)

    for what, ticks, n in events:
        then = now + ticks / 1024
        if what == "to the deadline" and not paused:
            then = max(now, speed_floor.deadline())
        counted += 0.0 if paused else then - now
        now = then
        if what == "bytes":
            arrived.append((counted, n))
            speed_floor.advance(now, sum(size for _, size in arrived))
        elif what in ("pause", "resume"):
            paused = what == "pause"
            getattr(speed_floor, what)(now)
        if speed_floor.expired(now):
            assert counted >= window and came_in_the_last(window) < enough and not paused
        elif counted >= window and not paused:
            assert came_in_the_last(1.05 * window + 1e-9) >= enough
        assert (speed_floor.deadline() is None) == paused
