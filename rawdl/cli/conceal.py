"""Secrets on the command line, which everybody on the machine can read (``ps``): overwritten where that is possible."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

_ARG_START, _ARG_END = 45, 46  # in /proc/PID/stat, counted from behind the name (proc(5): fields 48 and 49)
USERINFO: Final = r"//([^/?#\0]*)@"  # of a URL


def conceal(patterns: Sequence[str]) -> None:
    r"""Put asterisks in the place of what group 1 of each pattern finds among our arguments, each of which ends in \0.

    That is for Linux, and as soon as we can: whoever looks before has seen them.  Elsewhere nothing happens.
    """
    if patterns and sys.platform == "linux":
        with suppress(OSError, ValueError, IndexError, ImportError):
            _overwrite(patterns)


def _overwrite(patterns: Sequence[str]) -> None:
    import ctypes

    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    start, stop = int(fields[_ARG_START]), int(fields[_ARG_END])
    memory = ctypes.string_at(start, stop - start)
    for pattern in patterns:
        for match in re.finditer(os.fsencode(pattern), memory):
            ctypes.memset(start + match.start(1), ord("*"), len(match[1]))
