"""What results, errors and events carry, and how they are spelt for JavaScript (S15-S22, T25, T26, T40)."""

from __future__ import annotations

import copy
import errno
import json
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rawdl
from tests import once
from tests.origin import Origin, Script
from tests.recorder import Recorder
from tests.sim import Link, World, http_peer

BODY = bytes(range(256)) * 400
URL = "http://example.org/a"
HEADER = (
    ("Set-Cookie", "a=1; Path=/"),
    ("X-A", "1"),
    ("set-cookie", "b=2"),
    ("x-a", "2"),
    ("Content-Encoding", "gzip"),
)


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        world.listen("example.org", 80, http_peer(Script(body=BODY, header=HEADER)), link=Link(bandwidth=1e6))
        yield world


# Errors: one of each kind

ERRORS: dict[type[rawdl.DownloadError], tuple[rawdl.DownloadError, int, str]] = {
    type(error): (error, code, reason)
    for error, code, reason in [
        (rawdl.InvalidURL("m"), 600009, "invalid url"),
        (rawdl.Aborted("m"), 600003, "abort"),
        (rawdl.Timeout("m", phase="head"), 5, "timeout"),
        (rawdl.NetworkError("m", errno=101), 600001, "interrupted"),
        (rawdl.ResolveError("m"), 600001, "name not resolved"),
        (rawdl.ConnectError("m", errno=111), 600001, "connection failed"),
        (rawdl.TLSError("m"), 600001, "connection failed"),
        (rawdl.ConnectionLost("m", errno=104), 600001, "interrupted"),
        (rawdl.ProtocolError("m"), 600001, "protocol error"),
        (rawdl.IncompleteHead("m"), 600001, "incomplete"),
        (rawdl.IncompleteBody("m", received=5, expected=None), 600001, "incomplete"),
        (rawdl.StatusError("m", status_code=503), 602001, "http status 503"),
        (rawdl.TooLarge("m", limit=10), 602001, "exceed max file size"),
        (rawdl.StorageError("m", path="p", errno=errno.ENOSPC), 602001, "storage"),
    ]
}


@pytest.mark.parametrize(("error", "code", "reason"), ERRORS.values(), ids=[kind.__name__ for kind in ERRORS])
def test_S16_S17_T26_each_error(error: rawdl.DownloadError, code: int, reason: str):
    assert error.err_code == code
    assert error.reason == reason
    assert error.err_msg == f"downloadFile:fail {reason}"
    assert str(error) == "m"
    assert error.attempts == ()
    told = error.to_dict()
    assert (told["errMsg"], told["errno"]) == (error.err_msg, code)
    assert json.loads(json.dumps(told)) == told
    with pytest.raises(rawdl.DownloadError):
        raise error


@pytest.mark.parametrize("error", [each[0] for each in ERRORS.values()], ids=[kind.__name__ for kind in ERRORS])
@pytest.mark.parametrize("copied", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_errors_survive_being_pickled_and_copied(error: rawdl.DownloadError, copied: Any):
    error.url = URL
    twin = copied(error)
    assert type(twin) is type(error)
    assert vars(twin) == vars(error)
    assert str(twin) == str(error)
    assert getattr(twin, "errno", None) == getattr(error, "errno", None)


def test_S16_the_tree_and_the_builtins():
    assert issubclass(rawdl.InvalidURL, ValueError)
    assert issubclass(rawdl.Timeout, TimeoutError)
    for kind in (rawdl.NetworkError, rawdl.StorageError):
        assert issubclass(kind, OSError)
    for kind in (rawdl.ResolveError, rawdl.ConnectError, rawdl.TLSError, rawdl.ConnectionLost):
        assert issubclass(kind, rawdl.NetworkError)
    assert issubclass(rawdl.IncompleteHead, rawdl.ProtocolError)
    assert issubclass(rawdl.IncompleteBody, rawdl.ProtocolError)
    assert not issubclass(rawdl.ProtocolError, OSError)
    assert rawdl.TLSError("m", certificate=True).reason == "certificate"


def test_S16_errno_of_an_os_error_is_the_operating_systems():
    error = rawdl.StorageError("m", path="p", errno=errno.ENOSPC)
    assert error.errno == errno.ENOSPC
    assert error.to_dict()["errno"] == error.err_code == 602001
    assert rawdl.ConnectError("m").errno is None


def test_S17_the_reason_never_has_the_servers_text(world: World):
    nasty = "\x1b[2Jnasty"
    replies = [
        f"HTTP/1.1 404 {nasty}\r\nContent-Length: 0\r\n\r\n",
        f"{nasty}\r\n\r\n",
        f"HTTP/1.1 200 OK\r\n{nasty} x: y\r\nContent-Length: {nasty}\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{nasty}\r\n",
    ]
    for reply in replies:
        world.listen("example.org", 80, http_peer(Script(raw=reply.encode(), keep_alive=False)))
        task = world.client().download_file(url=URL, sink=rawdl.MemorySink(), fail_on_status=True)
        error = task.exception()
        assert error is not None
        assert "nasty" not in error.err_msg
        assert "\x1b" not in str(error) + json.dumps(error.to_dict())


def test_S18_S19_a_cut_body_by_fin_and_by_rst(world: World):
    cases = [
        ("fin", "content-length", len(BODY)),
        ("rst", "content-length", len(BODY)),
        ("fin", "chunked", None),
        ("rst", "chunked", None),
        ("rst", "until-close", None),
    ]
    for cut, framing, expected in cases:
        script = Script(body=BODY, framing=framing)
        world.listen("example.org", 80, http_peer(script), link=Link(cut_at=script.body_at + 50_000, cut=cut))
        recorder = Recorder()
        error = recorder.download(world.client(), url=URL, sink=rawdl.MemorySink()).exception()
        assert isinstance(error, rawdl.IncompleteBody)
        assert error.expected == expected
        assert 49_900 < error.received <= 50_000
        assert str(error.received) in str(error)
        assert isinstance(error.__cause__, rawdl.ConnectionLost) == (cut == "rst")
        if cut == "rst":
            assert error.__cause__.errno == errno.ECONNRESET


@pytest.mark.parametrize("offset", [0, 1, 20])
def test_S18_a_cut_head_by_fin_and_by_rst(offset: int, world: World):
    for cut, kind in (("fin", rawdl.IncompleteHead), ("rst", rawdl.ConnectionLost)):
        world.listen("example.org", 80, http_peer(Script(body=BODY, cut_at=offset, cut=cut)))
        error = world.client().download_file(url=URL, sink=rawdl.MemorySink()).exception()
        assert type(error) is kind
        assert error.reason == ("incomplete" if cut == "fin" else "interrupted")


def test_errors_carry_the_url_without_its_password(world: World):
    world.listen("example.org", 80, http_peer(Script(cut_at=5)))
    error = world.client().download_file(url="http://me:secret@example.org/a").exception()
    assert error is not None and error.url is not None
    assert "example.org/a" in error.url
    assert "secret" not in error.url + str(error) + json.dumps(error.to_dict())


# Results


def test_S21_to_dict_of_a_result(world: World, tmp_path: Path):
    result = world.client().download_file(url=URL, file_path=tmp_path / "a").result()
    told = json.loads(json.dumps(result.to_dict()))
    assert told["tempFilePath"] is None
    assert told["filePath"] == str(tmp_path / "a")
    assert told["statusCode"] == 200
    assert told["errMsg"] == "downloadFile:ok"
    assert told["dataLength"] == len(BODY)
    assert told["cookies"] == ["a=1; Path=/", "b=2"]
    assert told["header"]["Set-Cookie"] == ["a=1; Path=/", "b=2"]
    assert told["header"]["X-A"] == "1, 2"
    assert told["header"]["Content-Length"] == str(len(BODY))
    assert told["profile"] == result.profile.to_dict()
    assert result.content_encoding == "gzip"


def test_S21_to_dict_of_the_events(world: World):
    recorder = Recorder()
    recorder.download(world.client(), url=URL, sink=rawdl.MemorySink()).result()
    head = json.loads(json.dumps(recorder.of("headers")[0].to_dict()))
    assert head["statusCode"] == 200
    assert head["header"]["Set-Cookie"] == ["a=1; Path=/", "b=2"]
    progress = json.loads(json.dumps(recorder.of("progress")[-1].to_dict()))
    assert progress["progress"] == 100
    assert progress["totalBytesWritten"] == progress["totalBytesExpectedToWrite"] == len(BODY)
    first = json.loads(json.dumps(rawdl.ProgressUpdate().to_dict()))
    assert first["bytesPerSecond"] is None


def test_events_and_profiles_cannot_be_changed(world: World):
    """All listeners get the same object."""
    recorder = Recorder()
    result = recorder.download(world.client(), url=URL, sink=rawdl.MemorySink()).result()
    events = (recorder.of("headers")[0], "reason"), (recorder.of("progress")[0], "progress")
    for value, name in [*events, (result.profile, "port")]:
        with pytest.raises(AttributeError):
            setattr(value, name, None)


# T40: the profile

ORDER = [
    "fetchStart", "domainLookUpStart", "domainLookUpEnd", "connectStart", "connectEnd", "requestStart", "requestEnd",
    "responseStart", "responseEnd",
]  # fmt: skip
WECHAT = {
    "redirectStart", "redirectEnd", "SSLconnectionStart", "SSLconnectionEnd", "rtt", "estimate_nettype",
    "httpRttEstimate", "transportRttEstimate", "downstreamThroughputKbpsEstimate", "throughputKbps", "peerIP", "port",
    "protocol", "socketReused", "sendBytesCount", "receivedBytedCount", "invokeStart", "queueStart", "queueEnd",
    "usingHighPerformanceMode",
}  # fmt: skip


def ordered(profile: rawdl.Profile) -> list[int]:
    told = profile.to_dict()
    times = [told[name] for name in ORDER]
    assert times == sorted(times), told
    return times


def test_T40_S22_the_profile_of_a_fresh_connection(world: World):
    """In virtual time: the resolver takes 5 ms, each way 10 ms, the head 100 ms."""
    world.listen("example.org", 80, http_peer(Script(body=BODY, head_delay=0.1)), link=Link(latency=0.01))
    world.name("example.org").delay = 0.005
    result = world.client().download_file(url=URL, sink=rawdl.MemorySink()).result()
    profile = result.profile
    assert isinstance(profile, rawdl.Profile)
    told = profile.to_dict()
    assert set(told) == WECHAT | set(ORDER)
    assert all(type(told[name]) is int for name in ORDER)
    assert ordered(profile)[0] > 0
    assert profile.domain_look_up_end - profile.domain_look_up_start == pytest.approx(5, abs=1)
    assert profile.connect_end - profile.connect_start == pytest.approx(20, abs=1)
    assert profile.response_start - profile.request_end == pytest.approx(120, abs=1)
    assert (profile.ssl_connection_start, profile.ssl_connection_end) == (0, 0)
    assert (profile.peer_ip, profile.port, profile.socket_reused) == ("10.0.0.1", 80, False)
    assert profile.protocol == "http1.1"
    assert profile.send_bytes_count == len(world.requests[0].head)
    assert profile.received_bytes_count >= len(BODY)
    assert (profile.redirect_start, profile.redirect_end) == (0, 0)


def test_T40_the_profile_of_a_reused_connection(world: World):
    client = world.client()
    client.download_file(url=URL, sink=rawdl.MemorySink()).result()
    world.wait(5)
    profile = client.download_file(url=URL, sink=rawdl.MemorySink()).result().profile
    assert profile.socket_reused is True
    times = ordered(profile)
    assert times[:5] == [profile.fetch_start] * 5
    assert profile.peer_ip == "10.0.0.1"


def test_T40_S22_the_times_are_the_wall_clocks(origin: Origin):
    before = time.time() * 1000
    with once.client() as client:
        profile = (
            client.download_file(url=origin.serve("/a", Script(body=BODY)), sink=rawdl.MemorySink()).result().profile
        )
    times = ordered(profile)
    assert before - 2 <= times[0] <= times[-1] <= time.time() * 1000 + 2
    assert before - 2 <= profile.invoke_start <= profile.queue_start <= profile.queue_end <= profile.fetch_start


def test_T40_the_queue_is_part_of_the_profile(world: World):
    client = world.client(max_concurrent=1)
    slow = client.download_file(url=URL, sink=rawdl.MemorySink())
    waits = client.download_file(url=URL, sink=rawdl.MemorySink())
    client.run()
    first, second = slow.result().profile, waits.result().profile
    waited, took = second.queue_end - second.queue_start, first.response_end - first.fetch_start
    assert waited >= took - 2 > 50, "less the rounding of four times"
    ordered(second)


def test_T40_a_lookup_that_was_not_needed(world: World):
    world.listen("10.9.8.7", 80, http_peer(Script(body=BODY)))
    profile = world.client().download_file(url="http://10.9.8.7/", sink=rawdl.MemorySink()).result().profile
    ordered(profile)
    assert profile.domain_look_up_start == profile.domain_look_up_end
    assert profile.peer_ip == "10.9.8.7"


def test_T40_what_cannot_be_measured_is_zero(world: World):
    profile = world.client().download_file(url=URL, sink=rawdl.MemorySink()).result().profile
    for name in ("rtt", "http_rtt_estimate", "transport_rtt_estimate", "downstream_throughput_kbps_estimate"):
        assert getattr(profile, name) == 0
    assert profile.using_high_performance_mode is False
