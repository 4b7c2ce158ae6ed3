"""``rawdl replay``: recorded responses, what they amount to, and the command that shows it again."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from rawdl.cli import replay
from rawdl.cli.compare import COMPLETE, INCOMPLETE, REJECTED, Outcome, by_http_client, by_llhttp, differences
from rawdl.cli.replay import How, Reading, pieces, reproduction
from rawdl.proto import DataReceived, Limits
from tests.cli.conftest import GUARD, Command, Outcome as Ended

pytestmark = pytest.mark.one_version

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nDigest: x\r\n\r\n"
BAD_CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX"
UNTIL_CLOSE = b"HTTP/1.0 200 OK\r\n\r\nhello"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + PLAIN
SPLITS = ("whole", "bytes", "3", "random:0", "random:12")


def put(rawdl: Command, data: bytes, name: str = "a") -> str:
    (rawdl.folder / name).write_bytes(data)
    return name


def told(ended: Ended) -> list[dict[str, object]]:
    return [json.loads(line) for line in ended.stdout.splitlines()]


class TestOutcomes:
    @pytest.mark.parametrize(
        ("data", "options", "code", "verdict"),
        [
            (PLAIN, [], 0, "complete, 200, 5 bytes"),
            (PLAIN + b"more", ["--eof", "none"], 0, "complete, 200, 5 bytes"),
            (CHUNKED, ["--eof", "abrupt"], 0, "complete, 200, 5 bytes"),
            (INTERIM, [], 0, "complete, 200, 5 bytes"),
            (PLAIN[:-5], ["--method", "HEAD"], 0, "complete, 200, 0 bytes"),
            (UNTIL_CLOSE, [], 0, "complete, 200, 5 bytes"),
            (UNTIL_CLOSE, ["--eof", "abrupt"], 18, "incomplete, 200, 5 bytes"),
            (UNTIL_CLOSE, ["--eof", "none"], 18, "incomplete, 200, 5 bytes"),
            (PLAIN[:-2], [], 18, "incomplete, 200, 3 bytes"),
            (PLAIN[:20], [], 18, "incomplete, no status, 0 bytes"),
            (PLAIN[:20], ["--eof", "none"], 18, "incomplete, no status, 0 bytes"),
            (b"", [], 18, "incomplete, no status, 0 bytes"),
            (BAD_CHUNK, [], 8, "rejected, 200, 5 bytes"),
            (b"SSH-2.0-x\r\n", [], 8, "rejected, no status, 0 bytes"),
            (PLAIN, ["--limit", "line=10"], 8, "rejected, no status, 0 bytes"),
            (PLAIN, ["--limit", "body=4"], 63, "too large, no status, 0 bytes"),
            (UNTIL_CLOSE, ["--limit", "line=99", "--limit", "body=4"], 63, "too large, 200, 4 bytes"),
        ],
    )
    def test_the_status_tells_the_verdict(
        self, rawdl: Command, data: bytes, options: list[str], code: int, verdict: str
    ) -> None:
        ended = rawdl("replay", put(rawdl, data), *options)
        assert (ended.code, ended.stderr) == (code, "")
        assert f"\na: {verdict} of body" in ended.stdout.decode()

    def test_it_shows_every_event(self, rawdl: Command) -> None:
        data = INTERIM.replace(b"Content-Length: 5\r\n\r\nhello", b"") + CHUNKED.partition(b"\r\n")[2] + b"more"
        ended = rawdl("replay", put(rawdl, data))
        digest = sha256(b"hello").hexdigest()
        assert ended.stdout.decode().splitlines() == [
            f"a: {len(data)} bytes, whole, then a clean close",
            "  interim 103",
            "    Link: </a>",
            "  HTTP/1.1 200 OK",
            "    Transfer-Encoding: chunked",
            "  body chunked",
            "  data 5",
            "    Digest: x",
            "  end of 5 bytes, 4 bytes behind it",
            "    no further exchange: bytes came behind the end of the response",
            f"a: complete, 200, 5 bytes of body, SHA-256 {digest}",
        ]

    def test_bytes_are_shown_if_asked_for_and_nothing_acts_on_a_terminal(self, rawdl: Command) -> None:
        evil = "\x1b]0;x\x07\x1b[2J\x9b\x85"
        head = f"HTTP/1.1 200 {evil}\r\nX: {evil}\r\nContent-Length: {len(evil)}\r\n\r\n"
        ended = rawdl("replay", put(rawdl, (head + evil).encode("latin-1")), "--data")
        lines = ended.stdout.decode().splitlines()
        assert ended.code == 0 and all(line.isprintable() for line in lines)
        shown = r"\x1b]0;x\x07\x1b[2J\x9b\x85"
        assert lines[1:3] == [f"  HTTP/1.1 200 {shown}", f"    X: {shown}"] and f"  data {len(evil)}  {shown}" in lines

    def test_the_first_failure_of_several_is_the_status(self, rawdl: Command) -> None:
        names = [put(rawdl, data, str(n)) for n, data in enumerate([PLAIN, PLAIN[:-1], BAD_CHUNK, CHUNKED])]
        assert rawdl("replay", *names).code == 18
        assert rawdl("replay", *reversed(names)).code == 8

    def test_a_file_that_cannot_be_read_is_one_line_and_the_others_are_told_of(self, rawdl: Command) -> None:
        ended = rawdl("replay", "not\x1bhere", put(rawdl, BAD_CHUNK), ".")
        assert ended.code == 2 and b"a: rejected" in ended.stdout
        assert ended.stderr.splitlines() == [
            "rawdl: not\\x1bhere: No such file or directory",
            "rawdl: .: Is a directory",
        ]

    def test_a_recording_may_come_by_standard_input(self, rawdl: Command) -> None:
        with rawdl.start("replay", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            output, _ = process.communicate(PLAIN, GUARD)
        assert process.returncode == 0 and b"-: complete, 200, 5 bytes" in output

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            (["--split", "0"], "0 is not whole, bytes, a number of bytes or random:SEED"),
            (["--split", "random:"], "random: is not whole"),
            (["--split", "-1"], "-1 is not whole"),
            (["--split", "\u0663"], "is not whole"),
            (["--limit", "decoded=1"], "decoded=1 is not NAME=N with a name of head, fields"),
            (["--limit", "body=-1"], "body=-1 is not NAME=N"),
            (["--method", "GE T"], "'GE T' is no method"),
            (["--eof", "maybe"], "invalid choice: 'maybe'"),
            (["--split", "1", "--all-splits"], "not allowed with argument"),
        ],
    )
    def test_what_makes_no_sense_is_wrong_usage(self, rawdl: Command, options: list[str], complaint: str) -> None:
        ended = rawdl("replay", put(rawdl, PLAIN), *options)
        assert ended.code == 2 and complaint in ended.complaint

    def test_a_file_is_asked_for(self, rawdl: Command) -> None:
        ended = rawdl("replay")
        assert ended.code == 2 and "required: FILE" in ended.complaint

    def test_help_fits_80_columns_and_says_that_there_is_one_reading(self, rawdl: Command) -> None:
        lines = rawdl("replay", "--help").stdout.decode().splitlines()
        assert max(map(len, lines)) < 80 and "There is one reading" in " ".join(lines)

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
    def test_output_that_cannot_be_written_is_23(self, rawdl: Command) -> None:
        with (
            open("/dev/full", "wb", buffering=0) as full,
            rawdl.start("replay", put(rawdl, PLAIN), stdout=full, stderr=subprocess.PIPE) as process,
        ):
            _, complaint = process.communicate(timeout=GUARD)
        assert process.returncode == 23 and complaint.startswith(b"rawdl: ") and complaint.count(b"\n") == 1

    def test_a_reader_that_goes_away_ends_it_in_silence(self, rawdl: Command) -> None:
        name = put(rawdl, UNTIL_CLOSE + b"x" * 1_000_000)
        with rawdl.start("replay", name, "--split", "9", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(GUARD) == 23


class TestJson:
    def test_each_event_is_an_object(self, rawdl: Command) -> None:
        ended = rawdl("replay", "--json", "--data", put(rawdl, CHUNKED), "--split", "bytes")
        begin, head, *data, end, outcome = told(ended)
        assert begin == {
            "event": "replay",
            "bytes": len(CHUNKED),
            "split": "bytes",
            "eof": "clean",
            "method": "GET",
            "file": "a",
        }
        assert head == {
            "event": "headers",
            "header": {"Transfer-Encoding": "chunked"},
            "statusCode": 200,
            "reason": "OK",
            "httpVersion": "1.1",
            "framing": "chunked",
            "length": None,
            "file": "a",
        }
        assert b"".join(base64.b64decode(event["data"]) for event in data) == b"hello"
        assert [event["length"] for event in data] == [1] * 5
        assert (end["event"], end["dataLength"], end["trailer"]) == ("complete", 5, {"Digest": "x"})
        assert (end["closeReasons"], end["surplus"]) == ([], 0)
        assert outcome == {
            "event": "outcome",
            "verdict": "complete",
            "statusCode": 200,
            "dataLength": 5,
            "sha256": sha256(b"hello").hexdigest(),
            "message": "",
            "exitStatus": 0,
            "file": "a",
        }

    def test_bytes_are_left_out_unless_asked_for(self, rawdl: Command) -> None:
        (event,) = [event for event in told(rawdl("replay", "--json", put(rawdl, INTERIM))) if event["event"] == "data"]
        assert event == {"event": "data", "length": 5, "file": "a"}

    def test_a_failure_comes_with_its_command(self, rawdl: Command) -> None:
        ended = rawdl("replay", "--json", put(rawdl, BAD_CHUNK))
        failed, outcome, again = told(ended)[-3:]
        assert (failed["event"], failed["errMsg"]) == ("failed", "downloadFile:fail protocol error")
        assert (outcome["verdict"], outcome["exitStatus"]) == ("rejected", ended.code)
        assert again == {"event": "reproduction", "command": reproduction("a", How()), "file": "a"}

    def test_it_is_ascii(self, rawdl: Command) -> None:
        data = b"HTTP/1.1 200 \x9b\x7f\r\nContent-Length: 0\r\n\r\n"
        output = rawdl("replay", "--json", put(rawdl, data, "\x1b\u202e")).stdout
        assert all(32 <= octet < 127 for octet in output.replace(b"\n", b""))


class TestReproduction:
    @pytest.mark.parametrize(
        ("name", "how"),
        [
            ("a", How()),
            ('it\'s "one"\n\u202e\u00e9 $HOME', How()),
            ("a b'c", How(split="bytes", eof="abrupt")),
            ("a", How(split="7", method="HEAD", limits=Limits(line=10, body=3))),
            ("a", How(split="random:3", eof="abrupt", limits=Limits(body=3))),
            ("-", How(split="random:4")),
            ("-", How(split="2")),
        ],
    )
    def test_the_last_line_shows_the_same_error(self, rawdl: Command, name: str, how: How) -> None:
        (rawdl.folder / "input").write_bytes(BAD_CHUNK)
        if name != "-":
            put(rawdl, BAD_CHUNK, name)
        options = ["--split", how.split, "--eof", str(how.eof), "--method", how.method]
        for limit in ("line", "body"):
            if getattr(how.limits, limit) != getattr(Limits(), limit):
                options += ["--limit", f"{limit}={getattr(how.limits, limit)}"]
        first = self.shell(rawdl, f"{shlex.join([sys.executable, '-m', 'rawdl', 'replay', name, *options])} < input")
        *_, verdict, command = first.stdout.decode().splitlines()
        assert command == reproduction(name, how) and first.code in (8, 63)
        program, rest = command.split(" ", 1)
        again = self.shell(rawdl, f"{shlex.quote(sys.executable)} {rest} < input")
        reading = Reading(BAD_CHUNK, how)
        assert reading.essence()["verdict"] != COMPLETE
        error = f"{type(reading.error).__module__}.{type(reading.error).__name__}: {reading.error}"
        assert (program, again.code, again.stderr.splitlines()[-1]) == ("python", 1, error)
        assert verdict.endswith(f": {reading.error}")

    def test_silence_is_no_error_there(self, rawdl: Command) -> None:
        ended = rawdl("replay", put(rawdl, PLAIN[:-1]), "--eof", "none")
        command = ended.stdout.decode().splitlines()[-1]
        assert ended.code == 18 and command.endswith("""list(replay(open("a", "rb").read(), eof=None))'""")
        assert rawdl.outcome([sys.executable, *shlex.split(command)[1:]]) == (0, b"", "")

    def test_what_is_complete_needs_none(self, rawdl: Command) -> None:
        assert b"python" not in rawdl("replay", put(rawdl, PLAIN)).stdout

    @staticmethod
    def shell(rawdl: Command, line: str) -> Ended:
        return rawdl.outcome(["/bin/sh", "-c", line])


class TestCuts:
    @pytest.mark.parametrize("split", [*SPLITS, "random:1", "random:99"])
    @pytest.mark.parametrize("size", [0, 1, 2, 5000])
    def test_pieces_are_the_whole_and_never_empty(self, split: str, size: int) -> None:
        data = bytes(n % 251 for n in range(size))
        cut = list(pieces(data, split))
        assert b"".join(cut) == data and all(cut)
        assert cut == list(pieces(data, split))

    def test_seeds_differ(self) -> None:
        cuts = {tuple(map(len, pieces(bytes(5000), f"random:{seed}"))) for seed in range(10)}
        assert len(cuts) == 10

    def test_events_come_as_the_bytes_do(self) -> None:
        sizes = [len(event.data) for event in replay.events(PLAIN, How("2")) if isinstance(event, DataReceived)]
        assert sizes == [2, 2, 1] or sizes == [1, 2, 2]

    @pytest.mark.parametrize("split", SPLITS)
    @pytest.mark.parametrize("eof", ["clean", "abrupt", None])
    @pytest.mark.parametrize(
        "data", [PLAIN, PLAIN + b"x", INTERIM, CHUNKED, BAD_CHUNK, UNTIL_CLOSE, PLAIN[:-1], b"SSH-2.0-x\r\n", b""]
    )
    def test_what_it_amounts_to_does_not_depend_on_the_cut(self, data: bytes, eof: str | None, split: str) -> None:
        for limits in (Limits(), Limits(body=4)):
            how = How(eof=eof, limits=limits)
            assert Reading(data, how._replace(split=split)).essence() == Reading(data, how).essence()

    @pytest.mark.parametrize(("data", "code"), [(CHUNKED, 0), (BAD_CHUNK, 8), (PLAIN[:-1], 18)])
    def test_all_splits_that_agree_are_told_of(self, rawdl: Command, data: bytes, code: int) -> None:
        ended = rawdl("replay", "--all-splits", put(rawdl, data))
        assert ended.code == code and b"a: the same however it is cut\n" in ended.stdout

    @pytest.mark.parametrize("split", ["bytes", "7", "random:0"])
    def test_a_cut_that_disagrees_is_1_and_named(self, rawdl: Command, split: str) -> None:
        sabotage = f"data[:-1] if how.split == {split!r} else data"
        sabotage = f"replay.events = lambda data, how, real=replay.events: real({sabotage}, how)"
        preparation = f"from rawdl.cli import replay; {sabotage}"
        ended = rawdl.after(preparation, "replay", "--all-splits", put(rawdl, UNTIL_CLOSE))
        assert ended.code == 1
        assert f"a: {split} differs from whole in length, sha256" in ended.stdout.decode().splitlines()
        ended = rawdl.after(preparation, "replay", "--all-splits", "--json", "a")
        assert told(ended)[-1]["agree"] is False and ended.code == 1


class TestComparison:
    @pytest.mark.parametrize(
        ("data", "eof", "verdict", "status", "body"),
        [
            (PLAIN, "clean", COMPLETE, 200, b"hello"),
            (PLAIN, None, COMPLETE, 200, b"hello"),
            (PLAIN[:-1], "clean", INCOMPLETE, 200, b"hell"),
            (UNTIL_CLOSE, "clean", COMPLETE, 200, b"hello"),
            (UNTIL_CLOSE, "abrupt", INCOMPLETE, 200, b"hello"),
            (UNTIL_CLOSE, None, INCOMPLETE, 200, b"hello"),
            (CHUNKED, "abrupt", COMPLETE, 200, b"hello"),
            (b"", "clean", INCOMPLETE, None, b""),
            (b"SSH-2.0-x\r\n", "clean", REJECTED, None, b""),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 4611686018427387904\r\n\r\nx", "clean", INCOMPLETE, 200, b"x"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nx", "clean", REJECTED, 200, b""),
        ],
    )
    def test_http_client(self, data: bytes, eof: str | None, verdict: str, status: int | None, body: bytes) -> None:
        outcome = by_http_client(data, "GET", eof)
        assert outcome[:3] == (verdict, status, len(body)) and outcome.sha256 == sha256(body).hexdigest()

    def test_http_client_is_told_of_head(self) -> None:
        assert by_http_client(PLAIN[:-5], "HEAD", None)[:3] == (COMPLETE, 200, 0)

    @pytest.mark.parametrize("split", SPLITS)
    @pytest.mark.parametrize(
        ("data", "eof", "verdict", "status", "body"),
        [
            (PLAIN, None, COMPLETE, 200, b"hello"),
            (PLAIN + b"more", None, COMPLETE, 200, b"hello"),
            (PLAIN * 2, None, COMPLETE, 200, b"hello"),
            (INTERIM, None, COMPLETE, 200, b"hello"),
            (PLAIN[:-1], "clean", INCOMPLETE, 200, b"hell"),
            (UNTIL_CLOSE, "clean", COMPLETE, 200, b"hello"),
            (UNTIL_CLOSE, "abrupt", INCOMPLETE, 200, b"hello"),
            (UNTIL_CLOSE, None, INCOMPLETE, 200, b"hello"),
            (CHUNKED, None, COMPLETE, 200, b"hello"),
            (CHUNKED[:-2], "clean", INCOMPLETE, 200, b"hello"),
            (BAD_CHUNK, "clean", REJECTED, 200, b"hello"),
            (b"", "clean", INCOMPLETE, None, b""),
            (b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "clean", COMPLETE, 101, b""),
        ],
    )
    def test_llhttp(
        self, data: bytes, eof: str | None, verdict: str, status: int | None, body: bytes, split: str
    ) -> None:
        pytest.importorskip("httptools", reason="pip install 'rawdl[compare]'")
        outcome = by_llhttp(pieces(data, split), eof)
        assert outcome[:3] == (verdict, status, len(body)) and outcome.sha256 == sha256(body).hexdigest()

    def test_two_refusals_are_no_difference(self) -> None:
        assert differences(Outcome(REJECTED, None, 0, "a"), Outcome(REJECTED, 200, 5, "b")) == []
        assert differences(Outcome(COMPLETE, 200, 5, "a"), Outcome(COMPLETE, 200, 6, "a", "x")) == ["length"]

    def test_it_says_where_they_differ_and_our_verdict_counts(self, rawdl: Command) -> None:
        ended = rawdl("replay", "--compare", put(rawdl, BAD_CHUNK))
        lines = ended.stdout.decode().splitlines()
        assert ended.code == 8
        assert lines[-4].split()[:4] == ["rawdl", "rejected", "200", "5"]
        assert lines[-3].split()[:2] == ["http.client", "incomplete"] and "DIFFERS in verdict" in lines[-3]
        assert rawdl("replay", "--compare", put(rawdl, PLAIN[:-5]), "--method", "HEAD").code == 0

    def test_in_json(self, rawdl: Command) -> None:
        data = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\n\r\nhi"
        events = told(rawdl("replay", "--compare", "--json", put(rawdl, data)))
        (event,) = [event for event in events if event.get("parser") == "http.client"]
        assert (event["event"], event["verdict"], event["statusCode"]) == ("comparison", "complete", 206)
        assert event["differs"] == ["verdict", "statusCode", "dataLength", "sha256"]

    @pytest.mark.parametrize("form", [[], ["--json"]])
    def test_without_httptools_it_says_how_to_get_it(self, rawdl: Command, form: list[str]) -> None:
        ended = rawdl.after("sys.modules['httptools'] = None", "replay", "--compare", *form, put(rawdl, PLAIN))
        assert ended.code == 0 and b"left out: pip install rawdl[compare] gets it" in ended.stdout

    def test_llhttp_is_not_asked_about_head(self, rawdl: Command) -> None:
        ended = rawdl("replay", "--compare", "--method", "HEAD", put(rawdl, PLAIN[:-5]))
        assert ended.code == 0 and "  llhttp      left out: it has no way" in ended.stdout.decode()


def test_every_seed_of_the_fuzzer_is_read(rawdl: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "fuzz"))
    from fuzz_response import SEEDS

    names = [put(rawdl, seed, str(number)) for number, seed in enumerate(SEEDS)]
    ended = rawdl("replay", "--all-splits", "--json", *names)
    assert ended.stderr == ""
    assert [event["agree"] for event in told(ended) if event["event"] == "splits"] == [True] * len(names)
