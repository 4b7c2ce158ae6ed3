"""What the bytes of a file must hash to: by the word of the user, and by that of the server (RFC 9530, RFC 3230).

A user may name any hash that Python has.  Of a server's digests those count that RFC 9530 5 holds to be secure: what
can be forged (MD5, SHA-1 and the sums) proves nothing that TCP and TLS have not shown.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from rawdl.errors import ChecksumError
from rawdl.proto.fields import escape, parse_digest_field

if TYPE_CHECKING:
    from rawdl.proto.messages import Headers

__all__ = ["Checksum", "mismatch", "promised_by"]

# The fields' spelling, to hashlib's and the length in bytes (RFC 9530 5).
_TRUSTED = {"sha-256": ("sha256", 32), "sha-512": ("sha512", 64)}
TRUSTED = frozenset(name for name, _ in _TRUSTED.values())


class Checksum(NamedTuple):
    """A hash by its name in hashlib, and the digest that it must give; as text ``sha256:`` and hexadecimal digits."""

    name: str
    digest: bytes

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """Read ``NAME:HEX``; NAME is any of hashlib's, in upper or lower case, also as ``SHA-256`` or ``sha3-256``.

        Raises TypeError for what is no str; ValueError for a hash that is unknown or has no length of its own (the
        shakes), and for digits that are not hexadecimal or not of that length.
        """
        if not isinstance(text, str):
            raise TypeError(f"a checksum is a str, as in 'sha256:1f…', not {type(text).__name__}")
        spelling, colon, digits = text.partition(":")
        if not colon:
            raise ValueError(f"a checksum is written NAME:HEX, as in 'sha256:1f…', not {_quoted(text)}")
        name, size = _algorithm(spelling)
        if re.fullmatch("[0-9A-Fa-f]*", digits) is None:
            raise ValueError(f"a {name} checksum is written in hexadecimal digits, not {_quoted(digits)}")
        if len(digits) != 2 * size:
            raise ValueError(f"a {name} checksum has {2 * size} hexadecimal digits, not {len(digits)}")
        return cls(name, bytes.fromhex(digits))

    @property
    def hex(self) -> str:
        return self.digest.hex()

    def __str__(self) -> str:
        return f"{self.name}:{self.hex}"


def promised_by(header: Headers, *, partial: bool) -> tuple[Checksum, ...]:
    """Return what a response says of the whole file, in the order of its saying; `header` may be a trailer section.

    It is about the bytes as they came, any content coding still on them, and not about what decoding makes of them.
    ``partial`` says that the content is not the whole file (a 206): then Content-Digest, which is of this content, is
    left out (RFC 9530 2), while Repr-Digest is of the whole in any case (RFC 9530 3).  The older Digest (RFC 3230,
    RFC 6249 6) is of the whole too, and counts where the others promise nothing.  Malformed digests, and those of a
    wrong length, are passed over.  Two of one hash that differ are both returned, since no file can keep both.
    """
    promises = list(parse_digest_field(header.get("Repr-Digest", "")).items())
    if not partial:
        promises += parse_digest_field(header.get("Content-Digest", "")).items()
    return _trusted(promises) or _trusted(_instance_digests(header.get("Digest", "")))


def mismatch(expected: Checksum, actual: bytes) -> ChecksumError:
    """Return the error to raise for bytes that hash to ``actual`` instead."""
    found = Checksum(expected.name, actual)
    message = f"checksum mismatch: the bytes are {found}, where {expected} was promised"
    return ChecksumError(message, expected=str(expected), actual=str(found))


def _algorithm(spelling: str) -> tuple[str, int]:
    """Return hashlib's name for a hash, and the bytes of its digest."""
    import hashlib

    names = {_squeezed(name): name for name in sorted(hashlib.algorithms_available)}
    name = names.get(_squeezed(spelling))
    try:
        size = 0 if name is None else hashlib.new(name, usedforsecurity=False).digest_size
    except ValueError:  # OpenSSL lists hashes that its configuration forbids
        name = None
    if name is None:
        raise ValueError(f"{_quoted(spelling)} is no hash that this Python has")
    if size == 0:
        raise ValueError(f"{name} has no length of its own, so that any start of a digest would do")
    return name, size


def _squeezed(name: str) -> str:
    return re.sub("[-_/]", "", name.lower())


def _trusted(promises: list[tuple[str, bytes]]) -> tuple[Checksum, ...]:
    found: dict[Checksum, None] = {}
    for algorithm, digest in promises:
        name, size = _TRUSTED.get(algorithm, ("", 0))
        if name and len(digest) == size:
            found[Checksum(name, digest)] = None
    return tuple(found)


def _instance_digests(value: str) -> list[tuple[str, bytes]]:
    """Read ``SHA-256=base64, …`` (RFC 3230 4.3.2); the names ignore case."""
    from binascii import a2b_base64

    found = []
    for member in value.split(","):
        match = re.fullmatch(r"[ \t]*+([A-Za-z0-9-]++)=([A-Za-z0-9+/]++={0,2})[ \t]*+", member)
        if match is not None and len(match[2]) % 4 == 0:
            found.append((match[1].lower(), a2b_base64(match[2])))
    return found


def _quoted(text: str) -> str:
    return f"'{escape(text[:40])}'" + ("…" if len(text) > 40 else "")
