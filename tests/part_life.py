"""A file with its part and its journal, the server that it comes from, and what may befall them on the way.

    life = Life(folder, Version(body))
    life.run(Plan(checksum=True))          # a download; whatever comes of it is looked at
    kill(life, Plan(), room=5000)          # in a process that dies when that much is written
    with Disk(fill_up, room=5000).installed(): ...
    life.check()                           # what must hold at any time

What holds are I1 (the file is whole or not there), I2 (success means all of it) and I3 (a part is of one version).
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import rawdl
from rawdl.journal import Journal, Ranges, Record, believed, key_of
from rawdl.proto.ranges import OVERLAP
from tests.origin import Request
from tests.resource import LAST_MODIFIED, Fault, Resource
from tests.resuming import Attempt
from tests.sim import Link, Script, World, http_peer
from tests.sim_tests.fetch import HOST, URL, assert_nothing_left

PACE = 1500  # bytes per second: slow enough for some checkpoints
SEGMENT = 500
TO_SHARE = 1000  # bytes: so many must be missing for several connections
KILLED = -9  # how a process ends by SIGKILL

# What happens to the disk, and to the process


class Disk:
    """Stand between rawdl and its files: after so many bytes, or at the n-th call that changes something, do `then`."""

    CHANGES = ("open", "write", "writev", "pwrite", "ftruncate", "fdatasync", "fsync", "replace", "unlink", "close")

    def __init__(self, then: Callable[[], object], *, room: int | None = None, calls: int | None = None) -> None:
        self._then, self._room, self._calls = then, room, calls

    @contextmanager
    def installed(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in self.CHANGES:
                patch.setattr(os, name, self._watched(getattr(os, name)))
            patch.setattr(os, "writev", lambda fd, pieces: os.write(fd, b"".join(pieces)))
            yield

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        limited: dict[str, Callable[..., Any]] = {
            "write": self._write,
            "pwrite": self._write,
            "ftruncate": self._truncate,
        }
        what = partial(limited[call.__name__], call) if call.__name__ in limited else call

        def watched(*args: Any, **options: Any) -> Any:
            if self._calls is not None:
                self._calls -= 1
                if self._calls < 0:
                    self._then()
            return what(*args, **options)

        return watched

    def _write(self, write: Callable[..., int], fd: int, data: Any, *offset: int) -> int:
        """Write what there is room for, as a kernel does; the next call fails."""
        if self._room is None or not stat.S_ISREG(os.fstat(fd).st_mode):
            return write(fd, data, *offset)
        if len(data) and not self._room:
            self._then()
        n = write(fd, data[: self._room], *offset)
        self._room -= n
        return n

    def _truncate(self, truncate: Callable[[int, int], None], fd: int, size: int) -> None:
        freed = os.fstat(fd).st_size - size
        truncate(fd, size)
        if self._room is not None:
            self._room += max(0, freed)


def fill_up() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(action: Callable[[], object]) -> int:
    """Do something in a process that may die of it, and return how it ended.

    A killed process leaves its files as they are in that moment, its locks to the kernel, and a journal whose owner is
    dead; what only forgets its objects in this process does none of that, since the owner goes on living.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the other thread is faulthandler's
        child = os.fork()
    if not child:
        code = 1
        try:
            signal.alarm(20)  # hang guard
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# The server


class Version(NamedTuple):
    """What the server has, at some time."""

    body: bytes
    etag: str | None = '"v0"'
    last_modified: str | None = LAST_MODIFIED

    @property
    def validator(self) -> tuple[str, str] | None:
        """Return what stands in the journal of a part of this version."""
        if self.etag is None:
            return None if self.last_modified is None else ("last-modified", self.last_modified)
        return None if self.etag.startswith("W/") else ("etag", self.etag)


class Server:
    """One resource in the course of time."""

    def __init__(self, version: Version) -> None:
        self.versions = [version]
        # Where there are versions of which the server says that they are one, though a single byte differs: that goes
        # unnoticed, unless it is among those that are compared, or there is a checksum.
        self.alike: set[int] = set()
        self.resource = Resource(*version)
        self.fault: Fault | None = None  # of the next response, at most at its end
        self.next: Version | None = None  # what it has after the next request
        self.answered: list[Version] = []  # which version each request has met

    @property
    def version(self) -> Version:
        return self.versions[-1]

    def __call__(self, request: Request) -> Script:
        self.answered.append(self.version)
        script = self.resource(request)
        if self.fault:
            fault, self.fault = self.fault, None
            if fault.in_body is not None:
                assert isinstance(script.body, bytes)
                fault = replace(fault, in_body=min(fault.in_body, len(script.body)))
            script = fault.strike(script)
        if self.next:
            self.change(self.next)
        return script

    def change(self, version: Version) -> None:
        self.next = None
        for other in self.versions:
            if version.validator and other.validator == version.validator and len(other.body) == len(version.body):
                places = differences(other.body, version.body)
                self.alike |= places if len(places) == 1 else set()
        self.versions.append(version)
        self.resource.change(*version)

    def forget(self) -> None:
        """Forget what was asked."""
        self.answered.clear()
        self.resource.log.clear()


def differences(one: bytes, other: bytes, start: int = 0, stop: int | None = None) -> set[int]:
    """Return where two contents differ, as far as they have both."""
    one, other = one[start:stop], other[start:stop]
    return set() if one == other else {n for n, (a, b) in enumerate(zip(one, other, strict=False), start) if a != b}


def covers(ranges: Ranges, start: int, stop: int) -> bool:
    return any(first <= start and stop <= end for first, end in ranges)


# One life, and what holds all along


class Plan(NamedTuple):
    """How to download."""

    resume: bool | str = "auto"
    checksum: bool = False  # of what the server has in the beginning
    attempts: int = 3
    durable: bool = False
    connections: int = 1


class Claim(NamedTuple):
    """Which bytes the journal says to be in the part, as far as the next download would believe it."""

    record: Record | None
    ranges: Ranges = ()

    @property
    def end(self) -> int:
        return self.ranges[-1][1] if self.ranges else 0

    def usable(self, plan: Plan) -> Ranges:
        """Return those that a download can go on with; where it will not share the work, the beginning and no more."""
        if plan.resume is False:
            return ()
        beginning = self.ranges[:1] if self.ranges and self.ranges[0][0] == 0 else ()
        total = self.record.total if self.record else None
        shares = plan.connections > 1 and total is not None and total - sum(stop for _, stop in beginning) >= TO_SHARE
        return self.ranges if shares else beginning


ENDS = (
    rawdl.Aborted,
    rawdl.ChecksumError,
    rawdl.ConnectionLost,
    rawdl.IncompleteBody,
    rawdl.IncompleteHead,
    rawdl.RangeError,
    rawdl.StatusError,
    rawdl.StorageError,
    rawdl.Timeout,
)


class Life:
    """A file, its part and its journal in a folder, and the server that they come from."""

    def __init__(self, folder: Path, version: Version) -> None:
        self.server = Server(version)
        self.file, self.part = folder / "a", folder / "a.part"
        self.journal = folder / "a.part.json"
        self.uptime = 1000.0  # seconds: what the monotonic clock shows when a download begins
        self.whole: bytes | None = None  # what the file has
        self.edited: set[int] = set()  # which bytes of the part somebody else wrote

    def names(self) -> list[str]:
        return sorted(os.listdir(self.file.parent))

    @property
    def claim(self) -> Claim:
        record = Journal(str(self.part)).load()
        if record is None or record.url_key != key_of(URL) or not self.part.exists():
            return Claim(record)
        size = self.part.stat().st_size
        claim = Claim(record, believed(record, size))
        return claim if claim.end <= size else Claim(record)

    # Downloading

    def download(self, plan: Plan, abort_at: int | None = None) -> Attempt:
        """Do it with a new client, in a new world."""
        with World() as world:
            world.now = self.uptime
            world.listen(HOST, 80, http_peer(self.server), link=Link(bandwidth=PACE, segment=SEGMENT))
            client = world.client(retry=rawdl.Retry(attempts=plan.attempts, jitter="none"))
            options: dict[str, Any] = {"resume": plan.resume, "durable": plan.durable, "file_path": self.file}
            options |= {"connections": plan.connections, "min_segment": TO_SHARE // 2}
            if plan.checksum:
                options["checksum"] = f"sha256:{sha256(self.server.version.body).hexdigest()}"
            fetch = Attempt(client, URL, progress_interval=0, fail_on_status=True, **options)
            if abort_at is not None:
                fetch.react("progress", lambda at: fetch.task.abort() if at.total_bytes_written >= abort_at else None)
            client.run()
            assert_nothing_left(world, client, idle=len(world.sockets))
        return fetch

    def run(self, plan: Plan, abort_at: int | None = None) -> rawdl.DownloadResult | rawdl.DownloadError:
        """Download, and see that what comes of it is right."""
        if self.server.next and self.server.next.validator == self.server.version.validator:
            plan = plan._replace(connections=1)  # several would not notice: their bytes do not overlap
        claim, kept = self.claim, self.part.read_bytes() if self.part.exists() else b""
        resumes = self._can_go_on(claim, kept)
        self.server.forget()
        end = self.download(plan, abort_at).end
        self._check_requests()
        if isinstance(end, rawdl.DownloadResult):
            self._check_success(plan, claim)
            assert not resumes or end.resumed_from == sum(stop - start for start, stop in claim.usable(plan))
        else:
            self._check_failure(plan, end, claim, kept)
            if resumes and isinstance(end, rawdl.ConnectionLost | rawdl.ProtocolError | rawdl.Timeout):
                assert all(covers(self.claim.ranges, *span) for span in claim.usable(plan)), "what was there is lost"
        return end

    def _can_go_on(self, claim: Claim, kept: bytes) -> bool:
        """Whether there is no reason not to continue with what is kept."""
        record, server, version = claim.record, self.server, self.server.version
        if record is None or server.next or server.resource.ranges not in ("honour", "end-high"):
            return False
        if record.validator != version.validator or record.total not in (None, len(version.body)):
            return False
        return all(kept[start:stop] == version.body[start:stop] for start, stop in claim.ranges)

    def _check_requests(self) -> None:
        """T45: Range goes with a strong validator, or not at all."""
        for served in self.server.resource.log:
            condition = served.request.field("If-Range")
            assert (served.request.field("Range") is None) == (condition is None)
            assert condition is None or not condition.startswith("W/")

    def _check_success(self, plan: Plan, claim: Claim) -> None:
        """See that the file is what the server had, in the response that completed it."""
        served, data = self.server.resource.log[-1], self.file.read_bytes()
        assert self.names() == ["a"]
        if served.status == 416:  # of the version that was there already
            assert any(self._agree(data, version.body) for version in self.server.versions)
        elif plan.connections > 1:
            noticed = {n for start, stop in claim.usable(plan) for n in range(max(start, stop - OVERLAP), stop)}
            bodies = [version.body for version in self.server.answered if len(version.body) == len(data)]
            assert any(differences(data, body) <= self.edited - noticed | self.server.alike for body in bodies)
        else:
            since, body = served.span.first if served.span else 0, self.server.answered[-1].body
            assert data[since:] == body[since:]
            assert len(data) == len(body) and self._agree(data[:since], body)
        if plan.checksum:
            assert data in [version.body for version in self.server.versions]
        self.whole = data

    def _check_failure(self, plan: Plan, error: rawdl.DownloadError, claim: Claim, kept: bytes) -> None:
        """See that what is left can be continued, or else that nothing is left."""
        assert type(error) in ENDS, repr(error)
        left = set(self.names()) - {"a"}
        if isinstance(error, rawdl.RangeError):
            assert plan.resume is True
            data = self.part.read_bytes()
            for start, stop in claim.usable(plan):
                assert data[start:stop] == kept[start:stop] and covers(self.claim.ranges, start, stop)
            assert "a.part" in left
        elif left:
            assert left == {"a.part", "a.part.json"} and self.claim.ranges and plan.resume is not False
            assert not isinstance(error, rawdl.ChecksumError)
            assert plan.resume is True or not isinstance(error, rawdl.Aborted)

    # What holds, whatever was done

    def check(self) -> None:
        """I1: the file is as the last success left it.  I3: the part is the beginning of the version in the journal."""
        assert (self.file.read_bytes() if self.file.exists() else None) == self.whole
        claim = self.claim
        if claim.record is None or not self.part.exists():
            self.edited.clear()
            return
        data, allowed = self.part.read_bytes(), self.edited | self.server.alike
        of_it = [version.body for version in self.server.versions if version.validator == claim.record.validator]
        assert any(
            allowed.issuperset(range(len(body), claim.end))
            and all(differences(data, body, start, stop) <= allowed for start, stop in claim.ranges)
            for body in of_it
        ), claim

    def _agree(self, data: bytes, body: bytes) -> bool:
        """Whether this is how the body begins, but for what nobody can notice."""
        return len(data) <= len(body) and differences(data, body) <= self.edited | self.server.alike

    def take_note(self) -> None:
        """Look at what a process did that did not live to tell it."""
        if self.file.exists() and (data := self.file.read_bytes()) != self.whole:
            assert len(data) == len(self.server.version.body) and self._agree(data, self.server.version.body)
            self.whole = data


def kill(life: Life, plan: Plan, *, room: int | None = None, calls: int | None = None) -> int:
    """Download in a process that is killed after so many bytes, or at the n-th call; return how it ended."""

    def download() -> None:
        with Disk(die, room=room, calls=calls).installed():
            life.run(plan)

    code = in_child(download)
    assert code in (0, KILLED)
    life.take_note()
    return code
