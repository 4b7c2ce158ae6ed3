"""Who is believed to be who, and how a TLS stream ends (F1-F3, L5, C7, S37; RFC 8446, RFC 9110 4.3.4, RFC 9525)."""

from __future__ import annotations

import datetime
import errno
import ipaddress
import logging
import ssl
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

import rawdl
from tests import once
from tests.origin import Origin, Script, TLSEngine
from tests.proto.feeding import hang_guard
from tests.recorder import Recorder
from tests.sim import Conn, Link, World, http_peer
from tests.sim_tests.peers import tls_peer

BODY = bytes(range(256)) * 400
DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
IPV4, IPV6 = "10.1.2.3", "2001:db8::1"


@dataclass
class Authority:
    """A certificate authority that issues whatever it is asked for."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...] = ()  # what a server sends behind its own certificate

    @classmethod
    def make(cls, name: str, above: Authority | None = None) -> Authority:
        """Return one that the authority above it vouches for, or nobody but itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = above.certificate.subject if above else subject
        builder = _builder(subject, issuer, key, NOW - 10 * DAY, NOW + 10 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        signer = above.key if above else key
        issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        certificate = builder.add_extension(issued_by, critical=False).sign(signer, hashes.SHA256())
        return cls(key, certificate, (certificate, *above.chain) if above else ())

    def server(
        self,
        folder: Path,
        names: Sequence[x509.GeneralName] | None,
        *,
        common_name: str = "a server",
        begins: datetime.timedelta = -DAY,
        ends: datetime.timedelta = DAY,
        self_signed: bool = False,
    ) -> ssl.SSLContext:
        """Return the settings of a server that has such a certificate; `names` None leaves the extension out."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        issuer = subject if self_signed else self.certificate.subject
        builder = _builder(subject, issuer, key, NOW + begins, NOW + ends)
        if names is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signer = key if self_signed else self.key
        issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        builder = builder.add_extension(issued_by, critical=False)
        certificate = builder.sign(signer, hashes.SHA256())
        path = folder / "server.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(private + b"".join(each.public_bytes(Encoding.PEM) for each in (certificate, *self.chain)))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    begins: datetime.datetime,
    ends: datetime.datetime,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    return builder.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(ends)


def _usage(**uses: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    every = (*names, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: uses.get(name, False) for name in every})


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.make("An authority")


@pytest.fixture(scope="module")
def trusted(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of the authority's certificate."""
    path = tmp_path_factory.mktemp("trusted") / "ca.pem"
    path.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    return str(path)


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def dns(*names: str) -> list[x509.GeneralName]:
    return [x509.DNSName(name) for name in names]


def ip(*addresses: str) -> list[x509.GeneralName]:
    return [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]


def fetch(world: World, host: str, server: ssl.SSLContext, tls: object, script: Script | None = None) -> Recorder:
    """Download https://host/ from a server with these settings, into memory."""
    bare = str(ipaddress.ip_address(host.strip("[]"))) if host.startswith("[") else host.lower()
    peer = http_peer(script or Script(body=BODY))
    world.listen(bare, 443, peer, tls=server, link=Link(segment=65536))
    recorder = Recorder()
    recorder.download(world.client(tls=tls), url=f"https://{host}/a", sink=rawdl.MemorySink()).exception()
    return recorder


def refused(recorder: Recorder, world: World) -> rawdl.TLSError:
    """See that no byte of a request was sent, and return the error."""
    world.wait()
    assert recorder.names == ["fail", "complete"]
    error = recorder.events[0][1]
    assert isinstance(error, rawdl.TLSError)
    assert world.requests == []
    assert [conn.received for conn in world.conns] == [b""]
    assert error.err_code == 600001
    assert "TLS handshake with" in str(error)
    return error


# F1: whose certificate is accepted

ACCEPTED = {
    "its name": ("example.org", dns("example.org")),
    "its name among others": ("example.org", dns("a.example", "example.org", "b.example")),
    "in upper case": ("EXAMPLE.org", dns("Example.ORG")),
    "wildcard, one level": ("www.example.org", dns("*.example.org")),
    "wildcard, an A-label": ("xn--bcher-kva.example.org", dns("*.example.org")),
    "trailing dot": ("example.org.", dns("example.org")),
    "A-label": ("xn--bcher-kva.example.org", dns("xn--bcher-kva.example.org")),
    "trailing dot by a wildcard": ("www.example.org.", dns("*.example.org")),
    "IPv4": (IPV4, ip(IPV4)),
    "IPv6": (f"[{IPV6}]", ip(IPV6)),
    "IPv6 in another spelling": ("[2001:DB8:0:0::1]", ip(IPV6)),
}
REFUSED = {
    "wrong host": ("example.org", dns("example.com"), "example.com"),
    "longer name": ("example.org", dns("www.example.org"), "x"),
    "shorter name": ("www.example.org", dns("example.org"), "x"),
    "wildcard, two levels": ("a.b.example.org", dns("*.example.org"), "x"),
    "wildcard, no level": ("example.org", dns("*.example.org"), "x"),
    "wildcard, a part of a label": ("www.example.org", dns("w*.example.org"), "x"),
    "wildcard, not the left-most": ("www.example.org", dns("www.*.org"), "x"),
    "wildcard, alone": ("localhost", dns("*"), "x"),
    "wildcard, a part of an A-label": ("xn--bcher-kva.example.org", dns("xn--*.example.org"), "x"),
    "A-label, another": ("xn--bcher-kva.example.org", dns("xn--caf-dma.example.org"), "xn--bcher-kva.example.org"),
    "trailing dot": ("example.org.", dns("example.com"), "example.com"),
    "trailing dot, a wildcard of two levels": ("a.b.example.org.", dns("*.example.org"), "x"),
    "empty name": ("example.org", dns(""), "example.org"),
    "common name only": ("example.org", None, "example.org"),
    "common name beside an empty list": ("example.org", [], "example.org"),
    "common name beside an address": ("example.org", ip(IPV4), "example.org"),
    "common name beside a mailbox": ("example.org", [x509.RFC822Name("a@example.org")], "example.org"),
    "common name beside another name": ("example.org", dns("example.com"), "example.org"),
    "IPv4 as a name": (IPV4, dns(IPV4), IPV4),
    "IPv4 as a common name": (IPV4, None, IPV4),
    "IPv4 by a wildcard": (IPV4, dns("*.2.3", "*"), "x"),
    "IPv4, another": (IPV4, ip("10.1.2.4"), "x"),
    "IPv6 as a name": (f"[{IPV6}]", dns(IPV6), IPV6),
    "name as an address": ("example.org", ip(IPV4), IPV4),
    "NUL in the name": ("example.org", dns("example.org\0.example.com"), "x"),
    "trailing text": ("example.org", dns("example.org evil"), "x"),
}


@pytest.mark.parametrize(("host", "names"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_F1_accepted(
    host: str, names: list[x509.GeneralName], world: World, authority: Authority, trusted: str, tmp_path: Path
):
    recorder = fetch(world, host, authority.server(tmp_path, names), rawdl.TLS(ca_file=trusted))
    assert recorder.outcome == ["success", "complete"], recorder.events[-1]
    assert len(world.requests) == 1


@pytest.mark.parametrize(("host", "names", "common_name"), REFUSED.values(), ids=REFUSED.keys())
def test_F1_L2_refused_before_a_byte_of_the_request_is_sent(
    host: str,
    names: list[x509.GeneralName] | None,
    common_name: str,
    world: World,
    authority: Authority,
    trusted: str,
    tmp_path: Path,
):
    server = authority.server(tmp_path, names, common_name=common_name)
    error = refused(fetch(world, host, server, rawdl.TLS(ca_file=trusted)), world)
    assert error.certificate is True
    assert error.reason == "certificate"
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    if names != []:  # which some versions refuse for its own sake
        assert "mismatch" in error.__cause__.verify_message, "refused for the name, and for nothing else"


def test_F1_B3_an_international_name_is_verified_by_its_A_label(
    world: World, authority: Authority, trusted: str, tmp_path: Path
):
    pytest.importorskip("idna", reason="the extra idna is not installed")
    label, sent = "xn--bcher-kva.example.org", []
    server = authority.server(tmp_path, dns(label))
    server.sni_callback = lambda connection, name, context: sent.append(name)
    world.listen(label, 443, http_peer(Script(body=BODY)), tls=server)
    client = world.client(tls=rawdl.TLS(ca_file=trusted))
    result = client.download_file(url="https://bücher.example.org/a", sink=rawdl.MemorySink()).result()
    assert (result.data_length, sent) == (len(BODY), [label])


INVALID = {
    "expired": ({"begins": -3 * DAY, "ends": -DAY}, "expired"),
    "not yet valid": ({"begins": DAY, "ends": 3 * DAY}, "not yet valid"),
    "self-signed": ({"self_signed": True}, "self-signed"),
}


@pytest.mark.parametrize(("how", "said"), INVALID.values(), ids=INVALID.keys())
def test_F1_L2_an_invalid_certificate_is_refused(
    how: dict[str, object], said: str, world: World, authority: Authority, trusted: str, tmp_path: Path
):
    server = authority.server(tmp_path, dns("example.org"), **how)
    error = refused(fetch(world, "example.org", server, rawdl.TLS(ca_file=trusted)), world)
    assert error.reason == "certificate"
    assert said in str(error)


def test_F1_an_unknown_authority_is_refused(world: World, trusted: str, tmp_path: Path):
    """It even has the name of the known one."""
    server = Authority.make("An authority").server(tmp_path, dns("example.org"))
    error = refused(fetch(world, "example.org", server, rawdl.TLS(ca_file=trusted)), world)
    assert error.certificate is True


def test_F1_the_default_trusts_no_test_authority(world: World, authority: Authority, tmp_path: Path):
    error = refused(fetch(world, "example.org", authority.server(tmp_path, dns("example.org")), None), world)
    assert error.certificate is True


def test_F1_on_real_sockets_the_origins_log_is_empty(ca_file: Path, server_context: ssl.SSLContext):
    with (
        Origin(tls=server_context) as origin,
        once.client(tls=rawdl.TLS(ca_file=str(ca_file)), resolver=lambda *name: ["127.0.0.1"]) as client,
    ):
        url = origin.serve("/a", Script(body=BODY))
        wrong = client.download_file(url=url.replace("127.0.0.1", "example.com"), sink=rawdl.MemorySink())
        error = wrong.exception()
        assert isinstance(error, rawdl.TLSError) and error.certificate
        assert "127.0.0.1" in str(error) and "example.com" in str(error)
        origin.wait_closed()
        assert origin.requests == []
        assert "alert" in str(origin.tls_errors).lower(), "the server is told why"
        right = client.download_file(url=url.replace("127.0.0.1", "www.example.org"), sink=rawdl.MemorySink())
        assert right.result().data_length == len(BODY)


@pytest.mark.parametrize(
    ("host", "name"),
    [("example.org", "example.org"), ("EXAMPLE.org.", "example.org"), (IPV4, None), (f"[{IPV6}]", None)],
)
def test_B2_the_name_that_is_sent_is_the_one_that_is_verified(
    host: str, name: str | None, world: World, authority: Authority, trusted: str, tmp_path: Path
):
    server = authority.server(tmp_path, [*dns("example.org"), *ip(IPV4, IPV6)])
    sent: list[str | None] = []
    server.sni_callback = lambda connection, name, context: sent.append(name)
    recorder = fetch(world, host, server, rawdl.TLS(ca_file=trusted))
    assert recorder.outcome == ["success", "complete"]
    assert sent == ([name] if name else [None])


# F2: the settings


def test_F2_a_ca_file_replaces_the_systems_authorities(trusted: str):
    ours = rawdl.TLS(ca_file=trusted).context()
    assert [each["subject"] for each in ours.get_ca_certs()] == [((("commonName", "An authority"),),)]
    assert ours.verify_mode is ssl.CERT_REQUIRED
    assert ours.check_hostname is True
    assert ours.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_F2_verify_false_accepts_anybody_and_is_warned_about(
    world: World, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    server = authority.server(tmp_path, dns("example.com"), self_signed=True)
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.WARNING, "rawdl"):
        warnings.simplefilter("always")
        recorder = fetch(world, "example.org", server, rawdl.TLS(verify=False))
    assert recorder.outcome == ["success", "complete"]
    told = [str(warning.message) for warning in caught] + [record.getMessage() for record in caplog.records]
    assert any("verif" in text for text in told), "verify=False goes by in silence"


def test_F2_a_context_of_the_callers_is_taken_as_it_is(
    world: World, authority: Authority, trusted: str, tmp_path: Path
):
    context = ssl.create_default_context(cafile=trusted)
    recorder = fetch(world, "example.org", authority.server(tmp_path, dns("example.org")), context)
    assert recorder.outcome == ["success", "complete"]


class Poor(ssl.SSLContext):
    """A context of the caller's, with which no handshake can even begin."""

    raised: BaseException

    def wrap_bio(self, *args: object, **options: object) -> ssl.SSLObject:
        raise self.raised


def poor(raised: BaseException) -> Poor:
    context = Poor(ssl.PROTOCOL_TLS_CLIENT)
    context.raised = raised
    return context


def test_N19_I8_no_descriptor_is_left_for_the_handshake(world: World, authority: Authority, tmp_path: Path):
    """Python loads a codec for the first of them, for instance."""
    server = authority.server(tmp_path, dns("example.org"))
    recorder = fetch(world, "example.org", server, poor(OSError(errno.EMFILE, "Too many open files")))
    error = recorder.events[0][1]
    assert recorder.outcome == ["fail", "complete"]
    assert isinstance(error, rawdl.TLSError)
    assert error.errno == errno.EMFILE
    assert str(error) == "cannot speak TLS to example.org: Too many open files"
    world.wait()
    assert [conn.received for conn in world.conns] == [b""]


def test_K10_an_interrupt_between_connection_and_handshake_ends_the_task(
    world: World, authority: Authority, tmp_path: Path
):
    """It is not left half-way, where the next turn would stumble over it."""
    world.listen("example.org", 443, tls=authority.server(tmp_path, dns("example.org")))
    recorder, client = Recorder(), world.client(tls=poor(KeyboardInterrupt()))
    task = recorder.download(client, url="https://example.org/", file_path=tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        task.exception()
    client.close()
    assert recorder.outcome == ["fail", "complete"]
    assert not (tmp_path / "a.part").exists()
    world.wait()
    assert [conn.received for conn in world.conns] == [b""]


def test_F2_the_least_version_is_held(world: World, authority: Authority, trusted: str, tmp_path: Path):
    server = authority.server(tmp_path, dns("example.org"))
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    error = refused(fetch(world, "example.org", server, rawdl.TLS(ca_file=trusted, minimum_version="1.3")), world)
    assert error.certificate is False
    assert error.reason == "connection failed"


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_F2_a_ca_file_that_cannot_be_used_settles_the_task(content: str | None, world: World, tmp_path: Path):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    client = world.client(tls=rawdl.TLS(ca_file=str(path)))
    error = client.download_file(url="https://example.org/", sink=rawdl.MemorySink()).exception()
    assert isinstance(error, rawdl.TLSError)
    assert world.conns == []


# F3: what is not TLS


@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"garbage" * 100, b"\0" * 50])
def test_F3_L1_S37_bytes_before_the_handshake_are_never_a_response(first: bytes, world: World, trusted: str):
    def peer(conn: Conn) -> Iterator[None]:
        conn.send(first)
        yield None

    world.listen("example.org", 443, peer)
    recorder = Recorder()
    recorder.download(
        world.client(tls=rawdl.TLS(ca_file=trusted)), url="https://example.org/a", sink=rawdl.MemorySink()
    ).exception()
    assert recorder.names == ["fail", "complete"]
    error = recorder.events[0][1]
    assert isinstance(error, rawdl.TLSError)
    assert error.certificate is False
    assert error.reason == "connection failed"
    assert b"GET" not in world.conns[0].received
    if first.startswith(b"HTTP"):
        assert "plain http" in str(error)


def test_S37_plain_http_on_a_tls_port_of_a_real_server(origin: Origin):
    with once.client() as client:
        url = origin.serve("/a", Script(body=BODY)).replace("http:", "https:")
        error = client.download_file(url=url, sink=rawdl.MemorySink()).exception()
    assert isinstance(error, rawdl.TLSError)
    assert error.reason == "connection failed"
    assert "plain http" in str(error)
    assert origin.requests == []


def test_S37_tls_on_a_plain_http_port(tls_origin: Origin):
    with once.client() as client:
        url = tls_origin.serve("/a", Script(body=BODY)).replace("https:", "http:")
        error = client.download_file(url=url, sink=rawdl.MemorySink()).exception()
    assert isinstance(error, rawdl.DownloadError)
    assert error.reason in ("protocol error", "incomplete")


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("offset", [0, 1, 5, 100, 300, 600])
def test_L1_a_handshake_that_breaks_off(
    how: str, offset: int, world: World, authority: Authority, trusted: str, tmp_path: Path
):
    server = authority.server(tmp_path, dns("example.org"))
    world.listen("example.org", 443, http_peer(Script()), tls=server, link=Link(cut_at=offset, cut=how))
    client, recorder = world.client(tls=rawdl.TLS(ca_file=trusted)), Recorder()
    recorder.download(client, url="https://example.org/a", sink=rawdl.MemorySink()).exception()
    error = refused(recorder, world)
    assert error.reason == "connection failed"
    assert error.errno == (errno.ECONNRESET if how == "rst" else None)


# L5: servers of another time, and of another size

OLD = {"TLS 1.0": ssl.TLSVersion.TLSv1, "TLS 1.1": ssl.TLSVersion.TLSv1_1}


def old(server: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Let this side speak that version only, which has to be allowed twice over."""
    server.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server.minimum_version = server.maximum_version = version
    return server


@pytest.mark.parametrize("version", OLD.values(), ids=OLD.keys())
def test_L5_a_server_without_a_version_of_ours(
    version: ssl.TLSVersion, world: World, authority: Authority, trusted: str, tmp_path: Path
):
    server = old(authority.server(tmp_path, dns("example.org")), version)
    error = refused(fetch(world, "example.org", server, rawdl.TLS(ca_file=trusted)), world)
    assert (error.certificate, error.reason) == (False, "connection failed")
    assert "version" in str(error)


@pytest.mark.parametrize("version", OLD.values(), ids=OLD.keys())
def test_L5_such_a_server_is_one_that_works(
    version: ssl.TLSVersion, world: World, authority: Authority, trusted: str, tmp_path: Path
):
    """A client that was told to gets the file from it, so that it is the version which the other one refuses."""
    if not (ssl.HAS_TLSv1 and ssl.HAS_TLSv1_1):
        pytest.skip("this OpenSSL was built without it")
    server = old(authority.server(tmp_path, dns("example.org")), version)
    recorder = fetch(world, "example.org", server, old(ssl.create_default_context(cafile=trusted), version))
    assert recorder.outcome == ["success", "complete"]


def test_L5_a_server_without_a_cipher_of_ours(world: World, authority: Authority, trusted: str, tmp_path: Path):
    """Its key is of an elliptic curve, and all that it would do is for keys of RSA."""
    server = authority.server(tmp_path, dns("example.org"))
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    server.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    error = refused(fetch(world, "example.org", server, rawdl.TLS(ca_file=trusted)), world)
    assert (error.certificate, error.reason) == (False, "connection failed")


NO_APPLICATION_PROTOCOL = 120  # RFC 7301 3.2
SETTINGS = bytes.fromhex("000000040000000000")  # RFC 9113 4.1: the frame with which an HTTP/2 server begins


def test_L5_a_server_of_HTTP_2_that_refuses(world: World, authority: Authority, trusted: str, tmp_path: Path):
    server = authority.server(tmp_path, dns("example.org"))
    server.sni_callback = lambda connection, name, context: NO_APPLICATION_PROTOCOL
    error = refused(fetch(world, "example.org", server, rawdl.TLS(ca_file=trusted)), world)
    assert (error.certificate, error.reason) == (False, "connection failed")


@pytest.mark.parametrize("stays", [False, True], ids=["closes", "stays"])
def test_L5_a_server_of_HTTP_2_that_answers_in_it(
    stays: bool, world: World, authority: Authority, trusted: str, tmp_path: Path
):
    """Nobody asked for it, and nothing of it is taken for a body."""
    server = authority.server(tmp_path, dns("example.org"))
    server.set_alpn_protocols(["h2"])
    script = Script(raw=SETTINGS * 9, keep_alive=stays)
    recorder = fetch(world, "example.org", server, rawdl.TLS(ca_file=trusted), script)
    assert recorder.names == ["fail", "complete"]
    assert type(recorder.events[0][1]) is rawdl.ProtocolError
    assert world.elapsed < 1, "at once, and by no time limit"
    assert not world.sockets


@pytest.mark.parametrize("asked", [False, True])
def test_L5_HTTP_2_is_not_asked_for(asked: bool, world: World, authority: Authority, trusted: str, tmp_path: Path):
    """The server would choose it; with settings of the caller's that ask for it, it does."""
    server = authority.server(tmp_path, dns("example.org"))
    server.set_alpn_protocols(["h2", "http/1.1"])
    chosen: list[str | None] = []

    def talk(conn: Conn, engine: TLSEngine) -> None:
        chosen.append(engine._tls.selected_alpn_protocol())
        engine.send(Script(body=BODY).wire)
        conn.send(engine.data_to_send())

    world.listen("example.org", 443, tls_peer(server, talk))
    context = rawdl.TLS(ca_file=trusted).context()
    if asked:
        context.set_alpn_protocols(["http/1.1", "h2"])
    client = world.client(tls=context)
    assert client.download_file(url="https://example.org/a", sink=rawdl.MemorySink()).result().data_length == len(BODY)
    assert (chosen == ["h2"]) == asked


# OpenSSL takes 100 KiB of certificates, and a chain of 100 of them.
SIZES = {"1000 names": (1000, 0, True), "10 000 names": (10_000, 0, False), "a chain of 20": (1, 20, True)}
SIZES |= {"a chain of 120": (1, 120, False), "a chain of 1000": (1, 1000, False)}


@pytest.mark.parametrize(("count", "links", "fits"), SIZES.values(), ids=SIZES.keys())
def test_L5_a_huge_certificate(
    count: int, links: int, fits: bool, world: World, authority: Authority, trusted: str, tmp_path: Path
):
    names = dns(*(f"{number}.example.org" for number in range(1, count)), "example.org")
    for link in range(links):
        authority = Authority.make(f"Link {link}", authority)
    server = authority.server(tmp_path, names)
    with hang_guard():
        recorder = fetch(world, "example.org", server, rawdl.TLS(ca_file=trusted))
    assert world.elapsed < 2, "no time limit ended it"
    if fits:
        assert recorder.outcome == ["success", "complete"], recorder.events[-1]
    else:
        refused(recorder, world)


# How it ends


@pytest.mark.parametrize("close_notify", [True, False])
@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
def test_C7_T24_L4_the_end_with_and_without_close_notify(
    framing: str, close_notify: bool, world: World, authority: Authority, trusted: str, tmp_path: Path
):
    script = Script(body=BODY, framing=framing, keep_alive=False, close_notify=close_notify)
    server = authority.server(tmp_path, dns("example.org"))
    recorder = fetch(world, "example.org", server, rawdl.TLS(ca_file=trusted), script)
    if close_notify or framing != "until-close":
        assert recorder.outcome == ["success", "complete"]
        assert recorder.events[-1][1].data_length == len(BODY)
        return
    error = recorder.events[-1][1]
    assert isinstance(error, rawdl.IncompleteBody)
    assert (error.received, error.expected) == (len(BODY), None)


@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_C7_S18_a_body_cut_under_tls(
    framing: str, how: str, world: World, authority: Authority, trusted: str, tmp_path: Path
):
    """By the link: in the middle of a record, and without a word."""
    server = authority.server(tmp_path, dns("example.org"))
    link = Link(cut_at=60_000, cut=how, segment=10_000)
    world.listen("example.org", 443, http_peer(Script(body=BODY, framing=framing)), tls=server, link=link)
    client, recorder = world.client(tls=rawdl.TLS(ca_file=trusted)), Recorder()
    error = recorder.download(client, url="https://example.org/a", sink=rawdl.MemorySink()).exception()
    assert isinstance(error, rawdl.IncompleteBody)
    assert 30_000 < error.received < 60_000
    assert error.expected == (len(BODY) if framing == "content-length" else None)
    if how == "rst":
        assert isinstance(error.__cause__, rawdl.ConnectionLost)
        assert error.__cause__.errno == errno.ECONNRESET


@pytest.mark.parametrize("framing", ["content-length", "until-close"])
def test_C7_S18_a_reset_inside_tls_of_a_real_socket(framing: str, tls_origin: Origin, ca_file: Path):
    url = tls_origin.serve("/a", Script(body=BODY, framing=framing, cut_at=50_000, cut="rst"))
    with once.client(tls=rawdl.TLS(ca_file=str(ca_file))) as client:
        error = client.download_file(url=url, sink=rawdl.MemorySink()).exception()
    assert isinstance(error, rawdl.IncompleteBody | rawdl.ConnectionLost)
    assert isinstance(error, rawdl.ConnectionLost) or isinstance(error.__cause__, rawdl.ConnectionLost)


def test_C7_a_cut_head_under_tls(world: World, authority: Authority, trusted: str, tmp_path: Path):
    server = authority.server(tmp_path, dns("example.org"))
    for close_notify in (True, False):
        script = Script(raw=b"HTTP/1.1 200 OK\r\nX", cut_at=10, close_notify=close_notify)
        error = fetch(world, "example.org", server, rawdl.TLS(ca_file=trusted), script).events[-1][1]
        assert isinstance(error, rawdl.IncompleteHead)


def test_L3_a_broken_record_in_the_body(world: World, trusted: str, tmp_path: Path, authority: Authority):
    """Somebody on the way flips a bit: the bytes before it are not enough, and those behind it are nothing."""
    server = authority.server(tmp_path, dns("example.org"))
    world.listen("example.org", 443, http_peer(Script(body=BODY, pace=1e6)), tls=server, link=Link(segment=1000))
    client, recorder = world.client(tls=rawdl.TLS(ca_file=trusted)), Recorder()
    task = recorder.download(client, url="https://example.org/a", sink=rawdl.MemorySink())
    world.drive(client, lambda: task.progress.total_bytes_written > 20_000)
    conn = world.conns[0]
    transmit = conn._transmit
    conn._transmit = lambda segment: transmit(segment[:-1] + bytes([segment[-1] ^ 1]))  # type: ignore[method-assign]
    error = task.exception()
    assert isinstance(error, rawdl.IncompleteBody)
    assert "TLS" in str(error.__cause__)


def test_RFC9112_9_8_a_closure_alert_is_sent(world: World, authority: Authority, trusted: str, tmp_path: Path):
    """When the client lets go of an idle connection it says so, so that the server's read ends well."""
    server = authority.server(tmp_path, dns("example.org"))
    world.listen("example.org", 443, http_peer(Script(body=BODY)), tls=server)
    client = world.client(tls=rawdl.TLS(ca_file=trusted))
    client.download_file(url="https://example.org/a", sink=rawdl.MemorySink()).result()
    ends: list[bytes] = []
    conn = world.conns[0]
    arrive = conn.arrive
    conn.arrive = lambda data: (ends.append(bytes(data)), arrive(data))[1]  # type: ignore[method-assign]
    client.close()
    world.wait()
    assert len(ends) == 1
    assert conn.client_closed == "fin"


# The stream


@pytest.mark.parametrize("buffer_size", [4096, 262144])
@pytest.mark.parametrize("segment", [1 << 20, 777])
def test_N17_what_is_decrypted_is_drained_before_the_socket_is_waited_for(
    buffer_size: int, segment: int, world: World, authority: Authority, trusted: str, tmp_path: Path
):
    """The whole body comes at once, in records larger than the buffer, and then nothing more ever."""
    server = authority.server(tmp_path, dns("example.org"))
    body = BODY * 4
    link = Link(segment=segment, window=1 << 22)
    world.listen("example.org", 443, http_peer(Script(body=body, chunk=len(body))), tls=server, link=link)
    client, sink = world.client(tls=rawdl.TLS(ca_file=trusted), buffer_size=buffer_size), rawdl.MemorySink()
    assert client.download_file(url="https://example.org/a", sink=sink).result().data_length == len(body)
    assert sink.getvalue() == body


def test_a_reused_tls_connection(world: World, authority: Authority, trusted: str, tmp_path: Path):
    server = authority.server(tmp_path, dns("example.org"))
    world.listen("example.org", 443, http_peer(Script(body=BODY)), tls=server)
    client = world.client(tls=rawdl.TLS(ca_file=trusted))
    results = [client.download_file(url="https://example.org/a", sink=rawdl.MemorySink()).result() for _ in range(3)]
    assert [result.profile.socket_reused for result in results] == [False, True, True]
    assert len(world.conns) == 1
    first, second = results[0].profile, results[1].profile
    assert 0 < first.ssl_connection_start <= first.ssl_connection_end
    assert second.ssl_connection_start == second.ssl_connection_end == 0
