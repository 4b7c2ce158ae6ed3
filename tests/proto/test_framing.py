"""Where a body ends: chunks, their sizes, extensions and trailers, and the framings by themselves (RFC 9112 6, 7)."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from rawdl.errors import IncompleteBody, ProtocolError, TooLarge
from rawdl.proto import CloseReason, DataReceived, HeadReceived, Limits, framing
from rawdl.proto.framing import LARGEST, Chunked, ContentLength, Framing, UntilClose, check_size, parse_trailer
from tests.proto.feeding import (
    LIMITS,
    Outcome,
    accepted,
    events_of,
    exchange_for,
    feed,
    hang_guard,
    in_any_two_pieces,
    refused,
    three_ways,
)

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def chunked(body: bytes, **options) -> Outcome:
    return accepted(HEAD + body, **options)


def bad(body: bytes, error: type[ProtocolError] | type[TooLarge] = ProtocolError, **options) -> str:
    return refused(HEAD + body, error, **options)


def trailer_of(outcome: Outcome) -> tuple[tuple[str, str], ...]:
    assert outcome.end is not None
    return outcome.end.trailer.fields


# Chunks and their sizes (C1, C6; RFC 9112 7.1)


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (LAST, b""),
        (b"5\r\nhello\r\n" + LAST, b"hello"),
        (b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n" + LAST, b"abc"),
        (b"a\r\n0123456789\r\n" + LAST, b"0123456789"),
        (b"A\r\n0123456789\r\n" + LAST, b"0123456789"),
        (b"0000005\r\nhello\r\n000\r\n\r\n", b"hello"),
        (b"0" * 40 + b"5\r\nhello\r\n" + LAST, b"hello"),
        (b"5\r\nhello\r\n" + b"0" * 40 + b"\r\n\r\n", b"hello"),
        (b"4\r\n\r\n\r\n\r\n" + LAST, b"\r\n\r\n"),
        (b"5\r\n0\r\n\r\n\r\n" + LAST, b"0\r\n\r\n"),
        (b"400\r\n" + b"a" * 1024 + b"\r\n3ff\r\n" + b"b" * 1023 + b"\r\n" + LAST, b"a" * 1024 + b"b" * 1023),
    ],
)
def test_chunks(body: bytes, payload: bytes) -> None:
    got = chunked(body)
    assert got.body == payload and got.reasons == () and trailer_of(got) == ()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" 5",
        b"\t5",
        b"5 ",
        b"5\t",
        b"+5",
        b"-5",
        b"-0",
        b"0x5",
        b"5h",
        b"5,5",
        b"5 5",
        b"g",
        b"5_0",
        b"5.0",
        b"\xb2",
        "５".encode(),
        b"5\x0b",
        b"\0005",
        b"5:",
        b"hello",
        b"8000000000000000",
        b"ffffffffffffffff",
        b"00ffffffffffffffff",
        b"10000000000000005",
        b"00000000000000010000000000000005",
        b"f" * 1000,
    ],
)
def test_C6_what_is_no_chunk_size(line: bytes) -> None:
    bad(line + b"\r\nhello\r\n" + LAST)
    bad(b"1\r\nx\r\n" + line + b"\r\nhello\r\n" + LAST)
    assert three_ways(HEAD + b"1\r\nx\r\n" + line + b"\r\n").body == b"x"


@pytest.mark.parametrize("line", [b"7fffffffffffffff", b"7FFFFFFFFFFFFFFF", b"0007fffffffffffffff"])
def test_C6_the_largest_chunk(line: bytes) -> None:
    got = three_ways(HEAD + line + b"\r\nhello", eof=None)
    assert got.error is None and got.body == b"hello"
    second = three_ways(HEAD + b"1\r\nx\r\n" + line + b"\r\nhello")
    assert type(second.error) is IncompleteBody and second.body == b"xhello"


def test_C5_a_chunk_size_takes_no_memory() -> None:
    exchange = exchange_for()
    tracemalloc.start()
    try:
        exchange.receive_data(HEAD + b"%x\r\n" % (1 << 62))
        assert isinstance(exchange.next_event(), HeadReceived) and exchange.next_event() is None
        assert exchange.body_window() == 1 << 62
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("after", "stray"),
    [
        (b"XX", b"XX"),
        (b"\n", b"\n"),
        (b"\r\r\n", b"\r\r"),
        (b"\rX", b"\rX"),
        (b"\n\r", b"\n\r"),
        (b" \r\n", b" \r"),
        (b"X\r\n", b"X\r"),
        (b"0\r\n", b"0\r"),
        (b"\0\0", b"\0\0"),
    ],
)
def test_C1_what_follows_the_data_of_a_chunk_is_CRLF(after: bytes, stray: bytes) -> None:
    """Two octets there that nobody looks at let a response be hidden in a chunk (CVE-2025-43859)."""
    message = bad(b"5\r\nhello" + after + b"5\r\nworld\r\n" + LAST)
    assert "CRLF" in message and repr(stray[:1])[:-1] in message
    assert three_ways(HEAD + b"5\r\nhello" + after + LAST).body == b"hello"


@pytest.mark.parametrize(
    "body",
    [
        b"5\nhello\r\n" + LAST,
        b"5\rhello\r\n" + LAST,
        b"5\r\rhello\r\n" + LAST,
        b"5\r\nhello\r\n0\n\r\n",
        b"5\r\nhello\r\n0\n\n",
        b"5\r\nhello\r\n0\r\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"\r\n5\r\nhello\r\n" + LAST,
        b"5;\nhello\r\n" + LAST,
    ],
)
def test_C12_line_ends_of_chunk_lines(body: bytes) -> None:
    bad(body)


@pytest.mark.parametrize("beginning", [b"5\n", b"5\rX", b"5;a\0", b"1\r\nxXX", b"1\r\nxX", b"0\r\nA: b\n", b"0\r\n\0"])
def test_C12_what_is_wrong_is_refused_when_it_comes(beginning: bytes) -> None:
    """A peer that has lost the thread may send no more; an error is not to wait for it."""
    bad(beginning, eof=None)


# Extensions (C3, C11; RFC 9112 7.1.1)


@pytest.mark.parametrize(
    "extension",
    [
        b";a",
        b";a=b",
        b';a="b"',
        b';a=""',
        b';a="b;c=d, \\" \\\\ \t\xff"',
        b";a;b=c;d",
        b" ; a",
        b"\t;\ta\t=\tb",
        b' ; a = "b" ; c',
        b";!#$%&'*+-.^_`|~=1",
        b";" + b"a" * 4000,
    ],
)
def test_C3_extensions_are_skipped(extension: bytes) -> None:
    """RFC 9112 7.1.1: the bad white space around ; and = is to be read, and what is not known ignored."""
    got = chunked(b"5" + extension + b"\r\nhello\r\n0" + extension + b"\r\n\r\n")
    assert got.body == b"hello" and got.reasons == ()


@pytest.mark.parametrize(
    "extension",
    [
        b";",
        b"; ",
        b";;",
        b";;a",
        b";a;",
        b";=b",
        b";a=",
        b";a=;b",
        b";a=b c",
        b";a b",
        b";a ",
        b";a=b ",
        b";a==b",
        b';a="b',
        b';a="b\\"',
        b';a="b"c',
        b';a="\x01"',
        b';a="\x7f"',
        b";a=(b)",
        b";a/b",
        b";\x80",
        b" a",
        b":a",
    ],
)
def test_C3_what_is_no_extension(extension: bytes) -> None:
    bad(b"5" + extension + b"\r\nhello\r\n" + LAST)
    bad(b"5\r\nhello\r\n0" + extension + b"\r\n\r\n")


@pytest.mark.parametrize("stray", [b"\r", b"\n", b"\0"])
@pytest.mark.parametrize("extension", [b";%b", b";a%b", b";a=%b", b';a="%b"', b'%b;a="b"', b';a="\\%b"'])
def test_C3_a_stray_octet_in_an_extension(extension: bytes, stray: bytes) -> None:
    line = extension.replace(b"%b", stray)
    assert "bare CR" in bad(b"5" + line + b"\r\nhello\r\n" + LAST)
    assert "bare CR" in bad(b"5\r\nhello\r\n0" + line + b"\r\n\r\n")


def test_C3_extensions_hide_no_trailer() -> None:
    assert trailer_of(chunked(b'0;a="\\r\\n"\r\nX: y\r\n\r\n')) == (("X", "y"),)


# Trailers (C3; RFC 9112 7.1.2)


def test_trailer_fields_stay_apart_from_the_header() -> None:
    got = chunked(b"2\r\nhi\r\n0\r\nDigest: x\r\nA:\t 1 2 \t\r\na: 3\r\nE:\r\nO: \xe9\x7f\x01\r\n\r\n")
    assert trailer_of(got) == (("Digest", "x"), ("A", "1 2"), ("a", "3"), ("E", ""), ("O", "\xe9\x7f\x01"))
    assert got.head is not None and got.head.header.fields == (("Transfer-Encoding", "chunked"),)
    assert got.end is not None and got.end.trailer.get_all("A") == ["1 2", "3"]


def test_a_trailer_cannot_frame_the_message() -> None:
    got = chunked(b"2\r\nhi\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: gzip\r\nConnection: close\r\n\r\n")
    assert got.body == b"hi" and got.reasons == () and len(trailer_of(got)) == 3


def test_folded_trailer_lines_are_joined() -> None:
    got = chunked(b"0\r\nA: b\r\n c: d\r\n\t\te\r\nF: g\r\n \r\n\r\n")
    assert trailer_of(got) == (("A", "b c: d e"), ("F", "g"))


@pytest.mark.parametrize("line", [b"a b: c", b"a@b: c", b": c", b" a: b", b"\xe9: c", b"A : b"])
def test_a_misnamed_trailer_line_is_dropped(line: bytes) -> None:
    got = chunked(b"0\r\n" + line + b"\r\nD: e\r\n\r\n")
    assert trailer_of(got) == (("D", "e"),) and got.reasons == (CloseReason.MALFORMED_FIELD,)


@pytest.mark.parametrize(
    "section",
    [
        b"Content-Length : 5\r\n\r\n",
        b"A: b\r\nConnection\t: close\r\n\r\n",
        b" transfer-encoding: chunked\r\n\r\n",
        b"\x0bContent-Length: 5\r\n\r\n",
    ],
)
def test_a_misnamed_trailer_line_that_frames_the_message(section: bytes) -> None:
    assert "no trailer field" in bad(b"0\r\n" + section)


@pytest.mark.parametrize("line", [b"no colon", b" ", b"\t", b"5", b"A: b\x0bc", b"A:\x0c"])
def test_what_is_no_trailer_line(line: bytes) -> None:
    assert "no trailer field" in bad(b"0\r\n" + line + b"\r\n\r\n")


@pytest.mark.parametrize("stray", [b"\r", b"\n", b"\0"])
@pytest.mark.parametrize(
    "section", [b"%bA: b\r\n\r\n", b"A%b: b\r\n\r\n", b"A: b%bc\r\n\r\n", b"A: b%b\r\n\r\n", b"A: b\r\n%b\r\n"]
)
def test_C12_a_stray_octet_in_a_trailer(section: bytes, stray: bytes) -> None:
    bad(b"0\r\n" + section.replace(b"%b", stray))


@pytest.mark.parametrize("section", [b"\n", b"A: b\n\n", b"A: b\r\n\n", b"A: b\n\r\n", b"\r\r\n"])
def test_C12_line_ends_of_a_trailer(section: bytes) -> None:
    bad(b"0\r\n" + section)


# Limits: each at the limit, and one above (C10, C11)


def test_C11_one_chunk_line() -> None:
    assert chunked(b"5;abc\r\nhello\r\n" + LAST, limits=Limits(chunk_line=5)).body == b"hello"
    assert "more than 4 bytes" in bad(b"5;abc\r\nhello\r\n" + LAST, limits=Limits(chunk_line=4))
    chunked(b"5;" + b"a" * 4094 + b"\r\nhello\r\n" + LAST)
    bad(b"5;" + b"a" * 4095 + b"\r\nhello\r\n" + LAST)
    bad(b"0" * 5000, eof=None)
    bad(b"5;" + b"a" * 5000, eof=None)


@pytest.mark.parametrize("limit", [1, 2, 15])
def test_C11_a_line_limit_below_the_digits_of_a_size(limit: int) -> None:
    size = b"1".rjust(limit, b"0")
    limits = Limits(chunk_line=limit)
    assert chunked(size + b"\r\na\r\n" + size + b"\r\nb\r\n" + LAST, limits=limits).body == b"ab"
    bad(size + b"\r\na\r\n0" + size + b"\r\nb\r\n" + LAST, limits=limits)


@pytest.mark.parametrize("limit", [0, 1, 4, 5, 6, 7, 30])
def test_C11_C10_I9_a_limit_does_not_depend_on_the_cut(limit: int) -> None:
    for body in (b"5;abc\r\nhello\r\n5;abcd\r\nhello\r\n" + LAST, b"1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n"):
        in_any_two_pieces(HEAD + body, limits=Limits(chunk_line=limit))
        in_any_two_pieces(HEAD + body, limits=Limits(trailer=limit))
        in_any_two_pieces(HEAD + body, limits=Limits(chunk_extensions=limit))
        in_any_two_pieces(HEAD + body, limits=Limits(body=limit))


def test_C11_extensions_of_one_body() -> None:
    body = b"1;abc\r\nx\r\n" * 10 + b"0;abc\r\n\r\n"
    assert chunked(body, limits=Limits(chunk_extensions=44)).body == b"x" * 10
    assert "chunk extensions" in bad(body, limits=Limits(chunk_extensions=43))
    line = b"1;" + b"a" * 1023 + b"\r\nx\r\n"
    chunked(line * 64 + LAST)
    bad(line * 64 + b"0;a\r\n\r\n")


def test_C11_padding_counts_like_extensions() -> None:
    """Sizes may be padded; sixteen digits are as many as any size has."""
    limits = Limits(chunk_extensions=4)
    assert chunked((b"1".rjust(16, b"0") + b"\r\nx\r\n") * 9 + LAST, limits=limits).body == b"x" * 9
    assert chunked((b"1".rjust(18, b"0") + b"\r\nx\r\n") * 2 + LAST, limits=limits).body == b"xx"
    bad((b"1".rjust(18, b"0") + b"\r\nx\r\n") * 3 + LAST, limits=limits)
    bad(b"1".rjust(18, b"0") + b";ab\r\nx\r\n" + LAST, limits=limits)


def test_C10_a_trailer_section() -> None:
    section = b"A: b\r\nC: d\r\n"
    got = chunked(b"0\r\n" + section + b"\r\n", limits=Limits(trailer=len(section)))
    assert len(trailer_of(got)) == 2
    assert "trailer section" in bad(b"0\r\n" + section + b"\r\n", limits=Limits(trailer=len(section) - 1))
    chunked(LAST, limits=Limits(trailer=0))
    bad(b"0\r\nA: b\r\n\r\n", limits=Limits(trailer=0))
    chunked(b"0\r\nA: " + b"b" * 16379 + b"\r\n\r\n")
    bad(b"0\r\nA: " + b"b" * 16380 + b"\r\n\r\n")


def test_C10_an_endless_trailer_is_refused_while_it_comes() -> None:
    bad(b"0\r\n" + b"A: b\r\n" * 4000, eof=None)
    bad(b"0\r\nA: " + b"b" * 20000, eof=None)


def test_C10_trailer_fields() -> None:
    assert len(trailer_of(chunked(b"0\r\n" + b"A: b\r\n" * 256 + b"\r\n"))) == 256
    assert "257 trailer fields" in bad(b"0\r\n" + b"A: b\r\n" * 257 + b"\r\n")
    bad(b"0\r\na b: c\r\nD: e\r\n\r\n", limits=Limits(fields=1))


def test_too_large_by_a_chunk_that_is_announced() -> None:
    limits = Limits(body=10)
    for body in (b"b\r\n", b"a\r\n0123456789\r\n1\r\n", b"5\r\nhello\r\n6;x\r\n", b"7fffffffffffffff\r\n"):
        got = three_ways(HEAD + body, limits=limits, eof=None)
        assert type(got.error) is TooLarge and got.error.limit == 10
        assert got.body == (b"0123456789" if body[:1] == b"a" else b"hello" if body[:1] == b"5" else b"")
    assert chunked(b"5\r\nhello\r\n5\r\nworld\r\n" + LAST, limits=limits).body == b"helloworld"


# How payload comes


def test_small_chunks_come_together() -> None:
    """One event each would cost more than the copy; a large one comes by itself, without a copy."""
    body = b"1\r\na\r\n" * 1000 + b"800\r\n" + b"b" * 2048 + b"\r\n" + b"1\r\nc\r\n" * 1000
    exchange = exchange_for()
    exchange.receive_data(HEAD + body + LAST)
    pieces = [bytes(event.data) for event in events_of(exchange) if isinstance(event, DataReceived)]
    assert pieces == [b"a" * 1000, b"b" * 2048, b"c" * 1000]


def test_payload_comes_without_events_too() -> None:
    exchange = exchange_for()
    exchange.receive_data(HEAD + b"800\r\n" + b"b" * 2048 + b"\r\n1\r\nc\r\n2;x\r\nde\r\n3\r\nf")
    assert exchange.take_payload() == [], "the head comes first"
    exchange.next_event()
    assert exchange.take_payload() == [b"b" * 2048, b"c"]
    assert (exchange.received, exchange.body_window()) == (2049, 0)
    assert exchange.take_payload() == [b"def"]
    assert exchange.take_payload() == [] and exchange.next_event() is None
    assert exchange.body_window() == 2


def test_what_came_before_an_error_is_handed_out() -> None:
    for wrong in (b"XX", b"\r\ng\r\n", b"\r\n5;\r\n", b"\r\n0\r\nno colon\r\n\r\n"):
        got = three_ways(HEAD + b"2\r\nab\r\n2\r\ncd\r\n2\r\nef" + wrong)
        assert type(got.error) is ProtocolError and got.body == b"abcdef"


def test_C11_a_flood_of_tiny_chunks_has_few_events() -> None:
    got = feed([HEAD, b"1\r\nx\r\n" * 50_000, LAST])
    assert got.body == b"x" * 50_000 and got.events == 3


def test_I6_C11_a_flood_of_tiny_chunks_takes_no_more_memory_than_it_is_long() -> None:
    data = memoryview(b"1\r\na\r\n" * 100_000)
    body = Chunked(LIMITS)
    tracemalloc.start()
    try:
        [piece], _ = body.take(data, 0)
        assert tracemalloc.get_traced_memory()[1] < len(data)
    finally:
        tracemalloc.stop()
    assert piece == b"a" * 100_000


def test_the_window_is_what_is_left_of_the_chunk() -> None:
    exchange = exchange_for()
    exchange.receive_data(HEAD + b"5")
    assert len(list(events_of(exchange))) == 1 and exchange.body_window() == 0
    exchange.receive_data(b"\r\n")
    assert list(events_of(exchange)) == [] and exchange.body_window() == 5
    exchange.advance(3)
    assert exchange.body_window() == 2 and exchange.next_event() is None
    exchange.receive_data(b"l")
    assert len(list(events_of(exchange))) == 1 and exchange.body_window() == 1
    exchange.advance(1)
    assert exchange.body_window() == 0 and exchange.next_event() is None
    exchange.receive_data(b"\r\n" + LAST)
    assert len(list(events_of(exchange))) == 1 and exchange.received == 5


# The framings by themselves


FRAMINGS: list[tuple[Callable[[], Framing], bytes, str, str]] = [
    (lambda: ContentLength(5), b"hello", "content-length 0/5", "content-length 5/5"),
    (lambda: UntilClose(LIMITS), b"hello", "until-close 0", "until-close 5"),
    (lambda: Chunked(LIMITS), b"5\r\nhello\r\n0\r\n\r\n", "chunked 0, chunk size", "chunked 5, trailer"),
]


@pytest.mark.parametrize("make, wire, before, after", FRAMINGS)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_taking(size: int, make: Callable[[], Framing], wire: bytes, before: str, after: str) -> None:
    framing, at, payload = make(), 0, b""
    assert repr(framing) == before and not framing.complete
    while at < len(wire):
        view = memoryview(wire)[: at + size]
        pieces, at = framing.take(view, at)
        payload += b"".join(pieces)
        assert framing.received == len(payload)
    assert framing.take(memoryview(wire), at) == ([], at)
    assert payload == b"hello" and repr(framing) == after
    assert framing.trailer.fields == ()


def test_the_gap_is_what_was_between_two_chunks() -> None:
    framing = Chunked(Limits())
    assert framing.gap(1) == 0, "nothing is known yet"
    for data, gap in (
        (b"1000\r\n", 8),  # \r\n1000\r\n
        (bytes(0x1000), 8),
        (b"\r", 7),
        (b"\n10", 4),
        (b"", 4),
        (b"00;a=b\r\n", 12),
        (bytes(0x1000) + b"\r\n0001000\r\n", 11),
        (bytes(0xFFF), 11),
        (b"x\r\n1000\r\n" + bytes(0x1000) + b"\r\n", 6),  # what is left of the usual
        (b"20000", 1),  # and that was shorter
        (b"0", 1),
        (b"\r\n", 10),
        (bytes(0x200000) + b"\r\n", 8),
        (b"0\r\n", 0),
        (b"A: b\r\n", 0),
        (b"\r\n", 0),
    ):
        at = 0
        while at < len(data):
            _, at = framing.take(memoryview(data), at)
        assert framing.gap(0x1000) == gap, data
        assert framing.gap(0x200001) == 0
    assert framing.complete


def test_only_chunks_have_gaps() -> None:
    assert ContentLength(10).gap(1) == UntilClose(Limits()).gap(1) == 0


def test_no_framing_reads_past_the_end() -> None:
    for make, wire, *_ in (FRAMINGS[0], FRAMINGS[2]):
        framing, at = make(), 0
        while not framing.complete:
            _, at = framing.take(memoryview(wire + b"GET"), at)
        assert at == len(wire) and framing.window() == 0


def test_only_one_framing_ends_at_the_close() -> None:
    assert not ContentLength(5).end_at_close()
    assert not Chunked(LIMITS).end_at_close()
    framing = UntilClose(LIMITS)
    assert framing.end_at_close() and framing.complete


def test_no_length_is_complete_at_once() -> None:
    assert ContentLength(0).complete and ContentLength(0).window() == 0
    assert UntilClose(LIMITS).window() == LARGEST and not UntilClose(Limits(body=0)).complete


def test_check_size() -> None:
    check_size(LARGEST, None)
    check_size(10, 10)
    with pytest.raises(TooLarge) as caught:
        check_size(11, 10)
    assert caught.value.limit == 10 and "11 bytes or more; 10 are allowed" in str(caught.value)


def test_close_reasons_read_as_sentences() -> None:
    assert len(set(CloseReason)) == 9
    assert str(CloseReason.SURPLUS) == "bytes came behind the end of the response"


# Time (B4)


@pytest.mark.parametrize(
    "section",
    [
        b"A: b" + b" " * 1_000_000 + b"c",
        b"A:" + b" " * 1_000_000,
        b"A: " + b"b " * 500_000,
        b"A" * 1_000_000,
        b"A" + b" " * 1_000_000 + b": b",
        b"A: b" + b"\r\n c" * 250_000,
    ],
    ids=range(6),
)
def test_B4_a_long_trailer_takes_no_longer_than_its_length(section: bytes) -> None:
    limits = Limits(trailer=1 << 22, fields=1 << 20)
    with hang_guard():
        got = feed([HEAD + b"0\r\n" + section + b"\r\n\r\n"], limits=limits)
        assert got.error is None or type(got.error) is ProtocolError
        parse_trailer(b"A:" + section + b"\r\n\r\n", limits)


@pytest.mark.parametrize(
    "line",
    [
        b"1" + b" ; a" * 250_000 + b"@",
        b"1" + b";a  " * 250_000,
        b"1" + b" " * 1_000_000 + b"@",
        b"1;a" + b" " * 1_000_000 + b"@",
        b"1;a" + b" = " * 300_000,
        b'1;a="' + b"x" * 1_000_000,
        b'1;a="' + b"\\x" * 500_000,
        b"1" + b';a="b"' * 150_000 + b";",
        b"0" * 1_000_000 + b"g",
        b"1;" + b"a" * 1_000_000 + b"@",
    ],
    ids=range(10),
)
def test_B4_a_long_chunk_line_takes_no_longer_than_its_length(line: bytes) -> None:
    limits = Limits(chunk_line=1 << 22, chunk_extensions=1 << 22)
    with hang_guard():
        got = feed([HEAD + line + b"\r\nx\r\n" + LAST], limits=limits)
    assert type(got.error) is ProtocolError


@pytest.mark.parametrize(
    "line", [b"0;" + b"a" * 4000 + b"\r\n", b"0\r\n" + b"A: b\r\n" * 600], ids=["chunk line", "trailer"]
)
def test_B4_what_comes_byte_by_byte_is_looked_at_once(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the end of a piece, which the next one may complete."""
    looked = 0

    def refuse_stray(text: bytes, where: str) -> None:
        nonlocal looked
        looked += len(text)
        real(text, where)

    real = framing._refuse_stray
    monkeypatch.setattr(framing, "_refuse_stray", refuse_stray)
    got = feed([bytes([byte]) for byte in HEAD + line + b"\r\n"], limits=Limits(fields=1000))
    assert got.error is None
    assert looked < 2 * len(line)
