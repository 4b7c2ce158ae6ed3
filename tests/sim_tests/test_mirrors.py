"""Mirrors: one after another when the one before has failed, all at once with several connections (RFC 5854, 6249)."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Callable, Iterator
from errno import ECONNRESET
from pathlib import Path
from typing import Any

import pytest

import rawdl
from tests.once import ONE_TRY
from tests.origin import Request, Script
from tests.resource import Fault, Resource, redirect
from tests.resuming import AT_ONCE, BODY, OTHER, SHA256, Attempt
from tests.sim import Link, World, http_peer

A, B, C, D = (f"{letter}.example.org" for letter in "abcd")
GONE = Script(status=404, reason="Not Found", body=b"gone")


class Sites:
    """Several hosts that serve ``/f``, each a `Resource` or a script."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.path = world, folder / "f"
        self.seen: dict[str, list[Request]] = {}
        self.listeners: dict[str, Any] = {}

    def serve(self, host: str, answer: Any, **link: Any) -> str:
        seen = self.seen.setdefault(host, [])

        def respond(request: Request) -> Script:
            seen.append(request)
            return answer if isinstance(answer, Script) else answer(request)

        peer = http_peer({"/f": respond})
        self.listeners[host] = self.world.listen(host, 80, peer, link=Link(segment=1000, **link))
        return f"http://{host}/f"

    def get(self, url: str, **options: Any) -> Attempt:
        client = self.world.client(retry=options.pop("retry", ONE_TRY))
        attempt = Attempt(client, url, file_path=self.path, **options)
        client.run()
        client.close()
        return attempt


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Sites]:
    with World() as world:
        yield Sites(world, tmp_path)


def break_all(world: World) -> None:
    for socket in list(world.sockets.values()):
        socket.fail(ECONNRESET)


# One after another


@pytest.mark.parametrize(
    "trouble",
    [GONE, Script(status=503, reason="Busy", body=b""), Script(raw=b"nonsense\r\n\r\n"), Script(cut_at=0, body=b"x")],
)
def test_the_next_is_tried_when_one_has_failed(sites: Sites, trouble: Script):
    urls = [sites.serve(A, trouble), sites.serve(B, trouble), sites.serve(C, Resource(BODY))]
    taken = sites.get(urls[0], mirrors=urls[1:])
    assert sites.path.read_bytes() == BODY
    assert taken.result.url == urls[2]
    assert len(taken.result.attempts) == 2
    assert taken.names.count("headers") == 1
    assert [len(sites.seen[host]) for host in (A, B, C)] == [1, 1, 1]


def test_the_last_is_the_answer(sites: Sites):
    urls = [sites.serve(A, GONE), sites.serve(B, GONE)]
    taken = sites.get(urls[0], mirrors=urls[1:])
    assert (taken.result.status_code, taken.result.url) == (404, urls[1])
    assert [type(error) for error in taken.result.attempts] == [rawdl.StatusError]
    taken = sites.get(urls[0], mirrors=urls[1:], fail_on_status=True)
    assert isinstance(taken.error, rawdl.StatusError)
    assert taken.error.attempts != ()


@pytest.mark.parametrize("limit", [1, 2])
def test_A12_redirects_count_over_the_whole_task(sites: Sites, limit: int):
    """And all are told of, those that led to a mirror's failure too."""
    first = sites.serve(A, redirect(sites.serve(B, GONE)))
    mirror = sites.serve(C, redirect(sites.serve(D, Resource(BODY))))
    taken = sites.get(first, mirrors=[mirror], redirects=rawdl.Redirects(limit=limit))
    if limit == 1:
        assert isinstance(taken.error, rawdl.RedirectError)
        assert "1 have been followed, and the limit is 1" in str(taken.error)
        return
    assert sites.path.read_bytes() == BODY
    assert taken.result.redirects == (first, mirror)


def test_a_mirror_goes_on_with_what_is_there_if_it_has_the_same_version(sites: Sites):
    broken = Resource(BODY, faults=[Fault(in_body=20_000)])
    whole = Resource(BODY)
    taken = sites.get(sites.serve(A, broken), mirrors=[sites.serve(B, whole)])
    assert sites.path.read_bytes() == BODY
    assert whole.ranges_asked == [f"bytes={20_000 - 4096}-"]
    assert taken.restarts == 0


def test_a_mirror_of_another_version_begins_anew(sites: Sites):
    broken = Resource(BODY, faults=[Fault(in_body=20_000)])
    other = Resource(OTHER, etag='"v2"')
    taken = sites.get(sites.serve(A, broken), mirrors=[sites.serve(B, other)])
    assert sites.path.read_bytes() == OTHER
    assert taken.restarts == 1


def test_H12_a_mirror_is_tried_after_a_wrong_checksum(sites: Sites):
    url = sites.serve(A, Resource(OTHER, etag='"x"'))
    taken = sites.get(url, mirrors=[sites.serve(B, Resource(BODY))], checksum=SHA256)
    assert sites.path.read_bytes() == BODY
    assert [type(error) for error in taken.result.attempts] == [rawdl.ChecksumError]
    assert taken.result.checksum == SHA256


def test_no_mirror_helps_against_the_disk_or_the_callers_own_limits(sites: Sites):
    other = sites.serve(B, Resource(BODY))
    taken = sites.get(sites.serve(A, Resource(BODY)), mirrors=[other], limits=rawdl.Limits(body=100))
    assert isinstance(taken.error, rawdl.TooLarge)
    sites.path.mkdir()
    taken = sites.get(f"http://{A}/f", mirrors=[other])
    assert isinstance(taken.error, rawdl.StorageError)
    assert sites.seen[B] == []


def test_A1_what_may_be_a_secret_stays_with_the_first(sites: Sites):
    url = sites.serve(A, GONE)
    header = {"Authorization": "Basic c2VjcmV0", "Cookie": "c=1", "X-Token": "1", "Accept-Language": "de"}
    sites.get(url, mirrors=[sites.serve(B, Resource(BODY))], header=header)
    [request] = sites.seen[B]
    assert [request.field(name) for name in header] == [None, None, None, "de"]


@pytest.mark.parametrize("wrong", ["http://a.example.org/a", 5, [5], ["ftp://x/"], ["http://"]])
def test_S11_what_is_no_mirror(sites: Sites, wrong: Any):
    client = sites.world.client()
    with pytest.raises((TypeError, ValueError)):
        client.download_file(url=f"http://{A}/f", mirrors=wrong)


# All at once


def test_several_connections_use_all_of_them(sites: Sites):
    first, second = Resource(BODY), Resource(BODY, etag='"elsewhere"')
    urls = [sites.serve(A, first, bandwidth=20_000.0), sites.serve(B, second, bandwidth=20_000.0)]
    taken = sites.get(urls[0], mirrors=urls[1:], connections=2, min_segment=1000, checksum=SHA256)
    assert sites.path.read_bytes() == BODY
    assert taken.result.attempts == ()
    assert second.sent > 10_000
    [asked, *_] = sites.seen[B]
    assert asked.field("Range") is not None
    assert asked.field("If-Range") is None  # nobody knows its validator


@pytest.mark.parametrize("other", [Resource(BODY + b"x"), Resource(BODY[:-1]), Resource(BODY, ranges="ignore"), GONE])
def test_one_that_does_not_have_it_is_left_alone(sites: Sites, other: Any):
    urls = [sites.serve(A, Resource(BODY), bandwidth=20_000.0), sites.serve(B, other, bandwidth=20_000.0)]
    taken = sites.get(urls[0], mirrors=urls[1:], connections=3, min_segment=1000)
    assert sites.path.read_bytes() == BODY
    assert (taken.result.attempts, taken.restarts) == ((), 0)


@pytest.mark.parametrize("connections", [2, 4])
@pytest.mark.parametrize("dead", [A, B])
def test_when_one_is_gone_the_other_brings_the_rest(dead: str, connections: int, sites: Sites):
    """Down to the last bytes, for which there is one connection only."""
    whole = [Resource(BODY), Resource(BODY, etag='"elsewhere"')]
    urls = [sites.serve(host, answer, bandwidth=20_000.0) for host, answer in zip((A, B), whole, strict=True)]
    sites.world.after(0.5, setattr, sites.listeners[dead], "connect", "refuse")
    sites.world.after(0.5, break_all, sites.world)
    options = {"connections": connections, "min_segment": 1000, "retry": rawdl.Retry(backoff=1.0, jitter="none")}
    taken = sites.get(urls[0], mirrors=urls[1:], **options)
    assert sites.path.read_bytes() == BODY
    assert taken.restarts == 0
    assert sites.world.elapsed < 5


def test_H12_what_does_not_fit_together_is_fetched_anew_from_one(sites: Sites):
    """A mirror of the same length and other bytes: only a checksum can tell.  The first may be right by itself."""
    urls = [sites.serve(A, Resource(BODY), bandwidth=20_000.0), sites.serve(B, Resource(OTHER), bandwidth=20_000.0)]
    taken = sites.get(urls[0], mirrors=urls[1:], connections=2, min_segment=1000, checksum=SHA256)
    assert sites.path.read_bytes() == BODY
    assert (taken.restarts, [type(error) for error in taken.result.attempts]) == (1, [rawdl.ChecksumError])
    assert [update.total_bytes_written for update in taken.of("progress") if update.restarted] == [0]


def test_H12_and_then_from_the_next(sites: Sites):
    urls = [sites.serve(A, Resource(OTHER), bandwidth=20_000.0), sites.serve(B, Resource(BODY), bandwidth=20_000.0)]
    taken = sites.get(urls[0], mirrors=urls[1:], connections=2, min_segment=1000, checksum=SHA256)
    assert sites.path.read_bytes() == BODY
    assert (taken.restarts, [type(error) for error in taken.result.attempts]) == (2, [rawdl.ChecksumError] * 2)


# Where they are told of


def test_links_name_mirrors_where_a_digest_is_promised(sites: Sites):
    digest = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    link = f'<http://{B}/f>; rel=duplicate; pri=1, <http://{C}/f>; rel="duplicate"; pri=2'
    like = Script(header=(("Link", link), ("Repr-Digest", f"sha-256=:{digest}:")))
    url = sites.serve(A, Resource(BODY, like=like, faults=[Fault(in_body=20_000)]))
    sites.serve(B, GONE)
    sites.serve(C, Resource(BODY))
    assert sites.get(url).result.url == f"http://{C}/f"
    assert sites.path.read_bytes() == BODY


@pytest.mark.parametrize("cut", [20_000, 0])
def test_H12_what_a_link_leads_to_must_be_what_was_promised(cut: int, sites: Sites):
    """Even if the mirror makes the download begin anew, and promises nothing itself."""
    digest = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    like = Script(header=(("Link", f"<http://{B}/f>; rel=duplicate"), ("Repr-Digest", f"sha-256=:{digest}:")))
    url = sites.serve(A, Resource(BODY, like=like, faults=[Fault(in_body=cut)]))
    sites.serve(B, Resource(OTHER, etag='"v2"'))
    assert isinstance(sites.get(url).error, rawdl.ChecksumError)
    assert not sites.path.exists()


@pytest.mark.usefixtures("leaves_parts")
def test_links_without_a_digest_are_not_followed(sites: Sites):
    like = Script(header=(("Link", f"<http://{B}/f>; rel=duplicate"),))
    url = sites.serve(A, Resource(BODY, like=like, faults=[Fault(in_body=20_000)]))
    sites.serve(B, Resource(BODY))
    assert isinstance(sites.get(url).error, rawdl.IncompleteBody)
    assert sites.seen[B] == []


def metalink(*files: str) -> bytes:
    return f'<metalink xmlns="urn:ietf:params:xml:ns:metalink">{"".join(files)}</metalink>'.encode()


def described(*urls: str, name: str = "f", size: int = len(BODY), body: bytes = BODY) -> Script:
    digest = hashlib.sha256(body).hexdigest()
    links = "".join(f"<url>{url}</url>" for url in urls)
    file = f'<file name="{name}"><size>{size}</size><hash type="sha-256">{digest}</hash>{links}</file>'
    return Script(body=metalink(file, '<file name="another"/>'))


DESCRIBED = (("Link", f'<http://{D}/f>; rel=describedby; type="application/metalink4+xml"'),)


def cut(header: tuple[tuple[str, str], ...] = DESCRIBED) -> Resource:
    return Resource(BODY, like=Script(header=header), faults=[Fault(in_body=20_000)])


def test_a_document_that_a_response_names_tells_of_mirrors(sites: Sites):
    """It is asked for when one is needed, with nothing that could be a secret."""
    url, there = sites.serve(A, cut()), Resource(BODY)
    sites.serve(D, described(f"http://{A}/f", sites.serve(B, GONE), sites.serve(C, there)))
    taken = sites.get(url, header={"Authorization": "secret", "Range": None})
    assert sites.path.read_bytes() == BODY
    assert (taken.result.url, taken.result.checksum, taken.restarts) == (f"http://{C}/f", SHA256, 0)
    assert there.ranges_asked == [f"bytes={20_000 - 4096}-"]
    [asked] = sites.seen[D]
    assert (asked.field("Authorization"), asked.field("Range")) == (None, None)


def test_a_document_that_a_redirect_names(sites: Sites):
    sites.serve(A, Script(status=302, reason="Found", header=(("Location", f"http://{B}/f"), *DESCRIBED)))
    sites.serve(B, GONE)
    sites.serve(D, described(sites.serve(C, Resource(BODY))))
    assert sites.get(f"http://{A}/f", fail_on_status=True).result.url == f"http://{C}/f"
    assert sites.path.read_bytes() == BODY


def test_no_document_is_asked_for_while_all_goes_well(sites: Sites):
    sites.serve(D, described(f"http://{B}/f"))
    taken = sites.get(sites.serve(A, Resource(BODY, like=Script(header=DESCRIBED))))
    assert (taken.result.checksum, sites.seen[D]) == ("", [])


def test_H12_what_a_document_leads_to_must_be_what_it_promises(sites: Sites):
    url, wrong = sites.serve(A, cut()), sites.serve(B, Resource(OTHER, etag='"v2"'))
    sites.serve(D, described(wrong, sites.serve(C, Resource(BODY))))
    taken = sites.get(url)
    assert sites.path.read_bytes() == BODY
    assert [type(error) for error in taken.result.attempts] == [rawdl.IncompleteBody, rawdl.ChecksumError]


def test_a_document_is_asked_for_without_a_coding(sites: Sites):
    """Whatever the file may have: nothing takes it off a document."""
    url, document = sites.serve(A, cut()), described(sites.serve(B, Resource(BODY)))

    def respond(request: Request) -> Script:
        if "gzip" not in (request.field("Accept-Encoding") or ""):
            return document
        return Script(body=gzip.compress(document.body), header=(("Content-Encoding", "gzip"),))

    sites.serve(D, respond)
    assert sites.get(url, decode=True).result.url == f"http://{B}/f"
    assert sites.path.read_bytes() == BODY


def test_a_document_helps_a_sink_that_can_begin_anew(sites: Sites):
    url, sink = sites.serve(A, cut()), rawdl.MemorySink()
    sites.serve(D, described(sites.serve(B, Resource(BODY))))
    client = sites.world.client(retry=ONE_TRY)
    assert client.download_file(url=url, sink=sink).result().checksum == SHA256
    assert sink.getvalue() == BODY


def naming(sites: Sites, answer: Resource, *hosts: str) -> Callable[[Request], Script]:
    """Serve a resource that tells of mirrors and of a document, and promises BODY; it is not asked for ever."""
    digest = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    link = ", ".join(f"<http://{host}/f>; rel=duplicate" for host in hosts)
    answer.like = Script(header=(("Link", link), ("Repr-Digest", f"sha-256=:{digest}:"), *DESCRIBED))

    def respond(request: Request) -> Script:
        assert len(answer.log) < 20, "it goes on for ever"
        return answer(request)

    return respond


@pytest.mark.usefixtures("leaves_parts")
@pytest.mark.parametrize("retry", [ONE_TRY, AT_ONCE])
@pytest.mark.parametrize("wrong", [True, False])
@pytest.mark.parametrize("user", ["", "u:p@"])
def test_mirrors_that_name_one_another_have_a_turn_each(sites: Sites, wrong: bool, user: str, retry: rawdl.Retry):
    """By Link, and by the document that all of them name."""
    body, faults = (OTHER, []) if wrong else (BODY, [Fault(in_body=0)] * 20)
    hosts = {A: (B, C), B: (A, C), C: (A, B)}
    for host, others in hosts.items():
        sites.serve(host, naming(sites, Resource(body, faults=list(faults)), *others))
    sites.serve(D, described(*(f"http://{host}/f" for host in hosts)))
    error = sites.get(f"http://{user}{A}/f", retry=retry).error
    assert isinstance(error, rawdl.ChecksumError if wrong else rawdl.IncompleteBody)
    assert [len(sites.seen[host]) for host in hosts] == [1 if wrong else retry.attempts] * 3


@pytest.mark.usefixtures("leaves_parts")
@pytest.mark.parametrize(
    "document",
    [
        GONE,
        Script(body=b"<!DOCTYPE x>"),
        Script(body=metalink(f'<file name="f"><url>http://{B}/f</url></file>')),
        Script(body=metalink('<file name="f"><hash type="md5">' + "0" * 32 + f"</hash><url>http://{B}/f</url></file>")),
        described(f"http://{B}/f", name="g"),
        described(f"http://{B}/f", size=len(BODY) + 1),
        described(),
        Script(stall_at=0, body=b"x"),
    ],
    ids=["none", "no XML", "no hash", "weak hash", "another file", "another size", "no mirror", "stalls"],
)
def test_a_document_that_is_of_no_use(sites: Sites, document: Script):
    """The failure is that of the download, and the mirror is left alone."""
    url = sites.serve(A, cut())
    sites.serve(D, document)
    sites.serve(B, Resource(BODY))
    assert isinstance(sites.get(url).error, rawdl.IncompleteBody)
    assert (len(sites.seen[D]), sites.seen[B]) == (1, [])


@pytest.mark.usefixtures("leaves_parts")
@pytest.mark.parametrize("how", ["abort", "close", "total"])
def test_T29_T36_a_document_that_does_not_come_holds_nothing_up(how: str, sites: Sites):
    url = sites.serve(A, cut())
    sites.serve(D, Script(stall_at=0, body=b"x"))
    client = sites.world.client(retry=ONE_TRY, max_concurrent=1)
    attempt = Attempt(client, url, file_path=sites.path, timeout=5.0 if how == "total" else None)
    client.run(1)
    assert len(sites.seen[D]) == 1
    if how == "abort":
        attempt.task.abort()
    if how != "close":
        client.run()
    client.close()
    assert type(attempt.error) is (rawdl.Timeout if how == "total" else rawdl.Aborted)
    assert sites.world.elapsed < 6


@pytest.mark.parametrize("first", [f"http://{A}/f", f"http://u:canary@{A}/f"])
def test_I4_A6_a_document_gets_no_credentials_of_its_own(sites: Sites, tmp_path: Path, first: str):
    """Neither what is the client's nor what a netrc file has for any host: it is a server that names the document."""
    sites.serve(A, cut())
    sites.serve(D, described(sites.serve(C, Resource(BODY))))
    netrc = tmp_path / "netrc"
    netrc.write_text("default login u password canary\n")
    with sites.world.client(retry=ONE_TRY, auth=("u", "canary"), netrc=str(netrc)) as client:
        assert client.download_file(url=first, file_path=sites.path).result().url == f"http://{C}/f"
    assert sites.seen[A][0].field("Authorization") is not None
    assert [sites.seen[host][0].field("Authorization") for host in (C, D)] == [None, None]


@pytest.mark.usefixtures("leaves_parts")
@pytest.mark.parametrize("relation", ["duplicate", 'describedby; type="application/metalink4+xml"'])
def test_I4_a_mirror_does_not_choose_what_the_first_is_asked_with_credentials(sites: Sites, relation: str):
    digest = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    asked: list[tuple[str, str | None]] = []

    def naming(link: str) -> Callable[[Request], Script]:
        header = (("Link", link), ("Repr-Digest", f"sha-256=:{digest}:"))
        return Resource(BODY, like=Script(header=header), faults=[Fault(in_body=10_000)])

    first = naming(f"<http://{B}/f>; rel=duplicate")

    def respond(request: Request) -> Script:
        asked.append((request.target, request.field("Authorization")))
        return first(request) if request.target == "/f" else GONE

    sites.world.listen(A, 80, http_peer(respond), link=Link(segment=1000))
    sites.serve(B, naming(f"<http://{A}/other>; rel={relation}"))
    sites.get(f"http://{A}/f", auth=("u", "canary"))
    assert [target for target, _ in asked] == ["/f", "/other"]
    assert [field is None for _, field in asked] == [False, True]


def test_a_document_is_asked_for_by_the_way_of_its_task(sites: Sites):
    """The task's own proxy and limits are the document's as well."""
    ways: list[str] = []

    def forward(request: Request) -> Script:
        ways.append(request.target)
        answers = {f"http://{A}/f": cut(), f"http://{D}/f": described(f"http://{C}/f"), f"http://{C}/f": Resource(BODY)}
        answer = answers[request.target]
        return answer if isinstance(answer, Script) else answer(request)

    sites.world.listen("p.example.org", 3128, http_peer(forward), link=Link(segment=1000))
    taken = sites.get(f"http://{A}/f", proxy="http://p.example.org:3128")
    assert taken.result.url == f"http://{C}/f"
    assert ways == [f"http://{host}/f" for host in (A, D, C)]


@pytest.mark.usefixtures("leaves_parts")
def test_a_document_that_there_is_no_way_to(sites: Sites, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("https_proxy", "nonsense://")
    link = (("Link", f'<https://{D}/f>; rel=describedby; type="application/metalink4+xml"'),)
    taken = sites.get(sites.serve(A, cut(link)))
    assert isinstance(taken.error, rawdl.IncompleteBody)


@pytest.mark.parametrize("connections", [1, 2])
def test_a_mirror_that_there_is_no_way_to(sites: Sites, monkeypatch: pytest.MonkeyPatch, connections: int):
    """That is a failure of the mirror, and of nothing else."""
    monkeypatch.setenv("https_proxy", "nonsense://")
    url = sites.serve(A, GONE if connections == 1 else Resource(BODY), bandwidth=20_000.0)
    mirrors = [f"https://{B}/f", sites.serve(C, Resource(BODY))]
    taken = sites.get(url, mirrors=mirrors, connections=connections, min_segment=1000, checksum=SHA256)
    assert sites.path.read_bytes() == BODY
    assert taken.result.checksum == SHA256


def test_I4_a_metalink_document_gets_the_clients_credentials_for_nobody(sites: Sites, tmp_path: Path):
    sites.serve(A, Resource(BODY))
    document = metalink(f'<file name="f"><url>http://{A}/f</url></file>')
    with sites.world.client(auth=("u", "canary")) as client:
        client.download_metalink(document, tmp_path)[0].result()
        client.download_metalink(document, tmp_path, auth=("u", "p"))[0].result()
    assert [request.field("Authorization") is not None for request in sites.seen[A]] == [False, True]


def test_a_metalink_document_is_a_task_for_each_file(sites: Sites, tmp_path: Path):
    sites.serve(A, GONE)
    sites.serve(B, Resource(BODY))
    digest = SHA256.removeprefix("sha256:")
    urls = f'<url priority="2">http://{B}/f</url><url priority="1">http://{A}/f</url>'
    right = f'<file name="../right"><hash type="sha-256">{digest}</hash><hash type="md5">{"0" * 32}</hash>{urls}</file>'
    wrong = f'<file name="wrong"><hash type="sha-256">{"0" * 64}</hash><url>http://{B}/f</url></file>'
    client = sites.world.client()
    tasks = client.download_metalink(metalink(right, wrong, '<file name="nowhere"/>'), tmp_path)
    client.run()
    assert tasks[0].result().checksum == SHA256
    assert [type(task.exception()) for task in tasks[1:]] == [rawdl.ChecksumError, rawdl.InvalidURL]
    assert [path.name for path in tmp_path.iterdir()] == ["right"]


def test_what_is_no_metalink_document(sites: Sites):
    with pytest.raises(rawdl.ProtocolError):
        sites.world.client().download_metalink(b"<!DOCTYPE x><x/>")
