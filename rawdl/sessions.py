"""TLS sessions that are kept to be resumed, which saves most of a handshake (RFC 8446 2.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from ssl import SSLContext, SSLSession

    from rawdl.proto.proxy import Proxy

_MOST: Final = 64  # of some KiB each


class Way(NamedTuple):
    """Whom TLS is spoken with, as whom, and by which proxy."""

    host: str
    port: int
    context: SSLContext
    proxy: Proxy | None = None


class Sessions:
    """One session for each way, and for no other: a proxy must not be taken for an origin (F4).

    Each is used once, so that nobody can tell by it that two connections are of the same client (RFC 8446 C.4); the
    connection brings the next.
    """

    def __init__(self) -> None:
        self._kept: dict[Way, SSLSession] = {}

    def take(self, way: Way) -> SSLSession | None:
        """Return one and forget it."""
        return self._kept.pop(way, None)

    def keep(self, way: Way, session: SSLSession) -> None:
        """Have one for the next connection that goes there."""
        self._kept[way] = session
        if len(self._kept) > _MOST:
            del self._kept[next(iter(self._kept))]
