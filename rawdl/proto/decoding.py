"""Content codings and how they come off (RFC 9110 8.4.1), with bounded memory whatever the ratio.

    gzip, x-gzip   RFC 1952; members that follow one another are one body, as are zeros behind the last
    deflate        RFC 1950, and RFC 1951 without that wrapper, which some servers send
    br             RFC 7932, by brotli (extra ``brotli``)
    zstd           RFC 8878, by Python 3.14 or backports.zstd (extra ``zstd``); windows of up to 8 MiB (RFC 9659)

Anything else behind the end of a coded body is an error, and so is a body that ends before its coding does; but a body
without a single byte is an empty one, as browsers and curl have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from rawdl.errors import DecodingError, TooLarge
from rawdl.proto.fields import escape

__all__ = ["Decoder", "accepted", "codings_of", "decoder"]

MOST_CODINGS: Final = 5  # one is usual; each may blow up what the next one gets
_PIECE: Final = 65536  # bytes that one stage hands to the next at once
_WINDOW_LOG: Final = 23  # 8 MiB


def decoder(codings: str, *, limit: int | None = None, ratio: int | None = None) -> Decoder:
    """Make a decoder for a value of Content-Encoding: codings in the order in which they were applied.

    ``limit`` bounds the decoded bytes, and ``ratio`` how many of them there are for each byte that has come by then;
    the first 64 KiB are free, since a small body may well be all of one letter.  Raises DecodingError for more than
    five codings, for one that is unknown, and for one whose package is not installed.
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

    `pieces` yields what its data decodes to, at most 64 KiB at a time; it must be exhausted before the next call.
    `flush` is to be called at the end of the body.  Both raise DecodingError and TooLarge, and nothing else; after one
    the decoder is of no more use.
    """

    __slots__ = ("_limit", "_ratio", "_stages", "_taken", "decoded")

    def __init__(self, codings: Sequence[str], limit: int | None, ratio: int | None) -> None:
        if len(codings) > MOST_CODINGS:
            raise DecodingError(f"{len(codings)} content codings, where {MOST_CODINGS} are the most")
        self._stages = [_Stage(name) for name in reversed(codings)]
        self._limit = limit
        self._ratio = ratio
        self._taken = 0  # bytes that went in
        self.decoded = 0  # and that have come out

    def decode(self, data: bytes | memoryview) -> bytes:
        """Return all that ``data`` decodes to, which may be a thousand times as much."""
        return b"".join(self.pieces(data))

    def pieces(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Yield what ``data`` decodes to."""
        self._taken += len(data)
        limit = self._most()
        for piece in _through(self._stages, bytes(data)):
            self.decoded += len(piece)
            if limit is not None and self.decoded > limit:
                message = f"the body has {self.decoded} decoded bytes or more; {limit} are allowed"
                raise TooLarge(f"{message}, for {self._taken} that came", limit=limit)
            yield piece

    def _most(self) -> int | None:
        """Return how many bytes may have come out by now."""
        if self._ratio is None:
            return self._limit
        most = max(_PIECE, self._ratio * self._taken)
        return most if self._limit is None else min(most, self._limit)

    def flush(self) -> bytes:
        """Tell that the body is complete: DecodingError if a coding is not.  Nothing is left to be returned."""
        for stage in self._stages:
            stage.finish()
        return b""


def _through(stages: Sequence[_Stage], data: bytes) -> Iterator[bytes]:
    if not stages:
        yield data
        return
    for piece in stages[0].pieces(data):
        yield from _through(stages[1:], piece)


class _Engine(Protocol):
    """What one coding needs: bounded output, and to know its end.  Raises whatever its library does."""

    ended: bool

    def decode(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """Return some output, the input that is left, and whether more output can be had without more input."""


class _Stage:
    """One coding of a chain."""

    __slots__ = ("_begun", "_engine", "_make", "_name", "_taken")

    def __init__(self, name: str) -> None:
        make = _ENGINES.get(name)
        if make is None:
            raise DecodingError(f"an unknown content coding: {escape(name[:40])}")
        self._name = name
        self._make = make
        self._engine: _Engine = make()
        self._begun = False  # the stream, or another that follows it
        self._taken = False  # anything at all

    def pieces(self, data: bytes) -> Iterator[bytes]:
        more = bool(data)
        while data or more:
            if self._engine.ended:
                data = self._next(data)
                more = bool(data)
                continue
            self._begun = self._taken = True
            try:
                piece, data, more = self._engine.decode(data)
            except DecodingError:
                raise
            except Exception as exc:  # each library has an error of its own
                raise _spoiled(self._name) from exc
            if piece:
                yield piece

    def _next(self, data: bytes) -> bytes:
        """Begin another stream behind one that has ended, if the coding may have several."""
        if self._name in ("gzip", "x-gzip"):
            data = data.lstrip(b"\0")
        if data and self._name not in _REPEATABLE:
            raise _spoiled(self._name)
        if data:
            self._engine, self._begun = self._make(), False
        return data

    def finish(self) -> None:
        if self._taken and not self._engine.ended:
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
    __slots__ = ("_error", "_object", "ended")

    def __init__(self) -> None:
        try:
            from brotli import Decompressor, error  # type: ignore[import-untyped, unused-ignore]
        except ImportError as exc:
            raise DecodingError("br needs a package: pip install 'rawdl[brotli]'") from exc
        self._object: Any = Decompressor()
        self._error: type[Exception] = error
        self.ended = False

    def decode(self, data: bytes) -> tuple[bytes, bytes, bool]:
        try:
            piece = self._object.process(data, output_buffer_limit=_PIECE)
        except self._error as exc:  # which is also what it says of bytes behind the end
            raise _spoiled("br") from exc
        self.ended = self._object.is_finished()
        return piece, b"", bool(piece)


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


def _spoiled(name: str) -> DecodingError:
    return DecodingError(f"the {name} content is broken, or something stands behind its end")


def _zstd() -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        try:
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
_REPEATABLE: Final = frozenset({"gzip", "x-gzip", "zstd"})
