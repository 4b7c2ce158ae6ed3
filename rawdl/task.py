"""The task: what a caller holds of a download.  Listeners, abort, and the one settlement."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from rawdl.driver import Driver
from rawdl.errors import Aborted, DownloadError
from rawdl.proto.progress import ProgressUpdate
from rawdl.results import DownloadResult, HeadersReceived

if TYPE_CHECKING:
    from rawdl.trace import Tracer


class TaskState(StrEnum):
    """Where a task is; the last three are final.

    Resolving, the TLS handshake and the wait before another try are part of connecting.
    """

    QUEUED = "queued"
    CONNECTING = "connecting"
    WAITING = "waiting"
    RECEIVING = "receiving"
    PAUSED = "paused"
    FINISHING = "finishing"
    COMPLETED = "completed"
    FAILED = "failed"
    ABORTED = "aborted"


_STOPPED: Final = (TaskState.FAILED, TaskState.ABORTED)
# What may be paused, and where a pause goes back to.
PAUSABLE: Final = (TaskState.QUEUED, TaskState.CONNECTING, TaskState.WAITING, TaskState.RECEIVING)
# From each state, those that may follow.  Back to connecting: a redirect, another try, a reused connection that turns
# out to be dead, a mirror after a wrong checksum.  Past them to finishing: a file that needs no request, or that a 416
# proves to be whole.
_LEGAL: Final = {
    TaskState.QUEUED.value: (TaskState.CONNECTING, TaskState.FINISHING, TaskState.PAUSED, *_STOPPED),
    TaskState.CONNECTING.value: (TaskState.WAITING, TaskState.PAUSED, *_STOPPED),
    TaskState.WAITING.value: (
        TaskState.RECEIVING,
        TaskState.CONNECTING,
        TaskState.FINISHING,
        TaskState.PAUSED,
        *_STOPPED,
    ),
    TaskState.RECEIVING.value: (TaskState.FINISHING, TaskState.CONNECTING, TaskState.PAUSED, *_STOPPED),
    TaskState.PAUSED.value: (*PAUSABLE, *_STOPPED),
    TaskState.FINISHING.value: (TaskState.COMPLETED, TaskState.CONNECTING, *_STOPPED),
    TaskState.COMPLETED.value: (),
    TaskState.FAILED.value: (),
    TaskState.ABORTED.value: (),
}

_NO_PROGRESS: Final = ProgressUpdate()

HeadersListener = Callable[[HeadersReceived], object]
ProgressListener = Callable[[ProgressUpdate], object]


class Engine(Protocol):
    """What a task needs of the download behind it."""

    def abort(self) -> None:
        """Close the socket and whatever else is open, and schedule the settlement.  In the loop's context."""

    def pause(self) -> None:
        """Stop reading.  In the loop's context."""

    def resume(self) -> None:
        """Go on after a pause.  In the loop's context."""

    def progress(self) -> ProgressUpdate:
        """Return a snapshot."""

    def connections(self) -> int:
        """Return how many connections are at work."""


class DownloadTask:
    """One download: listen to it, abort it, wait for it.

    Listeners and callbacks run one at a time in the thread that drives the client, and must not block; each may call
    any method here.  What a listener raises is logged and changes nothing; only KeyboardInterrupt and SystemExit go on,
    to whoever drives.

    Every method may be called from any thread.
    """

    __slots__ = (
        "__weakref__",
        "_aborting",
        "_complete",
        "_done",
        "_driver",
        "_engine",
        "_error",
        "_fail",
        "_headers",
        "_headers_listeners",
        "_progress",
        "_progress_listeners",
        "_recipe",
        "_result",
        "_state",
        "_success",
        "_told",
        "_unclaimed",
        "_waiters",
        "keeping",
        "trace",
        "url",
    )

    def __init__(
        self,
        driver: Driver,
        url: str,
        success: Callable[[DownloadResult], object] | None = None,
        fail: Callable[[DownloadError], object] | None = None,
        complete: Callable[[DownloadResult | DownloadError], object] | None = None,
        recipe: Mapping[str, object] | None = None,
    ) -> None:
        self.url = url
        self.trace: Tracer | None = None  # if anybody wants to know
        self._recipe = recipe
        self._driver = driver
        self._engine: Engine | None = None  # until the end, which leaves the rest to no collector
        self._progress = _NO_PROGRESS  # at the end
        self._success = success
        self._fail = fail
        self._complete = complete
        # Each entry is a list of one callback, emptied when it is removed: a dispatch under way sees that.
        self._headers_listeners: list[list[HeadersListener]] = []
        self._progress_listeners: list[list[ProgressListener]] = []
        self._headers: HeadersReceived | None = None
        self._state = TaskState.QUEUED
        self._done = False
        self._told = False  # its callbacks have been called, too
        self._aborting = False
        self.keeping = False  # whether an abort leaves the part
        self._result: DownloadResult | None = None
        self._error: DownloadError | None = None
        # Whoever pops it decides the outcome.  list.pop is one step even to another thread or a signal handler,
        # where a lock could be held by the very code that was interrupted.
        self._unclaimed: list[None] = [None]
        self._waiters: list[Callable[[], None]] | None = None

    # Listening

    def on_headers_received(self, listener: HeadersListener) -> None:
        """Call ``listener`` once, with the head of the final response, before any of its body is waited for.

        If that is there already it is called in a later turn of the loop, unless the task was aborted.
        """
        check_callback("a listener", listener)
        entry = [listener]
        self._headers_listeners.append(entry)
        headers = self._headers
        if headers is not None and not self._aborting:
            self._driver.hand(lambda: self._driver.loop.call_soon(lambda: self._tell_headers(entry, headers)))

    def off_headers_received(self, listener: HeadersListener | None = None) -> None:
        """Never call ``listener`` again, however often it was added; without an argument, none of them."""
        _remove(self._headers_listeners, listener)

    def on_progress_update(self, listener: ProgressListener) -> None:
        """Call ``listener`` when bytes have arrived: for the first, the last, and at most once an interval between."""
        check_callback("a listener", listener)
        self._progress_listeners.append([listener])

    def off_progress_update(self, listener: ProgressListener | None = None) -> None:
        """Never call ``listener`` again, however often it was added; without an argument, none of them."""
        _remove(self._progress_listeners, listener)

    def _tell_headers(self, entry: list[HeadersListener], event: HeadersReceived) -> None:
        """Call a header listener if it is still wanted; it leaves its entry, so that nobody calls it twice."""
        if not self._aborting and entry:
            with suppress(IndexError):
                listener = entry.pop()
                self._driver.call_user(listener, event)

    # Pausing, aborting and waiting

    def pause(self) -> None:
        """Stop reading: the kernel's buffers fill, and the server stalls.  No time limit runs meanwhile.

        The task keeps its place among those that may be at work at once.  Nothing happens to one that is finishing or
        has ended.
        """
        engine = self._engine
        if engine is not None:
            self._driver.hand(engine.pause)

    def resume(self) -> None:
        """Go on after `pause`: on the same connection if the server has kept it, else where the bytes end."""
        engine = self._engine
        if engine is not None:
            self._driver.hand(engine.resume)

    def abort(self, *, keep: bool = False) -> None:
        """Stop, and close the socket at once.  From any thread or signal handler, in any state, any number of times.

        The task then ends with `Aborted`; after it has ended this does nothing.  What has come of the file is removed,
        unless the task was made with ``resume=True``; ``keep`` leaves it as after a failure.
        """
        if self.claim():
            self.keeping = keep
            self._aborting = True
        engine = self._engine
        if self._aborting and engine is not None:  # once more does no harm, if an interrupt came into it before
            self._driver.hand(engine.abort)

    def resume_data(self) -> dict[str, object] | None:
        """Return what `Client.resume` needs to go on, now or in another process: plain data, ready for ``json.dumps``.

        It is the URL, with whatever secrets it has, the absolute path and the options that are about the file; header
        and credentials are not in it.  None for a task without ``file_path``, and after success.
        """
        return None if self._recipe is None or self._result is not None else dict(self._recipe)

    def done(self) -> bool:
        """Return whether the task has ended, its callbacks included in the same turn.

        After an `abort` that nobody drives this is still False: the socket is closed, but the end is told in the next
        turn of the loop.
        """
        return self._done

    def result(self, timeout: float | None = None) -> DownloadResult:
        """Drive the loop until the task has ended and return its result, or raise its DownloadError.

        ``timeout`` in seconds bounds the waiting, not the download: the built-in TimeoutError means that it goes on.
        Raises RuntimeError inside a callback, where waiting would be for ever.
        """
        self._wait(timeout, "result()")
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def exception(self, timeout: float | None = None) -> DownloadError | None:
        """Drive the loop until the task has ended and return its error, or None.  ``timeout`` as of `result`."""
        self._wait(timeout, "exception()")
        return self._error

    def _wait(self, timeout: float | None, what: str) -> None:
        if not self._driver.wait(self._is_told, timeout, what):
            raise TimeoutError(f"the download has not ended within {timeout} s; it goes on")

    def _is_told(self) -> bool:
        """Whether a wait is over: the callbacks have been told; or it is one of them that asks."""
        return self._told or (self._done and self._driver.in_callback)

    def __await__(self) -> Generator[Any, None, DownloadResult]:
        """Wait inside asyncio, whose loop then drives.  Cancelling this aborts the download."""
        from rawdl.aio import wait

        return wait(self, self._driver).__await__()

    # Looking

    @property
    def state(self) -> TaskState:
        """Where the task is."""
        return self._state

    @property
    def progress(self) -> ProgressUpdate:
        """How far it is at this moment; the speed falls during a stall."""
        engine = self._engine
        return self._progress if engine is None else engine.progress()

    @property
    def connections(self) -> int:
        """How many connections fetch it at this moment, or are being made for it."""
        engine = self._engine
        return 0 if engine is None else engine.connections()

    def __repr__(self) -> str:
        about = f" {self.progress.total_bytes_written} bytes" if self._headers else ""
        return f"<DownloadTask {self.url} {self._state}{about}>"

    # For the engine and the client

    def attach(self, engine: Engine) -> None:
        """Say who does the work."""
        self._engine = engine
        if self._aborting:
            engine.abort()

    def enter(self, state: TaskState, error: DownloadError | None = None) -> None:
        """Move to a state, if the task is not in it: the only way in which that changes."""
        if state is self._state:
            return
        assert state in _LEGAL[self._state._value_], f"a task cannot go from {self._state} to {state}"
        self._state = state
        if self.trace is not None:
            self.trace("task", state, url=self.url, **({} if error is None else {"error": error}))

    def dispatch_headers(self, event: HeadersReceived) -> None:
        """Tell the listeners of the head, once."""
        self._headers = event
        for entry in tuple(self._headers_listeners):
            self._tell_headers(entry, event)

    def dispatch_progress(self, update: ProgressUpdate) -> None:
        """Tell the listeners how far the body is."""
        for entry in tuple(self._progress_listeners):
            for listener in entry:
                if not self._aborting:
                    self._driver.call_user(listener, update)

    @property
    def aborting(self) -> bool:
        """Whether abort() was called in time, though its turn may still be to come."""
        return self._aborting

    @property
    def has_progress_listeners(self) -> bool:
        """Whether anybody would hear a progress event."""
        return bool(self._progress_listeners)

    def claim(self) -> bool:
        """Decide the outcome: True for the first who asks, and for nobody after."""
        try:
            self._unclaimed.pop()
        except IndexError:
            return False
        return True

    def settle(
        self, result: DownloadResult | None, error: DownloadError | None, progress: ProgressUpdate | None = None
    ) -> None:
        """End the task and tell everybody, in one turn: success or fail, then complete, then who waits.

        Called again after an interrupt, it goes on where that came.
        """
        if not self._done:
            self._result = result
            self._error = error
            self._progress = progress or _NO_PROGRESS
            self._engine = None
            if _LEGAL[self._state._value_]:
                self.enter(_end_state(error), error)
            self._done = True
        outcome = self._result if self._result is not None else self._error
        first = self._success if self._result is not None else self._fail
        self._success = self._fail = None
        if first is not None:
            self._driver.call_user(first, outcome)
        last, self._complete = self._complete, None
        if last is not None:
            self._driver.call_user(last, outcome)
        self._told = True
        for waiter in self._waiters or ():
            waiter()
        self._waiters = None
        self._driver.notify()

    def add_waiter(self, waiter: Callable[[], None]) -> None:
        """Call ``waiter`` after the callbacks, when the task ends; in a later turn if it has."""
        if self._told:
            self._driver.loop.call_soon(waiter)
        else:
            self._waiters = [*(self._waiters or ()), waiter]


def _end_state(error: DownloadError | None) -> TaskState:
    if error is None:
        return TaskState.COMPLETED
    return TaskState.ABORTED if isinstance(error, Aborted) else TaskState.FAILED


def check_callback(name: str, callback: object) -> None:
    """Raise TypeError for what cannot be called."""
    if not callable(callback):
        raise TypeError(f"{name} must be callable, not {type(callback).__name__}")


def _remove(entries: list[Any], listener: object) -> None:
    """Remove a listener wherever it stands; the emptied entry tells a dispatch under way."""
    for entry in [entry for entry in entries if listener is None or listener in entry]:
        entry.clear()
        entries.remove([])
