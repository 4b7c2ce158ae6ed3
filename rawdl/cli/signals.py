"""SIGINT and SIGTERM: what the first does, and what the second."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from rawdl.cli.report import SIGNALLED

if TYPE_CHECKING:
    from types import FrameType


class Signals:
    """While entered, the first SIGINT or SIGTERM calls ``stop`` and is remembered; the second ends the process.

    A signal that was ignored when we began, as for jobs in the background of a script, stays ignored.
    """

    def __init__(self, stop: Callable[[], None], wakeup: int = -1) -> None:
        self._stop = stop
        self._wakeup = wakeup  # a descriptor that ends our wait: a handler runs only when Python does
        self._before: list[tuple[signal.Signals, object]] = []
        self.number = 0

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
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
        if self.number:
            os._exit(SIGNALLED + number)
        self.number = number
        self._stop()
