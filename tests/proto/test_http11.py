"""The exchange: heads, what frames the body, limits, and when a connection may be used again (RFC 9112)."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from rawdl.errors import IncompleteBody, IncompleteHead, ProtocolError, TooLarge
from rawdl.proto import BodyComplete, CloseReason, DataReceived, Exchange, HeadReceived, Limits, Request
from rawdl.proto.framing import LARGEST, Chunked, ContentLength, UntilClose
from rawdl.proto.http11 import HeadWriter, State
from rawdl.proto.url import URL
from tests.proto.feeding import (
    BEHIND,
    URL_A,
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

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = OK + b"Content-Length: 0\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def head(*lines: bytes, status: bytes = b"200 OK", version: bytes = b"1.1") -> bytes:
    return b"\r\n".join((b"HTTP/" + version + b" " + status, *lines, b"", b""))


def fields_of(outcome: Outcome) -> tuple[tuple[str, str], ...]:
    assert outcome.head is not None
    return outcome.head.header.fields


# The request


def test_the_request_is_sent_in_pieces() -> None:
    exchange = Exchange(Request("GET", URL.parse("http://example.org:81/a?b"), {"X-A": "1"}))
    whole = exchange.data_to_send()
    assert whole.startswith(b"GET /a?b HTTP/1.1\r\nHost: example.org:81\r\n") and whole.endswith(b"X-A: 1\r\n\r\n")
    exchange.data_sent(10)
    assert exchange.data_to_send() == whole[10:]
    exchange.data_sent(len(whole) - 10)
    assert exchange.data_to_send() == b""


def test_octets_above_ascii_are_sent_as_they_are() -> None:
    exchange = Exchange(Request("GET", URL_A, {"X-A": "caf\xe9 \x80\xff"}))
    assert b"\r\nX-A: caf\xe9 \x80\xff\r\n" in exchange.data_to_send()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_writer_writes_the_same_as_a_new_one(method: str) -> None:
    writer = HeadWriter()
    urls = ["http://example.org/a", "http://example.org/b?c", "http://example.net/a", "http://example.net/b"]
    requests = [Request(method, URL.parse(url), header) for url in urls for header in (None, {"X": "1"}, None)]
    requests.insert(3, Request("OPTIONS", URL_A))
    for request in requests:
        data = Exchange(request, writer=writer).data_to_send()
        assert data == Exchange(request).data_to_send() == HeadWriter().head(request)
        assert data.count(b"\r\n\r\n") == 1 and data.endswith(b"\r\n\r\n")
        assert data.startswith(f"{request.method} {request.url.target} HTTP/1.1\r\nHost: {request.url.host}".encode())


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/\x00", "/\xe9", "/\u20ac", "/\x7f"])
def test_B1_what_cannot_stand_in_a_request_line_is_not_sent(path: str) -> None:
    with pytest.raises(ValueError, match="request line"):
        Exchange(Request("GET", URL("http", "example.org", 80, None, path, None, None)))


def test_what_h11_refuses_to_send_is_a_value_error() -> None:
    request = Request("GET", URL_A)
    request.fields = (("Host", "a"), ("Host", "b"))
    with pytest.raises(ValueError, match="cannot be sent"):
        Exchange(request)


# What is asked of the caller


def test_events_are_taken_before_more_data_is_given() -> None:
    exchange = exchange_for()
    exchange.receive_data(EMPTY)
    with pytest.raises(AssertionError):
        exchange.receive_data(b"x")
    assert [type(event) for event in events_of(exchange)] == [HeadReceived, BodyComplete]
    exchange.receive_data(b"")
    assert exchange.next_event() is None


def test_nothing_comes_behind_the_close() -> None:
    exchange = exchange_for()
    exchange.receive_eof(clean=True)
    with pytest.raises(AssertionError):
        exchange.receive_data(EMPTY)


def test_no_more_than_the_window_passes_by() -> None:
    exchange = exchange_for()
    with pytest.raises(AssertionError):
        exchange.advance(1)
    exchange.receive_data(head(b"Content-Length: 5") + b"ab")
    assert isinstance(exchange.next_event(), HeadReceived)
    assert exchange.body_window() == 0  # there are bytes that were fed and not taken
    with pytest.raises(AssertionError):
        exchange.advance(1)
    assert isinstance(exchange.next_event(), DataReceived) and exchange.next_event() is None
    assert exchange.body_window() == 3
    for wrong in (0, -1, 4):
        with pytest.raises(AssertionError):
            exchange.advance(wrong)
    exchange.advance(3)
    assert exchange.body_window() == 0
    assert isinstance(exchange.next_event(), BodyComplete) and exchange.body_window() == 0


def test_what_comes_behind_the_end_is_swallowed() -> None:
    exchange = exchange_for()
    exchange.receive_data(EMPTY)
    end = list(events_of(exchange))[-1]
    assert isinstance(end, BodyComplete) and end.close_reasons == ()
    exchange.receive_data(BEHIND)
    assert exchange.next_event() is None and exchange.state is State.DONE


def test_the_repr_says_where_it_is() -> None:
    exchange = exchange_for()
    assert repr(exchange) == "<Exchange GET /a head>"
    exchange.receive_data(head(b"Content-Length: 5") + b"ab")
    assert [type(event) for event in events_of(exchange)] == [HeadReceived, DataReceived]
    assert repr(exchange) == "<Exchange GET /a body content-length 2/5>"
    exchange.advance(3)
    assert [type(event) for event in events_of(exchange)] == [BodyComplete]
    assert repr(exchange) == "<Exchange GET /a done content-length 5/5>"
    broken = exchange_for()
    broken.receive_data(b"junk")
    with pytest.raises(ProtocolError):
        broken.next_event()
    assert repr(broken) == "<Exchange GET /a failed>"


# The status line


@pytest.mark.parametrize(
    ("line", "status", "reason", "version"),
    [
        (b"HTTP/1.1 200 OK", 200, "OK", "1.1"),
        (b"HTTP/1.0 404 Not Found", 404, "Not Found", "1.0"),
        (b"HTTP/1.9 200 OK", 200, "OK", "1.9"),  # RFC 9110 6.2: as 1.1
        (b"HTTP/1.1 200 ", 200, "", "1.1"),
        (b"HTTP/1.1 200", 200, "", "1.1"),
        (b"HTTP/1.1 200 \xc4\xe9 \t ok ", 200, "\xc4\xe9 \t ok ", "1.1"),
        (b"HTTP/1.1 200 \x1b[2J\x07\x7f", 200, "\x1b[2J\x07\x7f", "1.1"),
        (b"HTTP/1.1 299 x", 299, "x", "1.1"),
        (b"HTTP/1.1 600 x", 600, "x", "1.1"),
        (b"HTTP/1.1 999 x", 999, "x", "1.1"),
    ],
)
def test_status_lines(line: bytes, status: int, reason: str, version: str) -> None:
    got = accepted(line + b"\r\nContent-Length: 2\r\n\r\nhi").head
    assert got is not None
    assert (got.status_code, got.reason, got.http_version) == (status, reason, version)


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1200 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK",
        b" HTTP/1.1 200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 2x0 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 000 OK",
        b"HTTP/1.1 -20 OK",
        b"HTTP/1.1 OK",
        b"HTTP/1.1 ",
        b"HTTP/1.1",
        b"HTTP/1. 200 OK",
        b"HTTP/1.x 200 OK",
        b"HTTP/1.10 200 OK",
        b"HTTP/1.1 \xb2\xb0\xb0 OK",
        b"HTTP/1.1 200 O\x0bK",
    ],
)
def test_what_is_no_status_line(line: bytes) -> None:
    refused(line + b"\r\nContent-Length: 2\r\n\r\nhi")


@pytest.mark.parametrize(
    ("data", "refused_after"),
    [
        (b"HTTP/0.9 200 OK\r\n\r\n", 6),
        (b"HTTP/2.0 200 OK\r\n\r\n", 6),
        (b"HTTP/5.6 200 OK\r\n\r\n", 6),
        (b"HTTP/10.1 200 OK\r\n\r\n", 7),
        (b"HTTP/1 200 OK\r\n\r\n", 7),
        (b"HTTP 200 OK\r\n\r\n", 5),
        (b"http/1.1 200 OK\r\n\r\n", 1),
        (b"ICY 200 OK\r\n\r\n", 1),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 1),
        (b"220 mail.example.org ESMTP\r\n", 1),
        (b"\x15\x03\x01\x00\x02\x02\x46", 1),
        (b"<html>hello", 1),
        (b" HTTP/1.1 200 OK\r\n\r\n", 1),
        (b"\0HTTP/1.1 200 OK\r\n\r\n", 1),
        (b"\r\nHTTX", 6),
        (b"\nHTTX", 5),
        (b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 3),
        (b"\n\nHTTP/1.1 200 OK\n\n", 2),
    ],
)
def test_another_protocol_is_refused_at_its_first_wrong_byte(data: bytes, refused_after: int) -> None:
    """Such a peer may wait for us, and say no more than that."""
    assert "begins with" in refused(data, eof=None)
    assert three_ways(data[: refused_after - 1], eof=None).error is None
    refused(data[:refused_after], eof=None)


# Line ends (part 0; RFC 9112 2.2)


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_all_lines_end_alike(end: bytes) -> None:
    for first in (b"", end):  # one empty line before the status line is skipped
        lines = (b"HTTP/1.1 200 OK", b"X: 1", b" 2", b"Content-Length: 3", b"", b"a\nb")
        got = accepted(first + end.join(lines))
        assert fields_of(got) == (("X", "1 2"), ("Content-Length", "3"))
        assert got.body == b"a\nb" and got.reasons == ()


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\r\n",
        b"HTTP/1.1 200 OK\nX: 1\r\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\n\nX: y\r\n\r\nbody",
        b"HTTP/1.1 200 OK\n\r\nX: y\r\n\r\nbody",
        b"\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nX: 1\n folded\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_mixture_of_line_ends(data: bytes) -> None:
    assert "line ends" in refused(data)


@pytest.mark.parametrize("stray", [b"\r", b"\0"])
@pytest.mark.parametrize(
    "data",
    [
        b"%bHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 %b200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 O%bK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK%b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n%bContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-%bLength: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length:%b0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0%b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a%bY: b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n %b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno name%b: a\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nX: a%bb\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nX: a%b\nContent-Length: 0\n\n",
    ],
)
def test_C12_a_bare_CR_or_a_NUL_in_a_head(data: bytes, stray: bytes) -> None:
    assert accepted(data.replace(b"%b", b"")).body == b""
    if data.startswith(b"%b") and stray == b"\0":
        assert "begins with" in refused(data.replace(b"%b", stray))
    else:
        refused(data.replace(b"%b", stray))


@pytest.mark.parametrize("end", [b"\r\r\n", b"\r", b"\n\r"])
def test_C12_what_is_no_line_end_ends_no_head(end: bytes) -> None:
    data = end.join((b"HTTP/1.1 200 OK", b"Content-Length: 0", b"", b""))
    assert isinstance(three_ways(data).error, ProtocolError)


# Fields


def test_field_values_keep_every_octet() -> None:
    values = (b"", b"a", b"a  b\t c", b"\x01\x1b]0;x\x07\x7f", b"\x80\x9b\xff", b": a: b", b'"q\\"', b",,a,")
    got = accepted(head(*(b"X: \t" + value + b" \t" for value in values), b"Content-Length: 0"))
    assert fields_of(got)[:-1] == tuple(("X", value.decode("latin-1")) for value in values)


def test_field_names_keep_their_case_and_order() -> None:
    got = accepted(head(b"b: 1", b"A: 2", b"B: 3", b"content-LENGTH: 0", b"!#$%&'*+-.^_`|~: x"))
    assert [name for name, _ in fields_of(got)] == ["b", "A", "B", "content-LENGTH", "!#$%&'*+-.^_`|~"]


def test_folded_lines_are_joined_with_a_space() -> None:
    """RFC 9112 5.2: a user agent replaces each obs-fold."""
    got = accepted(head(b"X: a", b"\t  b ", b" c:d", b"Content-Length:", b" 2") + b"hi")
    assert fields_of(got) == (("X", "a b  c:d"), ("Content-Length", "2")) and got.body == b"hi"


@pytest.mark.parametrize("octet", [b"\x0b", b"\x0c"])
def test_vertical_tab_and_form_feed_are_refused(octet: bytes) -> None:
    refused(head(b"X: a" + octet + b"b", b"Content-Length: 0"))
    assert accepted(head(b"no name" + octet + b": b", b"Content-Length: 0")).reasons == (CloseReason.MALFORMED_FIELD,)


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize(
    "line",
    [
        b"get-ban/forum.php: x",
        b"a b: x",
        b"a@b: x",
        b"(a): x",
        b"\xe9: x",
        b"\x01: x",
        b'"a": x',
        b"a;b=c: x: y",
        b"a/b: x%b folded, with a : colon%b\tand once more",
    ],
)
def test_a_line_whose_name_is_no_token_is_dropped(line: bytes, end: bytes) -> None:
    """Real servers send some; browsers skip them (part 0)."""
    lines = (b"HTTP/1.1 200 OK", b"A: 1", line.replace(b"%b", end), b"B: 2", b" 3", b"Content-Length: 2", b"", b"hi")
    got = accepted(end.join(lines))
    assert fields_of(got) == (("A", "1"), ("B", "2 3"), ("Content-Length", "2"))
    assert got.body == b"hi" and got.reasons == (CloseReason.MALFORMED_FIELD,)


def test_white_space_before_the_colon_is_removed() -> None:
    got = accepted(head(b"A \t: 1", b" folded", b"Content-Length: 0"))
    assert fields_of(got) == (("A", "1 folded"), ("Content-Length", "0"))
    assert got.reasons == (CloseReason.MALFORMED_FIELD,)


@pytest.mark.parametrize("name", [b"Content-Length", b"TRANSFER-encoding", b"connection"])
@pytest.mark.parametrize("form", [b"%b :", b"%b\t:", b"\x0b%b:", b"%b\x0c:"])
def test_C2_a_misnamed_field_that_frames_the_message_is_an_error(name: bytes, form: bytes) -> None:
    line = form.replace(b"%b", name) + b" 5"
    assert "malformed field name" in refused(head(b"A: 1", line, b"Content-Length: 0"))


@pytest.mark.parametrize(
    "lines",
    [
        (b"no colon",),
        (b": no name",),
        (b" folded: at the start", b"A: 1"),
        (b"\tfolded", b"A: 1"),
        (b" ",),
    ],
)
def test_what_is_no_field_line(lines: tuple[bytes, ...]) -> None:
    refused(head(*lines, b"Content-Length: 0"))


# Content-Length (C2, C4; RFC 9110 8.6, RFC 9112 6.3)


@pytest.mark.parametrize(
    ("value", "length"),
    [
        (b"0", 0),
        (b"5", 5),
        (b"005", 5),
        (b"0000000000000000005", 5),
        (b"5, 5", 5),
        (b"5,5,5", 5),
        (b"5 \t", 5),
        (b"9223372036854775807", LARGEST),
    ],
)
def test_C4_a_length_that_is_read(value: bytes, length: int) -> None:
    data = head(b"Content-Length: " + value)
    got = three_ways(data + b"hello" if length == 5 else data, eof=None)
    assert got.error is None and got.head is not None
    assert got.head.framing.length == length and (got.end is not None) == (length <= 5)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"-1",
        b"-0",
        b"+5",
        b"0x10",
        b"1_0",
        b"5.0",
        b"5e0",
        b"5 5",
        b"5;",
        b"5; q=1",
        b'"5"',
        b"five",
        b"5,",
        b",5",
        b"5, 6",
        b"5, 05",
        b"5,5,6",
        b"\xb2",
        "５".encode(),
        b"9223372036854775808",
        b"18446744073709551621",
        b"00000000000000000005",
        b"9" * 19,
        b"1" * 10000,
    ],
)
def test_C4_a_length_that_is_refused(value: bytes) -> None:
    refused(head(b"Content-Length: " + value) + b"hello")
    refused(head(b"Content-Length: " + value, b"Transfer-Encoding: chunked") + b"0\r\n\r\n")
    refused(head(b"Content-Length: " + value), method="HEAD")


def test_C2_repeated_lengths() -> None:
    same = accepted(head(b"Content-Length: 5", b"X: 1", b"content-length: 5") + b"hello")
    assert same.body == b"hello" and same.reasons == ()
    refused(head(b"Content-Length: 5", b"Content-Length: 6") + b"hello!")
    refused(head(b"Content-Length: 5", b"Content-Length: 5, 6") + b"hello!")
    refused(head(b"Content-Length: 5", b"Content-Length: ") + b"hello")


def test_C4_a_megabyte_of_digits_is_refused_before_it_is_a_number() -> None:
    limits = Limits(head=4 << 20, line=2 << 20)
    with hang_guard():
        got = feed([head(b"Content-Length: " + b"7" * (1 << 20))], limits=limits)
    assert type(got.error) is ProtocolError and len(str(got.error)) < 400


def test_C5_a_length_takes_no_memory() -> None:
    exchange = exchange_for()
    tracemalloc.start()
    try:
        exchange.receive_data(head(b"Content-Length: %d" % (1 << 62)))
        assert isinstance(exchange.next_event(), HeadReceived) and exchange.next_event() is None
        assert exchange.body_window() == 1 << 62
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# Transfer-Encoding (RFC 9112 6.1, 6.3)


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b"CHUNKED", b"  chunked\t"])
def test_chunked_in_any_case(value: bytes) -> None:
    got = accepted(head(b"transfer-encoding:" + value) + b"2\r\nhi\r\n0\r\n\r\n")
    assert got.body == b"hi" and got.reasons == ()


@pytest.mark.parametrize(
    "lines",
    [
        (b"Transfer-Encoding: gzip, chunked",),
        (b"Transfer-Encoding: identity",),
        (b"Transfer-Encoding: chunked, chunked",),
        (b"Transfer-Encoding: chunked, identity",),
        (b"Transfer-Encoding: chunked;q=1",),
        (b"Transfer-Encoding: ,chunked",),
        (b"Transfer-Encoding: xchunked",),
        (b"Transfer-Encoding: chun\x01ked",),
        (b"Transfer-Encoding: ",),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
    ],
)
def test_a_coding_that_was_not_asked_for(lines: tuple[bytes, ...]) -> None:
    refused(head(*lines) + b"0\r\n\r\n")
    refused(head(*lines, b"Content-Length: 5") + b"0\r\n\r\n")


# What frames the body: status by method by fields (RFC 9112 6.3)

NO_FIELD: tuple[bytes, ...] = ()
LENGTH_5 = (b"Content-Length: 5",)
LENGTH_0 = (b"Content-Length: 0",)
CODED = (b"Transfer-Encoding: chunked",)
BOTH = (b"Content-Length: 5", b"Transfer-Encoding: chunked")
HELLO = {NO_FIELD: b"hello", LENGTH_5: b"hello", LENGTH_0: b"", CODED: b"5\r\nhello\r\n0\r\n\r\n"}
HELLO[BOTH] = HELLO[CODED]
WITH_BODY = {
    NO_FIELD: (UntilClose, {CloseReason.UNTIL_CLOSE}),
    LENGTH_5: (ContentLength, set()),
    LENGTH_0: (ContentLength, set()),
    CODED: (Chunked, set()),
    BOTH: (Chunked, {CloseReason.LENGTH_AND_CODING}),
}
SURPRISE = {CloseReason.UNEXPECTED_BODY}
WITHOUT_BODY = {
    204: {NO_FIELD: set(), LENGTH_5: SURPRISE, LENGTH_0: set(), CODED: SURPRISE, BOTH: SURPRISE},
    205: {NO_FIELD: SURPRISE, LENGTH_5: SURPRISE, LENGTH_0: set(), CODED: SURPRISE, BOTH: SURPRISE},
    304: {fields: set() for fields in WITH_BODY},
}


@pytest.mark.parametrize("fields", WITH_BODY)
@pytest.mark.parametrize("status", [200, 203, 206, 299, 300, 302, 404, 416, 500, 599, 999])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_response_with_a_body(version: bytes, status: int, fields: tuple[bytes, ...]) -> None:
    data = head(*fields, status=b"%d X" % status, version=version) + HELLO[fields]
    got = accepted(data, header={"Range": "bytes=0-"})
    framing, reasons = WITH_BODY[fields]
    assert got.head is not None and type(got.head.framing) is framing
    assert got.body == (b"" if fields is LENGTH_0 else b"hello")
    assert set(got.reasons) == reasons | ({CloseReason.HTTP_10} if version == b"1.0" else set())


@pytest.mark.parametrize("fields", WITH_BODY)
@pytest.mark.parametrize("status", WITHOUT_BODY)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_status_without_a_body(version: bytes, status: int, fields: tuple[bytes, ...]) -> None:
    got = accepted(head(*fields, status=b"%d X" % status, version=version), eof=None)
    assert got.body == b"" and got.head is not None and got.head.framing.length == 0
    reasons = WITHOUT_BODY[status][fields] | ({CloseReason.HTTP_10} if version == b"1.0" else set())
    assert set(got.reasons) == reasons


@pytest.mark.parametrize("fields", WITH_BODY)
@pytest.mark.parametrize("status", [200, 203, 205, 206, 204, 304, 404, 500])
def test_a_response_to_HEAD_has_no_body(status: int, fields: tuple[bytes, ...]) -> None:
    got = accepted(head(*fields, status=b"%d X" % status), method="HEAD", header={"Range": "bytes=0-"}, eof=None)
    assert got.body == b"" and got.reasons == ()


def test_methods_are_told_apart_by_case() -> None:
    assert accepted(head(*LENGTH_5) + b"hello", method="head").body == b"hello"


@pytest.mark.parametrize("status", [204, 304])
def test_C8_a_body_that_comes_all_the_same_is_surplus(status: int) -> None:
    got = accepted(head(status=b"%d X" % status) + b"hello")
    assert got.body == b"" and got.end is not None and got.end.surplus == 5
    assert got.reasons == (CloseReason.SURPLUS,)
    assert accepted(EMPTY[:-2] + b"\r\nhello", method="HEAD").reasons == (CloseReason.SURPLUS,)


# What was not asked for (part 0)


def test_an_unasked_206_is_an_error() -> None:
    data = head(b"Content-Range: bytes 0-4/5", b"Content-Length: 5", status=b"206 Partial Content") + b"hello"
    assert "206" in refused(data)
    assert "206" in refused(data, method="HEAD")
    assert accepted(data, header={"range": "bytes=0-4"}).body == b"hello"


def test_the_content_range_of_a_200_is_just_a_field() -> None:
    assert accepted(head(b"Content-Range: bytes 7-9/10", b"Content-Length: 5") + b"hello").body == b"hello"


@pytest.mark.parametrize("header", [None, {"Upgrade": "h2c", "Connection": "Upgrade"}])
def test_C9_an_unasked_101_is_an_error(header: dict[str, str] | None) -> None:
    data = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    assert "101 Switching" in refused(data, header=header, eof=None)
    assert "101 Switching" in refused(head(status=b"100 Continue") + data, header=header, eof=None)
    refused(head(status=b"1011 x"))


# Interim responses (C9)


def test_interim_responses_come_first() -> None:
    data = head(status=b"100 Continue") + head(b"Link: <a>", b"Link: <b>", status=b"103 Early") + head(status=b"199 ")
    got = accepted(data + head(b"Content-Length: 2") + b"hi")
    assert [event.status_code for event in got.interim] == [100, 103, 199]
    assert got.interim[1].header.get_all("link") == ["<a>", "<b>"]
    assert got.body == b"hi" and got.reasons == ()


def test_an_interim_response_has_no_body_whatever_it_says() -> None:
    interim = head(b"Content-Length: 5", status=b"102 Processing") + head(
        b"Transfer-Encoding: chunked", b"Connection: close", status=b"103 Early"
    )
    got = accepted(interim + EMPTY)
    assert len(got.interim) == 2 and got.reasons == ()
    refused(interim + b"hello" + EMPTY)


def test_C9_no_more_than_20_interim_responses() -> None:
    interim = head(status=b"103 Early Hints")
    assert len(accepted(interim * 20 + EMPTY).interim) == 20
    assert "21 interim" in refused(interim * 21 + EMPTY)
    assert "1 interim" in refused(interim + EMPTY, limits=Limits(informational=0))


@pytest.mark.parametrize("eof", ["clean", "abrupt"])
def test_C9_only_interim_responses_are_incomplete(eof: str) -> None:
    for interim in (head(status=b"100 Continue"), head(status=b"103 Early") * 3):
        refused(interim, IncompleteHead, eof=eof)
        assert three_ways(interim, eof=None).error is None


def test_an_interim_response_over_http_1_0_is_read() -> None:
    assert accepted(head(status=b"100 Continue", version=b"1.0") + EMPTY).reasons == ()


# Limits: each at the limit, and one above (C10)


def test_C10_bytes_of_a_head() -> None:
    data = head(b"X: " + b"a" * 100, b"Content-Length: 0")
    accepted(data, limits=Limits(head=len(data)))
    assert "response heads" in refused(data, limits=Limits(head=len(data) - 1))
    accepted(b"\r\n" + data, limits=Limits(head=len(data) + 2))
    refused(b"\r\n" + data, limits=Limits(head=len(data) + 1))


@pytest.mark.parametrize("size", [2047, 2048, 2049, 4095, 4096, 4097, 65535, 65536])
def test_C10_the_body_does_not_count_as_head(size: int) -> None:
    """A head is gathered in pieces of 2048 bytes, and what follows it may come with it."""
    start = OK + b"Content-Length: 5000\r\n"
    left = size - len(start) - len(b"\r\n")
    lines = [b"X: " + b"a" * 7995 + b"\r\n"] * (left // 8000)
    data = start + b"".join(lines) + b"Y: " + b"b" * (left % 8000 - 5) + b"\r\n\r\n"
    assert len(data) == size
    body = bytes(range(256)) * 19 + b"x" * 136
    got = accepted(data + body, limits=Limits(head=size))
    assert got.body == body
    refused(data + body, limits=Limits(head=size - 1))


def test_C10_interim_heads_count_with_the_final_one() -> None:
    interim = head(b"Link: <a>", status=b"103 Early")
    size = 3 * len(interim) + len(EMPTY)
    accepted(interim * 3 + EMPTY, limits=Limits(head=size))
    refused(interim * 3 + EMPTY, limits=Limits(head=size - 1))


def test_C10_an_endless_head_is_refused_while_it_comes() -> None:
    assert "65536" in refused(OK + b"X: " + b"a" * 70000, eof=None)
    assert "65536" in refused(OK + b"X: a\r\n" * 20000, eof=None)
    assert "65536" in refused(head(status=b"100 ") + OK + b"X: a\r\n" * 20000, eof=None)


def test_C10_fields() -> None:
    accepted(head(*[b"X: a"] * 255, b"Content-Length: 0"))
    assert "257 header fields" in refused(head(*[b"X: a"] * 256, b"Content-Length: 0"))
    accepted(b"\r\n" + head(*[b"X: a"] * 255, b"Content-Length: 0"))
    refused(b"\r\n" + head(*[b"X: a"] * 256, b"Content-Length: 0"))
    refused(head(b"X: a", *[b" folded"] * 255, b"Content-Length: 0"))
    accepted(OK + b"\r\nhi", limits=Limits(fields=0))
    refused(head(b"X: a"), limits=Limits(fields=0))


@pytest.mark.parametrize("limit", [20, 34, 35, 36, 37, 38, 39, 40, 60, 80])
def test_C10_I9_a_limit_does_not_depend_on_the_cut(limit: int) -> None:
    for data in (EMPTY, head(b"X: y", status=b"103 ") + EMPTY, b"\r\n" + head(b"A: b", b"a b: c") + b"until the end"):
        in_any_two_pieces(data, limits=Limits(head=limit))
        in_any_two_pieces(data, limits=Limits(line=limit - 20))
        in_any_two_pieces(data, limits=Limits(fields=limit % 4))


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_C10_one_line(end: bytes) -> None:
    for line in (b"X: " + b"a" * 97, b"X: b" + end + b" " + b"a" * 99):
        data = end.join((b"HTTP/1.1 200 OK", line, b"Content-Length: 0", b"", b""))
        accepted(data, limits=Limits(line=100))
        assert "header line" in refused(data, limits=Limits(line=99))
    status = b"HTTP/1.1 200 " + b"r" * 87
    data = end.join((status, b"Content-Length: 0", b"", b""))
    accepted(data, limits=Limits(line=100))
    refused(data, limits=Limits(line=99))


def test_C10_the_default_limits() -> None:
    accepted(head(b"X: " + b"a" * 16381, b"Content-Length: 0"))
    refused(head(b"X: " + b"a" * 16382, b"Content-Length: 0"))


@pytest.mark.parametrize(
    "data",
    [
        head(b"Content-Length: 10") + b"0123456789",
        CHUNKED + b"4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n",
        OK + b"\r\n0123456789",
    ],
    ids=["content-length", "chunked", "until-close"],
)
def test_too_large_a_body(data: bytes) -> None:
    assert accepted(data, limits=Limits(body=10)).body == b"0123456789"
    for limit in (9, 5, 0):
        message = refused(data, TooLarge, limits=Limits(body=limit))
        assert f"{limit} are allowed" in message
        got = feed([data], limits=Limits(body=limit))
        assert isinstance(got.error, TooLarge) and got.error.limit == limit
        assert b"0123456789"[:limit].startswith(got.body)


def test_a_length_above_the_limit_is_refused_with_the_head() -> None:
    got = three_ways(head(b"Content-Length: 11"), limits=Limits(body=10), eof=None)
    assert type(got.error) is TooLarge and got.head is None
    assert three_ways(CHUNKED + b"b\r\n", limits=Limits(body=10), eof=None).body == b""


def test_no_limit_is_no_window() -> None:
    exchange = exchange_for(limits=Limits(body=10))
    exchange.receive_data(OK + b"\r\n")
    assert len(list(events_of(exchange))) == 1
    assert exchange.body_window() == 10
    exchange.advance(10)
    assert exchange.body_window() == 0
    exchange.receive_data(b"x")
    with pytest.raises(TooLarge):
        exchange.next_event()


# Why a connection is not used again, each by itself (C8; RFC 9112 9.3, 9.6)


def test_a_connection_may_be_used_again() -> None:
    for data in (EMPTY, head(b"Content-Length: 2", b"Connection: keep-alive") + b"hi", CHUNKED + b"0\r\n\r\n"):
        got = accepted(data)
        assert got.reasons == () and got.end is not None and got.end.surplus == 0


@pytest.mark.parametrize("value", ["close", "Close", "keep-alive, close", "TE , CLOSE"])
def test_the_client_closes(value: str) -> None:
    assert accepted(EMPTY, header={"connection": value}).reasons == (CloseReason.CLIENT_CLOSE,)


@pytest.mark.parametrize(
    "lines",
    [
        (b"Connection: close",),
        (b"connection: CLOSE",),
        (b"Connection: keep-alive, close",),
        (b"Connection: upgrade ,\tclose , x",),
        (b"Connection: x", b"Connection: close"),
    ],
)
def test_the_server_closes(lines: tuple[bytes, ...]) -> None:
    assert accepted(head(*lines, b"Content-Length: 0")).reasons == (CloseReason.SERVER_CLOSE,)
    assert accepted(head(*lines, status=b"304 "), eof=None).reasons == (CloseReason.SERVER_CLOSE,)


@pytest.mark.parametrize("value", [b"closed", b"x-close", b"keep-alive", b"", b"close-x, upgrade"])
def test_what_is_not_a_close(value: bytes) -> None:
    assert accepted(head(b"Connection: " + value, b"Content-Length: 0")).reasons == ()


def test_http_1_0_closes_whatever_it_says() -> None:
    for lines in ((), (b"Connection: keep-alive",)):
        data = head(*lines, b"Content-Length: 0", version=b"1.0")
        assert accepted(data).reasons == (CloseReason.HTTP_10,)


def test_http_1_0_with_a_transfer_coding() -> None:
    """RFC 9112 6.1: it is obeyed, and the connection closed."""
    got = accepted(head(b"Transfer-Encoding: chunked", version=b"1.0") + b"2\r\nhi\r\n0\r\n\r\n")
    assert got.body == b"hi" and got.reasons == (CloseReason.HTTP_10,)


def test_a_body_until_the_close() -> None:
    got = accepted(OK + b"\r\nhi")
    assert got.body == b"hi" and got.reasons == (CloseReason.UNTIL_CLOSE,)
    assert got.head is not None and got.head.framing.length is None
    assert accepted(OK + b"\r\n").body == b""


def test_C2_both_length_and_coding() -> None:
    data = head(b"Transfer-Encoding: chunked", b"Content-Length: 99") + b"2\r\nhi\r\n0\r\n\r\n"
    got = accepted(data)
    assert got.body == b"hi" and got.reasons == (CloseReason.LENGTH_AND_CODING,)
    assert got.head is not None and got.head.framing.length is None


def test_a_malformed_field() -> None:
    assert accepted(head(b"a b: c", b"Content-Length: 0")).reasons == (CloseReason.MALFORMED_FIELD,)
    interim = head(b"a b: c", status=b"103 Early")
    assert accepted(interim + EMPTY).reasons == (CloseReason.MALFORMED_FIELD,)


def test_a_malformed_trailer_field() -> None:
    got = accepted(CHUNKED + b"0\r\na b: c\r\nD: e\r\n\r\n")
    assert got.reasons == (CloseReason.MALFORMED_FIELD,)
    assert got.end is not None and got.end.trailer.fields == (("D", "e"),)


def test_a_body_with_a_205() -> None:
    got = accepted(head(b"Content-Length: 2", status=b"205 Reset") + b"hi")
    assert got.reasons == (CloseReason.UNEXPECTED_BODY, CloseReason.SURPLUS) and got.body == b""


@pytest.mark.parametrize("left", [1, 20, None])
def test_a_response_before_the_request_was_sent(left: int | None) -> None:
    exchange = Exchange(Request("GET", URL_A))
    if left is not None:
        exchange.data_sent(len(exchange.data_to_send()) - left)
    exchange.receive_data(head(b"Content-Length: 2", status=b"413 Too Much") + b"hi")
    *_, end = events_of(exchange)
    assert isinstance(end, BodyComplete) and end.close_reasons == (CloseReason.EARLY_RESPONSE,)


def test_an_interim_response_before_the_request_was_sent() -> None:
    exchange = Exchange(Request("GET", URL_A))
    exchange.receive_data(head(status=b"103 Early"))
    assert len(list(events_of(exchange))) == 1
    exchange.data_sent(len(exchange.data_to_send()))
    exchange.receive_data(EMPTY)
    *_, end = events_of(exchange)
    assert isinstance(end, BodyComplete) and end.close_reasons == ()


@pytest.mark.parametrize("behind", [b"x", b"\r\n", b"\0", BEHIND, BEHIND * 100])
def test_C8_surplus_is_counted_and_never_read(behind: bytes) -> None:
    for data in (EMPTY, head(b"Content-Length: 2") + b"hi", CHUNKED + b"0\r\n\r\n"):
        got = feed([data + behind])
        assert got.error is None and got.end is not None and got.end.surplus == len(behind)
        assert got.end.close_reasons == (CloseReason.SURPLUS,) and got.events <= 3


def test_all_reasons_together_each_once() -> None:
    lines = (b"a b: 1", b"c d: 2", b"Connection: close", b"Connection: close", b"Content-Length: 5")
    data = head(*lines, b"Transfer-Encoding: chunked", version=b"1.0") + b"0\r\n\r\nx"
    got = feed([data], header={"Connection": "close"})
    assert got.reasons == (
        CloseReason.MALFORMED_FIELD,
        CloseReason.SERVER_CLOSE,
        CloseReason.CLIENT_CLOSE,
        CloseReason.HTTP_10,
        CloseReason.LENGTH_AND_CODING,
        CloseReason.SURPLUS,
    )
    assert "Content-Length" in str(got.reasons[4])


# The end comes too early, at every byte (C7, N7-N10, T24)

TRUNCATED = {
    "content-length": head(b"Content-Length: 13") + b"hello, world!",
    "chunked": CHUNKED + b"5\r\nhello\r\n8;x=y\r\n, world!\r\n0\r\n\r\n",
    "chunked with trailer": CHUNKED + b"00d\r\nhello, world!\r\n0;last\r\nX: y\r\nZ:\r\n\r\n",
    "interim": head(b"A: b", status=b"103 Early") + head(b"Content-Length: 13") + b"hello, world!",
    "large chunks": CHUNKED + b"400\r\n" + b"k" * 1024 + b"\r\n1\r\nx\r\n0\r\n\r\n",
    "LF": b"\nHTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
    "nothing": EMPTY,
}
PAYLOAD = dict.fromkeys(TRUNCATED, b"hello, world!")
PAYLOAD.update({"large chunks": b"k" * 1024 + b"x", "LF": b"hi", "nothing": b""})


@pytest.mark.parametrize("eof", ["clean", "abrupt"])
@pytest.mark.parametrize("name", TRUNCATED)
def test_C7_cut_at_every_byte(name: str, eof: str) -> None:
    data, payload = TRUNCATED[name], PAYLOAD[name]
    whole = accepted(data, eof=eof)
    assert whole.body == payload
    for at in range(len(data)):
        if at % 41 and 100 < at < len(data) - 60:
            continue  # inside the large chunk, a few will do
        got = three_ways(data[:at], eof=eof)
        assert type(got.error) is (IncompleteHead if got.head is None else IncompleteBody)
        assert got.end is None and payload.startswith(got.body)
        if isinstance(got.error, IncompleteBody):
            assert got.error.received == len(got.body)
            assert got.error.expected == whole.head.framing.length
        silent = three_ways(data[:at], eof=None)
        assert silent.error is None and silent.end is None and silent.body == got.body


def test_C7_until_the_close_cut_at_every_byte() -> None:
    start, payload = head(b"Server: x"), b"hello, world!"
    for at in range(len(payload) + 1):
        data = start + payload[:at]
        got = accepted(data, eof="clean")
        assert got.body == payload[:at] and got.reasons == (CloseReason.UNTIL_CLOSE,)
        broken = three_ways(data, eof="abrupt")
        assert isinstance(broken.error, IncompleteBody) and broken.body == payload[:at]
        assert (broken.error.received, broken.error.expected) == (at, None)
        silent = three_ways(data, eof=None)
        assert silent.error is None and silent.end is None
    for at in range(len(start)):
        refused(start[:at], IncompleteHead, eof="clean")


def test_what_an_incomplete_body_says() -> None:
    assert "closed after 2 bytes of 5" in refused(head(b"Content-Length: 5") + b"he", IncompleteBody)
    assert "broke off after 2 bytes (chunked 2, end of chunk data)" in refused(
        CHUNKED + b"2\r\nhe", IncompleteBody, eof="abrupt"
    )
    assert "closed after 0 bytes of the response head" in refused(b"", IncompleteHead)


def test_the_close_comes_before_the_data_is_taken() -> None:
    exchange = exchange_for()
    exchange.receive_data(head(b"Content-Length: 5") + b"hello")
    exchange.receive_eof(clean=False)
    assert [type(event) for event in events_of(exchange)] == [HeadReceived, DataReceived, BodyComplete]


# Passing by comes to the same as passing through

STREAMS = [
    (head(b"Content-Length: 5000") + bytes(range(250)) * 20, None),
    (CHUNKED + b"".join(b"%x\r\n%b\r\n" % (n, bytes([n % 251]) * n) for n in range(1, 60)) + b"0\r\n\r\n", None),
    (CHUNKED + b"7d0;ext\r\n" + b"y" * 2000 + b"\r\n3e8\r\n" + b"z" * 1000 + b"\r\n0\r\nT: 1\r\n\r\n", None),
    (OK + b"\r\n" + bytes(range(250)) * 20, None),
    (OK + b"\r\n" + bytes(range(250)) * 20, 4000),
    (CHUNKED + b"7d0\r\n" + b"y" * 2000 + b"\r\n7d0\r\n" + b"z" * 2000 + b"\r\n0\r\n\r\n", 3999),
    (CHUNKED + b"7d0\r\n" + b"y" * 2000 + b"XX", None),
]


@pytest.mark.parametrize("stream", range(len(STREAMS)))
def test_the_window_comes_to_the_same(stream: int) -> None:
    data, limit = STREAMS[stream]
    limits = Limits(body=limit)
    whole = feed([data], limits=limits)
    assert feed([data[i : i + 1] for i in range(len(data))], limits=limits, by_window=True).gist == whole.gist
    rng = random.Random(stream)
    for _ in range(60):
        cuts = sorted(rng.choices(range(len(data) + 1), k=rng.choice([1, 3, 30, 300])))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        for by_window in (False, True):
            assert feed(pieces, limits=limits, by_window=by_window).gist == whole.gist


def test_a_transfer_that_never_passes_through() -> None:
    exchange = exchange_for()
    exchange.receive_data(head(b"Content-Length: %d" % (1 << 40)))
    assert isinstance(exchange.next_event(), HeadReceived) and exchange.next_event() is None
    while (window := exchange.body_window()) > 0:
        exchange.advance(min(window, 1 << 36))
        assert exchange.received == (1 << 40) - exchange.body_window()
    end = exchange.next_event()
    assert isinstance(end, BodyComplete) and end.length == 1 << 40 and end.surplus == 0


def test_data_comes_without_a_copy() -> None:
    exchange = exchange_for()
    buffer = bytearray(head(b"Content-Length: 5000"))
    start = len(buffer)
    buffer += b"a" * 5000
    exchange.receive_data(buffer)
    _, data, _ = events_of(exchange)
    assert isinstance(data, DataReceived) and data.data.obj is buffer
    buffer[start] = ord("b")
    assert data.data[0] == ord("b")


# Time and size (B4)


@pytest.mark.parametrize(
    "line",
    [
        b"X:" + b" " * 1_000_000 + b"\x0b",
        b"X: a" + b" " * 1_000_000 + b"\x0b",
        b"X: " + b"a " * 500_000 + b"\x0c",
        b"X: " + b"a" * 1_000_000 + b"\x0b",
        b"X" * 1_000_000,
        b"X" * 1_000_000 + b" : y",
        b"X" + b" " * 1_000_000 + b"y: z",
        b"Connection: " + b"close," * 150_000,
        b"Content-Length: 5" + b",5" * 500_000,
        b"Transfer-Encoding: " + b"chunked," * 100_000,
    ],
    ids=range(10),
)
def test_B4_long_lines_take_no_longer_than_their_length(line: bytes) -> None:
    limits = Limits(head=1 << 22, line=1 << 22)
    with hang_guard():
        got = feed([head(line) + b"hello"], limits=limits)
    assert got.error is None or (type(got.error) is ProtocolError and len(str(got.error)) < 400)
