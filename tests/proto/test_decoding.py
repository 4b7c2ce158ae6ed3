"""Content codings: what comes off, what is refused, and how little memory it takes (D1-D4, I6, I9)."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from rawdl.errors import DecodingError, TooLarge
from rawdl.proto.decoding import codings_of, decoder

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


@pytest.fixture(params=ENCODERS)
def coding(request: pytest.FixtureRequest) -> tuple[str, Callable[[bytes], bytes]]:
    return ENCODERS[request.param]


def cuts(data: bytes) -> list[list[bytes]]:
    """Cut data three ways: not at all, into bytes, and at random."""
    places = sorted(random.Random(2).choices(range(len(data) + 1), k=5))
    pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    return [[data], [data[at : at + 1] for at in range(len(data))], pieces]


def outcome(codings: str, pieces: list[bytes], limit: int | None = None) -> bytes | str:
    decoding = decoder(codings, limit=limit)
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
        assert found == f"DecodingError: the {name} content is broken, or something stands behind its end"


@pytest.mark.parametrize("junk", [b"junk", b"\1\2"])
def test_D3_what_stands_behind_the_end(coding: tuple[str, Callable[[bytes], bytes]], junk: bytes):
    name, encode = coding
    spoiled = f"DecodingError: the {name} content is broken, or something stands behind its end"
    for found in (outcome(name, pieces) for pieces in cuts(encode(BODY) + junk)):
        assert found in (spoiled, f"DecodingError: the {name} content is incomplete, though the body is not")


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


@pytest.mark.parametrize("limit", [0, 1, 99, 100, 101])
def test_D2_the_limit_is_of_decoded_bytes(coding: tuple[str, Callable[[bytes], bytes]], limit: int):
    name, encode = coding
    found = outcome(name, [encode(b"x" * 100)], limit)
    assert (found == b"x" * 100) == (limit >= 100)
    if limit < 100:
        assert str(found).startswith(f"TooLarge: the body has 100 decoded bytes or more; {limit} are allowed, for ")


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
    noise = random.Random(4).randbytes(1 << 20)
    assert len(decoder(name, ratio=2).decode(encode(noise))) == len(noise)


def test_D2_a_wide_window_is_refused():
    wide = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.enable_long_distance_matching: 1}
    data = zstd.compress(random.Random(3).randbytes(1 << 20) * 40, options=wide)
    assert str(outcome("zstd", [data])).startswith("DecodingError")


ZEROS = "b''.join([*(e.compress(zeros) for _ in range(1024)), e.flush()])"
BOMBS = {
    "gzip": f"import zlib; e = zlib.compressobj(9, wbits=31); data = {ZEROS}",
    "br": "import brotli; e = brotli.Compressor(quality=5); data = "
    + ZEROS.replace("e.compress(", "e.process(").replace("flush", "finish"),
    "zstd": f"e = zstd.ZstdCompressor(); data = {ZEROS}",
    "gzip, gzip": f"import gzip, zlib; e = zlib.compressobj(9, wbits=31); data = gzip.compress({ZEROS})",
}


@pytest.mark.parametrize("codings", BOMBS)
def test_D2_I6_a_bomb_takes_little_memory(codings: str):
    """1 GiB of zeros: decoded piece by piece, and dropped."""
    script = f"""
import resource, sys
try:
    from compression import zstd
except ImportError:
    from backports import zstd
from rawdl.proto.decoding import decoder
zeros = bytes(1 << 20)
{BOMBS[codings]}
decoding = decoder({codings!r})
for _ in decoding.pieces(data[:1000]):
    break  # what is loaded on the way is there now
decoding = decoder({codings!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
largest = 0
for at in range(0, len(data), 65536):
    for piece in decoding.pieces(data[at : at + 65536]):
        largest = max(largest, len(piece))
decoding.flush()
print(decoding.decoded, largest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    decoded, largest, grown = map(int, done.stdout.split())
    assert decoded == 1 << 30
    assert largest <= 1 << 20
    assert grown < 16 << 10, "KiB"


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.sampled_from(sorted({name for name, _ in ENCODERS.values()})))
def test_D4_any_bytes_are_decoded_or_refused(data: bytes, name: str):
    for pieces in cuts(data):
        outcome(name, pieces, 1 << 20)
