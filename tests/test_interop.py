"""Against a real server: what nginx sends is what arrives, by every lane."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

import rawdl
from tests import once
from tests.nginx import Nginx
from tests.recorder import PATIENCE, Recorder

pytestmark = pytest.mark.one_version

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = {"1k": KIB, "1m": MIB, "64m": 64 * MIB}
TARGETS = ["file_path", "temporary", "memory", "callable", "writable", "discard"]


@pytest.fixture(scope="module")
def files(nginx: Nginx) -> dict[str, str]:
    """Put files of these sizes where nginx serves them; return the SHA-256 of each."""
    digests = {}
    for name, size in SIZES.items():
        data = os.urandom(min(size, MIB)) * (size // min(size, MIB))
        (nginx.root / name).write_bytes(data)
        digests[name] = hashlib.sha256(data).hexdigest()
    return digests


@pytest.fixture
def client(nginx: Nginx) -> Iterator[rawdl.Client]:
    with once.client(tls=rawdl.TLS(ca_file=str(nginx.ca_file))) as client:
        yield client


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("name", SIZES)
def test_a_file_arrives_whole(
    name: str, scheme: str, nginx: Nginx, files: dict[str, str], client: rawdl.Client, tmp_path: Path
):
    recorder = Recorder()
    url = f"{getattr(nginx, scheme)}/{name}"
    result = recorder.download(client, url=url, file_path=tmp_path / name).result(PATIENCE)
    assert digest_of(tmp_path / name) == files[name]
    assert result.data_length == SIZES[name]
    assert result.header["server"].startswith("nginx")
    assert result.length_known
    assert recorder.of("progress")[-1].total_bytes_written == SIZES[name]
    assert recorder.outcome == ["success", "complete"]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("buffer_size", [4096, MIB])
@pytest.mark.parametrize("target", TARGETS)
def test_the_bytes_are_the_same_in_every_sink(
    target: str, buffer_size: int, scheme: str, nginx: Nginx, files: dict[str, str], tmp_path: Path
):
    digest = hashlib.sha256()
    memory = rawdl.MemorySink()
    written = (tmp_path / "w").open("wb")
    options: dict[str, dict[str, object]] = {
        "file_path": {"file_path": tmp_path / "a"},
        "temporary": {"directory": tmp_path},
        "memory": {"sink": memory},
        "callable": {"sink": digest.update},
        "writable": {"sink": written},
        "discard": {"sink": rawdl.DiscardSink()},
    }
    tls = rawdl.TLS(ca_file=str(nginx.ca_file))
    with written, once.client(tls=tls, buffer_size=buffer_size) as client:
        url = f"{getattr(nginx, scheme)}/1m"
        result = client.download_file(url=url, **options[target]).result(PATIENCE)
    assert result.data_length == MIB
    if target == "memory":
        digest.update(memory.getvalue())
    elif target != "callable" and target != "discard":
        path = result.file_path or result.temp_file_path or tmp_path / "w"
        digest.update(Path(path).read_bytes())
    assert target == "discard" or digest.hexdigest() == files["1m"]


@pytest.mark.parametrize("name", SIZES)
def test_chunks_arrive_whole(name: str, nginx: Nginx, files: dict[str, str], client: rawdl.Client, tmp_path: Path):
    if not nginx.has_chunked:
        pytest.skip("this nginx was built without http_sub_module")
    result = client.download_file(url=f"{nginx.http}/chunked/{name}", file_path=tmp_path / name).result(PATIENCE)
    assert result.header["transfer-encoding"] == "chunked"
    assert "content-length" not in result.header
    assert digest_of(tmp_path / name) == files[name]
    assert client.download_file(url=f"{nginx.http}/1k", sink=rawdl.DiscardSink()).result().profile.socket_reused


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_keep_alive(scheme: str, nginx: Nginx, files: dict[str, str], client: rawdl.Client):
    for count in range(50):
        sink = rawdl.MemorySink()
        result = client.download_file(url=f"{getattr(nginx, scheme)}/1k", sink=sink).result(PATIENCE)
        assert result.profile.socket_reused == (count > 0)
        assert hashlib.sha256(sink.getvalue()).hexdigest() == files["1k"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_many_at_once(scheme: str, nginx: Nginx, files: dict[str, str], tmp_path: Path):
    tls = rawdl.TLS(ca_file=str(nginx.ca_file))
    with once.client(tls=tls, max_concurrent=64, max_per_host=64) as client:
        url = f"{getattr(nginx, scheme)}/1m"
        tasks = [client.download_file(url=url, file_path=tmp_path / str(n)) for n in range(64)]
        assert client.run(PATIENCE) is False
    assert [task.result().data_length for task in tasks] == [MIB] * 64
    assert {digest_of(tmp_path / str(n)) for n in range(64)} == {files["1m"]}


def test_a_range_that_the_caller_sets_gives_its_part(nginx: Nginx, files: dict[str, str], client: rawdl.Client):
    sink = rawdl.MemorySink()
    header = {"Range": "bytes=100-199"}
    result = client.download_file(url=f"{nginx.http}/1k", sink=sink, header=header).result(PATIENCE)
    assert result.status_code == 206
    assert result.header["content-range"] == f"bytes 100-199/{KIB}"
    assert sink.getvalue() == (nginx.root / "1k").read_bytes()[100:200]
    header = {"Range": "bytes=5000-"}
    assert client.download_file(url=f"{nginx.http}/1k", sink=sink, header=header).result(PATIENCE).status_code == 416


def test_T22_a_missing_file(nginx: Nginx, client: rawdl.Client, tmp_path: Path):
    url = f"{nginx.http}/nowhere"
    result = client.download_file(url=url, file_path=tmp_path / "a").result(PATIENCE)
    assert result.status_code == 404
    assert b"404" in (tmp_path / "a").read_bytes()
    error = client.download_file(url=url, file_path=tmp_path / "b", fail_on_status=True).exception(PATIENCE)
    assert isinstance(error, rawdl.StatusError)
    assert not (tmp_path / "b").exists()


def test_a_redirect_is_followed(nginx: Nginx, files: dict[str, str], client: rawdl.Client):
    result = client.download_file(url=f"{nginx.http}/redirect/1k", sink=rawdl.MemorySink()).result(PATIENCE)
    assert result.status_code == 200
    assert result.redirects == (f"{nginx.http}/redirect/1k",)
    assert result.url == f"{nginx.http}/1k"
    assert result.data_length == 1024
    assert result.profile.socket_reused  # the body of the redirect was small enough to be read


def test_S40_a_redirect_is_an_answer_where_none_is_followed(nginx: Nginx, files: dict[str, str], client: rawdl.Client):
    task = client.download_file(
        url=f"{nginx.http}/redirect/1k", sink=rawdl.MemorySink(), redirects=rawdl.Redirects(limit=0)
    )
    assert task.result(PATIENCE).status_code == 302
    assert task.result().header["location"].endswith("/1k")


def test_a_head_only_status(nginx: Nginx, files: dict[str, str], client: rawdl.Client):
    """A conditional request of the caller's gets its 304, which has no body."""
    first = client.download_file(url=f"{nginx.http}/1k", sink=rawdl.MemorySink()).result(PATIENCE)
    header = {"If-None-Match": first.header["etag"]}
    result = client.download_file(url=f"{nginx.http}/1k", sink=rawdl.MemorySink(), header=header).result(PATIENCE)
    assert (result.status_code, result.data_length) == (304, 0)
    assert client.download_file(url=f"{nginx.http}/1k", sink=rawdl.MemorySink()).result().profile.socket_reused


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_T14_an_empty_file(scheme: str, nginx: Nginx, client: rawdl.Client, tmp_path: Path):
    (nginx.root / "empty").touch()
    result = client.download_file(url=f"{getattr(nginx, scheme)}/empty", file_path=tmp_path / "a").result(PATIENCE)
    assert result.data_length == 0
    assert (tmp_path / "a").stat().st_size == 0


def test_a_slow_transfer_is_told_as_it_goes(nginx: Nginx, client: rawdl.Client):
    """200 kB/s after a first burst, abandoned after some events."""
    (nginx.root / "slow.bin").write_bytes(b"x" * MIB)
    recorder = Recorder()
    recorder.react("progress", lambda event: task.abort() if event.total_bytes_written > 200_000 else None)
    task = recorder.download(client, url=f"{nginx.http}/slow/slow.bin", sink=rawdl.DiscardSink(), progress_interval=0)
    assert isinstance(task.exception(PATIENCE), rawdl.Aborted)
    assert 2 <= len(recorder.of("progress")) < 100
    assert recorder.of("progress")[-1].total_bytes_written < MIB


def test_B1_what_stands_in_the_url_finds_its_file(nginx: Nginx, client: rawdl.Client):
    name = "a b#c?d%e;f=g&h'ü€.bin"
    (nginx.root / name).write_bytes(b"found")
    sink = rawdl.MemorySink()
    url = nginx.http + "/a b%23c%3Fd%25e;f=g&h'ü€.bin?query"
    assert client.download_file(url=url, sink=sink).result(PATIENCE).status_code == 200
    assert sink.getvalue() == b"found"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_T15_K14_a_gibibyte(scheme: str, nginx: Nginx, client: rawdl.Client, tmp_path: Path):
    """A sparse file with a mark at either end, so that no disk is filled."""
    path = nginx.root / "1g"
    with path.open("wb") as file:
        file.write(b"begin")
        file.seek(GIB - 3)
        file.write(b"end")
    recorder = Recorder()
    try:
        url = f"{getattr(nginx, scheme)}/1g"
        result = recorder.download(client, url=url, file_path=tmp_path / "a").result(60)
        assert result.data_length == GIB == (tmp_path / "a").stat().st_size
        with (tmp_path / "a").open("rb") as file:
            assert file.read(7) == b"begin\0\0"
            file.seek(GIB - 5)
            assert file.read() == b"\0\0end"
    finally:
        (tmp_path / "a").unlink(missing_ok=True)
        path.unlink()
    events = recorder.of("progress")
    seconds = (result.profile.response_end - result.profile.response_start) / 1000
    assert 2 <= len(events) <= seconds / 0.05 + 3, "the number of events is bounded by the time"
    assert [event.total_bytes_written for event in events] == sorted(event.total_bytes_written for event in events)


def test_a_coding_comes_off(nginx: Nginx, client: rawdl.Client, tmp_path: Path):
    text = b"".join(b"line %d\n" % number for number in range(200_000))
    (nginx.root / "text").write_bytes(text)
    task = client.download_file(url=f"{nginx.http}/gzip/text", file_path=tmp_path / "text", decode=True)
    result = task.result(PATIENCE)
    assert result.header["content-encoding"] == "gzip"
    assert (tmp_path / "text").read_bytes() == text
    assert task.progress.total_bytes_written < len(text) / 2
    assert result.data_length == task.progress.decoded_bytes_written == len(text)


@pytest.mark.parametrize("known", [True, False])
def test_a_client_certificate(known: bool, nginx: Nginx, ca: trustme.CA, tmp_path: Path):
    (nginx.root / "for-me").write_bytes(b"for me")
    path = tmp_path / "me.pem"
    ca.issue_cert("me@example.org", common_name="me").private_key_and_cert_chain_pem.write_to_path(str(path))
    tls = rawdl.TLS(ca_file=nginx.ca_file, client_cert=path if known else None)
    sink = rawdl.MemorySink()
    with once.client(tls=tls) as client:
        result = client.download_file(url=f"{nginx.strict}/for-me", sink=sink).result(PATIENCE)
    assert result.status_code == (200 if known else 400)
    assert ("CN=me" in result.header.get("x-client", "")) is known
    assert (sink.getvalue() == b"for me") is known
