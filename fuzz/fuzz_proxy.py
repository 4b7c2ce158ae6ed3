"""Whatever a proxy answers opens the way or is a ProxyError, however it is cut, and no text tells the password."""

from __future__ import annotations

from collections.abc import Iterable

from rawdl.errors import ProxyError
from rawdl.proto.proxy import Proxy, Tunnel
from rawdl.proto.socks import Socks

SECRET = "canary"
PROXIES = tuple(
    Proxy.parse(text)
    for text in (
        f"http://user:{SECRET}@proxy.example.org",
        "socks5h://proxy.example.org",
        f"socks5h://user:{SECRET}@proxy.example.org",
        f"socks4a://{SECRET}@proxy.example.org",
    )
)
SEEDS: tuple[bytes, ...] = (
    b"\0HTTP/1.1 200 Connection established\r\n\r\n",
    b"\0HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.0 200 OK\nContent-Length: 5\n\n",
    b"\0HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n\r\n",
    b"\0HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"\1\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x1f\x90",
    b"\1\x05\x00\x05\x00\x00\x03\x0bexample.org\x1f\x90",
    b"\1\x05\x00\x05\x05\x00\x04" + bytes(18),
    b"\2\x05\x02\x01\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x1f\x90surplus",
    b"\2\x05\xff",
    b"\3\x00\x5a\x1f\x90\x7f\x00\x00\x01",
    b"\3\x00\x5b" + bytes(6),
)


def check(data: bytes) -> None:
    """The first octet chooses the proxy."""
    if not data or SECRET.encode() in data:
        return
    proxy, answer = PROXIES[data[0] % len(PROXIES)], data[1:]
    whole = opens_the_way(proxy, [answer])
    assert whole == opens_the_way(proxy, [answer[at : at + 1] for at in range(len(answer))])


def opens_the_way(proxy: Proxy, pieces: Iterable[bytes]) -> bool:
    """Return whether it is established at the end of the data, which is an error where it is not."""
    way = (Tunnel if proxy.speaks_http else Socks)("example.org", 443, proxy)
    try:
        for piece in pieces:
            way.data_sent(len(way.data_to_send()))
            way.receive_data(piece)
        assert SECRET not in repr(way)
        if not way.established:
            way.receive_eof(clean=True)
            raise AssertionError("the end of the data was no error")
    except ProxyError as exc:
        assert SECRET not in str(exc) and str(exc).isprintable() and not way.established
    return way.established
