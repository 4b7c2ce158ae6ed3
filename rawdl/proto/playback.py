"""Recorded bytes in, events out: the entry for fuzzers and for the conformance vectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from rawdl.proto.events import Event
from rawdl.proto.http11 import Exchange, State
from rawdl.proto.messages import Limits, Request
from rawdl.proto.url import URL

_SOMEWHERE: Final = "http://example.org/"


def replay(
    data: bytes | bytearray | memoryview,
    *,
    method: str = "GET",
    chunk_size: int | None = None,
    eof: Literal["clean", "abrupt"] | None = "clean",
    limits: Limits = Limits(),  # noqa: B008 - immutable
) -> Iterator[Event]:
    """Feed a whole recorded response to a fresh Exchange and yield its events.

    ``chunk_size``: None is one piece, n is pieces of n bytes.  ``eof``: "clean" (FIN, or TLS close_notify), "abrupt"
    (RST, or a TLS close without close_notify), None (the peer just goes silent: the iteration ends without
    BodyComplete).

    Raises ProtocolError, IncompleteBody or TooLarge, and nothing else, whatever the bytes are.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is at least 1, not {chunk_size}")
    exchange = Exchange(Request(method, URL.parse(_SOMEWHERE)), limits=limits)
    exchange.data_sent(len(exchange.data_to_send()))
    view = memoryview(data)
    size = chunk_size or max(1, len(view))
    for at in range(0, len(view), size):
        exchange.receive_data(view[at : at + size])
        while (event := exchange.next_event()) is not None:
            yield event
        if exchange.state is State.DONE:
            return
    if eof is not None:
        exchange.receive_eof(clean=eof == "clean")
        while (event := exchange.next_event()) is not None:
            yield event
