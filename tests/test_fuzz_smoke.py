"""The fuzz harnesses, driven by Hypothesis and by their own smoke run; the same inputs each time."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

pytestmark = pytest.mark.one_version

FUZZ = Path(__file__).resolve().parent.parent / "fuzz"
steady = settings(derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


def load(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FUZZ))
        return importlib.import_module(name)


smoke, atheris_run = load("smoke"), load("run")
NAMES = smoke.HARNESSES
HARNESSES = {name: load(name) for name in NAMES}
url, fields, grammar, metalink, decoding, proxy, response = HARNESSES.values()


def pieces(*tokens: bytes) -> st.SearchStrategy[bytes]:
    """Inputs put together from what means something there, with noise between."""
    return st.lists(st.sampled_from(tokens) | st.binary(max_size=6), max_size=30).map(b"".join)


GRAMMAR_PIECES = pieces(
    *b'Digest |Basic |realm=|"a\\"b"|, |;|=|<a>|rel=|http://|socks5h://|u:canary@|[::1]|:80|*|.example.org|10.0.0.0/8'.split(
        b"|"
    )
)
URL_PIECES = pieces(
    *(
        b"http:",
        b"https:",
        b"ftp:",
        b"//",
        b"/",
        b"\\",
        b"example.org",
        b"127.0.0.1",
        b"[::1]",
        b"0x7f.1",
        b":80",
        b":0",
    ),
    *(
        b":65536",
        b"user:p%40w@",
        b"@",
        b"?",
        b"#",
        b"..",
        b".",
        b"%2e",
        b"%zz",
        b" ",
        b"\n",
        b"\xc3\xa9",
        b"\xe3\x80\x82",
    ),
)
FIELD_PIECES = pieces(
    *(
        b"attachment",
        b"inline",
        b"; ",
        b"filename=",
        b"filename*=",
        b"UTF-8''",
        b'"',
        b"\\",
        b"%e2%82%ac",
        b"a.txt",
        b"CON",
    ),
    *(
        b"bytes ",
        b"0-4",
        b"/10",
        b"*",
        b"9223372036854775807",
        b"Sun, 06 Nov 1994 08:49:37 GMT",
        b" GMT",
        b"29 Feb 2100",
    ),
    *(b"sha-256=", b":AAEC:", b";q=1", b"(1 2)", b"?1", b"../", b"\x1b[2J", b"\x00", b"\xe2\x80\xae", b"120", b"-1"),
)
METALINK_PIECES = pieces(
    *(b"<url>http://example.org/</url>", b'<url priority="1"> https://[::1]/a#b </url>', b"<url>ftp://x/</url>"),
    *(b"<size>10</size>", b"<size>9</size>", b'<hash type="sha-256">' + b"0" * 64 + b"</hash>", b"<x>", b"</x>"),
    *(b'<pieces type="md5" length="4">' + n * (b"<hash>" + b"a" * 32 + b"</hash>") + b"</pieces>" for n in (1, 2, 3)),
    *(b'</file><file name="../&#x202e;CON">', b"&lt;", b"<!-- -->", b"<![CDATA[<url>]]>"),
)
PROXY_PIECES = pieces(
    *(b"\x05\x00", b"\x05\x02", b"\x01\x00", b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50", b"\x05\x00\x00\x03\x02aa\0P"),
    *(
        b"\x00\x5a" + bytes(6),
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 x\r\n\r\n",
        b"A: b\r\n",
        b"\r\n",
        b"\n",
    ),
)
LINES = pieces(
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
    *(b"X: y\r\n", b" folded\r\n", b"no token: x\r\n", b"Name : y\r\n", b"\r\n", b"\n", b"\r", b"\0", b":"),
)
CHUNKS = pieces(
    *(
        b"5\r\nhello\r\n",
        b"1\r\nx\r\n",
        b"0\r\n",
        b"\r\n",
        b"0\r\n\r\n",
        b"A: b\r\n",
        b"5",
        b"000",
        b"ffffffffffffffff",
    ),
    *(b";", b"a", b"=", b'"b"', b" ", b"400\r\n" + b"y" * 1024 + b"\r\n", b"\r", b"\n", b"\0", b"X"),
)
STATUS = st.sampled_from([200, 100, 103, 101, 204, 205, 206, 304, 404, 600])


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    heads = [b"HTTP/1.%d %d X\r\n" % (draw(st.integers(0, 1)), code) for code in draw(st.lists(STATUS, max_size=3))]
    return b"\r\n".join([*heads, b"HTTP/1.1 200 OK\r\n" + draw(LINES), draw(CHUNKS)])


def test_every_harness_is_run() -> None:
    assert sorted(NAMES) == sorted(path.stem for path in FUZZ.glob("fuzz_*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_the_seeds_hold(name: str) -> None:
    harness = HARNESSES[name]
    assert len(harness.SEEDS) >= 8 and all(isinstance(seed, bytes) for seed in harness.SEEDS)
    for seed in harness.SEEDS:
        harness.check(seed)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_of_a_harness_is_its_invariant(name: str) -> None:
    first = (HARNESSES[name].__doc__ or "").partition("\n")[0]
    assert len(first) > 40 and first.endswith(".")
    assert f"`{name}.py`" in (FUZZ / "README.md").read_text(encoding="utf-8")


@settings(steady, max_examples=300)
@given(st.binary(max_size=80) | URL_PIECES)
def test_urls(data: bytes) -> None:
    url.check(data)


@settings(steady, max_examples=300)
@given(st.binary(max_size=80) | FIELD_PIECES)
def test_fields(data: bytes) -> None:
    fields.check(data)


@settings(steady, max_examples=300)
@given(st.binary(max_size=80) | GRAMMAR_PIECES)
def test_grammar(data: bytes) -> None:
    grammar.check(data)


@settings(steady, max_examples=300)
@given(METALINK_PIECES)
def test_metalinks(data: bytes) -> None:
    metalink.check(b'<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="a">' + data + b"</file></metalink>")


@settings(steady, max_examples=300)
@given(st.sampled_from([b"\0", b"\1", b"\2", b"\3"]), st.binary(max_size=20) | PROXY_PIECES)
def test_answers_of_proxies(which: bytes, data: bytes) -> None:
    proxy.check(which + data)


@steady
@given(st.binary(max_size=80))
def test_decoding(data: bytes) -> None:
    decoding.check(data)


@steady
@given(responses() | CHUNKS.map(response.CHUNKED.__add__))
def test_responses(data: bytes) -> None:
    response.check(data)


@settings(steady, max_examples=50)
@given(st.binary(max_size=200))
def test_noise(data: bytes) -> None:
    response.check(data)


# The smoke run


def run_smoke(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["smoke.py", *args])
        patch.setattr(sys, "path", [str(FUZZ), *sys.path])
        status = smoke.main()
    return status, capsys.readouterr().out


def test_the_smoke_run_counts_and_says_what_came_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run_smoke(capsys, "--rounds", "100")
    assert status == 0 and out.endswith("\nnothing was found\n")
    for name, harness in HARNESSES.items():
        assert re.search(rf"^{name}: {2 * len(harness.SEEDS) + 100} inputs, 0 found, ", out, re.MULTILINE)


def test_the_smoke_run_is_the_same_each_time() -> None:
    runs = [list(smoke.inputs_from(response.SEEDS, 300)) for _ in range(2)]
    assert runs[0] == runs[1] and len(set(runs[0])) > 250
    assert list(smoke.inputs_from(response.SEEDS, 301)) != runs[0]


def test_the_smoke_run_shows_what_it_finds(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def check(data: bytes) -> None:
        assert b"\xff" not in data, "a planted failure"

    crash = tmp_path / "crash"
    crash.write_bytes(b"a\xffb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(url, "check", check)
        status, out = run_smoke(capsys, "--only", "fuzz_url", str(crash))
        assert status == 1 and "fuzz_url breaks with b'a\\xffb'" in out and "a planted failure" in out
        assert out.endswith("\nFOUND: 1 inputs break an invariant\n")
        assert run_smoke(capsys, "--only", "fuzz_url", "--rounds", "200")[0] == 1


# The run by Atheris


class FakeAtheris(ModuleType):
    """Write down what it is told, and run the harness once."""

    def __init__(self) -> None:
        super().__init__("atheris")
        self.told: list[object] = []

    def instrument_all(self) -> None:
        self.told.append("instrument")

    def Setup(self, arguments: list[str], check: Callable[[bytes], None]) -> None:
        self.told.append(arguments)
        self._check = check

    def Fuzz(self) -> None:
        self._check(b"")


@pytest.mark.parametrize("name", NAMES)
def test_atheris_gets_the_harness_and_its_own_options(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first argument is what it runs by a shell, in front of its options, when it minimizes a crash."""
    fake, checked = FakeAtheris(), []
    monkeypatch.setitem(sys.modules, "atheris", fake)
    monkeypatch.setattr(sys, "argv", ["a folder/run.py"])
    monkeypatch.setattr(HARNESSES[name], "check", checked.append)
    atheris_run.main(name, ["corpus", "-runs=1"])
    assert fake.told[0] == "instrument"
    [command, *options] = fake.told[1]
    assert shlex.split(command) == [sys.executable, "a folder/run.py", name]
    assert (options, checked) == (["corpus", "-runs=1"], [b""])


def test_without_atheris_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)
    with pytest.raises(SystemExit, match="pip install atheris"):
        atheris_run.main("fuzz_url", [])


@pytest.mark.parametrize("arguments", [[], ["fuzz_nothing"], ["smoke"]])
def test_a_harness_that_is_none(arguments: list[str]) -> None:
    ended = subprocess.run([sys.executable, FUZZ / "run.py", *arguments], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("usage: run.py {fuzz_url,")


# What the harnesses can find


def test_the_response_harness_can_find_something() -> None:
    """Each invariant is broken once, by an exchange that is not as it should be."""
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    for name, broken in BROKEN.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(response, "Exchange", broken)
            with pytest.raises(BaseException) as caught:
                response.check(whole)
            assert caught.type is (ValueError if name == "another error" else AssertionError), name


class _AnotherError(response.Exchange):
    def next_event(self):
        raise ValueError("not one of the three")


class _ByPiece(response.Exchange):
    def next_event(self):
        event = super().next_event()
        if isinstance(event, response.HeadReceived):
            return event._replace(reason=str(len(self._data)))
        return event


class _Endless(response.Exchange):
    def next_event(self):
        event = super().next_event()
        return response.BodyComplete(0, (), (), 0) if event is None else event


class _Truncated(response.Exchange):
    def receive_eof(self, *, clean: bool) -> None:
        super().receive_eof(clean=True)


BROKEN = {"another error": _AnotherError, "the cut": _ByPiece, "events behind the end": _Endless}


def test_the_response_harness_tells_one_ending_from_another() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(response, "Exchange", _Truncated)
        with pytest.raises(AssertionError):
            response.check(b"HTTP/1.1 200 OK\r\n\r\nhello")
