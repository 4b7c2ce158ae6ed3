"""SIGINT and SIGTERM: what the first does, and what the second; and the signals that concern what is shown."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

from rawdl.cli.report import SIGNALLED

if TYPE_CHECKING:
    from types import FrameType

REPORT: Final = ("SIGUSR1", "SIGINFO")  # "how far are you?", as dd takes them; not every system has either
_DRAWING: Final = (*REPORT, "SIGTSTP", "SIGCONT")


class Signals:
    """While entered, the first SIGINT or SIGTERM calls ``stop`` and is remembered; the second ends the process.

    That calls ``last`` before.  ``also`` says by name what other signals do; one that the system does not have does
    nothing.  A signal that was ignored when we began, as for jobs in the background of a script, stays ignored.
    """

    def __init__(
        self,
        stop: Callable[[], None],
        wakeup: int = -1,
        *,
        last: Callable[[], None] | None = None,
        also: Mapping[str, Callable[[], None]] | None = None,
    ) -> None:
        self._stop = stop
        self._last = last
        self._also = {getattr(signal, name): act for name, act in (also or {}).items() if hasattr(signal, name)}
        self._acting: set[signal.Signals] = set()
        self._wakeup = wakeup  # a descriptor that ends our wait: a handler runs only when Python does
        self._before: list[tuple[signal.Signals, object]] = []
        self.number = 0

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, *self._also):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before.append((number, signal.signal(number, self._handle)))
        self._wakeup = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        return self

    def __exit__(self, *exc: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before:
            signal.signal(number, handler)  # type: ignore[arg-type]

    @property
    def word(self) -> str:
        """What has happened."""
        return "interrupted" if self.number == signal.SIGINT else "terminated"

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number in self._also:
            return self._act(signal.Signals(number))
        if self.number:
            if self._last is not None:
                self._last()
            os._exit(SIGNALLED + number)
        self.number = number
        self._stop()

    def _act(self, number: signal.Signals) -> None:
        """Do what another signal asks for; one more of it meanwhile is answered by that, however fast they come."""
        if number not in self._acting:
            self._acting.add(number)
            try:
                self._also[number]()
            finally:
                self._acting.discard(number)


@contextmanager
def held() -> Iterator[None]:
    """Have the signals that draw wait meanwhile: who draws is not to be interrupted by it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows, which has none of them
        yield
        return
    numbers = {getattr(signal, name) for name in _DRAWING if hasattr(signal, name)}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def suspend(clear: Callable[[], None]) -> None:
    """Stop as SIGTSTP does of itself, but ``clear`` the terminal before; return when the process goes on."""
    clear()
    handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, handler)
