"""Recorded bytes in, events out (C7, I9)."""

from __future__ import annotations

import pytest

from rawdl.errors import IncompleteBody, IncompleteHead, ProtocolError, TooLarge
from rawdl.proto import BodyComplete, DataReceived, HeadReceived, InformationalReceived, Limits, replay

RESPONSE = (
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"
    b"5\r\nhello\r\n7;a=b\r\n, world\r\n0\r\nT: 1\r\n\r\n"
)


def summary(data: bytes, **options) -> tuple[list[type], bytes]:
    """Return the kinds of the events, runs of data as one, and the body."""
    kinds: list[type] = []
    body = b""
    for event in replay(data, **options):
        if isinstance(event, DataReceived):
            body += event.data
        if not (kinds and kinds[-1] is type(event) is DataReceived):
            kinds.append(type(event))
    return kinds, body


WHOLE = [InformationalReceived, HeadReceived, DataReceived, BodyComplete]


@pytest.mark.parametrize("size", [None, 1, 2, 3, 7, 50, len(RESPONSE) - 1, len(RESPONSE), 10_000])
@pytest.mark.parametrize("eof", ["clean", "abrupt", None])
def test_I9_the_events_do_not_depend_on_the_pieces(size: int | None, eof) -> None:
    assert summary(RESPONSE, chunk_size=size, eof=eof) == (WHOLE, b"hello, world")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes(kind) -> None:
    assert summary(kind(RESPONSE))[1] == b"hello, world"


def test_the_fields_of_the_events() -> None:
    interim, head, data, _, end = replay(RESPONSE + b"rest")
    assert isinstance(interim, InformationalReceived) and isinstance(head, HeadReceived)
    assert isinstance(data, DataReceived) and isinstance(end, BodyComplete)
    assert (interim.status_code, interim.header["link"]) == (103, "</a>")
    assert (head.status_code, head.reason, head.http_version, head.header["x"]) == (200, "OK", "1.1", "y")
    assert head.framing.length is None
    assert isinstance(data.data, memoryview)
    assert (end.length, end.trailer["t"], end.surplus, len(end.close_reasons)) == (12, "1", 4, 1)


@pytest.mark.parametrize("size", [None, 1, 5])
def test_nothing_behind_the_end_is_read(size: int | None) -> None:
    assert summary(RESPONSE + RESPONSE, chunk_size=size)[0] == WHOLE
    assert summary(RESPONSE + b"\0junk", chunk_size=size)[0] == WHOLE


@pytest.mark.parametrize("size", [None, 1])
def test_the_method_counts(size: int | None) -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    assert summary(data, method="HEAD", chunk_size=size) == ([HeadReceived, BodyComplete], b"")
    with pytest.raises(IncompleteBody):
        summary(data, chunk_size=size)


@pytest.mark.parametrize("size", [None, 1])
def test_C7_the_end_counts(size: int | None) -> None:
    until_close = b"HTTP/1.1 200 OK\r\n\r\nhello"
    assert summary(until_close, chunk_size=size)[0][-1] is BodyComplete
    with pytest.raises(IncompleteBody):
        summary(until_close, chunk_size=size, eof="abrupt")
    assert summary(until_close, chunk_size=size, eof=None) == ([HeadReceived, DataReceived], b"hello")
    for eof in ("clean", "abrupt"):
        with pytest.raises(IncompleteHead):
            summary(RESPONSE[:70], chunk_size=size, eof=eof)
    assert summary(RESPONSE[:70], chunk_size=size, eof=None)[0] == [InformationalReceived]


@pytest.mark.parametrize("size", [None, 1])
def test_nothing_at_all(size: int | None) -> None:
    assert summary(b"", chunk_size=size, eof=None) == ([], b"")
    with pytest.raises(IncompleteHead):
        summary(b"", chunk_size=size)


@pytest.mark.parametrize("size", [None, 1, 3])
def test_events_before_an_error_are_yielded(size: int | None) -> None:
    events = replay(RESPONSE.replace(b"\r\n7;", b"\r\ng;"), chunk_size=size)
    body = b""
    with pytest.raises(ProtocolError):
        for event in events:
            body += event.data if isinstance(event, DataReceived) else b""
    assert body == b"hello"
    with pytest.raises(StopIteration):
        next(events)


def test_limits_count() -> None:
    assert summary(RESPONSE, limits=Limits(body=12))[1] == b"hello, world"
    with pytest.raises(TooLarge):
        summary(RESPONSE, limits=Limits(body=11))
    with pytest.raises(ProtocolError):
        summary(RESPONSE, limits=Limits(informational=0))


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_of_pieces_that_is_none(size: int) -> None:
    with pytest.raises(ValueError, match="chunk_size"):
        next(replay(RESPONSE, chunk_size=size))
