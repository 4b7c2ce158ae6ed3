"""Whether the bytes are those that were promised, by the caller or by the server.

They are hashed on their way where all of them go that way, and read back from the file where not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from rawdl.proto.checksums import TRUSTED, Checksum, mismatch
from rawdl.sinks import HashingTee, Sink

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Iterable

# Hashed in one turn of the loop: some milliseconds.
_PIECE: Final = 4 << 20


class Readable(Protocol):
    """A file that can be read back."""

    def read(self, start: int, count: int) -> bytes:
        """Return so many bytes of it from there on, or what there is; StorageError."""


class Verification:
    """Verify one download: tell it what to `expect`, give `sink_after` its bytes, and `step` until it returns True."""

    __slots__ = ("_at", "_file", "_hashes", "_sink", "_tee", "expected", "verified")

    def __init__(self, sink: Sink, file: Readable | None, expected: tuple[Checksum, ...]) -> None:
        self._sink = sink
        self._file = file
        self.expected = expected
        self._tee: HashingTee | None = None  # through which all bytes have gone
        self._hashes: dict[str, hashlib._Hash] | None = None  # of what is read back
        self._at = 0
        self.verified = ""  # what the bytes were compared with, as text

    def expect(self, promised: Iterable[Checksum]) -> None:
        """Take what the bytes have to be as well."""
        self.expected += tuple(checksum for checksum in promised if checksum not in self.expected)

    def sink_after(self, base: int) -> Sink:
        """Return the sink for bytes that come in order, after ``base`` others of the file."""
        if not base:
            # What a trailer will promise, if it has been announced, is one of those that are believed.
            self._tee = HashingTee(self._sink, {checksum.name for checksum in self.expected} or TRUSTED)
        return self._tee or self._sink

    def step(self) -> bool:
        """Do a piece of the work; return whether it is done.  Raises ChecksumError, and StorageError."""
        hashes = self._tee.hashes if self._tee is not None else {}
        if self._file is not None and any(checksum.name not in hashes for checksum in self.expected):
            if not self._read_back(self._file):
                return False
            assert self._hashes is not None
            hashes = self._hashes
        known = [checksum for checksum in self.expected if checksum.name in hashes]
        for checksum in known:
            if hashes[checksum.name].digest() != checksum.digest:
                raise mismatch(checksum, hashes[checksum.name].digest())
        self.verified = ", ".join(map(str, known))
        return True

    def _read_back(self, file: Readable) -> bool:
        if self._hashes is None:
            import hashlib

            self._hashes = {checksum.name: hashlib.new(checksum.name) for checksum in self.expected}
        data = file.read(self._at, _PIECE)
        for digest in self._hashes.values():
            digest.update(data)
        self._at += len(data)
        return not data

    def __repr__(self) -> str:
        return f"<Verification against {', '.join(map(str, self.expected)) or 'nothing'}>"
