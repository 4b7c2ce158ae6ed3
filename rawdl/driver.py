"""Who drives the loop, and from which thread.

One thread at a time does: it holds the wheel.  Whoever calls into a client meanwhile hands the call over and wakes the
loop; while nobody drives, the call is carried out where it is made.  No lock is ever waited for in a call that must
return at once, so that such calls may come from signal handlers too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from math import isnan
from threading import Condition, Thread, get_ident
from typing import Any, Protocol

from rawdl.interrupts import Interrupts
from rawdl.loop import LONGEST_WAIT, Loop


class Seizer(Protocol):
    """Who drives from another event loop."""

    @property
    def is_lost(self) -> bool:
        """Whether that loop was closed, so that it will never let go."""


class Driver:
    """Give the loop to one thread at a time."""

    def __init__(self, loop: Loop, keep: object) -> None:
        self.loop = loop
        self._keep = keep  # the client: whoever has a task of it can still wait for that
        # Who holds it; empty while nobody does.  To take it is one step even to another thread or a signal handler, so
        # that an interrupt finds it taken by a thread or not at all.
        self._wheel: dict[str, int] = {}
        self._driving = False  # and whether that is for driving, rather than for one call
        self._callbacks = 0  # how many callbacks deep we are
        self._changed = Condition()
        self._waiting = 0
        self._thread: Thread | None = None
        self._stopping = False
        self._gone = False  # that thread drives no more, though it may still be there
        self.closing = False  # the client was closed, and its loop is to be
        self._exposed = False  # somebody waits on fileno() with a loop of his own
        self._pid = os.getpid()
        self.interrupts = Interrupts(loop.wake, loop.time)
        self._raised: BaseException | None = None  # what a callback has raised, until the end of the turn
        self.when_free: list[Callable[[], None]] = []  # called, in any thread, when somebody lets go of the wheel
        self.bridge: object = None  # to the event loop whose thread drives, if one does
        self._seizers: list[Seizer] = []  # the one who has it for that, if any: to remove him is one step

    # Calls from outside

    def hand(self, action: Callable[[], None]) -> None:
        """Carry ``action`` out in the loop's context: here if nobody drives or we do, else by whoever drives."""
        self.check_process()
        self._reclaim()
        if self._hold(self._carry_out, action):
            return
        if self.is_mine and not self.interrupts.at_work:
            self.interrupts.at_work = True
            try:
                action()
                if not self._callbacks:  # on the other event loop, between two of our turns
                    self._finish_closing()
            finally:
                self.interrupts.at_work = False
            if not self._callbacks and self.loop.has_callbacks:
                self.loop.wake()
        else:
            self.loop.call_soon_threadsafe(action)
            self._hold(self.loop.run_handed)  # whoever held the wheel may have looked for the last time just before

    def _carry_out(self, action: Callable[[], None]) -> None:
        self.loop.now = self.loop.time()  # the last turn may be long ago
        action()

    def call_user(self, callback: Callable[..., object], *args: Any) -> None:
        """Call somebody else's code.  What it raises is logged; KeyboardInterrupt and SystemExit go to who drives.

        They do at the end of the turn, when all our own state is consistent.
        """
        began = self.loop.time()
        was_busy = self.interrupts.at_work
        self._callbacks += 1
        try:
            self.shield(callback, *args, lending=True)
        finally:
            self.interrupts.at_work = was_busy
            self._callbacks -= 1
            self.loop.back_from(began)

    def shield(self, callback: Callable[..., object], *args: Any, lending: bool = False) -> None:
        """Call somebody else's code from the middle of ours: whatever that calls here waits for a later turn.

        Unless all is consistent, and we are ``lending`` it the thread: that is none of our work then.
        """
        was_busy = self.interrupts.at_work
        try:
            try:
                self.interrupts.at_work = was_busy and not lending
                callback(*args)
                self.interrupts.at_work = was_busy  # in here, since up to this point Ctrl-C may be raised
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:
                import logging

                with suppress(Exception):  # of a handler or a filter, which are somebody else's code as well
                    logging.getLogger("rawdl").exception("a callback of a download raised: %r", callback)
        except (KeyboardInterrupt, SystemExit) as exc:
            self._raised = exc

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread holds the wheel: in a callback, or in a coroutine on the loop that drives."""
        return self._wheel.get("holder") == get_ident()

    @property
    def in_callback(self) -> bool:
        """Whether it is a callback that asks."""
        return self._callbacks > 0 and self.is_mine

    def check_process(self) -> None:
        """Refuse to work after a fork: the sockets are the parent's."""
        if os.getpid() != self._pid:
            raise RuntimeError("this client was made before a fork; make a new one in the child process")

    @property
    def forked(self) -> bool:
        """Whether this is another process than the one that made the client."""
        return os.getpid() != self._pid

    # Driving

    def step(self, timeout: float | None) -> None:
        """Run one turn in this thread."""
        _check_timeout(timeout)
        self.check_process()
        self._reclaim()
        self._refuse_nested("step()")
        while not self._hold(self._turn, timeout, driving=True):
            if self._driving:
                raise RuntimeError("another thread drives this client")
            # Another thread is in the middle of a call that it carries out itself: that takes no time.

    def _turn(self, timeout: float | None) -> None:
        self.loop.step(timeout)
        if self._raised is not None or self.interrupts.noted:
            self._raise_on()
            self.interrupts.raise_noted()

    def _raise_on(self) -> None:
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised

    def wait(self, done: Callable[[], bool], timeout: float | None, what: str) -> bool:
        """Drive, or wait for whoever drives, until ``done()``; return whether it is."""
        _check_timeout(timeout)
        self.check_process()
        if done():
            return True
        self._reclaim()
        self._refuse_nested(what)
        limit = None if timeout is None else self.loop.time() + timeout
        while not self.loop.closed:
            left = None if limit is None else limit - self.loop.time()
            if left is not None and left <= 0:
                break
            if not self._hold(self._drive, done, limit, driving=True):
                self._wait_for_driver(done, left)
            if done():
                return True
        return False

    def _drive(self, done: Callable[[], bool], limit: float | None) -> None:
        while not done() and not self.loop.closed:
            left = None if limit is None else limit - self.loop.time()
            if left is not None and left <= 0:
                return
            self._turn(left)

    def _wait_for_driver(self, done: Callable[[], bool], left: float | None) -> None:
        with self._changed:
            self._waiting += 1
            try:
                if not done() and self._wheel:
                    self._changed.wait(left if left is None else min(left, LONGEST_WAIT))
            finally:
                self._waiting -= 1

    def notify(self) -> None:
        """Let the threads that wait look again."""
        if self._waiting:
            with self._changed:
                self._changed.notify_all()

    def _refuse_nested(self, what: str) -> None:
        if self.is_mine:
            raise RuntimeError(
                f"{what} inside a callback, or on the loop that drives this client, would wait for itself"
            )

    # The wheel

    def _hold(self, work: Callable[..., None], *args: Any, driving: bool = False) -> bool:
        """Take the wheel for some work and let go of it, if it is free; return whether it was.

        An interrupt may come at any point of this, and the wheel is let go of all the same.
        """
        if self._wheel:
            return False
        try:
            try:
                if not self._take():
                    return False
                self.interrupts.at_work, self._driving = True, driving
                self.interrupts.defer()
                work(*args)
            finally:
                if self._wheel.get("holder") == get_ident():  # as is_mine, with a call less for each task
                    self._end()
        except BaseException:
            self._end()  # if it came in the middle of that
            raise
        return True

    def _take(self) -> bool:
        thread = get_ident()
        return not self._wheel and self._wheel.setdefault("holder", thread) == thread

    def _end(self) -> None:
        """Let go of the wheel; what was handed over meanwhile must not be left lying."""
        while True:
            if self._wheel.get("holder") == get_ident():
                if self.closing:
                    self._finish_closing()
                self.interrupts.at_work = self._driving = False
                self.interrupts.allow()
                self._wheel.clear()
            if self._waiting:
                self.notify()
            for tell in tuple(self.when_free):
                tell()
            if self._exposed and self.loop.has_callbacks:
                self.loop.wake()
            if not self.loop.has_handed or not self._take():
                break
            self.interrupts.at_work = True
            self.interrupts.defer()
            self.loop.run_handed()
        if self.interrupts.noted:
            self.interrupts.raise_noted()

    def expose(self) -> int:
        """Return the loop's descriptor; from now on it is readable whenever a step would do something."""
        self._exposed = True
        if self.loop.has_callbacks:
            self.loop.wake()
        return self.loop.fileno()

    def next_deadline(self) -> float | None:
        """Return when a step has something to do of itself, in any thread."""
        found: list[float | None] = []
        if self._hold(lambda: found.append(self.loop.next_deadline())):
            return found[0]
        return self.loop.next_deadline(shared=True)

    # The background thread

    def start(self) -> None:
        """Drive in a daemon thread until `stop`; once is enough."""
        self.check_process()
        if self._thread is not None and self._thread.is_alive() and not self._gone:
            return
        self._stopping = self._gone = False
        self._thread = Thread(target=self._run, name="rawdl", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.wait(lambda: self._stopping or self.loop.closed, None, "start()")
        finally:
            self._gone = True

    def stop(self) -> None:
        """Have the background thread let go, and wait until it has (unless it is the one that calls)."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping = True
        self.loop.wake()
        self.notify()
        if thread.ident != get_ident() and thread.is_alive():  # the system may have refused to start it
            thread.join()

    def see_closed(self) -> None:
        """Return when the loop has closed; inside a callback at once, since whoever drives will see to it."""
        if not self.is_mine:
            self.wait(lambda: self.loop.closed, None, "close()")
            self.stop()
            self._raise_on()

    def _finish_closing(self) -> None:
        """Drive to the end a client that was closed meanwhile: nobody else will."""
        while self.closing and not self.loop.closed and self.loop.has_callbacks:
            self.loop.step(0)

    # Another loop's thread

    def seize(self, seizer: Seizer) -> bool:
        """Take the wheel for as long as another event loop drives; its turns are `turn`."""
        self._reclaim()
        if not self._take():
            return False
        self._seizers.append(seizer)
        self._exposed = self._driving = True
        return True

    def _reclaim(self) -> None:
        """Take the wheel from an event loop that was closed while somebody waited there."""
        for seizer in self._seizers:
            if seizer.is_lost:
                self.release(seizer)

    def turn(self) -> BaseException | None:
        """Run what is ready, while the wheel is seized; return what was raised in that.

        Ctrl-C just before or behind it is raised here; what `interrupts` has noted is the caller's to raise.
        """
        try:
            self.interrupts.at_work = True
            self.interrupts.defer()
            self._step_gathering()
        finally:
            self.interrupts.at_work = False
            self.interrupts.allow()
        raised, self._raised = self._raised, None
        return raised

    def _step_gathering(self) -> None:
        try:
            self.loop.step(0)
        except BaseException as exc:
            self._raised = exc

    def release(self, seizer: Seizer) -> None:
        """Give the wheel back, unless that was done for the seizer already."""
        try:
            self._seizers.remove(seizer)
        except ValueError:
            return
        self._wheel["holder"] = get_ident()  # its thread may be another, which is gone
        self._end()

    def __repr__(self) -> str:
        owner = self._wheel.get("holder")
        state = "closed" if self.loop.closed else f"held by thread {owner}" if owner else "free"
        return f"<Driver {state}>"


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and isnan(timeout):  # TypeError for what is no number
        raise ValueError("the timeout is not a number")
