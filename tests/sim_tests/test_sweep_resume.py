"""A response that breaks after each of its bytes, and what comes then: another run, or another try, brings the file."""

from __future__ import annotations

import ssl
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import rawdl
from rawdl.journal import Journal, believed
from rawdl.proto.ranges import OVERLAP
from tests.origin import Send
from tests.resource import LAST_MODIFIED, Fault, Framing, Resource, redirect
from tests.resuming import Attempt
from tests.scratch import scratch_folder
from tests.sim import Link, Script, World, http_peer
from tests.sim_tests import test_sweep
from tests.sim_tests.fetch import DNS, HOST, LATENCY, assert_nothing_left
from tests.sim_tests.test_sweep import CLOSE_NOTIFY, RECORD, How, every_how, link_for

server, trusting = test_sweep.server, test_sweep.trusting  # fixtures: their handshake is as long each time

BODY = bytes(range(65, 125))
LONG = bytes(n * n // 7 % 256 for n in range(OVERLAP + 300))
BASE = OVERLAP + 80  # of LONG: more than is compared
BREAKS = (rawdl.IncompleteHead, rawdl.IncompleteBody, rawdl.ConnectionLost, rawdl.Timeout)


IN_TWO, IN_THREE = Script(chunk=33), Script(chunk=25)


@dataclass(frozen=True)
class Case:
    """What is downloaded, how it is told, and what is there already."""

    framing: Framing = "content-length"
    part_framing: Framing = "content-length"
    like: Script = IN_THREE
    body: bytes = BODY
    base: int = 0  # bytes that an earlier run has left
    hops: int = 0
    secure: bool = False
    etag: str | None = '"v1"'
    last_modified: str | None = None
    step: int = 1  # of so many offsets one is enough: other cases have the same head

    @property
    def resumable(self) -> bool:
        return self.etag == '"v1"' or (self.etag is None and self.last_modified is not None)

    @property
    def url(self) -> str:
        return f"{'https' if self.secure else 'http'}://{HOST}/{self.hops}"

    @property
    def has_an_end(self) -> bool:
        """Whether a 200 can be known to be complete."""
        return not self.secure or self.framing != "until-close" or self.like.close_notify

    def resource(self) -> Resource:
        resource = Resource(self.body, self.etag, self.last_modified, accept_ranges=None, like=self.like)
        resource.framing, resource.part_framing = self.framing, self.part_framing
        if self.last_modified is None:
            resource.date = None
        return resource

    def answers(self, resource: Resource) -> dict[str, Any]:
        return {"/0": resource} | {f"/{n}": redirect(f"/{n - 1}") for n in range(1, self.hops + 1)}


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
TRAILER = (("X-Sum", "1"), ("X-End", "y"))
CASES = {
    "content-length": Case(),
    "content-length, dated": Case(etag=None, last_modified=LAST_MODIFIED, step=3),
    "content-length, weak": Case(etag='W/"v1"', last_modified=LAST_MODIFIED, step=3),
    "content-length, without a validator": Case(etag=None, step=3),
    "chunked": Case("chunked", "chunked"),
    "chunked, without a validator": Case("chunked", etag=None, step=3),
    "chunked with a trailer": Case("chunked", like=replace(IN_TWO, trailer=TRAILER)),
    "until-close": Case("until-close", "until-close"),
    "until-close, without a validator": Case("until-close", etag=None, step=3),
    "206": Case(body=LONG, base=BASE, like=Script(chunk=1000)),
    "206, chunked": Case("chunked", "chunked", Script(chunk=2000), LONG, BASE),
    "206, until-close": Case("until-close", "until-close", Script(chunk=1000), LONG, BASE),
    "206 that is compared to its end": Case("chunked", base=len(BODY)),
    "redirects": Case(hops=2),
    "redirects to a 206": Case(hops=2, base=20, step=3),
    "103": Case(like=replace(IN_TWO, informational=(HINTS,))),
}
SECURE = {
    "content-length": Case(secure=True),
    "until-close": Case("until-close", secure=True),
    "until-close without close_notify": Case("until-close", like=replace(IN_TWO, close_notify=False), secure=True),
    "206": Case(like=IN_TWO, base=20, secure=True),
}

every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
every_secure_case = pytest.mark.parametrize("case", SECURE.values(), ids=list(SECURE))


# Where it breaks, and what that must come to


class Break(NamedTuple):
    """What of the responses on a connection arrives before it breaks."""

    case: Case
    responses: tuple[Script, ...]
    first: int  # where in the file the body of the last one begins
    at: int  # the TCP byte
    how: How
    nth: int  # response, from 0, is cut ...
    plain: int  # ... after so many of its bytes
    closed: bool  # what ends the stream is a valid end of a body

    @property
    def script(self) -> Script:
        return self.responses[self.nth]

    @property
    def in_head(self) -> bool:
        return self.plain < self.script.body_at

    @property
    def is_harmless(self) -> bool:
        """Whether it takes no other try."""
        if self.nth and not self.plain and self.how != "stall":
            return True  # seen before the connection is used again
        if self.nth < len(self.responses) - 1:
            return not self.in_head  # nobody wants the body of a redirect
        if self.script.framing != "until-close":
            return self.plain == len(self.script.wire)
        if self.script.status == 206:
            return (
                self.closed and self.script.payload_at(self.plain) > 0
            )  # the rest of a short part is simply asked for (R8)
        return self.closed and not self.in_head

    @property
    def there(self) -> int:
        """Return how many bytes of the file there are, then."""
        last = self.nth == len(self.responses) - 1
        return max(self.case.base, self.first + self.script.payload_at(self.plain) if last else 0)

    @property
    def kept(self) -> int:
        """Return how many of them are there for another try."""
        return self.there if self.case.resumable else 0

    @property
    def content(self) -> bytes:
        """Return what a success brings; that a body was cut which ends with the connection, nobody can know."""
        if self.is_harmless and self.script.framing == "until-close" and self.script.status == 200 and self.plain:
            return self.case.body[: self.there]
        return self.case.body

    @property
    def asks_for(self) -> str | None:
        """Return the Range of another try."""
        return f"bytes={max(0, self.kept - OVERLAP)}-" if self.kept else None


class Sweep:
    """Download one case into `folder`, as often as there are bytes at which it may break."""

    def __init__(self, case: Case, folder: Path, tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None) -> None:
        self.case, self.folder, self.path = case, folder, folder / "a"
        self._server = tls[0] if tls else None
        self._client_options = {"tls": tls[1]} if tls else {}
        self._before: dict[Path, bytes] = {}  # what an earlier run has left
        if case.base:
            with self.site(Link()) as (world, resource):
                resource.faults = [Fault(in_body=case.base, kind="rst")]
                assert self.download(world).error
            self._before = {path: path.read_bytes() for path in folder.iterdir()}
        with self.site(Link()) as (world, resource):
            assert self.download(world, retry=rawdl.Retry()).result.resumed_from == case.base
            self._sent = world.conns[0].sent
            self.check_file(case.body)
        self._responses = *(redirect(f"/{n}") for n in reversed(range(case.hops))), resource.log[0].script
        span = resource.log[0].span
        assert span
        self._first = span.first

    @contextmanager
    def site(self, link: Link) -> Iterator[tuple[World, Resource]]:
        """Serve it: the first connection goes by that link, all others by a sound one."""
        for path, data in self._before.items():
            path.write_bytes(data)
        resource = self.case.resource()
        with World() as world:
            peer = http_peer(self.case.answers(resource))
            listener = world.listen(HOST, 443 if self.case.secure else 80, peer, link=link, tls=self._server)
            world.after(DNS + LATENCY, setattr, listener, "link", Link())
            yield world, resource

    def download(self, world: World, **options: Any) -> Attempt:
        """Do it with a new client, of which nothing is left but an idle connection."""
        client = world.client(buffer_size=4096, **self._client_options)
        fetch = Attempt(client, self.case.url, file_path=self.path, progress_interval=0, **options)
        client.run()
        assert_nothing_left(world, client, idle=len(world.sockets) if fetch.outcome[0] == "success" else 0)
        if not world.sockets and not self.case.hops:  # else the pool may look for an idle connection once more
            assert client.next_deadline() is None, "a timer is left"
        return fetch

    def check_file(self, content: bytes) -> None:
        """See that there is the file, and nothing else; take it away."""
        assert list(self.folder.iterdir()) == [self.path]
        assert self.path.read_bytes() == content
        self.path.unlink()

    def check_kept(self, error: rawdl.DownloadError, broken: Break) -> None:
        """See that what is kept is the beginning of the file, with a journal that says so; or nothing."""
        assert isinstance(error, BREAKS), error
        if not broken.kept:
            assert list(self.folder.iterdir()) == []
            return
        part = self.folder / "a.part"
        assert sorted(self.folder.iterdir()) == [part, self.folder / "a.part.json"]
        assert part.read_bytes() == self.case.body[: broken.kept]
        record = Journal(str(part)).load()
        assert record and believed(record, broken.kept) == record.done == ((0, broken.kept),)

    def breaks(self, how: How) -> Iterator[Break]:
        """Yield a break at each byte, but for a sample of those that are in the middle of something."""
        records = [len(act.data) for act in self._responses[-1].acts() if isinstance(act, Send)]
        return self._secure_breaks(how, records) if self._server else self._plain_breaks(how)

    def _plain_breaks(self, how: How) -> Iterator[Break]:
        ends = list(accumulate(len(script.wire) for script in self._responses))
        assert ends[-1] == self._sent
        samples = [self._sample(script) for script in self._responses]
        for at in range(self._sent % self.case.step, self._sent + 1, self.case.step):
            nth = min(bisect_right(ends, at), len(ends) - 1)
            plain = at - (ends[nth - 1] if nth else 0)
            if plain in samples[nth]:
                yield Break(self.case, self._responses, self._first, at, how, nth, plain, closed=how == "fin")

    def _sample(self, script: Script) -> Collection[int]:
        """Return the offsets that count: all, but where there is nothing but payload around, and much of it."""
        assert isinstance(script.body, bytes)
        body, end = len(script.body), len(script.wire)
        if body <= 2 * len(BODY):
            return range(end + 1)
        edges = {*range(0, body, script.chunk), self.case.base - self._first, body - 1}
        spans = [range(script.wire_at(edge) - 3, script.wire_at(edge + 1) + 3) for edge in edges]
        return {*range(script.body_at), *range(0, end, 397), *range(end - 9, end + 1)}.union(*spans)

    def _secure_breaks(self, how: How, records: list[int]) -> Iterator[Break]:
        """Over TLS: what arrives is what is in whole records."""
        script, ends = self._responses[-1], list(accumulate(n + RECORD for n in records))
        announced = script.framing == "until-close" and script.close_notify
        length = ends[-1] + (CLOSE_NOTIFY if announced else 0)
        for at in range(1, length + 1):
            if at % 10 and all(abs(at - end) > 1 for end in (0, *ends, length)):
                continue
            plain = sum(records[: bisect_right(ends, at)])
            broken = Break(self.case, self._responses, self._first, self._sent - length + at, how, 0, plain, False)
            yield broken._replace(closed=announced and at == length)

    def each(self, how: How, check: Callable[[Sweep, Break], None]) -> None:
        """Check each break; of one that is wrong, say which it was."""
        for broken in self.breaks(how):
            try:
                check(self, broken)
            except BaseException as exc:
                exc.add_note(f"{how} at TCP byte {broken.at}: {broken.plain} of response {broken.nth} arrive")
                raise


def run_again(sweep: Sweep, broken: Break) -> None:
    """Try once in each of two runs: the second goes on where the first has ended, or begins anew."""
    with sweep.site(link_for(broken.how, broken.at)) as (world, resource):
        first = sweep.download(world)
        if broken.is_harmless:
            assert first.result.resumed_from == sweep.case.base
        else:
            sweep.check_kept(first.error, broken)
            asked = len(resource.log)
            second = sweep.download(world, retry=rawdl.Retry())
            assert second.result.resumed_from == broken.kept
            assert resource.ranges_asked[asked] == broken.asks_for
            assert len(second.result.attempts) == (not broken.kept and not sweep.case.has_an_end)
        sweep.check_file(broken.content)


def try_again(sweep: Sweep, broken: Break) -> None:
    """Have one task try as often as it takes: all that it tells are progress, and one head."""
    with sweep.site(link_for(broken.how, broken.at)) as (world, resource):
        fetch = sweep.download(world, retry=rawdl.Retry(attempts=2))
        result = fetch.result
        sweep.check_file(broken.content)
        assert fetch.names.count("headers") == 1
        assert all(isinstance(error, BREAKS) for error in result.attempts)
        if broken.is_harmless:
            assert (len(result.attempts), fetch.restarts) == (0, 0)
            return
        assert len(result.attempts) == 1 + (not broken.kept and not sweep.case.has_an_end)
        assert fetch.restarts == (broken.there > broken.kept)
        assert resource.ranges_asked[-len(result.attempts)] == broken.asks_for


every_way = pytest.mark.parametrize("check", [run_again, try_again])


@every_way
@every_how
@every_case
@pytest.mark.contract("N7", "N8", "N9", "N10", "N11", "R14", "T5", "T11", "T24", "T41", "T45", "I1", "I2", "I3", "I8")
def test_at_every_byte(case: Case, how: How, check: Callable[[Sweep, Break], None]) -> None:
    with scratch_folder() as folder:
        Sweep(case, Path(folder)).each(how, check)


@every_way
@every_how
@every_secure_case
@pytest.mark.contract("C7", "L4", "N8", "N9", "N10", "N11", "T24", "T41", "T45", "I1", "I2", "I3", "I8")
def test_at_every_byte_over_TLS(
    case: Case,
    how: How,
    check: Callable[[Sweep, Break], None],
    server: ssl.SSLContext,
    trusting: ssl.SSLContext,
) -> None:
    with scratch_folder() as folder:
        Sweep(case, Path(folder), (server, trusting)).each(how, check)
