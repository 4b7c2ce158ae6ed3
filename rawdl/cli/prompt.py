"""Passwords that do not stand on the command line, where everybody on the machine can read them."""

from __future__ import annotations

import errno
import sys
from typing import Final

from rawdl.cli.report import UsageError

_LONGEST: Final = 4096  # bytes of a line: what OpenSSL takes is 1024, and /dev/zero has no end


def asked(flag: str, name: str) -> str:
    """Ask the terminal for the password of somebody or something."""
    if not sys.stdin or not sys.stdin.isatty():
        raise UsageError(f"{flag}: there is no password, and no terminal to ask for it")
    from getpass import getpass

    try:
        return getpass(f"Password of {name}: ")
    except EOFError:
        raise UsageError(f"{flag}: no password was given") from None


def first_line(flag: str, path: str, name: str) -> str:
    """Return the first line of a file; for ``-`` that of standard input, where a terminal does not show it."""
    if path == "-" and sys.stdin and sys.stdin.isatty():
        return asked(flag, name)
    where = "standard input" if path == "-" else path
    try:
        line = _read_line(path).decode()
    except OSError as exc:
        raise UsageError(f"{flag}: {where}: {exc.strerror or exc}") from exc
    except UnicodeDecodeError:  # which has the line in it
        raise UsageError(f"{flag}: {where}: the first line is not UTF-8") from None
    if not line:
        raise UsageError(f"{flag}: {where}: the first line is empty")
    return line


def _read_line(path: str) -> bytes:
    if path != "-":
        with open(path, "rb") as file:
            line = file.readline(_LONGEST)
    elif sys.stdin:
        line = sys.stdin.buffer.readline(_LONGEST)
    else:  # the descriptor is closed
        raise OSError(errno.EBADF, "it is closed")
    return line.removesuffix(b"\n").removesuffix(b"\r")
