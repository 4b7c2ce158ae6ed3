"""What a download does to the file system, and what that does to it (T25, T41-T43, S20, S28-S30, E3-E5, table K)."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import rawdl
from tests.origin import Origin, Script
from tests.recorder import Recorder
from tests.script import run_script
from tests.sim import Link, World, http_peer

BODY = bytes(range(256)) * 400
URL = "http://example.org/a"
as_root = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        world.listen("example.org", 80, http_peer(Script(body=BODY)), link=Link(bandwidth=1e6, segment=10_000))
        yield world


@pytest.fixture
def client(world: World) -> rawdl.Client:
    return world.client()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fails(task: rawdl.DownloadTask, number: int | None) -> rawdl.StorageError:
    """See that a task ends with a StorageError of that errno, and return it."""
    error = task.exception()
    assert isinstance(error, rawdl.StorageError), error
    assert isinstance(error, OSError)
    assert error.errno == number
    assert error.err_code == 602001
    assert error.err_msg == "downloadFile:fail storage"
    return error


# T41: never partial


def test_T41_the_destination_is_never_partial(client: rawdl.Client, tmp_path: Path):
    target, seen = tmp_path / "a", []
    recorder = Recorder()
    for name in ("headers", "progress", "success"):
        recorder.react(name, lambda event, name=name: seen.append((name, names(tmp_path))))
    recorder.download(client, url=URL, file_path=target, progress_interval=0).result()
    *before, after = seen
    assert len(before) > 3
    assert {tuple(files) for name, files in before} == {("a.part",)}
    assert after == ("success", ["a"])
    assert target.read_bytes() == BODY


def test_T41_the_old_file_is_there_until_the_new_one_is(client: rawdl.Client, tmp_path: Path):
    target = tmp_path / "a"
    target.write_text("old")
    seen: list[str] = []
    recorder = Recorder()
    recorder.react("progress", lambda event: seen.append(target.read_text()))
    recorder.download(client, url=URL, file_path=target, progress_interval=0).result()
    assert set(seen) == {"old"}
    assert target.read_bytes() == BODY
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("cut_at", [0, 20, 50_000])
def test_T41_a_failure_leaves_nothing_but_the_old_file(cut_at: int, world: World, tmp_path: Path):
    (tmp_path / "a").write_text("old")
    world.listen("example.org", 80, http_peer(Script(body=BODY, cut_at=cut_at)))
    assert world.client().download_file(url=URL, file_path=tmp_path / "a").exception() is not None
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_T41_the_rename_is_one_step(client: rawdl.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Only os.replace ever touches the final name."""
    touched: list[str] = []
    for name in ("open", "unlink", "rename", "remove", "link", "truncate"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda path, *rest, r=real, n=name, **kw: (touched.append(f"{n} {path}"), r(path, *rest, **kw))[1]
        )
    (tmp_path / "a").write_text("old")
    client.download_file(url=URL, file_path=tmp_path / "a").result()
    assert [each for each in touched if each.endswith(f"{tmp_path}/a")] == []
    assert touched == [f"open {tmp_path}/a.part"]


PLACES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "a path": lambda root: {"file_path": root / "f" / "a"},
    "a relative path": lambda root: {"file_path": "f/a"},
    "a path by way of a link": lambda root: {"file_path": root / "link" / "a"},
    "a name that is a link": lambda root: {"file_path": root / "f" / "linked"},
    "a suggested name": lambda root: {"directory": root / "f", "use_suggested_name": True},
    "a suggested name in a relative folder": lambda root: {"directory": "f", "use_suggested_name": True},
    "a temporary file": lambda root: {"directory": root / "f"},
    "a temporary file in a relative folder": lambda root: {"directory": "f"},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("moves", [False, True], ids=["stays", "moves"])
def test_K6_the_part_is_in_the_folder_of_the_file(
    moves: bool, place: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """So that no rename is across devices, wherever temporary files are, and whatever the current folder is by then."""
    for name in ("f", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("f")
    (tmp_path / "f" / "linked").symlink_to("../other/a")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "other"))
    monkeypatch.chdir(tmp_path)
    named = Script(body=BODY, header=(("Content-Disposition", "attachment; filename=n"),))
    world.listen("example.org", 80, http_peer(named), link=Link(bandwidth=1e6, segment=10_000))
    recorder, seen = Recorder(), []
    for name in ("headers", "progress"):
        recorder.react(name, lambda event: seen.append(places_of_files(tmp_path)))
    recorder.react("headers", lambda event: monkeypatch.chdir(tmp_path / "other") if moves else None)
    recorder.download(world.client(), url=URL, progress_interval=0, **PLACES[place](tmp_path)).result()
    assert len(seen) > 3
    assert [*seen, places_of_files(tmp_path)] == [{"f"}] * (len(seen) + 1)
    [file] = (path for path in (tmp_path / "f").iterdir() if path.is_file() and not path.is_symlink())
    assert file.read_bytes() == BODY


def places_of_files(root: Path) -> set[str]:
    """Return the folders below `root` that hold a file, links left out."""
    paths = (Path(folder, name) for folder, _, files in os.walk(root) for name in files)
    return {str(path.parent.relative_to(root)) for path in paths if not path.is_symlink()}


# What is in the way


def test_T42_K3_a_folder_in_the_way(client: rawdl.Client, world: World, tmp_path: Path):
    (tmp_path / "a").mkdir()
    error = fails(client.download_file(url=URL, file_path=tmp_path / "a"), errno.EISDIR)
    assert error.path == str(tmp_path / "a")
    assert world.requests == [], "found before the request"
    assert names(tmp_path) == ["a"]


def test_T42_S28_K3_a_missing_folder(client: rawdl.Client, world: World, tmp_path: Path):
    error = fails(client.download_file(url=URL, file_path=tmp_path / "no" / "a"), errno.ENOENT)
    assert error.path is not None and "no" in error.path
    assert world.requests == []
    error = fails(client.download_file(url=URL, directory=tmp_path / "no"), errno.ENOENT)
    assert error.path is not None and "no" in error.path
    assert world.requests == []
    assert names(tmp_path) == []


def test_T42_K3_a_file_where_a_folder_should_be(client: rawdl.Client, world: World, tmp_path: Path):
    (tmp_path / "f").write_text("file")
    fails(client.download_file(url=URL, file_path=tmp_path / "f" / "a"), errno.ENOTDIR)
    fails(client.download_file(url=URL, directory=tmp_path / "f"), errno.ENOTDIR)
    assert world.requests == []


def test_T42_K3_a_loop_of_links(client: rawdl.Client, world: World, tmp_path: Path):
    (tmp_path / "l").symlink_to(tmp_path / "l")
    fails(client.download_file(url=URL, file_path=tmp_path / "l" / "a"), errno.ELOOP)
    assert world.requests == []


@pytest.mark.skipif(as_root, reason="root may write anywhere")
def test_T42_K3_a_folder_without_permission(client: rawdl.Client, world: World, tmp_path: Path):
    folder = tmp_path / "d"
    folder.mkdir(mode=0o500)
    fails(client.download_file(url=URL, file_path=folder / "a"), errno.EACCES)
    assert world.requests == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EMFILE, errno.ENOSPC, errno.EDQUOT])
def test_T42_K1_K3_what_open_may_say(
    number: int, client: rawdl.Client, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fail_call(monkeypatch, "open", number)
    error = fails(client.download_file(url=URL, file_path=tmp_path / "a"), number)
    assert error.path == str(tmp_path / "a.part")
    assert os.strerror(number) in str(error)
    assert world.requests == []
    assert names(tmp_path) == []


def test_T42_N19_no_descriptor_is_left_for_the_module_that_locks(
    client: rawdl.Client, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is loaded when the part is there already, which goes then."""

    class Poor:
        def find_spec(self, name: str, *rest: object) -> None:
            if name == "fcntl":
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.delitem(sys.modules, "fcntl", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Poor(), *sys.meta_path])
    fails(client.download_file(url=URL, file_path=tmp_path / "a"), errno.EMFILE)
    assert world.requests == []
    assert names(tmp_path) == []


def test_T42_K3_a_name_too_long(client: rawdl.Client, world: World, tmp_path: Path):
    fails(client.download_file(url=URL, file_path=tmp_path / ("n" * 256)), errno.ENAMETOOLONG)
    assert world.requests == []
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["n" * 251, "n" * 255, "é" * 127], ids=["251", "255", "utf-8"])
def test_S28_a_name_whose_part_would_be_too_long(name: str, client: rawdl.Client, tmp_path: Path):
    parts: list[str] = []
    recorder = Recorder()
    recorder.react("headers", lambda event: parts.extend(names(tmp_path)))
    recorder.download(client, url=URL, file_path=tmp_path / name).result()
    assert len(parts) == 1
    assert parts[0].endswith(".part") and name not in parts[0]
    assert names(tmp_path) == [name]


def test_K3_a_fifo_as_the_destination(client: rawdl.Client, world: World, tmp_path: Path):
    os.mkfifo(tmp_path / "a")
    error = fails(client.download_file(url=URL, file_path=tmp_path / "a"), errno.EEXIST)
    assert "regular" in str(error)
    assert world.requests == []
    assert stat.S_ISFIFO((tmp_path / "a").stat().st_mode)
    assert names(tmp_path) == ["a"]


def test_K3_a_socket_or_device_as_the_destination(
    client: rawdl.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)  # a socket's path has to be short
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("s")
        fails(client.download_file(url=URL, file_path="s"), errno.EEXIST)
        fails(client.download_file(url=URL, file_path=os.devnull), errno.EEXIST)
    assert names(tmp_path) == ["s"]


@pytest.mark.parametrize("what", ["symlink", "dangling", "folder", "fifo"])
def test_S29_E4_a_part_that_is_no_regular_file(what: str, client: rawdl.Client, world: World, tmp_path: Path):
    part, bait = tmp_path / "a.part", tmp_path / "bait"
    bait.write_text("bait")
    {
        "symlink": lambda: part.symlink_to(bait),
        "dangling": lambda: part.symlink_to(tmp_path / "nowhere"),
        "folder": part.mkdir,
        "fifo": lambda: os.mkfifo(part),
    }[what]()
    error = fails(client.download_file(url=URL, file_path=tmp_path / "a"), errno.EEXIST)
    assert error.path == str(part)
    assert world.requests == []
    assert bait.read_text() == "bait"
    assert sorted(names(tmp_path)) == ["a.part", "bait"]
    os.rename(part, tmp_path / "kept")  # it is still there, and what it was


def test_S29_a_regular_part_without_a_journal_is_discarded(client: rawdl.Client, tmp_path: Path):
    (tmp_path / "a.part").write_bytes(b"from a download that was killed" * 10_000)
    (tmp_path / "other").hardlink_to(tmp_path / "a.part")
    client.download_file(url=URL, file_path=tmp_path / "a").result()
    assert (tmp_path / "a").read_bytes() == BODY
    assert (tmp_path / "other").read_bytes() == b"from a download that was killed" * 10_000


@pytest.mark.parametrize("link_to", ["file", "folder", "nothing"])
def test_S30_S38_E4_a_symlink_as_the_destination_is_replaced(link_to: str, client: rawdl.Client, tmp_path: Path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / link_to)
    client.download_file(url=URL, file_path=tmp_path / "a").result()
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_bytes() == BODY
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["a", "file", "folder"]


@pytest.mark.parametrize("what", ["device", "fifo", "descriptor"])
def test_I5_K3_a_symlink_to_what_is_no_file_is_left_alone(
    what: str, client: rawdl.Client, world: World, tmp_path: Path
):
    """It is one like /dev/stdout, which everybody else on the machine uses too."""
    bait = tmp_path / "bait"
    os.mkfifo(bait) if what == "fifo" else bait.write_text("bait")
    with open(os.devnull if what == "fifo" else bait) as file:
        target = {"device": os.devnull, "fifo": bait, "descriptor": f"/proc/self/fd/{file.fileno()}"}[what]
        if not os.path.exists(target):
            pytest.skip("no /proc on this platform")
        (tmp_path / "a").symlink_to(target)
        fails(client.download_file(url=URL, file_path=tmp_path / "a"), errno.EEXIST)
    assert world.requests == []
    assert os.readlink(tmp_path / "a") == str(target)
    assert sorted(names(tmp_path)) == ["a", "bait"]


def test_E4_the_part_is_opened_so_that_nothing_is_followed(
    client: rawdl.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened: list[tuple[str, int, int]] = []
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, flags, mode: (opened.append((path, flags, mode)), real(path, flags, mode))[1]
    )
    client.download_file(url=URL, file_path=tmp_path / "a").result()
    client.download_file(url=URL, directory=tmp_path).result()
    assert len(opened) == 2
    for _, flags, mode in opened:
        wanted = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        assert flags & wanted == wanted
        assert mode == 0o600


# Modes


@pytest.mark.parametrize("mode", [0o640, 0o600, 0o444, 0o755])
def test_S30_E5_a_replaced_file_keeps_its_mode(mode: int, client: rawdl.Client, tmp_path: Path):
    (tmp_path / "a").touch(0o600)
    (tmp_path / "a").chmod(mode)
    client.download_file(url=URL, file_path=tmp_path / "a").result()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002, 0o027])
def test_S30_a_new_file_follows_the_umask_and_a_part_is_private(umask: int, client: rawdl.Client, tmp_path: Path):
    modes: list[int] = []
    recorder = Recorder()
    recorder.react("progress", lambda event: modes.append(stat.S_IMODE((tmp_path / "a.part").stat().st_mode)))
    old = os.umask(umask)
    try:
        recorder.download(client, url=URL, file_path=tmp_path / "a", progress_interval=0).result()
        assert os.umask(umask) == umask, "it is as it was"
    finally:
        os.umask(old)
    assert set(modes) == {0o600}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it can only be read by setting it")
def test_S30_the_umask_is_not_touched(client: rawdl.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two threads that set it and put it back at once would leave the process with the wrong one."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("it is set"))
    client.download_file(url=URL, file_path=tmp_path / "a").result()


# Two tasks, one destination


def test_S29_two_live_tasks_for_one_destination(client: rawdl.Client, world: World, tmp_path: Path):
    first = client.download_file(url=URL, file_path=tmp_path / "a")
    second = client.download_file(url=URL, file_path=f"{tmp_path}/./a")
    error = second.exception()
    assert isinstance(error, rawdl.StorageError)
    assert "in use" in str(error)
    assert error.url == second.url
    assert not first.done()
    assert first.result().data_length == len(BODY)
    assert len(world.requests) == 1
    assert names(tmp_path) == ["a"]
    third = client.download_file(url=URL, file_path=tmp_path / "a")
    assert third.exception() is None


def test_S29_two_live_tasks_for_one_destination_by_way_of_a_link(client: rawdl.Client, tmp_path: Path):
    (tmp_path / "d").mkdir()
    (tmp_path / "l").symlink_to(tmp_path / "d")
    first = client.download_file(url=URL, file_path=tmp_path / "d" / "a")
    second = client.download_file(url=URL, file_path=tmp_path / "l" / "a")
    assert "in use" in str(second.exception())
    assert first.exception() is None
    assert (tmp_path / "d" / "a").read_bytes() == BODY


@pytest.mark.parametrize("how", ["fails", "is aborted"])
def test_S29_a_destination_is_free_again_after_the_first(how: str, world: World, tmp_path: Path):
    script = Script(body=BODY, cut_at=50_000) if how == "fails" else Script(body=BODY, stall_at=50_000)
    world.listen("example.org", 80, http_peer([script, Script(body=BODY)]))
    client = world.client()
    first = client.download_file(url=URL, file_path=tmp_path / "a")
    world.drive(client, lambda: first.progress.total_bytes_written > 10_000)
    if how == "is aborted":
        first.abort()
    assert first.exception() is not None
    assert client.download_file(url=URL, file_path=tmp_path / "a").result().data_length == len(BODY)


def test_T41_two_clients_with_one_destination_never_mix(world: World, tmp_path: Path):
    """They do not know of each other; the file that appears is whole, whoever wins."""
    clients = [world.client(), world.client()]
    tasks = [client.download_file(url=URL, file_path=tmp_path / "a") for client in clients]
    world.drive(clients[0], lambda: tasks[0].progress.total_bytes_written > 10_000)
    for client in reversed(clients):
        client.run()
    errors = [task.exception() for task in tasks]
    assert None in errors
    assert all(error is None or isinstance(error, rawdl.StorageError) for error in errors)
    assert (tmp_path / "a").read_bytes() == BODY
    assert names(tmp_path) == ["a"]


# Somebody meddles


def test_K5_the_folder_is_removed_meanwhile(client: rawdl.Client, world: World, tmp_path: Path):
    folder = tmp_path / "d"
    folder.mkdir()
    recorder = Recorder()

    def remove(event: object) -> None:
        (folder / "a.part").unlink()
        folder.rmdir()

    recorder.react("headers", remove)
    task = recorder.download(client, url=URL, file_path=folder / "a")
    assert isinstance(task.exception(), rawdl.StorageError)
    assert names(tmp_path) == []


@pytest.mark.parametrize("what", ["file", "symlink", "removed"])
def test_E3_the_part_is_replaced_by_somebody(what: str, client: rawdl.Client, tmp_path: Path):
    """It is neither renamed nor removed: it is not ours."""
    part, bait = tmp_path / "a.part", tmp_path / "bait"
    bait.write_text("bait")
    recorder = Recorder()

    def meddle(event: object) -> None:
        part.unlink()
        if what == "file":
            part.write_text("theirs")
        elif what == "symlink":
            part.symlink_to(bait)

    recorder.react("headers", meddle)
    task = recorder.download(client, url=URL, file_path=tmp_path / "a")
    error = task.exception()
    assert isinstance(error, rawdl.StorageError)
    assert error.path == str(part)
    assert not (tmp_path / "a").exists()
    assert bait.read_text() == "bait"
    assert names(tmp_path) == (["bait"] if what == "removed" else ["a.part", "bait"])
    part.unlink(missing_ok=True)


def test_E3_an_abort_removes_no_file_of_somebody_else(world: World, tmp_path: Path):
    world.listen("example.org", 80, http_peer(Script(body=BODY, stall_at=50_000)))
    client = world.client()
    task = client.download_file(url=URL, file_path=tmp_path / "a")
    world.drive(client, lambda: task.progress.total_bytes_written > 10_000)
    (tmp_path / "a.part").unlink()
    (tmp_path / "a.part").write_text("theirs")
    task.abort()
    client.run()
    assert (tmp_path / "a.part").read_text() == "theirs"
    (tmp_path / "a.part").unlink()


def test_K3_a_folder_appears_in_the_way_meanwhile(client: rawdl.Client, tmp_path: Path):
    recorder = Recorder()
    recorder.react("headers", lambda event: (tmp_path / "a").mkdir())
    task = recorder.download(client, url=URL, file_path=tmp_path / "a")
    error = fails(task, errno.EISDIR)
    assert error.path == str(tmp_path / "a")
    assert names(tmp_path) == ["a"]


class Twins:
    """Let the folder be of a file system that takes names for one in whatever case, and composed or not.

    Only what makes a name new says so; a look at a name that was not given finds nothing.
    """

    def __init__(self, patch: pytest.MonkeyPatch, *, links: bool) -> None:
        self._link, self._open, self._links = os.link, os.open, links
        self.tried: list[str] = []
        patch.setattr(os, "link", self.link)
        patch.setattr(os, "open", self.open)

    def link(self, source: str, target: str) -> None:
        if not self._links:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        self._check(target)
        self._link(source, target)

    def open(self, path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & os.O_EXCL and not path.endswith(".part"):
            self._check(path)
        return self._open(path, flags, *args, **options)

    def _check(self, path: str) -> None:
        folder, name = os.path.split(path)
        self.tried.append(name)
        if self._fold(name) in map(self._fold, os.listdir(folder)):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

    @staticmethod
    def _fold(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold()


@pytest.mark.usefixtures("leaves_parts")
@pytest.mark.parametrize("links", [True, False], ids=["link", "no link"])
@pytest.mark.parametrize(
    ("suggested", "exists"),
    [*((suggested, how) for suggested in (False, True) for how in ("error", "rename", "skip")), (True, "overwrite")],
)
@pytest.mark.parametrize(("theirs", "ours"), [("READ.TXT", "read.txt"), ("e\u0301.txt", "\u00e9.txt")])
def test_K7_a_twin_of_the_name_is_never_replaced(
    theirs: str, ours: str, exists: str, links: bool, suggested: bool, world: World, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    """It is the system that says whether a name is new, when the file gets it; no comparison of names could.

    And "overwrite" is no leave to do so where the server chose the name.
    """
    (tmp_path / theirs).write_text("theirs")
    assert not (tmp_path / ours).exists()
    header = (("Content-Disposition", f"attachment; filename*=UTF-8''{quote(ours)}"),)
    world.listen("example.org", 80, http_peer(Script(body=BODY, header=header)))
    twins = Twins(monkeypatch, links=links)
    where = {"directory": tmp_path, "use_suggested_name": True} if suggested else {"file_path": tmp_path / ours}
    task = world.client().download_file(url=URL, exists=exists, **where)
    error = task.exception()
    monkeypatch.undo()
    assert (tmp_path / theirs).read_text() == "theirs"
    assert not (tmp_path / ours).exists()
    if exists in ("rename", "overwrite"):
        first, _, suffix = ours.rpartition(".")
        assert Path(task.result().file_path or "") == tmp_path / f"{first}.1.{suffix}"
        assert (tmp_path / f"{first}.1.{suffix}").read_bytes() == BODY
        assert twins.tried == [ours, f"{first}.1.{suffix}"]
    else:
        assert isinstance(error, rawdl.StorageError)
        assert str(error) == f"{tmp_path / ours} exists already"
        assert twins.tried == [ours]


# What the operating system may say


def fail_call(monkeypatch: pytest.MonkeyPatch, name: str, number: int, after: int = 0) -> list[object]:
    """Let the calls of a function of `os` fail, after some; return the list of those that failed."""
    real, failed, count = getattr(os, name), [], 0

    def call(*args: object, **options: object) -> object:
        nonlocal count
        count += 1
        if count <= after:
            return real(*args, **options)
        failed.append(args)
        if name == "close":  # as Linux does: the descriptor is gone all the same
            real(*args)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, call)
    return failed


@pytest.fixture(params=["file_path", "directory"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Path]:
    return {"file_path": tmp_path / "a"} if request.param == "file_path" else {"directory": tmp_path}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
@pytest.mark.parametrize("after", [0, 1, 5])
def test_T42_K1_K2_a_failing_write(
    number: int, after: int, where: dict[str, Path], client: rawdl.Client, world: World, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    failed = fail_call(monkeypatch, "write", number, after)
    recorder = Recorder()
    task = recorder.download(client, url=URL, **where)
    error = fails(task, number)
    assert len(failed) == 1, "no second try"
    assert error.path is not None and error.path.startswith(str(tmp_path))
    assert recorder.outcome == ["fail", "complete"]
    assert names(tmp_path) == []
    assert len(world.requests) == 1
    monkeypatch.undo()
    assert client.download_file(url=URL, **where).result().data_length == len(BODY)


def test_K1_a_short_write_is_continued(where: dict[str, Path], client: rawdl.Client, monkeypatch: pytest.MonkeyPatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:777]))
    result = client.download_file(url=URL, **where).result()
    assert Path(result.file_path or result.temp_file_path or "").read_bytes() == BODY


def system_with(monkeypatch: pytest.MonkeyPatch, *, blocks: int, free: int) -> None:
    """Have every file system be one of so many blocks."""
    real = os.fstatvfs
    monkeypatch.setattr(
        os, "fstatvfs", lambda fd: os.statvfs_result([*real(fd)[:2], blocks, free, free, *real(fd)[5:]])
    )


def test_H8_what_the_disk_has_no_room_for_is_not_begun(
    where: dict[str, Path], client: rawdl.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    system_with(monkeypatch, blocks=1, free=0)
    recorder = Recorder()
    error = fails(recorder.download(client, url=URL, **where), errno.ENOSPC)
    assert f"needs {len(BODY)} more bytes, and 0 are free" in str(error)
    assert not recorder.of("progress")
    assert names(tmp_path) == []


def test_H8_a_system_that_does_not_know_its_size_is_not_believed_full(
    where: dict[str, Path], client: rawdl.Client, monkeypatch: pytest.MonkeyPatch
):
    system_with(monkeypatch, blocks=0, free=0)
    assert client.download_file(url=URL, **where).result().data_length == len(BODY)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_T42_K1_K2_a_failing_close_is_an_error(
    number: int, where: dict[str, Path], client: rawdl.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Some file systems say only then that the bytes did not fit."""
    recorder = Recorder()
    recorder.react("progress", lambda event: event.progress == 100 and fail_call(monkeypatch, "close", number))
    fails(recorder.download(client, url=URL, **where), number)
    monkeypatch.undo()
    assert recorder.outcome == ["fail", "complete"]
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EXDEV, errno.ENOSPC, errno.EIO])
def test_K1_a_failing_rename(number: int, client: rawdl.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").write_text("old")
    fail_call(monkeypatch, "replace", number)
    error = fails(client.download_file(url=URL, file_path=tmp_path / "a"), number)
    assert error.path == str(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_T42_the_others_are_unharmed(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    client = world.client()
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").mkdir()
    bad = client.download_file(url=URL, file_path=tmp_path / "x" / "a")
    good = [client.download_file(url=URL, file_path=tmp_path / str(n)) for n in range(5)]
    assert client.run() is False
    assert isinstance(bad.exception(), rawdl.StorageError)
    assert [task.result().data_length for task in good] == [len(BODY)] * 5


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_T42_K1_a_real_limit_of_the_size_of_files(framing: str, origin: Origin, tmp_path: Path):
    """EFBIG of the kernel, on a real socket: by splice or by write. Another task goes on."""
    pytest.importorskip("resource")
    url = origin.serve("/a", Script(body=BODY * 20, framing=framing))
    script = """
        import errno, os, resource, signal, sys, rawdl
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        with rawdl.Client() as client:
            descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
            tasks = [client.download_file(url=sys.argv[1], file_path=sys.argv[2]),
                     client.download_file(url=sys.argv[1], directory=os.path.dirname(sys.argv[2]))]
            other = client.download_file(url=sys.argv[1], sink=rawdl.MemorySink())
            client.run()
            for task in tasks:
                error = task.exception()
                assert isinstance(error, rawdl.StorageError), error
                assert error.errno == errno.EFBIG, error
                assert error.path.startswith(os.path.dirname(sys.argv[2])), error.path
            print(other.result().data_length)
    """
    assert run_script(script, url, tmp_path / "a") == f"{len(BODY) * 20}\n"
    assert names(tmp_path) == []


# Temporary files and paths


@pytest.mark.parametrize(
    ("url", "suffix"),
    [
        ("/a.zip", ".zip"),
        ("/a.tar.gz", ".gz"),
        ("/a.zip?x=b.exe#c.txt", ".zip"),
        ("/a.zip ", ".zip"),
        ("/a", ""),
        ("/", ""),
        ("", ""),
        ("/a.b/c", ""),
        ("/a.sh%2e", ""),
        ("/a.%7e", ""),
        ("/a.x%00y", ""),
        ("/a." + "x" * 300, ""),
    ],
)
def test_S20_a_temporary_file_keeps_the_urls_suffix(url: str, suffix: str, world: World, tmp_path: Path):
    client = world.client()
    result = client.download_file(url="http://example.org" + url, directory=tmp_path).result()
    assert result.temp_file_path is not None
    assert Path(result.temp_file_path).suffix == suffix
    assert Path(result.temp_file_path).parent == tmp_path
    assert Path(result.temp_file_path).read_bytes() == BODY


def test_S20_a_temporary_file_without_a_directory(
    client: rawdl.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    results = [client.download_file(url=URL).result() for _ in range(2)]
    paths = {result.temp_file_path for result in results}
    assert len(paths) == 2
    assert {Path(path or "").parent for path in paths} == {tmp_path}


def test_S20_a_temporary_file_of_a_failure_is_removed(world: World, tmp_path: Path):
    world.listen("example.org", 80, http_peer(Script(body=BODY, cut_at=50_000)))
    assert world.client().download_file(url=URL, directory=tmp_path).exception() is not None
    assert names(tmp_path) == []


@pytest.mark.parametrize("wrap", [str, Path], ids=["str", "Path"])
def test_S20_file_path_comes_back_as_it_was_given(
    wrap: Callable[[str], object], client: rawdl.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    result = client.download_file(url=URL, file_path=wrap("a")).result()
    assert result.file_path == "a"
    assert (tmp_path / "a").read_bytes() == BODY


def test_K12_a_name_that_is_not_unicode(client: rawdl.Client, tmp_path: Path):
    name = os.fsdecode(b"\xff\xfe.bin")
    result = client.download_file(url=URL, file_path=tmp_path / name).result()
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff\xfe.bin"]
    assert result.file_path is not None and result.file_path.endswith(name)


def test_K14_a_file_of_more_than_4_gib_is_counted_exactly(world: World):
    """In the simulated network nothing is really sent: the counts alone are looked at."""
    size = (1 << 32) + 12345
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()
    world.listen("example.org", 80, http_peer(Script(raw=head + b"x" * 10_000, cut_at=len(head) + 10_000)))
    recorder = Recorder()
    error = recorder.download(world.client(), url=URL, sink=rawdl.DiscardSink()).exception()
    assert isinstance(error, rawdl.IncompleteBody)
    assert (error.received, error.expected) == (10_000, size)
    assert recorder.of("progress")[-1].total_bytes_expected_to_write == size
