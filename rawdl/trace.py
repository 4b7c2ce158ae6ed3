"""What a download does, step by step, for a caller's function and for the log.

    phase      events and what comes with them
    ---------  ----------------------------------------------------------------------------------------------------
    task       each state that it moves to (``connecting``, ``waiting`` …): url, and error for ``failed``;
               ``redirect``: status_code, location; ``retry``: error, delay (seconds), resumes (bytes kept), url
    resolve    ``started``: host; ``complete``: addresses
    connect    ``started``: addresses; ``attempt``: address; ``refused``: address, error; ``complete``: peer;
               ``reused``: peer, exchanges (before this one); ``stale``: peer, error
    proxy      ``started``: proxy, target; ``complete``
    tls        ``started``: host; ``complete``: version, cipher, resumed
    send       ``started``: method, url, header; ``complete``: bytes
    head       ``informational``: status_code, header; ``complete``: status_code, reason, http_version, header
    body       ``started``: framing; ``complete``: length, trailer, surplus (bytes), close_reasons

A phase that does not come to its end has ``failed``: error.  With several connections their steps interleave.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from rawdl.proto.events import BodyComplete, Event, HeadReceived, InformationalReceived
from rawdl.proto.fields import escape
from rawdl.proto.redirects import CROSSES
from rawdl.proto.timeouts import Phase

if TYPE_CHECKING:
    from rawdl.driver import Driver
    from rawdl.errors import DownloadError
    from rawdl.proto.messages import Request
    from rawdl.task import DownloadTask

Trace = Callable[[str, str, dict[str, object]], object]

PHASES: Final = ("task", "resolve", "connect", "proxy", "tls", "send", "head", "body")
# What of a request may be shown, beside what may be sent to anybody; any other field may be a secret.
_SHOWN: Final = CROSSES | {"host", "connection", "if-range", "if-match", "if-none-match", "if-modified-since"}
_HIDDEN: Final = "***"


class Tracer:
    """Tell the steps of one task.  What is called may call any method here; it takes effect in a later turn."""

    __slots__ = ("_driver", "_listeners", "_task")

    def __init__(self, driver: Driver, task: DownloadTask, listeners: Iterable[Trace]) -> None:
        self._driver = driver
        self._task = task
        self._listeners = tuple(listeners)

    def __call__(self, phase: str, event: str, **data: object) -> None:
        for listener in self._listeners:
            self._driver.shield(listener, phase, event, {"task": self._task, **data})

    def request(self, request: Request) -> None:
        """A request goes out."""
        header = {name: value if name.lower() in _SHOWN else _HIDDEN for name, value in request.fields}
        self("send", "started", method=request.method, url=request.url.redacted, header=header)

    def event(self, event: Event) -> None:
        """Something of the response has come."""
        if isinstance(event, HeadReceived):
            status = {"status_code": event.status_code, "reason": event.reason, "http_version": event.http_version}
            self("head", "complete", **status, header=event.header.redacted)
            self("body", "started", framing=repr(event.framing))
        elif isinstance(event, InformationalReceived):
            self("head", "informational", status_code=event.status_code, header=event.header.redacted)
        elif isinstance(event, BodyComplete):
            reasons = tuple(reason.value for reason in event.close_reasons)
            end = {"length": event.length, "trailer": event.trailer.redacted, "surplus": event.surplus}
            self("body", "complete", **end, close_reasons=reasons)

    def failed(self, phase: Phase | None, error: DownloadError) -> None:
        """What was under way has failed; in no phase at all, the head did not please us."""
        self("head" if phase is None else "body" if phase is Phase.IDLE else phase, "failed", error=error)


def tracer_of(trace: Trace | None, driver: Driver, task: DownloadTask) -> Tracer | None:
    """Return what tells the steps of a task; None if nobody listens, not even the log."""
    listeners = [listener for listener in (trace, _log_of(sys.modules.get("logging"))) if listener is not None]
    return Tracer(driver, task, listeners) if listeners else None


def _log_of(module: object) -> Trace | None:
    """Return what writes to the loggers ``rawdl.PHASE``, if one of them is to be written to.

    Who has not imported logging by now has not configured it either, and need not load it.
    """
    if module is None:
        return None
    from logging import DEBUG, getLogger

    if not any(getLogger(f"rawdl.{phase}").isEnabledFor(DEBUG) for phase in PHASES):
        return None

    def log(phase: str, event: str, data: Mapping[str, object]) -> None:
        details = [f"{name}={_text(value)}" for name, value in data.items() if name != "task"]
        getLogger(f"rawdl.{phase}").debug("%s", escape(" ".join([event, *details])))

    return log


def _text(value: object) -> str:
    if isinstance(value, BaseException):
        return f"{type(value).__name__}({value})"
    return str(value)
