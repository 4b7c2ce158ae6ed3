"""From what was measured to the document, and from there to text and CSV, held against figures made by hand."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import jsonschema
import pytest

from rawdl.cli.bench.drafts import Draft
from rawdl.cli.bench.load import Failure, Interval, Record, Sample
from rawdl.cli.bench.machine import Usage, environment
from rawdl.cli.bench.summary import document
from rawdl.cli.bench.table import spelled, table
from rawdl.cli.bench.terminal import WIDTH, heading, interval_line, report
from rawdl.cli.report import Unusable

SCHEMA = json.loads(resources.files("rawdl.cli.bench").joinpath("report.schema.json").read_text("utf-8"))
MACHINE = {
    "python": "3.11.7",
    "implementation": "CPython",
    "platform": "Linux",
    "machine": "x86_64",
    "processor": "",
    "cores": 2,
    "openssl": "OpenSSL 3",
    "h11": "0.16.0",
    "load": [0.5, 0.25, 0.1],
}
SETTINGS: dict[str, Any] = {
    "url": "http://example.org/a",
    "origin": "given",
    "size": None,
    "tls": False,
    "chunked": False,
    "transfers": 4,
    "duration": None,
    "concurrency": 1,
    "connections": 1,
    "rate": None,
    "warm_up": 0,
    "omit": 0.0,
    "sink": "null",
    "interval": 1.0,
    "keep_alive": True,
}
# Four transfers of 1000 bytes that take 1, 2, 3 and 4 s; and one that fails.
SAMPLES = [
    Sample(0.0, 0.0, 1.0, 1000, False, 0.25, 0.5, None, 0.125, 0.125),
    Sample(1.0, 1.0, 3.0, 1000, True, None, None, None, 0.5, 1.5),
    Sample(3.0, 3.0, 3.5, 500, error="IncompleteBody"),
    Sample(3.5, 3.5, 6.5, 1000, True, None, None, None, 1.0, 2.0),
    Sample(6.5, 6.5, 10.5, 1000, True, None, None, None, 1.5, 2.5),
]


@dataclass
class Measured:
    """A record, of which a test says what is of interest to it."""

    samples: list[Sample] = field(default_factory=lambda: SAMPLES)
    settings: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        seconds = max((sample.ended for sample in self.samples), default=0.0)
        good = [sample for sample in self.samples if sample.error is None]
        whole = Interval(0.0, seconds, sum(sample.bytes for sample in good), len(good))
        bad = [sample.error for sample in self.samples if sample.error]
        fields: dict[str, Any] = {
            "samples": self.samples,
            "intervals": [whole] if seconds else [],
            "failures": [Failure(kind, bad.count(kind), "it broke") for kind in sorted(set(bad))],
            "seconds": seconds,
            "omitted": 0,
            "unfinished": 0,
            "held_back": 0,
            "first_error": None,
            "usage": Usage(1.5, 0.5, 70, 10, 20, 5, 6),
            "hopeless": False,
            **self.record,
        }
        made = document(
            Record(**fields),
            {**SETTINGS, **self.settings},
            {**MACHINE, **self.machine},
            began="2026-01-02T03:04:05Z",
            peak_rss=1 << 20,
        )
        jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(made, allow_nan=False)))
        return made


class TestDocument:
    def test_totals(self) -> None:
        totals = Measured(record={"omitted": 7}).document()["totals"]
        assert totals == {
            "transfers": 5,
            "succeeded": 4,
            "failed": 1,
            "omitted": 7,
            "unfinished": 0,
            "held_back": 0,
            "bytes": 4000,
            "seconds": 10.5,
            "bytes_per_second": 4000 / 10.5,
            "transfers_per_second": 4 / 10.5,
        }

    def test_phases_and_throughput_have_no_failure(self) -> None:
        made = Measured().document()
        total = made["phases"]["total"]
        assert (total["count"], total["min"], total["mean"], total["p50"], total["max"]) == (4, 1.0, 2.5, 2.5, 4.0)
        assert total["sd"] == pytest.approx((5 / 3) ** 0.5)
        assert (made["phases"]["dns"]["count"], made["phases"]["dns"]["mean"]) == (1, 0.25)
        assert made["phases"]["tls"] is made["phases"]["wait"] is None
        assert made["phases"]["first_byte"]["mean"] == (0.125 + 0.5 + 1.0 + 1.5) / 4
        assert (made["throughput"]["min"], made["throughput"]["max"]) == (250.0, 1000.0)
        assert sum(bin["count"] for bin in made["histogram"]) == 4

    def test_an_open_loop_counts_from_the_intended_start(self) -> None:
        samples = [Sample(0.0, 0.0, 1.0, 10), Sample(1.0, 3.0, 4.0, 10)]
        made = Measured(samples, {"rate": 1.0}).document()
        assert (made["phases"]["total"]["max"], made["phases"]["wait"]["max"]) == (3.0, 2.0)
        assert made["throughput"]["min"] == made["throughput"]["max"] == 10.0  # from the real start

    def test_what_it_cost(self) -> None:
        made = Measured(record={"intervals": [Interval(0.0, 10.5, 1 << 29, 4)]}).document()
        assert made["cpu"] == {"user": 1.5, "system": 0.5, "seconds": 2.0, "seconds_per_gib": 4.0}
        assert made["system"] == {
            "wake_ups": 70,
            "reads": 10,
            "writes": 20,
            "voluntary_switches": 5,
            "involuntary_switches": 6,
        }
        assert made["intervals"][0]["bytes_per_second"] == (1 << 29) / 10.5

    def test_nothing_succeeded(self) -> None:
        made = Measured([Sample(0.0, 0.0, 1.0, 0, error="Timeout")]).document()
        assert made["throughput"] is None and made["histogram"] == [] and not made["stable"]
        assert set(made["phases"].values()) == {None} and made["cpu"]["seconds_per_gib"] is None

    def test_nothing_at_all(self) -> None:
        made = Measured([]).document()
        assert made["totals"]["bytes_per_second"] == made["totals"]["transfers_per_second"] == 0.0

    def test_even_intervals_are_stable_whatever_single_transfers_do(self) -> None:
        even = [Interval(float(at), at + 1.0, 1000 + at % 3, 1) for at in range(20)]
        made = Measured(record={"intervals": even, "failures": []}, samples=[s for s in SAMPLES if not s.error])
        assert made.document()["stable"] and made.document()["warnings"] == []

    def test_uneven_intervals_are_not(self) -> None:
        uneven = [Interval(float(at), at + 1.0, 1000 * (1 + at % 4), 1) for at in range(20)]
        made = Measured(record={"intervals": uneven}).document()
        assert not made["stable"] and any("speed of the intervals" in text for text in made["warnings"])

    @pytest.mark.parametrize(
        ("record", "machine", "words"),
        [
            ({"unfinished": 3}, {}, "3 had not ended"),
            ({"held_back": 4}, {}, "4 transfers were held back"),
            ({"hopeless": True}, {}, "given up"),
            ({}, {"load": [1.5, 0.0, 0.0]}, "busy"),
            ({}, {}, "1 of 5 transfers failed"),
        ],
    )
    def test_what_speaks_against_the_figures(self, record: dict[str, Any], machine: dict[str, Any], words: str) -> None:
        assert any(words in text for text in Measured(record=record, machine=machine).document()["warnings"])
        assert not any(words in text for text in Measured(SAMPLES[:2]).document()["warnings"])

    def test_this_machine_is_described(self) -> None:
        Measured(machine=environment(None)).document()

    def test_is_spelled_as_JSON(self) -> None:
        made = Measured().document()
        assert json.loads(spelled(made)) == made
        assert len(spelled(made).splitlines()) > len(made["samples"])

    def test_as_CSV(self) -> None:
        names, *rows = csv.reader(io.StringIO(table(Measured().document())))
        assert names == list(Sample._fields) and len(rows) == 5
        assert rows[0] == ["0.0", "0.0", "1.0", "1000", "false", "0.25", "0.5", "", "0.125", "0.125", ""]
        assert rows[2][-1] == "IncompleteBody"


class TestText:
    HOSTILE = "http://example.org/" + "a\x1b[31m\u202e" * 60

    @pytest.mark.parametrize("fancy", [True, False])
    def test_fits_whatever_there_is(self, fancy: bool) -> None:
        many = [Interval(float(at), at + 1.0, 10**12 * at, at) for at in range(3600)]
        long = [sample._replace(ended=sample.ended + 100_000 * at) for at, sample in enumerate(SAMPLES * 20)]
        for made in (
            Measured().document(),
            Measured([]).document(),
            Measured(long, {"rate": 1.0}, {"platform": "x" * 200}, {"intervals": many, "held_back": 9}).document(),
        ):
            text = report(made, fancy=fancy)
            assert max(map(len, text.splitlines())) <= WIDTH
            assert fancy or text.isascii()

    def test_many_intervals_share_lines(self) -> None:
        many = [Interval(float(at), at + 1.0, 1000, 1) for at in range(3600)]
        lines = report(Measured(record={"intervals": many}).document(), fancy=False).splitlines()
        bars = [line for line in lines if line.endswith(" 1.00 kB/s")]
        assert len(bars) == 20 and "0.0 - 180.0 s" in bars[0] and "3420.0 - 3600.0 s" in bars[-1]

    def test_nothing_in_it_acts_on_a_terminal(self) -> None:
        failed = [Failure("Timeout", 1, self.HOSTILE)]
        made = Measured(settings={"url": self.HOSTILE}, record={"failures": failed}, machine={"processor": "\x1b[2J"})
        text = heading({**SETTINGS, "url": self.HOSTILE}) + "\n" + report(made.document(), fancy=True)
        assert all(character.isprintable() or character == "\n" for character in text)
        assert max(map(len, text.splitlines())) <= WIDTH

    def test_units_are_said(self) -> None:
        text = report(
            Measured(record={"intervals": [Interval(0.0, 1.0, 125_000_000, 4)], "seconds": 1.0}).document(), fancy=False
        )
        assert "125 MB/s = 119 MiB/s = 1,000 Mbit/s" in text

    def test_heading_says_how(self) -> None:
        open_loop = {**SETTINGS, "rate": 5.0, "duration": 3.0, "transfers": None, "warm_up": 2, "keep_alive": False}
        assert "5 a second" in heading(open_loop) and "for 3 s" in heading(open_loop)
        assert "2 to warm up" in heading(open_loop) and "a new connection each" in heading(open_loop)
        own = {**SETTINGS, "origin": "embedded", "size": 1 << 20, "chunked": True, "connections": 4, "omit": 2.0}
        assert "origin of its own" in heading(own) and "4 transfers, 1.0 MiB each, chunked" in heading(own)

    def test_an_interval_has_a_line(self) -> None:
        line = interval_line(Interval(1.0, 2.0, 2_500_000, 7)._asdict())
        assert line.split() == ["1.00", "-", "2.00", "s", "2.50", "MB/s", "2.4", "MiB", "7", "ended"]

    def test_times_are_ASCII_where_they_must(self) -> None:
        made = Measured([Sample(0.0, 0.0, 0.000_12, 1), Sample(0.0, 0.0, 36_000.0, 1)]).document()
        for fancy, word in ((True, "120 µs"), (False, "120 us")):
            [line] = [line for line in report(made, fancy=fancy).splitlines() if line.startswith("total       ")][:1]
            assert word in line and "10.0 h" in line


class TestDraft:
    def test_appears_when_it_is_complete(self, tmp_path: Any) -> None:
        path = tmp_path / "r"
        with Draft(str(path)) as draft:
            assert not path.exists() and len(list(tmp_path.iterdir())) == 1
            draft.commit("text")
        assert path.read_text() == "text" and list(tmp_path.iterdir()) == [path]

    def test_leaves_nothing_of_what_is_not_committed(self, tmp_path: Any) -> None:
        with Draft(str(tmp_path / "r")):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_follows_a_link(self, tmp_path: Any) -> None:
        (tmp_path / "real").write_text("before")
        (tmp_path / "link").symlink_to("real")
        with Draft(str(tmp_path / "link")) as draft:
            draft.commit("after")
        assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "after"

    def test_a_folder_is_none(self, tmp_path: Any) -> None:
        with pytest.raises(Unusable, match="Is a directory"):
            Draft(str(tmp_path))
