"""Two documents of the bench held against each other: what is said, what is warned of, and the exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rawdl.cli.bench.compare import cautions, find, is_slower, lines, main, read, statement
from rawdl.cli.bench.page import page
from tests.cli.bench_documents import Document, document

pytestmark = pytest.mark.one_version

HOSTILE = "\x1b[2J<script>\x00\u202e\n" + "a" * 300
Save = Callable[..., str]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(name: str, made: Any) -> str:
        path = tmp_path / name
        path.write_text(json.dumps(made))
        return str(path)

    return write


def timed(*seconds: float, size: int = 1_000_000) -> Document:
    """Return a document whose transfers took that."""
    made = document(len(seconds), size=size)
    for sample, time in zip(made["samples"], seconds, strict=True):
        sample |= {"intended": 0.0, "started": 0.0, "ended": time, "first_byte": time / 10}
    return made


def compared(save: Save, a: Document, b: Document) -> dict[str, Any]:
    runs = [read(save(name, made)) for name, made in (("a.json", a), ("b.json", b))]
    return {finding.measure.key: finding for finding in find(*runs)}


def text_of(save: Save, a: Document, b: Document) -> str:
    one, other = (read(save(name, made)) for name, made in (("a.json", a), ("b.json", b)))
    found = list(lines(one, other, list(find(one, other))))
    assert max(map(len, found)) < 80
    return "\n".join(found)


# What is found


def test_hand_made_times_give_the_figures_that_they_should(save: Save) -> None:
    """Five of five are slower: the least p-value of so many, twice one of 252 orders."""
    slow, quick = [0.20, 0.21, 0.22, 0.23, 0.24], [0.10, 0.105, 0.11, 0.115, 0.12]
    found = compared(save, timed(*slow), timed(*quick))
    assert list(found) == ["bytes_per_second", "total", "first_byte", "cpu_seconds_per_gib", "peak_rss"]
    total, speed = found["total"], found["bytes_per_second"]
    assert (total.a, total.b) == (0.22, 0.11) and total.ratio == pytest.approx(0.5)
    assert speed.ratio == pytest.approx(2.0) and speed.a == pytest.approx(1e6 / 0.22)
    assert total.found.p_value == pytest.approx(2 / 252)
    assert (total.found.delta, speed.found.delta, total.found.effect) == (-1.0, 1.0, "large")
    assert statement(total).startswith("B takes 0.500 × the time (95 % interval 0.4")
    assert statement(total).endswith("; p = 0.008): a large difference")
    assert statement(speed).startswith("B is 2.00 × as fast (95 % interval 1.")
    assert statement(found["first_byte"]).startswith("B waits 0.500 × as long (")


def test_identical_runs_do_not_differ(save: Save) -> None:
    same = document(80)
    found = compared(save, same, same)
    for key in ("bytes_per_second", "total", "first_byte"):
        assert statement(found[key]) == "no difference that these samples can show (p = 1.00)"
    assert statement(found["peak_rss"]) == "the same, by one value of each"
    assert "caution" not in text_of(save, same, same)


@pytest.mark.parametrize("seed", range(2, 8))
def test_noise_is_no_difference(save: Save, seed: int) -> None:
    found = compared(save, document(100), document(100, seed=seed))
    assert not found["total"].significant and not found["bytes_per_second"].significant
    assert "no difference" in statement(found["total"])


def test_a_difference_is_seen_through_noise(save: Save) -> None:
    found = compared(save, document(100, spread=0.1), document(100, spread=0.1, seed=2, pace=1.1))
    assert found["total"].significant and not found["first_byte"].significant
    assert found["total"].found.low < 1.1 < found["total"].found.high + 0.02
    assert statement(found["cpu_seconds_per_gib"]) == (
        "B needs 1.10 × the CPU time, by one value of each: chance may explain it"
    )


def test_one_transfer_each_can_show_nothing(save: Save) -> None:
    found = compared(save, timed(1.0), timed(3.0))
    assert statement(found["total"]) == "no difference that samples as few as these can show (p = 1.00)"
    assert not is_slower(list(found.values()), 0.0)
    found = compared(save, timed(1.0), timed(*(2.0 + at for at in range(60))))  # two of 61 places are so far out
    assert statement(found["total"]).startswith("no difference that samples as few as these")
    assert "1 transfer\n" in text_of(save, timed(1.0), timed(3.0))


def test_what_nobody_measured_is_left_out(save: Save) -> None:
    made = document(5)
    made["cpu"]["seconds_per_gib"] = made["memory"]["peak_rss"] = None
    for sample in made["samples"]:
        sample["first_byte"] = None
    assert list(compared(save, made, document(5))) == ["bytes_per_second", "total"]


# What is warned of


def warned(save: Save, a: Document, b: Document) -> list[str]:
    return cautions(read(save("a.json", a)), read(save("b.json", b)))


def test_other_conditions_make_a_comparison_mean_little(save: Save) -> None:
    a, b = document(9), document(9)
    b["settings"] |= {"concurrency": 4, "rate": 2.5, "url": "http://127.0.0.1:9/other"}
    b["environment"] |= {"h11": None, "load": [9.0, 9.0, 9.0]}
    b["rawdl"] = "0.2.0"
    assert warned(save, a, b) == [
        "concurrency is 1 in A, 4 in B",
        "rate is unknown in A, 2.5 in B",
        "h11 is 0.16.0 in A, unknown in B",
        "rawdl is 0.1.0 in A, 0.2.0 in B",
    ]


def test_two_servers_are_a_difference(save: Save) -> None:
    a, b = document(9), document(9, url="http://127.0.0.1:9/other")
    a["settings"]["origin"] = b["settings"]["origin"] = "given"
    assert warned(save, a, b) == ["url is http://127.0.0.1:8080/8M in A, http://127.0.0.1:9/other in B"]


def test_failures_and_what_the_runs_themselves_warn_of(save: Save) -> None:
    a, b = document(9), document(9, fails=lambda at: at == 3, warnings=["few samples"])
    assert warned(save, a, b) == ["1 of 9 transfers of B failed, and count nowhere", "of B: few samples"]
    assert "caution: of B: few samples" in text_of(save, a, b)


def test_nothing_in_a_document_acts_on_a_terminal(save: Save) -> None:
    made = document(9, url=HOSTILE, warnings=[HOSTILE])
    made["settings"] |= {"origin": "given", HOSTILE: HOSTILE}
    made["began"] = made["rawdl"] = HOSTILE
    text = text_of(save, document(9), made)
    assert "".join(text.split("\n")).isprintable() and r"\x1b[2J" in text
    assert "<script>" not in page(made)


# The command


def test_it_tells_and_succeeds(save: Save, capfd: pytest.CaptureFixture[str]) -> None:
    paths = [save("a.json", document(40)), save("b.json", document(40, pace=2.0))]
    assert main(paths) == 0
    out, err = capfd.readouterr()
    assert err == "" and max(map(len, out.splitlines())) < 80
    assert "B takes 1.9" in out and "a large\n    difference" in out


def test_json_for_programs(save: Save, capfd: pytest.CaptureFixture[str]) -> None:
    a, b = save("a.json", document(40)), save("b.json", document(40, pace=2.0, fails=lambda at: at == 1))
    assert main([a, b, "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["schema"] == "rawdl-bench-comparison-1" and told["slower"] is False
    assert (told["b"]["file"], told["b"]["transfers"], told["b"]["succeeded"]) == (b, 40, 39)
    assert told["differences"] == [] and len(told["cautions"]) == 1
    figures = {each["name"]: each for each in told["figures"]}
    low, high = figures["total"]["interval"]
    assert low < figures["total"]["ratio"] < high and figures["total"]["significant"] is True
    assert figures["peak_rss"]["interval"] is figures["peak_rss"]["p_value"] is None


@pytest.mark.parametrize(
    ("pace", "percent", "status"),
    [(1.5, "10", 1), (1.5, "10%", 1), (1.5, "40", 0), (1.0, "0", 0), (0.5, "0", 0), (1.5, "0", 1)],
)
def test_slower_by_more_than_that_fails(
    save: Save, capfd: pytest.CaptureFixture[str], pace: float, percent: str, status: int
) -> None:
    paths = [save("a.json", document(60)), save("b.json", document(60, seed=2, pace=pace))]
    assert main([*paths, "--fail-if-slower", percent]) == status
    assert main([*paths, "--fail-if-slower", percent, "--json"]) == status
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["slower"] is bool(status)


def test_a_wait_before_the_transfer_is_slower_too(save: Save) -> None:
    """In an open loop: as fast as before once it has begun, but it began late."""
    a, b = document(60), document(60, seed=2)
    for sample in b["samples"]:
        sample["intended"] -= 0.01
    found = compared(save, a, b)
    assert not found["bytes_per_second"].significant
    assert is_slower(list(found.values()), 0.5 - 0.1) and not is_slower(list(found.values()), 0.6)


def without(key: str) -> Document:
    made = document(3)
    del made[key]
    return made


def changed(**changes: Any) -> Document:
    made = document(3)
    made["samples"][1] |= changes
    return made


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        ([], "is no document of rawdl bench: it has no schema"),
        ("text", "is no document of rawdl bench: it has no schema"),
        ({"schema": "other-2"}, "is no document of rawdl bench: its schema is other-2, not rawdl-bench-1"),
        ({"schema": "\x1b[2J"}, r"is no document of rawdl bench: its schema is \x1b[2J, not rawdl-bench-1"),
        ({"schema": ["rawdl-bench-1"]}, "is no document of rawdl bench: it has no schema"),
        (without("samples"), "is no document of rawdl bench: it is incomplete, or has been changed"),
        (without("settings"), "is no document of rawdl bench: it is incomplete, or has been changed"),
        (without("cpu"), "is no document of rawdl bench: it is incomplete, or has been changed"),
        (changed(ended="late"), "is no document of rawdl bench: it is incomplete, or has been changed"),
        (changed(bytes=10**400), "is no document of rawdl bench: it is incomplete, or has been changed"),
        (document(3) | {"samples": 7}, "is no document of rawdl bench: it is incomplete, or has been changed"),
        (document(3) | {"environment": []}, "is no document of rawdl bench: it is incomplete, or has been changed"),
        (document(3, fails=lambda at: True), "has no transfer that succeeded, so that there is nothing to compare"),
        (document(3) | {"samples": []}, "has no transfer that succeeded, so that there is nothing to compare"),
    ],
)
def test_what_is_no_document_is_one_clear_error(
    save: Save, capfd: pytest.CaptureFixture[str], made: Any, complaint: str
) -> None:
    path = save("b.json", made)
    assert main([save("a.json", document(3)), path]) == 2
    assert capfd.readouterr() == ("", f"rawdl: {path} {complaint}\n")


@pytest.mark.parametrize(
    "data", [b"", b"no JSON", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"schema": NaN}', b"9" * 5000]
)
def test_what_is_no_json_is_one_clear_error(
    save: Save, tmp_path: Path, capfd: pytest.CaptureFixture[str], data: bytes
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    assert main([str(path), save("b.json", document(3))]) == 2
    assert capfd.readouterr() == ("", f"rawdl: {path} is not JSON\n")


def test_infinity_by_the_back_door(save: Save, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "b.json"
    path.write_text(json.dumps(changed(ended=123456.5)).replace("123456.5", "1e999"))
    assert main([save("a.json", document(3)), str(path)]) == 2
    assert "incomplete, or has been changed" in capfd.readouterr().err


def test_a_file_that_is_not_there(save: Save, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "not\x1bthere.json"
    assert main([save("a.json", document(3)), str(path)]) == 2
    assert capfd.readouterr().err == f"rawdl: {tmp_path}/not\\x1bthere.json: No such file or directory\n"


@pytest.mark.parametrize("arguments", [["a"], ["a", "b", "c"], ["a", "b", "--fail-if-slower", "100"], ["a", "--x"]])
def test_wrong_usage(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    out, err = capfd.readouterr()
    assert exited.value.code == 2 and out == "" and len(err.splitlines()) == 1


def test_help_fits(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--help"])
    shown = capfd.readouterr().out.splitlines()
    assert exited.value.code == 0 and max(map(len, shown)) <= 80 and len(shown) < 24
