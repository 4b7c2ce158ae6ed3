"""Content codings taken off on the way to the sink (T13, D1-D5, H11)."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rawdl
from tests.once import ONE_TRY
from tests.resource import Fault, Resource, redirect
from tests.sim import Link, Script, World
from tests.sim_tests.journeys import AT_ONCE, A, B, fields, journey, serve

BODY = bytes(range(256)) * 400
CODED = gzip.compress(BODY)


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def coded(data: bytes = CODED, coding: str = "gzip", **how: Any) -> Script:
    header = (("Content-Encoding", coding), *how.pop("header", ()))
    return Script(body=data, header=header, **how)


def get(world: World, **options: Any) -> Any:
    return journey(world, f"http://{A}/a", {"retry": options.pop("retry", ONE_TRY)}, decode=True, **options)


@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
def test_T13_the_wire_is_counted_and_what_is_saved_is_decoded(world: World, framing: str, tmp_path: Path):
    serve(world, A, coded(framing=framing), link=Link(segment=100))
    taken = get(world, file_path=tmp_path / "a", progress_interval=0)
    assert (tmp_path / "a").read_bytes() == BODY
    result, last = taken.result, taken.of("progress")[-1]
    assert (result.data_length, result.content_encoding, result.length_known) == (
        len(BODY),
        "",
        framing != "until-close",
    )
    assert (last.total_bytes_written, last.decoded_bytes_written) == (len(CODED), len(BODY))
    counts = [update.decoded_bytes_written for update in taken.of("progress")]
    assert counts == sorted(counts)
    assert taken.task.progress.decoded_bytes_written == len(BODY)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("where", ["file", "memory", "callable"])
def test_every_sink_gets_decoded_bytes(world: World, where: str, tmp_path: Path):
    serve(world, A, coded(zlib.compress(BODY), "deflate"))
    got: list[bytes] = []
    sink = rawdl.MemorySink()
    options = {
        "file": {"directory": tmp_path},
        "memory": {"sink": sink},
        "callable": {"sink": lambda d: got.append(bytes(d))},
    }
    result = get(world, **options[where]).result
    found = {
        "file": lambda: Path(result.temp_file_path).read_bytes(),
        "memory": sink.getvalue,
        "callable": lambda: b"".join(got),
    }
    assert found[where]() == BODY
    assert result.data_length == len(BODY)


def test_D5_what_is_asked_for(world: World):
    serve(world, A, Script(body=BODY))
    journey(world, f"http://{A}/a")
    with world.client() as client:
        for options in ({"decode": True}, {"decode": True, "header": {"Accept-Encoding": "br"}}):
            client.download_file(url=f"http://{A}/a", sink=rawdl.DiscardSink(), **options).result()
    asked = [fields(request)["accept-encoding"] for request in world.requests]
    assert asked[0] == "identity"
    assert asked[1].startswith("gzip, deflate")
    assert asked[2] == "br"


def test_D5_what_comes_uncoded_is_as_it_came(world: World):
    serve(world, A, Script(body=BODY))
    taken = get(world)
    assert taken.body == BODY
    assert taken.of("progress")[-1].decoded_bytes_written is None


def test_D5_without_decode_a_coded_body_is_saved_as_it_came(world: World):
    serve(world, A, coded())
    taken = journey(world)
    assert (taken.body, taken.result.content_encoding) == (CODED, "gzip")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (coded(CODED[:-1]), "incomplete"),
        (coded(CODED[:-1], framing="chunked"), "incomplete"),
        (coded(b"nonsense"), "broken"),
        (coded(CODED + b"junk"), "behind its end"),
        (coded(BODY, "compress"), "unknown content coding: compress"),
        (coded(BODY, "gzip, " * 5 + "gzip"), "6 content codings"),
        (coded(header=[("Content-Encoding", "gzip")] * 5), "6 content codings"),
    ],
)
def test_D1_D3_D4_H11_what_cannot_be_decoded_is_no_success(world: World, script: Script, words: str, tmp_path: Path):
    serve(world, A, script)
    taken = get(world, file_path=tmp_path / "a", retry=AT_ONCE)
    assert isinstance(taken.error, rawdl.DecodingError)
    assert words in str(taken.error)
    assert len(world.requests) == 1, "it would be the same again"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("limit", "fails"), [(len(BODY) - 1, True), (len(BODY), False)])
def test_D2_the_decoded_bytes_have_a_limit(world: World, limit: int, fails: bool, tmp_path: Path):
    serve(world, A, coded())
    taken = get(world, file_path=tmp_path / "a", limits=rawdl.Limits(decoded=limit))
    assert isinstance(taken.error, rawdl.TooLarge) if fails else taken.result.data_length == len(BODY)
    assert (tmp_path / "a").exists() != fails


def test_D2_the_body_of_a_redirect_is_not_decoded(world: World):
    serve(world, A, redirect(f"http://{B}/b", body=b"no gzip", header=[("Content-Encoding", "gzip")]))
    serve(world, B, coded())
    assert get(world).body == BODY


def test_N9_D5_what_is_cut_off_begins_anew(world: World, tmp_path: Path):
    """What is there cannot tell where in the coded body it ends."""
    tag = (("ETag", '"a"'),)
    scripts = [coded(cut_at=len(CODED) // 2 + 100, header=tag), coded(header=tag)]
    serve(world, A, lambda request: scripts.pop(0))
    taken = get(world, file_path=tmp_path / "a", retry=AT_ONCE)
    assert (tmp_path / "a").read_bytes() == BODY
    assert [fields(request).get("range") for request in world.requests] == [None, None]
    assert len(taken.result.attempts) == 1


def test_N9_what_came_uncoded_goes_on(world: World, tmp_path: Path):
    resource = Resource(BODY, faults=[Fault(in_body=50_000)])
    serve(world, A, resource)
    assert get(world, file_path=tmp_path / "a", retry=AT_ONCE).result.attempts != ()
    assert (tmp_path / "a").read_bytes() == BODY
    assert resource.ranges_asked == [None, f"bytes={50_000 - 4096}-"]


def test_T47_R1_nothing_tells_of_a_version_meanwhile(world: World, tmp_path: Path):
    """A process that is killed now would leave decoded bytes, which no range can be asked for behind."""
    body = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(10_000))
    serve(world, A, coded(gzip.compress(body), header=(("ETag", '"a"'),)), link=Link(segment=1000, bandwidth=100_000.0))
    seen = set()
    client = world.client()
    task = client.download_file(url=f"http://{A}/a", file_path=tmp_path / "a", decode=True)
    task.on_progress_update(lambda update: seen.update(path.name for path in tmp_path.iterdir()))
    task.result()
    client.close()
    assert world.elapsed > 2
    assert seen == {"a.part"}


def test_N9_and_leaves_no_part(world: World, tmp_path: Path):
    serve(world, A, coded(cut_at=len(CODED) // 2 + 100, header=(("ETag", '"a"'),)))
    taken = get(world, file_path=tmp_path / "a")
    assert isinstance(taken.error, rawdl.IncompleteBody)
    assert taken.error.part is None
    assert list(tmp_path.iterdir()) == []


def test_the_callers_checksum_is_of_the_decoded_bytes(world: World, tmp_path: Path):
    """And the server's digest, which is of the coded ones, is not held against them (RFC 9530 3)."""
    digest = b64encode(hashlib.sha256(CODED).digest()).decode()
    serve(world, A, coded(header=(("Repr-Digest", f"sha-256=:{digest}:"),)))
    checksum = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
    assert get(world, file_path=tmp_path / "a", checksum=checksum).result.checksum == checksum
    with world.client(retry=ONE_TRY) as client:
        task = client.download_file(
            url=f"http://{A}/a", file_path=tmp_path / "b", decode=True, checksum=f"md5:{'0' * 32}"
        )
        assert isinstance(task.exception(), rawdl.ChecksumError)
        task = client.download_file(
            url=f"http://{A}/a", sink=rawdl.MemorySink(), decode=True, checksum=f"md5:{'0' * 32}"
        )
        assert isinstance(task.exception(), rawdl.ChecksumError)
        assert client.download_file(url=f"http://{A}/a", sink=rawdl.MemorySink(), decode=True).result().checksum == ""


@pytest.mark.parametrize(
    "options", [{"resume": True}, {"connections": 2}, {"header": {"Range": "bytes=0-"}}, {"decode": 1}]
)
def test_S11_D5_what_does_not_go_together(world: World, options: dict[str, Any], tmp_path: Path):
    with world.client() as client, pytest.raises((TypeError, ValueError), match="decode"):
        client.download_file(**{"url": f"http://{A}/a", "file_path": tmp_path / "a", "decode": True, **options})
