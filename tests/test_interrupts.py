"""Ctrl-C while our own code is at work, in a callback of a program's, and with a handler of its own (K10, S9)."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

import rawdl
from rawdl import interrupts
from rawdl.interrupts import Interrupts
from tests import once
from tests.driving import in_thread
from tests.interruption import Interruption, ctrl_c
from tests.ordeals import ORDEALS, Ordeal
from tests.origin import Origin, Script
from tests.recorder import PATIENCE, Recorder
from tests.sim import World, http_peer
from tests.sim_tests.fetch import Fetch

pytestmark = pytest.mark.usefixtures("leaves_parts")  # what may be left is looked at here

BODY = bytes(range(256)) * 400
STRIDE = 131  # lines: with 1 it takes more than half an hour
SYNC = "fdatasync" if hasattr(os, "fdatasync") else "fsync"


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """SIGINT is Python's to handle before each test, though it may be ignored by whoever runs them, and after it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def in_our_work(code: CodeType) -> bool:
    """Whether it is none of a program's: the line that calls a callback belongs to that, which nobody protects."""
    return code.co_name not in ("shield", "__del__")


def twice() -> None:
    """Ctrl-C as the terminal sends it, and at once again as a program that runs us passes it on."""
    ctrl_c()
    ctrl_c()


@pytest.mark.parametrize("then", ["drive", "close"])
@pytest.mark.parametrize("ordeal", ORDEALS, ids=lambda ordeal: ordeal.name)
def test_K10_S9_ctrl_c_at_any_line_disturbs_nothing(ordeal: Ordeal, then: str, tmp_path: Path):
    """It leaves the wait, once; and whoever waits again sees what he would have seen."""
    folder = tmp_path / "folder"
    raised = 0

    def drive(task: rawdl.DownloadTask) -> None:
        nonlocal raised
        try:
            with interruption:
                task.exception()
        except KeyboardInterrupt:
            raised += 1
            if then == "drive":
                task.exception()

    for count, line in enumerate(itertools.count(random.Random(ordeal.name).randrange(STRIDE) + 1, STRIDE)):
        interruption = Interruption(line, ctrl_c if then == "drive" else twice, in_our_work)
        ordeal.prepare(folder)
        try:
            run = ordeal.run(folder, drive=drive)
            ordeal.check(folder)
        except AssertionError as exc:
            exc.add_note(f"interrupted at {interruption.where}, line {line}")
            raise
        if not interruption.where:
            break
        assert raised == count + 1, interruption.where
        assert then == "close" or isinstance(run.end, ordeal.ends), interruption.where
    assert raised > 10


def test_K10_ctrl_c_while_a_call_is_carried_out_leaves_that_call():
    """The call has been carried out, as for any function of C's."""
    with World() as world:
        world.listen("example.org", 80, http_peer(Script(body=BODY)))
        client = world.client()
        fetch = Fetch(client)
        client.run(0.03)
        with pytest.raises(KeyboardInterrupt), Interruption(1, ctrl_c, lambda code: code.co_name == "_let_go"):
            fetch.task.abort()
        assert fetch.task.state == "aborted"
        assert client.run() is False
        assert fetch.outcome == ["fail", "complete"]


def test_K10_S9_ctrl_c_in_a_callback_is_raised_there():
    """One that hangs must be left at once; the wait is left when our own state is consistent, and can go on."""
    with World() as world:
        world.listen("example.org", 80, http_peer(Script(body=BODY)))
        client = world.client()
        fetch = Fetch(client)
        seen: list[object] = []

        def hang(event: object) -> None:
            try:
                ctrl_c()
            except KeyboardInterrupt as exc:
                seen.append(exc)
                raise
            seen.append("not raised")

        fetch.react("headers", hang)
        with pytest.raises(KeyboardInterrupt) as caught:
            fetch.task.result()
        assert seen == [caught.value]
        assert fetch.task.result().data_length == len(BODY)


def test_K10_a_second_ctrl_c_is_raised_at_once(monkeypatch: pytest.MonkeyPatch):
    """A sink is called in the midst of our work, so that the first waits; if it hangs, the second ends that."""
    monkeypatch.setattr(interrupts, "_ONCE", 0)
    with World() as world:
        world.listen("example.org", 80, http_peer(Script(body=BODY)))
        client = world.client()
        went: list[str] = []

        def sink(data: memoryview) -> None:
            if not went:
                ctrl_c()
                went.append("after the first")
                ctrl_c()
                went.append("after the second")

        fetch = Fetch(client, sink=sink)
        with pytest.raises(KeyboardInterrupt):
            fetch.task.result()
        assert went == ["after the first"]
        assert client.run() is False
        assert fetch.outcome == ["fail", "complete"]


@pytest.mark.parametrize(
    ("call", "expected", "header"), [(SYNC, 1, (("ETag", '"a"'),)), ("unlink", 2, ())], ids=["kept", "removed"]
)
@pytest.mark.parametrize("times", [1, 2])
def test_K10_I8_a_second_ctrl_c_while_a_part_is_left(
    times: int,
    call: str,
    expected: int,
    header: tuple[tuple[str, str], ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """The program that catches it can download to that file again, in this client or another."""
    monkeypatch.setattr(interrupts, "_ONCE", 0)
    real, calls = getattr(os, call), 0

    def slow(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls <= times:
            ctrl_c()
            ctrl_c()
        return real(*args, **options)

    with World() as world:
        world.listen("example.org", 80, http_peer(Script(body=BODY, header=header, cut_at=50_000)))
        client = world.client()
        fetch = Fetch(client, file_path=tmp_path / "a")
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, call, slow)
            fetch.task.result()
        assert calls == expected, "a file that is removed is so once more; one that is kept waits for no disk again"
        assert client.run() is False
        assert isinstance(fetch.end, rawdl.IncompleteBody)
        for again in (client, world.client()):
            assert isinstance(Fetch(again, file_path=tmp_path / "a").task.exception(), rawdl.IncompleteBody)


def test_K10_ctrl_c_ends_the_wait_at_once(origin: Origin):
    """With a real selector, which goes on to wait after a signal; for so long that the task would fail."""
    url = origin.serve("/a", Script(body=BODY, stall_at=1000))
    with once.client() as client:
        fetch = Fetch(client, url, timeouts=rawdl.Timeouts(idle=2))
        fetch.react("headers", lambda event: signal.setitimer(signal.ITIMER_REAL, 0.05))
        before = signal.signal(signal.SIGALRM, lambda number, frame: ctrl_c())
        try:
            with pytest.raises(KeyboardInterrupt):
                fetch.task.result(PATIENCE)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert fetch.outcome == []


def test_K10_a_handler_of_the_program_is_left_alone():
    """It is called at once, wherever that is."""
    calls: list[str] = []
    mine = signal.signal(signal.SIGINT, lambda number, frame: calls.append("mine"))
    try:
        with World() as world:
            world.listen("example.org", 80, http_peer(Script(body=BODY)))
            client = world.client()
            fetch = Fetch(client)
            with Interruption(500, lambda: [ctrl_c(), calls.append("after")]):
                assert fetch.task.result().data_length == len(BODY)
        assert calls == ["mine", "after"]
    finally:
        signal.signal(signal.SIGINT, mine)


def test_K10_a_handler_that_a_callback_sets_stays():
    calls: list[int] = []
    with World() as world:
        world.listen("example.org", 80, http_peer(Script(body=BODY)))
        client = world.client()
        fetch = Fetch(client)

        def handle(number: int, frame: object) -> None:
            calls.append(number)

        fetch.react("headers", lambda event: signal.signal(signal.SIGINT, handle))
        fetch.task.result()
        ctrl_c()
        assert calls == [signal.SIGINT]
        assert signal.signal(signal.SIGINT, signal.default_int_handler) is handle


@pytest.mark.parametrize("where", [*range(20, 1000, 70), "in the inner's callback"])
def test_K10_a_client_that_is_driven_in_a_callback_of_another(where: int | str):
    """At a line of the inner's work, or in its callback."""
    with World() as world:
        world.listen("example.org", 80, http_peer(Script(body=BODY)))
        outer, inner = world.client(), world.client()
        first, second = Fetch(outer), Fetch(inner)
        went: list[str] = []

        def drive(event: object) -> None:
            try:
                if isinstance(where, int):
                    with Interruption(where, ctrl_c, in_our_work):
                        second.task.result()
                else:
                    second.react("headers", lambda event: ctrl_c())
                    second.task.result()
            except KeyboardInterrupt:
                went.append("inner")
                raise

        first.react("headers", drive)
        with pytest.raises(KeyboardInterrupt):
            first.task.result()
        assert went == ["inner"]
        for fetch in (second, first):
            assert fetch.task.result().data_length == len(BODY)


def test_K10_who_was_interrupted_as_he_gave_the_handler_back():
    """It stays where it is, and does as Python's does; the next time it is given back."""
    interrupts = Interrupts(lambda: None, lambda: 0.0)
    interrupts.defer()
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        ctrl_c()
    interrupts.defer()
    with pytest.raises(KeyboardInterrupt):
        ctrl_c()
    interrupts.allow()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_K10_another_thread_that_drives_leaves_ctrl_c_to_the_program(origin: Origin):
    seen: list[object] = []
    with once.client() as client:
        fetch = Fetch(client, origin.serve("/a", Script(body=BODY)))
        fetch.react("headers", lambda event: seen.append(signal.getsignal(signal.SIGINT)))
        in_thread(fetch.task.result, PATIENCE)()
    assert seen == [signal.default_int_handler]


def test_K10_ctrl_c_is_raised_in_the_main_thread_whoever_lets_go_meanwhile(origin: Origin):
    """Another thread, which has just carried out a call, is about to look whether there is something to raise."""
    let_go, noted = threading.Event(), threading.Event()

    def linger() -> None:
        if threading.current_thread() is not threading.main_thread():
            let_go.set()
            assert noted.wait(PATIENCE)

    def sink(data: memoryview) -> None:
        if not noted.is_set():
            ctrl_c()
            noted.set()
            join()

    with once.client() as client:
        other, fetch = Fetch(client, origin.serve("/a", Script(body=BODY))), Fetch(client, origin.url("/a"), sink=sink)
        client._driver.when_free.append(linger)
        join = in_thread(other.task.abort)
        assert let_go.wait(PATIENCE)
        with pytest.raises(KeyboardInterrupt):
            fetch.task.result(PATIENCE)
        assert noted.is_set()
        assert fetch.task.result(PATIENCE).data_length == len(BODY)


def test_K10_our_handler_put_back_by_the_program_does_not_heed_another_threads_work(origin: Origin):
    """It has found it in a callback, and restores what it has found: much later, when a thread of ours drives."""
    found: list[Any] = []
    at_work, go_on = threading.Event(), threading.Event()

    def sink(data: memoryview) -> None:
        at_work.set()
        assert go_on.wait(PATIENCE)

    with once.client() as client:
        first = Fetch(client, origin.serve("/a", Script(body=BODY)))
        first.react("headers", lambda event: found.append(signal.getsignal(signal.SIGINT)))
        first.task.result(PATIENCE)
        second = Fetch(client, origin.url("/a"), sink=sink)
        client.start()
        assert at_work.wait(PATIENCE)
        before = signal.signal(signal.SIGINT, found[0])
        try:
            with pytest.raises(KeyboardInterrupt):
                ctrl_c()
        finally:
            signal.signal(signal.SIGINT, before)
            go_on.set()
        assert second.task.result(PATIENCE).data_length == len(BODY)


def run_by_runner(main: Callable[[], object]) -> None:
    """What asyncio does is cancel the task, which aborts the download."""
    asyncio.run(main())  # type: ignore[arg-type]


def run_by_loop(main: Callable[[], object]) -> None:
    """No handler of asyncio's: KeyboardInterrupt leaves its loop from whatever runs, and so from our turn."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(main())  # type: ignore[arg-type]
    try:
        loop.run_until_complete(task)
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()


# In the work itself, and at each line of what goes on around it in a turn.
WHERE = [("_receive_head", 1), *(("turn", line) for line in range(1, 11))]


@pytest.mark.parametrize(("where", "line"), WHERE)
@pytest.mark.parametrize("run", [run_by_runner, run_by_loop])
def test_K10_S9_ctrl_c_in_our_work_on_an_asyncio_loop(
    run: Callable[[Callable[[], object]], None],
    where: str,
    line: int,
    origin: Origin,
    caplog: pytest.LogCaptureFixture,
):
    recorder = Recorder()
    url = origin.serve("/a", Script(body=BODY, stall_at=1000))

    async def main() -> None:
        with once.client() as client:
            await recorder.download(client, url=url, sink=rawdl.MemorySink())

    with (
        pytest.raises(KeyboardInterrupt),
        Interruption(line, ctrl_c, lambda code: code.co_name == where) as interruption,
    ):
        run(main)
    assert interruption.where
    assert recorder.outcome == ["fail", "complete"]
    assert isinstance(recorder.of("complete")[0], rawdl.Aborted)
    assert not caplog.records


def test_K10_between_our_turns_ctrl_c_is_no_concern_of_ours(origin: Origin):
    seen: list[object] = []
    url = origin.serve("/a", Script(body=BODY, stall_at=1000, stall_for=0.2))

    async def main() -> None:
        with once.client() as client:
            recorder = Recorder()
            task = recorder.download(client, url=url, sink=rawdl.MemorySink())

            def look() -> None:
                seen.append(signal.getsignal(signal.SIGINT))

            recorder.react("headers", lambda event: asyncio.get_running_loop().call_soon(look))
            await task

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    assert seen == [signal.default_int_handler]
