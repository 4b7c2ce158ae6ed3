"""What is told of the steps: ``-v``, ``--trace``, the events of ``--json``, and ``-w``."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from rawdl.cli.writeout import NAMES
from tests.cli.conftest import Command
from tests.origin import Origin, Script
from tests.resource import Fault, Resource, redirect

BODY = bytes(range(256)) * 200
NUMBER = (int, float)
# Each event with its fields and their types; None is in those that may be unknown.
SCHEMA: dict[str, dict[str, Any]] = {
    "queued": {},
    "resolve": {"addresses": list},
    "connect": {"peer": str},
    "tls": {"version": str, "cipher": str, "resumed": bool},
    "request": {"method": str, "header": dict},
    "redirect": {"statusCode": int, "location": str},
    "retry": {"errMsg": str, "delay": NUMBER, "totalBytesWritten": int},
    "resume": {"totalBytesWritten": int},
    "headers": {"header": dict, "statusCode": int, "reason": str, "httpVersion": str},
    "progress": {
        "progress": int,
        "totalBytesWritten": int,
        "totalBytesExpectedToWrite": int,
        "lengthComputable": bool,
        "bytesPerSecond": (*NUMBER, type(None)),
        "eta": (*NUMBER, type(None)),
    },
    "stall": {"seconds": NUMBER, "totalBytesWritten": int},
    "done": {"filePath": str, "statusCode": int, "errMsg": str, "dataLength": int, "profile": dict, "redirects": list},
    "failed": {"errMsg": str, "errno": int},
}


def events(rawdl: Command, *arguments: str) -> list[dict[str, Any]]:
    return checked(rawdl("--json", *arguments).stdout)


def checked(written: bytes) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in written.splitlines()]
    for event in found:
        schema = SCHEMA[event["event"]]
        assert schema.keys() <= event.keys(), event
        assert all(isinstance(event[name], kind) for name, kind in schema.items()), event
        assert isinstance(event["url"], str)
    return found


class TestEvents:
    def test_a_life_with_everything_in_it(self, rawdl: Command, origin: Origin) -> None:
        origin.serve("/f", Resource(BODY, faults=[Fault(in_body=20_000)]))
        url = origin.serve("/a", redirect(f"http://localhost:{origin.port}/f"))
        found = events(rawdl, "--retry-delay", "0.01", "-4", url)
        names = [event["event"] for event in found]
        told = [name for at, name in enumerate(names) if name != "progress" or names[at - 1] != "progress"]
        assert told == [
            *("queued", "connect", "request", "redirect", "resolve", "connect", "request", "headers", "progress"),
            *("retry", "resolve", "connect", "request", "progress", "done"),
        ]
        assert {event["url"] for event in found} == {url}

    def test_a_file_that_is_resumed(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Resource(BODY, faults=[Fault(in_body=20_000)]))
        assert events(rawdl, "--retries", "0", url)[-1]["event"] == "failed"
        found = events(rawdl, url)
        [resumed] = [event for event in found if event["event"] == "resume"]
        assert resumed["totalBytesWritten"] == 20_000
        assert found[-1]["resumedFrom"] == 20_000

    def test_a_stall_is_told_once_and_then_progress(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(body=BODY, stall_at=20_000, stall_for=1.0))
        soon = "from rawdl.cli import watch; watch._STALLED, watch._GLANCE = 0.2, 0.05"
        found = checked(rawdl.after(soon, "--json", url).stdout)
        names = [event["event"] for event in found]
        assert names.count("stall") == 1
        at = names.index("stall")
        assert names[at - 1] == names[at + 1] == "progress" and names[-1] == "done"
        assert found[at]["totalBytesWritten"] == found[at - 1]["totalBytesWritten"] < 20_000
        assert found[at]["seconds"] >= 0.2

    def test_over_TLS(self, rawdl: Command, tls_origin: Origin) -> None:
        found = events(rawdl, "-k", tls_origin.serve("/a", Script(body=b"x")))
        assert [event["event"] for event in found][:4] == ["queued", "connect", "tls", "request"]


class TestSteps:
    def test_v_prints_what_goes_out_and_comes_in(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(body=b"x", header=(("X-A", "\x1b[2J"), ("Set-Cookie", "c=secret"))))
        outcome = rawdl("-v", "-u", "user:secret", url)
        lines = outcome.stderr.splitlines()
        assert {f"> GET {url}", "> Authorization: ***", "< 200 OK", "< X-A: \\x1b[2J", "< Set-Cookie: ***"} <= set(
            lines
        )
        assert f"* connect complete peer=127.0.0.1:{origin.port}" in lines
        assert "secret" not in outcome.stderr and "\x1b" not in outcome.stderr

    def test_trace_writes_every_step_as_json(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(body=b"x"))
        assert rawdl("-q", "--trace", "t", url) == (0, b"", "")
        steps = [json.loads(line) for line in (rawdl.folder / "t").read_text().splitlines()]
        assert {step["task"] for step in steps} == {url}
        names = [(step["phase"], step["event"]) for step in steps]
        assert names[0] == ("task", "connecting") and names[-1] == ("task", "completed")
        assert ("head", "complete") in names

    def test_a_trace_that_cannot_be_written(self, rawdl: Command, origin: Origin) -> None:
        outcome = rawdl("--trace", "none/t", origin.serve("/a", Script(body=b"x")))
        assert (outcome.code, outcome.complaint) == (23, "rawdl: cannot write none/t: No such file or directory")
        assert origin.requests == []

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
    @pytest.mark.parametrize(("status", "code"), [(200, 23), (404, 22)])
    def test_a_trace_that_finds_no_more_room(self, rawdl: Command, origin: Origin, status: int, code: int) -> None:
        outcome = rawdl("-q", "--trace", "/dev/full", origin.serve("/a", Script(status=status, body=b"x")))
        *others, last = outcome.stderr.splitlines()
        assert last == "rawdl: cannot write /dev/full: No space left on device"
        assert (outcome.code, len(others), rawdl.files()) == (code, status == 404, ["a"] if status == 200 else [])


class TestWriteOut:
    def test_E8_what_the_server_sent_acts_on_no_terminal(self, rawdl: Command, origin: Origin) -> None:
        header = (("X-A", "\x1b]0;x\x07\x1b[2J\x9b"), ("Content-Type", "\x7f"))
        url = origin.serve("/a", Script(body=b"x", header=header))
        text = "%header{x-a} %{content_type}"
        assert rawdl("-q", "-w", text, url).stdout.decode() == "\x1b]0;x\x07\x1b[2J\x9b \x7f"
        assert rawdl.on_terminal("-q", "-w", f"{text}\\n", url) == (0, r"\x1b]0;x\x07\x1b[2J\x9b \x7f" + "\r\n")
        written = rawdl.on_terminal("-q", "-w", "%{json}", url)[1]
        assert written.isprintable() and json.loads(written)["content_type"] == "\x7f"

    def test_a_file_that_is_skipped_is_no_download(self, rawdl: Command) -> None:
        (rawdl.folder / "a").write_bytes(BODY)
        outcome = rawdl("-q", "--skip-existing", "-w", "%{size_download} %{http_code}", "http://h/a")
        assert outcome == (0, b"0 000", "")

    def test_the_variables_of_a_download(self, rawdl: Command, origin: Origin) -> None:
        origin.serve("/f", Script(body=BODY, header=(("Content-Type", "text/x"), ("X-A", "1"))))
        url = origin.serve("/a", redirect("/f"))
        text = "%{http_code} %{size_download} %{num_redirects} %{url_effective} %{filename_effective} %{content_type} "
        outcome = rawdl("-q", "-w", text + "%header{x-a} %header{none}%%\\t%{scheme} %{exitcode}\\n", url)
        assert outcome.stdout.decode() == f"200 {len(BODY)} 1 {origin.url('/f')} a text/x 1 %\thttp 0\n"

    def test_the_times_follow_one_another(self, rawdl: Command, tls_origin: Origin) -> None:
        url = tls_origin.serve("/a", Script(body=BODY, head_delay=0.05)).replace("127.0.0.1", "localhost")
        names = ["namelookup", "connect", "appconnect", "pretransfer", "starttransfer", "total"]
        text = " ".join(f"%{{time_{name}}}" for name in names)
        times = [float(each) for each in rawdl("-q", "-k", "-4", "-w", text, url).stdout.split()]
        assert times == sorted(times) and times[0] > 0 and times[4] - times[3] > 0.04

    def test_json_has_all_of_them(self, rawdl: Command, origin: Origin) -> None:
        outcome = rawdl("-q", "-w", "%{json}\\n", origin.serve("/a", Script(body=BODY)), origin.url("/none"))
        found = {values["urlnum"]: values for values in map(json.loads, outcome.stdout.splitlines())}
        assert all(values.keys() == set(NAMES) for values in found.values())
        assert (found[0]["size_download"], found[0]["errormsg"], found[0]["remote_ip"]) == (len(BODY), "", "127.0.0.1")
        assert (found[1]["http_code"], found[1]["exitcode"], outcome.code) == (404, 22, 22)
        assert "404" in found[1]["errormsg"]

    def test_of_a_failure_too(self, rawdl: Command) -> None:
        outcome = rawdl("-q", "-w", "%{http_code} %{exitcode} %{time_total}", "http://127.0.0.1:1/", "--retries", "0")
        assert (outcome.stdout, outcome.code) == (b"000 7 0.000000", 7)

    def test_behind_the_body(self, rawdl: Command, origin: Origin) -> None:
        assert rawdl("-q", "-o", "-", "-w", "!", origin.serve("/a", Script(body=b"x"))).stdout == b"x!"

    def test_a_variable_that_there_is_not(self, rawdl: Command) -> None:
        outcome = rawdl("-w", "%{time}", "http://h/")
        assert (outcome.code, "no variable time" in outcome.complaint) == (2, True)

    @pytest.mark.parametrize("text", ["%", "100%", "%{", "\\", "\\x", "%%{json}"])
    def test_what_is_no_variable_stands_for_itself(self, rawdl: Command, origin: Origin, text: str) -> None:
        outcome = rawdl("-q", "-w", text, origin.serve("/a", Script(body=b"x")))
        assert outcome.stdout.decode() == text.replace("%%", "%")
