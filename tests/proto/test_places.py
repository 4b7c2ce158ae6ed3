"""Where a file is asked for, and what of the caller's fields goes there."""

from __future__ import annotations

from typing import Any

import pytest

from rawdl.errors import RedirectError
from rawdl.proto.messages import Headers, Request
from rawdl.proto.places import Places
from rawdl.proto.redirects import Redirects
from rawdl.proto.url import URL

FIRST, MIRROR, OTHER = (f"http://{host}.example.org/f" for host in ("first", "mirror", "other"))
SECRET = {"X-Token": "secret", "Accept-Language": "de"}
PUBLIC = {"Accept-Language": "de"}
METALINK = b"""<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="f"><size>5</size>
<hash type="sha-256">%b</hash><url>%b</url><url>%b</url></file></metalink>"""


def places(*mirrors: str, header: Any = SECRET, limit: int = 10) -> Places:
    request = Request("GET", URL.parse(FIRST), header)
    return Places(request, header, Redirects(limit=limit), [URL.parse(mirror) for mirror in mirrors])


def lead(them: Places, location: str, *fields: tuple[str, str]) -> bool:
    assert them.follows(302)
    return them.follow(302, Headers([("Location", location), *fields]))


def test_the_first_is_asked_with_all_that_the_caller_has() -> None:
    them = places()
    assert (str(them.url), them.is_first, them.has_left, them.hops) == (FIRST, True, False, ())
    assert them.fields() == them.fields(URL.parse(FIRST + "?other")) == SECRET
    assert them.fields(URL.parse(OTHER)) == PUBLIC
    assert places(header=None).fields() == {}


def test_A1_a_redirect_within_the_origin_keeps_it_and_one_that_leaves_does_not() -> None:
    them = places()
    assert not lead(them, "/g")
    assert (str(them.url), them.is_first, them.has_left) == ("http://first.example.org/g", False, False)
    assert them.fields() == SECRET
    assert lead(them, OTHER)
    assert (str(them.url), them.has_left, them.hops) == (OTHER, True, (FIRST, "http://first.example.org/g"))
    assert them.fields() == PUBLIC
    assert not them.follows(304)


def test_S40_none_is_followed_where_none_is_to_be() -> None:
    them = places(limit=0)
    assert not them.follows(302) and them.is_first


def test_A12_to_go_back_forgets_the_way_but_not_how_long_it_was() -> None:
    them = places(limit=2)
    lead(them, OTHER)
    them.go_back()
    assert (str(them.url), them.is_first, them.has_left, them.fields()) == (FIRST, True, False, SECRET)
    lead(them, OTHER)
    assert them.hops == (FIRST, FIRST)
    with pytest.raises(RedirectError, match="2 have been followed"):
        lead(them, MIRROR)


def test_A1_A12_a_mirror_is_the_first_from_then_on() -> None:
    them = places(MIRROR, OTHER)
    lead(them, "/g")
    them.go_on()
    assert str(them.request.url) == MIRROR and ("X-Token", "secret") not in them.request.fields
    assert (str(them.url), them.is_first, them.hops, them.fields()) == (MIRROR, True, (FIRST,), PUBLIC)
    lead(them, "/h")
    them.go_back()
    assert str(them.url) == MIRROR
    assert [str(mirror) for mirror in them.mirrors] == [OTHER]


def test_nobody_is_asked_twice() -> None:
    them = places(MIRROR)
    links = [("Link", f"<{url}>; rel=duplicate") for url in (FIRST, MIRROR, OTHER, OTHER.upper().lower())]
    them.learn(Headers(links))
    assert [str(mirror) for mirror in them.mirrors] == [MIRROR, OTHER]
    them.go_on()
    them.learn(Headers(links))
    assert [str(mirror) for mirror in them.mirrors] == [OTHER]
    them.learn(Headers([("Server", "x")]))
    assert len(them.mirrors) == 1


DESCRIBED = ("Link", '</f.meta4>; rel=describedby; type="application/metalink4+xml"')


def test_a_description_is_asked_for_once() -> None:
    them = places(header={**SECRET, "Range": "bytes=0-", "If-None-Match": '"a"'})
    assert them.inquiry() is None
    them.brings(Headers([DESCRIBED]))
    assert them.inquiry() == (URL.parse("http://first.example.org/f.meta4"), SECRET)
    assert them.inquiry() is None


def test_that_of_a_redirect_is_asked_for_as_well() -> None:
    them = places()
    lead(them, OTHER, DESCRIBED)
    them.brings(Headers([("Link", f"<{MIRROR}>; rel=duplicate")]))
    assert them.inquiry() == (URL.parse("http://first.example.org/f.meta4"), PUBLIC)


def test_I4_another_origin_does_not_choose_what_the_first_is_asked() -> None:
    """Neither as a mirror nor for a description, even after it was gone back from there."""
    link = ("Link", '<http://first.example.org/x>; rel=describedby; type="application/metalink4+xml"')
    them = places()
    lead(them, OTHER)
    them.brings(Headers([link]))
    them.go_back()
    assert them.inquiry() is None
    lead(them, OTHER)
    lead(them, MIRROR, link)
    them.go_back()
    assert them.inquiry() is None
    lead(them, OTHER)
    them.learn(Headers([("Link", f"<http://first.example.org/x>; rel=duplicate, <{MIRROR}>; rel=duplicate")]))
    assert [str(mirror) for mirror in them.mirrors] == [MIRROR]


def test_nothing_leads_from_https_to_a_description_over_http() -> None:
    url = URL.parse("https://first.example.org/f")
    them = Places(Request("GET", url, None), None, Redirects(), ())
    them.brings(Headers([("Link", '<http://x.example.org/f>; rel=describedby; type="application/metalink4+xml"')]))
    assert them.inquiry() is None


@pytest.mark.parametrize(("total", "taken"), [(5, True), (None, True), (6, False)])
def test_what_a_description_tells_is_taken_if_it_is_of_this_file(total: int | None, taken: bool) -> None:
    them = places(MIRROR)
    document = METALINK % (b"0" * 64, FIRST.encode(), OTHER.encode())
    checksum = them.learn_description(document, total)
    assert (checksum is not None) == taken
    assert [str(mirror) for mirror in them.mirrors] == ([MIRROR, OTHER] if taken else [MIRROR])


def test_a_description_may_have_other_hashes_beside_a_good_one() -> None:
    document = METALINK % (b"0" * 64, FIRST.encode(), OTHER.encode())
    for name, digits in (b"sha-384", 96), (b"md5", 32):
        document = document.replace(b"<hash", b'<hash type="%b">%b</hash><hash' % (name, b"1" * digits), 1)
    assert places().learn_description(document, None) == ("sha256", bytes(32))
    longer = document.replace(b"<hash", b'<hash type="sha-512">%b</hash><hash' % (b"2" * 128), 1)
    assert places().learn_description(longer, None) == ("sha512", b"\x22" * 64)


@pytest.mark.parametrize("document", [b"", b"<metalink/>", METALINK.replace(b"sha-256", b"md5")])
def test_one_that_is_none_or_has_no_good_hash_tells_nothing(document: bytes) -> None:
    them = places()
    if b"%b" in document:
        document = document % (b"0" * 32, FIRST.encode(), OTHER.encode())
    assert them.learn_description(document, None) is None
    assert them.mirrors == []
