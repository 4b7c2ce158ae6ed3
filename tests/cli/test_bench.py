"""``rawdl bench``: what it measures, writes and returns, as a process of its own against an origin of its own."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rawdl.cli.bench.page import page
from tests.cli.conftest import GUARD, Command
from tests.origin import Origin, Script
from tests.resource import Resource

pytestmark = pytest.mark.one_version

SMALL = ("--size", "10K")
SCHEMA = json.loads(resources.files("rawdl.cli.bench").joinpath("report.schema.json").read_text("utf-8"))


def checked(text: str) -> dict[str, Any]:
    """Read a document, and hold it against its schema and itself."""
    document: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(f"JSON has no {name}"))
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    totals, samples = document["totals"], document["samples"]
    good = [sample for sample in samples if sample["error"] is None]
    assert totals["transfers"] == len(samples) and totals["succeeded"] == len(good)
    assert totals["failed"] == len(samples) - len(good) == sum(each["count"] for each in document["failures"])
    assert totals["bytes"] == sum(interval["bytes"] for interval in document["intervals"])
    assert sum(bin["count"] for bin in document["histogram"]) == len(good)
    assert document["stable"] or document["warnings"]
    return document


def measured(rawdl: Command, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Run it, and return its document."""
    outcome = rawdl("bench", "--json", "-", *arguments)
    assert outcome.code == code, outcome.stderr
    return checked(outcome.stdout.decode())


def test_the_schema_is_one_and_is_printed(rawdl: Command) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    outcome = rawdl("bench", "--schema")
    assert (outcome.code, outcome.stderr) == (0, "") and json.loads(outcome.stdout) == SCHEMA


class TestWhatIsMeasured:
    def test_so_many_transfers_over_one_connection(self, rawdl: Command) -> None:
        document = measured(rawdl, "-n", "20", *SMALL)
        assert document["totals"]["succeeded"] == 20 and document["totals"]["bytes"] == 20 * 10240
        assert [sample["reused"] for sample in document["samples"]] == [False] + [True] * 19
        assert document["phases"]["connect"]["count"] == 1 and document["phases"]["total"]["count"] == 20
        assert document["phases"]["tls"] is document["phases"]["wait"] is None
        assert document["settings"]["duration"] is None and document["system"]["wake_ups"] >= 20
        assert rawdl.files() == []

    def test_so_many_seconds_in_intervals(self, rawdl: Command) -> None:
        document = measured(rawdl, "-t", "0.5", "--interval", "0.1", *SMALL)
        assert document["totals"]["seconds"] >= 0.5 and len(document["intervals"]) >= 2
        edges = [(each["start"], each["end"]) for each in document["intervals"]]
        assert edges[0][0] == 0 and all(before[1] == after[0] for before, after in pairwise(edges))
        assert edges[-1][1] == document["totals"]["seconds"]

    def test_several_at_a_time(self, rawdl: Command) -> None:
        document = measured(rawdl, "-n", "30", "-c", "5", *SMALL)
        assert document["totals"]["succeeded"] == 30
        assert 1 <= document["phases"]["connect"]["count"] <= 5

    def test_a_rate(self, rawdl: Command) -> None:
        document = measured(rawdl, "-n", "20", "--rate", "200", *SMALL)
        intended = sorted(sample["intended"] for sample in document["samples"])
        assert intended == pytest.approx([at / 200 for at in range(20)], abs=1e-6)
        assert all(sample["started"] >= sample["intended"] for sample in document["samples"])
        assert document["phases"]["wait"]["count"] == 20

    def test_warm_up_and_omit_leave_out(self, rawdl: Command) -> None:
        document = measured(rawdl, "-n", "5", "--warm-up", "3", *SMALL)
        assert (document["totals"]["transfers"], document["totals"]["omitted"]) == (5, 3)
        assert document["phases"]["connect"] is None
        document = measured(rawdl, "-n", "5", "--omit", "0.1", *SMALL)
        assert document["totals"]["transfers"] == 5 and document["totals"]["omitted"] >= 1

    def test_without_keep_alive_each_connects(self, rawdl: Command) -> None:
        document = measured(rawdl, "-n", "5", "--no-keep-alive", "--tls", *SMALL)
        assert document["phases"]["connect"]["count"] == document["phases"]["tls"]["count"] == 5
        assert not any(sample["reused"] for sample in document["samples"])

    @pytest.mark.parametrize("sink", ["null", "memory", "file", "hash"])
    @pytest.mark.parametrize("kind", [[], ["--chunked"], ["--tls"], ["--tls", "--chunked"]], ids="".join)
    def test_every_sink_and_kind_of_origin(self, rawdl: Command, sink: str, kind: list[str]) -> None:
        document = measured(rawdl, "-n", "3", "--size", "3M", "--sink", sink, *kind)
        assert document["totals"]["succeeded"] == 3 and document["totals"]["bytes"] == 3 * (3 << 20)
        assert document["settings"]["sink"] == sink and rawdl.files() == []
        assert (document["phases"]["tls"] is not None) == ("--tls" in kind)

    def test_several_connections_for_each(self, rawdl: Command, origin: Origin) -> None:
        body = b"x" * (4 << 20)
        url = origin.serve("/a", Resource(body, like=Script(pace=10_000_000)))  # so slow that it is worth sharing
        document = measured(rawdl, "-n", "2", "-x", "4", "--sink", "file", url)
        assert document["totals"]["bytes"] == 2 * len(body)
        assert any(request.field("range") for request in origin.requests)

    def test_several_connections_to_its_own_origin(self, rawdl: Command) -> None:
        document = measured(rawdl, "-n", "3", "-x", "4", "--sink", "file", "--size", "8M")
        assert document["totals"]["bytes"] == 3 * (8 << 20)

    def test_without_trustme_it_says_how_to_get_it(self, rawdl: Command) -> None:
        outcome = rawdl.after("sys.modules['trustme'] = None", "bench", "--tls")
        assert outcome.code == 2 and "pip install rawdl[demo]" in outcome.complaint


class TestAGivenURL:
    def test_is_asked_with_header_fields(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(body=b"x" * 100))
        document = measured(rawdl, "-n", "3", "-H", "X-Key: 1", url)
        assert document["settings"]["url"] == url and document["settings"]["origin"] == "given"
        assert [request.field("x-key") for request in origin.requests] == ["1"] * 3

    def test_shows_no_secret(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(body=b"x")).replace("://", "://me:canary@") + "?token=canary"
        origin.serve("/a?token=canary", Script(body=b"x"))
        outcome = rawdl("bench", "-n", "1", "--json", "-", url)
        checked(outcome.stdout.decode())
        assert outcome.code == 0 and b"canary" not in outcome.stdout and "canary" not in outcome.stderr

    def test_over_TLS(self, rawdl: Command, tls_origin: Origin, ca_file: Path) -> None:
        url = tls_origin.serve("/a", Script(body=b"x"))
        assert measured(rawdl, "-n", "1", "--cacert", str(ca_file), url)["phases"]["tls"]["count"] == 1
        assert measured(rawdl, "-n", "1", url, code=60)["failures"][0]["kind"] == "TLSError"
        assert rawdl("bench", "-n", "1", "-k", url).code == 0

    def test_redirects_are_followed(self, rawdl: Command, origin: Origin) -> None:
        there = origin.serve("/there", Script(body=b"x" * 50))
        url = origin.serve("/a", Script(status=302, header=(("Location", there),), body=b""))
        assert measured(rawdl, "-n", "2", url)["totals"]["bytes"] == 100


class TestFailures:
    def test_are_counted_apart_and_not_tried_again(self, rawdl: Command, origin: Origin) -> None:
        answers = iter([200, 503, 200, 404])
        url = origin.serve("/a", lambda request: Script(status=next(answers), body=b"x" * 10))
        document = measured(rawdl, "-n", "4", url, code=22)
        assert [sample["error"] for sample in document["samples"]] == [None, "StatusError", None, "StatusError"]
        assert document["totals"]["bytes"] == 20 and document["phases"]["total"]["count"] == 2
        assert len(origin.requests) == 4

    def test_the_status_is_that_of_the_first(self, rawdl: Command, origin: Origin) -> None:
        scripts = iter([Script(body=b"x" * 100, cut_at=20), Script(status=500, body=b"")])
        url = origin.serve("/a", lambda request: next(scripts))
        outcome = rawdl("bench", "-n", "2", "-q", url)
        assert outcome.code == 18
        assert outcome.stdout.count(b"failed      1 x ") == 2

    def test_a_closed_port_is_soon_given_up(self, rawdl: Command) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}/"
        document = measured(rawdl, "-t", "10000", url, code=7)
        assert document["totals"]["succeeded"] == 0 and document["totals"]["failed"] >= 100
        assert document["phases"]["total"] is document["throughput"] is None and document["histogram"] == []

    def test_a_timeout_is_one(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(body=b"x" * 100, stall_at=10))
        assert measured(rawdl, "-n", "1", "--timeout", "0.2", url, code=28)["failures"][0]["kind"] == "Timeout"

    def test_of_the_warm_up_alone_leave_one_line(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(status=404, body=b""))
        outcome = rawdl("bench", "-n", "1", "--warm-up", "1000", "--json", "r.json", url)
        assert outcome.code == 22 and "404" in outcome.stderr and len(outcome.stderr.splitlines()) == 1
        assert rawdl.files() == []

    def test_what_a_server_says_cannot_act_on_a_terminal(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(status=302, header=(("Location", "ftp://\x1b[2J.example/"),), body=b""))
        outcome = rawdl("bench", "-n", "1", url)
        assert outcome.code == 47 and b"\x1b" not in outcome.stdout


class TestOutput:
    def test_lines_fit_and_each_interval_has_one(self, rawdl: Command) -> None:
        outcome = rawdl("bench", "-t", "0.5", "--interval", "0.1", *SMALL)
        lines = outcome.stdout.decode().splitlines()
        assert (outcome.code, outcome.stderr) == (0, "")
        assert max(map(len, lines)) < 80
        assert 2 <= sum(line.endswith(" ended") for line in lines) <= 6
        for label in ("throughput", "first byte", "transfer", "total", "speed", "CPU", "memory", "machine"):
            assert any(line.startswith(label) for line in lines), label

    def test_quiet_has_no_line_an_interval(self, rawdl: Command) -> None:
        outcome = rawdl("bench", "-q", "-t", "0.3", "--interval", "0.1", *SMALL)
        assert outcome.code == 0 and b" ended\n" not in outcome.stdout and b"throughput" in outcome.stdout

    def test_an_ASCII_terminal_gets_ASCII(self, rawdl: Command) -> None:
        rawdl.environment["PYTHONIOENCODING"] = "ascii"
        outcome = rawdl("bench", "-n", "50", *SMALL)
        assert outcome.code == 0 and outcome.stdout.isascii() and b"###" in outcome.stdout
        rawdl.environment["PYTHONIOENCODING"] = "utf-8"
        assert "█" in rawdl("bench", "-n", "50", *SMALL).stdout.decode()

    def test_files_are_written_and_tell_the_same(self, rawdl: Command) -> None:
        outcome = rawdl("bench", "-n", "20", "--json", "r.json", "--csv", "r.csv", "--html", "r.html", *SMALL)
        assert (outcome.code, rawdl.files()) == (0, ["r.csv", "r.html", "r.json"])
        document = checked((rawdl.folder / "r.json").read_text("ascii"))
        with open(rawdl.folder / "r.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [read(row) for row in rows] == document["samples"]
        assert (rawdl.folder / "r.html").read_text("utf-8") == page(document)

    def test_two_of_them_are_compared(self, rawdl: Command) -> None:
        for name in ("a.json", "b.json"):
            assert rawdl("bench", "-n", "20", "--json", name, *SMALL).code == 0
        outcome = rawdl("bench", "compare", "a.json", "b.json")
        assert outcome.code == 0 and b"throughput" in outcome.stdout.lower()
        assert rawdl("bench", "compare", "a.json").code == 2

    def test_CSV_to_standard_output(self, rawdl: Command) -> None:
        outcome = rawdl("bench", "-n", "3", "--csv", "-", *SMALL)
        assert outcome.code == 0 and len(list(csv.DictReader(outcome.stdout.decode().splitlines()))) == 3
        assert "throughput" in outcome.stderr

    @pytest.mark.parametrize("kind", ["json", "csv", "html"])
    def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(self, rawdl: Command, kind: str) -> None:
        outcome = rawdl("bench", "-t", "10000", f"--{kind}", "none/r", *SMALL)
        assert outcome.code == 23 and outcome.complaint == "rawdl: cannot write none/r: No such file or directory"
        assert rawdl.files() == []

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
    def test_a_disk_that_is_full_is_one_line(self, rawdl: Command) -> None:
        outcome = rawdl("bench", "-n", "1", "--json", "/dev/full", *SMALL)
        assert outcome.code == 23
        assert outcome.stderr == "rawdl: cannot write /dev/full: No space left on device\n"

    def test_a_file_that_was_there_is_replaced_in_the_end_only(self, rawdl: Command, origin: Origin) -> None:
        (rawdl.folder / "r.json").write_text("before")
        url = origin.serve("/a", Script(status=404, body=b""))
        assert rawdl("bench", "-n", "1", "--warm-up", "1000", "--json", "r.json", url).code == 22
        assert (rawdl.folder / "r.json").read_text() == "before"
        assert rawdl("bench", "-n", "1", "--json", "r.json", *SMALL).code == 0
        checked((rawdl.folder / "r.json").read_text())

    def test_a_reader_that_goes_away_ends_it(self, rawdl: Command) -> None:
        arguments = ("bench", "-t", "10000", "--interval", "0.05", *SMALL)
        with rawdl.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(GUARD) == 23
        assert rawdl.files() == []


def read(row: dict[str, str]) -> dict[str, Any]:
    """Read a line of CSV as the document has it."""
    kinds: dict[str, Any] = {"bytes": int, "reused": lambda text: text == "true", "error": str}
    return {name: kinds.get(name, float)(text) if text else None for name, text in row.items()}


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_ends_the_measuring_and_not_the_report(rawdl: Command, number: int, word: str) -> None:
    arguments = ("bench", "-t", "10000", "--interval", "0.1", "--json", "r.json", "--sink", "file", "--size", "1M")
    with rawdl.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not process.stdout.readline().endswith(b" ended\n"):
            pass
        process.send_signal(number)
        # The child has the same standard error: its end means that the child has ended as well.
        stdout, stderr = process.communicate(timeout=GUARD)
    assert (process.returncode, stderr) == (128 + number, f"rawdl: {word}\n".encode())
    assert b"throughput" in stdout and rawdl.files() == ["r.json"]
    document = checked((rawdl.folder / "r.json").read_text())
    assert document["totals"]["succeeded"] > 0 and document["failures"] == []


def test_a_kill_ends_its_origin_as_well(rawdl: Command) -> None:
    with rawdl.start("bench", "-t", "10000", *SMALL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.kill()
        # The child has the same standard error, and would keep this from coming to its end.
        process.communicate(timeout=GUARD)
    assert rawdl.files() == []


def test_a_signal_in_the_warm_up_leaves_nothing(rawdl: Command) -> None:
    arguments = ("bench", "--omit", "10000", "--json", "r.json", *SMALL)
    with rawdl.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=GUARD)
    assert (process.returncode, stderr) == (130, b"rawdl: interrupted\n")
    assert rawdl.files() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-n", "0"], "-n"),
        (["-t", "0"], "-t"),
        (["-n", "1", "-t", "1"], "not allowed with"),
        (["-c", "0"], "-c"),
        (["--rate", "0"], "--rate"),
        (["--rate", "nan"], "--rate"),
        (["--rate", "5", "-c", "5"], "--rate begins without regard to -c"),
        (["--sink", "moon"], "--sink"),
        (["--size", "1M", "http://127.0.0.1/"], "--size"),
        (["--tls", "http://127.0.0.1/"], "--tls"),
        (["--chunked", "http://127.0.0.1/"], "--chunked"),
        (["-x", "2"], "--sink file"),
        (["-x", "2", "--sink", "file", "--chunked"], "--chunked has not"),
        (["--json", "-", "--html", "-"], "--json - and --html - both want standard output"),
        (["--json", ""], "empty file name"),
        (["-H", "nonsense"], "Name: value"),
        (["-H", "a b: c"], "-H"),
        (["--proxy", "nonsense://x", "http://127.0.0.1/"], "--proxy"),
    ],
)
def test_wrong_usage_is_told_in_one_line(rawdl: Command, arguments: list[str], words: str) -> None:
    outcome = rawdl("bench", *arguments)
    assert (outcome.code, rawdl.files()) == (2, [])
    assert outcome.complaint.startswith("rawdl: ") and words in outcome.complaint


def test_a_wrong_url_is_told_in_one_line(rawdl: Command) -> None:
    outcome = rawdl("bench", "http://me:canary@/")
    assert outcome.code == 3 and "canary" not in outcome.complaint


def test_a_download_loads_nothing_of_it(rawdl: Command) -> None:
    code = "import sys; from rawdl.cli.main import main; main(['--dry-run', 'http://h/a']); print(*sys.modules)"
    loaded = rawdl.outcome([sys.executable, "-c", code]).stdout.decode().split()
    assert "rawdl.cli.get" in loaded
    assert not [name for name in loaded if name.startswith(("rawdl.cli.bench", "rawdl.cli.loopback"))]


def test_help_fits(rawdl: Command) -> None:
    lines = rawdl("bench", "--help").stdout.decode().splitlines()
    assert max(map(len, lines)) < 80 and len(lines) < 46
