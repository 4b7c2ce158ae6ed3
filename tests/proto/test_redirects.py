"""Redirects: where they lead, what stops them, and what never reaches another origin (A1-A3, A7, A10, A12, A14, H5)."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
from hypothesis import given, settings, strategies as st

from rawdl.errors import RedirectError
from rawdl.proto.http11 import Exchange
from rawdl.proto.messages import Headers, Request
from rawdl.proto.redirects import MAX_URL, Chain, Redirects
from rawdl.proto.url import URL, Origin

START = "http://example.org/one/two?q"
FOLLOWED = {301, 302, 303, 307, 308}
steady = settings(derandomize=True, deadline=None, database=None)

# Written down once more, so that the table of the module cannot grow unseen.
HARMLESS = {
    "accept", "accept-encoding", "accept-language", "cache-control", "dnt", "pragma", "range", "sec-gpc", "user-agent",
    "want-content-digest", "want-repr-digest",
}  # fmt: skip
BOUND = [
    "Authorization", "AUTHORIZATION", "authorization", "Authorization ", "Cookie", "Cookie2", "X-Token",
    "Host", "Origin", "Referer", "If-Match", "If-None-Match", "If-Modified-Since",
    "If-Unmodified-Since", "If-Range", "Content-Type", "Connection", "X-Accept", "From",
]  # fmt: skip


def chain_from(url: str = START, header: dict[str, str | None] | None = None, **options: object) -> Chain:
    return Chain(URL.parse(url), header, Redirects(**options))


def octets(location: str) -> str:
    """Return a text as it arrives: one character for each octet of its UTF-8."""
    return location.encode("utf-8", "surrogateescape").decode("latin-1")


def advance(chain: Chain, *locations: str, status: int = 302) -> Chain:
    """Follow one redirect after the other."""
    for location in locations:
        chain.advance(status, Headers([("Server", "x"), ("location", octets(location))]))
    return chain


def refused(chain: Chain, *fields: tuple[str, str]) -> str:
    """Return the message of the refusal, and hold that the chain stays as it was."""
    before = chain.url, chain.header, chain.hops
    with pytest.raises(RedirectError) as caught:
        chain.advance(302, Headers(fields))
    assert (chain.url, chain.header, chain.hops) == before
    assert str(caught.value).isprintable()
    assert caught.value.err_msg == "downloadFile:fail redirect"
    return str(caught.value)


def refused_location(location: str, url: str = START, **options: object) -> str:
    return refused(chain_from(url, **options), ("Location", octets(location)))


# The settings


def test_S11_the_settings_are_checked() -> None:
    assert dataclasses.asdict(Redirects()) == {"limit": 10, "allow_downgrade": False}
    assert Redirects(limit=10) == Redirects() != Redirects(limit=0)
    assert pickle.loads(pickle.dumps(Redirects(limit=3))) == Redirects(limit=3)
    for wrong in (True, False, 1.0, "10", None):
        with pytest.raises(TypeError, match=r"redirects\.limit is a whole number"):
            Redirects(limit=wrong)
    for wrong in (0, 1, None, "no"):
        with pytest.raises(TypeError, match=r"redirects\.allow_downgrade is a bool"):
            Redirects(allow_downgrade=wrong)
    with pytest.raises(ValueError, match=r"redirects\.limit cannot be negative, as -1 is"):
        Redirects(limit=-1)
    with pytest.raises(TypeError):
        Redirects(10)


# Which responses are redirects


def test_A12_only_five_statuses_are_followed() -> None:
    assert {status for status in range(1000) if chain_from().follows(status)} == FOLLOWED
    assert chain_from(limit=1).follows(302)


def test_A12_S40_a_limit_of_zero_takes_each_redirect_as_the_answer() -> None:
    assert not any(chain_from(limit=0).follows(status) for status in range(1000))
    chain = chain_from(limit=0)
    assert "the limit is 0" in refused(chain, ("Location", "/x"))


@pytest.mark.parametrize("status", sorted(FOLLOWED))
def test_A14_whatever_the_status_the_next_request_is_the_same_get_without_a_body(status: int) -> None:
    chain = advance(chain_from(header={"X-Token": "1"}), "/next", status=status)
    sent = bytes(Exchange(Request("GET", chain.url, chain.header)).data_to_send())
    assert sent.startswith(b"GET /next HTTP/1.1\r\nHost: example.org\r\n")
    assert sent.endswith(b"\r\n\r\n") and sent.count(b"\r\n\r\n") == 1
    assert b"\ncontent-" not in sent.lower() and b"\ntransfer-" not in sent.lower()
    assert (chain.url, chain.header) == (URL.parse("http://example.org/next"), {"X-Token": "1"})


def test_the_message_tells_the_status() -> None:
    with pytest.raises(RedirectError, match=r"^308 from http://example\.org/one/two"):
        chain_from().advance(308, Headers())


# Where they lead


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("x", "http://example.org/one/x"),
        ("./x", "http://example.org/one/x"),
        ("../x", "http://example.org/x"),
        ("../../../x", "http://example.org/x"),
        ("/x/./y/../z", "http://example.org/x/z"),
        ("/x?a=/../b", "http://example.org/x?a=/../b"),
        ("//other.example/x", "http://other.example/x"),
        ("//other.example", "http://other.example/"),
        ("?y", "http://example.org/one/two?y"),
        ("?", "http://example.org/one/two?"),
        ("x#f", "http://example.org/one/x#f"),
        ("http://other.example", "http://other.example/"),
        ("HTTP://UPPER.Example/Path", "http://upper.example/Path"),
        ("https://example.org/one/two?q", "https://example.org/one/two?q"),
        ("http://example.org:8080/one/two?q", "http://example.org:8080/one/two?q"),
        ("http://[::1]:8080/", "http://[::1]:8080/"),
        (" \t/x\t ", "http://example.org/x"),
        ("/a b?c d#e f", "http://example.org/a%20b?c%20d#e%20f"),
        ("/ä/€?ö#ü", "http://example.org/%C3%A4/%E2%82%AC?%C3%B6#%C3%BC"),
        ("/\udcff\udce4.iso", "http://example.org/%FF%E4.iso"),
        ("/\x85\xa0\u202e", "http://example.org/%C2%85%C2%A0%E2%80%AE"),
        ("//bücher.example/", "http://xn--bcher-kva.example/"),
        ("/%41%2e%2E%zz%", "http://example.org/%41%2e%2E%zz%"),
        ("/%252e%252e%252f", "http://example.org/%252e%252e%252f"),
        ('/"<>^`{|}[]', "http://example.org/%22%3C%3E%5E%60%7B%7C%7D%5B%5D"),
        ("/a\\..\\b", "http://example.org/a%5C..%5Cb"),
        ("\\x", "http://example.org/one/%5Cx"),
        ("/..//other.example/", "http://example.org//other.example/"),
        ("/x:y", "http://example.org/x:y"),
        ("./x:y", "http://example.org/one/x:y"),
        ("./;http://other.example/", "http://example.org/one/;http://other.example/"),
        ("/login?to=http://u:p@other.example/", "http://example.org/login?to=http://u:p@other.example/"),
        ("http://@other.example/", "http://other.example/"),
        ("/a,b", "http://example.org/a,b"),
    ],
)
def test_H5_an_odd_location_is_resolved(location: str, url: str) -> None:
    chain = advance(chain_from(), location)
    assert str(chain.url) == url
    assert chain.hops == (START,)


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("", "a loop"),
        (" ", "a loop"),
        ("#f", "a loop"),
        ("two?q", "a loop"),
        ("//", "no host"),
        ("///other.example/", "no host"),
        ("http:", "no host"),
        ("http:x", "no host"),
        ("http:/x", "no host"),
        ("http:///x", "no host"),
        ("\\\\other.example\\x", "backslash"),
        ("/\\other.example", "backslash"),
        ("\\/other.example", "backslash"),
        ("http://other.example\\@example.org/", "backslash"),
        ("//other example/", "backslash or space"),
        ("//a@b@other.example/", "more than one @"),
        ("//other%2eexample/", "not a host name"),
        ("//\udcff.example/", "not a host name"),
        ("//0x7f.1/", "not an IPv4 address"),
        ("//other.example:0/", "port"),
        ("//other.example:65536/", "port"),
        ("//[::1/", "IPv6"),
        ("//[fe80::1%eth0]/", "IPv6"),
        ("//[fe80::1%25eth0]/", "a zone means something on this machine only"),
    ],
)
def test_H5_B2_a_location_with_no_meaning_or_with_two_is_refused(location: str, why: str) -> None:
    message = refused_location(location)
    assert message.startswith(f"302 from {START} to ") and why in message


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd", "FILE:///etc/passwd", "local_file:///etc/passwd", "ftp://other.example/", "FTP://x/",
        "data:,x", "gopher://x/", "javascript:alert(1)", "JavaScript:alert(1)", "ws://x/", "about:blank",
        "view-source:x", "localhost:8080/x", "other.example:80", "httpx://x/", "blob:http://x/", ":", ":x",
        "://other.example/", " ://x", "1:x", "http ://other.example/", "x;http://other.example/", "ht\u2009tp://x/",
    ],
)  # fmt: skip
def test_A10_A16_only_http_and_https_are_followed(location: str) -> None:
    assert refused_location(location).endswith(": neither http nor https")


PLACES = ["{}/x", "/x{}", "/x{}y", "/{}/other.example", "http://other{}.example/", "ht{}tp://x/", "/x?a{}b", "/x#a{}b",
          "/x HTTP/1.1{}X: y"]  # fmt: skip


@pytest.mark.parametrize("octet", [*range(0x20), 0x7F])
@pytest.mark.parametrize("place", PLACES)
def test_B1_a_control_character_is_refused(octet: int, place: str) -> None:
    location = place.format(chr(octet))
    if location.strip("\t") == "/x":
        assert str(advance(chain_from(), location).url) == "http://example.org/x"
        return
    message = refused_location(location)
    assert "control character" in message and f"\\x{octet:02x}" in message


@pytest.mark.parametrize("location", ["/x HTTP/1.1 X: y", "/x y", "x y?a b", "/ //other.example/", "/x?a HTTP/1.1"])
def test_B1_a_space_does_not_end_the_request_target(location: str) -> None:
    chain = advance(chain_from(), location)
    line = bytes(Exchange(Request("GET", chain.url, chain.header)).data_to_send()).partition(b"\r\n")[0]
    assert line.count(b" ") == 2 and line.endswith(b" HTTP/1.1")
    assert chain.url.host == "example.org"


def test_H5_a_message_escapes_and_shortens_what_the_server_wrote() -> None:
    message = refused_location("ftp://\u202e\x9b[2J\udcff" + "x" * 100_000)
    assert "ftp://\\u202e\\x9b[2J\\udcffx" in message
    assert len(message) < 500 and "…" in message
    message = refused(advance(chain_from(), "/" + "y" * 10_000), ("Location", ""))
    assert len(message) < 600 and "a loop, after 1 redirects" in message


def test_H5_a_url_of_64_kib_and_no_longer() -> None:
    room = MAX_URL - len("http://example.org/")
    assert len(str(advance(chain_from(), "/" + "x" * room).url)) == MAX_URL == 65536
    message = refused_location("/" + "x" * (room + 1))
    assert "a URL of 65537 characters, where 65536 is the limit" in message
    assert "a URL of" in refused_location("/" + "ä" * (room // 3))  # encoded, it is twice as long again


def test_H5_a_url_does_not_grow_from_hop_to_hop() -> None:
    chain = chain_from(limit=1000)
    with pytest.raises(RedirectError, match="characters, where 65536 is the limit"):
        advance(chain, *["x" * 10_000 + "/y"] * 1000)
    assert len(chain.hops) == 6


def test_H5_no_location() -> None:
    assert refused(chain_from()) == f"302 from {START}: no Location"
    assert "no Location" in refused(chain_from(), ("Content-Location", "/x"))


def test_H5_two_locations() -> None:
    message = refused(chain_from(), ("Location", "/a"), ("LOCATION", "/b"), ("location", "/a"))
    assert message == f"302 from {START}: 2 different Locations"
    assert "2 different" in refused(chain_from(), ("Location", ""), ("Location", "/b"))
    chain = chain_from()
    chain.advance(302, Headers([("Location", "/a"), ("LOCATION", " /a\t")]))
    assert chain.url.path == "/a"


# The fragment


@pytest.mark.parametrize(
    ("location", "fragment"),
    [("/x", "f"), ("//other.example/", "f"), ("?y", "f"), ("/x#g", "g"), ("/x#", ""), ("//other.example/#g", "g")],
)
def test_55_a_location_without_a_fragment_inherits_it(location: str, fragment: str) -> None:
    chain = advance(chain_from("http://example.org/one/two?q#f"), location)
    assert chain.url.fragment == fragment
    assert chain.hops == ("http://example.org/one/two?q#f",)
    assert advance(chain, "/last").url.fragment == fragment


# The user name and password


@pytest.mark.parametrize("location", ["http://u:p@example.org/x", "//u@other.example/", "http://:@other.example/",
                                      "https://u:canary@example.org/one/two?q"])  # fmt: skip
def test_39_a_user_name_in_a_location_is_refused_and_not_shown(location: str) -> None:
    message = refused_location(location)
    assert "user name or password" in message and "***@" in message and "canary" not in message


def test_A1_A9_the_password_of_the_url_stays_with_its_origin_and_is_never_shown() -> None:
    chain = advance(chain_from("http://u:canary@example.org/a"), "/b", "http://example.org/c")
    assert chain.url.userinfo == "u:canary"
    assert "canary" not in refused(chain, ("Location", "ftp://u:canary@x/")) + refused(chain, ("Location", "c"))
    advance(chain, "//other.example/", "//example.org/d", "e")
    assert chain.url.userinfo is None
    assert chain.hops[:2] == ("http://***@example.org/a", "http://***@example.org/b")
    assert "canary" not in "".join(chain.hops)


# How far they go


def test_A12_the_limit_counts_over_the_whole_task() -> None:
    chain = advance(chain_from(), *[f"/{n}" for n in range(10)])
    assert len(chain.hops) == 10 and chain.hops[0] == START and chain.hops[-1] == "http://example.org/8"
    assert refused(chain, ("Location", "/10")) == (
        "302 from http://example.org/9 to http://example.org/10: "
        "too many redirects: 10 have been followed, and the limit is 10"
    )
    assert chain.follows(302)  # it is an error, and no answer


@pytest.mark.parametrize(
    ("locations", "last"),
    [
        ([], START),
        ([], "HTTP://EXAMPLE.org:80/one/./two?q#other"),
        (["/b"], START),
        (["/b"], "/b"),
        (["/b", "/c"], "/b#f"),
        (["//other.example/", "https://example.org/"], "https://other.example/../"),
        (["https://other.example/"], "https://OTHER.example:443"),
    ],
)
def test_A12_a_loop_is_found_and_named(locations: list[str], last: str) -> None:
    chain = advance(chain_from(), *locations)
    if last == "https://other.example/../":
        advance(chain, last)
    message = refused(chain, ("Location", last))
    assert f"a loop, after {len(chain.hops)} redirects" in message
    assert f"to {chain.url.join(last).redacted}: " in message


def test_A12_no_loop_where_the_urls_differ() -> None:
    chain = advance(chain_from(), "?q=1", "?Q", "/One/two?q", "http://example.org:81/one/two?q", "/%7Eu", "/~u")
    assert len(chain.hops) == 6


def test_A12_a_loop_is_a_loop_with_and_without_the_password() -> None:
    chain = advance(chain_from("http://u:p@example.org/a"), "//other.example/")
    assert "a loop" in refused(chain, ("Location", "http://example.org/a"))


def test_A2_https_is_left_for_http_only_where_that_is_allowed() -> None:
    secret = {"Authorization": "x", "Accept": "y"}
    for location in ("http://example.org/", "http://example.org:443/", "http://other.example/"):
        message = refused(chain_from("https://example.org/a", secret), ("Location", location))
        assert "from https to http" in message and "allow_downgrade" in message
        chain = advance(chain_from("https://example.org/a", secret, allow_downgrade=True), location)
        assert (str(chain.url), chain.header) == (location, {"Accept": "y"})
    chain = advance(chain_from("http://example.org/"), "https://example.org/")
    assert "from https to http" in refused(chain, ("Location", "http://example.org/b"))
    assert advance(chain_from("https://example.org/"), "//other.example/").url.scheme == "https"


# What comes along

OTHER_ORIGINS = [
    "http://other.example/", "//other.example/", "https://example.org/one/two?q", "http://example.org:81/one/two?q",
    "http://sub.example.org/", "http://example.org.evil.example/", "http://example.org./",
]  # fmt: skip
SAME_ORIGIN = ["/x", "x", "?x", "http://example.org/x", "HTTP://EXAMPLE.ORG:80/x", "//example.org/x"]


@pytest.mark.parametrize("name", BOUND)
def test_A1_A3_A7_what_belongs_to_an_origin_stays_there(name: str) -> None:
    header = {name: "canary", "Accept": "a/b"}
    for location in OTHER_ORIGINS:
        assert advance(chain_from(header=header), location).header == {"Accept": "a/b"}
    for location in SAME_ORIGIN:
        assert advance(chain_from(header=header), location).header == header


@pytest.mark.parametrize("name", [*sorted(HARMLESS), "User-Agent", "ACCEPT", "Range", "Want-Repr-Digest"])
def test_67_what_tells_no_secret_comes_along(name: str) -> None:
    for location in OTHER_ORIGINS + SAME_ORIGIN:
        assert advance(chain_from(header={name: "x"}), location).header == {name: "x"}


@pytest.mark.parametrize("condition", ["If-Range", "if-match", "If-Unmodified-Since", "IF-NONE-MATCH"])
def test_67_a_range_does_not_leave_its_condition(condition: str) -> None:
    header = {"range": "bytes=5-", condition: '"a"', "Accept": "a/b"}
    assert advance(chain_from(header=header), "/x").header == header
    assert advance(chain_from(header=header), "//other.example/").header == {"Accept": "a/b"}
    dropped = {"Range": "bytes=5-", condition: None}
    assert advance(chain_from(header=dropped), "//other.example/").header == dropped


def test_A3_nothing_comes_back_with_the_first_origin() -> None:
    header = {"Authorization": "canary", "Cookie": "canary", "X-Token": "canary", "Pragma": "no-cache"}
    chain = advance(chain_from(header=header), "//other.example/", "//example.org/three", "four")
    assert chain.url.origin == Origin("http", "example.org", 80)
    assert chain.header == {"Pragma": "no-cache"}


def test_a_field_that_the_caller_drops_stays_dropped() -> None:
    header = {"User-Agent": None, "accept": None, "X-Token": None}
    chain = advance(chain_from(header=header), "/x", "//other.example/", "//example.org/y")
    assert chain.header == header
    assert [name for name, _ in Request("GET", chain.url, chain.header).fields] == ["Host", "Accept-Encoding"]


def test_the_header_is_the_callers_as_it_was_given() -> None:
    assert chain_from().header == chain_from(header={}).header == {}
    header: dict[str, str | None] = {"X-Token": "1"}
    chain = chain_from(header=header)
    header["Cookie"] = "later"
    assert chain.header == {"X-Token": "1"}
    advance(chain, "//other.example/")
    assert header == {"X-Token": "1", "Cookie": "later"}


def test_a_chain_that_has_not_moved() -> None:
    chain = chain_from("http://u:p@example.org/a#f", {"Cookie": "x"})
    assert (str(chain.url), chain.hops, chain.header) == ("http://u:p@example.org/a#f", (), {"Cookie": "x"})


# Properties

NAMES = st.sampled_from([*BOUND, *sorted(HARMLESS), "Accept", "RANGE", "x-range"]).filter(lambda n: n.strip() == n)
HOSTS = ["http://a.example", "https://a.example", "http://a.example:81", "http://b.example", "//b.example",
         "//A.example", "//a.example", ""]  # fmt: skip
LOCATIONS = st.builds("{}/{}".format, st.sampled_from(HOSTS), st.integers(0, 30))


@settings(steady, max_examples=300)
@given(st.lists(NAMES, unique_by=str.lower), st.lists(LOCATIONS, max_size=12), st.booleans())
def test_A1_no_sequence_of_hops_lets_a_bound_field_reach_another_origin(
    names: list[str], locations: list[str], downgrade: bool
) -> None:
    start = URL.parse("http://a.example/")
    header = {name: f"canary{n}" for n, name in enumerate(names)}
    chain = Chain(start, header, Redirects(limit=12, allow_downgrade=downgrade))
    left = False
    for location in locations:
        try:
            advance(chain, location)
        except RedirectError:
            continue
        left = left or chain.url.origin != start.origin
        sent = {n.lower() for n, v in Request("GET", chain.url, chain.header).fields if v.startswith("canary")}
        assert sent <= HARMLESS if left else sent == {name.lower() for name in names}
        assert "range" not in sent or not left or not any(name.lower().startswith("if-") for name in names)


PIECES = st.sampled_from(
    ["http", "https", ":", "/", "//", "\\", "?", "#", "@", "[", "]", "..", "%", "::1", "80", "a.example", "b.example",
     "é", "\udcff", "\u202e", "\x00", "\t", " ", "\r\n", "u:p@"]
)  # fmt: skip


@settings(steady, max_examples=500)
@given(st.lists(st.one_of(st.binary(), st.lists(PIECES).map(lambda found: octets("".join(found)).encode("latin-1")))))
def test_B1_any_octets_lead_to_a_url_or_a_redirect_error(locations: list[bytes]) -> None:
    chain = chain_from("http://u:canary@a.example/", {"Cookie": "canary"})
    for location in locations:
        before = chain.url, chain.hops
        try:
            chain.advance(302, Headers.from_wire([(b"Location", location)]))
        except RedirectError as error:
            assert str(error).isprintable() and "canary" not in str(error)
            assert (chain.url, chain.hops) == before
            continue
        assert len(chain.hops) == len(before[1]) + 1 <= 10
        assert URL.parse(str(chain.url)) == chain.url
        assert chain.url.origin == Origin("http", "a.example", 80) or "canary" not in f"{chain.url}{chain.header}"
        sent = bytes(Exchange(Request("GET", chain.url, chain.header)).data_to_send())
        assert sent.count(b"\r\n\r\n") == 1 and sent.partition(b"\r\n")[0].count(b" ") == 2
