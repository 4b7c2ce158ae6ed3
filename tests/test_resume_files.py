"""What stands on the disk between two runs and at the end, and in which order it gets there (T41, T47, R1, R13, E3)."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import rawdl
from rawdl.proto.ranges import OVERLAP
from tests.once import ONE_TRY
from tests.resource import DATE, Fault, redirect
from tests.resuming import AT_ONCE, BODY, CUT, SHA256, Attempt, Bench
from tests.sim import Link, World, http_peer
from tests.sim_tests.fetch import HOST

MIB = 1 << 20
CUT_HERE = Fault(in_body=CUT)
ANOTHER_BOOT = "another boot"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with World() as world:
        yield Bench(world, tmp_path)


# The journal


def test_T41_the_part_and_its_journal_are_all_that_is_there_meanwhile(bench: Bench):
    bench.slow_down(10_000)
    client, seen = bench.world.client(), set()
    attempt = bench.begin(client, progress_interval=0)
    for name in ("headers", "progress"):
        attempt.react(name, lambda event: seen.add(tuple(bench.names)))
    client.run()
    assert seen == {("a.part",), ("a.part", "a.part.json")}
    assert attempt.result.data_length == len(BODY)
    bench.assert_whole()


def test_A9_no_secret_is_in_the_journal(bench: Bench):
    """Neither of the URL that was asked for, nor of the one that it led to, nor of the request's header."""
    secrets = ["can-user", "can-word", "can-query", "can-fragment", "can-signature", "can-token"]
    bench.world.listen("cdn.example.org", 80, http_peer(bench.resource))
    bench.world.listen(HOST, 80, http_peer(redirect("http://cdn.example.org/b?sign=can-signature#can-fragment")))
    url = f"http://can-user:can-word@{HOST}/a?q=can-query#can-fragment"
    bench.break_off(url=url, header={"Authorization": "Bearer can-token"})
    text = bench.journal.read_text()
    assert [secret for secret in secrets if secret in text] == []
    assert bench.record["url"].endswith(f"{HOST}/a")
    assert bench.record["final_url"] == "http://cdn.example.org/b"
    assert stat.S_IMODE(bench.journal.stat().st_mode) == stat.S_IMODE(bench.part.stat().st_mode) == 0o600
    error = bench.attempt(url=url.replace("q=", "p="), resume=True).error
    assert isinstance(error, rawdl.RangeError)
    assert [secret for secret in secrets if secret in str(error)] == []
    assert bench.attempt(url=url).result.resumed_from == CUT


def checkpoints(bench: Bench, **options: Any) -> list[tuple[float, int, dict[str, Any]]]:
    """Download, and return when which bytes were in the part when the journal said what."""
    found: list[tuple[float, int, dict[str, Any]]] = []
    real = os.replace

    def replace(source: str, target: str) -> None:
        real(source, target)
        if target == str(bench.journal):
            found.append((bench.world.elapsed, bench.part.stat().st_size, bench.record))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace)
        client = bench.world.client()
        attempt = bench.begin(client, **options)
        client.run()
        client.close()
    assert attempt.result.data_length == len(bench.resource.body)
    bench.assert_whole()
    return found


@pytest.mark.parametrize("progress_interval", [0, 0.05, 60])
def test_T47_a_checkpoint_each_second_whatever_the_progress_interval(progress_interval: float, bench: Bench):
    bench.slow_down(5_000)  # a segment each 50 ms, for 8 s
    found = checkpoints(bench, progress_interval=progress_interval)
    assert len(found) == 8
    assert found[0][0] < 0.3  # one that is killed soon has something to go on from
    assert all(1 <= after - before < 1.1 for (before, *_), (after, *_) in pairwise(found))
    assert all(record["done"] == [[0, size]] and record["synced"] == [] for _, size, record in found)


def test_T47_no_checkpoint_where_all_comes_at_once(bench: Bench):
    assert checkpoints(bench, progress_interval=0) == []


def test_T47_a_checkpoint_each_16_mib(bench: Bench):
    bench.resource.body = random.Random(3).randbytes(MIB) * 40
    bench.listener.link = Link(bandwidth=1e9, segment=MIB, window=4 * MIB)
    done = [record["done"][0][1] for _, _, record in checkpoints(bench)]
    assert len(done) == 2
    assert all(16 * MIB <= after - before < 17 * MIB for before, after in pairwise([0, *done]))


def test_R1_the_part_is_synced_now_and_then(bench: Bench):
    bench.slow_down(1_000)  # 40 s
    synced = [(elapsed, size, record["synced"]) for elapsed, size, record in checkpoints(bench)]
    assert all(ranges == [] for elapsed, _, ranges in synced if elapsed < 30)
    first, *later = [(elapsed, size, ranges) for elapsed, size, ranges in synced if ranges]
    assert 30 <= first[0] < 32
    assert {tuple(map(tuple, ranges)) for _, _, ranges in [first, *later]} == {((0, first[1]),)}


def test_R1_what_was_synced_before_a_resume_stays_so(bench: Bench):
    bench.break_off()
    assert bench.record["synced"] == [[0, CUT]]
    bench.slow_down(5_000)
    found = checkpoints(bench)
    assert found
    assert all(record["synced"] == [[0, CUT]] for _, _, record in found)


def crashes(bench: Bench) -> list[Path]:
    """Download slowly, and return folders with what a crash would have left at one moment or another."""
    bench.slow_down(5_000)
    folders: list[Path] = []
    base = bench.folder.parent / f"{bench.folder.name}-crashes"

    def copy(event: object) -> None:
        folders.append(base / str(len(folders)))
        shutil.copytree(bench.folder, folders[-1])

    client = bench.world.client()
    bench.begin(client, progress_interval=0.3).react("progress", copy)
    client.run()
    client.close()
    bench.slow_down(1e6)
    return folders


@pytest.mark.usefixtures("leaves_parts")
def test_R1_T47_killed_at_any_moment(bench: Bench):
    """A part goes on from its last journal: here from that of a process that is gone."""
    resumed = []
    for folder in crashes(bench):
        crashed = Bench(bench.world, folder, bench.resource)
        size = crashed.part.stat().st_size if crashed.part.exists() else 0
        if crashed.journal.exists():
            crashed.rewrite(owner=crashed.record["owner"] | {"pid": 2**22 + 1})  # above the largest pid
        result = crashed.attempt().result
        crashed.assert_whole()
        resumed.append(result.resumed_from)
        assert size - result.resumed_from <= 1.1 * 5_000
    assert len(set(resumed)) > 5


@pytest.mark.usefixtures("leaves_parts")
def test_R1_after_a_power_cut_only_what_was_synced_is_believed(bench: Bench):
    for folder in crashes(bench):
        crashed = Bench(bench.world, folder, bench.resource)
        if crashed.journal.exists():
            crashed.part.write_bytes(bytes(crashed.part.stat().st_size))  # these pages never reached the disk
            crashed.rewrite(owner=crashed.record["owner"] | {"boot": ANOTHER_BOOT})
        assert crashed.attempt().result.resumed_from == 0
        crashed.assert_whole()


def test_R1_after_a_power_cut_the_synced_part_is_continued(bench: Bench):
    bench.break_off()
    bench.rewrite(owner=bench.record["owner"] | {"boot": ANOTHER_BOOT}, synced=[[0, 5000]])
    bench.part.write_bytes(BODY[:5000] + bytes(CUT - 5000))
    assert bench.attempt().result.resumed_from == 5000
    assert bench.asked == [f"bytes={5000 - OVERLAP}-"]
    bench.assert_whole()


@pytest.mark.parametrize("length", [3, 246, 247, 250, 251, 255])
def test_S28_R10_a_long_name_is_continued_and_a_journal_without_its_part_goes(length: int, bench: Bench):
    """The names of the part and of the journal may be hashed, each for itself."""
    path = bench.folder / ("n" * length)
    bench.break_off(file_path=path)
    assert len(bench.names) == 2
    assert bench.attempt(file_path=path).result.resumed_from == CUT
    assert bench.names == [path.name]
    bench.break_off(file_path=path)
    next(each for each in bench.folder.iterdir() if each.suffix == ".part").unlink()
    assert bench.attempt(file_path=path).result.resumed_from == 0
    assert bench.names == [path.name]


# One writer at a time


def refuse_locks(fd: int, how: int) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.parametrize("locks", [True, False], ids=["flock", "no flock"])
def test_R13_S29_two_clients_and_one_file(locks: bool, bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """The lock keeps them apart; on a file system that has none, the journal does by its owner."""
    if not locks:
        monkeypatch.setattr(fcntl, "flock", refuse_locks)
    bench.slow_down(5_000)
    first = bench.world.client()
    task = bench.begin(first)
    bench.world.drive(first, bench.part.exists if locks else bench.journal.exists)
    requests = len(bench.world.requests)
    error = bench.attempt().error
    assert isinstance(error, rawdl.StorageError)
    assert "in use" in str(error)
    assert len(bench.world.requests) == requests
    first.run()
    assert task.result.data_length == len(BODY)
    bench.assert_whole()


@pytest.mark.usefixtures("leaves_parts")
def test_E3_R13_who_was_displaced_leaves_the_others_journal_alone(bench: Bench):
    """It may be any process's: one that took the part over while this one hung, say."""
    bench.slow_down(5_000)
    client = bench.world.client()
    attempt = bench.begin(client)
    bench.world.drive(client, bench.journal.exists)
    for path in (bench.part, bench.journal):
        path.unlink()
        path.write_text("theirs")
    attempt.task.abort()
    client.run()
    assert (bench.part.read_text(), bench.journal.read_text()) == ("theirs", "theirs")


# The order in which things reach the disk


@pytest.fixture
def calls(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write down what is called of those functions of `os` that matter, with the names of the files."""
    calls: list[str] = []

    def name(what: Any) -> str:
        return os.path.relpath(os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else what, bench.folder)

    def traced(function: Callable[..., Any], which: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            names = [name(each) for each in args]
            outcome = function(*args, **options)
            calls.append(" ".join([which, *names]))
            return outcome

        return call

    for each in ("fsync", "fdatasync", "replace", "link", "unlink"):
        monkeypatch.setattr(os, each, traced(getattr(os, each), each))
    return calls


SYNCED_JOURNAL = ["fdatasync a.part", "fsync a.part.json.new", "replace a.part.json.new a.part.json", "fsync ."]


def test_R1_durable_syncs_the_data_then_the_journal_then_its_name(calls: list[str], bench: Bench):
    bench.slow_down(10_000)  # 4 s
    bench.attempt(durable=True)
    end = ["fsync a.part", "replace a.part a", "unlink a.part.json", "fsync ."]
    assert calls == SYNCED_JOURNAL * 4 + end
    bench.assert_whole()


def test_R1_not_durable_syncs_nothing(calls: list[str], bench: Bench):
    bench.slow_down(10_000)
    bench.attempt()
    assert calls == ["replace a.part.json.new a.part.json"] * 4 + ["replace a.part a", "unlink a.part.json"]


@pytest.mark.parametrize("exists", ["overwrite", "error", "rename", "skip"])
def test_R1_durable_at_once(exists: str, calls: list[str], bench: Bench):
    bench.attempt(durable=True, exists=exists)
    placed = ["replace a.part a"] if exists == "overwrite" else ["link a.part a", "unlink a.part"]
    assert calls == ["fsync a.part", *placed, "fsync ."]


def test_R1_what_is_kept_is_synced_before_its_journal_says_so(calls: list[str], bench: Bench):
    bench.attempt(CUT_HERE)
    assert calls == SYNCED_JOURNAL
    calls.clear()
    bench.attempt()
    assert calls == ["fdatasync a.part", "replace a.part a", "unlink a.part.json"], (
        "a resume learns of a bad disk first"
    )


# remote_time

DATES = [
    ("Wed, 21 Oct 2015 07:28:00 GMT", 1445412480),
    ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
    ("Sun Nov  6 08:49:37 1994", 784111777),
    ("Sun, 07 Feb 2106 06:28:16 GMT", 1 << 32),
]
NO_DATES = ["Fri, 01 Jan 99999 00:00:00 GMT", "yesterday", "Wed, 32 Oct 2015 07:28:00 GMT", "0", None]


@pytest.mark.parametrize(("modified", "seconds"), DATES)
def test_E10_remote_time(modified: str, seconds: int, bench: Bench):
    bench.resource.last_modified, bench.resource.date = modified, DATE
    bench.attempt(remote_time=True)
    assert bench.path.stat().st_mtime == seconds
    bench.attempt(remote_time=False)
    assert bench.path.stat().st_mtime != seconds


@pytest.mark.parametrize("modified", [*NO_DATES, "Mon, 01 Jan 1940 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_E10_a_date_that_cannot_be_is_no_failure(modified: str | None, bench: Bench):
    (bench.folder / "before").touch()
    bench.resource.last_modified, bench.resource.date = modified, DATE
    assert bench.attempt(remote_time=True).result.data_length == len(BODY)
    if modified in NO_DATES:
        assert bench.path.stat().st_mtime >= (bench.folder / "before").stat().st_mtime


@pytest.mark.parametrize("again", [True, False], ids=["same task", "another"])
def test_E10_remote_time_of_a_file_that_was_continued(again: bool, bench: Bench):
    if again:
        bench.leave_out("Last-Modified")  # which a 206 to If-Range may leave out (RFC 9110 15.3.7)
        bench.attempt(CUT_HERE, retry=AT_ONCE, remote_time=True)
    else:
        bench.break_off()
        bench.attempt(remote_time=True)
    assert bench.path.stat().st_mtime == DATES[0][1]
    bench.assert_whole()


# exists


def test_S31_error_is_told_before_any_request(bench: Bench):
    bench.path.write_text("old")
    error = bench.attempt(exists="error").error
    assert isinstance(error, rawdl.StorageError)
    assert isinstance(error.__cause__, FileExistsError)
    assert (error.errno, error.path, bench.world.log) == (errno.EEXIST, str(bench.path), [])
    assert (bench.path.read_text(), bench.names) == ("old", ["a"])


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("a.tar.gz", ["a.tar.1.gz", "a.tar.2.gz"]),
        ("a", ["a.1", "a.2"]),
        ("a.", ["a.1.", "a.2."]),
        (".a", [".a.1", ".a.2"]),
    ],
)
def test_S31_S38_rename_numbers_the_file(name: str, names: list[str], bench: Bench):
    (bench.folder / name).write_text("old")
    for number, expected in enumerate(names, 1):
        assert bench.attempt(file_path=bench.folder / name, exists="rename").result.file_path == str(
            bench.folder / expected
        )
        assert (bench.folder / expected).read_bytes() == BODY
        assert bench.names == sorted([name, *names[:number]])
    assert (bench.folder / name).read_text() == "old"


def test_S31_S35_skip_asks_for_nothing_and_touches_nothing(bench: Bench):
    bench.path.write_text("old")
    attempt = bench.attempt(exists="skip")
    result = attempt.result
    assert (result.skipped, result.data_length, result.file_path) == (True, 3, str(bench.path))
    assert (result.resumed_from, result.attempts, result.checksum) == (0, (), "")
    assert result.to_dict()["skipped"] is True
    assert (bench.world.log, bench.path.read_text(), bench.names) == ([], "old", ["a"])
    bench.path.unlink()
    assert bench.attempt(exists="skip").result.skipped is False
    bench.assert_whole()


def test_S31_what_is_skipped_has_the_checksum(bench: Bench):
    bench.path.write_bytes(BODY)
    result = bench.attempt(exists="skip", checksum=SHA256).result
    assert (result.skipped, result.data_length, result.checksum) == (True, len(BODY), SHA256)
    assert (bench.world.log, bench.names) == ([], ["a"])


@pytest.mark.parametrize("content", [b"", b"old", BODY[:-1], BODY + b"?", b"?" + BODY[1:]], ids=len)
def test_S31_a_wrong_file_is_not_skipped_with_success(content: bytes, bench: Bench):
    bench.path.write_bytes(content)
    error = bench.attempt(exists="skip", checksum=SHA256, mirrors=[bench.url]).error
    assert isinstance(error, rawdl.ChecksumError)
    assert (error.expected, error.actual) == (SHA256, f"sha256:{hashlib.sha256(content).hexdigest()}")
    assert (error.attempts, bench.world.log, bench.names) == ((), [], ["a"])
    assert bench.path.read_bytes() == content
    bench.path.unlink()
    assert bench.attempt(exists="skip", checksum=SHA256).result.skipped is False
    bench.assert_whole()


def test_S31_what_cannot_be_read_is_not_skipped_with_success(bench: Bench):
    os.symlink(bench.folder / "b", bench.folder / "c")
    os.mkfifo(bench.folder / "b")
    error = bench.attempt(file_path=bench.folder / "c", exists="skip", checksum=SHA256).error
    assert isinstance(error, rawdl.StorageError) and error.errno == errno.ESPIPE
    for name in ("b", "c"):
        os.unlink(bench.folder / name)


def test_S31_a_client_may_skip_a_file_again(bench: Bench):
    bench.path.write_bytes(b"old")
    with bench.world.client() as client:
        for _ in range(2):
            assert client.download_file(url=bench.url, file_path=bench.path, exists="skip").result().skipped
        bench.path.unlink()
        assert not client.download_file(url=bench.url, file_path=bench.path, exists="skip").result().skipped


def test_T42_S31_skip_does_not_take_a_folder_for_a_file(bench: Bench):
    bench.path.mkdir()
    error = bench.attempt(exists="skip").error
    assert isinstance(error, rawdl.StorageError) and error.errno == errno.EISDIR


@pytest.mark.parametrize("exists", ["error", "rename", "skip"])
def test_S31_a_part_is_continued_whatever_exists_says(exists: str, bench: Bench):
    bench.break_off(exists=exists)
    assert bench.attempt(exists=exists).result.resumed_from == CUT
    bench.assert_whole()


MAKE: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_text("theirs"),
    "dangling link": lambda path: path.symlink_to("theirs"),
    "folder": Path.mkdir,
}


@pytest.mark.usefixtures("leaves_parts")
@pytest.mark.parametrize("what", MAKE)
@pytest.mark.parametrize("links", [True, False], ids=["link", "no link"])
@pytest.mark.parametrize("exists", ["error", "rename", "skip"])
@pytest.mark.parametrize("moment", ["headers", "link"])
def test_E3_K4_T43_a_file_that_appears_meanwhile_is_not_lost(
    moment: str, exists: str, links: bool, what: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    """Be it in the very moment of the rename, and on a file system without hard links."""
    real = os.link

    def link(source: str, target: str) -> None:
        if moment == "link" and not os.path.lexists(bench.path):
            MAKE[what](bench.path)
        if not links:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    client = bench.world.client(retry=ONE_TRY)
    attempt: Attempt = bench.begin(client, exists=exists)
    if moment == "headers":
        attempt.react("headers", lambda event: MAKE[what](bench.path))
    client.run()
    theirs = {"file": bench.path.is_file, "dangling link": bench.path.is_symlink, "folder": bench.path.is_dir}
    assert theirs[what]()
    assert what != "file" or bench.path.read_text() == "theirs"
    assert not (bench.folder / "theirs").exists()
    if exists == "rename":
        assert attempt.result.file_path == str(bench.folder / "a.1")
        assert (bench.folder / "a.1").read_bytes() == BODY
        assert bench.names == ["a", "a.1"]
    else:
        assert isinstance(attempt.error, rawdl.StorageError)
        assert isinstance(attempt.error.__cause__, FileExistsError)
        bench.path.rmdir() if what == "folder" else bench.path.unlink()
        monkeypatch.undo()
        assert bench.attempt(exists=exists).result.resumed_from == len(BODY), "it was all there"
        bench.assert_whole()
