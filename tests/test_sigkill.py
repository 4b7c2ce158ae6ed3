"""The process is killed, and another one goes on (T47, T48, R1); or wants to while it lives (R13)."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

import rawdl
from rawdl.proto.ranges import OVERLAP
from tests import once
from tests.kill import GUARD, Campaign, fork, start
from tests.ordeals import BODY, ORDEALS, Ordeal, bytes_in
from tests.origin import Origin, Script
from tests.resource import Resource

fcntl = pytest.importorskip("fcntl", reason="needs the processes and signals of POSIX")
pytestmark = [
    pytest.mark.one_version,
    pytest.mark.usefixtures("leaves_parts"),  # what may be left is looked at here
]

# What changes the folder, or ends what had to come before a change.
CALLS = ["open", "write", "writev", "pwrite", "ftruncate", "fsync", "fdatasync", "close"]
CALLS += ["replace", "link", "unlink", "chmod", "utime"]
THROW_AWAY = {"restart", "anew", "segments anew", "lost"}


# A kill at every single call


@contextmanager
def killing(nth: int) -> Iterator[None]:
    """Kill this process at the nth call of them all: in the midst of a write, and before any other."""
    calls = itertools.count(1)

    def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
        def function(*args: Any, **options: Any) -> Any:
            if next(calls) == nth:
                if real in (write, pwrite):
                    real(args[0], args[1][: len(args[1]) // 2], *args[2:])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        return function

    write, pwrite = os.write, os.pwrite
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, deadly(getattr(os, name)))
        patch.setattr(fcntl, "ioctl", deadly(fcntl.ioctl))
        yield


def is_complete(folder: Path) -> bool:
    return any(path.suffix != ".part" and path.read_bytes() == BODY for path in folder.iterdir())


@pytest.mark.parametrize("ordeal", [each for each in ORDEALS if not each.temporary], ids=lambda ordeal: ordeal.name)
def test_T47_R1_a_process_may_be_killed_at_any_call(ordeal: Ordeal, tmp_path: Path):
    """What is there then is right, or the true beginning of one version; what comes later goes on from there.

    And nothing is lost that an earlier journal told of, unless the download itself throws it away.
    """
    folder, there = tmp_path / "folder", 0
    for nth in itertools.count(1):
        ordeal.prepare(folder)
        code = fork(lambda nth=nth: ordeal.run(folder, killing(nth)))
        assert code in (0, -signal.SIGKILL)
        try:
            ordeal.check(folder, tidy=False)
            if ordeal.name not in THROW_AWAY and not is_complete(folder):
                assert bytes_in(ordeal.kept(folder)) >= there, "less is there than a call earlier"
                there = bytes_in(ordeal.kept(folder))
            ordeal.complete(folder)
        except AssertionError as exc:
            exc.add_note(f"killed at call {nth}")
            raise
        if code == 0:
            assert nth > 8
            return


# A real process, at random moments


@pytest.mark.parametrize(("connections", "seed"), [(1, 1), (4, 2)])
def test_T47_R1_a_real_process_may_be_killed_at_any_moment(connections: int, seed: int, tmp_path: Path):
    """The campaign of `python -m tests.kill`, in small: it looks at each file itself."""
    report = Campaign(tmp_path, size=40_000_000, seconds=0.5, connections=connections, seed=seed).run(8)
    assert report.kills.total() == 8
    assert report.downloads > 0
    assert report.sent_again < report.kills.total() * report.size


# R13: two processes, one target

EARLY, LATE = 100_000, 20 << 20  # bytes: before and after the first checkpoint, which comes at 16 MiB
LONG = os.urandom(1 << 16) * 384
CHILD = """
import errno, fcntl, signal, sys, rawdl
url, path, locks, at = sys.argv[1:]

def no_lock(*args):
    raise OSError(errno.ENOLCK, "no locks")

def told(update):
    if update.total_bytes_written == int(at):
        print("waits", flush=True)

signal.alarm(30)  # a hang guard
fcntl.flock = fcntl.flock if locks == "locks" else no_lock
with rawdl.Client(retry=rawdl.Retry(attempts=1)) as client:
    task = client.download_file(url=url, file_path=path, progress_interval=0)
    task.on_progress_update(told)
    task.result()
"""


class Gate:
    """A body of which the first `at` bytes come, and the others once it is `opened`."""

    def __init__(self, at: int) -> None:
        self._at, self.opened = at, threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        yield LONG[: self._at]
        self.opened.wait(GUARD)
        yield LONG[self._at :]


class Owner:
    """A process that downloads the `gate`, and has all that comes before it is opened when the context begins."""

    def __init__(self, origin: Origin, path: Path, locks: str, at: int) -> None:
        self.gate, self.resource = Gate(at), Resource(LONG)
        header = (("ETag", '"v1"'),)
        first = Script(body=self.gate, content_length=len(LONG), header=header)
        self.url, self.path, self.locks, self.at = origin.serve("/a", first, self.resource), path, locks, at

    def __enter__(self) -> Self:
        arguments = self.url, self.path, self.locks, str(self.at)
        self.process = start(CHILD, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "waits\n", self.process.communicate()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.gate.opened.set()
        with self.process:
            self.process.kill()

    def finish(self) -> None:
        """Let it go on, and see that it ends well."""
        self.gate.opened.set()
        _, complaint = self.process.communicate(timeout=GUARD)
        assert (self.process.returncode, complaint) == (0, "")
        assert self.path.read_bytes() == LONG
        assert os.listdir(self.path.parent) == ["a"]

    def is_left_alone(self) -> None:
        """See that a download to the same place fails at once, and changes nothing."""
        before = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in self.path.parent.iterdir()}
        with once.client() as client:
            error = client.download_file(url=self.url, file_path=self.path).exception()
        assert isinstance(error, rawdl.StorageError), error
        assert "in use" in str(error) and str(self.path) in str(error)
        assert self.locks == "locks" or f"process {self.process.pid}" in str(error)
        after = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in self.path.parent.iterdir()}
        assert before == after
        assert self.resource.log == [], "it fails before any request"


@pytest.fixture
def owner(locks: str, at: int, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    """Return a process that is at work; without "locks", flock() works for nobody, as on some network file systems."""

    def no_lock(*args: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    if locks != "locks":
        monkeypatch.setattr(fcntl, "flock", no_lock)
    with Owner(origin, tmp_path / "a", locks, at) as owner:
        yield owner


either = pytest.mark.parametrize("locks", ["locks", "no locks"])
late = pytest.mark.parametrize("at", [LATE], ids=["late"])


@either
@pytest.mark.parametrize("at", [EARLY, LATE], ids=["early", "late"])
def test_R13_the_second_process_fails_at_once(owner: Owner):
    owner.is_left_alone()
    owner.finish()


@either
@late
def test_R13_a_stopped_process_is_alive(owner: Owner):
    owner.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, owner.process.pid, os.WSTOPPED)
    owner.is_left_alone()
    owner.process.send_signal(signal.SIGCONT)
    owner.finish()


@either
@late
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_R13_T47_K9_a_killed_process_is_taken_over(number: int, owner: Owner):
    owner.process.send_signal(number)
    owner.process.wait(GUARD)
    with once.client() as client:
        result = client.download_file(url=owner.url, file_path=owner.path).result()
    assert 16 << 20 <= result.resumed_from <= LATE
    assert owner.path.read_bytes() == LONG
    assert os.listdir(owner.path.parent) == ["a"]
    assert owner.resource.spans == [(result.resumed_from - OVERLAP, len(LONG) - 1)]


@either
@pytest.mark.parametrize("at", [EARLY], ids=["early"])
def test_R13_a_process_killed_before_its_first_checkpoint_is_in_nobodys_way(owner: Owner):
    owner.process.kill()
    owner.process.wait(GUARD)
    with once.client() as client:
        client.download_file(url=owner.url, file_path=owner.path).result()
    assert owner.path.read_bytes() == LONG
    assert os.listdir(owner.path.parent) == ["a"]


@either
@late
def test_R13_a_zombie_is_dead(owner: Owner):
    """Nobody has asked for its exit status yet, but it writes no more."""
    os.kill(owner.process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, owner.process.pid, os.WEXITED | os.WNOWAIT)
    with once.client() as client:
        assert client.download_file(url=owner.url, file_path=owner.path).result().resumed_from
    assert owner.path.read_bytes() == LONG
