"""The exchange with a SOCKS proxy, byte by byte (B6, P4, A9; RFC 1928, RFC 1929, SOCKS 4A)."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings, strategies as st

from rawdl.errors import ProxyError
from rawdl.proto.proxy import Proxy
from rawdl.proto.socks import Socks

pytest.importorskip("socksio", reason="the extra socks is not installed")

HOST, PORT = "a.example.org", 443
NAME = b"\x05\x01\x00\x03\x0da.example.org\x01\xbb"
GRANTED = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
PLAIN, KNOWN = Proxy.parse("socks5h://p"), Proxy.parse("socks5h://user:canary@p")
FOUR = Proxy.parse("socks4a://user@p")

Talk = list[tuple[bytes, bytes]]  # what is sent, and what is answered to it


def whole(data: bytes) -> list[bytes]:
    return [data]


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def hold(talk: Talk, host: str = HOST, proxy: Proxy = PLAIN, cut: Callable[[bytes], list[bytes]] = whole) -> Socks:
    """Hold a conversation, and see that each side says what it should."""
    socks = Socks(host, PORT, proxy)
    for sent, answer in talk:
        assert socks.data_to_send() == sent
        socks.data_sent(len(sent))
        assert not socks.established
        for piece in cut(answer):
            assert socks.data_to_send() == b""
            socks.receive_data(piece)
    return socks


def refusal(talk: Talk, host: str = HOST, proxy: Proxy = PLAIN) -> str:
    said = []
    for cut in (whole, bytewise):
        with pytest.raises(ProxyError) as caught:
            hold(talk, host, proxy, cut)
        said.append(str(caught.value))
        assert "canary" not in said[-1]
        assert said[-1].startswith(f"the proxy {proxy} ")
    assert said[0] == said[1]
    return said[0]


@pytest.mark.parametrize("cut", [whole, bytewise])
@pytest.mark.parametrize(
    ("host", "asked"),
    [
        (HOST, NAME),
        ("192.0.2.1", b"\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb"),
        ("2001:db8::1", b"\x05\x01\x00\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01\x01\xbb"),
    ],
)
@pytest.mark.parametrize(
    "granted",
    [GRANTED, b"\x05\x00\x00\x03\x03abc\x00\x50", b"\x05\x00\x00\x04" + bytes(16) + b"\x00\x50"],
    ids=["IPv4", "name", "IPv6"],
)
def test_socks_5_without_a_login(cut: Callable[[bytes], list[bytes]], host: str, asked: bytes, granted: bytes):
    socks = hold([(b"\x05\x01\x00", b"\x05\x00"), (asked, granted)], host, PLAIN, cut)
    assert socks.established
    assert socks.data_to_send() == b""


@pytest.mark.parametrize("cut", [whole, bytewise])
def test_socks_5_with_a_login(cut: Callable[[bytes], list[bytes]]):
    login = b"\x01\x04user\x06canary"
    talk = [(b"\x05\x02\x00\x02", b"\x05\x02"), (login, b"\x01\x00"), (NAME, GRANTED)]
    socks = hold(talk, HOST, KNOWN, cut)
    assert socks.established
    assert "canary" not in repr(socks)
    assert hold([(b"\x05\x02\x00\x02", b"\x05\x00"), (NAME, GRANTED)], HOST, KNOWN).established


@pytest.mark.parametrize("cut", [whole, bytewise])
@pytest.mark.parametrize(
    ("host", "asked"),
    [
        (HOST, b"\x04\x01\x01\xbb\x00\x00\x00\xffuser\x00a.example.org\x00"),
        ("192.0.2.1", b"\x04\x01\x01\xbb\xc0\x00\x02\x01user\x00"),
    ],
)
def test_socks_4a(cut: Callable[[bytes], list[bytes]], host: str, asked: bytes):
    assert hold([(asked, b"\x00\x5a" + bytes(6))], host, FOUR, cut).established


@pytest.mark.parametrize(
    ("proxy", "talk", "words"),
    [
        (PLAIN, [(b"\x05\x01\x00", b"\x05\xff")], "accepts no method to log in"),
        (PLAIN, [(b"\x05\x01\x00", b"\x05\x02")], "accepts no method to log in"),
        (PLAIN, [(b"\x05\x01\x00", b"\x04\x00")], "does not speak SOCKS 5"),
        (PLAIN, [(b"\x05\x01\x00", b"HT")], "does not speak SOCKS 5"),
        (PLAIN, [(b"\x05\x01\x00", b"\x05\x77")], "gave no SOCKS answer"),
        (
            KNOWN,
            [(b"\x05\x02\x00\x02", b"\x05\x02"), (b"\x01\x04user\x06canary", b"\x01\x01")],
            "refuses the user name",
        ),
        (PLAIN, [(b"\x05\x01\x00", b"\x05\x00"), (NAME, b"\x05\x05" + GRANTED[2:])], "refuses: connection refused"),
        (PLAIN, [(b"\x05\x01\x00", b"\x05\x00"), (NAME, b"\x05\x02" + GRANTED[2:])], "not allowed by ruleset"),
        (PLAIN, [(b"\x05\x01\x00", b"\x05\x00"), (NAME, b"\x05\x09" + GRANTED[2:])], "gave no SOCKS answer"),
        (PLAIN, [(b"\x05\x01\x00", b"\x05\x00"), (NAME, b"\x05\x00\x00\x07" + bytes(6))], "gave no SOCKS answer"),
        (PLAIN, [(b"\x05\x01\x00", b"\x05\x00"), (NAME, GRANTED + b"!")], "sent more than its answer"),
        (FOUR, [(b"\x04\x01\x01\xbb\x00\x00\x00\xffuser\x00a.example.org\x00", b"\x00\x5b" + bytes(6))], "refuses: "),
        (
            FOUR,
            [(b"\x04\x01\x01\xbb\x00\x00\x00\xffuser\x00a.example.org\x00", b"\x05\x5a" + bytes(6))],
            "no SOCKS answer",
        ),
    ],
)
def test_what_opens_no_way(proxy: Proxy, talk: Talk, words: str):
    assert words in refusal(talk, HOST, proxy)


@pytest.mark.parametrize(
    ("host", "proxy", "words"),
    [
        ("a" * 256, PLAIN, "cannot be told a host name of 256 bytes"),
        (HOST, Proxy.parse(f"socks5://{'u' * 256}:p@p"), "cannot be told a user name of 256 bytes"),
        (HOST, Proxy.parse(f"socks5://u:{'canary' * 50}@p"), "cannot be told a password of 300 bytes"),
        ("2001:db8::1", FOUR, "cannot be told an IPv6 address in SOCKS 4A"),
    ],
)
def test_B6_what_socks_cannot_say(host: str, proxy: Proxy, words: str):
    assert words in refusal([], host, proxy)


@pytest.mark.parametrize("clean", [True, False])
def test_P4_the_end_of_the_connection_is_none_of_the_exchange(clean: bool):
    socks = Socks(HOST, PORT, KNOWN)
    with pytest.raises(ProxyError, match=r"the proxy socks5h://\*\*\*@p:1080 (closed|broke off) the connection before"):
        socks.receive_eof(clean=clean)


def test_without_socksio_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(ProxyError, match=r"pip install 'rawdl\[socks\]'"):
        Socks(HOST, PORT, PLAIN)


@settings(deadline=None)
@given(st.binary(max_size=40), st.sampled_from([PLAIN, KNOWN, FOUR]))
def test_I9_any_answer_brings_a_way_or_an_error_however_it_is_cut(data: bytes, proxy: Proxy):
    ends = []
    for cut in (whole, bytewise):
        socks = Socks(HOST, PORT, proxy)
        try:
            for piece in cut(data):
                socks.receive_data(piece)
            ends.append(str(socks.established))
        except ProxyError as exc:
            ends.append(str(exc))
    assert ends[0] == ends[1]
