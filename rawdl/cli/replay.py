"""``rawdl replay FILE...``: recorded responses through the state machine, without a socket, and what came of them."""

from __future__ import annotations

import errno
import random
import shlex
import sys
from argparse import SUPPRESS, ArgumentTypeError, Namespace
from collections.abc import Iterator
from dataclasses import fields
from hashlib import sha256
from typing import Final, Literal, NamedTuple, TextIO

from rawdl.cli.compare import (
    COMPLETE,
    INCOMPLETE,
    REJECTED,
    TOO_LARGE,
    Outcome,
    by_http_client,
    by_llhttp,
)
from rawdl.cli.grammar import Parser
from rawdl.cli.readout import Json, Output, Text
from rawdl.cli.report import USAGE, complain, exit_code
from rawdl.errors import DownloadError, IncompleteBody, IncompleteHead, ProtocolError, StorageError, TooLarge
from rawdl.proto import (
    BodyComplete,
    DataReceived,
    Event,
    Exchange,
    HeadReceived,
    Limits,
    Request,
    replay,
)
from rawdl.proto.http11 import State
from rawdl.proto.url import URL

STDIN: Final = "-"
_URL: Final = "http://example.org/"
_SPLITS: Final = ("whole", "bytes", "7", "random:0")
_LIMITS: Final = tuple(field.name for field in fields(Limits) if field.name not in ("decoded", "ratio"))

_DESCRIPTION: Final = """\
Read recorded responses as a download would, with no socket: what rawdl record
has written, or a fuzzer. There is one reading, however the bytes are cut; no
flag makes it lenient."""
_EPILOG: Final = """\
exit status (of several failures, the first file's):
    0 complete             8 rejected             63 too large
    1 the cuts disagree   18 closed too early      2 wrong usage, no such file"""


class How(NamedTuple):
    """How a recording is read: all that the outcome may depend on, and ``split``, on which it may not."""

    split: str = "whole"
    eof: Literal["clean", "abrupt"] | None = "clean"
    method: str = "GET"
    limits: Limits = Limits()


def main(arguments: list[str]) -> int:
    """Read every file, tell of each, and return the exit status."""
    parser = _parser()
    given = parser.parse_intermixed_args(arguments)
    try:
        limits = Limits(**dict(given.limit))
        Request(given.method, URL.parse(_URL))
    except ValueError as exc:
        parser.error(str(exc))
    how = How(given.split, None if given.eof == "none" else given.eof, given.method, limits)
    try:
        return _tell_all(given, how)
    except StorageError as exc:  # of standard output
        if exc.errno != errno.EPIPE:
            _complain(str(exc))
        return exit_code(exc)


def _tell_all(given: Namespace, how: How) -> int:
    status, out = 0, Output()
    teller = (Json if given.json else Text)(out, with_data=given.data)
    for path in given.files:
        try:
            data = _read(path)
        except OSError as exc:
            _complain(f"{path}: {exc.strerror or exc}")
            status = status or USAGE
            continue
        failed = _tell(teller, path, data, how, given)
        status = status or failed
    out.flush()
    return status


def _tell(teller: Text | Json, path: str, data: bytes, how: How, given: Namespace) -> int:
    """Tell of one recording, and return its exit status."""
    reading = Reading(data, how)
    teller.begin(path, len(data), how)
    for event in reading:
        teller.event(event)
    teller.end(reading)
    if given.compare:
        teller.comparison(reading.outcome, list(_peers(data, how)))
    apart = _disagreement(data, how) if given.all_splits else None
    if given.all_splits:
        teller.splits(apart)
    if reading.error is not None:
        teller.reproduction(reproduction(path, how))
    return 1 if apart else reading.status


# Reading


class Reading:
    """One reading of a recording: iterate over it once, for its events, then ask what they amount to."""

    def __init__(self, data: bytes, how: How) -> None:
        self.error: DownloadError | None = None
        self._events = events(data, how)
        self._heads: list[tuple[object, ...]] = []
        self._status: int | None = None
        self._length = 0
        self._digest = sha256()
        self._end: BodyComplete | None = None

    def __iter__(self) -> Iterator[Event]:
        try:
            for event in self._events:
                self._take(event)
                yield event
        except (ProtocolError, TooLarge) as exc:
            self.error = exc
        if self.error is None and self._end is None:
            self.error = self._silence()

    def _take(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self._length += len(event.data)
            self._digest.update(event.data)
        elif isinstance(event, BodyComplete):
            self._end = event
        else:
            self._heads.append((event.status_code, event.header.fields))
            if isinstance(event, HeadReceived):
                self._status = event.status_code

    def _silence(self) -> DownloadError:
        if self._status is None:
            return IncompleteHead("the recording ends inside the response head")
        message = f"the recording ends after {self._length} bytes of the body, and no close is told of"
        return IncompleteBody(message, received=self._length, expected=None)

    @property
    def status(self) -> int:
        """The exit status."""
        return 0 if self.error is None else exit_code(self.error)

    @property
    def outcome(self) -> Outcome:
        """What it amounts to, in the terms that other parsers have as well."""
        why = "" if self.error is None else str(self.error)
        return Outcome(_verdict(self.error), self._status, self._length, self._digest.hexdigest(), why)

    def essence(self) -> dict[str, object]:
        """Read it, and return all that must be the same however it is cut."""
        for _ in self:
            pass
        told: dict[str, object] = self.outcome._asdict()
        told["why"] = type(self.error).__name__  # its text may tell how far the bytes had come
        return told | {"heads": self._heads, "trailer": self._end and self._end.trailer.fields}


def events(data: bytes, how: How) -> Iterator[Event]:
    """Return what `rawdl.proto.replay` does; and cut at random where that is asked for."""
    if how.split.startswith("random:"):
        return _fed(data, how)
    return replay(data, chunk_size=_chunk_size(how.split), eof=how.eof, method=how.method, limits=how.limits)


def _fed(data: bytes, how: How) -> Iterator[Event]:
    exchange = Exchange(Request(how.method, URL.parse(_URL)), limits=how.limits)
    exchange.data_sent(len(exchange.data_to_send()))
    for piece in pieces(data, how.split):
        exchange.receive_data(piece)
        while (event := exchange.next_event()) is not None:
            yield event
        if exchange.state is State.DONE:
            return
    if how.eof is not None:
        exchange.receive_eof(clean=how.eof == "clean")
        while (event := exchange.next_event()) is not None:
            yield event


def pieces(data: bytes, split: str) -> Iterator[bytes]:
    """Cut a recording as ``split`` says."""
    size = _chunk_size(split) or max(1, len(data))
    rng = random.Random(int(split.removeprefix("random:"))) if split.startswith("random:") else None
    at = 0
    while at < len(data):
        if rng is not None:
            # From one byte to some packets, few bytes as often as many; random() gives the same in every Python.
            size = int(4096 ** rng.random())
        yield data[at : at + size]
        at += size


def _chunk_size(split: str) -> int | None:
    if split == "bytes":
        return 1
    return int(split) if split.isdecimal() else None


def _verdict(error: DownloadError | None) -> str:
    if error is None:
        return COMPLETE
    if isinstance(error, TooLarge):
        return TOO_LARGE
    return INCOMPLETE if isinstance(error, IncompleteHead | IncompleteBody) else REJECTED


def _disagreement(data: bytes, how: How) -> str | None:
    """Read it in several cuts, and say which two do not agree, and in what; None as they should."""
    first, *others = ((split, Reading(data, how._replace(split=split)).essence()) for split in _SPLITS)
    for split, essence in others:
        if apart := [name for name in essence if essence[name] != first[1][name]]:
            return f"{split} differs from {first[0]} in {', '.join(apart)}"
    return None


def _peers(data: bytes, how: How) -> Iterator[tuple[str, Outcome | str]]:
    """Yield what others make of it, or why they are not asked."""
    yield "http.client", by_http_client(data, how.method, how.eof)
    if how.method == "HEAD":
        yield "llhttp", "left out: it has no way to be told of a HEAD request"
        return
    try:
        yield "llhttp", by_llhttp(pieces(data, how.split), how.eof)
    except ImportError:
        yield "llhttp", "left out: pip install rawdl[compare] gets it"


def reproduction(path: str, how: How) -> str:
    """Return a command for the shell that reads it in the very same way, and shows where it ends."""
    source = "sys.stdin.buffer.read()" if path == STDIN else f'open({_literal(path)}, "rb").read()'
    limits = [f"{name}={value}" for name in _LIMITS if (value := getattr(how.limits, name)) != getattr(Limits(), name)]
    options = [f"method={_literal(how.method)}"] if how.method != "GET" else []
    options += ["eof=None"] if how.eof is None else [f"eof={_literal(how.eof)}"] if how.eof != "clean" else []
    options += [f"limits=Limits({', '.join(limits)})"] if limits else []
    if how.split.startswith("random:"):
        call = f"list(events({source}, How({', '.join([f'split={_literal(how.split)}', *options])})))"
        names = "from rawdl.cli.replay import How, events" + ("; from rawdl.proto import Limits" if limits else "")
    else:
        size = _chunk_size(how.split)
        call = f"list(replay({', '.join([source, *([f'chunk_size={size}'] if size else []), *options])}))"
        names = f"from rawdl.proto import {'Limits, ' if limits else ''}replay"
    code = f"{'import sys; ' if path == STDIN else ''}{names}; {call}"
    return f"python -c {shlex.quote(code)}"


def _literal(text: str) -> str:
    """Spell a string in Python, in double quotes if it can be: the shell's are single ones."""
    spelled = repr(text)
    return spelled if '"' in spelled else f'"{spelled[1:-1]}"'


# The grammar


def _parser() -> Parser:
    parser = Parser("rawdl replay", _DESCRIPTION, "rawdl replay FILE... [options]", _EPILOG)
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help=SUPPRESS)
    cuts = parser.add_mutually_exclusive_group()
    split_help = "cut the bytes: whole (default), bytes, pieces of N bytes, or random:SEED"
    cuts.add_argument("--split", metavar="HOW", type=_split, default="whole", help=split_help)
    cuts.add_argument("--all-splits", action="store_true", help=f"fail (1) if {', '.join(_SPLITS)} do not agree")
    eof_help = "how the connection ended: clean (FIN, close_notify; the default), abrupt (RST) or none (silence)"
    add("--eof", metavar="HOW", choices=("clean", "abrupt", "none"), default="clean", help=eof_help)
    add("--method", metavar="NAME", default="GET", help="what was asked (GET); HEAD: the response has no body")
    limit_help = f"a limit of another size: {', '.join(_LIMITS)}"
    add("--limit", metavar="NAME=N", action="append", default=[], type=_limit, help=limit_help)
    add("--compare", action="store_true", help="say where http.client and llhttp (rawdl[compare]) read it differently")
    add("--data", action="store_true", help="show the bytes of the body; in JSON as base64")
    add("--json", action="store_true", help="print events as lines of JSON")
    add("-h", "--help", action="help", help="print this")
    return parser


def _split(text: str) -> str:
    kind, colon, seed = text.partition(":")
    if text in ("whole", "bytes") or (kind == "random" and colon and _is_number(seed)):
        return text
    if _is_number(text) and int(text):
        return str(int(text))
    raise ArgumentTypeError(f"{text} is not whole, bytes, a number of bytes or random:SEED")


def _limit(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name in _LIMITS and _is_number(number):
        return name, int(number)
    raise ArgumentTypeError(f"{text} is not NAME=N with a name of {', '.join(_LIMITS)}")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20


def _read(path: str) -> bytes:
    if path != STDIN:
        with open(path, "rb") as file:
            return file.read()
    stream: TextIO | None = sys.stdin  # None if the descriptor is closed
    if stream is None:
        raise OSError(errno.EBADF, "it is closed")
    return stream.buffer.read()


def _complain(text: str) -> None:
    complain(f"rawdl: {text}")
