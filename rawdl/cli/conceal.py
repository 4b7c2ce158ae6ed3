"""Secrets on the command line, which everybody on the machine can read (``ps``): overwritten where that is possible."""

from __future__ import annotations

import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from rawdl.proto.url import PROOF

_ARG_START, _ARG_END = 45, 46  # in /proc/PID/stat, counted from behind the name (proc(5): fields 48 and 49)
# What is secret in any URL.
_IN_URLS: Final = (r"(//)[^/?#\0]*(?=@)", PROOF)


def conceal(arguments: Iterable[str], patterns: Iterable[str]) -> None:
    r"""Put asterisks in the place of what the patterns, and those of URLs, find behind their group 1 in our arguments.

    In memory each argument ends in \0.  That is for Linux, and as soon as we can: whoever looks before has seen them.
    Elsewhere nothing happens.
    """
    memory = "\0".join([*arguments, ""])
    found = [pattern for pattern in (*patterns, *_IN_URLS) if re.search(pattern, memory)]
    if found and sys.platform == "linux":
        with suppress(OSError, ValueError, IndexError, ImportError):
            _overwrite(found)


def in_fields(header: Iterable[tuple[str, str | None]]) -> list[str]:
    """Return patterns for the values of header fields."""
    return [rf"({re.escape(name)}[ \t]*:[ \t]*){re.escape(value)}" for name, value in header if value]


def in_options(given: Namespace) -> list[str]:
    """Return patterns for the values of options that are secret as a whole."""
    values = [getattr(given, name, "") for name in ("user", "bearer", "cookie")]
    return [rf"(){re.escape(text)}(?=\0)" for text in values if text]


def _overwrite(patterns: Sequence[str]) -> None:
    import ctypes

    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    start, stop = int(fields[_ARG_START]), int(fields[_ARG_END])
    memory = ctypes.string_at(start, stop - start)
    for pattern in patterns:
        for match in re.finditer(os.fsencode(pattern), memory):
            ctypes.memset(start + match.end(1), ord("*"), match.end() - match.end(1))
