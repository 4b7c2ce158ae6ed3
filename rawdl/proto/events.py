"""What an Exchange reports, in the order in which it happened."""

from __future__ import annotations

from typing import NamedTuple

from rawdl.proto.framing import CloseReason, Framing
from rawdl.proto.messages import Headers


class InformationalReceived(NamedTuple):
    """An interim (1xx) response head was read; the final one is still to come (RFC 9110 15.2)."""

    status_code: int
    header: Headers


class HeadReceived(NamedTuple):
    """The final response head was read, before any of its body.

    ``framing.length`` is the number of body bytes, or None where the head does not tell.
    """

    status_code: int
    reason: str
    http_version: str
    header: Headers
    framing: Framing


class DataReceived(NamedTuple):
    """Payload of the body, transfer coding removed.  ``data`` is valid until more is fed to the exchange."""

    data: memoryview


class BodyComplete(NamedTuple):
    """The body has ended where its framing says that it ends.

    ``length`` is its number of bytes; ``surplus`` counts what has come behind it, which is never read as a response.
    The connection may be used again only if ``close_reasons`` is empty.
    """

    length: int
    trailer: Headers
    close_reasons: tuple[CloseReason, ...]
    surplus: int


Event = InformationalReceived | HeadReceived | DataReceived | BodyComplete
