"""URL and Origin: parsing, references, and what is refused (B1-B5, S10, RFC 3986, RFC 9110 4.2)."""

from __future__ import annotations

import contextlib
import copy
import pickle
import sys

import pytest
from hypothesis import given, settings, strategies as st

from rawdl.errors import InvalidURL
from rawdl.proto.url import URL, Origin, shown
from tests.proto.feeding import hang_guard

BASE = "http://example.org/one/two/three;v?q#f"


def refused(text: str, base: str | None = None) -> str:
    with pytest.raises(InvalidURL) as caught:
        if base is None:
            URL.parse(text)
        else:
            URL.parse(base).join(text)
    return str(caught.value)


# What a URL consists of


def test_the_parts_of_a_plain_url() -> None:
    url = URL.parse("https://example.org:8443/a/b.iso?x=1&y#frag")
    assert (url.scheme, url.host, url.port) == ("https", "example.org", 8443)
    assert (url.path, url.query, url.fragment, url.userinfo) == ("/a/b.iso", "x=1&y", "frag", None)
    assert url.target == "/a/b.iso?x=1&y"
    assert url.host_header == "example.org:8443"
    assert url.origin == Origin("https", "example.org", 8443) == ("https", "example.org", 8443)
    assert str(url) == "https://example.org:8443/a/b.iso?x=1&y#frag"


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("http://example.org", "http://example.org/"),
        ("http://example.org?q", "http://example.org/?q"),
        ("http://example.org#f", "http://example.org/#f"),
        ("http://example.org/?", "http://example.org/?"),
        ("http://example.org/#", "http://example.org/#"),
        ("HTTP://EXAMPLE.org/A", "http://example.org/A"),
        ("http://example.org:80/", "http://example.org/"),
        ("https://example.org:443/", "https://example.org/"),
        ("https://example.org:80/", "https://example.org:80/"),
        ("http://example.org:443/", "http://example.org:443/"),
        ("http://example.org:/", "http://example.org/"),
        ("http://example.org:0008080/", "http://example.org:8080/"),
        ("http://example.org:65535/", "http://example.org:65535/"),
        ("http://example.org./", "http://example.org./"),
        ("http://a_b-c.example.org/", "http://a_b-c.example.org/"),
        ("http://127.0.0.1:8080/x", "http://127.0.0.1:8080/x"),
        ("http://192.0.2.7./", "http://192.0.2.7/"),
        ("http://[2001:DB8:0:0::1]/", "http://[2001:db8::1]/"),
        ("http://[::192.0.2.7]:81/", "http://[::c000:207]:81/"),
        ("http://1a.example/", "http://1a.example/"),
        ("http://example.0xg/", "http://example.0xg/"),
        ("http://@example.org/", "http://example.org/"),
        ("http://:@example.org/", "http://:@example.org/"),
        ("http://u:p%40@example.org/", "http://u:p%40@example.org/"),
        ("http://ü:[]@example.org/", "http://%C3%BC:%5B%5D@example.org/"),
        ("http://example.org/a/./b/../c", "http://example.org/a/c"),
        ("http://example.org/a/..", "http://example.org/"),
        ("http://example.org/a/.", "http://example.org/a/"),
        ("http://example.org/../../a", "http://example.org/a"),
        ("http://example.org/a//../b", "http://example.org/a/b"),
        ("http://example.org/.a/..b/c..", "http://example.org/.a/..b/c.."),
        ("http://example.org/%2e%2E/a", "http://example.org/%2e%2E/a"),
        ("http://example.org//a", "http://example.org//a"),
        ("http://example.org/a b?c d#e f", "http://example.org/a%20b?c%20d#e%20f"),
        ("http://example.org/ä?ö#€", "http://example.org/%C3%A4?%C3%B6#%E2%82%AC"),
        ("http://example.org/%41%zz%", "http://example.org/%41%zz%"),
        ('http://example.org/"<>\\^`{|}[]', "http://example.org/%22%3C%3E%5C%5E%60%7B%7C%7D%5B%5D"),
        ("http://example.org/?a[]=1&b=/?@:", "http://example.org/?a%5B%5D=1&b=/?@:"),
        ("http://example.org/@a:b;c=1,!$&'()*+~", "http://example.org/@a:b;c=1,!$&'()*+~"),
        ("http://example.org/?x@evil.example/#y@evil.example/", "http://example.org/?x@evil.example/#y@evil.example/"),
        ("http://example.org/\udcff\x80", "http://example.org/%FF%C2%80"),
    ],
)
def test_one_spelling(text: str, spelled: str) -> None:
    url = URL.parse(text)
    assert str(url) == spelled
    assert URL.parse(spelled) == url
    assert str(URL.parse(BASE).join(text)) == spelled


@pytest.mark.parametrize(
    ("text", "host", "header"),
    [
        ("http://u:p@EXAMPLE.org:81/", "example.org", "example.org:81"),
        ("http://example.com:@evil.example/", "evil.example", "evil.example"),
        ("http://[::1]/", "::1", "[::1]"),
        ("https://[::1]:80/", "::1", "[::1]:80"),
    ],
)
def test_B2_host_and_Host_name_the_same_machine(text: str, host: str, header: str) -> None:
    url = URL.parse(text)
    assert (url.host, url.host_header, url.origin.host) == (host, header, host)


# References


@pytest.mark.parametrize(
    ("ref", "resolved"),
    [
        ("x", "/one/two/x"),
        ("./x", "/one/two/x"),
        ("x/", "/one/two/x/"),
        ("/x", "/x"),
        ("?y", "/one/two/three;v?y"),
        ("?", "/one/two/three;v?"),
        ("x?y", "/one/two/x?y"),
        ("#s", "/one/two/three;v?q#s"),
        ("", "/one/two/three;v?q"),
        (";x", "/one/two/;x"),
        (".", "/one/two/"),
        ("..", "/one/"),
        ("../x", "/one/x"),
        ("../..", "/"),
        ("../../../x", "/x"),
        ("/../x", "/x"),
        ("x/../y", "/one/two/y"),
        ("..x", "/one/two/..x"),
        (":x", "/one/two/:x"),
        ("1:x", "/one/two/1:x"),
        ("x?a/../b#c/../d", "/one/two/x?a/../b#c/../d"),
        ("  x\r\n", "/one/two/x"),
        ("ä b", "/one/two/%C3%A4%20b"),
        ("/..//evil.example/", "//evil.example/"),
        ("\\x", "/one/two/%5Cx"),
    ],
)
def test_join_resolves_a_reference_as_rfc_3986_5_2_does(ref: str, resolved: str) -> None:
    assert str(URL.parse(BASE).join(ref)) == "http://example.org" + resolved


def test_join_keeps_the_authority_for_a_path_and_replaces_it_for_a_network_path() -> None:
    base = URL.parse("https://u:p@example.org:8443/a")
    assert str(base.join("/b")) == "https://u:p@example.org:8443/b"
    assert str(base.join("//other.example/b")) == "https://other.example/b"
    assert str(base.join("http://other.example/b")) == "http://other.example/b"
    assert base.join("b").fragment is None


@pytest.mark.parametrize(
    "ref",
    [
        "//", "///evil.example", "http:", "http:x", "http:/x", "https:///x", "ftp://example.org/", "file:///etc/passwd",
        "javascript:alert(1)", "data:,x", "a:b", "\\\\evil.example", "/\\evil.example", "\\/evil.example",
        "//evil.example:0/", "x\ny", "/\t/evil.example",
    ],
)  # fmt: skip
def test_A10_join_refuses_what_is_no_http_url(ref: str) -> None:
    refused(ref, BASE)


# What is refused


@pytest.mark.parametrize("octet", [*range(0x20), 0x7F])
@pytest.mark.parametrize("place", ["http://{}example.org/", "http://exa{}mple.org/", "http://example.org/a{}b?c#d",
                                   "http://example.org/?a{}b", "http://example.org/#a{}b", "ht{}tp://example.org/",
                                   "http://u{}:p@example.org/", "http://example.org:8{}0/"])  # fmt: skip
def test_B1_a_control_character_inside_is_refused_and_escaped_in_the_message(octet: int, place: str) -> None:
    message = refused(place.format(chr(octet)))
    assert message.isprintable()
    assert f"\\x{octet:02x}" in message
    refused(place.format(chr(octet)), BASE)


def test_B1_no_space_reaches_the_request_line() -> None:
    url = URL.parse("http://example.org/a b?c d HTTP/1.1")
    assert url.target == "/a%20b?c%20d%20HTTP/1.1"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "does not begin with"),
        ("example.org/a", "does not begin with"),
        ("//example.org/a", "does not begin with"),
        ("ftp://example.org/", "'ftp' is neither"),
        ("example.org:80/a", "'example.org' is neither"),
        ("http:", "names no host"),
        ("http:/example.org", "names no host"),
        ("http://", "names no host"),
        ("http:///a", "names no host"),
        ("http://:80/", "names no host"),
        ("http://u@/", "names no host"),
        ("http://\ud800/", "lone surrogate '\\ud800'"),
    ],
)
def test_T4_what_is_no_http_url_is_refused_with_the_reason(text: str, why: str) -> None:
    assert why in refused(text)


@pytest.mark.parametrize(
    "authority",
    [
        "a b", " example.org", "u:p w@example.org", "a\\b", "example.org\\", "u\\@example.org", "u@v@example.org",
        "@@example.org", "a%20b", "ex%61mple.org", "%", "a%2fb", "a..b", ".", "..", ".a", "a<b", "a|b", "a!b", "a;b",
        "a^b", "a[b", "a]b", "[a]b", "a,b", "example.org:80:80", "ex\xa0ample.org", "\u202eexample.org", "\udc80",
    ],
)  # fmt: skip
def test_B2_an_authority_with_two_readings_is_refused(authority: str) -> None:
    assert refused(f"http://{authority}/").isprintable()


@pytest.mark.parametrize(
    "authority",
    [
        "0x7f.1", "0x7f000001", "2130706433", "127.1", "1.2.3", "010.0.0.1", "1.2.3.04", "1.2.3.256", "1.2.3.4.5",
        "host.1", "host.0x1f", "0x", "host.0x", "1.", "１.2.3",
    ],
)  # fmt: skip
def test_B2_an_ipv4_address_is_four_decimal_numbers_or_refused(authority: str) -> None:
    refused(f"http://{authority}/")


@pytest.mark.parametrize(
    "authority",
    [
        "[::1", "::1]", "::1", "2001:db8::1", "[]", "[not-ip]", "[:::]", "[1::2::3]", "[::1]x", "[::1]x:80", "x[::1]",
        "[fe80::1%eth0]", "[fe80::1%25]", "[fe80::1%25" + 16 * "x" + "]", "[fe80::1%25a%25b]", "[fe80::1%25/]",
        "[2001:db8::1%25eth0]", "[::1%25lo]", "[::ffff:1.2.3.4%25eth0]",
        "[v1.x]", "[::1.2.3]", "[12345::]", "[1.2.3.4]", "[::１]",
        "host:0", "host:00", "host:65536", "host:100000", "host:99999999999999999999", "host:-1", "host:+1", "host:8_0",
        "host:0x50", "host:http", "host: 80", "host:８０", "[::1]:0", "host:80 ",
    ],
)  # fmt: skip
def test_B5_brackets_and_ports(authority: str) -> None:
    refused(f"http://{authority}/")


def test_B5_a_bracket_that_is_not_closed_is_no_question_of_the_port() -> None:
    assert "not closed" in refused("http://[::1/")


def test_F8_a_zone_is_part_of_the_origin_and_not_of_Host() -> None:
    url = URL.parse("http://u@[FE80::1%25Eth0]:81/a")
    assert (url.host, url.host_header) == ("fe80::1%Eth0", "[fe80::1]:81")
    assert str(url) == "http://u@[fe80::1%25Eth0]:81/a" and URL.parse(str(url)) == url
    assert url.join("b").origin == url.origin
    origins = {URL.parse(f"http://[fe80::1{zone}]/").origin for zone in ("", "%25eth0", "%25eth1")}
    assert len(origins) == 3


def test_A9_no_message_and_no_repr_shows_a_password() -> None:
    for authority in (
        "u:can@ary@h",
        "u:can/ary@h",
        "u:canary@[x]",
        "u:canary@h:0",
        "u:canary w@h",
        "u:canary@",
        "u:]can/ary@h",
    ):
        assert "can" not in refused(f"http://{authority}/")
    assert "can" not in refused("http://u:canary\x00@h/") + refused("ftp://u:canary@h/")
    url = URL.parse("http://u:canary@example.org/a")
    assert url.userinfo == "u:canary"
    assert repr(url) == "URL('http://***@example.org/a')"
    assert url.redacted == "http://***@example.org/a"
    assert URL.parse("http://example.org/a").redacted == "http://example.org/a"


# IDNA


@pytest.mark.parametrize(
    ("host", "ascii_host"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("ｅｘａｍｐｌｅ。org", "example.org"),
        ("例え.example", "xn--r8jz45g.example"),
        ("bücher.example.", "xn--bcher-kva.example."),
    ],
)
def test_S10_an_international_host_becomes_ascii_once(host: str, ascii_host: str) -> None:
    url = URL.parse(f"http://{host}/")
    assert url.host == ascii_host
    assert URL.parse(str(url)) == url


@pytest.mark.parametrize(
    "host",
    [
        "℀.example", "a／b.example", "a＠b.example", "a：80", "a％2fb", "a？b", "a＃b", "é_.example", "é..example",
        "\u0301.example", "\U0001f4a9.example", "\u05d0a.example", "\ufffd.example", "１２７.1",
    ],
)  # fmt: skip
def test_B3_a_host_that_turns_into_something_else_is_refused(host: str) -> None:
    refused(f"http://{host}/")


def test_S10_without_the_idna_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "idna", None)
    assert "rawdl[idna]" in refused("http://bücher.example/")
    assert URL.parse("http://xn--bcher-kva.example/").host == "xn--bcher-kva.example"


@pytest.mark.parametrize("letter", ["a", "é"])
def test_B4_a_long_host_is_refused_before_idna_sees_it(letter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "idna", None)  # so that reaching it gives another message
    assert "rawdl[idna]" not in refused(f"http://{letter * 64}/")
    assert "rawdl[idna]" not in refused(f"http://{'.'.join([letter * 63] * 4)}/")


def test_B4_a_label_of_63_and_a_host_of_253_are_taken() -> None:
    host = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    assert URL.parse(f"http://{host}/").host == host
    assert URL.parse(f"http://{host}./").host == host + "."
    refused(f"http://{host}d/")


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a.",
        "1.",
        "é",
        "é。",
        "@",
        ":",
        "[",
        "]",
        "0",
        "/",
        "/..",
        "/./",
        "?",
        "#",
        "\\",
        " ",
        "%",
        "%41",
        "{a",
        ";",
    ],
)
def test_B4_a_long_run_of_anything_is_read_in_one_go(text: str) -> None:
    hostile = text * (2**18 // len(text))
    with hang_guard():
        for place in ("http://{}", "http://{}!", "http://h:{}", "http://{}@h/", "http://h/{}/.."):
            with contextlib.suppress(InvalidURL):
                assert len(URL.parse(place.format(hostile)).last_segment) <= len(hostile)
        with contextlib.suppress(InvalidURL):
            assert len(URL.parse(BASE).join(hostile).last_segment) <= len(hostile)


# The value


def test_a_url_is_a_value() -> None:
    url = URL.parse("http://u:p@Example.org:80/a?b#c")
    same = URL.parse("http://u:p@example.org/a?b#c")
    assert url == same
    assert len({url, same}) == 1
    assert url != URL.parse("http://u:p@example.org/a?b#d")
    assert url != str(url)
    assert pickle.loads(pickle.dumps(url)) == copy.deepcopy(url) == url


def test_a_url_cannot_be_changed() -> None:
    url = URL.parse("http://example.org/a")
    with pytest.raises(AttributeError):
        url.host = "evil.example"
    with pytest.raises(AttributeError):
        del url.host
    with pytest.raises(AttributeError):
        url.new = 1  # type: ignore[attr-defined]
    assert url.host == "example.org"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b.iso", "b.iso"),
        ("/a/", ""),
        ("", ""),
        ("/a%20b", "a b"),
        ("/%E2%82%AC.txt", "€.txt"),
        ("/%ff", "\ufffd"),
        ("/a%", "a%"),
        ("/..%2f..%2fx", "../../x"),
        ("/%252e%252e%252f", "%2e%2e%2f"),
        ("/a?x=/b.iso", "a"),
    ],
)
def test_E2_the_last_segment_is_decoded_exactly_once(path: str, name: str) -> None:
    assert URL.parse("http://example.org" + path).last_segment == name


# Properties

PIECES = st.sampled_from(
    [
        "http", "https", "HTTP", ":", "/", "//", "\\", "?", "#", "@", "[", "]", ".", "..", "%", "%2e", "%zz", "::1",
        "127.0.0.1", "0x1", "80", "0", "65536", "a", "example.org", "é", "。", "／", "\u202e", "\ud800", "\udc80",
        "\x00", "\t", " ", "\x7f",
    ]
)  # fmt: skip
TEXTS = st.one_of(
    st.text(),
    st.lists(PIECES).map("".join),
    st.builds("http://{}{}".format, st.lists(PIECES).map("".join), st.text()),
    st.builds("http://example.org/{}".format, st.text()),
)


def holds(url: URL) -> None:
    assert URL.parse(str(url)) == url
    assert hash(URL.parse(str(url))) == hash(url)
    assert all("!" <= c <= "~" for c in str(url) + url.target + url.host_header)
    assert url.target.startswith("/")
    assert not {"..", "."} & set(url.path.split("/"))
    assert url.scheme in ("http", "https")
    assert 1 <= url.port <= 65535
    assert url.host == url.host.lower() != ""
    assert not set(url.host) & set("@/\\?#%[] ")


@settings(deadline=None)
@given(TEXTS)
def test_a_parsed_url_is_its_own_spelling(text: str) -> None:
    try:
        url = URL.parse(text)
    except InvalidURL as error:
        assert str(error).isprintable()
        return
    holds(url)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_join_gives_a_url_or_raises_invalid_url(base: str, ref: str) -> None:
    try:
        url = URL.parse(base)
    except InvalidURL:
        url = URL.parse(BASE)
    with contextlib.suppress(InvalidURL):
        holds(url.join(ref))


@settings(deadline=None)
@given(TEXTS)
def test_an_absolute_url_resolves_to_itself(text: str) -> None:
    with contextlib.suppress(InvalidURL):
        url = URL.parse(text)
        assert URL.parse(BASE).join(str(url)) == url


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("X-Amz-Signature=s&X-Amz-Date=1", "X-Amz-Signature=***&X-Amz-Date=1"),
        ("a=1&sig=s%2f", "a=1&sig=***"),
        ("access_token=s;token=s", "access_token=***;token=***"),
        ("design=1&tokens=2&token", "design=1&tokens=2&token"),
        ("sig=", "sig="),
    ],
)
def test_A9_what_a_query_proves_is_not_told(query: str, told: str):
    url = URL.parse(f"http://u:s@example.org/a?{query}#f")
    assert url.redacted == f"http://***@example.org/a?{told}#f"
    assert shown(f"http://u:s@exa mple.org/a?{query}#f") == f"http://***@exa mple.org/a?{told}#f"
    assert str(url).endswith(f"{query}#f")
    url = URL.parse(f"http://u:s@example.org/a#{query}")
    assert url.redacted == shown(str(url)) == f"http://***@example.org/a#{told}"
