"""Any text is refused with InvalidURL, or becomes a URL that is its own spelling and fits in one request line.

The input is UTF-8, other octets as surrogates; behind its first line end comes a reference to resolve.
"""

from __future__ import annotations

from rawdl.errors import InvalidURL
from rawdl.proto.url import URL

SEEDS: tuple[bytes, ...] = (
    b"http://example.org/a/b.iso?x=1#f\n../c/./d",
    b"HTTPS://u:p%40w@EXAMPLE.org:8443/a b\n//other.example:80/..",
    b"http://[2001:db8::192.0.2.7]:8080/%2e%2e/%zz\n?q",
    b"http://127.0.0.1./..//a\n#f",
    "http://bücher。example/資料?é#ü\n/ä b".encode(),
    b"http://0x7f.1/\nhttp:/x",
    b"http://a\\b@c@d:0/\n/\\evil.example",
    b"http://example.org/\nftp://example.org/",
    b" http://example.org/\xff\xfe\x00\n\t/\r",
)


def check(data: bytes) -> None:
    text, _, ref = data.decode("utf-8", "surrogateescape").partition("\n")
    url = attempt(URL.parse, text) or URL.parse("http://example.org/a/b;c?d#e")
    attempt(url.join, text)
    attempt(url.join, ref)


def attempt(read, text: str) -> URL | None:
    try:
        url = read(text)
    except InvalidURL as error:
        assert str(error).isprintable()
        return None
    again = URL.parse(str(url))
    assert again == url and str(again) == str(url) and again.origin == url.origin
    assert all("!" <= c <= "~" for c in str(url) + url.target + url.host_header)
    assert url.target.startswith("/") and url.scheme in ("http", "https") and 0 < url.port < 65536
    assert url.host and not set(url.host) & set("@/\\?#%[] ")
    assert not {".", ".."} & set(url.path.split("/")) and isinstance(url.last_segment, str)
    return url
