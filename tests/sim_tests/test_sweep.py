"""A response that ends, breaks or falls silent after each of its bytes: only what is complete is a success."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
import trustme

import rawdl
from rawdl import Phase
from tests.origin import Send
from tests.sim import Link, Script, World, http_peer
from tests.sim_tests.fetch import HOST, SECURE_URL, Fetch, assert_nothing_left

How = Literal["fin", "rst", "stall"]

BODY = bytes(range(65, 165))
RESPONSES = {
    "content-length": Script(body=BODY, chunk=33),
    "chunked": Script(body=BODY, framing="chunked", chunk=33),
    "chunked with a trailer": Script(body=BODY, framing="chunked", chunk=48, trailer=(("X-Sum", "1"), ("X-End", "y"))),
    "until-close": Script(body=BODY, framing="until-close", chunk=33),
    "interim": Script(body=BODY, informational=(b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n",)),
}
# What a TLS 1.3 record adds to what is in it: header, content type, tag (RFC 8446 5.2). close_notify has two bytes.
RECORD, CLOSE_NOTIFY = 22, 24

every_how = pytest.mark.parametrize("how", ["fin", "rst", "stall"])
every_response = pytest.mark.parametrize("name", list(RESPONSES))


class Cut(NamedTuple):
    """What arrives of a response before it is cut."""

    script: Script
    plain: int  # bytes of the response, without those of TLS
    how: How
    closes: bool  # whether the end of the stream is a valid end of a body: a FIN, over TLS a close_notify

    @property
    def in_head(self) -> bool:
        return self.plain < self.script.body_at

    @property
    def payload(self) -> bytes:
        return payload_of(self.script, self.plain)

    @property
    def complete(self) -> bool:
        if self.script.framing == "until-close":
            return not self.in_head and self.closes
        return self.plain == len(self.script.wire)


def payload_of(script: Script, offset: int) -> bytes:
    """Return what of the body is in the first bytes of a response."""
    at, payload = script.body_at, b""
    if script.framing != "chunked":
        return BODY[: max(0, offset - at)]
    for start in range(0, len(BODY), script.chunk):
        piece = BODY[start : start + script.chunk]
        at += len(b"%x\r\n" % len(piece))
        payload += piece[: max(0, offset - at)]
        at += len(piece) + 2
    return payload


def test_the_payload_of_each_offset():
    script = RESPONSES["chunked"]
    at = script.body_at + len(b"21\r\n")
    assert [len(payload_of(script, at + n)) for n in (-1, 0, 1, 33, 34, 35, 38, 39, 40)] == [
        0,
        0,
        1,
        33,
        33,
        33,
        33,
        33,
        34,
    ]
    assert payload_of(script, len(script.wire)) == BODY


def link_for(how: How, offset: int, segment: int = 16384) -> Link:
    if how == "stall":
        return Link(stall_at=offset, segment=segment)
    return Link(cut_at=offset, cut=how, segment=segment)


def check(world: World, client: rawdl.Client, fetch: Fetch, cut: Cut) -> None:
    """See that the download ended as what arrived of the response says, and left nothing."""
    idle = len(world.sockets) if cut.complete else 0
    assert_nothing_left(world, client, idle)
    if cut.complete:
        assert fetch.result.data_length == len(cut.payload)
        return
    error = fetch.error
    assert error.url == fetch.task.url
    assert (fetch.names[0] == "headers") == (not cut.in_head)
    if cut.how == "stall":
        assert isinstance(error, rawdl.Timeout), error
        assert error.phase is (Phase.HEAD if cut.in_head else Phase.IDLE)
    elif cut.in_head:
        assert isinstance(error, rawdl.IncompleteHead if cut.how == "fin" else rawdl.ConnectionLost), error
    else:
        assert isinstance(error, rawdl.IncompleteBody), error
        assert error.received == len(cut.payload)
        assert error.expected == (len(BODY) if cut.script.framing == "content-length" else None)
        assert cut.how == "fin" or isinstance(error.__cause__, rawdl.ConnectionLost)


def check_file(path: Path, cut: Cut) -> None:
    """See that there is a file only after a success, and nothing else in the folder."""
    if cut.complete:
        assert path.read_bytes() == cut.payload
        path.unlink()
    assert list(path.parent.iterdir()) == []


# Plain


@every_how
@every_response
@pytest.mark.parametrize("segment", [16384, 1])
@pytest.mark.contract("N7", "N8", "N9", "N10", "N11", "C7", "T24", "S18", "I2", "I8", "I9")
def test_at_every_byte(name: str, how: How, segment: int):
    script = RESPONSES[name]
    for offset in range(len(script.wire) + 1):
        cut = Cut(script, offset, how, closes=how == "fin")
        with World() as world:
            world.listen(HOST, 80, http_peer(script), link=link_for(how, offset, segment))
            client = world.client()
            fetch = Fetch(client)
            client.run()
            check(world, client, fetch, cut)
            assert fetch.data == cut.payload


@every_how
@every_response
@pytest.mark.contract("N7", "N8", "N9", "N10", "N11", "T24", "T41", "I1", "I8")
def test_at_every_third_byte_into_a_file(name: str, how: How, tmp_path: Path):
    script = RESPONSES[name]
    for offset in range(len(script.wire) % 3, len(script.wire) + 1, 3):
        cut = Cut(script, offset, how, closes=how == "fin")
        with World() as world:
            world.listen(HOST, 80, http_peer(script), link=link_for(how, offset, 20))
            client = world.client()
            fetch = Fetch(client, file_path=tmp_path / "a")
            client.run()
            check(world, client, fetch, cut)
        check_file(tmp_path / "a", cut)


@every_how
@every_response
@pytest.mark.contract("N6", "T24", "S18")
def test_at_every_byte_of_a_reused_connection(name: str, how: How):
    """Before the first byte a connection that ends is replaced, and the fresh one fares no better."""
    script = RESPONSES[name]
    for offset in range(len(script.wire)):
        spoilt = replace(script, stall_at=offset) if how == "stall" else replace(script, cut_at=offset, cut=how)
        cut = Cut(script, offset, how, closes=how == "fin")
        with World() as world:
            world.listen(HOST, 80, http_peer([Script(), spoilt]))
            client = world.client()
            Fetch(client)
            client.run()
            fetch = Fetch(client)
            client.run()
            check(world, client, fetch, cut)
            assert fetch.data == cut.payload
            assert len(world.conns) == (2 if offset == 0 and how != "stall" else 1)


@every_response
@pytest.mark.contract("N8", "T24", "I2")
def test_at_every_byte_by_a_reset_that_discards_what_was_not_read(name: str):
    """As on Windows.  How much is read before is not ours to know, but that it is no success unless all of it was."""
    script = RESPONSES[name]
    for offset in range(len(script.wire) + 1):
        with World() as world:
            link = Link(cut_at=offset, cut="rst", reset_discards=True, segment=10, bandwidth=1000, latency=0.001)
            world.listen(HOST, 80, http_peer(script), link=link)
            client = world.client()
            fetch = Fetch(client)
            client.run()
            assert BODY.startswith(bytes(fetch.data))
            if isinstance(fetch.end, rawdl.DownloadResult):
                assert fetch.data == BODY
                assert script.framing != "until-close"
            else:
                assert isinstance(fetch.end, rawdl.IncompleteBody | rawdl.ConnectionLost)
                assert not world.sockets


# TLS


class Secure(NamedTuple):
    """A response over TLS."""

    script: Script
    server: ssl.SSLContext
    records: tuple[int, ...]  # the plain bytes in each record of the response
    handshake: int  # bytes of the server's part of the handshake

    @property
    def announced(self) -> bool:
        return self.script.framing == "until-close" and self.script.close_notify

    @property
    def end(self) -> int:
        return self.handshake + sum(n + RECORD for n in self.records) + (CLOSE_NOTIFY if self.announced else 0)

    def cut(self, offset: int, how: How) -> Cut:
        """Say what is decrypted of so many bytes: whole records only."""
        at, plain = self.handshake, 0
        for n in self.records:
            at += n + RECORD
            plain += n if at <= offset else 0
        return Cut(self.script, plain, how, closes=self.announced and offset >= self.end)


@pytest.fixture(scope="module")
def server(ca: trustme.CA) -> ssl.SSLContext:
    """A server whose messages are as long each time: no ECDSA signature, and no session tickets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(HOST, key_type=trustme.KeyType.RSA).configure_cert(context)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    return context


@pytest.fixture(scope="module")
def trusting(ca: trustme.CA) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=ca.cert_pem.bytes().decode())


SECURE = {
    "content-length": RESPONSES["content-length"],
    "chunked": RESPONSES["chunked"],
    "until-close": RESPONSES["until-close"],
    "until-close without close_notify": replace(RESPONSES["until-close"], close_notify=False),
}


@pytest.fixture
def secure(request: pytest.FixtureRequest, server: ssl.SSLContext, trusting: ssl.SSLContext) -> Secure:
    script = SECURE[request.param]
    records = tuple(len(act.data) for act in script.acts() if isinstance(act, Send))
    with World() as world:
        fetch_secure(world, Secure(script, server, records, 0), trusting, Link())
        draft = Secure(script, server, records, 0)
        return draft._replace(handshake=world.conns[0].sent - draft.end)


def fetch_secure(world: World, secure: Secure, trusting: ssl.SSLContext, link: Link) -> tuple[rawdl.Client, Fetch]:
    world.listen(HOST, 443, http_peer(secure.script), tls=secure.server, link=link)
    client = world.client(tls=trusting)
    fetch = Fetch(client, SECURE_URL)
    client.run()
    return client, fetch


@every_how
@pytest.mark.parametrize("secure", list(SECURE), indirect=True)
@pytest.mark.contract("C7", "L1", "L4", "N8", "N9", "N10", "N11", "T24", "S18")
def test_at_every_byte_over_TLS(secure: Secure, how: How, trusting: ssl.SSLContext):
    assert secure.handshake > 1000
    for offset in range(secure.handshake + 1, secure.end + 1):
        with World() as world:
            client, fetch = fetch_secure(world, secure, trusting, link_for(how, offset))
            cut = secure.cut(offset, how)
            check(world, client, fetch, cut)
            assert fetch.data == cut.payload


@every_how
@pytest.mark.parametrize("secure", ["content-length"], indirect=True)
@pytest.mark.contract("L1", "N8", "N11")
def test_through_the_handshake(secure: Secure, how: How, trusting: ssl.SSLContext):
    for offset in offsets_of_the_handshake(secure):
        with World() as world:
            client, fetch = fetch_secure(world, secure, trusting, link_for(how, offset))
            assert_nothing_left(world, client)
            error = fetch.error
            assert fetch.names == ["fail", "complete"]
            if how == "stall":
                assert isinstance(error, rawdl.Timeout)
                assert error.phase is Phase.TLS
            else:
                assert isinstance(error, rawdl.TLSError), error
                assert (error.certificate, error.reason) == (False, "connection failed")
                assert "handshake" in str(error)
            assert world.requests == []


def offsets_of_the_handshake(secure: Secure) -> Iterator[int]:
    """Each byte of its first record's header and of its end, and every eleventh between."""
    yield from range(8)
    yield from range(8, secure.handshake - 8, 11)
    yield from range(secure.handshake - 8, secure.handshake)


@every_how
@pytest.mark.parametrize("secure", ["content-length"], indirect=True)
@pytest.mark.contract("L1")
def test_between_the_handshake_and_the_response(secure: Secure, how: How, trusting: ssl.SSLContext):
    with World() as world:
        client, fetch = fetch_secure(world, secure, trusting, link_for(how, secure.handshake))
        assert_nothing_left(world, client)
        error = fetch.error
        if how == "stall":
            assert isinstance(error, rawdl.Timeout)
            assert error.phase is Phase.HEAD
        else:  # what the client sends last is answered by a reset in any case
            assert isinstance(error, rawdl.IncompleteHead | rawdl.ConnectionLost | rawdl.TLSError)
