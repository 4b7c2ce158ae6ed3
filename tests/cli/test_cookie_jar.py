"""Files of cookies: what is written, and how."""

from __future__ import annotations

import os
import stat
import time
from http.cookiejar import Cookie, CookieJar
from pathlib import Path

import pytest

from rawdl.cookies import read_cookies, write_cookies

MAGIC = "# Netscape HTTP Cookie File\n"
LATER = 4_000_000_000  # seconds since 1970


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
