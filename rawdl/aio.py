"""Await a task: the asyncio loop then drives the client, by way of its descriptor and its next deadline."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from rawdl.driver import Driver
from rawdl.results import DownloadResult

if TYPE_CHECKING:
    from rawdl.task import DownloadTask


# The abort is handed over in one and told in the next; a callback that takes part may cost one more.
_TURNS_TO_SETTLE = 3


async def wait(task: DownloadTask, driver: Driver) -> DownloadResult:
    """Return the task's result or raise its error; a cancellation aborts it."""
    driver.check_process()
    if task.done():
        return task.result()
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def tell() -> None:
        with suppress(RuntimeError):  # that loop is closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if ended.done() else ended.set_result(None))

    bridge = Bridge.between(driver, loop)
    bridge.enter()
    try:
        driver.hand(lambda: task.add_waiter(tell))
        await ended
    except asyncio.CancelledError:
        task.abort()
        bridge.see_settled(task)
        raise
    finally:
        bridge.leave()
    return task.result()


class Bridge:
    """Drive a client from an asyncio loop, while anybody there waits for a task of it."""

    def __init__(self, driver: Driver, loop: asyncio.AbstractEventLoop) -> None:
        self._driver = driver
        self._loop = loop
        self._waiting = 0
        self._driving = False
        self._fd = -1
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def between(cls, driver: Driver, loop: asyncio.AbstractEventLoop) -> Bridge:
        """Return the bridge that is there, or a new one."""
        bridge = driver.bridge
        if isinstance(bridge, cls) and bridge._loop is loop and bridge._waiting:
            return bridge
        bridge = cls(driver, loop)
        driver.bridge = bridge
        return bridge

    def enter(self) -> None:
        """Count one more who waits; the first has the client driven."""
        self._waiting += 1
        if self._waiting == 1:
            self._driver.when_free.append(self._on_free)
            self._seize()

    @property
    def is_lost(self) -> bool:
        """Whether the asyncio loop was closed, though somebody still waits there."""
        return self._loop.is_closed()

    def see_settled(self, task: DownloadTask) -> None:
        """Have an aborted task told of while we still drive: perhaps nobody does afterwards."""
        for _ in range(_TURNS_TO_SETTLE):
            if self._driving and not task.done():
                self._turn()

    def leave(self) -> None:
        """Count one less; the last lets go of the client."""
        self._waiting -= 1
        if not self._waiting:
            self._driver.when_free.remove(self._on_free)
            self._let_go()

    def _on_free(self) -> None:
        """Somebody let go of the client, in whatever thread: drive it here."""
        if not self._driving:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._seize)

    def _seize(self) -> None:
        if self._driving or not self._waiting or self._driver.loop.closed or not self._driver.seize(self):
            return
        self._driving = True
        self._fd = self._driver.expose()
        self._loop.add_reader(self._fd, self._turn)
        self._arm()

    def _let_go(self) -> None:
        if self._driving:
            self._driving = False
            if not self.is_lost:
                self._loop.remove_reader(self._fd)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._driver.release(self)

    def _turn(self) -> None:
        if not self._driving:
            return
        try:
            raised = self._driver.turn()
            if raised is not None:
                self._loop.call_exception_handler({"message": "a callback of a download raised", "exception": raised})
        finally:
            if self._driver.loop.closed:
                self._let_go()
            else:
                self._arm()
            self._driver.interrupts.raise_noted()  # which leaves that loop, as from any callback of it

    def _arm(self) -> None:
        """Have the next turn at the next deadline, if nothing happens before."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._driver.loop.next_deadline()
        if deadline is not None:
            patience = max(0.0, deadline - self._driver.loop.time())
            self._timer = self._loop.call_later(patience, self._turn)
