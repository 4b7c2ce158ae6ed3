"""A simulated network with a virtual clock, in which the real client runs: hours in milliseconds, one seed, no thread.

    @seeds(20)
    def test_N8_reset_in_the_body(seed, tmp_path):
        with World(seed) as world:
            world.listen("example.org", 80, http_peer(Script(body=b"x" * 1000)), link=Link(cut_at=500, cut="rst"))
            client = world.client()
            task = client.download_file(url="http://example.org/a", file_path=str(tmp_path / "a"))
            client.run()
            ...
            assert world.seen("peer saw FIN") == []

World     the clock, the events, the log, DNS and the hosts; makes sockets and clients
Link      the way between the client and one host: latency, bandwidth, segments, windows, faults at TCP offsets
Conn      a connection as the peer sees it; a peer is a generator function (or a callback) that is given one
http_peer a peer that answers by `tests.origin.Script`, the vocabulary that real sockets are tested with
seeds     run a test with n seeds; RAWDL_SIM_SEED=n replays one

A run is the same for the same seed, down to the log, but for TLS, whose messages vary by a byte or two.
"""

from tests.origin import Script
from tests.sim.conn import Conn, Link
from tests.sim.peers import http_peer
from tests.sim.seeds import replay_command, seeds
from tests.sim.selector import Deadlock, Selector
from tests.sim.sock import Socket
from tests.sim.world import World

__all__ = [
    "Conn",
    "Deadlock",
    "Link",
    "Script",
    "Selector",
    "Socket",
    "World",
    "http_peer",
    "replay_command",
    "seeds",
]
