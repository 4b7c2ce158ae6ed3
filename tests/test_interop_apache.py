"""Against a real Apache: passwords, by Basic and by Digest (RFC 7616, 7617)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import rawdl
from tests import once
from tests.apache import PASSWORD, USER, Apache
from tests.recorder import PATIENCE

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
    lines = [line for line in apache.log().splitlines() if "?only" in line]
    assert [line.split()[1] for line in lines] == ["401", "200"]
    assert "response=" in lines[1]
    assert not [line for line in lines if PASSWORD in line or "Basic" in line]
