"""What a caller's function and the log are told of each step, and that no secret is among it (A9, I10)."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rawdl
from rawdl.trace import PHASES
from tests.once import ONE_TRY
from tests.resource import Fault, Resource, redirect
from tests.sim import Script, World
from tests.sim_tests.fetch import HOST, SECURE_URL
from tests.sim_tests.journeys import AT_ONCE, A, B, serve
from tests.sim_tests.peers import OK

BODY = bytes(range(256)) * 100
SECRET = "canary"
Step = tuple[str, str, dict[str, object]]


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


class Steps(list[Step]):
    """Take what is told."""

    def __call__(self, phase: str, event: str, data: dict[str, object]) -> None:
        self.append((phase, event, data))

    @property
    def names(self) -> list[str]:
        return [f"{phase} {event}" for phase, event, _ in self]

    def data(self, name: str) -> dict[str, object]:
        return next(data for phase, event, data in self if f"{phase} {event}" == name)


def follow(world: World, url: str, *, client: dict[str, Any] | None = None, **options: Any) -> Steps:
    steps = Steps()
    options.setdefault("sink", rawdl.DiscardSink())
    with world.client(trace=steps, **(client or {})) as made:
        task = made.download_file(url=url, **options)
        made.run()
    assert {data["task"] for _, _, data in steps} == {task}
    return steps


def test_the_steps_of_a_download(world: World):
    serve(world, A, Script(body=b"hello", header=(("Set-Cookie", "c=canary"), ("X-Y", "z"))))
    steps = follow(world, f"http://{A}/a")
    assert steps.names == [
        "task connecting",
        "resolve started",
        "resolve complete",
        "connect started",
        "connect attempt",
        "connect complete",
        "task waiting",
        "send started",
        "send complete",
        "head complete",
        "body started",
        "task receiving",
        "body complete",
        "task finishing",
        "task completed",
    ]
    assert steps.data("send started")["url"] == f"http://{A}/a"
    head = steps.data("head complete")
    assert (head["status_code"], head["http_version"]) == (200, "1.1")
    assert {"Set-Cookie": "***", "X-Y": "z"}.items() <= dict(head["header"]).items()  # type: ignore[call-overload]
    assert steps.data("body complete")["length"] == 5
    assert steps.data("body complete")["close_reasons"] == ()


def test_a_second_download_is_told_of_the_connection_that_it_has(world: World):
    serve(world, A, OK)
    steps = Steps()
    with world.client(trace=steps) as client:
        for _ in range(2):
            client.download_file(url=f"http://{A}/a", sink=rawdl.DiscardSink()).result()
    assert steps.names.count("connect complete") == 1
    assert steps.data("connect reused")["exchanges"] == 1


def test_redirects_tries_and_interim_responses(world: World):
    serve(world, A, redirect(f"http://{B}/b?token={SECRET}"))
    serve(
        world,
        B,
        Resource(
            BODY, like=Script(informational=(b"HTTP/1.1 103 Early Hints\r\n\r\n",)), faults=[Fault(in_body=10_000)]
        ),
    )
    steps = follow(world, f"http://{A}/a", client={"retry": AT_ONCE})
    assert steps.data("task redirect")["status_code"] == 302
    assert isinstance(steps.data("body failed")["error"], rawdl.IncompleteBody)
    again = steps.data("task retry")
    assert isinstance(again["error"], rawdl.IncompleteBody)
    assert steps.names.count("head informational") == 2
    assert steps.names[-1] == "task completed"
    assert SECRET not in repr([[str(value) for value in data.values()] for _, _, data in steps])


def test_over_TLS(server_context: ssl.SSLContext, ca_file: Path):
    with World() as world:
        serve(world, HOST, OK, port=443, tls=server_context)
        steps = follow(world, SECURE_URL, client={"tls": rawdl.TLS(ca_file=ca_file)})
    assert steps.data("tls started")["host"] == HOST
    agreed = steps.data("tls complete")
    assert str(agreed["version"]).startswith("TLSv1")
    assert agreed["resumed"] is False


def test_a_proxy_that_opens_no_tunnel(world: World):
    serve(world, "proxy.example.org", Script(status=403, reason="No", body=b""), port=3128)
    steps = follow(world, f"https://{A}/a", client={"proxy": "http://proxy.example.org:3128", "retry": ONE_TRY})
    started = steps.data("proxy started")
    assert (started["proxy"], started["target"]) == ("http://proxy.example.org:3128", f"{A}:443")
    assert isinstance(steps.data("proxy failed")["error"], rawdl.ProxyError)


@pytest.mark.parametrize(
    ("fault", "phase"),
    [
        ({"url": "http://nowhere.example.org/"}, "resolve"),
        ({"url": f"http://{A}:81/a"}, "connect"),
        ({"url": f"https://{A}:80/a"}, "tls"),
        ({"url": f"http://{A}/nonsense"}, "head"),
        ({"url": f"http://{A}/cut"}, "body"),
    ],
)
def test_the_phase_that_fails(world: World, fault: dict[str, str], phase: str):
    cut = Resource(BODY, faults=[Fault(in_body=10)])
    serve(world, A, {"/nonsense": Script(raw=b"nonsense\r\n\r\n"), "/cut": cut})
    steps = follow(world, fault["url"], client={"retry": ONE_TRY})
    failed = [name for name in steps.names if name.endswith("failed")]
    assert failed == [f"{phase} failed", "task failed"]
    assert steps.data("task failed")["error"] is steps.data(f"{phase} failed")["error"]


def test_an_address_that_refuses(world: World):
    world.listen(A, 80, connect="refuse", address="192.0.2.1")
    serve(world, A, OK, address="192.0.2.2")
    steps = follow(world, f"http://{A}/a")
    assert steps.data("connect refused")["address"] == "192.0.2.1:80"
    assert steps.data("connect complete")["peer"] == "192.0.2.2:80"


def test_a_task_that_cannot_begin(world: World):
    steps = follow(world, "ftp://x/")
    assert steps.names == ["task failed"]
    assert isinstance(steps.data("task failed")["error"], rawdl.InvalidURL)


@pytest.mark.parametrize("at", ["resolve started", "connect attempt", "send started", "head complete", "body complete"])
def test_S34_what_is_called_in_a_step_waits_for_the_next_turn(world: World, at: str):
    """An abort in the middle of our own work must find it consistent."""
    serve(world, A, OK)
    names: list[str] = []

    def look(phase: str, event: str, data: dict[str, Any]) -> None:
        names.append(f"{phase} {event}")
        if names[-1] == at:
            data["task"].abort()
            with pytest.raises(RuntimeError):
                data["task"].result()

    with world.client(trace=look) as client:
        task = client.download_file(url=f"http://{A}/a", sink=rawdl.DiscardSink())
        client.run()
    assert isinstance(task.exception(), rawdl.Aborted)
    assert names[-1] == "task aborted"


def test_T12_a_function_that_raises_changes_nothing(world: World, caplog: pytest.LogCaptureFixture):
    serve(world, A, OK)

    def fail(*args: object) -> None:
        raise ZeroDivisionError

    with world.client(trace=fail) as client:
        assert client.download_file(url=f"http://{A}/a", sink=rawdl.MemorySink()).result().status_code == 200
    assert "ZeroDivisionError" in caplog.text


def test_what_is_no_function(world: World):
    with pytest.raises(TypeError, match="trace"):
        world.client(trace=5)


# The log


def test_I10_the_log_gets_the_same_with_nothing_that_does_not_print(world: World, caplog: pytest.LogCaptureFixture):
    serve(world, A, Script(body=b"x", reason="\x1b[2J", header=(("X-Y", "\x9b31m"),)))
    with caplog.at_level(logging.DEBUG, "rawdl"), world.client() as client:
        client.download_file(url=f"http://{A}/a", sink=rawdl.DiscardSink()).result()
    told = {record.name for record in caplog.records}
    assert told == {f"rawdl.{phase}" for phase in PHASES if phase not in ("proxy", "tls")}
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert "head complete" not in caplog.text
    assert "complete status_code=200" in caplog.text


def test_one_phase_may_be_logged_alone(world: World, caplog: pytest.LogCaptureFixture):
    serve(world, A, OK)
    with caplog.at_level(logging.DEBUG, "rawdl.head"), world.client() as client:
        client.download_file(url=f"http://{A}/a", sink=rawdl.DiscardSink()).result()
    assert [record.name for record in caplog.records] == ["rawdl.head"]


def test_nothing_is_told_where_nobody_listens(world: World):
    serve(world, A, OK)
    with world.client() as client:
        task = client.download_file(url=f"http://{A}/a", sink=rawdl.DiscardSink())
        assert task.trace is None
        client.run()


def test_A9_no_secret_is_in_a_trace_or_a_log(world: World, caplog: pytest.LogCaptureFixture, tmp_path: Path):
    """Whatever the caller gives that only one server should see."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"default login u password {SECRET}\n")
    serve(world, A, redirect(f"http://{B}/b?sig={SECRET}&x=1", header=(("Set-Cookie", f"c={SECRET}"),)))
    serve(world, B, Script(status=503, reason="Busy", body=b""))
    proxy = f"http://u:{SECRET}@proxy.example.org:3128"
    header = {"X-Token": SECRET, "Cookie": f"c={SECRET}"}
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"netrc": str(netrc)}, {}),
        ({"auth": ("u", SECRET)}, {}),
        ({"proxy": proxy}, {}),
        ({}, {"header": header}),
        ({}, {"url": f"http://u:{SECRET}@{A}/a?X-Amz-Signature={SECRET}"}),
    ]
    with caplog.at_level(logging.DEBUG, "rawdl"):
        for client, options in cases:
            steps = follow(world, options.pop("url", f"http://{A}/a"), client={"retry": AT_ONCE, **client}, **options)
            told = repr(
                [(phase, event, [f"{value!r} {value}" for value in data.values()]) for phase, event, data in steps]
            )
            assert SECRET not in told
    assert SECRET not in caplog.text
    assert "X-Token" in caplog.text
