"""The file of options, which hold unless the command line says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.origin import Origin, Script


@pytest.fixture
def url(origin: Origin) -> str:
    return origin.serve("/a", Script(body=b"hello"))


@pytest.fixture
def config(rawdl: Command) -> Path:
    path = Path(rawdl.environment["XDG_CONFIG_HOME"], "rawdl", "config")
    path.parent.mkdir(parents=True)
    return path


def test_its_options_hold(rawdl: Command, config: Path, url: str, origin: Origin) -> None:
    config.write_text(
        "# mine\n\n  quiet\nuser-agent = Some Thing/1 (a=b)\n--header=X-A: 1 # no comment\ndirectory= new\n"
    )
    outcome = rawdl(url)
    assert (outcome.code, outcome.stderr, rawdl.files()) == (0, "", ["new/a"])
    asked = origin.requests[0]
    assert (asked.field("user-agent"), asked.field("x-a")) == ("Some Thing/1 (a=b)", "1 # no comment")


def test_the_command_line_goes_before_it(rawdl: Command, config: Path, url: str, origin: Origin) -> None:
    config.write_text("no-clobber\nuser-agent = a\nheader = X-A: 0\nheader = X-B: 0\nmax-filesize = 1\nquiet\n")
    (rawdl.folder / "a").write_bytes(b"old")
    assert rawdl("--overwrite", "-A", "b", "-H", "x-a: 1", "--max-filesize", "1K", url).code == 0
    asked = origin.requests[0]
    assert [asked.field(name) for name in ("user-agent", "x-a", "x-b")] == ["b", "1", "0"]
    assert (rawdl.folder / "a").read_bytes() == b"hello"


def test_the_last_of_lines_that_contradict_counts(rawdl: Command, config: Path, url: str) -> None:
    config.write_text("no-clobber\nskip-existing\nquiet\n")
    (rawdl.folder / "a").write_bytes(b"old")
    assert (rawdl(url).code, (rawdl.folder / "a").read_bytes()) == (0, b"old")


def test_another_file_takes_its_place(rawdl: Command, config: Path, url: str, origin: Origin) -> None:
    config.write_text("quiet\nuser-agent = a\nheader = X-A: 0\n")
    (rawdl.folder / "other").write_text("quiet\nheader = X-B: 1")
    assert rawdl("--config", "other", url).code == 0
    assert [origin.requests[0].field(name) for name in ("x-a", "x-b")] == [None, "1"]


def test_none_is_no_file(rawdl: Command, config: Path, url: str) -> None:
    config.write_text("nonsense\n")
    assert rawdl("--config", "none", "-q", url).code == 0


def test_without_a_home_of_configuration_it_is_below_dot_config(rawdl: Command, url: str) -> None:
    for value in ("", "relative"):
        rawdl.environment |= {"XDG_CONFIG_HOME": value, "HOME": str(rawdl.folder)}
        (rawdl.folder / ".config/rawdl").mkdir(parents=True, exist_ok=True)
        (rawdl.folder / ".config/rawdl/config").write_text("nonsense")
        assert ".config/rawdl/config, line 1: there is no option nonsense here" in rawdl(url).complaint


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense = secret", "there is no option nonsense here"),
        ("http://example.org/a", "written limit-rate = 2M"),
        ("-q", "written limit-rate = 2M"),
        ("limit-rate 2M", "written limit-rate = 2M"),
        ("limit-rate = fast", "fast is not a size"),
        ("limit-rate", "expected one argument"),
        ("quiet = yes", "ignored explicit argument 'yes'"),
        ("config = other", "no option config here"),
        ("help = all", "no option help here"),
        ("version", "no option version here"),
        ("print-completion = fish", "no option print-completion here"),
    ],
)
def test_a_line_that_makes_no_sense(rawdl: Command, config: Path, line: str, words: str) -> None:
    config.write_text(f"quiet\n\n{line}\n")
    outcome = rawdl("http://127.0.0.1:1/a")
    assert (outcome.code, words in outcome.complaint) == (2, True), outcome
    assert outcome.complaint.startswith(f"rawdl: {config}, line 3: ") and "secret" not in outcome.complaint


def test_what_does_not_go_together_is_told_without_a_line(rawdl: Command, config: Path) -> None:
    config.write_text("digest\n")
    assert rawdl("http://h/a").complaint.startswith("rawdl: --digest needs a user")


def test_a_file_that_cannot_be_read(rawdl: Command, config: Path, url: str) -> None:
    assert rawdl("--config", "gone", url).complaint.startswith("rawdl: --config: gone: No such file or directory")
    config.write_bytes(b"\xff")
    assert f"{config}: it is not UTF-8" in rawdl(url).complaint
    config.unlink()
    config.mkdir()
    assert f"{config}: Is a directory" in rawdl(url).complaint
    assert os.path.isdir(config)
