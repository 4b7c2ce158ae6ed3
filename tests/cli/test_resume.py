"""Downloads that are interrupted: what the command tries again, keeps, and goes on with."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.cli.conftest import GUARD, Command, screen, wait_for_event
from tests.origin import Origin, Script
from tests.resource import Fault, Resource

pytestmark = pytest.mark.one_version

BODY = b"".join(n.to_bytes(4, "big") for n in range(1 << 18))  # 1 MiB, no two words of it the same
CUT = 500_000
AGAIN = f"bytes={CUT - 4096}-"  # the last of what is there is compared
CUT_ONCE = Fault(in_body=CUT)
ONE_TRY = ("--retries", "0")


def interrupted(rawdl: Command, resource: Resource, url: str) -> None:
    """Have one run of the command broken off in the middle."""
    resource.faults = [CUT_ONCE]
    assert rawdl("-q", *ONE_TRY, url).code == 18
    assert rawdl.files() == ["a.part", "a.part.json"]


def stopped(rawdl: Command, number: int, *arguments: str) -> tuple[int, str]:
    """Send a signal once there is something of a body; return the status and what standard error got."""
    with rawdl.start("--json", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for_event(process, "progress")
        process.send_signal(number)
        complaint = process.communicate(timeout=GUARD)[1]
        return process.returncode, complaint.decode()


class TestRetries:
    def test_a_broken_connection_is_gone_on_from(self, rawdl: Command, origin: Origin) -> None:
        resource = Resource(BODY, faults=[CUT_ONCE, Fault(in_body=CUT // 2, kind="rst")])
        outcome = rawdl(origin.serve("/a", resource))
        assert outcome.code == 0 and "resumed" not in outcome.stderr  # by this command all of it was downloaded
        assert resource.ranges_asked[:2] == [None, AGAIN] and len(resource.log) == 3
        assert (rawdl.folder / "a").read_bytes() == BODY and rawdl.files() == ["a"]

    def test_a_server_that_is_busy_is_asked_again(self, rawdl: Command, origin: Origin) -> None:
        outcome = rawdl("--retries", "1", origin.serve("/a", Resource(BODY, status_first=[503])))
        assert outcome.code == 0 and len(origin.requests) == 2

    @pytest.mark.contract("S40")
    @pytest.mark.parametrize("retries", [0, 1, 2])
    def test_S40_retries_counts_repeats(self, rawdl: Command, origin: Origin, retries: int) -> None:
        url = origin.serve("/a", Script(status=503))
        outcome = rawdl("--retries", str(retries), url)
        assert (outcome.code, outcome.complaint) == (22, f"rawdl: {url}: the server answered 503")
        assert len(origin.requests) == retries + 1

    def test_what_cannot_get_better_is_not_tried_again(self, rawdl: Command, origin: Origin) -> None:
        assert rawdl(origin.serve("/a", Script(raw=b"220 ready\r\n\r\n", keep_alive=False))).code == 8
        assert len(origin.requests) == 1

    def test_standard_output_is_gone_on_with(self, rawdl: Command, origin: Origin) -> None:
        outcome = rawdl("-q", "-o", "-", origin.serve("/a", Resource(BODY, faults=[CUT_ONCE])))
        assert outcome == (0, BODY, "")

    def test_standard_output_never_has_anything_twice(self, rawdl: Command, origin: Origin) -> None:
        outcome = rawdl("-q", "-o", "-", origin.serve("/a", Resource(BODY, faults=[CUT_ONCE], ranges="ignore")))
        assert (outcome.code, outcome.stdout) == (33, BODY[:CUT])

    def test_standard_output_does_not_begin_anew(self, rawdl: Command, origin: Origin) -> None:
        outcome = rawdl("-q", "-o", "-", origin.serve("/a", Resource(BODY, faults=[CUT_ONCE], etag=None, date=None)))
        assert (outcome.code, outcome.stdout) == (18, BODY[:CUT])

    def test_the_terminal_shows_how_far_it_is_meanwhile(self, rawdl: Command, origin: Origin) -> None:
        busy = Script(status=503, header=(("Retry-After", "1"),))  # seconds: some redraws
        resource = Resource(BODY, faults=[CUT_ONCE])
        answers = iter([resource, busy, resource])
        url = origin.serve("/a", lambda request: _answer(next(answers), request))
        code, written = rawdl.on_terminal("--progress=line", url)
        assert code == 0 and "\ra   47 %  0.5 of 1.0 MiB  connecting\x1b[K" in written
        assert screen(written)[0].startswith("a  1.0 MiB in ")


class TestResume:
    def test_the_same_command_goes_on(self, rawdl: Command, origin: Origin) -> None:
        resource = Resource(BODY, faults=[CUT_ONCE])
        url = origin.serve("/a", resource)
        failed = rawdl(*ONE_TRY, url)
        assert failed.code == 18
        assert failed.complaint.endswith("; a.part is kept: the same command goes on from there")
        outcome = rawdl(*ONE_TRY, url)
        assert outcome.code == 0 and outcome.stderr.endswith("/s  (resumed from 488.3 KiB)\n")
        assert resource.ranges_asked == [None, AGAIN]
        assert (rawdl.folder / "a").read_bytes() == BODY and rawdl.files() == ["a"]

    def test_in_another_folder_too(self, rawdl: Command, origin: Origin) -> None:
        resource = Resource(BODY, faults=[CUT_ONCE])
        command = (*ONE_TRY, "-d", "d", "-o", "b", origin.serve("/a", resource))
        assert "; b.part is kept: " in rawdl(*command).complaint
        assert rawdl(*command).code == 0
        assert (rawdl.folder / "d/b").read_bytes() == BODY and len(resource.log) == 2

    @pytest.mark.contract("T47")
    @pytest.mark.parametrize("flags", [[], ["-c"]])
    def test_T47_a_killed_command_loses_little(self, rawdl: Command, origin: Origin, flags: list[str]) -> None:
        # Slow enough for a journal to be written, and far from its end when that is there.
        body = BODY * 8
        resource = Resource(body, like=Script(pace=1e6))
        url = origin.serve("/a", resource)
        with rawdl.start("--json", *flags, url, stdout=subprocess.PIPE) as process:
            while not (rawdl.folder / "a.part.json").exists():
                assert process.stdout.readline()  # one event after the other
            process.kill()
        assert process.returncode == -signal.SIGKILL and rawdl.files() == ["a.part", "a.part.json"]
        resource.like = Script()
        outcome = rawdl(*flags, url)
        assert outcome.code == 0 and "  (resumed from " in outcome.stderr
        assert (rawdl.folder / "a").read_bytes() == body and rawdl.files() == ["a"]
        first, second = resource.log
        assert first.sent + second.sent < len(body) * 1.5

    def test_a_file_that_is_whole_already_costs_one_question(self, rawdl: Command, origin: Origin) -> None:
        resource = Resource(BODY, framing="chunked", faults=[Fault(in_body=len(BODY))])
        url = origin.serve("/a", resource)
        assert rawdl("-q", *ONE_TRY, url).code == 18  # the last chunk is missing
        resource.ranges = "416"
        outcome = rawdl(*ONE_TRY, url)
        assert (outcome.code, outcome.stderr) == (0, "a  1.0 MiB  (resumed from 1.0 MiB)\n")
        assert (rawdl.folder / "a").read_bytes() == BODY

    @pytest.mark.contract("T48")
    def test_T48_another_version_is_downloaded_anew(self, rawdl: Command, origin: Origin) -> None:
        resource = Resource(BODY)
        url = origin.serve("/a", resource)
        interrupted(rawdl, resource, url)
        resource.change(BODY[::-1], '"v2"')
        outcome = rawdl(url)
        assert outcome.code == 0 and "resumed" not in outcome.stderr
        assert (rawdl.folder / "a").read_bytes() == BODY[::-1]

    def test_the_bytes_that_were_there_are_no_speed(self, rawdl: Command, origin: Origin) -> None:
        body = BODY * 8
        resource = Resource(body, faults=[Fault(in_body=len(body) - 300_000)])
        url = origin.serve("/a", resource)
        assert rawdl("-q", *ONE_TRY, url).code == 18
        resource.like = Script(pace=5e5)
        code, written = rawdl.on_terminal(url)
        assert code == 0 and "/s  ETA" in written and "/s  (resumed from 7.7 MiB)" in written
        assert not re.search(r"\d\d\.\d MiB/s", written)

    @pytest.mark.contract("S32")
    def test_S32_continue_goes_on(self, rawdl: Command, origin: Origin) -> None:
        resource = Resource(BODY)
        url = origin.serve("/a", resource)
        interrupted(rawdl, resource, url)
        outcome = rawdl("-c", url)
        assert outcome.code == 0 and "(resumed from 488.3 KiB)" in outcome.stderr
        assert (rawdl.folder / "a").read_bytes() == BODY

    @pytest.mark.contract("S32")
    def test_S32_continue_begins_where_nothing_is_there(self, rawdl: Command, origin: Origin) -> None:
        assert rawdl("-q", "--continue", origin.serve("/a", Resource(BODY))).code == 0
        assert (rawdl.folder / "a").read_bytes() == BODY

    @pytest.mark.usefixtures("leaves_parts")
    @pytest.mark.contract("S32")
    @pytest.mark.parametrize("change", ["version", "ignored", "url"])
    def test_S32_continue_fails_and_keeps_what_is_there(self, rawdl: Command, origin: Origin, change: str) -> None:
        resource = Resource(BODY)
        url = origin.serve("/a", resource)
        interrupted(rawdl, resource, url)
        part = (rawdl.folder / "a.part").read_bytes()
        if change == "version":
            resource.change(BODY[::-1], '"v2"')
        elif change == "ignored":
            resource.ranges = "ignore"
        else:
            url = f"{url}?b"
        outcome = rawdl("-c", url)
        assert outcome.code == 33 and not outcome.complaint.endswith("from there")
        assert rawdl.files() == ["a.part", "a.part.json"] and (rawdl.folder / "a.part").read_bytes() == part

    def test_no_resume_begins_anew(self, rawdl: Command, origin: Origin) -> None:
        resource = Resource(BODY)
        url = origin.serve("/a", resource)
        interrupted(rawdl, resource, url)
        assert rawdl("-q", "--no-resume", url).code == 0
        assert resource.ranges_asked == [None, None]
        assert (rawdl.folder / "a").read_bytes() == BODY and rawdl.files() == ["a"]

    def test_no_resume_keeps_nothing(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Resource(BODY, faults=[CUT_ONCE]))
        outcome = rawdl("--no-resume", *ONE_TRY, url)
        assert outcome.code == 18 and "kept" not in outcome.complaint
        assert rawdl.files() == []

    @pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
    @pytest.mark.parametrize("flags", [[], ["-c"]])
    def test_after_a_signal(self, rawdl: Command, origin: Origin, number: int, word: str, flags: list[str]) -> None:
        resource = Resource(BODY, faults=[Fault(in_body=CUT, kind="stall")])
        url = origin.serve("/a", resource)
        code, complaint = stopped(rawdl, number, *flags, url)
        assert code == 128 + number
        assert complaint == f"rawdl: {word}; a.part is kept: the same command goes on from there\n"
        assert rawdl.files() == ["a.part", "a.part.json"]
        assert "(resumed from " in rawdl(*flags, url).stderr
        assert (rawdl.folder / "a").read_bytes() == BODY

    def test_no_resume_keeps_nothing_after_a_signal(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Resource(BODY, faults=[Fault(in_body=CUT, kind="stall")]))
        assert stopped(rawdl, signal.SIGINT, "--no-resume", url) == (130, "rawdl: interrupted\n")
        assert rawdl.files() == []


@pytest.mark.usefixtures("leaves_parts")
class TestWhatIsKept:
    """The line of a failure promises no more than is true."""

    @pytest.fixture
    def resource(self, rawdl: Command, origin: Origin) -> Iterator[Resource]:
        """Serve as /a what a first run has left a part of."""
        resource = Resource(BODY)
        interrupted(rawdl, resource, origin.serve("/a", resource))
        return resource

    def test_while_the_server_fails(self, rawdl: Command, origin: Origin, resource: Resource) -> None:
        resource.status_first = [500]
        assert rawdl(*ONE_TRY, origin.url("/a")).complaint.endswith(
            "; a.part is kept: the same command goes on from there"
        )

    def test_not_of_what_another_process_writes(self, rawdl: Command, origin: Origin, resource: Resource) -> None:
        resource.faults = [Fault(in_body=1000, kind="stall")]
        with rawdl.start("--json", origin.url("/a"), stdout=subprocess.PIPE) as process:
            wait_for_event(process, "headers")
            outcome = rawdl(origin.url("/a"))
            process.kill()
            process.stdout.close()
        assert outcome.code == 23 and "in use" in outcome.complaint and "kept" not in outcome.complaint

    def test_not_where_the_file_is_in_the_way(self, rawdl: Command, origin: Origin, resource: Resource) -> None:
        (rawdl.folder / "a").touch()
        assert rawdl("--no-clobber", origin.url("/a")).complaint.endswith("exists already")

    def test_not_of_another_url(self, rawdl: Command, origin: Origin, resource: Resource) -> None:
        assert "kept" not in rawdl("-o", "a", origin.url("/404")).complaint

    def test_not_without_a_validator(self, rawdl: Command, origin: Origin, resource: Resource) -> None:
        resource.change(BODY[::-1], 'W/"v2"')
        resource.faults = [CUT_ONCE]
        assert "kept" not in rawdl(*ONE_TRY, origin.url("/a")).complaint
        assert rawdl.files() == []


def _answer(answer: Resource | Script, request: object) -> Script:
    return answer(request) if callable(answer) else answer
