"""The grammar: which words become which options."""

from __future__ import annotations

import re

import pytest

import rawdl
from rawdl.cli import demo, get, main as grammar
from rawdl.cli.grammar import get_parser
from rawdl.cli.options import Options
from rawdl.cli.report import CAUSES


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Collect what commands are run with, instead of running them."""
    calls: list[object] = []
    monkeypatch.setattr(get, "run", lambda options: calls.append(options) or 0)
    monkeypatch.setattr(demo, "run", lambda size: calls.append(size) or 0)
    return calls


URL = "http://h/"


def test_what_is_not_given_is_the_librarys_to_choose(asked: list[object]) -> None:
    assert grammar.main([URL]) == 0
    assert asked == [Options(urls=[URL], task={"header": {}})]


def asked_for(asked: list[object], *words: str) -> Options:
    assert grammar.main([*words, URL]) == 0
    [options] = asked
    return options


@pytest.mark.parametrize(
    ("words", "task"),
    [
        ("--overwrite", {"exists": "overwrite"}),
        ("--no-clobber", {"exists": "error"}),
        ("--rename", {"exists": "rename"}),
        ("--skip-existing", {"exists": "skip"}),
        ("-c", {"resume": True}),
        ("--continue", {"resume": True}),
        ("--no-resume", {"resume": False}),
        (f"--checksum MD5:{'A' * 32}", {"checksum": f"md5:{'a' * 32}"}),
        ("-R", {"remote_time": True}),
        ("--fsync", {"durable": True}),
        ("--compressed", {"decode": True}),
        ("--no-fail", {"fail_on_status": False}),
        ("--timeout 1.5", {"timeout": 1.5}),
        ("-x 4", {"connections": 4}),
        ("-H A:b -H a:c -H C:", {"header": {"A": "b, c", "C": None}}),
        ("-A me", {"header": {"User-Agent": "me"}}),
        ("-e http://u:p@x.example/a?b#c", {"header": {"Referer": "http://x.example/a?b"}}),
        ("-r 5-9", {"header": {"Range": "bytes=5-9"}}),
        ("-r=-9", {"header": {"Range": "bytes=-9"}}),
        ("-b a=b", {"header": {"Cookie": "a=b"}}),
    ],
)
def test_an_option_of_the_download(asked: list[object], words: str, task: dict[str, object]) -> None:
    assert asked_for(asked, *words.split()).task == {"header": {}, **task}


def test_an_empty_agent_is_none(asked: list[object]) -> None:
    assert asked_for(asked, "-A", "").task["header"] == {"User-Agent": None}


@pytest.mark.parametrize(
    ("words", "client"),
    [
        ("-j 3", {"max_concurrent": 3}),
        ("-x 2", {"max_per_host": 6}),
        ("-x 16", {"max_per_host": 16}),
        ("--proxy http://p:1", {"proxy": "http://p:1"}),
        ("--proxy none", {"proxy": None}),
        ("-4", {"family": "ipv4"}),
        ("--ipv6", {"family": "ipv6"}),
        ("--interface 127.0.0.1", {"local_address": "127.0.0.1"}),
        ("--resolve h:80:127.0.0.1", {"connect_to": {"h:80": "127.0.0.1:80"}}),
        ("--resolve h:80:::1", {"connect_to": {"h:80": "[::1]:80"}}),
        ("--resolve h:80:[::1] --resolve i:1:2", {"connect_to": {"h:80": "[::1]:80", "i:1": "2:1"}}),
        ("--connect-to h:80:[::1]:81", {"connect_to": {"h:80": "[::1]:81"}}),
        ("--unix-socket /s", {"unix_socket": "/s"}),
        ("-n", {"netrc": True}),
        ("--netrc-file f", {"netrc": "f"}),
        ("--limit-rate 2K", {"rate_limit": 2048}),
        ("--speed-limit 1K", {"low_speed": (1024, 30.0)}),
        ("--speed-time 5", {"low_speed": (1, 5.0)}),
        ("--retries 0", {"retry": rawdl.Retry(attempts=1)}),
        ("--retry-delay 2", {"retry": rawdl.Retry(backoff=2.0, factor=1.0, jitter="none", max_delay=2.0)}),
        ("--retry-max-time 60", {"retry": rawdl.Retry(max_time=60.0)}),
        ("--max-redirects 3", {"redirects": rawdl.Redirects(limit=3)}),
        ("--allow-downgrade", {"redirects": rawdl.Redirects(allow_downgrade=True)}),
        ("--connect-timeout 5", {"timeouts": rawdl.Timeouts(setup=5.0)}),
        ("--idle-timeout 5", {"timeouts": rawdl.Timeouts(head=5.0, idle=5.0)}),
        ("--max-filesize 1M", {"limits": rawdl.Limits(body=1 << 20, decoded=1 << 20)}),
    ],
)
def test_S40_an_option_of_the_client(asked: list[object], words: str, client: dict[str, object]) -> None:
    assert asked_for(asked, *words.split()).client == client


@pytest.mark.parametrize(
    ("words", "tls"),
    [
        ("--cacert f", {"ca_file": "f"}),
        ("--capath d", {"ca_dir": "d"}),
        ("-E c --key k", {"client_cert": "c", "client_key": "k"}),
        ("--pinnedpubkey a --pinnedpubkey b", {"pins": ["a", "b"]}),
        ("--tls-min 1.3", {"minimum_version": "1.3"}),
        ("-k", {"verify": False}),
    ],
)
def test_an_option_of_tls(asked: list[object], words: str, tls: dict[str, object]) -> None:
    assert asked_for(asked, *words.split()).tls == tls


@pytest.mark.parametrize(
    ("words", "rest"),
    [
        ("-o f", {"output": "f"}),
        ("-d d --create-dirs", {"directory": "d", "create_dirs": True}),
        ("-J", {"suggested": True}),
        ("-i f", {"input_file": "f"}),
        ("-b f --cookie-jar g", {"cookies": "f", "cookie_jar": "g"}),
        ("--noproxy a,b", {"no_proxy": "a,b"}),
        ("-q --json -v", {"quiet": True, "json": True, "verbose": True}),
        ("--trace f -w x", {"trace": "f", "write_out": "x"}),
        ("--dry-run", {"dry_run": True}),
    ],
)
def test_the_rest(asked: list[object], words: str, rest: dict[str, object]) -> None:
    assert asked_for(asked, *words.split()) == Options(urls=[URL], task={"header": {}}, **rest)


@pytest.mark.parametrize(
    ("words", "kind", "text"),
    [
        ("-u a:b", rawdl.BasicAuth, "a"),
        ("-u a:b --digest", rawdl.DigestAuth, "a"),
        ("--oauth2-bearer t", rawdl.BearerAuth, "***"),
    ],
)
def test_who_asks(asked: list[object], words: str, kind: type, text: str) -> None:
    found = asked_for(asked, *words.split()).client["auth"]
    assert type(found) is kind and text in repr(found)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("500K", 512000), ("8m", 8 << 20), ("2G", 2 << 30), (None, 256 << 20)]
)
def test_sizes_are_1024_based(asked: list[object], text: str | None, size: int) -> None:
    assert grammar.main(["demo", *(["--size", text] if text else [])]) == 0
    assert asked == [size]


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["get", "--help"], ["demo", "--help"]])
def test_help_fits_on_one_screen(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert grammar.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 80 and len(lines) <= 24


def test_all_the_help_has_every_option_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert grammar.main(["--help", "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 80
    flags = [flag for action in get_parser()._actions for flag in action.option_strings if flag != "--version"]
    assert [flag for flag in flags if not any(line.startswith("  -") and flag in line for line in lines)] == []
    assert all(len(line.split()) > 2 for line in lines if line.startswith("  -") and "--key-password" not in line)


def test_help_of_anything_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert grammar.main(["--help", "me"]) == 2
    assert "--help all" in capsys.readouterr().err


def test_help_documents_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    grammar.main(["--help", "all"])
    words = capsys.readouterr().out.partition("exit status")[2].split()
    assert {str(cause.code) for cause in CAUSES} <= set(words)


def test_the_exit_codes_are_columns(capsys: pytest.CaptureFixture[str]) -> None:
    grammar.main(["--help", "all"])
    first, *rest = capsys.readouterr().out.partition("exit status")[2].splitlines()[1:]
    columns = [match.start(1) for match in re.finditer(r"\d (\w)", first)]
    assert len(columns) == 3
    assert all(line[column - 1 : column] in ("", " ") for line in rest for column in columns)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert grammar.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("rawdl ")
