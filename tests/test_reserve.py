"""Blocks set aside for a file that is to be written, and what becomes of those that are not used (C5, H8)."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

import pytest

import rawdl
from rawdl import journal
from rawdl.destination import Destinations
from rawdl.journal import Ranges
from rawdl.ledger import Found
from rawdl.partfile import PartFile
from rawdl.reserve import reserve

fcntl = pytest.importorskip("fcntl")
SIZE = 4 << 20
KNOWN = Found("http://example.org/a", ("etag", '"1"'), SIZE)
BLOCK = 65536  # bytes: no file system has a larger one


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.fixture
def part(tmp_path: Path) -> Iterator[PartFile]:
    part = PartFile(str(tmp_path / "a"), Destinations(), url="http://example.org/a")
    yield part
    part.discard()


@pytest.fixture
def able(file: int) -> None:
    reserve(file, 1)
    if not held(file):
        pytest.skip("this file system sets no blocks aside")


def held(where: int | Path) -> int:
    """Return how many bytes a file takes of its file system."""
    return os.stat(where).st_blocks * 512


def on_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have files be on a disk, wherever the tests run."""
    monkeypatch.setattr("rawdl.reserve.is_memory", lambda device: False)


def begin(part: PartFile, *, total: int = SIZE, data: bytes = b"") -> None:
    part.open()
    part.describe(KNOWN._replace(total=total), total)
    part.write(memoryview(data))


@pytest.mark.usefixtures("able")
def test_blocks_are_set_aside_and_the_size_stays(file: int):
    os.write(file, b"begun")
    reserve(file, SIZE)
    assert held(file) >= SIZE
    assert os.fstat(file).st_size == 5
    assert os.pread(file, 10, 0) == b"begun"


@pytest.mark.usefixtures("able")
def test_H8_more_than_the_file_system_has_is_said_at_once(file: int):
    with pytest.raises(OSError) as caught:
        reserve(file, 1 << 60)
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert os.fstat(file).st_size == 0


@pytest.mark.parametrize("size", [1 << 63, 1 << 70])
def test_C5_what_no_file_can_be_is_not_asked_for(file: int, size: int):
    reserve(file, size)
    assert held(file) == os.fstat(file).st_size == 0


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="no file system that is known to be in memory")
def test_C5_memory_is_not_taken_at_the_word_of_a_server():
    with TemporaryFile(dir="/dev/shm") as file:
        reserve(file.fileno(), SIZE)
        assert held(file.fileno()) == 0


def test_where_it_cannot_be_had_nothing_happens():
    read, write = os.pipe()
    reserve(write, SIZE)
    os.close(read)
    os.close(write)


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is asked elsewhere")
def test_a_file_system_that_lets_the_file_grow_is_corrected(file: int, monkeypatch: pytest.MonkeyPatch):
    """Its size would be taken for what was written."""
    monkeypatch.setattr(fcntl, "ioctl", lambda fd, request, argument: os.ftruncate(fd, SIZE))
    on_a_disk(monkeypatch)
    os.write(file, b"begun")
    reserve(file, SIZE)
    assert os.fstat(file).st_size == 5


@pytest.mark.usefixtures("able")
def test_a_part_has_room_for_the_whole_file(part: PartFile, tmp_path: Path):
    begin(part, data=b"begun")
    assert held(tmp_path / "a.part") >= SIZE
    assert (tmp_path / "a.part").stat().st_size == 5


def test_a_small_one_is_left_to_the_file_system(part: PartFile, tmp_path: Path):
    begin(part, total=BLOCK)
    assert held(tmp_path / "a.part") == 0


@pytest.mark.usefixtures("able")
def test_what_is_kept_holds_no_more_than_it_needs(part: PartFile, tmp_path: Path):
    begin(part, data=b"begun")
    assert part.keep() == str(tmp_path / "a.part")
    assert (tmp_path / "a.part").read_bytes() == b"begun"
    assert held(tmp_path / "a.part") <= BLOCK


@pytest.mark.usefixtures("able")
def test_nor_does_a_file_that_comes_to_less(part: PartFile, tmp_path: Path):
    """As a decoded one may."""
    begin(part, data=b"all of it")
    part.commit()
    assert (tmp_path / "a").read_bytes() == b"all of it"
    assert held(tmp_path / "a") <= BLOCK


@pytest.mark.usefixtures("able")
def test_H8_a_disk_that_has_the_blocks_already_is_not_full(
    part: PartFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A process that was killed leaves them with its part; they need no room once more."""
    monkeypatch.setattr(os, "ftruncate", lambda fd, size: None)
    begin(part, data=b"begun")
    part.keep()
    real = os.fstatvfs
    monkeypatch.setattr(os, "fstatvfs", lambda fd: os.statvfs_result([*real(fd)[:4], 1, *real(fd)[5:]]))
    begin(part)
    assert part.position == 5
    with pytest.raises(rawdl.StorageError, match=r"needs \d+ more bytes, and \d+ are free") as caught:
        part.describe(KNOWN, held(tmp_path / "a.part") + 2 * BLOCK)
    assert caught.value.errno == errno.ENOSPC


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return what a file system is asked to set aside: the first byte, and how many."""
    asked: list[tuple[int, int]] = []

    def note(fd: int, request: int, argument: bytes) -> None:
        asked.append((int.from_bytes(argument[8:16], sys.byteorder), int.from_bytes(argument[16:24], sys.byteorder)))

    monkeypatch.setattr(fcntl, "ioctl", note)
    on_a_disk(monkeypatch)
    return asked


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is asked elsewhere")
def test_H8_another_try_asks_for_nothing_that_the_first_has_got(part: PartFile, asked: list[tuple[int, int]]):
    """XFS would want room for all of it once more, and a file that takes half of the disk would be lost by one FIN."""
    begin(part, data=b"begun")
    part.describe(KNOWN, SIZE)
    assert asked == [(0, SIZE)]


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is asked elsewhere")
def test_H8_nor_does_another_download_for_what_is_there(part: PartFile, asked: list[tuple[int, int]]):
    begin(part, data=b"begun")
    part.keep()
    begin(part)
    assert part.position == 5
    assert asked == [(0, SIZE), (5, SIZE - 5)]


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is asked elsewhere")
def test_a_file_that_is_long_enough_needs_nothing(file: int, asked: list[tuple[int, int]]):
    os.ftruncate(file, 10)
    reserve(file, 10)
    assert asked == []


@pytest.mark.usefixtures("able")
def test_H8_what_was_just_removed_counts_as_free(part: PartFile, monkeypatch: pytest.MonkeyPatch):
    """The whole comes anew, and a file system may take its time with the blocks of what was there (XFS, Btrfs)."""
    begin(part, data=b"begun")
    real = os.fstatvfs
    monkeypatch.setattr(os, "fstatvfs", lambda fd: os.statvfs_result([*real(fd)[:4], 1, *real(fd)[5:]]))
    part.restart()
    part.describe(KNOWN, SIZE)
    with pytest.raises(rawdl.StorageError, match=r"needs \d+ more bytes, and \d+ are free"):
        part.describe(KNOWN, 3 * SIZE)


def test_K1_a_disk_that_cannot_set_them_aside_is_full(part: PartFile, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    on_a_disk(monkeypatch)
    with pytest.raises(rawdl.StorageError) as caught:
        begin(part)
    assert caught.value.errno == errno.EDQUOT


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no room for another file, which the one that has its blocks does not mind."""

    def refuse(path: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journal, "create", refuse)


@pytest.mark.usefixtures("full")
def test_K1_a_file_whose_own_blocks_fill_the_disk_needs_no_journal(part: PartFile, tmp_path: Path):
    begin(part, data=b"all of it")
    for now in (1.0, 2.0, 40.0):
        part.note(now)
    part.share(lambda: ((0, 9),))
    part.commit()
    assert (tmp_path / "a").read_bytes() == b"all of it"


def test_K1_bytes_that_did_not_reach_the_disk_are_no_matter_of_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    part = PartFile(str(tmp_path / "a"), Destinations(), url="http://example.org/a", durable=True)
    begin(part, data=b"begun")
    part.note(1.0)
    monkeypatch.setattr(os, "fdatasync", refuse, raising=False)
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(rawdl.StorageError) as caught:
        part.note(2.0)
    assert caught.value.errno == errno.ENOSPC
    part.discard()


def test_I3_no_hole_is_made_beside_a_journal_that_knows_none(part: PartFile, request: pytest.FixtureRequest):
    begin(part, data=b"begun")
    part.note(1.0)
    part.note(2.0)
    request.getfixturevalue("full")
    with pytest.raises(rawdl.StorageError) as caught:
        part.share(lambda: ((0, 5), (9, 10)))
    assert caught.value.errno == errno.ENOSPC


@pytest.fixture
def crowded(part: PartFile, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what has the disk be full from then on, until the part gets smaller."""
    real_create, real_truncate = journal.create, os.ftruncate
    smaller: list[int] = []

    def create(path: str) -> int:
        if not smaller:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_create(path)

    def truncate(fd: int, size: int) -> None:
        if size < os.fstat(fd).st_size:
            smaller.append(size)
        real_truncate(fd, size)

    def crowd() -> None:
        monkeypatch.setattr(journal, "create", create)
        monkeypatch.setattr(os, "ftruncate", truncate)

    return crowd


def again(part: PartFile, **options: bool) -> PartFile:
    other = PartFile(part.path, Destinations(), url="http://example.org/a", **options)
    other.open()
    other.close()
    return other


@pytest.mark.parametrize(
    ("there", "left"),
    [
        (((0, 200_000), (1_000_000, 1_100_000)), ((0, 200_000), (1_000_000, 1_034_464))),
        (((0, 200_000), (1_000_000, 1_030_000)), ((0, 164_464),)),
        (((0, 200_000), (1_000_000, 1_065_536)), ((0, 200_000),)),
    ],
)
def test_K1_of_what_several_have_brought_a_full_disk_costs_no_more_than_room_for_the_journal(
    there: Ranges, left: Ranges, part: PartFile, crowded: Callable[[], None]
):
    begin(part)
    part.share(lambda: there)
    for start, stop in there:
        part.write_at(start, memoryview(bytes(stop - start)))
    crowded()
    assert part.keep() is not None
    assert again(part, segmented=True).ranges == left


def test_K1_nor_of_what_was_continued_by_a_few_bytes(part: PartFile, crowded: Callable[[], None]):
    begin(part, data=bytes(200_000))
    part.keep()
    begin(part, data=b"a few")
    part.note(1.0)
    part.note(2.0)
    crowded()
    assert part.keep() is not None
    assert again(part).position == 200_005 - BLOCK


def test_K1_what_is_less_than_that_room_is_given_up(part: PartFile, crowded: Callable[[], None], tmp_path: Path):
    begin(part, data=bytes(BLOCK))
    crowded()
    assert part.keep() is None
    assert list(tmp_path.iterdir()) == []
