"""Credentials: what is sent, and to whom (A6, A8, A9, A13, B4, RFC 7616, 7617, 6750)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from rawdl.errors import InvalidURL
from rawdl.proto.auth import Authority, BasicAuth, BearerAuth, DigestAuth, parse_challenges, userinfo_of
from rawdl.proto.messages import Headers, Request
from rawdl.proto.url import URL
from tests.proto.feeding import hang_guard

HERE, THERE = URL.parse("http://a.example.org/x?y=1"), URL.parse("http://b.example.org/x")
SECRET = "canary"


def authority(own: object, look_up: Callable[[URL, bool], BasicAuth | None] | None = None) -> Authority:
    return Authority(own, HERE.origin, look_up, "0a4f113b")  # type: ignore[arg-type]


def asks(*values: str) -> Headers:
    return Headers([("WWW-Authenticate", value) for value in values])


# The values


@pytest.mark.parametrize(
    ("name", "password", "sent"),
    [
        ("Aladdin", "open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("test", "123£", "dGVzdDoxMjPCow=="),
        ("", "", "Og=="),
    ],
)
def test_basic_as_rfc_7617_has_it(name: str, password: str, sent: str) -> None:
    assert authority(BasicAuth(name, password)).field(HERE) == f"Basic {sent}"


def test_bearer_as_rfc_6750_has_it() -> None:
    assert authority(BearerAuth("mF_9.B5f-4.1JqM")).field(HERE) == "Bearer mF_9.B5f-4.1JqM"


@pytest.mark.parametrize("kind", [BasicAuth, DigestAuth])
@pytest.mark.parametrize("pair", [("a:b", "c"), ("a\n", "c"), ("a", "c\0"), ("a", "\ud800")])
def test_B1_what_cannot_be_sent(kind: type, pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError) as caught:
        kind(*pair)
    assert pair[1] not in str(caught.value) or pair[1] == "c"


@pytest.mark.parametrize("token", ["", "a b", "a\n", "ä", "=", "a=b"])
def test_B1_what_is_no_token(token: str) -> None:
    with pytest.raises(ValueError, match="RFC 6750"):
        BearerAuth(token)


@pytest.mark.parametrize("make", [lambda: BasicAuth(1, "a"), lambda: DigestAuth("a", None), lambda: BearerAuth(b"a")])  # type: ignore[arg-type]
def test_S11_what_is_no_text(make: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        make()


@pytest.mark.parametrize("credentials", [BasicAuth("u", SECRET), DigestAuth("u", SECRET), BearerAuth(SECRET)])
def test_A9_no_repr_shows_a_secret(credentials: object) -> None:
    assert SECRET not in repr(credentials)
    assert SECRET not in repr(Request("GET", HERE, authority(credentials).onto({}, HERE)))


# Of a URL


@pytest.mark.parametrize(
    ("userinfo", "pair"),
    [
        ("u:p", ("u", "p")),
        ("u", ("u", "")),
        ("u:p:q", ("u", "p:q")),
        ("%40%3a:%2F%23%25", None),
        ("u:%40%3A%2F%23%25", ("u", "@:/#%")),
    ],
)
def test_A13_userinfo_is_decoded_once(userinfo: str, pair: tuple[str, str] | None) -> None:
    url = URL.parse(f"http://{userinfo}@a.example.org/")
    if pair is None:
        with pytest.raises(InvalidURL):
            userinfo_of(url)
        return
    found = userinfo_of(url)
    assert found is not None
    assert (found.username, found.password) == pair


@pytest.mark.parametrize("userinfo", ["u:%0a", "u:%ff", "%00:p"])
def test_B1_userinfo_that_cannot_be_sent(userinfo: str) -> None:
    with pytest.raises(InvalidURL, match="user name or password"):
        userinfo_of(URL.parse(f"http://{userinfo}@a.example.org/"))


def test_a_url_without_userinfo() -> None:
    assert userinfo_of(HERE) is None


# To whom


def test_I4_own_credentials_are_for_their_origin_alone() -> None:
    held = authority(BasicAuth("u", "p"))
    assert held.field(HERE) is not None
    assert held.field(THERE) is None
    assert held.field(HERE) is not None, "a mirror in between says nothing of the first"
    for other in ("https://a.example.org/", "http://a.example.org:8080/", "http://x.a.example.org/"):
        assert held.field(URL.parse(other)) is None
    held.leave()
    assert held.field(HERE) is None, "a redirect leads back"


def test_A6_what_is_looked_up_is_that_of_each_host() -> None:
    asked = []

    def look_up(url: URL, is_first: bool) -> BasicAuth:
        asked.append((url.host, is_first))
        return BasicAuth(url.host, "p")

    held = authority(None, look_up)
    fields = [held.field(url) for url in (HERE, THERE, HERE)]
    held.leave()
    fields.append(held.field(HERE))
    assert asked == [
        ("a.example.org", True),
        ("b.example.org", False),
        ("a.example.org", True),
        ("a.example.org", False),
    ]
    names = [base64.b64decode(field.split()[1]).decode().partition(":")[0] for field in fields if field]
    assert names == ["a.example.org", "b.example.org", "a.example.org", "a.example.org"]
    assert authority(BearerAuth("t"), look_up).field(HERE) == "Bearer t"


@pytest.mark.parametrize("header", [{"Authorization": "mine"}, {"AUTHORIZATION": "mine"}, {"authorization": None}])
def test_the_callers_own_header_goes_first(header: dict[str, str | None]) -> None:
    assert authority(BasicAuth("u", "p")).onto(header, HERE) == header


# Digest

RFC = (
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)
MUFASA = DigestAuth("Mufasa", "Circle of Life")
SHA256_RESPONSE = "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
MD5_RESPONSE = "8ca523f5e9506fed4657c9700eebdbec"


@pytest.mark.parametrize(
    ("algorithms", "response"),
    [
        (["SHA-256"], SHA256_RESPONSE),
        (["MD5"], MD5_RESPONSE),
        (["MD5", "SHA-256"], SHA256_RESPONSE),
        (["SHA-256", "MD5"], SHA256_RESPONSE),
    ],
)
@pytest.mark.parametrize("joined", [False, True])
def test_digest_as_rfc_7616_has_it(algorithms: list[str], response: str, joined: bool) -> None:
    url = URL.parse("http://www.example.org/dir/index.html")
    held = Authority(MUFASA, url.origin, None, "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
    assert held.field(url) is None, "nothing is sent before it is asked for"
    values = [RFC.format(algorithm) for algorithm in algorithms]
    assert held.challenged(asks(", ".join(values)) if joined else asks(*values), url)
    field = held.field(url)
    assert field is not None
    assert f'response="{response}"' in field
    assert 'username="Mufasa"' in field and 'uri="/dir/index.html"' in field and "nc=00000001" in field
    assert "nc=00000002" in (held.field(url) or "")


def answered(challenge: str, credentials: DigestAuth = MUFASA) -> dict[str, str]:
    held = authority(credentials)
    assert held.challenged(asks(challenge), HERE)
    [(scheme, fields)] = parse_challenges(held.field(HERE) or "")
    assert scheme == "digest"
    return fields


def md5(*parts: str) -> str:
    return hashlib.md5(":".join(parts).encode()).hexdigest()


def test_digest_without_a_qop_is_that_of_rfc_2069() -> None:
    fields = answered('Digest realm="r", nonce="n"')
    assert not fields.keys() & {"qop", "nc", "cnonce", "algorithm", "opaque"}
    assert fields["response"] == md5(md5("Mufasa", "r", "Circle of Life"), "n", md5("GET", "/x?y=1"))


def test_digest_of_a_session() -> None:
    fields = answered('Digest realm="r", nonce="n", qop=auth, algorithm=MD5-sess')
    secret = md5(md5("Mufasa", "r", "Circle of Life"), "n", "0a4f113b")
    assert fields["response"] == md5(secret, "n", "00000001", "0a4f113b", "auth", md5("GET", "/x?y=1"))


def test_digest_of_names_in_other_letters() -> None:
    """The realm comes as octets, the name as text: both are hashed as UTF-8."""
    realm = "Ä".encode().decode("latin-1")
    fields = answered(f'Digest realm="{realm}", nonce="n"', DigestAuth("Jäger", "pä"))
    assert fields["username*"] == "UTF-8''J%C3%A4ger"
    assert fields["response"] == md5(md5("Jäger", "Ä", "pä"), "n", md5("GET", "/x?y=1"))
    fields = answered('Digest realm="r", nonce="n", userhash=true', DigestAuth("Jäger", "p"))
    assert (fields["username"], fields["userhash"]) == (md5("Jäger", "r"), "true")


def test_digest_quotes_what_needs_it() -> None:
    fields = answered(r'Digest realm="a\"b\\c", nonce="n"', DigestAuth('u"\\', "p"))
    assert (fields["realm"], fields["username"]) == ('a"b\\c', 'u"\\')


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Basic realm=x",
        "Digest",
        'Digest realm="r"',
        'Digest nonce="n"',
        'Digest realm="r", nonce="n", qop="auth-int"',
        'Digest realm="r", nonce="n", algorithm=SHA-512-256',
    ],
)
def test_a_challenge_that_cannot_be_met(challenge: str) -> None:
    assert not authority(MUFASA).challenged(asks(challenge), HERE)


def test_a_wrong_password_is_not_tried_again_and_a_stale_nonce_is() -> None:
    held = authority(MUFASA)
    assert held.challenged(asks('Digest realm="r", nonce="n"'), HERE)
    assert not held.challenged(asks('Digest realm="r", nonce="m"'), HERE)
    assert held.challenged(asks('Digest realm="r", nonce="m", stale=TRUE'), HERE)
    assert held.challenged(asks('Digest realm="r", nonce="o", stale=true'), HERE)
    assert not held.challenged(asks('Digest realm="r", nonce="p", stale=true'), HERE), "not for ever"
    held.accepted()
    assert held.challenged(asks('Digest realm="r", nonce="p", stale=true'), HERE)


def test_A8_a_digest_is_bound_to_its_origin() -> None:
    held = authority(MUFASA)
    assert not held.challenged(asks('Digest realm="r", nonce="n"'), THERE)
    assert held.challenged(asks('Digest realm="r", nonce="n"'), HERE)
    assert held.field(THERE) is None
    held.leave()
    assert held.field(HERE) is None


@pytest.mark.parametrize("own", [BasicAuth("u", "p"), BearerAuth("t"), None])
def test_only_a_digest_waits_to_be_asked(own: object) -> None:
    assert not authority(own).challenged(asks('Digest realm="r", nonce="n"'), HERE)


# The grammar


@pytest.mark.parametrize(
    ("value", "challenges"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="a, b"', [("basic", {"realm": "a, b"})]),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("NTLM TlRMTVNTUAAB==, Basic realm=x", [("ntlm", {}), ("basic", {"realm": "x"})]),
        (
            ', ,Newauth realm="apps", type=1, title="L \\"app\\"", Basic realm="s"',
            [("newauth", {"realm": "apps", "type": "1", "title": 'L "app"'}), ("basic", {"realm": "s"})],
        ),
        ("Digest a = 1 ,b= 2", [("digest", {"a": "1", "b": "2"})]),
        ("Digest a=1, a=2", [("digest", {"a": "1"})]),
        ('Digest a="1', [("digest", {})]),
        ("Digest a=1 b=2", [("digest", {})]),
        ("=", []),
    ],
)
def test_challenges_as_rfc_9110_has_them(value: str, challenges: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(value) == challenges


@given(st.text(alphabet='ab=", \\\t', max_size=60) | st.text(max_size=40))
def test_any_text_is_read_without_an_error(value: str) -> None:
    for scheme, parameters in parse_challenges(value):
        assert scheme == scheme.lower()
        assert all(name == name.lower() for name in parameters)


@pytest.mark.parametrize(
    ("head", "run", "schemes"),
    [
        ("", "a ", 131071),
        ("", "a b=c, ", 37449),
        ("", ",", 0),
        ("Digest ", "a=", 1),
        ("Digest ", "A", 1),
        ("Digest ", "=", 0),
        ("Digest ", "a=b,", 1),
        ("Digest a=b", ", ", 1),
        ("Digest a", " ", 1),
        ("Digest a=", " \t", 1),
        ('Digest a="', "x", 1),
        ('Digest a="', "\\", 1),
        ('Digest a="', '\\"', 1),
    ],
)
def test_B4_hostile_challenges_are_read_in_one_go(head: str, run: str, schemes: int) -> None:
    with hang_guard():
        found = parse_challenges(head + run * (2**18 // len(run)))
    assert len(found) == schemes
