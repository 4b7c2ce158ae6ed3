"""``--key-password-file``: the password of a client's key, without a place in the list of processes (A9)."""

from __future__ import annotations

import os
import subprocess

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.cli.conftest import GUARD, Command
from tests.origin import Origin, Script

pytestmark = pytest.mark.one_version

SECRET = "canäry words"
FLAG = "--key-password-file"
KEY = ["--cacert", "ca.pem", "--cert", "certificate.pem", "--key", "locked.pem"]
PEM = "rawdl: certificates in ca.pem, certificate.pem, locked.pem: there is no certificate or no key in PEM, or the key"


@pytest.fixture
def holder(rawdl: Command, ca: trustme.CA, strict: Origin) -> Command:
    """The command in a folder with a certificate and its locked key."""
    strict.serve("/a", Script(body=b"x"))
    identity = ca.issue_cert("client@example.org")
    ca.cert_pem.write_to_path(str(rawdl.folder / "ca.pem"))
    identity.cert_chain_pems[0].write_to_path(str(rawdl.folder / "certificate.pem"))
    key = load_pem_private_key(identity.private_key_pem.bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(SECRET.encode()))
    (rawdl.folder / "locked.pem").write_bytes(locked)
    return rawdl


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\nanother line\n"])
@pytest.mark.parametrize("source", ["file", "standard input"])
def test_the_first_line_opens_the_key(holder: Command, strict: Origin, source: str, end: str) -> None:
    text = f"{SECRET}{end}".encode()
    (holder.folder / "password").write_bytes(text)
    given = "password" if source == "file" else "-"
    arguments = ["-q", *KEY, FLAG, given, strict.url("/a")]
    with holder.start(*arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.communicate(text, timeout=GUARD) == (None, b"")
    assert (process.returncode, (holder.folder / "a").read_bytes()) == (0, b"x")


def test_one_line_of_standard_input_is_enough(holder: Command, strict: Origin) -> None:
    with holder.start("-q", *KEY, FLAG, "-", strict.url("/a"), stdin=subprocess.PIPE) as process:
        process.stdin.write(f"{SECRET}\n".encode())
        process.stdin.flush()
        assert process.wait(GUARD) == 0  # while it is open still


def test_a_terminal_does_not_show_it(holder: Command, strict: Origin) -> None:
    master, slave = os.openpty()
    options = {"stdin": slave, "stderr": slave, "start_new_session": True}
    with holder.start(*KEY, FLAG, "-", strict.url("/a"), **options) as process:
        os.close(slave)
        written = b""
        while b"Password of locked.pem: " not in written:
            written += os.read(master, 1000)
        os.write(master, f"{SECRET}\n".encode())
        assert process.wait(GUARD) == 0
        written += os.read(master, 10_000)
        os.close(master)
    assert b"words" not in written


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (None, 77, f"{PEM} needs a password ({FLAG})"),
        (b"secret", 77, f"{PEM} has another password"),
        (f" {SECRET}".encode(), 77, f"{PEM} has another password"),
        (f"\n{SECRET}\n".encode(), 2, f"rawdl: {FLAG}: password: the first line is empty"),
        (b"secret\xff", 2, f"rawdl: {FLAG}: password: the first line is not UTF-8"),
        (b"secret" * 1000, 2, "rawdl: password cannot be longer than 1024 bytes"),
    ],
)
def test_a_password_that_does_not_open_it(
    holder: Command, strict: Origin, content: bytes | None, code: int, words: str
) -> None:
    if content is not None:
        (holder.folder / "password").write_bytes(content)
    outcome = holder(*KEY, *([FLAG, "password"] if content is not None else []), strict.url("/a"))
    assert (outcome.code, strict.connections) == (code, 0)
    assert outcome.complaint.startswith(words) and "secret" not in outcome.complaint


def test_nobody_is_asked_unless_told_to(holder: Command, strict: Origin) -> None:
    """OpenSSL would ask the terminal, where there is one, and wait for the answer."""
    master, slave = os.openpty()
    options = {"stdin": slave, "stderr": subprocess.PIPE, "start_new_session": True}
    with holder.start(*KEY, strict.url("/a"), **options) as process:
        os.close(slave)
        try:
            _, told = process.communicate(timeout=GUARD)
        finally:
            process.kill()
            os.close(master)
    assert (process.returncode, strict.connections) == (77, 0)
    assert told.decode().startswith(PEM) and told.count(b"\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([FLAG, "password"], f"{FLAG} is for the key of a certificate"),
        ([*KEY, FLAG, "nowhere"], f"{FLAG}: nowhere: No such file or directory"),
        ([*KEY, FLAG, "."], f"{FLAG}: .: Is a directory"),
        ([*KEY, FLAG, "-"], f"{FLAG}: standard input: the first line is empty"),
        (["--cacert", "damaged.pem"], "rawdl: certificates in damaged.pem: that is no PEM"),
    ],
)
def test_what_is_of_no_use(holder: Command, arguments: list[str], words: str) -> None:
    damaged = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"
    (holder.folder / "damaged.pem").write_text(damaged)
    outcome = holder(*arguments, "https://127.0.0.1/a")
    assert (outcome.code, words in outcome.complaint) == (77 if "damaged.pem" in arguments else 2, True)


def test_standard_input_that_is_closed(holder: Command) -> None:
    command = holder.argv(*KEY, FLAG, "-", "https://127.0.0.1/a")
    outcome = holder.outcome(["sh", "-c", 'exec "$@" <&-', "sh", *command])
    assert outcome.code == 2
    assert outcome.complaint.startswith(f"rawdl: {FLAG}: standard input: it is closed")
