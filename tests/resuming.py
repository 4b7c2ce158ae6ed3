"""One resource in the simulated network and one file, which clients download one after another as processes would."""

from __future__ import annotations

import hashlib
import json
import random
import ssl
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import rawdl
from rawdl.proto.ranges import OVERLAP
from tests.once import ONE_TRY
from tests.origin import Request, Script
from tests.resource import Fault, Resource
from tests.sim import Link, World, http_peer
from tests.sim_tests.fetch import HOST, SECURE_URL, URL, Fetch, check_update

BODY = random.Random(1).randbytes(40_000)  # no two places of it are alike, so that a shift is seen
OTHER = random.Random(2).randbytes(40_000)
SHA256 = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
CUT = 20_000
FROM_CUT = f"bytes={CUT - OVERLAP}-"  # how the rest is asked for where a file was written
AT_ONCE = rawdl.Retry(attempts=3, backoff=0)


class Attempt(Fetch):
    """A download whose counts may begin anew, if it says so (T11)."""

    def _check_progress(self) -> None:
        updates = self.of("progress")
        for update in updates:
            if not update.restarted:  # of an empty file even that tells 0 of 0, though it is not the end
                check_update(update)
        for before, after in pairwise(updates):
            assert after.restarted or after.total_bytes_written >= before.total_bytes_written
        if updates and "success" in self.names:
            last = updates[-1]
            assert (last.progress, last.length_computable, last.eta) == (100, True, 0.0)
            assert last.total_bytes_written == last.total_bytes_expected_to_write == self.of("success")[0].data_length

    def _check_headers(self) -> None:
        if not (self.outcome[0] == "success" and self.of("success")[0].skipped):
            super()._check_headers()

    @property
    def restarts(self) -> int:
        """How many events said that the counts begin anew."""
        return sum(update.restarted for update in self.of("progress"))


class Bench:
    """Serve `resource` at `url`, over TLS if there is a context, and download it to ``a`` in a folder."""

    def __init__(
        self, world: World, folder: Path, resource: Resource | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.world, self.folder, self.path = world, folder, folder / "a"
        self.part, self.journal = folder / "a.part", folder / "a.part.json"
        self.resource = resource or Resource(BODY)
        self.url = SECURE_URL if tls else URL
        self.client_options: dict[str, Any] = {}
        peer = http_peer({"/a": lambda request: self.resource(request)})
        self.listener = world.listen(HOST, 443 if tls else 80, peer, link=Link(segment=1000), tls=tls)

    def leave_out(self, name: str) -> None:
        """Have each 206 lack a field."""

        def answer(request: Request) -> Script:
            script = self.resource(request)
            kept = tuple(field for field in script.header if field[0] != name)
            return replace(script, header=kept) if script.status == 206 else script

        self.listener.peer = http_peer({"/a": answer})

    def slow_down(self, bytes_per_second: float) -> None:
        """Have the bytes come one segment after another."""
        self.listener.link = Link(segment=int(bytes_per_second / 20), bandwidth=bytes_per_second)

    def attempt(self, *faults: Fault | None, retry: rawdl.Retry = ONE_TRY, **options: Any) -> Attempt:
        """Download in a client of its own; each fault is for one request."""
        self.resource.faults = list(faults)
        client = self.world.client(retry=retry, **self.client_options)
        attempt = self.begin(client, **options)
        client.run()
        client.close()
        self._check_requests()
        return attempt

    def begin(self, client: rawdl.Client, **options: Any) -> Attempt:
        """Make a task; without another target it writes the file."""
        if not options.keys() & {"sink", "directory", "file_path"}:
            options["file_path"] = self.path
        return Attempt(client, options.pop("url", self.url), **options)

    def break_off(self, at: int = CUT, **options: Any) -> None:
        """Have a download end after so many bytes, and forget the requests of it."""
        attempt = self.attempt(Fault(in_body=at), **options)
        assert isinstance(attempt.error, rawdl.IncompleteBody)
        self.resource.log.clear()

    @property
    def asked(self) -> list[str | None]:
        """The Range of each request."""
        return self.resource.ranges_asked

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    @property
    def record(self) -> dict[str, Any]:
        """What the journal says."""
        return dict(json.loads(self.journal.read_text()))

    def rewrite(self, **fields: Any) -> None:
        """Have the journal say something else; what it says of `done` is then all that may be believed."""
        order = {"in_order": False} if "done" in fields else {}
        self.journal.write_text(json.dumps(self.record | order | fields))

    def assert_whole(self) -> None:
        """See that the file is there as the server has it, and nothing beside it."""
        assert self.path.read_bytes() == self.resource.body
        assert self.names == ["a"]

    def assert_kept(self, at: int = CUT) -> None:
        """See that so many bytes of BODY are there to be continued, and nothing else."""
        assert self.names == ["a.part", "a.part.json"]
        assert self.part.read_bytes() == BODY[:at]
        assert self.record["done"] == [[0, at]]

    def _check_requests(self) -> None:
        """T45, D5: what is asked for in parts is asked for under a validator, and uncoded."""
        for served in self.resource.log:
            assert (served.request.field("Range") is None) == (served.request.field("If-Range") is None)
            assert served.request.field("Accept-Encoding") == "identity"
