"""By a real SOCKS 5 proxy: names that it resolves or that are resolved here, with and without a login."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import rawdl
from tests import once
from tests.microsocks import Microsocks
from tests.nginx import Nginx
from tests.recorder import PATIENCE

pytestmark = pytest.mark.one_version

pytest.importorskip("socksio", reason="the extra socks is not installed")

DATA = os.urandom(3 << 20)
LOGIN = ("user", "secret")


@pytest.fixture(scope="module", params=[None, LOGIN], ids=["open", "locked"])
def proxy(request: pytest.FixtureRequest) -> Iterator[str]:
    program = Microsocks.find()
    if program is None:
        pytest.skip("microsocks is not installed (Debian: apt-get install microsocks)")
    with Microsocks(program, request.param) as server:
        yield f"{':'.join(request.param)}@127.0.0.1:{server.port}" if request.param else f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("kind", ["socks5", "socks5h"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_by_a_socks_proxy(host: str, kind: str, scheme: str, proxy: str, nginx: Nginx, tmp_path: Path):
    (nginx.root / "s").write_bytes(DATA)
    url = getattr(nginx, scheme).replace("127.0.0.1", host)
    with once.client(proxy=f"{kind}://{proxy}", tls=rawdl.TLS(ca_file=str(nginx.ca_file))) as client:
        for number in range(2):
            path = tmp_path / str(number)
            result = client.download_file(url=f"{url}/s", file_path=path, fail_on_status=True).result(PATIENCE)
            assert path.read_bytes() == DATA
            assert result.profile.socket_reused == (number > 0)


def test_a_wrong_password(proxy: str, nginx: Nginx, tmp_path: Path):
    if "@" not in proxy:
        pytest.skip("this one takes everybody")
    with once.client(proxy=f"socks5h://user:wrong@{proxy.partition('@')[2]}") as client:
        error = client.download_file(url=f"{nginx.http}/s", file_path=tmp_path / "a").exception(PATIENCE)
    assert isinstance(error, rawdl.ProxyError)
    assert "refuses the user name or password" in str(error)


def test_an_origin_that_is_not_there(proxy: str, tmp_path: Path):
    with once.client(proxy=f"socks5h://{proxy}") as client:
        error = client.download_file(url="http://127.0.0.1:1/a", file_path=tmp_path / "a").exception(PATIENCE)
    assert isinstance(error, rawdl.ProxyError)
    assert "refuses: connection refused" in str(error)
