"""``--cookie-jar``: what servers have set is written, for the next command and for others that read the format."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from http.cookiejar import Cookie, CookieJar
from pathlib import Path

import pytest

from rawdl.cookies import read_cookies, write_cookies
from tests.cli.conftest import GUARD, Command, wait_for_event
from tests.origin import Origin, Script

pytestmark = pytest.mark.one_version

MAGIC = "# Netscape HTTP Cookie File\n"
LATER = 4_000_000_000  # seconds since 1970


def setting(*cookies: str, body: bytes = b"x", **options: object) -> Script:
    return Script(body=body, header=tuple(("Set-Cookie", cookie) for cookie in cookies), **options)


def cookie(name: str, value: str | None, **parts: object) -> Cookie:
    known = {"domain": "127.0.0.1", "path": "/", "secure": False, "expires": None, **parts}
    dot = known["domain"].startswith(".")
    known |= {"domain_specified": dot, "domain_initial_dot": dot, "discard": known["expires"] is None}
    rest = {"port": None, "port_specified": False, "comment": None, "comment_url": None, "rest": {}}
    return Cookie(0, name, value, path_specified=True, **known, **rest)


def lines(path: Path) -> list[str]:
    """Return the cookies in a file, sorted."""
    text = path.read_text()
    assert text.startswith(MAGIC)
    return sorted(line for line in text.splitlines() if line and not line.startswith("# "))


class TestCommand:
    def test_what_servers_set_goes_along_with_what_was_read(self, rawdl: Command, origin: Origin) -> None:
        (rawdl.folder / "old").write_text(f"{MAGIC}127.0.0.1\tFALSE\t/\tFALSE\t{LATER}\ta\told\n")
        url = origin.serve("/a", setting("b=1", "c=2; Expires=Wed, 01 Jan 2098 00:00:00 GMT; Path=/x"))
        assert rawdl("-q", "--cookie", "old", "--cookie-jar", "new", url) == (0, b"", "")
        assert lines(rawdl.folder / "new") == [
            "127.0.0.1\tFALSE\t/\tFALSE\t0\tb\t1",
            f"127.0.0.1\tFALSE\t/\tFALSE\t{LATER}\ta\told",
            "127.0.0.1\tFALSE\t/x\tFALSE\t4039372800\tc\t2",
        ]
        assert rawdl.files() == ["a", "new", "old"]

    def test_both_may_be_the_same_file_from_the_first_time_on(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", setting("n=1; Max-Age=1000", "s=1"), setting("n=2"), setting("s=1; Max-Age=0"))
        paths = ["jar", str(rawdl.folder / "jar"), "./jar"]
        for path in paths:
            assert rawdl("-q", "--cookie", path, "--cookie-jar", "jar", url).code == 0
        sent = [sorted((request.field("Cookie") or "").split("; ")) for request in origin.requests]
        assert sent == [[""], ["n=1", "s=1"], ["n=2", "s=1"]]
        assert lines(rawdl.folder / "jar") == ["127.0.0.1\tFALSE\t/\tFALSE\t0\tn\t2"]

    def test_without_one_to_read_it_begins_empty(self, rawdl: Command, origin: Origin) -> None:
        (rawdl.folder / "jar").write_text("whatever was there")
        (rawdl.folder / "jar").chmod(0o644)
        url = origin.serve("/a", setting("a=1"))
        assert rawdl("-q", "--cookie-jar", "jar", url).code == 0
        assert lines(rawdl.folder / "jar") == ["127.0.0.1\tFALSE\t/\tFALSE\t0\ta\t1"]
        assert stat.S_IMODE((rawdl.folder / "jar").stat().st_mode) == 0o600
        assert origin.wait_request().field("Cookie") is None

    def test_F5_it_is_as_strict_as_one_that_was_read(self, rawdl: Command, origin: Origin) -> None:
        """No cookie for other addresses (RFC 6265 5.1.3), and none that could not be sent."""
        url = origin.serve("/a", setting("a=1; Domain=.0.0.1", "b=\x01", "c=1"))
        assert rawdl("-q", "--cookie-jar", "jar", url).code == 0
        assert [line.split("\t")[5] for line in lines(rawdl.folder / "jar")] == ["c"]

    def test_what_would_break_the_file_is_not_in_it(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", setting("a=1\t2", "b=1; Path=/\tx", f"c=1; Max-Age={'9' * 300}", "d"))
        for _ in range(2):
            assert rawdl("-q", "--cookie", "jar", "--cookie-jar", "jar", url).code == 0
        fields = [line.split("\t")[2:] for line in lines(rawdl.folder / "jar")]
        assert fields == [
            ["/", "FALSE", "0", "", "d"],
            ["/", "FALSE", "253402300799", "c", "1"],
            ["/%09x", "FALSE", "0", "b", "1"],
        ]

    @pytest.mark.parametrize("ending", ["status", "redirect", "cut"])
    def test_a_download_that_failed_has_set_its_cookies(self, rawdl: Command, origin: Origin, ending: str) -> None:
        header = (("Set-Cookie", "a=1"), ("Location", "ftp://h/"))
        script = {
            "status": Script(status=404, body=b"", header=header),
            "redirect": Script(status=302, body=b"", header=header),
            "cut": Script(body=b"x" * 1000, cut_at=500, header=header),
        }[ending]
        outcome = rawdl("--retries", "0", "--no-resume", "--cookie-jar", "jar", origin.serve("/a", script))
        assert (outcome.code, rawdl.files()) == ({"status": 22, "redirect": 47, "cut": 18}[ending], ["jar"])
        assert [line.split("\t")[5:] for line in lines(rawdl.folder / "jar")] == [["a", "1"]]

    def test_so_has_one_that_was_interrupted(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", setting("a=1", body=b"x" * 100_000, stall_at=50_000))
        arguments = ["--json", "--no-resume", "--cookie-jar", "jar", url]
        with rawdl.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            wait_for_event(process, "headers")
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=GUARD)
        assert (process.returncode, told) == (143, b"rawdl: terminated\n")
        assert [line.split("\t")[5:] for line in lines(rawdl.folder / "jar")] == [["a", "1"]]

    @pytest.mark.parametrize(
        ("target", "words"),
        [
            ("nowhere/jar", "No such file or directory"),
            ("file/jar", "Not a directory"),
        ],
    )
    def test_a_folder_without_writing_is_told_before_anything_is_asked_for(
        self, rawdl: Command, origin: Origin, target: str, words: str
    ) -> None:
        (rawdl.folder / "file").touch()
        outcome = rawdl("--cookie-jar", target, origin.serve("/a", setting("a=1")))
        assert (outcome.code, outcome.complaint) == (23, f"rawdl: cannot write {target}: {words}")
        assert (rawdl.files(), origin.requests) == (["file"], [])

    @pytest.mark.parametrize(("path", "code"), [("/a", 23), ("/404", 22)])
    def test_what_cannot_be_written_is_one_line_more(
        self, rawdl: Command, origin: Origin, path: str, code: int
    ) -> None:
        """And the status is that of the first failure."""
        (rawdl.folder / "jar").mkdir()
        origin.serve("/a", setting("a=1"))
        outcome = rawdl("-q", "--cookie-jar", "jar", origin.url(path))
        assert outcome.code == code
        told = outcome.stderr.splitlines()
        assert told[-1] == "rawdl: cannot write jar: it is no regular file" and len(told) == (1 if code == 23 else 2)
        assert rawdl.files() == (["a"] if code == 23 else [])

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--cookie", "nowhere", "--cookie-jar", "jar"], "--cookie: nowhere: No such file"),
            (["--cookie", "bad", "--cookie-jar", "bad"], "--cookie: bad is no file of cookies"),
            (["--cookie-jar", ""], "an empty file name"),
        ],
    )
    def test_wrong_usage_changes_no_file(self, rawdl: Command, arguments: list[str], words: str) -> None:
        (rawdl.folder / "bad").write_text("secret")
        outcome = rawdl(*arguments, "http://h/a")
        assert (outcome.code, words in outcome.complaint, "secret" in outcome.complaint) == (2, True, False)
        assert (rawdl.files(), (rawdl.folder / "bad").read_text()) == (["bad"], "secret")

    @pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
    def test_octets_stay_what_they_are_in_any_locale(self, rawdl: Command, origin: Origin, locale: str) -> None:
        rawdl.environment |= {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        url = origin.serve("/a", setting("a=\xe2\x82\xac"))
        for _ in range(2):
            assert rawdl("-q", "--cookie", "jar", "--cookie-jar", "jar", url).code == 0
        assert "\ta\t€\n" in (rawdl.folder / "jar").read_text(encoding="utf-8")
        assert origin.requests[1].field("Cookie") == "a=\xe2\x82\xac"

    def test_a_host_without_a_dot_stands_in_the_file_as_others_have_it(self, rawdl: Command, origin: Origin) -> None:
        (rawdl.folder / "jar").write_text(f"{MAGIC}localhost\tFALSE\t/\tFALSE\t0\ta\t1\n")
        url = origin.serve("/a", setting("b=1"), setting("a=2")).replace("127.0.0.1", "localhost")
        for _ in range(2):
            assert rawdl("-q", "--cookie", "jar", "--cookie-jar", "jar", url).code == 0
        assert [request.field("Cookie") for request in origin.requests] == ["a=1", "a=1; b=1"]
        assert lines(rawdl.folder / "jar") == [f"localhost\tFALSE\t/\tFALSE\t0\t{field}" for field in ("a\t2", "b\t1")]

    def test_F6_a_jar_does_not_grow_for_ever(self, rawdl: Command, origin: Origin) -> None:
        for round in range(2):
            url = origin.serve("/a", setting(*(f"c{round}x{number}=1" for number in range(40))))
            assert rawdl("-q", "--cookie", "jar", "--cookie-jar", "jar", url).code == 0
        assert len(lines(rawdl.folder / "jar")) == 50


class TestFile:
    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            (cookie("a", "b"), True),
            (cookie("a", ""), True),
            (cookie("a", None), True),
            (cookie("a", "b c;d"), True),
            (cookie("a", "\xe9"), True),
            (cookie("a", "b", expires=LATER, secure=True, path="/x"), True),
            (cookie("a", "b", domain=".example.org"), True),
            (cookie("a", "b", expires=1), False),
            (cookie("a", "b", expires=-1), False),
            (cookie("a\t", "b"), False),
            (cookie("a", "b\nc"), False),
            (cookie("a", "b\rc"), False),
            (cookie("a", "b\x00c"), False),
            (cookie("a", "b", path="/\t"), False),
        ],
    )
    def test_what_is_written_is_what_is_read(self, tmp_path: Path, given: Cookie, kept: bool) -> None:
        jar, path = CookieJar(), str(tmp_path / "jar")
        for each in (given, cookie("other", "1")):
            jar.set_cookie(each)
        write_cookies(jar, path)
        parts = ("name", "value", "domain", "path", "secure", "expires", "discard")
        found = [tuple(getattr(each, part) for part in parts) for each in read_cookies(path)]
        wanted = [tuple(getattr(each, part) for part in parts) for each in jar]
        assert sorted(found, key=repr) == sorted((w for w in wanted if kept or w[0] == "other"), key=repr)
        assert len(jar) == 2  # which stays as it was

    @pytest.mark.parametrize("domain", ["::1", "localhost", "printer.local", "127.0.0.1", ".example.org"])
    def test_what_others_have_written_stays_as_it_is(self, tmp_path: Path, domain: str) -> None:
        path, below = tmp_path / "jar", "TRUE" if domain.startswith(".") else "FALSE"
        path.write_text(f"{MAGIC}{domain}\t{below}\t/\tFALSE\t0\ta\tb\n")
        before = path.read_text()
        write_cookies(read_cookies(str(path)), str(path))
        assert path.read_text() == before

    def test_it_is_written_in_one_step(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "jar"
        path.write_text("old")
        jar = CookieJar()
        jar.set_cookie(cookie("a", "b"))
        seen: list[tuple[str, int, str]] = []

        def replace(source: str, target: str) -> None:
            seen.append((path.read_text(), stat.S_IMODE(os.stat(source).st_mode), os.path.dirname(source)))
            raise OSError(5, "broken")

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            with pytest.raises(OSError, match="broken"):
                write_cookies(jar, str(path))
        assert seen == [("old", 0o600, str(tmp_path))]
        assert (path.read_text(), [each.name for each in tmp_path.iterdir()]) == ("old", ["jar"])

    def test_a_link_is_replaced_and_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "other").write_text("old")
        (tmp_path / "jar").symlink_to("other")
        write_cookies(CookieJar(), str(tmp_path / "jar"))
        assert not (tmp_path / "jar").is_symlink() and (tmp_path / "other").read_text() == "old"

    @pytest.mark.parametrize("kind", ["folder", "pipe", "link to a device"])
    def test_nothing_else_loses_its_place_to_it(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "jar"
        {
            "folder": path.mkdir,
            "pipe": lambda: os.mkfifo(path),
            "link to a device": lambda: path.symlink_to(os.devnull),
        }[kind]()
        before = path.lstat()
        with pytest.raises(FileExistsError, match="no regular file"):
            write_cookies(CookieJar(), str(path))
        assert path.lstat()[:3] == before[:3] and len(list(tmp_path.iterdir())) == 1

    def test_the_time_of_writing_decides_what_has_expired(self, tmp_path: Path) -> None:
        jar = CookieJar()
        for name, seconds in (("past", -10), ("future", 1000)):
            jar.set_cookie(cookie(name, "1", expires=int(time.time()) + seconds))
        write_cookies(jar, str(tmp_path / "jar"))
        assert [line.split("\t")[5] for line in lines(tmp_path / "jar")] == ["future"]
