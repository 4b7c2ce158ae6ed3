"""The selector loop: readiness, timers, callbacks, the wake-up (S1, S9, T31)."""

from __future__ import annotations

import contextlib
import os
import random
import select
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from selectors import EVENT_READ, EVENT_WRITE, SelectorKey

import pytest

from rawdl.loop import READ, WRITE, Loop, Timer, Watch

GUARD = 30.0  # seconds after which a wait that should have ended is given up


class Clock:
    """Virtual time; ``drift`` is what each reading takes."""

    def __init__(self, drift: float = 0.0) -> None:
        self.now = 100.0
        self.drift = drift
        self.readings = 0

    def __call__(self) -> float:
        self.readings += 1
        self.now += self.drift
        return self.now


class FakeSelector:
    """Say that is ready what the test says, and let virtual time pass while waiting."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.keys: dict[int, SelectorKey] = {}
        self.ready: list[tuple[int, int]] = []
        self.waits: list[float | None] = []
        self.closed = False

    def register(self, fileobj: int, events: int, data: Watch) -> SelectorKey:
        assert fileobj not in self.keys
        self.keys[fileobj] = SelectorKey(fileobj, fileobj, events, data)
        return self.keys[fileobj]

    def modify(self, fileobj: int, events: int, data: Watch) -> SelectorKey:
        self.unregister(fileobj)
        return self.register(fileobj, events, data)

    def unregister(self, fileobj: int) -> SelectorKey:
        return self.keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        self.waits.append(timeout)
        if not self.ready:
            self.clock.now += timeout or 0.0
        ready, self.ready = self.ready, []
        return [(self.keys[fd], mask) for fd, mask in ready]

    def close(self) -> None:
        self.closed = True


class Handle:
    """A socket, as far as the loop knows one."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.closed = False

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def selector(clock: Clock) -> FakeSelector:
    return FakeSelector(clock)


@pytest.fixture
def virtual(clock: Clock, selector: FakeSelector) -> Iterator[Loop]:
    with contextlib.closing(Loop(selector=selector, clock=clock)) as loop:
        yield loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    with contextlib.closing(Loop()) as loop:
        yield loop


@pytest.fixture
def pair() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Return a maker of socket pairs, which are closed at the end."""
    with contextlib.ExitStack() as stack:

        def make() -> tuple[socket.socket, socket.socket]:
            one, other = socket.socketpair()
            one.setblocking(False)
            stack.enter_context(one)
            stack.enter_context(other)
            return one, other

        yield make


def readable(loop: Loop) -> bool:
    """Whether a foreign loop that watches the loop's descriptor would step now."""
    return bool(select.select([loop.fileno()], [], [], 0)[0])


# Descriptors


def test_a_ready_descriptor_is_served(loop: Loop, pair) -> None:
    one, other = pair()
    masks: list[int] = []
    assert loop.register(one, READ, masks.append) == one.fileno()
    loop.step()
    assert masks == []
    other.send(b"x")
    assert readable(loop)
    loop.step(GUARD)
    loop.step()
    assert masks == [READ, READ]  # as long as nobody reads
    one.recv(10)
    loop.step()
    assert masks == [READ, READ]


def test_a_descriptor_can_wait_for_other_events(loop: Loop, pair) -> None:
    one, other = pair()
    masks: list[int] = []
    loop.register(one, READ, masks.append)
    loop.modify(one.fileno(), READ | WRITE)
    loop.step()
    other.send(b"x")
    loop.step()
    loop.modify(one.fileno(), READ)
    loop.step()
    assert masks == [WRITE, READ | WRITE, READ]


def test_waiting_for_the_same_events_costs_nothing(virtual: Loop, selector: FakeSelector) -> None:
    virtual.register(Handle(1000), READ, lambda mask: None)
    key = selector.keys[1000]
    virtual.modify(1000, READ)
    assert selector.keys[1000] is key
    virtual.modify(1000, WRITE)
    assert selector.keys[1000].events == EVENT_WRITE and selector.keys[1000].data is key.data


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("old", "new"), [(READ, WRITE), (READ, 0), (0, READ)])
def test_what_is_interrupted_while_it_is_modified_can_be_unregistered(
    virtual: Loop, selector: FakeSelector, monkeypatch: pytest.MonkeyPatch, old: int, new: int, moment: str
) -> None:
    """Else the next socket with that number could not be registered."""
    virtual.register(Handle(1000), READ, lambda mask: None)
    virtual.modify(1000, old)
    for name in ("register", "modify", "unregister"):
        monkeypatch.setattr(selector, name, interrupted(getattr(selector, name), moment))
    with pytest.raises(KeyboardInterrupt):
        virtual.modify(1000, new)
    monkeypatch.undo()
    virtual.unregister(1000)
    assert 1000 not in selector.keys


@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_is_interrupted_while_it_is_registered_can_be_unregistered(
    virtual: Loop, selector: FakeSelector, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(selector, "register", interrupted(selector.register, moment))
    with pytest.raises(KeyboardInterrupt):
        virtual.register(Handle(1000), READ, lambda mask: None)
    virtual.unregister(1000)
    assert 1000 not in selector.keys


def interrupted(call: Callable[..., object], moment: str) -> Callable[..., object]:
    """Return what raises KeyboardInterrupt before the call, or after it."""

    def function(*args: object) -> object:
        if moment == "after":
            call(*args)
        raise KeyboardInterrupt

    return function


def test_a_descriptor_can_be_given_another_callback(loop: Loop, pair) -> None:
    one, other = pair()
    called: list[str] = []
    loop.register(one, READ, lambda mask: called.append("first"))
    loop.redirect(one.fileno(), lambda mask: called.append("second"))
    other.send(b"x")
    loop.step()
    assert called == ["second"]


def test_what_was_unregistered_is_not_called(loop: Loop, pair) -> None:
    one, other = pair()
    loop.register(one, READ, lambda mask: pytest.fail("called"))
    other.send(b"x")
    loop.unregister(one.fileno())
    loop.unregister(one.fileno())
    loop.unregister(10_000)
    loop.step()


def test_a_descriptor_that_was_closed_in_the_same_turn_is_not_called(loop: Loop, pair) -> None:
    """Both are ready, and whichever is served first closes the other."""
    (a, a2), (b, b2) = pair(), pair()
    called: list[str] = []

    def serve(name: str, victim: socket.socket) -> Callable[[int], None]:
        def callback(mask: int) -> None:
            called.append(name)
            loop.unregister(victim.fileno())
            victim.close()

        return callback

    loop.register(a, READ, serve("a", b))
    loop.register(b, READ, serve("b", a))
    a2.send(b"x")
    b2.send(b"x")
    loop.step()
    assert called in (["a"], ["b"])


def test_a_number_that_is_used_again_in_the_same_turn_is_not_called(loop: Loop, pair) -> None:
    """The new owner of the number would be told of what the old one's descriptor had."""
    (a, a2), (b, b2) = pair(), pair()
    called: list[str] = []

    def serve(name: str, victim: socket.socket) -> Callable[[int], None]:
        def callback(mask: int) -> None:
            called.append(name)
            number = victim.fileno()
            loop.unregister(number)
            victim.close()
            new, _ = pair()
            assert new.fileno() == number
            loop.register(new, READ, lambda mask: called.append("new"))

        return callback

    loop.register(a, READ, serve("a", b))
    loop.register(b, READ, serve("b", a))
    a2.send(b"x")
    b2.send(b"x")
    loop.step()
    assert called in (["a"], ["b"])
    loop.unregister(a.fileno() if called == ["a"] else b.fileno())
    loop.step()
    assert len(called) == 1


@pytest.mark.parametrize("order", [[1001, 1002, 1003], [1003, 1002, 1001], [1002, 1001, 1003]])
def test_the_check_holds_in_any_order(virtual: Loop, selector: FakeSelector, order: list[int]) -> None:
    called: list[int] = []
    for fd in order:

        def callback(mask: int, fd: int = fd) -> None:
            called.append(fd)
            for other in set(order) - {fd}:
                virtual.unregister(other)
                virtual.register(Handle(other), READ, lambda mask: pytest.fail("the new owner was called"))

        virtual.register(Handle(fd), READ, callback)
    selector.ready = [(fd, READ) for fd in order]
    virtual.step()
    assert called == order[:1]


def test_a_callback_that_raises_loses_nothing(loop: Loop, pair) -> None:
    """S9: what is ready stays ready, and goes on at the next drive."""
    (a, a2), (b, b2) = pair(), pair()
    called: list[str] = []

    def raising(mask: int) -> None:
        loop.unregister(a.fileno())
        raise KeyboardInterrupt

    loop.register(a, READ, raising)
    loop.register(b, READ, lambda mask: called.append("b"))
    loop.call_at(0.0, lambda: called.append("timer"))
    loop.call_soon(lambda: called.append("soon"))
    loop.call_soon_threadsafe(lambda: called.append("handed"))
    a2.send(b"x")
    b2.send(b"x")
    with pytest.raises(KeyboardInterrupt):
        loop.step()
    loop.step()
    assert {"b", "timer", "soon", "handed"} <= set(called)
    assert [called.count(name) for name in ("timer", "soon", "handed")] == [1, 1, 1]


def test_a_timer_that_raises_takes_no_other_along(virtual: Loop, selector: FakeSelector, clock: Clock) -> None:
    """S9: what was due in the same turn is so in the next, which waits for nothing."""
    called: list[str] = []

    def raising() -> None:
        raise KeyboardInterrupt

    virtual.call_at(98.0, raising)
    virtual.call_at(99.0, lambda: called.append("due"))
    virtual.call_at(100.0, lambda: called.append("due as well"))
    with pytest.raises(KeyboardInterrupt):
        virtual.step()
    assert virtual.next_deadline() == clock.now
    virtual.step(None)
    assert called == ["due", "due as well"]
    assert virtual.next_deadline() is None


# Callbacks


def test_call_soon_is_the_next_turn_in_order(virtual: Loop) -> None:
    called: list[str] = []

    def first() -> None:
        called.append("first")
        virtual.call_soon(lambda: called.append("third"))

    virtual.call_soon(first)
    virtual.call_soon(lambda: called.append("second"))
    virtual.step()
    assert called == ["first", "second"]
    virtual.step()
    assert called == ["first", "second", "third"]


def test_what_a_turn_schedules_runs_in_the_next(virtual: Loop, selector: FakeSelector, clock: Clock) -> None:
    turns: list[tuple[str, int]] = []

    def schedule(name: str) -> Callable[..., None]:
        return lambda *mask: virtual.call_soon(lambda: turns.append((name, virtual.turns)))

    virtual.register(Handle(1000), READ, schedule("descriptor"))
    virtual.call_at(clock.now, schedule("timer"))
    virtual.call_soon(schedule("callback"))
    virtual.call_soon_threadsafe(schedule("handed"))
    selector.ready = [(1000, READ)]
    virtual.step()
    assert turns == []
    virtual.step()
    assert sorted(turns) == [("callback", 2), ("descriptor", 2), ("handed", 2), ("timer", 2)]


def again(arm: Callable[[Callable[[], None]], object], turns: Callable[[], int]) -> list[int]:
    """Return the list of turns in which a callback runs that schedules itself anew, three times."""
    ran: list[int] = []

    def callback() -> None:
        ran.append(turns())
        if len(ran) < 3:
            arm(callback)

    arm(callback)
    return ran


def test_a_callback_that_schedules_itself_runs_once_a_turn(virtual: Loop) -> None:
    ran = again(virtual.call_soon, lambda: virtual.turns)
    for _ in range(4):
        virtual.step()
    assert ran == [1, 2, 3]


def test_a_timer_that_arms_itself_anew_runs_once_a_turn(virtual: Loop, clock: Clock) -> None:
    ran = again(lambda callback: virtual.call_at(clock.now, callback), lambda: virtual.turns)
    for _ in range(4):
        virtual.step()
    assert ran == [1, 2, 3]


def test_a_handed_callback_that_hands_itself_over_runs_once_a_turn(virtual: Loop) -> None:
    ran = again(virtual.call_soon_threadsafe, lambda: virtual.turns)
    for _ in range(4):
        virtual.step()
    assert ran == [1, 2, 3]


# Timers


def test_timers_fire_in_the_order_of_their_times(virtual: Loop, clock: Clock) -> None:
    fired: list[float] = []
    times = [100.0 + offset for offset in (5, 1, 3, 2, 4)]
    for when in times:
        virtual.call_at(when, lambda when=when: fired.append(when))
    clock.now = 103.0
    virtual.step()
    assert fired == [101.0, 102.0, 103.0]
    virtual.step(None)
    virtual.step(None)
    assert fired == sorted(times) and clock.now == 105.0


def test_a_timer_fires_at_its_time_and_not_before(virtual: Loop, clock: Clock) -> None:
    fired: list[float] = []
    virtual.call_at(110.0, lambda: fired.append(virtual.now))
    clock.now = 109.999
    virtual.step()
    assert fired == [] and virtual.next_deadline() == 110.0
    clock.now = 110.0
    virtual.step()
    assert fired == [110.0] and virtual.next_deadline() is None


def test_a_timer_is_cancelled_at_any_moment(virtual: Loop, clock: Clock) -> None:
    fired: list[str] = []
    timers: list[Timer] = []

    def first() -> None:
        fired.append("first")
        for timer in timers:
            timer.cancel()  # itself, one that is due in this turn, and one that is due later

    timers += [virtual.call_at(101.0, first)]
    timers += [virtual.call_at(when, lambda: fired.append("other")) for when in (102.0, 110.0)]
    clock.now = 105.0
    virtual.step()
    clock.now = 200.0
    virtual.step()
    assert fired == ["first"] and virtual.next_deadline() is None
    for timer in timers:
        timer.cancel()
        assert timer.callback is None


def test_the_heap_is_rebuilt_when_most_of_it_is_dead(virtual: Loop, clock: Clock) -> None:
    """A task arms a limit for each phase, and cancels nearly all of them."""
    fired: list[int] = []
    timers = [virtual.call_at(200.0 + i, lambda i=i: fired.append(i)) for i in range(1000)]
    rng = random.Random(1)
    dead = set(rng.sample(range(1000), 950))
    for i in dead:
        timers[i].cancel()
    assert size_of_heap(virtual) <= 2 * 50 + 65
    clock.now = 2000.0
    virtual.step()
    assert fired == [i for i in range(1000) if i not in dead]
    assert size_of_heap(virtual) == 0


def size_of_heap(loop: Loop) -> int:
    return int(repr(loop).partition(" timers")[0].rpartition(" ")[2])


@pytest.mark.parametrize("seed", range(10))
def test_timers_whatever_is_done_with_them(clock: Clock, virtual: Loop, seed: int) -> None:
    """Held against a list: each timer fires once, at its time, unless it was cancelled before."""
    rng = random.Random(seed)
    fired: list[int] = []
    live: dict[int, tuple[float, Timer]] = {}
    for number in range(2000):
        when = clock.now + rng.choice([0.5, 1.0, 30.0, 60.0]) * rng.random()
        live[number] = (when, virtual.call_at(when, lambda number=number: fired.append(number)))
        while len(live) > 100 or (live and rng.random() < 0.6):
            live.pop(rng.choice(list(live)))[1].cancel()
        if rng.random() < 0.1:
            clock.now += rng.random()
            virtual.step()
            due = sorted((when, n) for n, (when, _) in live.items() if when <= clock.now)
            assert fired == [n for _, n in due]
            for n in fired:
                live.pop(n)
            fired.clear()
        assert virtual.next_deadline() == min((when for when, _ in live.values()), default=None)
        assert size_of_heap(virtual) <= 2 * len(live) + 66


# How long a turn waits, and what it takes the time to be (S1)


@pytest.mark.parametrize("seconds", [1e7, 1e10, 1e308])
def test_a_turn_can_have_more_time_than_a_selector_takes(loop: Loop, seconds: float) -> None:
    loop.wake()
    loop.step(seconds)
    loop.call_at(loop.now + seconds, pytest.fail)
    loop.wake()
    loop.step(None)
    assert not readable(loop)


def test_a_turn_waits_no_longer_than_until_the_next_timer(virtual: Loop, selector: FakeSelector, clock: Clock) -> None:
    virtual.step()
    virtual.step(None)
    virtual.step(7.0)
    assert selector.waits == [0, None, 7.0]
    virtual.call_at(clock.now + 5.0, lambda: None)
    virtual.step(2.0)
    virtual.step(None)
    assert selector.waits[3:] == [2.0, 3.0]
    virtual.call_at(clock.now - 1.0, lambda: None)
    virtual.step(None)
    assert selector.waits[5:] == [0.0]
    for schedule in (virtual.call_soon, virtual.call_soon_threadsafe):
        schedule(lambda: None)
        virtual.call_at(clock.now + 5.0, lambda: None).cancel()
        virtual.step(None)
    assert selector.waits[6:] == [0, 0]


def test_S1_the_next_deadline(virtual: Loop, clock: Clock) -> None:
    assert virtual.next_deadline() is None
    first = virtual.call_at(105.0, lambda: None)
    virtual.call_at(110.0, lambda: None)
    assert virtual.next_deadline() == 105.0
    first.cancel()
    assert virtual.next_deadline() == 110.0
    for schedule in (virtual.call_soon, virtual.call_soon_threadsafe):
        schedule(lambda: None)
        assert virtual.has_callbacks and virtual.next_deadline() <= clock.now
        virtual.step()
        assert not virtual.has_callbacks and virtual.next_deadline() == 110.0
    clock.now = 120.0
    assert virtual.next_deadline() == 110.0  # in the past: step now


def test_a_turn_reads_the_clock_once_and_hands_it_down(selector: FakeSelector, clock: Clock) -> None:
    clock.drift = 0.001
    with contextlib.closing(Loop(selector=selector, clock=clock)) as loop:
        seen: list[float] = []
        loop.register(Handle(1000), READ, lambda mask: seen.append(loop.now))
        loop.call_soon(lambda: seen.append(loop.now))
        loop.call_soon_threadsafe(lambda: seen.append(loop.now))
        selector.ready = [(1000, READ)]
        before = clock.readings
        loop.step()
        assert clock.readings == before + 1
        assert seen == [clock.now] * 3
        loop.call_at(0.0, lambda: seen.append(loop.now))
        loop.call_at(1.0, lambda: seen.append(loop.now))
        before = clock.readings
        loop.step(5.0)
        assert clock.readings <= before + 2  # one more, to know how long to wait for a timer
        assert seen[3:] == [clock.now] * 2


def test_the_clock_is_the_callers(virtual: Loop, clock: Clock) -> None:
    assert virtual.now == 100.0 and virtual.time() == 100.0
    clock.now = 150.0
    assert virtual.time() == 150.0 and virtual.now == 100.0  # until the next turn
    assert virtual.wall_offset() == pytest.approx(time.time() - 150.0, abs=GUARD)
    virtual.step()
    assert virtual.now == 150.0 and virtual.turns == 1


def test_time_that_went_by_elsewhere_is_counted(virtual: Loop, clock: Clock) -> None:
    assert virtual.absent == 0.0
    began = virtual.time()
    clock.now += 2.5
    virtual.back_from(began)
    assert (virtual.now, virtual.absent) == (102.5, 2.5)


# The wake-up


def test_S1_the_descriptor_is_readable_when_there_is_something_to_do(loop: Loop, pair) -> None:
    assert not readable(loop)
    loop.wake()
    assert readable(loop)
    loop.step()
    assert not readable(loop)
    loop.call_soon_threadsafe(lambda: None)
    assert readable(loop)
    loop.step()
    assert not readable(loop)
    one, other = pair()
    loop.register(one, READ, lambda mask: one.recv(10))
    other.send(b"x")
    assert readable(loop)
    loop.step()
    assert not readable(loop)


def test_a_thousand_wake_ups_are_one(loop: Loop) -> None:
    for _ in range(100_000):  # more than a socket would hold
        loop.wake()
    loop.step(GUARD)
    assert not readable(loop)


def test_a_wake_up_before_the_wait_ends_it(loop: Loop) -> None:
    loop.wake()
    began = time.monotonic()
    loop.step(GUARD)
    assert time.monotonic() - began < GUARD


def test_call_soon_threadsafe_wakes_a_loop_that_waits(loop: Loop) -> None:
    waiting, done = threading.Event(), threading.Event()
    ran_in: list[threading.Thread] = []

    def drive() -> None:
        waiting.set()
        while not ran_in and not done.is_set():
            loop.step(None)

    driver = threading.Thread(target=drive)
    driver.start()
    waiting.wait(GUARD)
    time.sleep(0.02)  # by now it waits; if not, it must not miss the call either
    loop.call_soon_threadsafe(lambda: ran_in.append(threading.current_thread()))
    driver.join(GUARD)
    done.set()
    loop.wake()
    driver.join()
    assert ran_in == [driver]


def test_no_call_from_any_thread_is_lost(loop: Loop) -> None:
    """The flag that saves wake-ups must not swallow one: here each call comes while others are being served."""
    threads, each = 4, 500
    ran: list[tuple[int, int]] = []

    def worker(thread: int) -> None:
        for i in range(each):
            loop.call_soon_threadsafe(lambda key=(thread, i): ran.append(key))

    workers = [threading.Thread(target=worker, args=(thread,)) for thread in range(threads)]
    for thread in workers:
        thread.start()
    deadline = time.monotonic() + GUARD
    while len(ran) < threads * each and time.monotonic() < deadline:
        loop.step(deadline - time.monotonic())
    for thread in workers:
        thread.join()
    assert sorted(ran) == [(thread, i) for thread in range(threads) for i in range(each)]
    for thread in range(threads):
        assert [i for t, i in ran if t == thread] == list(range(each))  # each thread's calls stay in order
    loop.step()
    assert not readable(loop)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals here")
def test_call_soon_threadsafe_from_a_signal_handler(loop: Loop) -> None:
    ran: list[bool] = []
    before = signal.signal(signal.SIGALRM, lambda *args: loop.call_soon_threadsafe(lambda: ran.append(True)))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        deadline = time.monotonic() + GUARD
        while not ran and time.monotonic() < deadline:
            loop.step(GUARD)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ran == [True]


def test_handed_callbacks_can_be_run_without_a_turn(virtual: Loop) -> None:
    called: list[int] = []
    virtual.call_soon_threadsafe(lambda: called.append(1))
    assert virtual.has_handed and virtual.has_callbacks
    virtual.run_handed()
    assert called == [1] and not virtual.has_handed and not virtual.has_callbacks
    virtual.call_soon(lambda: None)
    assert virtual.has_callbacks and not virtual.has_handed


def test_a_selector_without_a_descriptor() -> None:
    with contextlib.closing(Loop(selector=selectors.SelectSelector())) as loop:
        with pytest.raises(RuntimeError, match="SelectSelector has no descriptor"):
            loop.fileno()
        loop.wake()
        loop.step(GUARD)


# Buffers


def test_there_is_one_buffer(loop: Loop) -> None:
    assert len(loop.buffer) == 1 << 20 and loop.buffer is loop.buffer and not loop.buffer.readonly
    assert len(loop.scratch) == 131072 and loop.scratch is loop.scratch and loop.scratch.obj is not loop.buffer.obj
    with contextlib.closing(Loop(buffer_size=4096)) as small:
        assert len(small.buffer) == len(small.scratch) == 4096


# The end


def test_close_lets_go_of_everything() -> None:
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    loop = Loop()
    fired: list[str] = []
    timer = loop.call_at(0.0, lambda: fired.append("timer"))
    loop.call_soon(lambda: fired.append("soon"))
    loop.close()
    loop.close()
    assert loop.closed and repr(loop) == "<Loop 0 watched, 0 timers, 0 pending>"
    if before:
        assert set(os.listdir("/proc/self/fd")) <= before
    timer.cancel()
    loop.wake()
    loop.call_soon_threadsafe(lambda: fired.append("handed"))
    assert fired == []


def test_the_selector_that_was_given_is_closed_too(virtual: Loop, selector: FakeSelector) -> None:
    virtual.close()
    assert selector.closed and selector.keys == {}


def test_after_a_fork_the_copies_are_closed_and_nothing_else_is_done(virtual: Loop, selector: FakeSelector) -> None:
    """The selector is the parent's as well: what is unregistered here would be so there."""
    handle = Handle(1000)
    virtual.register(handle, READ, lambda mask: None)
    before = dict(selector.keys)
    virtual.abandon()
    virtual.close()
    assert virtual.closed and handle.closed and selector.closed and selector.keys == before
    assert repr(virtual).startswith("<Loop 0 watched")
    virtual.wake()


@pytest.mark.parametrize("where", ["descriptor", "timer", "soon"])
def test_a_turn_in_which_the_loop_is_closed_ends(
    virtual: Loop, selector: FakeSelector, clock: Clock, where: str
) -> None:
    called: list[str] = []

    def close(*mask: int) -> None:
        called.append("close")
        virtual.close()

    def rest(*mask: int) -> None:
        called.append("rest")

    virtual.register(Handle(1000), READ, close if where == "descriptor" else lambda mask: None)
    virtual.register(Handle(1001), READ, rest if where == "descriptor" else lambda mask: None)
    virtual.call_at(99.0, close if where == "timer" else lambda: None)
    virtual.call_at(100.0, rest if where in ("descriptor", "timer") else lambda: None)
    virtual.call_soon(close if where == "soon" else rest)
    virtual.call_soon(rest)
    selector.ready = [(1000, EVENT_READ), (1001, EVENT_READ)]
    virtual.step()
    assert called == ["close"]


def test_the_repr_counts(virtual: Loop) -> None:
    assert repr(virtual) == "<Loop 1 watched, 0 timers, 0 pending>"
    virtual.register(Handle(1000), READ, lambda mask: None)
    virtual.call_at(1e9, lambda: None)
    virtual.call_soon(lambda: None)
    assert repr(virtual) == "<Loop 2 watched, 1 timers, 1 pending>"
