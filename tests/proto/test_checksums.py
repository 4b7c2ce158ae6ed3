"""What bytes must hash to, by the user's word and by the server's (S11, H12, RFC 3230, 6249, 9530)."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given, strategies as st

from rawdl.errors import ChecksumError
from rawdl.proto.checksums import Checksum, mismatch, promised_by
from rawdl.proto.messages import Headers

SHA256, SHA512 = hashlib.sha256(b"rawdl"), hashlib.sha512(b"rawdl")
OTHER256 = hashlib.sha256(b"other")
FIXED = sorted(name for name in hashlib.algorithms_guaranteed if not name.startswith("shake"))


def encoded(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def sf(digest: bytes) -> str:
    """Return a byte sequence of structured fields (RFC 9651 3.3.5)."""
    return f":{encoded(digest)}:"


# A user's checksum


@pytest.mark.parametrize("name", FIXED)
def test_S11_each_hash_is_read_in_its_own_spelling(name: str) -> None:
    digest = hashlib.new(name, b"rawdl", usedforsecurity=False).digest()
    checksum = Checksum.parse(f"{name}:{digest.hex()}")
    assert checksum == Checksum(name, digest)
    assert checksum.hex == digest.hex()
    assert Checksum.parse(str(checksum)) == checksum


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("sha256", "sha256"),
        ("SHA256", "sha256"),
        ("sha-256", "sha256"),
        ("SHA-256", "sha256"),
        ("Sha_256", "sha256"),
        ("sha-1", "sha1"),
        ("MD5", "md5"),
        ("sha3-256", "sha3_256"),
        ("SHA3_512", "sha3_512"),
        ("BLAKE2b", "blake2b"),
    ],
)
def test_S11_other_spellings_of_a_hash_are_read_too(spelling: str, name: str) -> None:
    digest = hashlib.new(name, b"rawdl", usedforsecurity=False).digest()
    assert Checksum.parse(f"{spelling}:{digest.hex().upper()}") == Checksum(name, digest)


def test_a_checksum_is_written_as_it_is_read() -> None:
    assert str(Checksum("sha256", SHA256.digest())) == f"sha256:{SHA256.hexdigest()}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "written NAME:HEX"),
        (SHA256.hexdigest(), "written NAME:HEX"),
        (f"sha256={SHA256.hexdigest()}", "written NAME:HEX"),
        (f":{SHA256.hexdigest()}", "'' is no hash"),
        (f"sha257:{SHA256.hexdigest()}", "'sha257' is no hash"),
        (f"sha256 :{SHA256.hexdigest()}", "'sha256 ' is no hash"),
        (f"{'x' * 99}:00", "x'… is no hash"),
        ("\x1b[2J:00", r"'\\x1b\[2J' is no hash"),
        ("shake_128:00", "shake_128 has no length of its own"),
        ("SHAKE-256:" + "00" * 32, "shake_256 has no length of its own"),
        ("sha256:", "has 64 hexadecimal digits, not 0"),
        (f"sha256:{SHA256.hexdigest()[:-1]}", "has 64 hexadecimal digits, not 63"),
        (f"sha256:{SHA256.hexdigest()}0", "has 64 hexadecimal digits, not 65"),
        (f"md5:{SHA256.hexdigest()}", "has 32 hexadecimal digits, not 64"),
        (f"sha256:{'g' * 64}", "is written in hexadecimal digits, not 'gggg"),
        (f"sha256: {SHA256.hexdigest()[1:]}", "is written in hexadecimal digits"),
        (f"sha256:{SHA256.hexdigest()}\n", "is written in hexadecimal digits"),
        (f"sha256:0x{SHA256.hexdigest()[2:]}", "is written in hexadecimal digits"),
        ("sha256:" + "１" * 64, "is written in hexadecimal digits"),
        (f"sha256:sha256:{SHA256.hexdigest()}", "is written in hexadecimal digits"),
    ],
)
def test_S11_a_checksum_that_means_nothing_is_a_value_error(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Checksum.parse(text)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


def test_S11_a_hash_that_is_listed_and_not_permitted_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashlib, "algorithms_available", {"forbidden"})  # as MD4 is, depending on OpenSSL's settings
    with pytest.raises(ValueError, match="'FORBIDDEN' is no hash that this Python has"):
        Checksum.parse("FORBIDDEN:00")


@pytest.mark.parametrize("value", [None, b"sha256:00", 1, ("sha256", b"")])
def test_S11_a_checksum_of_another_type_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match=f"not {type(value).__name__}"):
        Checksum.parse(value)  # type: ignore[arg-type]


@given(st.text())
def test_S11_any_text_is_a_checksum_or_a_value_error(text: str) -> None:
    try:
        checksum = Checksum.parse(text)
    except ValueError:
        return
    assert Checksum.parse(str(checksum)) == checksum


def test_H12_a_mismatch_has_both_digests_in_the_message_and_as_data() -> None:
    error = mismatch(Checksum("sha256", SHA256.digest()), OTHER256.digest())
    assert type(error) is ChecksumError
    assert error.expected == f"sha256:{SHA256.hexdigest()}"
    assert error.actual == f"sha256:{OTHER256.hexdigest()}"
    assert error.expected in str(error) and error.actual in str(error)


# A server's digests

A, B = ("sha256", SHA256.digest()), ("sha256", OTHER256.digest())
LONG = ("sha512", SHA512.digest())
REPR_A, CONTENT_A = ("Repr-Digest", f"sha-256={sf(A[1])}"), ("Content-Digest", f"sha-256={sf(A[1])}")
REPR_B, CONTENT_B = ("Repr-Digest", f"sha-256={sf(B[1])}"), ("Content-Digest", f"sha-256={sf(B[1])}")
DIGEST_A, DIGEST_B = ("Digest", f"SHA-256={encoded(A[1])}"), ("Digest", f"SHA-256={encoded(B[1])}")

PROMISES = [
    # fields, of the whole file, of a part of it
    ([], [], []),
    ([REPR_A], [A], [A]),
    ([CONTENT_A], [A], []),
    ([DIGEST_A], [A], [A]),
    # together: twice the same is once; a contradiction stays; the old field counts only where the new ones say nothing
    ([REPR_A, CONTENT_A, DIGEST_A], [A], [A]),
    ([CONTENT_B, REPR_A], [A, B], [A]),
    ([REPR_A, DIGEST_B], [A], [A]),
    ([CONTENT_A, DIGEST_B], [A], [B]),
    ([("Repr-Digest", "md5=:AA==:"), DIGEST_B], [B], [B]),
    ([REPR_A, ("repr-digest", f"sha-512={sf(LONG[1])}")], [A, LONG], [A, LONG]),
    ([("Repr-Digest", f"sha-512={sf(LONG[1])}, sha-256={sf(A[1])}")], [LONG, A], [LONG, A]),
    # what is not trusted, or malformed
    ([("Repr-Digest", f"md5={sf(bytes(16))}, sha={sf(bytes(20))}, unixsum={sf(bytes(2))}")], [], []),
    ([("Repr-Digest", f"unixcksum={sf(bytes(4))}, adler={sf(bytes(4))}, crc32c={sf(bytes(4))}")], [], []),
    ([("Repr-Digest", f"sha-384={sf(bytes(48))}")], [], []),
    ([("Repr-Digest", f"sha-256={sf(bytes(31))}, sha-512={sf(bytes(32))}")], [], []),
    ([("Repr-Digest", f"sha-256={sf(LONG[1])}, sha-512={sf(LONG[1])}")], [LONG], [LONG]),
    ([("Repr-Digest", f"sha-256={sf(A[1])},")], [], []),
    ([("Repr-Digest", f"SHA-256={sf(A[1])}")], [], []),
    ([("Repr-Digest", f"sha-256={encoded(A[1])}")], [], []),
    ([("Want-Repr-Digest", f"sha-256={sf(A[1])}")], [], []),
]


@pytest.mark.parametrize(("fields", "whole", "part"), PROMISES)
def test_H12_digests_of_the_whole_file(
    fields: list[tuple[str, str]], whole: list[tuple[str, bytes]], part: list[tuple[str, bytes]]
) -> None:
    assert promised_by(Headers(fields), partial=False) == tuple(whole)
    assert promised_by(Headers(fields), partial=True) == tuple(part)


def test_H12_digests_in_a_trailer_section_are_read_as_they_come_off_the_wire() -> None:
    trailer = Headers.from_wire([(b"repr-digest", b"sha-256=" + sf(A[1]).encode())])
    assert promised_by(trailer, partial=True) == (Checksum(*A),)


@pytest.mark.parametrize(
    ("value", "promises"),
    [
        (f"sha-256={encoded(A[1])}", [A]),
        (f"Sha-256={encoded(A[1])} ,\tSHA-512={encoded(LONG[1])}", [A, LONG]),
        (f"MD5=HUXZLQLMuI/KZ5KDcJPcOA==,SHA-256={encoded(A[1])}", [A]),
        (f"SHA-256={encoded(A[1])},SHA-256={encoded(A[1])}", [A]),
        (f"SHA-256={encoded(A[1])},SHA-256={encoded(B[1])}", [A, B]),
        (f"x,,=,SHA-256={encoded(A[1])},", [A]),
        # RFC 6249 has examples like this one: the hexadecimal digits, encoded once more
        (f"SHA-256={encoded(SHA256.hexdigest().encode())}", []),
        (f"SHA-256={SHA256.hexdigest()}", []),
        (f"SHA-256={encoded(A[1]).rstrip('=')}", []),
        (f"SHA-256={encoded(A[1])}=", []),
        (f"SHA-256={encoded(A[1])}====", []),
        (f"SHA-256= {encoded(A[1])}", []),
        (f"SHA-256 ={encoded(A[1])}", []),
        (f'SHA-256="{encoded(A[1])}"', []),
        (f"SHA-256={sf(A[1])}", []),
        (f"SHA-256={encoded(A[1])};q=1", []),
        (f"SHA-256={encoded(A[1])[:20]} {encoded(A[1])[20:]}", []),
        (f"SHA-256={base64.urlsafe_b64encode(bytes([255] * 32)).decode()}", []),
        (f"SHA={encoded(bytes(20))},UNIXsum=30637,id-sha-256={encoded(A[1])}", []),
        ("SHA-256=", []),
        ("€", []),
    ],
)
def test_the_older_digest_field_is_read_strictly(value: str, promises: list[tuple[str, bytes]]) -> None:
    assert promised_by(Headers([("Digest", value)]), partial=False) == tuple(promises)


@given(st.lists(st.tuples(st.sampled_from(["Repr-Digest", "Content-Digest", "Digest"]), st.text())), st.booleans())
def test_no_digest_field_makes_an_error(fields: list[tuple[str, str]], partial: bool) -> None:
    assert promised_by(Headers(fields), partial=partial) == ()
