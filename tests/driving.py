"""Every way to drive a client, under one name each: `MODES[name](client, task)` returns when the task has ended."""

from __future__ import annotations

import asyncio
import select
import threading
import time
from collections.abc import Callable
from typing import Any

import rawdl
from tests.recorder import PATIENCE

Drive = Callable[[rawdl.Client, rawdl.DownloadTask], None]


def by_result(client: rawdl.Client, task: rawdl.DownloadTask) -> None:
    task.exception(PATIENCE)


def by_run(client: rawdl.Client, task: rawdl.DownloadTask) -> None:
    assert client.run(PATIENCE) is False


def by_step(client: rawdl.Client, task: rawdl.DownloadTask) -> None:
    end = time.monotonic() + PATIENCE
    while not task.done():
        assert time.monotonic() < end, task
        client.step(0.1)


def by_thread(client: rawdl.Client, task: rawdl.DownloadTask) -> None:
    client.start()
    task.exception(PATIENCE)


def by_await(client: rawdl.Client, task: rawdl.DownloadTask) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            try:
                await asyncio.shield(task)
            except rawdl.DownloadError:
                assert task.exception() is not None

    asyncio.run(main(), debug=True)  # which looks at what is called from which thread


def by_select(client: rawdl.Client, task: rawdl.DownloadTask) -> None:
    fd = client.fileno()
    nest(client, task, lambda patience: bool(select.select([fd], [], [], patience)[0]))


def by_epoll(client: rawdl.Client, task: rawdl.DownloadTask) -> None:
    with select.epoll() as epoll:
        epoll.register(client.fileno(), select.EPOLLIN)
        nest(client, task, lambda patience: bool(epoll.poll(patience)))


def nest(client: rawdl.Client, task: rawdl.DownloadTask, wait: Callable[[float], bool]) -> None:
    """Be a foreign loop that steps the client only when it is told to: by the descriptor, or by the deadline."""
    while not task.done():
        deadline = client.next_deadline()
        patience = PATIENCE if deadline is None else max(0.0, min(PATIENCE, deadline - time.monotonic()))
        readable = wait(patience)
        due = deadline is not None and time.monotonic() >= deadline
        assert readable or due, f"neither the descriptor nor the deadline {deadline} told to step, and {task} waits"
        client.step(0)


def by_add_reader(client: rawdl.Client, task: rawdl.DownloadTask) -> None:
    """Nest in asyncio by hand, without the bridge that `await` uses."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        timer = loop.call_soon(lambda: None)

        def turn() -> None:
            nonlocal timer
            timer.cancel()
            try:
                client.step(0)
            except BaseException as exc:
                ended.set_exception(exc)
                return
            if task.done():
                ended.set_result(None)
                return
            deadline = client.next_deadline()
            if deadline is not None:
                timer = loop.call_later(max(0.0, deadline - time.monotonic()), turn)

        fd = client.fileno()
        loop.add_reader(fd, turn)
        try:
            async with asyncio.timeout(PATIENCE):
                await ended
        finally:
            timer.cancel()
            loop.remove_reader(fd)

    asyncio.run(main())


MODES: dict[str, Drive] = {
    "result": by_result,
    "run": by_run,
    "step": by_step,
    "start": by_thread,
    "await": by_await,
    "select": by_select,
    "epoll": by_epoll,
    "add_reader": by_add_reader,
}


def in_thread(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """Call a function in a thread; return what waits for it and returns its result or raises its exception."""
    outcome: list[Any] = []
    error: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(function(*args))
        except BaseException as exc:
            error.append(exc)

    thread = threading.Thread(target=body)
    thread.start()

    def join() -> Any:
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"{function} hangs"
        if error:
            raise error[0]
        return outcome[0]

    return join


def spin(client: rawdl.Client, until: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Step a client until something is true."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, f"still not true: {client!r}"
        client.step(0.02)
