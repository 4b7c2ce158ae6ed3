"""Files that the server gives a name (T43, S31, E1, E3, E6, A11)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import rawdl
from tests.once import ONE_TRY
from tests.origin import Script
from tests.resource import Fault, Resource, redirect
from tests.resuming import AT_ONCE, BODY, OTHER, Attempt
from tests.sim import Link, World, http_peer
from tests.sim_tests.fetch import HOST

PATH = "/get.php"
URL = f"http://{HOST}{PATH}?id=1"


def disposition(value: str) -> Script:
    return Script(header=(("Content-Disposition", value),))


class Folder:
    """A folder, and one host that serves files to it."""

    def __init__(self, world: World, path: Path) -> None:
        self.world, self.path = world, path

    def serve(self, answers: Any, **link: Any) -> None:
        self.world.listen(HOST, 80, http_peer(answers), link=Link(segment=1000, **link))

    def name(self, value: str, **options: Any) -> Resource:
        resource = Resource(BODY, like=disposition(value), **options)
        self.serve(resource)
        return resource

    def get(self, url: str = URL, retry: rawdl.Retry = ONE_TRY, **options: Any) -> Attempt:
        with self.world.client(retry=retry) as client:
            attempt = Attempt(client, url, directory=self.path, use_suggested_name=True, **options)
            client.run()
        return attempt

    @property
    def names(self) -> list[str]:
        return sorted(os.listdir(self.path))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    (tmp_path / "f").mkdir()
    with World() as world:
        yield Folder(world, tmp_path / "f")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ('attachment; filename="a b.txt"', "a b.txt"),
        ("attachment; filename*=UTF-8''%e2%82%ac.zip; filename=e.zip", "€.zip"),
        ("inline; filename=plain", "plain"),
        ("attachment", "get.php"),
        ("nonsense;;;=", "get.php"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="..\\\\..\\\\x"', "x"),
        ('attachment; filename="/etc/cron.d/x"', "x"),
        ('attachment; filename=".bashrc"', "_bashrc"),
        ('attachment; filename="a.iso.part"', "a.iso.part_"),
        ('attachment; filename="A.iso.PART.json"', "A.iso.PART.json_"),
    ],
)
def test_T43_E1_E6_the_name_is_the_servers_and_safe(value: str, name: str, folder: Folder):
    folder.name(value)
    result = folder.get().result
    assert (folder.names, result.file_path, result.temp_file_path) == ([name], str(folder.path / name), None)
    assert (folder.path / name).read_bytes() == BODY


def test_T43_the_current_folder_if_none_is_given(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    folder.name("attachment; filename=n")
    monkeypatch.chdir(folder.path)
    with folder.world.client() as client:
        assert client.download_file(url=URL, use_suggested_name=True).result().file_path == "n"
    assert folder.names == ["n"]


def test_A11_a_redirect_does_not_name_the_file(folder: Folder):
    folder.serve({PATH: redirect(f"http://{HOST}/evil"), "/evil": Resource(BODY)})
    assert Path(folder.get().result.file_path).name == "get.php"


def test_A11_no_name_is_taken_unless_that_was_asked_for(folder: Folder):
    folder.name("attachment; filename=n")
    with folder.world.client() as client:
        result = client.download_file(url=URL, directory=folder.path).result()
    assert result.file_path is None
    assert folder.names == [Path(result.temp_file_path).name] != ["n"]


def test_an_error_page_does_not_name_the_file(folder: Folder):
    folder.serve(Script(status=404, reason="Not Found", header=disposition("attachment; filename=n").header, body=b"x"))
    assert Path(folder.get().result.file_path).name == "get.php"


# What has the name already


@pytest.mark.parametrize("options", [{}, {"exists": "rename"}])
@pytest.mark.parametrize("value", ["attachment; filename=n.txt", "attachment"])
def test_E3_a_file_that_is_there_is_never_replaced(value: str, options: dict[str, Any], folder: Folder):
    taken = folder.path / ("n.txt" if "=" in value else "get.php")
    taken.write_bytes(b"old")
    folder.name(value)
    result = folder.get(**options).result
    assert taken.read_bytes() == b"old"
    assert Path(result.file_path) == taken.with_suffix(f".1{taken.suffix}")
    assert Path(result.file_path).read_bytes() == BODY


def test_E3_one_that_comes_meanwhile_is_not_replaced_either(folder: Folder):
    folder.name("attachment; filename=n")
    with folder.world.client() as client:
        attempt = Attempt(client, URL, directory=folder.path, use_suggested_name=True, progress_interval=0)
        attempt.react("progress", lambda _: (folder.path / "n").write_bytes(b"new"))
        client.run()
    assert (folder.path / "n").read_bytes() == b"new"
    assert Path(attempt.result.file_path).name == "n.1"


def test_S31_error_is_told_before_the_body(folder: Folder):
    (folder.path / "n").write_bytes(b"old")
    resource = folder.name("attachment; filename=n")
    error = folder.get(exists="error").error
    assert isinstance(error, rawdl.StorageError)
    assert str(error) == f"{folder.path / 'n'} exists already"
    assert (folder.names, (folder.path / "n").read_bytes()) == (["n"], b"old")
    assert len(resource.ranges_asked) == 1


@pytest.mark.parametrize("value", ["attachment; filename=n", "attachment"])
def test_S31_skip_leaves_it_once_the_name_is_known(value: str, folder: Folder):
    name = "n" if "=" in value else "get.php"
    (folder.path / name).write_bytes(b"old")
    folder.name(value)
    result = folder.get(exists="skip").result
    assert (result.skipped, result.data_length, Path(result.file_path).name) == (True, 3, name)
    assert (folder.names, (folder.path / name).read_bytes()) == ([name], b"old")
    (folder.path / name).unlink()
    assert not folder.get(exists="skip").result.skipped


def test_S31_skip_compares_its_checksum_once_the_name_is_known(folder: Folder):
    (folder.path / "n").write_bytes(b"old")
    folder.name("attachment; filename=n")
    checksum = f"sha256:{sha256(b'old').hexdigest()}"
    assert folder.get(exists="skip", checksum=checksum).result.checksum == checksum
    (folder.path / "n").write_bytes(b"odd")
    assert isinstance(folder.get(exists="skip", checksum=checksum).error, rawdl.ChecksumError)
    assert (folder.names, (folder.path / "n").read_bytes()) == (["n"], b"odd")


def test_T42_a_folder_of_that_name(folder: Folder):
    (folder.path / "n").mkdir()
    folder.name("attachment; filename=n")
    error = folder.get().error
    assert isinstance(error, rawdl.StorageError)
    assert str(error) == f"{folder.path / 'n'} is a folder"
    assert folder.names == ["n"]


# While it has none


def test_S38_two_of_one_name_do_not_meet(folder: Folder):
    """Neither their parts, before the names are known, nor the files."""
    one, two = Resource(BODY, like=disposition("attachment; filename=n")), Resource(OTHER, etag='"other"')
    folder.serve(lambda request: (one if request.target.endswith("=1") else two)(request), bandwidth=100_000.0)
    with folder.world.client() as client:
        tasks = [
            client.download_file(url=f"{URL[:-1]}{number}", directory=folder.path, use_suggested_name=True)
            for number in (1, 2, 3)
        ]
        again = client.download_file(url=URL, directory=folder.path, use_suggested_name=True)
        client.run()
    assert isinstance(again.exception(), rawdl.StorageError)
    assert folder.names == ["get.1.php", "get.php", "n"]
    assert {Path(task.result().file_path).name for task in tasks} == set(folder.names)
    assert [(folder.path / name).read_bytes() for name in folder.names] == [OTHER, OTHER, BODY]


@pytest.mark.usefixtures("leaves_parts")
def test_T45_a_part_is_continued_by_its_url(folder: Folder):
    resource = folder.name("attachment; filename=n", faults=[Fault(in_body=20_000)])
    first = folder.get()
    [part, journal] = folder.names
    assert (part.startswith("get.php."), part.endswith(".part"), journal) == (True, True, f"{part}.json")
    assert first.error.part == str(folder.path / part)
    with folder.world.client() as client:
        result = client.resume(first.task.resume_data()).result()
    assert (result.resumed_from, folder.names) == (20_000, ["n"])
    assert (folder.path / "n").read_bytes() == BODY
    assert len(resource.ranges_asked) == 2


@pytest.mark.usefixtures("leaves_parts")
def test_S31_T40_skip_has_received_nothing_whatever_was_left(folder: Folder):
    folder.name("attachment; filename=n", faults=[Fault(in_body=20_000)])
    folder.get(exists="skip").error  # noqa: B018 (it fails)
    (folder.path / "n").write_bytes(b"old")
    result = folder.get(exists="skip").result
    assert (result.skipped, result.resumed_from, result.profile.received_bytes_count) == (True, 0, 0)
    assert folder.names == ["n"]


def test_T47_a_try_after_the_head_keeps_the_name(folder: Folder):
    folder.name("attachment; filename=n", faults=[Fault(in_body=20_000)])
    assert folder.get(retry=AT_ONCE).result.attempts != ()
    assert folder.names == ["n"]


@pytest.mark.parametrize("options", [{"file_path": "x"}, {"sink": rawdl.MemorySink()}, {"use_suggested_name": 1}])
def test_S11_what_does_not_go_together(options: dict[str, Any]):
    with rawdl.Client() as client, pytest.raises((TypeError, ValueError), match="use_suggested_name"):
        client.download_file(**{"url": URL, "use_suggested_name": True, **options})
