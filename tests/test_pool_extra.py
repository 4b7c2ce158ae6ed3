"""Slots for further connections of tasks that have one, and places in the line that were given up (T39)."""

from __future__ import annotations

import contextlib
import random
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from rawdl.loop import Loop
from rawdl.pool import Key, Pool, Slot
from rawdl.proto.url import Origin

TURNS = 20  # far more than a grant takes


class Trust:
    """Stand in for what authenticates an origin: something that can be watched being forgotten."""


def key_of(host: str) -> Key:
    return Key(Origin("http", host, 80), Trust())  # type: ignore[arg-type]


class Line:
    """A pool, and who was granted a slot, in order."""

    def __init__(self, loop: Loop, *, max_concurrent: int = 10, max_per_host: int = 6) -> None:
        self.loop = loop
        self.pool = Pool(loop, max_concurrent=max_concurrent, max_per_host=max_per_host)
        self.granted: list[str] = []
        self.slots: dict[str, Slot] = {}

    def task(self, name: str, key: Key) -> None:
        self.slots[name] = self.pool.submit(key, lambda: self.granted.append(name))

    def extra(self, name: str, key: Key) -> None:
        self.slots[name] = self.pool.submit_extra(key, lambda: self.granted.append(name))

    def again(self, name: str, key: Key) -> None:
        self.pool.rejoin(self.slots[name], key, lambda: self.granted.append(name))

    def leave(self, name: str) -> None:
        self.pool.release(self.slots.pop(name))

    def turn(self) -> list[str]:
        """Let things settle; return who has been granted a slot since."""
        self.granted.clear()
        for _ in range(TURNS):
            self.loop.step(0)
        return list(self.granted)

    def assert_empty(self) -> None:
        assert repr(self.pool) == "<Pool 0 in use, 0 idle, 0 waiting>"


@pytest.fixture
def loop() -> Iterator[Loop]:
    with contextlib.closing(Loop()) as loop:
        yield loop


A, B = key_of("a.example"), key_of("b.example")


def test_T39_a_further_connection_counts_for_its_host_and_not_as_a_task(loop: Loop):
    line = Line(loop, max_concurrent=1, max_per_host=3)
    line.task("t1", A)
    assert line.turn() == ["t1"]
    for name in ("e1", "e2", "e3"):
        line.extra(name, A)
    assert line.turn() == ["e1", "e2"]
    line.leave("t1")
    line.task("t2", A)
    assert line.turn() == ["t2"]
    for name in ("e1", "t2", "e2", "e3"):
        line.leave(name)
    line.turn()
    line.assert_empty()


def test_T39_it_is_never_granted_in_the_call_that_asks(loop: Loop):
    line = Line(loop)
    line.extra("e1", A)
    assert line.granted == []
    assert line.turn() == ["e1"]


@pytest.mark.parametrize("first", ["task", "extra"])
def test_T39_a_task_that_can_begin_goes_first(first: str, loop: Loop):
    """Whoever asked first; and the other does not have to wait for somebody to leave."""
    line = Line(loop, max_per_host=4)
    line.task("t1", A)
    line.turn()
    asks = {"task": lambda: line.task("t2", A), "extra": lambda: line.extra("e1", A)}
    for name in (first, *(asks.keys() - {first})):
        asks[name]()
    assert line.turn() == ["t2", "e1"]


def test_T39_a_task_that_has_no_place_among_those_at_work_holds_nobody_up(loop: Loop):
    line = Line(loop, max_concurrent=1, max_per_host=4)
    line.task("t1", A)
    line.turn()
    line.task("t2", A)
    line.extra("e1", A)
    assert line.turn() == ["e1"]


def test_T39_when_one_leaves_a_task_takes_the_place_before_a_further_connection(loop: Loop):
    line = Line(loop, max_per_host=2)
    line.task("t1", A)
    line.extra("e1", A)
    line.turn()
    line.extra("e2", A)
    line.task("t2", A)
    assert line.turn() == []
    line.leave("e1")
    assert line.turn() == ["t2"]
    line.leave("t1")
    assert line.turn() == ["e2"]


def test_T39_a_place_that_another_host_frees_is_no_place_for_it(loop: Loop):
    line = Line(loop, max_per_host=1)
    line.task("t1", A)
    line.task("t2", B)
    line.extra("e1", A)
    assert line.turn() == ["t1", "t2"]
    line.leave("t2")
    assert line.turn() == []


@pytest.mark.parametrize("aborted", ["task", "extra"])
def test_T39_one_that_leaves_the_line_is_not_granted(aborted: str, loop: Loop):
    line = Line(loop, max_per_host=2)
    line.task("t1", A)
    line.extra("e1", A)
    line.turn()
    line.extra("e2", A)
    line.task("t2", A)
    line.leave("t2" if aborted == "task" else "e2")
    line.leave("t1")
    assert line.turn() == (["e2"] if aborted == "task" else ["t2"])


def test_T39_those_that_aborted_tasks_leave_behind_in_the_line(loop: Loop):
    """A task that waited for its place among all is aborted: what waits behind it need not wait for another release."""
    line = Line(loop, max_per_host=3)
    line.task("t1", A)
    line.turn()
    line.task("t2", A)
    line.extra("e1", A)
    line.leave("t2")
    assert line.turn() == ["e1"]


def test_S26_a_task_that_rejoins_keeps_its_place_in_the_line(loop: Loop):
    line = Line(loop, max_per_host=1)
    for name in ("t1", "t2", "t3"):
        line.task(name, A)
    assert line.turn() == ["t1"]
    line.again("t1", A)
    assert line.turn() == ["t1"]
    line.again("t1", B)
    assert line.turn() == ["t2", "t1"] or sorted(line.granted) == ["t1", "t2"]
    for name in ("t1", "t2"):
        line.leave(name)
    assert line.turn() == ["t3"]


def test_a_host_is_forgotten_when_nobody_needs_it(loop: Loop):
    """Also after further connections that were asked for and never made."""
    line, key = Line(loop, max_per_host=1), key_of("c.example")
    trust = weakref.ref(key.context)  # type: ignore[arg-type]
    line.task("t1", key)
    for name in ("e1", "e2"):
        line.extra(name, key)
    line.turn()
    for name in ("e1", "t1", "e2"):
        line.leave(name)
    line.turn()
    line.assert_empty()
    del key
    assert trust() is None


@pytest.mark.parametrize("kind", ["task", "extra"])
def test_one_that_gives_its_slot_back_at_once_and_asks_again(kind: str, loop: Loop):
    """In the very call that grants it: as one does whose work has been done meanwhile."""
    line = Line(loop, max_per_host=1)

    def granted() -> None:
        line.granted.append(name)
        if len(line.granted) < 3:
            line.leave(name)
            ask()

    def ask() -> None:
        line.slots[name] = (line.pool.submit if kind == "task" else line.pool.submit_extra)(A, granted)

    name = "again"
    ask()
    assert line.turn() == [name] * 3
    line.leave(name)
    line.assert_empty()


class Asked(NamedTuple):
    kind: str
    key: Key


@pytest.mark.parametrize("seed", range(40))
def test_T39_at_random(seed: int, loop: Loop):
    """The limits hold after each turn, and nobody waits who could have a slot."""
    draw = random.Random(seed)
    concurrent, per_host = draw.choice([1, 2, 4, 10]), draw.choice([1, 2, 3, 6])
    line = Line(loop, max_concurrent=concurrent, max_per_host=per_host)
    there: dict[str, Asked] = {}
    for number in range(120):
        if there and draw.random() < 0.45:
            name = draw.choice(sorted(there))
            if there[name].kind == "task" and line.slots[name].held and draw.random() < 0.3:
                there[name] = Asked("task", draw.choice([A, B]))
                line.again(name, there[name].key)
            else:
                line.leave(name)
                del there[name]
        else:
            name, asked = str(number), Asked(draw.choice(["task", "extra"]), draw.choice([A, B]))
            getattr(line, asked.kind)(name, asked.key)
            there[name] = asked
        if draw.random() < 0.6:
            line.turn()
            check(line, there, concurrent, per_host)
    for name in sorted(there):
        line.leave(name)
    line.turn()
    line.assert_empty()


def check(line: Line, there: dict[str, Asked], concurrent: int, per_host: int) -> None:
    held = {name for name in there if line.slots[name].held}
    tasks = sum(there[name].kind == "task" for name in held)
    hosts: Counter[Any] = Counter(there[name].key for name in held)
    assert tasks <= concurrent
    assert all(n <= per_host for n in hosts.values())
    for name in there.keys() - held:
        kind, key = there[name]
        room = hosts[key] < per_host
        assert not (room and kind == "task" and tasks < concurrent), f"task {name} could begin"
        assert not (room and kind == "extra"), f"extra {name} could begin: no task can take its place"
