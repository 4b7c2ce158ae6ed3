"""No text makes a parser of challenges, links, proxies or exceptions raise what is not its own, or tell a secret."""

from __future__ import annotations

from rawdl.proto.auth import parse_challenges
from rawdl.proto.mirrors import parse_link_field
from rawdl.proto.proxy import Proxy, bypass_proxy

SEEDS: tuple[bytes, ...] = (
    b'Digest realm="a\\"b", nonce=n, qop="auth,auth-int", algorithm=SHA-256, Basic realm=x',
    b"Negotiate TlRMTVNTUAAB==, Bearer",
    b'<http://a/>; rel="duplicate describedby"; pri=1; geo=de; type="application/metalink4+xml", <b>; rel=x',
    b"http://user:canary%40@[::1]:3128/",
    b"socks5h://user:canary@proxy.example.org",
    b"https://proxy.example.org:0443/",
    b"Basic,,=, Digest a=b c=d",
    b"example.org, .example.org,*.x 10.0.0.0/8 [::1]:80 host:8080 *",
)


def check(data: bytes) -> None:
    for text in (data.decode("latin-1"), data.decode("utf-8", "surrogateescape")):
        for scheme, parameters in parse_challenges(text):
            assert (
                scheme == scheme.lower() and scheme.isascii() and all(map(str.islower, filter(str.isalpha, parameters)))
            )
        for link in parse_link_field(text):
            assert link.target in text
        assert bypass_proxy("www.example.org", 80, no_proxy=text) in (True, False)
        assert bypass_proxy("10.1.2.3", 80, no_proxy=text) in (True, False)
        check_proxy(text)


def check_proxy(text: str) -> None:
    secret = text.rpartition("@")[0].rpartition(":")[2]
    try:
        proxy = Proxy.parse(text)
    except ValueError as exc:
        assert len(secret) < 6 or secret in "invalid proxy: " + text.rpartition("@")[2] or secret not in str(exc)
        return
    assert str(Proxy.parse(str(proxy).replace("***@", ""))) == str(proxy).replace("***@", "")
    assert repr(proxy).isprintable()
