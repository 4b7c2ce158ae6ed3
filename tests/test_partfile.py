"""The part beside a file, and how it becomes that file (T41, S28-S30)."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

import rawdl
from rawdl.destination import Destinations, part_name
from rawdl.partfile import PartFile

DATA = memoryview(b"some bytes")


@pytest.fixture
def destinations() -> Destinations:
    return Destinations()


@pytest.fixture
def part(tmp_path: Path, destinations: Destinations) -> PartFile:
    return PartFile(str(tmp_path / "a"), destinations)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_T41_open_write_commit(part: PartFile, tmp_path: Path):
    assert names(tmp_path) == []
    part.open()
    assert names(tmp_path) == ["a.part"]
    assert stat.S_IMODE((tmp_path / "a.part").stat().st_mode) == 0o600
    part.write(DATA[:4])
    part.write(DATA[4:])
    part.commit()
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == DATA


def test_T41_discard_at_each_moment(part: PartFile, tmp_path: Path):
    part.discard()
    part.open()
    part.discard()
    assert names(tmp_path) == []
    part.discard()
    part.open()
    part.write(DATA)
    part.discard()
    assert names(tmp_path) == []
    part.open()
    part.write(DATA)
    part.commit()
    part.discard()
    assert names(tmp_path) == ["a"]


def test_T30_revoke_takes_a_commit_back_and_nothing_else(part: PartFile, tmp_path: Path):
    part.open()
    part.commit()
    part.revoke()
    assert names(tmp_path) == []
    part.open()
    part.commit()
    (tmp_path / "theirs").write_text("theirs")
    os.replace(tmp_path / "theirs", tmp_path / "a")
    part.revoke()
    assert (tmp_path / "a").read_text() == "theirs"


def test_S29_the_claim_lasts_from_open_to_the_end(part: PartFile, tmp_path: Path, destinations: Destinations):
    second = PartFile(str(tmp_path / "a"), destinations)
    for end in (part.commit, part.discard):
        part.open()
        with pytest.raises(rawdl.StorageError, match="in use"):
            second.open()
        second.discard()  # as a task does whose sink could not be opened: the first one's part stays
        assert "a.part" in names(tmp_path)
        end()
        second.open()
        second.discard()


@pytest.mark.parametrize("prepare", ["folder", "missing"])
def test_S29_a_failed_open_holds_no_claim(prepare: str, tmp_path: Path, destinations: Destinations):
    path = tmp_path / "x" / "a"
    if prepare == "folder":
        path.mkdir(parents=True)
    part = PartFile(str(path), destinations)
    for _ in range(2):
        with pytest.raises(rawdl.StorageError) as caught:
            part.open()
        assert "in use" not in str(caught.value)
        assert caught.value.errno in (errno.EISDIR, errno.ENOENT)


def test_the_part_is_written_where_it_was_opened(part: PartFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A part moved away is not followed, and is not mistaken for ours when it was replaced."""
    part.open()
    os.rename(tmp_path / "a.part", tmp_path / "moved")
    part.write(DATA)
    with pytest.raises(rawdl.StorageError, match="replaced"):
        part.commit()
    assert names(tmp_path) == ["moved"]


def test_a_relative_path_and_a_change_of_folder(
    tmp_path: Path, destinations: Destinations, monkeypatch: pytest.MonkeyPatch
):
    """Somebody who changes the folder in the midst gets his file where it was begun, or an error; never elsewhere."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    part = PartFile("a", destinations)
    part.open()
    part.write(DATA)
    monkeypatch.chdir(tmp_path / "there")
    with suppress(rawdl.StorageError):
        part.commit()
    monkeypatch.chdir(tmp_path)
    assert names(tmp_path / "there") == []
    assert names(tmp_path / "here") in ([], ["a"])


@pytest.mark.parametrize("length", [1, 249, 250])
def test_S28_a_part_is_named_after_its_file(length: int):
    assert part_name("d/" + "n" * length) == "d/" + "n" * length + ".part"


@pytest.mark.parametrize("name", ["n" * 251, "n" * 255, "é" * 126, "\udcff" * 255])
def test_S28_a_long_name_is_hashed_into_its_part(name: str):
    part = part_name(os.path.join("d", name))
    assert os.path.dirname(part) == "d"
    assert part.endswith(".part")
    assert len(os.fsencode(os.path.basename(part))) <= 255
    assert part == part_name(os.path.join("d", name)) != part_name(os.path.join("d", name[:-1] + "x"))


def test_the_splice_target_is_the_part(part: PartFile, tmp_path: Path):
    part.open()
    target = part.splice_target()
    assert target is not None
    os.write(target, DATA)
    part.commit()
    assert (tmp_path / "a").read_bytes() == DATA
