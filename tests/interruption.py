"""Come in between two steps of our own code, as a signal handler does.

with Interruption(7, task.abort) as interruption:
    task.exception()
assert interruption.where  # else there were fewer lines
"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Self


class Interruption:
    """Call something before the nth line of rawdl's that runs meanwhile; of those `among` which that is wanted."""

    def __init__(
        self, line: int, action: Callable[[], object], among: Callable[[CodeType], bool] = lambda code: True
    ) -> None:
        self.left, self.action, self.among = line, action, among
        self.where = ""

    def __enter__(self) -> Self:
        gc.disable()  # what it would finalise has lines, too: those of other runs
        self.before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self.before)
        gc.enable()

    def _enter(self, frame: FrameType, event: str, argument: object) -> Any:
        ours = frame.f_globals.get("__name__", "").startswith("rawdl.")
        return self._trace if ours and self.among(frame.f_code) else None

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self.left -= 1
            if self.left == 0:
                self.where = f"{frame.f_globals['__name__']}:{frame.f_lineno} in {frame.f_code.co_name}"
                sys.settrace(None)
                self.action()
        return self._trace


def ctrl_c() -> None:
    """Do what the terminal does."""
    signal.raise_signal(signal.SIGINT)


def interrupt() -> None:
    """Raise what Ctrl-C does, and what nobody can defer: as another handler of another signal would."""
    raise KeyboardInterrupt
