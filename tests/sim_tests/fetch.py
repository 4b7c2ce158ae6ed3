"""One download in the simulated network: what it told, what reached its sink, and whether a task may tell that."""

from __future__ import annotations

from typing import Any

import rawdl
from tests.recorder import Recorder
from tests.sim import World

HOST = "example.org"
URL = f"http://{HOST}/a"
SECURE_URL = f"https://{HOST}/a"

# What a default world does before the request: the name takes so long to resolve, and a packet so long one way.
DNS = 0.005
LATENCY = 0.01
CONNECTED = DNS + 2 * LATENCY
# When the first byte of an answer that is given at once arrives.
ANSWERED = CONNECTED + 2 * LATENCY


class Fetch(Recorder):
    """Start a download and record its events; without a target among the options, also each byte that it delivers."""

    def __init__(self, client: rawdl.Client, url: str = URL, **options: Any) -> None:
        super().__init__()
        self.data = bytearray()
        if not options.keys() & {"file_path", "sink", "directory"}:
            options["sink"] = self._take
        self.task = self.download(client, url=url, **options)

    @property
    def result(self) -> rawdl.DownloadResult:
        """The result of a task that must have ended well."""
        end = self.end
        assert isinstance(end, rawdl.DownloadResult), end
        return end

    @property
    def error(self) -> rawdl.DownloadError:
        """The error of a task that must have ended badly."""
        end = self.end
        assert isinstance(end, rawdl.DownloadError), end
        return end

    @property
    def end(self) -> rawdl.DownloadResult | rawdl.DownloadError:
        """What the task ended with, after a look at all that it told (T5, T10-T14, T21)."""
        assert self.task.done()
        assert self.outcome in (["success", "complete"], ["fail", "complete"])
        assert self.names[-2:] == self.outcome, "something was told after the end"
        last, end = (event for _, event in self.events[-2:])
        assert last is end
        self._check_headers()
        self._check_progress()
        if isinstance(end, rawdl.DownloadResult):
            assert self.task.state is rawdl.TaskState.COMPLETED
            assert self.task.result() is end
            assert end.err_msg == "downloadFile:ok"
        else:
            expected = rawdl.TaskState.ABORTED if isinstance(end, rawdl.Aborted) else rawdl.TaskState.FAILED
            assert self.task.state is expected
            assert self.task.exception() is end
            assert str(end)
            assert end.err_msg == f"downloadFile:fail {end.reason}"
        return end

    def _check_headers(self) -> None:
        heads = self.names.count("headers")
        assert heads <= 1
        assert heads == 0 or self.names[0] == "headers"
        assert heads == 1 or not {"progress", "success"} & set(self.names)

    def _check_progress(self) -> None:
        updates = self.of("progress")
        written = [update.total_bytes_written for update in updates]
        assert written == sorted(written)
        for update in updates:
            check_update(update)
        for update in updates[:-1]:
            assert update.progress < 100, "something was told after the last byte had arrived"
        if "success" in self.names:
            last = updates[-1]
            assert (last.progress, last.length_computable, last.eta) == (100, True, 0.0)
            assert last.total_bytes_written == last.total_bytes_expected_to_write == self.of("success")[0].data_length

    def _take(self, data: memoryview) -> None:
        self.data += data


def check_update(update: rawdl.ProgressUpdate) -> None:
    """See that an update is consistent in itself (T10, T12, T16)."""
    assert type(update.progress) is int
    written, expected = update.total_bytes_written, update.total_bytes_expected_to_write
    if update.length_computable:
        assert 0 <= written <= expected
        assert update.progress == (written * 100 // expected if expected else 100)
    else:
        assert (update.progress, expected, update.eta) == (0, 0, None)
    for number in (update.bytes_per_second, update.eta):
        assert number is None or 0 <= number < float("inf")


def assert_nothing_left(world: World, client: rawdl.Client, idle: int = 0) -> None:
    """See that no task, slot or socket is left, but for so many idle connections."""
    assert repr(client) == f"<Client 0 tasks, <Pool 0 in use, {idle} idle, 0 waiting>>"
    assert len(world.sockets) == idle, world.describe()


def open_connections(world: World) -> int:
    return len(world.sockets)


def run(world: World, url: str = URL, client_options: dict[str, Any] | None = None, **options: Any) -> Fetch:
    """Download once, and see that nothing is left of it but perhaps an idle connection."""
    client = world.client(**(client_options or {}))
    fetch = Fetch(client, url, **options)
    client.run()
    assert_nothing_left(world, client, idle=len(world.sockets) if fetch.outcome[0] == "success" else 0)
    return fetch
