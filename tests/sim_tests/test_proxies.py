"""Proxies on the virtual clock: what each gets to see and may answer, and when it is chosen (A4, A5, B7, P1-P4)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rawdl
from rawdl.proto.timeouts import Phase
from tests.once import ONE_TRY
from tests.resource import redirect
from tests.sim import Script, World
from tests.sim_tests.journeys import AT_ONCE, A, B, fields, journey, serve
from tests.sim_tests.peers import OK

PROXY, OTHER = "proxy.example.org", "other.example.org"
SECRET = "canary"
BASIC = "Basic " + base64.b64encode(f"user:{SECRET}".encode()).decode()
PLAIN, LOCKED = f"http://{PROXY}:3128", f"http://user:{SECRET}@{PROXY}:3128"


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def proxy(world: World, answer: Any = OK, host: str = PROXY) -> None:
    """Answer every request, whatever its target, in the place of the origin."""
    serve(world, host, answer, port=3128)


def lines(world: World) -> list[str]:
    return [request.head.decode("latin-1").split("\r\n")[0] for request in world.requests]


# Plain http: the proxy is asked itself


def test_an_http_url_is_asked_for_as_a_whole(world: World):
    proxy(world)
    taken = journey(world, f"http://u:p@{A}:8080/a?b#c", {"proxy": PLAIN})
    assert lines(world) == [f"GET http://{A}:8080/a?b HTTP/1.1"]
    [request] = world.requests
    assert fields(request)["host"] == f"{A}:8080"
    assert taken.body == OK.body
    assert taken.result.url == f"http://***@{A}:8080/a?b#c"


def test_A4_the_proxy_alone_is_shown_its_password(world: World, monkeypatch: pytest.MonkeyPatch):
    """Not the host to which a redirect leads around it."""
    monkeypatch.setenv("http_proxy", LOCKED)
    monkeypatch.setenv("no_proxy", B)
    proxy(world, redirect(f"http://{B}/b"))
    serve(world, B, OK)
    assert journey(world, f"http://{A}/a", {"proxy": "env"}).body == OK.body
    assert lines(world) == [f"GET http://{A}/a HTTP/1.1", "GET /b HTTP/1.1"]
    by_proxy, direct = map(fields, world.requests)
    assert (by_proxy["host"], by_proxy["proxy-authorization"]) == (A, BASIC)
    assert direct.keys() == by_proxy.keys() - {"proxy-authorization"}
    assert direct["host"] == B


@pytest.mark.parametrize("url", [f"http://{A}/a", f"https://{A}/a"])
def test_A4_the_callers_header_cannot_have_it(world: World, url: str):
    with world.client() as client, pytest.raises(ValueError, match="for the proxy alone"):
        client.download_file(url=url, header={"proxy-authorization": BASIC})


def test_P1_a_407_is_the_proxys(world: World):
    proxy(world, Script(status=407, reason="Who", body=b"<html>"))
    taken = journey(world, f"http://{A}/a", {"proxy": PLAIN})
    assert isinstance(taken.error, rawdl.ProxyError)
    assert (taken.error.status_code, len(world.requests), taken.names.count("headers")) == (407, 1, 0)
    assert str(taken.error) == f"the proxy {PLAIN} answered 407: it wants a user name and password"


def test_a_407_of_an_origin_is_a_status_like_another(world: World):
    serve(world, A, Script(status=407, reason="Odd", body=b"x"))
    assert journey(world).result.status_code == 407


def test_P3_what_is_cut_off_behind_a_proxy_is_not_whole(world: World):
    proxy(world, Script(body=b"x" * 1000, cut_at=500))
    taken = journey(world, f"http://{A}/a", {"proxy": PLAIN, "retry": ONE_TRY})
    assert isinstance(taken.error, rawdl.IncompleteBody | rawdl.IncompleteHead)


def test_an_https_proxy_that_cannot_be_verified_for_want_of_a_file(world: World, tmp_path: Path):
    proxy(world)
    settings = {"proxy": f"https://{PROXY}:3128", "tls": rawdl.TLS(ca_file=tmp_path / "none.pem")}
    taken = journey(world, f"http://{A}/a", settings)
    assert isinstance(taken.error, rawdl.TLSError)
    assert "No such file" in str(taken.error)
    assert world.requests == []


# https: it is asked for a tunnel

CONNECT = f"https://{A}/a"


@pytest.mark.parametrize("status", [302, 403, 405, 407, 502])
def test_P1_no_answer_but_2xx_is_followed_or_kept(world: World, status: int):
    header = (("Location", f"http://{B}/evil"),) if status == 302 else ()
    proxy(world, Script(status=status, reason="No", body=b"<html>" * 100, header=header))
    taken = journey(world, CONNECT, {"proxy": PLAIN, "retry": ONE_TRY}, header={"Authorization": "t", "Cookie": "c=1"})
    assert isinstance(taken.error, rawdl.ProxyError)
    assert taken.error.status_code == status
    assert str(taken.error).startswith(f"the proxy {PLAIN} answered {status}")
    assert lines(world) == [f"CONNECT {A}:443 HTTP/1.1"]
    assert fields(world.requests[0]).keys() == {"host", "user-agent"}, "nothing of what the origin is to see"
    assert taken.memory.getvalue() == b""
    assert not world.sockets


@pytest.mark.parametrize(
    "script",
    [
        Script(raw=b"HTTP/1.1 200 OK\r\n\r\nsurplus"),
        Script(raw=b"nonsense\r\n\r\n"),
        Script(raw=b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n"),
        Script(raw=b"HTTP/1.1 200 OK\r\n\r\n", cut_at=17),
        Script(raw=b"HTTP/1.1 200 OK\r\n\r\n", cut_at=0),
    ],
    ids=["surplus", "garbage", "NUL", "cut", "closed"],
)
def test_F3_C12_P4_an_answer_that_opens_no_tunnel(world: World, script: Script):
    proxy(world, script)
    taken = journey(world, CONNECT, {"proxy": LOCKED, "retry": ONE_TRY})
    assert isinstance(taken.error, rawdl.ProxyError)
    assert f"the proxy http://***@{PROXY}:3128" in str(taken.error)
    assert SECRET not in f"{taken.error} {taken.error.to_dict()}"
    assert fields(world.requests[0])["proxy-authorization"] == BASIC
    assert not world.sockets


def test_T36_a_proxy_that_does_not_answer(world: World):
    proxy(world, Script(stall_at=0, body=b"x"))
    taken = journey(world, CONNECT, {"proxy": PLAIN, "retry": ONE_TRY})
    assert isinstance(taken.error, rawdl.Timeout)
    assert taken.error.phase == Phase.PROXY
    assert "proxy time limit of 10 s" in str(taken.error)
    assert world.elapsed == pytest.approx(10, abs=0.5)
    assert not world.sockets


@pytest.mark.parametrize("how", ["abort", "close"])
def test_T30_S34_abort_while_the_proxy_is_asked(world: World, how: str):
    proxy(world, Script(stall_at=0, body=b"x"))
    client = world.client(proxy=PLAIN)
    task = client.download_file(url=CONNECT, sink=rawdl.MemorySink())
    client.run(1)
    assert len(world.requests) == 1
    task.abort() if how == "abort" else client.close()
    assert not world.sockets
    assert isinstance(task.exception(), rawdl.Aborted)
    client.close()


@pytest.mark.parametrize("url", [CONNECT, f"http://{A}/a"])
def test_a_proxy_that_is_not_there(world: World, url: str):
    proxy(world)
    taken = journey(world, url, {"proxy": f"http://{PROXY}:3129", "retry": ONE_TRY})
    assert isinstance(taken.error, rawdl.ConnectError)
    assert f"cannot connect to the proxy {PROXY} port 3129" in str(taken.error)


def test_a_proxy_without_an_address(world: World):
    taken = journey(world, CONNECT, {"proxy": "http://nowhere.example.org", "retry": ONE_TRY})
    assert isinstance(taken.error, rawdl.ResolveError)


@pytest.mark.parametrize(("scheme", "known"), [("socks5", True), ("socks5h", False), ("socks4a", False)])
def test_B6_who_resolves_the_name_under_socks(world: World, scheme: str, known: bool):
    pytest.importorskip("socksio", reason="the extra socks is not installed")
    proxy(world)
    serve(world, A, OK)
    taken = journey(world, f"http://{A}/a", {"proxy": f"{scheme}://{PROXY}:3128", "retry": ONE_TRY})
    assert isinstance(taken.error, rawdl.DownloadError), "what answers here speaks no SOCKS"
    looked_up = [line for _, line in world.log if "resolve" in line]
    assert any(PROXY in line for line in looked_up)
    assert any(A in line for line in looked_up) == known
    assert not world.sockets


def test_B6_a_name_that_is_too_long_for_socks_is_not_resolved_here(world: World):
    pytest.importorskip("socksio", reason="the extra socks is not installed")
    proxy(world)
    password = "p" * 300
    taken = journey(world, CONNECT, {"proxy": f"socks5h://u:{password}@{PROXY}:3128", "retry": ONE_TRY})
    assert isinstance(taken.error, rawdl.ProxyError)
    assert "a password of 300 bytes" in str(taken.error)
    assert not world.sockets


# Which one


def test_A5_each_hop_has_its_own(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", LOCKED)
    monkeypatch.setenv("https_proxy", f"http://{OTHER}:3128")
    monkeypatch.setenv("no_proxy", B)
    proxy(world, lambda request: redirect(f"http://{B}/b") if A in request.target else OK)
    serve(world, B, redirect(CONNECT))
    proxy(world, Script(status=403, reason="No"), host=OTHER)
    taken = journey(world, f"http://{A}/a", {"retry": ONE_TRY})
    assert isinstance(taken.error, rawdl.ProxyError)
    assert lines(world) == [f"GET http://{A}/a HTTP/1.1", "GET /b HTTP/1.1", f"CONNECT {A}:443 HTTP/1.1"]
    assert [fields(request).get("proxy-authorization") for request in world.requests] == [BASIC, None, None]


def test_B7_what_a_cgi_program_is_told_is_no_proxy(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", PLAIN)
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    serve(world, A, OK)
    assert journey(world).body == OK.body


def test_the_task_says_it_nearer_than_the_client(world: World):
    proxy(world)
    serve(world, A, Script(body=b"direct"))
    with world.client(proxy=PLAIN) as client:
        for given, body in ((None, b"direct"), ("client", OK.body), (PLAIN, OK.body), ("env", b"direct")):
            sink = rawdl.MemorySink()
            client.download_file(url=f"http://{A}/a", sink=sink, proxy=given).result()
            assert sink.getvalue() == body


def test_A15_a_connection_by_a_proxy_is_not_one_without(world: World):
    """Nor that by the same proxy under another name."""
    proxy(world)
    serve(world, A, OK)
    with world.client() as client:
        for given in (PLAIN, None, LOCKED, PLAIN, None, LOCKED):
            client.download_file(url=f"http://{A}/a", sink=rawdl.DiscardSink(), proxy=given).result()
        assert len(world.conns) == 3
    assert [fields(request).get("proxy-authorization") for request in world.requests] == [None, None, BASIC] * 2


@pytest.mark.parametrize("wrong", ["ftp://p", "http://", "http://p:99999", "socks4://p", "http://u:canary@p/x", ""])
def test_S11_what_is_no_proxy(world: World, wrong: str):
    with pytest.raises(ValueError, match="invalid proxy") as caught:
        rawdl.Client(proxy=wrong)
    assert SECRET not in str(caught.value)
    with world.client() as client, pytest.raises(ValueError, match="invalid proxy"):
        client.download_file(url=f"http://{A}/", proxy=wrong)


def test_an_environment_that_makes_no_sense(world: World, monkeypatch: pytest.MonkeyPatch):
    """Of a redirect's target as well; nothing is tried again."""
    monkeypatch.setenv("http_proxy", f"ftp://u:{SECRET}@p")
    monkeypatch.setenv("no_proxy", B)
    serve(world, B, redirect(f"http://{A}/a"))
    taken = journey(world)
    assert isinstance(taken.error, rawdl.ProxyError)
    assert "the environment variable http_proxy" in str(taken.error)
    assert SECRET not in str(taken.error)
    taken = journey(world, f"http://{B}/b", {"retry": AT_ONCE})
    assert isinstance(taken.error, rawdl.ProxyError)
    assert len(world.requests) == 1
