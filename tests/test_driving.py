"""Who drives a client, how, and what may be called from where (S1-S9)."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from types import CodeType

import pytest

import rawdl
from tests import once
from tests.driving import MODES, Drive, in_thread, spin
from tests.interruption import Interruption, interrupt
from tests.origin import Origin, Script
from tests.recorder import EVENTS, PATIENCE, Recorder
from tests.script import run_script
from tests.sim import Link, World, http_peer
from tests.sim_tests.fetch import Fetch

BODY = bytes(range(256)) * 400  # 100 KiB: several reads, and more than one progress event
WHOLE = Script(body=BODY)
STALLED = Script(body=BODY, stall_at=50_000)
CUT = Script(body=BODY, cut_at=50_000)

each_mode = pytest.mark.parametrize("drive", MODES.values(), ids=MODES.keys())


@pytest.fixture
def client() -> Iterator[rawdl.Client]:
    with once.client() as client:
        yield client


@contextmanager
def on_alarm(handler: Callable[[], object]) -> Iterator[None]:
    """Let a handler run in the main thread at each SIGALRM."""
    old = signal.signal(signal.SIGALRM, lambda number, frame: handler())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


# Each way to drive


@each_mode
def test_S1_S2_S3_each_mode_downloads(drive: Drive, client: rawdl.Client, origin: Origin, tmp_path: Path):
    recorder = Recorder()
    task = recorder.download(client, url=origin.serve("/a", WHOLE), file_path=tmp_path / "a", progress_interval=0)
    drive(client, task)
    assert task.done()
    assert (tmp_path / "a").read_bytes() == BODY
    assert recorder.names[0] == "headers"
    assert set(recorder.names[1:-2]) == {"progress"}
    assert recorder.names[-2:] == ["success", "complete"]


@each_mode
def test_S1_S2_S3_each_mode_ends_by_a_timer(drive: Drive, client: rawdl.Client, origin: Origin, tmp_path: Path):
    recorder = Recorder()
    url = origin.serve("/a", Script(head_delay=3600))
    task = recorder.download(client, url=url, file_path=tmp_path / "a", timeouts=rawdl.Timeouts(head=0.05))
    drive(client, task)
    error = task.exception()
    assert isinstance(error, rawdl.Timeout)
    assert error.phase == "head"
    assert recorder.names == ["fail", "complete"]


@each_mode
def test_S1_S3_each_mode_takes_the_answer_of_a_resolver_thread(drive: Drive, origin: Origin, tmp_path: Path):
    origin.serve("/a", WHOLE)
    with once.client(resolver=lambda host, port, family: ["127.0.0.1"]) as client:
        task = client.download_file(url=f"http://example.org:{origin.port}/a", file_path=tmp_path / "a")
        drive(client, task)
        assert task.result().data_length == len(BODY)


@each_mode
def test_S3_callbacks_run_in_the_thread_that_drives(drive: Drive, client: rawdl.Client, origin: Origin):
    threads: set[str] = set()
    recorder = Recorder()
    for name in EVENTS:
        recorder.react(name, lambda event: threads.add(threading.current_thread().name))
    task = recorder.download(client, url=origin.serve("/a", WHOLE), sink=rawdl.MemorySink())
    drive(client, task)
    assert threads == {"rawdl" if drive is MODES["start"] else threading.current_thread().name}


# Each way to drive, and each place to abort from


@each_mode
def test_T28_T31_abort_from_another_thread(drive: Drive, client: rawdl.Client, origin: Origin, tmp_path: Path):
    recorder = Recorder()
    task = recorder.download(client, url=origin.serve("/a", STALLED), file_path=tmp_path / "a")
    join = in_thread(lambda: (recorder.wait_for("progress"), task.abort()))
    drive(client, task)
    assert join() == (None, None)
    check_aborted(task, recorder, origin, tmp_path)


@each_mode
def test_T28_T31_abort_from_a_signal_handler(drive: Drive, client: rawdl.Client, origin: Origin, tmp_path: Path):
    recorder = Recorder()
    task = recorder.download(client, url=origin.serve("/a", STALLED), file_path=tmp_path / "a")

    def abort_later(event: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    recorder.react("progress", abort_later)
    with on_alarm(task.abort):
        drive(client, task)
    check_aborted(task, recorder, origin, tmp_path)


@each_mode
@pytest.mark.parametrize("where", ["headers", "progress"])
def test_T9_T20_T28_abort_inside_a_listener(
    where: str, drive: Drive, client: rawdl.Client, origin: Origin, tmp_path: Path
):
    recorder = Recorder()
    recorder.react(where, lambda event: task.abort())
    task = recorder.download(client, url=origin.serve("/a", STALLED), file_path=tmp_path / "a")
    drive(client, task)
    assert recorder.names.count(where) == 1
    assert ("progress" in recorder.names) == (where == "progress")
    check_aborted(task, recorder, origin, tmp_path)


@each_mode
@pytest.mark.parametrize("where", ["success", "complete"])
def test_T20_T29_abort_inside_a_callback_of_success_is_nothing(
    where: str, drive: Drive, client: rawdl.Client, origin: Origin, tmp_path: Path
):
    recorder = Recorder()
    recorder.react(where, lambda event: task.abort())
    task = recorder.download(client, url=origin.serve("/a", WHOLE), file_path=tmp_path / "a")
    drive(client, task)
    assert recorder.outcome == ["success", "complete"]
    assert task.state == "completed"
    assert task.result().data_length == len(BODY)
    assert (tmp_path / "a").read_bytes() == BODY


@each_mode
@pytest.mark.parametrize("where", ["fail", "complete"])
def test_T20_T29_abort_inside_a_callback_of_failure_is_nothing(
    where: str, drive: Drive, client: rawdl.Client, origin: Origin, tmp_path: Path
):
    recorder = Recorder()
    recorder.react(where, lambda event: task.abort())
    task = recorder.download(client, url=origin.serve("/a", CUT), file_path=tmp_path / "a")
    drive(client, task)
    assert recorder.outcome == ["fail", "complete"]
    assert task.state == "failed"
    assert isinstance(task.exception(), rawdl.IncompleteBody)


def check_aborted(task: rawdl.DownloadTask, recorder: Recorder, origin: Origin, folder: Path) -> None:
    assert recorder.outcome == ["fail", "complete"]
    assert recorder.names[-2:] == ["fail", "complete"]
    assert recorder.events[-2][1] is recorder.events[-1][1] is task.exception()
    assert recorder.events[-1][1].err_msg == "downloadFile:fail abort"
    with pytest.raises(rawdl.Aborted):
        task.result()
    assert task.state == "aborted"
    assert list(folder.iterdir()) == []
    origin.wait_closed()


# S1: nested in a foreign loop


def test_S1_next_deadline_is_none_while_nothing_is_timed(client: rawdl.Client):
    client.step(0)
    assert client.next_deadline() is None


def test_S1_next_deadline_is_absolute_in_the_clients_clock(origin: Origin):
    now = 1000.0
    only_head = rawdl.Timeouts(head=77, connect=None, send=None)
    with once.client(clock=lambda: now, timeouts=only_head) as client:
        task = client.download_file(url=origin.serve("/a", Script(head_delay=3600)), sink=rawdl.DiscardSink())
        deadline = client.next_deadline()
        assert deadline is not None and deadline <= now, "there is a task to begin with"
        origin_has_it = in_thread(origin.wait_request)
        while client.step(0) and client.next_deadline() != now + 77:
            assert task.state in ("queued", "connecting", "waiting")
        origin_has_it()
        now += 77
        client.step(0)
        assert isinstance(task.exception(0), rawdl.Timeout)


@pytest.mark.parametrize("call", ["download_file", "abort", "on_headers_received"])
def test_S1_after_a_call_from_any_thread_the_descriptor_is_readable(call: str, client: rawdl.Client, origin: Origin):
    recorder = Recorder()
    fd = client.fileno()
    url = origin.serve("/a", STALLED)
    task = recorder.download(client, url=url, sink=rawdl.DiscardSink())
    spin(client, lambda: "progress" in recorder.names)
    assert not readable(fd), "a stalled task needs no step"
    calls: dict[str, Callable[[], object]] = {
        "download_file": lambda: client.download_file(url=url, sink=rawdl.DiscardSink()),
        "abort": task.abort,
        "on_headers_received": lambda: task.on_headers_received(print),
    }
    in_thread(calls[call])()
    assert readable(fd)
    client.step(0)


def test_S1_next_deadline_in_one_thread_while_another_sets_a_timer(client: rawdl.Client):
    asked: list[float | None] = []

    class Moment(float):
        def __lt__(self, other: float) -> bool:
            if threading.current_thread() is threading.main_thread() and not asked:
                asked.append(in_thread(client.next_deadline)())
            return float(self) < other

    loop = client._loop
    loop.call_at(1.0, print).cancel()
    loop.call_at(5.0, print)
    client._driver.hand(lambda: [loop.call_at(Moment(2.0), print), None][1])
    assert asked == [2.0]
    assert client.next_deadline() == 2.0


def test_T34_many_pauses_are_not_as_many_reads(client: rawdl.Client, origin: Origin):
    url = origin.serve("/a", Script(body=bytes(1 << 22)))
    task = client.download_file(url=url, sink=rawdl.DiscardSink(), rate_limit=1 << 20)
    while not task.progress.total_bytes_written:
        client.step(1)
    before = len(client._loop._ready)
    for _ in range(100):
        task.pause()
        task.resume()
    assert len(client._loop._ready) <= before + 1
    task.abort()


def test_S1_T36_resume_in_another_thread_tells_a_foreign_loop_of_the_total_limit(client: rawdl.Client, origin: Origin):
    retry = rawdl.Retry(backoff=3600, max_delay=3600, jitter="none")
    fd = client.fileno()
    task = client.download_file(
        url=origin.serve("/a", Script(status=503)), sink=rawdl.DiscardSink(), retry=retry, timeout=1800
    )
    spin(client, lambda: (client.next_deadline() or 0) > time.monotonic() + 1000)
    task.pause()
    while readable(fd):
        client.step(0)
    in_thread(task.resume)()
    assert readable(fd)


def test_S1_close_in_another_thread_ends_a_foreign_loops_wait(client: rawdl.Client, origin: Origin):
    task = client.download_file(url=origin.serve("/a", STALLED), sink=rawdl.DiscardSink())
    spin(client, lambda: task.progress.total_bytes_written > 0)
    in_thread(client.close)()
    assert task.done()
    assert task.state == "aborted"


def test_S1_a_foreign_loop_is_not_kept_busy(client: rawdl.Client, origin: Origin):
    fd = client.fileno()
    task = client.download_file(url=origin.serve("/a", STALLED), sink=rawdl.DiscardSink())
    turns, end = 0, time.monotonic() + 0.3
    while (deadline := client.next_deadline()) is not None and time.monotonic() < end:
        select.select([fd], [], [], max(0.0, min(deadline, end) - time.monotonic()))
        if readable(fd) or time.monotonic() >= deadline:
            client.step(0)
            turns += 1
    assert task.progress.total_bytes_written > 0
    assert turns < 30


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


# S2: step and run


def test_S2_step_says_whether_work_is_left(client: rawdl.Client, origin: Origin):
    assert client.step(0) is False
    task = client.download_file(url=origin.serve("/a", WHOLE), sink=rawdl.DiscardSink())
    assert client.step(0) is True
    while client.step(0.1):
        assert not task.done()
    assert task.done()


def test_S2_step_without_a_limit_waits_until_something_happens(client: rawdl.Client, origin: Origin):
    task = client.download_file(url=origin.serve("/a", WHOLE), sink=rawdl.DiscardSink())
    turns = 0
    while client.step(None):
        turns += 1
    assert task.done()
    assert turns < 100


def test_S2_run_says_whether_work_is_left(client: rawdl.Client, origin: Origin):
    task = client.download_file(url=origin.serve("/a", STALLED), sink=rawdl.DiscardSink())
    assert client.run(0.05) is True
    assert task.progress.total_bytes_written > 0
    task.abort()
    assert client.run(PATIENCE) is False
    assert task.done()


def test_S7_run_runs_pending_callbacks(client: rawdl.Client, origin: Origin):
    task = client.download_file(url=origin.serve("/a", WHOLE), sink=rawdl.DiscardSink())
    task.result()
    heard: list[object] = []
    task.on_headers_received(heard.append)
    assert client.run(PATIENCE) is False
    assert len(heard) == 1


@pytest.mark.parametrize("where", EVENTS)
def test_S2_S3_driving_inside_a_callback_is_refused(where: str, client: rawdl.Client, origin: Origin):
    other = client.download_file(url=origin.serve("/b", STALLED), sink=rawdl.DiscardSink())
    refusals: list[str] = []
    recorder = Recorder()
    for call in (other.result, other.exception, client.run, client.step, lambda: client.step(0.01)):
        recorder.react(where, lambda event, call=call: refusals.append(refusal(call)))
    script = CUT if where == "fail" else WHOLE
    recorder.download(client, url=origin.serve("/a", script), sink=rawdl.DiscardSink()).exception()
    assert refusals and all("callback" in each for each in refusals)
    assert len(refusals) == 5 * recorder.names.count(where)
    assert not other.done()


def refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except RuntimeError as exc:
        return str(exc)
    return "was not refused"


@pytest.mark.parametrize("where", ["success", "complete"])
def test_S3_S8_result_inside_its_own_settlement_is_there(where: str, client: rawdl.Client, origin: Origin):
    results: list[object] = []
    recorder = Recorder()
    recorder.react(where, lambda event: results.append(task.result()))
    task = recorder.download(client, url=origin.serve("/a", WHOLE), sink=rawdl.DiscardSink())
    task.exception()
    assert recorder.of(where) == results == [task.result()]


def test_S3_result_in_a_coroutine_on_the_driving_loop_is_refused(client: rawdl.Client, origin: Origin):
    other = client.download_file(url=origin.serve("/b", STALLED), sink=rawdl.DiscardSink())
    url = origin.serve("/a", Script(body=BODY, head_delay=0.2))
    first = client.download_file(url=url, sink=rawdl.DiscardSink())

    async def main() -> list[str]:
        waiting = asyncio.ensure_future(awaiting(first))
        while other.state != "receiving" and not waiting.done():
            await asyncio.sleep(0.005)
        refusals = [refusal(call) for call in (other.result, other.exception, client.run, client.step)]
        await waiting
        return refusals

    assert all("wait for itself" in each for each in asyncio.run(main()))
    assert first.done()


async def awaiting(task: rawdl.DownloadTask) -> rawdl.DownloadResult:
    return await task


def test_S2_step_is_refused_while_another_thread_drives(client: rawdl.Client):
    client.start()
    with pytest.raises(RuntimeError, match="thread"):
        for _ in range(10_000):  # until the thread has got the wheel
            client.step(0)
            time.sleep(0.001)


# S3, S4: several threads


def test_S3_several_threads_wait_and_the_wheel_is_handed_over(client: rawdl.Client, origin: Origin):
    """Each of the five ends at another time, so that the driver leaves while others still wait."""
    url = origin.serve("*", lambda request: Script(body=BODY, head_delay=float(request.path[1:]) / 50))
    tasks = [client.download_file(url=f"{url}{n}", sink=rawdl.MemorySink()) for n in range(5)]
    joins = [in_thread(task.result, PATIENCE) for task in tasks]
    joins += [in_thread(tasks[4].exception, PATIENCE), in_thread(client.run, PATIENCE)]
    results = [join() for join in joins]
    assert [result.data_length for result in results[:5]] == [len(BODY)] * 5
    assert results[5:] == [None, False]


def test_S3_many_threads_wait_for_one_task(client: rawdl.Client, origin: Origin):
    task = client.download_file(url=origin.serve("/a", Script(body=BODY, head_delay=0.05)), sink=rawdl.MemorySink())
    joins = [in_thread(task.result, PATIENCE) for _ in range(8)]
    assert {id(join()) for join in joins} == {id(task.result())}


def test_S3_the_driver_is_interrupted_and_another_takes_over(client: rawdl.Client, origin: Origin):
    """The driver's wait runs out; the one who waited beside it goes on to the end."""
    task = client.download_file(url=origin.serve("/a", Script(body=BODY, head_delay=0.2)), sink=rawdl.MemorySink())
    impatient = in_thread(task.exception, 0.05)
    time.sleep(0.01)
    patient = in_thread(task.exception, PATIENCE)
    with pytest.raises(TimeoutError):
        impatient()
    assert patient() is None


def test_S3_threads_make_tasks_and_wait_at_once(client: rawdl.Client, origin: Origin):
    url = origin.serve("/a", Script(body=b"x" * 100))

    def work() -> int:
        return sum(client.download_file(url=url, sink=rawdl.MemorySink()).result().data_length for _ in range(20))

    assert [join() for join in [in_thread(work) for _ in range(4)]] == [2000] * 4
    assert len(origin.requests) == 80


@pytest.mark.parametrize("drive", [MODES["start"], MODES["await"]], ids=["start", "await"])
def test_S3_result_waits_while_start_or_asyncio_drives(drive: Drive, client: rawdl.Client, origin: Origin):
    url = origin.serve("/a", Script(body=BODY, head_delay=0.1))
    first = client.download_file(url=url, sink=rawdl.MemorySink())
    second = client.download_file(url=url, sink=rawdl.MemorySink())
    driving = in_thread(drive, client, first)
    time.sleep(0.02)
    assert second.result(PATIENCE).data_length == len(BODY)
    driving()


@pytest.mark.parametrize("longer", ["thread", "asyncio"])
def test_S3_the_wheel_goes_between_a_thread_and_asyncio(longer: str, client: rawdl.Client, origin: Origin):
    """Whoever has begun to drive leaves first, and the other goes on."""
    short = client.download_file(url=origin.serve("/a", Script(body=BODY, head_delay=0.05)), sink=rawdl.MemorySink())
    long = client.download_file(url=origin.serve("/b", Script(body=BODY, head_delay=0.2)), sink=rawdl.MemorySink())

    async def main(task: rawdl.DownloadTask) -> int:
        async with asyncio.timeout(PATIENCE):
            return (await task).data_length

    run = partial(asyncio.run, debug=True)
    if longer == "thread":
        awaited = in_thread(lambda: run(main(short)))
        time.sleep(0.02)
        assert long.result(PATIENCE).data_length == awaited() == len(BODY)
    else:
        waited = in_thread(short.result, PATIENCE)
        time.sleep(0.02)
        assert run(main(long)) == waited().data_length == len(BODY)


def test_S4_the_wait_runs_out_and_the_download_goes_on(client: rawdl.Client, origin: Origin):
    task = client.download_file(url=origin.serve("/a", Script(body=BODY, head_delay=0.1)), sink=rawdl.MemorySink())
    for wait in (task.result, task.exception):
        with pytest.raises(TimeoutError) as caught:
            wait(0.01)
        assert not isinstance(caught.value, rawdl.DownloadError)
        assert not task.done()
    assert task.exception(PATIENCE) is None
    assert task.result(0).data_length == len(BODY)


@pytest.mark.parametrize("seconds", [1e7, 1e10, 1e308])
@pytest.mark.parametrize("driven", [False, True])
def test_S4_a_limit_that_is_longer_than_any_wait(seconds: float, driven: bool, client: rawdl.Client, origin: Origin):
    if driven:
        client.start()
    limits = rawdl.Timeouts(resolve=None, connect=None, tls=None, send=None, head=None, idle=None, total=seconds)
    url = origin.serve("/a", Script(body=BODY, head_delay=0.05))
    task = client.download_file(url=url, sink=rawdl.MemorySink(), timeouts=limits)
    assert task.result(seconds).data_length == len(BODY)


def test_S4_result_raises_and_exception_returns_the_same_error(client: rawdl.Client, origin: Origin):
    task = client.download_file(url=origin.serve("/a", CUT), sink=rawdl.MemorySink())
    error = task.exception()
    for _ in range(2):
        with pytest.raises(rawdl.IncompleteBody) as caught:
            task.result()
        assert caught.value is error


def test_S4_result_of_zero_seconds_does_not_wait(client: rawdl.Client, origin: Origin):
    task = client.download_file(url=origin.serve("/a", STALLED), sink=rawdl.MemorySink())
    with pytest.raises(TimeoutError):
        task.result(0)
    task.abort()
    task.exception()


@pytest.mark.parametrize("mode", ["results", "start", "asyncio"])
def test_S3_T21_T33_a_crowd_of_threads_and_tasks(mode: str, origin: Origin, tmp_path: Path):
    """Threads make, await and abort tasks of one client at random; every task ends once, and as it was said."""
    url = origin.serve("/a", Script(body=BODY, chunk=20_000))
    recorders: list[tuple[Recorder, rawdl.DownloadTask]] = []

    def work(seed: int) -> None:
        random = Random(seed)
        for number in range(25):
            recorder = Recorder()
            path = tmp_path / f"{seed}-{number}"
            task = recorder.download(client, url=url, file_path=path)
            recorders.append((recorder, task))
            if random.random() < 0.5:
                time.sleep(random.choice([0, 0, 0.001, 0.003]))
                task.abort()
            if random.random() < 0.7:
                task.exception(PATIENCE)

    async def main(threads: list[Callable[[], object]]) -> None:
        tasks = [client.download_file(url=url, sink=rawdl.MemorySink()) for _ in range(20)]
        for task in tasks:
            await task
        await asyncio.to_thread(lambda: [join() for join in threads])

    with once.client(max_concurrent=8) as client:
        if mode == "start":
            client.start()
        joins = [in_thread(work, seed) for seed in range(4)]
        if mode == "asyncio":
            asyncio.run(main(joins))
        for join in joins:
            join()
        assert client.run(PATIENCE) is False
    for recorder, task in recorders:
        aborted = task.exception() is not None
        assert recorder.outcome == (["fail", "complete"] if aborted else ["success", "complete"])
        # The header listener may have come so late that it was told behind the end (T8).
        assert set(recorder.names[recorder.names.index("complete") + 1 :]) <= {"headers"}
        assert str(task.state) == ("aborted" if aborted else "completed")
    done = [task for _, task in recorders if task.exception() is None]
    assert len(list(tmp_path.iterdir())) == len(done) > 20
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {len(BODY)}


# S5: asyncio


def test_S5_await_returns_the_result_or_raises_the_error(client: rawdl.Client, origin: Origin):
    good = client.download_file(url=origin.serve("/a", WHOLE), sink=rawdl.MemorySink())
    bad = client.download_file(url=origin.serve("/b", CUT), sink=rawdl.MemorySink())

    async def main() -> tuple[object, object]:
        return tuple(await asyncio.gather(awaiting(good), awaiting(bad), return_exceptions=True))

    assert asyncio.run(main()) == (good.result(), bad.exception())


def test_S5_awaiting_a_settled_task_again(client: rawdl.Client, origin: Origin):
    task = client.download_file(url=origin.serve("/a", WHOLE), sink=rawdl.MemorySink())

    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            assert await task is await task

    asyncio.run(main())
    asyncio.run(main())


def test_S5_awaiting_a_settled_task_of_a_closed_client(client: rawdl.Client, origin: Origin):
    task = client.download_file(url=origin.serve("/a", WHOLE), sink=rawdl.MemorySink())
    result = task.result()
    client.close()

    async def main() -> object:
        async with asyncio.timeout(2):
            return await task

    assert asyncio.run(main()) is result


def test_S5_many_tasks_in_one_loop(client: rawdl.Client, origin: Origin):
    url = origin.serve("/a", Script(body=BODY))

    async def main() -> list[rawdl.DownloadResult]:
        tasks = [client.download_file(url=url, sink=rawdl.MemorySink()) for _ in range(30)]
        return await asyncio.gather(*map(awaiting, tasks))

    assert {result.data_length for result in asyncio.run(main())} == {len(BODY)}


def test_S5_the_asyncio_loop_goes_on_while_a_download_runs(client: rawdl.Client, origin: Origin):
    task = client.download_file(url=origin.serve("/a", Script(body=BODY, head_delay=0.1)), sink=rawdl.MemorySink())

    async def main() -> int:
        waiting = asyncio.ensure_future(awaiting(task))
        ticks = 0
        while not waiting.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return ticks

    assert asyncio.run(main()) > 3


def test_S5_a_cancelled_await_aborts(client: rawdl.Client, origin: Origin, tmp_path: Path):
    recorder = Recorder()
    task = recorder.download(client, url=origin.serve("/a", STALLED), file_path=tmp_path / "a")

    async def main() -> None:
        waiting = asyncio.ensure_future(awaiting(task))
        while "progress" not in recorder.names:
            await asyncio.sleep(0.005)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    assert task.state == "aborted"
    assert list(tmp_path.iterdir()) == []
    origin.wait_closed()
    client.run(PATIENCE)
    assert recorder.outcome == ["fail", "complete"]


def test_S5_shield_keeps_the_download(client: rawdl.Client, origin: Origin):
    task = client.download_file(url=origin.serve("/a", Script(body=BODY, head_delay=0.1)), sink=rawdl.MemorySink())

    async def main() -> object:
        shielded = asyncio.ensure_future(awaiting(task))
        outer = asyncio.shield(shielded)
        await asyncio.sleep(0.02)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        return await shielded

    assert asyncio.run(main()) is task.result()


def test_S5_wait_for_times_out_and_aborts(client: rawdl.Client, origin: Origin):
    task = client.download_file(url=origin.serve("/a", STALLED), sink=rawdl.MemorySink())

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(awaiting(task), 0.05)

    asyncio.run(main())
    assert task.state == "aborted"
    origin.wait_closed()


def test_S5_abort_beside_an_await_raises_aborted_there(client: rawdl.Client, origin: Origin):
    task = client.download_file(url=origin.serve("/a", STALLED), sink=rawdl.MemorySink())

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.02, task.abort)
        with pytest.raises(rawdl.Aborted):
            async with asyncio.timeout(PATIENCE):
                await task

    asyncio.run(main())


def test_S5_two_asyncio_loops_in_two_threads_await_tasks_of_one_client(client: rawdl.Client, origin: Origin):
    url = origin.serve("*", lambda request: Script(body=BODY, head_delay=float(request.path[1:]) / 20))
    tasks = [client.download_file(url=f"{url}{n}", sink=rawdl.MemorySink()) for n in range(4)]

    async def main(some: list[rawdl.DownloadTask]) -> list[int]:
        async with asyncio.timeout(PATIENCE):
            return [result.data_length for result in await asyncio.gather(*map(awaiting, some))]

    joins = [in_thread(lambda some=some: asyncio.run(main(some))) for some in (tasks[::2], tasks[1::2])]
    assert [join() for join in joins] == [[len(BODY)] * 2] * 2


@pytest.mark.parametrize("where", ["here", "in a thread"])
def test_S3_S5_an_asyncio_loop_that_is_closed_during_an_await_drives_no_longer(
    where: str, client: rawdl.Client, origin: Origin
):
    task = client.download_file(url=origin.serve("/a", STALLED), sink=rawdl.DiscardSink())
    other = client.download_file(url=origin.serve("/b", WHOLE), sink=rawdl.DiscardSink())

    def begin() -> asyncio.Task[rawdl.DownloadResult]:
        loop = asyncio.new_event_loop()
        waiting = loop.create_task(awaiting(task))
        waiting._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        return waiting

    waiting = begin() if where == "here" else in_thread(begin)()
    assert asyncio.run(awaiting(other)).data_length == len(BODY)
    assert client.step(0)
    task.abort()
    with pytest.raises(rawdl.Aborted):
        task.result(PATIENCE)
    assert not waiting.done()
    client.close()
    with suppress(RuntimeError):  # what asyncio says of its own closed loop
        waiting.get_coro().close()


def test_S5_close_in_a_coroutine_ends_the_awaits(client: rawdl.Client, origin: Origin):
    task = client.download_file(url=origin.serve("/a", STALLED), sink=rawdl.MemorySink())

    async def main() -> None:
        waiting = asyncio.ensure_future(awaiting(task))
        while task.progress.total_bytes_written == 0:
            await asyncio.sleep(0.005)
        client.close()
        assert task.done()
        with pytest.raises(rawdl.Aborted):
            async with asyncio.timeout(PATIENCE):
                await waiting

    asyncio.run(main())


# S6: the end of a client


def test_S6_close_is_idempotent_and_ends_all(client: rawdl.Client, origin: Origin, tmp_path: Path):
    recorders = [Recorder() for _ in range(3)]
    url = origin.serve("/a", STALLED)
    for number, recorder in enumerate(recorders):
        recorder.download(client, url=url, file_path=tmp_path / str(number))
    spin(client, lambda: all("progress" in recorder.names for recorder in recorders))
    client.close()
    assert [recorder.outcome for recorder in recorders] == [["fail", "complete"]] * 3
    client.close()
    origin.wait_closed(3)
    assert list(tmp_path.iterdir()) == []
    for call in (client.run, client.step, client.start, client.fileno, client.next_deadline):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    with pytest.raises(RuntimeError, match="closed"):
        client.download_file(url=url)


@pytest.mark.parametrize("where", EVENTS)
@each_mode
def test_S6_close_in_a_listener_takes_effect_after_the_dispatch(where: str, drive: Drive, origin: Origin):
    """Whoever drives leaves as soon as his task has ended; the client is closed all the same, with its other tasks."""
    with once.client() as client:
        other = Recorder()
        other.download(client, url=origin.serve("/b", STALLED), sink=rawdl.MemorySink())
        spin(client, lambda: "progress" in other.names)
        recorder = Recorder()
        recorder.react(where, lambda event: client.close())
        script = {"fail": CUT, "headers": STALLED, "progress": STALLED}.get(where, WHOLE)
        task = recorder.download(client, url=origin.serve("/a", script), sink=rawdl.MemorySink())
        try:
            drive(client, task)
        except RuntimeError as exc:
            assert "closed" in str(exc)  # a foreign loop asks once more, and learns it
    assert recorder.outcome == ["success" if where in ("success", "complete") else "fail", "complete"]
    assert other.outcome == ["fail", "complete"]
    origin.wait_closed(2)


def test_S6_close_in_another_thread_while_one_drives(client: rawdl.Client, origin: Origin):
    recorder = Recorder()
    task = recorder.download(client, url=origin.serve("/a", STALLED), sink=rawdl.MemorySink())
    join = in_thread(task.exception, PATIENCE)
    recorder.wait_for("progress")
    client.close()
    assert recorder.outcome == ["fail", "complete"]
    assert isinstance(join(), rawdl.Aborted)


def test_S6_close_while_start_drives_joins_its_thread(client: rawdl.Client, origin: Origin):
    client.start()
    task = client.download_file(url=origin.serve("/a", STALLED), sink=rawdl.MemorySink())
    client.close()
    assert isinstance(task.exception(), rawdl.Aborted)
    assert "rawdl" not in {thread.name for thread in threading.enumerate()}


def test_S6_close_in_a_signal_handler(client: rawdl.Client, origin: Origin):
    recorder = Recorder()
    task = recorder.download(client, url=origin.serve("/a", STALLED), sink=rawdl.MemorySink())
    recorder.react("progress", lambda event: signal.setitimer(signal.ITIMER_REAL, 0.01))
    with on_alarm(client.close):
        assert isinstance(task.exception(PATIENCE), rawdl.Aborted)
    assert recorder.outcome == ["fail", "complete"]


def test_S6_a_client_that_is_never_closed_is_finalised_in_silence(origin: Origin):
    origin.serve("/a", STALLED)
    script = """
        import gc, sys, rawdl
        client = rawdl.Client()
        task = client.download_file(url=sys.argv[1], sink=rawdl.MemorySink())
        while not task.progress.total_bytes_written:
            client.step(None)
        del client, task
        gc.collect()
        print("collected")
        sys.stdin.readline()
    """
    assert run_script(script, origin.url("/a")) == "collected\n"
    origin.wait_closed()


@pytest.mark.parametrize("how", ["run", "start"])
def test_T27_K13_a_task_that_nobody_awaits_makes_no_noise_at_exit(how: str, origin: Origin):
    origin.serve("/a", STALLED)
    script = """
        import sys, rawdl
        task = rawdl.download_file(url=sys.argv[1])
        failed = rawdl.download_file(url="http://127.0.0.1:1/")
        client = rawdl.Client()
        other = client.download_file(url=sys.argv[1], sink=rawdl.MemorySink())
        if sys.argv[2] == "start":
            client.start()
            while not other.progress.total_bytes_written:
                pass
        else:
            client.run(0.05)
    """
    assert run_script(script, origin.url("/a"), how) == ""


def test_S6_a_task_keeps_its_client(origin: Origin):
    script = """
        import gc, sys, rawdl
        task = rawdl.Client().download_file(url=sys.argv[1], sink=rawdl.MemorySink())
        gc.collect()
        print(task.result().data_length)
        del task
        gc.collect()
    """
    assert run_script(script, origin.serve("/a", WHOLE)) == f"{len(BODY)}\n"


# S7: the thread of start()


def test_S7_start_is_idempotent_and_its_thread_a_daemon(client: rawdl.Client, origin: Origin):
    client.start()
    client.start()
    threads = [thread for thread in threading.enumerate() if thread.name == "rawdl"]
    assert [thread.daemon for thread in threads] == [True]
    task = client.download_file(url=origin.serve("/a", WHOLE), sink=rawdl.MemorySink())
    assert task.result(PATIENCE).data_length == len(BODY)


def test_S6_S7_close_after_the_system_had_no_thread_to_start(monkeypatch: pytest.MonkeyPatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with once.client() as client:
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="can't start"):
            patch.setattr(threading.Thread, "start", refuse)
            client.start()
        client.close()


def test_S7_start_takes_over_what_was_begun_before(client: rawdl.Client, origin: Origin):
    task = client.download_file(url=origin.serve("/a", Script(body=BODY, head_delay=0.05)), sink=rawdl.MemorySink())
    client.run(0.01)
    client.start()
    assert task.result(PATIENCE).data_length == len(BODY)


# S8: settlement


@pytest.mark.parametrize("script", [WHOLE, CUT], ids=["success", "fail"])
def test_S8_settlement_is_one_act(script: Script, client: rawdl.Client, origin: Origin):
    seen: list[tuple[str, bool, str]] = []
    recorder = Recorder()
    for name in ("success", "fail", "complete"):
        recorder.react(name, lambda event, name=name: seen.append((name, task.done(), str(task.state))))
    task = recorder.download(client, url=origin.serve("/a", script), sink=rawdl.MemorySink())
    while client.step(None):
        assert not task.done()
    first, state = ("success", "completed") if script is WHOLE else ("fail", "failed")
    assert seen == [(first, True, state), ("complete", True, state)]


def test_S8_S34_an_abort_that_nobody_drives(client: rawdl.Client, origin: Origin, tmp_path: Path):
    recorder = Recorder()
    task = recorder.download(client, url=origin.serve("/a", STALLED), file_path=tmp_path / "a")
    spin(client, lambda: "progress" in recorder.names)
    in_thread(task.abort)()
    origin.wait_closed()
    assert task.state == "aborted"
    assert not task.done()
    assert recorder.outcome == []
    assert client.step(0) is False
    assert task.done()
    assert recorder.outcome == ["fail", "complete"]


# S9: KeyboardInterrupt and SystemExit

SYNCHRONOUS = {name: MODES[name] for name in ("result", "run", "step", "select", "epoll", "add_reader")}


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", EVENTS)
@pytest.mark.parametrize("drive", SYNCHRONOUS.values(), ids=SYNCHRONOUS.keys())
def test_S9_an_interrupt_in_a_listener_leaves_and_the_task_goes_on(
    kind: type[BaseException], where: str, drive: Drive, client: rawdl.Client, origin: Origin
):
    recorder = Recorder()
    recorder.react(where, raising_once(kind))
    script = CUT if where == "fail" else WHOLE
    task = recorder.download(client, url=origin.serve("/a", script), sink=rawdl.MemorySink())
    with pytest.raises(kind):
        drive(client, task)
    error = task.exception(PATIENCE)
    assert isinstance(error, rawdl.IncompleteBody) if where == "fail" else error is None
    assert recorder.outcome == ["fail" if where == "fail" else "success", "complete"]
    assert recorder.names.count("headers") == 1


def test_S9_under_start_it_goes_to_the_excepthook_and_the_thread_ends(
    client: rawdl.Client, origin: Origin, monkeypatch: pytest.MonkeyPatch
):
    caught: list[object] = []
    started = threading.Event()

    def hook(hooked: threading.ExceptHookArgs) -> None:
        caught.append(hooked.exc_type)
        started.wait(PATIENCE)

    monkeypatch.setattr(threading, "excepthook", hook)
    recorder = Recorder()
    recorder.react("headers", raising_once(KeyboardInterrupt))
    client.start()
    task = recorder.download(client, url=origin.serve("/a", WHOLE), sink=rawdl.MemorySink())
    recorder.wait_for("headers")
    assert task.result(PATIENCE).data_length == len(BODY)  # driven here, now
    client.start()  # though the thread that has ended is still there
    second = Recorder()
    second.download(client, url=origin.url("/a"), sink=rawdl.MemorySink())
    second.wait_for("complete")
    started.set()
    assert caught == [KeyboardInterrupt]


def test_S9_under_asyncio_it_goes_to_the_loops_exception_handler(client: rawdl.Client, origin: Origin):
    recorder = Recorder()
    recorder.react("headers", raising_once(KeyboardInterrupt))
    task = recorder.download(client, url=origin.serve("/a", WHOLE), sink=rawdl.MemorySink())
    caught: list[object] = []

    async def main() -> object:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: caught.append(context["exception"]))
        return await task

    assert asyncio.run(main()) is task.result()
    assert [type(exc) for exc in caught] == [KeyboardInterrupt]


def test_T19_any_other_exception_goes_to_logging_only(
    client: rawdl.Client, origin: Origin, caplog: pytest.LogCaptureFixture
):
    recorder = Recorder()
    recorder.react("headers", raising_once(ZeroDivisionError))
    task = recorder.download(client, url=origin.serve("/a", WHOLE), sink=rawdl.MemorySink())
    with caplog.at_level(logging.ERROR, "rawdl"):
        task.result()
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]


@pytest.mark.parametrize("where", ["headers", "progress", "success", "complete"])
def test_T19_a_log_handler_that_raises_hurts_nobody_either(where: str, client: rawdl.Client, origin: Origin):
    recorder = Recorder()
    recorder.react(where, raising_once(ZeroDivisionError))
    task = recorder.download(client, url=origin.serve("/a", WHOLE), sink=rawdl.MemorySink())
    with logged_by(raising_once(ValueError)) as records:
        assert client.run(PATIENCE) is False
    assert [record.exc_info[0] for record in records if record.exc_info] == [ZeroDivisionError]
    assert recorder.outcome == ["success", "complete"]
    assert task.result().data_length == len(BODY)


def test_S8_a_log_handler_that_raises_does_not_keep_the_end_back(client: rawdl.Client, origin: Origin):
    recorder = Recorder()
    url = origin.serve("/a", Script(raw=Script(body=b"hello").wire + b"surplus"))
    task = recorder.download(client, url=url, sink=rawdl.MemorySink())
    with logged_by(raising_once(ValueError)) as records:
        assert client.run(PATIENCE) is False
    assert len(records) == 1
    assert recorder.outcome == ["success", "complete"]
    assert task.result().surplus == 7


def test_S9_an_interrupt_in_a_log_handler_leaves_and_the_task_goes_on(client: rawdl.Client, origin: Origin):
    recorder = Recorder()
    recorder.react("headers", raising_once(ZeroDivisionError))
    task = recorder.download(client, url=origin.serve("/a", WHOLE), sink=rawdl.MemorySink())
    with logged_by(raising_once(KeyboardInterrupt)), pytest.raises(KeyboardInterrupt):
        task.result(PATIENCE)
    assert task.result(PATIENCE).data_length == len(BODY)
    assert recorder.outcome == ["success", "complete"]


@contextmanager
def logged_by(react: Callable[[object], None]) -> Iterator[list[logging.LogRecord]]:
    """Have records of rawdl's, from WARNING on, handled by something that may raise; return what it was given."""
    records: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)
            react(record)

    logger, handler = logging.getLogger("rawdl"), Handler(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield records
    finally:
        logger.removeHandler(handler)


def raising_once(kind: type[BaseException]) -> Callable[[object], None]:
    raised: list[object] = []

    def react(event: object) -> None:
        if not raised:
            raised.append(event)
            raise kind

    return react


# Fork

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
FORKED = """
    import os, sys, rawdl
    client = rawdl.Client()
    task = client.download_file(url=sys.argv[1], sink=rawdl.MemorySink())
    while not task.progress.total_bytes_written:
        client.step(None)
    child = os.fork()
    if not child:
        refused = 0
        for call in (task.result, client.run, client.step, client.start, client.fileno, client.next_deadline,
                     lambda: client.download_file(url=sys.argv[1])):
            try:
                call()
            except RuntimeError as exc:
                refused += "fork" in str(exc)
        {what}
        os._exit(0 if refused == 7 else 1)
    assert os.waitpid(child, 0)[1] == 0
    print(task.result(10).data_length)
"""


@needs_fork
@pytest.mark.parametrize(
    "what", ["pass", "task.abort()", "client.close()", "del client, task; __import__('gc').collect()"]
)
def test_S3_K13_after_a_fork_the_child_refuses_and_the_parent_goes_on(what: str, origin: Origin):
    """Sockets and selector are shared with the child: whatever that does must not reach them."""
    url = origin.serve("/a", Script(body=BODY, stall_at=50_000, stall_for=0.3))
    what = (
        what
        if what == "pass" or what.startswith("del")
        else f"\n        try: {what}\n        except RuntimeError: pass"
    )
    assert run_script(FORKED.format(what=what), url) == f"{len(BODY)}\n"


@needs_fork
def test_S13_K13_after_a_fork_the_process_has_a_client_of_its_own(origin: Origin):
    script = """
        import os, sys, rawdl
        print(rawdl.download(sys.argv[1], sink=rawdl.MemorySink()).data_length, flush=True)
        child = os.fork()
        if not child:
            print(rawdl.download(sys.argv[1], sink=rawdl.MemorySink()).data_length, flush=True)
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """
    assert run_script(script, origin.serve("/a", WHOLE)) == f"{len(BODY)}\n" * 2
    assert origin.connections == 2


# Interrupts at any moment


def virtually_by_result(client: rawdl.Client, tasks: list[rawdl.DownloadTask]) -> None:
    for task in tasks:
        task.exception()


def virtually_by_step(client: rawdl.Client, tasks: list[rawdl.DownloadTask]) -> None:
    while client.step(None):
        pass


def virtually_with_pauses(client: rawdl.Client, tasks: list[rawdl.DownloadTask]) -> None:
    client.run(0.05)
    tasks[0].pause()
    client.run()
    tasks[0].resume()
    client.run()


VIRTUAL = {"result": virtually_by_result, "step": virtually_by_step, "run": virtually_with_pauses}


def test_T28_abort_in_a_signal_handler_at_any_line(tmp_path: Path):
    """A signal may come between any two steps of our code: call abort() there, for a sample of all the lines."""
    stride, line = 11, 1
    while line >= 0:
        with World() as world:
            world.listen("example.org", 80, http_peer(Script(body=BODY)))
            client, recorder = world.client(), Recorder()
            task = recorder.download(client, url="http://example.org/a", file_path=tmp_path / "a")
            with Interruption(line, task.abort) as interruption:
                task.exception(PATIENCE)
            client.run(PATIENCE)
        assert recorder.outcome in (["fail", "complete"], ["success", "complete"]), (line, recorder.names)
        aborted = recorder.outcome[0] == "fail"
        assert task.state == ("aborted" if aborted else "completed"), line
        assert [path.name for path in tmp_path.iterdir()] == ([] if aborted else ["a"]), line
        (tmp_path / "a").unlink(missing_ok=True)
        line = line + stride if interruption.where else -1


@pytest.mark.parametrize("call", ["run", "step", "result", "exception"])
@pytest.mark.parametrize(("timeout", "error"), [(float("nan"), ValueError), ("1", TypeError)])
def test_S11_a_wait_for_what_is_no_number(call: str, timeout: object, error: type[Exception]):
    with World() as world:
        world.listen("example.org", 80, http_peer(Script(body=BODY)))
        client = world.client()
        fetch = Fetch(client)
        with pytest.raises(error):
            getattr(client if call in ("run", "step") else fetch.task, call)(timeout)
        assert client.run() is False
        assert fetch.outcome == ["success", "complete"]


@pytest.mark.parametrize("drive", VIRTUAL.values(), ids=VIRTUAL.keys())
def test_K10_S9_an_interrupt_at_any_line_of_the_driver_leaves_a_client_that_goes_on(drive: Callable[..., object]):
    """Nobody is left at the wheel, so that whoever drives next does so."""
    for line, client, recorders in interrupted_everywhere(drive, in_the_driver):
        assert client.run(PATIENCE) is False, line
        assert [each.outcome for each in recorders] == [["success", "complete"]] * 2, line
        assert repr(client._driver) == "<Driver free>", line


def in_the_driver(code: CodeType) -> bool:
    """Whether it drives; who is interrupted in the middle of telling something has told it, or not."""
    return code.co_filename.endswith("/rawdl/driver.py") and code.co_name not in ("call_user", "shield")


@pytest.mark.parametrize("drive", VIRTUAL.values(), ids=VIRTUAL.keys())
def test_K10_S8_an_interrupt_at_any_line_of_a_settlement_keeps_nobody_waiting(drive: Callable[..., object]):
    for line, client, recorders in interrupted_everywhere(drive, in_a_settlement):
        assert client.run(PATIENCE) is False, line
        assert [each.task.result(0).data_length for each in recorders] == [len(BODY)] * 2, line
        assert client.stats().tasks == {}, line
        for each in recorders:
            assert each.outcome in (["success", "complete"], ["success"], ["complete"]), line


def in_a_settlement(code: CodeType) -> bool:
    return code.co_name in ("settle", "_result") or code.co_filename.endswith("/rawdl/results.py")


def test_K10_an_interrupt_as_a_task_is_made_leaves_the_client_whole():
    def in_the_making(code: CodeType) -> bool:
        return code.co_name == "__init__" and code.co_filename.endswith("/rawdl/retrieval.py")

    def drive(client: rawdl.Client, tasks: list[rawdl.DownloadTask]) -> None:
        client.download_file(url="http://example.org/b", sink=rawdl.MemorySink())

    for line, client, fetches in interrupted_everywhere(drive, in_the_making):
        assert client.run(PATIENCE) is False, line
        assert [each.outcome for each in fetches] == [["success", "complete"]] * 2, line


def test_K10_I8_an_interrupt_on_the_way_to_the_pool_leaves_no_socket_behind_close():
    """World sees to that."""
    for line, client, recorders in interrupted_everywhere(virtually_by_result, on_the_way_to_the_pool):
        client.close()
        assert {tuple(each.outcome) for each in recorders} <= {("success", "complete"), ("fail", "complete")}, line


def on_the_way_to_the_pool(code: CodeType) -> bool:
    return code.co_name in ("release", "give", "watch", "quiet", "modify", "redirect")


def test_K10_S6_an_interrupt_at_any_line_of_close_and_then_close_again():
    """World sees that no socket is left."""

    def drive(client: rawdl.Client, tasks: list[rawdl.DownloadTask]) -> None:
        client.run(0.02)
        client.close()

    for line, client, recorders in interrupted_everywhere(drive, in_close):
        client.close()
        assert repr(client._driver) == "<Driver closed>", line
        assert [each.outcome for each in recorders] == [["fail", "complete"]] * 2, line


def in_close(code: CodeType) -> bool:
    winding_up = ("close", "_begin_to_wind_up", "_wind_up", "_let_go")
    return in_the_driver(code) or (code.co_filename.endswith("/rawdl/client.py") and code.co_name in winding_up)


def interrupted_everywhere(
    drive: Callable[..., object], among: Callable[[CodeType], bool]
) -> Iterator[tuple[int, rawdl.Client, list[Fetch]]]:
    """Have two downloads driven, and KeyboardInterrupt raised at the first line, then at the second, and so on."""

    for line in itertools.count(1):
        with World() as world:
            world.listen("example.org", 80, http_peer(Script(body=BODY)), link=Link(latency=0.01))
            client = world.client()
            fetches = [Fetch(client), Fetch(client)]
            with suppress(KeyboardInterrupt), Interruption(line, interrupt, among) as interruption:
                drive(client, [each.task for each in fetches])
            yield line, client, fetches
        if not interruption.where:
            assert line > 15
            return


@pytest.mark.parametrize("drive", SYNCHRONOUS.values(), ids=SYNCHRONOUS.keys())
def test_K9_S9_ctrl_c_during_the_wait_leaves_and_the_task_goes_on(
    drive: Drive, client: rawdl.Client, origin: Origin, tmp_path: Path
):
    recorder = Recorder()
    url = origin.serve("/a", Script(body=BODY, head_delay=0.1))
    task = recorder.download(client, url=url, file_path=tmp_path / "a")
    with on_alarm(interrupt):
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        with pytest.raises(KeyboardInterrupt):
            drive(client, task)
    assert recorder.events == []
    drive(client, task)
    assert recorder.outcome == ["success", "complete"]
    assert (tmp_path / "a").read_bytes() == BODY


@pytest.mark.parametrize("call", ["read", "write", "splice"])
@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
@pytest.mark.parametrize("nth", [5, 6])
def test_K10_ctrl_c_as_a_system_call_returns_never_makes_a_wrong_file(
    nth: int, framing: str, call: str, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A busy download spends its time in such calls, so this is where Ctrl-C hits it; then somebody drives on."""
    calls = 0

    def interrupting(real: Callable[..., object]) -> Callable[..., object]:
        def function(*args: object, **options: object) -> object:
            nonlocal calls
            outcome = real(*args, **options)
            if outcome and (calls := calls + 1) == nth:
                raise KeyboardInterrupt
            return outcome

        return function

    class Socket(socket.socket):
        recv_into = interrupting(socket.socket.recv_into)  # type: ignore[assignment]

    if call != "read":
        if not hasattr(os, call):
            pytest.skip(f"no {call} on this platform")
        monkeypatch.setattr(os, call, interrupting(getattr(os, call)))
    if call != "splice" and hasattr(os, "splice"):
        monkeypatch.delattr(os, "splice")
    script = Script(body=BODY * 20, framing=framing, chunk=100_000)  # type: ignore[arg-type]
    with once.client(socket_factory=Socket if call == "read" else None, buffer_size=65536) as client:
        recorder = Recorder()
        times = rawdl.Timeouts(idle=1)
        url = origin.serve("/a", script)
        task = recorder.download(client, url=url, file_path=tmp_path / "a", timeouts=times)
        with pytest.raises(KeyboardInterrupt):
            task.exception(PATIENCE)
        error = task.exception(PATIENCE)
        assert recorder.outcome == ["fail" if error else "success", "complete"]
        if error is None:
            assert (tmp_path / "a").read_bytes() == BODY * 20
            assert task.result().data_length == len(BODY) * 20
        else:
            assert not isinstance(error, rawdl.Timeout | rawdl.ProtocolError), "it is not the server's fault"
            assert list(tmp_path.iterdir()) == []
        client.download_file(url=url, file_path=tmp_path / "b").result(PATIENCE)
        assert (tmp_path / "b").read_bytes() == BODY * 20, "what the first has left reached the next"
