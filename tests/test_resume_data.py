"""Going on with what a task has said of itself: `DownloadTask.resume_data` and `Client.resume`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

import rawdl
from tests import once
from tests.origin import Origin, Script
from tests.resource import LAST_MODIFIED, Fault, Resource
from tests.resuming import BODY, CUT, SHA256


@pytest.fixture
def client() -> Iterator[rawdl.Client]:
    with once.client() as client:
        yield client


def test_another_client_goes_on(origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: rawdl.Client):
    resource = Resource(BODY, faults=[Fault(in_body=CUT)])
    url = origin.serve("/a", resource) + "?sig=1"
    monkeypatch.chdir(tmp_path)
    task = client.download_file(url=url, file_path="a", checksum=SHA256, exists="rename")
    assert isinstance(task.exception(), rawdl.IncompleteBody)
    data = json.loads(json.dumps(task.resume_data()))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with rawdl.Client() as other:
        result = other.resume(data, header={"X-Token": "1"}).result()
    assert (result.resumed_from, result.checksum) == (CUT, SHA256)
    assert (tmp_path / "a").read_bytes() == BODY
    assert origin.requests[-1].field("X-Token") == "1"


def test_what_the_file_is_to_be_like_is_in_it(origin: Origin, tmp_path: Path, client: rawdl.Client):
    url = origin.serve("/a", Resource(BODY, faults=[Fault(in_body=CUT)]))
    options = {"remote_time": True, "fail_on_status": True, "durable": True, "min_segment": 1000}
    task = client.download_file(url=url, file_path=tmp_path / "a", **options)  # type: ignore[arg-type]
    assert isinstance(task.exception(), rawdl.IncompleteBody)
    data = task.resume_data()
    assert data is not None and options.items() <= data.items()
    client.resume(data).result()
    assert (tmp_path / "a").stat().st_mtime == parsedate_to_datetime(LAST_MODIFIED).timestamp()
    (tmp_path / "a").unlink()
    origin.serve("/a", Script(status=404, reason="Not Found", body=b"gone"))
    assert isinstance(client.resume(data).exception(), rawdl.StatusError)
    assert not (tmp_path / "a").exists()


def test_a_paused_or_aborted_task_has_it_too(origin: Origin, tmp_path: Path, client: rawdl.Client):
    url = origin.serve("/a", Resource(BODY, faults=[Fault(in_body=CUT, kind="stall")]))
    task = client.download_file(url=url, file_path=tmp_path / "a", resume=True)
    while task.progress.total_bytes_written < CUT:
        client.step(None)
    task.pause()
    data = task.resume_data()
    assert data is not None
    task.abort()
    assert isinstance(task.exception(), rawdl.Aborted)
    assert task.resume_data() == data
    assert client.resume(data).result().resumed_from == CUT


def test_who_has_none(origin: Origin, tmp_path: Path, client: rawdl.Client):
    url = origin.serve("/a", Resource(BODY))
    task = client.download_file(url=url, file_path=tmp_path / "a")
    task.result()
    assert task.resume_data() is None, "it is complete"
    assert client.download_file(url=url, sink=rawdl.MemorySink()).resume_data() is None
    assert client.download_file(url=None, file_path=tmp_path / "b").resume_data() is None


@pytest.mark.parametrize("data", [None, "a", 5, [1]])
def test_S11_what_is_no_data(data: object, client: rawdl.Client):
    with pytest.raises(TypeError):
        client.resume(data)  # type: ignore[arg-type]
