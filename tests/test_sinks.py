"""Where the bytes go (S14, S34, E11)."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rawdl
from rawdl.sinks import HashingTee, as_sink
from tests import once
from tests.origin import Origin, Script
from tests.recorder import Recorder
from tests.sim import Link, World, http_peer

BODY = bytes(range(256)) * 400
URL = "http://example.org/a"


@pytest.fixture(params=["content-length", "chunked", "until-close"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A world whose bodies come in each framing in turn."""
    with World() as world:
        script = Script(body=BODY, framing=request.param, chunk=1000)
        world.listen("example.org", 80, http_peer(script), link=Link(bandwidth=1e6, segment=3333))
        yield world


def failing(world: World, sink: object, client: rawdl.Client | None = None) -> rawdl.StorageError:
    recorder = Recorder()
    error = recorder.download(client or world.client(), url=URL, sink=sink).exception()
    assert isinstance(error, rawdl.StorageError)
    assert error.path is None
    assert recorder.outcome == ["fail", "complete"]
    assert error.err_msg == "downloadFile:fail storage"
    world.wait()
    assert world.seen("peer saw"), "the connection is closed"
    return error


def test_S14_S34_memory(world: World):
    sink = rawdl.MemorySink()
    assert sink.getvalue() == b""
    result = world.client().download_file(url=URL, sink=sink).result()
    assert type(sink.getvalue()) is bytes
    assert sink.getvalue() == BODY
    assert result.data_length == len(BODY)


def test_S34_a_memory_sink_of_a_failure_is_empty(world: World):
    world.listen("example.org", 80, http_peer(Script(body=BODY, cut_at=50_000)))
    sink = rawdl.MemorySink()
    assert world.client().download_file(url=URL, sink=sink).exception() is not None
    assert sink.getvalue() == b""


def test_S14_discard(world: World):
    assert world.client().download_file(url=URL, sink=rawdl.DiscardSink()).result().data_length == len(BODY)


@pytest.mark.parametrize("make", [rawdl.MemorySink, rawdl.DiscardSink])
def test_S14_a_sink_of_ours_may_be_used_again(make: Callable[[], object], world: World):
    client, sink = world.client(), make()
    for _ in range(2):
        assert client.download_file(url=URL, sink=sink).result().data_length == len(BODY)
    if isinstance(sink, rawdl.MemorySink):
        assert sink.getvalue() == BODY


def test_S14_a_callable_gets_memoryviews_valid_during_the_call(world: World):
    taken: list[bytes] = []
    kinds: set[type] = set()

    def sink(data: memoryview) -> str:
        kinds.add(type(data))
        taken.append(bytes(data))
        return "what it returns is nobody's business"

    result = world.client().download_file(url=URL, sink=sink).result()
    assert kinds == {memoryview}
    assert b"".join(taken) == BODY
    assert b"" not in taken
    assert result.data_length == len(BODY)


def test_S14_an_object_with_write_is_not_closed(world: World):
    target = io.BytesIO()
    world.client().download_file(url=URL, sink=target).result()
    assert not target.closed
    assert target.getvalue() == BODY


def test_S14_an_open_file(world: World, tmp_path: Path):
    with (tmp_path / "a").open("wb") as file:
        file.write(b"before:")
        world.client().download_file(url=URL, sink=file).result()
        assert not file.closed
    assert (tmp_path / "a").read_bytes() == b"before:" + BODY


class Stingy:
    """Take some bytes at a time, as a raw file may."""

    def __init__(self, most: int | None) -> None:
        self.most, self.taken = most, b""

    def write(self, data: memoryview) -> int | None:
        self.taken += data[: self.most]
        return None if self.most is None else min(self.most, len(data))


@pytest.mark.parametrize("most", [1, 7, 999, 10**6, None])
def test_S14_a_short_write_is_continued(most: int | None, world: World):
    target = Stingy(most)
    world.client().download_file(url=URL, sink=target).result()
    assert target.taken == BODY


@pytest.mark.parametrize("told", [0, -1, len(BODY) + 1, "all", 1.0])
def test_S14_a_write_that_tells_no_count_is_an_error_of_the_sink(told: object, world: World):
    class Odd:
        def write(self, data: memoryview) -> object:
            return told

    error = world.client().download_file(url=URL, sink=Odd()).exception()
    assert isinstance(error, rawdl.StorageError)
    assert (error.path, error.reason) == (None, "storage")
    assert f"took {told!r} of " in str(error)


@pytest.mark.skipif(not hasattr(os, "set_blocking"), reason="no such pipes here")
def test_S14_I2_a_full_pipe_that_does_not_block_never_loses_bytes(world: World):
    """A raw file says None where it took nothing: that is no success."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(reader, "rb", buffering=0), open(writer, "wb", buffering=0) as pipe:
        failing(world, pipe)


@pytest.mark.parametrize("answer", [0, -1, 10**9])
def test_S14_a_write_that_answers_nonsense(answer: int, world: World):
    class Nonsense:
        def write(self, data: memoryview) -> int:
            return answer

    assert str(answer) in str(failing(world, Nonsense()))


@pytest.mark.parametrize("error", [ZeroDivisionError("in the sink"), OSError(errno.ENOSPC, "full"), StopIteration()])
@pytest.mark.parametrize("kind", ["callable", "writable"])
def test_S14_what_a_sink_raises_is_the_cause(kind: str, error: Exception, world: World):
    def sink(data: object) -> None:
        raise error

    class Writable:
        write = staticmethod(sink)

    told = failing(world, sink if kind == "callable" else Writable())
    assert told.__cause__ is error
    assert told.errno == getattr(error, "errno", None)
    assert type(error).__name__ in str(told)


@pytest.mark.parametrize("where", ["first", "last"])
def test_S14_a_sink_that_raises_at_its_first_or_last_piece(where: str, world: World):
    received = 0

    def sink(data: memoryview) -> None:
        nonlocal received
        received += len(data)
        if where == "first" or received == len(BODY):
            raise ZeroDivisionError

    assert isinstance(failing(world, sink).__cause__, ZeroDivisionError)


def test_S14_a_closed_file_as_a_sink(world: World, tmp_path: Path):
    file = (tmp_path / "a").open("wb")
    file.close()
    assert isinstance(failing(world, file).__cause__, ValueError)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_K10_S9_an_interrupt_in_a_sink_never_ends_in_a_wrong_success(kind: type[BaseException], world: World):
    """The piece was not taken; whatever becomes of the task, it is not a success without that piece."""
    taken: list[bytes] = []

    def sink(data: memoryview) -> None:
        if len(taken) == 3 and not interrupted:
            interrupted.append(kind)
            raise kind
        taken.append(bytes(data))

    interrupted: list[object] = []
    recorder = Recorder()
    client = world.client(timeouts=rawdl.Timeouts(idle=5))
    task = recorder.download(client, url=URL, sink=sink)
    with pytest.raises(kind):
        task.exception()
    error = task.exception(3600)
    assert error is not None or b"".join(taken) == BODY
    assert not isinstance(error, rawdl.Timeout | rawdl.ProtocolError), "it is not the server's fault"
    assert recorder.outcome == ["success" if error is None else "fail", "complete"]


@pytest.mark.parametrize("what", ["close", "download_file"])
def test_T20_a_sink_may_call_the_client(what: str, world: World):
    client, recorder = world.client(), Recorder()
    made: list[object] = []

    def sink(data: memoryview) -> None:
        if what == "close":
            client.close()
        elif not made:
            made.append(client.download_file(url=URL, sink=rawdl.MemorySink()))

    task = recorder.download(client, url=URL, sink=sink)
    error = task.exception()
    if what == "close":
        assert isinstance(error, rawdl.Aborted)
        assert recorder.outcome == ["fail", "complete"]
    else:
        assert error is None
        assert made[0].result().data_length == len(BODY)  # type: ignore[attr-defined]


def test_S3_waiting_inside_a_sink_is_refused(world: World):
    client = world.client()

    def sink(data: memoryview) -> None:
        client.run()

    assert isinstance(failing(world, sink, client).__cause__, RuntimeError)


def test_T41_splice_falls_back_where_it_is_refused(origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By the kernel at once, and by the target in the midst: not a byte is lost."""
    if not hasattr(os, "splice"):
        pytest.skip("no splice on this platform")
    real, calls = os.splice, []
    body = BODY * 20

    def splice(*args: object, **options: object) -> int:
        calls.append(args)
        if len(calls) in refused:
            raise OSError(errno.EINVAL, "refused")
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "splice", splice)
    for refused in ({1}, {2}, {3}, {4}, {1, 2}):
        calls.clear()
        with once.client() as client:
            url = origin.serve("/a", Script(body=body))
            result = client.download_file(url=url, file_path=tmp_path / "a").result()
        assert result.data_length == len(body)
        assert (tmp_path / "a").read_bytes() == body
        assert len(calls) >= max(refused) or len(calls) == min(refused)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_N19_splice_without_a_pipe(number: int, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """There are no descriptors left for a pipe; the bytes can go another way."""

    def pipe() -> tuple[int, int]:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pipe", pipe)
    with once.client() as client:
        url = origin.serve("/a", Script(body=BODY * 20))
        assert client.download_file(url=url, file_path=tmp_path / "a").result().data_length == len(BODY) * 20
    assert (tmp_path / "a").read_bytes() == BODY * 20


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ECONNRESET])
@pytest.mark.parametrize("side", ["file", "socket"])
def test_T42_K1_a_splice_that_fails_leaves_nothing_for_the_next(
    side: str, number: int, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What was taken from the first connection and could not be written must not turn up in another file."""
    if not hasattr(os, "splice"):
        pytest.skip("no splice on this platform")
    real, calls = os.splice, []

    def splice(source: int, target: int, *args: object, **options: object) -> int:
        if stat.S_ISREG(os.fstat(target).st_mode) == (side == "file"):
            calls.append(target)
            if len(calls) == 2:
                raise OSError(number, os.strerror(number))
        return real(source, target, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "splice", splice)
    url = origin.serve("/a", Script(body=BODY * 100))
    with once.client() as client:
        error = client.download_file(url=url, file_path=tmp_path / "a").exception()
        assert isinstance(error, rawdl.StorageError if side == "file" else rawdl.IncompleteBody)
        assert (error if side == "file" else error.__cause__).errno == number  # type: ignore[union-attr]
        assert list(tmp_path.iterdir()) == []
        client.download_file(url=url, file_path=tmp_path / "a").result()
    assert (tmp_path / "a").read_bytes() == BODY * 100
    assert len(calls) > 2


def test_the_hashing_tee():
    memory = rawdl.MemorySink()
    sink = HashingTee(memory, ["sha256", "md5"])
    for at in range(0, len(BODY), 1000):
        sink.write(memoryview(BODY)[at : at + 1000])
    assert {name: digest.hexdigest() for name, digest in sink.hashes.items()} == {
        "sha256": hashlib.sha256(BODY).hexdigest(),
        "md5": hashlib.md5(BODY).hexdigest(),
    }
    assert memory.getvalue() == BODY
    assert sink.splice_target() is None


@pytest.mark.parametrize("target", ["path", 5, None, object()])
def test_S11_what_is_no_sink(target: object):
    with pytest.raises(TypeError):
        as_sink(target)
