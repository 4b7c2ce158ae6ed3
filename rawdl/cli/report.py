"""What people and programs are told of an outcome: the message, the exit code, the JSON event."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from rawdl.errors import (
    Aborted,
    ChecksumError,
    ConnectError,
    DecodingError,
    DownloadError,
    IncompleteBody,
    IncompleteHead,
    InvalidURL,
    NetworkError,
    ProtocolError,
    ProxyError,
    RangeError,
    RedirectError,
    ResolveError,
    StatusError,
    StorageError,
    Timeout,
    TLSError,
    TooLarge,
)
from rawdl.proto.fields import escape


class Cause(NamedTuple):
    """An exit code, what it means, and the errors that lead to it."""

    code: int
    meaning: str
    kinds: tuple[type[DownloadError], ...] = ()


USAGE: Final = 2
STORAGE: Final = 23
CERTIFICATE: Final = 60
CA_FILE: Final = 77
UNPINNED: Final = 90
SIGNALLED: Final = 128  # and the number of the signal, as shells count

# The one table of exit codes.  The numbers are curl's where curl has one, since scripts know them.
CAUSES: Final = (
    Cause(1, "something else", (DownloadError,)),
    Cause(USAGE, "wrong usage"),
    Cause(3, "malformed URL", (InvalidURL,)),
    Cause(6, "host not found", (ResolveError,)),
    Cause(7, "cannot connect", (ConnectError,)),
    Cause(8, "not HTTP/1.1", (ProtocolError,)),
    Cause(18, "closed too early", (IncompleteHead, IncompleteBody)),
    Cause(22, "status, and no file", (StatusError,)),
    Cause(STORAGE, "cannot write", (StorageError,)),
    Cause(28, "time limit", (Timeout,)),
    Cause(32, "wrong checksum", (ChecksumError,)),
    Cause(33, "cannot resume", (RangeError,)),
    Cause(35, "TLS failed", (TLSError,)),
    Cause(42, "aborted", (Aborted,)),
    Cause(47, "redirect refused", (RedirectError,)),
    Cause(56, "connection broke", (NetworkError,)),
    Cause(CERTIFICATE, "bad certificate"),
    Cause(61, "bad content coding", (DecodingError,)),
    Cause(63, "too large", (TooLarge,)),
    Cause(CA_FILE, "bad PEM file"),
    Cause(UNPINNED, "key is not pinned"),
    Cause(97, "proxy failed", (ProxyError,)),
    Cause(SIGNALLED + 2, "interrupted"),
    Cause(SIGNALLED + 15, "terminated"),
)
_CODES: Final = {kind: cause.code for cause in CAUSES for kind in cause.kinds}


class UsageError(Exception):
    """The command line asks for what cannot be; the message says what."""


class Unusable(Exception):
    """A file or folder that the command needs is of no use; the message says why, ``code`` is the exit status."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def exit_code(error: DownloadError) -> int:
    """Return the code of the nearest class that has one."""
    if isinstance(error, TLSError) and error.certificate:
        return UNPINNED if error.unpinned else CERTIFICATE
    return next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)


def message(url: str, error: DownloadError) -> str:
    """Return the one line that tells of a failure; nothing in it can act on a terminal."""
    text = str(error).removesuffix(f" for {url}")  # the line begins with it
    return escape(f"rawdl: {url}: {text}")


def kept_text(parts: Sequence[str]) -> str:
    """Return what such a line ends with if these parts are left of the downloads."""
    if not parts:
        return ""
    what = f"{os.path.basename(parts[0])} is" if len(parts) == 1 else f"{len(parts)} parts are"
    return escape(f"; {what} kept: the same command goes on from there")


def complain(line: str) -> None:
    """Print a line on standard error; one that is closed or cannot be written to is not worth failing for."""
    with suppress(OSError, ValueError):
        if sys.stderr:  # None if the descriptor is closed: print would take standard output then
            print(escape(line), file=sys.stderr)


def json_line(event: str, url: str, fields: dict[str, object]) -> bytes:
    """Return one line of NDJSON that tells of a download."""
    return ndjson({"event": event, **fields, "url": url})


def ndjson(fields: Mapping[str, object]) -> bytes:
    """Return one line of NDJSON: pure ASCII, so that no terminal acts on it."""
    from json import dumps

    line = dumps(fields)
    return line.replace("\x7f", "\\u007f").encode("ascii") + b"\n"
