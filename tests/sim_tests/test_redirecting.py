"""Redirects from host to host, on the virtual clock: which are followed, what is told, and what each hop is sent."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rawdl
from tests.resource import redirect
from tests.sim import Script, World
from tests.sim_tests.journeys import (
    AT_ONCE,
    PATIENT,
    A,
    B,
    C,
    asked,
    assert_only_requests,
    fields,
    journey,
    serve,
)
from tests.sim_tests.peers import OK

BODY = bytes(range(256)) * 40


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


# What is told (T6, T25)


@pytest.mark.contract("T5", "T6", "T25", "S19", "S27")
def test_T6_a_hop_fires_no_event_and_the_result_is_that_of_the_last(world: World):
    serve(world, A, redirect(f"http://{B}/b", 301, header=[("Set-Cookie", "hop=1")]))
    serve(world, B, {"/b": redirect("/c", 307), "/c": redirect(f"//{C}/d?e=f", 303)})
    serve(world, C, Script(body=BODY, header=(("Set-Cookie", "last=1"),)))
    taken = journey(world, f"http://{A}/a#part", sink=rawdl.MemorySink(), progress_interval=0)
    assert taken.names.count("headers") == 1
    assert taken.of("progress")[0].total_bytes_expected_to_write == len(BODY)
    result, [event] = taken.result, taken.of("headers")
    assert (event.status_code, event.url) == (result.status_code, result.url) == (200, f"http://{C}/d?e=f#part")
    assert result.redirects == (f"http://{A}/a#part", f"http://{B}/b#part", f"http://{B}/c#part")
    assert result.cookies == ("last=1",)
    assert result.attempts == ()
    # The hop within a host takes no turn of the loop, so that it is not seen.
    states = ["queued", *["connecting", "waiting"] * 3, "receiving", "finishing", "completed"]
    assert [state.value for state in taken.states] == states


@pytest.mark.contract("T22", "T6")
@pytest.mark.parametrize("status", [200, 204, 404, 500])
def test_T22_the_answer_behind_a_redirect_may_have_any_status(world: World, status: int):
    serve(world, A, redirect(f"http://{B}/b"))
    serve(world, B, Script(status=status, framing="none" if status == 204 else "content-length"))
    assert journey(world).result.status_code == status


@pytest.mark.contract("T22")
@pytest.mark.parametrize("status", [301, 404])
def test_T22_fail_on_status_is_about_the_last_answer(world: World, status: int):
    serve(world, A, redirect(f"http://{B}/b"))
    serve(world, B, redirect("/c", status))
    serve(world, C, OK)
    taken = journey(world, fail_on_status=True, redirects=rawdl.Redirects(limit=1))
    assert isinstance(taken.error, rawdl.RedirectError if status == 301 else rawdl.StatusError)
    assert "headers" not in taken.names if status == 301 else taken.names[0] == "headers"


def test_T40_the_profile_tells_from_when_until_when_it_was_redirected(world: World):
    serve(world, A, {"/a": redirect("/b"), "/b": redirect(f"http://{B}/b")}, connect_delay=1.0)
    serve(world, B, OK, connect_delay=2.0)
    profile = journey(world).result.profile
    assert profile.redirect_start == profile.fetch_start
    hops = profile.redirect_end - profile.redirect_start
    assert hops == pytest.approx(1005 + 60, abs=1), "a look-up, a connect of 1 s, and two round trips"
    assert profile.redirect_end <= profile.domain_look_up_start < profile.connect_start
    assert profile.connect_end - profile.connect_start == pytest.approx(2020, abs=1)
    assert profile.fetch_start <= profile.request_start <= profile.response_start


def test_T40_without_a_redirect_its_times_are_0(world: World):
    serve(world, A, OK)
    profile = journey(world).result.profile
    assert profile.redirect_start == profile.redirect_end == 0


# What is followed (A10, A12, H5)


@pytest.mark.contract("A14", "H5")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_A14_each_is_followed_by_one_get_without_a_body(world: World, status: int):
    serve(world, A, {"/a": redirect("/b", status), "/b": OK})
    assert journey(world).body == b"hello"
    assert asked(world) == [f"{A}/a", f"{A}/b"]
    assert_only_requests(world)


@pytest.mark.contract("A12")
@pytest.mark.parametrize(("status", "limit"), [(300, 10), (304, 10), (305, 10), (306, 10), (399, 10), (302, 0)])
def test_A12_what_is_not_followed_is_the_answer(world: World, status: int, limit: int):
    serve(world, A, redirect(f"http://{B}/b", status, body=b"" if status == 304 else b"choose"))
    taken = journey(world, redirects=rawdl.Redirects(limit=limit))
    assert (taken.result.status_code, taken.result.redirects) == (status, ())
    assert taken.body == (b"" if status == 304 else b"choose")
    assert taken.names.count("headers") == 1


@pytest.mark.contract("A12", "H5")
@pytest.mark.parametrize("hops", [9, 10, 11])
def test_A12_ten_are_followed_and_no_more(world: World, hops: int):
    serve(world, A, lambda request: _hop(request.path, hops))
    taken = journey(world, f"http://{A}/0")
    assert len(asked(world)) == min(hops, 10) + 1
    if hops <= 10:
        assert len(taken.result.redirects) == hops
    else:
        assert taken.error.err_msg == "downloadFile:fail redirect"
        assert "headers" not in taken.names


@pytest.mark.contract("A12")
def test_A12_the_limit_is_for_the_whole_task_with_all_its_tries(world: World):
    """Each step is tried again once: that gives no hop back."""
    turns: dict[str, int] = {}

    def answer(request: Any) -> Script:
        turns[request.path] = turns.get(request.path, 0) + 1
        return Script(status=503) if turns[request.path] == 1 else _hop(request.path, 9)

    serve(world, A, answer)
    taken = journey(world, f"http://{A}/0", {"retry": AT_ONCE}, redirects=rawdl.Redirects(limit=3))
    assert isinstance(taken.error, rawdl.RedirectError)
    assert asked(world) == [f"{A}/{n}" for n in (0, 0, 1, 1, 2, 2, 3, 3)]
    assert [type(error) for error in taken.error.attempts] == [rawdl.StatusError] * 4


def _hop(path: str, hops: int) -> Script:
    place = int(path[1:])
    return redirect(f"/{place + 1}") if place < hops else OK


@pytest.mark.contract("A12", "H5")
@pytest.mark.parametrize(
    ("at_a", "at_b", "requests"),
    [
        (redirect("/a"), OK, 1),
        (redirect("/a", header=[("Set-Cookie", "seen=1")]), OK, 1),
        (redirect("#f"), OK, 1),
        (redirect("?"), redirect("/"), 11),
        (redirect(f"http://{B}/b"), redirect(f"http://{A}/a"), 2),
        (redirect(f"http://{B}/b"), redirect(f"http://{A.upper()}:80/x/../a"), 2),
    ],
)
def test_A12_a_loop_ends_in_an_error(world: World, at_a: Script, at_b: Script, requests: int):
    serve(world, A, at_a)
    serve(world, B, at_b)
    taken = journey(world, client={"retry": PATIENT})
    assert isinstance(taken.error, rawdl.RedirectError)
    assert len(world.requests) <= requests
    assert world.elapsed < 1, "a loop is not tried again"


REFUSED = {
    "a file": "file:///etc/passwd",
    "ftp": "ftp://b.example.org/b",
    "data": "data:text/plain,hello",
    "a script": "javascript:alert(1)",
    "gopher": "gopher://b.example.org/",
    "what Python once opened": "local_file:///etc/passwd",
    "no scheme": "://b.example.org/",
    "a host and a port": "b.example.org:80/b",
    "a user": "http://user:canary@b.example.org/b",
    "no host": "http:///b",
    "an empty host": "//",
    "a backslash": "http://b.example.org\\@c.example.org/",
    "a port out of range": f"http://{B}:65536/",
    "port 0": f"http://{B}:0/",
    "a space in the host": "http://b.example.org c.example.org/",
    "an open bracket": "http://[::1/",
    "nothing": "",
}


@pytest.mark.contract("A10", "H5", "B2", "I10")
@pytest.mark.parametrize("location", REFUSED.values(), ids=REFUSED)
def test_A10_nothing_but_a_sound_http_url_is_followed(world: World, location: str):
    serve(world, A, redirect(location))
    for host in (B, C):
        serve(world, host, OK)
    error = journey(world, client={"retry": PATIENT}).error
    assert isinstance(error, rawdl.RedirectError)
    assert (error.err_msg, error.attempts) == ("downloadFile:fail redirect", ())
    assert "canary" not in str(error)
    assert [line for _, line in world.log if "resolve" in line] == [f"resolve {A}"]
    assert len(world.conns) == 1


@pytest.mark.contract("H5")
@pytest.mark.parametrize(
    "header",
    [(), (("Location", f"http://{B}/b"), ("Location", f"http://{B}/c")), (("Location", f"http://{B}/{'x' * 65536}"),)],
    ids=["no Location", "two of them", "64 KiB long"],
)
def test_H5_without_one_sound_location_there_is_an_error(world: World, header: tuple[tuple[str, str], ...]):
    serve(world, A, Script(status=302, header=header))
    serve(world, B, OK)
    error = journey(world).error
    assert isinstance(error, rawdl.RedirectError | rawdl.ProtocolError)
    assert len(world.conns) == 1


@pytest.mark.contract("B1", "H5")
@pytest.mark.parametrize(
    ("location", "target"),
    [
        (f"http://{B}", f"{B}/"),
        (f"HTTP://{B.upper()}:080/b", f"{B}/b"),
        (f"//{B}/b", f"{B}/b"),
        ("b", f"{A}/x/b"),
        ("../../b", f"{A}/b"),
        ("?q=1", f"{A}/x/a?q=1"),
        ("/b c", f"{A}/b%20c"),
        ("/b%20c%", f"{A}/b%20c%"),
        ("/\xc3\xa9", f"{A}/%C3%A9"),
        ("/\xe9", f"{A}/%E9"),
        ('/"<>^`{|}', f"{A}/%22%3C%3E%5E%60%7B%7C%7D"),
        ("/b#c d", f"{A}/b"),
        (f"  http://{B}/b\t", f"{B}/b"),
    ],
)
def test_H5_where_a_location_leads(world: World, location: str, target: str):
    answers = {"/x/a": [redirect(location), OK], "*": OK}
    serve(world, A, answers)
    serve(world, B, OK)
    assert journey(world, f"http://{A}/x/a").body == b"hello"
    assert asked(world)[1:] == [target]
    assert_only_requests(world)


@pytest.mark.contract("B1")
@pytest.mark.parametrize("where", ["{}http://b.example.org/b", "http://b{}.example.org/b", "/b{}c", "/b?c{}d", "/b{}"])
def test_B1_no_byte_of_a_location_gets_out_of_the_request_line(where: str):
    for byte in (*range(0x21), 0x7F):
        with World() as world:
            serve(world, A, {"/a": redirect(where.format(chr(byte))), "*": OK})
            serve(world, B, OK)
            taken = journey(world)
            assert_only_requests(world)
            for request in world.requests:
                line = request.head.split(b"\r\n")[0]
                assert line.count(b" ") == 2
                assert all(0x20 <= each < 0x7F for each in line)
            followed = len(world.requests) == 2
            assert followed == isinstance(taken.end, rawdl.DownloadResult)
            # White space around is not part of a value, nor does a CR LF end a line that would otherwise go on.
            assert not followed or byte in b"\r\n\t ", f"followed with byte {byte:#x}"


# What each hop is sent (A1, A2, A3, A7)

SECRETS = {"AUTHORIZATION": "Bearer canary", "cookie": "id=canary", "X-Token": "canary", "Referer": "http://r/canary"}
HARMLESS = {"Accept": "x/y", "accept-language": "de", "User-Agent": "me"}


@pytest.mark.contract("A1", "A3", "A7")
@pytest.mark.parametrize(
    ("location", "kept"),
    [
        ("/b", True),
        (f"http://{A.upper()}:80/b", True),
        (f"http://{A}:8080/b", False),
        (f"https://{A}/b", False),
        (f"http://{B}/b", False),
        (f"http://{A}./b", False),
    ],
)
def test_A1_a_secret_goes_to_its_origin_only(
    world: World, server_context: ssl.SSLContext, trusting: rawdl.TLS, location: str, kept: bool
):
    serve(world, A, {"/a": redirect(location), "/b": OK})
    for host, port, tls in ((A, 8080, None), (A, 443, server_context), (B, 80, None), (f"{A}.", 80, None)):
        serve(world, host, OK, port=port, tls=tls)
    journey(world, client={"tls": trusting}, header={**SECRETS, **HARMLESS}).result  # noqa: B018
    first, second = map(fields, world.requests)
    assert {name.lower() for name in SECRETS} <= first.keys()
    assert b"canary" in world.requests[0].head
    assert (b"canary" in world.requests[1].head) == kept
    always = {"host", "accept", "accept-encoding", "accept-language", "user-agent"}
    assert second.keys() == (first.keys() if kept else always)
    assert [second[name.lower()] for name in HARMLESS] == list(HARMLESS.values())
    assert_only_requests(world)


@pytest.mark.contract("A3", "A1")
def test_A3_a_secret_does_not_come_back_with_its_origin(world: World):
    serve(world, A, {"/a": redirect(f"http://{B}/b"), "/c": OK})
    serve(world, B, redirect(f"http://{A}/c"))
    journey(world, header=SECRETS).result  # noqa: B018
    assert asked(world) == [f"{A}/a", f"{B}/b", f"{A}/c"]
    assert [b"canary" in request.head for request in world.requests] == [True, False, False]


@pytest.mark.contract("A1", "A7", "A9", "A13")
def test_A7_nothing_of_the_url_that_was_left_is_told(world: World):
    serve(world, A, redirect(f"http://{B}/b"))
    serve(world, B, OK)
    result = journey(world, f"http://user:canary@{A}/a?token=canary#canary").result
    assert fields(world.requests[1]).keys() == {"host", "user-agent", "accept", "accept-encoding"}
    assert b"canary" not in world.requests[1].head
    assert "user" not in result.redirects[0]
    assert not [line for _, line in world.log if "resolve" in line and "canary" in line]


@pytest.mark.contract("S12")
def test_S12_a_field_that_was_dropped_stays_dropped(world: World):
    serve(world, A, {"/a": redirect("/b"), "/b": redirect(f"http://{B}/c")})
    serve(world, B, OK)
    journey(world, header={"User-Agent": None}).result  # noqa: B018
    assert [fields(request).keys() for request in world.requests] == [{"host", "accept", "accept-encoding"}] * 3


@pytest.mark.contract("A2")
@pytest.mark.parametrize("allowed", [False, True])
def test_A2_a_downgrade_is_refused_unless_allowed_and_then_takes_no_secret(
    world: World, server_context: ssl.SSLContext, trusting: rawdl.TLS, allowed: bool
):
    serve(world, A, redirect(f"http://{A}/b"), port=443, tls=server_context)
    serve(world, A, OK)
    options = {"header": SECRETS, "redirects": rawdl.Redirects(allow_downgrade=allowed)}
    taken = journey(world, f"https://{A}/a", {"tls": trusting, "retry": PATIENT}, **options)
    if allowed:
        assert taken.body == b"hello"
        assert b"canary" not in world.requests[1].head
    else:
        assert taken.error.reason == "redirect"
        assert len(world.conns) == 1


@pytest.mark.contract("A11")
def test_A11_the_target_does_not_choose_the_name(world: World, tmp_path: Path):
    serve(world, A, {"/a.iso": redirect("/evil.sh"), "/evil.sh": OK})
    result = journey(world, f"http://{A}/a.iso", directory=tmp_path).result
    assert [path.suffix for path in tmp_path.iterdir()] == [".iso"]
    assert result.temp_file_path is not None
    assert "evil" not in result.temp_file_path
