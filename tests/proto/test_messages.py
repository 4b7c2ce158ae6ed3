"""Requests, header fields and limits, as values (S11, S12, S21, T7, RFC 9110 5)."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import re
from collections import UserDict

import pytest

from rawdl.proto import Exchange, Headers, Limits, Request
from rawdl.proto.messages import DEFAULT_FIELDS, USER_AGENT, checked_fields
from rawdl.proto.url import URL
from rawdl.version import __version__

URL_A = URL.parse("http://example.org:8080/a?b")
FIELDS = [
    ("Content-Type", "text/plain; a: b"),
    ("set-cookie", "a=1; Expires=Thu, 01 Jan 2026"),
    ("X-List", "1"),
    ("x-list", "2, 3"),
    ("Set-Cookie", "b=2"),
    ("X-LIST", ""),
    ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
]
WIRE = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in FIELDS]
MAKERS = [lambda: Headers(FIELDS), lambda: Headers(iter(FIELDS)), lambda: Headers.from_wire(WIRE)]
each_way = pytest.mark.parametrize("make", MAKERS, ids=["pairs", "iterator", "wire"])


# Headers


@each_way
def test_T7_S21_lookup_ignores_case(make) -> None:
    headers = make()
    for name in ("content-type", "Content-Type", "CONTENT-TYPE"):
        assert headers[name] == "text/plain; a: b" and name in headers
        assert headers.get(name) == "text/plain; a: b"
    assert "X-Other" not in headers and headers.get("X-Other") is None and 5 not in headers
    with pytest.raises(KeyError):
        headers["x-other"]


@each_way
def test_T7_S21_repeated_lines_are_joined_but_for_set_cookie(make) -> None:
    headers = make()
    assert headers["x-list"] == "1, 2, 3, "
    assert headers.get_all("X-List") == ["1", "2, 3", ""]
    assert headers["Set-Cookie"] == "a=1; Expires=Thu, 01 Jan 2026"
    assert headers.get_all("set-cookie") == ["a=1; Expires=Thu, 01 Jan 2026", "b=2"]
    assert headers.get_all("nothing") == []


@each_way
def test_S21_iteration_is_over_unique_names_in_order(make) -> None:
    headers = make()
    assert list(headers) == ["Content-Type", "set-cookie", "X-List", "Date"] and len(headers) == 4
    assert headers.fields == tuple(FIELDS) and headers.fields is headers.fields
    assert dict(headers.items())["X-List"] == "1, 2, 3, "


@each_way
def test_S21_headers_as_a_dict_are_json(make) -> None:
    expected = {
        "Content-Type": "text/plain; a: b",
        "set-cookie": ["a=1; Expires=Thu, 01 Jan 2026", "b=2"],
        "X-List": "1, 2, 3, ",
        "Date": "Sun, 06 Nov 1994 08:49:37 GMT",
    }
    assert json.loads(json.dumps(make().to_dict())) == expected


@each_way
def test_headers_can_be_copied_compared_and_pickled(make) -> None:
    headers = make()
    for other in (copy.copy(headers), copy.deepcopy(headers), pickle.loads(pickle.dumps(headers)), Headers(FIELDS)):
        assert other == headers and other.fields == headers.fields
    assert headers != Headers(FIELDS[:-1])


@each_way
def test_the_list_that_is_handed_out_is_a_copy(make) -> None:
    headers = make()
    headers.get_all("x-list").append("9")
    assert headers.get_all("x-list") == ["1", "2, 3", ""]


def test_headers_show_what_they_hold() -> None:
    assert (
        repr(Headers(FIELDS[2:4]))
        == repr(Headers.from_wire(WIRE[2:4]))
        == "Headers([('X-List', '1'), ('x-list', '2, 3')])"
    )
    assert repr(Headers()) == "Headers([])" and len(Headers()) == 0 and not Headers() and Headers().to_dict() == {}


def test_every_octet_of_a_value_survives() -> None:
    value = bytes(range(256))
    assert Headers.from_wire([(b"X", value)])["x"].encode("latin-1") == value


# Requests


def test_a_request_has_the_fields_that_every_download_needs() -> None:
    request = Request("GET", URL_A)
    assert f"rawdl/{__version__}" == USER_AGENT
    assert request.fields == (
        ("Host", "example.org:8080"),
        ("User-Agent", USER_AGENT),
        ("Accept", "*/*"),
        ("Accept-Encoding", "identity"),
    )
    assert request.fields[1:] == DEFAULT_FIELDS and not request.closes
    assert Request("GET", URL_A, {}).fields == Request("GET", URL_A, None).fields == request.fields
    assert repr(request) == f"<Request GET {URL_A!r}>"


@pytest.mark.parametrize("header", [{"X-A": "1", "x-b": "2"}, UserDict({"X-A": "1", "x-b": "2"})])
def test_given_fields_come_behind_the_default_ones(header) -> None:
    fields = Request("GET", URL_A, header).fields
    assert fields == (("Host", "example.org:8080"), *DEFAULT_FIELDS, ("X-A", "1"), ("x-b", "2"))


def test_a_given_field_replaces_the_default_one() -> None:
    fields = Request("GET", URL_A, {"user-agent": "mine", "X-A": "1", "ACCEPT": "text/html"}).fields
    assert [name for name, _ in fields] == ["Host", "Accept-Encoding", "user-agent", "X-A", "ACCEPT"]
    assert ("user-agent", "mine") in fields and ("ACCEPT", "text/html") in fields


def test_S12_none_drops_a_default_field() -> None:
    fields = Request("GET", URL_A, {"User-Agent": None, "accept": None, "X-Unknown": None, "Y": "1"}).fields
    assert fields == (("Host", "example.org:8080"), ("Accept-Encoding", "identity"), ("Y", "1"))


@pytest.mark.parametrize("name", ["Host", "host", "HOST"])
def test_a_given_host_comes_first_too(name: str) -> None:
    fields = Request("GET", URL_A, {"X-A": "1", name: "other.example", "Accept": None}).fields
    assert fields[0] == (name, "other.example") and ("X-A", "1") in fields
    assert [n.lower() for n, _ in fields].count("host") == 1


@pytest.mark.parametrize(
    ("header", "closes"),
    [
        ({"Connection": "close"}, True),
        ({"connection": "TE, Close"}, True),
        ({"Connection": "keep-alive"}, False),
        ({"Connection": None}, False),
        ({"X-Connection": "close"}, False),
    ],
)
def test_whether_a_request_closes(header: dict[str, str | None], closes: bool) -> None:
    assert Request("GET", URL_A, header).closes is closes


def test_white_space_around_a_value_is_not_sent() -> None:
    assert Request("GET", URL_A, {"X": " \ta b\t "}).fields[-1] == ("X", "a b")
    assert Request("GET", URL_A, {"X": " "}).fields[-1] == ("X", "")


@pytest.mark.parametrize("code", [*range(0x20), 0x7F, 0x100, 0x20AC, 0xDCFF])
def test_S12_B1_a_character_that_cannot_be_sent(code: int) -> None:
    bad = chr(code)
    if code != 9:
        with pytest.raises(ValueError, match="cannot be sent"):
            Request("GET", URL_A, {"X": f"a{bad}b"})
    for name in (f"X{bad}", bad, f"{bad}X", f"X{bad}Y"):
        with pytest.raises(ValueError, match="no header field name"):
            Request("GET", URL_A, {name: "a"})
    for method in (bad, f"GET{bad}", f"GET {bad}"):
        with pytest.raises(ValueError, match="no method"):
            Request(method, URL_A)


@pytest.mark.parametrize("code", [9, *range(0x20, 0x7F), *range(0x80, 0x100)])
def test_S12_every_other_character_is_sent_as_it_is(code: int) -> None:
    request = Request("GET", URL_A, {"X": f"a{chr(code)}b"})
    assert request.fields[-1] == ("X", f"a{chr(code)}b")
    assert b"\r\nX: a" + bytes([code]) + b"b\r\n" in Exchange(request).data_to_send()


@pytest.mark.parametrize(
    "name", ["", "a b", "a:", "a/b", "(a)", '"a"', "a\u00e9", "a,b", "a;b", "a=b", "[a]", "a@b", "{a}", "a\\"]
)
def test_S12_a_name_is_a_token(name: str) -> None:
    with pytest.raises(ValueError, match="no header field name"):
        Request("GET", URL_A, {name: "a"})
    if name:
        with pytest.raises(ValueError, match="no method"):
            Request(name, URL_A)


@pytest.mark.parametrize("name", ["Content-Length", "content-length", "Transfer-Encoding", "TRANSFER-ENCODING"])
@pytest.mark.parametrize("value", ["0", "chunked", None])
def test_S12_a_caller_does_not_frame_the_message(name: str, value: str | None) -> None:
    with pytest.raises(ValueError, match="frames the message"):
        Request("GET", URL_A, {name: value})


def test_S12_host_cannot_be_dropped() -> None:
    with pytest.raises(ValueError, match="Host"):
        Request("GET", URL_A, {"host": None})


@pytest.mark.parametrize(
    "header", [{"Host": "a", "host": "b"}, {"X-A": "1", "x-a": None}, {"Accept": "a", "ACCEPT": "a"}]
)
def test_S11_a_name_given_twice(header: dict[str, str | None]) -> None:
    with pytest.raises(ValueError, match="given twice"):
        Request("GET", URL_A, header)


@pytest.mark.parametrize("header", [{"X": 1}, {"X": b"1"}, {"X": ["1"]}, {1: "x"}, {None: "x"}, {b"X": "1"}])
def test_S11_a_field_of_a_wrong_type(header) -> None:
    with pytest.raises(TypeError, match="header field"):
        Request("GET", URL_A, header)


@pytest.mark.parametrize("header", ["", "X: 1", [], [("X", "1")], 0, {"X"}])
def test_S11_a_header_that_is_no_mapping(header) -> None:
    with pytest.raises(TypeError, match="mapping"):
        checked_fields(header)


# Limits


def test_the_default_limits() -> None:
    assert dataclasses.asdict(Limits()) == {
        "head": 65536,
        "fields": 256,
        "line": 16384,
        "informational": 20,
        "trailer": 16384,
        "chunk_line": 4096,
        "chunk_extensions": 65536,
        "body": None,
        "decoded": None,
        "ratio": None,
    }


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
def test_S11_what_is_no_limit(name: str) -> None:
    assert getattr(Limits(**{name: 0}), name) == 0
    assert getattr(Limits(**{name: 1 << 70}), name) == 1 << 70
    with pytest.raises(ValueError, match=f"limits.{name} cannot be negative"):
        Limits(**{name: -1})
    for wrong in (1.0, "1", True, False, float("nan"), [1]):
        with pytest.raises(TypeError, match=f"limits.{name} is a whole number"):
            Limits(**{name: wrong})
    if name not in ("body", "decoded", "ratio"):
        with pytest.raises(TypeError, match=f"limits.{name}"):
            Limits(**{name: None})


def test_limits_are_values() -> None:
    limits = Limits(body=5)
    assert limits == Limits(body=5) != Limits() and hash(limits) == hash(Limits(body=5))
    assert repr(limits).startswith("Limits(head=65536, ") and "body=5" in repr(limits)
    assert pickle.loads(pickle.dumps(limits)) == limits and dataclasses.replace(limits, body=None) == Limits()
    with pytest.raises(AttributeError):
        limits.body = 6
    with pytest.raises(TypeError):
        Limits(1)


@pytest.mark.parametrize("headers", [Headers([("X-Repr-DIGEST", "1")]), Headers.from_wire([(b"X-Repr-DIGEST", b"1")])])
def test_a_look_at_the_names_decodes_nothing(headers: Headers) -> None:
    assert headers.mentions(re.compile(b"trailer|digest"))
    assert not headers.mentions(re.compile(b"trailer"))
    assert not Headers().mentions(re.compile(b""))
