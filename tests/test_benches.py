"""Do the origin, nginx and the guard of the test suite do what they say? Asked with the standard library's clients."""

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
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import rawdl
from tests.nginx import Nginx
from tests.origin import Origin, Request, Script

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
    assert "GET /nowhere" in nginx.log()


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
