"""Content codings: what comes off, what is refused, and how little memory it takes (D1-D4, I6, I9)."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
import types
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from rawdl.errors import DecodingError, TooLarge
from rawdl.proto.decoding import accepted, codings_of, decoder

brotli = pytest.importorskip("brotli", reason="the extra brotli is not installed")
if sys.version_info >= (3, 14):
    from compression import zstd
else:
    zstd = pytest.importorskip("backports.zstd", reason="the extra zstd is not installed")

ROOT = Path(__file__).parents[2]
BODY = random.Random(1).randbytes(3000) * 50 + bytes(200_000)


def raw(data: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(data) + engine.flush()


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "wrapped": ("deflate", zlib.compress),
    "raw": ("deflate", raw),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstd.compress),
}
SEVERAL = {"gzip", "x-gzip", "zstd"}
UNCLEAR = "the br content is broken, or something stands behind its end, in the 4096 bytes from byte {} of the body"


@pytest.fixture(params=ENCODERS)
def coding(request: pytest.FixtureRequest) -> tuple[str, Callable[[bytes], bytes]]:
    return ENCODERS[request.param]


def cuts(data: bytes) -> list[list[bytes]]:
    """Cut data three ways: not at all, into bytes, and at random."""
    places = sorted(random.Random(2).choices(range(len(data) + 1), k=5))
    pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    return [[data], [data[at : at + 1] for at in range(len(data))], pieces]


def outcome(codings: str, pieces: list[bytes], limit: int | None = None, ratio: int | None = None) -> bytes | str:
    decoding = decoder(codings, limit=limit, ratio=ratio)
    try:
        found = b"".join(map(decoding.decode, pieces)) + decoding.flush()
    except (DecodingError, TooLarge) as exc:
        return f"{type(exc).__name__}: {exc}"
    assert decoding.decoded == len(found)
    return found


def same(codings: str, data: bytes) -> bytes | str:
    """Return what becomes of it, however it is cut."""
    first, *others = [outcome(codings, pieces) for pieces in cuts(data)]
    assert others == [first] * len(others)
    return first


@pytest.mark.parametrize("body", [b"", b"x", BODY], ids=len)
def test_what_was_put_on_comes_off(coding: tuple[str, Callable[[bytes], bytes]], body: bytes):
    name, encode = coding
    assert same(name, encode(body)) == body
    assert same(f" ,{name.upper()} , identity", encode(body)) == body


def test_the_last_coding_comes_off_first():
    data = BODY
    for name in ("gzip", "wrapped", "br", "zstd", "raw"):
        data = ENCODERS[name][1](data)
    assert outcome("gzip, deflate, br, zstd, deflate", [data]) == BODY


@pytest.mark.parametrize("codings", ["", "identity", " , identity,"])
def test_without_a_coding_nothing_is_done(codings: str):
    assert codings_of(codings) == []
    assert same(codings, b"as it is") == b"as it is"


def test_D3_a_body_without_a_byte_is_empty(coding: tuple[str, Callable[[bytes], bytes]]):
    assert outcome(coding[0], []) == outcome(coding[0], [b""]) == b""


def test_D3_what_ends_too_early_is_incomplete(coding: tuple[str, Callable[[bytes], bytes]]):
    name, encode = coding
    data = encode(b"hello, hello, hello")
    for at in range(1, len(data)):
        assert same(name, data[:at]) == f"DecodingError: the {name} content is incomplete, though the body is not"


def test_D3_streams_that_follow_one_another(coding: tuple[str, Callable[[bytes], bytes]]):
    name, encode = coding
    found = same(name, encode(b"one, ") + encode(b"two"))
    if name in SEVERAL:
        assert found == b"one, two"
    else:
        assert found == behind(name, encode(b"one, "))


def behind(name: str, data: bytes) -> str:
    """Return the error for something that stands behind ``data``: brotli alone does not tell it from another."""
    if name == "br":
        return "DecodingError: " + UNCLEAR.format(len(data) // 4096 * 4096)
    return f"DecodingError: the {name} content has something behind its end, which is at {len(data)} bytes"


@pytest.mark.parametrize("junk", [b"junk", b"\1\2", b"j", b"\x8b\x1f", b"\0junk"])
@pytest.mark.parametrize("body", [b"hello", BODY], ids=len)
def test_D3_what_stands_behind_the_end(coding: tuple[str, Callable[[bytes], bytes]], body: bytes, junk: bytes):
    name, encode = coding
    data = encode(body)
    padding = len(junk) - len(junk.lstrip(b"\0")) if "gzip" in name else 0
    assert same(name, data + junk) == behind(name, data + bytes(padding))


def test_D3_half_a_member_behind_the_end_is_incomplete():
    assert same("gzip", gzip.compress(b"hello") + b"\x1f") == str(same("gzip", gzip.compress(b"hello")[:-1]))


def test_D3_D4_an_error_stays(coding: tuple[str, Callable[[bytes], bytes]]):
    """Nothing that comes later makes a whole body of a broken one."""
    name, encode = coding
    decoding = decoder(name)
    with pytest.raises(DecodingError) as first:
        decoding.decode(encode(b"hello") + b"junk")
    for again in (decoding.flush, lambda: decoding.decode(b""), lambda: decoding.decode(encode(b"more"))):
        with pytest.raises(DecodingError) as later:
            again()
        assert later.value is first.value
    decoding = decoder(name)
    decoding.decode(encode(b"hello")[:-1])
    for again in (decoding.flush, decoding.flush, lambda: decoding.decode(encode(b"hello")[-1:])):
        with pytest.raises(DecodingError, match="is incomplete"):
            again()


def test_D2_a_limit_that_was_passed_stays_passed(coding: tuple[str, Callable[[bytes], bytes]]):
    name, encode = coding
    data = encode(bytes(1 << 20) + random.Random(5).randbytes(1 << 20))
    decoding = decoder(name, ratio=1)
    with pytest.raises(TooLarge):
        decoding.decode(data[: len(data) // 2])
    with pytest.raises(TooLarge):
        decoding.decode(data[len(data) // 2 :])
    with pytest.raises(TooLarge):
        decoding.flush()


def test_D4_where_a_body_broke_is_said():
    data = bytearray(gzip.compress(random.Random(6).randbytes(20_000)))
    data[-6] ^= 1
    expected = "the gzip content is broken, in the 4096 bytes from byte 16384 of the body"
    assert same("gzip", bytes(data)) == f"DecodingError: {expected}"


def test_D3_zeros_behind_gzip_are_padding():
    assert same("gzip", gzip.compress(b"hello") + bytes(1000)) == b"hello"
    assert same("gzip", gzip.compress(b"hel") + bytes(5) + gzip.compress(b"lo")) == b"hello"


def test_D3_zstd_skips_what_is_to_be_skipped():
    skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
    assert same("zstd", skippable + zstd.compress(b"hello") + skippable) == b"hello"


def test_D4_one_wrong_bit_is_found_or_changes_nothing(coding: tuple[str, Callable[[bytes], bytes]]):
    """Only gzip, zlib and zstd have a check; what others make of it is at least the same however it is cut."""
    name, encode = coding
    data = encode(b"hello, hello, hello, world")
    for at in range(len(data)):
        same(name, data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])


@pytest.mark.parametrize("count", [5, 6])
def test_D1_more_than_five_codings_are_refused_before_anything_is_decoded(count: int):
    codings = ", ".join(["gzip"] * count)
    if count == 5:
        decoder(codings)
        return
    with pytest.raises(DecodingError, match="6 content codings, where 5 are the most"):
        decoder(codings)


def test_an_unknown_coding_is_named_and_cannot_act_on_a_terminal():
    with pytest.raises(DecodingError, match=r"an unknown content coding: x\\x1b\[2j"):
        decoder("gzip, X\x1b[2J")


@pytest.mark.parametrize(("coding", "modules"), [("br", ["brotli"]), ("zstd", ["backports", "compression"])])
def test_what_to_install_is_said(coding: str, modules: list[str], monkeypatch: pytest.MonkeyPatch):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    extra = "brotli" if coding == "br" else coding
    with pytest.raises(DecodingError, match=rf"pip install 'rawdl\[{extra}\]'"):
        decoder(coding)


def test_br_of_a_brotli_that_cannot_bound_its_output(monkeypatch: pytest.MonkeyPatch):
    class Old:
        def process(self, data: bytes) -> bytes:
            raise AssertionError("it is to be refused before")

    monkeypatch.setitem(sys.modules, "brotli", types.SimpleNamespace(Decompressor=Old))
    with pytest.raises(DecodingError, match=r"pip install 'rawdl\[brotli\]'"):
        decoder("br")
    assert "br" not in accepted().split(", ")


@pytest.mark.parametrize("limit", [0, 1, 99, 100, 101])
def test_D2_the_limit_is_of_decoded_bytes(coding: tuple[str, Callable[[bytes], bytes]], limit: int):
    name, encode = coding
    found = outcome(name, [encode(b"x" * 100)], limit)
    assert (found == b"x" * 100) == (limit >= 100)
    if limit < 100:
        assert found == f"TooLarge: the body decodes to more than the {limit} bytes that are allowed"
        assert same(name, encode(b"x" * 100)) == b"x" * 100


@pytest.mark.parametrize(("size", "fails"), [(60_000, False), (1 << 20, True)])
def test_D2_so_is_the_ratio_but_for_a_small_body(coding: tuple[str, Callable[[bytes], bytes]], size: int, fails: bool):
    name, encode = coding
    for pieces in cuts(encode(bytes(size))):
        decoding = decoder(name, ratio=10)
        try:
            found = sum(len(piece) for data in pieces for piece in decoding.pieces(data))
        except TooLarge as exc:
            assert fails and exc.limit >= 65536
        else:
            assert not fails and found == size
    assert {outcome(name, pieces, ratio=10) for pieces in cuts(encode(bytes(size)))} == {
        "TooLarge: the body decodes to more than the 65536 bytes that are allowed for the first 4096 that come"
        if fails
        else bytes(size)
    }
    noise = random.Random(4).randbytes(1 << 20)
    assert len(decoder(name, ratio=2).decode(encode(noise))) == len(noise)


def test_D2_a_wide_window_is_refused():
    wide = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.enable_long_distance_matching: 1}
    data = zstd.compress(random.Random(3).randbytes(1 << 20) * 40, options=wide)
    assert str(outcome("zstd", [data])).startswith("DecodingError")


ZEROS = "b''.join([*(e.compress(zeros) for _ in range(256)), e.flush()])"
BOMBS = {
    "gzip": f"import zlib; e = zlib.compressobj(9, wbits=31); data = {ZEROS}",
    "br": "import brotli; e = brotli.Compressor(quality=5); data = "
    + ZEROS.replace("e.compress(", "e.process(").replace("flush", "finish"),
    "zstd": f"e = zstd.ZstdCompressor(); data = {ZEROS}",
    "gzip, gzip": f"import gzip, zlib; e = zlib.compressobj(9, wbits=31); data = gzip.compress({ZEROS})",
}
MAKE = """
import sys
try:
    from compression import zstd
except ImportError:
    from backports import zstd
zeros = bytes(1 << 20)
{bomb}
sys.stdout.buffer.write(data)
"""
# In a process of its own, since what made the bomb would hide growth; and by VmHWM, since ru_maxrss begins with what
# the parent took.
MEASURE = """
import sys
from rawdl.proto.decoding import decoder

def most():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

data = sys.stdin.buffer.read()
for _ in decoder(sys.argv[1]).pieces(data[:1000]):
    break  # what is loaded on the way is there now
decoding, largest, before = decoder(sys.argv[1]), 0, most()
for at in range(0, len(data), 65536):
    for piece in decoding.pieces(data[at : at + 65536]):
        largest = max(largest, len(piece))
decoding.flush()
print(decoding.decoded, largest, most() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured by Linux's /proc")
@pytest.mark.parametrize("codings", BOMBS)
def test_D2_I6_a_bomb_takes_little_memory(codings: str):
    """256 MiB of zeros: decoded piece by piece, and dropped."""
    bomb = python(MAKE.format(bomb=BOMBS[codings]))
    decoded, largest, grown = map(int, python(MEASURE, codings, given=bomb).split())
    assert decoded == 256 << 20
    assert largest <= 1 << 20
    assert grown < 16 << 10, "KiB"


def python(script: str, *arguments: str, given: bytes = b"") -> bytes:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, cwd=ROOT, input=given, capture_output=True, check=True).stdout


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.sampled_from(sorted({name for name, _ in ENCODERS.values()})))
def test_D4_any_bytes_are_decoded_or_refused(data: bytes, name: str):
    found = [outcome(name, pieces, 1 << 20) for pieces in cuts(data)]
    # Of a body that is broken and too large, the library's buffering decides what is seen first.
    assert len({"refused" if isinstance(one, str) else one for one in found}) == 1


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(sorted(ENCODERS)),
    st.lists(st.tuples(st.booleans(), st.integers(0, 60_000)), max_size=4),
    st.lists(st.integers(1, 9000), min_size=1, max_size=5),
    st.integers(1, 40),
)
def test_D2_I9_the_ratio_does_not_depend_on_the_cut(
    key: str, runs: list[tuple[bool, int]], sizes: list[int], ratio: int
):
    name, encode = ENCODERS[key]
    rng = random.Random(7)
    data = encode(b"".join(rng.randbytes(n) if noisy else bytes(2 * n) for noisy, n in runs))
    pieces, at = [], 0
    while at < len(data):
        pieces.append(data[at : at + sizes[len(pieces) % len(sizes)]])
        at += len(pieces[-1])
    assert outcome(name, pieces, ratio=ratio) == outcome(name, [data], ratio=ratio)
