"""Client certificates, pinned keys and folders of trusted certificates (F1, A9, S37; RFC 7469 2.4)."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

import rawdl
from rawdl.tls import pin_of
from tests import once
from tests.origin import Origin, Script

SECRET = "canary"
BODY = b"x" * 1000


@pytest.fixture(scope="module")
def identity(ca: trustme.CA) -> trustme.LeafCert:
    return ca.issue_cert("client@example.org")


@pytest.fixture
def files(identity: trustme.LeafCert, tmp_path: Path) -> dict[str, str]:
    """Write the certificate and its key: together, apart, and locked."""
    paths = {name: str(tmp_path / f"{name}.pem") for name in ("both", "certificate", "key", "locked")}
    identity.private_key_and_cert_chain_pem.write_to_path(paths["both"])
    identity.cert_chain_pems[0].write_to_path(paths["certificate"])
    identity.private_key_pem.write_to_path(paths["key"])
    key = load_pem_private_key(identity.private_key_pem.bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(SECRET.encode()))
    Path(paths["locked"]).write_bytes(locked)
    return paths


def get(url: str, ca_file: Path, **settings: Any) -> rawdl.DownloadTask:
    with once.client(tls=rawdl.TLS(ca_file=str(ca_file), **settings)) as client:
        task = client.download_file(url=url, sink=rawdl.MemorySink())
        client.run()
    return task


@pytest.mark.parametrize(
    "names",
    [
        {"client_cert": "both"},
        {"client_cert": "certificate", "client_key": "key"},
        {"client_cert": "certificate", "client_key": "locked"},
    ],
    ids=["one file", "two files", "a locked key"],
)
def test_a_client_certificate_is_shown(strict: Origin, ca_file: Path, files: dict[str, str], names: dict[str, str]):
    url = strict.serve("/a", Script(body=BODY))
    settings = {name: files[value] for name, value in names.items()}
    assert get(url, ca_file, **settings, key_password=SECRET).result().data_length == len(BODY)


def test_an_origin_that_wants_one_and_gets_none(strict: Origin, ca_file: Path):
    """Under TLS 1.3 it says so only after the handshake."""
    error = get(strict.serve("/a", Script(body=BODY)), ca_file).exception()
    assert isinstance(error, rawdl.TLSError | rawdl.ConnectionLost)
    assert strict.requests == []


@pytest.mark.parametrize("password", [None, "wrong"])
def test_A9_a_key_that_does_not_open(strict: Origin, ca_file: Path, files: dict[str, str], password: str | None):
    """Nobody is asked at a terminal."""
    settings = {"client_cert": files["certificate"], "client_key": files["locked"], "key_password": password}
    error = get(strict.serve("/a", Script(body=BODY)), ca_file, **settings).exception()
    assert isinstance(error, rawdl.TLSError)
    assert error.certificate
    assert strict.connections == 0


@pytest.mark.parametrize("name", ["client_cert", "ca_file", "ca_dir"])
def test_a_file_that_is_not_there(tls_origin: Origin, name: str, tmp_path: Path):
    with once.client(tls=rawdl.TLS(**{name: tmp_path / "none"})) as client:
        error = client.download_file(url=tls_origin.url("/a"), sink=rawdl.MemorySink()).exception()
    assert isinstance(error, rawdl.TLSError)
    assert "No such file" in str(error)
    assert tls_origin.connections == 0


def test_A9_the_settings_do_not_show_the_password():
    assert SECRET not in repr(rawdl.TLS(client_cert="a", key_password=SECRET))


def test_F2_a_folder_of_certificates_replaces_those_of_the_system(tls_origin: Origin, ca_file: Path, tmp_path: Path):
    (tmp_path / "ca.pem").write_bytes(ca_file.read_bytes())
    url = tls_origin.serve("/a", Script(body=BODY))
    for hashed in (False, True):
        if hashed:
            subprocess.run(["openssl", "rehash", str(tmp_path)], check=True)
        with once.client(tls=rawdl.TLS(ca_dir=tmp_path)) as client:
            error = client.download_file(url=url, sink=rawdl.MemorySink()).exception()
        assert isinstance(error, type(None) if hashed else rawdl.TLSError)


# Pins


def expected_pin(certificate: x509.Certificate) -> str:
    info = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256//{b64encode(hashlib.sha256(info).digest()).decode()}"


@pytest.fixture
def pinned(ca: trustme.CA) -> Iterator[tuple[Origin, str]]:
    leaf = ca.issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    with Origin(tls=context) as origin:
        yield origin, expected_pin(x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()))


OTHER = f"sha256//{b64encode(bytes(32)).decode()}"


@pytest.mark.parametrize("settings", [{}, {"verify": False}])
def test_a_pinned_key(pinned: tuple[Origin, str], ca_file: Path, settings: dict[str, Any]):
    origin, pin = pinned
    url = origin.serve("/a", Script(body=BODY))
    assert get(url, ca_file, pins=[OTHER, pin], **settings).result().data_length == len(BODY)


@pytest.mark.parametrize("settings", [{}, {"verify": False}])
def test_F1_another_key_than_the_pinned_one_is_refused_before_the_request(
    pinned: tuple[Origin, str], ca_file: Path, settings: dict[str, Any]
):
    origin, pin = pinned
    error = get(origin.serve("/a", Script(body=BODY)), ca_file, pins=[OTHER], **settings).exception()
    assert isinstance(error, rawdl.TLSError)
    assert error.certificate
    assert f"its public key is {pin}, which is not pinned" in str(error)
    assert origin.requests == []


def test_the_pin_of_a_certificate(ca: trustme.CA):
    for leaf in (ca.issue_cert("a.example.org"), ca.issue_cert(*(f"{n}.example.org" for n in range(200)))):
        certificate = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
        assert pin_of(certificate.public_bytes(Encoding.DER)) == expected_pin(certificate)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"pins": ["sha256//x"]}, ValueError),
        ({"pins": [OTHER[:-1]]}, ValueError),
        ({"pins": ["sha1//" + OTHER[8:]]}, ValueError),
        ({"pins": OTHER}, TypeError),
        ({"pins": [5]}, ValueError),
        ({"client_key": "a"}, ValueError),
        ({"client_cert": 5}, TypeError),
        ({"ca_dir": b"a"}, TypeError),
        ({"client_cert": "a", "key_password": 5}, TypeError),
    ],
)
def test_S11_settings_that_make_no_sense(settings: dict[str, Any], kind: type[Exception]):
    with pytest.raises(kind):
        rawdl.TLS(**settings)
