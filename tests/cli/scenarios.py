"""What each row of the README's table promises: a scenario, which holds what a program does against that.

@scenario("save under a name")
def _other_name(t: Trial) -> None:
    t.get(t.serve(), FILE="b")  # FILE is what the cell has in the place of a name
    assert t.saved("b") == BODY
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from rawdl.tls import pin_of
from tests.cli.trial import BODY, Trial
from tests.origin import Origin, Request, Script
from tests.resource import LAST_MODIFIED, Fault, Resource, redirect

DATE = 1445412480  # LAST_MODIFIED
SCENARIOS: dict[str, Callable[[Trial], None]] = {}


def scenario(row: str) -> Callable[[Callable[[Trial], None]], Callable[[Trial], None]]:
    def register(function: Callable[[Trial], None]) -> Callable[[Trial], None]:
        assert SCENARIOS.setdefault(row, function) is function, f"two scenarios of {row!r}"
        return function

    return register


# Files


@scenario("save under the name in the URL")
def _name(t: Trial) -> None:
    t.get(t.serve(), saving=False)
    assert (t.files(), t.saved()) == (["a"], BODY)


@scenario("save under a name")
def _other_name(t: Trial) -> None:
    t.get(t.serve(), FILE="b")
    assert (t.files(), t.saved("b")) == (["b"], BODY)


@scenario("save into a folder, and make it")
def _folder(t: Trial) -> None:
    t.get(t.serve(), DIR="new/er")
    assert (t.files(), t.saved("new/er/a")) == (["new/er/a"], BODY)


@scenario("save under the server's name")
def _suggested(t: Trial) -> None:
    t.get(t.serve(Script(body=BODY, header=(("Content-Disposition", 'attachment; filename="b"'),))))
    assert (t.files(), t.saved("b")) == (["b"], BODY)


@scenario("write the body to standard output")
def _stdout(t: Trial) -> None:
    assert t.get(t.serve(), saving=False).stdout == BODY and t.files() == []


@scenario("fetch several at once, N at most")
def _several(t: Trial) -> None:
    steps: list[int] = []  # 1 where one begins, -1 where it ends

    def answer(request: Request) -> Script:
        steps.append(1)
        return Script(body=b"x", head_delay=0.4, on_send=lambda n: steps.append(-1))

    t.get(*(t.serve(answer, f"/{name}") for name in "abcd"), N=2)
    assert t.files() == ["a", "b", "c", "d"]
    assert max(sum(steps[:end]) for end in range(len(steps))) == 2


@scenario("read the URLs from a file")
def _list(t: Trial) -> None:
    urls = [t.serve(path=f"/{name}") for name in "abc"]
    t.get(FILE=t.write("\n".join(urls)))
    assert t.files() == ["a", "b", "c"]


def interrupted(t: Trial, resource: Resource) -> str:
    """Download a part of it, as one does without any flag."""
    resource.faults = [Fault(in_body=60_000)]
    url = t.serve(resource)
    t.plain.fails(url)
    assert t.files() and BODY not in [t.saved(name) for name in t.files()]
    return url


@scenario("continue what was interrupted")
def _continue(t: Trial) -> None:
    t.get(interrupted(t, Resource(BODY)))
    assert (t.files(), t.saved()) == (["a"], BODY)
    assert (t.asked("Range")[-1] or "").startswith("bytes=")


@scenario("continue, or fail")
def _continue_or_fail(t: Trial) -> None:
    resource = Resource(BODY)
    url = interrupted(t, resource)
    resource.ranges = "ignore"
    t.fails(url)
    assert BODY[:60_000] in [t.saved(name) for name in t.files()]
    resource.ranges = "honour"
    t.get(url)
    assert (t.files(), t.saved()) == (["a"], BODY)


@scenario("begin anew")
def _anew(t: Trial) -> None:
    t.get(interrupted(t, Resource(BODY)), FILE="a")
    assert t.saved() == BODY and t.asked("Range") == [None, None]


@scenario("replace a file that is there")
def _replace(t: Trial) -> None:
    (t.folder / "a").write_bytes(b"old")
    t.get(t.serve(), FILE="a")
    assert (t.files(), t.saved()) == (["a"], BODY)


@scenario("fail if the file is there")
def _no_clobber(t: Trial) -> None:
    t.get(url := t.serve(Script(body=b"new")))
    (t.folder / "a").write_bytes(b"old")
    t.fails(url)
    assert (t.files(), t.saved()) == (["a"], b"old")


@scenario("skip a file that is there")
def _skip(t: Trial) -> None:
    (t.folder / "a").write_bytes(b"old")
    t.get(t.serve())
    assert (t.files(), t.saved(), t.origin.requests) == (["a"], b"old", [])


@scenario("save beside it, as FILE.1")
def _beside(t: Trial) -> None:
    (t.folder / "a").write_bytes(b"old")
    t.get(t.serve())
    assert (t.saved(), t.saved("a.1")) == (b"old", BODY)


@scenario("date the file as the server does")
def _date(t: Trial) -> None:
    t.get(t.serve(Script(body=BODY, header=(("Last-Modified", LAST_MODIFIED),))))
    assert (t.folder / "a").stat().st_mtime == DATE


@scenario("refuse a file that is larger")
def _larger(t: Trial) -> None:
    t.fails(url := t.serve(), SIZE=len(BODY) - 1)
    assert t.files() == []
    t.get(url, SIZE=len(BODY))
    assert t.saved() == BODY


@scenario("verify a checksum")
def _checksum(t: Trial) -> None:
    url = t.serve()
    t.get(url, HEX=sha256(BODY).hexdigest())
    assert t.saved() == BODY
    (t.folder / "a").unlink()
    t.fails(url, HEX=sha256(b"other").hexdigest())


@scenario("ask for it compressed, save it decompressed")
def _compressed(t: Trial) -> None:
    t.get(t.serve(Script(body=gzip.compress(BODY), header=(("Content-Encoding", "gzip"),))))
    assert "gzip" in (t.asked("Accept-Encoding")[0] or "") and t.saved() == BODY


@scenario("save nothing")
def _dry_run(t: Trial) -> None:
    t.get(t.serve())
    assert t.files() == []
    assert [request.method for request in t.origin.requests] == ([] if t.program == "rawdl" else ["HEAD"])


@scenario("fail on a 4xx or 5xx")
def _fail(t: Trial) -> None:
    for status in (404, 500):
        t.fails(t.serve(Script(status=status, body=b"page")))
    assert t.files() == []


@scenario("save the page of a 4xx or 5xx")
def _page(t: Trial) -> None:
    t.run(t.serve(Script(status=404, body=b"page")))
    assert t.saved() == b"page"


# Requests


def sends(t: Trial, field: str, expected: str, **values: object) -> None:
    t.get(t.serve(), **values)
    assert t.asked(field) == [expected] and t.saved() == BODY


@scenario("send a header field")
def _header(t: Trial) -> None:
    sends(t, "X-A", "some value", K="X-A", V="some value")


@scenario("have another User-Agent")
def _agent(t: Trial) -> None:
    sends(t, "User-Agent", "Some/1", NAME="Some/1")


@scenario("have a Referer")
def _referer(t: Trial) -> None:
    sends(t, "Referer", "http://example.org/x", PAGE="http://example.org/x")


@scenario("fetch a range")
def _range(t: Trial) -> None:
    t.get(t.serve(), FIRST=10, LAST=19)
    assert t.saved() == BODY[10:20]


def guarded(t: Trial, expected: str, challenge: str = 'Basic realm="r"') -> str:
    """Serve what is for those only whose Authorization begins like that."""
    refusal = Script(status=401, reason="Unauthorized", header=(("WWW-Authenticate", challenge),))
    return t.serve(
        lambda request: Script(body=BODY) if (request.field("Authorization") or "").startswith(expected) else refusal
    )


BASIC = f"Basic {b64encode(b'joe:secret').decode()}"
NETRC = "machine 127.0.0.1 login joe password secret\n"


@scenario("log in")
def _login(t: Trial) -> None:
    t.get(guarded(t, BASIC), USER="joe", PASSWORD="secret")
    assert t.saved() == BODY


@scenario("log in by Digest")
def _digest(t: Trial) -> None:
    challenge = 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'
    t.get(guarded(t, 'Digest username="joe"', challenge), USER="joe", PASSWORD="secret")
    assert t.saved() == BODY


@scenario("log in by ~/.netrc")
def _netrc(t: Trial) -> None:
    t.write(NETRC, ".netrc")
    t.get(guarded(t, BASIC))
    assert t.saved() == BODY


@scenario("log in by another netrc file")
def _netrc_file(t: Trial) -> None:
    t.get(guarded(t, BASIC), FILE=t.write(NETRC))
    assert t.saved() == BODY


@scenario("log in by a token")
def _token(t: Trial) -> None:
    sends(t, "Authorization", "Bearer abc", TOKEN="abc")


@scenario("send a cookie")
def _cookie(t: Trial) -> None:
    sends(t, "Cookie", "id=5", NAME="id", VALUE="5")


@scenario("send the cookies of a file")
def _cookies(t: Trial) -> None:
    later = int(time.time()) + 86_400
    line = f"127.0.0.1\tFALSE\t/\tFALSE\t{later}\tid\t5\n"
    t.get(t.serve(), FILE=t.write(f"# Netscape HTTP Cookie File\n{line}"))
    assert [(value or "").rstrip(";") for value in t.asked("Cookie")] == ["id=5"] and t.saved() == BODY


@scenario("write the cookies into a file")
def _jar(t: Trial) -> None:
    t.get(t.serve(Script(body=BODY, header=(("Set-Cookie", "id=canary"),))), FILE="jar")
    assert b"\tid\tcanary\n" in t.saved("jar")


def chain(t: Trial) -> str:
    """Serve a file two redirects away."""
    return t.serve(redirect(t.serve(redirect(t.serve(path="/c")), "/b")))


def paths(t: Trial) -> list[str]:
    return [request.path for request in t.origin.requests]


@scenario("follow redirects")
def _redirects(t: Trial) -> None:
    t.get(chain(t))
    assert paths(t) == ["/a", "/b", "/c"]
    assert BODY in [t.saved(name) for name in t.files()]


@scenario("follow N redirects at most")
def _some_redirects(t: Trial) -> None:
    t.fails(url := chain(t), N=1)
    assert paths(t) == ["/a", "/b"]
    t.get(url, N=2)


@scenario("follow no redirect")
def _no_redirects(t: Trial) -> None:
    t.run(chain(t))
    assert paths(t) == ["/a"]


# Connections

NOWHERE = "http://127.0.0.1:1"


@scenario("go by a proxy")
def _proxy(t: Trial) -> None:
    t.serve(Script(body=BODY), "*")
    t.get("http://example.org/a", PROXY=t.origin.url(""))
    assert [request.target for request in t.origin.requests] == ["http://example.org/a"] and t.saved() == BODY


@scenario("go by no proxy, whatever the environment says")
def _no_proxy(t: Trial) -> None:
    t.environment |= {"http_proxy": NOWHERE, "https_proxy": NOWHERE, "no_proxy": ""}
    t.get(t.serve())
    t.trust_the_ca()
    with Origin(tls=t.server_context()) as origin:
        t.get(origin.serve("/b", Script(body=BODY)))
    assert t.saved() == t.saved("b") == BODY


@scenario("go by no proxy to some hosts")
def _noproxy(t: Trial) -> None:
    t.environment |= {"http_proxy": NOWHERE}
    t.fails(url := t.serve(), LIST="example.org")
    t.get(url, LIST="example.org,127.0.0.1")
    assert t.saved() == BODY


@scenario("trust another CA")
def _ca(t: Trial) -> None:
    with Origin(tls=t.server_context()) as origin:
        t.get(origin.serve("/a", Script(body=BODY)), FILE=t.ca_file)
    assert t.saved() == BODY


@scenario("verify no certificate")
def _insecure(t: Trial) -> None:
    with Origin(tls=t.server_context()) as origin:
        t.plain.fails(url := origin.serve("/a", Script(body=BODY)))
        t.get(url)
    assert t.saved() == BODY


@scenario("show a client certificate")
def _certificate(t: Trial) -> None:
    identity = t.ca.issue_cert("client@example.org")
    certificate = t.write(identity.cert_chain_pems[0].bytes().decode(), "certificate")
    key = t.write(identity.private_key_pem.bytes().decode(), "key")
    context = t.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    t.ca.configure_trust(context)
    t.trust_the_ca()
    with Origin(tls=context) as origin:
        t.get(origin.serve("/a", Script(body=BODY)), FILE=certificate, KEY=key)
    assert t.saved() == BODY


@scenario("accept one public key only")
def _pin(t: Trial) -> None:
    t.trust_the_ca()
    with Origin(tls=t.server_context()) as origin:
        url = origin.serve("/a", Script(body=BODY))
        certificate = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", origin.port)))
        t.fails(url, HASH=b64encode(bytes(32)).decode())
        assert origin.requests == []
        t.get(url, HASH=pin_of(certificate).removeprefix("sha256//"))
    assert t.saved() == BODY


@scenario("speak TLS 1.3 at least")
def _tls_version(t: Trial) -> None:
    t.trust_the_ca()
    context = t.server_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with Origin(tls=context) as old, Origin(tls=t.server_context()) as new:
        t.fails(url := old.serve("/a", Script(body=BODY)))
        t.plain.get(url)
        t.get(new.serve("/b", Script(body=BODY)))
    assert t.saved("b") == BODY


@scenario("connect to another address")
def _resolve(t: Trial) -> None:
    t.serve(Script(body=BODY))
    t.get(f"http://a.example.org:{t.origin.port}/a", HOST="a.example.org", PORT=t.origin.port, ADDRESS="127.0.0.1")
    assert t.asked("Host") == [f"a.example.org:{t.origin.port}"] and t.saved() == BODY


@scenario("connect to another host")
def _connect_to(t: Trial) -> None:
    t.serve(Script(body=BODY))
    t.get("http://a.example.org:81/a", HOST="a.example.org", PORT=81, OTHERHOST="127.0.0.1", OTHERPORT=t.origin.port)
    assert t.asked("Host") == ["a.example.org:81"] and t.saved() == BODY


@scenario("connect from an address")
def _interface(t: Trial) -> None:
    t.get(t.serve(), ADDRESS="127.0.0.2")
    assert t.origin.requests[0].peer[0] == "127.0.0.2"


@scenario("use IPv4 only")
def _ipv4(t: Trial) -> None:
    t.get(t.serve())
    try:
        with Origin(host="::1") as other:
            t.fails(url := other.serve("/b", Script(body=BODY)))
            assert other.connections == 0
            t.plain.get(url)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")


@contextmanager
def unix_server(path: Path) -> Iterator[None]:
    """Answer one request at a Unix socket."""

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            while b"\r\n\r\n" not in connection.recv(65_536):
                pass
            connection.sendall(Script(body=b"by the socket", keep_alive=False).wire)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(20)
        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


@scenario("connect to a Unix socket")
def _unix_socket(t: Trial) -> None:
    with unix_server(t.home / "s"):
        t.get("http://example.org/a", PATH=t.home / "s")
    assert t.saved() == b"by the socket"


@scenario("use several connections for one file")
def _connections(t: Trial) -> None:
    body = BODY * 200
    resource = Resource(body, like=Script(pace=4e6))
    at_once: list[int] = []

    def answer(request: Request) -> Script:
        at_once.append(t.origin.connections - len(t.origin.closed))
        return resource(request)

    t.get(t.serve(answer), N=8)
    assert t.saved() == body and max(at_once) >= 8


@scenario("use mirrors")
def _mirrors(t: Trial) -> None:
    first, second = t.origin.url("/gone/a"), t.serve()
    t.get(FILE=t.write(f"{first}\t{second}\n"), URL=first, MIRROR=second)
    assert t.saved() == BODY and "/gone/a" in paths(t)


# Time


def silent(t: Trial) -> str:
    """Serve what stops in its middle."""
    return t.serve(replace(script := Script(body=BODY), stall_at=script.body_at + 50_000))


@scenario("bound the time in total")
def _timeout(t: Trial) -> None:
    t.fails(silent(t), S=1)
    t.origin.wait_closed()


@scenario("bound the time without a byte")
def _idle(t: Trial) -> None:
    t.fails(silent(t), S=1)
    t.origin.wait_closed()


@scenario("bound the time until it is connected")
def _connect_timeout(t: Trial) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, full(listener):
        t.fails(f"http://127.0.0.1:{listener.getsockname()[1]}/a", S=1)
    t.get(t.serve(), S=1)


@contextmanager
def full(listener: socket.socket) -> Iterator[None]:
    """Have nobody get through to it any more: its queue is full, and it takes nobody out."""
    waiting = []
    try:
        for _ in range(20):
            waiting.append(sock := socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield
    finally:
        for sock in waiting:
            sock.close()


@scenario("give up what is too slow for S seconds")
def _too_slow(t: Trial) -> None:
    t.fails(t.serve(Script(body=BODY, pace=2000)), SIZE=20_480, S=1)
    t.origin.wait_closed()


@scenario("be no faster")
def _rate(t: Trial) -> None:
    """What takes a moment is to take three seconds; curl keeps to its limit roughly, and late."""
    body = bytes(30_000_000)
    url = t.serve(Script(body=body))
    began = time.monotonic()
    t.get(url, SIZE="10M")
    assert t.saved() == body and time.monotonic() - began > 1.2


@scenario("try again, N times")
def _retries(t: Trial) -> None:
    broken = Script(body=BODY, cut_at=0)
    t.get(t.origin.serve("/a", broken, Script(body=BODY)), calm=False, N=1, TRIES=2)
    assert t.saved() == BODY and len(t.origin.requests) == 2
    t.fails(t.serve(broken, "/b"), calm=False, N=1, TRIES=2)
    assert len(t.origin.requests) == 4


@scenario("wait S seconds before each further try")
def _delay(t: Trial) -> None:
    times: list[float] = []

    def answer(request: Request) -> Script:
        times.append(time.monotonic())
        return Script(status=503) if len(times) < 2 else Script(body=BODY)

    t.get(t.serve(answer), calm=False, N=1, S=2)
    assert t.saved() == BODY and times[1] - times[0] > 1.5  # where nothing is said, each waits for a second or less


# Output


@scenario("print nothing")
def _quiet(t: Trial) -> None:
    ended = t.get(t.serve(), calm=False)
    assert (ended.stdout, ended.stderr) == (b"", "") and t.saved() == BODY


@scenario("print the header fields that come")
def _verbose(t: Trial) -> None:
    ended = t.get(t.serve(Script(body=b"x", header=(("ETag", '"canary"'),))), calm=False)
    assert re.search('etag: "canary"', ended.stdout.decode() + ended.stderr, re.IGNORECASE)


@scenario("print JSON")
def _json(t: Trial) -> None:
    printed = t.get(t.serve(), calm=False).stdout.decode().splitlines()
    assert printed and all(isinstance(json.loads(line), dict) for line in printed)


@scenario("print the status in the end")
def _status(t: Trial) -> None:
    assert t.get(t.serve()).stdout == b"200"


OPTIONS = {"wget": "user_agent = Mine/1\n"}


@scenario("read options from a file")
def _config(t: Trial) -> None:
    sends(t, "User-Agent", "Mine/1", FILE=t.write(OPTIONS.get(t.program, "user-agent=Mine/1\n")))


@scenario("read no file of options")
def _no_config(t: Trial) -> None:
    places = {
        "rawdl": ".config/rawdl/config",
        "curl": ".curlrc",
        "wget": ".wgetrc",
        "aria2c": ".config/aria2/aria2.conf",
    }
    place = t.home / places[t.program]
    place.parent.mkdir(parents=True, exist_ok=True)
    t.write(OPTIONS.get(t.program, "user-agent=Mine/1\n"), places[t.program])
    url = t.serve()
    t.plain.get(url, calm=False)
    (t.folder / "a").unlink()
    t.get(url, calm=False)
    assert t.asked("User-Agent")[0] == "Mine/1" != t.asked("User-Agent")[1]
