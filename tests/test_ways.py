"""Ways to a server that are not a name and a port: a Unix socket, a TLS session that is resumed."""

from __future__ import annotations

import gc
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rawdl
from rawdl.sessions import Sessions, Way
from tests import once
from tests.apache import Apache
from tests.nginx import Nginx
from tests.origin import Origin, Script

BODY = b"hello"


class Steps(list[tuple[str, dict[str, Any]]]):
    """Take what is told of each step."""

    def __call__(self, phase: str, event: str, data: dict[str, Any]) -> None:
        self.append((f"{phase} {event}", data))

    def data(self, name: str) -> list[dict[str, Any]]:
        return [data for told, data in self if told == name]


@pytest.fixture
def page(nginx: Nginx) -> str:
    (nginx.root / "hello").write_bytes(BODY)
    return "/hello"


def get(client: rawdl.Client, url: str, **options: Any) -> rawdl.DownloadResult:
    sink = rawdl.MemorySink()
    result = client.download_file(url=url, sink=sink, **options).result()
    assert sink.getvalue() == BODY
    return result


# A Unix socket


def test_all_connections_go_to_a_unix_socket(nginx: Nginx, page: str, monkeypatch: pytest.MonkeyPatch):
    """No name is resolved, no policy asked, and a proxy of the environment does not count."""
    monkeypatch.setenv("http_proxy", "socks5h://127.0.0.1:9")
    steps = Steps()
    with once.client(unix_socket=nginx.socket, trace=steps, address_policy=lambda host, address: False) as client:
        result = get(client, f"http://nowhere.invalid{page}")
        get(client, f"http://nowhere.invalid{page}")
    assert result.profile.peer_ip == str(nginx.socket)
    assert steps.data("resolve started") == []
    assert [data["peer"] for data in steps.data("connect complete")] == [str(nginx.socket)]
    assert len(steps.data("connect reused")) == 1


def test_a_file_comes_over_a_unix_socket(nginx: Nginx, tmp_path: Path):
    body = bytes(range(256)) * 20_000
    (nginx.root / "large").write_bytes(body)
    with once.client(unix_socket=str(nginx.socket)) as client:
        client.download_file(url="http://localhost/large", file_path=tmp_path / "large").result()
    assert (tmp_path / "large").read_bytes() == body


def test_a_unix_socket_that_is_not_there(tmp_path: Path):
    with once.client(unix_socket=tmp_path / "none") as client:
        error = client.download_file(url="http://localhost/", sink=rawdl.DiscardSink()).exception()
    assert isinstance(error, rawdl.ConnectError)
    assert str(tmp_path / "none") in str(error)


def test_S11_what_is_no_unix_socket():
    with pytest.raises(TypeError):
        rawdl.Client(unix_socket=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unix_socket"):
        rawdl.Client(unix_socket="")


# Sessions


def test_F4_a_session_is_resumed_with_whom_it_is_of(nginx: Nginx, page: str):
    steps = Steps()
    with once.client(tls=rawdl.TLS(ca_file=nginx.ca_file), trace=steps) as client:
        for _ in range(3):
            get(client, nginx.https + page, header={"Connection": "close"})
        get(client, nginx.https.replace("127.0.0.1", "localhost") + page)
    assert [data["resumed"] for data in steps.data("tls complete")] == [False, True, True, False]


def test_F4_another_client_resumes_nothing(nginx: Nginx, page: str):
    for _ in range(2):
        steps = Steps()
        with once.client(tls=rawdl.TLS(ca_file=nginx.ca_file), trace=steps) as client:
            get(client, nginx.https + page)
        assert [data["resumed"] for data in steps.data("tls complete")] == [False]


def test_F4_a_session_is_not_of_another_way(nginx: Nginx, apache: Apache, page: str):
    """What was agreed upon through a proxy is not for the direct way, nor the other way round."""
    steps = Steps()
    with once.client(tls=rawdl.TLS(ca_file=nginx.ca_file), trace=steps) as client:
        for proxy in (apache.proxy, None, apache.proxy, None):
            get(client, nginx.https + page, header={"Connection": "close"}, proxy=proxy)
    assert [data["resumed"] for data in steps.data("tls complete")] == [False, False, True, True]


def test_F4_each_session_is_used_once_and_they_are_not_too_many():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    sessions, ways = Sessions(), [Way(f"h{number}.example.org", 443, context) for number in range(100)]
    for way in ways:
        sessions.keep(way, way)  # type: ignore[arg-type]
    kept = [way for way in ways if sessions.take(way) is way]
    assert kept == ways[-64:]
    assert [way for way in ways if sessions.take(way)] == []


def test_F1_a_pin_is_looked_at_when_a_session_is_resumed(nginx: Nginx, page: str):
    with once.client(tls=rawdl.TLS(ca_file=nginx.ca_file)) as client:
        get(client, nginx.https + page, header={"Connection": "close"})
        client._shared.dialer.pins = ("sha256//" + 43 * "A" + "=",)
        error = client.download_file(url=nginx.https + page, sink=rawdl.DiscardSink()).exception()
    assert isinstance(error, rawdl.TLSError)
    assert "not pinned" in str(error)


# The system's certificates, and the keys for who debugs


@pytest.fixture
def key_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file is open for as long as a context that writes to it is there."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    yield tmp_path / "keys"
    gc.collect()


@pytest.mark.parametrize("trusted", [True, False])
def test_F2_the_systems_store_is_asked_by_truststore(
    tls_origin: Origin, ca_file: Path, tmp_path: Path, key_log: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
):
    """As on macOS and Windows: here the package asks OpenSSL's, which the environment can move."""
    pytest.importorskip("truststore")
    monkeypatch.setattr("rawdl.tls.sys.platform", "darwin")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file if trusted else tmp_path / "none.pem"))
    url = tls_origin.serve("/a", Script(body=BODY))
    steps = Steps()
    with once.client(trace=steps) as client:
        for _ in range(2):
            options = {"header": {"Connection": "close"}, "sink": rawdl.DiscardSink()}
            error = client.download_file(url=url, **options).exception()
            assert (error is None) is trusted
    if not trusted:
        assert isinstance(error, rawdl.TLSError)
        assert tls_origin.requests == []
    assert [data["resumed"] for data in steps.data("tls complete")] == [False] * 2 * trusted, "it is to see the chain"
    assert key_log.exists()


@pytest.mark.parametrize("own", [True, False])
def test_SSLKEYLOGFILE_is_honoured(tls_origin: Origin, ca_file: Path, key_log: Path, own: bool):
    tls = ssl.create_default_context(cafile=str(ca_file)) if own else rawdl.TLS(ca_file=ca_file)
    url = tls_origin.serve("/a", Script(body=BODY))
    with once.client(tls=tls) as client:
        get(client, url)
    assert "SECRET" in key_log.read_text()
