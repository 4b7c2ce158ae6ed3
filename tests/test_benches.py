"""Do the origin, its resources, nginx and the guard of the test suite do what they say?

Asked on raw sockets and with the standard library's clients.
"""

from __future__ import annotations

import errno
import http.client
import itertools
import socket
import ssl
import struct
import threading
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

import rawdl
from tests.nginx import Nginx
from tests.origin import PACE_ARREARS, PACE_TICK, End, Origin, Pacer, Request, Script, Send, Wait
from tests.resource import BOUNDARY, DATE, DAY_LATER, LAST_MODIFIED, Fault, Resource, Span, redirect
from tests.sim import World, http_peer

pytestmark = pytest.mark.one_version

pytest_plugins = ["pytester"]

GET = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = bytes(range(256)) * 100


def connect(origin: Origin, context: ssl.SSLContext | None = None) -> socket.socket:
    sock = socket.create_connection((origin.host, origin.port), timeout=10)
    if context is None:
        return sock
    return context.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False)


def read_all(sock: socket.socket) -> tuple[bytes, type[OSError] | None]:
    """Return everything up to the end, and the error that was the end if it was one."""
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except OSError as error:
        return data, type(error)
    return data, None


def exchange(origin: Origin, script: Script, context: ssl.SSLContext | None = None) -> tuple[bytes, object]:
    origin.serve("/a", script)
    with closing(connect(origin, context)) as sock:
        sock.sendall(GET)
        return read_all(sock)


def fetch(url: str, context: ssl.SSLContext | None = None) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.netloc, timeout=10, context=context)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    with closing(connection):
        connection.request("GET", parts.path)
        response = connection.getresponse()
        response.content = response.read()
        return response


@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
@pytest.mark.parametrize("chunk", [65536, 1000])
def test_framings(origin: Origin, framing: str, chunk: int):
    script = Script(body=BODY, framing=framing, chunk=chunk, header=(("X-A", "1"), ("X-A", "2")))
    response = fetch(origin.serve("/a", script))
    assert response.content == BODY
    assert response.headers.get_all("x-a") == ["1", "2"]
    assert (response.length is None) == (framing != "content-length")


def test_the_whole_vocabulary_on_the_wire():
    script = Script(
        status=206,
        reason="Partial",
        body=b"hello",
        header=(("A", "b"),),
        framing="chunked",
        chunk=3,
        trailer=(("T", "1"),),
        informational=(b"HTTP/1.1 103 Early\r\n\r\n",),
        http_version="1.0",
        keep_alive=False,
    )
    head = b"HTTP/1.0 206 Partial\r\nA: b\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    body = b"3\r\nhel\r\n2\r\nlo\r\n0\r\nT: 1\r\n\r\n"
    assert script.head == head
    assert script.wire == b"HTTP/1.1 103 Early\r\n\r\n" + head + body
    assert script.wire[script.body_at :] == body
    assert Script(status=204, framing="none", body=b"x").wire == b"HTTP/1.1 204 OK\r\n\r\n"
    assert Script(raw=b"junk", body=b"x").wire == b"junk"
    assert Script(content_length=7, body=b"x").wire.endswith(b"Content-Length: 7\r\n\r\nx")


def test_a_stop_behind_the_end_is_refused():
    with pytest.raises(AssertionError, match="tests nothing"):
        list(Script(raw=b"12345", cut_at=6).acts())


@pytest.mark.parametrize("offset", [0, 1, 50, 300])
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_cut_at(origin: Origin, offset: int, how: str):
    script = Script(body=b"x" * 1000, cut_at=offset, cut=how)
    data, error = exchange(origin, script)
    assert error is (None if how == "fin" else ConnectionResetError)
    assert data == script.wire[:offset] if how == "fin" else script.wire.startswith(data)


@pytest.mark.parametrize("close_notify", [True, False])
def test_how_tls_ends(tls_origin: Origin, ca_file: Path, close_notify: bool):
    script = Script(body=BODY, framing="until-close", close_notify=close_notify)
    data, error = exchange(tls_origin, script, ssl.create_default_context(cafile=str(ca_file)))
    assert data == script.wire
    assert error is (None if close_notify else ssl.SSLEOFError)


def test_a_large_body_over_tls(tls_origin: Origin, ca_file: Path):
    context = ssl.create_default_context(cafile=str(ca_file))
    url = tls_origin.serve("/a", Script(body=BODY * 100)).replace("127.0.0.1", "localhost")
    assert fetch(url, context).content == BODY * 100
    assert tls_origin.wait_request().path == "/a"


def test_a_certificate_that_the_client_refuses_is_recorded(tls_origin: Origin):
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(tls_origin, ssl.create_default_context())
    tls_origin.wait_closed()
    assert tls_origin.requests == []
    assert "alert" in str(tls_origin.tls_errors)


def test_keep_alive_requests_and_closures(origin: Origin):
    url = origin.serve("/a", Script(body=b"1"), Script(body=b"2"), Script(body=b"3", keep_alive=False))
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    with closing(connection):
        bodies = []
        for path in ("/a?1", "/a", "/a", "/nowhere"):
            connection.request("GET", path, headers={"X-Token": "t"})
            bodies.append(connection.getresponse().read())
    assert bodies[:3] == [b"1", b"2", b"3"]
    assert bodies[3].startswith(b"no script")
    assert [(request.target, request.connection) for request in origin.requests] == [
        ("/a?1", 1),
        ("/a", 1),
        ("/a", 1),
        ("/nowhere", 2),
    ]
    assert origin.requests[0].field("x-token") == "t"
    assert origin.requests[0].field("cookie") is None
    assert origin.wait_closed(2).how == "fin"
    assert origin.connections == 2


def test_a_function_of_the_request(origin: Origin):
    def answer(request: Request) -> Script:
        return Script(body=request.target.encode())

    url = origin.serve("*", answer)
    assert fetch(url + "some/where").content == b"/some/where"


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize(
    "script",
    [
        Script(body=b"x" * 100, stall_at=0),
        Script(body=b"x" * 100, stall_at=60),
        Script(body=itertools.repeat(b"x" * 65536), framing="until-close"),
        Script(body=itertools.repeat(b"x" * 65536), framing="chunked", pace=1e6),
        Script(body=b"", head_delay=3600.0),
    ],
    ids=["silent", "stalling", "blocked", "sending", "waiting"],
)
def test_the_origin_sees_the_close_whatever_it_is_doing(origin: Origin, script: Script, how: str):
    origin.serve("/a", script)
    sock = connect(origin)
    with closing(sock):
        sock.sendall(GET)
        origin.wait_request()
        if how == "rst":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        before = time.monotonic()
    closed = origin.wait_closed()
    assert closed.connection == 1
    assert closed.at >= before
    if how == "rst":
        assert closed.how == "rst"


def test_pace_and_stalls_take_their_time(origin: Origin):
    script = Script(body=b"x" * 1000, pace=10_000, head_delay=0.05, stall_at=60, stall_for=0.05)
    before = time.monotonic()
    assert fetch(origin.serve("/a", script)).content == b"x" * 1000
    assert time.monotonic() - before >= 0.05 + 0.05 + 0.08  # all but the last interval of the pace


@pytest.mark.parametrize(
    ("pace", "piece"), [(10, 1), (2000, 40), (10_000, 200), (500_000, 4096), (1_000_000, 5000), (50_000_000, 65536)]
)
def test_the_pieces_of_a_pace(pace: int, piece: int):
    sizes = [len(act.data) for act in Script(raw=b"x" * 65536, pace=pace).acts() if isinstance(act, Send)]
    assert set(sizes[:-1]) <= {piece}
    assert sum(sizes) == 65536


@pytest.mark.parametrize("seconds", [0.0001, 0.0013, 0.005, 0.02])
@pytest.mark.parametrize("late", [0.0, 0.0009, 0.05])
def test_late_awakenings_do_not_add_up(seconds: float, late: float):
    pacer, now = Pacer(), 1000.0
    pacer.start(now)
    for _ in range(2000):
        due = pacer.until(seconds, now)
        assert due == now or due - now >= PACE_TICK
        now = due + late if due > now else now
    assert now - 1000.0 == pytest.approx(2000 * seconds, abs=late + 0.005)


@pytest.mark.parametrize(("restart", "elapsed"), [(True, 100 + 100 * 0.01), (False, 100 + 100 * 0.01 - PACE_ARREARS)])
def test_only_a_delay_that_is_no_stall_is_made_up_for(restart: bool, elapsed: float):
    pacer, now = Pacer(), 1000.0
    pacer.start(now)
    now += 100  # the client did not take it, or the script stalled
    if restart:
        pacer.start(now)
    for _ in range(100):
        now = pacer.until(0.01, now)
    assert now - 1000.0 == pytest.approx(elapsed, abs=0.011)


@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
@pytest.mark.parametrize("size", [0, 1, 19, 20, 21, 45])
def test_offsets_in_the_body(framing: str, size: int):
    script = Script(body=BODY[:size], framing=framing, chunk=20, informational=(b"HTTP/1.1 103 Early\r\n\r\n",))
    for payload in range(size + 1):
        at = script.wire_at(payload)
        assert script.wire[:at].endswith(BODY[:payload][-1:])
        assert script.payload_at(at) == payload
        assert script.payload_at(at - 1) == max(0, payload - 1)
    assert script.wire_at(0) == script.body_at
    assert script.payload_at(len(script.wire)) == size
    assert script.payload_at(0) == 0


def test_what_is_sent_is_told(origin: Origin):
    sent: list[int] = []
    script = Script(body=b"x" * 1000, chunk=100, cut_at=500, on_send=sent.append)
    data, _ = exchange(origin, script)
    assert len(data) == sum(sent) == 500
    assert len(sent) > 3


def test_mute():
    with Origin(on_accept="mute") as origin, closing(connect(origin)) as sock:
        sock.sendall(GET)
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.close()
        assert origin.wait_closed().how == "fin"
        assert origin.requests == []


def test_reset():
    # The reset may come as early as in connect().
    with Origin(on_accept="reset") as origin, pytest.raises(ConnectionResetError), closing(connect(origin)) as sock:
        sock.recv(1)


def test_refuse():
    with Origin(on_accept="refuse") as origin, closing(socket.socket()) as sock:
        assert sock.connect_ex((origin.host, origin.port)) == errno.ECONNREFUSED


def test_ipv6_and_its_url():
    try:
        with Origin(host="::1") as origin:
            assert fetch(origin.serve("/a", Script(body=b"six"))).content == b"six"
            assert origin.url("/a") == f"http://[::1]:{origin.port}/a"
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")


def test_plain_http_where_tls_was_expected(origin: Origin, ca_file: Path):
    with pytest.raises(ssl.SSLError):
        connect(origin, ssl.create_default_context(cafile=str(ca_file)))
    assert origin.requests == []


def test_what_goes_wrong_in_a_thread_is_raised_at_the_end():
    def answer(request: Request) -> Script:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Origin() as origin:
        origin.serve("/a", answer)
        with closing(connect(origin)) as sock, suppress(OSError):
            sock.sendall(GET)
            sock.recv(1)


def test_an_origin_ends_with_clients_still_connected():
    threads = threading.active_count()
    with Origin() as origin:
        sock = connect(origin)
        origin.serve("/a", Script(body=b"x", stall_at=3))
        sock.sendall(GET)
        origin.wait_request()
    sock.close()
    assert threading.active_count() == threads


# Resources

WHOLE = b"0123456789abcdefghij"
ETAG = '"v1"'
CLOSING = Script(keep_alive=False)


class Answer(NamedTuple):
    """A response as it came, and the error that was its end."""

    status: int
    header: dict[str, str]
    body: bytes  # as on the wire
    error: object


def ask(origin: Origin, resource: Resource, *fields: str) -> Answer:
    """Ask for a resource on a connection of our own, with fields such as "Range: bytes=0-"."""
    data, error = ask_raw(origin, resource, *fields)
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return Answer(int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body, error)


def ask_raw(origin: Origin, resource: Resource, *fields: str) -> tuple[bytes, type[OSError] | None]:
    origin.serve("/a", resource)
    request = "\r\n".join(["GET /a HTTP/1.1", "Host: localhost", *fields, "", ""])
    with closing(connect(origin)) as sock:
        sock.sendall(request.encode())
        return read_all(sock)


def test_a_whole_resource(origin: Origin):
    answer = ask(origin, Resource(WHOLE, like=Script(keep_alive=False, header=(("X-A", "1"),))))
    assert answer == Answer(
        200,
        {
            "Date": "Wed, 21 Oct 2015 08:28:00 GMT",
            "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT",
            "ETag": '"v1"',
            "Accept-Ranges": "bytes",
            "X-A": "1",
            "Content-Length": "20",
            "Connection": "close",
        },
        WHOLE,
        None,
    )
    bare = Resource(WHOLE, etag=None, last_modified=None, date=None, accept_ranges=None, like=CLOSING)
    assert ask(origin, bare).header == {"Content-Length": "20", "Connection": "close"}


@pytest.mark.parametrize(
    ("last_modified", "date"),
    [(LAST_MODIFIED, DATE), (DAY_LATER, "Thu, 22 Oct 2015 08:28:00 GMT"), (None, DATE), ("yesterday", DATE)],
)
def test_the_default_date(origin: Origin, last_modified: str | None, date: str):
    assert ask(origin, Resource(WHOLE, last_modified=last_modified, like=CLOSING)).header["Date"] == date


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-", 0, 19),
        ("bytes=5-", 5, 19),
        ("bytes=19-", 19, 19),
        ("bytes=5-9", 5, 9),
        ("bytes=5-5", 5, 5),
        ("BYTES=5-1000000000000000000000", 5, 19),
        ("bytes=-1", 19, 19),
        ("bytes=-20", 0, 19),
        ("bytes=-21", 0, 19),
    ],
)
@pytest.mark.parametrize("ranges", ["honour", "ignore-if-range"])
def test_parts(origin: Origin, asked: str, first: int, last: int, ranges: str):
    resource = Resource(WHOLE, ranges=ranges, like=CLOSING)
    answer = ask(origin, resource, f"Range: {asked}")
    assert (answer.status, answer.body) == (206, WHOLE[first : last + 1])
    assert answer.header["Content-Range"] == f"bytes {first}-{last}/20"
    assert answer.header["Content-Length"] == str(last + 1 - first)
    assert answer.header["ETag"] == ETAG
    assert resource.spans == [(first, last)]


@pytest.mark.parametrize(
    ("body", "asked", "status"),
    [
        (WHOLE, "bytes=20-", 416),
        (WHOLE, "bytes=1000000000000000000000-", 416),
        (WHOLE, "bytes=-0", 416),
        (b"", "bytes=0-", 416),
        (b"", "bytes=-5", 416),
        (WHOLE, "bytes=5-4", 200),
        (WHOLE, "bytes=-", 200),
        (WHOLE, "bytes=x-", 200),
        (WHOLE, "bytes=5", 200),
        (WHOLE, "bytes=0-1,3-4", 200),
        (WHOLE, "items=0-1", 200),
    ],
)
def test_what_is_no_part(origin: Origin, body: bytes, asked: str, status: int):
    resource = Resource(body, like=CLOSING)
    answer = ask(origin, resource, f"Range: {asked}")
    assert answer.status == status
    assert answer.header.get("Content-Range") == (f"bytes */{len(body)}" if status == 416 else None)
    assert status == 416 or answer.body == body
    assert resource.spans == [None if status == 416 else (0, 19)]


SECOND = "Wed, 21 Oct 2015 07:28:01 GMT"


@pytest.mark.parametrize(
    ("options", "if_range", "holds"),
    [
        ({}, '"v1"', True),
        ({}, '"v2"', False),
        ({}, 'W/"v1"', False),
        ({"etag": 'W/"v1"'}, 'W/"v1"', False),
        ({"etag": 'W/"v1"'}, '"v1"', False),
        ({"etag": None}, '"v1"', False),
        ({}, LAST_MODIFIED, True),
        ({"date": SECOND}, LAST_MODIFIED, True),
        ({"date": LAST_MODIFIED}, LAST_MODIFIED, False),
        ({"date": None}, LAST_MODIFIED, False),
        ({}, SECOND, False),
        ({}, "Wednesday, 21-Oct-15 07:28:00 GMT", False),
        ({"last_modified": None}, LAST_MODIFIED, False),
        ({"last_modified": "yesterday"}, "yesterday", False),
        ({}, "", False),
    ],
)
def test_if_range(origin: Origin, options: dict[str, str | None], if_range: str, holds: bool):
    resource, condition = Resource(WHOLE, **options, like=CLOSING), f"If-Range: {if_range}"
    assert ask(origin, resource, "Range: bytes=5-", condition).status == (206 if holds else 200)
    assert ask(origin, resource, condition).status == 200
    resource.ranges = "ignore-if-range"
    assert ask(origin, resource, "Range: bytes=5-", condition).status == 206


WRONG = b"56789abcdef" + bytes([ord("g") ^ 0xFF])  # the bytes 5-16, but for the last
MULTIPART = (
    b"--%b\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 5-16/20\r\n\r\n56789abcdefg\r\n--%b--\r\n"
) % (BOUNDARY.encode(), BOUNDARY.encode())


@pytest.mark.parametrize(
    ("ranges", "status", "content_range", "body", "field"),
    [
        ("honour", 206, "bytes 5-16/20", b"56789abcdefg", None),
        ("ignore", 200, None, WHOLE, None),
        ("start-low", 206, "bytes 2-16/20", b"23456789abcdefg", None),
        ("start-high", 206, "bytes 8-16/20", b"89abcdefg", None),
        ("end-high", 206, "bytes 5-19/20", b"56789abcdefghij", None),
        ("short", 206, "bytes 5-10/20", b"56789a", None),
        ("end-before-start", 206, "bytes 5-4/20", WRONG, None),
        ("total-changed", 206, "bytes 5-16/21", WRONG, None),
        ("total-star", 206, "bytes 5-16/*", WRONG, None),
        ("no-content-range", 206, None, WRONG, None),
        ("other-unit", 206, "items 5-16/20", WRONG, None),
        ("other-etag", 206, "bytes 5-16/20", WRONG, ("ETag", '"another"')),
        ("other-modified", 206, "bytes 5-16/20", WRONG, ("Last-Modified", DAY_LATER)),
        ("coded", 206, "bytes 5-16/20", WRONG, ("Content-Encoding", "gzip")),
        ("multipart", 206, None, MULTIPART, ("Content-Type", f"multipart/byteranges; boundary={BOUNDARY}")),
        ("416", 416, "bytes */20", b"out of range\n", None),
        ("416-bare", 416, None, b"out of range\n", None),
        ("error", 503, None, b"not now\n", ("Retry-After", "7")),
    ],
)
def test_how_range_is_answered(
    origin: Origin, ranges: str, status: int, content_range: str | None, body: bytes, field: tuple[str, str] | None
):
    resource = Resource(WHOLE, ranges=ranges, retry_after="7", like=CLOSING)
    answer = ask(origin, resource, "Range: bytes=5-16", f"If-Range: {ETAG}")
    assert (answer.status, answer.header.get("Content-Range"), answer.body) == (status, content_range, body)
    assert answer.header["Content-Length"] == str(len(body))
    if field:
        assert answer.header[field[0]] == field[1]
    else:
        assert {"Retry-After", "Content-Encoding", "Content-Type"}.isdisjoint(answer.header)
        assert answer.header.get("ETag", ETAG) == ETAG
        assert answer.header.get("Last-Modified", LAST_MODIFIED) == LAST_MODIFIED
    whole = ask(origin, resource)
    assert (whole.status, whole.body) == (200, WHOLE), "without Range all are honest"


@pytest.mark.parametrize("asked", ["bytes=0-", "bytes=19-", "bytes=0-0"])
@pytest.mark.parametrize("ranges", ["start-low", "start-high", "end-high", "short", "end-before-start"])
def test_at_the_edges_there_is_something_left(origin: Origin, ranges: str, asked: str):
    resource = Resource(WHOLE, ranges=ranges, like=CLOSING)
    answer = ask(origin, resource, f"Range: {asked}")
    (span,) = resource.spans
    assert 0 <= span.first <= span.last < 20
    assert len(answer.body) == span.last + 1 - span.first
    if ranges == "end-before-start":
        first, last = answer.header["Content-Range"].removeprefix("bytes ").removesuffix("/20").split("-")
        assert int(last) == int(first) - 1


FRAMED = {
    "content-length": b"56789abcde",
    "chunked": b"4\r\n5678\r\n4\r\n9abc\r\n2\r\nde\r\n0\r\n\r\n",
    "until-close": b"56789abcde",
}


@pytest.mark.parametrize("part_framing", FRAMED)
@pytest.mark.parametrize("framing", FRAMED)
def test_a_part_has_a_framing_of_its_own(origin: Origin, framing: str, part_framing: str):
    like = Script(chunk=4, keep_alive=False)
    resource = Resource(WHOLE, framing=framing, part_framing=part_framing, like=like)
    whole, part = ask(origin, resource), ask(origin, resource, "Range: bytes=5-14")
    assert part.body == FRAMED[part_framing]
    assert resource.log[1].sent == 10
    for answer, expected in ((whole, framing), (part, part_framing)):
        assert ("Content-Length" in answer.header) == (expected == "content-length")
        assert ("Transfer-Encoding" in answer.header) == (expected == "chunked")
    assert b"".join(whole.body.split(b"\r\n")[1:-2:2] if framing == "chunked" else [whole.body]) == WHOLE


@pytest.mark.parametrize("framing", FRAMED)
@pytest.mark.parametrize("kind", ["fin", "rst"])
@pytest.mark.parametrize(
    ("where", "fields"),
    [({"at": 0}, ()), ({"at": 30}, ()), ({"in_body": 0}, ()), ({"in_body": 7}, ("Range: bytes=5-14",))],
)
def test_a_fault_and_clean_afterwards(
    origin: Origin, framing: str, kind: str, where: dict[str, int], fields: tuple[str, ...]
):
    resource = Resource(WHOLE, framing=framing, part_framing=framing, faults=[None, Fault(**where, kind=kind)])
    resource.like = Script(chunk=4, keep_alive=False)
    clean = ask_raw(origin, resource, *fields)
    data, error = ask_raw(origin, resource, *fields)
    struck = resource.log[1]
    offset = where["at"] if "at" in where else struck.script.wire_at(where["in_body"])
    assert error is (None if kind == "fin" else ConnectionResetError)
    assert data == clean[0][:offset] if kind == "fin" else clean[0].startswith(data)
    assert struck.wire == offset
    assert struck.sent == where.get("in_body", 0)
    assert clean == (struck.script.wire, None)
    assert ask_raw(origin, resource, *fields) == clean


@pytest.mark.parametrize("stall_for", [2.5, None])
def test_a_stall(stall_for: float | None):
    resource = Resource(WHOLE, faults=[Fault(in_body=7, kind="stall", stall_for=stall_for)])
    script = resource(Request(GET, ("", 0), 1))
    acts = list(script.acts())
    at = acts.index(Wait(stall_for))
    assert b"".join(act.data for act in acts[:at] if isinstance(act, Send)) == script.wire[: script.wire_at(7)]
    assert b"".join(act.data for act in acts if isinstance(act, Send)) == script.wire
    assert not any(isinstance(act, End) for act in acts)


@pytest.mark.parametrize("where", [{}, {"at": 1, "in_body": 1}])
def test_a_fault_is_at_one_place(where: dict[str, int]):
    with pytest.raises(AssertionError, match="wire offset or in the body"):
        Resource(WHOLE, faults=[Fault(**where)])(Request(GET, ("", 0), 1))


def test_statuses_come_first_and_use_up_no_fault(origin: Origin):
    resource = Resource(WHOLE, status_first=[503, 429], retry_after="2", faults=[Fault(in_body=3)], like=CLOSING)
    answers = [ask(origin, resource, "Range: bytes=5-") for _ in range(4)]
    assert [answer.status for answer in answers] == [503, 429, 206, 206]
    assert [answer.header.get("Retry-After") for answer in answers] == ["2", "2", None, None]
    assert [answer.body for answer in answers] == [b"not now\n", b"not now\n", b"567", b"56789abcdefghij"]
    assert resource.spans == [None, None, (5, 19), (5, 19)]
    assert resource.sent == 3 + 15


def test_a_change_between_requests_and_during_one(origin: Origin):
    resource = Resource(BODY * 100, like=CLOSING)
    origin.serve("/a", resource)
    with closing(connect(origin)) as sock:
        sock.sendall(GET)
        begin = sock.recv(1)
        resource.change(WHOLE, '"v2"')
        assert (begin + read_all(sock)[0]).endswith(BODY * 100)
    old = ask(origin, resource, "Range: bytes=5-", f"If-Range: {ETAG}")
    assert (old.status, old.body, old.header["ETag"], old.header["Last-Modified"]) == (200, WHOLE, '"v2"', DAY_LATER)
    assert ask(origin, resource, "Range: bytes=5-", 'If-Range: "v2"').body == WHOLE[5:]
    resource.ranges = "ignore-if-range"
    mixing = ask(origin, resource, "Range: bytes=5-", f"If-Range: {ETAG}")
    assert (mixing.status, mixing.body, mixing.header["ETag"]) == (206, WHOLE[5:], '"v2"')


def test_the_log_of_a_resource(origin: Origin):
    resource = Resource(WHOLE, faults=[Fault(in_body=12)], like=CLOSING)
    ask(origin, resource)
    ask(origin, resource, "Range: bytes=12-")
    ask(origin, resource, "Range: bytes=20-")
    assert resource.ranges_asked == [None, "bytes=12-", "bytes=20-"]
    assert [(served.status, served.span, served.sent) for served in resource.log[:2]] == [
        (200, Span(0, 19), 12),
        (206, Span(12, 19), 8),
    ]
    assert resource.log[2].span is None
    assert resource.sent == 20
    assert [served.request for served in resource.log] == origin.requests


def test_a_redirect(origin: Origin):
    data, _ = exchange(origin, replace(redirect("/b", 307, b"x", [("X-A", "1")]), keep_alive=False))
    assert data == (
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /b\r\nX-A: 1\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
    )
    assert redirect("/b").wire.startswith(b"HTTP/1.1 302 Found\r\n")


def test_a_resource_in_virtual_time():
    resource = Resource(WHOLE, faults=[Fault(in_body=7, kind="stall", stall_for=30.0)])
    data = bytearray()
    with World() as world:
        world.listen("example.org", 80, http_peer({"/a": resource}))
        client = world.client()
        task = client.download_file(url="http://example.org/a", header={"Range": "bytes=5-14"}, sink=data.extend)
        client.run()
        assert world.elapsed > 30.0
    assert (task.result().status_code, data) == (206, WHOLE[5:15])
    assert [(served.span, served.sent) for served in resource.log] == [((5, 14), 10)]


def test_nginx(nginx: Nginx):
    (nginx.root / "bench.bin").write_bytes(BODY)
    context = ssl.create_default_context(cafile=str(nginx.ca_file))
    for base in (nginx.http, nginx.https):
        response = fetch(base + "/bench.bin", context)
        assert response.content == BODY
        assert response.headers["etag"]
    assert fetch(nginx.http + "/slow/bench.bin").content == BODY
    assert fetch(nginx.http + "/redirect/bench.bin").headers["location"].endswith("/bench.bin")
    assert fetch(nginx.http + "/nowhere").status == 404
    assert "GET /nowhere" in nginx.log("GET /nowhere")


def test_nginx_with_chunks(nginx: Nginx):
    if not nginx.has_chunked:
        pytest.skip("this nginx was built without http_sub_module")
    (nginx.root / "bench.bin").write_bytes(BODY)
    response = fetch(nginx.http + "/chunked/bench.bin")
    assert response.headers["transfer-encoding"] == "chunked"
    assert response.content == BODY


GUARDED = """
    import os, socket, threading, time
    import pytest

    def test_leaves_a_descriptor():
        os.dup(0)

    def test_leaves_a_thread():
        threading.Thread(target=time.sleep, args=(0.3,)).start()

    def test_leaves_a_part(tmp_path):
        (tmp_path / "a.part").touch()

    def test_leaves_nothing(tmp_path):
        (tmp_path / "a").touch()
        with open(tmp_path / "a"):
            thread = threading.Thread(target=time.sleep, args=(0.01,))
            thread.start()
            thread.join()

    @pytest.mark.usefixtures("leaves_parts", "leaves_descriptors")
    def test_may_leave(tmp_path):
        (tmp_path / "a.part").touch()
        os.dup(0)

    @pytest.mark.parametrize("address", [("192.0.2.1", 80), ("example.org", 80)])
    @pytest.mark.parametrize("method", ["connect", "connect_ex"])
    def test_leaves_the_machine(address, method):
        with socket.socket() as sock:
            getattr(sock, method)(address)
"""


@pytest.mark.usefixtures("leaves_descriptors")
def test_the_guard(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    import tests.conftest

    monkeypatch.setattr(tests.conftest, "GRACE", 0.02)
    pytester.makeconftest("from tests.conftest import *")
    pytester.makepyfile(GUARDED)
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=5, errors=3, failed=4)
    for what in ("leaves_a_descriptor", "leaves_a_thread", "leaves_a_part"):
        result.stdout.re_match_lines([f"ERROR .*{what}.* left behind"])


def test_the_real_client_downloads_from_the_benches(tls_origin: Origin, nginx: Nginx, ca_file: Path, tmp_path: Path):
    (nginx.root / "bench.bin").write_bytes(BODY)
    urls = [tls_origin.serve("/a", Script(body=BODY, framing="chunked")), nginx.https + "/bench.bin"]
    with rawdl.Client(tls=rawdl.TLS(ca_file=str(ca_file))) as client:
        for url in urls:
            client.download_file(url=url, file_path=tmp_path / "a").result()
            assert (tmp_path / "a").read_bytes() == BODY
