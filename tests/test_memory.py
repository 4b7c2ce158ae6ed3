"""Memory does not grow with the body, and little with the tasks (T44, E11, C5, C9, I6)."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.origin import Origin, Script
from tests.script import run_script

MIB = 1 << 20
linux_only = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")

STATUS = r"""
    import pathlib, re, sys, rawdl
    def memory(name):
        return int(re.search(name + r":\s*(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
"""
PEAK = (
    STATUS
    + """
    def fetch(client, size):
        options = {"sink": rawdl.DiscardSink()} if where == "discard" else {"file_path": where}
        return client.download_file(url=f"{url}/{size}", **options).result().data_length
    url, where, small, large = sys.argv[1:]
    with rawdl.Client() as client:
        fetch(client, small)
        before = memory("VmHWM")
        assert fetch(client, large) == int(large)
        print(memory("VmHWM") - before)
"""
)


@linux_only
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
@pytest.mark.parametrize("where", ["discard", "file"])
def test_T44_E11_the_peak_does_not_grow_with_the_body(where: str, framing: str, origin: Origin, tmp_path: Path):
    """256 MiB after 4 MiB: what is needed once is there after the small one."""
    block = bytes(MIB)
    for size in (4, 256):
        script = Script(
            body=list(itertools.repeat(block, size)),
            framing=framing,  # type: ignore[arg-type]
            content_length=size * MIB if framing == "content-length" else None,
        )
        origin.serve(f"/{size * MIB}", script)
    path = where if where == "discard" else tmp_path / "a"
    growth = int(run_script(PEAK, origin.url(""), path, str(4 * MIB), str(256 * MIB)))
    assert growth < 2048, f"{growth} KiB more for a larger body"


def announced(origin: Origin, head: bytes) -> int:
    """Return the most bytes that are allocated for a body of which only a little comes."""
    url = origin.serve("/a", Script(raw=head + b"x" * 100, cut_at=len(head) + 100))
    script = """
        import sys, tracemalloc, rawdl
        with rawdl.Client(retry=rawdl.Retry(attempts=1)) as client:
            client.download_file(url=sys.argv[1] + "-warm", sink=rawdl.MemorySink()).exception()
            tracemalloc.start()
            error = client.download_file(url=sys.argv[1], sink=rawdl.MemorySink()).exception()
            assert isinstance(error, rawdl.IncompleteBody), error
            assert error.received == 100, error
            print(tracemalloc.get_traced_memory()[1])
    """
    return int(run_script(script, url))


@pytest.mark.parametrize("size", [1 << 62, (1 << 63) - 1])
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_C5_a_huge_announcement_allocates_nothing(framing: str, size: int, origin: Origin):
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"
    if framing == "chunked":
        head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n"
    assert announced(origin, head.encode()) < MIB


@pytest.mark.parametrize("what", ["file", "memory"])
def test_T44_a_waiting_task_costs_a_few_kib(what: str):
    script = """
        import sys, tracemalloc, rawdl
        def make(n):
            where = {"file_path": f"/nowhere/{n}"} if sys.argv[1] == "file" else {"sink": rawdl.MemorySink()}
            return client.download_file(url=f"http://example.org/{n}", **where)
        with rawdl.Client() as client:
            kept = [make(n) for n in range(100)]
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            kept += [make(n) for n in range(2000)]
            print((tracemalloc.get_traced_memory()[0] - before) // 2000)
            tracemalloc.stop()
    """
    each = int(run_script(script, what))
    assert 100 < each <= 4096, f"{each} bytes for a waiting task"


def test_T44_tasks_that_have_ended_are_forgotten(origin: Origin):
    """The client holds nothing of a task that nobody else holds."""
    url = origin.serve("/a", Script(body=b"x" * 100))
    script = """
        import gc, sys, tracemalloc, rawdl
        def round():
            for _ in range(50):
                client.download_file(url=sys.argv[1], sink=rawdl.MemorySink()).result()
                client.download_file(url="nonsense", sink=rawdl.MemorySink()).exception()
                task = client.download_file(url=sys.argv[1], sink=rawdl.MemorySink())
                task.abort()
                task.exception()
            gc.collect()
            return tracemalloc.get_traced_memory()[0]
        with rawdl.Client() as client:
            tracemalloc.start()
            for _ in range(3):
                round()
            before = round()
            print(max(round() for _ in range(3)) - before)
    """
    assert int(run_script(script, url)) < 150 * 200, "each of the 150 tasks leaves something"


@pytest.mark.parametrize("what", ["informational", "fields", "chunk extensions", "trailer", "one line"])
def test_I6_C9_C10_C11_an_endless_flood_is_bounded(what: str, origin: Origin):
    """The server never ends; the client does, with one error, and with little memory."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    start, more = {
        "informational": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 100),
        "fields": (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 500),
        "one line": (b"HTTP/1.1 200 OK\r\nX-A: ", b"b" * 4096),
        "chunk extensions": (chunked + b"1", b";a=b" * 1000),
        "trailer": (chunked + b"0\r\n", b"X-A: b\r\n" * 500),
    }[what]

    class Flood:
        def __iter__(self):
            yield start
            yield from itertools.repeat(more)

    class Endless(Script):
        def _pieces(self, method: str):
            return iter(Flood())

    url = origin.serve("/a", Endless())
    script = """
        import sys, tracemalloc, rawdl
        with rawdl.Client() as client:
            client.download_file(url=sys.argv[1] + "-warm", sink=rawdl.MemorySink()).exception()
            tracemalloc.start()
            error = client.download_file(url=sys.argv[1], sink=rawdl.MemorySink()).exception(30)
            assert isinstance(error, rawdl.ProtocolError), error
            print(tracemalloc.get_traced_memory()[1])
    """
    assert int(run_script(script, url)) < MIB
    origin.wait_closed()


@linux_only
@pytest.mark.slow
def test_T44_T33_two_thousand_tasks_wait(origin: Origin):
    """Queued behind a server that never answers: the whole process grows by a few KiB for each."""
    url = origin.serve("/a", Script(head_delay=3600))
    script = (
        STATUS
        + """
    with rawdl.Client() as client:
        tasks = [client.download_file(url=sys.argv[1], sink=rawdl.DiscardSink()) for _ in range(100)]
        client.step(0.1)
        before = memory("VmRSS")
        tasks += [client.download_file(url=sys.argv[1], sink=rawdl.DiscardSink()) for _ in range(2000)]
        client.step(0)
        print((memory("VmRSS") - before) / 2000)
    """
    )
    assert float(run_script(script, url)) < 6
