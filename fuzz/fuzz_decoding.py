"""A coded body decodes to the same, or fails with one of two errors, however it is cut, and never beyond the limit."""

from __future__ import annotations

import gzip
import zlib

from rawdl.errors import DecodingError, TooLarge
from rawdl.proto.decoding import decoder

LIMIT = 1 << 20
CODINGS = ("gzip", "deflate", "gzip, deflate", "gzip, gzip")


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # the same seeds each time


_TEXT = b"hello, hello, hello, world. " * 20
SEEDS: tuple[bytes, ...] = (
    b"\0" + _gzip(_TEXT),
    b"\0" + _gzip(_TEXT) + bytes(9) + _gzip(b"more"),
    b"\1" + zlib.compress(_TEXT),
    b"\1" + zlib.compress(_TEXT)[2:-4],
    b"\2" + zlib.compress(_gzip(_TEXT)),
    b"\3" + _gzip(_gzip(_TEXT))[:-9],
    b"\0" + _gzip(b"") + b"\x1f",
    b"\3" + _gzip(_gzip(bytes(1 << 21))),
)


def check(data: bytes) -> None:
    """The first octet chooses the codings."""
    if not data:
        return
    codings, body = CODINGS[data[0] % len(CODINGS)], data[1:]
    whole = outcome(codings, [body])
    pieces = [body[at : at + 1] for at in range(len(body))]
    bytewise = outcome(codings, pieces)
    assert whole == bytewise or (isinstance(whole, type) and isinstance(bytewise, type)), (whole, bytewise)


def outcome(codings: str, pieces: list[bytes]) -> bytes | type[Exception]:
    decoding = decoder(codings, limit=LIMIT)
    found = bytearray()
    try:
        for piece in pieces:
            for decoded in decoding.pieces(piece):
                found += decoded
                assert len(found) <= LIMIT
        decoding.flush()
    except (DecodingError, TooLarge) as exc:
        return type(exc)
    return bytes(found)
