"""`Client.stats` from another thread than that which drives."""

from __future__ import annotations

import rawdl
from tests.origin import Origin, Script

TASKS = 200
MOST_LOOKS = 10_000_000  # a bound for a test that hangs


def test_it_may_be_asked_while_another_thread_drives(origin: Origin) -> None:
    body = b"x" * 20_000
    url = origin.serve("/a", Script(body=body))
    seen = [0]
    with rawdl.Client() as client:
        tasks = [client.download_file(url=url, sink=rawdl.DiscardSink()) for _ in range(TASKS)]
        client.start()
        for _ in range(MOST_LOOKS):
            stats = client.stats()
            seen.append(stats.bytes_received)
            if stats.completed == TASKS:
                break
        assert [task.result().data_length for task in tasks] == [len(body)] * TASKS
        assert client.stats().bytes_received == TASKS * len(body)
    assert seen == sorted(seen) and seen[-1] <= TASKS * len(body)
