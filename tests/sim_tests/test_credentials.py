"""Credentials on the wire: who gets to see which, whatever a redirect says (I4, A1, A6, A8, A9, A13)."""

from __future__ import annotations

import base64
import hashlib
import logging
import ssl
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rawdl
from tests.once import ONE_TRY
from tests.origin import Request
from tests.resource import Fault, Resource, redirect
from tests.sim import Link, Script, World
from tests.sim_tests.journeys import AT_ONCE, A, B, fields, journey, serve
from tests.sim_tests.peers import OK

BODY = bytes(range(256)) * 100
SECRET = "canary"
PAIR = ("user", SECRET)
BASIC = "Basic " + base64.b64encode(f"user:{SECRET}".encode()).decode()
SLOW = Link(segment=1000, bandwidth=20_000.0)
NETRC = f"machine {A} login user password {SECRET}\n"


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.fixture
def netrc(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "netrc"
        path.write_text(text)
        return str(path)

    return write


def get(world: World, url: str, client: dict[str, Any], **options: Any) -> None:
    with world.client(**client) as made:
        made.download_file(url=url, sink=rawdl.DiscardSink(), **options).result()


def shown(world: World) -> list[str | None]:
    return [request.field("Authorization") for request in world.requests]


# Who gets them

Given = tuple[str, dict[str, Any], dict[str, Any]]
GIVEN: dict[str, Given] = {
    "the task": (f"http://{A}/a", {}, {"auth": PAIR}),
    "the client": (f"http://{A}/a", {"auth": rawdl.BasicAuth(*PAIR)}, {}),
    "the url": (f"http://user:{SECRET}@{A}/a", {}, {}),
    "a header": (f"http://{A}/a", {}, {"header": {"authorization": BASIC}}),
    "a file": (f"http://{A}/a", {"netrc": NETRC}, {}),
}


@pytest.fixture(params=GIVEN)
def given(request: pytest.FixtureRequest, netrc: Callable[[str], str]) -> Given:
    url, client, options = GIVEN[request.param]
    return url, {name: netrc(value) if name == "netrc" else value for name, value in client.items()}, options


ELSEWHERE = {"another host": f"http://{B}/b", "another port": f"http://{A}:8080/b", "a host below": f"http://x.{A}/b"}


@pytest.mark.parametrize("there", ELSEWHERE)
def test_A1_I4_another_origin_gets_none(world: World, given: Given, there: str):
    url, client, options = given
    serve(world, A, redirect(ELSEWHERE[there]))
    for host, port in ((B, 80), (A, 8080), (f"x.{A}", 80)):
        serve(world, host, OK, port=port)
    journey(world, url, client, **options)
    if there == "another port" and "netrc" in client:
        assert shown(world) == [BASIC, BASIC], "a netrc names hosts"
    else:
        assert shown(world) == [BASIC, None]


def test_A1_within_the_origin_they_go_along(world: World, given: Given):
    url, client, options = given
    serve(world, A, {"/a": redirect("/b"), "/b": OK})
    journey(world, url, client, **options)
    assert shown(world) == [BASIC, BASIC]


def test_A3_who_leads_back_is_not_trusted_with_them(world: World, given: Given):
    """But netrc is the user's own word about the host, whoever leads there."""
    url, client, options = given
    serve(world, A, {"/a": redirect(f"http://{B}/b"), "/c": OK})
    serve(world, B, redirect(f"http://{A}/c"))
    journey(world, url, client, **options)
    assert shown(world) == [BASIC, None, BASIC if "netrc" in client else None]


def test_A2_a_downgrade_loses_them(world: World, given: Given, server_context: ssl.SSLContext, trusting: rawdl.TLS):
    url, client, options = given
    serve(world, A, redirect(f"http://{A}/b"), port=443, tls=server_context)
    serve(world, A, OK)
    client = {**client, "tls": trusting, "redirects": rawdl.Redirects(allow_downgrade=True)}
    if "netrc" in client:
        pytest.skip("a netrc names hosts, without a scheme")
    journey(world, url.replace("http:", "https:"), client, **options)
    assert shown(world) == [BASIC, None]


def test_I4_a_mirror_gets_none(world: World, given: Given):
    url, client, options = given
    serve(world, A, Script(status=404, reason="Not Found"))
    serve(world, B, OK)
    journey(world, url, client, mirrors=[f"http://{B}/b"], **options)
    assert shown(world) == [BASIC, None]


def test_I4_each_segment_is_asked_for_with_them_at_the_first_alone(world: World, given: Given, tmp_path: Path):
    url, client, options = given
    for host in (A, B):
        serve(world, host, Resource(BODY), link=SLOW)
    options = {**options, "mirrors": [f"http://{B}/a"], "connections": 4, "min_segment": 1000}
    journey(world, url, client, file_path=tmp_path / "a", **options)
    assert (tmp_path / "a").read_bytes() == BODY
    assert {(request.field("Host"), request.field("Authorization")) for request in world.requests} == {
        (A, BASIC),
        (B, None),
    }


def test_they_are_shown_at_each_try(world: World, given: Given, tmp_path: Path):
    url, client, options = given
    serve(world, A, Resource(BODY, faults=[Fault(in_body=10_000)]))
    journey(world, url, {**client, "retry": AT_ONCE}, file_path=tmp_path / "a", **options)
    assert shown(world) == [BASIC, BASIC]


# Which of them


def test_what_is_said_nearer_goes_first(world: World, netrc: Callable[[str], str]):
    serve(world, A, OK)
    client = {"netrc": netrc(f"machine {A} login n password n"), "auth": ("c", "c")}
    url = f"http://u:u@{A}/a"
    for options, name in (
        ({"header": {"Authorization": "h"}, "auth": ("t", "t")}, "h"),
        ({"auth": ("t", "t")}, "t:t"),
        ({}, "c:c"),
    ):
        get(world, url, client, **options)  # type: ignore[arg-type]
        field = shown(world)[-1] or ""
        assert (base64.b64decode(field[6:]).decode() if " " in field else field) == name
    del client["auth"]
    get(world, url, client)
    assert shown(world)[-1] == "Basic dTp1"
    get(world, f"http://{A}/a", client, header={"Authorization": None})
    assert shown(world)[-1] is None


@pytest.mark.parametrize(
    ("text", "url", "pair"),
    [
        (f"machine {A.upper()} login u password p", f"http://{A}/", "u:p"),
        (f"machine {B} login u password p", f"http://{A}/", None),
        ("default login u password p", f"http://{A}/", "u:p"),
        (f"machine {A} login u", f"http://{A}/", None),
        (f"machine {A} password p", f"http://{A}/", ":p"),
        (f"machine {A} login u password p", f"http://u@{A}/", "u:p"),
        (f"machine {A} login u password p", f"http://other@{A}/", "other:"),
        (f"machine {A} login u password p", f"http://other:own@{A}/", "other:own"),
        (f"machine {B} login u password p", f"http://{B}:@{A}/", f"{B}:"),
        (f"machine {A} login u password p", f"http://{B}:80%40{A}@{A}/", f"{B}:80@{A}"),
    ],
)
def test_A6_what_a_netrc_says_of_a_url(
    world: World, netrc: Callable[[str], str], text: str, url: str, pair: str | None
):
    serve(world, A, OK)
    journey(world, url, {"netrc": netrc(text)})
    [field] = shown(world)
    assert (field and base64.b64decode(field[6:]).decode()) == pair


def test_A6_what_is_for_any_host_is_not_for_where_it_leads(world: World, netrc: Callable[[str], str]):
    serve(world, A, redirect(f"http://{B}/b"))
    serve(world, B, redirect(f"http://{A}:8080/c"))
    serve(world, A, redirect("http://default/d"), port=8080)
    serve(world, "default", OK)
    text = f"default login d password d\nmachine {B} login b password b\n"
    journey(world, f"http://{A}/a", {"netrc": netrc(text)})
    assert shown(world) == ["Basic ZDpk", "Basic Yjpi", None, None]


@pytest.mark.parametrize(
    "text", [f"machine {A} login u password {SECRET} nonsense {SECRET}", f"{SECRET}", "machine\xff"]
)
def test_A9_what_is_no_netrc_file_is_told_without_its_secrets(world: World, tmp_path: Path, text: str):
    path = tmp_path / "netrc"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="netrc") as caught:
        rawdl.Client(netrc=path)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_netrc_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World):
    with pytest.raises(FileNotFoundError):
        rawdl.Client(netrc=tmp_path / "none")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    serve(world, A, OK)
    get(world, f"http://{A}/a", {"netrc": True})
    (tmp_path / ".netrc").write_text(NETRC)
    for client in ({"netrc": True}, {}):
        get(world, f"http://{A}/a", client)
    assert shown(world) == [None, BASIC, None]


@pytest.mark.parametrize("wrong", ["user:pw", ("a",), ("a", 1), 5, ["a", "b"]])
def test_S11_what_is_no_auth(world: World, wrong: Any):
    with pytest.raises(TypeError):
        rawdl.Client(auth=wrong)
    with pytest.raises(TypeError):
        world.client().download_file(url=f"http://{A}/", auth=wrong)


def test_B1_a_url_whose_password_cannot_be_sent(world: World):
    taken = journey(world, f"http://u:%0d%0a{SECRET}@{A}/")
    assert isinstance(taken.error, rawdl.InvalidURL)
    assert SECRET not in str(taken.error)


# Digest


class Guard:
    """Ask for a digest, and let in who gives the right one, each count once (RFC 7616)."""

    def __init__(self, answer: Any, *, stale_after: int = 100, name: str = "MD5") -> None:
        self.answer, self.stale_after, self.name = answer, stale_after, name
        self.nonce, self.seen = 0, set[str]()
        self.refused = 0

    def __call__(self, request: Request) -> Script:
        given = dict(_pairs(request.field("Authorization") or ""))
        count, nonce = given.get("nc", ""), f"n{self.nonce}"
        stale = len(self.seen) >= self.stale_after
        if given.get("nonce") == nonce and not stale and count not in self.seen and self._is_right(given, request):
            self.seen.add(count)
            return self.answer if isinstance(self.answer, Script) else self.answer(request)
        self.refused += 1
        if stale:
            self.nonce, self.seen = self.nonce + 1, set()
        says = f'Digest realm="r", nonce="n{self.nonce}", qop="auth", algorithm={self.name}'
        says += ", stale=true" if stale or given.get("nonce", nonce) != nonce else ""
        return Script(status=401, reason="Unauthorized", body=b"who?", header=(("WWW-Authenticate", says),))

    def _is_right(self, given: dict[str, str], request: Request) -> bool:
        name = {"MD5": "md5", "SHA-256": "sha256"}[self.name]

        def hashed(*parts: str) -> str:
            return hashlib.new(name, ":".join(parts).encode()).hexdigest()

        what = hashed("GET", request.target)
        middle = (given["nonce"], given["nc"], given["cnonce"], "auth")
        return given["uri"] == request.target and given["response"] == hashed(
            hashed("user", "r", SECRET), *middle, what
        )


def _pairs(field: str) -> Iterator[tuple[str, str]]:
    for part in field.removeprefix("Digest ").split(", "):
        name, _, value = part.partition("=")
        yield name, value.strip('"')


DIGEST = rawdl.DigestAuth(*PAIR)


@pytest.mark.parametrize("name", ["MD5", "SHA-256"])
def test_digest_is_asked_for_and_given(world: World, name: str):
    guard = Guard(OK, name=name)
    serve(world, A, guard)
    taken = journey(world, auth=DIGEST)
    assert (taken.result.status_code, taken.body, taken.result.redirects, taken.result.attempts) == (
        200,
        OK.body,
        (),
        (),
    )
    assert taken.names.count("headers") == 1
    assert taken.result.profile.redirect_start == 0
    assert len(world.conns) == 1, "on the same connection"
    assert SECRET not in str([fields(request) for request in world.requests])


def test_a_wrong_password_is_the_servers_answer(world: World):
    serve(world, A, Guard(OK))
    taken = journey(world, auth=rawdl.DigestAuth("user", "wrong"))
    assert (taken.result.status_code, taken.body) == (401, b"who?")
    assert len(world.requests) == 2


def test_digest_counts_through_tries_and_stale_nonces(world: World, tmp_path: Path):
    """However often: a download may go on for longer than any nonce."""
    guard = Guard(Resource(BODY, faults=[Fault(in_body=5000)] * 12), stale_after=1)
    serve(world, A, guard)
    journey(world, client={"retry": AT_ONCE}, file_path=tmp_path / "a", auth=DIGEST)
    assert (tmp_path / "a").read_bytes() == BODY
    assert guard.refused > 10


def test_digest_for_each_segment(world: World, tmp_path: Path):
    serve(world, A, Guard(Resource(BODY)), link=SLOW)
    taken = journey(world, file_path=tmp_path / "a", auth=DIGEST, connections=3, min_segment=1000)
    assert (tmp_path / "a").read_bytes() == BODY
    assert len(world.requests) > 3
    assert taken.result.attempts == ()


@pytest.mark.parametrize("stale_after", [2, 3, 4, 5])
def test_digest_for_each_segment_with_stale_nonces(stale_after: int, world: World, tmp_path: Path):
    """Whoever is refused is followed by somebody with the new nonce, and not only so many times."""
    guard = Guard(Resource(BODY, ranges="few"), stale_after=stale_after)
    serve(world, A, guard, link=SLOW)
    taken = journey(world, file_path=tmp_path / "a", auth=DIGEST, connections=3, min_segment=1000)
    assert taken.result.attempts == ()
    assert (tmp_path / "a").read_bytes() == BODY
    assert guard.refused > 3


def test_A8_digest_does_not_follow_to_another_origin(world: World):
    here, there = Guard(redirect(f"http://{B}/b")), Guard(OK)
    serve(world, A, here)
    serve(world, B, there)
    assert journey(world, auth=DIGEST).result.status_code == 401
    assert (here.refused, there.refused) == (1, 1)
    assert shown(world)[2] is None


# Nothing tells them


@pytest.mark.parametrize("fault", [None, Fault(in_body=10_000)])
def test_A9_nothing_tells_a_secret(
    world: World, given: Given, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: Fault | None
):
    """Neither what is printed, nor what is logged, nor what is on the disk."""
    url, client, options = given
    serve(world, A, Resource(BODY, faults=[fault]))
    told: list[object] = []
    with caplog.at_level(logging.DEBUG):
        made = world.client(**client, retry=ONE_TRY)
        task = made.download_file(url=url, file_path=tmp_path / "a", complete=told.append, **options)
        task.on_headers_received(lambda event: told.extend((event, event.to_dict(), repr(task), repr(made))))
        task.on_progress_update(lambda update: told.extend(path.read_bytes() for path in tmp_path.glob("*.json")))
        error = task.exception()
        told += [repr(task), repr(made), *(vars(made) if hasattr(made, "__dict__") else ())]
    if error is not None:
        told += [*traceback.format_exception(error), error.to_dict(), str(error), repr(error), error.attempts]
    else:
        told += [task.result(), task.result().to_dict()]
    told += [path.read_bytes() for path in tmp_path.glob("a*")]
    text = f"{told} {caplog.text}"
    assert SECRET not in text
    assert BASIC.split()[1] not in text
    for path in tmp_path.glob("a.part*"):
        path.unlink()
