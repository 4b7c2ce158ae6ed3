"""Every secret on every way: who gets to see it on the wire, and whom it is hidden from (I4, A1-A6, A8)."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

import rawdl
from rawdl.cookies import read_cookies
from tests.once import ONE_TRY
from tests.origin import Request, Script, TLSEngine
from tests.resource import Fault, Resource, redirect
from tests.sim import Conn, Link, World
from tests.sim.conn import Pause
from tests.sim.peers import HttpPeer
from tests.sim_tests.journeys import A, B, journey, serve
from tests.sim_tests.peers import OK, REQUEST_END

SECRET = "canary"
FIRST, SECOND = "password-of-the-first", "password-of-the-second"
PROXY, OTHER = "proxy.example.org", "other.example.org"


def encoded(name: str, password: str) -> str:
    return base64.b64encode(f"{name}:{password}".encode()).decode()


BASIC = encoded("user", SECRET)


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


# Where a download goes, by redirects; and which of these see a secret ("+") that was given for the first.

WAYS = {
    "another host": (f"http://{A}", f"http://{B}"),
    "a host below": (f"http://{A}", f"http://x.{A}"),
    "another port": (f"http://{A}", f"http://{A}:8080"),
    "from http to https": (f"http://{A}", f"https://{A}"),
    "from https to http": (f"https://{A}", f"http://{A}"),
    "there and back": (f"http://{A}", f"http://{B}", f"http://{A}"),
}
ORIGIN = {way: "+" + "-" * (len(origins) - 1) for way, origins in WAYS.items()}
# Cookies know no ports, and only their own mark tells http from https (RFC 6265 8.5, 8.6); who leads back has no say.
COOKIES = ORIGIN | {
    "another port": "++",
    "from http to https": "++",
    "from https to http": "++",
    "there and back": "+-+",
}
SECURE = {
    "another host": "--",
    "a host below": "--",
    "another port": "--",
    "from http to https": "-+",
    "from https to http": "+-",
    "there and back": "---",
}
# By host, but never without TLS where the download began with it (A2).
NETRC = ORIGIN | {"another port": "++", "from http to https": "++", "there and back": "+-+"}


@dataclass(frozen=True)
class Secret:
    """How something secret is given, by options of the task and of the client, and who sees it."""

    seen: dict[str, str]
    task: dict[str, Any] = field(default_factory=dict)
    client: dict[str, Any] = field(default_factory=dict)
    userinfo: str = ""
    cookies: Callable[[Path], CookieJar] | None = None


def jar(*, strict: bool = True, secure: bool = False) -> Callable[[Path], CookieJar]:
    """Make a jar with a cookie for the host A alone, which only a strict policy holds to."""
    how = DefaultCookiePolicy.DomainStrictNonDomain if strict else DefaultCookiePolicy.DomainLiberal

    def make(folder: Path) -> CookieJar:
        made = CookieJar(DefaultCookiePolicy(strict_ns_domain=how))
        made.set_cookie(
            Cookie(
                version=0, name="id", value=SECRET, port=None, port_specified=False, domain=A, domain_specified=False,
                domain_initial_dot=False, path="/", path_specified=True, secure=secure, expires=None, discard=True,
                comment=None, comment_url=None, rest={},
            )
        )  # fmt: skip
        return made

    return make


def jar_of_a_file(folder: Path) -> CookieJar:
    path = folder / "cookies"
    path.write_text(f"# Netscape HTTP Cookie File\n{A}\tFALSE\t/\tFALSE\t0\tid\t{SECRET}\n")
    return read_cookies(str(path))


SECRETS = {
    "Authorization": Secret(ORIGIN, {"header": {"Authorization": f"Bearer {SECRET}"}}),
    "AUTHORIZATION": Secret(ORIGIN, {"header": {"AUTHORIZATION": f"Bearer {SECRET}"}}),
    "Cookie": Secret(ORIGIN, {"header": {"Cookie": f"id={SECRET}"}}),
    "the task's auth": Secret(ORIGIN, {"auth": ("user", SECRET)}),
    "the client's auth": Secret(ORIGIN, client={"auth": rawdl.BearerAuth(SECRET)}),
    "userinfo": Secret(ORIGIN, userinfo=f"user:{SECRET}@"),
    "netrc": Secret(NETRC, client={"netrc": f"machine {A} login user password {SECRET}\n"}),
    "a jar": Secret(COOKIES, cookies=jar()),
    "a jar of secure cookies": Secret(SECURE, cookies=jar(secure=True)),
    "a jar of a file": Secret(COOKIES, cookies=jar_of_a_file),
    "a jar that is liberal": Secret(COOKIES | {"a host below": "++"}, cookies=jar(strict=False)),
}


def lead(world: World, urls: Sequence[str], tls: ssl.SSLContext, ports: Sequence[int] = (443,)) -> None:
    """Have every host and proxy answer for each URL, whose path is its number, with a redirect to the next."""

    def answer(request: Request) -> Script:
        number = int(urlsplit(request.target).path[1:])
        return redirect(urls[number]) if number < len(urls) else OK

    for host in (A, B, f"x.{A}"):
        for port in (80, 8080, 443):
            serve(world, host, answer, port=port, tls=tls if port in ports else None)
    serve(world, PROXY, answer, port=3128)
    world.listen(OTHER, 3128, tunnel(tls, answer))


def tunnel(context: ssl.SSLContext, answer: Callable[[Request], Script]) -> HttpPeer:
    """Make a proxy that opens a tunnel to whoever is asked for, and plays that one as well."""

    def peer(conn: Conn) -> Generator[Pause, None, None]:
        head = yield from conn.read_until(REQUEST_END)
        conn.world.requests.append(Request(head, conn.client_address, conn.number))
        conn.send(b"HTTP/1.1 200 OK\r\n\r\n")
        engine, head = TLSEngine(context), b""
        while not head.endswith(REQUEST_END):
            yield lambda: bool(conn.received)
            head += engine.receive(bytes(conn.received))
            conn.received.clear()
            conn.send(engine.data_to_send())
        request = Request(head, conn.client_address, conn.number)
        conn.world.requests.append(request)
        engine.send(answer(request).wire)
        conn.send(engine.data_to_send())
        yield None

    return peer


def numbered(origins: Sequence[str]) -> list[str]:
    return [f"{origin}/{number}" for number, origin in enumerate(origins, 1)]


def follow(world: World, name: str, urls: Sequence[str], folder: Path, **client: Any) -> None:
    """Download the first of these URLs with that secret."""
    secret = SECRETS[name]
    client = {"redirects": rawdl.Redirects(allow_downgrade=True), **client, **secret.client}
    if "netrc" in client:
        (folder / "netrc").write_text(client["netrc"])
        client["netrc"] = folder / "netrc"
    if secret.cookies:
        client["cookies"] = secret.cookies(folder)
    url = urls[0].replace("//", f"//{secret.userinfo}")
    assert journey(world, url, client, **secret.task).body == OK.body


def seen(world: World, *secrets: str) -> str:
    """Return "+" for each request that has one of these in it, and "-" for each other."""
    heads = [request.head.decode("latin-1") for request in world.requests]
    return "".join("+" if any(secret in head for secret in secrets) else "-" for head in heads)


@pytest.mark.parametrize(("name", "way"), [(name, way) for name, secret in SECRETS.items() for way in secret.seen])
def test_I4_who_sees_what_was_given_for_one_origin(
    name: str, way: str, world: World, server_context: ssl.SSLContext, trusting: rawdl.TLS, tmp_path: Path
):
    urls = numbered(WAYS[way])
    lead(world, urls, server_context)
    follow(world, name, urls, tmp_path, tls=trusting)
    assert seen(world, SECRET, BASIC) == SECRETS[name].seen[way]


# What was given for a proxy; the rest of the way goes around it

AROUND = {
    "another host": (B, "+-"),
    "a host below": (f"x.{A}", "+-"),
    "another port": (f"{A}:8080", "+-"),
    "from http to https": (None, "+-"),
    "from https to http": (None, "-+"),
    "there and back": (B, "+-+"),
}


@pytest.mark.parametrize("way", AROUND)
def test_A4_who_sees_what_was_given_for_a_proxy(
    way: str,
    world: World,
    server_context: ssl.SSLContext,
    trusting: rawdl.TLS,
    monkeypatch: pytest.MonkeyPatch,
):
    exempt, expected = AROUND[way]
    monkeypatch.setenv("http_proxy", f"http://user:{SECRET}@{PROXY}:3128")
    if exempt is not None:
        monkeypatch.setenv("no_proxy", exempt)
    urls = numbered(WAYS[way])
    lead(world, urls, server_context)
    client = {"tls": trusting, "redirects": rawdl.Redirects(allow_downgrade=True)}
    assert journey(world, urls[0], client).body == OK.body
    assert seen(world, SECRET, BASIC) == expected
    by_proxy = ["+" if urlsplit(request.target).netloc else "-" for request in world.requests]
    assert "".join(by_proxy) == expected, "the proxy alone is asked for whole URLs"


# By one proxy for http and another for https

BY_PROXIES = {
    "from http to https": ((f"http://{A}", f"https://{B}"), ["GET", "CONNECT", "GET"], "+--", "+--", "-+-"),
    "from https to http": ((f"https://{A}", f"http://{B}"), ["CONNECT", "GET", "GET"], "-+-", "--+", "+--"),
    "there and back": (
        (f"http://{A}", f"https://{B}", f"http://{B}"),
        ["GET", "CONNECT", "GET", "GET"],
        "+---",
        "+--+",
        "-+--",
    ),
}


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://one:{FIRST}@{PROXY}:3128")
    monkeypatch.setenv("https_proxy", f"http://two:{SECOND}@{OTHER}:3128")


@pytest.mark.usefixtures("proxies")
@pytest.mark.parametrize("way", BY_PROXIES)
@pytest.mark.parametrize("name", SECRETS)
def test_A4_A5_I4_who_sees_what_behind_two_proxies(
    name: str, way: str, world: World, server_context: ssl.SSLContext, trusting: rawdl.TLS, tmp_path: Path
):
    """Whoever asks for a tunnel tells nothing of what goes through it, and the one proxy nothing of the other."""
    origins, methods, origins_secret, of_first, of_second = BY_PROXIES[way]
    urls = numbered(origins)
    lead(world, urls, server_context)
    follow(world, name, urls, tmp_path, tls=trusting)
    assert [request.method for request in world.requests] == methods
    if name == "a jar of secure cookies" and not urls[0].startswith("https:"):
        origins_secret = "-" * len(methods)
    assert seen(world, SECRET, BASIC) == origins_secret
    assert seen(world, encoded("one", FIRST), FIRST) == of_first
    assert seen(world, encoded("two", SECOND), SECOND) == of_second


# A client certificate


@pytest.fixture
def identified(ca: trustme.CA, ca_file: Path, tmp_path: Path) -> rawdl.TLS:
    path = tmp_path / "client.pem"
    ca.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(str(path))
    return rawdl.TLS(ca_file=str(ca_file), client_cert=str(path))


@pytest.fixture
def asking(ca: trustme.CA) -> ssl.SSLContext:
    """The settings of a server that asks for a certificate, and takes who has none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("*.example.org", f"*.{A}").configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def shown(world: World) -> dict[int, bool]:
    """Whether each connection, by its number, has shown a certificate."""
    return {conn.number: bool(conn._engine and conn._engine._tls.getpeercert()) for conn in world.conns}


def go(world: World, urls: Sequence[str], tls: rawdl.TLS) -> None:
    client = {"tls": tls, "redirects": rawdl.Redirects(allow_downgrade=True)}
    assert journey(world, urls[0], client).body == OK.body


def certified(world: World) -> str:
    """Return "+" for each request on a connection that has shown one."""
    return "".join("+" if shown(world)[request.connection] else "-" for request in world.requests)


@pytest.mark.parametrize("way", [way for way, origins in WAYS.items() if "https" in "".join(origins)])
def test_I4_a_client_certificate_is_for_the_origin_of_the_url(
    way: str, world: World, asking: ssl.SSLContext, identified: rawdl.TLS
):
    urls = numbered(WAYS[way])
    lead(world, urls, asking)
    go(world, urls, identified)
    expected = "-" * len(urls) if urls[0].startswith("http:") else ORIGIN[way]
    assert certified(world) == expected


@pytest.mark.parametrize(
    ("origins", "expected"),
    [
        ((f"https://{A}", f"https://{A}", f"https://{A}"), "+++"),
        ((f"https://{A}", f"https://{B}"), "+-"),
        ((f"https://{A}", f"https://x.{A}"), "+-"),
        ((f"https://{A}", f"https://{A}:8080"), "+-"),
        ((f"https://{A}", f"https://{B}", f"https://{A}"), "+--"),
    ],
)
def test_I4_a_client_certificate_stays_where_it_is(
    origins: tuple[str, ...], expected: str, world: World, asking: ssl.SSLContext, identified: rawdl.TLS
):
    """A connection that has shown one serves for no request that must not."""
    urls = numbered(origins)
    lead(world, urls, asking, ports=(443, 8080))
    go(world, urls, identified)
    assert certified(world) == expected


@pytest.mark.parametrize("connections", [1, 2])
def test_I4_a_mirror_sees_no_client_certificate(
    connections: int, world: World, asking: ssl.SSLContext, identified: rawdl.TLS, tmp_path: Path
):
    whole = Resource(bytes(40_000))
    serve(world, A, Resource(bytes(40_000), faults=[Fault(in_body=20_000)]), port=443, tls=asking)
    serve(world, B, whole, port=443, tls=asking)
    options = {"mirrors": [f"https://{B}/1"], "connections": connections, "min_segment": 1000}
    with world.client(tls=identified, retry=ONE_TRY) as client:
        client.download_file(url=f"https://{A}/1", file_path=tmp_path / "f", **options).result()
    hosts = {request.field("Host"): shown(world)[request.connection] for request in world.requests}
    assert hosts == {A: True, B: False}


@pytest.mark.parametrize(("connections", "faults", "also"), [(2, [], set()), (1, [Fault(in_body=30_000)], {"/m"})])
def test_I4_who_has_led_back_gets_no_client_certificate_on_any_connection(
    connections: int,
    faults: list[Fault],
    also: set[str],
    world: World,
    asking: ssl.SSLContext,
    identified: rawdl.TLS,
    tmp_path: Path,
):
    """Not for the segments of the file, and not for the document that tells of its mirrors."""
    link = f'<https://{A}/m>; rel=describedby; type="application/metalink4+xml"'
    file = Resource(bytes(40_000), like=Script(header=(("Link", link),)), faults=faults)
    answers = {"/1": redirect(f"https://{B}/2"), "/3": file, "/m": Script(status=404, reason="No", body=b"")}
    serve(world, A, answers, port=443, tls=asking, link=Link(segment=1000, bandwidth=20_000.0))
    serve(world, B, redirect(f"https://{A}/3"), port=443, tls=asking)
    with world.client(tls=identified, retry=ONE_TRY) as client:
        options = {"connections": connections, "min_segment": 1000, "resume": False}
        client.download_file(url=f"https://{A}/1", file_path=tmp_path / "f", **options).exception()
    asked = {(request.target, shown(world)[request.connection]) for request in world.requests}
    assert asked == {("/1", True), ("/2", False), ("/3", False), *((path, False) for path in also)}
    assert len({request.connection for request in world.requests if request.target == "/3"}) == connections


def test_F2_one_warning_for_both_contexts(
    world: World, asking: ssl.SSLContext, identified: rawdl.TLS, caplog: pytest.LogCaptureFixture
):
    urls = numbered((f"https://{A}", f"https://{B}"))
    lead(world, urls, asking)
    go(world, urls, replace(identified, verify=False))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_I4_a_proxy_sees_no_client_certificate(world: World, asking: ssl.SSLContext, identified: rawdl.TLS):
    serve(world, PROXY, OK, port=3128, tls=asking)
    assert journey(world, f"http://{A}/1", {"tls": identified, "proxy": f"https://{PROXY}:3128"}).body == OK.body
    assert certified(world) == "-"


def test_I4_a_client_certificate_is_not_for_one_that_does_not_ask(
    world: World, server_context: ssl.SSLContext, asking: ssl.SSLContext, identified: rawdl.TLS
):
    serve(world, A, redirect(f"https://{B}/2"), port=443, tls=asking)
    serve(world, B, OK, port=443, tls=server_context)
    assert journey(world, f"https://{A}/1", {"tls": identified}).body == OK.body
    assert certified(world) == "+-"


def test_A15_a_client_without_the_certificate_shows_none(
    world: World, asking: ssl.SSLContext, identified: rawdl.TLS, trusting: rawdl.TLS
):
    """No connection, and no session of it, serves two clients."""
    serve(world, A, OK, port=443, tls=asking)
    for tls in (identified, trusting, identified):
        assert world.client(tls=tls).download_file(url=f"https://{A}/1", sink=rawdl.MemorySink()).result()
    assert list(shown(world).values()) == [True, False, True]
