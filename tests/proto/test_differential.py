"""Held against other readers of the same bytes: h11's of chunked bodies, http.client's of heads.

Where one of two accepts what the other refuses, the difference has a name in this file.
"""

from __future__ import annotations

import io
import random
import re
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import NamedTuple

import h11
import pytest

from rawdl.proto import CloseReason
from rawdl.proto.framing import Chunked
from tests.proto.feeding import BEHIND, feed

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN = rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+"
ROUNDS, BATCHES = 250, 10
HEADS = 1500

# What we refuse of what h11 reads
STRAY = "a bare CR, a bare LF or a NUL where a line end could be seen"
LARGE = "a chunk size above 2**63-1"
SPACE = "white space behind the size"
EXTENSION = "an extension that the grammar does not have"
STRICTER = {STRAY, LARGE, SPACE, EXTENSION}

# What we read of what h11 refuses
BAD_SPACE = "white space before an extension (RFC 9112 7.1.1: it must be read)"
PADDING = "a size padded to more than 20 digits"
MISNAMED = "a trailer line without a valid name: it is dropped"
LAXER = {BAD_SPACE, PADDING, MISNAMED}


class Read(NamedTuple):
    """What a reader made of a body: "complete", "refused" or "waiting", with what it had handed out by then."""

    verdict: str
    payload: bytes
    trailer: tuple[tuple[str, str], ...] = ()
    surplus: int = 0


def ours(pieces: list[bytes]) -> Read:
    got = feed(pieces, eof=None)
    if got.end is None:
        return Read("refused" if got.error else "waiting", got.body)
    trailer = tuple((name.lower(), value) for name, value in got.end.trailer.fields)
    return Read("complete", got.body, trailer, got.end.surplus)


def theirs(pieces: list[bytes]) -> Read:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "example.org")]))
    connection.send(h11.EndOfMessage())
    payload = b""
    for piece in pieces:
        connection.receive_data(piece)
        try:
            while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Data):
                    payload += event.data
                elif isinstance(event, h11.EndOfMessage):
                    trailer = tuple((name.decode(), value.decode("latin-1")) for name, value in event.headers)
                    return Read("complete", payload, trailer, len(connection.trailing_data[0]))
        except h11.RemoteProtocolError:
            return Read("refused", payload)
    return Read("waiting", payload)


# Why two readers may differ: a walk through the body as loosely as anybody reads it

LOOSE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(;.*)?", re.DOTALL)
BWS, VALUE = rb"[ \t]*", rb'(?:%b|"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*")' % TOKEN
STRICT_EXTENSIONS = re.compile(rb"(?:%b;%b%b(?:%b=%b%b)?)*" % (BWS, BWS, TOKEN, BWS, BWS, VALUE))
BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")
TRAILER_END = re.compile(rb"\r?\n\r?\n")


def parts(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield each chunk line, and then the trailer section, or the line that has not ended."""
    at = 0
    while (end := body.find(b"\r\n", at)) >= 0:
        line = body[at:end]
        yield "line", line
        match = LOOSE.match(line)
        if match is None:
            return
        at = end + 2
        size = int(match[1], 16)
        if size == 0:
            yield "trailer", body[at:]
            return
        if body[at + size : at + size + 2] != b"\r\n":
            return
        at += size + 2
    yield "rest", body[at:]


def differences(body: bytes) -> set[str]:
    return {name for kind, text in parts(body) for name in of_trailer(text, kind) | of_line(text, kind)}


def of_line(line: bytes, kind: str) -> set[str]:
    found = {STRAY} if BARE.search(line[:-1] if kind == "rest" and line.endswith(b"\r") else line) else set()
    match = LOOSE.match(line)
    if kind != "line" or match is None:
        return found if kind != "trailer" else set()
    size, rest = match[1], line[match.end(1) :]
    found |= {LARGE} if int(size, 16) >= 1 << 63 else set()
    found |= {PADDING} if len(size) > 20 else set()
    if rest and not rest.strip(b" \t"):
        found |= {SPACE}
    elif not STRICT_EXTENSIONS.fullmatch(rest):
        found |= {EXTENSION}
    elif rest[:1] in (b" ", b"\t"):
        found |= {BAD_SPACE}
    return found


def of_trailer(section: bytes, kind: str) -> set[str]:
    if kind != "trailer" or section.startswith(b"\r\n"):
        return set()
    end = TRAILER_END.search(section)
    text = section[: end.end()] if end else section
    found = {STRAY} if BARE.search(text) or section.startswith(b"\n") else set()
    lines = re.split(rb"\r?\n", text)
    return found | ({MISNAMED} if any(b":" in line and not re.match(TOKEN + rb":", line) for line in lines) else set())


# Bodies, right and wrong


def token(rng: random.Random) -> bytes:
    return bytes(rng.choices(b"abcXYZ019-_.!~", k=rng.randrange(1, 6)))


def quoted(rng: random.Random) -> bytes:
    return (
        b'"'
        + b"".join(rng.choices([b"a", b" ", b"\t", b";", b"=", b'\\"', b"\\\\", b"\xe9"], k=rng.randrange(6)))
        + b'"'
    )


def extensions(rng: random.Random) -> bytes:
    found = b""
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2, 5])):
        before, after = rng.choices([b"", b"", b"", b" ", b"\t "], k=2)
        found += before + b";" + after + token(rng)
        if rng.random() < 0.6:
            found += rng.choice([b"=", b" = "]) + rng.choice([token, quoted])(rng)
    return found


def size_line(rng: random.Random, size: int, plain: bool) -> bytes:
    digits = rng.choice([b"%x", b"%X"]) % size
    if plain:
        return digits + b"\r\n"
    return b"0" * rng.choice([0, 0, 0, 1, 3, 12, 25]) + digits + extensions(rng) + b"\r\n"


def right_body(rng: random.Random) -> tuple[bytes, bytes]:
    """Return a body by the grammar, and its payload."""
    chunks = [rng.randbytes(size) for size in rng.choices([1, 2, 9, 16, 200, 1023, 1024, 1025], k=rng.randrange(8))]
    plain = rng.random() < 0.5
    wire = b"".join(size_line(rng, len(chunk), plain) + chunk + b"\r\n" for chunk in chunks)
    trailer = [token(rng) + b":" + rng.choice([b"", b" "]) + token(rng) for _ in range(rng.choice([0, 0, 1, 3]))]
    if trailer and rng.random() < 0.3:
        trailer.append(b" " + token(rng))
    return wire + size_line(rng, 0, plain) + b"".join(line + b"\r\n" for line in trailer) + b"\r\n", b"".join(chunks)


SPLICES = [b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b";", b"=", b'"', b"\\", b":", b"0", b"f", b"g", b"-", b"+", b"x"]
SPLICES += [b"0\r\n\r\n", b"8000000000000000", b"5\r\nhello\r\n", b";;", b"\x0b", b"\xff", b"a b: c\r\n", b"\r\n\r\n"]


def structure(body: bytes) -> list[int]:
    """Return where the lines are: a change of payload says nothing."""
    spots, at = [], 0
    for kind, text in parts(body):
        spots += range(at, min(at + len(text) + 2, len(body)))
        match = LOOSE.match(text) if kind == "line" else None
        at += len(text) + 2 + (int(match[1], 16) + 2 if match and int(match[1], 16) else 0)
    return spots


def wrong_body(rng: random.Random) -> bytes:
    body = right_body(rng)[0]
    if rng.random() < 0.1:
        body = body.replace(b"\r\n", rng.choice([b" ", b"\t"]) + b"\r\n", 1)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at = rng.choice(structure(body) or [0])
        length = rng.choice([0, 0, 1, 1, 2, 7])
        new = rng.choice([rng.choice(SPLICES), rng.choice(SPLICES), b"", bytes([rng.randrange(256)])])
        body = body[:at] + new + body[at + length :]
    return body[: rng.randrange(len(body) + 1)] if rng.random() < 0.2 else body


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(rng.choices(range(len(data) + 1), k=rng.choice([0, 1, 2, 9, 40])))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


@pytest.mark.parametrize("batch", range(BATCHES))
def test_C1_C3_C6_right_bodies_are_read_as_h11_reads_them(batch: int) -> None:
    rng = random.Random(f"right {batch}")
    for _ in range(ROUNDS):
        body, payload = right_body(rng)
        behind = rng.choice([b"", b"", BEHIND])
        mine = ours([HEAD + body + behind])
        assert (mine.verdict, mine.payload, mine.surplus) == ("complete", payload, len(behind)), body
        assert ours(cut(rng, HEAD + body))[:3] == mine[:3], body
        other = theirs([HEAD + body + behind])
        assert other == mine or (other.verdict == "refused" and differences(body) & LAXER), body


@pytest.mark.parametrize("batch", range(BATCHES))
def test_C1_C3_C6_wrong_bodies_differ_for_known_reasons_only(batch: int) -> None:
    rng = random.Random(f"wrong {batch}")
    for _ in range(ROUNDS):
        body = wrong_body(rng)
        mine, other = ours([HEAD + body]), theirs([HEAD + body])
        assert ours(cut(rng, HEAD + body))[:3] == mine[:3], body
        assert mine.payload.startswith(other.payload) or other.payload.startswith(mine.payload), body
        if mine.verdict == other.verdict:
            assert mine == other or mine.verdict == "refused" or differences(body) & LAXER, body
        elif mine.verdict == "refused":
            assert differences(body) & STRICTER, (body, other.verdict)
        else:
            assert other.verdict == "refused" and differences(body) & LAXER, (body, mine.verdict, other.verdict)


def test_the_wrong_bodies_are_of_every_kind() -> None:
    """Otherwise the test above would hold nothing."""
    rng, seen, verdicts = random.Random("kinds"), Counter[str](), Counter[tuple[str, str]]()
    for _ in range(1000):
        body = wrong_body(rng)
        seen.update(differences(body))
        verdicts[ours([HEAD + body]).verdict, theirs([HEAD + body]).verdict] += 1
    assert all(seen[name] >= 3 for name in STRICTER | LAXER), seen
    assert verdicts["refused", "refused"] > 100 and verdicts["complete", "complete"] > 50, verdicts
    assert verdicts["refused", "complete"] >= 10 and verdicts["complete", "refused"] >= 10, verdicts


# Heads


class Recording:
    """As much of a socket as http.client needs to read a recorded response."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def makefile(self, mode: str) -> io.BytesIO:
        return self._file


def right_head(rng: random.Random) -> bytes:
    """Return a head that nobody could take for another one."""
    status = rng.choice([200, 200, 201, 204, 299, 301, 304, 404, 500, 599])
    reason = rng.choice([b"", b" ", b" OK", b" Not Found at all", b" caf\xe9"])
    lines = [b"HTTP/1.%d %d%b" % (rng.choice([1, 1, 1, 0]), status, reason)]
    for _ in range(rng.randrange(12)):
        value = bytes(rng.choices(b'abc XYZ 019 ,;:="/\xe9\x80~', k=rng.randrange(30))).strip()
        lines.append(
            rng.choice([b"X-", b"a", b"Set-Cookie", b"ETag"]) + token(rng) + rng.choice([b":", b": ", b":\t"]) + value
        )
    frame = rng.choice([[], [b"Content-Length: %d" % rng.choice([0, 5, 1 << 40])], [b"Transfer-Encoding: chunked"]])
    if status in (204, 304) and frame[:1] == [b"Transfer-Encoding: chunked"]:
        frame = []  # http.client reads such a body, which cannot be there (RFC 9112 6.3)
    close = rng.choice([[], [b"Connection: close"], [b"Connection: keep-alive"], [b"connection: TE, Close"]])
    lines += frame + close
    tail = lines[1:]
    rng.shuffle(tail)
    return b"\r\n".join([lines[0], *tail, b"", b""])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_heads_are_read_as_http_client_reads_them(method: str) -> None:
    rng = random.Random(method)
    for _ in range(HEADS):
        data = right_head(rng)
        response = HTTPResponse(Recording(data), method=method)  # type: ignore[arg-type]
        response.begin()
        got = feed(cut(rng, data), method=method, eof=None)
        assert got.error is None and got.head is not None, data
        head = got.head
        assert (head.status_code, head.reason.strip()) == (response.status, response.reason), data
        assert head.http_version == {10: "1.0", 11: "1.1"}[response.version], data
        theirs = [(name, value.strip(" \t")) for name, value in response.headers.raw_items()]
        assert list(head.header.fields) == theirs, data
        if head.framing.length != 0:
            assert isinstance(head.framing, Chunked) is bool(response.chunked), data
        assert head.framing.length == (None if response.chunked and method == "GET" else response.length), data
        if head.http_version == "1.1" and CloseReason.UNEXPECTED_BODY not in got.reasons:
            assert bool(got.reasons) is bool(response.will_close), data
        response.close()
