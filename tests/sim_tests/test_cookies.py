"""Cookies: along one chain of redirects, or in the caller's jar (A3, F5, F6, I4)."""

from __future__ import annotations

from collections.abc import Iterator
from http.cookiejar import CookieJar
from typing import Any

import pytest

import rawdl
from rawdl.cookies import Cookies, StrictJar
from rawdl.proto.messages import Headers
from rawdl.proto.url import URL
from tests.resource import redirect
from tests.sim import Script, World
from tests.sim_tests.journeys import A, B, journey, serve
from tests.sim_tests.peers import OK


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def sent(world: World) -> list[str | None]:
    return [request.field("Cookie") for request in world.requests]


def sets(*cookies: str, to: str = "/b") -> Script:
    return redirect(to, header=[("Set-Cookie", cookie) for cookie in cookies])


def get(client: rawdl.Client, url: str, **options: Any) -> rawdl.DownloadResult:
    return client.download_file(url=url, sink=rawdl.DiscardSink(), **options).result()


def test_A3_a_hop_sets_them_for_the_hops_behind_it(world: World):
    serve(world, A, {"/a": sets("id=1; Path=/", "x=2; Path=/c"), "/b": sets("id=3; Path=/", to="/c/d"), "/c/d": OK})
    journey(world)
    assert sent(world) == [None, "id=1", "x=2; id=3"]


def test_A3_they_are_forgotten_at_the_end(world: World):
    serve(world, A, {"/a": sets("id=1; Path=/"), "/b": OK})
    with world.client() as client:
        for _ in range(2):
            get(client, f"http://{A}/a")
    assert sent(world) == [None, "id=1", None, "id=1"]


def test_A3_I4_another_host_gets_none_and_the_first_gets_its_own_again(world: World):
    serve(world, A, {"/a": sets("id=1; Path=/", to=f"http://{B}/b"), "/c": OK})
    serve(world, B, sets("other=2; Path=/", to=f"http://{A}/c"))
    journey(world)
    assert sent(world) == [None, None, "id=1"]


def test_what_the_final_response_sets_is_the_callers_to_see(world: World):
    serve(world, A, Script(body=b"x", header=(("Set-Cookie", "id=1"),)))
    assert journey(world).result.cookies == ("id=1",)


def test_the_callers_own_field_comes_first(world: World):
    serve(world, A, {"/a": sets("id=1; Path=/"), "/b": OK, "/d": OK})
    journey(world, header={"cookie": "mine=0"})
    assert sent(world) == ["mine=0", "mine=0; id=1"]


def test_S12_none_are_sent_where_the_caller_wants_none(world: World):
    serve(world, A, {"/a": sets("id=1; Path=/"), "/b": OK})
    journey(world, header={"Cookie": None})
    assert sent(world) == [None, None]


@pytest.mark.parametrize(
    "cookie",
    [
        "id=1; Domain=org",
        "id=1; Domain=b.example.org",
        "id=1; Domain=xample.org",
        "id=1; Domain=.co.uk",
        "id=1; Secure",
        "id=1; Path=/other",
        "id=1; Max-Age=0",
        "id=\x01",
        "i\x7fd=1",
    ],
)
def test_F5_F6_what_is_not_for_this_host_or_cannot_be_sent(world: World, cookie: str):
    serve(world, A, {"/a": sets(cookie), "/b": OK})
    journey(world)
    assert sent(world) == [None, None]


def test_F5_a_host_only_cookie_stays_that(world: World):
    serve(world, "example.org", {"/a": sets("id=1; Path=/", "all=2; Path=/; Domain=example.org", to=f"http://{A}/b")})
    serve(world, A, OK)
    journey(world, "http://example.org/a")
    assert sent(world) == [None, "all=2"]


def test_F5_no_cookie_is_for_a_whole_top_level_domain(world: World):
    serve(
        world, "a.co.uk", sets("id=1; Path=/; Domain=.co.uk", "own=2; Path=/; Domain=.a.co.uk", to="http://b.co.uk/b")
    )
    serve(world, "b.co.uk", redirect("http://x.a.co.uk/c"))
    serve(world, "x.a.co.uk", OK)
    journey(world, "http://a.co.uk/a")
    assert sent(world) == [None, None, "own=2"]


def test_F5_an_address_has_cookies_of_its_own(world: World):
    world.listen("127.0.0.1", 80, _peer(sets("id=1; Path=/; Domain=0.0.1", "own=2; Path=/")))
    journey(world, "http://127.0.0.1/a", redirects=rawdl.Redirects(limit=1))
    assert sent(world) == [None, "own=2"]


def _peer(answer: Script) -> Any:
    from tests.sim import http_peer

    return http_peer({"/a": answer, "/b": OK})


def test_F6_a_flood(world: World):
    """At most 50 for a host, and no line that servers would not take."""
    serve(world, A, {"/a": sets(*(f"c{n}={'x' * 300}; Path=/" for n in range(200))), "/b": OK})
    journey(world)
    line = sent(world)[1] or ""
    assert 5000 < len(line) <= 8190
    assert all(cookie.endswith("=" + "x" * 300) for cookie in line.split("; "))


@pytest.mark.parametrize("host", [A, "localhost"])
@pytest.mark.parametrize("responses", [1, 2])
def test_F6_no_more_than_fifty_for_a_host(world: World, responses: int, host: str):
    hops = {
        f"/{n}": sets(*(f"c{n}x{i}=1; Path=/" for i in range(40 * (3 - responses))), to=f"/{n + 1}") for n in range(2)
    }
    serve(world, host, {**hops, "/2": OK})
    journey(world, f"http://{host}/0")
    assert len((sent(world)[2] or "").split("; ")) == 50


def test_F6_another_host_is_not_counted_for_the_end_of_its_name(world: World):
    jar = StrictJar()
    cookies = Cookies(jar)
    cookies.receive(Headers([("Set-Cookie", f"c{n}=1") for n in range(50)]), URL.parse("http://example.org/"))
    cookies.receive(Headers([("Set-Cookie", "a=1")]), URL.parse("http://another-example.org/"))
    assert cookies.field(URL.parse("http://another-example.org/"), None) == "a=1"


# A jar


def test_a_jar_is_used_and_filled(world: World):
    serve(world, A, {"/a": sets("id=1; Path=/"), "/b": Script(body=b"x", header=(("Set-Cookie", "end=2; Path=/"),))})
    jar = CookieJar()
    with world.client(cookies=jar) as client:
        for _ in range(2):
            get(client, f"http://{A}/a")
    assert sent(world) == [None, "id=1", "id=1; end=2", "id=1; end=2"]
    assert sorted(cookie.name for cookie in jar) == ["end", "id"]


def test_a_jar_serves_tasks_that_were_queued_before_it_was_filled(world: World):
    serve(world, A, Script(body=b"x", header=(("Set-Cookie", "id=1; Path=/"),)))
    with world.client(cookies=CookieJar(), max_concurrent=1) as client:
        tasks = [client.download_file(url=f"http://{A}/a", sink=rawdl.DiscardSink()) for _ in range(2)]
        client.run()
        for task in tasks:
            task.result()
    assert sent(world) == [None, "id=1"]


def test_I4_a_jar_is_asked_about_each_mirror(world: World):
    serve(world, A, Script(status=404, reason="Not Found", header=(("Set-Cookie", "a=1; Path=/"),)))
    serve(world, B, OK)
    with world.client(cookies=CookieJar()) as client:
        for _ in range(2):
            get(client, f"http://{A}/a", mirrors=[f"http://{B}/b"])
    assert sent(world) == [None, None, "a=1", None]


def test_S11_what_is_no_jar():
    with pytest.raises(TypeError, match="CookieJar"):
        rawdl.Client(cookies={"a": "b"})  # type: ignore[arg-type]


@pytest.mark.parametrize("jar", [True, False])
def test_F6_a_cookie_that_the_jar_cannot_read(world: World, jar: bool):
    """Python's jar warns of a number that is no time, with a traceback."""
    cookie = ("Set-Cookie", "c=1; Max-Age=" + "9" * 400)
    serve(world, A, {"/a": redirect(f"http://{A}/b", header=(cookie,)), "/b": OK})
    assert journey(world, client={"cookies": CookieJar()} if jar else {}).body == OK.body
