"""``rawdl record URL``: the bytes of one response as they are on the wire, into a file that `replay` and fuzzers read.

Plain bytes are seen at the socket.  What TLS has protected is seen where the standard library hands it out: a context
makes its streams of a class that may be replaced (``SSLContext.sslobject_class``).
"""

from __future__ import annotations

import os
import shlex
import socket
from argparse import SUPPRESS, Namespace
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal

from rawdl.cli.conceal import conceal, in_fields
from rawdl.cli.grammar import Parser
from rawdl.cli.options import Options, tls_of
from rawdl.cli.readout import outcome_text
from rawdl.cli.replay import STDIN, How, Reading
from rawdl.cli.report import STORAGE, Unusable, complain, exit_code, message
from rawdl.cli.values import field, joined, seconds, size
from rawdl.client import Client
from rawdl.errors import DownloadError, InvalidURL, Timeout
from rawdl.proto.fields import escape
from rawdl.proto.messages import checked_fields
from rawdl.proto.redirects import Redirects
from rawdl.proto.retry import Retry
from rawdl.proto.url import URL, shown

if TYPE_CHECKING:
    import ssl

End = Literal["clean", "abrupt"]

_DESCRIPTION: Final = """\
Ask for a URL once, and write the bytes of the response as they are on the
wire: a seed for a fuzzer, and what rawdl replay reads. No proxy is used, no
redirect is followed, nothing is tried again."""
_EPILOG: Final = """\
The exit status is 0 if a response was recorded, whatever it is like; else it
is that of a download (rawdl --help all)."""


def main(arguments: list[str]) -> int:
    """Record, say what was recorded and how to read it, and return the exit status."""
    parser = _parser()
    given = parser.parse_intermixed_args(arguments)
    if given.output in ("", STDIN):
        parser.error("-o: a recording goes into a file")
    header = joined(given.header)
    try:
        checked_fields(header)
    except ValueError as exc:
        parser.error(f"-H: {exc}")
    conceal(arguments, in_fields(given.header))
    tape = Tape(given.max_size)
    try:
        if not given.overwrite and os.path.lexists(given.output):
            raise Unusable(f"{given.output} is there already: --overwrite replaces it", STORAGE)
        error = _download(given, header, tape)
        if not tape.data and error is not None:
            complain(message(shown(given.url), error))
            return exit_code(error)
        _save(tape.data, given.output, overwrite=given.overwrite)
    except Unusable as exc:
        complain(f"rawdl: {exc}")
        return exc.code
    _tell(tape, error, given.output)
    return 0


class Tape:
    """What one response brings, at most ``most`` bytes of it, and how its connection ends."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = bytearray()
        self._requests = 0
        self.end: End | None = None  # None: nobody has seen it

    @property
    def data(self) -> bytes:
        """The bytes."""
        return bytes(self._taken[: self._most])

    @property
    def is_cut(self) -> bool:
        """Whether there was more."""
        return len(self._taken) > self._most

    def trace(self, phase: str, event: str, data: dict[str, object]) -> None:
        """Count the requests: a failure may lead to a second one, for what a Link field tells of."""
        self._requests += (phase, event) == ("send", "started")

    def take(self, data: memoryview) -> None:
        """Note what has come."""
        if self._requests == 1 and not self.is_cut:
            self._taken += data

    def ended(self, how: End) -> None:
        """Note the end of the connection; the first word about it counts."""
        if self._requests == 1:
            self.end = self.end or how

    def check(self, data: memoryview) -> None:
        """Refuse payload, which ends the download, where there is no room for it."""
        if self.is_cut:
            raise BufferError("the tape is full")


class TappedSocket:
    """A socket, as far as a download needs one, that notes what it receives.

    It is none of the system's, and so the kernel is not asked to move its bytes past us.  Under TLS only its end is
    noted, which without a close_notify is none that was meant.
    """

    def __init__(self, tape: Tape, is_plain: bool, family: int, kind: int, protocol: int) -> None:
        sock = socket.socket(family, kind, protocol)
        self._tape = tape
        self._is_plain = is_plain
        self._recv_into = sock.recv_into
        self.fileno, self.close = sock.fileno, sock.close
        self.setblocking, self.setsockopt, self.getsockopt = sock.setblocking, sock.setsockopt, sock.getsockopt
        self.bind, self.connect_ex, self.send = sock.bind, sock.connect_ex, sock.send

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read, and note it."""
        try:
            n = self._recv_into(buffer)
        except BlockingIOError:
            raise
        except OSError:
            self._tape.ended("abrupt")
            raise
        if n == 0:
            self._tape.ended("clean" if self._is_plain else "abrupt")
        elif self._is_plain:
            self._tape.take(buffer[:n])
        return n


def _tapped_context(tape: Tape, given: Namespace) -> ssl.SSLContext:
    """Make a context whose streams note what they decrypt."""
    import ssl

    from rawdl.tls import TLS

    class TappedStream(ssl.SSLObject):
        def read(self, len: int = 1024, buffer: Any = None) -> Any:
            n: Any = super().read(len, buffer)
            if n == 0:  # a close_notify
                tape.ended("clean")
            tape.take(memoryview(buffer)[:n])
            return n

    trust: dict[str, Any] = {"verify": False} if given.insecure else {}
    if given.cacert is not None:
        trust["ca_file"] = given.cacert
    settings = tls_of(Options(urls=[given.url], tls=trust))
    context = (settings or TLS()).context()
    context.sslobject_class = TappedStream
    return context


def _download(given: Namespace, header: dict[str, str | None], tape: Tape) -> DownloadError | None:
    """Download once, onto the tape, and return how that failed, or None."""
    try:
        is_plain = URL.parse(given.url).scheme == "http"
    except InvalidURL as exc:
        return exc
    with Client(
        proxy=None,
        tls=None if is_plain else _tapped_context(tape, given),
        retry=Retry(attempts=1),
        redirects=Redirects(limit=0),
        socket_factory=lambda family, kind, protocol: TappedSocket(tape, is_plain, family, kind, protocol),
        trace=tape.trace,
    ) as client:
        task = client.download_file(url=given.url, header=header, sink=tape.check, timeout=given.timeout)
        try:
            task.result()
        except DownloadError as exc:
            return exc
    return None


def _save(data: bytes, path: str, *, overwrite: bool) -> None:
    made = False
    try:
        with open(path, "wb" if overwrite else "xb") as file:
            made = not overwrite
            file.write(data)
    except OSError as exc:
        if made:
            with suppress(OSError):
                os.unlink(path)
        raise Unusable(f"cannot write {path}: {exc.strerror or exc}", STORAGE) from exc


def _tell(tape: Tape, error: DownloadError | None, path: str) -> None:
    eof, end = _ending(tape, error)
    reading = Reading(tape.data, How(eof=eof))
    for _ in reading:
        pass
    name = escape(path)
    print(f"{name}: {len(tape.data)} bytes; {outcome_text(reading.outcome)}")
    print(f"{name}: {escape(end)}")
    print(shlex.join(["rawdl", "replay", *([] if eof == "clean" else ["--eof", eof or "none"]), path]))


def _ending(tape: Tape, error: DownloadError | None) -> tuple[End | None, str]:
    """Return the end that a replay shall have, and what the real one was."""
    if tape.is_cut:
        return None, "there was more: --max-size lets it in"
    if tape.end is not None:
        return tape.end, f"the server {'closed the connection' if tape.end == 'clean' else 'broke the connection off'}"
    if isinstance(error, Timeout):
        return None, f"the server fell silent: {error}"
    return "clean", "the connection was open until the response had been read"


def _parser() -> Parser:
    parser = Parser("rawdl record", _DESCRIPTION, "rawdl record URL -o FILE [options]", _EPILOG)
    add = parser.add_argument
    add("url", metavar="URL", help=SUPPRESS)
    add("-o", "--output", metavar="FILE", required=True, help="write there")
    header_help = "add, or replace, a header field; 'K:' drops it"
    add("-H", "--header", metavar="'K: V'", type=field, action="append", default=[], help=header_help)
    add("--overwrite", action="store_true", help="replace a file that is there")
    size_help = "write that many bytes at most (1M); K, M, G are 1024-based"
    add("--max-size", metavar="N", type=size, default=1 << 20, help=size_help)
    add("--timeout", metavar="S", type=seconds, help="give up after so many seconds in total")
    add("--cacert", metavar="FILE", help="trust the certificates in this PEM file, and no other")
    add("-k", "--insecure", action="store_true", help="do not verify certificates")
    add("-h", "--help", action="help", help="print this")
    return parser
