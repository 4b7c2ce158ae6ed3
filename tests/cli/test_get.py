"""``rawdl URL...``: what it saves, what it says, and its exit status."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from tests.cli.conftest import GUARD, Command, wait_for_event
from tests.origin import Origin, Script
from tests.resource import Fault, Resource, redirect

BODY = bytes(range(256)) * 4096  # 1 MiB
# More than all the buffers between the origin and a reader that has stopped reading can hold.
LARGE = BODY * 64
# A name that would act on a terminal, and how it is told.
PASTED, TOLD = "\x1b]0;x\x07\x1b[2J\x9b\r\u202e", r"\x1b]0;x\x07\x1b[2J\x9b\x0d\u202e"


class TestFiles:
    def test_saves_under_the_last_segment_of_the_path(self, rawdl: Command, origin: Origin) -> None:
        outcome = rawdl(origin.serve("/a/b%20c.bin", Script(body=BODY)) + "?d/e")
        assert (outcome.code, outcome.stdout) == (0, b"")
        assert (rawdl.folder / "b c.bin").read_bytes() == BODY
        assert outcome.stderr.startswith("b c.bin  1.0 MiB in ") and outcome.stderr.count("\n") == 1

    @pytest.mark.contract("T43")
    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("/", "download"),
            ("/..%2f..%2Fpasswd", "passwd"),
            ("/%2e%2e", "download"),
            ("/%1b%5b2J", "_[2J"),
            ("/.profile", "_profile"),
            ("/-rf", "_rf"),
        ],
    )
    def test_T43_a_name_from_the_url_stays_in_the_folder(
        self, rawdl: Command, origin: Origin, path: str, name: str
    ) -> None:
        origin.serve("*", Script(body=b"x"))
        assert rawdl("-q", origin.url(path)) == (0, b"", "")
        assert rawdl.files() == [name]

    @pytest.mark.contract("E7")
    @pytest.mark.parametrize(
        ("path", "suggested", "name"),
        [
            ("/%1b%5d0;x%07%1b%5b2J%c2%9b%0d%0a.bin", None, "_]0;x__[2J___.bin"),
            ("/%e2%80%ae.bin", None, "_.bin"),
            ("/a", "%1b%5d0%3bx%07%1b%5b2J%c2%9b%0d%0a.bin", "_]0;x__[2J___.bin"),
            ("/a", "%e2%80%ae.bin", "_.bin"),
        ],
    )
    def test_E7_a_name_from_elsewhere_is_saved_and_told_without_control_characters(
        self, rawdl: Command, origin: Origin, path: str, suggested: str | None, name: str
    ) -> None:
        header = () if suggested is None else (("Content-Disposition", f"attachment; filename*=UTF-8''{suggested}"),)
        origin.serve("*", Script(body=b"x", header=header))
        arguments = [origin.url(path), *([] if suggested is None else ["-J"])]
        outcome = rawdl(*arguments)
        assert (outcome.code, outcome.stdout, rawdl.files()) == (0, b"", [name])
        assert outcome.stderr.startswith(f"{name}  1 B in ")
        assert outcome.stderr.removesuffix("\n").isprintable()

    @pytest.mark.contract("E7")
    @pytest.mark.parametrize(
        ("arguments", "code", "told"),
        [
            ([], 0, f"{TOLD}  1 B in "),
            (["--skip-existing"], 0, f"{TOLD}  3 B  (skipped"),
            (["--no-clobber"], 23, f"/a: {TOLD} exists already"),
        ],
    )
    def test_E7_a_name_of_the_users_is_told_without_control_characters(
        self, rawdl: Command, origin: Origin, arguments: list[str], code: int, told: str
    ) -> None:
        """It was pasted, perhaps; the file has it all the same."""
        (rawdl.folder / PASTED).write_text("old")
        outcome = rawdl(*arguments, "-o", PASTED, origin.serve("/a", Script(body=b"x")))
        assert (outcome.code, rawdl.files()) == (code, [PASTED])
        assert told in outcome.stderr and outcome.stderr.removesuffix("\n").isprintable()

    @pytest.mark.contract("E7")
    @pytest.mark.usefixtures("leaves_parts")
    def test_E7_nor_is_that_of_a_part(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Resource(BODY, faults=[Fault(in_body=500_000)]))
        outcome = rawdl("--retries", "0", "-o", PASTED, url)
        assert (outcome.code, rawdl.files()) == (18, [f"{PASTED}.part", f"{PASTED}.part.json"])
        assert f"; {TOLD}.part is kept" in outcome.complaint and outcome.complaint.isprintable()

    def test_makes_the_folder_of_d_and_saves_there(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(body=BODY))
        assert rawdl("-q", "-d", "new/folder", url).code == 0
        assert rawdl("-q", "-d", "new/folder", "-o", "b", url).code == 0
        assert rawdl.files() == ["new/folder/a", "new/folder/b"]

    def test_get_is_the_same(self, rawdl: Command, origin: Origin) -> None:
        assert rawdl("get", "-q", origin.serve("/a", Script(body=BODY)), "-o", "b").code == 0
        assert (rawdl.folder / "b").read_bytes() == BODY

    def test_saves_several_urls_at_once(self, rawdl: Command, origin: Origin) -> None:
        # Neither is answered before both are asked for.
        both = threading.Barrier(2)

        def answer(request: object) -> Script:
            both.wait(GUARD)
            return Script(body=BODY)

        with Origin() as other:
            outcome = rawdl(origin.serve("/a", answer), other.serve("/b", answer))
        assert outcome.code == 0
        assert {line.split()[0] for line in outcome.stderr.splitlines()} == {"a", "b"}
        assert rawdl.files() == ["a", "b"]

    def test_options_may_stand_between_the_urls(self, rawdl: Command, origin: Origin) -> None:
        urls = [origin.serve(path, Script(body=b"x")) for path in ("/a", "/b")]
        assert rawdl(urls[0], "-q", urls[1]).code == 0
        assert rawdl.files() == ["a", "b"]

    def test_the_null_device_takes_the_body(self, rawdl: Command, origin: Origin) -> None:
        outcome = rawdl(origin.serve("/a", Script(body=BODY)), "-o", os.devnull)
        assert outcome.code == 0 and outcome.stderr.startswith(f"{os.devnull}  1.0 MiB")
        assert rawdl.files() == []

    def test_an_existing_file_is_replaced_only_by_a_whole_one(self, rawdl: Command, origin: Origin) -> None:
        (rawdl.folder / "a").write_text("old")
        url = origin.serve("/a", Script(body=BODY, cut_at=1000), Script(body=BODY))
        assert rawdl("--retries", "0", url).code == 18
        assert (rawdl.folder / "a").read_text() == "old"
        assert rawdl(url).code == 0
        assert (rawdl.folder / "a").read_bytes() == BODY

    @pytest.mark.parametrize("flags", [[], ["--overwrite"]])
    def test_an_existing_file_is_replaced_unless_told_otherwise(
        self, rawdl: Command, origin: Origin, flags: list[str]
    ) -> None:
        (rawdl.folder / "a").write_text("old")
        assert rawdl("-q", *flags, origin.serve("/a", Script(body=BODY))).code == 0
        assert (rawdl.folder / "a").read_bytes() == BODY

    @pytest.mark.contract("S31")
    def test_S31_a_skipped_file_is_left_alone_and_gets_one_line(self, rawdl: Command, origin: Origin) -> None:
        (rawdl.folder / "a").write_text("old")
        urls = [origin.serve(path, Script(body=BODY)) for path in ("/a", "/b")]
        outcome = rawdl("--skip-existing", *urls)
        assert (outcome.code, [request.path for request in origin.requests]) == (0, ["/b"])
        skipped, saved = sorted(outcome.stderr.splitlines())
        assert skipped == "a  3 B  (skipped: it was there already)" and saved.startswith("b  1.0 MiB in ")
        assert (rawdl.folder / "a").read_text() == "old"
        assert json.loads(rawdl("--skip-existing", "--json", urls[0]).stdout.splitlines()[-1])["skipped"] is True

    @pytest.mark.parametrize("named", [False, True])
    def test_a_checksum_that_fits(self, rawdl: Command, origin: Origin, named: bool) -> None:
        url = origin.serve("/a", Script(body=BODY))
        flags = ["-o", "b"] if named else []
        assert rawdl("-q", "--checksum", f"SHA-256:{sha256(BODY).hexdigest().upper()}", *flags, url) == (0, b"", "")
        assert rawdl.files() == ["b" if named else "a"]

    def test_compressed_content_is_asked_for_and_decompressed(self, rawdl: Command, origin: Origin) -> None:
        header = (("Content-Encoding", "gzip"),)
        url = origin.serve("/a", Script(body=gzip.compress(b"hello" * 100), header=header))
        outcome = rawdl("--compressed", url)
        assert (outcome.code, (rawdl.folder / "a").read_bytes()) == (0, b"hello" * 100)
        assert "gzip" in (origin.wait_request().field("Accept-Encoding") or "")
        assert "saved as sent" not in outcome.stderr
        url = origin.serve("/b", Script(body=b"hello", header=header))
        assert (rawdl("--compressed", url).code, rawdl.files()) == (61, ["a"])

    @pytest.mark.parametrize("flag", [None, "-J", "--suggested-name"])
    def test_T43_the_servers_name_on_demand(self, rawdl: Command, origin: Origin, flag: str | None) -> None:
        script = Script(body=b"x", header=(("Content-Disposition", 'attachment; filename="b\u009b.txt"'),))
        urls = [origin.serve(path, script) for path in ("/a", "/x/a")][: 2 if flag else 1]
        outcome = rawdl(*([flag] if flag else []), "-d", "new", *urls)
        assert outcome.code == 0
        names = sorted(path.name for path in (rawdl.folder / "new").iterdir())
        assert names == (["b_.1.txt", "b_.txt"] if flag else ["a"])
        assert sorted(line.split()[0] for line in outcome.stderr.splitlines()) == [f"new/{name}" for name in names]

    @pytest.mark.parametrize("flag", [None, "-R", "--remote-time"])
    def test_the_servers_date_on_demand(self, rawdl: Command, origin: Origin, flag: str | None) -> None:
        url = origin.serve("/a", Resource(b"x", last_modified="Wed, 21 Oct 2015 07:28:00 GMT"))
        assert rawdl("-q", *([flag] if flag else []), url).code == 0
        assert ((rawdl.folder / "a").stat().st_mtime == 1_445_412_480) == (flag is not None)

    def test_says_what_is_odd_about_the_file(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(body=b"x", framing="until-close", header=(("Content-Encoding", "gz\x1bip"),)))
        assert "(saved as sent: gz\\x1bip)  (the server did not say how long it is)" in rawdl(url).stderr

    @pytest.mark.contract("H9")
    def test_H9_warns_of_what_came_behind_the_end(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(body=b"hello, world", content_length=5))
        outcome = rawdl(url)
        assert (outcome.code, (rawdl.folder / "a").read_bytes()) == (0, b"hello")
        assert outcome.stderr.endswith("  (warning: 7 bytes came behind its end, and were dropped)\n")

    @pytest.mark.parametrize(
        ("name", "media_type", "told"),
        [
            ("a.zip", "text/html; charset=utf-8", True),
            ("a.tar.gz", "Text/HTML", True),
            ("A.ISO", "text/html", True),
            ("a.zip", "application/x-nonsense", False),
            ("a.zip", None, False),
            ("a.html", "text/html", False),
            ("a.xhtml", "text/html", False),
            ("a.php", "text/html", False),
            ("a", "text/html", False),
        ],
    )
    def test_N21_H10_says_that_a_web_page_came_instead(
        self, rawdl: Command, origin: Origin, name: str, media_type: str | None, told: bool
    ) -> None:
        """The page of a captive portal: whatever the type, the file is what came, and only a checksum fails."""
        header = () if media_type is None else (("Content-Type", media_type),)
        outcome = rawdl(origin.serve(f"/{name}", Script(body=b"log in", header=header)))
        assert (outcome.code, (rawdl.folder / name).read_bytes()) == (0, b"log in")
        assert ("web page" in outcome.stderr) == told

    def test_sends_header_fields(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(body=b"x"))
        rawdl("-H", "X-A: 1", "-H", "x-a:2", "-H", "Cookie: a=b", "-H", "Cookie: c=d", "-H", "Accept:", "-q", url)
        request = origin.wait_request()
        assert request.field("X-A") == "1, 2"
        assert request.field("Cookie") == "a=b; c=d"
        assert request.field("Accept") is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are in Unicode, whatever the locale")
@pytest.mark.parametrize("arguments", [[], ["-J"]])
def test_a_name_is_the_same_in_a_locale_that_lacks_its_characters(
    rawdl: Command, origin: Origin, arguments: list[str]
) -> None:
    named = ("Content-Disposition", "attachment; filename*=UTF-8''%F0%9F%8E%89%C3%BC")
    url = origin.serve("/%F0%9F%8E%89%C3%BC", Script(body=BODY, header=(named,)))
    rawdl.environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert rawdl("-q", *arguments, url) == (0, b"", "")
    assert rawdl.files() == ["\N{PARTY POPPER}ü"]


class TestCredentials:
    @pytest.mark.parametrize("arguments", [["-u", "user:pass:word"], ["--user", "user:pass:word"]])
    def test_a_user_and_a_password(self, rawdl: Command, origin: Origin, arguments: list[str]) -> None:
        assert rawdl("-q", *arguments, origin.serve("/a", Script(body=b"x"))).code == 0
        assert origin.wait_request().field("Authorization") == "Basic dXNlcjpwYXNzOndvcmQ="

    def test_a_password_is_asked_for_and_not_shown(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(body=b"x"))
        master, slave = os.openpty()
        with rawdl.start("-u", "user", url, stdin=slave, stderr=slave, start_new_session=True) as process:
            os.close(slave)
            written = b""
            while b"Password of user: " not in written:
                written += os.read(master, 1000)
            os.write(master, b"secret\n")
            assert process.wait(GUARD) == 0
            written += os.read(master, 10_000)
            os.close(master)
        assert b"secret" not in written
        assert origin.wait_request().field("Authorization") == "Basic dXNlcjpzZWNyZXQ="

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process cannot change its command line")
    @pytest.mark.parametrize(
        "arguments",
        [
            ["-u", "user:canary"],
            ["--user=user:canary"],
            ["-H", "X-Token:  canary"],
            ["--proxy", "http://user:canary@{host}"],
            ["http://user:canary@{host}/b"],
            ["http://{host}/b?x=1&X-Amz-Signature=canary"],
            ["-e", "http://user:canary@{host}/"],
            ["-b", "a=canary"],
            ["--oauth2-bearer", "canary"],
        ],
    )
    def test_A9_a_secret_does_not_stay_in_the_list_of_processes(
        self, rawdl: Command, origin: Origin, arguments: list[str]
    ) -> None:
        url = origin.serve("/a", Script(body=b"x", stall_at=0))
        arguments = [text.format(host=f"127.0.0.1:{origin.port}") for text in arguments]
        with rawdl.start("-q", *arguments, url) as process:
            origin.wait_request()
            shown = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
            process.terminate()
        assert url in shown
        assert "canary" not in "".join(shown)
        assert "******" in "".join(shown)

    def test_a_password_without_anybody_to_ask(self, rawdl: Command) -> None:
        outcome = rawdl("-u", "user", "http://h/a")
        assert (outcome.code, "no terminal" in outcome.complaint) == (2, True)

    def test_a_digest(self, rawdl: Command, origin: Origin) -> None:
        field = ("WWW-Authenticate", 'Digest realm="r", nonce="n"')
        url = origin.serve("/a", Script(status=401, reason="Who", header=(field,)))
        assert rawdl("-q", "-u", "user:secret", "--digest", url).code == 22
        assert origin.wait_request().field("Authorization") is None
        assert 'username="user"' in (origin.wait_request(2).field("Authorization") or "")

    def test_a_netrc(self, rawdl: Command, origin: Origin) -> None:
        rawdl.environment |= {"HOME": str(rawdl.folder)}
        rawdl.environment.pop("NETRC", None)
        netrc = rawdl.folder / ".netrc"
        url = origin.serve("/a", Script(body=b"x"))
        assert rawdl("-q", "-n", url).code == 0
        netrc.write_text("machine 127.0.0.1 login user password secret")
        assert rawdl("-q", "-n", url).code == 0
        assert [request.field("Authorization") for request in origin.requests] == [None, "Basic dXNlcjpzZWNyZXQ="]
        netrc.write_text("machine a login b secret c")
        outcome = rawdl("-n", url)
        assert (outcome.code, "secret" in outcome.complaint) == (2, False)
        assert outcome.complaint.startswith(f"rawdl: -n: {netrc}, line 1: this is no netrc entry")

    @pytest.mark.parametrize("given", ["flag", "environment", "none"])
    def test_a_proxy(self, rawdl: Command, origin: Origin, given: str) -> None:
        """The origin is the proxy here."""
        url = origin.serve("/a", Script(body=b"x"))
        origin.serve("http://h.example.org/a", Script(body=b"y"))
        proxy = url.removesuffix("/a")
        if given != "flag":
            rawdl.environment["http_proxy"] = proxy
        arguments = {"flag": ["--proxy", proxy], "environment": [], "none": ["--proxy", "none"]}[given]
        outcome = rawdl("-q", *arguments, url if given == "none" else "http://h.example.org/a")
        assert (outcome.code, (rawdl.folder / "a").read_bytes()) == (0, b"x" if given == "none" else b"y")

    @pytest.mark.parametrize(
        ("arguments", "code"), [(["--proxy", "ftp://u:secret@p"], 2), (["--proxy", "http://127.0.0.1:1"], 7)]
    )
    def test_a_proxy_that_is_none(self, rawdl: Command, arguments: list[str], code: int) -> None:
        outcome = rawdl("--retries", "0", *arguments, "http://h.example.org/a")
        assert (outcome.code, "secret" in outcome.complaint, "proxy" in outcome.complaint) == (code, False, True)

    @pytest.mark.parametrize(
        ("arguments", "netrc", "words"),
        [
            (["--proxy", "ftp://p"], "", "--proxy: invalid proxy"),
            (["--proxy", "ftp://p", "-n"], "", "--proxy: invalid proxy"),
            (["--proxy", "http://p", "-n"], "nonsense", "-n: {netrc}, line 1"),
            (["--proxy", "http://p", "-n"], None, "-n: [Errno"),
            (["--proxy", "none", "-n"], "nonsense", "-n: {netrc}, line 1"),
        ],
    )
    def test_which_option_it_is_that_is_wrong(
        self, rawdl: Command, arguments: list[str], netrc: str | None, words: str
    ) -> None:
        """And nothing is made before that is known."""
        path = rawdl.folder / "netrc"
        path.mkdir() if netrc is None else path.write_text(netrc)
        rawdl.environment["NETRC"] = str(path)
        outcome = rawdl(*arguments, "-d", "new", "http://h/a")
        assert (outcome.code, (rawdl.folder / "new").exists()) == (2, False)
        assert outcome.complaint.startswith(f"rawdl: {words.format(netrc=path)}")

    def test_cookies(self, rawdl: Command, origin: Origin) -> None:
        jar = rawdl.folder / "jar"
        jar.write_text(
            "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tid\tsecret\n"
            "example.org\tFALSE\t/\tFALSE\t0\tother\tsecret\n"
        )
        assert rawdl("-q", "--cookie", "jar", origin.serve("/a", Script(body=b"x"))).code == 0
        assert origin.wait_request().field("Cookie") == "id=secret"

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (None, "No such file"),
            ("secret", "Netscape"),
            ("# Netscape HTTP Cookie File\nsecret", "Netscape"),
            ("\xff", "jar"),
        ],
    )
    def test_what_is_no_file_of_cookies(self, rawdl: Command, content: str | None, words: str) -> None:
        if content is not None:
            (rawdl.folder / "jar").write_bytes(content.encode("latin-1"))
        outcome = rawdl("--cookie", "jar", "http://h/a")
        assert (outcome.code, words in outcome.complaint, "secret" in outcome.complaint) == (2, True, False)


class TestRedirects:
    def test_are_followed_and_reported_in_json(self, rawdl: Command, origin: Origin) -> None:
        with Origin() as other:
            middle = origin.serve("/middle", redirect(other.serve("/b", Script(body=BODY)), 307))
            first = origin.serve("/a", redirect("middle"))
            outcome = rawdl("--json", first)
        done = json.loads(outcome.stdout.splitlines()[-1])
        assert (outcome.code, outcome.stderr, done["redirects"]) == (0, "", [first, middle])
        assert (rawdl.folder / "a").read_bytes() == BODY and rawdl.files() == ["a"]  # the name is the user's choice

    def test_what_is_secret_stays_with_its_origin(self, rawdl: Command, origin: Origin) -> None:
        with Origin() as other:
            url = origin.serve("/a", redirect(other.serve("/a", Script(body=b"x"))))
            assert rawdl("-q", "-H", "Authorization: secret", "-H", "Accept: a/b", url).code == 0
            assert origin.requests[0].field("Authorization") == "secret"
            assert other.requests[0].field("Authorization") is None
            assert other.requests[0].field("Accept") == "a/b"

    @pytest.mark.parametrize(("limit", "code"), [("2", 0), ("1", 47)])
    def test_a_limit(self, rawdl: Command, origin: Origin, limit: str, code: int) -> None:
        origin.serve("/2", Script(body=b"x"))
        origin.serve("/1", redirect("/2"))
        outcome = rawdl("--max-redirects", limit, origin.serve("/0", redirect("/1")))
        assert outcome.code == code and ("too many redirects" in outcome.stderr) == (code == 47)

    def test_ten_are_followed_if_nothing_is_said(self, rawdl: Command, origin: Origin) -> None:
        origin.serve("/last", Script(body=b"x"))
        for n in range(11):
            origin.serve(f"/{n}", redirect("/last" if n == 10 else f"/{n + 1}"))
        assert [rawdl("-q", origin.url(path)).code for path in ("/1", "/0")] == [0, 47]

    @pytest.mark.parametrize(("flags", "code"), [([], 47), (["--allow-downgrade"], 0)])
    def test_to_plain_http_on_demand_only(
        self, rawdl: Command, origin: Origin, tls_origin: Origin, ca_file: Path, flags: list[str], code: int
    ) -> None:
        url = tls_origin.serve("/a", redirect(origin.serve("/a", Script(body=b"x"))))
        outcome = rawdl("--cacert", str(ca_file), *flags, url)
        assert outcome.code == code and len(origin.requests) == (code == 0)
        assert ("from https to http" in outcome.stderr) == (code == 47)


class TestFailures:
    """One line on standard error, the documented status, and no file."""

    def check(self, rawdl: Command, code: int, *arguments: str) -> str:
        before = rawdl.files()
        outcome = rawdl("--retries", "0", *arguments)
        assert outcome.complaint.startswith("rawdl: ") and outcome.code == code, outcome
        assert rawdl.files() == before
        return outcome.complaint

    @pytest.mark.parametrize("url", ["example.org/a", "ftp://example.org/a", "http://", "http://127.0.0.1:70000/a", ""])
    def test_a_url_that_is_none(self, rawdl: Command, url: str) -> None:
        assert f"rawdl: {url}: invalid URL: " in self.check(rawdl, 3, url)

    def test_a_host_that_does_not_resolve(self, rawdl: Command) -> None:
        assert "nowhere.invalid" in self.check(rawdl, 6, "http://nowhere.invalid/a")

    def test_a_closed_port(self, rawdl: Command) -> None:
        with Origin(on_accept="refuse") as origin:
            assert f"127.0.0.1:{origin.port}" in self.check(rawdl, 7, origin.url("/a"))

    def test_plain_http_on_a_tls_port(self, rawdl: Command, origin: Origin) -> None:
        assert "plain http?" in self.check(rawdl, 35, origin.url("/a").replace("http:", "https:"))

    def test_a_certificate_that_nobody_vouches_for(self, rawdl: Command, tls_origin: Origin) -> None:
        assert "certificate not accepted" in self.check(rawdl, 60, tls_origin.url("/a"))

    def test_a_certificate_for_another_host(self, rawdl: Command, ca: object, ca_file: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("example.org").configure_cert(context)
        with Origin(tls=context) as origin:
            assert "127.0.0.1" in self.check(rawdl, 60, "--cacert", str(ca_file), origin.url("/a"))

    @pytest.mark.parametrize(("content", "words"), [(None, "No such file"), ("no PEM", "no certificate")])
    def test_a_ca_file_that_is_none(self, rawdl: Command, content: str | None, words: str) -> None:
        if content is not None:
            (rawdl.folder / "ca.pem").write_text(content)
        assert words in self.check(rawdl, 77, "--cacert", "ca.pem", "https://127.0.0.1/a")

    def test_a_folder_as_the_output(self, rawdl: Command, origin: Origin, make_folder: Callable[[str], Path]) -> None:
        make_folder("folder")
        self.check(rawdl, 23, origin.serve("/a", Script(body=b"x")), "-o", "folder")
        assert origin.requests == []  # found before anything was asked for

    def test_a_folder_that_is_not_there(self, rawdl: Command, origin: Origin) -> None:
        self.check(rawdl, 23, origin.serve("/a", Script(body=b"x")), "-o", "nowhere/a")

    def test_a_folder_that_cannot_be_made(self, rawdl: Command) -> None:
        (rawdl.folder / "file").touch()
        self.check(rawdl, 23, "http://127.0.0.1/a", "-d", "file/folder")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_read_only_folder(self, rawdl: Command, origin: Origin, make_folder: Callable[[str], Path]) -> None:
        make_folder("folder").chmod(0o500)
        self.check(rawdl, 23, origin.serve("/a", Script(body=b"x")), "-d", "folder")

    @pytest.mark.parametrize("framing", ["content-length", "chunked"])
    def test_a_full_disk(self, rawdl: Command, origin: Origin, framing: str) -> None:
        url = origin.serve("/a", Script(body=BODY, framing=framing))
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))"
        outcome = rawdl.after(limit, "--retries", "0", url)
        assert (outcome.code, rawdl.files()) == (23, [])
        assert "a.part: File too large" in outcome.complaint

    @pytest.mark.parametrize(
        ("script", "code"),
        [
            pytest.param(Script(body=BODY, cut_at=0), 18, id="before the head"),
            pytest.param(Script(body=BODY, cut_at=20), 18, id="in the head"),
            pytest.param(Script(body=BODY, cut_at=20, cut="rst"), 56, id="in the head, reset"),
            pytest.param(Script(body=BODY, cut_at=500_000), 18, id="in the body"),
            pytest.param(Script(body=BODY, cut_at=500_000, cut="rst"), 18, id="in the body, reset"),
            pytest.param(Script(body=BODY, cut_at=500_000, framing="chunked"), 18, id="in a chunk"),
        ],
    )
    def test_a_server_that_closes(self, rawdl: Command, origin: Origin, script: Script, code: int) -> None:
        self.check(rawdl, code, origin.serve("/a", script))

    @pytest.mark.parametrize(
        "raw",
        [b"220 ready\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200_000, b"\0" * 100_000, b"\x1b]0;x\x07" * 20000],
    )
    def test_a_server_that_sends_garbage(self, rawdl: Command, origin: Origin, raw: bytes) -> None:
        self.check(rawdl, 8, origin.serve("/a", Script(raw=raw + b"\r\n\r\n")))

    @pytest.mark.contract("T22")
    @pytest.mark.parametrize("status", [400, 404, 500, 599])
    def test_T22_a_status_that_tells_of_an_error(self, rawdl: Command, origin: Origin, status: int) -> None:
        url = origin.serve("/a", Script(status=status, body=b"sorry"))
        assert self.check(rawdl, 22, url) == f"rawdl: {url}: the server answered {status}"

    @pytest.mark.parametrize("status", [204, 205, 304])
    def test_a_status_without_anything_to_save(self, rawdl: Command, origin: Origin, status: int) -> None:
        url = origin.serve("/a", Script(status=status, reason="R", framing="none", keep_alive=False))
        assert self.check(rawdl, 22, url) == f"rawdl: {url}: the server answered {status} R: there is nothing to save"

    @pytest.mark.contract("S40")
    @pytest.mark.parametrize(("status", "flags"), [(302, ["--max-redirects", "0"]), (300, []), (305, [])])
    def test_S40_a_redirect_that_is_not_followed_is_not_saved(
        self, rawdl: Command, origin: Origin, status: int, flags: list[str]
    ) -> None:
        url = origin.serve("/a", redirect("/b", status))
        assert self.check(rawdl, 22, url, *flags).endswith(", to /b: it is not followed")
        assert len(origin.requests) == 1

    def test_the_password_of_a_redirect_that_is_not_followed_is_not_shown(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", redirect("http://joe:secret@127.0.0.1/a"))
        complaint = self.check(rawdl, 22, url, "--max-redirects", "0")
        assert "***@127.0.0.1/a" in complaint and "secret" not in complaint

    @pytest.mark.parametrize(
        ("location", "words"),
        [
            ("/a", "a loop"),
            ("ftp://127.0.0.1/a", "neither http nor https"),
            ("http://joe:secret@127.0.0.1/a", "user name or password"),
            ("/a\tb", "control character"),
        ],
    )
    def test_a_redirect_that_leads_nowhere(self, rawdl: Command, origin: Origin, location: str, words: str) -> None:
        complaint = self.check(rawdl, 47, origin.serve("/a", redirect(location)))
        assert words in complaint and "secret" not in complaint
        assert len(origin.requests) == 1

    @pytest.mark.contract("E8")
    @pytest.mark.parametrize("flags", [[], ["--max-redirects", "0"]])
    def test_E8_nothing_that_a_server_says_acts_on_the_terminal(
        self, rawdl: Command, origin: Origin, flags: list[str]
    ) -> None:
        location = "\x1b]0;x\x07\x1b[2J\x9b\x7f"
        url = origin.serve("/a", Script(status=302, reason="\x1b[31mred", header=(("Location", location),)))
        complaint = self.check(rawdl, 22 if flags else 47, url, *flags)
        assert complaint.isprintable() and "\\x1b]0;x\\x07" in complaint

    def test_an_existing_file_on_demand(self, rawdl: Command, origin: Origin) -> None:
        (rawdl.folder / "a").write_text("old")
        complaint = self.check(rawdl, 23, "--no-clobber", origin.serve("/a", Script(body=BODY)))
        assert complaint.endswith(": a exists already") and origin.requests == []
        assert (rawdl.folder / "a").read_text() == "old"

    def test_a_checksum_that_does_not_fit(self, rawdl: Command, origin: Origin) -> None:
        promised = f"sha256:{'0' * 64}"
        complaint = self.check(rawdl, 32, "--checksum", promised, origin.serve("/a", Resource(BODY)))
        assert promised in complaint and sha256(BODY).hexdigest() in complaint

    @pytest.mark.parametrize(
        "script",
        [Script(body=BODY, head_delay=GUARD), Script(body=BODY, stall_at=20), Script(body=BODY, stall_at=500_000)],
    )
    def test_a_server_that_stalls(self, rawdl: Command, origin: Origin, script: Script) -> None:
        assert "total time limit of 0.5 s" in self.check(rawdl, 28, "--timeout", "0.5", origin.serve("/a", script))

    def test_of_several_failures_the_first_url_decides(self, rawdl: Command, origin: Origin) -> None:
        slow = origin.serve("/slow", Script(body=BODY, head_delay=0.5, cut_at=1000))
        good = origin.serve("/good", Script(body=BODY))
        outcome = rawdl(good, slow, origin.url("/404"), "-q", "--retries", "0")
        assert outcome.code == 18
        assert {line.split()[1] for line in outcome.stderr.splitlines()} == {f"{slow}:", f"{origin.url('/404')}:"}
        assert rawdl.files() == ["good"]

    @pytest.mark.parametrize("url", ["http://joe:secret@127.0.0.1:1/a", "http://joe:secret@h:0/", "joe:secret@h"])
    def test_a_password_is_not_shown(self, rawdl: Command, url: str) -> None:
        for arguments in ([url], [url, "--json"], [url, url]):
            outcome = rawdl("--retries", "0", *arguments)
            assert "***@" in outcome.stderr
            assert "secret" not in outcome.stderr and b"secret" not in outcome.stdout


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ([], "no URL"),
            (["-z", "http://h/"], "-z"),
            (["--time", "5", "http://h/"], "--time"),
            (["-o", "a", "http://h/", "http://i/"], "2 URLs"),
            (["-o", "-", "--json", "http://h/"], "standard output"),
            (["-o", "a", "-J", "http://h/"], "-o and -J both name the file"),
            (["--pinnedpubkey", "x", "https://h/"], "a pin is sha256//"),
            (["--key", "x", "https://h/"], "--key is of no use"),
            (["-c", "--compressed", "http://h/"], "--compressed cannot"),
            (["--digest", "http://h/"], "--digest needs a user"),
            (["-u", "a\nb:secret", "http://h/"], "control characters"),
            (["-o", "", "http://h/"], "empty"),
            (["http://h/a", "http://i/a?b"], "http://h/a and http://i/a?b would both be saved as a"),
            (["-r", "5-2", "http://h/"], "the range 5-2 ends before it begins"),
            (["-r", f"0-{'9' * 5000}", "http://h/"], "0-499"),
            (["-H", "nonsense", "http://h/"], "Name: value"),
            (["-H", "a b: c", "http://h/"], "a b"),
            (["-H", "a: b\nc: d", "http://h/"], "value of a"),
            (["-H", "Content-Length: 1", "http://h/"], "Content-Length"),
            (["--timeout", "0", "http://h/"], "--timeout"),
            (["--timeout", "nan", "http://h/"], "--timeout"),
            (["--retries", "-1", "http://h/"], "--retries"),
            (["--retries", "x", "http://h/"], "--retries"),
            (["--max-redirects", "1.5", "http://h/"], "--max-redirects"),
            (["--checksum", "sha256:00", "http://h/"], "64 hexadecimal digits"),
            (["--checksum", "nonsense:00", "http://h/"], "'nonsense'"),
            (["--checksum", f"md5:{'0' * 32}", "http://h/a", "http://h/b"], "2 URLs"),
            (["--no-clobber", "--overwrite", "http://h/"], "--no-clobber"),
            (["--skip-existing", "--no-clobber", "http://h/"], "--no-clobber"),
            (["-c", "--no-resume", "http://h/"], "--no-resume"),
            (["-c", "-o", "-", "http://h/"], "-o -"),
            (["demo", "--size", "0"], "--size"),
            (["demo", "--size", "x"], "--size"),
        ],
    )
    def test_wrong_usage_is_told_in_one_line(self, rawdl: Command, arguments: list[str], words: str) -> None:
        outcome = rawdl(*arguments)
        assert (outcome.code, rawdl.files()) == (2, [])
        assert outcome.complaint.startswith("rawdl: ") and words in outcome.complaint


class TestTLS:
    def test_a_ca_file_is_trusted(self, rawdl: Command, tls_origin: Origin, ca_file: Path) -> None:
        url = tls_origin.serve("/a", Script(body=BODY))
        assert rawdl("-q", "--cacert", str(ca_file), url) == (0, b"", "")
        assert (rawdl.folder / "a").read_bytes() == BODY

    @pytest.mark.parametrize(
        "arguments",
        [["--cert", "none"], ["--cert", "none", "--key", "other"], ["--cacert", "none"], ["--capath", "none"]],
    )
    def test_a_certificate_that_is_not_there(self, rawdl: Command, arguments: list[str]) -> None:
        outcome = rawdl(*arguments, "https://h/a")
        assert (outcome.code, outcome.complaint) == (
            77,
            f"rawdl: certificates in {', '.join(arguments[1::2])}: No such file or directory",
        )

    def test_another_key_than_the_pinned_one(self, rawdl: Command, tls_origin: Origin, ca_file: Path) -> None:
        url = tls_origin.serve("/a", Script(body=BODY))
        other = f"sha256//{'A' * 43}="
        outcome = rawdl("--cacert", str(ca_file), "--pinnedpubkey", other, url)
        assert (outcome.code, tls_origin.requests) == (90, [])
        pin = outcome.complaint.partition("public key is ")[2].partition(",")[0]
        assert rawdl("-q", "--cacert", str(ca_file), "--pinnedpubkey", other, "--pinnedpubkey", pin, url).code == 0

    def test_k_accepts_anybody_and_warns_once(self, rawdl: Command, tls_origin: Origin) -> None:
        urls = [tls_origin.serve(path, Script(body=b"x")) for path in ("/a", "/b")]
        outcome = rawdl("-k", *urls)
        assert outcome.code == 0
        warning, *saved = outcome.stderr.splitlines()
        assert warning.startswith("rawdl: warning:") and len(saved) == 2
        assert rawdl("-k", "-q", *urls) == (0, b"", "")


class TestStandardOutput:
    def test_gets_the_body_and_nothing_else(self, rawdl: Command, origin: Origin) -> None:
        outcome = rawdl("-o", "-", origin.serve("/a", Script(body=BODY, framing="chunked")))
        assert (outcome.code, outcome.stdout) == (0, BODY)
        assert outcome.stderr.startswith("stdout  1.0 MiB in ")

    @pytest.mark.parametrize("arguments", [["-o", "-"], ["--json"]])
    def test_K8_whose_reader_has_gone_ends_the_command_without_a_word(
        self, rawdl: Command, origin: Origin, arguments: list[str]
    ) -> None:
        url = origin.serve("/a", Script(body=LARGE))
        with rawdl.start(*arguments, url, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            if arguments == ["--json"]:
                process.stdout.close()
            else:
                process.stdout.read(10)
                process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(GUARD) == 23
        assert rawdl.files() == []

    @pytest.mark.parametrize("arguments", [["-o", "-"], ["--json"], ["--dry-run"]])
    def test_K8_that_is_closed_is_an_error(self, rawdl: Command, origin: Origin, arguments: list[str]) -> None:
        url = origin.serve("/a", Script(body=BODY))
        outcome = rawdl.outcome(["sh", "-c", 'exec "$@" >&-', "sh", *rawdl.argv(*arguments, url)])
        assert (outcome.code, rawdl.files()) == (23, [])
        assert outcome.complaint.endswith("standard output is closed")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
    @pytest.mark.parametrize("arguments", [["-o", "-"], ["--json"], ["--dry-run"]])
    def test_K8_that_is_full_is_an_error(self, rawdl: Command, origin: Origin, arguments: list[str]) -> None:
        url = origin.serve("/a", Script(body=BODY))
        outcome = rawdl.outcome(["sh", "-c", 'exec "$@" >/dev/full', "sh", *rawdl.argv(*arguments, url)])
        assert outcome.code == 23
        assert outcome.complaint.endswith("cannot write standard output: No space left on device")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
    @pytest.mark.parametrize(
        "arguments", [["--version"], ["--print-completion", "zsh"], ["bench", "--schema"], ["demo"]]
    )
    def test_what_is_printed_where_no_room_is(self, rawdl: Command, arguments: list[str]) -> None:
        outcome = rawdl.outcome(["sh", "-c", 'exec "$@" >/dev/full', "sh", *rawdl.argv(*arguments)])
        assert outcome == (23, b"", "rawdl: No space left on device\n")

    @pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full"])
    @pytest.mark.parametrize(
        ("arguments", "code"),
        [(["replay", "none"], 2), (["record", "-o", ".", "http://h/"], 23)],
        ids=["replay", "record"],
    )
    def test_a_complaint_that_cannot_be_told_is_told_nowhere(
        self, rawdl: Command, arguments: list[str], code: int, closed: str
    ) -> None:
        outcome = rawdl.outcome(["sh", "-c", f'exec "$@" {closed}', "sh", *rawdl.argv(*arguments)])
        assert outcome == (code, b"", "")

    def test_everything_closed_still_saves(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(body=BODY))
        outcome = rawdl.outcome(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *rawdl.argv(url)])
        assert outcome == (0, b"", "")
        assert (rawdl.folder / "a").read_bytes() == BODY

    @pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["--version"]])
    def test_help_for_a_reader_that_has_gone(self, rawdl: Command, arguments: list[str]) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with rawdl.start(*arguments, stdout=writer, stderr=subprocess.PIPE) as process:
            os.close(writer)
            assert process.stderr.read() == b""


class TestSignals:
    @pytest.mark.contract("T28")
    @pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
    def test_T28_a_signal_aborts_all(self, rawdl: Command, origin: Origin, number: int, word: str) -> None:
        urls = [
            origin.serve(path, Script(body=BODY, stall_at=at)) for path, at in [("/a", 500_000), ("/b", 10), ("/c", 0)]
        ]
        with rawdl.start(*urls, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            origin.wait_request(3)
            process.send_signal(number)
            origin.wait_closed(3)
            assert process.communicate(timeout=GUARD) == (b"", f"rawdl: {word}\n".encode())
            assert process.returncode == 128 + number
        assert rawdl.files() == []

    def test_K8_a_signal_ends_a_write_that_waits_for_its_reader(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(body=LARGE))
        with rawdl.start("-o", "-", url, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout.read(1)  # and no more: the pipe runs full
            origin.wait_request()
            process.send_signal(signal.SIGTERM)
            assert process.wait(GUARD) == 143
            assert process.stderr.read() == b"rawdl: terminated\n"

    @pytest.mark.usefixtures("leaves_parts")
    def test_a_second_signal_does_not_wait_for_the_first(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(body=BODY, stall_at=500_000))
        code = "from rawdl.cli import get, main; get.Batch._stop = lambda *_: None; import sys; sys.exit(main.main())"
        with subprocess.Popen([*rawdl.argv()[:3], "-c", code, url], cwd=rawdl.folder, env=rawdl.environment) as process:
            origin.wait_request()
            process.send_signal(signal.SIGINT)  # of two that wait, the one with the lower number is handled first
            process.send_signal(signal.SIGTERM)
            assert process.wait(GUARD) == 143

    def test_a_signal_while_a_name_is_looked_up(self, rawdl: Command) -> None:
        # getaddrinfo that never answers, on the resolver's thread, must not keep the process.
        code = (
            "import os, socket, signal, sys, threading\n"
            "def stuck(*_): os.kill(os.getpid(), signal.SIGINT); threading.Event().wait()\n"
            "socket.getaddrinfo = stuck\n"
            "from rawdl.cli.main import main; sys.exit(main(sys.argv[1:]))"
        )
        outcome = rawdl.outcome([*rawdl.argv()[:3], "-c", code, "http://example.org/"])
        assert (outcome.code, outcome.complaint) == (130, "rawdl: interrupted")

    def test_a_signal_while_the_command_is_being_loaded(self, rawdl: Command) -> None:
        code = (
            "import signal, sys\n"
            "class Slow:\n"
            "    def find_spec(name, *rest):\n"
            "        if name == 'argparse': signal.raise_signal(signal.SIGINT)\n"
            "sys.meta_path.insert(0, Slow)\n"
            "from rawdl.cli.main import main; sys.exit(main(sys.argv[1:]))"
        )
        outcome = rawdl.outcome([*rawdl.argv()[:3], "-c", code, "--version"])
        assert (outcome.code, outcome.complaint) == (130, "rawdl: interrupted")

    def test_an_ignored_signal_stays_ignored(self, rawdl: Command, origin: Origin) -> None:
        # As for a job in the background of a script.
        held = origin.serve("/a", Script(body=BODY, stall_at=500_000, stall_for=0.5))
        command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *rawdl.argv("-q", held)]
        with subprocess.Popen(command, cwd=rawdl.folder, env=rawdl.environment) as process:
            origin.wait_request()
            process.send_signal(signal.SIGINT)
            assert process.wait(GUARD) == 0


class TestJSON:
    def test_each_line_is_an_event_in_taros_spelling(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(body=BODY, header=(("X-A", "\x7f\x1b\xff"),)))
        outcome = rawdl("--json", url)
        assert (outcome.code, outcome.stderr) == (0, "")
        assert all(0x20 <= octet < 0x7F or octet == 0x0A for octet in outcome.stdout)
        events = [json.loads(line) for line in outcome.stdout.splitlines()]
        assert {event["url"] for event in events} == {url}
        names = [event["event"] for event in events]
        assert names == ["queued", "connect", "request", "headers", *["progress"] * (len(events) - 5), "done"]
        assert events[3]["header"]["X-A"] == "\x7f\x1b\xff" and events[3]["statusCode"] == 200
        assert events[-2]["progress"] == 100 and events[-2]["totalBytesWritten"] == len(BODY)
        assert events[-1]["errMsg"] == "downloadFile:ok" and events[-1]["filePath"] == "a"

    def test_a_failure_is_an_event_and_a_line(self, rawdl: Command, origin: Origin) -> None:
        outcome = rawdl("--json", origin.url("/404"), "nonsense")
        events = [json.loads(line) for line in outcome.stdout.splitlines()]
        assert outcome.code == 22
        failed = {event["url"]: event for event in events if event["event"] == "failed"}
        assert failed[origin.url("/404")]["errMsg"] == "downloadFile:fail http status 404"
        assert failed["nonsense"]["errno"] == 600009
        assert len(outcome.stderr.splitlines()) == 2

    def test_a_signal_is_told_for_each_download(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/a", Script(body=BODY, stall_at=500_000))
        with rawdl.start("--json", url, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            wait_for_event(process, "headers")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=GUARD)
        assert json.loads(out.splitlines()[-1])["errMsg"] == "downloadFile:fail abort"
        assert (process.returncode, err) == (130, b"rawdl: interrupted\n")


def test_a_slow_origin_is_told_apart_from_one_that_is_gone(rawdl: Command, origin: Origin) -> None:
    """A pause is no failure."""
    url = origin.serve("/a", Script(body=BODY, stall_at=500_000, stall_for=0.3, head_delay=0.2))
    assert rawdl("-q", url) == (0, b"", "")


def test_a_host_by_its_name(rawdl: Command, origin: Origin) -> None:
    origin.serve("/a", Script(body=BODY))
    assert socket.gethostbyname("localhost") == "127.0.0.1"
    assert rawdl("-q", f"http://localhost:{origin.port}/a") == (0, b"", "")
