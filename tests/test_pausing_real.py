"""pause() and resume() against real sockets, from a thread that does not drive."""

from __future__ import annotations

import selectors
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rawdl
from tests.driving import in_thread
from tests.origin import Origin, Script
from tests.recorder import PATIENCE, Recorder
from tests.resource import Fault, Resource

MIB = 1 << 20
BODY = bytes(range(256)) * (64 * MIB // 256)  # far more than the kernel's buffers hold on both sides


class CountingSelector(selectors.DefaultSelector):
    """A selector that counts the turns of its loop."""

    turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        return super().select(timeout)


@pytest.fixture
def selector() -> CountingSelector:
    return CountingSelector()


@pytest.fixture
def client(selector: CountingSelector, ca_file: Path) -> Iterator[rawdl.Client]:
    tls = rawdl.TLS(ca_file=ca_file)
    retry = rawdl.Retry(attempts=5, backoff=0.0)
    with rawdl.Client(selector=selector, tls=tls, retry=retry, max_per_host=100) as client:
        client.start()
        yield client


@pytest.fixture(params=["http", "https"])
def site(request: pytest.FixtureRequest) -> Origin:
    origin: Origin = request.getfixturevalue("origin" if request.param == "http" else "tls_origin")
    origin.serve("/other", Script(body=b"hello"))
    return origin


def take_turns(client: rawdl.Client, site: Origin, n: int = 20) -> None:
    """Return after the loop has gone round some times: it has done what it was told before, and more."""
    for _ in range(n):
        assert client.download_file(url=site.url("/other"), sink=rawdl.DiscardSink()).result(PATIENCE).data_length == 5


def begin(client: rawdl.Client, url: str, **options: Any) -> tuple[Recorder, rawdl.DownloadTask]:
    """Start a download and return once some of its body has come."""
    recorder = Recorder()
    task = recorder.download(client, url=url, progress_interval=0, **options)
    recorder.wait_for("progress")
    return recorder, task


@pytest.mark.contract("T34", "S25", "T41")
def test_T34_the_server_stalls_and_goes_on(client: rawdl.Client, site: Origin, tmp_path: Path):
    resource = Resource(BODY)
    recorder, task = begin(client, site.serve("/a", resource), file_path=tmp_path / "a")
    task.pause()
    take_turns(client, site)
    assert task.state is rawdl.TaskState.PAUSED
    told, written = len(recorder.events), task.progress.total_bytes_written
    take_turns(client, site)
    assert (len(recorder.events), task.progress.total_bytes_written) == (told, written)
    assert written < len(BODY)
    assert resource.sent < len(BODY)
    task.resume()
    assert task.result(PATIENCE).data_length == len(BODY)
    assert (tmp_path / "a").read_bytes() == BODY
    assert resource.ranges_asked == [None]


@pytest.mark.contract("T34", "N17")
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_T34_the_loop_sleeps_when_the_server_closes_a_paused_connection(
    client: rawdl.Client, selector: CountingSelector, site: Origin, how: Any
):
    resource = Resource(BODY[:MIB], faults=[Fault(in_body=50000, kind=how)])
    recorder = Recorder()
    recorder.react("headers", lambda event: task.pause())
    task = client.download_file(url=site.serve("/a", resource), sink=(sink := rawdl.MemorySink()))
    recorder.listen(task)
    recorder.wait_for("headers")
    turns = selector.turns
    take_turns(client, site)
    assert task.state is rawdl.TaskState.PAUSED
    assert selector.turns - turns < 20 * 20, "some turns for each of the other tasks"
    task.resume()
    assert task.result(PATIENCE).data_length == MIB
    assert sink.getvalue() == BODY[:MIB]
    assert len(resource.ranges_asked) == 2


@pytest.mark.contract("T28", "T29", "T31")
def test_T31_abort_of_a_paused_task_is_seen_by_the_server(client: rawdl.Client, site: Origin, tmp_path: Path):
    recorder, task = begin(client, site.serve("/a", Resource(BODY)), file_path=tmp_path / "a")
    task.pause()
    take_turns(client, site)
    task.abort()
    site.wait_closed()
    assert isinstance(task.exception(PATIENCE), rawdl.Aborted)
    assert recorder.outcome == ["fail", "complete"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.contract("S6", "T27")
def test_S6_close_ends_a_paused_task(client: rawdl.Client, site: Origin):
    recorder, task = begin(client, site.serve("/a", Resource(BODY)), sink=rawdl.DiscardSink())
    task.pause()
    client.close()
    assert recorder.outcome == ["fail", "complete"]
    assert isinstance(task.exception(), rawdl.Aborted)


@pytest.mark.contract("T28", "T34")
def test_T34_any_thread_at_any_time(client: rawdl.Client, site: Origin):
    """Two threads pause and resume as fast as they can: what arrives is whole."""
    _, task = begin(client, site.serve("/a", Resource(BODY[: 8 * MIB])), sink=(sink := rawdl.MemorySink()))

    def blink() -> None:
        for _ in range(200):
            task.pause()
            task.resume()

    for join in [in_thread(blink) for _ in range(2)]:
        join()
    assert task.result(PATIENCE).data_length == 8 * MIB
    assert sink.getvalue() == BODY[: 8 * MIB]


@pytest.mark.contract("S4", "T34")
def test_S4_who_waits_for_a_paused_task_gets_it_when_another_thread_resumes(client: rawdl.Client, site: Origin):
    _, task = begin(client, site.serve("/a", Resource(BODY)), sink=rawdl.DiscardSink())
    task.pause()
    take_turns(client, site)
    with pytest.raises(TimeoutError):
        task.result(timeout=0.01)
    waiting = in_thread(task.result)
    task.resume()
    assert waiting().data_length == len(BODY)
