"""``-i FILE``: URLs with options of their own, as aria2 writes them; and where things go."""

from __future__ import annotations

from hashlib import sha256

import pytest

from tests.cli.conftest import Command
from tests.origin import Origin, Script
from tests.resource import Resource

BODY = b"hello"


@pytest.fixture
def url(origin: Origin) -> str:
    for path in ("/a", "/b", "/c"):
        origin.serve(path, Script(body=BODY + path.encode()))
    return origin.url("")


def write(rawdl: Command, text: str) -> str:
    (rawdl.folder / "list").write_text(text)
    return "list"


class TestList:
    def test_each_url_is_downloaded_with_what_stands_below_it(self, rawdl: Command, url: str) -> None:
        digest = sha256(BODY + b"/b").hexdigest()
        text = f"# mine\n\n{url}/a\n{url}/b\n  out= x\n\tdir = sub \n  checksum=sha-256={digest}\n"
        outcome = rawdl("-q", "-i", write(rawdl, text), f"{url}/c")
        assert (outcome.code, outcome.stderr) == (0, "")
        assert set(rawdl.files()) - {"list"} == {"a", "c", "sub/x"}
        assert (rawdl.folder / "sub/x").read_bytes() == BODY + b"/b"

    def test_a_mark_of_utf_8_in_front_belongs_to_no_url(self, rawdl: Command, url: str) -> None:
        assert rawdl("-q", "-i", write(rawdl, f"\ufeff{url}/a\n")).stderr == ""
        assert set(rawdl.files()) - {"list"} == {"a"}

    def test_fields_are_added_to_those_of_all(self, rawdl: Command, origin: Origin, url: str) -> None:
        text = f"{url}/a\n  header=X-A: 1\n  header=X-A: 2\n  header=X-B: 3\n{url}/b\n"
        assert rawdl("-q", "-H", "X-B: 0", "-H", "X-C: 4", "-i", write(rawdl, text)).code == 0
        asked = {request.path: [request.field(f"X-{letter}") for letter in "ABC"] for request in origin.requests}
        assert asked == {"/a": ["1, 2", "3", "4"], "/b": [None, "0", "4"]}

    def test_urls_behind_tabs_are_mirrors(self, rawdl: Command, origin: Origin, url: str) -> None:
        outcome = rawdl("-q", "-i", write(rawdl, f"{url}/nowhere\t{url}/b\n  split=1\n"))
        assert (outcome.code, set(rawdl.files())) == (0, {"list", "nowhere"})
        assert (rawdl.folder / "nowhere").read_bytes() == BODY + b"/b"

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "-i: there is no URL"),
            ("  out=x\n", "line 1"),
            ("http://h/a\n  out\n", "line 2"),
            ("http://h/a\n  max-tries=5\n", "line 2"),
            ("http://h/a\n  checksum=sha-256=0\n", "checksum"),
            ("http://h/a\n  split=0\n", "whole number"),
            ("http://h/a\n  header=x\n", "Name: value"),
            ("http://h/a\n  header=a b: c\n", "no header field name"),
            ("http://h/a\tftp://h/a\n", "neither http nor https"),
            ("http://h/a\nhttp://i/a\n", "would both be saved as a"),
        ],
    )
    def test_what_makes_no_sense_is_told_before_anything_is_asked_for(
        self, rawdl: Command, text: str, words: str
    ) -> None:
        outcome = rawdl("-i", write(rawdl, text))
        assert (outcome.code, words in outcome.complaint) == (2, True), outcome

    def test_a_list_that_is_not_there(self, rawdl: Command) -> None:
        assert rawdl("-i", "none").complaint.startswith("rawdl: -i: none: No such file")
        (rawdl.folder / "bad").write_bytes(b"\xff")
        assert "it is not UTF-8" in rawdl("-i", "bad").complaint

    @pytest.mark.parametrize("arguments", [["-o", "x"], ["--checksum", f"md5:{'0' * 32}"]])
    def test_what_is_for_one_file(self, rawdl: Command, arguments: list[str]) -> None:
        assert "more of them in -i" in rawdl("-i", "list", *arguments).complaint


class TestPlaces:
    def test_dry_run_says_what_would_be_done_and_does_nothing(self, rawdl: Command, origin: Origin, url: str) -> None:
        outcome = rawdl("--dry-run", "-d", "new", f"{url}/a", "http://u:secret@h/b?sig=secret")
        assert outcome.stdout.decode() == f"{url}/a -> new/a\nhttp://***@h/b?sig=*** -> new/b\n"
        assert (outcome.code, rawdl.files(), origin.requests) == (0, [], [])
        assert not (rawdl.folder / "new").exists()

    @pytest.mark.parametrize(("flags", "code"), [([], 23), (["--create-dirs"], 0)])
    def test_create_dirs(self, rawdl: Command, url: str, flags: list[str], code: int) -> None:
        assert rawdl("-q", *flags, "-o", "x/y/z", f"{url}/a").code == code
        assert (rawdl.folder / "x/y/z").exists() is (code == 0)

    def test_no_fail_saves_the_page_of_an_error(self, rawdl: Command, origin: Origin) -> None:
        url = origin.serve("/e", Script(status=404, reason="No", body=b"page"))
        assert rawdl("-q", "--no-fail", url).code == 0
        assert (rawdl.folder / "e").read_bytes() == b"page"

    def test_S40_a_redirect_that_is_not_followed_is_a_failure_all_the_same(
        self, rawdl: Command, origin: Origin
    ) -> None:
        url = origin.serve("/r", Script(status=302, reason="Found", header=(("Location", "/a"),)))
        assert rawdl("-q", "--max-redirects", "0", url).code == 22


class TestNetwork:
    def test_several_connections(self, rawdl: Command, origin: Origin) -> None:
        body = bytes(range(256)) * 20_000
        origin.serve("/big", Resource(body, like=Script(pace=4e6)))
        assert rawdl("-q", "-x", "3", origin.url("/big")).code == 0
        assert (rawdl.folder / "big").read_bytes() == body
        assert len(origin.requests) > 1

    def test_a_range_of_the_file(self, rawdl: Command, origin: Origin) -> None:
        origin.serve("/f", Resource(b"0123456789"))
        assert rawdl("-q", "-r", "2-4", origin.url("/f")).code == 0
        assert (rawdl.folder / "f").read_bytes() == b"234"

    def test_a_host_that_is_elsewhere(self, rawdl: Command, origin: Origin, url: str) -> None:
        port = origin.port
        given = ["--resolve", f"a.example.org:{port}:127.0.0.1", "--connect-to", f"b.example.org:80:127.0.0.1:{port}"]
        assert rawdl("-q", *given, f"http://a.example.org:{port}/a", "http://b.example.org/b").code == 0
        assert {request.field("Host") for request in origin.requests} == {f"a.example.org:{port}", "b.example.org"}

    def test_noproxy_exempts_from_the_proxy_that_was_given(self, rawdl: Command, origin: Origin, url: str) -> None:
        proxy = ["--proxy", "http://127.0.0.1:9", "--retries", "0"]
        assert rawdl("-q", *proxy, "--noproxy", "127.0.0.0/8", f"{url}/a").code == 0
        assert rawdl("-q", *proxy, "--noproxy", "example.org", f"{url}/b").code == 7
        assert [request.target for request in origin.requests] == ["/a"]

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (["--max-filesize", "4"], 63),
            (["-6"], 6),
            (["--interface", "x"], 2),
            (["--unix-socket", "none"], 7),
            (["--tls-min", "1.1"], 2),
            (["--pinnedpubkey", "x"], 2),
        ],
    )
    def test_what_an_option_forbids(self, rawdl: Command, url: str, arguments: list[str], code: int) -> None:
        outcome = rawdl("--retries", "0", *arguments, f"{url}/a")
        assert (outcome.code, rawdl.files()) == (code, [])

    def test_S40_time_limits(self, rawdl: Command, origin: Origin) -> None:
        with Origin(on_accept="mute") as mute:
            stuck = f"https://127.0.0.1:{mute.port}/"
            outcome = rawdl("--retries", "0", "--connect-timeout", "0.2", stuck)
            assert (outcome.code, "setup time limit of 0.2 s" in outcome.complaint) == (28, True)
        url = origin.serve("/s", Script(body=bytes(100), stall_at=0))
        outcome = rawdl("--retries", "0", "--idle-timeout", "0.2", url)
        assert (outcome.code, "head time limit of 0.2 s" in outcome.complaint) == (28, True)
