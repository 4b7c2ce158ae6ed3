"""By a real squid: http, and https through CONNECT, with and without a login (A4, P1, P3)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

import rawdl
from tests import once
from tests.nginx import Nginx
from tests.recorder import PATIENCE
from tests.squid import Squid

pytestmark = pytest.mark.one_version

DATA = os.urandom(3 << 20)
LOGIN = ("user", "secret word")


@pytest.fixture(scope="module", params=[None, LOGIN], ids=["open", "locked"])
def squid(request: pytest.FixtureRequest) -> Iterator[Squid]:
    program = Squid.find()
    if program is None:
        pytest.skip("squid is not installed (Debian: apt-get install squid)")
    with Squid(program, request.param) as squid:
        yield squid


def url_of(squid: Squid, password: str = LOGIN[1]) -> str:
    return squid.url.replace("//", f"//user:{quote(password)}@") if squid.login else squid.url


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("connections", [1, 3])
def test_by_squid(connections: int, scheme: str, squid: Squid, nginx: Nginx, tmp_path: Path):
    (nginx.root / "q").write_bytes(DATA)
    tls = rawdl.TLS(ca_file=str(nginx.ca_file))
    with once.client(proxy=url_of(squid), tls=tls) as client:
        for number in range(2):
            path = tmp_path / str(number)
            url = f"{getattr(nginx, scheme)}/q"
            task = client.download_file(url=url, file_path=path, connections=connections, fail_on_status=True)
            assert task.result(PATIENCE).resumed_from == 0
            assert path.read_bytes() == DATA


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_P1_without_the_right_password(scheme: str, squid: Squid, nginx: Nginx, tmp_path: Path):
    if squid.login is None:
        pytest.skip("this one takes everybody")
    for proxy in (squid.url, url_of(squid, "wrong")):
        with once.client(proxy=proxy, tls=rawdl.TLS(ca_file=str(nginx.ca_file))) as client:
            task = client.download_file(url=f"{getattr(nginx, scheme)}/q", file_path=tmp_path / "a")
            error = task.exception(PATIENCE)
        assert isinstance(error, rawdl.ProxyError)
        assert error.status_code == 407
    assert list(tmp_path.iterdir()) == []


def test_an_origin_that_squid_cannot_reach(squid: Squid, tmp_path: Path):
    """Over http its page is an answer like others, a 503; for https there is no tunnel."""
    with once.client(proxy=url_of(squid)) as client:
        http = client.download_file(url="http://127.0.0.1:1/a", file_path=tmp_path / "a", fail_on_status=True)
        https = client.download_file(url="https://127.0.0.1:1/a", file_path=tmp_path / "b")
        assert isinstance(http.exception(PATIENCE), rawdl.StatusError)
        assert isinstance(https.exception(PATIENCE), rawdl.ProxyError)
    assert list(tmp_path.iterdir()) == []
