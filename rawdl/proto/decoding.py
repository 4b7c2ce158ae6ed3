"""Content codings and how they come off (RFC 9110 8.4.1), with bounded memory whatever the ratio.

    gzip, x-gzip   RFC 1952; members that follow one another are one body, as are zeros behind the last
    deflate        RFC 1950, and RFC 1951 without that wrapper, which some servers send
    br             RFC 7932, by brotli (extra ``brotli``)
    zstd           RFC 8878, by Python 3.14 or backports.zstd (extra ``zstd``); windows of up to 8 MiB (RFC 9659)

Anything else behind the end of a coded body is an error, and so is a body that ends before its coding does; but a body
without a single byte is an empty one, as browsers and curl have it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from rawdl.errors import DecodingError, TooLarge
from rawdl.proto.fields import escape

__all__ = ["Decoder", "accepted", "codings_of", "decoder"]

MOST_CODINGS: Final = 5  # one is usual; each may blow up what the next one gets
_PIECE: Final = 65536  # bytes that one stage hands to the next at once
_WINDOW_LOG: Final = 23  # 8 MiB
# What goes in at once, cut at multiples of this from the body's first byte: so what is counted does not depend on how
# the bytes came, and what zlib copies of the input that it leaves stays little.
_BLOCK: Final = 4096


def decoder(codings: str, *, limit: int | None = None, ratio: int | None = None) -> Decoder:
    """Make a decoder for a value of Content-Encoding: codings in the order in which they were applied.

    ``limit`` bounds the decoded bytes, and ``ratio`` how many of them there are for each byte that has come by then,
    to the next 4 KiB; the first 64 KiB are free, since a small body may well be all of one letter.  Raises
    DecodingError for more than five codings, for one that is unknown, and for one whose package is not installed.
    """
    return Decoder(codings_of(codings), limit, ratio)


def codings_of(value: str) -> list[str]:
    """Return the codings of a Content-Encoding, in lower case; identity is none."""
    names = [name.strip(" \t").lower() for name in value.split(",")]
    return [name for name in names if name not in ("", "identity")]


def accepted() -> str:
    """Return what to ask for: the codings that can be taken off here."""
    names = ["gzip", "deflate"]
    for name in ("br", "zstd"):
        with suppress(DecodingError):
            _ENGINES[name]()
            names.append(name)
    return ", ".join(names)


class Decoder:
    """Take the codings off a body, the last that was applied first.

    `pieces` yields what its data decodes to, some 64 KiB at a time; it must be exhausted before the next call.
    `flush` is to be called at the end of the body.  Both raise DecodingError and TooLarge, and nothing else; after one
    every further call raises it again.
    """

    __slots__ = ("_failure", "_limit", "_ratio", "_stages", "_taken", "decoded")

    def __init__(self, codings: Sequence[str], limit: int | None, ratio: int | None) -> None:
        if len(codings) > MOST_CODINGS:
            raise DecodingError(f"{len(codings)} content codings, where {MOST_CODINGS} are the most")
        self._stages = [_Stage(name) for name in reversed(codings)]
        self._limit = limit
        self._ratio = ratio
        self._failure: DecodingError | TooLarge | None = None
        self._taken = 0  # bytes that went in
        self.decoded = 0  # and that have come out

    def decode(self, data: bytes | memoryview) -> bytes:
        """Return all that ``data`` decodes to, which may be a thousand times as much."""
        return b"".join(self.pieces(data))

    def pieces(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Yield what ``data`` decodes to."""
        if self._failure is not None:
            raise self._failure
        try:
            for block in self._blocks(data):
                yield from self._decoded(block)
        except (DecodingError, TooLarge) as exc:
            self._failure = exc
            raise

    def _blocks(self, data: bytes | memoryview) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            block = bytes(data[at : at + _BLOCK - self._taken % _BLOCK])
            at += len(block)
            self._taken += len(block)
            yield block

    def _decoded(self, block: bytes) -> Iterator[bytes]:
        begin = (self._taken - 1) // _BLOCK * _BLOCK
        limit = self._most(begin + _BLOCK)
        for piece in _through(self._stages, block, begin):
            self.decoded += len(piece)
            if limit is not None and self.decoded > limit:
                whole = "" if limit == self._limit else f" for the first {begin + _BLOCK} that come"
                raise TooLarge(f"the body decodes to more than the {limit} bytes that are allowed{whole}", limit=limit)
            yield piece

    def _most(self, taken: int) -> int | None:
        """Return how many bytes may have come out when so many went in."""
        if self._ratio is None:
            return self._limit
        most = max(_PIECE, self._ratio * taken)
        return most if self._limit is None else min(most, self._limit)

    def flush(self) -> bytes:
        """Tell that the body is complete: DecodingError if a coding is not.  Nothing is left to be returned."""
        try:
            if self._failure is not None:
                raise self._failure
            for stage in self._stages:
                stage.finish()
        except DecodingError as exc:
            self._failure = exc
            raise
        return b""


def _through(stages: Sequence[_Stage], data: bytes, at: int) -> Iterator[bytes]:
    if not stages:
        yield data
        return
    for piece in stages[0].pieces(data, at):
        yield from _through(stages[1:], piece, at)


class _Engine(Protocol):
    """What one coding needs: bounded output, and to know its end.  Raises whatever its library does."""

    ended: bool

    def decode(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """Return some output, the input that is left, and whether more output can be had without more input."""


class _Stage:
    """One coding of a chain."""

    __slots__ = ("_engine", "_fed", "_make", "_name")

    def __init__(self, name: str) -> None:
        make = _ENGINES.get(name)
        if make is None:
            raise DecodingError(f"an unknown content coding: {escape(name[:40])}")
        self._name = name
        self._make = make
        self._engine: _Engine = make()
        self._fed = 0  # bytes, of all streams

    def pieces(self, data: bytes, at: int) -> Iterator[bytes]:
        """Yield what ``data`` decodes to; ``at`` is where in the body its block begins, for errors to tell."""
        more = bool(data)
        self._fed += len(data)
        while data or more:
            if self._engine.ended and self._name in _BEGINNINGS:
                data = self._next(data)
                more = bool(data)
                continue
            try:
                piece, data, more = self._engine.decode(data)
            except Exception as exc:  # each library has an error of its own
                what = _BROKEN.get(self._name, "is broken")
                where = f"in the {_BLOCK} bytes from byte {at} of the body"
                raise DecodingError(f"the {self._name} content {what}, {where}") from exc
            if piece:
                yield piece

    def _next(self, data: bytes) -> bytes:
        """Begin another stream behind one that has ended, if the coding may have several."""
        if self._name in ("gzip", "x-gzip"):
            data = data.lstrip(b"\0")
        if data and data[0] not in _BEGINNINGS[self._name]:
            size = self._fed - len(data)
            raise DecodingError(f"the {self._name} content has something behind its end, which is at {size} bytes")
        if data:
            self._engine = self._make()
        return data

    def finish(self) -> None:
        if self._fed and not self._engine.ended:
            raise DecodingError(f"the {self._name} content is incomplete, though the body is not")


class _Zlib:
    """gzip, and deflate with or without its wrapper."""

    __slots__ = ("_held", "_object", "ended")

    def __init__(self, wbits: int | None) -> None:
        import zlib

        self._object: Any = None if wbits is None else zlib.decompressobj(wbits)
        self._held = b""  # the first byte, while it takes two to tell
        self.ended = False

    def decode(self, data: bytes) -> tuple[bytes, bytes, bool]:
        if self._object is None:
            data, self._held = self._held + data, b""
            if len(data) < 2:
                self._held = data
                return b"", b"", False
            self._object = _deflate(data)
        piece = self._object.decompress(data, _PIECE)
        self.ended = self._object.eof
        left: bytes = self._object.unused_data if self.ended else self._object.unconsumed_tail
        return piece, left, len(piece) == _PIECE


def _deflate(data: bytes) -> Any:
    """Tell zlib's wrapper by its header (RFC 1950 2.2) from a stream without one."""
    import zlib

    wrapped = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
    return zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)


class _Brotli:
    __slots__ = ("_object", "ended")

    def __init__(self) -> None:
        try:
            from brotli import Decompressor  # type: ignore[import-untyped, unused-ignore]

            self._object: Any = Decompressor()
            self._object.process(b"", output_buffer_limit=_PIECE)  # unknown before brotli 1.2
        except (ImportError, TypeError) as exc:
            raise DecodingError("br needs a package: pip install 'rawdl[brotli]'") from exc
        self.ended = False

    def decode(self, data: bytes) -> tuple[bytes, bytes, bool]:
        if self.ended and data:
            raise ValueError("behind the end")  # as brotli itself says where it comes in the same piece
        piece = self._object.process(data, output_buffer_limit=_PIECE)
        self.ended = self._object.is_finished()
        return piece, b"", bool(piece) and not self.ended


class _Zstd:
    __slots__ = ("_object", "ended")

    def __init__(self) -> None:
        zstd = _zstd()
        self._object: Any = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
        self.ended = False

    def decode(self, data: bytes) -> tuple[bytes, bytes, bool]:
        piece = self._object.decompress(data, _PIECE)
        self.ended = self._object.eof
        return piece, self._object.unused_data if self.ended else b"", not self.ended and not self._object.needs_input


def _zstd() -> Any:
    try:
        # By version, since a module that is missing is looked for each time, and a frame can be of 8 bytes.
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError as exc:
        raise DecodingError("zstd needs a package: pip install 'rawdl[zstd]'") from exc
    return zstd


_ENGINES: Final[dict[str, Callable[[], _Engine]]] = {
    "gzip": lambda: _Zlib(31),
    "x-gzip": lambda: _Zlib(31),
    "deflate": lambda: _Zlib(None),
    "br": _Brotli,
    "zstd": _Zstd,
}
# What another stream may begin with behind one that has ended: ID1 (RFC 1952 2.3.1), and the first byte of Zstandard's
# and of the skippable frames' magic number (RFC 8878 3.1).
_BEGINNINGS: Final[dict[str, frozenset[int]]] = {
    "gzip": frozenset({0x1F}),
    "x-gzip": frozenset({0x1F}),
    "deflate": frozenset(),
    "zstd": frozenset({0x28, *range(0x50, 0x60)}),
}
_BROKEN: Final = {"br": "is broken, or something stands behind its end"}  # brotli does not tell which
