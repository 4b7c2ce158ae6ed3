"""The journal beside a part: what it says, whom it belongs to, and when it is believed (T41, T45, T47, S28-S30)."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import rawdl
from rawdl.journal import VERSION, Journal, Owner, Record, believed, key_of, shown

ROOT = Path(__file__).resolve().parent.parent
as_root = hasattr(os, "geteuid") and os.geteuid() == 0
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
needs_fifo = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
needs_signals = pytest.mark.skipif(os.name == "nt", reason="needs the signals of POSIX")
steady = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))

SECRET = "canary"
URL = f"https://example.org/a?signature={SECRET}"
RECORD = Record(
    version=VERSION,
    url="https://example.org/a",
    url_key=key_of(URL),
    final_url="https://cdn.example.org/a",
    validator=("etag", '"é\x80"'),
    total=1000,
    done=((0, 100), (200, 300), (999, 1000)),
    synced=((0, 50), (60, 100), (200, 201)),
    coding="identity",
    in_order=False,
    owner=Owner(pid=12, started=34, boot="56", host="somewhere", token="78"),
)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(str(tmp_path / "a.part"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def written() -> dict[str, Any]:
    """Return the text of a journal as it is read by others."""
    return json.loads(json.dumps(RECORD._asdict() | {"owner": RECORD.owner._asdict()}))


def put(journal: Journal, text: object) -> Record | None:
    data = text if isinstance(text, bytes) else json.dumps(text).encode()
    Path(journal.path).write_bytes(data)
    return journal.load()


def never() -> float:
    raise AssertionError("a process of this host is looked at, its journal's age is not")


# What is written is read


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        RECORD._replace(validator=None, total=None, done=(), synced=(), owner=Owner.current()),
        RECORD._replace(total=0, done=(), synced=(), coding="", url="", final_url="\udc80"),
        RECORD._replace(total=2**63 - 1, done=((2**53 + 1, 2**63 - 1),), synced=((2**53 + 1, 2**53 + 2),)),
        RECORD._replace(done=((0, 10), (10, 20)), synced=((5, 15),)),
        RECORD._replace(owner=RECORD.owner.released()),
    ],
)
def test_T45_what_is_saved_is_loaded(record: Record, durable: bool, journal: Journal, tmp_path: Path):
    assert journal.load() is None
    journal.save(RECORD, durable=durable)
    journal.save(record, durable=durable)
    assert journal.load() == record
    assert names(tmp_path) == ["a.part.json"]
    assert type(record.owner) is type(journal.load().owner) is Owner
    journal.remove()
    assert names(tmp_path) == []
    journal.remove()


@pytest.mark.skipif(os.name == "nt", reason="no modes here")
def test_S30_E4_a_journal_is_for_its_owner_alone(journal: Journal):
    before = os.umask(0)
    try:
        journal.save(RECORD, durable=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(journal.path).st_mode) == 0o600


def test_A9_the_query_is_written_as_a_hash(journal: Journal):
    journal.save(RECORD, durable=False)
    assert SECRET not in Path(journal.path).read_text()
    assert journal.load().url_key == key_of(URL) != key_of(URL + "1")
    assert len(key_of("?\udc80")) == len(key_of("?")) == 64
    assert key_of("https://example.org/a") == ""
    assert shown(URL) == "https://example.org/a"


def test_a_relative_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    journal = Journal("a.part")
    journal.save(RECORD, durable=True)
    assert journal.load() == RECORD
    assert names(tmp_path) == ["a.part.json"]
    assert repr(journal) == "<Journal a.part.json>"


@pytest.mark.parametrize("name", ["a.part", "n" * 246, "é" * 123])
def test_S28_a_journal_is_named_after_its_part(name: str):
    assert Journal(os.path.join("d", name)).path == os.path.join("d", f"{name}.json")


@pytest.mark.parametrize("name", ["n" * 247, "n" * 255, "é" * 127, "\udcff" * 255])
def test_S28_a_long_name_is_hashed_into_its_journal(name: str, tmp_path: Path):
    journal = Journal(str(tmp_path / name))
    journal.save(RECORD, durable=True)
    assert journal.idle() < 60
    assert names(tmp_path) == [os.path.basename(journal.path)]
    assert journal.path.endswith(".part.json")
    assert journal.path == Journal(str(tmp_path / name)).path != Journal(str(tmp_path / (name[:-1] + "x"))).path


# What cannot be believed


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 4096,
        b"null",
        b"[]",
        b"{}",
        b"1",
        b"NaN",
        b'"text"',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"[" * 500_000,
        b'{"a":' * 100_000,
        b"9" * 5000,
        json.dumps(written()).encode()[:-1],
        json.dumps(written()).encode("utf-16"),
        json.dumps(written()).encode() + b"x",
        json.dumps(written()).encode() + b" " * (1 << 20),
        json.dumps(written()).replace("{", '{"version": 1, ', 1).encode(),
        json.dumps(written()).replace("{", '{"version": 2, ', 1).encode(),
        json.dumps(written()).replace('"pid": 12', '"pid": ' + "9" * 5000).encode(),
    ],
    ids=range(20),
)
def test_R10_what_is_no_journal(data: bytes, journal: Journal):
    assert put(journal, data) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, wrong) for name in Record._fields for wrong in (True, -1, 0.5, float("nan"), {}, [1], 2**63)]
    + [(name, None) for name in Record._fields if name not in ("total", "validator")]
    + [
        ("version", 0),
        ("version", 2),
        ("version", 1.0),
        ("version", "1"),
        ("url", 1),
        ("total", 999),
        ("total", 1000.0),
        ("validator", ["etag"]),
        ("validator", ["etag", "x", "y"]),
        ("validator", ["etag", 1]),
        ("validator", "ab"),
        ("done", [[0, 10]]),
        ("done", [[0]]),
        ("done", [[0, 1000, 1000]]),
        ("done", [[0, 1000.0]]),
        ("done", [[-1, 1000]]),
        ("done", [[0, 1001]]),
        ("done", [[0, 500], [499, 1000]]),
        ("done", [[500, 1000], [0, 500]]),
        ("done", [[0, 1000], [1000, 1000]]),
        ("done", {"0": 1000}),
        ("synced", [[0, 101]]),
        ("synced", [[100, 200]]),
        ("synced", [[1, 0]]),
        ("owner", list(RECORD.owner)),
        ("owner", RECORD.owner._asdict() | {"pid": "1"}),
        ("owner", RECORD.owner._asdict() | {"pid": -1}),
        ("owner", RECORD.owner._asdict() | {"pid": None}),
        ("owner", RECORD.owner._asdict() | {"started": "34"}),
        ("owner", RECORD.owner._asdict() | {"boot": None}),
        ("owner", RECORD.owner._asdict() | {"more": 1}),
    ],
)
def test_R10_a_journal_with_something_wrong_in_it(name: str, value: object, journal: Journal):
    assert put(journal, written()) == RECORD
    assert put(journal, written() | {name: value}) is None


@pytest.mark.parametrize("name", Record._fields)
def test_R10_a_journal_with_something_missing_or_more(name: str, journal: Journal):
    fields = written()
    assert put(journal, fields | {f"{name}2": fields[name]}) is None
    del fields[name]
    assert put(journal, fields) is None


@settings(steady, max_examples=300)
@given(st.binary(max_size=200))
def test_R10_noise_is_no_journal(journal: Journal, data: bytes):
    assert put(journal, data) is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(0, 1000) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(steady, max_examples=300)
@given(st.sampled_from(Record._fields), VALUES)
def test_R10_a_journal_with_any_value_is_consistent_or_none(journal: Journal, name: str, value: object):
    check_consistent(journal, put(journal, written() | {name: value}))


@settings(steady, max_examples=300)
@given(st.integers(0, 400), st.integers(0, 5), st.binary(max_size=5))
def test_R10_an_edited_journal_is_consistent_or_none(journal: Journal, at: int, length: int, data: bytes):
    text = json.dumps(written()).encode()
    check_consistent(journal, put(journal, text[:at] + data + text[at + length :]))


RANGES = st.lists(st.tuples(st.integers(-1, 12), st.integers(-1, 12)), max_size=3)


@settings(steady, max_examples=500)
@given(RANGES, RANGES, st.none() | st.integers(0, 12))
def test_R10_ranges_of_any_kind(
    journal: Journal, done: list[tuple[int, int]], synced: list[tuple[int, int]], total: int | None
):
    record = put(journal, written() | {"done": done, "synced": synced, "total": total})
    limit = 12 if total is None else total
    flat = [edge for pair in done for edge in pair]
    flat_synced = [edge for pair in synced for edge in pair]
    good = (
        all(0 <= first < end <= limit for first, end in done + synced)
        and flat == sorted(flat)
        and flat_synced == sorted(flat_synced)
        and bytes_of(synced) <= bytes_of(done)
    )
    assert (record is not None) is good


def bytes_of(ranges: list[tuple[int, int]]) -> set[int]:
    return {n for first, end in ranges for n in range(first, end)}


def check_consistent(journal: Journal, record: Record | None) -> None:
    if record is None:
        return
    journal.save(record, durable=False)
    assert journal.load() == record
    hash(record)  # lists would not
    assert isinstance(record.owner.is_alive(lambda: 0.0), bool)


def test_a_record_that_could_not_be_loaded_is_not_saved(journal: Journal, tmp_path: Path):
    for record in (RECORD._replace(total=999), RECORD._replace(version=2), RECORD._replace(synced=((0, 101),))):
        with pytest.raises(AssertionError):
            journal.save(record, durable=False)
    assert names(tmp_path) == []


# What is in the way


def symlink(path: Path) -> None:
    path.with_name("theirs").write_text(json.dumps(written()))
    path.symlink_to("theirs")


IN_THE_WAY = [
    pytest.param(symlink, id="symlink"),
    pytest.param(lambda path: path.symlink_to("nowhere"), id="dangling symlink"),
    pytest.param(lambda path: path.symlink_to(path.name), id="symlink to itself"),
    pytest.param(lambda path: path.mkdir(), id="folder"),
    pytest.param(lambda path: os.mkfifo(path), id="FIFO", marks=needs_fifo),
    pytest.param(lambda path: path.symlink_to("/dev/zero"), id="symlink to a device"),
]


@pytest.mark.parametrize("prepare", IN_THE_WAY)
def test_S29_E4_a_journal_that_is_no_regular_file(prepare: Callable[[Path], None], journal: Journal, tmp_path: Path):
    prepare(Path(journal.path))
    before = names(tmp_path)
    with pytest.raises(rawdl.StorageError, match="no regular file") as caught:
        journal.load()
    assert caught.value.path == journal.path
    assert caught.value.errno == errno.EEXIST
    assert names(tmp_path) == before


@pytest.mark.parametrize("prepare", IN_THE_WAY)
def test_E4_a_temporary_name_that_is_no_regular_file(prepare: Callable[[Path], None], journal: Journal, tmp_path: Path):
    journal.save(RECORD, durable=False)
    for suffix in (".new", ".now"):
        prepare(Path(journal.path + suffix))
        before = names(tmp_path)
        with pytest.raises(rawdl.StorageError, match="no regular file") as caught:
            journal.save(RECORD._replace(total=2000), durable=False) if suffix == ".new" else journal.idle()
        assert caught.value.path == journal.path + suffix
        assert names(tmp_path) == before
        (tmp_path / "theirs").unlink(missing_ok=True)
    assert journal.load() == RECORD


@needs_fifo
@pytest.mark.parametrize(("plant", "message"), [("os.mkfifo(path)", "no regular file"), ("os.symlink('b', path)", "")])
def test_S29_E4_a_journal_that_is_exchanged_between_look_and_open(
    plant: str, message: str, journal: Journal, tmp_path: Path
):
    """The interpreter tells of each file that is about to be opened: that is the moment."""
    journal.save(RECORD, durable=False)
    os.link(journal.path, tmp_path / "b")
    script = f"""
        import os, sys
        path = journal.path
        def exchange(event, args):
            if event == "open" and args[0] == path and os.path.samefile(path, os.path.dirname(path) + "/b"):
                os.unlink(path)
                {plant}
        sys.addaudithook(exchange)
        try:
            print(journal.load())
        except rawdl.StorageError as error:
            print("StorageError", error)
    """
    with child(journal, script) as process:
        output = process.communicate(timeout=60)[0]
    assert output.startswith("StorageError") and message in output


def test_E4_a_planted_symlink_is_replaced_and_not_followed(journal: Journal, tmp_path: Path):
    (tmp_path / "theirs").write_text("theirs")
    Path(journal.path).symlink_to("theirs")
    journal.save(RECORD, durable=True)
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert journal.load() == RECORD


def test_K1_a_folder_in_the_place_of_the_journal(journal: Journal, tmp_path: Path):
    Path(journal.path).mkdir()
    with pytest.raises(rawdl.StorageError) as caught:
        journal.save(RECORD, durable=False)
    assert caught.value.path == journal.path
    assert caught.value.errno in (errno.EISDIR, errno.EACCES)
    assert names(tmp_path) == ["a.part.json"]


@pytest.mark.parametrize("act", ["load", "save", "idle"])
@pytest.mark.parametrize(("folder", "number"), [("missing", errno.ENOENT), ("file", errno.ENOTDIR)])
def test_K1_a_folder_that_is_none(act: str, folder: str, number: int, tmp_path: Path):
    (tmp_path / "file").touch()
    journal = Journal(str(tmp_path / folder / "a.part"))
    journal.remove()
    if act != "save" and number == errno.ENOENT:
        assert journal.load() is None
        assert journal.idle() == float("inf")
        return
    with pytest.raises(rawdl.StorageError) as caught:
        journal.save(RECORD, durable=False) if act == "save" else getattr(journal, act)()
    assert caught.value.path.startswith(journal.path)
    assert caught.value.errno in (number, errno.ENOENT)


@pytest.mark.skipif(as_root or os.name == "nt", reason="root may write anywhere")
def test_K1_a_folder_that_may_not_be_written_to(journal: Journal, tmp_path: Path):
    journal.save(RECORD, durable=False)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(rawdl.StorageError) as caught:
            journal.save(RECORD, durable=True)
        with pytest.raises(rawdl.StorageError):
            journal.idle()
        assert journal.load() == RECORD
    finally:
        tmp_path.chmod(0o700)
    assert caught.value.errno == errno.EACCES


@pytest.mark.skipif(as_root or os.name == "nt", reason="root may read anything")
def test_K1_a_journal_that_may_not_be_read(journal: Journal):
    journal.save(RECORD, durable=False)
    os.chmod(journal.path, 0)
    with pytest.raises(rawdl.StorageError) as caught:
        journal.load()
    assert (caught.value.errno, caught.value.path) == (errno.EACCES, journal.path)


@pytest.mark.skipif(as_root or os.name == "nt", reason="root may read anything")
def test_a_folder_that_may_be_written_to_but_not_read(journal: Journal, tmp_path: Path):
    tmp_path.chmod(0o300)
    try:
        journal.save(RECORD, durable=True)
        assert journal.load() == RECORD
    finally:
        tmp_path.chmod(0o700)


def test_K1_a_disk_that_takes_a_part(journal: Journal, tmp_path: Path):
    """EFBIG of the kernel, after a short write: the old journal stays, and nothing else."""
    pytest.importorskip("resource")
    script = """
        import resource, signal
        journal.save(RECORD, durable=False)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        for durable in (False, True):
            try:
                journal.save(RECORD._replace(total=2000), durable=durable)
            except rawdl.StorageError as error:
                print(error.errno, error.path)
    """
    with child(journal, script) as process:
        assert process.communicate(timeout=60)[0].split() == [str(errno.EFBIG), journal.path] * 2
    assert names(tmp_path) == ["a.part.json"]
    assert journal.load() == RECORD


CALLS = ["open", "write", "fsync", "close", "replace"]
AFTER_THE_RENAME = [("open", 2), ("fsync", 2), ("close", 2)]  # of the folder


def failing(call: str, which: int, number: int) -> Callable[..., object]:
    """Return the call of the system with this name, which does its work but says of one time that it failed."""
    real, times = getattr(os, call), iter(range(1, 100))

    def wrapper(*args: Any, **named: Any) -> object:
        failed = next(times) == which
        result = None if failed and call in ("open", "replace") else real(*args, **named)
        if failed:
            raise OSError(number, os.strerror(number))
        return result

    return wrapper


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize(("call", "which"), [(call, 1) for call in CALLS] + AFTER_THE_RENAME)
def test_K1_K2_each_call_may_fail(
    call: str, which: int, number: int, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    journal.save(RECORD, durable=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(call, which, number))
        with pytest.raises(rawdl.StorageError) as caught:
            journal.save(RECORD._replace(total=2000), durable=True)
    assert (caught.value.errno, caught.value.path) == (number, journal.path)
    assert names(tmp_path) == ["a.part.json"]
    assert journal.load().total == (1000 if which == 1 else 2000)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_syncs_no_folders(number: int, journal: Journal, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing("fsync", 2, number))
        journal.save(RECORD, durable=True)
    assert journal.load() == RECORD


@pytest.mark.skipif(os.name == "nt", reason="folders are not opened there")
def test_R1_a_durable_journal_is_synced_before_its_rename_and_the_folder_after(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[str] = []

    def note(call: str) -> None:
        real = getattr(os, call)

        def noting(*args: Any) -> object:
            folder = call == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode)
            seen.append(f"{call} folder" if folder else call)
            return real(*args)

        monkeypatch.setattr(os, call, noting)

    for call in ("write", "fsync", "replace"):
        note(call)
    journal.save(RECORD, durable=False)
    assert seen == ["write", "replace"]
    seen.clear()
    journal.save(RECORD, durable=True)
    assert seen == ["write", "fsync", "replace", "fsync folder"]


# A process that is killed


def test_T47_R1_a_journal_is_whole_whenever_its_writer_is_killed(journal: Journal, tmp_path: Path):
    """The kill comes while the child saves in a loop; what it leaves beside the journal goes with the next save."""
    chance = random.Random(47)
    script = """
        for n in range(1, 10**6):
            ranges = tuple((2 * k, 2 * k + 1) for k in range(n % 400))
            journal.save(RECORD._replace(total=n * 1000, done=ranges, synced=()), durable=n % 3 == 0)
            print(n, flush=True)
    """
    for _ in range(30):
        with child(journal, script) as process:
            seen = [int(process.stdout.readline()) for _ in range(chance.randint(1, 40))][-1]
            process.kill()
        record = journal.load()
        assert record is not None
        number = record.total // 1000
        assert number >= seen
        assert len(record.done) == number % 400
        assert set(names(tmp_path)) <= {"a.part.json", "a.part.json.new"}
    Path(journal.path + ".new").write_text("left behind")
    journal.save(RECORD, durable=False)
    assert names(tmp_path) == ["a.part.json"]
    assert journal.load() == RECORD


def test_what_a_killed_process_left_is_removed(journal: Journal, tmp_path: Path):
    for suffix in ("", ".new", ".now"):
        Path(journal.path + suffix).write_text("left behind")
    journal.remove()
    assert names(tmp_path) == []


# Who is alive


PRINT_OWNER = "import json; print(json.dumps(Owner.current()), flush=True); input()"


def test_R13_S29_this_process_is_alive_whoever_writes_in_it(journal: Journal):
    owner, other = Owner.current(), Owner.current()
    assert owner.token != other.token
    assert owner == other._replace(token=owner.token)
    assert owner.is_alive(never)
    assert other.is_alive(never)
    assert not owner.released().is_alive(never)


def test_R13_a_child_until_it_ends(journal: Journal):
    with child(journal, PRINT_OWNER) as process:
        owner = Owner(*json.loads(process.stdout.readline()))
        assert owner.pid == process.pid
        assert owner.is_alive(never)
        process.communicate("\n", timeout=60)
    assert not owner.is_alive(never)


@needs_signals
@needs_proc
def test_R13_a_child_that_is_stopped_lives_and_one_that_is_a_zombie_does_not(journal: Journal):
    with child(journal, PRINT_OWNER) as process:
        owner = Owner(*json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert owner.is_alive(never)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        os.kill(process.pid, 0)  # its pid is still taken
        assert not owner.is_alive(never)


@needs_signals
def test_R13_a_process_of_another_user_is_alive():
    """The first process is root's: to look at it is refused to others, who learn by this that it is there."""
    assert Owner.current()._replace(pid=1, started=None).is_alive(never)


@needs_signals
@needs_proc
@pytest.mark.parametrize(
    ("change", "alive"),
    [
        ({"started": 1}, False),  # the pid is used again
        ({"started": None}, True),
        ({"boot": "another"}, False),
        ({"boot": ""}, True),
        ({"boot": "", "started": 1}, False),
        ({"pid": 2**31 - 1}, False),
        ({"pid": 2**63 - 1}, False),
    ],
)
def test_R13_an_owner_on_this_host(change: dict[str, Any], alive: bool):
    assert Owner.current()._replace(**change).is_alive(never) is alive


@pytest.mark.parametrize(
    ("idle", "alive"),
    [(0.0, True), (119.0, True), (121.0, False), (86400.0, False), (float("inf"), False), (-60.0, True), (-1e5, False)],
)
def test_R13_K11_an_owner_on_another_host_must_renew_its_journal(idle: float, alive: bool):
    owner = Owner.current()._replace(host="another")
    assert owner.is_alive(lambda: idle) is alive
    assert not owner.released().is_alive(lambda: idle)


@pytest.mark.parametrize("renewed", [0, 1_000_000, 4_000_000_000])
def test_K11_the_age_of_a_journal_is_the_file_systems(renewed: int, journal: Journal, tmp_path: Path):
    """Before 1980 and beyond 2038 as well; and nothing is left of asking."""
    journal.save(RECORD, durable=False)
    assert abs(journal.idle()) < 60
    os.utime(journal.path, (renewed, renewed))
    (tmp_path / "b").touch()
    assert abs(journal.idle() - ((tmp_path / "b").stat().st_mtime - renewed)) < 60
    assert names(tmp_path) == ["a.part.json", "b"]
    journal.remove()
    assert journal.idle() == float("inf")


# What is believed


def test_R1_what_was_not_synced_is_believed_in_the_same_boot_only():
    owner = Owner.current()
    present = RECORD.done if owner.boot else RECORD.synced  # a system that does not tell its boot may have had another
    assert believed(RECORD._replace(owner=owner), 10**6) == present
    assert believed(RECORD._replace(owner=owner.released()), 10**6) == present
    assert believed(RECORD._replace(owner=owner._replace(pid=2**31 - 1, started=1)), 10**6) == present
    for change in ({"boot": "another"}, {"boot": ""}, {"host": "another"}):
        assert believed(RECORD._replace(owner=owner._replace(**change)), 10**6) == RECORD.synced


@pytest.mark.parametrize(
    ("size", "expected"),
    [(100, ((0, 100),)), (150, ((0, 150),)), (200, ((0, 200),)), (99, ((0, 100),)), (201, ((0, 100),))],
)
def test_R1_T47_what_came_in_order_is_believed_up_to_the_size_of_the_part(size: int, expected: tuple[tuple[int, int]]):
    """The journal may be a second old; a part of less than it says, or of more than there can be, proves nothing."""
    record = RECORD._replace(owner=Owner.current(), total=200, done=((0, 100),), synced=((0, 50),), in_order=True)
    assert believed(record, size) == (expected if record.owner.boot else record.synced)
    assert believed(record._replace(in_order=False), size) == (((0, 100),) if record.owner.boot else record.synced)
    assert believed(record._replace(owner=record.owner._replace(boot="another")), size) == ((0, 50),)
    assert believed(record._replace(done=(), synced=()), size) == ()


@contextmanager
def child(journal: Journal, script: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script in another process, with the names ``journal`` and ``RECORD``; it is gone afterwards."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import rawdl
from rawdl.journal import Journal, Owner, Record
journal = Journal({journal.path.removesuffix(".json")!r})
RECORD = {RECORD!r}
{textwrap.dedent(script)}
"""
    command = [sys.executable, "-I", "-W", "error", "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
