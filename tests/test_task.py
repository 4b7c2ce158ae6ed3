"""What a task tells its listeners and callers, and in which order (T1-T9, T17-T23, T25-T27, T35, S8, S23, S24)."""

from __future__ import annotations

import gc
import itertools
import logging
import socket
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rawdl
from tests import once
from tests.origin import Origin, Script
from tests.recorder import Recorder
from tests.sim import Link, World, http_peer

BODY = bytes(range(256)) * 400
WHOLE = Script(body=BODY, header=(("Set-Cookie", "a=1"), ("X-Note", "x: y"), ("Set-Cookie", "b=2"), ("x-note", "z")))
CUT = Script(body=BODY, cut_at=50_000)
URL = "http://example.org/a"


@pytest.fixture
def client() -> Iterator[rawdl.Client]:
    with once.client() as client:
        yield client


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def serve(world: World, script: Script = WHOLE, **link: object) -> rawdl.Client:
    """Serve one script at URL, over a link that brings it in some pieces; return a client."""
    world.listen("example.org", 80, http_peer(script), link=Link(**{"bandwidth": 1e6, "segment": 10_000, **link}))
    return world.client()


def in_memory(recorder: Recorder, client: rawdl.Client, **options: object) -> rawdl.DownloadTask:
    return recorder.download(client, url=URL, sink=rawdl.MemorySink(), **options)


# Creation


def test_T1_download_file_sends_resolves_and_opens_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    client = serve(world)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: pytest.fail("resolved"))
    tasks = [client.download_file(url=URL, file_path=tmp_path / str(n)) for n in range(20)]
    assert world.log == []
    assert world.sockets == {}
    assert list(tmp_path.iterdir()) == []
    assert {str(task.state) for task in tasks} == {"queued"}
    assert not any(task.done() for task in tasks)


def test_T2_T3_the_task_is_the_future_without_any_callback(client: rawdl.Client, origin: Origin, tmp_path: Path):
    task = client.download_file(url=origin.serve("/a", WHOLE), file_path=tmp_path / "a")
    assert isinstance(task, rawdl.DownloadTask)
    for name in ("on_headers_received", "off_headers_received", "on_progress_update", "off_progress_update"):
        assert callable(getattr(task, name))
    assert task.done() is False
    assert task.exception() is None
    assert task.done() is True
    assert task.result() is task.result()
    assert task.abort() is None
    assert task.result().status_code == 200


@pytest.mark.parametrize(
    "url", [None, "", " ", "nonsense", "//example.org/", "ftp://example.org/", "file:///etc/passwd", "http://",
            "http://exa mple.org/", "http://example.org:70000/", "http://example.org:0x50/", "http://[::1/", "http:/a"]
)  # fmt: skip
def test_T4_a_url_that_is_none_settles_the_task(url: str | None, client: rawdl.Client, tmp_path: Path):
    recorder = Recorder()
    task = recorder.download(client, url=url, file_path=tmp_path / "a")
    assert recorder.events == []
    assert not task.done()
    error = task.exception()
    assert isinstance(error, rawdl.InvalidURL)
    assert isinstance(error, ValueError)
    assert error.err_msg == "downloadFile:fail invalid url"
    assert error.err_code == error.to_dict()["errno"] == 600009
    assert error.url == task.url
    assert recorder.events == [("fail", error), ("complete", error)]
    assert task.state == "failed"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(rawdl.InvalidURL):
        task.result()


def test_T4_T29_abort_before_the_invalid_url_is_told(client: rawdl.Client):
    recorder = Recorder()
    task = recorder.download(client, url="nonsense")
    task.abort()
    assert isinstance(task.exception(), rawdl.Aborted)
    assert recorder.outcome == ["fail", "complete"]


# The header event


def test_T5_the_header_event_comes_before_the_body_is_waited_for(world: World):
    """The server sends its head and then sleeps for an hour: the event is there before the hour is over."""
    client = serve(world, Script(body=BODY, stall_at=Script(body=BODY).body_at, stall_for=3600), latency=0.01)
    recorder, times = Recorder(), []
    recorder.react("headers", lambda event: times.append(world.elapsed))
    task = in_memory(recorder, client, timeouts=rawdl.Timeouts(idle=None))
    assert task.result().data_length == len(BODY)
    assert times[0] < 1 < 3600 < world.elapsed
    assert recorder.names.count("headers") == 1
    assert recorder.names[0] == "headers"


@pytest.mark.parametrize("status", [200, 201, 206, 204, 300, 304, 404, 416, 500, 599])
def test_T5_T6_T22_any_status_is_told_once_and_is_a_success(status: int, world: World):
    header = (("Location", "/b"), ("Content-Range", "bytes 0-4/10"))
    framing = "none" if status in (204, 304) else "content-length"
    client = serve(world, Script(status=status, reason="Some Reason", body=b"hello", header=header, framing=framing))
    recorder, sink = Recorder(), rawdl.MemorySink()
    # 206 only because it was asked for
    options = {"header": {"Range": "bytes=0-4"}} if status == 206 else {}
    result = recorder.download(client, url=URL, sink=sink, **options).result()
    assert result.status_code == status
    assert sink.getvalue() == (b"" if framing == "none" else b"hello")
    assert recorder.of("headers")[0].status_code == status
    assert recorder.of("headers")[0].reason == "Some Reason"
    assert recorder.names.count("headers") == 1
    assert recorder.names[-2:] == ["success", "complete"]
    assert len(world.requests) == 1


@pytest.mark.parametrize("header", [(), (("Content-Range", "bytes 0-4/10"),)])
def test_H4_a_206_that_was_not_asked_for_is_an_error(header: tuple[tuple[str, str], ...], world: World, tmp_path: Path):
    client = serve(world, Script(status=206, body=b"hello", header=header))
    recorder = Recorder()
    error = recorder.download(client, url=URL, file_path=tmp_path / "a").exception()
    assert isinstance(error, rawdl.ProtocolError)
    assert "206" in str(error)
    assert list(tmp_path.iterdir()) == []
    assert world.sockets == {}


def test_H4_a_200_with_a_content_range_is_a_200(world: World):
    client = serve(world, Script(body=b"hello", header=(("Content-Range", "bytes 5-9/10"),)))
    assert in_memory(Recorder(), client).result().data_length == 5


def test_T6_interim_responses_are_never_told(world: World):
    interim = (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    client = serve(world, Script(body=BODY, informational=interim), segment=7)
    recorder = Recorder()
    in_memory(recorder, client).result()
    assert [event.status_code for event in recorder.of("headers")] == [200]


def test_T7_S19_S21_what_the_header_event_carries(world: World):
    client = serve(world, WHOLE)
    recorder = Recorder()
    result = in_memory(recorder, client).result()
    event = recorder.of("headers")[0]
    assert isinstance(event, rawdl.HeadersReceived)
    header = event.header
    assert header["content-LENGTH"] == str(len(BODY))
    assert header["X-NOTE"] == "x: y, z"
    assert header.get_all("x-Note") == ["x: y", "z"]
    assert header["set-cookie"] == "a=1"
    assert header.get_all("Set-Cookie") == ["a=1", "b=2"]
    assert header.get_all("absent") == []
    assert header.get("absent") is None
    assert list(header) == ["Set-Cookie", "X-Note", "Content-Length"]
    assert header.fields[:4] == WHOLE.header
    assert (event.status_code, event.reason, event.http_version, event.url) == (200, "OK", "1.1", URL)
    assert result.header is header


def test_T7_S19_an_absent_reason_phrase_is_empty_and_http_1_0_is_said(world: World):
    client = serve(world, Script(raw=b"HTTP/1.0 200\r\nContent-Length: 0\r\n\r\n"))
    recorder = Recorder()
    in_memory(recorder, client).result()
    assert recorder.of("headers")[0].reason == ""
    assert recorder.of("headers")[0].http_version == "1.0"


def test_T8_a_late_header_listener_is_called_once_in_a_later_turn(world: World):
    client = serve(world, stall_at=50_000, stall_for=1.0)
    recorder = Recorder()
    task = in_memory(recorder, client)
    world.drive(client, lambda: "progress" in recorder.names)
    heard: list[object] = []
    task.on_headers_received(heard.append)
    assert heard == []
    client.step(0)
    assert heard == recorder.of("headers")
    task.result()
    assert len(heard) == 1
    task.on_headers_received(heard.append)
    assert len(heard) == 1
    assert client.run() is False
    assert heard == recorder.of("headers") * 2


def test_T8_S24_a_late_header_listener_of_a_failed_task_is_called(world: World):
    client = serve(world, CUT)
    recorder, heard = Recorder(), []
    task = in_memory(recorder, client)
    assert task.exception() is not None
    task.on_headers_received(heard.append)
    client.run()
    assert heard == recorder.of("headers")


@pytest.mark.parametrize("when", ["before", "after"])
def test_T8_S24_a_late_header_listener_of_an_aborted_task_is_not_called(when: str, world: World):
    client = serve(world, stall_at=50_000)
    recorder, heard = Recorder(), []
    task = in_memory(recorder, client)
    world.drive(client, lambda: "headers" in recorder.names)
    if when == "before":  # it waits for its turn, and the abort comes first
        task.on_headers_received(heard.append)
        task.abort()
    else:
        task.abort()
        task.on_headers_received(heard.append)
    client.run()
    task.on_headers_received(heard.append)
    client.run()
    assert heard == []


def test_T8_T17_a_late_header_listener_that_is_taken_off_before_its_turn(world: World):
    client = serve(world)
    task = in_memory(Recorder(), client)
    task.result()
    heard: list[object] = []
    task.on_headers_received(heard.append)
    task.off_headers_received(heard.append)
    client.run()
    assert heard == []


def test_S24_a_listener_added_inside_the_dispatch_is_called_once_later(world: World):
    client = serve(world)
    order: list[str] = []
    recorder = Recorder()
    task = in_memory(recorder, client)

    def first(event: object) -> None:
        order.append("first")
        task.on_headers_received(lambda event: order.append("added"))

    task.on_headers_received(first)
    task.on_headers_received(lambda event: order.append("second"))
    task.result()
    client.run()
    assert order == ["first", "second", "added"]


def test_T9_abort_inside_a_header_listener_lets_no_body_byte_through(world: World):
    """The body's beginning comes in the same segment as the head."""
    client = serve(world, Script(body=b"small"))
    taken: list[bytes] = []
    recorder = Recorder()
    recorder.react("headers", lambda event: task.abort())
    task = recorder.download(client, url=URL, sink=lambda data: taken.append(bytes(data)))
    assert isinstance(task.exception(), rawdl.Aborted)
    assert taken == []
    assert recorder.names == ["headers", "fail", "complete"]


# Listeners


@pytest.mark.parametrize("kind", ["headers_received", "progress_update"])
class TestListeners:
    def download(self, world: World, kind: str) -> tuple[rawdl.DownloadTask, Callable, Callable]:
        client = serve(world)
        task = client.download_file(url=URL, sink=rawdl.MemorySink(), progress_interval=0)
        return task, getattr(task, f"on_{kind}"), getattr(task, f"off_{kind}")

    def test_T17_off_removes_a_callback_however_often_it_was_added(self, kind: str, world: World):
        task, on, off = self.download(world, kind)
        heard: list[str] = []

        def goes(event: object) -> None:
            heard.append("goes")

        on(goes)
        on(lambda event: heard.append("stays"))
        on(goes)
        off(goes)
        task.result()
        assert set(heard) == {"stays"}

    def test_T17_off_without_an_argument_removes_all(self, kind: str, world: World):
        task, on, off = self.download(world, kind)
        heard: list[object] = []
        on(heard.append)
        on(lambda event: heard.append(event))
        off()
        task.result()
        assert heard == []
        on(heard.append)
        off()

    def test_T17_off_of_an_unknown_one_is_nothing(self, kind: str, world: World):
        task, on, off = self.download(world, kind)
        heard: list[object] = []
        on(heard.append)
        off(print)
        off(lambda event: None)
        task.result()
        off(heard.append)
        off(heard.append)
        assert heard

    def test_T17_added_twice_is_called_twice(self, kind: str, world: World):
        task, on, _ = self.download(world, kind)
        heard: list[object] = []
        once: list[object] = []
        on(once.append)
        for _ in range(2):
            on(heard.append)
        task.result()
        assert len(heard) == 2 * len(once) > 0

    def test_S24_off_compares_with_equality(self, kind: str, world: World):
        """A bound method is another object each time, and equal to itself all the same."""
        task, on, off = self.download(world, kind)
        recorder = Recorder()
        on(recorder.wait_for)
        off(recorder.wait_for)
        task.result()

    def test_T18_a_listener_that_removes_itself_lets_none_be_skipped(self, kind: str, world: World):
        task, on, off = self.download(world, kind)
        heard: list[str] = []

        def once(event: object) -> None:
            heard.append("once")
            off(once)

        on(once)
        on(lambda event: heard.append("next"))
        task.result()
        assert heard[:2] == ["once", "next"]
        assert heard.count("once") == 1

    def test_T17_T18_one_removed_by_an_earlier_listener_is_not_called(self, kind: str, world: World):
        task, on, off = self.download(world, kind)
        heard: list[str] = []

        def later(event: object) -> None:
            heard.append("later")

        on(lambda event: off(later))
        on(later)
        on(lambda event: heard.append("last"))
        task.result()
        assert "later" not in heard
        assert "last" in heard

    def test_T18_all_removed_by_the_first_listener(self, kind: str, world: World):
        task, on, off = self.download(world, kind)
        heard: list[object] = []
        on(lambda event: off())
        on(heard.append)
        task.result()
        assert heard == []

    def test_T18_one_added_during_a_dispatch_is_not_part_of_it(self, kind: str, world: World):
        task, on, off = self.download(world, kind)
        order: list[str] = []

        def adds(event: object) -> None:
            order.append("adds")
            off(adds)
            on(lambda event: order.append("added"))

        on(adds)
        on(lambda event: order.append("other"))
        task.result()
        assert order[:2] == ["adds", "other"]
        assert "added" in order

    @pytest.mark.parametrize("error", [ZeroDivisionError("in a listener"), GeneratorExit("odd"), StopIteration()])
    def test_T19_a_raising_listener_hurts_nobody(
        self, kind: str, error: BaseException, world: World, caplog: pytest.LogCaptureFixture
    ):
        task, on, _ = self.download(world, kind)
        heard: list[object] = []

        def raises(event: object) -> None:
            raise error

        on(raises)
        on(heard.append)
        with caplog.at_level(logging.ERROR, "rawdl"):
            assert task.result().data_length == len(BODY)
        assert len(heard) == len(caplog.records) > 0
        assert all(record.exc_info and record.exc_info[1] is error for record in caplog.records)
        assert "raises" in caplog.text and "Traceback" in caplog.text


def test_T17_off_from_another_thread_is_final(client: rawdl.Client, origin: Origin):
    from tests.driving import in_thread

    endless = Script(body=itertools.repeat(b"x" * 4096), framing="until-close", pace=1e6)
    recorder = Recorder()
    task = recorder.download(client, url=origin.serve("/a", endless), sink=rawdl.DiscardSink(), progress_interval=0)
    heard: list[object] = []
    task.on_progress_update(heard.append)
    client.start()
    recorder.wait_for("progress")
    in_thread(task.off_progress_update, heard.append)()
    count = len(heard)
    seen = len(recorder.events)
    while len(recorder.events) < seen + 5:
        recorder.wait_for("progress")
    assert len(heard) <= count + 1  # one call may have been under way
    task.abort()
    task.exception()


def test_T20_listeners_start_downloads(world: World):
    client = serve(world)
    recorder, others = Recorder(), []

    def start(event: object) -> None:
        others.append(client.download_file(url=URL, sink=rawdl.MemorySink()))

    for name in ("headers", "success", "complete"):
        recorder.react(name, start)
    in_memory(recorder, client).result()
    assert client.run() is False
    assert [task.result().data_length for task in others] == [len(BODY)] * 3


def test_T20_listeners_abort_other_tasks(world: World):
    client = serve(world)
    recorder, other = Recorder(), Recorder()
    victims = [in_memory(other, client) for _ in range(2)]
    recorder.react("progress", lambda event: [task.abort() for task in victims])
    task = in_memory(recorder, client)
    assert task.result().data_length == len(BODY)
    assert [str(victim.state) for victim in victims] == ["aborted"] * 2
    client.run()
    assert other.outcome == ["fail", "complete"] * 2


def test_T20_a_success_callback_chains_downloads_without_end_of_stack(world: World):
    client = serve(world, Script(body=b"x"))
    count = 0

    def again(result: object) -> None:
        nonlocal count
        count += 1
        if count < 1500:
            client.download_file(url=URL, sink=rawdl.MemorySink(), success=again)

    client.download_file(url=URL, sink=rawdl.MemorySink(), success=again)
    assert client.run() is False
    assert count == 1500


# Settlement


@pytest.mark.parametrize("script", [WHOLE, CUT], ids=["success", "failure"])
def test_T21_one_outcome_then_complete_with_the_same_object_then_nothing(script: Script, world: World):
    client = serve(world, script)
    recorder = Recorder()
    task = in_memory(recorder, client)
    error = task.exception()
    outcome = error or task.result()
    first = "fail" if error else "success"
    assert [name for name in recorder.names if name not in ("headers", "progress")] == [first, "complete"]
    assert recorder.events[-2] == (first, outcome)
    assert recorder.events[-1][1] is recorder.events[-2][1] is outcome
    count = len(recorder.events)
    world.drive(client, world.elapsed + 3600)
    task.abort()
    client.run()
    assert len(recorder.events) == count


def test_T21_the_waiters_come_last(client: rawdl.Client, origin: Origin):
    from tests.driving import in_thread

    recorder, told = Recorder(), []
    task = recorder.download(client, url=origin.serve("/a", WHOLE), sink=rawdl.MemorySink())
    recorder.react("success", lambda event: told.append("success"))
    in_thread(lambda: (task.result(10), told.extend(recorder.names)))()
    assert told[0] == "success"
    assert told[-2:] == ["success", "complete"]


def test_T22_fail_on_status(world: World, tmp_path: Path):
    client = serve(world, Script(status=404, reason="Not Found", body=BODY))
    recorder = Recorder()
    task = recorder.download(client, url=URL, file_path=tmp_path / "a", fail_on_status=True)
    error = task.exception()
    assert isinstance(error, rawdl.StatusError)
    assert error.status_code == 404
    assert error.reason == "http status 404"
    assert error.err_msg == "downloadFile:fail http status 404"
    assert recorder.names == ["headers", "fail", "complete"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [200, 300, 399])
def test_T22_fail_on_status_lets_the_others_be(status: int, world: World, tmp_path: Path):
    client = serve(world, Script(status=status, body=BODY))
    result = client.download_file(url=URL, file_path=tmp_path / "a", fail_on_status=True).result()
    assert result.raise_for_status() is result
    assert (tmp_path / "a").read_bytes() == BODY


@pytest.mark.parametrize("status", [400, 404, 500, 600, 999])
def test_T22_raise_for_status(status: int, world: World):
    client = serve(world, Script(status=status, body=b"no"))
    result = in_memory(Recorder(), client).result()
    with pytest.raises(rawdl.StatusError) as caught:
        result.raise_for_status()
    assert caught.value.status_code == status
    assert caught.value.url == URL


@pytest.mark.parametrize("where", ["success", "complete"])
def test_T19_T23_a_raising_callback_changes_no_outcome(where: str, world: World, caplog: pytest.LogCaptureFixture):
    client = serve(world)
    recorder = Recorder()
    recorder.react(where, lambda event: 1 / 0)
    task = in_memory(recorder, client)
    with caplog.at_level(logging.ERROR, "rawdl"):
        assert task.result().data_length == len(BODY)
    assert recorder.outcome == ["success", "complete"]
    assert task.state == "completed"
    assert task.exception() is None
    assert "ZeroDivisionError" in caplog.text


def test_T19_a_raising_fail_callback_leaves_the_error_as_it_is(world: World, caplog: pytest.LogCaptureFixture):
    client = serve(world, CUT)
    recorder = Recorder()
    recorder.react("fail", lambda event: 1 / 0)
    task = in_memory(recorder, client)
    assert isinstance(task.exception(), rawdl.IncompleteBody)
    assert recorder.outcome == ["fail", "complete"]
    assert "ZeroDivisionError" in caplog.text


def test_T25_S19_the_result_with_a_file_path(world: World, tmp_path: Path):
    client = serve(world)
    result = client.download_file(url=URL + "?q#f", file_path=tmp_path / "a").result()
    assert isinstance(result, rawdl.DownloadResult)
    assert result.file_path == str(tmp_path / "a")
    assert result.temp_file_path is None
    assert result.data_length == len(BODY) == (tmp_path / "a").stat().st_size
    assert result.cookies == ("a=1", "b=2")
    assert result.status_code == 200
    assert result.err_msg == "downloadFile:ok"
    assert isinstance(result.url, str) and result.url.startswith(URL)
    assert (result.redirects, result.attempts, result.resumed_from) == ((), (), 0)


def test_T25_the_result_without_a_file_path(world: World, tmp_path: Path):
    client = serve(world)
    result = client.download_file(url=URL, directory=tmp_path).result()
    assert result.file_path is None
    assert result.temp_file_path is not None
    path = Path(result.temp_file_path)
    assert path.parent == tmp_path
    assert path.read_bytes() == BODY
    assert path.stat().st_mode & 0o777 == 0o600


def test_T25_the_result_with_a_sink(world: World):
    client = serve(world)
    result = in_memory(Recorder(), client).result()
    assert (result.file_path, result.temp_file_path) == (None, None)
    assert result.data_length == len(BODY)


def test_T26_err_msg_is_never_empty_and_the_cause_is_chained(world: World):
    client = serve(world)
    failures = {
        "protocol error": (Script(raw=b"garbage\r\n\r\n"), None),
        "incomplete": (CUT, None),
        "interrupted": (Script(body=BODY, cut_at=10, cut="rst"), ConnectionResetError),
    }
    for reason, (script, cause) in failures.items():
        world.listen("example.org", 80, http_peer(script))
        error = in_memory(Recorder(), client).exception()
        assert error is not None
        assert error.err_msg == f"downloadFile:fail {reason}"
        assert error.url == URL
        assert cause is None or isinstance(error.__cause__, cause)
        assert str(error) not in ("", "None")
    assert in_memory(Recorder(), client, timeouts=rawdl.Timeouts(total=0.001)).exception().reason == "timeout"  # type: ignore[union-attr]


def test_T26_the_cause_of_a_refused_connection_is_the_systems(client: rawdl.Client):
    with Origin(on_accept="refuse") as origin:
        error = client.download_file(url=origin.url(), sink=rawdl.MemorySink()).exception()
    assert isinstance(error, rawdl.ConnectError)
    assert error.reason == "connection failed"
    assert isinstance(error.__cause__, ConnectionRefusedError)
    assert error.errno == error.__cause__.errno
    assert f"127.0.0.1:{origin.port}" in str(error)


# States


def test_T35_S27_the_states_in_order(world: World):
    client = serve(world, Script(body=BODY, head_delay=1.0))
    recorder, states = Recorder(), []
    for name in ("headers", "progress", "success", "complete"):
        recorder.react(name, lambda event, name=name: states.append((name, str(task.state))))
    task = in_memory(recorder, client, progress_interval=0)
    seen = [str(task.state)]
    while client.step(None):
        if task.state != seen[-1]:
            seen.append(str(task.state))
    assert seen[:4] == ["queued", "connecting", "waiting", "receiving"]
    assert task.state == rawdl.TaskState.COMPLETED == "completed"
    assert states[0] == ("headers", "receiving")
    assert states[1] == ("progress", "receiving")
    assert states[-3:] == [("progress", "finishing"), ("success", "completed"), ("complete", "completed")]


@pytest.mark.parametrize("script", [WHOLE, CUT])
def test_T35_the_final_states_are_final(script: Script, world: World):
    client = serve(world, script)
    task = in_memory(Recorder(), client)
    task.exception()
    state = task.state
    task.abort()
    client.run()
    assert task.state is state


def test_T35_no_move_but_the_legal_ones():
    """The table, held against every pair of different states."""
    states = list(rawdl.TaskState)
    legal = {
        ("queued", "connecting"),
        ("queued", "finishing"),
        ("connecting", "waiting"),
        ("waiting", "receiving"),
        ("waiting", "connecting"),
        ("waiting", "finishing"),
        ("receiving", "finishing"),
        ("receiving", "connecting"),
        ("finishing", "completed"),
        ("finishing", "connecting"),
    }
    legal |= {(str(state), end) for state in states[:6] for end in ("failed", "aborted")}
    legal |= {move for state in states[:4] for move in ((str(state), "paused"), ("paused", str(state)))}
    with once.client() as client:
        for before, after in itertools.permutations(states, 2):
            task = client.download_file(url=None)
            task._state = before
            try:
                task.enter(after)
                moved = True
            except AssertionError:
                moved = False
            assert moved == ((str(before), str(after)) in legal), (before, after)
            task._state = rawdl.TaskState.QUEUED
            task.abort()


# Order and progress


def test_S23_the_rename_comes_after_the_last_progress_event(world: World, tmp_path: Path):
    client = serve(world)
    recorder, there = Recorder(), []
    recorder.react("progress", lambda event: there.append((event.progress, (tmp_path / "a").exists())))
    recorder.react("success", lambda event: there.append(("success", (tmp_path / "a").exists())))
    recorder.download(client, url=URL, file_path=tmp_path / "a", progress_interval=0).result()
    assert there[-2:] == [(100, False), ("success", True)]
    last = recorder.of("progress")[-1]
    assert last.length_computable is True
    assert last.eta == 0.0
    assert last.total_bytes_written == last.total_bytes_expected_to_write == len(BODY)


def test_S23_abort_in_the_last_progress_event_leaves_no_file(world: World, tmp_path: Path):
    client = serve(world)
    recorder = Recorder()
    recorder.react("progress", lambda event: task.abort() if event.progress == 100 else None)
    task = recorder.download(client, url=URL, file_path=tmp_path / "a", progress_interval=0)
    assert isinstance(task.exception(), rawdl.Aborted)
    assert recorder.outcome == ["fail", "complete"]
    assert list(tmp_path.iterdir()) == []


def test_S35_a_task_that_has_ended_has_its_progress_and_holds_nothing_else(world: World):
    """What the caller handed over is his alone again, at once: no collector runs."""

    def sink(data: memoryview) -> None: ...

    gc.disable()
    try:
        client = serve(world)
        task = client.download_file(url=URL, sink=sink)
        task.result()
        handed = weakref.ref(sink)
        del sink
        assert handed() is None
    finally:
        gc.enable()
    assert task.progress == (100, len(BODY), len(BODY), True, task.progress.bytes_per_second, 0.0, False, None)


def test_S35_progress_before_the_head_is_zeros(world: World):
    client = serve(world)
    task = in_memory(Recorder(), client)
    assert task.progress == rawdl.ProgressUpdate()
    assert task.progress.to_dict()["totalBytesWritten"] == 0
    task.result()
    assert task.progress.total_bytes_written == len(BODY)


def test_T10_T14_T15_progress_events_of_a_known_length(world: World):
    client = serve(world)
    recorder = Recorder()
    in_memory(recorder, client, progress_interval=0).result()
    events = recorder.of("progress")
    assert len(events) >= len(BODY) // 10_000
    for event in events:
        assert type(event.progress) is int
        assert event.progress == event.total_bytes_written * 100 // len(BODY)
        assert event.total_bytes_expected_to_write == len(BODY)
    assert [event.total_bytes_written for event in events] == sorted(event.total_bytes_written for event in events)
    assert [event.progress for event in events].count(100) >= 1
    assert recorder.names.index("success") == recorder.names.index("complete") - 1 == len(recorder.names) - 2


@pytest.mark.parametrize("framing", ["chunked", "until-close"])
def test_T12_progress_events_of_an_unknown_length(framing: str, world: World):
    client = serve(world, Script(body=BODY, framing=framing, chunk=5000))
    recorder = Recorder()
    result = in_memory(recorder, client, progress_interval=0).result()
    *events, last = recorder.of("progress")
    assert len(events) > 3
    for event in events:
        assert (event.progress, event.total_bytes_expected_to_write, event.length_computable) == (0, 0, False)
        assert event.eta is None
    assert (last.progress, last.total_bytes_written, last.total_bytes_expected_to_write) == (100, len(BODY), len(BODY))
    assert result.length_known is (framing == "chunked")


@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
def test_T14_an_empty_body_gives_one_event(framing: str, world: World):
    client = serve(world, Script(body=b"", framing=framing))
    recorder = Recorder()
    in_memory(recorder, client).result()
    assert recorder.names == ["headers", "progress", "success", "complete"]
    event = recorder.of("progress")[0]
    assert (event.total_bytes_written, event.total_bytes_expected_to_write, event.progress) == (0, 0, 100)


def test_T15_at_most_one_event_an_interval_first_and_last_always(world: World):
    client = serve(world, Script(body=BODY * 10), bandwidth=1e5, segment=1000)
    recorder, times = Recorder(), []
    recorder.react("progress", lambda event: times.append(world.elapsed))
    in_memory(recorder, client, progress_interval=0.5).result()
    gaps = [after - before for before, after in itertools.pairwise(times[:-1])]
    assert len(times) > 10
    assert min(gaps) >= 0.5
    assert recorder.of("progress")[0].total_bytes_written <= 1000
    assert recorder.of("progress")[-1].progress == 100


# Representation


def test_the_representation_shows_the_state(world: World):
    client = serve(world, stall_at=50_000)
    task = client.download_file(url="http://user:secret@example.org/a", sink=rawdl.MemorySink())
    assert "queued" in repr(task)
    world.drive(client, lambda: task.progress.total_bytes_written > 0)
    assert "receiving" in repr(task) and str(task.progress.total_bytes_written) in repr(task)
    assert "1 in use" in repr(client)
    task.abort()
    client.run()
    assert "aborted" in repr(task)
    assert "secret" not in repr(task) + repr(client) + str(task.exception())
