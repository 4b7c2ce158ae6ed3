"""Against a real Apache: passwords, by Basic and by Digest (RFC 7616, 7617), and proxies (RFC 9110 9.3.6)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

import rawdl
from tests import once
from tests.apache import PASSWORD, USER, Apache
from tests.nginx import Nginx
from tests.recorder import PATIENCE

pytestmark = pytest.mark.one_version

DATA = os.urandom(3 << 20)


@pytest.fixture(scope="module")
def url(apache: Apache) -> str:
    (apache.root / "a").write_bytes(DATA)
    return apache.http


@pytest.fixture
def client() -> Iterator[rawdl.Client]:
    with once.client() as client:
        yield client


DIGEST, BASIC = rawdl.DigestAuth(USER, PASSWORD), rawdl.BasicAuth(USER, PASSWORD)


@pytest.mark.parametrize(("folder", "auth"), [("digest", DIGEST), ("basic", BASIC)])
@pytest.mark.parametrize("connections", [1, 3])
def test_a_password_opens(
    folder: str,
    auth: rawdl.BasicAuth | rawdl.DigestAuth,
    connections: int,
    url: str,
    client: rawdl.Client,
    tmp_path: Path,
):
    for number in range(3):
        path = tmp_path / str(number)
        task = client.download_file(
            url=f"{url}/{folder}/a", file_path=path, auth=auth, connections=connections, fail_on_status=True
        )
        task.result(PATIENCE)
        assert path.read_bytes() == DATA


@pytest.mark.parametrize(
    ("folder", "auth"),
    [
        ("digest", None),
        ("digest", BASIC),
        ("digest", rawdl.DigestAuth(USER, "wrong")),
        ("basic", None),
        ("basic", DIGEST),
        ("basic", rawdl.BasicAuth(USER, "wrong")),
    ],
)
def test_and_nothing_else_does(
    folder: str, auth: rawdl.BasicAuth | rawdl.DigestAuth | None, url: str, client: rawdl.Client
):
    task = client.download_file(url=f"{url}/{folder}/a", auth=auth, fail_on_status=True, sink=rawdl.DiscardSink())
    error = task.exception(PATIENCE)
    assert isinstance(error, rawdl.StatusError)
    assert error.status_code == 401


def test_the_password_is_never_sent_where_a_digest_will_do(url: str, client: rawdl.Client, apache: Apache):
    client.download_file(url=f"{url}/digest/a?only", auth=DIGEST, sink=rawdl.DiscardSink()).result(PATIENCE)
    lines = [line for line in apache.log("access", "?only", 2).splitlines() if "?only" in line]
    assert [line.split()[1] for line in lines] == ["401", "200"]
    assert "response=" in lines[1]
    assert not [line for line in lines if PASSWORD in line or "Basic" in line]


def test_a_coding_comes_off(apache: Apache, client: rawdl.Client, tmp_path: Path):
    text = b"".join(b"line %d\n" % number for number in range(200_000))
    (apache.root / "t").write_bytes(text)
    for decode in (True, False):
        path = tmp_path / str(decode)
        result = client.download_file(url=f"{apache.http}/gzip/t", file_path=path, decode=decode).result(PATIENCE)
        assert path.read_bytes() == text
        assert result.header.get("content-encoding") == ("gzip" if decode else None), "identity is asked for"


# As a proxy

TARGETS = ["http", "https"]
PROXIES = ["proxy", "locked", "secure"]


@pytest.fixture
def targets(url: str, nginx: Nginx) -> dict[str, str]:
    (nginx.root / "a").write_bytes(DATA)
    return {"http": f"{url}/a", "https": f"{nginx.https}/a"}


def proxy_url(apache: Apache, name: str, password: str = PASSWORD) -> str:
    given = getattr(apache, name)
    return given.replace("//", f"//{USER}:{quote(password, safe='')}@") if name == "locked" else given


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PROXIES)
def test_by_a_proxy(name: str, target: str, targets: dict[str, str], apache: Apache, ca_file: Path, tmp_path: Path):
    """With https by https it is TLS within TLS; each connection is used again."""
    with once.client(proxy=proxy_url(apache, name), tls=rawdl.TLS(ca_file=str(ca_file))) as client:
        for number in range(3):
            path = tmp_path / str(number)
            result = client.download_file(url=targets[target], file_path=path, fail_on_status=True).result(PATIENCE)
            assert path.read_bytes() == DATA
            assert result.profile.socket_reused == (number > 0)
    sent = f"CONNECT {targets[target].split('/')[2]} " if target == "https" else f"GET {targets[target]} "
    apache.log(name, sent)  # of a tunnel it tells at its end
    assert PASSWORD not in apache.log(name)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("password", [None, "wrong"])
def test_a_proxy_that_wants_another_password(
    password: str | None, target: str, targets: dict[str, str], apache: Apache, ca_file: Path, tmp_path: Path
):
    proxy = apache.locked if password is None else proxy_url(apache, "locked", password)
    with once.client(proxy=proxy, tls=rawdl.TLS(ca_file=str(ca_file))) as client:
        error = client.download_file(url=targets[target], file_path=tmp_path / "a").exception(PATIENCE)
    assert isinstance(error, rawdl.ProxyError)
    assert error.status_code == 407
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", TARGETS)
def test_F2_the_certificate_of_a_proxy_is_verified(
    target: str, targets: dict[str, str], apache: Apache, tmp_path: Path
):
    before = apache.log("secure")
    with once.client(proxy=apache.secure) as client:
        error = client.download_file(url=targets[target], file_path=tmp_path / "a").exception(PATIENCE)
    assert isinstance(error, rawdl.TLSError)
    assert error.certificate
    assert apache.log("secure") == before, "nothing was asked"


def test_an_origin_that_the_proxy_cannot_reach(apache: Apache, tmp_path: Path):
    with once.client(proxy=apache.proxy) as client:
        error = client.download_file(url="https://127.0.0.1:1/a", file_path=tmp_path / "a").exception(PATIENCE)
    assert isinstance(error, rawdl.ProxyError)
    assert error.status_code == 503
