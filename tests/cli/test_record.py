"""``rawdl record``: the bytes of a response as they were on the wire, and a replay that comes to the same end."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cli.conftest import GUARD, ROOT, Command, Outcome
from tests.origin import Origin, Script
from tests.readme import Step, steps

pytestmark = pytest.mark.one_version

BODY = bytes(range(256)) * 40
STEPS = steps("Fuzz it")
BAD_CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
OPEN, CLOSED, BROKEN = (
    "the connection was open until the response had been read",
    "the server closed the connection",
    "the server broke the connection off",
)
# Each with the exit status of a download and of a replay, and what is told of the connection.
ENDINGS = {
    "length": (Script(body=BODY), 0, OPEN),
    "chunked": (Script(body=BODY, framing="chunked", chunk=100), 0, OPEN),
    "interim": (Script(body=b"x", informational=(INTERIM,)), 0, OPEN),
    "until the close": (Script(body=BODY, framing="until-close"), 0, CLOSED),
    "closed in the body": (Script(body=BODY, cut_at=300), 18, CLOSED),
    "closed in the head": (Script(body=BODY, cut_at=20), 18, CLOSED),
    "not HTTP": (Script(raw=b"SSH-2.0-x\r\n"), 8, OPEN),
    "a bad chunk": (Script(raw=BAD_CHUNK), 8, OPEN),
}


def record(rawdl: Command, *arguments: str) -> list[str]:
    """Record into the file a, and return the lines that tell of it."""
    ended = rawdl("record", "-o", "a", *arguments)
    assert (ended.code, ended.stderr) == (0, "")
    return ended.stdout.decode().splitlines()


def replayed(rawdl: Command, command: str) -> Outcome:
    """Carry out the command that the last line shows."""
    program, *arguments = shlex.split(command)
    assert program == "rawdl"
    return rawdl(*arguments)


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest) -> tuple[Origin, list[str]]:
    """An origin, and what else the command needs to get there."""
    if request.param == "http":
        return request.getfixturevalue("origin"), []
    return request.getfixturevalue("tls_origin"), ["--cacert", str(request.getfixturevalue("ca_file"))]


@pytest.mark.parametrize("case", ENDINGS)
def test_what_was_on_the_wire_is_in_the_file_and_reads_the_same(
    rawdl: Command, server: tuple[Origin, list[str]], case: str
) -> None:
    (origin, trust), (script, code, end) = server, ENDINGS[case]
    url = origin.serve("/", script)
    summary, ending, command = record(rawdl, url, *trust)
    data = (rawdl.folder / "a").read_bytes()
    assert data == script.wire[: script.cut_at]
    again = replayed(rawdl, command)
    assert again.code == code == rawdl("-q", "--retries", "0", "--no-resume", "-o", "b", url, *trust).code
    assert (command, ending) == ("rawdl replay a", f"a: {end}")
    verdict = summary.removeprefix(f"a: {len(data)} bytes; ")
    assert f"a: {verdict}" in again.stdout.decode().splitlines()


@pytest.mark.parametrize("framing", ["content-length", "until-close"])
def test_a_connection_that_breaks_is_replayed_as_one(
    rawdl: Command, server: tuple[Origin, list[str]], framing: str
) -> None:
    origin, trust = server
    # Over plain http what an RST overtakes is lost, so the bytes are given time to arrive.
    script = Script(body=BODY, framing=framing, cut_at=2000, cut="rst", stall_at=1999, stall_for=0.5)
    url = origin.serve("/", script)
    _, ending, command = record(rawdl, url, *trust)
    data = (rawdl.folder / "a").read_bytes()
    assert data and script.wire.startswith(data)
    assert (ending, command) == (f"a: {BROKEN}", "rawdl replay --eof abrupt a")
    assert replayed(rawdl, command).code == 18
    assert rawdl("-q", "--retries", "0", "--no-resume", "-o", "b", url, *trust).code == 18


def test_over_tls_a_close_without_notice_is_no_end(rawdl: Command, tls_origin: Origin, ca_file: Path) -> None:
    url = tls_origin.serve("/", Script(body=BODY, framing="until-close", close_notify=False))
    summary, ending, command = record(rawdl, url, "--cacert", str(ca_file))
    assert "; incomplete, 200, 10240 bytes" in summary
    assert (ending, command) == (f"a: {BROKEN}", "rawdl replay --eof abrupt a")
    assert replayed(rawdl, command).code == 18


def test_silence_is_recorded_as_such(rawdl: Command, server: tuple[Origin, list[str]]) -> None:
    origin, trust = server
    url = origin.serve("/", Script(body=BODY, stall_at=300))
    summary, ending, command = record(rawdl, url, *trust, "--timeout", "1")
    assert "; incomplete, 200, " in summary and ending.startswith("a: the server fell silent: ")
    assert command == "rawdl replay --eof none a" and replayed(rawdl, command).code == 18


def test_a_large_body_is_cut(rawdl: Command, server: tuple[Origin, list[str]]) -> None:
    origin, trust = server
    script = Script(body=BODY * 1000)
    summary, ending, command = record(rawdl, origin.serve("/", script), *trust, "--max-size", "1K")
    assert (rawdl.folder / "a").read_bytes() == script.wire[:1024]
    assert "a: 1024 bytes; incomplete" in summary and ending == "a: there was more: --max-size lets it in"
    assert command == "rawdl replay --eof none a" and replayed(rawdl, command).code == 18


def test_what_just_fits_is_not_cut(rawdl: Command, server: tuple[Origin, list[str]]) -> None:
    origin, trust = server
    script = Script(body=BODY)
    summary, *_ = record(rawdl, origin.serve("/", script), *trust, "--max-size", str(len(script.wire)))
    assert "; complete, 200" in summary and (rawdl.folder / "a").read_bytes() == script.wire


def test_no_redirect_is_followed_and_a_refusal_is_a_response(rawdl: Command, origin: Origin) -> None:
    elsewhere = origin.serve("/b", Script(body=b"b"))
    url = origin.serve("/a", Script(status=302, reason="Found", header=(("Location", elsewhere),)))
    assert "; complete, 302" in record(rawdl, url)[0]
    assert [request.target for request in origin.requests] == ["/a"]
    assert "; complete, 503" in record(rawdl, "--overwrite", origin.serve("/c", Script(status=503)))[0]
    assert [request.target for request in origin.requests] == ["/a", "/c"]


def test_what_a_failure_leads_to_is_not_recorded(rawdl: Command, origin: Origin) -> None:
    """A response whose body never begins has us ask for the description that it names (RFC 6249 4)."""
    metalink = origin.serve("/m", Script(body=b"<metalink/>", framing="until-close"))
    script = Script(body=b"x", header=(("Link", f'<{metalink}>; rel=describedby; type="application/metalink4+xml"'),))
    record(rawdl, origin.serve("/a", replace(script, cut_at=script.body_at)))
    assert [request.target for request in origin.requests] == ["/a", "/m"]
    assert (rawdl.folder / "a").read_bytes() == script.head


def test_the_request_has_the_fields_that_are_given(rawdl: Command, origin: Origin) -> None:
    record(rawdl, "-H", "X-Token: 1", "-H", "User-Agent:", origin.serve("/", Script(body=b"x")))
    assert origin.requests[0].field("x-token") == "1" and origin.requests[0].field("user-agent") is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process cannot change its command line")
def test_A9_a_secret_does_not_stay_in_the_list_of_processes(rawdl: Command, origin: Origin) -> None:
    url = origin.serve("/a?X-Amz-Signature=canary", Script(body=b"x", stall_at=0))
    with rawdl.start("record", "-o", "a", "-H", "X-Token: canary", url.replace("//", "//user:canary@")) as process:
        origin.wait_request()
        shown = Path(f"/proc/{process.pid}/cmdline").read_text()
        process.terminate()
    assert "canary" not in shown and "******" in shown


def test_a_field_that_is_none_is_not_sent(rawdl: Command, origin: Origin) -> None:
    ended = rawdl("record", "-o", "a", "-H", "a b: c", origin.url("/"))
    assert ended.code == 2 and ended.complaint.startswith("rawdl: -H: ") and not origin.requests


def test_the_request_goes_by_no_proxy(rawdl: Command, origin: Origin) -> None:
    rawdl.environment |= {"http_proxy": "http://127.0.0.1:1", "no_proxy": ""}
    record(rawdl, origin.serve("/", Script(body=b"x")))


class TestFailures:
    def test_a_file_that_is_there_is_kept_and_nobody_asked(self, rawdl: Command, origin: Origin) -> None:
        (rawdl.folder / "a").write_bytes(b"mine")
        ended = rawdl("record", "-o", "a", origin.serve("/", Script(body=b"x")))
        assert (ended.code, ended.complaint) == (23, "rawdl: a is there already: --overwrite replaces it")
        assert (rawdl.folder / "a").read_bytes() == b"mine" and not origin.requests
        record(rawdl, "--overwrite", origin.url("/"))
        assert (rawdl.folder / "a").read_bytes() == Script(body=b"x").wire

    def test_a_link_to_nowhere_is_there_too(self, rawdl: Command, origin: Origin) -> None:
        os.symlink("elsewhere", rawdl.folder / "a")
        assert rawdl("record", "-o", "a", origin.url("/")).code == 23

    def test_without_a_byte_there_is_no_file(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/", Script(body=b"x", cut_at=0))
        ended = rawdl("record", "-o", "a", url)
        assert ended.code == 18 and ended.complaint.startswith(f"rawdl: {url}: ") and rawdl.files() == []

    def test_nobody_there(self, rawdl: Command) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        ended = rawdl("record", "-o", "a", f"http://joe:secret@127.0.0.1:{port}/")
        assert ended.code == 7 and "secret" not in ended.complaint and rawdl.files() == []

    def test_a_server_that_is_not_trusted(self, rawdl: Command, tls_origin: Origin) -> None:
        url = tls_origin.serve("/", Script(body=b"x"))
        assert rawdl("record", "-o", "a", url).code == 60 and rawdl.files() == []
        ended = rawdl("record", "-k", "-o", "a", url)
        assert ended.code == 0 and "certificates are not verified" in ended.stderr

    def test_a_file_of_certificates_that_is_none(self, rawdl: Command, tls_origin: Origin) -> None:
        (rawdl.folder / "ca").write_bytes(b"x")
        assert rawdl("record", "--cacert", "ca", "-o", "a", tls_origin.url("/")).code == 77

    def test_a_folder_that_is_not_there(self, rawdl: Command, origin: Origin) -> None:
        ended = rawdl("record", "-o", "b/a", origin.serve("/", Script(body=b"x")))
        assert (ended.code, ended.complaint) == (23, "rawdl: cannot write b/a: No such file or directory")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
    def test_a_full_disk(self, rawdl: Command, origin: Origin) -> None:
        ended = rawdl("record", "--overwrite", "-o", "/dev/full", origin.serve("/", Script(body=b"x")))
        assert (ended.code, ended.complaint) == (23, "rawdl: cannot write /dev/full: No space left on device")

    @pytest.mark.parametrize(
        ("arguments", "code", "complaint"),
        [
            (["http://h/"], 2, "required: -o"),
            (["-o", "a"], 2, "required: URL"),
            (["-o", "-", "http://h/"], 2, "-o: a recording goes into a file"),
            (["-o", "a", "--max-size", "0", "http://h/"], 2, "0 is not a size"),
            (["-o", "a", "ftp://h/"], 3, "ftp"),
        ],
    )
    def test_what_makes_no_sense(self, rawdl: Command, arguments: list[str], code: int, complaint: str) -> None:
        ended = rawdl("record", *arguments)
        assert ended.code == code and complaint in ended.complaint and rawdl.files() == []

    def test_an_interrupt_leaves_nothing(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/", Script(body=BODY, stall_at=300))
        with rawdl.start("record", "-o", "a", url, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            origin.wait_request()
            process.send_signal(signal.SIGINT)
            output, complaint = process.communicate(timeout=GUARD)
        assert (process.returncode, output, complaint) == (130, b"", b"rawdl: interrupted\n") and rawdl.files() == []


def test_help_fits_80_columns(rawdl: Command) -> None:
    lines = rawdl("record", "--help").stdout.decode().splitlines()
    assert max(map(len, lines)) < 80


def test_the_readme_goes_from_a_server_to_a_reproduction(rawdl: Command, origin: Origin) -> None:
    (rawdl.folder / "fuzz").symlink_to(ROOT / "fuzz")
    url = origin.serve("/", Script(body=b"hello, world"))
    assert len(STEPS) == 5
    for step in STEPS:
        ended = rawdl.shell(f"{{ {step.command.replace('http://example.org/', url)}; }} 2>&1")
        printed = ended.stdout.decode().splitlines(keepends=True)
        if find_spec("httptools") is None:
            step = Step(step.command, [line for line in step.printed if "llhttp" not in line])
            printed = [line for line in printed if "llhttp" not in line]
        assert re.fullmatch(step.pattern, "".join(printed)), (step, printed)
