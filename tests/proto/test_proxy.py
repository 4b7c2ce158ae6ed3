"""Proxies: which one it is, what it is told, and when a tunnel is one (A4, A5, A13, B1, B4-B7, C9, C12, F3, P1-P4)."""

from __future__ import annotations

import base64
import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given, settings, strategies as st

from rawdl.errors import NetworkError, ProxyError
from rawdl.proto.messages import USER_AGENT, Limits
from rawdl.proto.proxy import Proxy, Tunnel, absolute_form, bypass_proxy, proxy_for
from rawdl.proto.url import URL
from tests.proto.feeding import hang_guard

steady = settings(derandomize=True, deadline=None, database=None)
PLAIN = Proxy.parse("http://proxy.example:3128")
KNOWN = Proxy.parse("http://user:canary@proxy.example:3128")
OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"


# The proxy as a value


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("http://proxy.example:3128/", "http://proxy.example:3128"),
        ("  HTTP://PROXY.example:03128/\n", "http://proxy.example:3128"),
        ("proxy.example:80", "http://proxy.example:80"),
        ("proxy.example", "http://proxy.example:1080"),
        ("proxy.example:", "http://proxy.example:1080"),
        ("http://proxy.example", "http://proxy.example:1080"),
        ("https://proxy.example", "https://proxy.example:443"),
        ("https://proxy.example:8443", "https://proxy.example:8443"),
        ("socks4a://proxy.example", "socks4a://proxy.example:1080"),
        ("socks5://127.0.0.1", "socks5://127.0.0.1:1080"),
        ("Socks5h://[2001:DB8::1]:9050", "socks5h://[2001:db8::1]:9050"),
        ("[::1]", "http://[::1]:1080"),
        ("u@proxy.example:80", "http://***@proxy.example:80"),
        ("u:p@proxy.example:80", "http://***@proxy.example:80"),
        ("http://80:80@proxy.example", "http://***@proxy.example:1080"),
        ("http://@proxy.example:80", "http://proxy.example:80"),
        ("http://:@proxy.example:80", "http://***@proxy.example:80"),
    ],
)
def test_a_proxy_is_read(text: str, spelled: str) -> None:
    proxy = Proxy.parse(text)
    assert str(proxy) == f"{proxy}" == spelled
    assert repr(proxy) == f"Proxy('{spelled}')"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no host"),
        ("http://", "names no host"),
        ("http:///", "names no host"),
        ("//proxy.example:80", "more than a slash"),
        ("http:/proxy.example", "more than a slash"),
        ("http://proxy.example/proxy.pac", "more than a slash"),
        ("http://proxy.example?", "more than a slash"),
        ("http://proxy.example#x", "more than a slash"),
        ("socks4://proxy.example", "none of http, https, socks4a, socks5, socks5h"),
        ("socks://proxy.example", "none of"),
        ("ftp://proxy.example", "none of"),
        ("http://proxy.example:0", "the port"),
        ("http://proxy.example:65536", "the port"),
        ("http://proxy.example:x", "the port"),
        ("::1", "the port"),
        ("http://proxy example", "space"),
        ("http://proxy.example :80/", "space"),
        ("http://proxy.example:80 /", "space"),
        ("http://proxy\\@example", "backslash"),
        ("http://pro\r\nxy.example", "control character"),
        ("http://pro%0d%0axy.example", "not a host name"),
        ("http://0x7f.1", "not an IPv4 address"),
        ("http://[fe80::1%eth0]", "IPv6"),
        ("http://[2001:db8::1%25eth0]", "link-local"),
        ("http://" + "a" * 64, "not a host name"),
    ],
)
def test_B1_B5_B6_what_is_no_proxy_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^invalid proxy: ") as caught:
        Proxy.parse(text)
    assert type(caught.value) is ValueError and message in str(caught.value)
    assert str(caught.value).isprintable()


def test_A5_the_credentials_are_part_of_the_value() -> None:
    same = Proxy.parse("HTTP://user:c%61nary@PROXY.example:3128/")
    assert same == KNOWN and hash(same) == hash(KNOWN)
    others = ["http://proxy.example:3128", "http://user@proxy.example:3128", "http://user:@proxy.example:3128"]
    others += ["http://user:Canary@proxy.example:3128", "https://user:canary@proxy.example:3128"]
    assert len({KNOWN, *map(Proxy.parse, others)}) == 6
    assert pickle.loads(pickle.dumps(KNOWN)) == copy.deepcopy(KNOWN) == KNOWN
    with pytest.raises(AttributeError):
        KNOWN.password = "x"


@pytest.mark.parametrize(
    ("userinfo", "username", "password"),
    [
        ("", None, None),
        ("user@", "user", None),
        ("user:@", "user", ""),
        (":pw@", "", "pw"),
        ("user:p:w@", "user", "p:w"),
        ("user:p%40%3a%2F%23%3F%25@", "user", "p@:/#?%"),
        ("user:p%2540@", "user", "p%40"),
        ("user:100%@", "user", "100%"),
        ("us%20er:p%20w@", "us er", "p w"),
        ("us%C3%A9r:ü@", "usér", "ü"),
        ("user:%FF@", "user", "\udcff"),
        ("user:\udcff@", "user", "\udcff"),
        ("user:[]`<>\"'{}|^@", "user", "[]`<>\"'{}|^"),
    ],
)
def test_A13_the_credentials_are_decoded_once(userinfo: str, username: str | None, password: str | None) -> None:
    proxy = Proxy.parse(f"http://{userinfo}proxy.example:3128")
    assert (proxy.host, proxy.port) == ("proxy.example", 3128)
    assert (proxy.username, proxy.password) == (username, password)
    if username is None:
        assert proxy.authorization is None
    else:
        method, _, token = (proxy.authorization or "").partition(" ")
        octets = base64.b64decode(token, validate=True).decode("utf-8", "surrogateescape")
        assert (method, octets) == ("Basic", f"{username}:{password or ''}")


def test_the_credentials_of_RFC_7617() -> None:
    assert Proxy.parse("http://Aladdin:open%20sesame@p").authorization == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert Proxy.parse("http://test:123%C2%A3@p").authorization == "Basic dGVzdDoxMjPCow=="


@pytest.mark.parametrize("userinfo", ["u:canary%0d%0a", "u%00:canary", "u:canary%7F", "canary%1f", "can%3Aary:canary"])
def test_B1_credentials_that_Basic_cannot_carry_are_refused(userinfo: str) -> None:
    with pytest.raises(ValueError, match="7617") as caught:
        Proxy.parse(f"http://{userinfo}@proxy.example")
    assert "canary" not in everything(caught.value)


def test_a_colon_in_the_user_name_is_no_matter_to_socks() -> None:
    assert Proxy.parse("socks5://a%3Ab:c@proxy.example").username == "a:b"


# A password that is not encoded as it should be: each place in which a part of it could pass for something else.
SPILLED = [
    "http://user:canary@canary@proxy.example:3128", "http://user:canary/canary@proxy.example:3128",
    "http://user:80/canary@proxy.example", "http://canary#canary@proxy.example", "http://u:1?canary@proxy.example",
    "http://u:canary@can/ary@proxy.example", "http://u:x@canary%/y@proxy.example", "http://canary\\canary@proxy.example",
    "http://u:can ary canary@proxy.example", "user:canary:canary", "canary://canary:canary@proxy.example",
    "u:canary\x1bcanary@proxy.example", "u:canary://canary@canary@proxy.example", "u:canary@proxy.example:canary",
    "u:canary@[canary]", "canary:canary@", "u:canary\ud800@proxy.example",
]  # fmt: skip


@pytest.mark.parametrize("text", SPILLED)
def test_A9_A13_a_password_is_no_host_and_in_no_message(text: str) -> None:
    with pytest.raises(ValueError, match="invalid proxy") as caught:
        Proxy.parse(text)
    assert "canary" not in everything(caught.value)
    with pytest.raises(ProxyError) as failed:
        proxy_for(URL.parse("http://a.example/"), {"http_proxy": text})
    assert "canary" not in everything(failed.value) and "http_proxy" in str(failed.value)


def everything(error: BaseException | None) -> str:
    """Return all texts of an error and its causes."""
    told = ""
    while error is not None:
        told += f"{error} {error!r} {getattr(error, '__notes__', '')} "
        error = error.__cause__ or error.__context__
    return told


@settings(steady, max_examples=500)
@given(st.text(max_size=8), st.text(max_size=8), st.text(st.sampled_from("@:/#?%[]\\ aé\r\n\0."), max_size=12))
def test_A13_any_password_leads_to_the_proxy_or_an_error(username: str, password: str, raw: str) -> None:
    from urllib.parse import quote

    try:
        encoded = f"http://{quote(username, safe='')}:{quote(password, safe='')}@proxy.example:3128"
        proxy = Proxy.parse(encoded)
        assert (proxy.host, proxy.username, proxy.password) == ("proxy.example", username, password)
    except ValueError as error:
        assert "7617" in str(error) or isinstance(error, UnicodeEncodeError)
    try:
        proxy = Proxy.parse(f"http://user:x{raw}@proxy.example:3128")
    except ValueError as error:
        assert str(error).isprintable()
    else:
        assert (proxy.host, proxy.port) == ("proxy.example", 3128)


# The environment

HTTP, HTTPS = URL.parse("http://a.example/x"), URL.parse("https://a.example/x")


@pytest.mark.parametrize(
    ("environment", "http", "https"),
    [
        ({}, None, None),
        ({"http_proxy": "p"}, "p", None),
        ({"https_proxy": "p"}, None, "p"),
        ({"HTTP_PROXY": "p"}, "p", None),
        ({"HTTPS_PROXY": "p"}, None, "p"),
        ({"all_proxy": "p"}, "p", "p"),
        ({"ALL_PROXY": "p"}, "p", "p"),
        ({"http_proxy": "p", "HTTP_PROXY": "x"}, "p", None),
        ({"https_proxy": "p", "HTTPS_PROXY": "x"}, None, "p"),
        ({"all_proxy": "p", "ALL_PROXY": "x"}, "p", "p"),
        ({"HTTP_PROXY": "p", "all_proxy": "q"}, "p", "q"),
        ({"http_proxy": "p", "https_proxy": "q", "all_proxy": "x"}, "p", "q"),
        ({"http_proxy": "", "HTTP_PROXY": "x"}, None, None),
        ({"http_proxy": " ", "HTTP_PROXY": "x", "ALL_PROXY": "p"}, "p", "p"),
        ({"https_proxy": "", "all_proxy": "p"}, "p", "p"),
        ({"all_proxy": "", "ALL_PROXY": "x"}, None, None),
        ({"Http_Proxy": "x", "ftp_proxy": "x", "proxy": "x", "HTTP_ALL_PROXY": "x"}, None, None),
        ({"http_proxy": " p "}, "p", None),
        # HTTPoxy
        ({"HTTP_PROXY": "x", "REQUEST_METHOD": "GET"}, None, None),
        ({"HTTP_PROXY": "x", "REQUEST_METHOD": ""}, None, None),
        ({"HTTP_PROXY": "x", "REQUEST_METHOD": "GET", "http_proxy": "p"}, "p", None),
        ({"HTTP_PROXY": "x", "REQUEST_METHOD": "GET", "ALL_PROXY": "p"}, "p", "p"),
        ({"HTTPS_PROXY": "p", "REQUEST_METHOD": "GET"}, None, "p"),
        ({"HTTP_PROXY": "p", "request_method": "GET"}, "p", None),
        # no_proxy
        ({"all_proxy": "p", "no_proxy": "b.example"}, "p", "p"),
        ({"all_proxy": "p", "no_proxy": "a.example"}, None, None),
        ({"all_proxy": "p", "NO_PROXY": "*"}, None, None),
        ({"all_proxy": "p", "no_proxy": "", "NO_PROXY": "*"}, "p", "p"),
        ({"all_proxy": "p", "no_proxy": "b.example", "NO_PROXY": "*"}, "p", "p"),
        ({"all_proxy": "p", "no_proxy": "a.example:443"}, "p", None),
        ({"all_proxy": "://", "no_proxy": "a.example"}, None, None),
    ],
)
def test_B7_the_environment(environment: dict[str, str], http: str | None, https: str | None) -> None:
    before = dict(environment)
    assert proxy_for(HTTP, environment) == (http and Proxy.parse(http))
    assert proxy_for(HTTPS, environment) == (https and Proxy.parse(https))
    assert environment == before


class WindowsEnvironment(Mapping[str, str]):
    """Finds a variable under its name in any case, as os.environ does there."""

    def __init__(self, **variables: str) -> None:
        self.variables = variables

    def __getitem__(self, name: str) -> str:
        return self.variables[name.upper()]

    def __iter__(self) -> Iterator[str]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)


def test_B7_upper_case_does_not_pass_for_lower_case() -> None:
    assert proxy_for(HTTP, WindowsEnvironment(HTTP_PROXY="x", REQUEST_METHOD="GET")) is None
    assert proxy_for(HTTP, WindowsEnvironment(HTTP_PROXY="p")) == Proxy.parse("p")


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_A9_a_malformed_variable_is_named(name: str) -> None:
    with pytest.raises(ProxyError) as caught:
        proxy_for(HTTP, {name: "gopher://u:canary@proxy.example"})
    error = caught.value
    assert str(error).startswith(f"the environment variable {name}: invalid proxy: its scheme is none of")
    assert (error.err_msg, error.err_code, error.status_code) == ("downloadFile:fail proxy", 600001, None)
    assert isinstance(error, NetworkError)


def test_A5_each_hop_has_its_own_proxy_and_credentials() -> None:
    environment = {"http_proxy": "http://u:one@p1.example", "https_proxy": "http://p2.example", "no_proxy": "b.example"}
    proxies = [proxy_for(URL.parse(f"{start}/x"), environment) for start in ("http://a.example", "https://a.example")]
    assert [proxy and proxy.authorization for proxy in proxies] == ["Basic dTpvbmU=", None]
    assert proxy_for(URL.parse("http://b.example/"), environment) is None


# What goes past the proxy


@pytest.mark.parametrize(
    ("host", "no_proxy", "bypassed"),
    [
        ("a.example", "", False),
        ("a.example", " , ,, ", False),
        ("a.example", "a.example", True),
        ("a.example", "A.Example", True),
        ("A.EXAMPLE", "a.example", True),
        ("a.example.", "a.example", True),
        ("a.example", "a.example.", True),
        ("a.example", ".a.example", True),
        ("a.example", "*.a.example", True),
        ("x.a.example", "*.a.example", True),
        ("x.y.a.example", "a.example", True),
        ("x.a.example", ".a.example.", True),
        ("xa.example", "a.example", False),
        ("xa.example", ".a.example", False),
        ("xa.example", "*a.example", False),
        ("a.example", "*a.example", False),
        ("a.example", "x.a.example", False),
        ("a.example.evil.example", "a.example", False),
        ("example", "a.example", False),
        ("a.example", "b.example,a.example", True),
        ("a.example", "b.example a.example", True),
        ("a.example", "b.example ,\t\n a.example,", True),
        ("a.example", "*", True),
        ("a.example", " * ", True),
        ("::1", "b.example,*", True),
        ("a.example", "**", False),
        ("a.example", ".", False),
        ("a.example.", ".", False),
        ("a.example", "..", False),
        ("a.example", "*.", False),
        ("a.example", "http://a.example", False),
        ("a.example", "a.example/", False),
        ("a.example", "a", False),
        ("localhost", "", False),
        # ports
        ("a.example", "a.example:80", True),
        ("x.a.example", ".a.example:080", True),
        ("a.example", "a.example:81", False),
        ("a.example", "a.example:", False),
        ("a.example", "a.example:http", False),
        ("a.example", "a.example:800000", False),
        ("a.example", ":80", False),
        ("a.example", "*:80", True),
        ("a.example", "*:81", False),
        ("10.0.0.1", "10.0.0.1:80", True),
        ("10.0.0.1", "10.0.0.1:8", False),
        ("10.0.0.1", "10.0.0.0/8:80", True),
        ("::1", "[::1]:80", True),
        ("::1", "[::1]:81", False),
        ("::1", "::1:80", False),
        # addresses
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.9.9.9/8", True),
        ("10.1.2.3", "10.1.2.2/31", True),
        ("10.1.2.3", "0.0.0.0/0", True),
        ("10.1.2.3", "::/0", False),
        ("10.1.2.3", "10.0.0.0/", False),
        ("10.1.2.3", "10.0.0.0/-8", False),
        ("10.1.2.3", "10.0.0.0/33", False),
        ("10.1.2.3", "10.0.0.0/ 8", False),
        ("10.1.2.3", "10.0.0.0/255.0.0.0", False),
        ("10.1.2.3", "10.0.0.0/８", False),
        ("10.1.2.3", "10/8", False),
        ("10.1.2.3", "2.3", False),
        ("10.1.2.3", "3", False),
        ("10.1.2.3", ".3", False),
        ("10.1.2.3", "10.1.2.3.", True),
        ("10.1.2.3", "10.1.2.03", False),
        ("x.10.1.2.3", "10.1.2.3", True),
        ("a.example", "10.0.0.0/8", False),
        ("::1", "::1", True),
        ("[::1]", "::1", True),
        ("::1", "[::1]", True),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("2001:db8::ABCD", "2001:DB8:0::abcd", True),
        ("2001:db8:1::1", "2001:db8::/32", True),
        ("2001:db8:1::1", "[2001:db8::]/32", True),
        ("2001:db9::1", "2001:db8::/32", False),
        ("::1", "::/129", False),
        ("::1", "::1%eth0", False),
        ("::ffff:10.1.2.3", "10.0.0.0/8", False),
        # names as they are given
        ("xn--bcher-kva.example", "xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "bücher.example", False),
        ("bücher.example", "bücher.example", True),
    ],
)
def test_bypass_proxy(host: str, no_proxy: str, bypassed: bool) -> None:
    assert bypass_proxy(host, 80, no_proxy=no_proxy) is bypassed
    assert bypass_proxy(host, 80, no_proxy=f"other.example, {no_proxy} ,10.255.255.0/24") is bypassed


@settings(steady, max_examples=500)
@given(
    st.one_of(st.text(), st.ip_addresses().map(str)),
    st.integers(0, 70000),
    st.one_of(st.text(), st.text(st.sampled_from("019a:.[]/*%, \t"))),
)
def test_any_list_has_an_answer(host: str, port: int, no_proxy: str) -> None:
    assert bypass_proxy(host, port, no_proxy=no_proxy) in (True, False)
    assert bypass_proxy(host, port, no_proxy=f"{no_proxy},*") is True


HOSTILE = ["a", "a,", "a.", ".", "*", "*.", "*.,", ",", " ", ":", "::,", "1", "1:", "1.1.1.1/8,", "f::/1,", "[", "]",
           "[]", "[::1],", "[::1]:1,", "a:1,", "/", "1/", "%", "é,"]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_B4_a_long_run_of_anything_is_read_in_one_go(text: str) -> None:
    hostile = text * (2**16 // len(text))
    with hang_guard():
        for host in ("a.example", "10.0.0.1", "2001:db8::1", hostile):
            assert bypass_proxy(host, 80, no_proxy=f"{hostile}x") in (True, False)
        for place in ("{}", "http://{}", "http://{}@p", "http://p:{}", "{}://p", "http://u:{}@p"):
            try:
                Proxy.parse(place.format(hostile))
            except ValueError as error:
                assert len(str(error)) < 400


def test_names_alone_do_not_load_ipaddress() -> None:
    code = (
        "import sys; from rawdl.proto.proxy import bypass_proxy; sys.modules.pop('ipaddress', None); "
        "bypass_proxy('a.b', 80, no_proxy='10.0.0.0/8, ::1'); assert 'ipaddress' not in sys.modules; "
        "assert bypass_proxy('10.0.0.1', 80, no_proxy='10.0.0.0/8, ::1') and 'ipaddress' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# What the proxy is asked


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://a.example", "http://a.example/"),
        ("http://u:canary@A.example:80/b?c#d", "http://a.example/b?c"),
        ("http://a.example:8080/?#", "http://a.example:8080/?"),
        ("http://[::1]:81/a b", "http://[::1]:81/a%20b"),
    ],
)
def test_8_39_the_absolute_form_has_neither_userinfo_nor_fragment(url: str, target: str) -> None:
    assert absolute_form(URL.parse(url)) == target


@pytest.mark.parametrize(
    ("host", "port", "authority"),
    [("a.example", 443, "a.example:443"), ("a.example", 80, "a.example:80"), ("::1", 8443, "[::1]:8443")],
)
def test_A4_9_53_the_request_holds_what_the_proxy_needs_and_no_more(host: str, port: int, authority: str) -> None:
    request = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
    assert lines(Tunnel(host, port, PLAIN)) == lines_of(request + f"User-Agent: {USER_AGENT}\r\n\r\n")
    known = request + f"User-Agent: {USER_AGENT}\r\nProxy-Authorization: Basic dXNlcjpjYW5hcnk=\r\n\r\n"
    assert lines(Tunnel(host, port, KNOWN)) == lines_of(known)


def lines(tunnel: Tunnel) -> list[str]:
    return lines_of(bytes(tunnel.data_to_send()).decode("ascii"))


def lines_of(head: str) -> list[str]:
    return head.split("\r\n")


def test_the_request_is_sent_piece_by_piece() -> None:
    tunnel, sent = Tunnel("a.example", 443, KNOWN), b""
    whole = bytes(tunnel.data_to_send())
    while data := tunnel.data_to_send():
        sent += data[:7]
        tunnel.data_sent(len(data[:7]))
    assert sent == whole and not tunnel.established


@pytest.mark.parametrize("host", ["a b", "a\r\nX: y", "a\0", "é", "a\t", "a\x7f"])
def test_B1_no_host_breaks_the_request(host: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in a request line"):
        Tunnel(host, 443, PLAIN)


# What it answers


def tunnel_to(proxy: Proxy = PLAIN, limits: Limits | None = None) -> Tunnel:
    """Return a tunnel whose request has been sent."""
    tunnel = Tunnel("a.example", 443, proxy, limits=limits or Limits())
    tunnel.data_sent(len(tunnel.data_to_send()))
    return tunnel


def fed(pieces: list[bytes], **options: object) -> tuple[bool, ProxyError | None]:
    """Feed the pieces, each in a buffer that is overwritten afterwards; return what became of the tunnel."""
    tunnel = tunnel_to(**options)
    for piece in pieces:
        buffer = bytearray(piece)
        try:
            tunnel.receive_data(memoryview(buffer))
        except ProxyError as error:
            assert not tunnel.established
            return False, error
        buffer[:] = b"\xaa" * len(buffer)
    return tunnel.established, None


def cuts(data: bytes) -> list[list[bytes]]:
    """Return the data whole, byte by byte, and in two at each place."""
    bytewise = [data[i : i + 1] for i in range(len(data))]
    return [[data], bytewise, *([data[:i], data[i:]] for i in range(1, min(len(data), 200)))]


def opened(data: bytes, **options: object) -> None:
    """Hold that the data open the tunnel, however they are cut, and not with a byte more or a byte less."""
    for pieces in cuts(data):
        assert fed(pieces, **options) == (True, None)
        assert fed([*pieces[:-1], pieces[-1][:-1]], **options) == (False, None)
    for behind in (b"\x16\x03\x03", b"0", b"\r\n", b"\n", OPENED):
        for pieces in ([data + behind], [data, behind], cuts(data + behind)[1]):
            established, error = fed(pieces, **options)
            assert not established and "before TLS had begun" in str(error)


def refused(data: bytes, **options: object) -> ProxyError:
    """Return the error that the data bring, which must not depend on the cut or on what lies behind."""
    errors = []
    for pieces in [*cuts(data), [data + OPENED], [data, OPENED], [*cuts(data)[1], b"x"]]:
        established, error = fed(pieces, **options)
        assert not established and error is not None
        assert str(error).isprintable() and len(str(error)) < 400 and "canary" not in everything(error)
        assert "proxy.example:3128" in str(error) and "a.example:443" in str(error)
        errors.append(error)
    assert len({error.status_code for error in errors}) == 1
    return errors[0]


@pytest.mark.parametrize(
    "answer",
    [
        OPENED,
        b"HTTP/1.0 200 Connection established\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 OK\n\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nVia: 1.1 x\r\nProxy-Agent: y\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 201 Created\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 205 Reset Content\r\n\r\n",
        b"HTTP/1.1 299 x\r\n\r\n",
    ],
)
def test_P2_a_2xx_opens_the_tunnel(answer: bytes) -> None:
    opened(answer)
    opened(answer, proxy=KNOWN)


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "205 x"])
@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 0\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 9223372036854775807\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ],
)
def test_P2_15_the_framing_fields_of_a_2xx_mean_nothing(status: str, fields: str) -> None:
    opened(f"HTTP/1.1 {status}\r\n{fields}\r\n".encode(), limits=Limits(body=3))


def test_P2_interim_answers_are_passed_over() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    opened(interim + OPENED)
    assert refused(interim + b"HTTP/1.1 403 Forbidden\r\n\r\n").status_code == 403


def test_C9_interim_answers_are_limited() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    opened(interim * 2 + OPENED, limits=Limits(informational=2))
    assert "3 interim responses; 2 are allowed" in str(refused(interim * 3, limits=Limits(informational=2)))
    assert "101 Switching Protocols" in str(refused(b"HTTP/1.1 101 x\r\nUpgrade: y\r\n\r\n"))


@pytest.mark.parametrize(
    "status", [300, 301, 302, 304, 307, 400, 401, 403, 404, 405, 407, 429, 500, 502, 503, 504, 999]
)
@pytest.mark.parametrize(
    "rest",
    [
        "\r\n",
        "Content-Length: 14\r\n\r\n<h1>canary</h1>",
        "Transfer-Encoding: chunked\r\n\r\n6\r\ncanary\r\n0\r\n\r\n",
        'Location: http://other.example/canary\r\nProxy-Authenticate: Basic realm="canary"\r\n\r\n',
    ],
)
def test_P1_anything_else_is_the_proxys_refusal(status: int, rest: str) -> None:
    error = refused(f"HTTP/1.1 {status} canary\r\n{rest}".encode())
    assert error.status_code == status
    assert str(error).startswith(f"the proxy http://proxy.example:3128 answered {status}")
    assert error.err_msg == "downloadFile:fail proxy"
    assert pickle.loads(pickle.dumps(error)).status_code == status


def test_P1_a_407_says_what_is_wanted() -> None:
    answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    assert str(refused(answer)) == (
        "the proxy http://proxy.example:3128 answered 407: it wants a user name and password (CONNECT a.example:443)"
    )
    assert str(refused(answer, proxy=KNOWN)) == (
        "the proxy http://***@proxy.example:3128 answered 407: "
        "it refuses the user name or password (CONNECT a.example:443)"
    )


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
        b"HTTP/1.1 200 O\0K\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\r\n\r\n",
        b"HTTP/1.1 200 OK\nA: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\n\n",
        b"HTTP/1.1 200 OK\r\nConnection : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno field\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"\x05\x00",
        b"<html>",
        b"\n\n\n",
        # Of no use to a tunnel, and refused as anywhere else.
        b"HTTP/1.1 206 Partial Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_C12_a_malformed_answer_opens_nothing(answer: bytes) -> None:
    error = refused(answer)
    assert "gave no usable answer" in str(error) and error.status_code is None


def test_C10_the_limits_of_a_head_hold() -> None:
    assert "1000 bytes" in str(refused(b"HTTP/1.1 200 OK\r\nA: " + b"x" * 1000, limits=Limits(head=1000)))
    assert "4 header fields" in str(
        refused(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 4 + b"\r\n", limits=Limits(fields=3))
    )
    assert "50 bytes" in str(refused(b"HTTP/1.1 200 OK\r\nA: " + b"x" * 50 + b"\r\n\r\n", limits=Limits(line=50)))


@pytest.mark.parametrize("text", [b"\n", b"\r\n", b"A: b\r\n", b"A\n", b"x", b" ", b"\0"])
def test_B4_a_flood_is_over_at_the_limit(text: bytes) -> None:
    flood = b"HTTP/1.1 200 OK\r\nA: b" + text * (2**20 // len(text))
    with hang_guard():
        assert fed([flood])[0] is False
        assert fed([flood[i : i + 512] for i in range(0, len(flood), 512)])[1] is not None


def test_F3_no_answer_counts_before_the_request_is_out() -> None:
    tunnel = Tunnel("a.example", 443, PLAIN)
    tunnel.data_sent(len(tunnel.data_to_send()) - 1)
    with pytest.raises(ProxyError, match="answered 200 before it had the whole request"):
        tunnel.receive_data(OPENED)
    assert not tunnel.established
    with pytest.raises(ProxyError, match="answered 403 "):
        Tunnel("a.example", 443, PLAIN).receive_data(b"HTTP/1.1 403 No\r\n\r\n")


@pytest.mark.parametrize(("clean", "how"), [(True, "closed the connection"), (False, "broke off the connection")])
def test_P4_a_close_names_the_proxy(clean: bool, how: str) -> None:
    for end in range(len(OPENED) + 1):
        tunnel = tunnel_to(KNOWN)
        tunnel.receive_data(OPENED[:end])
        with pytest.raises(ProxyError) as caught:
            tunnel.receive_eof(clean=clean)
        when = "after" if end == len(OPENED) else "before"
        assert str(caught.value) == (
            f"the proxy http://***@proxy.example:3128 {how} {when} it had answered (CONNECT a.example:443)"
        )
        assert caught.value.status_code is None


ANSWERS = [OPENED, OPENED[:-2], OPENED[:13], b"HTTP/1.1 100 x\r\n\r\n", b"A: b", b"Content-Length: 1", b"\r\n", b"\n",
           b"\r", b"\0"]  # fmt: skip


@settings(steady, max_examples=300)
@given(st.lists(st.sampled_from(ANSWERS), max_size=8).map(b"".join))
def test_whatever_comes_the_cut_does_not_matter(data: bytes) -> None:
    whole, error = fed([data])
    for pieces in cuts(data)[1:]:
        established, other = fed(pieces)
        assert (established, type(other)) == (whole, type(error))


def test_A9_no_repr_holds_the_password() -> None:
    tunnel = tunnel_to(KNOWN)
    assert repr(tunnel) == "<Tunnel a.example:443 by http://***@proxy.example:3128>"
    tunnel.receive_data(OPENED)
    assert repr(tunnel) == "<Tunnel a.example:443 by http://***@proxy.example:3128 established>"
    secret = KNOWN.authorization or ""
    for shown in (
        repr(KNOWN),
        str(KNOWN),
        f"{KNOWN!r:>80}",
        repr([KNOWN]),
        repr(tunnel._exchange.request),
    ):
        assert "canary" not in shown and "user" not in shown and secret[6:] not in shown
