"""The system fails at every single call that a download makes (tables K and N, I1-I8, T42).

Each ordeal is run again and again: the first call of a function fails, then the second, and so on until a run is clean.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rawdl
from tests import once
from tests.ordeals import BODY, FRESH, LINK, ORDEALS, URL, Ordeal, Run, bytes_in, no_descriptor_left
from tests.origin import Origin, Script
from tests.resource import Fault, Resource
from tests.script import run_script
from tests.sim import Selector, Socket, World, http_peer
from tests.sim.selector import FIRST_FD

pytestmark = pytest.mark.usefixtures("leaves_parts")  # what may be left is looked at here

# What each function is made to fail with: once, or from then on ("+").  The first four are for each ordeal, and the
# others, which make no difference to anybody, for the first.
FILES: dict[str, tuple[str, ...]] = {
    "open": ("EMFILE", "EMFILE+", "EACCES", "ENOSPC+"),
    "write": ("ENOSPC", "ENOSPC+", "EIO", "short", "EDQUOT", "EFBIG"),
    "writev": ("ENOSPC", "ENOSPC+", "EIO", "short", "EDQUOT", "EFBIG"),
    "pwrite": ("ENOSPC", "ENOSPC+", "EIO", "short", "EDQUOT", "EFBIG"),
    "ioctl": ("ENOSPC", "EOPNOTSUPP+", "EIO", "EDQUOT"),  # which sets blocks aside
    "fsync": ("EIO", "EIO+", "ENOSPC", "EDQUOT"),
    "fdatasync": ("EIO", "EIO+", "ENOSPC", "EDQUOT"),
    "replace": ("ENOSPC", "EROFS+", "EIO", "EACCES"),
    "link": ("ENOSPC", "EROFS+", "EIO", "EPERM"),
    "unlink": ("EACCES", "EROFS+", "EIO"),
    "ftruncate": ("EIO", "EFBIG+"),
    "lseek": ("EIO", "EIO+"),
    "read": ("EIO", "EIO+"),
    "close": ("EIO", "ENOSPC", "EDQUOT+"),
    "lstat": ("EIO", "EACCES+"),
    "fstat": ("EIO", "EIO+"),
    "fstatvfs": ("EIO",),
    "chmod": ("EPERM", "EIO+"),
    "utime": ("EPERM", "EIO+"),
}
# With these, what cannot be looked at or removed may be left, and then be in the way.
UNTIDY = frozenset({"unlink", "lstat", "fstat"})
# Where one of these says EIO about a part, nobody knows what is in it.
ABOUT_DATA = frozenset({"write", "writev", "pwrite", "fsync", "fdatasync"})

NETWORK: dict[str, tuple[type, tuple[str, ...]]] = {
    "socket": (World, ("EMFILE", "EMFILE+", "ENFILE", "ENOBUFS", "EACCES")),
    "setsockopt": (Socket, ("EINVAL", "ENOPROTOOPT+")),
    "connect_ex": (Socket, ("ECONNREFUSED", "ENETUNREACH+", "EADDRNOTAVAIL", "EACCES")),
    "send": (Socket, ("ECONNRESET", "EPIPE+", "ENOBUFS")),
    "recv_into": (Socket, ("ECONNRESET", "ETIMEDOUT+", "EIO")),
    "register": (Selector, ("ENOSPC", "ENOMEM+")),
    "modify": (Selector, ("ENOMEM", "ENOMEM+")),
}
NETWORK_ORDEALS = [FRESH, replace(FRESH, name="again", tries=3)] + [o for o in ORDEALS if o.name in ("retry", "resume")]


class Failing:
    """Stand in for a function whose nth call fails, and those after it if `how` ends in "+".

    `about`: only calls with such arguments are counted.
    """

    def __init__(
        self, name: str, how: str, nth: int, owner: Any = os, about: Callable[..., bool] | None = None
    ) -> None:
        self._name, self._how, self._nth, self._owner = name, how.removesuffix("+"), nth, owner
        self._about = about or anything
        self.lasting = how.endswith("+")
        self._real: Callable[..., Any] = getattr(owner, name)
        self._calls = 0
        self.number = getattr(errno, self._how, 0)
        self.about_part = False  # whether a call that failed was

    @property
    def hit(self) -> bool:
        """Whether there were so many calls."""
        return self._calls >= self._nth

    @property
    def leaves_a_mess(self) -> bool:
        """Whether nothing could be put in order any more: the journal may still have this process as its owner."""
        return self._name in UNTIDY and self.lasting

    @contextmanager
    def installed(self) -> Iterator[None]:
        def stand_in(*args: Any, **options: Any) -> Any:
            about = self._about(*args)
            self._calls += about
            if about and (self._calls == self._nth or (self.lasting and self.hit)):
                return self._fail(*args)
            return self._real(*args, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self._owner, self._name, stand_in)
            if self._real in os.supports_fd:
                patch.setattr(os, "supports_fd", {*os.supports_fd, stand_in})
            yield

    def _fail(self, *args: Any) -> Any:
        if args and isinstance(args[0], int):
            self.about_part |= os.readlink(f"/proc/self/fd/{args[0]}").endswith(".part")
        if self._how == "short":
            return self._real(args[0], args[1][:1], *args[2:])
        if self._name == "connect_ex":
            return self.number
        if self._name == "close":
            self._real(*args)  # whatever it says, the descriptor is gone
        if self._name == "modify":
            args[0].unregister(args[1])  # as those of the standard library do
        raise OSError(self.number, os.strerror(self.number))


def torture(
    folder: Path, ordeal: Ordeal, name: str, how: str, judge: Callable[[Failing, Run], None], **options: Any
) -> None:
    """Run an ordeal with the first call failing, then with the second, until none does, and judge each run."""
    for nth in itertools.count(1):
        ordeal.prepare(folder)
        failing = Failing(name, how, nth, **options)
        run = ordeal.run(folder, failing.installed())
        try:
            judge(failing, run)
            if not failing.hit:
                assert isinstance(run.end, ordeal.ends)
                return
            if not ordeal.temporary and not failing.leaves_a_mess:
                ordeal.complete(folder)
        except AssertionError as exc:
            exc.add_note(f"{name}() number {nth}: {how}; and then it ended with {run.end!r}")
            raise


@pytest.mark.parametrize("ordeal", ORDEALS, ids=lambda ordeal: ordeal.name)
@pytest.mark.parametrize("name", FILES)
def test_T42_K1_K2_every_call_to_the_file_system_may_fail(name: str, ordeal: Ordeal, tmp_path: Path):
    """An error of the disk is one, and not the network's: no more is asked for."""
    ordeal.prepare(tmp_path / "folder")
    undisturbed = ordeal.run(tmp_path / "folder")

    def judge(failing: Failing, run: Run) -> None:
        assert len(run.asked) <= len(undisturbed.asked)
        if not isinstance(run.end, ordeal.ends | rawdl.DownloadResult):
            assert type(run.end) is rawdl.StorageError
            assert run.end.errno == failing.number or (name in UNTIDY and run.end.errno == errno.EEXIST)
            assert run.end.path is not None
        ordeal.check(tmp_path / "folder", tidy=name not in UNTIDY)
        if failing.number == errno.EIO and failing.about_part and name in ABOUT_DATA:
            assert not ordeal.kept(tmp_path / "folder"), "nobody knows what is in it"

    for how in FILES[name] if ordeal is FRESH else FILES[name][:4]:
        torture(tmp_path / "folder", ordeal, name, how, judge, owner=fcntl if name == "ioctl" else os)


@pytest.mark.parametrize("ordeal", NETWORK_ORDEALS, ids=lambda ordeal: ordeal.name)
@pytest.mark.parametrize("name", NETWORK)
def test_N3_N8_N19_every_call_to_the_network_may_fail(name: str, ordeal: Ordeal, tmp_path: Path):
    """An error of the network is one, with its number; it is tried again where there are tries left."""

    def judge(failing: Failing, run: Run) -> None:
        ordeal.check(tmp_path / "folder")
        if ordeal.tries > 2 and not failing.lasting:
            assert isinstance(run.end, rawdl.DownloadResult)
        elif isinstance(run.end, rawdl.NetworkError):
            assert run.end.errno == failing.number
        elif isinstance(run.end, rawdl.IncompleteBody):
            assert isinstance(run.end.__cause__, rawdl.ConnectionLost)
            assert run.end.__cause__.errno == failing.number
        else:
            assert isinstance(run.end, rawdl.DownloadResult) and (ordeal.tries > 1 or not failing.hit)

    owner, hows = NETWORK[name]
    for how in hows:
        about = is_connection if name == "register" else None
        torture(tmp_path / "folder", ordeal, name, how, judge, owner=owner, about=about)


@pytest.mark.parametrize("name", ["open", "close", "replace"])
@pytest.mark.parametrize("exists", ["error", "rename"])
def test_I1_K1_where_there_are_no_links_no_empty_file_is_left(exists: str, name: str, tmp_path: Path):
    """The name is taken by an empty file there, for the moment before the rename: if that fails, it is given up."""
    ordeal = Ordeal("no links", {"exists": exists})

    def judge(failing: Failing, run: Run) -> None:
        assert isinstance(run.end, rawdl.StorageError if failing.hit else rawdl.DownloadResult)
        ordeal.check(tmp_path / "folder")

    with Failing("link", "EPERM+", 1).installed():
        about = None if name == "close" else is_final
        torture(tmp_path / "folder", ordeal, name, "EIO", judge, about=about)


def is_final(*args: Any) -> bool:
    return "a" in (os.path.basename(args[0]), os.path.basename(args[-1]) if isinstance(args[-1], str) else "")


def is_connection(selector: Selector, fd: int, *rest: Any) -> bool:
    return fd >= FIRST_FD


# A disk that is really full


class Disk:
    """Stand in for a file system of so many bytes, of which the files in `folder` take some."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size, self._real = folder, size, os.write

    @contextmanager
    def installed(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "write", self._write)
            yield

    def _write(self, fd: int, data: memoryview) -> int:
        free = self._size - sum(path.stat().st_size for path in self._folder.iterdir())
        if free <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._real(fd, data[:free])


@pytest.mark.parametrize("size", [0, 1, 200, 14_999, 15_000, 40_000, 66_000, 90_000, 110_000, 119_999, 120_000])
@pytest.mark.parametrize("ordeal", [FRESH, replace(FRESH, name="durable", options={"durable": True})])
def test_K1_what_a_full_disk_holds_is_continued_when_there_is_room(ordeal: Ordeal, size: int, tmp_path: Path):
    """But for what came last, and 64 KiB that may be given up for the journal."""
    run = ordeal.run(tmp_path, Disk(tmp_path, size).installed())
    if size < len(BODY):
        assert isinstance(run.end, rawdl.StorageError) and run.end.errno == errno.ENOSPC
    assert len(run.asked) == 1
    ordeal.check(tmp_path)
    assert bytes_in(ordeal.kept(tmp_path)) >= min(len(BODY), size) - 65536 - 20_000
    ordeal.complete(tmp_path)


# N19: no descriptors are left, while others are at work


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize(("name", "owner"), [("open", os), ("socket", World)])
def test_N19_T33_only_the_one_that_gets_no_descriptor_fails(name: str, owner: Any, number: int, tmp_path: Path):
    with no_descriptor_left(), World() as world:
        world.listen("example.org", 80, http_peer(Script(body=BODY)), link=LINK)
        client = world.client(socket_factory=lambda *args: world.socket(*args))
        tasks = [client.download_file(url=URL, file_path=tmp_path / str(n)) for n in range(4)]
        with Failing(name, errno.errorcode[number], 3, owner).installed():
            client.run()
        failed = [task.exception() for task in tasks]
        client.close()
    assert [error and error.errno for error in failed if isinstance(error, OSError)] == [number]
    assert [type(error).__name__ for error in failed if error] == ["StorageError" if owner is os else "ConnectError"]
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert files == {str(n): BODY for n, error in enumerate(failed) if error is None}


def test_N19_a_real_limit_of_descriptors(origin: Origin, tmp_path: Path):
    """Forty downloads at once with thirty descriptors: some fail for that, the others are not harmed."""
    url = origin.serve("/a", Script(body=BODY, head_delay=0.1))
    script = """
        import os, resource, sys, rawdl
        url, folder = sys.argv[1:]
        with rawdl.Client(max_concurrent=40, max_per_host=40, retry=rawdl.Retry(attempts=2, backoff=0.01)) as client:
            tasks = [client.download_file(url=url, file_path=f"{folder}/{n}") for n in range(40)]
            resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
            client.run()
            errors = [task.exception() for task in tasks]
            assert {type(error) for error in errors if error} <= {rawdl.StorageError, rawdl.ConnectError}, errors
            assert {error.errno for error in errors if error} == {24}, errors
            done = [f"{n}" for n, error in enumerate(errors) if not error]
            assert len(done) >= 8 and sorted(os.listdir(folder)) == sorted(done)
            client.download_file(url=url, file_path=f"{folder}/later").result()
        print(len(done))
    """
    done = int(run_script(script, url, tmp_path))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [BODY] * (done + 1)


# The road through the kernel, over real sockets

SPLICED = BODY * 3


def anything(*args: Any) -> bool:
    return True


def to_file(source: int, target: int, *rest: int) -> bool:
    return stat.S_ISREG(os.fstat(target).st_mode)


def to_pipe(source: int, target: int, *rest: int) -> bool:
    return not to_file(source, target)


@pytest.mark.skipif(not hasattr(os, "splice"), reason="no splice on this platform")
@pytest.mark.parametrize("tries", [1, 2])
@pytest.mark.parametrize(
    ("name", "about", "how", "kind"),
    [
        ("splice", to_file, "ENOSPC", rawdl.StorageError),
        ("splice", to_file, "EDQUOT", rawdl.StorageError),
        ("splice", to_file, "EFBIG", rawdl.StorageError),
        ("splice", to_file, "EIO", rawdl.StorageError),
        ("splice", to_file, "EINVAL", type(None)),  # refused: the road through the buffer is taken
        ("splice", to_pipe, "EINVAL", type(None)),
        ("splice", to_pipe, "ECONNRESET", rawdl.IncompleteBody),
        ("splice", to_pipe, "ETIMEDOUT", rawdl.IncompleteBody),
        ("pipe", anything, "EMFILE", type(None)),
        ("pipe", anything, "ENFILE+", type(None)),
    ],
)
def test_K1_K2_N8_every_splice_may_fail(
    name: str, about: Callable[..., bool], how: str, kind: type, tries: int, origin: Origin, tmp_path: Path
):
    for nth in itertools.count(1):
        resource = Resource(SPLICED, faults=[Fault(in_body=200_000)] if tries == 2 else [])
        url = origin.serve("/a", resource)
        failing = Failing(name, how, nth, about=about)
        with once.client(retry=rawdl.Retry(attempts=tries, backoff=0)) as client:
            with failing.installed():
                error = client.download_file(url=url, file_path=tmp_path / "a").exception()
            assert isinstance(error, kind | None)
            assert not isinstance(error, rawdl.StorageError) or error.path == str(tmp_path / "a.part")
            files = {path.name for path in tmp_path.iterdir()}
            assert files == {"a"} if error is None else files in (set(), {"a.part", "a.part.json"})
            assert not (failing.number == errno.EIO and files and error), "nobody knows what is in it"
            client.download_file(url=url, file_path=tmp_path / "a").result()
        assert (tmp_path / "a").read_bytes() == SPLICED
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        if not failing.hit:
            assert error is None and nth > 1
            return
        (tmp_path / "a").unlink()
