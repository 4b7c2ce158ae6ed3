"""Exit codes and messages."""

from __future__ import annotations

import json

import pytest

import rawdl
from rawdl.cli.report import CAUSES, exit_code, json_line, kept_text, message
from rawdl.errors import DownloadError, StatusError, TLSError
from rawdl.proto.url import shown


def every_error() -> list[type[DownloadError]]:
    found = [DownloadError]
    for kind in found:
        found += kind.__subclasses__()
    return found


def test_every_error_has_a_documented_code() -> None:
    documented = {cause.code for cause in CAUSES}
    kinds = [kind for kind in every_error() if kind.__module__ == "rawdl.errors"]
    codes = {kind: exit_code(kind.__new__(kind)) for kind in kinds if kind is not TLSError}
    assert set(codes.values()) <= documented
    assert len(codes) > 12 and all(code != 0 for code in codes.values())
    assert [kind for kind, code in codes.items() if code == 1] == [DownloadError]


def test_a_code_means_one_thing() -> None:
    codes = [cause.code for cause in CAUSES]
    assert sorted(set(codes)) == codes


@pytest.mark.parametrize(("certificate", "code"), [(False, 35), (True, 60)])
def test_a_certificate_is_told_apart_from_tls(certificate: bool, code: int) -> None:
    assert exit_code(TLSError("x", certificate=certificate)) == code


def test_a_message_is_one_printable_line() -> None:
    text = message("http://example.org/\x1b", rawdl.ProtocolError("bad\r\n\x9b\u202e\x1b]0;x\x07"))
    assert text.isprintable() and text.startswith("rawdl: http://example.org/\\x1b: bad")


def test_a_url_stands_in_a_message_once() -> None:
    error = StatusError("the server answered 404 for http://example.org/a", status_code=404)
    assert message("http://example.org/a", error) == "rawdl: http://example.org/a: the server answered 404"


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([], ""),
        (["/d/\x1b.part"], "; \\x1b.part is kept: the same command goes on from there"),
        (["/d/a.part", "/d/b.part"], "; 2 parts are kept: the same command goes on from there"),
    ],
)
def test_what_is_kept_is_told_in_printable_text(parts: list[str], text: str) -> None:
    assert kept_text(parts) == text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://example.org/a", "http://example.org/a"),
        ("http://joe:secret@example.org/a", "http://***@example.org/a"),
        ("http://joe:secret@example.org:0/a", "http://***@example.org:0/a"),
        ("http://joe:sec@ret@example.org/a", "http://***@example.org/a"),
        ("joe:secret@example.org", "***@example.org"),
        ("nonsense", "nonsense"),
    ],
)
def test_no_url_shows_its_password(given: str, expected: str) -> None:
    assert shown(given) == expected


def test_an_event_is_one_line_of_ascii() -> None:
    line = json_line("done", "http://example.org/", {"a": "\x7f\n\x1b\u202e\udc80", "url": "inner"})
    assert line.endswith(b"\n") and line.count(b"\n") == 1 and b"\x7f" not in line
    assert json.loads(line) == {"event": "done", "a": "\x7f\n\x1b\u202e\udc80", "url": "http://example.org/"}
